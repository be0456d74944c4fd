//! `proposals`: what agents ask for, and what is in force by a person's word.

use super::{Here, attach::say};
use crate::cli::{Output, Proposals};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::journal;
use crate::keeper::desk;
use crate::keeper_socket::{Frame, Hello, Reader, ToClient};
use crate::state::BottleDir;
use crate::verdict::{Listing, Reply, Request, page};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use supervise::queue::{Limits, Queue, Record};
use supervise::wire::Status;
use tokio::sync::mpsc;

/// How long a keeper may take to answer: it may be in the middle of a verdict.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// Listings that may wait to be printed.
const WAITING_MAX: usize = 16;

/// Lists, once or for as long as somebody looks.
pub async fn proposals(here: &Here, args: &Proposals) -> Result<Exit, Failure> {
    let dirs = match &args.id {
        Some(id) => vec![here.bottle(id)?],
        None => {
            let root = here.state()?;
            here.ids(&root)?.iter().map(|id| root.dir(id)).filter(BottleDir::is_living).collect()
        }
    };
    if args.watch {
        return watch(here, args, dirs).await;
    }
    let mut listings = Vec::new();
    for dir in &dirs {
        // One that has ended can still be asked about by name.
        let listing = if dir.is_living() { listing(here, dir).await? } else { kept(dir)? };
        listings.push(listing);
    }
    show(here, args.output, &listings);
    Ok(Exit::Success)
}

async fn listing(here: &Here, dir: &BottleDir) -> Result<Listing, Failure> {
    match super::verdicts::ask(here, dir, Request::List { watch: false }).await? {
        Reply::Listing(listing) => Ok(*listing),
        other => Err(super::verdicts::unexpected(&other)),
    }
}

/// What the journal of a bottle that has ended says.
fn kept(dir: &BottleDir) -> Result<Listing, Failure> {
    let path = dir.proposals();
    let failed = |why: String| Failure::launch(format!("{} cannot be read: {why}", path.display()), None);
    let records = journal::read::<Record>(&path).map_err(|e| failed(chain(&e)))?;
    let mut queue = Queue::replay(Limits::default(), records).map_err(|e| failed(chain(&e)))?;
    for record in queue.interrupted(now()) {
        queue.apply(record).map_err(|e| failed(chain(&e)))?;
    }
    let listing = desk::listing(dir.id(), &queue);
    // What was in force ended with the bottle.
    Ok(Listing { grants: Vec::new(), ..listing })
}

fn show(here: &Here, output: Output, listings: &[Listing]) {
    if output == Output::Json {
        here.ui.data(&format!("{}\n", serde_json::json!(listings)));
        return;
    }
    let (proposals, grants) = (page::proposals(listings, now()), page::grants(listings, now()));
    if proposals.len() + grants.len() == 2 {
        here.ui.line("nothing was asked for, and nothing is in force by a person's word");
        return;
    }
    if proposals.len() > 1 {
        here.ui.table(&proposals);
    }
    if grants.len() > 1 {
        if proposals.len() > 1 {
            here.ui.data("\n");
        }
        here.ui.table(&grants);
    }
}

/// Prints every change, and rings when something is asked for.
async fn watch(here: &Here, args: &Proposals, dirs: Vec<BottleDir>) -> Result<Exit, Failure> {
    let (sender, mut heard) = mpsc::channel(WAITING_MAX);
    for dir in &dirs {
        let (reader, mut writer) = here.keeper(dir).await?;
        say(&mut writer, &Hello::Desk { request: Box::new(Request::List { watch: true }) }).await?;
        let sender = sender.clone();
        tokio::spawn(async move {
            hear(reader, sender).await;
            // Held to the end: a keeper lets go of a client that says nothing more.
            drop(writer);
        });
    }
    drop(sender);
    let mut open = std::collections::BTreeMap::new();
    let mut signals = crate::signals::Signals::take();
    loop {
        let listing = tokio::select! {
            listing = heard.recv() => match listing {
                Some(listing) => listing,
                None => return Ok(Exit::Success),
            },
            () = signals.next() => return Ok(Exit::Interrupted),
        };
        let waiting = |l: &Listing| l.proposals.iter().filter(|p| p.answer.status == Status::Pending).count();
        let before = open.insert(listing.bottle.clone(), waiting(&listing)).unwrap_or(0);
        if waiting(&listing) > before {
            here.ui.bell();
        }
        show(here, args.output, &[listing]);
    }
}

async fn hear(mut reader: Reader, sender: mpsc::Sender<Listing>) {
    while let Ok(Some(Frame::Words(ToClient::Desk { reply: Reply::Listing(listing) }))) = reader.next().await {
        if sender.send(*listing).await.is_err() {
            return;
        }
    }
}

/// Now, in seconds of Unix time.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// What a keeper says within its time.
pub async fn answer(mut reader: Reader) -> Result<Reply, Failure> {
    let lost = || Failure::launch("the keeper does not answer", "see `launcher ps`".to_owned());
    let said = tokio::time::timeout(ANSWER_WITHIN, reader.next::<ToClient>()).await.map_err(|_| lost())?;
    match said {
        Ok(Some(Frame::Words(ToClient::Desk { reply }))) => Ok(reply),
        Ok(_) | Err(_) => Err(lost()),
    }
}
