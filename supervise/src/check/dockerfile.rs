//! A Dockerfile that an agent may ask for: an image to begin with, and steps of four kinds. PURE.
//!
//! The launcher carries such a file out by itself, step by step in a container behind the bottle's wall; it is never given
//! to an engine's builder. So this is not Docker's language but the part of it that has one meaning here and there: what
//! is not understood, or could be read in two ways, is refused with its line. It must never guess.

use super::{DOCKERFILE_BYTES_MAX, is_hidden};

/// Steps of a Dockerfile.
pub const STEPS_MAX: usize = 100;

/// Variables that it sets, all ENV lines together.
pub const VARIABLES_MAX: usize = 64;

/// Bytes of a variable's value, of a path, and of a user.
pub const VALUE_BYTES_MAX: usize = 4 << 10;

/// Variables that a bottle sets itself, or by which a loader or shell runs what they name. Compared without regard to case,
/// as some of their readers do. `*` stands for any end.
const RESERVED: [&str; 25] = [
    "LD_*",
    "BOTTLE*",
    "SSL_CERT_*",
    "CURL_CA_BUNDLE",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "GIT_*",
    "CARGO_HTTP_CAINFO",
    "NPM_CONFIG_*",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
    "NODE_*",
    "JAVA_TOOL_OPTIONS",
    "JDK_JAVA_OPTIONS",
    "ANTHROPIC_*",
    "OPENAI_*",
    "CLAUDE_*",
    "CODEX_*",
    "HOME",
    "USER",
    "TERM",
    "ENV",
    "BASH_ENV",
    "SHELLOPTS",
    "BASHOPTS",
];

/// A Dockerfile that can be carried out: only [`Dockerfile::parse`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    from: String,
    from_line: usize,
    steps: Vec<Step>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its first line, counted from 1.
    pub line: usize,
    /// What it does.
    pub instruction: Instruction,
}

/// What a step does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// Runs a line of the shell, as the user and in the directory that were set last.
    Run(String),
    /// Sets variables for the steps that follow and for what runs in the image.
    Env(Vec<Variable>),
    /// Makes a directory and goes there; an absolute path.
    Workdir(String),
    /// Whom the following steps run as: `user` or `user:group`, names or numbers.
    User(String),
}

/// A variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Variable {
    /// A name and its value, as it is.
    Plain {
        /// The name.
        name: String,
        /// The value.
        value: String,
    },
    /// PATH as it was, with more before and after it.
    Path {
        /// Ends with a colon, or is empty.
        before: String,
        /// Begins with a colon, or is empty.
        after: String,
    },
}

/// Why a text is no Dockerfile that can be carried out, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {why}")]
pub struct Fault {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub why: Why,
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// More bytes than are read.
    #[error("the Dockerfile is too long")]
    Long,
    /// A character that a person would not see.
    #[error("it has a character that a person would not see")]
    Character,
    /// `# syntax=`, `# escape=`.
    #[error("a parser directive changes how the rest is read; leave it out, or write the comment without `=`")]
    Directive,
    /// Something before FROM.
    #[error("the first instruction must be FROM")]
    NoFrom,
    /// A second FROM.
    #[error("there can be one FROM alone")]
    SecondFrom,
    /// `FROM --platform=.. a AS b`.
    #[error("FROM takes one image and nothing else")]
    FromWords,
    /// Any other instruction.
    #[error(
        "only FROM, RUN, ENV, WORKDIR and USER are taken; COPY and ADD have nothing to copy from, and what the container \
         runs is the operator's choice"
    )]
    Instruction,
    /// An instruction without its words.
    #[error("the instruction says nothing")]
    Empty,
    /// A backslash at the end that is not plainly a continuation.
    #[error("one backslash as the last character continues a line, and nothing else does")]
    Backslash,
    /// A comment or nothing where a line goes on.
    #[error("a continued line cannot be followed by a comment or an empty line")]
    Continuation,
    /// `RUN ["a"]`.
    #[error("RUN takes a line of the shell, not a list (write `test` for `[`)")]
    ExecForm,
    /// `RUN --mount=..`.
    #[error("RUN takes no options")]
    Option,
    /// `RUN <<EOF`.
    #[error("a here-document is not taken (write printf)")]
    HereDocument,
    /// `ENV a b`, and quotes within words.
    #[error(
        "write NAME=value, or NAME=\"value\" with blanks; quotes go around a whole value, without a backslash in it"
    )]
    Assignment,
    /// `$x`.
    #[error("no variable is put in here; write what it stands for (of PATH, $PATH can be an entry)")]
    Expansion,
    /// PATH as a whole new one.
    #[error(
        "PATH can be extended and not replaced: write $PATH as one of its entries, once, and absolute paths for the others"
    )]
    Path,
    /// A name that the bottle sets.
    #[error("the bottle sets this variable itself, or a loader or shell runs what it names")]
    Reserved,
    /// Not an absolute path.
    #[error("WORKDIR takes one absolute path without `..`, blanks, quotes or backslashes")]
    Workdir,
    /// Not a user.
    #[error("USER takes a user, or user:group, by name or number")]
    User,
    /// Too much.
    #[error("a Dockerfile can have {STEPS_MAX} steps and set {VARIABLES_MAX} variables")]
    Many,
    /// Too long.
    #[error("a value can have {VALUE_BYTES_MAX} bytes")]
    Value,
    /// Another image.
    #[error("FROM must be the image of the bottle, which bottle://dockerfile has as `from`")]
    OtherImage,
}

impl Dockerfile {
    /// Reads a text. Lines end with LF; no byte of it is left unread. Fails at the first line that it does not take.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let fault = |line, why| Fault { line, why };
        if text.len() > DOCKERFILE_BYTES_MAX {
            return Err(fault(1, Why::Long));
        }
        for (n, line) in text.split('\n').enumerate() {
            if line.chars().any(is_hidden) {
                return Err(fault(n + 1, Why::Character));
            }
        }
        let mut from: Option<(String, usize)> = None;
        let (mut steps, mut variables) = (Vec::new(), 0);
        for (line, text) in logical(text)? {
            let at = |why| fault(line, why);
            let (word, rest) = text.split_once([' ', '\t']).unwrap_or((&text, ""));
            let (word, rest) = (word.to_ascii_uppercase(), rest.trim_matches([' ', '\t']));
            let taken = matches!(word.as_str(), "FROM" | "RUN" | "ENV" | "WORKDIR" | "USER");
            if !taken {
                return Err(at(Why::Instruction));
            }
            if rest.is_empty() {
                return Err(at(Why::Empty));
            }
            if word == "FROM" {
                if from.is_some() {
                    return Err(at(Why::SecondFrom));
                }
                if rest.starts_with("--") || rest.contains([' ', '\t', '"', '\'', '\\', '$']) {
                    return Err(at(Why::FromWords));
                }
                from = Some((rest.to_owned(), line));
                continue;
            }
            if from.is_none() {
                return Err(at(Why::NoFrom));
            }
            let instruction = match word.as_str() {
                "RUN" => run(rest).map(Instruction::Run),
                "ENV" => env(rest).map(Instruction::Env),
                "WORKDIR" => workdir(rest).map(Instruction::Workdir),
                _ => user(rest).map(Instruction::User),
            };
            let instruction = instruction.map_err(at)?;
            if let Instruction::Env(set) = &instruction {
                variables += set.len();
            }
            steps.push(Step { line, instruction });
            if steps.len() > STEPS_MAX || variables > VARIABLES_MAX {
                return Err(at(Why::Many));
            }
        }
        let (from, from_line) = from.ok_or(fault(1, Why::NoFrom))?;
        Ok(Self { from, from_line, steps })
    }

    /// The image that it begins with.
    pub fn from(&self) -> &str {
        &self.from
    }

    /// Its steps, in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Does it begin with this image? Fails with the line where it says another.
    pub fn begins_with(&self, image: &str) -> Result<(), Fault> {
        if self.from == image { Ok(()) } else { Err(Fault { line: self.from_line, why: Why::OtherImage }) }
    }
}

/// Is this the name of a variable that a bottle sets itself, or by which what it names is run?
pub fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let is = |reserved: &&'static str| match reserved.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => name == **reserved,
    };
    name.ends_with("_PROXY") || RESERVED.iter().any(is)
}

/// Lines with what continues them, without comments and empty lines; each with the number of its first.
fn logical(text: &str) -> Result<Vec<(usize, String)>, Fault> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    let mut has_begun = false;
    for (n, line) in text.split('\n').enumerate() {
        let fault = |why| Fault { line: n + 1, why };
        let is_comment = line.trim_start_matches([' ', '\t']).starts_with('#');
        let is_empty = line.trim_matches([' ', '\t']).is_empty();
        if open.is_some() && (is_comment || is_empty) {
            return Err(fault(Why::Continuation));
        }
        if is_comment {
            // Only at the top would another reader take it for a directive.
            if !has_begun && line.contains('=') {
                return Err(fault(Why::Directive));
            }
            continue;
        }
        if is_empty {
            continue;
        }
        has_begun = true;
        let continued = match line.strip_suffix('\\') {
            Some(rest) if rest.ends_with('\\') => return Err(fault(Why::Backslash)),
            Some(rest) => Some(rest),
            // A backslash before blanks continues a line for one reader and not for another.
            None if line.trim_end_matches([' ', '\t']).ends_with('\\') => return Err(fault(Why::Backslash)),
            None => None,
        };
        let (first, mut whole) = open.take().unwrap_or((n + 1, String::new()));
        whole.push_str(continued.unwrap_or(line));
        if continued.is_some() {
            open = Some((first, whole));
        } else {
            lines.push((first, whole.trim_matches([' ', '\t']).to_owned()));
        }
    }
    match open {
        Some((line, _)) => Err(Fault { line, why: Why::Continuation }),
        None => Ok(lines),
    }
}

fn run(rest: &str) -> Result<String, Why> {
    if rest.starts_with("--") {
        return Err(Why::Option);
    }
    if rest.starts_with('[') {
        return Err(Why::ExecForm);
    }
    if rest.contains("<<") {
        return Err(Why::HereDocument);
    }
    Ok(rest.to_owned())
}

fn env(mut rest: &str) -> Result<Vec<Variable>, Why> {
    let mut set = Vec::new();
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=').ok_or(Why::Assignment)?;
        let is_name = !name.is_empty()
            && !name.starts_with(|c: char| c.is_ascii_digit())
            && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if !is_name {
            return Err(Why::Assignment);
        }
        let (value, more) = match after.chars().next().filter(|c| matches!(c, '"' | '\'')) {
            Some(quote) => after[1..].split_once(quote).ok_or(Why::Assignment)?,
            None => after.split_at(after.find([' ', '\t']).unwrap_or(after.len())),
        };
        if !(more.is_empty() || more.starts_with([' ', '\t'])) || value.contains(['"', '\'', '\\']) {
            return Err(Why::Assignment);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Why::Value);
        }
        set.push(variable(name, value)?);
        rest = more.trim_start_matches([' ', '\t']);
    }
    Ok(set)
}

fn variable(name: &str, value: &str) -> Result<Variable, Why> {
    if is_reserved(name) {
        return Err(Why::Reserved);
    }
    if name != "PATH" {
        if value.contains('$') {
            return Err(Why::Expansion);
        }
        return Ok(Variable::Plain { name: name.to_owned(), value: value.to_owned() });
    }
    let is_old = |entry: &&str| matches!(*entry, "$PATH" | "${PATH}");
    let entries: Vec<&str> = value.split(':').collect();
    let at = entries.iter().position(is_old).ok_or(Why::Path)?;
    let (before, after) = (&entries[..at], &entries[at + 1..]);
    if !before.iter().chain(after).all(|entry| entry.starts_with('/') && !entry.contains('$')) {
        return Err(Why::Path);
    }
    Ok(Variable::Path {
        before: before.iter().map(|entry| format!("{entry}:")).collect(),
        after: after.iter().map(|entry| format!(":{entry}")).collect(),
    })
}

fn workdir(rest: &str) -> Result<String, Why> {
    if rest.contains('$') {
        return Err(Why::Expansion);
    }
    let is_plain = rest.starts_with('/')
        && !rest.contains([' ', '\t', '"', '\'', '\\'])
        && rest.split('/').all(|segment| segment != "..");
    if !is_plain {
        return Err(Why::Workdir);
    }
    if rest.len() > VALUE_BYTES_MAX { Err(Why::Value) } else { Ok(rest.to_owned()) }
}

fn user(rest: &str) -> Result<String, Why> {
    let is_word = |word: &str| {
        (1..=64).contains(&word.len())
            && word.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
            && word.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'))
    };
    let is_user = match rest.split_once(':') {
        Some((user, group)) => is_word(user) && is_word(group),
        None => is_word(rest),
    };
    if is_user { Ok(rest.to_owned()) } else { Err(Why::User) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn steps(text: &str) -> Result<Vec<Instruction>, Fault> {
        let parsed = Dockerfile::parse(&format!("FROM a:1\n{text}"))?;
        Ok(parsed.steps.into_iter().map(|step| step.instruction).collect())
    }

    fn plain(name: &str, value: &str) -> Variable {
        Variable::Plain { name: name.to_owned(), value: value.to_owned() }
    }

    #[test]
    fn four_instructions_are_taken() {
        let text = "# a comment\n\n  FROM debian:bookworm-slim\n# c=d\nRUN apt-get update \\\n && apt-get install -y jq\n\
                    run echo \"a b\" > /x && test -e /x # no comment\nENV A=1 B=\"two words\" C='$' PATH=/opt/a:${PATH}:/opt/b\n\
                    WORKDIR /srv/a.b\nUSER node:1000\n";
        // A dollar is refused in quotes of both kinds: readers differ.
        let fault = Dockerfile::parse(text).unwrap_err();
        assert_eq!(fault, Fault { line: 8, why: Why::Expansion });
        let parsed = Dockerfile::parse(&text.replace(" C='$'", " C='three'")).unwrap();
        assert_eq!(parsed.from(), "debian:bookworm-slim");
        assert_eq!(parsed.begins_with("debian:bookworm"), Err(Fault { line: 3, why: Why::OtherImage }));
        assert_eq!(parsed.begins_with("debian:bookworm-slim"), Ok(()));
        let step = |line, instruction| Step { line, instruction };
        let path = Variable::Path { before: "/opt/a:".into(), after: ":/opt/b".into() };
        let env = vec![plain("A", "1"), plain("B", "two words"), plain("C", "three"), path];
        assert_eq!(
            parsed.steps(),
            [
                step(5, Instruction::Run("apt-get update  && apt-get install -y jq".into())),
                step(7, Instruction::Run("echo \"a b\" > /x && test -e /x # no comment".into())),
                step(8, Instruction::Env(env)),
                step(9, Instruction::Workdir("/srv/a.b".into())),
                step(10, Instruction::User("node:1000".into())),
            ]
        );
    }

    #[test]
    fn all_else_is_refused_with_its_line_beside_its_neighbour() {
        let lines = |line: &str| steps(&format!("RUN true\n{line}\n"));
        for (refused, why, allowed) in [
            ("COPY / /x", Why::Instruction, Some("RUN cp -r /a /x")),
            ("ADD https://a.example/x /x", Why::Instruction, Some("RUN curl -o /x https://a.example/x")),
            ("ENTRYPOINT [\"/x\"]", Why::Instruction, None),
            ("CMD x", Why::Instruction, None),
            ("ARG A=1", Why::Instruction, Some("ENV A=1")),
            ("LABEL a=b", Why::Instruction, None),
            ("HEALTHCHECK CMD x", Why::Instruction, None),
            ("SHELL [\"/x\"]", Why::Instruction, None),
            ("VOLUME /x", Why::Instruction, Some("RUN mkdir /x")),
            ("ONBUILD RUN x", Why::Instruction, None),
            ("EXPOSE 1", Why::Instruction, None),
            ("STOPSIGNAL 9", Why::Instruction, None),
            ("MAINTAINER a", Why::Instruction, None),
            ("RUNx", Why::Instruction, None),
            ("{", Why::Instruction, None),
            ("FROM a:1", Why::SecondFrom, None),
            ("RUN", Why::Empty, None),
            ("RUN [\"a\"]", Why::ExecForm, Some("RUN test -e /a || [ -e /b ]")),
            ("RUN --mount=type=bind,target=/x ls", Why::Option, Some("RUN ls --all")),
            ("RUN --network=host ls", Why::Option, None),
            ("RUN cat <<EOF", Why::HereDocument, Some("RUN cat < /a")),
            ("RUN a \\ \n b", Why::Backslash, Some("RUN a \\\n b")),
            ("RUN a \\\\\n b", Why::Backslash, Some("RUN a '\\'")),
            ("ENV A", Why::Assignment, Some("ENV A=")),
            ("ENV A b", Why::Assignment, Some("ENV A=b")),
            ("ENV 1A=b", Why::Assignment, Some("ENV A1=b")),
            ("ENV A=\"b", Why::Assignment, Some("ENV A=\"b\"")),
            ("ENV A=\"b\"c", Why::Assignment, Some("ENV A=\"b\" C=c")),
            ("ENV A=b\\ c", Why::Assignment, Some("ENV A=\"b c\"")),
            ("ENV A=$B", Why::Expansion, Some("ENV A=B")),
            ("ENV LD_PRELOAD=/x.so", Why::Reserved, Some("ENV LDFLAGS=-s")),
            ("ENV https_proxy=", Why::Reserved, Some("ENV PROXY=x")),
            ("ENV A=1 SSL_CERT_FILE=/x", Why::Reserved, None),
            ("ENV HOME=/x", Why::Reserved, Some("ENV XDG_DATA_HOME=/x")),
            ("ENV PATH=/x", Why::Path, Some("ENV PATH=/x:$PATH")),
            ("ENV PATH=$PATH:", Why::Path, Some("ENV PATH=$PATH")),
            ("ENV PATH=bin:$PATH", Why::Path, None),
            ("ENV PATH=$PATH:$PATH", Why::Path, None),
            ("WORKDIR x", Why::Workdir, Some("WORKDIR /x")),
            ("WORKDIR /x/../y", Why::Workdir, Some("WORKDIR /x/..y")),
            ("WORKDIR $HOME", Why::Expansion, None),
            ("USER a b", Why::User, Some("USER a")),
            ("USER $A", Why::User, Some("USER 0:0")),
            ("USER -a", Why::User, None),
        ] {
            assert_eq!(lines(refused), Err(Fault { line: 3, why }), "{refused}");
            if let Some(allowed) = allowed {
                assert!(lines(allowed).is_ok(), "{allowed}: {:?}", lines(allowed));
            }
        }
        for (text, line, why) in [
            ("", 1, Why::NoFrom),
            ("RUN x\nFROM a\n", 1, Why::NoFrom),
            ("# syntax=x/y\nFROM a\n", 1, Why::Directive),
            ("\n#escape=`\nFROM a\n", 2, Why::Directive),
            ("FROM a AS b\n", 1, Why::FromWords),
            ("FROM --platform=x a\n", 1, Why::FromWords),
            ("FROM a\nRUN x \\\n# y\n z\n", 3, Why::Continuation),
            ("FROM a\nRUN x \\\n\n z\n", 3, Why::Continuation),
            ("FROM a\nRUN x \\", 2, Why::Continuation),
            ("FROM a\nRUN x\u{202e}\n", 2, Why::Character),
            ("FROM a\nRUN x\r\n", 2, Why::Character),
        ] {
            assert_eq!(Dockerfile::parse(text), Err(Fault { line, why }), "{text:?}");
        }
    }

    #[test]
    fn there_are_limits() {
        assert!(steps(&"RUN x\n".repeat(STEPS_MAX)).is_ok());
        assert_eq!(steps(&"RUN x\n".repeat(STEPS_MAX + 1)).unwrap_err().why, Why::Many);
        let env = |count: usize| format!("ENV {}\n", "A=1 ".repeat(count).trim());
        assert!(steps(&env(VARIABLES_MAX)).is_ok());
        assert_eq!(steps(&env(VARIABLES_MAX + 1)).unwrap_err().why, Why::Many);
        assert_eq!(steps(&format!("ENV A={}", "x".repeat(VALUE_BYTES_MAX + 1))).unwrap_err().why, Why::Value);
        assert_eq!(Dockerfile::parse(&"#".repeat(DOCKERFILE_BYTES_MAX + 1)).unwrap_err().why, Why::Long);
    }

    proptest! {
        #[test]
        fn it_never_panics_and_takes_only_four_instructions(text in any::<String>()) {
            let _ = Dockerfile::parse(&text);
        }

        #[test]
        fn what_looks_like_one_is_taken_or_refused_line_by_line(
            lines in proptest::collection::vec("(FROM|RUN|ENV|env|WORKDIR|USER|COPY|ADD|CMD|#)?[ \t]?[ -~ü]{0,24}\\\\?", 0..12),
        ) {
            let text = format!("FROM a\n{}", lines.join("\n"));
            match Dockerfile::parse(&text) {
                Ok(parsed) => {
                    // Every line that says something is in a step or continues one.
                    let words = ["RUN", "ENV", "WORKDIR", "USER"];
                    for step in parsed.steps() {
                        let line = text.lines().nth(step.line - 1).unwrap().trim_start().to_ascii_uppercase();
                        prop_assert!(words.iter().any(|word| line.starts_with(word)), "{line}");
                        if let Instruction::Run(run) = &step.instruction {
                            prop_assert!(!run.contains('\n') && !run.starts_with('[') && !run.starts_with("--"));
                        }
                    }
                    let refused = |line: &str| ["COPY ", "ADD ", "CMD "].iter().any(|word| line.starts_with(word));
                    let mut before = "";
                    for line in text.lines() {
                        prop_assert!(!refused(line) || before.ends_with('\\'), "{line}");
                        before = line;
                    }
                }
                Err(fault) => prop_assert!((1..=text.lines().count().max(1) + 1).contains(&fault.line)),
            }
        }
    }
}
