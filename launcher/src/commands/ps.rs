//! `ps`: which bottles there are, and how they are; of one bottle, its sidecars and what went over its routes.

use super::Here;
use crate::cli::Ps;
use crate::error::Failure;
use crate::exit::Exit;
use crate::keeper_socket::{Frame, Hello, Status, ToClient};
use crate::report::{RemoteCount, Report, RouteCount};
use crate::state::{BottleDir, Metadata};
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
    let one = args.id.as_deref().map(|id| here.bottle(id)).transpose()?;
    let ids = match &one {
        Some(dir) => vec![dir.id().to_owned()],
        None => here.ids(&root)?,
    };
    let mut rows = Vec::new();
    let mut reports = Vec::new();
    for id in ids {
        let dir = root.dir(&id);
        let status = if dir.is_living() { status(here, &dir).await } else { None };
        let Some(metadata) = dir.metadata() else { continue };
        if args.all || one.is_some() || status.is_some() {
            reports.push(status.as_ref().map(|s| s.report.clone()).or_else(|| dir.report()));
            rows.push((metadata, status, dir.workspace().exists()));
        }
    }
    if args.json {
        let row = |((m, s, work), report): (&Row, &Option<Report>)| serde_json::json!({ "bottle": m, "status": s, "report": report, "workspace_saved": work });
        let rows: Vec<_> = rows.iter().zip(&reports).map(row).collect();
        here.ui.data(&format!("{}\n", serde_json::Value::from(rows)));
        return Ok(Exit::Success);
    }
    show(here, args, &rows);
    if let ([(_, status, _)], [report], Some(_)) = (rows.as_slice(), reports.as_slice(), one) {
        let now = jiff::Timestamp::now();
        let tables = [
            status.as_ref().map(sidecars),
            report.as_ref().map(|report| routes(report, now)),
            report.as_ref().map(remotes),
        ];
        for table in tables.into_iter().flatten().filter(|table| table.len() > 1) {
            here.ui.data("\n");
            here.ui.table(&table);
        }
    }
    Ok(Exit::Success)
}

/// How the keeper of a bottle says that it is; `None`: there is none, or it does not answer.
pub async fn status(here: &Here, dir: &BottleDir) -> Option<Status> {
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

type Row = (Metadata, Option<Status>, bool);

fn show(here: &Here, args: &Ps, rows: &[Row]) {
    if rows.is_empty() {
        here.ui.line(if args.all {
            "there are no bottles"
        } else {
            "no bottle is running; --all shows those that have ended"
        });
        return;
    }
    here.ui.table(&table(rows, jiff::Timestamp::now()));
    if rows.iter().any(|(_, status, work)| status.is_none() && *work) {
        here.ui.line("`launcher diff BOTTLE` shows saved work, `launcher take BOTTLE` brings it home");
    }
}

fn table(rows: &[Row], now: jiff::Timestamp) -> Vec<Vec<String>> {
    let head = ["BOTTLE", "AGENT", "STATE", "SINCE", "WHAT"].map(str::to_owned).to_vec();
    let row = |(metadata, status, work): &Row| {
        let state = status.as_ref().map_or_else(
            || metadata.outcome.clone().unwrap_or_else(|| "died".to_owned()),
            |status| status.phase.clone(),
        );
        let since = metadata.ended.as_ref().filter(|_| status.is_none()).unwrap_or(&metadata.started);
        let what = match status {
            Some(status) => doing(status),
            None if *work => "work saved".to_owned(),
            None => String::new(),
        };
        [metadata.id.clone(), metadata.agent.clone(), state, age(since, now), what].to_vec()
    };
    std::iter::once(head).chain(rows.iter().map(row)).collect()
}

fn sidecars(status: &Status) -> Vec<Vec<String>> {
    let head = ["SIDECAR", "STATE", "RESTARTS"].map(str::to_owned).to_vec();
    let row = |(role, state): (&String, &String)| {
        let restarts = status.restarts.get(role).copied().unwrap_or(0);
        [role.clone(), state.clone(), restarts.to_string()].to_vec()
    };
    std::iter::once(head).chain(status.sidecars.iter().filter(|(role, _)| *role != "agent").map(row)).collect()
}

/// What went over each remote, with a head.
fn remotes(report: &Report) -> Vec<Vec<String>> {
    let head = ["REMOTE", "FETCHES", "PUSHES", "REFUSED", "FAILED"].map(str::to_owned).to_vec();
    let row = |(name, count): (&String, &RemoteCount)| {
        let name = if name.is_empty() { "(no remote)".to_owned() } else { crate::ui::clean(name) };
        let numbers = [count.fetches, count.pushes, count.refused, count.failed].map(|n| n.to_string());
        std::iter::once(name).chain(numbers).collect()
    };
    std::iter::once(head).chain(report.remotes.iter().map(row)).collect()
}

/// What went over each route, with a head.
pub fn routes(report: &Report, now: jiff::Timestamp) -> Vec<Vec<String>> {
    let head = ["ROUTE", "REQUESTS", "REFUSED", "FAILED", "BYTES", "CREDENTIAL", "LAST"].map(str::to_owned).to_vec();
    let row = |(path, count): (&String, &RouteCount)| {
        let path = if path.is_empty() { "(no route)".to_owned() } else { crate::ui::clean(path) };
        let numbers = [count.requests, count.refused, count.failed].map(|n| n.to_string());
        let [requests, refused, failed] = numbers;
        let last = format!("{}, {} ago", count.last_status, age(&count.last_time, now));
        [path, requests, refused, failed, crate::ui::size(count.bytes), count.credential_uses.to_string(), last]
            .to_vec()
    };
    std::iter::once(head).chain(report.routes.iter().map(row)).collect()
}

fn doing(status: &Status) -> String {
    let uses = status.report.credential_uses();
    let denied = status.report.refusals();
    let count = |n: u64, word: &str| format!("{n} {word}{}", if n == 1 { "" } else { "s" });
    let mut what = format!("{}, {}", count(uses, "credential use"), count(denied, "refusal"));
    // The one-shots of a launch are no sidecars, so whatever has ended is missing.
    let ended: Vec<_> = status.sidecars.iter().filter(|(_, s)| *s == "ended").map(|(r, _)| r.as_str()).collect();
    if !ended.is_empty() {
        what = format!("ENDED: {}; {what}", ended.join(" "));
    }
    let restarts: u64 = status.restarts.values().sum();
    if ended.is_empty() && restarts > 0 {
        what = format!("{what}, {}", count(restarts, "restart"));
    }
    what
}

/// How long ago, in its largest unit.
fn age(time: &str, now: jiff::Timestamp) -> String {
    let Ok(then) = time.parse::<jiff::Timestamp>() else { return "?".to_owned() };
    match now.as_second().saturating_sub(then.as_second()).max(0) {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn metadata(id: &str, ended: Option<&str>) -> Metadata {
        Metadata {
            id: id.to_owned(),
            agent: "coder".to_owned(),
            bottle: "dev".to_owned(),
            workspace: None,
            image: "i".to_owned(),
            engine: None,
            started: "2026-01-01T10:00:00.000Z".to_owned(),
            ended: ended.map(str::to_owned),
            outcome: ended.map(|_| "exited 0".to_owned()),
        }
    }

    #[test]
    fn a_table_fits_into_eighty_columns() {
        let mut report = Report::default();
        let mut over = |path: &str, requests, refused, credential_uses| {
            let last_time = "2026-01-01T12:29:55.000Z".to_owned();
            let bytes = 1_234_567_890;
            let count =
                RouteCount { requests, refused, failed: 3, bytes, credential_uses, last_status: 200, last_time };
            report.routes.insert(path.to_owned(), count);
        };
        over("/api/", 1234, 2, 12);
        over("", 3, 0, 0);
        report.denied.insert("a.example".to_owned(), (1, String::new()));
        let status = |sidecars: &[(&str, &str)]| Status {
            phase: "running".to_owned(),
            sidecars: sidecars.iter().map(|(r, s)| ((*r).to_owned(), (*s).to_owned())).collect::<BTreeMap<_, _>>(),
            restarts: BTreeMap::from([("pipelock".to_owned(), 2)]),
            report: report.clone(),
        };
        let rows = [
            (metadata("coder", None), Some(status(&[("pipelock", "ready")])), false),
            (metadata("coder-2", None), Some(status(&[("pipelock", "ended")])), false),
            (metadata("coder-3", Some("2026-01-01T11:00:00.000Z")), None, true),
            (metadata("coder-4", None), None, false),
        ];
        let now = "2026-01-01T12:30:00Z".parse().unwrap();
        insta::assert_snapshot!(crate::ui::table(&table(&rows, now)), @"
        BOTTLE   AGENT  STATE     SINCE   WHAT
        coder    coder  running   2 h     12 credential uses, 3 refusals, 2 restarts
        coder-2  coder  running   2 h     ENDED: pipelock; 12 credential uses, 3 refusals
        coder-3  coder  exited 0  90 min  work saved
        coder-4  coder  died      2 h
        ");
        let (one, now) = (rows[1].1.as_ref().unwrap(), now);
        insta::assert_snapshot!(crate::ui::table(&sidecars(one)), @"
        SIDECAR   STATE  RESTARTS
        pipelock  ended  2
        ");
        insta::assert_snapshot!(crate::ui::table(&routes(&one.report, now)), @"
        ROUTE       REQUESTS  REFUSED  FAILED  BYTES    CREDENTIAL  LAST
        (no route)  3         0        3       1.1 GiB  0           200, 5 s ago
        /api/       1234      2        3       1.1 GiB  12          200, 5 s ago
        ");
    }

    #[test]
    fn ages_are_readable() {
        let now = "2026-01-03T12:00:00Z".parse().unwrap();
        for (time, text) in [
            ("2026-01-03T11:59:58.900Z", "2 s"),
            ("2026-01-03T11:30:00Z", "30 min"),
            ("2026-01-02T12:00:00Z", "24 h"),
            ("2026-01-01T11:59:00Z", "2 d"),
            ("2026-01-03T12:00:09Z", "0 s"),
            ("never", "?"),
        ] {
            assert_eq!(age(time, now), text, "{time}");
        }
    }
}
