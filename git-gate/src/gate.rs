//! The agent's side: takes connections, reads what each asks for, and has it served. What is open goes on by the
//! configuration under which it began.

use crate::agent::Agent;
use crate::audit::{Entry, Log, chain};
use crate::config::{Outcome, Service};
use crate::exceptions::Exceptions;
use crate::limits::seconds;
use crate::pktline::{Packet, PacketError, Packets};
use crate::push::serve::Means;
use crate::request::Request;
use crate::spool::SpoolBudget;
use crate::stop::Stop;
use crate::table::{Remote, Table};
use crate::turns::Turns;
use crate::{fetch, push};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The longest first packet.
const FIRST_BYTES_MAX: u64 = 4 << 10;

/// Connections that are held at all, those that wait for a turn included; the next one waits to be accepted.
const ACCEPTED_MAX: usize = 1024;

/// What all connections share.
#[derive(Debug)]
pub struct Gate {
    live: RwLock<Arc<Table>>,
    turns: Turns,
    spool: SpoolBudget,
    log: Log,
    /// What the operator said about findings while it runs.
    pub exceptions: Exceptions,
}

impl Gate {
    /// With its first configuration, which also says how much goes on at one time.
    pub fn new(table: Table, log: Log) -> Self {
        let turns = Turns::new(&table.limits);
        let spool = SpoolBudget::new(table.limits.spool_bytes);
        Self { live: RwLock::new(Arc::new(table)), turns, spool, log, exceptions: Exceptions::default() }
    }

    /// Puts another configuration in force.
    pub fn swap(&self, table: Table) {
        *self.live.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }

    /// The configuration in force.
    pub fn table(&self) -> Arc<Table> {
        self.live.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Serves until it is dropped.
    pub async fn serve(self: Arc<Self>, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(ACCEPTED_MAX));
        // The semaphore is never closed, so there is always a place to wait for.
        while let Ok(place) = places.clone().acquire_owned().await {
            match listener.accept().await {
                Ok((stream, _)) => {
                    let gate = self.clone();
                    tokio::spawn(async move {
                        gate.connection(stream).await;
                        drop(place);
                    });
                }
                // Out of descriptors, or the connection was gone already: the next may do better, but not at once.
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    async fn connection(&self, stream: TcpStream) {
        let table = self.table();
        let limits = &table.limits;
        let mut agent = Agent::new(stream, seconds(limits.idle_seconds));
        let mut entry = Entry::new(self.log.clone());
        let served = self.operation(&mut agent, &table, &mut entry).await;
        match served {
            Ok(()) => agent.writer.end().await,
            Err(stop) => {
                entry.ended(stop.outcome());
                entry.because(&chain(&stop));
                match stop.sentence() {
                    Some(sentence) => agent.refuse(&sentence, seconds(limits.drain_seconds)).await,
                    None => agent.writer.end().await,
                }
            }
        }
    }

    async fn operation(&self, agent: &mut Agent, table: &Table, entry: &mut Entry) -> Result<(), Stop> {
        let limits = &table.limits;
        let _turn = self.turns.connection().await?;
        let mut packets = Packets::new(FIRST_BYTES_MAX, seconds(limits.first_packet_seconds));
        let first = match agent.packet(&mut packets).await {
            Ok(Packet::Data(first)) => first,
            Ok(Packet::Flush | Packet::Delim | Packet::ResponseEnd) => {
                return Err(Stop::from_agent(PacketError::Malformed));
            }
            Err(error) => return Err(Stop::from_agent(error)),
        };
        let request = Request::parse(&first).map_err(|error| Stop::Refused(error.to_string()))?;
        entry.asked(request.service, &request.name);
        let remote = table.remote(&request.name).ok_or_else(|| unknown(&request.name))?;
        match request.service {
            Service::Fetch => {
                let (mut session, _turn) = self.session(&remote).await?;
                let served = fetch::serve(agent, &mut *session, request.version, limits).await;
                entry.moved(agent.writer.sent_bytes);
                served?;
                entry.ended(Outcome::Done);
                Ok(())
            }
            Service::Push => {
                let _turn = self.turns.push().await?;
                let (mut session, _session_turn) = self.session(&remote).await?;
                let means = Means { table, remote: &remote, exceptions: &self.exceptions, spool: &self.spool };
                push::serve::serve(agent, &mut session, request.version, means, entry).await
            }
            Service::Unknown => Err(Stop::Refused("only fetch and push are offered here".into())),
        }
    }

    async fn session(&self, remote: &Remote) -> Result<(Box<dyn crate::upstream::Session>, crate::turns::Turn), Stop> {
        let turn = self.turns.session().await?;
        Ok((remote.upstream.connect().await?, turn))
    }
}

fn unknown(name: &str) -> Stop {
    let name = crate::report::printable(name, 64);
    Stop::Refused(format!("there is no remote `{name}` here; the operator lists the remotes of this bottle"))
}
