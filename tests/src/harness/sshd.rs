//! A real sshd (openssh-server) of this machine with keys and a configuration of its own, as a git upstream over ssh. It
//! runs as whoever runs the tests, with the git that is found first, and takes one key.

use super::output::wait_until;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Debian's and Ubuntu's place of it; sshd wants to be run by its full path.
const PROGRAM: &str = "/usr/sbin/sshd";

/// A running sshd; it goes when this does.
pub struct Sshd {
    child: Child,
    address: SocketAddr,
    folder: PathBuf,
    user: String,
}

impl Sshd {
    /// Starts one at an address of this machine, on a port that was free. Its files go to `folder`, which must be one that
    /// nobody else can write to, since sshd is told not to look.
    #[track_caller]
    pub fn start(folder: &Path, address: IpAddr) -> Self {
        // Another may take the port before sshd does; then it does not start, and says so.
        let free = TcpListener::bind((address, 0)).and_then(|listener| listener.local_addr());
        Self::listen(folder, free.expect("a port is free"), Command::new(PROGRAM))
    }

    /// Starts one where a running container is: on its network, at its address, with this machine's files. It wants root,
    /// as the engine does, and ends with this and not with the container.
    #[track_caller]
    pub fn beside(folder: &Path, container: &str, address: SocketAddr) -> Self {
        let process = run("docker", &["inspect", "--format", "{{.State.Pid}}", container]);
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", process.trim())).arg(PROGRAM);
        Self::listen(folder, address, command)
    }

    #[track_caller]
    fn listen(folder: &Path, address: SocketAddr, mut command: Command) -> Self {
        assert!(
            Path::new(PROGRAM).exists(),
            "a real sshd is needed: install openssh-server (`apt-get install openssh-server`); its service need not run"
        );
        std::fs::create_dir_all(folder).expect("the folder of the sshd can be made");
        let user = run("id", &["-un"]).trim().to_owned();
        if user == "root" {
            std::fs::create_dir_all("/run/sshd").expect("a root's sshd has the folder that it wants");
        }
        for name in ["host", "id"] {
            let key = folder.join(name).display().to_string();
            run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-C", "bottle", "-f", &key]);
        }
        let here = folder.display();
        let path = std::env::var("PATH").unwrap_or_else(|_| "/usr/bin:/bin".to_owned());
        let config = format!(
            "Port {}\nListenAddress {}\nHostKey {here}/host\nPidFile none\nUsePAM no\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nStrictModes no\nPermitRootLogin yes\nAuthorizedKeysFile {here}/id.pub\n\
             AcceptEnv GIT_PROTOCOL\nMaxStartups 200\nMaxSessions 100\n\
             SetEnv PATH={path} HOME={here} GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL={here}/gitconfig\n",
            address.port(),
            address.ip(),
        );
        // Its repositories may belong to another user; a clean-up in the background would take time from what follows.
        let git = "[safe]\n\tdirectory = *\n[gc]\n\tauto = 0\n[receive]\n\tautogc = false\n";
        std::fs::write(folder.join("config"), config)
            .and_then(|()| std::fs::write(folder.join("gitconfig"), git))
            .expect("the configuration can be written");
        let log = File::create(folder.join("log")).expect("the log can be made");
        command.args(["-D", "-e", "-f"]).arg(folder.join("config"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().expect("sshd can be run");
        let mut sshd = Self { child, address, folder: folder.to_owned(), user };
        // Looked for in what it says: this process may not be on its network.
        wait_until("sshd listens", || {
            let ended = sshd.child.try_wait().expect("sshd can be waited for");
            assert!(ended.is_none(), "sshd ended: {}", sshd.log());
            sshd.log().contains("Server listening on").then_some(())
        });
        sshd
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// Its public host key, as a known_hosts file has it behind the name.
    #[track_caller]
    pub fn host_key(&self) -> String {
        let key = std::fs::read_to_string(self.folder.join("host.pub"));
        key.expect("the key was made").trim().to_owned()
    }

    /// The file of the private key that it lets in.
    pub fn client_key(&self) -> PathBuf {
        self.folder.join("id")
    }

    /// The address of a repository on this machine: `ssh://user@address:port/path`.
    pub fn url(&self, repository: &Path) -> String {
        self.url_by(&self.address.ip().to_string(), repository)
    }

    /// The same by another name of the host.
    pub fn url_by(&self, host: &str, repository: &Path) -> String {
        format!("ssh://{}@{host}:{}{}", self.user, self.address.port(), repository.display())
    }

    /// `GIT_SSH_COMMAND` for a git on this machine that goes there directly.
    #[track_caller]
    pub fn ssh_command(&self) -> String {
        let known = format!("[{}]:{} {}\n", self.address.ip(), self.address.port(), self.host_key());
        std::fs::write(self.folder.join("known_hosts"), known).expect("the file can be written");
        let here = self.folder.display();
        format!(
            "ssh -F none -i {here}/id -o IdentitiesOnly=yes -o UserKnownHostsFile={here}/known_hosts -o BatchMode=yes"
        )
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        // Gone already is as good. Its sessions end with their connections.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[track_caller]
fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output: super::Output = output.unwrap_or_else(|e| panic!("{program} cannot be run: {e}")).into();
    output.ok().stdout
}
