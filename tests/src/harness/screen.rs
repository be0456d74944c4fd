//! A terminal as a person looks at it, kept by tmux: it answers what a program asks of a terminal, and says what is on its
//! screen, wherever a program moved its cursor to. See [`super::Terminal`] for what a program writes, byte by byte.

use super::output::{Output, wait_until};
use std::path::PathBuf;
use std::process::Command;

/// A screen of 80 columns and 24 rows with a program on it, which goes when this does.
pub struct Screen {
    /// The socket of a tmux of its own, and the program's status once it has ended.
    folder: tempfile::TempDir,
}

impl Screen {
    /// Puts a command on a new screen. Of its environment it has what is set, and nothing of ours.
    #[track_caller]
    pub(super) fn start(command: &Command) -> Self {
        let screen = Self { folder: tempfile::tempdir().expect("a temporary folder can be made") };
        // Whether a program has ended is asked of a shell: tmux itself does not always notice.
        let mut words: Vec<std::ffi::OsString> =
            ["sh", "-c", "\"$@\"; echo $? >\"$0.made\"; mv \"$0.made\" \"$0\""].map(Into::into).to_vec();
        words.extend([screen.status().into(), "env".into(), "-i".into()]);
        for (name, value) in command.get_envs() {
            let Some(value) = value else { continue };
            words.push([name, value].join("=".as_ref()));
        }
        words.push(command.get_program().to_owned());
        words.extend(command.get_args().map(std::ffi::OsStr::to_owned));
        let mut tmux = screen.tmux();
        // What was shown stays to be read when the program has ended.
        tmux.args(["new-session", "-d", "-x", "80", "-y", "24"]);
        tmux.args(command.get_current_dir().map(|dir| format!("-c{}", dir.display())));
        tmux.arg("--").args(words).args([";", "set-option", "-g", "remain-on-exit", "on"]);
        let begun: Output = tmux.output().expect("tmux can be run").into();
        begun.ok();
        screen
    }

    fn status(&self) -> PathBuf {
        self.folder.path().join("status")
    }

    fn tmux(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX")
            .env("LC_ALL", "C.UTF-8")
            .arg("-f/dev/null")
            .arg("-S")
            .arg(self.folder.path().join("socket"));
        tmux
    }

    #[track_caller]
    fn ask(&self, args: &[&str]) -> String {
        let output: Output = self.tmux().args(args).output().expect("tmux can be run").into();
        output.ok().stdout
    }

    /// What is on the screen now, one line a row.
    #[track_caller]
    pub fn shown(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// What is on the screen and what has left it at its top.
    #[track_caller]
    pub fn shown_so_far(&self) -> String {
        self.ask(&["capture-pane", "-p", "-S", "-"])
    }

    /// Types.
    #[track_caller]
    pub fn type_in(&self, text: &str) {
        self.ask(&["send-keys", "-l", "--", text]);
    }

    /// Presses a key, by tmux's name for it.
    #[track_caller]
    pub fn press(&self, key: &str) {
        self.ask(&["send-keys", key]);
    }

    /// Waits until a text is on the screen, whichever rows it is broken into.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let plain = |text: &str| text.split_whitespace().collect::<String>();
        let wanted = plain(text);
        wait_until(&format!("{text:?} is on the screen"), || plain(&self.shown()).contains(&wanted).then_some(()));
    }

    /// Waits until the program has ended; gives its status.
    #[track_caller]
    pub fn wait(&self) -> i32 {
        wait_until("the program on the screen ends", || {
            let status = std::fs::read_to_string(self.status()).ok()?;
            Some(status.trim().parse().unwrap_or(-1))
        })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Ok(shown) = self.tmux().args(["capture-pane", "-p", "-S", "-"]).output()
        {
            eprintln!("--- the screen shows:\n{}", String::from_utf8_lossy(&shown.stdout));
        }
        // Its programs are hung up on; a tmux that has ended is what is wanted.
        let _ = self.tmux().arg("kill-server").output();
    }
}
