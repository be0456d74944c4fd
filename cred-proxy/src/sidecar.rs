//! What is running: nothing, until the first table is taken; from then on one server, whose table is swapped.

use crate::Secret;
use crate::config::{Config, Event};
use crate::live::Live;
use crate::log::Log;
use crate::server::Server;
use crate::workers::Workers;
use bottle_sidecar::chain;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;

/// The sidecar.
#[derive(Debug)]
pub struct Sidecar {
    log: Log,
    running: Option<(SocketAddr, Arc<Server>)>,
}

/// Why a configuration is not in force. What was in force before still is.
#[derive(Debug)]
pub enum Setback {
    /// It is no configuration, or cannot follow the one in force.
    Refused(String),
    /// The first one names an address that cannot be had.
    CannotListen(String),
}

impl Sidecar {
    /// With nothing running.
    pub fn new(log: Log) -> Self {
        Self { log, running: None }
    }

    /// Takes a table, whole or not at all: [`Event::Ready`] or [`Event::Configured`].
    pub async fn configure(&mut self, config: &Config, secrets: &BTreeMap<String, Secret>) -> Result<Event, Setback> {
        let live = Live::new(config, secrets).map_err(|error| Setback::Refused(chain(&error)))?;
        if let Some((listen, server)) = &self.running {
            if *listen != config.listen {
                return Err(Setback::Refused(format!("cannot listen on {}: it listens on {listen}", config.listen)));
            }
            server.swap(live);
            return Ok(Event::Configured);
        }
        let listener = TcpListener::bind(config.listen).await;
        let listener =
            listener.map_err(|error| Setback::CannotListen(format!("cannot listen on {}: {error}", config.listen)))?;
        let workers = Workers::start().map_err(|error| Setback::CannotListen(format!("cannot start: {error}")))?;
        let server = Arc::new(Server::new(live, self.log.clone()));
        tokio::spawn(server.clone().serve(listener, workers));
        self.running = Some((config.listen, server));
        Ok(Event::Ready)
    }

    /// There is no other secret of this name.
    pub fn unchanged(&self, secret: &str) {
        if let Some((_, server)) = &self.running {
            server.refresh.unchanged(secret);
        }
    }

    /// Lets the requests in flight end, for as long as that may take.
    pub async fn end(self, within: Duration) {
        if let Some((_, server)) = self.running {
            server.end(within).await;
        }
    }
}
