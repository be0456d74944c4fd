//! Bottles that extend one another.

use super::World;
use crate::manifest::{EnvValue, ImageSource};

const BASE: &str = "\
---
agent: {image: base:1, user: root}
env: {A: base, B: base}
egress:
  allowlist: [a.org, b.org]
  upstream_roots: ./corp.pem
cred_proxy:
  routes:
    - {path: /a/, upstream: \"https://api.org\", auth_scheme: none}
limits: {cpus: 1, pids: 100}
---
";

fn world(child: &str) -> World {
    let world = World::with_bottle(&format!("extends: base\n{child}"));
    world.write("config/bottles/base.md", BASE);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = rcgen::CertificateParams::new(vec!["corp".to_owned()]).unwrap().self_signed(&key).unwrap();
    world.write("config/bottles/corp.pem", &certificate.pem());
    world
}

#[test]
fn the_child_wins_and_lists_append() {
    let world = world(
        "env: {B: child, C: child}\negress: {allowlist: [c.org, a.org]}\ncred_proxy:\n  routes:\n    - {path: /b/, upstream: \
         \"https://b.api.org\", auth_scheme: none}\nlimits: {cpus: 2}\n",
    );
    let bottle = world.load().unwrap_or_else(|errors| panic!("{errors}")).bottle;
    let literal = |text: &str| EnvValue::Literal(text.to_owned());
    assert_eq!(bottle.env.values().cloned().collect::<Vec<_>>(), [literal("base"), literal("child"), literal("child")]);
    let hosts: Vec<String> = bottle.egress.allowlist.iter().map(ToString::to_string).collect();
    assert_eq!(hosts, ["a.org", "b.org", "c.org"]);
    assert!(bottle.egress.upstream_roots.is_some());
    assert_eq!(bottle.routes.iter().map(|r| r.path.as_str()).collect::<Vec<_>>(), ["/a/", "/b/"]);
    assert_eq!((bottle.limits.cpus, bottle.limits.pids), (2.0, 100));
    assert_eq!(bottle.agent.image, ImageSource::Reference("base:1".to_owned()));
    assert_eq!((bottle.name.as_str(), bottle.file), ("dev", world.path("config/bottles/dev.md")));
}

#[test]
fn a_child_may_take_a_dockerfile_in_place_of_an_image() {
    let world = world("agent: {dockerfile: ./Dockerfile}\n");
    world.write("config/bottles/Dockerfile", "FROM debian\n");
    let agent = world.load().unwrap_or_else(|errors| panic!("{errors}")).bottle.agent;
    assert!(matches!(agent.image, ImageSource::Dockerfile { .. }));
    assert_eq!(agent.user.as_deref(), Some("root"));
}

#[test]
fn errors_name_the_file_they_are_in() {
    let world = world("egress: {allowlist: [api.org]}\n");
    let text = BASE.replace("pids: 100", "pids: 1");
    world.write("config/bottles/base.md", &text);
    let errors = world.plain(world.load().unwrap_err());
    assert!(errors.contains("config/bottles/base.md:10:"), "{errors}");
    assert!(errors.contains("config/bottles/dev.md:3:22"), "{errors}");
    assert!(errors.contains("beside the route `/a/`"), "{errors}");
}

#[test]
fn the_same_path_in_parent_and_child_is_refused() {
    let world = world("cred_proxy: {routes: [{path: /a/, upstream: \"https://c.org\", auth_scheme: none}]}\n");
    let errors = world.load().unwrap_err().to_string();
    assert!(errors.contains("the first is in line 9 of base.md"), "{errors}");
}

#[test]
fn a_parent_that_is_not_there_hides_no_other_error() {
    let world = World::with_bottle("extends: base\nsupervise: perhaps\negress: {allowlist: [a b]}\n");
    let errors = world.load().unwrap_err();
    let said: Vec<&str> = errors.errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(said.len(), 3, "{said:?}");
    for part in ["there is no bottle `base`", "`supervise`", "a b"] {
        assert!(said.iter().any(|message| message.contains(part)), "{part}: {said:?}");
    }
    // What the parent may have, nobody misses; with a parent that has nothing, it is missing.
    world.write("config/bottles/base.md", "---\n---\n");
    let errors = world.load().unwrap_err();
    assert!(
        errors.errors.iter().any(|error| error.message == "`agent` is missing in the bottle"),
        "{:?}",
        errors.errors
    );
}

#[test]
fn circles_and_missing_parents_are_refused() {
    for (child, parent, part) in [
        ("dev", "", "in a circle: dev -> dev"),
        ("base", "extends: dev\n", "in a circle: dev -> base -> dev"),
        ("bse", "", "did you mean `base`?"),
        ("../base", "", "is not a name"),
        ("[base]", "", "single value"),
        ("", "", "has no value"),
    ] {
        let world = World::with_bottle(&format!("extends: {child}\nagent: {{image: a}}\n"));
        world.write("config/bottles/base.md", &format!("---\n{parent}---\n"));
        let errors = world.load().unwrap_err().to_string();
        assert!(errors.contains(part), "{child}: {errors}");
    }
    let world = World::with_bottle("extends: b0\nagent: {image: a}\n");
    for at in 0..20 {
        world.write(&format!("config/bottles/b{at}.md"), &format!("---\nextends: b{}\n---\n", at + 1));
    }
    assert!(world.load().unwrap_err().to_string().contains("more than 8 bottles"));
}
