//! `logs`: what a bottle's sidecars said, from the file that the keeper writes; also of one that has ended.

use super::{Here, ps};
use crate::cli::Logs;
use crate::error::Failure;
use crate::exit::Exit;
use crate::log::LogLine;
use crate::state::BottleDir;
use cred_proxy::config::Event;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Shows a bottle's log.
pub async fn logs(here: &Here, args: &Logs) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let file = std::fs::File::open(dir.log())
        .map_err(|e| Failure::usage(format!("the log of {} cannot be read: {e}", dir.id()), None))?;
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        // A line that is still being written is finished by a later look.
        let read = reader.read_line(&mut line);
        let read = read.map_err(|e| Failure::launch(format!("the log cannot be read: {e}"), None))?;
        if read > 0 && line.ends_with('\n') {
            let shown = if args.json { line.clone() } else { pretty(&line) };
            line.clear();
            if !here.ui.data(&shown) {
                return Ok(Exit::Success);
            }
        } else if args.follow && dir.is_living() {
            tokio::time::sleep(LOOK).await;
        } else {
            break;
        }
    }
    if !args.json {
        summary(here, &dir).await;
    }
    Ok(Exit::Success)
}

/// What went over the routes until now: for people, beside the log.
async fn summary(here: &Here, dir: &BottleDir) {
    let living = if dir.is_living() { ps::status(here, dir).await } else { None };
    let Some(report) = living.map(|status| status.report).or_else(|| dir.report()) else { return };
    let table = ps::routes(&report, jiff::Timestamp::now());
    if table.len() > 1 {
        here.ui.line(crate::ui::table(&table).trim_end());
    }
}

fn pretty(line: &str) -> String {
    match serde_json::from_str::<LogLine>(line) {
        Ok(entry) => {
            let time = entry.time.get(11..23).unwrap_or(&entry.time);
            let more =
                if entry.repeated > 0 { format!(" (and {} times before)", entry.repeated) } else { String::new() };
            let said = request(&entry).or_else(|| operation(&entry)).unwrap_or(entry.line);
            format!("{time} {:<14} {}{more}\n", entry.role, crate::ui::clean(&said))
        }
        Err(_) => crate::ui::clean(line),
    }
}

/// A request of cred-proxy as a person reads it; everything else stays as it was said.
fn request(entry: &LogLine) -> Option<String> {
    if entry.role != cred_proxy::config::NAME {
        return None;
    }
    let Ok(Event::Request { method, path, status, bytes, ms, credential, reason, .. }) =
        serde_json::from_str(&entry.line)
    else {
        return None;
    };
    let mut text = format!("{status} {method} {path}, {} in {ms} ms", crate::ui::size(bytes));
    if credential {
        text.push_str(", with the credential");
    }
    if let Some(reason) = reason {
        text.push_str(&format!(": {reason}"));
    }
    Some(text)
}

/// An operation of git-gate as a person reads it, with the whole fingerprint of every finding: what `exceptions` takes.
fn operation(entry: &LogLine) -> Option<String> {
    if entry.role != git_gate::NAME {
        return None;
    }
    let Ok(git_gate::config::Event::Operation(operation)) = serde_json::from_str(&entry.line) else { return None };
    let word = |value: serde_json::Result<serde_json::Value>| {
        value.ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let service = word(serde_json::to_value(operation.service));
    let outcome = word(serde_json::to_value(operation.outcome));
    let refs: Vec<&str> = operation.refs.iter().map(|update| update.name.as_str()).collect();
    let size = crate::ui::size(operation.bytes);
    let mut text = format!("{service} {} {}", operation.remote, refs.join(" ")).trim_end().to_owned();
    text.push_str(&format!(": {outcome}, {size} in {} ms", operation.ms));
    if let Some(reason) = operation.reason {
        text.push_str(&format!(": {reason}"));
    }
    for finding in operation.findings {
        let excused = if finding.excused.is_some() { ", excused" } else { "" };
        let place = finding.path.unwrap_or(finding.source);
        let (rule, kind, line, print) = (finding.rule, finding.kind, finding.line, finding.fingerprint);
        text.push_str(&format!("; {rule} in {kind} {place} line {line} ({print}{excused})"));
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_readable_and_harmless() {
        let line = |role: &str, line: &str| {
            let [time, role, stream, line] = ["2026-01-01T10:00:00.123Z", role, "out", line].map(str::to_owned);
            pretty(&serde_json::to_string(&LogLine { time, role, stream, line, repeated: 0 }).unwrap())
        };
        let event = |path: &str, status, credential, reason: Option<&str>| {
            let [route, method, path] = ["/a/", "POST", path].map(str::to_owned);
            let reason = reason.map(str::to_owned);
            let event = Event::Request { route, method, path, status, bytes: 12_595, ms: 51, credential, reason };
            serde_json::to_string(&event).unwrap()
        };
        let said = [
            line("cred-proxy", &event("/a/v1/messages", 200, true, None)),
            line("cred-proxy", &event("/a/\u{1b}[2J", 403, false, Some("the route does not permit it"))),
            line("cred-proxy", r#"{"event":"configured"}"#),
            // The same words in another mouth are not cred-proxy's.
            line("pipelock", &event("/a/", 200, true, None)).chars().take(50).collect(),
        ];
        insta::assert_snapshot!(said.concat(), @r#"
        10:00:00.123 cred-proxy     200 POST /a/v1/messages, 12.3 KiB in 51 ms, with the credential
        10:00:00.123 cred-proxy     403 POST /a/\u{1b}[2J, 12.3 KiB in 51 ms: the route does not permit it
        10:00:00.123 cred-proxy     {"event":"configured"}
        10:00:00.123 pipelock       {"event":"request","ro
        "#);
    }
}
