//! Help as a person reads it, for every command, in 80 columns.

use super::*;
use clap::CommandFactory;

/// The help of `launcher ARGS --help`.
fn help(args: &[&str]) -> String {
    let error = Cli::command().term_width(80).try_get_matches_from([&["launcher"], args, &["--help"]].concat());
    error.expect_err("help ends a command").to_string()
}

#[test]
fn the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn help_of_everything() {
    insta::assert_snapshot!(help(&[]), @"
    Run a coding agent as if it were already compromised, and lose nothing when it
    is

    Usage: launcher <COMMAND>

    Commands:
      run          Start an agent in a bottle, and stay with it until it ends
      resume       Launch a bottle that has ended once more, with its saved work and
                   the Dockerfile that was approved for it
      ps           List the bottles that are running
      attach       See and type what a bottle's agent has on its terminal (Ctrl-P
                   Ctrl-Q lets go)
      exec         Run one more program beside the agent, as the agent
      logs         Show what a bottle's sidecars said
      stop         End a bottle
      diff         Show what an agent changed in its workspace
      take         Bring what an agent changed into the directory it was copied from
      proposals    List what agents ask for and what is in force by a person's word
      approve      Show what an agent asks for, and let it have that
      reject       Say no to what an agent asks for
      allow        Let a running bottle's agent reach a host that it did not ask for
      revoke       Take back what was approved or allowed, or a host of the manifest
      audit        Show what a bottle's agent asked for and got, and what was
                   refused
      cleanup      Take back what launchers that died have left on the engine
      list         List the agents and bottles that there are manifests of
      check        Look for mistakes in the manifests: of an agent and its bottle,
                   or in all of them
      show         Show what an agent in its bottle, or a bottle, will reach and
                   hold
      init         Write a first bottle and agent, with words on what each line does
      edit         Open a manifest in your editor, and look for mistakes afterwards
      doctor       Say whether this machine can hold a bottle, and if not, why
      images       Build or export the images of the sidecars, or pin pipelock's
      demo         Watch a hostile agent fail in a bottle of its own: needs no
                   account and no key
      completions  Print what a shell needs to complete this command
      man          Print the manual page, or write all of them into a folder
      schema       Print the JSON Schema of a manifest's header, for your editor
      help         Print this message or the help of the given subcommand(s)

    Options:
      -h, --help     Print help
      -V, --version  Print version
    ");
}

#[test]
fn help_of_run() {
    insta::assert_snapshot!(help(&["run"]), @"
    Start an agent in a bottle, and stay with it until it ends

    Usage: launcher run <AGENT> [OPTIONS] [-- CMD...]

    Arguments:
      [AGENT]   The agent, by the name of its manifest; `launcher list` shows them
      [CMD]...  The program to run, instead of the image's own

    Options:
          --bottle <BOTTLE>         The bottle to run it in, instead of the one it
                                    names
          --name <NAME>             The bottle's name on this machine; without it
                                    the agent's, numbered where that is taken
          --no-workspace            Copy nothing of the current directory into the
                                    bottle
          --headless                No terminal: the prompt goes in, the output
                                    comes out
          --prompt <PROMPT>         What a headless agent is asked to do
          --detach                  Leave the bottle alone as soon as the agent runs
      -y, --yes                     Do not ask whether the agent may have what the
                                    manifest gives it
          --dry-run                 Print the plan and stop; works without an engine
          --output <OUTPUT>         How --dry-run prints the plan: text or json
                                    [default: text]
          --pipelock-image <IMAGE>  pipelock's image, instead of the pinned one
      -h, --help                    Print help

    Examples:
      launcher run coder
      launcher run coder --bottle dev -- bash
      launcher run coder --headless --prompt 'fix the tests' --yes
      launcher run coder --dry-run
    ");
}

#[test]
fn help_of_the_others() {
    let names = ["ps", "attach", "exec", "logs", "stop", "diff", "take", "cleanup", "list", "check"];
    let pages: Vec<_> = names.iter().map(|name| help(&[name])).collect();
    insta::assert_snapshot!(pages.join("\n----\n"), @"
    List the bottles that are running

    Usage: launcher ps [OPTIONS] [ID]

    Arguments:
      [ID]  One bottle, or the beginning of its name, with its sidecars and routes

    Options:
      -a, --all   Those that have ended as well
          --json  For programs
      -h, --help  Print help

    ----
    See and type what a bottle's agent has on its terminal (Ctrl-P Ctrl-Q lets go)

    Usage: launcher attach <ID>

    Arguments:
      <ID>  The bottle, or the beginning of its name

    Options:
      -h, --help  Print help

    ----
    Run one more program beside the agent, as the agent

    Usage: launcher exec <ID> -- <CMD>...

    Arguments:
      <ID>      The bottle, or the beginning of its name
      <CMD>...  The program and its arguments

    Options:
      -h, --help  Print help

    ----
    Show what a bottle's sidecars said

    Usage: launcher logs [OPTIONS] <ID>

    Arguments:
      <ID>  The bottle, or the beginning of its name

    Options:
      -f, --follow  Go on as more is said
          --json    As it is stored, a JSON object a line
      -h, --help    Print help

    ----
    End a bottle

    Usage: launcher stop [OPTIONS] <ID>

    Arguments:
      <ID>  The bottle, or the beginning of its name

    Options:
          --now   At once, without asking the agent to end
      -h, --help  Print help

    ----
    Show what an agent changed in its workspace

    Usage: launcher diff <ID>

    Arguments:
      <ID>  The bottle, or the beginning of its name

    Options:
      -h, --help  Print help

    ----
    Bring what an agent changed into the directory it was copied from

    Usage: launcher take [OPTIONS] <ID>

    Arguments:
      <ID>  The bottle, or the beginning of its name

    Options:
          --force  Also over files that have changed here since
      -h, --help   Print help

    ----
    Take back what launchers that died have left on the engine

    Usage: launcher cleanup [OPTIONS]

    Options:
          --forget <ID>  Forget a bottle that has ended, with its log and its saved
                         workspace
      -h, --help         Print help

    ----
    List the agents and bottles that there are manifests of

    Usage: launcher list [OPTIONS]

    Options:
          --json  For programs, with the paths of the files
      -h, --help  Print help

    ----
    Look for mistakes in the manifests: of an agent and its bottle, or in all of
    them

    Usage: launcher check [OPTIONS] [AGENT]

    Arguments:
      [AGENT]  The agent, by the name of its manifest; without it and --bottle
               everything is checked

    Options:
          --bottle <BOTTLE>  The bottle to check it with, or to check alone
      -h, --help             Print help
    ");
}

#[test]
fn help_of_images_and_demo() {
    let pages = [&["images"][..], &["images", "build"], &["images", "pin"], &["images", "export"], &["demo"]].map(help);
    insta::assert_snapshot!(pages.join("\n----\n"), @"
    Build or export the images of the sidecars, or pin pipelock's

    Usage: launcher images <COMMAND>

    Commands:
      build   Build the sidecars that are missing or out of date, and load them into
              the engine
      pin     Write down that this pipelock, and no other of its name, may be used
      export  Write the sidecars' images as archives for `docker load` or a registry
              of your own; needs no engine
      help    Print this message or the help of the given subcommand(s)

    Options:
      -h, --help  Print help

    ----
    Build the sidecars that are missing or out of date, and load them into the
    engine

    Usage: launcher images build

    Options:
      -h, --help  Print help

    ----
    Write down that this pipelock, and no other of its name, may be used

    Usage: launcher images pin [IMAGE]

    Arguments:
      [IMAGE]  Its reference; without it the pinned one

    Options:
      -h, --help  Print help

    ----
    Write the sidecars' images as archives for `docker load` or a registry of your
    own; needs no engine

    Usage: launcher images export <OUT>

    Arguments:
      <OUT>  The folder for them

    Options:
      -h, --help  Print help

    ----
    Watch a hostile agent fail in a bottle of its own: needs no account and no key

    Usage: launcher demo [OPTIONS]

    Options:
          --pipelock-image <IMAGE>  pipelock's image, instead of the pinned one or
                                    the stand-in
          --json                    For programs: the rows as JSON
      -h, --help                    Print help
    ");
}

#[test]
fn no_line_of_help_is_wider_than_a_terminal() {
    for command in Cli::command().get_subcommands().filter(|c| !c.is_hide_set()) {
        for line in help(&[command.get_name()]).lines() {
            assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
        }
    }
}
