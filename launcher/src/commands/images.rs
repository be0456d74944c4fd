//! `images`: building and exporting the sidecars, pinning pipelock.

use super::{Here, run::places};
use crate::cli::{Images, ImagesCommand};
use crate::engine::docker::archive;
use crate::error::Failure;
use crate::exit::Exit;
use crate::images::{self, Pins};
use crate::manifest::load;
use std::path::Path;

/// Builds, exports or pins.
pub async fn images(here: &Here, args: Images) -> Result<Exit, Failure> {
    if let ImagesCommand::Export { out } = &args.command {
        return export(here, out);
    }
    let engine = here.engine().await?;
    let places = places(here)?;
    let (user, config) = (load::user(&places).pipelock_image, places.config);
    let progress = |text: &str| here.ui.progress(text);
    match args.command {
        ImagesCommand::Build => {
            let reference = images::pipelock_reference(None, user.as_deref())?;
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
        // Done above, without an engine.
        ImagesCommand::Export { .. } => {}
        ImagesCommand::Pin { image } => {
            let reference = images::pipelock_reference(image.as_deref(), user.as_deref())?;
            let pipelock = images::pipelock(&engine, &reference, &config, &progress).await?;
            here.ui.wipe();
            Pins::load(&config)?.record(&reference, &pipelock.id)?;
            here.ui.line(&format!("{reference} is {} from now on", pipelock.id));
        }
    }
    Ok(Exit::Success)
}

/// Writes an archive for each image of a sidecar, and says which names an engine will have them by.
fn export(here: &Here, out: &Path) -> Result<Exit, Failure> {
    let failed = |e: std::io::Error| Failure::launch(format!("{} cannot be written: {e}", out.display()), None);
    let images = images::of_sidecars(&|text| here.ui.progress(text))?;
    here.ui.wipe();
    std::fs::create_dir_all(out).map_err(failed)?;
    for (name, image) in images {
        let archive = archive(&image).map_err(failed)?;
        let file = out.join(format!("{name}.tar"));
        std::fs::write(&file, &archive.bytes).map_err(failed)?;
        here.ui.data(&format!("{}  {}  {}\n", file.display(), image.tag, archive.id));
    }
    Ok(Exit::Success)
}
