//! A small git forge over smart HTTP (gitprotocol-http(5)), protocol version 0: one repository in memory with one commit on
//! `main`, which whoever shows the credential may fetch and push to. It takes everything, so that what gets through shows:
//! every ref that is pushed is told, with the contents of the files that came with it.

use crate::reply::{self, Reply, ReplyBody};
use crate::witness::Witness;
use bottle_tests::world::git::{FLUSH, Kind, Object, pack, packet, split_packet, unpack};
use bottle_tests::world::{Evidence, REPOSITORY, evidence};
use bytes::Bytes;
use hyper::{Request, StatusCode};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};

/// The branch that there is at first.
const MAIN: &str = "refs/heads/main";
/// What a ref without a commit is said to be at.
const NOTHING: &str = "0000000000000000000000000000000000000000";

/// The forge.
#[derive(Debug)]
pub struct Forge(Mutex<Repository>);

#[derive(Debug)]
struct Repository {
    refs: BTreeMap<String, String>,
    objects: Vec<Object>,
}

impl Forge {
    /// With its one commit.
    pub fn new() -> Self {
        let blob = Object::blob("the small world's own file\n");
        let tree = Object::tree("README", &blob);
        let commit = Object::commit(&tree, None, "the first commit of the small world");
        let refs = BTreeMap::from([(MAIN.to_owned(), commit.id())]);
        Self(Mutex::new(Repository { refs, objects: vec![commit, tree, blob] }))
    }

    /// Answers whoever has shown the credential.
    pub fn answer(&self, request: &Request<&[u8]>, peer: SocketAddr, witness: Witness) -> Reply {
        let mut repository = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let service = |name: &str| format!("/{REPOSITORY}.git/{name}");
        let path = request.uri().path();
        if path == service("info/refs") {
            return match request.uri().query() {
                Some("service=git-upload-pack") => {
                    repository.advertise("upload-pack", "ofs-delta symref=HEAD:refs/heads/main agent=world")
                }
                Some("service=git-receive-pack") => repository
                    .advertise("receive-pack", "report-status delete-refs side-band-64k ofs-delta agent=world"),
                _ => reply::text(StatusCode::FORBIDDEN, "no such service\n"),
            };
        }
        if path == service("git-upload-pack") {
            let all = [packet(b"NAK\n"), pack(&repository.objects)].concat();
            return binary("application/x-git-upload-pack-result", all);
        }
        if path == service("git-receive-pack") {
            let tell = |name: &str, new: &[Object]| {
                let files = new.iter().filter(|object| object.kind == Kind::Blob);
                let contents = files.map(|file| evidence::prefix(&file.content)).collect();
                witness.saw(&Evidence::Pushed { peer, name: name.to_owned(), contents });
            };
            return match repository.receive(request.body(), tell) {
                Some(report) => binary("application/x-git-receive-pack-result", report),
                None => reply::text(StatusCode::BAD_REQUEST, "not a push\n"),
            };
        }
        reply::text(StatusCode::NOT_FOUND, "no such repository\n")
    }
}

impl Repository {
    fn advertise(&self, service: &str, capabilities: &str) -> Reply {
        let mut out = [packet(format!("# service=git-{service}\n").as_bytes()), FLUSH.to_vec()].concat();
        // A clone checks out what HEAD is; a push has no use for it.
        let head = self.refs.get(MAIN).filter(|_| service == "upload-pack").map(|id| ("HEAD", id));
        let refs = self.refs.iter().map(|(name, id)| (name.as_str(), id));
        for (place, (name, id)) in head.into_iter().chain(refs).enumerate() {
            let behind = if place == 0 { format!("\0{capabilities}") } else { String::new() };
            out.extend(packet(format!("{id} {name}{behind}\n").as_bytes()));
        }
        out.extend_from_slice(FLUSH);
        binary(&format!("application/x-git-{service}-advertisement"), out)
    }

    /// Takes what is pushed; the report, or `None` when it cannot be read.
    fn receive(&mut self, mut body: &[u8], tell: impl Fn(&str, &[Object])) -> Option<Vec<u8>> {
        let (mut updates, mut side_band) = (Vec::new(), false);
        loop {
            let (line, rest) = split_packet(body)?;
            body = rest;
            let Some(line) = line else { break };
            let line = std::str::from_utf8(line).ok()?.trim_end_matches('\n');
            let (update, capabilities) = line.split_once('\0').unwrap_or((line, ""));
            side_band |= capabilities.split(' ').any(|word| word == "side-band-64k");
            let mut words = update.splitn(3, ' ');
            let (_, new, name) = (words.next()?, words.next()?, words.next()?);
            updates.push((name.to_owned(), new.to_owned()));
        }
        let new = if body.is_empty() { Vec::new() } else { unpack(body)? };
        let mut report = packet(b"unpack ok\n");
        for (name, id) in updates {
            tell(&name, &new);
            report.extend(packet(format!("ok {name}\n").as_bytes()));
            if id == NOTHING {
                self.refs.remove(&name)
            } else {
                self.refs.insert(name, id)
            };
        }
        self.objects.extend(new);
        report.extend_from_slice(FLUSH);
        if side_band {
            report = [packet(&[b"\x01", &report[..]].concat()), FLUSH.to_vec()].concat();
        }
        Some(report)
    }
}

fn binary(kind: &str, bytes: Vec<u8>) -> Reply {
    let mut answer = reply::with_type(StatusCode::OK, "", ReplyBody::Whole(Some(Bytes::from(bytes))));
    reply::header(&mut answer, "content-type", kind);
    answer
}
