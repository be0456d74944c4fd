//! The kernel from inside: no privileges, and none of the system calls that lead past the filter.

use super::ground::{Lease, python};

#[test]
fn the_agent_has_no_privileges() {
    let Some(ground) = Lease::take() else { return };
    let status = ground.a.exec(&["cat", "/proc/self/status"]).ok().stdout;
    let field =
        |name: &str| status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')).unwrap_or_default().trim();
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        assert_eq!(u64::from_str_radix(field(set), 16), Ok(0), "{set}");
    }
    assert_eq!(field("NoNewPrivs"), "1");
    assert_eq!(field("Seccomp"), "2");
    let ids: Vec<u32> = field("Uid").split_whitespace().filter_map(|id| id.parse().ok()).collect();
    assert_eq!(ids, [1000; 4]);
    // Beside the bottle the same programs have them.
    let plain = ground.control.exec(&["cat", "/proc/self/status"]).ok().stdout;
    assert!(plain.contains("NoNewPrivs:\t0"), "{plain}");
}

/// Tries sockets and system calls by number; prints each with what came of it.
const TRY: &str = r#"
import ctypes, errno, platform, socket, os
def say(what, good): print(what, good)
for name, (family, kind, protocol) in {
    "packet": (17, 3, 768), "packet-dgram": (17, 2, 768), "vsock": (40, 1, 0), "alg": (38, 5, 0), "netfilter": (16, 3, 12),
    "audit": (16, 3, 9), "raw": (2, 3, 1), "raw6": (10, 3, 58), "bluetooth": (31, 3, 0), "can": (29, 3, 1), "xdp": (44, 3, 0),
    "ok-inet": (2, 1, 0), "ok-inet6": (10, 1, 0), "ok-unix": (1, 1, 0), "ok-route": (16, 3, 0), "ok-udp": (2, 2, 0)}.items():
    try: socket.socket(family, kind, protocol).close(); say(name, "opened")
    except OSError as e: say(name, errno.errorcode.get(e.errno, e.errno))
libc = ctypes.CDLL(None, use_errno=True)
arm = platform.machine() == "aarch64"
buffer = ctypes.create_string_buffer(256)
calls = {
    "io_uring_setup": (425, 425, [8, buffer]), "unshare-user": (272, 97, [0x10000000]), "unshare-net": (272, 97, [0x40000000]),
    "unshare-mount": (272, 97, [0x20000]), "mount": (165, 40, [b"none", b"/tmp", b"tmpfs", 0, None]),
    "umount": (166, 39, [b"/proc", 0]), "bpf": (321, 280, [0, buffer, 48]), "keyctl": (250, 219, [0, -3, 0]),
    "add_key": (248, 217, [b"user", b"x", b"y", 1, -3]), "perf_event_open": (298, 241, [buffer, 0, -1, -1, 0]),
    "userfaultfd": (323, 282, [0]), "init_module": (175, 105, [buffer, 256, b""]), "kexec_load": (246, 104, [0, 0, None, 0]),
    "setns": (308, 268, [0, 0]), "pivot_root": (155, 41, [b"/", b"/"]), "reboot": (169, 142, [0, 0, 0, None]),
    "open_by_handle_at": (304, 265, [0, buffer, 0]), "ok-getpid": (39, 172, []), "ok-getrandom": (318, 278, [buffer, 8, 0])}
for name, (x86, other, args) in calls.items():
    ctypes.set_errno(0)
    got = libc.syscall(other if arm else x86, *args)
    say(name, "opened" if got >= 0 else errno.errorcode.get(ctypes.get_errno(), "?"))
"#;

#[test]
fn no_socket_or_system_call_leads_past_the_filter() {
    let Some(ground) = Lease::take() else { return };
    let said = python(&ground.a, TRY, &[]).ok().stdout;
    assert!(said.lines().count() > 30, "{said}");
    let refused = ["EPERM", "EACCES", "ENOSYS", "EAFNOSUPPORT", "EPROTONOSUPPORT"];
    for line in said.lines() {
        let (name, came) = line.split_once(' ').unwrap();
        match name.starts_with("ok-") {
            true => assert_eq!(came, "opened", "{name}"),
            false => assert!(refused.contains(&came), "{name}: {came}"),
        }
    }
}

#[test]
fn no_program_gives_privileges() {
    let Some(ground) = Lease::take() else { return };
    // Set-uid programs of the image stay what their caller is.
    let said = ground.a.sh("find / -xdev -perm -4000 -type f 2>/dev/null | head -3; su -c id root </dev/null; id -u");
    assert_eq!(said.stdout.lines().last(), Some("1000"), "{said:#?}");
    assert!(!said.stdout.contains("uid=0"), "{said:#?}");
    let wrote = ground.a.sh("echo x > /etc/passwd; echo x > /.bottle/ca.pem; echo x > /proc/sys/kernel/core_pattern; echo x > /sys/fs/cgroup/x");
    assert_eq!(wrote.stderr.lines().count(), 4, "{wrote:#?}");
    assert_eq!(ground.a.sh("echo x > /tmp/mine && echo x > $HOME/mine").status, 0);
}
