//! A real sshd (Debian's openssh-server) on loopback, with a configuration and keys of its own, as the user of the tests.

use super::{free_port, sh_ok};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub struct Sshd {
    child: Child,
    pub port: u16,
    pub folder: PathBuf,
    pub user: String,
}

const PROGRAM: &str = "/usr/sbin/sshd";

impl Sshd {
    /// Starts one; `host_key` is the type of its host key, `git` the folder of the git that it runs.
    pub fn start(folder: &Path, git: &Path, host_key: &str) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "these tests need a real sshd: install the package openssh-server (Debian, Ubuntu); the service need not run"
        );
        let folder = folder.join("sshd");
        std::fs::create_dir_all(&folder).unwrap();
        let env = BTreeMap::from([("PATH".to_owned(), "/usr/bin:/bin:/usr/sbin".to_owned())]);
        let user = sh_ok("id -un", &folder, &env).trim().to_owned();
        if user == "root" {
            // Only a root's sshd wants it.
            std::fs::create_dir_all("/run/sshd").unwrap();
        }
        sh_ok(&format!("ssh-keygen -q -t {host_key} -N '' -f host"), &folder, &env);
        sh_ok("ssh-keygen -q -t ed25519 -N '' -f id && cp id.pub authorized", &folder, &env);
        let port = free_port();
        let here = folder.display();
        let git = git.display();
        let text = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {here}/host\nPidFile none\nUsePAM no\n\
             PasswordAuthentication no\nKbdInteractiveAuthentication no\nStrictModes no\nPermitRootLogin yes\n\
             AuthorizedKeysFile {here}/authorized\nAcceptEnv GIT_PROTOCOL\nMaxStartups 200\nMaxSessions 100\n\
             SetEnv PATH={git}:/usr/bin:/bin HOME={here} GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL={here}/gitconfig\n"
        );
        std::fs::write(folder.join("config"), text).unwrap();
        std::fs::write(folder.join("gitconfig"), "[safe]\n\tdirectory = *\n").unwrap();
        let log = std::fs::File::create(folder.join("log")).unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-D", "-e", "-f"]).arg(folder.join("config"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let mut sshd = Self { child, port, folder, user };
        sshd.wait();
        sshd
    }

    fn wait(&mut self) {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < until, "sshd did not start: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap()
    }

    /// Its public host key, as a known_hosts file has it.
    pub fn host_key(&self) -> String {
        std::fs::read_to_string(self.folder.join("host.pub")).unwrap()
    }

    /// The private key that it lets in.
    pub fn client_key(&self) -> String {
        std::fs::read_to_string(self.folder.join("id")).unwrap()
    }

    /// Lets another public key in too.
    pub fn admit(&self, public: &str) {
        let path = self.folder.join("authorized");
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(path, format!("{text}{public}\n")).unwrap();
    }

    pub fn url(&self, repository: &Path) -> String {
        format!("ssh://{}@127.0.0.1:{}{}", self.user, self.port, repository.display())
    }

    /// What git's own client needs to get in.
    pub fn client_env(&self) -> (String, String) {
        let here = self.folder.display();
        let port = self.port;
        let known = format!("[127.0.0.1]:{port} {}", self.host_key());
        std::fs::write(self.folder.join("known"), known).unwrap();
        let command = format!(
            "ssh -F none -i {here}/id -o IdentitiesOnly=yes -o UserKnownHostsFile={here}/known -o BatchMode=yes"
        );
        ("GIT_SSH_COMMAND".to_owned(), command)
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
