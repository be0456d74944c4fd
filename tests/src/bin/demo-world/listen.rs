//! Sockets of a role: bound before `ready` is said, with a limit on what is open at once.

use crate::start::StartError;
use crate::witness::Witness;
use bottle_tests::world::Evidence;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;

/// Connections a role holds at once; further ones wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 2048;

/// What is bound so far, for the `ready` line.
#[derive(Debug, Default)]
pub struct Listening(BTreeMap<String, Vec<SocketAddr>>);

impl Listening {
    /// Binds a TCP port.
    pub async fn tcp(&mut self, name: &str, ip: IpAddr, port: u16) -> Result<TcpListener, StartError> {
        let address = SocketAddr::new(ip, port);
        let failed = |source| StartError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        self.note(name, listener.local_addr().map_err(failed)?);
        Ok(listener)
    }

    /// Binds a port for datagrams.
    pub async fn udp(&mut self, name: &str, ip: IpAddr, port: u16) -> Result<UdpSocket, StartError> {
        let address = SocketAddr::new(ip, port);
        let failed = |source| StartError::Listen { address, source };
        let socket = UdpSocket::bind(address).await.map_err(failed)?;
        self.note(name, socket.local_addr().map_err(failed)?);
        Ok(socket)
    }

    /// Says that all of it listens.
    pub fn ready(self, witness: &Witness) {
        witness.saw(&Evidence::Ready { listening: self.0 });
    }

    fn note(&mut self, name: &str, address: SocketAddr) {
        self.0.entry(name.to_owned()).or_default().push(address);
    }
}

/// Takes connections for as long as the process lives, each on a task of its own.
pub fn serve<F>(listener: TcpListener, handle: impl Fn(TcpStream, SocketAddr) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        while let Ok(place) = places.clone().acquire_owned().await {
            // A connection that was reset before it was taken is not the listener's end.
            let Ok((stream, peer)) = listener.accept().await else { continue };
            let _ = stream.set_nodelay(true); // latency alone
            let done = handle(stream, peer);
            tokio::spawn(async move {
                done.await;
                drop(place);
            });
        }
    });
}
