//! How a bottle is now, as far as its agent may know: what supervise shows it. Pure.

use crate::manifest::ImageSource;
use crate::plan::Order;
use cred_proxy::config::Auth;
use std::collections::BTreeMap;
use supervise::wire::{Current, Denial, Remote, Route};

/// The bottle of an order, with what was refused of late.
pub fn current(order: &Order, denials: Vec<Denial>) -> Current {
    let bottle = &order.bottle;
    let strings = |list: &[crate::manifest::host::HostPattern]| list.iter().map(ToString::to_string).collect();
    Current {
        allowlist: strings(&bottle.egress.allowlist),
        passthrough: strings(&bottle.egress.passthrough),
        routes: bottle.routes.iter().map(route).collect(),
        remotes: bottle.git.remotes.iter().map(remote).collect(),
        from: crate::plan::agent::base_image(order),
        dockerfile: match (order.built(), &bottle.agent.image) {
            (Some(built), _) => Some(built.text.clone()),
            (None, ImageSource::Dockerfile { text, .. }) => Some(text.clone()),
            (None, ImageSource::Reference(_)) => None,
        },
        denials,
    }
}

/// The same as files, for an agent that looks rather than asks.
pub fn files(current: &Current) -> BTreeMap<&'static str, String> {
    let lines = |list: &[String]| list.iter().map(|line| format!("{line}\n")).collect::<String>();
    // Our own types can always be written.
    let json = |value: serde_json::Result<String>| value.unwrap_or_default() + "\n";
    let mut files = BTreeMap::from([
        ("allowlist.txt", lines(&current.allowlist)),
        ("not-inspected.txt", lines(&current.passthrough)),
        ("routes.json", json(serde_json::to_string_pretty(&current.routes))),
        ("git-policy.json", json(serde_json::to_string_pretty(&current.remotes))),
        ("denials.json", json(serde_json::to_string_pretty(&current.denials))),
    ]);
    files.extend(current.dockerfile.clone().map(|text| ("Dockerfile", text)));
    files
}

/// A route without its credential.
pub fn route(route: &crate::manifest::Route) -> Route {
    Route {
        path: route.path.clone(),
        upstream: route.upstream.to_string(),
        scheme: scheme(&route.auth),
        allow: route.allow.clone(),
    }
}

/// How a credential is put in, as a manifest says it.
pub fn scheme(auth: &Auth) -> String {
    match auth {
        Auth::Bearer => "Bearer".to_owned(),
        Auth::Token => "token".to_owned(),
        Auth::Basic => "Basic".to_owned(),
        Auth::Header(name) => format!("header:{name}"),
        Auth::None => "none".to_owned(),
    }
}

fn remote(remote: &crate::manifest::Remote) -> Remote {
    Remote {
        name: remote.name.clone(),
        upstream: remote.upstream.to_string(),
        refs: remote.push.refs.clone(),
        force: remote.push.force,
        delete: remote.push.delete,
    }
}
