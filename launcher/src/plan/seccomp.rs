//! Which system calls a container may make: an allow list in the form that the engine takes as `seccomp=<json>`. What
//! is not on it fails with EPERM.
//!
//! It must never allow what makes sockets past the filter (`io_uring`, a second calling convention), what makes
//! namespaces or mounts, or what reaches the kernel's wider doors (`bpf`, `userfaultfd`, keys, modules, performance
//! events). What ordinary programs need stays: compilers, interpreters, databases, debuggers within a uid, programs
//! that put themselves under Landlock or a filter of their own.

use crate::engine::Seccomp;
use serde_json::{Value, json};

/// Clone flags that make a namespace: mount, cgroup, UTS, IPC, user, PID, network.
const CLONE_NEW: u64 = 0x7e02_0000;

const AF_UNIX: u64 = 1;
const AF_INET: u64 = 2;
const AF_INET6: u64 = 10;
const AF_NETLINK: u64 = 16;

/// The part of a socket's type that is not a flag.
const SOCK_TYPE_MASK: u64 = 0xf;
const SOCK_STREAM: u64 = 1;
const SOCK_DGRAM: u64 = 2;

const IPPROTO_IP: u64 = 0;
const IPPROTO_TCP: u64 = 6;
const IPPROTO_UDP: u64 = 17;

const NETLINK_ROUTE: u64 = 0;
const NETLINK_NETFILTER: u64 = 12;

const ENOSYS: u32 = 38;

/// The usual personality, the one that hides a kernel's major version, and the question which one it is.
const PERSONALITIES: [u64; 3] = [0, 0x2_0000, 0xffff_ffff];

const FILES: &str = "\
    access chdir chmod chown close close_range copy_file_range creat dup dup2 dup3 faccessat faccessat2 fadvise64 \
    fallocate fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock \
    fremovexattr fsetxattr fstat fstatfs fsync ftruncate futimesat getcwd getdents getdents64 getxattr getxattrat \
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch ioctl lchown lgetxattr link linkat listxattr \
    listxattrat llistxattr lremovexattr lseek lsetxattr lstat mkdir mkdirat mknod mknodat newfstatat open openat \
    openat2 pipe pipe2 pread64 preadv preadv2 pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv \
    removexattr removexattrat rename renameat renameat2 rmdir sendfile setxattr setxattrat splice stat statfs statx \
    symlink symlinkat sync sync_file_range syncfs tee truncate umask unlink unlinkat utime utimensat utimes vmsplice \
    write writev";

const MEMORY: &str = "\
    brk cachestat madvise map_shadow_stack membarrier memfd_create mincore mlock mlock2 mlockall mmap mprotect \
    mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_madvise process_mrelease \
    remap_file_pages";

const PROCESSES: &str = "\
    arch_prctl execve execveat exit exit_group fork getpgid getpgrp getpid getppid getpriority getrlimit getrusage \
    getsid gettid ioprio_get ioprio_set pidfd_open prctl prlimit64 process_vm_readv process_vm_writev ptrace \
    restart_syscall rseq sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr \
    sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr sched_setparam \
    sched_setscheduler sched_yield set_robust_list get_robust_list set_tid_address setpgid setpriority setrlimit \
    setsid vfork wait4 waitid getcpu";

/// Without capabilities these give up rights and never gain any.
const RIGHTS: &str = "\
    capget capset getegid geteuid getgid getgroups getresgid getresuid getuid landlock_add_rule \
    landlock_create_ruleset landlock_restrict_self seccomp setfsgid setfsuid setgid setgroups setregid setresgid \
    setresuid setreuid setuid";

const SIGNALS: &str = "\
    kill pause pidfd_send_signal rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn \
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sigaltstack signalfd signalfd4 tgkill tkill";

const TIME: &str = "\
    alarm clock_getres clock_gettime clock_nanosleep getitimer gettimeofday nanosleep setitimer time timer_create \
    timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times";

/// Sockets that are there already; making one has rules of its own.
const SOCKETS: &str = "\
    accept accept4 bind connect getpeername getsockname getsockopt listen recvfrom recvmmsg recvmsg sendmmsg sendmsg \
    sendto setsockopt shutdown";

const WAITING: &str = "\
    epoll_create epoll_create1 epoll_ctl epoll_pwait epoll_pwait2 epoll_wait eventfd eventfd2 futex futex_requeue \
    futex_wait futex_waitv futex_wake io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit poll ppoll \
    pselect6 select";

const MESSAGES: &str = "\
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink msgctl msgget msgrcv msgsnd semctl semget \
    semop semtimedop shmat shmctl shmdt shmget";

const MACHINE: &str = "getrandom sysinfo uname";

const GROUPS: &[&str] = &[FILES, MEMORY, PROCESSES, RIGHTS, SIGNALS, TIME, SOCKETS, WAITING, MESSAGES, MACHINE];

/// The profile as the engine takes it.
pub fn profile(seccomp: Seccomp) -> String {
    let names: Vec<&str> = names().collect();
    let mut rules = vec![allow(&names, &[])];
    rules.push(allow(&["clone"], &[masked(0, CLONE_NEW, 0)]));
    // Its flags are in memory, where no filter sees them; told that there is no such call, C libraries use clone.
    rules.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    rules.extend(PERSONALITIES.map(|persona| allow(&["personality"], &[equal(0, persona)])));
    rules.extend(sockets(seccomp));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        // The engine takes the entry of its own machine. No second architecture is listed beneath either: the filter
        // counts arguments and numbers as the native one does.
        "archMap": [
            { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": [] },
            { "architecture": "SCMP_ARCH_AARCH64", "subArchitectures": [] },
        ],
        "syscalls": rules,
    })
    .to_string()
}

fn names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.split_whitespace())
}

/// TCP, UDP and local sockets, and the questions that C libraries ask about interfaces. Not SCTP, DCCP and their like:
/// asking for one makes the host's kernel load a module.
fn sockets(seccomp: Seccomp) -> Vec<Value> {
    let mut rules = vec![allow(&["socket", "socketpair"], &[equal(0, AF_UNIX)])];
    for family in [AF_INET, AF_INET6] {
        for (kind, protocol) in
            [(SOCK_STREAM, IPPROTO_IP), (SOCK_STREAM, IPPROTO_TCP), (SOCK_DGRAM, IPPROTO_IP), (SOCK_DGRAM, IPPROTO_UDP)]
        {
            let kind = masked(1, SOCK_TYPE_MASK, kind);
            rules.push(allow(&["socket"], &[equal(0, family), kind, equal(2, protocol)]));
        }
    }
    let netlink = match seccomp {
        Seccomp::Bottle => &[NETLINK_ROUTE][..],
        Seccomp::Wall => &[NETLINK_ROUTE, NETLINK_NETFILTER],
    };
    rules.extend(netlink.iter().map(|protocol| allow(&["socket"], &[equal(0, AF_NETLINK), equal(2, *protocol)])));
    rules
}

fn allow(names: &[&str], arguments: &[Value]) -> Value {
    json!({ "names": names, "action": "SCMP_ACT_ALLOW", "args": arguments })
}

fn equal(index: u32, value: u64) -> Value {
    json!({ "index": index, "value": value, "op": "SCMP_CMP_EQ" })
}

/// Argument `index`, as far as `mask` goes, is `value`.
fn masked(index: u32, mask: u64, value: u64) -> Value {
    json!({ "index": index, "value": mask, "valueTwo": value, "op": "SCMP_CMP_MASKED_EQ" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// What the kernel would do: the action of the first rule that fits.
    fn verdict(seccomp: Seccomp, name: &str, arguments: &[u64]) -> String {
        let profile: Value = serde_json::from_str(&profile(seccomp)).unwrap();
        let fits = |rule: &&Value| {
            rule["names"].as_array().unwrap().iter().any(|n| n == name)
                && rule["args"].as_array().into_iter().flatten().all(|arg| {
                    let given = arguments.get(arg["index"].as_u64().unwrap() as usize).copied().unwrap_or(0);
                    let value = arg["value"].as_u64().unwrap();
                    match arg["op"].as_str().unwrap() {
                        "SCMP_CMP_EQ" => given == value,
                        "SCMP_CMP_MASKED_EQ" => given & value == arg["valueTwo"].as_u64().unwrap(),
                        op => panic!("{op} is not used"),
                    }
                })
        };
        let rule = profile["syscalls"].as_array().unwrap().iter().find(fits).cloned();
        let action = rule.map_or(profile["defaultAction"].clone(), |rule| rule["action"].clone());
        action.as_str().unwrap().to_owned()
    }

    fn allowed(seccomp: Seccomp, name: &str, arguments: &[u64]) -> bool {
        verdict(seccomp, name, arguments) == "SCMP_ACT_ALLOW"
    }

    #[test]
    fn the_doors_are_shut() {
        for name in "\
            io_uring_setup io_uring_enter io_uring_register bpf userfaultfd keyctl add_key request_key mount umount \
            umount2 pivot_root chroot move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick \
            mount_setattr unshare setns clone3 perf_event_open kexec_load kexec_file_load init_module finit_module \
            delete_module create_module quotactl quotactl_fd open_by_handle_at name_to_handle_at reboot swapon \
            swapoff syslog acct settimeofday clock_settime clock_adjtime adjtimex iopl ioperm modify_ldt sethostname \
            setdomainname vhangup lookup_dcookie fanotify_init kcmp pidfd_getfd memfd_secret move_pages \
            migrate_pages mbind set_mempolicy socketcall ipc uselib ustat sysfs nfsservctl _sysctl vm86 \
            a_call_of_tomorrow"
            .split_whitespace()
        {
            for seccomp in [Seccomp::Bottle, Seccomp::Wall] {
                assert!(!allowed(seccomp, name, &[]), "{name}");
            }
        }
    }

    #[test]
    fn ordinary_programs_run() {
        for name in "\
            read openat openat2 statx execve vfork wait4 mmap futex epoll_pwait2 ptrace process_vm_readv \
            process_vm_writev seccomp landlock_restrict_self getrandom rseq inotify_init1 io_submit memfd_create \
            close_range faccessat2 connect sendmsg"
            .split_whitespace()
        {
            assert!(allowed(Seccomp::Bottle, name, &[]), "{name}");
        }
    }

    #[test]
    fn processes_are_cloned_and_namespaces_are_not() {
        let thread = 0x3d_0f00;
        assert!(allowed(Seccomp::Bottle, "clone", &[thread]));
        assert!(allowed(Seccomp::Bottle, "clone", &[0x4111])); // CLONE_VFORK | CLONE_VM | SIGCHLD
        for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert!(!allowed(Seccomp::Bottle, "clone", &[flag | 17]), "{flag:#x}");
        }
        let profile: Value = serde_json::from_str(&profile(Seccomp::Bottle)).unwrap();
        let rules = profile["syscalls"].as_array().unwrap();
        let clone3: Vec<_> =
            rules.iter().filter(|rule| rule["names"].as_array().unwrap().contains(&"clone3".into())).collect();
        assert_eq!(clone3.len(), 1);
        assert_eq!((&clone3[0]["action"], &clone3[0]["errnoRet"]), (&"SCMP_ACT_ERRNO".into(), &38.into()));
    }

    #[test]
    fn sockets_are_of_the_kinds_named() {
        let (cloexec, nonblock) = (0o2_000_000, 0o4_000);
        let both = |call, arguments: &[u64]| {
            let [bottle, wall] = [Seccomp::Bottle, Seccomp::Wall].map(|s| allowed(s, call, arguments));
            assert_eq!(bottle, wall, "{call} {arguments:?}");
            bottle
        };
        for socket in [
            [1, 1, 0],
            [1, 2 | cloexec, 0],
            [1, 5, 0],
            [2, 1, 0],
            [2, 1 | cloexec | nonblock, 6],
            [2, 2 | nonblock, 0],
            [10, 1, 0],
            [10, 2 | cloexec, 17],
            [16, 3 | cloexec, 0],
            [16, 2, 0],
        ] {
            assert!(both("socket", &socket), "{socket:?}");
        }
        for socket in [
            [17, 3, 0],            // packet
            [40, 1, 0],            // vsock
            [38, 5, 0],            // alg
            [44, 3, 0],            // xdp
            [16, 3, 2],            // netlink: socket diagnosis
            [16, 3, 9],            // netlink: audit
            [16, 3, 15],           // netlink: uevents
            [16, 3, 16],           // netlink: generic
            [2, 3, 1],             // raw
            [2, 2, 1],             // ping
            [2, 10, 0x300],        // packet, the old way
            [2, 1, 132],           // SCTP
            [2, 5, 0],             // SCTP by type
            [10, 6, 33],           // DCCP
            [2, 2, 136],           // UDP-Lite
            [0x1_0000_0002, 1, 0], // what the kernel reads as INET, with bits above
        ] {
            assert!(!both("socket", &socket), "{socket:?}");
        }
        assert!(both("socketpair", &[1, 1, 0]));
        assert!(!both("socketpair", &[2, 1, 0]));
        assert!(!allowed(Seccomp::Bottle, "socket", &[16, 3, 12]));
        assert!(allowed(Seccomp::Wall, "socket", &[16, 3, 12]));
    }

    #[test]
    fn personalities_that_change_nothing() {
        for (persona, is) in
            [(0, true), (0x2_0000, true), (0xffff_ffff, true), (8, false), (0x4_0000, false), (0x40_0000, false)]
        {
            assert_eq!(allowed(Seccomp::Bottle, "personality", &[persona]), is, "{persona:#x}");
        }
    }

    #[test]
    fn no_call_is_named_twice_and_no_second_architecture() {
        let names: Vec<&str> = names().collect();
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len());
        let profile: Value = serde_json::from_str(&profile(Seccomp::Bottle)).unwrap();
        assert!(profile.get("architectures").is_none(), "the engine refuses both");
        for entry in profile["archMap"].as_array().unwrap() {
            assert_eq!(entry["subArchitectures"], json!([]));
        }
    }
}
