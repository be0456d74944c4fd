//! The dead man's switch: the agent can neither hold it open nor break it, and the whole bottle ends with its keeper.

use super::docker::inspect;
use super::ground::{Lease, python};
use bottle_tests::harness::{Site, World, wait_until};
use serde_json::json;
use std::process::Command;

/// What an agent would do to the first process; then the same to a child of its own.
const TOUCH: &str = r#"
import ctypes, errno, os, signal, subprocess, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def tried(what, do):
    try: do(); print(what, "done")
    except OSError as e: print(what, errno.errorcode.get(e.errno))
def ptrace(pid):
    ctypes.set_errno(0)
    if libc.ptrace(16, pid, None, None) < 0: raise OSError(ctypes.get_errno(), "")
    os.waitpid(pid, 0x40000000); libc.ptrace(17, pid, None, None)
def memory(pid):
    os.close(os.open(f"/proc/{pid}/mem", os.O_RDONLY))
def copy(pid):
    fd = os.pidfd_open(pid)
    ctypes.set_errno(0)
    if libc.syscall(438, fd, 0, 0) < 0: raise OSError(ctypes.get_errno(), "")
child = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
for who, pid in [("first", 1), ("child", child.pid)]:
    for name in [0, 1, 2]: tried(f"{who} open-{name}", lambda: os.close(os.open(f"/proc/{pid}/fd/{name}", os.O_RDWR if name else os.O_RDONLY | os.O_NONBLOCK)))
    tried(f"{who} list", lambda: os.listdir(f"/proc/{pid}/fd"))
    tried(f"{who} memory", lambda: memory(pid))
    tried(f"{who} ptrace", lambda: ptrace(pid))
    tried(f"{who} pidfd", lambda: copy(pid))
    for s in [0, signal.SIGCONT, signal.SIGKILL]: tried(f"{who} signal-{int(s)}", lambda: os.kill(pid, s))
"#;

#[test]
fn the_agent_cannot_touch_the_first_process() {
    let Some(ground) = Lease::take() else { return };
    let said = python(&ground.a, TOUCH, &[]).ok().stdout;
    let of = |who: &str| said.lines().filter(|l| l.starts_with(who)).map(str::to_owned).collect::<Vec<_>>();
    let (first, child) = (of("first"), of("child"));
    assert_eq!((first.len(), child.len()), (10, 10), "{said}");
    for line in &first {
        assert!(["EPERM", "EACCES", "ENOSYS"].iter().any(|e| line.ends_with(e)), "{line}");
    }
    for what in ["open-0", "list", "memory", "ptrace", "signal-9"] {
        assert!(child.contains(&format!("child {what} done")), "{what}: {said}");
    }
    assert_eq!(inspect(&ground.a.container("agent"))["State"]["Running"], json!(true));
}

#[test]
fn the_first_processes_user_is_never_the_agents() {
    let Some(ground) = Lease::take() else { return };
    let uid = ground.a.exec(&["stat", "-c", "%u", "/proc/1"]).ok().stdout;
    assert_eq!(uid.trim(), bottle_images::init::UID.to_string());
    assert_ne!(ground.a.exec(&["id", "-u"]).ok().stdout.trim(), uid.trim());

    let Some(site) = Site::new() else { return };
    let image = site.clients();
    for (user, reserved) in [("\"64999\"", true), ("\"64999:0\"", true), ("\"1234\"", false)] {
        site.bottle("dev", &format!("agent:\n  provider: shell\n  image: {image}\n  user: {user}\n"));
        site.agent("claims-switch", "dev");
        let ran = site.run("claims-switch").to_end(&["id", "-u"]);
        match reserved {
            true => assert!(ran.status == 125 || ran.status == 2, "{user}: {ran:#?}"),
            false => assert_eq!((ran.status, ran.stdout.trim()), (0, "1234"), "{ran:#?}"),
        }
        if reserved {
            assert!(ran.stderr.contains("64999"), "{ran:#?}");
        }
        site.assert_nothing_left();
    }
}

#[test]
fn the_whole_bottle_ends_with_its_keeper() {
    let Some(site) = Site::new() else { return };
    let world = World::start(&site);
    site.bottle("dev", &world.bottle_yaml(&site.clients()));
    site.agent("claims-keeper", "dev");
    // The agent does what it can to stay: it ignores signals and tries to hold the first process's input open.
    let stay = "trap '' HUP TERM INT; (exec 9</proc/1/fd/0; sleep 600) & while :; do sleep 1; done";
    let bottle = site.run("claims-keeper").detached(&["sh", "-c", stay]);
    let names: Vec<String> =
        ["agent", "pipelock", "route-pipelock", "cred-proxy"].iter().map(|role| bottle.container(role)).collect();
    let running = |name: &String| inspect(name)["State"]["Running"] == json!(true);
    assert!(names.iter().all(running));
    let keeper = bottle.keeper().to_string();
    assert!(Command::new("kill").args(["-9", &keeper]).status().unwrap().success());
    wait_until("every container has ended", || (!names.iter().any(running)).then_some(()));
    // The next command takes back what is left.
    site.launcher(&["cleanup"]).ok();
    site.assert_nothing_left();
}
