//! The keeper's side of its socket: one task a client.

use super::Shared;
use crate::engine::{Chunk, Engine, ExecSpec};
use crate::exit::Exit;
use crate::keeper_socket::{Ending, Frame, Hello, Reader, ToClient, ToKeeper, Writer, split};
use crate::stop::Level;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// How often an ended exec is asked for its status before it counts as lost.
const CODE_LOOKS: u32 = 100;
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Serves clients as long as the keeper lives.
pub async fn serve<E: Engine>(listener: UnixListener, shared: Arc<Shared<E>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let (reader, writer) = split(stream);
                    client(reader, writer, shared).await;
                });
            }
            Err(error) => {
                shared.log.line("keeper", "err", &format!("a client cannot be served: {error}"));
                // Out of descriptors, most likely: trying again at once would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn client<E: Engine>(mut reader: Reader, mut writer: Writer, shared: Arc<Shared<E>>) {
    let Ok(Some(Frame::Words(hello))) = reader.next::<Hello>().await else { return };
    // A client that has gone is told nothing; what it asked for is done all the same.
    match hello {
        Hello::Own { tty } => {
            shared.console.set_size(tty);
            watch(reader, writer, &shared, false, Parting::Ends).await;
        }
        Hello::Attach { tty } => {
            if tty.is_some() && shared.console.size().borrow().is_some() {
                shared.console.set_size(tty);
            }
            watch(reader, writer, &shared, true, Parting::LetsGo).await;
        }
        Hello::Exec { argv, tty } => exec(reader, writer, &shared, argv, tty).await,
        Hello::Status => {
            let _ = writer.say(&shared.status()).await;
        }
        Hello::Stop { now } => {
            shared.stopper.raise(if now { Level::Now } else { Level::Graceful });
            watch(reader, writer, &shared, false, Parting::LetsGo).await;
        }
    }
}

/// What it means when a client goes without a word.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Parting {
    /// The bottle ends: its terminal was closed, or it was killed.
    Ends,
    /// Nothing.
    LetsGo,
}

/// Shows a client the agent, and takes what it types.
async fn watch<E: Engine>(mut reader: Reader, writer: Writer, shared: &Arc<Shared<E>>, replay: bool, parting: Parting) {
    let (id, frames) = shared.console.join(replay);
    let writing = tokio::spawn(write(writer, frames));
    if parting == Parting::Ends {
        shared.owner.notify_one();
    }
    let mut detached = false;
    while let Ok(Some(frame)) = reader.next::<ToKeeper>().await {
        match frame {
            Frame::Data(bytes) | Frame::ErrorData(bytes) => shared.console.type_in(&bytes).await,
            Frame::Words(ToKeeper::Resize { size }) => shared.console.set_size(Some(size)),
            Frame::Words(ToKeeper::InputEnd) => shared.console.end_input().await,
            Frame::Words(ToKeeper::Stop) => shared.stopper.next(),
            Frame::Words(ToKeeper::Detach) => {
                detached = true;
                break;
            }
        }
    }
    if parting == Parting::Ends && !detached {
        shared.stopper.raise(Level::Graceful);
    }
    shared.console.leave(id);
    // It ends when the console has let the client go and everything is written, or the client is gone.
    let _ = writing.await;
}

async fn write(mut writer: Writer, mut frames: mpsc::Receiver<Frame<ToClient>>) {
    while let Some(frame) = frames.recv().await {
        if writer.send(&frame).await.is_err() {
            break;
        }
    }
}

/// Runs one more program in the agent's container, with the agent's user and environment.
async fn exec<E: Engine>(
    mut reader: Reader,
    mut writer: Writer,
    shared: &Arc<Shared<E>>,
    argv: Vec<String>,
    tty: Option<(u16, u16)>,
) {
    let Some(agent) = shared.agent.get() else {
        let _ = writer.say(&ToClient::Refused { reason: "the agent does not run yet".to_owned() }).await;
        return;
    };
    let spec = ExecSpec { argv, tty, ..agent.spec.clone() };
    let mut exec = match shared.engine.exec(&spec).await {
        Ok(exec) => exec,
        Err(error) => {
            let failure = super::agent::not_run(&spec.argv, &error);
            let _ = writer.say(&ended(failure.exit, Some((failure.message, failure.hint)))).await;
            return;
        }
    };
    let mut reading = true;
    loop {
        tokio::select! {
            chunk = exec.streams.output.next() => {
                let frame: Frame<ToClient> = match chunk {
                    Some(Ok(Chunk::Out(bytes))) => Frame::Data(bytes),
                    Some(Ok(Chunk::Err(bytes))) => Frame::ErrorData(bytes),
                    Some(Err(_)) | None => break,
                };
                if writer.send(&frame).await.is_err() {
                    return;
                }
            }
            frame = reader.next::<ToKeeper>(), if reading => match frame {
                Ok(Some(Frame::Data(bytes) | Frame::ErrorData(bytes))) => {
                    // A program that reads no more is no error of the client.
                    let _ = exec.streams.input.write_all(&bytes).await;
                    let _ = exec.streams.input.flush().await;
                }
                Ok(Some(Frame::Words(ToKeeper::Resize { size }))) => {
                    let _ = shared.engine.resize(&exec.handle, size).await;
                }
                Ok(Some(Frame::Words(ToKeeper::InputEnd))) => {
                    let _ = exec.streams.input.shutdown().await;
                }
                Ok(Some(Frame::Words(ToKeeper::Stop | ToKeeper::Detach)) | None) | Err(_) => reading = false,
            }
        }
    }
    let code = code(&*shared.engine, &exec.handle).await;
    let exit = code.map_or(Exit::Launch, |code| Exit::Agent(u8::try_from(code).unwrap_or(u8::MAX)));
    let _ = writer.say(&ended(exit, None)).await;
}

fn ended(exit: Exit, failed: Option<(String, Option<String>)>) -> ToClient {
    let (error, hint) = failed.map_or((None, None), |(error, hint)| (Some(error), hint));
    ToClient::Ended(Box::new(Ending { exit, error, hint, report: None, leftovers: Vec::new() }))
}

/// The status of an exec whose output has ended; the engine may say it a moment later.
pub async fn code<E: Engine>(engine: &E, handle: &str) -> Option<i64> {
    for _ in 0..CODE_LOOKS {
        match engine.exec_code(handle).await {
            Ok(Some(code)) => return Some(code),
            Ok(None) => tokio::time::sleep(LOOK).await,
            Err(_) => return None,
        }
    }
    None
}
