//! x

use super::Here;
use crate::cli::Demo;
use crate::error::Failure;
use crate::exit::Exit;

/// x
pub async fn demo(_here: &Here, _args: &Demo) -> Result<Exit, Failure> {
    Ok(Exit::No)
}
