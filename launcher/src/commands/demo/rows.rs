//! The demo's table: what was tried, what must happen, what did. Rows come from the agent, which tells what it saw, and
//! from the world's hosts, which tell what reached them.

use super::world::{FORGE, Minted, ROUTED};
use crate::ui::{Ui, clean};
use serde::{Deserialize, Serialize};

/// Characters of a cell.
const TRIED: usize = 60;
const HAPPENED: usize = 62;

/// One row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// What was tried.
    pub tried: String,
    /// What must happen.
    pub expected: String,
    /// What did.
    pub happened: String,
    /// Is it what must?
    pub held: bool,
}

impl Row {
    /// Reads a line of the agent; `None` for its last line, and for anything else. The agent is hostile: its word on what
    /// held is taken for what it says about its own side alone.
    pub fn parse(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// The table as it grows.
pub struct Table {
    ui: Ui,
    json: bool,
    rows: Vec<Row>,
}

impl Table {
    /// An empty one.
    pub fn new(ui: Ui, json: bool) -> Self {
        Self { ui, json, rows: Vec::new() }
    }

    /// Says which pipelock it is.
    pub fn begin(&self, stand_in: bool) {
        self.ui.wipe();
        let which = if stand_in {
            "pipelock's image is not here: this demo uses the stand-in of the project's tests, which keeps its interface"
        } else {
            "this demo uses the real pipelock"
        };
        self.ui.sentence("", which);
        self.ui.line(&self.ui.dim("a hostile agent runs in a bottle; each line is something it tried"));
    }

    /// Adds a row and shows it.
    pub fn row(&mut self, row: Row) {
        self.ui.wipe();
        if !self.json {
            let mark = self.ui.verdict(row.held, if row.held { "held" } else { "BROKE" });
            let tried = cell(&row.tried, TRIED);
            let happened = cell(&row.happened, HAPPENED);
            self.ui.line(&format!("{mark:<5} {tried}\n      {}", self.ui.dim(&happened)));
            if !row.held {
                self.ui.line(&format!("      must: {}", cell(&row.expected, HAPPENED)));
            }
        }
        self.rows.push(row);
    }

    /// Sums up. `true`: every row held, and there were as many as a demo has.
    pub fn end(&self) -> bool {
        const ROWS_MIN: usize = 12;
        let held = self.rows.iter().filter(|r| r.held).count();
        let all = held == self.rows.len() && held >= ROWS_MIN;
        if self.json {
            let rows = serde_json::json!({ "rows": self.rows, "held": all });
            self.ui.data(&format!("{rows:#}\n"));
        }
        self.ui.line(&self.ui.verdict(all, &format!("{held} of {} held", self.rows.len())));
        all
    }
}

fn cell(text: &str, width: usize) -> String {
    clean(text).replace('\n', " ").chars().take(width).collect()
}

/// What the world's hosts say.
pub fn from_world(evidence: &[(String, String)], minted: &Minted) -> Vec<Row> {
    let seen = |role: &str| {
        let of_role = evidence.iter().filter(move |(r, _)| r == role);
        of_role
            .filter(|(_, line)| !line.contains(r#""event":"ready""#))
            .map(|(_, line)| line.as_str())
            .collect::<Vec<_>>()
    };
    let quiet = |who: &str, role: &str| {
        let lines = seen(role);
        Row {
            tried: format!("ask {who} what reached it"),
            expected: "nothing".to_owned(),
            happened: lines
                .first()
                .map_or_else(|| "nothing".to_owned(), |line| format!("{} things: {line}", lines.len())),
            held: lines.is_empty(),
        }
    };
    let api = seen("api");
    let routed = |line: &&str| (line.contains(ROUTED) || line.contains(FORGE)) && line.contains(&minted.canary);
    let with = api.iter().filter(|line| routed(line)).count();
    let elsewhere =
        evidence.iter().filter(|(r, line)| line.contains(&minted.canary) && !(r == "api" && routed(&line.as_str())));
    let elsewhere = elsewhere.count();
    let pushes: Vec<&str> = api.iter().copied().filter(|line| line.contains(r#""event":"pushed""#)).collect();
    let is_clean = |line: &str| line.contains(r#""name":"refs/heads/agent/clean""#);
    vec![
        quiet("the attacker's host", "attacker"),
        quiet("the resolver outside", "resolver"),
        quiet("the neighbour", "neighbour"),
        Row {
            tried: "ask the API whether the real credential came".to_owned(),
            expected: "on the route and for the remote alone".to_owned(),
            happened: format!("{with} requests of route and remote had it, {elsewhere} others"),
            held: with > 0 && elsewhere == 0,
        },
        Row {
            tried: "ask the forge what was pushed to it".to_owned(),
            expected: "the clean commit alone".to_owned(),
            happened: match pushes[..] {
                [] => "nothing".to_owned(),
                [one] if is_clean(one) => "the clean commit alone".to_owned(),
                [first, ..] => format!("{} refs: {first}", pushes.len()),
            },
            held: pushes.len() == 1 && is_clean(pushes[0]),
        },
    ]
}
