//! The threads that serve, each with a runtime of its own: a connection of the agent and those to its upstreams stay on
//! one thread, so that no request wakes another.

use std::cell::Cell;
use std::io;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::runtime::{Builder, Handle};

/// More threads do not make a proxy faster.
pub const THREADS_MAX: usize = 4;

/// Threads that a worker may use besides for names, which the system looks up blocking.
const LOOKUPS_MAX: usize = 8;

thread_local! {
    static NUMBER: Cell<usize> = const { Cell::new(0) };
}

/// The number of the thread that this runs on, below [`THREADS_MAX`]; zero for one that is none of these.
pub fn here() -> usize {
    NUMBER.get()
}

/// The threads. They end with the process.
#[derive(Debug)]
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
}

impl Workers {
    /// One for each processor.
    pub fn start() -> io::Result<Self> {
        let count = std::thread::available_parallelism().map_or(1, |count| count.get().min(THREADS_MAX));
        let handles = (0..count).map(|index| {
            let runtime = Builder::new_current_thread().max_blocking_threads(LOOKUPS_MAX).enable_all().build()?;
            let handle = runtime.handle().clone();
            let name = format!("worker-{index}");
            std::thread::Builder::new().name(name).spawn(move || {
                NUMBER.set(index);
                runtime.block_on(std::future::pending::<()>())
            })?;
            Ok(handle)
        });
        Ok(Self { handles: handles.collect::<io::Result<_>>()?, next: AtomicUsize::new(0) })
    }

    /// These runtimes, which somebody else runs.
    pub fn of(handles: Vec<Handle>) -> Self {
        Self { handles, next: AtomicUsize::new(0) }
    }

    /// Has a connection served by the thread whose turn it is.
    pub fn serve<F>(
        &self,
        stream: tokio::net::TcpStream,
        serve: impl FnOnce(tokio::net::TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send,
    {
        // It fails for a connection that is of no use any more.
        let Ok(stream): io::Result<TcpStream> = stream.into_std() else { return };
        let turn = self.next.fetch_add(1, Ordering::Relaxed) % self.handles.len().max(1);
        if let Some(handle) = self.handles.get(turn) {
            handle.spawn(async move {
                if let Ok(stream) = tokio::net::TcpStream::from_std(stream) {
                    serve(stream).await;
                }
            });
        }
    }
}
