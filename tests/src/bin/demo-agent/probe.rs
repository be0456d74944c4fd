//! Many TCP connects at once: non-blocking sockets and one poll, so that a hundred silent addresses cost one time limit.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, connect, socket_with, sockopt};
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// Sockets open at once.
const AT_ONCE: usize = 256;

/// What a connect came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// It was accepted.
    Open,
    /// Something at that address said no: it answers.
    Refused,
    /// Nothing came back in time.
    Silent,
    /// The kernel here did not send it, or a router said there is no way.
    NoWay(Errno),
}

/// Connects to all of them and waits at most `within` for each batch.
pub fn touch(targets: &[SocketAddr], within: Duration) -> Vec<(SocketAddr, Touch)> {
    targets.chunks(AT_ONCE).flat_map(|batch| touch_batch(batch, within)).collect()
}

fn touch_batch(targets: &[SocketAddr], within: Duration) -> Vec<(SocketAddr, Touch)> {
    let mut touched: Vec<(SocketAddr, Touch)> = Vec::new();
    let mut pending: Vec<(SocketAddr, OwnedFd)> = Vec::new();
    for target in targets {
        match begin(*target) {
            Ok(fd) => pending.push((*target, fd)),
            Err(error) => touched.push((*target, read(Err(error)))),
        }
    }
    let deadline = Instant::now() + within;
    while !pending.is_empty() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let ready = wait(&pending, left);
        let mut still = Vec::new();
        for ((target, fd), ready) in pending.into_iter().zip(ready) {
            if ready {
                touched.push((target, read(sockopt::socket_error(&fd).and_then(|error| error))));
            } else {
                still.push((target, fd));
            }
        }
        pending = still;
    }
    touched.extend(pending.into_iter().map(|(target, _)| (target, Touch::Silent)));
    touched
}

fn begin(target: SocketAddr) -> Result<OwnedFd, Errno> {
    let family = if target.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let fd = socket_with(family, SocketType::STREAM, flags, None)?;
    match connect(&fd, &target) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(fd),
        Err(error) => Err(error),
    }
}

fn wait(pending: &[(SocketAddr, OwnedFd)], left: Duration) -> Vec<bool> {
    let mut fds: Vec<PollFd<'_>> = pending.iter().map(|(_, fd)| PollFd::new(fd, PollFlags::OUT)).collect();
    let left = Timespec { tv_sec: i64::try_from(left.as_secs()).unwrap_or(1), tv_nsec: left.subsec_nanos().into() };
    // An interrupted or failed wait has found nothing ready; the deadline ends the loop around it.
    let _ = poll(&mut fds, Some(&left));
    fds.iter().map(|fd| !fd.revents().is_empty()).collect()
}

fn read(result: Result<(), Errno>) -> Touch {
    match result {
        Ok(()) => Touch::Open,
        Err(Errno::CONNREFUSED | Errno::CONNRESET) => Touch::Refused,
        Err(Errno::TIMEDOUT) => Touch::Silent,
        Err(error) => Touch::NoWay(error),
    }
}

#[cfg(test)]
mod tests {
    use super::{Touch, touch};
    use std::net::{SocketAddr, TcpListener};
    use std::time::Duration;

    #[test]
    fn open_refused_and_no_way_are_told_apart() {
        let open = TcpListener::bind("127.0.0.1:0").unwrap();
        let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // No TCP connection to a multicast address can exist: the kernel says so by itself.
        let nowhere: SocketAddr = "224.0.0.9:80".parse().unwrap();
        let targets = [open.local_addr().unwrap(), closed, nowhere];
        let touched = touch(&targets, Duration::from_secs(5));
        let of = |target| touched.iter().find(|(address, _)| *address == target).unwrap().1;
        assert_eq!(of(targets[0]), Touch::Open);
        assert_eq!(of(targets[1]), Touch::Refused);
        assert!(matches!(of(nowhere), Touch::NoWay(_)));
    }
}
