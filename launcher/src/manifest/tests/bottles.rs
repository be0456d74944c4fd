//! The bottle itself: agent, environment, limits, and the keys of later versions.

use super::{World, bottle, header, refused, refused_header};
use crate::manifest::{Bottle, EnvValue, ImageSource, Limits, Runtime, WorkspaceMode};

#[test]
fn the_smallest_bottle_has_nothing_open() {
    let bottle = bottle("");
    assert_eq!(bottle.name, "dev");
    assert_eq!(bottle.agent.image, ImageSource::Reference("debian:bookworm-slim".to_owned()));
    assert_eq!((bottle.agent.provider.name.as_str(), bottle.agent.user), ("shell", None));
    assert_eq!(bottle.egress, crate::manifest::Egress::default());
    assert!(bottle.routes.is_empty() && bottle.env.is_empty() && !bottle.supervise);
    assert_eq!((bottle.limits, bottle.runtime), (Limits::default(), Runtime::Auto));
    assert_eq!(bottle.workspace, WorkspaceMode::Copy);
}

#[test]
fn unknown_keys_and_wrong_types_are_refused() {
    bottle("runtime: runc\nworkspace: none\n");
    refused("egres: {}\n", 3, "did you mean `egress`?");
    refused("volumes: [/:/host]\n", 3, "known here:");
    refused("runtime: kata\n", 3, "auto, runc, runsc");
    refused("runtime: RunC\n", 3, "did you mean `runc`?");
    refused("workspace: mount\n", 3, "copy, none");
    refused("workspace:\n", 3, "has no value");
    refused("env: [A]\n", 3, "must be a table");
    refused("egress: open\n", 3, "must be a table");
    refused("limits: 3\n", 3, "must be a table");
    refused("env: {A: 1}\nenv: {B: 2}\n", 4, "written twice");
    refused("supervise: \"true\"\n", 3, "without quotes");
    refused("supervise: yes\n", 3, "true or false");
    refused_header("- a\n- b\n", 2, "must be a table");
}

#[test]
fn an_empty_section_is_no_error() {
    assert_eq!(bottle("egress:\nenv:\ncred_proxy:\nlimits:\ngit:\nskills:\n").egress.allowlist, []);
    assert!(bottle("egress: {allowlist:}\ncred_proxy: {routes: []}\n").routes.is_empty());
}

#[test]
fn the_agent_comes_from_one_place() {
    refused_header("{}\n", 1, "`agent` is missing");
    refused_header("", 1, "`agent` is missing");
    refused_header("agent:\n", 2, "write `image:` or `dockerfile:`");
    refused_header("agent: {provider: shell}\n", 2, "write `image:` or `dockerfile:`");
    refused_header("agent: {provider: shel, image: a}\n", 2, "did you mean `shell`?");
    refused_header("agent: {provider: gemini, image: a}\n", 2, "there is no provider `gemini`");
    refused_header("agent: {image: a, dockerfile: ./b}\n", 2, "stands beside");
    refused_header("agent: {image: --privileged}\n", 2, "is not an image");
    refused_header("agent: {image: a, imge: b}\n", 2, "did you mean `image`?");
    refused_header("agent: {dockerfile: ./none}\n", 2, "there is no such file");
    refused_header("agent: {dockerfile: .}\n", 2, "not a regular file");
    refused_header("agent: {dockerfile: ~eve/Dockerfile}\n", 2, "another user's home");
}

#[test]
fn a_provider_may_bring_an_image_and_a_bottle_may_name_another() {
    let own = World::with_bottle("agent: {provider: claude}\n").load().unwrap().bottle.agent;
    assert!(matches!(&own.image, ImageSource::Dockerfile { text, .. } if text.contains("claude-code")), "{own:?}");
    assert_eq!(own.provider.command, ["claude"]);
    let named = World::with_bottle("agent: {provider: claude, image: 'mine:1'}\n").load().unwrap().bottle.agent;
    assert_eq!(named.image, ImageSource::Reference("mine:1".to_owned()));
}

#[test]
fn a_file_of_the_users_is_a_provider_too_and_wins() {
    let world = World::with_bottle("agent: {provider: gemini}\n");
    assert!(world.load().unwrap_err().to_string().contains("there is no provider `gemini`"));
    world.write("config/providers/gemini.toml", "image = \"gemini:1\"\ncommand = [\"gemini\"]\n");
    let agent = world.load().unwrap().bottle.agent;
    assert_eq!((agent.provider.name.as_str(), agent.provider.command), ("gemini", vec!["gemini".to_owned()]));
    assert_eq!(agent.image, ImageSource::Reference("gemini:1".to_owned()));
    world.write("config/providers/gemini.toml", "imge = \"gemini:1\"\n");
    let errors = world.plain(world.load().unwrap_err());
    assert!(errors.contains("config/providers/gemini.toml:1:1") && errors.contains("`image`?"), "{errors}");
    // One of a repository's is none: an agent could have written it.
    world.write("repo/.bottle/providers/other.toml", "image = \"gemini:1\"\n");
    world.write("config/bottles/dev.md", "---\nagent: {provider: other}\n---\n");
    assert!(world.load().is_err());
    world.write("config/providers/claude.toml", "image = \"mine:2\"\n");
    world.write("config/bottles/dev.md", "---\nagent: {provider: claude}\n---\n");
    assert_eq!(world.load().unwrap().bottle.agent.image, ImageSource::Reference("mine:2".to_owned()));
}

#[test]
fn a_dockerfile_is_read_beside_the_manifest() {
    let world = World::with_bottle("agent: {provider: shell, dockerfile: ./images/Dockerfile}\n");
    let errors = world.load().unwrap_err().to_string();
    assert!(world.plain(&errors).contains("looked at config/bottles/images/Dockerfile"), "{errors}");
    world.write("config/bottles/images/Dockerfile", " \n");
    assert!(world.load().unwrap_err().to_string().contains("the Dockerfile is empty"));
    world.write("config/bottles/images/Dockerfile", "FROM debian\n");
    let path = world.path("config/bottles/images/Dockerfile");
    let expected = ImageSource::Dockerfile { path, text: "FROM debian\n".to_owned() };
    assert_eq!(world.load().unwrap().bottle.agent.image, expected);
    world.write_bytes("config/bottles/images/Dockerfile", &vec![b'#'; (1 << 20) + 1]);
    assert!(world.load().unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn the_user_is_auto_unless_said() {
    let user = |text: &str| format!("agent: {{image: a, user: {text}}}\n");
    for (text, expected) in [
        ("auto", None),
        ("root", Some("root")),
        ("1000", Some("1000")),
        ("\"1000:100\"", Some("1000:100")),
        ("node", Some("node")),
    ] {
        let world = World::with_bottle(&user(text));
        assert_eq!(world.load().unwrap().bottle.agent.user.as_deref(), expected, "{text}");
    }
    for (text, part) in [
        ("a b", "is not a user"),
        ("\"1000:\"", "is not a user"),
        ("\"-1\"", "is not a user"),
        ("\"1:2:3\"", "is not a user"),
        ("4294967295", "out of range"),
        ("64999", "the bottle's own"),
        ("[root]", "single value"),
        ("\"\"", "is empty"),
    ] {
        refused_header(&user(text), 2, part);
    }
}

#[test]
fn the_environment_is_literal_the_hosts_or_asked_for() {
    let env = bottle(
        "env:\n  RUST_LOG: info\n  PORT: 8080\n  ON: true\n  EMPTY: \"\"\n  CI_TOKEN: ${CI_TOKEN}\n  PASS: \"?Word\"\n",
    )
    .env;
    let literal = |text: &str| EnvValue::Literal(text.to_owned());
    assert_eq!(env["RUST_LOG"], literal("info"));
    assert_eq!((&env["PORT"], &env["ON"], &env["EMPTY"]), (&literal("8080"), &literal("true"), &literal("")));
    assert_eq!(env["CI_TOKEN"], EnvValue::Host("CI_TOKEN".to_owned()));
    assert_eq!(env["PASS"], EnvValue::Ask("Word".to_owned()));

    for (name, part) in [
        ("1A", "is not a name of a variable"),
        ("A-B", "is not a name of a variable"),
        ("\"\"", "is not a name of a variable"),
        ("HTTP_PROXY", "set by the launcher"),
        ("https_proxy", "set by the launcher"),
        ("No_Proxy", "set by the launcher"),
        ("ALL_PROXY", "set by the launcher"),
        ("SSL_CERT_FILE", "set by the launcher"),
        ("NODE_EXTRA_CA_CERTS", "set by the launcher"),
    ] {
        refused(&format!("env:\n  {name}: x\n"), 4, part);
    }
    for allowed in ["MY_HTTP_PROXY", "PATH", "ANTHROPIC_MODEL"] {
        assert!(bottle(&format!("env: {{{allowed}: x}}\n")).env.contains_key(allowed));
    }
    refused("env:\n  A:\n", 4, "has no value");
    refused("env:\n  A: [x]\n", 4, "single value");
    refused("env:\n  A: x${B}\n", 4, "nothing would fill it in");
    refused("env:\n  A: ${B-C}\n", 4, "does not name a variable");
    refused("env:\n  A: \"?\"\n", 4, "write the question");
}

#[test]
fn limits_have_units_and_bounds() {
    let limits = bottle("limits: {cpus: 0.5, memory: 512MiB, pids: 64, disk: 1GiB, time: 8h}\n").limits;
    let expected = Limits { cpus: 0.5, memory_bytes: 512 << 20, pids: 64, disk_bytes: 1 << 30, time_s: Some(28_800) };
    assert_eq!(limits, expected);
    assert_eq!(bottle("limits: {cpus: 4}\n").limits, Limits { cpus: 4.0, ..Limits::default() });
    for (text, part) in [
        ("cpus: 0", "outside 0.1 to 256"),
        ("cpus: -1", "not a number of processors"),
        ("cpus: 257", "outside"),
        ("cpus: many", "not a number of processors"),
        ("memory: 4GB", "did you mean `4GiB`?"),
        ("memory: 4", "whole number and a unit"),
        ("memory: 63MiB", "from 64MiB to 4TiB"),
        ("memory: 5TiB", "from 64MiB to 4TiB"),
        ("pids: 15", "from 16 to 65536"),
        ("pids: 65537", "from 16 to 65536"),
        ("disk: 65TiB", "from 64MiB to 64TiB"),
        ("time: 8", "whole number and a unit"),
        ("time: 0s", "from 1s to 30d"),
        ("time: 31d", "from 1s to 30d"),
        ("time: [8h]", "single value"),
        ("swap: 1GiB", "unknown key `swap`"),
    ] {
        refused(&format!("limits:\n  {text}\n"), 4, part);
    }
}

#[test]
fn what_comes_later_is_said_to_come_later() {
    assert!(bottle("supervise: true\n").supervise && !bottle("supervise: false\n").supervise);
}

#[test]
fn a_bottle_survives_the_way_to_its_keeper() {
    let before = bottle(
        "env: {A: \"${B}\"}\negress: {allowlist: [\"*.example.org\"]}\ncred_proxy:\n  routes:\n    - {path: /a/, upstream: \
         \"https://a.example.com\", auth_scheme: \"header:X-Key\", token_ref: {command: [pass, a], ttl: 30m}}\n",
    );
    let text = serde_json::to_string(&before).unwrap();
    assert_eq!(serde_json::from_str::<Bottle>(&text).unwrap(), before);
}

#[test]
fn all_errors_are_found_at_once() {
    let text = header(
        "env: {1A: x}\nlimits: {cpus: 0, memory: 1}\negress: {allowlist: [\"a b\", c/d]}\ncred_proxy: {routes: [{}]}\nzzz: 1\n",
    );
    // 1 name, 2 limits, 2 hosts, 3 missing keys of the route, 1 unknown key.
    assert_eq!(refused_header(&text, 3, "is not a name of a variable"), 9);
}
