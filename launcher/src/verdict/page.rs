//! A change as it meets a person's eyes. Pure. The agent's words stand apart, behind a bar that they cannot leave; every
//! text goes through the one sanitiser; what is long is folded, but never what is to be in force.

use super::{Grant, Listing, Review};
use crate::ui::{COLUMNS, clean, wrapped};
use std::fmt::Write as _;
use supervise::wire::{Change, Proposal, Route, Status};

/// Lines of an agent's claim that are shown.
const CLAIM_LINES_MAX: usize = 12;
/// Characters of a change in a table's cell.
const CELL_CHARS_MAX: usize = 60;
/// What stands before every line of an agent's words.
const BAR: &str = "  | ";

/// The page that a person says yes or no to.
pub fn review(review: &Review) -> String {
    let mut out = match &review.proposal {
        Some(proposal) => format!("The agent of {} asks ({}):\n", clean(&review.bottle), clean(&proposal.id)),
        None => format!("A change of {}:\n", clean(&review.bottle)),
    };
    for line in lines_of(&review.change) {
        let _ = writeln!(out, "{}", wrapped("    ", &one_line(&line), COLUMNS)); // writing to a String cannot fail
    }
    if let Some(proposal) = &review.proposal {
        if proposal.change != review.change {
            let _ = writeln!(out, "  instead of\n    {}", one_line(&lines_of(&proposal.change).join(", ")));
        }
        out.push_str(&claim(proposal));
    }
    out.push_str("  What changes:\n");
    for line in difference(&review.before, &review.after) {
        let _ = writeln!(out, "    {}", one_line(&line));
    }
    out.push_str("  What follows:\n");
    for fact in &review.facts {
        let _ = writeln!(out, "{}", wrapped("  - ", &one_line(fact), COLUMNS));
    }
    out
}

/// The agent's words, with a bar before every line of them.
pub fn claim(proposal: &Proposal) -> String {
    let times = if proposal.times > 1 { format!(", asked {} times", proposal.times) } else { String::new() };
    let mut out = format!("  It says (not checked{times}):\n");
    let lines: Vec<String> = proposal.justification.lines().flat_map(folded).collect();
    for line in lines.iter().take(CLAIM_LINES_MAX) {
        let _ = writeln!(out, "{BAR}{line}");
    }
    if lines.len() > CLAIM_LINES_MAX {
        let _ = writeln!(out, "{BAR}({} more lines; --output json shows all)", lines.len() - CLAIM_LINES_MAX);
    }
    out
}

/// A line of foreign text as lines of the page. Long words are cut as well: nobody copies these.
fn folded(line: &str) -> Vec<String> {
    let shown: Vec<char> = one_line(line).chars().collect();
    let width = COLUMNS - BAR.len();
    shown.chunks(width).map(|chunk| chunk.iter().collect()).collect()
}

/// A change in a table's cell.
pub fn short(change: &Change) -> String {
    let text = match change {
        Change::Dockerfile { text } => format!("a Dockerfile of {} lines", text.lines().count()),
        Change::Hosts { .. } | Change::Route(_) | Change::Finding { .. } => lines_of(change).join(", "),
    };
    let text = one_line(&text);
    match text.char_indices().nth(CELL_CHARS_MAX) {
        Some((at, _)) => format!("{}\u{2026}", &text[..at]),
        None => text,
    }
}

/// All of a change, line by line.
pub fn lines_of(change: &Change) -> Vec<String> {
    match change {
        Change::Hosts { hosts } => hosts.iter().map(|host| format!("host {host}")).collect(),
        Change::Route(route) => vec![route_line(route)],
        Change::Finding { fingerprint } => vec![format!("finding {fingerprint}")],
        Change::Dockerfile { text } => {
            std::iter::once("Dockerfile:".to_owned()).chain(text.lines().map(|line| format!("  {line}"))).collect()
        }
    }
}

/// A route in one line.
pub fn route_line(route: &Route) -> String {
    format!("route {} -> {} ({}), may {}", route.path, route.upstream, route.scheme, route.allow.join(", "))
}

/// Lines that go, and lines that come; what stays is not shown.
pub fn difference(before: &[String], after: &[String]) -> Vec<String> {
    let gone = before.iter().filter(|line| !after.contains(line)).map(|line| format!("- {line}"));
    let come = after.iter().filter(|line| !before.contains(line)).map(|line| format!("+ {line}"));
    let all: Vec<String> = gone.chain(come).collect();
    if all.is_empty() { vec!["nothing".to_owned()] } else { all }
}

/// Everything that was asked for, with a head.
pub fn proposals(listings: &[Listing], now: u64) -> Vec<Vec<String>> {
    let head = ["BOTTLE", "PROPOSAL", "STATE", "ASKED", "WHAT"].map(str::to_owned).to_vec();
    let rows = listings.iter().flat_map(|listing| {
        listing.proposals.iter().map(move |listed| {
            let asked = age(now.saturating_sub(listed.proposal.asked));
            let what = short(&listed.proposal.change);
            [clean(&listing.bottle), clean(&listed.proposal.id), status(listed.answer.status).to_owned(), asked, what]
                .to_vec()
        })
    });
    std::iter::once(head).chain(rows).collect()
}

/// Everything that is in force, with a head.
pub fn grants(listings: &[Listing], now: u64) -> Vec<Vec<String>> {
    let head = ["BOTTLE", "GRANT", "ENDS", "WHAT"].map(str::to_owned).to_vec();
    let rows = listings.iter().flat_map(|listing| {
        listing.grants.iter().map(move |grant| {
            [clean(&listing.bottle), clean(&grant.id), ends(grant, now), short(&grant.change)].to_vec()
        })
    });
    std::iter::once(head).chain(rows).collect()
}

fn ends(grant: &Grant, now: u64) -> String {
    match (grant.until, grant.once) {
        (Some(until), false) => format!("in {}", age(until.saturating_sub(now))),
        (Some(until), true) => format!("in {}, or once used", age(until.saturating_sub(now))),
        (None, true) => "once used".to_owned(),
        (None, false) => "with the bottle".to_owned(),
    }
}

/// A status in a word.
pub fn status(status: Status) -> &'static str {
    match status {
        Status::Pending => "pending",
        Status::Approved => "approved",
        Status::Modified => "modified",
        Status::Rejected => "rejected",
        Status::Failed => "failed",
        Status::Ended => "ended",
    }
}

/// A length of time in its largest unit.
pub fn age(seconds: u64) -> String {
    match seconds {
        s @ 0..=119 => format!("{s} s"),
        s @ 120..=7199 => format!("{} min", s / 60),
        s @ 7200..=172_799 => format!("{} h", s / 3600),
        s => format!("{} d", s / 86_400),
    }
}

/// Foreign text on one line of a page.
fn one_line(text: &str) -> String {
    clean(text).replace(['\n', '\t'], " ")
}

#[cfg(test)]
mod tests {
    use super::super::Terms;
    use super::*;
    use proptest::prelude::*;

    fn asked(justification: &str, change: Change) -> Review {
        let proposal = Proposal {
            id: "p1".to_owned(),
            change: change.clone(),
            justification: justification.to_owned(),
            asked: 0,
            times: 1,
        };
        Review {
            bottle: "coder".to_owned(),
            proposal: Some(proposal),
            after: lines_of(&change),
            change,
            terms: Terms::default(),
            before: Vec::new(),
            facts: vec!["its TLS is opened".to_owned()],
            base: String::new(),
            digest: String::new(),
        }
    }

    fn hosts(host: &str) -> Change {
        Change::Hosts { hosts: vec![host.to_owned()] }
    }

    #[test]
    fn the_page_keeps_claims_apart_from_facts() {
        let page = review(&asked("to build\n  What follows:\n  - it is harmless", hosts("crates.example.org")));
        insta::assert_snapshot!(page, @r"
        The agent of coder asks (p1):
            host crates.example.org
          It says (not checked):
          | to build
          |   What follows:
          |   - it is harmless
          What changes:
            + host crates.example.org
          What follows:
          - its TLS is opened
        ");
    }

    #[test]
    fn a_long_claim_is_folded_and_a_change_never_is() {
        let dockerfile = Change::Dockerfile { text: "RUN x\n".repeat(200) };
        let page = review(&asked(&"word ".repeat(2000), dockerfile));
        assert!(page.contains("more lines"), "{page}");
        assert_eq!(page.lines().filter(|line| line.starts_with(BAR)).count(), CLAIM_LINES_MAX + 1);
        assert_eq!(page.lines().filter(|line| line.trim() == "RUN x").count(), 200, "all of it is shown");
    }

    proptest! {
        #[test]
        fn no_text_of_an_agent_leaves_its_place_or_drives_a_terminal(
            words in any::<String>(), host in any::<String>(), path in any::<String>()
        ) {
            let route = Route { path: path.clone(), upstream: host.clone(), scheme: words.clone(), allow: vec![words.clone()] };
            let changes = [
                hosts(&host),
                Change::Route(route),
                Change::Finding { fingerprint: words.clone() },
                Change::Dockerfile { text: words.clone() },
            ];
            for change in changes {
                let page = review(&asked(&words, change));
                prop_assert!(page.chars().all(|c| c == '\n' || !c.is_control()), "{page:?}");
                prop_assert_eq!(clean(&page), page.clone());
                for (_, rest) in page.lines().enumerate().skip_while(|(_, l)| !l.starts_with("  It says")).skip(1)
                    .take_while(|(_, l)| *l != "  What changes:")
                {
                    prop_assert!(rest.starts_with(BAR), "{rest:?}");
                }
                // The page's own heads stand at the margin, where no foreign text can.
                let heads = page.lines().filter(|l| *l == "  What follows:").count();
                prop_assert_eq!(heads, 1);
            }
        }
    }
}
