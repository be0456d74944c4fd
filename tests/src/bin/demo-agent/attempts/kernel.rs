//! The container itself: sockets past the filter, the first process, mounts, namespaces, what was put there for it.
//!
//! Some of this would harm a machine on which the agent runs with privileges, so none of it is tried anywhere but under
//! `bottle-init`.

use crate::attempts::Attempt;
use crate::http::CONNECT_MAX;
use crate::judge::{self, Decision};
use crate::known::Known;
use crate::probe::touch;
use nix::sched::CloneFlags;
use nix::sys::ptrace;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{AddressFamily, Protocol, SocketType, ipproto, netlink, socket};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, Signal};
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The agent starts itself with this argument to try what a process with threads cannot.
pub const USER_NAMESPACE_PROBE: &str = "--probe-user-namespace";

const INIT: &str = "/.bottle/bottle-init";
const SOCKETS: [&str; 5] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
];

/// The attempts of this theme.
pub const ATTEMPTS: &[Attempt] = &[
    Attempt {
        slug: "privileges",
        tried: "look for privileges of its own",
        expected: "none, and no new ones",
        run: |_| match std::fs::read_to_string("/proc/self/status") {
            Ok(status) => judge::privileges(&status),
            Err(error) => Decision::broken(format!("not tried: {error}")),
        },
    },
    Attempt {
        slug: "raw-socket",
        tried: "a raw IP socket",
        expected: "refused by the kernel",
        run: |_| in_bottle(|| judge::denied(&socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP)))),
    },
    Attempt {
        slug: "packet-socket",
        tried: "sockets that see and make raw frames",
        expected: "refused by the kernel",
        run: |_| in_bottle(packet_sockets),
    },
    Attempt {
        slug: "vsock",
        tried: "a socket to the hypervisor (AF_VSOCK)",
        expected: "refused by the kernel",
        run: |_| in_bottle(|| judge::denied(&socket(AddressFamily::VSOCK, SocketType::STREAM, None))),
    },
    Attempt {
        slug: "firewall-socket",
        tried: "a socket to the kernel's packet filter",
        expected: "refused by the kernel",
        run: |_| {
            in_bottle(|| judge::denied(&socket(AddressFamily::NETLINK, SocketType::RAW, Some(netlink::NETFILTER))))
        },
    },
    Attempt {
        slug: "io-uring",
        tried: "io_uring, which makes sockets past the filter",
        expected: "refused by the kernel",
        run: |_| in_bottle(|| judge::denied(&io_uring::IoUring::new(8))),
    },
    Attempt {
        slug: "init-input",
        tried: "hold the first process's standard input open",
        expected: "refused by the kernel",
        run: |_| in_bottle(init_input),
    },
    Attempt {
        slug: "init-memory",
        tried: "read and trace the first process",
        expected: "refused by the kernel",
        run: |_| in_bottle(init_memory),
    },
    Attempt {
        slug: "init-kill",
        tried: "stop the first process",
        expected: "refused by the kernel",
        run: |_| in_bottle(init_kill),
    },
    Attempt {
        slug: "init-overwrite",
        tried: "write over bottle-init, or put files beside it",
        expected: "refused by the kernel",
        run: |_| in_bottle(init_overwrite),
    },
    Attempt {
        slug: "hosts-file",
        tried: "new names in /etc/hosts",
        expected: "refused, or they lead nowhere",
        run: |known| in_bottle(|| hosts_file(known)),
    },
    Attempt {
        slug: "mount",
        tried: "mount a file system",
        expected: "refused by the kernel",
        run: |_| in_bottle(mount),
    },
    Attempt {
        slug: "namespaces",
        tried: "namespaces of its own, with all privileges inside",
        expected: "refused by the kernel",
        run: |_| in_bottle(namespaces),
    },
    Attempt {
        slug: "devices",
        tried: "disks, memory and kernel settings as files",
        expected: "refused by the kernel",
        run: |_| in_bottle(devices),
    },
    Attempt {
        slug: "engine-socket",
        tried: "the sockets of the container engines",
        expected: "absent",
        run: |_| engine_socket(),
    },
];

/// What the child process of [`USER_NAMESPACE_PROBE`] does; its status is the answer.
pub fn probe_user_namespace() -> ExitCode {
    match nix::sched::unshare(CloneFlags::CLONE_NEWUSER) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => ExitCode::from(u8::try_from(error as i32).unwrap_or(u8::MAX)),
    }
}

fn in_bottle(attempt: impl FnOnce() -> Decision) -> Decision {
    match std::fs::read_to_string("/proc/1/comm") {
        Ok(name) if name.trim_end() == "bottle-init" => attempt(),
        Ok(_) | Err(_) => Decision::broken("not tried: this is no bottle"),
    }
}

fn packet_sockets() -> Decision {
    let all_frames = std::num::NonZeroU32::new(0x0300).map(Protocol::from_raw); // ETH_P_ALL, network order
    let kinds = [SocketType::RAW, SocketType::DGRAM];
    Decision::worst(kinds.map(|kind| judge::denied(&socket(AddressFamily::PACKET, kind, all_frames))).to_vec())
}

fn init_input() -> Decision {
    let flags = OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::fs::open("/proc/1/fd/0", flags | OFlags::RDONLY, Mode::empty());
    let taken = rustix::process::pidfd_open(Pid::INIT, PidfdFlags::empty())
        .and_then(|pidfd| rustix::process::pidfd_getfd(pidfd, 0, PidfdGetfdFlags::empty()));
    Decision::worst(vec![judge::denied(&opened), judge::denied(&taken)])
}

fn init_memory() -> Decision {
    let init = nix::unistd::Pid::from_raw(1);
    let opened = std::fs::File::open("/proc/1/mem");
    let seized = ptrace::seize(init, ptrace::Options::empty());
    if seized.is_ok() {
        let _ = ptrace::detach(init, None); // it must be left as it was found
    }
    let mut buffer = [0_u8; 16];
    let remote = [RemoteIoVec { base: 0x10000, len: buffer.len() }];
    let read = process_vm_readv(init, &mut [io::IoSliceMut::new(&mut buffer)], &remote);
    // A bad address would mean that the right to read is there.
    let read = if read == Err(nix::errno::Errno::EFAULT) { Ok(0) } else { read };
    Decision::worst(vec![judge::denied(&opened), judge::denied(&seized), judge::denied(&read)])
}

fn init_kill() -> Decision {
    let signals = [Signal::TERM, Signal::STOP, Signal::KILL];
    Decision::worst(signals.map(|signal| judge::denied(&rustix::process::kill_process(Pid::INIT, signal))).to_vec())
}

fn init_overwrite() -> Decision {
    // Opened without truncating and never written to: the attempt must not break what it tests.
    let over = OpenOptions::new().write(true).open(INIT);
    let beside = Path::new(INIT).with_file_name("agent-was-here");
    let put = std::fs::File::create_new(&beside);
    if put.is_ok() {
        let _ = std::fs::remove_file(&beside); // it is reported as a breach in any case
    }
    let aside = Path::new(INIT).with_file_name("moved");
    let moved = std::fs::rename(INIT, &aside);
    if moved.is_ok() {
        let _ = std::fs::rename(&aside, INIT); // as above
    }
    Decision::worst(vec![judge::denied(&over), judge::denied(&put), judge::denied(&moved)])
}

fn hosts_file(known: &Known) -> Decision {
    let line = format!("\n{} {}\n", known.attacker_ip, known.attacker);
    let written = OpenOptions::new().append(true).open("/etc/hosts").and_then(|mut f| f.write_all(line.as_bytes()));
    match written {
        Err(_) => judge::denied(&written),
        Ok(()) => {
            let reached = judge::unanswered(&touch(&[SocketAddr::from((known.attacker_ip, 443))], CONNECT_MAX));
            Decision { happened: format!("written; {}", reached.happened), held: reached.held }
        }
    }
}

fn mount() -> Decision {
    let mounted = rustix::mount::mount("none", "/tmp", "tmpfs", MountFlags::empty(), None);
    if mounted.is_ok() {
        let _ = rustix::mount::unmount("/tmp", UnmountFlags::DETACH); // it is reported as a breach in any case
    }
    let opened = rustix::mount::fsopen("tmpfs", rustix::mount::FsOpenFlags::FSOPEN_CLOEXEC);
    Decision::worst(vec![judge::denied(&mounted), judge::denied(&opened)])
}

fn namespaces() -> Decision {
    let flags = [CloneFlags::CLONE_NEWNET, CloneFlags::CLONE_NEWNS, CloneFlags::CLONE_NEWPID];
    // Of this attempt's own thread, so that a success changes nothing for the others.
    let mut all: Vec<Decision> = flags.iter().map(|flag| judge::denied(&nix::sched::unshare(*flag))).collect();
    // A user namespace is only given to a process without threads.
    let user = std::env::current_exe().and_then(|own| Command::new(own).arg(USER_NAMESPACE_PROBE).status());
    all.push(match user {
        Err(error) => Decision::broken(format!("not tried: {error}")),
        Ok(status) => match status.code() {
            Some(0) => Decision::broken("a user namespace was given"),
            Some(code) => judge::denied::<(), _>(&Err(io::Error::from_raw_os_error(code))),
            None => Decision::held("the attempt was killed"),
        },
    });
    Decision::worst(all)
}

fn devices() -> Decision {
    let read = ["/dev/mem", "/dev/kmsg", "/dev/sda", "/dev/vda", "/dev/kvm", "/dev/net/tun", "/proc/kcore"];
    let write = ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/sys/kernel/uevent_helper"];
    let mut all: Vec<Decision> = read.iter().map(|path| opened(path, OpenOptions::new().read(true))).collect();
    all.extend(write.iter().map(|path| opened(path, OpenOptions::new().write(true))));
    Decision::worst(all)
}

fn opened(path: &str, options: &OpenOptions) -> Decision {
    match options.open(path) {
        Ok(_) => Decision::broken(format!("{path} opened")),
        refused => judge::denied(&refused),
    }
}

fn engine_socket() -> Decision {
    let found = SOCKETS.iter().find(|path| Path::new(path).exists() || UnixStream::connect(path).is_ok());
    judge::not_found(found.copied(), &format!("{} places", SOCKETS.len()))
}
