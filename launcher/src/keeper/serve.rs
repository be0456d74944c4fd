//! The keeper's side of its socket: one task a client.

use super::Shared;
use super::desk::Visit;
use crate::engine::{Chunk, Engine, ExecSpec, Streams};
use crate::exit::Exit;
use crate::keeper_socket::{Ending, Frame, Hello, INPUT_UNDER_WAY_MAX, Reader, ToClient, ToKeeper, Writer, split};
use crate::stop::Level;
use crate::verdict::{Reply, Request};
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, oneshot};

/// How often an ended exec is asked for its status before it counts as lost.
const CODE_LOOKS: u32 = 100;
/// The pause between two looks.
const LOOK: Duration = Duration::from_millis(20);

/// Pieces of input that may wait for the program: more than a client sends unasked.
const INPUT_WAITING_MAX: usize = 4 * INPUT_UNDER_WAY_MAX;

/// Serves clients as long as the keeper lives.
pub async fn serve<E: Engine>(listener: UnixListener, shared: Arc<Shared<E>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let shared = Arc::clone(&shared);
                let by = stream.peer_cred().map_or_else(|_| "somebody".to_owned(), |who| format!("uid {}", who.uid()));
                tokio::spawn(async move {
                    let (reader, writer) = split(stream);
                    client(reader, writer, shared, &by).await;
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

async fn client<E: Engine>(mut reader: Reader, mut writer: Writer, shared: Arc<Shared<E>>, by: &str) {
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
        Hello::Desk { request } => at_the_desk(reader, writer, &shared, *request, by).await,
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
    let (typing, typed) = mpsc::channel(INPUT_WAITING_MAX);
    tokio::spawn(type_in(Arc::clone(shared), id, typed));
    let mut detached = false;
    while let Ok(Some(frame)) = reader.next::<ToKeeper>().await {
        match frame {
            // Never waited for: an agent that reads nothing must not hide that the client wants the end, or has gone.
            Frame::Data(bytes) | Frame::ErrorData(bytes) => {
                if typing.try_send(Typed::Bytes(bytes)).is_err() {
                    break;
                }
            }
            Frame::Words(ToKeeper::InputEnd) => {
                if typing.try_send(Typed::End).is_err() {
                    break;
                }
            }
            Frame::Words(ToKeeper::Resize { size }) => shared.console.set_size(Some(size)),
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

/// Hands an operator's request to the desk, and its answer back; one that watches is answered after every change.
async fn at_the_desk<E: Engine>(
    mut reader: Reader,
    mut writer: Writer,
    shared: &Shared<E>,
    request: Request,
    by: &str,
) {
    let refused = |reason: &str| Reply::Refused { reason: reason.to_owned(), hint: None };
    let Some(mut door) = shared.desk.get().cloned() else {
        let _ = writer.say(&ToClient::Desk { reply: refused("the agent does not run yet") }).await;
        return;
    };
    let watches = matches!(request, Request::List { watch: true });
    loop {
        door.changes.mark_unchanged();
        let (reply, answer) = oneshot::channel();
        let visit = Visit { request: request.clone(), by: by.to_owned(), reply };
        let answer = match door.visits.send(visit).await {
            Ok(()) => answer.await.unwrap_or_else(|_| refused("the bottle ends")),
            Err(_) => refused("the bottle ends"),
        };
        let is_over = !watches || matches!(answer, Reply::Refused { .. });
        if writer.say(&ToClient::Desk { reply: answer }).await.is_err() || is_over {
            return;
        }
        tokio::select! {
            changed = door.changes.changed() => if changed.is_err() { return },
            // It has gone: whatever else it says means the same.
            _ = reader.next::<ToKeeper>() => return,
        }
    }
}

/// Input on its way to a program.
enum Typed {
    Bytes(bytes::Bytes),
    End,
}

/// Hands a client's input to the agent, and tells the client piece by piece that it may send more.
async fn type_in<E: Engine>(shared: Arc<Shared<E>>, id: u64, mut typed: mpsc::Receiver<Typed>) {
    while let Some(piece) = typed.recv().await {
        match piece {
            Typed::Bytes(bytes) => {
                shared.console.type_in(&bytes).await;
                shared.console.taken(id).await;
            }
            Typed::End => shared.console.end_input().await,
        }
    }
}

async fn write(mut writer: Writer, mut frames: mpsc::Receiver<Frame<ToClient>>) {
    while let Some(frame) = frames.recv().await {
        let last = matches!(frame, Frame::Words(ToClient::Ended(_)));
        if writer.send(&frame).await.is_err() || last {
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
    let exec = match shared.engine.exec(&spec).await {
        Ok(exec) => exec,
        Err(error) => {
            let failure = super::agent::not_run(&spec.argv, &error);
            let _ = writer.say(&ended(failure.exit, Some((failure.message, failure.hint)))).await;
            return;
        }
    };
    let Streams { input, mut output } = exec.streams;
    // Input goes its own way: a program that waits for its output to be read takes no input meanwhile.
    let (typing, typed) = mpsc::channel(INPUT_WAITING_MAX);
    let (taken, mut tell) = mpsc::channel(INPUT_WAITING_MAX);
    let feeding = tokio::spawn(feed(input, typed, taken));
    let mut typing = Some(typing);
    let mut reading = true;
    loop {
        tokio::select! {
            chunk = output.next() => {
                let frame: Frame<ToClient> = match chunk {
                    Some(Ok(Chunk::Out(bytes))) => Frame::Data(bytes),
                    Some(Ok(Chunk::Err(bytes))) => Frame::ErrorData(bytes),
                    Some(Err(_)) | None => break,
                };
                if writer.send(&frame).await.is_err() {
                    feeding.abort();
                    return;
                }
            }
            Some(()) = tell.recv() => {
                let _ = writer.say(&ToClient::Taken).await;
            }
            frame = reader.next::<ToKeeper>(), if reading => {
                let piece = match frame {
                    Ok(Some(Frame::Data(bytes) | Frame::ErrorData(bytes))) => Typed::Bytes(bytes),
                    Ok(Some(Frame::Words(ToKeeper::InputEnd))) => Typed::End,
                    Ok(Some(Frame::Words(ToKeeper::Resize { size }))) => {
                        let _ = shared.engine.resize(&exec.handle, size).await;
                        continue;
                    }
                    Ok(Some(Frame::Words(ToKeeper::Stop | ToKeeper::Detach))) => {
                        reading = false;
                        continue;
                    }
                    // A client that has gone types no more: the program's input ends.
                    Ok(None) | Err(_) => {
                        (reading, typing) = (false, None);
                        continue;
                    }
                };
                if typing.as_ref().is_some_and(|typing| typing.try_send(piece).is_err()) {
                    (reading, typing) = (false, None);
                }
            }
        }
    }
    feeding.abort();
    let code = code(&*shared.engine, &exec.handle).await;
    let exit = code.map_or(Exit::Launch, |code| Exit::Agent(u8::try_from(code).unwrap_or(u8::MAX)));
    let _ = writer.say(&ended(exit, None)).await;
}

/// Hands input to a program. A program that reads no more is no error of the client.
async fn feed(
    mut input: Box<dyn AsyncWrite + Send + Unpin>,
    mut typed: mpsc::Receiver<Typed>,
    taken: mpsc::Sender<()>,
) {
    while let Some(piece) = typed.recv().await {
        match piece {
            Typed::Bytes(bytes) => {
                if input.write_all(&bytes).await.is_ok() {
                    let _ = input.flush().await;
                }
                // It only tells; when nobody listens the exec is over.
                let _ = taken.send(()).await;
            }
            Typed::End => {
                let _ = input.shutdown().await;
            }
        }
    }
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
