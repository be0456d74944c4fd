//! The user's defaults.

use super::World;
use crate::manifest::{Runtime, UserConfig};

fn config(text: &str) -> Result<UserConfig, String> {
    let world = World::with_bottle("agent: {image: a}\n");
    world.write("config/config.toml", text);
    world.load().map(|loaded| loaded.user).map_err(|errors| world.plain(errors))
}

#[test]
fn without_a_file_the_defaults_hold() {
    let loaded = World::with_bottle("agent: {image: a}\n").load().unwrap();
    assert_eq!(loaded.user, UserConfig::default());
    assert_eq!(loaded.user.subnet_pool.to_string(), "10.213.0.0/16");
    assert_eq!(config("").unwrap(), UserConfig::default());
}

#[test]
fn the_users_defaults_hold_where_the_bottle_says_nothing() {
    let world = World::with_bottle("agent: {image: a}\nlimits: {pids: 99}\n");
    world.write(
        "config/config.toml",
        "bottle = \"dev\"\npipelock_image = \"localhost/pipelock:2\"\nsubnet_pool = \"172.20.0.0/16\"\nruntime = \"runc\"\n\
         editor = \"vi -f\"\non_proposal = [\"notify-send\", \"asks\"]\n[limits]\ncpus = 1.5\nmemory = \"1GiB\"\npids = 20\ntime = \"2h\"\n",
    );
    let loaded = world.load().unwrap();
    assert_eq!(loaded.user.default_bottle.as_deref(), Some("dev"));
    assert_eq!(loaded.user.pipelock_image.as_deref(), Some("localhost/pipelock:2"));
    assert_eq!(loaded.user.editor.as_deref(), Some("vi -f"));
    assert_eq!(loaded.user.on_proposal, ["notify-send", "asks"]);
    assert_eq!(loaded.bottle.runtime, Runtime::Runc);
    let limits = loaded.bottle.limits;
    assert_eq!((limits.cpus, limits.memory_bytes, limits.pids, limits.time_s), (1.5, 1 << 30, 99, Some(7200)));
    world.write("config/bottles/dev.md", "---\nagent: {image: a}\nruntime: auto\n---\n");
    assert_eq!(world.load().unwrap().bottle.runtime, Runtime::Auto);
}

#[test]
fn pools_are_private_and_large_enough() {
    for good in ["10.0.0.0/8", "10.213.0.0/20", "172.16.0.0/12", "172.31.0.0/16", "192.168.0.0/16"] {
        assert_eq!(config(&format!("subnet_pool = \"{good}\"\n")).unwrap().subnet_pool.to_string(), good);
    }
    for (bad, part) in [
        ("10.213.0.0/21", "too small"),
        ("10.0.0.0/7", "is not inside"),
        ("8.0.0.0/7", "is not inside"),
        ("0.0.0.0/0", "is not inside"),
        ("172.32.0.0/16", "is not inside"),
        ("172.0.0.0/8", "is not inside"),
        ("198.18.0.0/15", "is not inside"),
        ("100.64.0.0/10", "is not inside"),
        ("192.168.1.0/16", "host bits"),
        ("10.0.0.0", "not address/prefix"),
        ("fd00::/8", "not an IPv4 address"),
    ] {
        let error = config(&format!("subnet_pool = \"{bad}\"\n")).unwrap_err();
        assert!(error.contains(part), "{bad}: {error}");
        assert!(error.contains("config/config.toml:1:15"), "{error}");
    }
}

#[test]
fn the_file_is_strict() {
    for (text, part) in [
        ("botle = \"dev\"\n", "did you mean `bottle`?"),
        ("bottle = \"Dev\"\n", "is not a name"),
        ("bottle = [\"dev\"]\n", "single value"),
        ("runtime = \"kata\"\n", "auto, runc, runsc"),
        ("pipelock_image = \"-v\"\n", "is not an image"),
        ("editor = \"\"\n", "is empty"),
        ("on_proposal = \"notify-send\"\n", "`on_proposal`"),
        ("on_proposal = [\"\"]\n", "`on_proposal`"),
        ("limits = 3\n", "must be a table"),
        ("[limits]\ncpus = 0x10\n", "not a number of processors"),
        ("[limits]\nmemory = 4\n", "whole number and a unit"),
        ("bottle = \n", "the TOML cannot be read"),
        ("bottle = \"a\"\nbottle = \"b\"\n", "the TOML cannot be read"),
    ] {
        let error = config(text).unwrap_err();
        assert!(error.contains(part), "{text}: {error}");
    }
}
