//! The agent's side: takes connections, reads what each asks for, and has it served. What is open goes on by the
//! configuration under which it began.

use crate::agent::Agent;
use crate::audit::{Entry, Log};
use crate::config::{Outcome, Service};
use crate::exceptions::Exceptions;
use crate::limits::seconds;
use crate::pktline::{Packet, PacketError, Packets};
use crate::push::serve::Means;
use crate::request::Request;
use crate::spool::SpoolBudget;
use crate::stop::Stop;
use crate::table::{Remote, Table};
use crate::turns::{Turn, Turns};
use crate::upstream::Session;
use crate::{fetch, push};
use bottle_sidecar::chain;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

/// The longest first packet.
const FIRST_BYTES_MAX: u64 = 4 << 10;

/// Connections that are held at all, those that wait for a turn included; the next one waits to be accepted.
const ACCEPTED_MAX: usize = 1024;

/// What is in force for whoever comes next.
#[derive(Debug, Clone)]
struct Live {
    table: Arc<Table>,
    turns: Arc<Turns>,
}

/// What all connections share.
#[derive(Debug)]
pub struct Gate {
    live: RwLock<Live>,
    spool: SpoolBudget,
    log: Log,
    /// What the operator said about findings while it runs.
    pub exceptions: Exceptions,
}

impl Gate {
    /// With its first configuration.
    pub fn new(table: Table, log: Log) -> Self {
        let turns = Arc::new(Turns::new(&table.limits));
        let spool = SpoolBudget::new(table.limits.spool_bytes);
        let live = Live { table: Arc::new(table), turns };
        Self { live: RwLock::new(live), spool, log, exceptions: Exceptions::default() }
    }

    /// Puts another configuration in force. Where it has other numbers of places, those who have or wait for one of the
    /// old places keep to them, and whoever comes next gets one of the new.
    pub fn swap(&self, table: Table) {
        let mut live = self.live.write().unwrap_or_else(PoisonError::into_inner);
        self.spool.resize(table.limits.spool_bytes);
        if !live.turns.is_of(&table.limits) {
            live.turns = Arc::new(Turns::new(&table.limits));
        }
        live.table = Arc::new(table);
    }

    /// The configuration in force.
    pub fn table(&self) -> Arc<Table> {
        self.live().table
    }

    fn live(&self) -> Live {
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
        let live = self.live();
        let limits = &live.table.limits;
        let mut agent = Agent::new(stream, seconds(limits.idle_seconds));
        let mut entry = Entry::new(self.log.clone());
        let served = self.operation(&mut agent, &live, &mut entry).await;
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

    async fn operation(&self, agent: &mut Agent, live: &Live, entry: &mut Entry) -> Result<(), Stop> {
        let Live { table, turns } = live;
        let limits = &table.limits;
        let _turn = tokio::select! {
            turn = turns.connection() => turn?,
            () = agent.ended() => return Err(nobody(entry)),
        };
        let mut packets = Packets::new(FIRST_BYTES_MAX, seconds(limits.first_packet_seconds));
        let first = match agent.packet(&mut packets).await {
            Ok(Packet::Data(first)) => first,
            Ok(Packet::Flush | Packet::Delim | Packet::ResponseEnd) => {
                return Err(Stop::from_agent(PacketError::Malformed));
            }
            Err(PacketError::Closed) => return Err(nobody(entry)),
            Err(error) => return Err(Stop::from_agent(error)),
        };
        let request = Request::parse(&first).map_err(|error| Stop::Refused(error.to_string()))?;
        entry.asked(request.service, &request.name);
        let remote = table.remote(&request.name).ok_or_else(|| unknown(&request.name))?;
        match request.service {
            Service::Fetch => {
                let (mut session, _turn) = session(turns, &remote).await?;
                let served = fetch::serve(agent, &mut *session, request.version, limits).await;
                entry.moved(agent.writer.sent_bytes);
                served?;
                entry.ended(Outcome::Done);
                Ok(())
            }
            Service::Push => {
                let _turn = turns.push().await?;
                let (mut session, _session_turn) = session(turns, &remote).await?;
                let means = Means { table, remote: &remote, exceptions: &self.exceptions, spool: &self.spool };
                push::serve::serve(agent, &mut session, request.version, means, entry).await
            }
            Service::Unknown => Err(Stop::Refused("only fetch and push are offered here".into())),
        }
    }
}

/// A connection that ends before it says anything asked for nothing: whoever looks whether the gate lives does that.
fn nobody(entry: &mut Entry) -> Stop {
    entry.forget();
    Stop::from_agent(PacketError::Closed)
}

async fn session(turns: &Turns, remote: &Remote) -> Result<(Box<dyn Session>, Turn), Stop> {
    let turn = turns.session().await?;
    Ok((remote.upstream.connect().await?, turn))
}

fn unknown(name: &str) -> Stop {
    let name = crate::report::printable(name, 64);
    Stop::Refused(format!("there is no remote `{name}` here; the operator lists the remotes of this bottle"))
}
