//! The agent's files: certificates and the variables by which the common stacks find them, its user, its first
//! process, its prompt, and what it may know of its bottle. Pure: what the image has goes in, archives come out.

use super::AgentUser;
use super::agent::{ADDED_UID, OWN_DIR, WORKSPACE};
use super::roles::HomeFile;
use crate::manifest::skill::SkillFile;
use bottle_images::init;
use std::collections::{BTreeMap, BTreeSet};

/// Every certificate a client should trust: the image's own, the operator's, and the bottle's.
pub const BUNDLE: &str = "/.bottle/ca-bundle.pem";
/// The bottle's certificate alone, for clients that add to their own roots.
pub const CA: &str = "/.bottle/ca.pem";
/// The same certificates as [`BUNDLE`] for Java.
pub const TRUSTSTORE: &str = "/.bottle/cacerts.p12";
/// Java insists on a password for a store of public certificates.
pub const TRUSTSTORE_PASSWORD: &str = "changeit";

/// What the agent may know of its bottle as it is now. The folder and its files are root's.
pub const CURRENT: &str = supervise::config::FOLDER;

/// Where images keep their own roots, in the order in which they are looked for.
pub const BUNDLES_OF_IMAGES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
];

/// Variables of the agent's container: the way out, and the certificates to trust. None is a secret.
pub fn environment() -> BTreeMap<String, String> {
    let proxy = format!("http://{}:{}", super::sidecar::PIPELOCK, super::sidecar::PIPELOCK_PORT);
    let direct = format!("localhost,127.0.0.1,{},{},{}", cred_proxy::config::NAME, supervise::NAME, git_gate::NAME);
    let java = format!(
        "-Djavax.net.ssl.trustStore={TRUSTSTORE} -Djavax.net.ssl.trustStoreType=PKCS12 \
         -Djavax.net.ssl.trustStorePassword={TRUSTSTORE_PASSWORD} -Dhttp.proxyHost=pipelock -Dhttp.proxyPort=8888 \
         -Dhttps.proxyHost=pipelock -Dhttps.proxyPort=8888 \
         -Dhttp.nonProxyHosts=localhost|127.0.0.1|cred-proxy|supervise|git-gate"
    );
    let mut env = BTreeMap::new();
    // Programs disagree about the case: curl reads http_proxy in lower case alone, others the upper one.
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
        env.insert(name.to_owned(), proxy.clone());
        env.insert(name.to_lowercase(), proxy.clone());
    }
    env.insert("NO_PROXY".to_owned(), direct.clone());
    env.insert("no_proxy".to_owned(), direct);
    // Node's own fetch looks at the variables above only when told to.
    env.insert("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned());
    // OpenSSL, Go, Rust, uv, Python's ssl | curl | requests, httpx | pip | git | cargo | npm, Node | Deno | AWS.
    for name in [
        "SSL_CERT_FILE",
        "CURL_CA_BUNDLE",
        "REQUESTS_CA_BUNDLE",
        "PIP_CERT",
        "GIT_SSL_CAINFO",
        "CARGO_HTTP_CAINFO",
        "npm_config_cafile",
        "DENO_CERT",
        "AWS_CA_BUNDLE",
    ] {
        env.insert(name.to_owned(), BUNDLE.to_owned());
    }
    env.insert("NODE_EXTRA_CA_CERTS".to_owned(), CA.to_owned());
    env.insert("JAVA_TOOL_OPTIONS".to_owned(), java);
    env.insert("BOTTLE".to_owned(), "1".to_owned());
    env
}

/// What the created container holds before anything is written into it.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ImageFiles {
    /// `/etc/passwd`, where there is one.
    pub passwd: Option<String>,
    /// `/etc/group`, where there is one.
    pub group: Option<String>,
    /// The image's own roots in PEM.
    pub roots: Option<String>,
}

/// What the launcher brings.
#[derive(Debug, Clone)]
pub struct Brought {
    /// The static first process.
    pub init: bytes::Bytes,
    /// The bottle's certificate in PEM.
    pub ca: String,
    /// Public roots in PEM, for images that have none.
    pub public_roots: String,
    /// The operator's further roots in PEM.
    pub upstream_roots: Option<String>,
    /// The system prompt.
    pub prompt: String,
    /// What the agent may know of its bottle, as JSON.
    pub about: String,
    /// How its bottle is, by the names of files in [`CURRENT`].
    pub current: BTreeMap<&'static str, String>,
    /// Files below its home.
    pub home: Vec<HomeFile>,
    /// Files of skills, their paths relative to the home.
    pub skills: Vec<SkillFile>,
}

/// The agent's user in numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Home directory.
    pub home: String,
}

/// Why the agent's files cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ProvisionError {
    /// The manifest or image names a user that the image's passwd does not have.
    #[error("the image has no user {0:?} in its /etc/passwd")]
    NoUser(String),
    /// The first process's user was named.
    #[error("the agent's user may not be {}: it is the user of the bottle's own first process", init::UID)]
    Reserved,
    /// The truststore could not be made.
    #[error("the certificates cannot be put into a truststore for Java: {0}")]
    Truststore(String),
    /// The archive could not be written.
    #[error("the agent's files cannot be put into an archive")]
    Archive(#[from] std::io::Error),
}

/// Finds the agent's user in the image's own files, as the engine would.
pub fn identity(user: &AgentUser, image: &ImageFiles) -> Result<Identity, ProvisionError> {
    let (user, group) = match user {
        AgentUser::Added | AgentUser::Unknown => {
            return Ok(Identity { uid: ADDED_UID, gid: ADDED_UID, home: added_home(image) });
        }
        AgentUser::OfImage(text) => text.split_once(':').map_or((text.as_str(), None), |(u, g)| (u, Some(g))),
    };
    let passwd = image.passwd.as_deref().unwrap_or_default();
    let entry = passwd
        .lines()
        .map(|l| l.split(':').collect::<Vec<_>>())
        .find(|f| f.len() >= 6 && (f.first() == Some(&user) || f.get(2) == Some(&user)));
    let (uid, gid, home) = match (entry, user.parse::<u32>()) {
        (Some(f), _) => {
            let number = |i: usize| f.get(i).and_then(|n| n.parse::<u32>().ok());
            let uid = number(2).ok_or_else(|| ProvisionError::NoUser(user.to_owned()))?;
            (uid, number(3).unwrap_or(0), f.get(5).copied().unwrap_or("/").to_owned())
        }
        (None, Ok(uid)) => (uid, 0, "/".to_owned()),
        (None, Err(_)) => return Err(ProvisionError::NoUser(user.to_owned())),
    };
    let gid = match group {
        None => gid,
        Some(group) => group_id(group, image).ok_or_else(|| ProvisionError::NoUser(format!("{user}:{group}")))?,
    };
    if uid == init::UID {
        return Err(ProvisionError::Reserved);
    }
    Ok(Identity { uid, gid, home })
}

fn group_id(group: &str, image: &ImageFiles) -> Option<u32> {
    let entry = image.group.as_deref().unwrap_or_default().lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = fields.nth(1)?;
        (name == group || gid == group).then(|| gid.parse().ok())?
    });
    entry.or_else(|| group.parse().ok())
}

/// An image may have a user 1000 already; then that one is used, with its home.
fn added_home(image: &ImageFiles) -> String {
    existing_1000(image).unwrap_or_else(|| "/home/agent".to_owned())
}

fn existing_1000(image: &ImageFiles) -> Option<String> {
    image.passwd.as_deref().unwrap_or_default().lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        (fields.len() >= 6 && fields.get(2) == Some(&"1000")).then(|| fields.get(5).map(|h| (*h).to_owned()))?
    })
}

/// The archive to unpack at `/` of the created container.
pub fn archive(
    user: &AgentUser,
    identity: &Identity,
    image: &ImageFiles,
    brought: &Brought,
    workspace: bool,
) -> Result<Vec<u8>, ProvisionError> {
    let mut tar = Archive::default();
    let root = (0, 0);
    let own = (identity.uid, identity.gid);
    own_files(&mut tar, image, brought)?;
    tar.file("/.bottle/bottle.json", 0o444, root, brought.about.as_bytes())?;
    put_current(&mut tar, &brought.current)?;
    if !brought.prompt.trim().is_empty() {
        tar.file("/.bottle/prompt.md", 0o444, root, brought.prompt.as_bytes())?;
    }
    if *user == AgentUser::Added && existing_1000(image).is_none() {
        let passwd = image.passwd.as_deref().unwrap_or("root:x:0:0:root:/root:/bin/sh\n");
        let group = image.group.as_deref().unwrap_or("root:x:0:\n");
        let shell = passwd.lines().find_map(|l| l.strip_prefix("root:")?.rsplit(':').next()).unwrap_or("/bin/sh");
        let (passwd, group) = (ended(passwd), ended(group));
        tar.file(
            "/etc/passwd",
            0o644,
            root,
            format!("{passwd}agent:x:1000:1000:agent:/home/agent:{shell}\n").as_bytes(),
        )?;
        tar.file("/etc/group", 0o644, root, format!("{group}agent:x:1000:\n").as_bytes())?;
        tar.directory("/home/agent", 0o755, own)?;
    }
    let configured = brought.home.iter().map(|HomeFile { path, text }| (path, 0o644, text.as_bytes()));
    let skilled = brought
        .skills
        .iter()
        .map(|file| (&file.path, if file.executable { 0o755 } else { 0o644 }, file.content.as_slice()));
    let home = identity.home.trim_end_matches('/');
    let mut made = BTreeSet::new();
    for (path, mode, content) in configured.chain(skilled) {
        for (at, _) in path.match_indices('/') {
            // A folder that the image has already stays as it is but for its owner, who it belongs to anyway.
            if made.insert(&path[..at]) {
                tar.directory(&format!("{home}/{}", &path[..at]), 0o755, own)?;
            }
        }
        tar.file(&format!("{home}/{path}"), mode, own, content)?;
    }
    if workspace {
        tar.directory(WORKSPACE, 0o755, own)?;
    }
    tar.finish()
}

/// The archive to unpack at `/` of the container that a Dockerfile is carried out in: what its first process and its package
/// managers need. [`cleared`] takes it out again.
pub fn build_archive(image: &ImageFiles, brought: &Brought) -> Result<Vec<u8>, ProvisionError> {
    let mut tar = Archive::default();
    own_files(&mut tar, image, brought)?;
    tar.finish()
}

/// The archive that leaves nothing in [`build_archive`]'s files, to be put over them when nothing runs any more. An archive cannot
/// remove a file, so they stay, empty; a launch writes them anew.
pub fn cleared() -> Result<Vec<u8>, ProvisionError> {
    let mut tar = Archive::default();
    tar.directory(OWN_DIR, 0o755, (0, 0))?;
    for path in [init::PATH, CA, TRUSTSTORE, BUNDLE] {
        tar.file(path, 0o444, (0, 0), b"")?;
    }
    tar.finish()
}

/// The first process, and the certificates.
fn own_files(tar: &mut Archive, image: &ImageFiles, brought: &Brought) -> Result<(), ProvisionError> {
    let root = (0, 0);
    tar.directory(OWN_DIR, 0o755, root)?;
    // Nobody needs to read the program, and a program that its caller cannot read is never dumpable.
    tar.file(init::PATH, 0o711, root, &brought.init)?;
    tar.file(CA, 0o444, root, brought.ca.as_bytes())?;
    let bundle = bundle(image, brought);
    tar.file(TRUSTSTORE, 0o444, root, &crate::ca::truststore(&bundle).map_err(ProvisionError::Truststore)?)?;
    Ok(tar.file(BUNDLE, 0o444, root, bundle.as_bytes())?)
}

/// The archive to unpack at `/` of a running container, whose agent may not write what is in it.
pub fn current_archive(files: &BTreeMap<&'static str, String>) -> Result<Vec<u8>, ProvisionError> {
    let mut tar = Archive::default();
    put_current(&mut tar, files)?;
    tar.finish()
}

fn put_current(tar: &mut Archive, files: &BTreeMap<&'static str, String>) -> std::io::Result<()> {
    let root = (0, 0);
    tar.directory(CURRENT, 0o755, root)?;
    files.iter().try_for_each(|(name, text)| tar.file(&format!("{CURRENT}/{name}"), 0o444, root, text.as_bytes()))
}

fn bundle(image: &ImageFiles, brought: &Brought) -> String {
    let roots = image.roots.as_deref().unwrap_or(&brought.public_roots);
    let further = brought.upstream_roots.as_deref().unwrap_or_default();
    format!("{}{}{}", ended(roots), ended(further), ended(&brought.ca))
}

fn ended(text: &str) -> String {
    if text.is_empty() || text.ends_with('\n') { text.to_owned() } else { format!("{text}\n") }
}

/// A tar archive in memory whose members have no time.
#[derive(Default)]
struct Archive(Option<tar::Builder<Vec<u8>>>);

impl Archive {
    fn builder(&mut self) -> &mut tar::Builder<Vec<u8>> {
        self.0.get_or_insert_with(|| tar::Builder::new(Vec::new()))
    }

    fn header(mode: u32, (uid, gid): (u32, u32)) -> tar::Header {
        let mut header = tar::Header::new_ustar();
        header.set_mode(mode);
        header.set_uid(u64::from(uid));
        header.set_gid(u64::from(gid));
        header.set_mtime(0);
        header
    }

    fn directory(&mut self, path: &str, mode: u32, owner: (u32, u32)) -> std::io::Result<()> {
        let mut header = Self::header(mode, owner);
        header.set_entry_type(tar::EntryType::Directory);
        header.set_size(0);
        self.builder().append_data(&mut header, format!("{}/", path.trim_matches('/')), std::io::empty())
    }

    fn file(&mut self, path: &str, mode: u32, owner: (u32, u32), bytes: &[u8]) -> std::io::Result<()> {
        let mut header = Self::header(mode, owner);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(bytes.len() as u64);
        self.builder().append_data(&mut header, path.trim_start_matches('/'), bytes)
    }

    fn finish(mut self) -> Result<Vec<u8>, ProvisionError> {
        self.builder();
        let builder = self.0.take().unwrap_or_else(|| tar::Builder::new(Vec::new()));
        Ok(builder.into_inner()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(passwd: &str, group: &str) -> ImageFiles {
        ImageFiles { passwd: Some(passwd.to_owned()), group: Some(group.to_owned()), roots: None }
    }

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nnode:x:1001:1002:Node:/home/node:/bin/sh\n";
    const GROUP: &str = "root:x:0:\nnode:x:1002:\nstaff:x:50:\n";

    #[test]
    fn users_are_found_as_the_engine_finds_them() {
        let of = |text: &str| identity(&AgentUser::OfImage(text.to_owned()), &image(PASSWD, GROUP));
        for (text, uid, gid, home) in [
            ("node", 1001, 1002, "/home/node"),
            ("1001", 1001, 1002, "/home/node"),
            ("node:staff", 1001, 50, "/home/node"),
            ("node:7", 1001, 7, "/home/node"),
            ("4242", 4242, 0, "/"),
            ("root", 0, 0, "/root"),
        ] {
            let expected = Identity { uid, gid, home: home.to_owned() };
            assert_eq!(of(text).unwrap(), expected, "{text}");
        }
        for text in ["nobody-here", "node:nogroup", "64999"] {
            assert!(of(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_user_is_added_only_where_none_has_its_number() {
        let brought = Brought {
            init: bytes::Bytes::from_static(b"init"),
            ca: crate::ca::Authority::mint("test").unwrap().certificate_pem().to_owned(),
            public_roots: String::new(),
            upstream_roots: None,
            prompt: String::new(),
            about: "{}".to_owned(),
            current: BTreeMap::from([("allowlist.txt", "a.example\n".to_owned())]),
            home: vec![HomeFile { path: ".config/git/config".to_owned(), text: "[user]\n".to_owned() }],
            skills: vec![SkillFile {
                path: ".tool/skills/review/run.sh".to_owned(),
                executable: true,
                content: vec![0xff, 0],
            }],
        };
        for (passwd, added) in [(PASSWD, true), ("dev:x:1000:1000::/home/dev:/bin/sh\n", false)] {
            let image = image(passwd, GROUP);
            let who = identity(&AgentUser::Added, &image).unwrap();
            let bytes = archive(&AgentUser::Added, &who, &image, &brought, true).unwrap();
            let mut names = Vec::new();
            for entry in tar::Archive::new(bytes.as_slice()).entries().unwrap() {
                let entry = entry.unwrap();
                let name = entry.path().unwrap().to_string_lossy().into_owned();
                if name.contains("/.config/") || name.contains("/.tool/") {
                    assert_eq!(entry.header().uid().unwrap(), 1000, "{name}");
                }
                if name.ends_with("/run.sh") {
                    assert_eq!((entry.header().mode().unwrap(), entry.size()), (0o755, 2));
                }
                names.push(name);
            }
            let home = who.home.trim_start_matches('/');
            let below = [
                ".config/",
                ".config/git/",
                ".config/git/config",
                ".tool/skills/review/",
                ".tool/skills/review/run.sh",
            ]
            .map(|path| format!("{home}/{path}"));
            let at: Vec<_> = below.iter().map(|path| names.iter().position(|name| name == path)).collect();
            assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{names:?}");
            assert_eq!(names.iter().any(|n| n == "etc/passwd"), added, "{names:?}");
            assert!(names.iter().any(|n| n == "workspace/"), "{names:?}");
            assert!(names.iter().any(|n| n == ".bottle/current-config/allowlist.txt"), "{names:?}");
        }
    }
}
