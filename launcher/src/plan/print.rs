//! How a plan prints: for people, as stable JSON, as the page of the preflight, and the report at the end. Pure.

use super::reach::Reach;
use super::{Action, AgentUser, Plan};
use crate::engine::NetworkMode;
use crate::report::{RemoteCount, Report, RouteCount};
use crate::ui::{COLUMNS, clean, wrapped};
use crate::workspace::Survey;
use std::fmt::Write as _;

/// What inspection costs every route.
const INSPECTION: &str = "of a route: replies are held back until they are whole, but for event streams; trailers and \
                          upgrades are lost; compressed requests are refused";

/// Sensitive files and left-out files that are named one by one.
const NAMED_MAX: usize = 8;

/// The plan for people: what is done, in order.
pub fn text(plan: &Plan) -> String {
    let mut out = format!("bottle {}\n", plan.owner.id);
    if !plan.reach.engine {
        let unknown =
            "no engine answered: subnets are those of an engine without networks, and what only it knows is unknown";
        let _ = writeln!(out, "{}", wrapped("", unknown, COLUMNS));
    }
    for (n, stage) in plan.stages.iter().enumerate() {
        let _ = writeln!(out, "\nstage {}: {}", n + 1, stage.name);
        for lane in &stage.lanes {
            for (m, action) in lane.iter().enumerate() {
                let mark = if m == 0 { "-" } else { " " };
                let _ = writeln!(out, "{}", wrapped(&format!("  {mark} "), &clean(&sentence(action)), COLUMNS));
            }
        }
    }
    let session = &plan.session;
    let argv = session.argv.as_ref().map_or_else(|| "the image's own program".to_owned(), |a| clean(&a.join(" ")));
    let user = match &session.user {
        AgentUser::OfImage(user) => user.clone(),
        AgentUser::Added => "agent (1000, added)".to_owned(),
        AgentUser::Unknown => "unknown until the image is there".to_owned(),
    };
    let _ = writeln!(out, "\n{}\n  as {}", wrapped("then: ", &argv, COLUMNS), clean(&user));
    if let Some(workdir) = &session.workdir {
        let _ = writeln!(out, "  in {workdir}");
    }
    let _ = writeln!(out, "\n{}", reach_lines(&plan.reach));
    out
}

/// The plan for programs. It holds no secret: the plan's types have no place for one, and values of the manifest's
/// literal variables are left out here, since a manifest is not always written with care.
pub fn json(plan: &Plan) -> String {
    let mut value = serde_json::to_value(plan).unwrap_or_default();
    if let Some(env) = value.pointer_mut("/session/env").and_then(serde_json::Value::as_object_mut) {
        for value in env.values_mut() {
            if let Some(literal) = value.get_mut("literal") {
                *literal = serde_json::Value::from("[redacted]");
            }
        }
    }
    format!("{value:#}\n")
}

fn sentence(action: &Action) -> String {
    match action {
        Action::Network(spec) => {
            let kind = if spec.internal { "internal, no address of the host" } else { "the way out" };
            format!("network {} {} ({kind})", spec.name, spec.subnet)
        }
        Action::Container(spec) => {
            let place = match &spec.network {
                NetworkMode::On { network, address: Some(address), .. } => format!("at {address} on {network}"),
                NetworkMode::On { network, address: None, .. } => format!("on {network}"),
                NetworkMode::Of(container) => format!("in the network of {container}"),
                NetworkMode::None => "without a network".to_owned(),
            };
            format!("container {} from {} {place}", spec.name, spec.image)
        }
        Action::Connect { container, network, address } => {
            let address = address.map(|a| format!(" at {a}")).unwrap_or_default();
            format!("connect {container} to {network}{address}")
        }
        Action::Provision { container } => format!("write the agent's files into {container}"),
        Action::Prepare { container } => format!("write the first process and the certificates into {container}"),
        Action::Workspace { container, from } => format!("copy {} into {container}", from.display()),
        Action::Restore { container } => format!("put the saved workspace into {container}"),
        Action::Compare => "read everything back and compare it with this plan".to_owned(),
        Action::Bring { container, role } => format!("start {container} and wait until {role} is ready"),
        Action::Once { container } => format!("run {container} to its end"),
    }
}

/// What the agent will be able to reach and hold, and what comes along.
pub fn preflight(reach: &Reach, id: &str, survey: Option<&Survey>) -> String {
    let mut out = format!("{}\n{}", format_args!("The bottle {id} gives its agent:"), reach_lines(reach));
    let Some(survey) = survey else { return out };
    let mib = survey.bytes.div_ceil(1 << 20);
    let _ = write!(out, "\n{}", row("files", &format!("{}, {mib} MiB", survey.files)));
    named(&mut out, "with secrets?", survey.sensitive.iter().map(ToString::to_string));
    named(&mut out, "left out", survey.left_out.iter().map(|(path, why)| format!("{path} ({why})")));
    out
}

/// What an agent will reach and hold, after lines of the caller's own (label, text).
pub fn page(reach: &Reach, head: &[(&str, String)]) -> String {
    let head = head.iter().map(|(label, text)| format!("{}\n", row(label, text)));
    format!("{}{}", head.collect::<String>(), reach_lines(reach))
}

fn named(out: &mut String, label: &str, items: impl ExactSizeIterator<Item = String>) {
    let total = items.len();
    for (n, item) in items.take(NAMED_MAX).enumerate() {
        let _ = write!(out, "\n{}", row(if n == 0 { label } else { "" }, &item));
    }
    if total > NAMED_MAX {
        let _ = write!(out, "\n{}", row("", &format!("and {} more", total - NAMED_MAX)));
    }
}

/// A labelled line of a page; what does not fit goes on below its text.
fn row(label: &str, text: &str) -> String {
    wrapped(&format!("  {label:<14} "), &clean(text).replace('\n', " "), COLUMNS).trim_end().to_owned()
}

fn reach_lines(reach: &Reach) -> String {
    let mut lines: Vec<(String, String)> = Vec::new();
    let mut line = |label: &str, text: String| lines.push((label.to_owned(), text));
    line(
        "image",
        match &reach.image_id {
            Some(id) => format!("{} ({})", reach.image, id.get(..19).unwrap_or(id)),
            None if reach.engine => format!("{} (not here yet)", reach.image),
            None => format!("{} (unknown without an engine)", reach.image),
        },
    );
    line("user", reach.user.clone());
    line("hosts", or_nothing(&reach.hosts));
    if !reach.not_inspected.is_empty() {
        line("not inspected", reach.not_inspected.join(", "));
    }
    if !reach.private.is_empty() {
        line("private", reach.private.join(", "));
    }
    if reach.agent_credentials {
        line("credentials", "its own Authorization and X-Api-Key headers may leave".to_owned());
    }
    if let Some(network) = &reach.network {
        line("goes out by", format!("the engine's network {network}"));
    }
    for route in &reach.routes {
        let inspected = if route.inspected { "" } else { ", not inspected" };
        line("route", format!("{} -> {} (credential: {}{inspected})", route.path, route.upstream, route.credential));
        line("", format!("may {}", route.allow.join(", ")));
        if !route.roles.is_empty() {
            line("", format!("used as {}", route.roles.join(", ")));
        }
        if let Some(twin) = &route.twin {
            line("", format!("answers at {twin} too, where npm asks for its tarballs"));
        }
        if let Some(cost) = &route.cost {
            line("", format!("inspected: {cost}"));
        }
    }
    if reach.routes.iter().any(|route| route.inspected) {
        line("inspection", INSPECTION.to_owned());
    }
    for remote in &reach.remotes {
        line("remote", format!("{} -> {} (credential: {})", remote.name, remote.upstream, remote.credential));
        line("", remote.push.clone());
        if remote.exceptions > 0 {
            line("", format!("{} findings do not refuse a push", remote.exceptions));
        }
        if let Some(host) = &remote.also_direct {
            line(
                "",
                format!("{host} is on the allowlist too: with a key of its own the agent can push there unscanned"),
            );
        }
    }
    if reach.may_ask {
        line("may ask", "for more while it runs; a person answers (launcher proposals)".to_owned());
    }
    if let Some(committer) = &reach.committer {
        line("commits as", committer.clone());
    }
    for (name, folder) in &reach.skills {
        line("skill", format!("{name}, from {folder}"));
    }
    for (name, source) in &reach.env {
        line("holds", format!("{name} ({source})"));
    }
    let workspace = reach.workspace.as_ref().map_or_else(
        || "nothing".to_owned(),
        |w| match reach.resumed {
            true => format!("as it was left; it came from {w}"),
            false => format!("a copy of {w}"),
        },
    );
    line("workspace", workspace);
    line("limits", reach.limits.clone());
    line("runtime", reach.runtime.clone());
    line("pipelock", reach.pipelock.clone());
    let rows: Vec<_> = lines.iter().map(|(label, text)| row(label, text)).collect();
    rows.join("\n")
}

fn or_nothing(list: &[String]) -> String {
    if list.is_empty() { "none".to_owned() } else { list.join(", ") }
}

/// What happened, at the end.
pub fn report(report: &Report, id: &str) -> String {
    let mut out = format!("bottle {id} ended after {}", duration(report.seconds));
    if let Some(status) = report.agent_status {
        let _ = write!(out, ", its agent with status {status}");
    }
    let counted = |(name, count): (&String, &u64)| format!("{} ({count})", clean(name));
    let mut line = |label: &str, items: Vec<String>| {
        if !items.is_empty() {
            let more = items.len().saturating_sub(NAMED_MAX);
            let shown = items.iter().take(NAMED_MAX).cloned().collect::<Vec<_>>().join(", ");
            let more = if more > 0 { format!(", and {more} more") } else { String::new() };
            let _ = write!(out, "\n{}", row(label, &format!("{shown}{more}")));
        }
    };
    line("reached", report.reached.iter().map(counted).collect());
    line("refused", report.denied.iter().map(|(host, (n, _))| format!("{} ({n})", clean(host))).collect());
    line("routes", report.routes.iter().map(over_route).collect());
    line("remotes", report.remotes.iter().map(over_remote).collect());
    if report.workspace.is_some() {
        line("the work", vec![format!("launcher diff {id}, launcher take {id}")]);
    }
    out
}

fn over_route((path, count): (&String, &RouteCount)) -> String {
    let path = if path.is_empty() { "no route".to_owned() } else { clean(path) };
    let mut text = format!("{path} ({} {}", count.requests, if count.requests == 1 { "request" } else { "requests" });
    for (number, what) in
        [(count.credential_uses, "with the credential"), (count.refused, "refused"), (count.failed, "failed")]
    {
        if number > 0 {
            let _ = write!(text, ", {number} {what}"); // writing to a String cannot fail
        }
    }
    text.push(')');
    text
}

fn over_remote((name, count): (&String, &RemoteCount)) -> String {
    let name = if name.is_empty() { "no remote".to_owned() } else { clean(name) };
    let counts = [
        (count.fetches, if count.fetches == 1 { "fetch" } else { "fetches" }),
        (count.pushes, if count.pushes == 1 { "push" } else { "pushes" }),
        (count.refused, "refused"),
        (count.failed, "broken off"),
    ];
    let counts: Vec<_> =
        counts.iter().filter(|(number, _)| *number > 0).map(|(number, what)| format!("{number} {what}")).collect();
    format!("{name} ({})", counts.join(", "))
}

fn duration(seconds: u64) -> String {
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, s) => format!("{s} s"),
        (0, m, s) => format!("{m} min {s} s"),
        (h, m, _) => format!("{h} h {m} min"),
    }
}

#[cfg(test)]
mod tests;
