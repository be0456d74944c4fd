//! A running bottle, and how it is started.

use super::Site;
use super::output::{Output, wait_until};
use launcher::log::LogLine;
use launcher::state::BottleDir;
use std::process::{Child, Command, Stdio};

/// A `launcher run` that is being put together.
pub struct Run<'a> {
    site: &'a Site,
    command: Command,
}

impl<'a> Run<'a> {
    pub(super) fn new(site: &'a Site, agent: &str) -> Self {
        let mut command = site.command();
        command.args(["run", agent, "--yes"]);
        Self { site, command }
    }

    /// More arguments before the program.
    pub fn args(mut self, args: &[&str]) -> Self {
        self.command.args(args);
        self
    }

    /// A variable of the operator's environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// Runs to the end, without a terminal.
    pub fn to_end(mut self, program: &[&str]) -> Output {
        with_program(&mut self.command, program).output().expect("the launcher can be run").into()
    }

    /// Starts the bottle and lets go of it as soon as the agent runs.
    #[track_caller]
    pub fn detached(mut self, program: &[&str]) -> Bottle<'a> {
        self.command.arg("--detach");
        let output: Output = with_program(&mut self.command, program).output().expect("the launcher can be run").into();
        let output = output.ok();
        let id = output.stderr.lines().find_map(|l| l.split_once(" goes on: ")).map(|(id, _)| id.to_owned());
        let id = id.unwrap_or_else(|| panic!("no id in {output:#?}"));
        Bottle { site: self.site, dir: self.site.state().dir(&id) }
    }

    /// Starts the bottle and stays its client: the child is the launcher, its pipes are the caller's.
    #[track_caller]
    pub fn attached(mut self, program: &[&str]) -> (Bottle<'a>, Child) {
        let before = self.site.state().ids().unwrap_or_default();
        self.command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = with_program(&mut self.command, program).spawn().expect("the launcher can be run");
        let state = self.site.state();
        let id = wait_until("a bottle's agent runs", || {
            let ids = state.ids().ok()?;
            ids.into_iter().find(|id| !before.contains(id) && state.dir(id).was_started())
        });
        (Bottle { site: self.site, dir: state.dir(&id) }, child)
    }

    /// The command itself, for what the others do not offer (a terminal, signals on the way).
    pub fn into_command(mut self, program: &[&str]) -> Command {
        with_program(&mut self.command, program);
        self.command
    }
}

fn with_program<'c>(command: &'c mut Command, program: &[&str]) -> &'c mut Command {
    if !program.is_empty() {
        command.arg("--").args(program);
    }
    command
}

/// A running bottle.
pub struct Bottle<'a> {
    site: &'a Site,
    dir: BottleDir,
}

impl<'a> Bottle<'a> {
    /// The bottle of that name, in whatever state it is.
    pub fn named(site: &'a Site, id: &str) -> Self {
        Self { site, dir: site.state().dir(id) }
    }

    /// Its id.
    pub fn id(&self) -> &str {
        self.dir.id()
    }

    /// Its folder in the state directory.
    pub fn dir(&self) -> &BottleDir {
        &self.dir
    }

    /// Name of one of its containers.
    pub fn container(&self, role: &str) -> String {
        format!("bottle-{}-{role}", self.id())
    }

    /// Runs a program in the agent's container, as the agent.
    pub fn exec(&self, program: &[&str]) -> Output {
        let mut command = self.site.command();
        command.args(["exec", self.id(), "--"]).args(program);
        command.output().expect("the launcher can be run").into()
    }

    /// Runs a shell's script in the agent's container, as the agent.
    pub fn sh(&self, script: &str) -> Output {
        self.exec(&["sh", "-c", script])
    }

    /// Everything its sidecars have said, oldest first.
    pub fn logs(&self) -> Vec<LogLine> {
        let text = std::fs::read_to_string(self.dir.log()).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What one of them has said, lines joined.
    pub fn log(&self, role: &str) -> String {
        let lines = self.logs().into_iter().filter(|l| l.role == role).map(|l| l.line);
        lines.collect::<Vec<_>>().join("\n")
    }

    /// Kills one of its containers, as an engine out of memory would.
    #[track_caller]
    pub fn kill_container(&self, role: &str) {
        self.docker(&["kill", &self.container(role)]);
    }

    /// Takes one of its containers away, so that it cannot be started again.
    #[track_caller]
    pub fn remove_container(&self, role: &str) {
        self.docker(&["rm", "-f", "-v", &self.container(role)]);
    }

    #[track_caller]
    fn docker(&self, args: &[&str]) {
        let output = Command::new("docker").args(args).output();
        let output: Output = output.expect("the docker command can be run").into();
        output.ok();
    }

    /// Waits until the agent's container has a file.
    #[track_caller]
    pub fn wait_for_file(&self, path: &str) {
        wait_until(&format!("{path} in {}", self.id()), || {
            (self.exec(&["test", "-e", path]).status == 0).then_some(())
        });
    }

    /// Waits until its keeper has gone.
    #[track_caller]
    pub fn wait_for_end(&self) {
        wait_until(&format!("{} ends", self.id()), || (!self.dir.is_living()).then_some(()));
    }

    /// The process that keeps it.
    pub fn keeper(&self) -> u32 {
        let wanted = self.dir.path().join("lock");
        wait_until("the keeper's process is found", || {
            std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let mut open = std::fs::read_dir(entry.path().join("fd")).ok()?.flatten();
                let holds = open.any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == wanted));
                holds.then_some(pid)
            })
        })
    }

    /// Ends it, and waits until it has gone.
    #[track_caller]
    pub fn stop(&self) {
        self.site.launcher(&["stop", self.id()]).ok();
    }
}
