//! `images`: building the sidecars, pinning pipelock.

use super::{Here, run::places};
use crate::cli::{Images, ImagesCommand};
use crate::error::Failure;
use crate::exit::Exit;
use crate::images::{self, Pins};

/// Builds or pins.
pub async fn images(here: &Here, args: Images) -> Result<Exit, Failure> {
    let engine = here.engine().await?;
    let config = places(here)?.config;
    let progress = |text: &str| here.ui.progress(text);
    match args.command {
        ImagesCommand::Build => {
            let reference = images::pipelock_reference(None, None)?;
            let pipelock = images::pipelock(&engine, &reference, &config, &progress).await?;
            let ready = images::ready(&engine, &pipelock.id, images::Wanted::ALL, &progress).await?;
            here.ui.wipe();
            for image in [
                &ready.images.pipelock,
                &ready.images.cred_proxy,
                &ready.images.git_gate,
                &ready.images.supervise,
                &ready.images.wall,
            ] {
                here.ui.data(&format!("{image}\n"));
            }
        }
        ImagesCommand::Pin { image } => {
            let reference = images::pipelock_reference(image.as_deref(), None)?;
            let pipelock = images::pipelock(&engine, &reference, &config, &progress).await?;
            here.ui.wipe();
            Pins::load(&config)?.record(&reference, &pipelock.id)?;
            here.ui.line(&format!("{reference} is {} from now on", pipelock.id));
        }
    }
    Ok(Exit::Success)
}
