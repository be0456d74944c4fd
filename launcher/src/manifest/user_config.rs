//! The user's defaults: `config.toml`, read as strictly as a manifest.

use super::bottle::runtime;
use super::error::quoted;
use super::name::Name;
use super::places::Places;
use super::reader::{Table, text, texts};
use super::report::{Report, Span, Unreadable, read_text};
use super::source::reference;
use super::tree::Entry;
use super::{Limits, Runtime, limits, toml_tree};
use crate::engine::Subnet;
use std::net::Ipv4Addr;

/// The longest prefix of a pool: 256 networks of 16 addresses, enough for 50 bottles at once.
const POOL_PREFIX_MAX: u8 = 20;

/// Private addresses by RFC 1918. Outside of them pipelock does not see a bottle's networks as internal.
const PRIVATE: [Subnet; 3] = [
    Subnet { base: Ipv4Addr::new(10, 0, 0, 0), prefix: 8 },
    Subnet { base: Ipv4Addr::new(172, 16, 0, 0), prefix: 12 },
    Subnet { base: Ipv4Addr::new(192, 168, 0, 0), prefix: 16 },
];

/// The user's defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct UserConfig {
    /// The bottle of agents that name none (`bottle`).
    pub default_bottle: Option<String>,
    /// pipelock's image, where the pinned one is not wanted.
    pub pipelock_image: Option<String>,
    /// What the subnets of bottles are taken from.
    pub subnet_pool: Subnet,
    /// The runtime of bottles that name none.
    pub runtime: Option<Runtime>,
    /// The limits of bottles that set none.
    pub limits: Limits,
    /// The program that `edit` starts.
    pub editor: Option<String>,
    /// The command that is run for every new proposal: program and arguments; empty for none.
    pub on_proposal: Vec<String>,
}

impl Default for UserConfig {
    fn default() -> Self {
        Self {
            default_bottle: None,
            pipelock_image: None,
            subnet_pool: Subnet { base: Ipv4Addr::new(10, 213, 0, 0), prefix: 16 },
            runtime: None,
            limits: Limits::default(),
            editor: None,
            on_proposal: Vec::new(),
        }
    }
}

/// Reads `config.toml`; where there is none, the defaults hold. After an error they stand in, so that the manifests
/// are read all the same.
pub(super) fn read(places: &Places, report: &mut Report) -> UserConfig {
    let file = places.user_config();
    let mut config = UserConfig::default();
    let text = match read_text(&file) {
        Ok(text) => text,
        Err(Unreadable::Missing) => return config,
        Err(error) => {
            report.error_of(Some(&file), format!("cannot use the configuration: {error}"), None);
            return config;
        }
    };
    let source = report.add(&file, text);
    let Some(node) = toml_tree::parse(report, source) else { return config };
    let top = Span { source, start: 0, end: 0 };
    let Some(mut table) = Table::open(&node, "the configuration", top, report) else { return config };
    config.default_bottle = table.take("bottle").and_then(|entry| name(entry, report));
    config.pipelock_image = table.take("pipelock_image").and_then(|entry| image(entry, report));
    config.subnet_pool = table.take("subnet_pool").and_then(|e| pool(e, report)).unwrap_or(config.subnet_pool);
    config.runtime = table.take("runtime").and_then(|entry| runtime(entry, report));
    config.limits = limits::read(table.take("limits"), &config.limits, report);
    config.editor = table.take("editor").and_then(|e| text_of(e, report)).map(|editor| editor.text);
    config.on_proposal = table.take("on_proposal").map(|entry| command(entry, report)).unwrap_or_default();
    table.finish(report);
    config
}

fn text_of(entry: &Entry, report: &mut Report) -> Option<super::reader::Text> {
    text(&entry.value, &format!("`{}`", entry.key), report)
}

fn name(entry: &Entry, report: &mut Report) -> Option<String> {
    let text = text_of(entry, report)?;
    match Name::parse(&text.text) {
        Ok(name) => Some(name.to_string()),
        Err(error) => {
            report.error(text.at, error.to_string());
            None
        }
    }
}

fn command(entry: &Entry, report: &mut Report) -> Vec<String> {
    texts(&entry.value, "`on_proposal`", report).into_iter().map(|text| text.text).collect()
}

fn image(entry: &Entry, report: &mut Report) -> Option<String> {
    let text = text_of(entry, report)?;
    match reference(&text.text) {
        Ok(()) => Some(text.text),
        Err(reason) => {
            report.error(text.at, format!("`{}` is not an image: {reason}", quoted(&text.text)));
            None
        }
    }
}

fn pool(entry: &Entry, report: &mut Report) -> Option<Subnet> {
    let text = text_of(entry, report)?;
    let problem = match Subnet::parse(&text.text) {
        Err(reason) => quoted(&reason),
        Ok(pool) if !PRIVATE.iter().any(|net| net.prefix <= pool.prefix && net.contains(pool.base)) => {
            format!("{pool} is not inside 10.0.0.0/8, 172.16.0.0/12 or 192.168.0.0/16")
        }
        Ok(pool) if pool.prefix > POOL_PREFIX_MAX => {
            format!("{pool} is too small: a /{POOL_PREFIX_MAX} or larger holds enough bottles")
        }
        Ok(pool) => return Some(pool),
    };
    report.error_with(text.at, format!("`subnet_pool`: {problem}"), "the default is 10.213.0.0/16".to_owned());
    None
}
