//! git's own protocol by hand (gitprotocol-pack(5), version 0), since there is no git where this agent runs.

use crate::http::dial;
use crate::known::Known;
use bottle_tests::world::git::{FLUSH, Object, pack, packet, split_packet, unpack};
use std::io::{Read, Write};
use std::net::TcpStream;

/// More is not read.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// What a clone came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// The commit of `main`.
    pub main: String,
    /// Objects that came.
    pub objects: usize,
}

/// What was said about a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// The ref was updated.
    Taken,
    /// It was not, for this reason.
    Refused(String),
    /// Nothing that says either.
    Nothing(String),
}

/// Fetches everything that `main` has.
pub fn clone(known: &Known) -> Result<Repository, String> {
    let (mut stream, refs) = begin(known, "git-upload-pack")?;
    let main = find(&refs, "refs/heads/main").ok_or("the remote has no main")?;
    let wants = [packet(format!("want {main} ofs-delta\n").as_bytes()), FLUSH.to_vec(), packet(b"done\n")].concat();
    stream.write_all(&wants).map_err(|error| error.to_string())?;
    let answer = rest(&mut stream)?;
    let (_, pack) = split_packet(&answer).ok_or("there is no answer")?;
    let objects = unpack(pack).ok_or("what came is no pack")?;
    let holds = objects.iter().any(|object| object.id() == main);
    if holds { Ok(Repository { main, objects: objects.len() }) } else { Err("main did not come".to_owned()) }
}

/// Pushes one commit with one file to a new ref, or onto an old one.
pub fn push(known: &Known, name: &str, parent: &str, text: &str) -> Said {
    match try_push(known, name, parent, text) {
        Ok(answer) => understand(&answer, name),
        Err(why) => Said::Nothing(why),
    }
}

fn try_push(known: &Known, name: &str, parent: &str, text: &str) -> Result<Vec<u8>, String> {
    let (mut stream, refs) = begin(known, "git-receive-pack")?;
    let blob = Object::blob(text);
    let tree = Object::tree("notes", &blob);
    let commit = Object::commit(&tree, Some(parent), "notes");
    let old = find(&refs, name).unwrap_or_else(|| "0".repeat(40));
    let update = format!("{old} {} {name}\0report-status side-band-64k", commit.id());
    let push = [packet(update.as_bytes()), FLUSH.to_vec(), pack(&[commit, tree, blob])].concat();
    stream.write_all(&push).map_err(|error| error.to_string())?;
    rest(&mut stream)
}

/// Asks for a service and reads the refs.
fn begin(known: &Known, service: &str) -> Result<(TcpStream, Vec<(String, String)>), String> {
    let mut stream = dial(&known.git).map_err(|failure| format!("no connection: {failure:?}"))?;
    let request = format!("{service} {}\0host={}\0", known.git_path, known.git.host);
    stream.write_all(&packet(request.as_bytes())).map_err(|error| error.to_string())?;
    let mut refs = Vec::new();
    loop {
        let mut digits = [0; 4];
        stream.read_exact(&mut digits).map_err(|error| error.to_string())?;
        let length = std::str::from_utf8(&digits).ok().and_then(|digits| usize::from_str_radix(digits, 16).ok());
        let length = match length.ok_or("the answer is not git's")? {
            0 => return Ok((stream, refs)),
            length => length.checked_sub(4).ok_or("the answer is not git's")?,
        };
        let mut line = vec![0; length];
        stream.read_exact(&mut line).map_err(|error| error.to_string())?;
        let line = String::from_utf8_lossy(&line).into_owned();
        if let Some(reason) = line.strip_prefix("ERR ") {
            return Err(reason.trim().to_owned());
        }
        let bare = line.split('\0').next().unwrap_or_default().trim_end();
        refs.extend(bare.split_once(' ').map(|(id, name)| (name.to_owned(), id.to_owned())));
    }
}

fn find(refs: &[(String, String)], name: &str) -> Option<String> {
    refs.iter().find(|(known, _)| known == name).map(|(_, id)| id.clone())
}

fn rest(stream: &mut TcpStream) -> Result<Vec<u8>, String> {
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer)
}

/// Reads the report within the side band (`\1`), as gitprotocol-pack(5) has it: `ok <ref>` or `ng <ref> <reason>`.
fn understand(mut answer: &[u8], name: &str) -> Said {
    let mut report = Vec::new();
    while let Some((data, rest)) = split_packet(answer) {
        answer = rest;
        match data.and_then(|data| data.split_first()) {
            Some((1, part)) => report.extend_from_slice(part),
            Some((b'E', _)) => {
                return Said::Refused(String::from_utf8_lossy(data.unwrap_or_default()).trim().to_owned());
            }
            Some(_) | None => {}
        }
    }
    let mut report = report.as_slice();
    while let Some((data, rest)) = split_packet(report) {
        report = rest;
        let line = String::from_utf8_lossy(data.unwrap_or_default()).trim_end().to_owned();
        if line == format!("ok {name}") {
            return Said::Taken;
        }
        if let Some(reason) = line.strip_prefix(&format!("ng {name} ")) {
            return Said::Refused(reason.to_owned());
        }
    }
    Said::Nothing("no report came".to_owned())
}

#[cfg(test)]
mod tests {
    use super::{Said, understand};
    use bottle_tests::world::git::{FLUSH, packet};

    #[test]
    fn a_report_is_what_it_says_of_the_ref() {
        let report = |line: &str| {
            let report = [packet(b"unpack ok\n"), packet(line.as_bytes()), FLUSH.to_vec()].concat();
            let talk = packet(b"\x02some words\n");
            [talk, packet(&[b"\x01", &report[..]].concat()), FLUSH.to_vec()].concat()
        };
        let no = "ng refs/heads/a secret found by git-gate\n";
        assert_eq!(understand(&report("ok refs/heads/a\n"), "refs/heads/a"), Said::Taken);
        assert_eq!(understand(&report(no), "refs/heads/a"), Said::Refused("secret found by git-gate".to_owned()));
        for other in [report("ok refs/heads/ab\n"), report(""), Vec::new(), b"garbage".to_vec()] {
            assert!(matches!(understand(&other, "refs/heads/a"), Said::Nothing(_)));
        }
        let error = packet(b"ERR git-gate: no\n");
        assert_eq!(understand(&error, "refs/heads/a"), Said::Refused("ERR git-gate: no".to_owned()));
    }
}
