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
  provider: claud
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
  remotes: [{name: app, upstram: https://git.example.org/app}]
limits: {time: 8}
---
",
    );
    assert_snapshot!(world.plain(world.load().unwrap_err()), @r#"
    error: `memory`: `4GB` is not a size
     --> config/config.toml:3:10
      |
    3 | memory = "4GB"
      |          ^^^^^
      = help: did you mean `4GiB`?

    error: unknown key `modle` in the agent
     --> config/agents/coder.md:3:1
      |
    3 | modle: opus
      | ^^^^^
      = help: did you mean `model`?

    error: there is no provider `claud`
     --> config/bottles/dev.md:3:13
      |
    3 |   provider: claud
      |             ^^^^^
      = help: did you mean `claude`?

    error: `HTTPS_PROXY` is set by the launcher
     --> config/bottles/dev.md:5:3
      |
    5 |   HTTPS_PROXY: http://proxy.example.org:3128
      |   ^^^^^^^^^^^
      = help: it leads to the bottle's proxy or its CA, or is a mark of it; leave it
              out

    error: unknown key `alowlist` in `egress`
     --> config/bottles/dev.md:7:3
      |
    7 |   alowlist: [crates.example.org]
      |   ^^^^^^^^
      = help: did you mean `allowlist`?

    error: `git.example.org` is not on the allowlist
     --> config/bottles/dev.md:8:17
      |
    8 |   passthrough: [git.example.org]
      |                 ^^^^^^^^^^^^^^^
      = help: `passthrough` says which allowed hosts are not inspected; it allows
              nothing by itself

    error: `path` `/anthropic` cannot be used: it must begin and end with `/`: write
           `/anthropic/`
      --> config/bottles/dev.md:11:13
       |
    11 |     - path: /anthropic
       |             ^^^^^^^^^^

    error: there is no `auth_scheme` `bearer`
      --> config/bottles/dev.md:13:20
       |
    13 |       auth_scheme: bearer
       |                    ^^^^^^
       = help: did you mean `Bearer`?

    error: `token_ref` does not name a variable
      --> config/bottles/dev.md:14:18
       |
    14 |       token_ref: *************
       |                  ^^^^^^^^^^^^^
       = help: write the name of a variable (letters, digits and underscores, not
               beginning with a digit), never the credential itself

    error: `upstream` is missing in the remote
      --> config/bottles/dev.md:16:14
       |
    16 |   remotes: [{name: app, upstram: https://git.example.org/app}]
       |              ^^^^
       = help: write where it is, such as `upstream:
               ssh://git@git.example.org/team/app.git`

    error: unknown key `upstram` in the remote
      --> config/bottles/dev.md:16:25
       |
    16 |   remotes: [{name: app, upstram: https://git.example.org/app}]
       |                         ^^^^^^^
       = help: did you mean `upstream`?

    error: `time`: `8` is not a time
      --> config/bottles/dev.md:17:16
       |
    17 | limits: {time: 8}
       |                ^
       = help: write a whole number and a unit: 90s, 30m, 8h, 2d
    "#);
}

#[test]
fn a_yaml_error_with_what_to_do() {
    let world = World::with_bottle("agent: {image: a}\nenv:\n  GREETING: hello: world\n");
    assert_snapshot!(world.plain(world.load().unwrap_err()), @r#"
    error: the YAML cannot be read: mapping values are not allowed in this context
     --> config/bottles/dev.md:4:18
      |
    4 |   GREETING: hello: world
      |                  ^
      = help: a text that holds `: ` needs quotes around it
    "#);
}

#[test]
fn an_agent_that_does_not_exist() {
    let world = World::with_bottle("agent: {image: a}\n");
    world.write("repo/.bottle/agents/tester.md", "---\n---\n");
    let errors = load(&world.places(), "codr", None).unwrap_err();
    assert_eq!(errors.errors[0].hint.as_deref(), Some("did you mean `coder`?"));
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
    assert_snapshot!(world.load().unwrap_err(), @r#"
    error: no bottle is named for the agent `coder`
      = help: name one: `--bottle NAME`, `bottle: NAME` in the agent's file of the
              configuration directory, or `bottle = "NAME"` in config.toml
    "#);
}

#[test]
fn a_folder_without_bottles() {
    assert_snapshot!(World::new().load().unwrap_err().errors[0].hint.as_deref().unwrap_or_default(), @"there are none yet: `launcher init` writes a first agent with its bottle");
}

#[test]
fn names_of_what_is_not_there() {
    let world = World::with_bottle("agent: {image: a}\nextends: base\n");
    assert_snapshot!(world.plain(world.load().unwrap_err()), @r"
    error: there is no bottle `base`
     --> config/bottles/dev.md:3:10
      |
    3 | extends: base
      |          ^^^^
      = help: there are: dev
    ");
    let world = World::with_bottle("agent: {image: a}\nskills: [revew]\n");
    world.write("config/skills/review/SKILL.md", "---\nname: review\n---\n");
    let errors = world.load().unwrap_err();
    assert_eq!(errors.errors[0].message, "there is no skill `revew`");
    assert_eq!(
        world.plain(errors.errors[0].hint.as_deref().unwrap_or_default()),
        "looked for config/skills/revew/SKILL.md and home/.claude/skills/revew/SKILL.md"
    );
}
