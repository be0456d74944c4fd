//! The two sides as processes: cred-proxy alone, as an operator deploys it, and nginx as PRODUCT's table has it. Both put
//! one header in and write a line a request to a file. They go when these go.

use super::load::Target;
use crate::interrupt::apart;
use rustix::process::{Pid, Signal, kill_process_group};
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What is put in: of the length and the alphabet of a provider's key, and opens nothing.
pub const KEY: &str = "bench-key-0aZ9-4fJk2LmQ8sVx1WyB7cDe5RtG6hNpU3iOa";
/// How long a side may take to listen.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);

/// A process in a group of its own, of which nothing is left when this goes.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> std::io::Result<Self> {
        apart(command).spawn().map(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // All of the group: nginx's workers outlive a master that is killed. They may have ended already.
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// cred-proxy.
pub struct CredProxy {
    running: Running,
    /// With the credential, and so with masking.
    pub masked: Target,
    /// The same upstream without a credential, so that there is nothing to mask.
    pub bare: Target,
    /// From the start of the process until it takes connections.
    pub ready: Duration,
}

impl CredProxy {
    /// Starts it.
    pub fn start(program: &Path, upstream: SocketAddr, folder: &Path) -> Result<Self, String> {
        let address = free_address()?;
        let route = |path: &str, rest: &str| {
            format!(r#"{{"path":"{path}","upstream":"http://{upstream}","allow":["GET /**"],{rest}}}"#)
        };
        let routes = [route("/masked/", r#""auth":"bearer","secret":"key""#), route("/bare/", r#""auth":"none""#)];
        let config = folder.join("cred-proxy.json");
        let text =
            format!(r#"{{"listen":"{address}","routes":[{}],"secrets":{{"key":{{"file":"key"}}}}}}"#, routes.join(","));
        let written = std::fs::write(&config, text).and_then(|()| std::fs::write(folder.join("key"), KEY));
        written.map_err(|e| format!("no configuration for cred-proxy: {e}"))?;
        let log = File::create(folder.join("cred-proxy.log")).map_err(|e| format!("no log: {e}"))?;
        let mut command = Command::new(program);
        command.arg("--config").arg(&config);
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::inherit());
        let began = Instant::now();
        let running = Running::start(&mut command).map_err(|e| format!("{} cannot be run: {e}", program.display()))?;
        listens(address, "cred-proxy")?;
        let ready = began.elapsed();
        let target = |prefix| Target { address, prefix };
        Ok(Self { running, masked: target("/masked"), bare: target("/bare"), ready })
    }

    /// Resident memory of the process, in megabytes of 10^6 bytes.
    pub fn rss_mb(&self) -> Result<f64, String> {
        let path = format!("/proc/{}/status", self.running.0.id());
        let status = std::fs::read_to_string(&path).map_err(|e| format!("{path}: {e}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
        let kilobytes: f64 = line.trim().trim_end_matches(" kB").parse().map_err(|_| format!("no number: {line}"))?;
        Ok(kilobytes * 1024.0 / 1e6)
    }
}

/// nginx.
pub struct Nginx {
    _running: Running,
    /// As it proxies by default.
    pub buffered: Target,
    /// With `proxy_buffering off`.
    pub streaming: Target,
}

impl Nginx {
    /// Starts it; an error says what to install.
    pub fn start(upstream: SocketAddr, folder: &Path) -> Result<Self, String> {
        let address = free_address()?;
        let config = folder.join("nginx.conf");
        std::fs::write(&config, configuration(address, upstream, folder)).map_err(|e| format!("no nginx.conf: {e}"))?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&config).arg("-p").arg(folder).stdin(Stdio::null()).stdout(Stdio::null());
        let running = Running::start(&mut command).map_err(|e| {
            format!("the peer is nginx, and it cannot be run ({e}): install nginx (`apt-get install nginx-light`)")
        })?;
        listens(address, "nginx")?;
        let target = |prefix| Target { address, prefix };
        Ok(Self { _running: running, buffered: target("/masked"), streaming: target("/streaming") })
    }
}

/// Two workers, kept connections to the upstream, one header set, the access log in a file; what would make nginx slower
/// here and has nothing to do with the comparison (reconnecting after 1000 requests) is off.
fn configuration(listen: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    let location = |path: &str, more: &str| {
        format!(
            "location {path}/ {{ proxy_pass http://upstream/; proxy_http_version 1.1; proxy_set_header Connection \"\"; \
             proxy_set_header Authorization \"Bearer {KEY}\"; {more} }}"
        )
    };
    let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
    format!(
        "{user}\nworker_processes 2;\ndaemon off;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx-error.log;\n\
         worker_rlimit_nofile 8192;\nevents {{ worker_connections 4096; }}\nhttp {{\n\
         access_log {folder}/nginx-access.log;\nkeepalive_requests 1000000000;\n\
         client_body_temp_path {folder}/t1;\nproxy_temp_path {folder}/t2;\nfastcgi_temp_path {folder}/t3;\n\
         uwsgi_temp_path {folder}/t4;\nscgi_temp_path {folder}/t5;\n\
         upstream upstream {{ server {upstream}; keepalive 256; keepalive_requests 1000000000; }}\n\
         server {{\nlisten {listen} backlog=4096;\n{}\n{}\n}}\n}}\n",
        location("/masked", ""),
        location("/streaming", "proxy_buffering off;"),
    )
}

/// An address that nobody listens on now.
fn free_address() -> Result<SocketAddr, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|l| l.local_addr());
    listener.map_err(|e| format!("no free port: {e}"))
}

fn listens(address: SocketAddr, what: &str) -> Result<(), String> {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > LISTENS_WITHIN {
            return Err(format!("{what} does not listen on {address}"));
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader, Read as _};

    #[test]
    fn a_process_goes_with_those_that_it_has_started() {
        let mut command = Command::new("sh");
        command.args(["-c", "(sleep 5; echo left) & echo started; wait"]).stdout(Stdio::piped());
        let mut running = Running::start(&mut command).unwrap();
        let mut output = BufReader::new(running.0.stdout.take().unwrap());
        let (mut line, mut rest) = (String::new(), String::new());
        output.read_line(&mut line).unwrap();
        drop(running);
        // The end of the output is the end of all who could write to it.
        output.read_to_string(&mut rest).unwrap();
        assert_eq!((line.as_str(), rest.as_str()), ("started\n", ""));
    }
}
