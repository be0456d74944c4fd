//! The pair of example manifests loads, and says what its comments say.

use super::World;
use crate::manifest::load::load;
use crate::manifest::{EnvValue, ImageSource, Places, Role, TokenRef};
use std::path::Path;

#[test]
fn the_examples_load() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manifest/testdata");
    let places = Places { config, repository: None, home: Some("/home/ada".into()) };
    let loaded = load(&places, "coder", None).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.warnings, Vec::<String>::new());
    assert!(loaded.agent.prompt.starts_with("You write code"));
    let bottle = loaded.bottle;
    assert_eq!(bottle.agent.image, ImageSource::Reference("debian:bookworm-slim".to_owned()));
    assert_eq!(bottle.env["CI_TOKEN"], EnvValue::Host("CI_TOKEN".to_owned()));
    assert_eq!(bottle.egress.allowlist.len(), 3);
    assert_eq!(bottle.routes[0].roles, [Role::AnthropicBaseUrl]);
    assert!(matches!(bottle.routes[1].token_ref, Some(TokenRef::Command { ttl_s: Some(1800), .. })));
    assert_eq!(bottle.limits.time_s, Some(28_800));
}

#[test]
fn a_world_without_files_is_told_so() {
    let world = World::new();
    let errors = world.load().unwrap_err();
    assert_eq!(errors.errors[0].message, "there is no bottle `dev`, which the agent's file names");
    assert_eq!(
        errors.errors[0].hint.as_deref(),
        Some("there are none yet: `launcher init` writes a first agent with its bottle")
    );
}
