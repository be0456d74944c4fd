//! What an operator sees.

use super::World;
use crate::manifest::load::load;
use insta::assert_snapshot;

#[test]
fn errors_of_all_files_at_once() {
    let world = World::new();
    world.write("config/config.toml", "bottle = \"dev\"\n[limits]\nmemory = \"4GB\"\n");
    world.write("config/agents/coder.md", "---\ndescription: Writes code.\nmodle: opus\n---\nWrite code.\n");
    world.write(
        "config/bottles/dev.md",
        "\
---
agent:
  provider: claude
env:
  HTTPS_PROXY: http://proxy.example.org:3128
egress:
  alowlist: [crates.example.org]
  passthrough: [git.example.org]
cred_proxy:
  routes:
    - path: /anthropic
      upstream: https://api.anthropic.com
      auth_scheme: bearer
      token_ref: sk-not-a-name
git:
  remotes: []
limits: {time: 8}
---
",
    );
    assert_snapshot!(world.plain(world.load().unwrap_err()), @"");
}

#[test]
fn a_yaml_error_with_what_to_do() {
    let world = World::with_bottle("agent: {image: a}\nenv:\n  GREETING: hello: world\n");
    assert_snapshot!(world.plain(world.load().unwrap_err()), @"");
}

#[test]
fn an_agent_that_does_not_exist() {
    let world = World::with_bottle("agent: {image: a}\n");
    world.write("repo/.bottle/agents/tester.md", "---\n---\n");
    assert_snapshot!(load(&world.places(), "codr", None).unwrap_err().errors[0].hint.clone().unwrap(), @"");
    let errors = load(&world.places(), "reviewer", None).unwrap_err();
    assert_eq!(errors.errors[0].hint.as_deref(), Some("there are: coder, tester"));
    assert_eq!(
        world.plain(&errors.errors[0].message),
        "there is no agent `reviewer`; looked at config/agents/reviewer.md and repo/.bottle/agents/reviewer.md"
    );
}

#[test]
fn no_bottle_is_named() {
    let world = World::with_bottle("agent: {image: a}\n");
    world.write("config/agents/coder.md", "---\n---\n");
    assert_snapshot!(world.load().unwrap_err(), @"");
}
