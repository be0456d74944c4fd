//! A terminal with a program on it, as a person has it: a pseudo-terminal that is typed on, read, resized and closed.

use super::output::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A terminal and the program on it.
pub struct Terminal {
    master: Option<Arc<OwnedFd>>,
    /// Held so that the terminal outlives its program and can be looked at afterwards.
    slave: Option<OwnedFd>,
    child: Child,
    shown: Arc<Mutex<Vec<u8>>>,
    over: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Terminal {
    /// Starts a command whose standard streams are a new terminal of 80 columns and 24 rows.
    #[track_caller]
    pub(super) fn start(mut command: Command) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).expect("a terminal can be had");
        grantpt(&master).and_then(|()| unlockpt(&master)).expect("a terminal can be unlocked");
        let slave = ioctl_tiocgptpeer(&master, flags).expect("a terminal has another end");
        set_size(&master, 80, 24);
        let end = || Stdio::from(slave.try_clone().expect("a descriptor can be doubled"));
        command.stdin(end()).stdout(end()).stderr(end());
        let child = command.spawn().expect("the launcher can be run");
        let (master, shown, over) = (Arc::new(master), Arc::<Mutex<Vec<u8>>>::default(), Arc::<AtomicBool>::default());
        let reader = std::thread::spawn({
            let (master, shown, over) = (Arc::clone(&master), Arc::clone(&shown), Arc::clone(&over));
            move || read(&master, &shown, &over)
        });
        // The command holds three more descriptors of the slave until it goes.
        drop(command);
        Self { master: Some(master), slave: Some(slave), child, shown, over, reader: Some(reader) }
    }

    fn master(&self) -> &OwnedFd {
        self.master.as_ref().expect("it is taken only when the terminal is closed")
    }

    /// The number of the program's process.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Types.
    #[track_caller]
    pub fn type_in(&self, text: &str) {
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let written = rustix::io::write(self.master(), rest).expect("a terminal can be typed on");
            rest = &rest[written..];
        }
    }

    /// Everything that was shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&self.shown.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// Waits until a text has been shown.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.wait_for_times(text, 1);
    }

    /// Waits until a text has been shown so many times.
    #[track_caller]
    pub fn wait_for_times(&self, text: &str, times: usize) {
        let began = std::time::Instant::now();
        while self.shown().matches(text).count() < times {
            assert!(began.elapsed() < PATIENCE, "never shown: {text:?}; but:\n{}", self.shown());
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }

    /// Gives the terminal another size.
    pub fn resize(&self, columns: u16, rows: u16) {
        set_size(self.master(), columns, rows);
    }

    /// Is it as a shell wants it: lines, echo, keys that signal?
    pub fn is_sane(&self) -> bool {
        let modes = tcgetattr(self.master()).expect("a terminal has modes").local_modes;
        modes.contains(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG)
    }

    /// Waits until the program has ended; gives its status.
    #[track_caller]
    pub fn wait(&mut self) -> i32 {
        use std::os::unix::process::ExitStatusExt;
        let began = std::time::Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a child can be waited for") {
                return status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
            }
            assert!(began.elapsed() < PATIENCE, "never ended; it shows:\n{}", self.shown());
            std::thread::sleep(std::time::Duration::from_millis(25));
        }
    }

    /// Closes the window: the program is told by SIGHUP.
    pub fn close(&mut self) {
        self.over.store(true, Ordering::Release);
        if let Some(reader) = self.reader.take() {
            // A reader that panicked has nothing to say that matters now.
            let _ = reader.join();
        }
        self.slave = None;
        self.master = None;
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- the terminal shows:\n{}", self.shown());
        }
        self.close();
        // It has ended, or it is in the way.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn set_size(terminal: &OwnedFd, columns: u16, rows: u16) {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(terminal, size).expect("a terminal has a size");
}

/// Reads until the terminal is over. It looks up now and then: a blocked read would hold the terminal open.
fn read(master: &OwnedFd, shown: &Mutex<Vec<u8>>, over: &AtomicBool) {
    let pause = Timespec { tv_sec: 0, tv_nsec: 50_000_000 };
    let mut piece = [0; 4096];
    while !over.load(Ordering::Acquire) {
        let mut ready = [PollFd::new(master, PollFlags::IN)];
        match poll(&mut ready, Some(&pause)) {
            Ok(0) | Err(_) => continue,
            Ok(_) => {}
        }
        match rustix::io::read(master, &mut piece) {
            Ok(0) | Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            Ok(n) => shown.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(&piece[..n]),
        }
    }
}
