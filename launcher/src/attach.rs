//! The operator's end of an agent's terminal: raw mode while it lasts, the window's size, the key that lets go, and
//! what the keeper says in between.

use crate::exit::Exit;
use crate::keeper_socket::{Ending, Frame, Reader, ToClient, ToKeeper, Writer};
use crate::signals::Signals;
use crate::ui::Ui;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use tokio::sync::mpsc;

/// Ctrl-P Ctrl-Q, as with `docker attach`.
const LET_GO: [u8; 2] = [0x10, 0x11];
/// Bytes read at once from the terminal.
const PIECE_BYTES: usize = 8 << 10;

/// How a client's part ended.
#[derive(Debug)]
pub enum Parted {
    /// The bottle, or the exec, has ended.
    Ended(Box<Ending>),
    /// The client let go; the bottle lives.
    LetGo,
    /// The keeper has gone without a word.
    KeeperLost,
    /// What was asked cannot be had.
    Refused(String),
    /// The third signal: the client goes at once, the keeper takes back what there is.
    Out,
}

/// What a client is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// `run`: input, output, signals that end the bottle.
    Owner,
    /// `run --detach`: lets go as soon as the agent runs.
    Starter,
    /// `attach`, `exec`: input and output; going means letting go.
    Guest,
    /// `stop`: waits for the end.
    Waiter,
}

/// The terminal's size (columns, rows), when both ends of the command are a terminal.
pub fn terminal() -> Option<(u16, u16)> {
    if !(std::io::stdin().is_terminal() && std::io::stdout().is_terminal()) {
        return None;
    }
    tcgetwinsize(std::io::stdout()).ok().map(|size| (size.ws_col.max(1), size.ws_row.max(1)))
}

/// The terminal in raw mode; as it was, when this goes.
struct Raw(Termios);

impl Raw {
    fn enter() -> Option<Self> {
        let before = tcgetattr(std::io::stdin()).ok()?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(std::io::stdin(), OptionalActions::Now, &raw).ok()?;
        Some(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that has gone has no mode to give back.
        let _ = tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// Stays with the keeper until one of the two goes.
pub async fn stay(
    mut reader: Reader,
    mut writer: Writer,
    part: Part,
    tty: bool,
    forward_input: bool,
    ui: Ui,
) -> Parted {
    let mut raw = None;
    let mut keys = None;
    let mut signals = Signals::take();
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok();
    let mut raised = 0;
    // An exec and an attach begin at once; an owner's agent begins when the keeper says so.
    if part == Part::Guest {
        (raw, keys) = begin(tty, forward_input);
    }
    loop {
        tokio::select! {
            frame = reader.next::<ToClient>() => match frame {
                Ok(Some(Frame::Data(bytes))) => show(&mut std::io::stdout(), &bytes),
                Ok(Some(Frame::ErrorData(bytes))) => show(&mut std::io::stderr(), &bytes),
                Ok(Some(Frame::Words(words))) => match words {
                    ToClient::Progress { text } => if raw.is_none() { ui.progress(&text) },
                    ToClient::Notice { text } => notice(ui, raw.is_some(), &text),
                    ToClient::Started if part == Part::Starter => {
                        ui.wipe();
                        // If the keeper is gone by now, the next command says so.
                        let _ = writer.say(&ToKeeper::Detach).await;
                        return Parted::LetGo;
                    }
                    ToClient::Started => {
                        ui.wipe();
                        if part == Part::Owner {
                            (raw, keys) = begin(tty, forward_input);
                        }
                    }
                    ToClient::Ended(ending) => {
                        drop(raw);
                        ui.wipe();
                        return Parted::Ended(ending);
                    }
                    ToClient::Refused { reason } => return Parted::Refused(reason),
                    ToClient::Status(_) => {}
                },
                Ok(None) | Err(_) => {
                    drop(raw);
                    ui.wipe();
                    return Parted::KeeperLost;
                }
            },
            typed = typed(&mut keys) => match typed {
                Typed::Bytes(bytes) => {
                    if writer.send::<ToKeeper>(&Frame::Data(bytes)).await.is_err() {
                        keys = None;
                    }
                }
                Typed::LetGo if tty => {
                    let _ = writer.say(&ToKeeper::Detach).await;
                    drop(raw);
                    return Parted::LetGo;
                }
                Typed::LetGo => {}
                Typed::End => {
                    keys = None;
                    let _ = writer.say(&ToKeeper::InputEnd).await;
                }
            },
            () = window(&mut resized), if tty => {
                if let Some(size) = terminal() {
                    let _ = writer.say(&ToKeeper::Resize { size }).await;
                }
            }
            () = signals.next() => {
                raised += 1;
                match part {
                    Part::Guest | Part::Waiter => return Parted::LetGo,
                    Part::Owner | Part::Starter if raised < 3 => {
                        let _ = writer.say(&ToKeeper::Stop).await;
                        notice(ui, raw.is_some(), if raised == 1 { "stopping (once more: at once)" } else { "stopping at once" });
                    }
                    Part::Owner | Part::Starter => {
                        drop(raw);
                        return Parted::Out;
                    }
                }
            }
        }
    }
}

fn begin(tty: bool, forward_input: bool) -> (Option<Raw>, Option<mpsc::Receiver<Typed>>) {
    let raw = if tty { Raw::enter() } else { None };
    (raw, forward_input.then(|| read_input(tty)))
}

/// What comes from standard input.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Bytes(bytes::Bytes),
    LetGo,
    End,
}

async fn typed(keys: &mut Option<mpsc::Receiver<Typed>>) -> Typed {
    match keys {
        Some(keys) => keys.recv().await.unwrap_or(Typed::End),
        None => std::future::pending().await,
    }
}

async fn window(resized: &mut Option<tokio::signal::unix::Signal>) {
    match resized {
        Some(resized) => {
            resized.recv().await;
        }
        None => std::future::pending().await,
    }
}

/// Reads on a plain thread: tokio's standard input would keep the process until one more key is pressed.
fn read_input(tty: bool) -> mpsc::Receiver<Typed> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        let mut keys = Keys::default();
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = match std::io::stdin().read(&mut piece) {
                Ok(0) | Err(_) => Typed::End,
                Ok(n) => keys.take(piece.get(..n).unwrap_or_default(), tty),
            };
            let last = read == Typed::End;
            if sender.blocking_send(read).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// Looks for the keys that let go.
#[derive(Default)]
struct Keys {
    held: bool,
}

impl Keys {
    /// What to send for these bytes. The first of the two keys is held back until the next byte tells.
    fn take(&mut self, bytes: &[u8], tty: bool) -> Typed {
        if !tty {
            return Typed::Bytes(bytes::Bytes::copy_from_slice(bytes));
        }
        let mut out = Vec::with_capacity(bytes.len() + 1);
        for byte in bytes {
            if self.held {
                self.held = false;
                if *byte == LET_GO[1] {
                    return Typed::LetGo;
                }
                out.push(LET_GO[0]);
            }
            if *byte == LET_GO[0] {
                self.held = true;
            } else {
                out.push(*byte);
            }
        }
        Typed::Bytes(out.into())
    }
}

fn show(to: &mut impl Write, bytes: &[u8]) {
    // Whoever reads may have had enough; the agent goes on.
    let _ = to.write_all(bytes).and_then(|()| to.flush());
}

/// A line in between, also on a terminal in raw mode, where a newline does not return the carriage.
fn notice(ui: Ui, raw: bool, text: &str) {
    let text = crate::ui::clean(text);
    if raw {
        show(&mut std::io::stderr(), format!("\r\n[bottle] {text}\r\n").as_bytes())
    } else {
        ui.line(&format!("[bottle] {text}"))
    }
}

/// The exit status of a part that ended.
pub fn exit_of(ending: &Ending) -> Exit {
    ending.exit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_keys_let_go_and_nothing_else_does() {
        let mut keys = Keys::default();
        let bytes = |b: &'static [u8]| Typed::Bytes(bytes::Bytes::from_static(b));
        assert_eq!(keys.take(b"ab", true), bytes(b"ab"));
        assert_eq!(keys.take(&[0x10], true), bytes(b""));
        assert_eq!(keys.take(b"x", true), bytes(b"\x10x"));
        assert_eq!(keys.take(&[b'a', 0x10, 0x11], true), Typed::LetGo);
        assert_eq!(keys.take(&[0x10, 0x11], false), bytes(b"\x10\x11"));
    }
}
