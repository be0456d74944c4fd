//! A small npm registry: `world-tree`, which needs `@world/leaf`, both made when it starts. Their documents name tarballs
//! at the registry's own host and their `integrity`, as the public registry's do; it wants a credential.

use crate::reply::{self, Reply, ReplyBody};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hyper::StatusCode;
use serde_json::{Value, json};
use sha2::{Digest, Sha512};
use std::collections::BTreeMap;
use std::io::Write as _;

/// The one version of each package.
const VERSION: &str = "1.0.0";

/// Documents and tarballs by path.
#[derive(Debug)]
pub struct Registry(BTreeMap<String, (&'static str, Bytes)>);

impl Registry {
    /// Packs the packages for a registry at `https://<host>/`.
    pub fn new(host: &str) -> Self {
        let mut files = BTreeMap::new();
        let leaf = "module.exports = 'a leaf of the small world'\n";
        let tree = "module.exports = 'a tree with ' + require('@world/leaf')\n";
        publish(&mut files, host, "@world/leaf", json!({}), leaf);
        publish(&mut files, host, "world-tree", json!({"@world/leaf": "^1.0.0"}), tree);
        Self(files)
    }

    /// The answer to a GET of `path`.
    pub fn answer(&self, path: &str) -> Reply {
        // npm writes the slash of a scope as %2f, in either case.
        let path = path.replace("%2f", "/").replace("%2F", "/");
        match self.0.get(&path) {
            Some((kind, bytes)) => reply::with_type(StatusCode::OK, kind, ReplyBody::Whole(Some(bytes.clone()))),
            None => reply::json(StatusCode::NOT_FOUND, &json!({"error": "not_found"})),
        }
    }
}

fn publish(
    files: &mut BTreeMap<String, (&'static str, Bytes)>,
    host: &str,
    name: &str,
    dependencies: Value,
    program: &str,
) {
    let manifest = json!({"name": name, "version": VERSION, "main": "index.js", "dependencies": dependencies});
    let tarball = pack(&manifest.to_string(), program);
    let bare = name.rsplit('/').next().unwrap_or(name);
    let path = format!("/{name}/-/{bare}-{VERSION}.tgz");
    let integrity = format!("sha512-{}", STANDARD.encode(Sha512::digest(&tarball)));
    let mut version = manifest;
    version["dist"] = json!({"tarball": format!("https://{host}{path}"), "integrity": integrity});
    let document = json!({"name": name, "dist-tags": {"latest": VERSION}, "versions": {VERSION: version}});
    files.insert(format!("/{name}"), ("application/json", Bytes::from(document.to_string())));
    files.insert(path, ("application/octet-stream", tarball));
}

/// A package's tarball, everything below `package/`.
fn pack(manifest: &str, program: &str) -> Bytes {
    let into_memory = "writing into memory does not fail";
    let gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    let mut tar = tar::Builder::new(gzip);
    for (name, text) in [("package/package.json", manifest), ("package/index.js", program)] {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(text.len() as u64);
        tar.append_data(&mut header, name, text.as_bytes()).expect(into_memory);
    }
    let mut gzip = tar.into_inner().expect(into_memory);
    gzip.flush().expect(into_memory);
    Bytes::from(gzip.finish().expect(into_memory))
}
