//! `audit`: what a bottle's agent asked for and got, what was refused and used; and whether the log still holds together.

use super::Here;
use crate::audit::{Entry, Event, verify};
use crate::cli::{Audit, AuditCommand, Output};
use crate::error::{Failure, chain};
use crate::exit::Exit;
use crate::ui::clean;
use crate::verdict::page;

/// Shows a log, or verifies it. A log that does not hold together is shown by neither.
pub fn audit(here: &Here, args: &Audit) -> Result<Exit, Failure> {
    match (&args.command, &args.id) {
        (Some(AuditCommand::Verify { id, output }), _) => verified(here, id, *output),
        (None, Some(id)) => show(here, id, args.output),
        (None, None) => Err(Failure::usage("no bottle is named", "see `launcher ps --all`".to_owned())),
    }
}

fn entries(here: &Here, id: &str) -> Result<Vec<Entry>, Failure> {
    let dir = here.bottle(id)?;
    verify(&dir.audit()).map_err(|e| Failure {
        exit: Exit::No,
        message: format!("{} of {}", chain(&e), dir.id()),
        hint: Some(format!("the file is {}; what stands in it is not to be relied on", dir.audit().display())),
    })
}

fn verified(here: &Here, id: &str, output: Output) -> Result<Exit, Failure> {
    let entries = entries(here, id)?;
    let last = entries.last().map(|entry| entry.time.clone());
    match output {
        Output::Json => {
            here.ui.data(&format!("{}\n", serde_json::json!({ "entries": entries.len(), "last": last })));
        }
        Output::Text => {
            here.ui.data(&format!(
                "{} entries hold together; the last is of {}\n",
                entries.len(),
                last.unwrap_or_default()
            ));
        }
    }
    Ok(Exit::Success)
}

fn show(here: &Here, id: &str, output: Output) -> Result<Exit, Failure> {
    for entry in entries(here, id)? {
        let told = match output {
            Output::Json => here.ui.data(&format!("{}\n", serde_json::to_string(&entry).unwrap_or_default())),
            Output::Text => {
                let text = clean(&sentence(&entry.event)).replace(['\n', '\t'], " ");
                here.ui.entry(&format!("{}  ", entry.time), &text)
            }
        };
        if !told {
            break;
        }
    }
    Ok(Exit::Success)
}

/// What happened, in one line.
fn sentence(event: &Event) -> String {
    match event {
        Event::Launch { agent, bottle, reach, resumed, .. } => {
            let how = if *resumed { "launched again" } else { "launched" };
            format!(
                "{how} {agent} in the bottle {bottle}: {}",
                if reach.is_empty() { "no way out".to_owned() } else { reach.join("; ") }
            )
        }
        Event::Proposal { id, change, justification } => {
            format!("{id} asked for {}; it says: {justification}", page::short(change))
        }
        Event::Verdict { proposal, by, verdict, change, credential, seconds, once, reason, .. } => {
            let what = proposal.clone().unwrap_or_default();
            let change = change.as_ref().map(page::short).unwrap_or_default();
            let mut text = format!("{verdict} by {by}: {what} {change}").replace(":  ", ": ");
            for (is_so, more) in [
                (credential.is_some(), format!("credential {}", credential.clone().unwrap_or_default())),
                (seconds.is_some(), format!("for {}", page::age(seconds.unwrap_or_default()))),
                (*once, "once".to_owned()),
                (!reason.is_empty(), format!("reason: {reason}")),
            ] {
                if is_so {
                    text.push_str(&format!(", {more}"));
                }
            }
            text
        }
        Event::Applied { proposal, grant, failed } => {
            let what = grant.clone().or_else(|| proposal.clone()).unwrap_or_default();
            match failed {
                None => format!("in force: {what}"),
                Some(why) => format!("not done: {what}: {why}"),
            }
        }
        Event::Ended { grant, change, why } => format!("ended: {grant} ({}): {why}", page::short(change)),
        Event::Denied { by, what, reason, times: 1 } => format!("refused by {by}: {what}: {reason}"),
        Event::Denied { by, what, reason, times } => format!("refused by {by}, {times} times: {what}: {reason}"),
        Event::Used { credentials, pushes } => {
            let counted = |(name, count): (&String, &u64)| format!("{name} {count}");
            let all: Vec<_> = credentials.iter().chain(pushes).map(counted).collect();
            format!("used: {}", if all.is_empty() { "nothing".to_owned() } else { all.join(", ") })
        }
        Event::Teardown { outcome, leftovers } if leftovers.is_empty() => format!("taken back: {outcome}"),
        Event::Teardown { outcome, leftovers } => format!("taken back: {outcome}; left: {}", leftovers.join(", ")),
    }
}
