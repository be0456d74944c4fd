//! Where a route's credential comes from. What is written here is a name; a credential written in its stead is not
//! shown in any error.

use super::TokenRef;
use super::env::variable;
use super::error::path;
use super::places::Places;
use super::reader::{Table, Text, text, texts};
use super::report::Report;
use super::tree::{Entry, Value};
use super::units::seconds;
use std::path::PathBuf;

/// Arguments of a command, the program included.
const ARGUMENTS_MAX: usize = 64;

impl TokenRef {
    /// What an operator is shown of it: a variable's name, a path, or a program without its arguments.
    pub fn shown(&self) -> String {
        match self {
            Self::Env(name) => format!("variable {name}"),
            Self::File(file) => format!("file {}", path(file)),
            Self::Command { argv, .. } => {
                format!("command {}", argv.first().map(|program| super::error::quoted(program)).unwrap_or_default())
            }
        }
    }
}

/// Reads a `token_ref`: a variable's name, or one of `{env}`, `{file}`, `{command, ttl}`.
pub(super) fn read(entry: &Entry, places: &Places, report: &mut Report) -> Option<TokenRef> {
    match &entry.value.value {
        Value::Scalar { .. } => environment(text(&entry.value, "`token_ref`", report)?, report),
        Value::Null | Value::List(_) | Value::Map(_) => {
            let mut table = Table::open(&entry.value, "`token_ref`", entry.at, report)?;
            let token = table_of(&mut table, entry, places, report);
            table.finish(report);
            token
        }
    }
}

fn table_of(table: &mut Table<'_>, entry: &Entry, places: &Places, report: &mut Report) -> Option<TokenRef> {
    let sources = [table.take("env"), table.take("file"), table.take("command")];
    let ttl = table.take("ttl");
    if let (Some(ttl), None) = (ttl, sources[2]) {
        report.error(ttl.at, "`ttl` says when a command is run again, and there is no `command`");
    }
    match sources {
        [Some(env), None, None] => environment(text(&env.value, "`env`", report)?, report),
        [None, Some(file), None] => {
            let written = text(&file.value, "`file`", report)?;
            match places.resolve(&written.text, report.file(written.at.source)) {
                Ok(file) => Some(TokenRef::File(file)),
                Err(reason) => {
                    report.error(written.at, format!("cannot tell which file is meant: {reason}"));
                    None
                }
            }
        }
        [None, None, Some(command)] => {
            let argv = arguments(command, report)?;
            Some(TokenRef::Command { argv, ttl_s: ttl.and_then(|entry| lifetime(entry, report)) })
        }
        [None, None, None] => {
            let hint = "write one of {env: NAME}, {file: PATH}, {command: [PROGRAM, ARGUMENT]}";
            report.error_with(entry.at, "`token_ref` names no source", hint.to_owned());
            None
        }
        [env, file, command] => {
            let second = [env, file, command].into_iter().flatten().nth(1).map_or(entry.at, |entry| entry.at);
            report.error(second, "`token_ref` names more than one source");
            None
        }
    }
}

fn environment(name: Text, report: &mut Report) -> Option<TokenRef> {
    match variable(&name.text) {
        Ok(()) => Some(TokenRef::Env(name.text)),
        Err(reason) => {
            let hint = format!("write the name of a variable ({reason}), never the credential itself");
            report.error_masked(name.at, "`token_ref` does not name a variable", hint);
            None
        }
    }
}

fn arguments(entry: &Entry, report: &mut Report) -> Option<Vec<String>> {
    let before = report.errors();
    let argv: Vec<String> = texts(&entry.value, "`command`", report).into_iter().map(|text| text.text).collect();
    if report.errors() > before {
        return None;
    }
    if argv.is_empty() || argv.len() > ARGUMENTS_MAX {
        report.error(entry.at, format!("`command` needs a program and at most {} arguments", ARGUMENTS_MAX - 1));
        return None;
    }
    if argv[0].contains('/') && !PathBuf::from(&argv[0]).is_absolute() {
        let hint = "write a name that is found in PATH, or an absolute path";
        report.error_with(entry.at, "the program of `command` is a relative path", hint.to_owned());
        return None;
    }
    Some(argv)
}

fn lifetime(entry: &Entry, report: &mut Report) -> Option<u64> {
    let text = text(&entry.value, "`ttl`", report)?;
    match seconds(&text.text, 10..=30 * 86_400) {
        Ok(ttl) => Some(ttl),
        Err(error) => {
            report.error_with(text.at, format!("`ttl`: {}", error.message), error.hint);
            None
        }
    }
}
