//! A synthetic repository of the size that the benches ask for: about 100 MB as a pack, 40,000 objects. The same in each
//! run, made of nothing that anybody wrote: code, data, prose and pictures by chance.

use std::io::{self, Write};

/// The synthetic repository: a line of commits, each of which writes some files.
pub struct Repository {
    random: Random,
    commits: u32,
    done: u32,
}

/// One commit.
pub struct Commit {
    /// What it writes: path and content. Each content is another blob.
    pub files: Vec<(String, Vec<u8>)>,
    /// Its message.
    pub message: String,
}

const COMMITS: u32 = 2_900;
const FILES_PER_COMMIT: u32 = 8;
const FOLDERS: u32 = 24;

impl Repository {
    /// The repository of the benches: 2,900 commits, 23,200 blobs of about 200 MB.
    pub fn new() -> Self {
        Self::of(COMMITS)
    }

    /// The same with fewer or more commits.
    pub fn of(commits: u32) -> Self {
        Self { random: Random(0x5eed_0b07_71e0_0001), commits, done: 0 }
    }

    /// All blobs.
    pub fn blobs(self) -> Vec<Vec<u8>> {
        self.flat_map(|commit| commit.files).map(|(_, content)| content).collect()
    }

    /// The whole as a stream for `git fast-import`, on the branch `main`.
    pub fn fast_import(self, out: &mut dyn Write) -> io::Result<()> {
        for (number, commit) in self.enumerate() {
            writeln!(out, "commit refs/heads/main\nmark :{}", number + 1)?;
            writeln!(out, "committer Bench <bench@example.com> {} +0000", 1_700_000_000 + number * 60)?;
            writeln!(out, "data {}\n{}", commit.message.len(), commit.message)?;
            if number > 0 {
                writeln!(out, "from :{number}")?;
            }
            for (path, content) in commit.files {
                writeln!(out, "M 100644 inline {path}\ndata {}", content.len())?;
                out.write_all(&content)?;
                writeln!(out)?;
            }
        }
        writeln!(out, "done")
    }
}

impl Iterator for Repository {
    type Item = Commit;

    fn next(&mut self) -> Option<Commit> {
        if self.done == self.commits {
            return None;
        }
        self.done += 1;
        let random = &mut self.random;
        let file = |nth: u32, random: &mut Random| {
            // Each commit works in few folders, as people do.
            let folder = (self.done / 3 + nth / 3) % FOLDERS;
            let (ending, content) = content(random);
            (format!("part{folder}/{}{}.{ending}", random.word(), random.below(40)), content)
        };
        let files = (0..FILES_PER_COMMIT).map(|nth| file(nth, random)).collect();
        let message = format!("{}\n\n{}", sentence(random), sentence(random));
        Some(Commit { files, message })
    }
}

/// One file; by bytes about half is code, a tenth each data, prose and digits, and a third is not text.
fn content(random: &mut Random) -> (&'static str, Vec<u8>) {
    let lines = 10 + random.below(170);
    match random.below(100) {
        0..62 => ("rs", (0..lines).flat_map(|_| code(random).into_bytes()).collect()),
        62..74 => ("json", (0..lines).flat_map(|_| data(random).into_bytes()).collect()),
        74..84 => ("md", (0..lines / 3).flat_map(|_| prose(random).into_bytes()).collect()),
        84..88 => ("min.js", (0..lines).flat_map(|_| code(random).trim().replace('\n', "").into_bytes()).collect()),
        88..91 => ("txt", (0..lines).flat_map(|_| digits(random).into_bytes()).collect()),
        _ => {
            let length = 5_000 + random.below(65_000) as usize;
            ("png", std::iter::repeat_with(|| random.next().to_le_bytes()).flatten().take(length).collect())
        }
    }
}

fn code(random: &mut Random) -> String {
    let indent = "    ".repeat(random.below(4) as usize);
    let [a, b, c] = [random.name(), random.name(), random.name()];
    match random.below(12) {
        0 => format!("{indent}let mut {a} = {b}.{c}(&self.{a}, {})?;\n", random.below(1000)),
        1 => format!("{indent}if {a}.is_empty() && {b} != {c} {{\n"),
        2 => format!("{indent}// {}\n", sentence(random)),
        3 => format!("{indent}}}\n\n"),
        4 => format!("{indent}fn {a}({b}: &str, {c}: usize) -> Result<{b}, Error> {{\n"),
        5 => format!(
            "{indent}assert_eq!({a}.get(\"{b}\"), Some(&{}), \"{}\\n\");\n",
            random.below(100),
            sentence(random)
        ),
        6 => format!("{indent}use crate::{a}::{b}::{{{c}, {a}_{b}}};\n"),
        7 => format!("{indent}const {}: u64 = 0x{:x};\n", a.to_uppercase(), random.next()),
        8 => format!("{indent}{a}: \"{b}/{c}.html\", {b}: '{c}', // https://example.com/{a}/{c}?{b}=%20{c}\n"),
        9 => format!("{indent}return {a}({b} + {c}[{}]);\n", random.below(64)),
        10 => format!("{indent}match {a} {{ {b} => {c}, _ => panic!(\"{}\") }}\n", sentence(random)),
        _ => format!("{indent}{a}_{b} = {c}_{a}.map(|{b}| {b}.{c}());\n"),
    }
}

fn data(random: &mut Random) -> String {
    let [a, b] = [random.word(), random.word()];
    match random.below(4) {
        0 => format!("    \"{a}-{b}\": \"^{}.{}.{}\",\n", random.below(20), random.below(30), random.below(9)),
        1 => format!("    \"integrity\": \"sha512-{}==\",\n", random.digits(BASE64, 86)),
        2 => format!(
            "    {{\"{a}\": {}, \"{b}\": [{}, {}]}},\n",
            random.below(10_000),
            random.below(9),
            random.below(99)
        ),
        _ => format!(
            "    \"resolved\": \"https://registry.example.org/{a}/-/{a}-{}.tgz#{}\",\n",
            random.below(9),
            random.digits(HEX, 40)
        ),
    }
}

fn prose(random: &mut Random) -> String {
    format!("{}. {}. {}.\n", sentence(random), sentence(random), sentence(random))
}

fn digits(random: &mut Random) -> String {
    match random.below(3) {
        0 => format!("{}\n", random.digits(BASE64, 76)),
        1 => format!("{}  {}\n", random.digits(HEX, 64), random.word()),
        _ => format!("{:?}\n", random.next().to_le_bytes()),
    }
}

fn sentence(random: &mut Random) -> String {
    let words: Vec<&str> = (0..4 + random.below(9)).map(|_| random.word()).collect();
    words.join(" ")
}

const BASE64: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const HEX: &[u8] = b"0123456789abcdef";
/// Words as in code and its comments; about one in twenty is one that rules look for, which is more than sources have.
const WORDS: &[&str] = &[
    "the",
    "a",
    "of",
    "to",
    "is",
    "in",
    "and",
    "for",
    "that",
    "this",
    "with",
    "not",
    "be",
    "as",
    "it",
    "are",
    "from",
    "by",
    "return",
    "value",
    "index",
    "length",
    "buffer",
    "string",
    "number",
    "result",
    "error",
    "option",
    "some",
    "none",
    "next",
    "file",
    "path",
    "name",
    "type",
    "node",
    "tree",
    "list",
    "item",
    "map",
    "set",
    "entry",
    "count",
    "size",
    "offset",
    "start",
    "end",
    "first",
    "last",
    "read",
    "write",
    "open",
    "close",
    "flush",
    "parse",
    "format",
    "print",
    "line",
    "column",
    "text",
    "char",
    "byte",
    "slice",
    "vector",
    "array",
    "hash",
    "table",
    "query",
    "row",
    "cell",
    "field",
    "record",
    "schema",
    "index",
    "client",
    "server",
    "request",
    "response",
    "header",
    "body",
    "status",
    "method",
    "route",
    "handler",
    "context",
    "state",
    "event",
    "listener",
    "callback",
    "promise",
    "future",
    "task",
    "thread",
    "lock",
    "queue",
    "channel",
    "message",
    "stream",
    "token",
    "key",
    "secret",
    "password",
    "auth",
    "config",
    "default",
    "test",
    "assert",
    "expect",
    "mock",
    "fixture",
    "build",
    "render",
    "component",
    "view",
    "model",
    "update",
    "delete",
    "insert",
    "select",
    "where",
    "order",
    "group",
    "limit",
    "kernel",
    "driver",
    "device",
    "memory",
    "page",
    "frame",
    "stack",
    "heap",
    "pointer",
    "reference",
    "object",
    "class",
    "module",
    "package",
    "version",
    "release",
    "branch",
    "commit",
    "merge",
    "diff",
    "patch",
    "review",
    "issue",
    "label",
];

/// xorshift64*.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, end: u32) -> u32 {
        u32::try_from((self.next() >> 33) % u64::from(end)).unwrap_or(0)
    }

    fn word(&mut self) -> &'static str {
        WORDS[self.below(WORDS.len() as u32) as usize]
    }

    fn name(&mut self) -> String {
        match self.below(3) {
            0 => self.word().to_owned(),
            1 => format!("{}_{}", self.word(), self.word()),
            _ => format!("{}{}", self.word(), self.below(10)),
        }
    }

    fn digits(&mut self, set: &[u8], length: usize) -> String {
        (0..length).map(|_| char::from(set[self.below(set.len() as u32) as usize])).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_same_each_time_and_git_can_read_it() {
        let stream = |commits| {
            let mut stream = Vec::new();
            Repository::of(commits).fast_import(&mut stream).unwrap();
            stream
        };
        assert!(stream(3) == stream(3));
        assert!(
            stream(2)
                == stream(3)[..stream(2).len() - "done\n".len()].iter().copied().chain(*b"done\n").collect::<Vec<u8>>()
        );
    }
}
