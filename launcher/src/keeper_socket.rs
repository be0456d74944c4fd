//! How every other command reaches a keeper: frames over a Unix socket in the bottle's folder. Whoever can open the
//! folder is the operator; nothing inside a bottle ever sees it.
//!
//! A frame is a length (4 bytes, big endian), a kind (1 byte), and its content: JSON for words, raw bytes for streams.

use crate::exit::Exit;
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{SinkExt, StreamExt};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::codec::{FramedRead, FramedWrite, LengthDelimitedCodec};

/// A frame is never longer.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// Pieces of input that a client may send before the keeper says that one is [`ToClient::Taken`]: an agent that reads
/// nothing must not keep the keeper from hearing what else the client says, or that it has gone.
pub const INPUT_UNDER_WAY_MAX: usize = 16;

/// What a client says first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "hello", rename_all = "kebab-case")]
pub enum Hello {
    /// `run`: the bottle begins, and ends with this connection unless it says [`ToKeeper::Detach`].
    Own {
        /// The size of its terminal; `None`: there is none.
        tty: Option<(u16, u16)>,
    },
    /// `attach`: see and type what the agent's terminal has.
    Attach {
        /// The size of its terminal; `None`: there is none.
        tty: Option<(u16, u16)>,
    },
    /// `exec`: one more program in the agent's container, as the agent.
    Exec {
        /// Program and arguments.
        argv: Vec<String>,
        /// The size of its terminal; `None`: there is none.
        tty: Option<(u16, u16)>,
    },
    /// `ps`: how are you?
    Status,
    /// `proposals`, `approve`, `reject`, `allow`, `revoke`.
    Desk {
        /// What is asked of it.
        request: Box<crate::verdict::Request>,
    },
    /// `stop`: end.
    Stop {
        /// At once, without asking the agent.
        now: bool,
    },
}

/// What a client says after that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "say", rename_all = "kebab-case")]
pub enum ToKeeper {
    /// The terminal has another size (columns, rows).
    Resize {
        /// Columns and rows.
        size: (u16, u16),
    },
    /// There is no more input.
    InputEnd,
    /// The client goes; the bottle stays.
    Detach,
    /// End, one level more urgent than before.
    Stop,
}

/// What a keeper says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "tell", rename_all = "kebab-case")]
pub enum ToClient {
    /// What is going on.
    Progress {
        /// In words.
        text: String,
    },
    /// The agent runs.
    Started,
    /// A piece of input has been handed on.
    Taken,
    /// Something a person should know, such as a sidecar that died.
    Notice {
        /// In words.
        text: String,
    },
    /// The bottle, or the exec, has ended.
    Ended(Box<Ending>),
    /// A person is wanted: the same, and a bell.
    Bell {
        /// In words.
        text: String,
    },
    /// The answer to [`Hello::Desk`].
    Desk {
        /// What the desk says.
        reply: crate::verdict::Reply,
    },
    /// The answer to [`Hello::Status`].
    Status(Box<Status>),
    /// What was asked cannot be had.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How a bottle ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ending {
    /// The exit status for the client.
    pub exit: Exit,
    /// What failed, if anything did.
    pub error: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// What happened; `None` for an exec, and for a launch that failed.
    pub report: Option<crate::report::Report>,
    /// What could not be taken back.
    pub leftovers: Vec<String>,
}

/// How a bottle is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// `launching`, `running`, `ending`.
    pub phase: String,
    /// Role -> `ready`, `ended`.
    pub sidecars: std::collections::BTreeMap<String, String>,
    /// Role -> how often it was started again, where it was.
    #[serde(default)]
    pub restarts: std::collections::BTreeMap<String, u64>,
    /// What happened so far.
    pub report: crate::report::Report,
}

/// One frame.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame<W> {
    /// Words.
    Words(W),
    /// Bytes of standard input or output.
    Data(Bytes),
    /// Bytes of standard error.
    ErrorData(Bytes),
}

const WORDS: u8 = b'w';
const DATA: u8 = b'd';
const ERROR_DATA: u8 = b'e';

/// The reading end of a connection.
pub struct Reader(FramedRead<OwnedReadHalf, LengthDelimitedCodec>);

/// The writing end of a connection.
pub struct Writer(FramedWrite<OwnedWriteHalf, LengthDelimitedCodec>);

/// Splits a connection into its ends.
pub fn split(stream: UnixStream) -> (Reader, Writer) {
    let codec = LengthDelimitedCodec::builder().max_frame_length(FRAME_BYTES_MAX).new_codec();
    let (read, write) = stream.into_split();
    (Reader(FramedRead::new(read, codec.clone())), Writer(FramedWrite::new(write, codec)))
}

impl Reader {
    /// The next frame; `None` when the other end has gone. A frame that cannot be read is an error.
    pub async fn next<W: for<'de> Deserialize<'de>>(&mut self) -> io::Result<Option<Frame<W>>> {
        let Some(frame) = self.0.next().await.transpose()? else {
            return Ok(None);
        };
        let mut frame = frame.freeze();
        if frame.is_empty() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let kind = frame.split_to(1);
        match kind.first() {
            Some(&WORDS) => Ok(Some(Frame::Words(serde_json::from_slice(&frame)?))),
            Some(&DATA) => Ok(Some(Frame::Data(frame))),
            Some(&ERROR_DATA) => Ok(Some(Frame::ErrorData(frame))),
            Some(_) | None => Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

impl Writer {
    /// Sends a frame.
    pub async fn send<W: Serialize>(&mut self, frame: &Frame<W>) -> io::Result<()> {
        let (kind, content) = match frame {
            Frame::Words(words) => (WORDS, Bytes::from(serde_json::to_vec(words)?)),
            Frame::Data(bytes) => (DATA, bytes.clone()),
            Frame::ErrorData(bytes) => (ERROR_DATA, bytes.clone()),
        };
        let mut out = BytesMut::with_capacity(content.len() + 1);
        out.put_u8(kind);
        out.extend_from_slice(&content);
        self.0.send(out.freeze()).await
    }

    /// Sends words.
    pub async fn say<W: Serialize>(&mut self, words: &W) -> io::Result<()> {
        self.send(&Frame::Words(words)).await
    }
}

/// Listens on a bottle's socket.
pub fn listen(socket: &Path) -> io::Result<UnixListener> {
    let listener = with_short_path(socket, |path| UnixListener::bind(path))?;
    std::fs::set_permissions(socket, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(listener)
}

/// Connects to a bottle's keeper.
pub async fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = with_short_path(socket, |path| std::os::unix::net::UnixStream::connect(path))?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

/// A socket's address holds 107 bytes, and a state directory may be deeper than that: the folder is opened, and the
/// socket named through the descriptor.
fn with_short_path<T>(socket: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_arrive_as_they_were_sent_whatever_the_folders_depth() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120));
        std::fs::create_dir(&deep).unwrap();
        let socket = deep.join("keeper.sock");
        let listener = listen(&socket).unwrap();
        let client = connect(&socket).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let (mut reader, _) = split(server);
        let (_, mut writer) = split(client);
        writer.say(&Hello::Stop { now: true }).await.unwrap();
        writer.send::<Hello>(&Frame::Data(Bytes::from_static(b"\x00\xff"))).await.unwrap();
        drop(writer);
        assert_eq!(reader.next::<Hello>().await.unwrap(), Some(Frame::Words(Hello::Stop { now: true })));
        assert_eq!(reader.next::<Hello>().await.unwrap(), Some(Frame::Data(Bytes::from_static(b"\x00\xff"))));
        assert_eq!(reader.next::<Hello>().await.unwrap(), None);
    }
}
