//! Whose word counts: the user's configuration directory is trusted, a repository is not.

use super::World;
use crate::manifest::agent::Origin;
use crate::manifest::catalog::{check, list};
use crate::manifest::load::{load, load_bottle};

fn world() -> World {
    World::with_bottle("agent: {image: a}\n")
}

#[test]
fn a_bottle_in_a_repository_is_ignored() {
    let world = world();
    world.write("repo/.bottle/bottles/evil.md", "---\nagent: {image: evil}\n---\n");
    world.write("repo/.bottle/bottles/dev.md", "---\nagent: {image: evil}\n---\n");
    let loaded = world.load().unwrap();
    assert_eq!(loaded.bottle.file, world.path("config/bottles/dev.md"));
    assert_eq!(loaded.warnings.len(), 1);
    assert!(world.plain(&loaded.warnings[0]).starts_with("repo/.bottle/bottles is ignored"), "{:?}", loaded.warnings);
    let errors = load(&world.places(), "coder", Some("evil")).unwrap_err().to_string();
    assert!(errors.contains("there is no bottle `evil`"), "{errors}");
}

#[test]
fn a_repositorys_agent_does_not_choose_its_bottle() {
    let world = world();
    world.write("config/bottles/other.md", "---\nagent: {image: other}\n---\n");
    world.write("repo/.bottle/agents/theirs.md", "---\nbottle: other\n---\nDo it.\n");
    let named = load(&world.places(), "theirs", Some("dev")).unwrap();
    assert_eq!((named.bottle.name.as_str(), named.agent.bottle), ("dev", None));
    assert!(named.warnings[0].contains("`bottle` in a repository's file is ignored"), "{:?}", named.warnings);
    let errors = load(&world.places(), "theirs", None).unwrap_err().to_string();
    assert!(errors.contains("no bottle is named for the agent `theirs`"), "{errors}");
    world.write("config/config.toml", "bottle = \"dev\"\n");
    assert_eq!(load(&world.places(), "theirs", None).unwrap().bottle.name, "dev");
}

#[test]
fn the_users_agent_wins_and_chooses() {
    let world = world();
    world.write("config/config.toml", "bottle = \"none\"\n");
    world.write("repo/.bottle/agents/coder.md", "---\n---\nEvil.\n");
    let loaded = world.load().unwrap();
    assert_eq!((loaded.agent.prompt.as_str(), loaded.bottle.name.as_str()), ("Write code.", "dev"));
    // What the user has and cannot be read does not fall to the repository's.
    std::fs::remove_file(world.path("config/agents/coder.md")).unwrap();
    std::fs::create_dir(world.path("config/agents/coder.md")).unwrap();
    let errors = world.load().unwrap_err().to_string();
    assert!(errors.contains("not a regular file"), "{errors}");
}

#[test]
fn a_link_out_of_the_repository_is_refused() {
    let world = world();
    world.write("outside/secret.md", "---\n---\nSecret.\n");
    world.write("repo/docs/inner.md", "---\n---\nInner.\n");
    std::fs::create_dir_all(world.path("repo/.bottle/agents")).unwrap();
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, world.path("repo/.bottle/agents").join(name)).unwrap();
    };
    link("../../docs/inner.md", "inner.md");
    link("../../../outside/secret.md", "relative.md");
    link(world.path("outside/secret.md").to_str().unwrap(), "absolute.md");
    link("/dev/zero", "device.md");
    let load_agent = |name: &str| load(&world.places(), name, Some("dev"));
    assert_eq!(load_agent("inner").unwrap().agent.prompt, "Inner.");
    for name in ["relative", "absolute", "device"] {
        let errors = load_agent(name).unwrap_err().to_string();
        assert!(errors.contains("leads out of the repository"), "{errors}");
    }
    let listed: Vec<String> = list(&world.places()).agents.into_iter().map(|agent| agent.name).collect();
    assert_eq!(listed, ["coder", "inner"]);

    std::fs::remove_dir_all(world.path("repo/.bottle")).unwrap();
    std::fs::create_dir_all(world.path("outside/agents")).unwrap();
    world.write("outside/agents/theirs.md", "---\n---\nX.\n");
    std::os::unix::fs::symlink("../outside", world.path("repo/.bottle")).unwrap();
    let errors = load_agent("theirs").unwrap_err().to_string();
    assert!(errors.contains("leads out of the repository"), "{errors}");
}

#[test]
fn a_name_never_leaves_its_folder() {
    let world = world();
    world.write("config/secret.md", "---\n---\nSecret.\n");
    for name in ["../secret", "/etc/passwd", "a/b", "", "Coder", "coder.md"] {
        let errors = load(&world.places(), name, None).unwrap_err().to_string();
        assert!(errors.contains("is not a name"), "{name}: {errors}");
        assert!(load(&world.places(), "coder", Some(name)).unwrap_err().to_string().contains("is not a name"));
        assert!(load_bottle(&world.places(), name).is_err());
    }
    assert_eq!(load_bottle(&world.places(), "dev").unwrap().0.name, "dev");
}

#[test]
fn an_agents_file_is_that_of_a_subagent() {
    let world = world();
    world.write("config/skills/review/SKILL.md", "# Review");
    world.write("config/skills/review/checklist.md", "- tests");
    let agent = |text: &str| {
        world.write("config/agents/coder.md", text);
        world.load()
    };
    let loaded = agent(
        "---\nname: coder\ndescription: |\n  Writes\n  code.\nmodel: opus\ncolor: red\ntools: Read, Grep\nmemory: user\n\
         bottle: dev\nskills: [review]\n---\n\nYou write code.\n\n---\nAlways.\n",
    )
    .unwrap();
    assert_eq!(loaded.agent.description, "Writes code.");
    assert_eq!(loaded.agent.prompt, "You write code.\n\n---\nAlways.");
    let skills: Vec<_> = loaded.agent.skills.iter().map(|skill| (skill.name.as_str(), skill.files.len())).collect();
    assert_eq!(skills, [("review", 2)]);
    // The shell has no place for them.
    assert!(matches!(&loaded.warnings[..], [one] if one.contains("does not come along")), "{:?}", loaded.warnings);
    assert!(agent("---\ntools: [Read, Grep]\nbottle: dev\n---\n").is_ok());
    let renamed = agent("---\nname: other\nbottle: dev\n---\n").unwrap();
    assert!(renamed.agent.name == "coder" && renamed.warnings[0].contains("calls its agent `other`"));
    for (text, part) in [
        ("---\nbottle: dev\nmodle: opus\n---\n", "did you mean `model`?"),
        ("---\nbottle: ../dev\n---\n", "is not a name"),
        ("---\nbottle: dev\nskills: [../review]\n---\n", "is not a name"),
        ("---\nbottle: dev\nskills: [revue]\n---\n", "there is no skill `revue`"),
        ("---\nbottle: dev\ntools: {a: b}\n---\n", "must be a list"),
        ("Write code.\n", "must begin with a line `---`"),
        ("---\nbottle: dev\n", "no closing line"),
        ("", "the file is empty"),
    ] {
        let errors = agent(text).unwrap_err().to_string();
        assert!(errors.contains(part), "{text}: {errors}");
    }
    world.write_bytes("config/agents/coder.md", b"---\n---\n\xff\n");
    assert!(world.load().unwrap_err().to_string().contains("not UTF-8 from line 3 on"));
    world.write_bytes("config/agents/coder.md", &[b"---\n---\n".to_vec(), vec![b'x'; 1 << 20]].concat());
    assert!(world.load().unwrap_err().to_string().contains("larger than 1 MiB"));
}

#[test]
fn a_hostile_file_costs_little() {
    let world = world();
    let keys: String = (0..60_000).map(|at| format!("k{at}: 1, ")).collect();
    world.write("repo/.bottle/agents/wide.md", &format!("---\n{{{keys}}}\n---\n"));
    let errors = load(&world.places(), "wide", Some("dev")).unwrap_err();
    assert_eq!(errors.errors.len(), 50);
    assert!(errors.more > 10_000 && errors.to_string().len() < 50_000);
    world.write("repo/.bottle/agents/deep.md", &format!("---\na: {}\n---\n", "[".repeat(500_000)));
    assert!(load(&world.places(), "deep", Some("dev")).is_err());
    let shown = {
        world.write("repo/.bottle/agents/steer.md", "---\n\"\\e]52;c;x\\a\": 1\n# \u{1b}[2J\nzzz: \u{202e}\n---\n");
        load(&world.places(), "steer", Some("dev")).unwrap_err().to_string()
    };
    assert!(!shown.contains('\u{1b}') && !shown.contains('\u{7}') && !shown.contains('\u{202e}'), "{shown}");
}

#[test]
fn the_list_has_what_there_is_and_what_is_wrong_with_it() {
    let world = world();
    world.write("config/bottles/dev.md", "---\nagent: {image: a}\n---\n\n# For every day\nMore.\n");
    world.write("config/bottles/broken.md", "---\nagnt: {}\n---\n");
    world.write("config/bottles/README.md", "Not a manifest.\n");
    world.write("config/agents/coder.md", "---\ndescription: Writes code.\n---\n");
    world.write("repo/.bottle/agents/coder.md", "---\ndescription: Another.\n---\n");
    world.write("repo/.bottle/agents/tester.md", "no header\n");
    world.write("repo/.bottle/bottles/x.md", "");
    let listing = list(&world.places());
    let agents: Vec<_> = listing
        .agents
        .iter()
        .map(|a| (a.name.as_str(), a.description.as_str(), a.origin, a.hidden, a.problem.is_some()))
        .collect();
    assert_eq!(
        agents,
        [
            ("coder", "Writes code.", Origin::User, false, false),
            ("coder", "Another.", Origin::Repository, true, false),
            ("tester", "", Origin::Repository, false, true),
        ]
    );
    let bottles: Vec<_> =
        listing.bottles.iter().map(|b| (b.name.as_str(), b.description.as_str(), b.problem.as_deref())).collect();
    assert_eq!(
        bottles,
        [("broken", "", Some("line 1: `agent` is missing in the bottle")), ("dev", "For every day", None)]
    );
    assert_eq!(listing.warnings.len(), 1);
    let empty = World::new();
    std::fs::remove_dir_all(empty.path("config")).unwrap();
    assert_eq!(list(&empty.places()), crate::manifest::catalog::Listing::default());
}

#[test]
fn everything_is_checked_at_once() {
    let world = world();
    assert_eq!(check(&world.places()).unwrap(), Vec::<String>::new());
    world.write("config/config.toml", "bottle = \"non\"\nruntme = \"runc\"\n");
    world.write("config/bottles/base.md", "---\nagent: {image: a}\nzzz: 1\n---\n");
    world.write("config/bottles/one.md", "---\nextends: base\n---\n");
    world.write("config/bottles/two.md", "---\nextends: base\n---\n");
    world.write("config/agents/lost.md", "---\nbottle: dve\n---\n");
    let errors = check(&world.places()).unwrap_err();
    let messages: Vec<&str> = errors.errors.iter().map(|error| error.message.as_str()).collect();
    assert_eq!(
        messages,
        [
            "there is no bottle `non`, which `bottle` names",
            "there is no bottle `dve`, which the agent names",
            "unknown key `runtme` in the configuration",
            "unknown key `zzz` in the bottle",
        ]
    );
}
