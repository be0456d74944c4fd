//! Who sees the agent. Its output goes to every client that is attached, at the pace of the slowest, as a terminal's
//! would; with nobody attached it is kept, the last of it, for whoever comes.

use crate::engine::Chunk;
use crate::keeper_socket::{Ending, Frame, ToClient};
use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

/// Bytes of output that a client sees which comes later.
const KEPT_BYTES: usize = 64 << 10;
/// Frames on their way to one client.
const FRAMES: usize = 64;
/// A client that takes nothing for so long is let go.
const PATIENCE: Duration = Duration::from_secs(30);

/// The clients, the agent's input, and what it said last.
pub struct Console {
    clients: Mutex<Vec<(u64, mpsc::Sender<Frame<ToClient>>)>>,
    next: std::sync::atomic::AtomicU64,
    kept: Mutex<VecDeque<u8>>,
    input: tokio::sync::Mutex<Option<Box<dyn AsyncWrite + Send + Unpin>>>,
    size: watch::Sender<Option<(u16, u16)>>,
}

impl Default for Console {
    fn default() -> Self {
        Self {
            clients: Mutex::default(),
            next: std::sync::atomic::AtomicU64::new(0),
            kept: Mutex::default(),
            input: tokio::sync::Mutex::default(),
            size: watch::channel(None).0,
        }
    }
}

impl Console {
    /// Adds a client; what it is to be told comes out of the receiver. With `replay` it is told first what the agent said
    /// last.
    pub fn join(&self, replay: bool) -> (u64, mpsc::Receiver<Frame<ToClient>>) {
        let (sender, receiver) = mpsc::channel(FRAMES);
        if replay {
            let kept: Vec<u8> = lock(&self.kept).iter().copied().collect();
            // The channel is empty and has room.
            let _ = sender.try_send(Frame::Data(kept.into()));
        }
        let id = self.next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        lock(&self.clients).push((id, sender));
        (id, receiver)
    }

    /// Lets a client go.
    pub fn leave(&self, id: u64) {
        lock(&self.clients).retain(|(client, _)| *client != id);
    }

    /// Hands the agent's input over.
    pub async fn connect(&self, input: Box<dyn AsyncWrite + Send + Unpin>) {
        *self.input.lock().await = Some(input);
    }

    /// Types into the agent's input. An agent that has gone takes nothing, and that is no error.
    pub async fn type_in(&self, bytes: &[u8]) {
        if let Some(input) = self.input.lock().await.as_mut()
            && input.write_all(bytes).await.is_ok()
        {
            let _ = input.flush().await;
        }
    }

    /// Ends the agent's input.
    pub async fn end_input(&self) {
        if let Some(mut input) = self.input.lock().await.take() {
            // An agent that has gone has no input to end.
            let _ = input.shutdown().await;
        }
    }

    /// The terminal's size, as the last client said it; `None`: there is no terminal.
    pub fn size(&self) -> watch::Receiver<Option<(u16, u16)>> {
        self.size.subscribe()
    }

    /// Sets the terminal's size.
    pub fn set_size(&self, size: Option<(u16, u16)>) {
        self.size.send_replace(size);
    }

    /// Shows a piece of the agent's output.
    pub async fn output(&self, chunk: Chunk) {
        let (Chunk::Out(bytes) | Chunk::Err(bytes)) = &chunk;
        {
            let mut kept = lock(&self.kept);
            kept.extend(bytes.iter().copied());
            let excess = kept.len().saturating_sub(KEPT_BYTES);
            kept.drain(..excess);
        }
        self.tell(match chunk {
            Chunk::Out(bytes) => Frame::Data(bytes),
            Chunk::Err(bytes) => Frame::ErrorData(bytes),
        })
        .await;
    }

    /// Tells every client, and waits until each has taken it. One that does not is let go, and keeps no other waiting.
    pub async fn tell(&self, frame: Frame<ToClient>) {
        let clients = lock(&self.clients).clone();
        let told = clients.into_iter().map(|(id, client)| {
            let frame = frame.clone();
            async move {
                if client.send_timeout(frame, PATIENCE).await.is_err() {
                    self.leave(id);
                }
            }
        });
        futures_util::future::join_all(told).await;
    }

    /// Tells one client that a piece of its input has been handed on. One that has gone need not know.
    pub async fn taken(&self, id: u64) {
        let client = lock(&self.clients).iter().find(|(client, _)| *client == id).map(|(_, sender)| sender.clone());
        if let Some(client) = client {
            let _ = client.send(Frame::Words(ToClient::Taken)).await;
        }
    }

    /// Tells every client what is going on.
    pub async fn progress(&self, text: &str) {
        self.tell(Frame::Words(ToClient::Progress { text: text.to_owned() })).await;
    }

    /// The same without waiting: a client that is behind misses it.
    pub fn progress_now(&self, text: &str) {
        self.tell_now(&ToClient::Progress { text: text.to_owned() });
    }

    /// Tells every client something a person should know, without waiting.
    pub fn notice_now(&self, text: &str) {
        self.tell_now(&ToClient::Notice { text: text.to_owned() });
    }

    /// The same with a bell: a person is wanted.
    pub fn bell_now(&self, text: &str) {
        self.tell_now(&ToClient::Bell { text: text.to_owned() });
    }

    fn tell_now(&self, words: &ToClient) {
        for (_, client) in lock(&self.clients).iter() {
            let _ = client.try_send(Frame::Words(words.clone()));
        }
    }

    /// Tells every client the end, and waits until it is written.
    pub async fn end(&self, ending: Ending) {
        let frame = Frame::Words(ToClient::Ended(Box::new(ending)));
        let clients = std::mem::take(&mut *lock(&self.clients));
        let told = clients.into_iter().map(|(_, client)| {
            let frame = frame.clone();
            async move {
                if client.send_timeout(frame, PATIENCE).await.is_err() {
                    return;
                }
                // The task that writes to it closes it, when it has written everything.
                let _ = tokio::time::timeout(PATIENCE, client.closed()).await;
            }
        });
        futures_util::future::join_all(told).await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
