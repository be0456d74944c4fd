//! The command line: every argument and all help text.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// The version; a release also says what it was built from.
pub const VERSION: &str = match option_env!("BOTTLE_BUILD") {
    Some(build) => build,
    None => env!("CARGO_PKG_VERSION"),
};

/// Run a coding agent as if it were already compromised, and lose nothing when it is.
#[derive(Debug, Parser)]
#[command(name = "launcher", version = VERSION, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start an agent in a bottle, and stay with it until it ends
    #[command(
        override_usage = "launcher run <AGENT> [OPTIONS] [-- CMD...]",
        after_help = "Examples:\n  launcher run coder\n  launcher run coder --bottle dev -- bash\n  \
                            launcher run coder --headless --prompt 'fix the tests' --yes\n  launcher run coder --dry-run"
    )]
    Run(Run),
    /// Launch a bottle that has ended once more, with its saved work and the Dockerfile that was approved for it
    #[command(
        override_usage = "launcher resume <ID> [OPTIONS] [-- CMD...]",
        after_help = "Examples:\n  launcher resume coder\n  launcher resume coder --dry-run\n  launcher resume coder --no-dockerfile -- bash"
    )]
    Resume(Resume),
    /// List the bottles that are running
    Ps(Ps),
    /// See and type what a bottle's agent has on its terminal (Ctrl-P Ctrl-Q lets go)
    Attach(Id),
    /// Run one more program beside the agent, as the agent
    Exec(Exec),
    /// Show what a bottle's sidecars said
    Logs(Logs),
    /// End a bottle
    Stop(Stop),
    /// Show what an agent changed in its workspace
    Diff(Id),
    /// Bring what an agent changed into the directory it was copied from
    Take(Take),
    /// List what agents ask for and what is in force by a person's word
    Proposals(Proposals),
    /// Show what an agent asks for, and let it have that
    #[command(after_help = "Examples:\n  launcher approve coder p1\n  launcher approve coder p1 --for 30m\n  \
                            launcher approve coder p2 --token-ref CRATES_TOKEN\n  launcher approve coder p3 --once --yes")]
    Approve(Approve),
    /// Say no to what an agent asks for
    Reject(Reject),
    /// Let a running bottle's agent reach a host that it did not ask for
    Allow(Allow),
    /// Take back what was approved or allowed, or a host of the manifest
    Revoke(Revoke),
    /// Show what a bottle's agent asked for and got, and what was refused
    Audit(Audit),
    /// Take back what launchers that died have left on the engine
    Cleanup(Cleanup),
    /// List the agents and bottles that there are manifests of
    List(List),
    /// Look for mistakes in the manifests: of an agent and its bottle, or in all of them
    Check(Check),
    /// Show what an agent in its bottle, or a bottle, will reach and hold
    Show(Show),
    /// Write a first bottle and agent, with words on what each line does
    Init(Init),
    /// Open a manifest in your editor, and look for mistakes afterwards
    Edit(Edit),
    /// Say whether this machine can hold a bottle, and if not, why
    Doctor(Doctor),
    /// Build or export the images of the sidecars, or pin pipelock's
    Images(Images),
    /// Watch a hostile agent fail in a bottle of its own: needs no account and no key
    Demo(Demo),
    /// Print what a shell needs to complete this command
    Completions(Completions),
    /// Print the manual page, or write all of them into a folder
    Man(Man),
    /// Print the JSON Schema of a manifest's header, for your editor
    Schema(Schema),
    /// The process that owns a bottle
    #[command(hide = true)]
    Keeper,
}

/// `run`
#[derive(Debug, Args)]
pub struct Run {
    /// The agent, by the name of its manifest; `launcher list` shows them
    pub agent: Option<String>,
    /// The bottle to run it in, instead of the one it names
    #[arg(long)]
    pub bottle: Option<String>,
    /// The bottle's name on this machine; without it the agent's, numbered where that is taken
    #[arg(long)]
    pub name: Option<String>,
    /// Copy nothing of the current directory into the bottle
    #[arg(long)]
    pub no_workspace: bool,
    /// How it is launched.
    #[command(flatten)]
    pub launch: Launch,
}

/// `resume`
#[derive(Debug, Args)]
pub struct Resume {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// Use the manifest's image, whatever Dockerfile was approved
    #[arg(long)]
    pub no_dockerfile: bool,
    /// How it is launched.
    #[command(flatten)]
    pub launch: Launch,
}

/// What `run` and `resume` are told alike.
#[derive(Debug, Args)]
pub struct Launch {
    /// No terminal: the prompt goes in, the output comes out
    #[arg(long)]
    pub headless: bool,
    /// What a headless agent is asked to do
    #[arg(long, requires = "headless")]
    pub prompt: Option<String>,
    /// Leave the bottle alone as soon as the agent runs
    #[arg(long)]
    pub detach: bool,
    /// Do not ask whether the agent may have what the manifest gives it
    #[arg(long, short)]
    pub yes: bool,
    /// Print the plan and stop; works without an engine
    #[arg(long)]
    pub dry_run: bool,
    /// How --dry-run prints the plan: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true, requires = "dry_run")]
    pub output: Output,
    /// pipelock's image, instead of the pinned one
    #[arg(long, value_name = "IMAGE")]
    pub pipelock_image: Option<String>,
    /// The program to run, instead of the image's own
    #[arg(last = true, value_name = "CMD")]
    pub command: Vec<String>,
}

impl Launch {
    /// What a headless agent is asked; `None` for one with a terminal.
    pub fn prompt(&self) -> Option<String> {
        self.headless.then(|| self.prompt.clone().unwrap_or_default())
    }
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

/// `ps`
#[derive(Debug, Args)]
pub struct Ps {
    /// One bottle, or the beginning of its name, with its sidecars and routes
    pub id: Option<String>,
    /// Those that have ended as well
    #[arg(long, short)]
    pub all: bool,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// A bottle.
#[derive(Debug, Args)]
pub struct Id {
    /// The bottle, or the beginning of its name
    pub id: String,
}

/// `exec`
#[derive(Debug, Args)]
pub struct Exec {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// The program and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    pub command: Vec<String>,
}

/// `logs`
#[derive(Debug, Args)]
pub struct Logs {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// Go on as more is said
    #[arg(long, short)]
    pub follow: bool,
    /// As it is stored, a JSON object a line
    #[arg(long)]
    pub json: bool,
}

/// `stop`
#[derive(Debug, Args)]
pub struct Stop {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// At once, without asking the agent to end
    #[arg(long)]
    pub now: bool,
}

/// `take`
#[derive(Debug, Args)]
pub struct Take {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// Also over files that have changed here since
    #[arg(long)]
    pub force: bool,
}

/// `proposals`
#[derive(Debug, Args)]
pub struct Proposals {
    /// One bottle, or the beginning of its name, running or ended; without it all that run
    pub id: Option<String>,
    /// Go on, and say when something is asked for
    #[arg(long, short)]
    pub watch: bool,
    /// How to print: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
    pub output: Output,
}

/// For how long something is granted, and whether a person is asked.
#[derive(Debug, Args)]
pub struct Terms {
    /// Take it back by itself after this time, such as 30m or 8h
    #[arg(long = "for", value_name = "TIME", value_parser = seconds)]
    pub seconds: Option<u64>,
    /// Do not show it and ask
    #[arg(long, short)]
    pub yes: bool,
    /// How to print what came of it: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
    pub output: Output,
}

/// `approve`
#[derive(Debug, Args)]
pub struct Approve {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// The proposal, such as p1
    pub proposal: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened fields have no help of their own")]
    pub terms: Terms,
    /// For one push (findings) or one request (routes) alone
    #[arg(long, conflicts_with = "seconds")]
    pub once: bool,
    /// Where a route's credential comes from: the name of a variable, or file:PATH; without it none is put in
    #[arg(long, value_name = "NAME")]
    pub token_ref: Option<String>,
    /// Do not have the TLS of a route opened and read
    #[arg(long)]
    pub no_inspect: bool,
    /// Change it in an editor first
    #[arg(long)]
    pub edit: bool,
    /// A word for the agent
    #[arg(long, default_value = "", hide_default_value = true)]
    pub notes: String,
}

/// `reject`
#[derive(Debug, Args)]
pub struct Reject {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// The proposal, such as p1
    pub proposal: String,
    /// Why, for the agent
    #[arg(long, default_value = "", hide_default_value = true)]
    pub reason: String,
    /// How to print what came of it: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
    pub output: Output,
}

/// `allow`
#[derive(Debug, Args)]
pub struct Allow {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// `host`, or `*.host` for it and all below
    pub host: String,
    #[command(flatten)]
    #[allow(missing_docs, reason = "flattened fields have no help of their own")]
    pub terms: Terms,
}

/// `revoke`
#[derive(Debug, Args)]
pub struct Revoke {
    /// The bottle, or the beginning of its name
    pub id: String,
    /// What `launcher proposals` lists as in force, such as p1 or g1, or a host
    pub what: String,
    /// Do not show it and ask
    #[arg(long, short)]
    pub yes: bool,
    /// How to print what came of it: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
    pub output: Output,
}

/// `audit`
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub struct Audit {
    /// What to do with it; without a word it is shown.
    #[command(subcommand)]
    pub command: Option<AuditCommand>,
    /// The bottle, or the beginning of its name
    #[arg(required = true)]
    pub id: Option<String>,
    /// How to print: text or json
    #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
    pub output: Output,
}

/// What to do with an audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Find lines that were edited, dropped or put elsewhere
    Verify {
        /// The bottle, or the beginning of its name
        id: String,
        /// How to print: text or json
        #[arg(long, value_enum, default_value_t = Output::Text, hide_possible_values = true)]
        output: Output,
    },
}

/// A time as a person writes it.
fn seconds(text: &str) -> Result<u64, String> {
    crate::manifest::seconds(text, 1..=crate::verdict::SECONDS_MAX)
}

/// `cleanup`
#[derive(Debug, Args)]
pub struct Cleanup {
    /// Forget a bottle that has ended, with its log and its saved workspace
    #[arg(long, value_name = "ID")]
    pub forget: Option<String>,
}

/// `list`
#[derive(Debug, Args)]
pub struct List {
    /// For programs, with the paths of the files
    #[arg(long)]
    pub json: bool,
}

/// `check`
#[derive(Debug, Args)]
pub struct Check {
    /// The agent, by the name of its manifest; without it and --bottle everything is checked
    pub agent: Option<String>,
    /// The bottle to check it with, or to check alone
    #[arg(long)]
    pub bottle: Option<String>,
}

/// `show`
#[derive(Debug, Args)]
pub struct Show {
    /// The agent, by the name of its manifest
    pub agent: Option<String>,
    /// The bottle to show it in, or to show alone
    #[arg(long, required_unless_present = "agent")]
    pub bottle: Option<String>,
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// `init`
#[derive(Debug, Args)]
pub struct Init {
    /// What the agent and its bottle are called; asked for on a terminal, else dev
    pub name: Option<String>,
    /// The kind of agent: claude, codex, shell, or a file of yours in `providers/`; asked for on a terminal, else shell
    #[arg(long)]
    pub provider: Option<String>,
    /// The image of its container; without it the provider's own
    #[arg(long)]
    pub image: Option<String>,
}

/// `edit`
#[derive(Debug, Args)]
pub struct Edit {
    /// The agent, by the name of its manifest
    pub name: String,
    /// It is a bottle
    #[arg(long)]
    pub bottle: bool,
}

/// `completions`
#[derive(Debug, Args)]
pub struct Completions {
    /// The shell
    pub shell: clap_complete::Shell,
}

/// `man`
#[derive(Debug, Args)]
pub struct Man {
    /// The folder for the pages of all commands
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// `schema`
#[derive(Debug, Args)]
pub struct Schema {
    /// Of which manifest
    pub of: Manifest,
}

/// A kind of manifest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Manifest {
    /// A bottle's
    Bottle,
    /// An agent's
    Agent,
}

/// `doctor`
#[derive(Debug, Args)]
pub struct Doctor {
    /// For programs
    #[arg(long)]
    pub json: bool,
}

/// `images`
#[derive(Debug, Args)]
pub struct Images {
    /// What to do with them.
    #[command(subcommand)]
    pub command: ImagesCommand,
}

/// What to do with images.
#[derive(Debug, Subcommand)]
pub enum ImagesCommand {
    /// Build the sidecars that are missing or out of date, and load them into the engine
    Build,
    /// Write down that this pipelock, and no other of its name, may be used
    Pin {
        /// Its reference; without it the pinned one
        image: Option<String>,
    },
    /// Write the sidecars' images as archives for `docker load` or a registry of your own; needs no engine
    Export {
        /// The folder for them
        out: PathBuf,
    },
}

/// `demo`
#[derive(Debug, Args)]
pub struct Demo {
    /// pipelock's image, instead of the pinned one or the stand-in
    #[arg(long, value_name = "IMAGE")]
    pub pipelock_image: Option<String>,
    /// For programs: the rows as JSON
    #[arg(long)]
    pub json: bool,
    /// Where to find the binaries of the demo's world, instead of building them
    #[arg(long, hide = true)]
    pub world: Option<PathBuf>,
}

#[cfg(test)]
mod tests;
