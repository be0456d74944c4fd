//! The operator's end of an agent's terminal: raw mode while it lasts, the window's size, the key that lets go, and
//! what the keeper says in between.

use crate::keeper_socket::{Ending, Frame, INPUT_UNDER_WAY_MAX, Reader, ToClient, ToKeeper, Writer};
use crate::signals::Signals;
use crate::ui::Ui;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};
use std::io::{IsTerminal, Read, Write};
use tokio::sync::mpsc;

/// Ctrl-P Ctrl-Q, as with `docker attach`.
const LET_GO: [u8; 2] = [0x10, 0x11];
/// Bytes read at once from the terminal.
const PIECE_BYTES: usize = 8 << 10;

/// Words that may wait beside the input.
const WORDS_WAITING: usize = 64;
/// Pieces of output that may wait to be printed.
const PIECES_WAITING: usize = 16;
/// How long the last words to a keeper may take.
const LAST_WORDS_WITHIN: std::time::Duration = std::time::Duration::from_secs(2);

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

/// Stays with the keeper until one of the two goes. Nothing in here waits for the terminal, a pipe or the keeper without
/// hearing signals as well: what reads our output may have stopped, and the agent may read none of our input.
pub async fn stay(mut reader: Reader, writer: Writer, part: Part, tty: bool, forward_input: bool, ui: Ui) -> Parted {
    let (outbox, queue) = mpsc::channel(INPUT_UNDER_WAY_MAX + WORDS_WAITING);
    let mut sending = tokio::spawn(send(writer, queue));
    let (printer, mut printed) = Printer::start();
    let mut screen = Screen { ui, raw: None, tty };
    let mut keys = Keyboard::default();
    let mut signals = Signals::take();
    let mut resized = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::window_change()).ok();
    let mut raised = 0;
    // An exec and an attach begin at once; an owner's agent begins when the keeper says so.
    if part == Part::Guest {
        screen.begin();
        keys.begin(forward_input, tty);
    }
    let parted = loop {
        tokio::select! {
            (frame, room) = arrived(&mut reader, &printer) => match frame {
                Ok(Some(Frame::Data(bytes))) => room.print(Piece::Out(bytes)),
                Ok(Some(Frame::ErrorData(bytes))) => room.print(Piece::Err(bytes)),
                Ok(Some(Frame::Words(words))) => match words {
                    ToClient::Progress { text } => screen.progress(&text),
                    ToClient::Notice { text } => screen.notice(&text),
                    ToClient::Bell { text } => {
                        ui.bell();
                        screen.notice(&text);
                    }
                    ToClient::Taken => keys.under_way = keys.under_way.saturating_sub(1),
                    ToClient::Started if part == Part::Starter => {
                        // If the keeper is gone by now, the next command says so.
                        let _ = outbox.try_send(Frame::Words(ToKeeper::Detach));
                        break Parted::LetGo;
                    }
                    ToClient::Started => {
                        ui.wipe();
                        if part == Part::Owner {
                            screen.begin();
                            keys.begin(forward_input, tty);
                        }
                    }
                    ToClient::Ended(ending) => break Parted::Ended(ending),
                    ToClient::Refused { reason } => break Parted::Refused(reason),
                    ToClient::Status(_) | ToClient::Desk { .. } => {}
                },
                Ok(None) | Err(_) => break Parted::KeeperLost,
            },
            typed = keys.next() => match typed {
                Typed::Bytes(bytes) => {
                    keys.under_way += 1;
                    let _ = outbox.try_send(Frame::Data(bytes));
                }
                Typed::LetGo => {
                    let _ = outbox.try_send(Frame::Words(ToKeeper::Detach));
                    break Parted::LetGo;
                }
                Typed::End => {
                    let _ = outbox.try_send(Frame::Words(ToKeeper::InputEnd));
                }
            },
            () = window(&mut resized), if tty => {
                if let Some(size) = terminal() {
                    let _ = outbox.try_send(Frame::Words(ToKeeper::Resize { size }));
                }
            }
            () = signals.next() => {
                raised += 1;
                match part {
                    Part::Guest | Part::Waiter => break Parted::LetGo,
                    Part::Owner | Part::Starter if raised < 3 => {
                        let _ = outbox.try_send(Frame::Words(ToKeeper::Stop));
                        screen.notice(if raised == 1 { "stopping (once more: at once)" } else { "stopping at once" });
                    }
                    Part::Owner | Part::Starter => break Parted::Out,
                }
            }
        }
    };
    drop(outbox);
    drop(printer);
    if !matches!(parted, Parted::Out) {
        // What was said last is on its way to the keeper and to whoever reads us; a signal is an end to that as well.
        let rest = async {
            if matches!(parted, Parted::LetGo) {
                let _ = tokio::time::timeout(LAST_WORDS_WITHIN, &mut sending).await;
            }
            let _ = printed.recv().await;
        };
        tokio::select! {
            () = rest => {}
            () = signals.next() => {}
        }
    }
    drop(screen);
    ui.wipe();
    parted
}

/// The next frame, once there is room to print it.
async fn arrived<'p>(
    reader: &mut Reader,
    printer: &'p Printer,
) -> (std::io::Result<Option<Frame<ToClient>>>, Room<'p>) {
    match printer.0.reserve().await {
        Ok(permit) => (reader.next::<ToClient>().await, Room(permit)),
        // The printer ends only with its sender.
        Err(_) => std::future::pending().await,
    }
}

/// Writes to the keeper until there is nothing more to write.
async fn send(mut writer: Writer, mut queue: mpsc::Receiver<Frame<ToKeeper>>) {
    while let Some(frame) = queue.recv().await {
        if writer.send(&frame).await.is_err() {
            // The keeper has gone; the reader finds out.
            return;
        }
    }
}

/// What a person sees of it: raw mode while it lasts, and words in between.
struct Screen {
    ui: Ui,
    raw: Option<Raw>,
    tty: bool,
}

impl Screen {
    fn begin(&mut self) {
        self.raw = if self.tty { Raw::enter() } else { None };
    }

    fn progress(&self, text: &str) {
        if self.raw.is_none() {
            self.ui.progress(text);
        }
    }

    fn notice(&self, text: &str) {
        notice(self.ui, self.raw.is_some(), text);
    }
}

/// A piece of output.
enum Piece {
    Out(bytes::Bytes),
    Err(bytes::Bytes),
}

/// Prints on a plain thread: a pipe that nobody reads stops it, and nothing else.
struct Printer(mpsc::Sender<Piece>);

/// Room for one piece.
struct Room<'p>(mpsc::Permit<'p, Piece>);

impl Printer {
    /// The receiver ends when everything is printed.
    fn start() -> (Self, mpsc::Receiver<()>) {
        let (sender, mut pieces) = mpsc::channel(PIECES_WAITING);
        let (done, printed) = mpsc::channel::<()>(1);
        std::thread::spawn(move || {
            while let Some(piece) = pieces.blocking_recv() {
                match piece {
                    Piece::Out(bytes) => show(&mut std::io::stdout(), &bytes),
                    Piece::Err(bytes) => show(&mut std::io::stderr(), &bytes),
                }
            }
            drop(done);
        });
        (Self(sender), printed)
    }
}

impl Room<'_> {
    fn print(self, piece: Piece) {
        self.0.send(piece);
    }
}

/// What comes from standard input.
#[derive(Debug, PartialEq, Eq)]
enum Typed {
    Bytes(bytes::Bytes),
    LetGo,
    End,
}

/// Standard input, once it is read, and how much of it is under way to the program.
#[derive(Default)]
struct Keyboard {
    keys: Option<mpsc::Receiver<Typed>>,
    under_way: usize,
}

impl Keyboard {
    fn begin(&mut self, forward_input: bool, tty: bool) {
        self.keys = forward_input.then(|| read_input(tty));
    }

    /// What is typed next; nothing while the program has not taken enough of what was typed before.
    async fn next(&mut self) -> Typed {
        match &mut self.keys {
            Some(keys) if self.under_way < INPUT_UNDER_WAY_MAX => {
                let typed = keys.recv().await.unwrap_or(Typed::End);
                if typed == Typed::End {
                    self.keys = None;
                }
                typed
            }
            Some(_) | None => std::future::pending().await,
        }
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
        ui.sentence("[bottle] ", &text)
    }
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
