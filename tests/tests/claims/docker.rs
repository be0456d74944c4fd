//! The engine by its own command: what only an operator of the engine can see and do. Containers that a claim makes as
//! controls go with their guard. It must never touch what a claim did not make or a bottle of its site is not.

use bottle_tests::harness::Output;
use serde_json::Value;
use std::net::Ipv4Addr;
use std::process::Command;

/// Runs `docker`.
pub fn docker(args: &[&str]) -> Output {
    Command::new("docker").args(args).output().expect("docker can be run").into()
}

/// What the engine says of an object.
#[track_caller]
pub fn inspect(name: &str) -> Value {
    let text = docker(&["inspect", name]).ok().stdout;
    serde_json::from_str::<Vec<Value>>(&text).unwrap().remove(0)
}

/// The address of a container on a network; any network where none is named.
#[track_caller]
pub fn address(container: &str, network: &str) -> Ipv4Addr {
    let facts = inspect(container);
    let text = facts["NetworkSettings"]["Networks"][network]["IPAddress"].as_str().unwrap_or_default().to_owned();
    text.parse().unwrap_or_else(|_| panic!("{container} has no address on {network}: {text:?}"))
}

/// Every address of a container.
pub fn addresses(container: &str) -> Vec<Ipv4Addr> {
    let facts = inspect(container);
    let networks = facts["NetworkSettings"]["Networks"].as_object().cloned().unwrap_or_default();
    networks.values().filter_map(|n| n["IPAddress"].as_str()?.parse().ok()).collect()
}

/// A container of a claim's own, outside every bottle; it goes when this does.
pub struct Plain(String);

impl Plain {
    /// Starts one: `options` are those of `docker run`, then image and program.
    #[track_caller]
    pub fn start(options: &[&str]) -> Self {
        let mut args = vec!["run", "-d", "--label", "dev.bottle.test=claims"];
        args.extend(options);
        Self(docker(&args).ok().stdout.trim().to_owned())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.0
    }

    /// Runs a program in it.
    pub fn exec(&self, program: &[&str]) -> Output {
        docker(&[&["exec", self.id()], program].concat())
    }
}

impl Drop for Plain {
    fn drop(&mut self) {
        docker(&["rm", "-f", "-v", &self.0]);
    }
}

/// A network of a claim's own; it goes when this does.
pub struct Net(String);

impl Net {
    /// Makes one.
    #[track_caller]
    pub fn make(options: &[&str], name: &str) -> Self {
        let mut args = vec!["network", "create", "--label", "dev.bottle.test=claims"];
        args.extend(options);
        args.push(name);
        Self(docker(&args).ok().stdout.trim().to_owned())
    }

    /// Its id.
    pub fn id(&self) -> &str {
        &self.0
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        docker(&["network", "rm", &self.0]);
    }
}
