//! `init`: a first bottle and agent, with words on what each line does. What it writes is loaded before it is kept.

use super::{Here, run::places};
use crate::cli::Init;
use crate::error::Failure;
use crate::exit::Exit;
use crate::manifest::{Places, load, name::Name};
use crate::provider::Provider;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The image of agents whose provider has none.
const IMAGE: &str = "debian:bookworm-slim";

/// Writes both files, neither of them over another.
pub fn init(here: &Here, args: &Init) -> Result<Exit, Failure> {
    let asked =
        |given: &Option<String>, question, default| given.clone().unwrap_or_else(|| here.ui.ask(question, default));
    let name = asked(&args.name, "What are the agent and its bottle called?", "dev");
    let name = Name::parse(&name).map_err(|e| {
        Failure::usage(format!("{name:?} cannot be a name: {e}"), "such as: launcher init dev".to_owned())
    })?;
    let places = places(here)?;
    let bottle = places.config.join("bottles").join(format!("{name}.md"));
    let agent = places.config.join("agents").join(format!("{name}.md"));
    for file in [&bottle, &agent] {
        if file.symlink_metadata().is_ok() {
            return Err(Failure::usage(
                format!("{} is there already", file.display()),
                "give another name, or change that file".to_owned(),
            ));
        }
    }
    let kind = asked(&args.provider, "What kind of agent: claude, codex, shell (any program)?", "shell");
    let provider = load::provider(&places, &kind)?;
    let image = match (&args.image, &provider.source) {
        (None, None) => Some(here.ui.ask("From which image is its container?", IMAGE)),
        (image, _) => image.clone(),
    };
    let may_ask = here.ui.ask("May it ask you for hosts and routes while it runs: yes or no?", "no");
    let answers =
        Answers { image: image.as_deref(), may_ask: matches!(may_ask.to_ascii_lowercase().as_str(), "y" | "yes") };
    let made = write(&bottle, &bottle_text(&provider, &answers))
        .and_then(|()| write(&agent, &agent_text(name.as_str())))
        .and_then(|()| load::load(&places, name.as_str(), None).map_err(Failure::from));
    if let Err(failure) = made {
        // Half a pair, or one that is wrong, is no beginning: both go as they came. Neither was there before.
        for file in [&bottle, &agent] {
            let _ = std::fs::remove_file(file);
        }
        return Err(failure);
    }
    here.ui.line(&format!("wrote {}\n      {}", bottle.display(), agent.display()));
    here.ui.sentence("next: ", &next(&places, &provider, name.as_str()));
    Ok(Exit::Success)
}

fn write(file: &PathBuf, text: &str) -> Result<(), Failure> {
    let made = || -> std::io::Result<()> {
        std::fs::create_dir_all(file.parent().unwrap_or(Path::new("/")))?;
        std::fs::File::create_new(file)?.write_all(text.as_bytes())
    };
    made().map_err(|e| Failure::usage(format!("{} cannot be written: {e}", file.display()), None))
}

/// What was asked beside name and provider.
struct Answers<'a> {
    image: Option<&'a str>,
    may_ask: bool,
}

fn bottle_text(provider: &Provider, answers: &Answers<'_>) -> String {
    let image = match (answers.image, &provider.source) {
        (Some(IMAGE), None) => format!("  image: {IMAGE}        # or dockerfile: ./Dockerfile, beside this file\n"),
        (Some(image), _) => format!("  image: {image}\n"),
        (None, Some(_)) => {
            "  # image: registry.example.org/agent:1   # instead of the provider's own; or dockerfile: ./Dockerfile\n"
                .to_owned()
        }
        (None, None) => format!("  image: {IMAGE}        # or dockerfile: ./Dockerfile, beside this file\n"),
    };
    let route = match provider.name.as_str() {
        "claude" => ROUTE_CLAUDE,
        "codex" => ROUTE_CODEX,
        _ => ROUTE_ANY,
    };
    let supervise = if answers.may_ask { "" } else { "# " };
    format!(
        "---\n# What an agent in this bottle may reach and hold; `launcher show --bottle` sums it up.\nagent:\n  provider: \
         {}\n{image}{EGRESS}{route}{SUPERVISE}{supervise}supervise: true\n{REST}---\nNotes for people.\n",
        provider.name
    )
}

const EGRESS: &str = "
# Hosts that the agent reaches, through pipelock and nothing else. It reads what is sent, but for hosts in `passthrough`.
egress:
  allowlist: []                      # [crates.io, \"*.githubusercontent.com\"]
";

const ROUTE_CLAUDE: &str = "
# The model, by a path of cred-proxy, which puts your credential in: the agent never holds it.
cred_proxy:
  routes:
    - path: /anthropic/
      upstream: https://api.anthropic.com
      auth_scheme: Bearer            # for an API key: header:X-Api-Key
      token_ref: CLAUDE_CODE_OAUTH_TOKEN   # a variable of your environment; or {file: PATH}, {command: [pass, show, x]}
      role: anthropic-base-url
";

const ROUTE_CODEX: &str = "
# The model, by a path of cred-proxy, which puts your credential in: the agent never holds it.
cred_proxy:
  routes:
    - path: /openai/
      upstream: https://api.openai.com
      auth_scheme: Bearer
      token_ref: OPENAI_API_KEY      # a variable of your environment; or {file: PATH}, {command: [pass, show, x]}
      role: openai-base-url
";

const ROUTE_ANY: &str = "
# Upstreams with a credential that the agent never holds: http://cred-proxy:9099/<path> leads there.
# cred_proxy:
#   routes:
#     - path: /forge/
#       upstream: https://git.example.org/api/v1
#       auth_scheme: Bearer
#       token_ref: FORGE_TOKEN       # a variable of your environment; or {file: PATH}, {command: [pass, show, x]}
#       allow: [\"GET /**\"]
";

const SUPERVISE: &str = "
# The agent may ask for a host, a route or another container while it runs; a person answers: `launcher proposals`, `approve`.
";

const REST: &str = "
# Git remotes behind git-gate: every push is scanned before the remote sees a byte of it.
# git:
#   user: {name: Ada, email: ada@example.org}
#   remotes:
#     - name: app
#       upstream: ssh://git@git.example.org/team/app.git
#       identity_file: ~/.ssh/id_ed25519
#       known_host_key: ssh-ed25519 AAAA...
#       push: {refs: [\"refs/heads/agent/*\"]}

limits: {cpus: 2, memory: 4GiB, time: 8h}
workspace: copy                      # the current directory goes in as a copy; `launcher take` brings the work back
";

fn agent_text(name: &str) -> String {
    format!(
        "---\ndescription: works on the code in the current directory\nbottle: {name}\n---\nYou work on the code in the current directory. Commit what you finish.\n"
    )
}

fn next(places: &Places, provider: &Provider, name: &str) -> String {
    let token = match provider.name.as_str() {
        "claude" => "set CLAUDE_CODE_OAUTH_TOKEN (`claude setup-token` gives one), then ",
        "codex" => "set OPENAI_API_KEY, then ",
        _ => "",
    };
    let command = if provider.command.is_empty() { " -- bash" } else { "" };
    format!("edit them in {}, {token}go to a project and say: launcher run {name}{command}", places.config.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::provider::BUILT_IN;

    #[test]
    fn what_is_written_for_each_provider_loads() {
        for (provider, _) in BUILT_IN {
            for (image, may_ask) in [(None, false), (Some("mine:1"), true), (Some(IMAGE), false)] {
                let answers = Answers { image, may_ask };
                let dir = tempfile::tempdir().unwrap();
                let places =
                    Places { config: dir.path().to_owned(), repository: None, home: Some(dir.path().to_owned()) };
                let provider = load::provider(&places, provider).unwrap();
                write(&dir.path().join("bottles/dev.md"), &bottle_text(&provider, &answers)).unwrap();
                write(&dir.path().join("agents/dev.md"), &agent_text("dev")).unwrap();
                let loaded = load::load(&places, "dev", None).unwrap_or_else(|errors| panic!("{errors}"));
                assert_eq!(loaded.bottle.agent.provider.name, provider.name);
                assert_eq!(loaded.bottle.supervise, may_ask);
                assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
                // The parts that are commented out are right as well.
                let text = bottle_text(&provider, &answers);
                let text: String = text
                    .split_inclusive('\n')
                    .map(|line| match line.strip_prefix("# ") {
                        Some(rest)
                            if rest.starts_with([' ', '-'])
                                || rest.starts_with("git:")
                                || rest.starts_with("cred_proxy:")
                                || rest.starts_with("supervise:") =>
                        {
                            rest.to_owned()
                        }
                        _ => line.to_owned(),
                    })
                    .collect();
                std::fs::write(dir.path().join("id"), "key").unwrap();
                std::fs::write(dir.path().join("bottles/dev.md"), text.replace("ssh-ed25519 AAAA...", KEY)).unwrap();
                load::load(&places, "dev", None).unwrap_or_else(|errors| panic!("{errors}"));
            }
        }
    }

    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIEIUgyJUC8XbfgLaGi2Tyy5JrOcAPkoGgo6sMRc1DMbM";
}
