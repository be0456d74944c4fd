//! Keeps the folder in the agent's container true that says how its bottle is. It is written through the engine, since nothing
//! of the keeper's is in there; what could not be written is tried again with the next change.

use super::{Shared, current};
use crate::engine::Engine;
use crate::error::chain;
use crate::plan::provision;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use supervise::wire::Current;
use tokio::sync::watch;

/// The least time between two writes: an agent that is refused without end must not keep the engine busy.
const EVERY: Duration = Duration::from_secs(2);

/// Writes whatever comes last, until nobody sends any more. The folder begins as `current`.
pub fn begin<E: Engine>(shared: &Arc<Shared<E>>, container: String, current: Current) -> watch::Sender<Current> {
    let (sender, mut changed) = watch::channel(current);
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        while changed.changed().await.is_ok() {
            let files = current::files(&changed.borrow_and_update());
            let written = match provision::current_archive(&files) {
                Ok(archive) => {
                    let bytes = futures_util::stream::once(async move { Ok(bytes::Bytes::from(archive)) }).boxed();
                    shared.engine.put(&container, "/", bytes).await.map_err(|e| chain(&e))
                }
                Err(error) => Err(chain(&error)),
            };
            if let Err(error) = written {
                let text = format!("the agent's {} cannot be written: {error}", provision::CURRENT);
                shared.log.line("keeper", "err", &text);
            }
            tokio::time::sleep(EVERY).await;
        }
    });
    sender
}
