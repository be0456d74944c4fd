//! The wall around the agent's network: what its network namespace may send, and to whom. It is set from inside that
//! namespace, before the agent runs, by a process that has NET_ADMIN; the agent, which has not, cannot change it.
//!
//! It must never be half up: one batch, all or nothing, read back afterwards. It never accepts a destination that was
//! not named: no broadcast, no multicast, no IPv6, not the gateway.

use nlink::netlink::nftables::{
    BaseChain, Chain, Devices, Family, Field, FilterHook, Match, Policy, Priority, Rule, RuleInfo, Transaction,
};
use nlink::netlink::{Connection, Nftables, Route};
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::Ipv4Addr;
use std::process::ExitCode;

/// Name of both tables.
pub const TABLE: &str = "bottle";

/// More addresses are refused: a bottle has a handful of sidecars.
pub const ADDRESSES_MAX: usize = 64;

/// More network interfaces are refused: the agent has one.
const INTERFACES_MAX: usize = 16;

const USAGE: &str = "usage: bottle-wall <ipv4> [<ipv4> ...]";
const LOOPBACK: &str = "lo";
const ETHERTYPE_ARP: u32 = 0x0806;

/// Addresses that the agent may reach: single hosts, each once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses(Vec<Ipv4Addr>);

impl Addresses {
    /// Reads the command line after the program's name; the error is a sentence for standard error.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut addresses = Vec::new();
        for argument in arguments {
            let text = argument.to_string_lossy();
            let address: Ipv4Addr = text.parse().map_err(|_| format!("{text:?} is not an IPv4 address; {USAGE}"))?;
            if !address.is_private() {
                return Err(format!("{address} is not a private address: sidecars have no other"));
            }
            if !addresses.contains(&address) {
                addresses.push(address);
            }
        }
        match addresses.len() {
            0 => Err(USAGE.to_owned()),
            1..=ADDRESSES_MAX => Ok(Self(addresses)),
            _ => Err(format!("more than {ADDRESSES_MAX} addresses")),
        }
    }
}

/// A chain of the wall: all that it accepts, in order. What none of its rules accepts is dropped.
struct Layer {
    family: Family,
    chain: &'static str,
    hook: FilterHook,
    rules: Vec<Rule>,
}

/// What local processes send by way of IP, and what would be forwarded for them.
fn inner(addresses: &Addresses) -> [Layer; 2] {
    let mut rules = vec![rule(Family::Inet, "output").match_oif(LOOPBACK).accept()];
    rules.extend(addresses.0.iter().map(|a| rule(Family::Inet, "output").match_daddr_v4(*a, 32).accept()));
    [
        Layer { family: Family::Inet, chain: "output", hook: FilterHook::Output, rules },
        Layer { family: Family::Inet, chain: "forward", hook: FilterHook::Forward, rules: Vec::new() },
    ]
}

/// What leaves by a device, raw frames included, which the inner layer does not see.
fn outer(addresses: &Addresses, devices: Devices) -> Layer {
    let mut rules = vec![rule(Family::Netdev, "egress").then(Match::eq(Field::Protocol, ETHERTYPE_ARP)).accept()];
    rules.extend(addresses.0.iter().map(|a| rule(Family::Netdev, "egress").match_daddr_v4(*a, 32).accept()));
    Layer { family: Family::Netdev, chain: "egress", hook: FilterHook::Egress(devices), rules }
}

fn rule(family: Family, chain: &str) -> Rule {
    Rule::new(TABLE, chain).family(family)
}

type Failure = Box<dyn std::error::Error>;

/// What was set.
struct Wall {
    /// Why the outer layer is not there, if it is not.
    no_netdev: Option<String>,
}

/// Sets the wall and reads it back. The outer layer is left out where the kernel has none.
async fn raise(addresses: &Addresses) -> Result<Wall, Failure> {
    let devices = devices().await?;
    let netfilter = Connection::<Nftables>::new()?;
    let mut layers = Vec::from(inner(addresses));
    let no_netdev = match Devices::try_from(devices) {
        Err(_) => Some("there is no device but loopback".to_owned()),
        Ok(devices) => {
            layers.push(outer(addresses, devices));
            match commit(&netfilter, &layers).await {
                Ok(()) => None,
                Err(error) => {
                    layers.pop();
                    Some(error.to_string())
                }
            }
        }
    };
    if no_netdev.is_some() {
        commit(&netfilter, &layers).await?;
    }
    for layer in &layers {
        check(&netfilter, layer).await?;
    }
    Ok(Wall { no_netdev })
}

/// Every device but loopback, up or not.
async fn devices() -> Result<Vec<String>, Failure> {
    let links = Connection::<Route>::new()?.get_links().await?;
    let names = links.iter().map(|link| link.name().ok_or("a network device has no name"));
    let mut names: Vec<String> = names.map(|name| name.map(str::to_owned)).collect::<Result<_, _>>()?;
    names.retain(|name| name != LOOPBACK);
    if names.len() > INTERFACES_MAX {
        return Err(format!("more than {INTERFACES_MAX} network devices").into());
    }
    Ok(names)
}

/// One batch: the kernel takes all of it or nothing. A wall that stands already is replaced in it.
async fn commit(netfilter: &Connection<Nftables>, layers: &[Layer]) -> Result<(), nlink::netlink::Error> {
    let mut batch: Transaction = netfilter.transaction();
    for family in [Family::Inet, Family::Netdev] {
        if netfilter.list_tables_in(family).await?.iter().any(|table| table.name == TABLE) {
            batch = batch.del_table(TABLE, family);
        }
        if layers.iter().any(|layer| layer.family == family) {
            batch = batch.add_table(TABLE, family);
        }
    }
    for layer in layers {
        let base = BaseChain::filter(layer.hook.clone(), Priority::Filter).policy(Policy::Drop);
        batch = batch.add_chain(Chain::new(TABLE, layer.chain)?.family(layer.family).base(base));
        for rule in &layer.rules {
            batch = batch.add_rule(rule.clone());
        }
    }
    batch.commit(netfilter).await
}

/// Is the layer in the kernel as we meant it?
async fn check(netfilter: &Connection<Nftables>, layer: &Layer) -> Result<(), Failure> {
    let wanted = BaseChain::filter(layer.hook.clone(), Priority::Filter).policy(Policy::Drop);
    let chains = netfilter.list_chains_in(TABLE, layer.family).await?;
    let found = chains.iter().find(|chain| chain.name == layer.chain).and_then(|chain| chain.kind());
    if found.as_ref().and_then(|kind| kind.base()) != Some(&wanted) {
        return Err(format!("the kernel has another chain {} than was set: {found:?}", layer.chain).into());
    }
    let rules = netfilter.list_rules(TABLE, layer.family).await?;
    let found: Vec<Option<String>> =
        rules.iter().filter(|rule| rule.chain == layer.chain).map(RuleInfo::nft_syntax).collect();
    let wanted: Vec<Option<String>> = layer.rules.iter().map(Rule::nft_syntax).collect();
    if found != wanted || wanted.contains(&None) {
        return Err(format!("the kernel has other rules in {} than were set: {found:?}", layer.chain).into());
    }
    Ok(())
}

/// The one line for standard output. Nothing in it needs escaping but the reason.
fn line(addresses: &Addresses, wall: &Wall) -> String {
    let list: Vec<String> = addresses.0.iter().map(|address| format!("\"{address}\"")).collect();
    let why = wall.no_netdev.as_ref().map_or(String::new(), |why| {
        let plain: String = why.chars().filter(|c| !c.is_control() && !matches!(c, '"' | '\\')).collect();
        format!(",\"why\":\"{plain}\"")
    });
    format!("{{\"wall\":\"up\",\"netdev\":{}{why},\"addresses\":[{}]}}\n", wall.no_netdev.is_none(), list.join(","))
}

/// The whole program.
pub fn main() -> ExitCode {
    let addresses = match Addresses::parse(std::env::args_os().skip(1)) {
        Ok(addresses) => addresses,
        Err(sentence) => return complain(&sentence, 2),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let raised = runtime.map_err(Failure::from).and_then(|runtime| runtime.block_on(raise(&addresses)));
    match raised {
        // Who cannot be told that the wall stands must not take it for standing.
        Ok(wall) => match io::stdout().write_all(line(&addresses, &wall).as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => complain(&format!("cannot say that the wall is up: {error}"), 1),
        },
        Err(error) => complain(&format!("cannot set the wall: {error}"), 1),
    }
}

fn complain(sentence: &str, code: u8) -> ExitCode {
    // If nobody reads it the status still tells.
    let _ = writeln!(io::stderr(), "bottle-wall: {sentence}");
    ExitCode::from(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Addresses, String> {
        Addresses::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn single_private_addresses_are_taken() {
        let read = parse("10.83.0.2 172.16.4.3 192.168.9.9 10.83.0.2").unwrap();
        assert_eq!(read.0, ["10.83.0.2", "172.16.4.3", "192.168.9.9"].map(|a| a.parse::<Ipv4Addr>().unwrap()));
    }

    #[test]
    fn all_else_is_refused() {
        for line in [
            "",
            "10.83.0.0/28",
            "cred-proxy",
            "fd00::1",
            "0.0.0.0",
            "127.0.0.1",
            "255.255.255.255",
            "224.0.0.1",
            "169.254.169.254",
            "8.8.8.8",
            "10.83.0.2 8.8.8.8",
        ] {
            assert!(parse(line).is_err(), "{line:?}");
        }
        let many: Vec<String> = (1..=65).map(|n| format!("10.0.0.{n}")).collect();
        assert!(parse(&many.join(" ")).is_err());
        assert!(parse(&many[1..].join(" ")).is_ok());
    }

    #[test]
    fn the_rules_name_loopback_and_the_addresses_alone() {
        let addresses = parse("10.83.0.2 10.83.0.3").unwrap();
        let written = |layer: &Layer| -> Vec<String> { layer.rules.iter().filter_map(Rule::nft_syntax).collect() };
        let [output, forward] = inner(&addresses);
        assert_eq!(
            written(&output),
            ["oifname \"lo\" accept", "ip daddr 10.83.0.2 accept", "ip daddr 10.83.0.3 accept"]
        );
        assert!(forward.rules.is_empty());
        assert_eq!(
            written(&outer(&addresses, Devices::new("eth0"))),
            ["meta protocol arp accept", "ip daddr 10.83.0.2 accept", "ip daddr 10.83.0.3 accept"]
        );
    }

    #[test]
    fn the_line_says_what_stands() {
        let addresses = parse("10.83.0.2 10.83.0.3").unwrap();
        assert_eq!(
            line(&addresses, &Wall { no_netdev: None }),
            "{\"wall\":\"up\",\"netdev\":true,\"addresses\":[\"10.83.0.2\",\"10.83.0.3\"]}\n"
        );
        assert_eq!(
            line(&addresses, &Wall { no_netdev: Some("a \"b\"\n".into()) }),
            "{\"wall\":\"up\",\"netdev\":false,\"why\":\"a b\",\"addresses\":[\"10.83.0.2\",\"10.83.0.3\"]}\n"
        );
    }
}
