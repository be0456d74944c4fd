//! `ps`: which bottles there are, and how they are.

use super::Here;
use crate::cli::Ps;
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::{Frame, Hello, Status, ToClient};
use crate::state::{BottleDir, Metadata};
use std::fmt::Write as _;
use std::time::Duration;

/// How long a keeper may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Lists bottles.
pub async fn ps(here: &Here, args: &Ps) -> Result<Exit, Failure> {
    // Dead keepers' leftovers go first, where an engine answers; where none does, the list is still true.
    if let Ok(engine) = here.engine().await
        && let Err(failure) = super::cleanup::sweep_quietly(here, &engine).await
    {
        here.ui.warn(&failure.message);
    }
    let root = here.state()?;
    let ids = root.ids().map_err(|e| Failure::launch(format!("the state directory cannot be read: {e}"), None))?;
    let mut rows = Vec::new();
    for id in ids {
        let dir = root.dir(&id);
        let status = if dir.is_living() { status(here, &dir).await } else { None };
        let Some(metadata) = dir.metadata() else { continue };
        if args.all || status.is_some() {
            rows.push((metadata, status, dir.workspace().exists()));
        }
    }
    if args.json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(m, s, work)| serde_json::json!({ "bottle": m, "status": s, "workspace_saved": work }))
            .collect();
        here.ui.data(&format!("{}\n", serde_json::Value::from(rows)));
    } else {
        here.ui.data(&table(&rows));
    }
    Ok(Exit::Success)
}

async fn status(here: &Here, dir: &BottleDir) -> Option<Status> {
    let asked = async {
        let (mut reader, mut writer) = here.keeper(dir).await.ok()?;
        writer.say(&Hello::Status).await.ok()?;
        match reader.next::<ToClient>().await {
            Ok(Some(Frame::Words(ToClient::Status(status)))) => Some(*status),
            Ok(_) | Err(_) => None,
        }
    };
    tokio::time::timeout(ANSWER_WITHIN, asked).await.ok().flatten()
}

fn table(rows: &[(Metadata, Option<Status>, bool)]) -> String {
    let mut text = format!("{:<20} {:<14} {:<12} {:<22} {}\n", "BOTTLE", "AGENT", "STATE", "SINCE", "WHAT");
    for (metadata, status, work) in rows {
        let state = status.as_ref().map_or_else(
            || metadata.outcome.clone().unwrap_or_else(|| "died".to_owned()),
            |status| status.phase.clone(),
        );
        let since = metadata.ended.as_ref().filter(|_| status.is_none()).unwrap_or(&metadata.started);
        let since: String = since.chars().take(19).collect();
        let what = match status {
            Some(status) => {
                let uses: u64 = status.report.credential_uses.values().sum();
                let denied: u64 = status.report.denied.values().map(|d| d.0).sum();
                let dead: Vec<_> =
                    status.sidecars.iter().filter(|(_, s)| *s == "ended").map(|(r, _)| r.as_str()).collect();
                let dead = if dead.is_empty() { String::new() } else { format!(", dead: {}", dead.join(" ")) };
                format!("{uses} credential uses, {denied} refusals{dead}")
            }
            None if *work => format!("launcher diff {0}, launcher take {0}", metadata.id),
            None => String::new(),
        };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:<20} {:<14} {:<12} {:<22} {what}", metadata.id, metadata.agent, state, since);
    }
    text
}
