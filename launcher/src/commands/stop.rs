//! `stop`: ends a bottle and waits until nothing of it is left.

use super::{Here, attach::say, run::parting};
use crate::attach::{Part, Parted, stay};
use crate::cli::Stop;
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::Hello;
use crate::plan::print;

/// Ends a bottle.
pub async fn stop(here: &Here, args: &Stop) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let (reader, mut writer) = here.keeper(&dir).await?;
    say(&mut writer, &Hello::Stop { now: args.now }).await?;
    match stay(reader, writer, Part::Waiter, false, false, here.ui).await {
        // It did what was asked: the status with which the bottle itself ended is its own client's business.
        Parted::Ended(ending) if ending.leftovers.is_empty() => {
            match &ending.report {
                Some(report) => here.ui.line(&print::report(report, dir.id())),
                None => gone(here, dir.id()),
            }
            Ok(Exit::Success)
        }
        // It was ending already, and had said so to those who were there.
        Parted::KeeperLost if dir.recorded().is_none() => {
            gone(here, dir.id());
            Ok(Exit::Success)
        }
        parted @ (Parted::Ended(_) | Parted::LetGo | Parted::KeeperLost | Parted::Refused(_) | Parted::Out) => {
            parting(here, &dir, parted)
        }
    }
}

fn gone(here: &Here, id: &str) {
    here.ui.line(&format!("bottle {id} ended; nothing of it is left on the engine"));
}
