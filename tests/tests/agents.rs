//! Real coding agents in a bottle, against a model of the small world that does what its prompt says. Their programs are
//! large downloads, so this runs where `BOTTLE_TEST_AGENTS=1` asks for it, and says aloud where it does not.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test's helpers are tests too; what is skipped is said")]

use bottle_tests::harness::{Output, Screen, Site, Unmade, World, finish, wait_until};
use bottle_tests::world::Evidence;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Where an agent's programs come from: PyPI's package, and the ends of their paths in the wheel. The first is the agent.
struct Agent {
    name: &'static str,
    package: &'static str,
    inside: &'static [&'static str],
    /// Where it looks for skills, below its home.
    skills: &'static str,
}

impl Agent {
    /// What its model lets it do: nothing where its skill was not brought along.
    fn work(&self) -> String {
        format!("test -s ~/{}/greet/SKILL.md && {WORK}", self.skills)
    }
}

const CLAUDE: Agent =
    Agent { name: "claude", package: "claude-agent-sdk", inside: &["/_bundled/claude"], skills: ".claude/skills" };
const CODEX: Agent = Agent {
    name: "codex",
    package: "openai-codex-cli-bin",
    inside: &["/bin/codex", "/bin/codex-code-mode-host"],
    skills: ".codex/skills",
};

/// What takes a wheel apart: each program is the one member whose path ends so.
const UNPACK: &str = "import sys, glob, zipfile, shutil, os
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + '/*.whl')[0])
for end in sys.argv[3:]:
    name, = [n for n in wheel.namelist() if n.endswith(end)]
    to = os.path.join(sys.argv[2], os.path.basename(name))
    with wheel.open(name) as source, open(to, 'wb') as target: shutil.copyfileobj(source, target)
    os.chmod(to, 0o755)";

#[track_caller]
fn done(command: &mut Command) {
    let output: Output = command.output().unwrap().into();
    output.ok();
}

/// The folder of the programs, downloaded once.
fn programs(agent: &Agent) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("agents").join(agent.name);
    let programs = folder.join("programs");
    if !programs.exists() {
        let making = tempfile::tempdir_in(std::fs::create_dir_all(&folder).map(|()| &folder).unwrap()).unwrap();
        let download = ["-m", "pip", "download", "--quiet", "--no-deps", "--dest"];
        done(Command::new("python3").args(download).arg(making.path()).arg(agent.package));
        let partial = making.path().join("programs");
        std::fs::create_dir(&partial).unwrap();
        done(Command::new("python3").args(["-c", UNPACK]).arg(making.path()).arg(&partial).args(agent.inside));
        // Two tests may have fetched it at the same time: one of them is as good as the other.
        let placed = std::fs::rename(partial, &programs);
        assert!(programs.exists(), "{placed:?}");
    }
    programs
}

/// A bottle with the agent's program in the image of real clients, and a workspace that is a repository.
struct Scene<'s> {
    site: &'s Site,
    world: World<'s>,
    image: Unmade<'s>,
    /// The agent's name, and its bottle's: no other test on the engine has it.
    name: String,
}

impl<'s> Scene<'s> {
    fn new(site: &'s Site, agent: &Agent, role: &str, path: &str) -> Self {
        let (programs, clients) = (programs(agent), site.clients());
        let context = site.path("context");
        std::fs::create_dir_all(context.join("programs")).unwrap();
        for entry in std::fs::read_dir(programs).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), context.join("programs").join(entry.file_name())).unwrap();
        }
        std::fs::write(context.join("Dockerfile"), format!("FROM {clients}\nCOPY programs/ /usr/local/bin/\n"))
            .unwrap();
        let folder = context.display().to_string();
        let build = |tag: &str| ["build", "-q", "-t", tag, &folder].map(str::to_owned).to_vec();
        let image = Unmade::image(site, agent.name, build);

        let world = World::start(site);
        // It writes the world's certificate and the credential beside the manifests.
        let yaml = world.bottle_yaml(image.tag());
        let egress = yaml.lines().filter(|line| line.starts_with("  upstream_roots") || line.starts_with("  network"));
        let egress: Vec<_> = egress.collect();
        site.bottle(
            "dev",
            &format!(
                "agent: {{provider: {}, image: {}}}\negress:\n{}\ngit: {{user: {{name: Ada, email: ada@example.org}}}}\nsupervise: true\n\
                 cred_proxy:\n  routes:\n    - {{path: {path}, upstream: 'https://api.world.example', auth_scheme: Bearer, \
                 token_ref: {{file: {}}}, role: {role}}}\nskills: [greet]\n",
                agent.name,
                image.tag(),
                egress.join("\n"),
                site.path("config/token").display(),
            ),
        );
        let skill = site.path("config/bottle/skills/greet");
        std::fs::create_dir_all(&skill).unwrap();
        std::fs::write(skill.join("SKILL.md"), SKILL).unwrap();
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("{}{}-{}", agent.name, std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        site.manifest(&format!("agents/{name}.md"), "bottle: dev", "Instructions of the operator.\n");
        std::fs::write(site.work().join("file.txt"), "of the operator\n").unwrap();
        for args in [
            &["init", "-q"][..],
            &["add", "-A"],
            &["-c", "user.name=o", "-c", "user.email=o@x", "commit", "-qm", "first"],
        ] {
            done(Command::new("git").args(args).current_dir(site.work()));
        }
        Self { site, world, image, name }
    }

    /// Runs the agent without a terminal.
    fn ask(&self, prompt: &str, command: &[&str]) -> Output {
        let arguments = [&["run", &self.name, "--headless", "--prompt", prompt][..], command].concat();
        self.site.launcher(&arguments)
    }

    /// Starts the agent on a screen, says yes to what it will have, and waits for the line that it is typed into. Nothing else
    /// is answered: a question of a first run would be there in its place.
    fn begin(&self, ready: &str, command: &[&str]) -> Screen {
        let screen = self.site.screen(&[&["run", &self.name][..], command].concat());
        screen.wait_for("Start it? [y/N]");
        screen.type_in("y");
        screen.press("Enter");
        screen.wait_for(ready);
        screen
    }

    /// Types a prompt, waits for what the agent says at its end, and leaves it.
    fn talk(&self, screen: &Screen, prompt: &str, leave: &str) {
        for (text, then) in [(prompt, "DONE: "), (leave, "")] {
            screen.type_in(text);
            // A return that comes with the text is a part of what was pasted.
            screen.wait_for(text.get(..20).unwrap_or(text));
            std::thread::sleep(std::time::Duration::from_millis(500));
            screen.press("Enter");
            screen.wait_for(then);
        }
        assert_eq!(screen.wait(), 0, "{}", screen.shown_so_far());
        screen.wait_for(&format!("launcher take {}", self.name));
    }

    /// The work is committed by who the manifest says, comes back, and the model was reached with the credential alone.
    fn judge(&self, output: &Output) {
        assert_eq!(output.status, 0, "{output:#?}");
        assert!(output.stdout.contains("DONE: ") && output.stdout.contains("Ada made"), "{output:#?}");
        assert!(output.stdout.contains("Instructions of the operator."), "{output:#?}");
        assert!(!output.stdout.contains(self.world.canary()) && !output.stderr.contains(self.world.canary()));
        self.judge_work();
    }

    /// The model was reached with the credential alone, and the work and its commit come back.
    fn judge_work(&self) {
        let expected = format!("Bearer {}", self.world.canary());
        let asked = self.world.seen("api");
        assert!(!asked.is_empty());
        for evidence in &asked {
            let Evidence::Request { authorization, host, .. } = evidence else { continue };
            assert_eq!((host.as_str(), authorization.as_deref()), ("api.world.example", Some(expected.as_str())));
        }
        self.site.launcher(&["take", &self.name]).ok();
        assert_eq!(std::fs::read_to_string(self.site.work().join("made.txt")).unwrap(), "made\n");
        let commits = Command::new("git")
            .args(["for-each-ref", "--format=%(refname) %(authorname) %(subject)", "refs/bottle/"])
            .current_dir(self.site.work())
            .output()
            .unwrap();
        assert!(String::from_utf8_lossy(&commits.stdout).contains("Ada made"), "{commits:?}");
        self.site.assert_nothing_left();
        let _ = &self.image;
    }
}

const SKILL: &str = "---\nname: greet\ndescription: How to greet.\n---\nSay good day.\n";

const WORK: &str = "echo made > made.txt && git add -A && git commit -qm made && git log -1 --format='%an %s'";

fn wanted() -> bool {
    let wanted = std::env::var_os("BOTTLE_TEST_AGENTS").is_some_and(|value| value == "1");
    if !wanted {
        eprintln!("SKIP: real agents are large downloads; BOTTLE_TEST_AGENTS=1 runs them");
    }
    wanted
}

#[test]
fn claude_code_works_in_a_bottle_and_never_holds_the_key() {
    if !wanted() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, &CLAUDE, "anthropic-base-url", "/anthropic/");
    let command = format!("{}; cat ~/.claude/CLAUDE.md", CLAUDE.work());
    let call = serde_json::json!({"command": command, "description": "work"});
    let output = scene.ask(&format!("Do this:\nCALL Bash {call}\n"), &[]);
    scene.judge(&output);
}

/// It asks through the MCP server that its provider registered, waits, and works on with what a person allowed.
#[test]
fn claude_code_asks_for_a_host_and_uses_it_when_it_was_approved() {
    if !wanted() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, &CLAUDE, "anthropic-base-url", "/anthropic/");
    let ask = serde_json::json!({"hosts": ["wire.world.example"], "justification": "the build downloads from it"});
    let fetch = "curl -sS -o /dev/null -w '%{http_code}' https://wire.world.example/public/x";
    let fetch = serde_json::json!({"command": fetch, "description": "download"});
    let mut command = site.command();
    let search = r#"{"query": "select:mcp__supervise__pipelock-block", "max_results": 1}"#;
    let prompt = format!(
        "Do this:\nCALL Bash {fetch}\nCALL ToolSearch {search}\nCALL mcp__supervise__pipelock-block {ask}\nCALL Bash {fetch}\n"
    );
    command.args(["run", &scene.name, "--headless", "--prompt", &prompt]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    wait_until("the agent asks", || {
        let listed = site.launcher(&["proposals", &scene.name, "--output", "json"]);
        listed.stdout.contains("wire.world.example").then_some(())
    });
    let fetched = || {
        let seen = scene.world.seen("api");
        seen.iter().any(|seen| matches!(seen, Evidence::Request { path, .. } if path == "/public/x"))
    };
    assert!(!fetched(), "it was closed before");
    site.launcher(&["approve", &scene.name, "p1", "--yes"]).ok();
    let output = finish(child);
    assert_eq!(output.status, 0, "{output:#?}");
    assert!(output.stdout.contains("DONE: "), "{output:#?}");
    assert!(fetched(), "{output:#?}");
    site.assert_nothing_left();
}

#[test]
fn codex_works_in_a_bottle_and_never_holds_the_key() {
    if !wanted() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, &CODEX, "openai-base-url", "/openai/");
    let command = format!("{}; cat ~/.codex/AGENTS.md", CODEX.work());
    let call = serde_json::json!({"cmd": command});
    let output = scene.ask(
        &format!("Do this:\nCALL exec_command {call}\n"),
        &["--", "codex", "exec", "--model", "gpt-5.1-codex", "--skip-git-repo-check", "-"],
    );
    scene.judge(&output);
}

/// On a terminal: what a person meets. The last thing that the agent says is what its last tool gave.
#[test]
fn claude_code_works_on_a_terminal_without_a_question_of_a_first_run() {
    if !wanted() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, &CLAUDE, "anthropic-base-url", "/anthropic/");
    let screen = scene.begin("bypass permissions on", &[]);
    let call = serde_json::json!({"command": format!("{}; head -c 25 ~/.claude/CLAUDE.md", CLAUDE.work()), "description": "work"});
    scene.talk(&screen, &format!("CALL Bash {call}"), "/exit");
    scene.judge_work();
}

#[test]
fn codex_works_on_a_terminal_without_a_question_of_a_first_run() {
    if !wanted() {
        return;
    }
    let Some(site) = Site::new() else { return };
    let scene = Scene::new(&site, &CODEX, "openai-base-url", "/openai/");
    let screen = scene.begin("gpt-5.1-codex", &["--", "codex", "--model", "gpt-5.1-codex"]);
    let call = serde_json::json!({"cmd": format!("{}; head -c 25 ~/.codex/AGENTS.md", CODEX.work())});
    scene.talk(&screen, &format!("CALL exec_command {call}"), "/quit");
    scene.judge_work();
}
