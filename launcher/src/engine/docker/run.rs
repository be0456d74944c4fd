//! What goes on in a container: streams, execs, archives in and out, its end.

use super::failure::{failed, late, said};
use super::streams::{Framing, open};
use super::{DEED_WITHIN, Inner, LOOK_WITHIN, look};
use crate::engine::body::Api;
use crate::engine::{Chunk, EngineError, Exec, ExecSpec, Kind, Streams};
use bollard::errors::Error;
use bollard::models::{ExecConfig, ExecInspectResponse};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, InspectContainerOptionsBuilder, ResizeExecOptionsBuilder,
    UploadToContainerOptionsBuilder, WaitContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use std::time::Duration;
use tokio::io::AsyncRead;
use tokio_util::io::StreamReader;

/// The first API version whose execs are told the size of their terminal at create.
const CONSOLE_SIZE_SINCE: Api = Api { major: 1, minor: 42 };

/// Between two looks at an exec that is about to run.
const EXEC_PAUSE: Duration = Duration::from_millis(10);

/// Most bytes of the engine's words about an exec that did not start.
const WORDS_BYTES_MAX: usize = 4 << 10;

impl Inner {
    /// The client's stream is lazy, so it is polled at once; and it reports a status that is not zero as an error.
    pub(super) async fn wait_exit(&self, container: &str) -> Result<i64, EngineError> {
        let what = format!("could not wait for container {container}");
        let options = WaitContainerOptionsBuilder::default().condition("not-running").build();
        let mut answers = std::pin::pin!(self.client.wait_container(&self.container(container), Some(options)));
        match answers.next().await {
            Some(Ok(answer)) => Ok(answer.status_code),
            Some(Err(Error::DockerContainerWaitError { code, error })) if error.is_empty() => Ok(code),
            Some(Err(e)) => Err(failed(what, e)),
            None => Err(said(what, Kind::Unreachable, "the engine closed the connection".to_owned())),
        }
    }

    pub(super) async fn put(
        &self,
        container: &str,
        directory: &str,
        archive: BoxStream<'static, std::io::Result<Bytes>>,
    ) -> Result<(), EngineError> {
        let options = UploadToContainerOptionsBuilder::default().path(directory).build();
        self.client
            .upload_to_container(&self.container(container), Some(options), bollard::body_try_stream(archive))
            .await
            .map_err(|e| failed(format!("could not write into {directory} of container {container}"), e))
    }

    pub(super) async fn get(
        &self,
        container: &str,
        path: &str,
    ) -> Result<Option<Box<dyn AsyncRead + Send + Unpin>>, EngineError> {
        let what = format!("could not read {path} of container {container}");
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let mut archive = self.client.download_from_container(&self.container(container), Some(options));
        // The first piece says whether there is such a path.
        let first =
            tokio::time::timeout(DEED_WITHIN, archive.next()).await.map_err(|_| late(what.as_str(), DEED_WITHIN))?;
        let first = match first {
            Some(Err(Error::DockerResponseServerError { status_code: 404, message }))
                if !message.contains("No such container") =>
            {
                return Ok(None);
            }
            Some(Err(e)) => return Err(failed(what, e)),
            Some(Ok(bytes)) => Some(Ok(bytes)),
            None => None,
        };
        let rest = archive.map(|piece| piece.map_err(std::io::Error::other));
        Ok(Some(Box::new(StreamReader::new(stream::iter(first).chain(rest).boxed()))))
    }

    pub(super) async fn attach(&self, container: &str) -> Result<Streams, EngineError> {
        let path = format!(
            "/v{}/containers/{}/attach?stream=1&stdin=1&stdout=1&stderr=1&logs=0",
            self.api,
            self.container(container)
        );
        let what = format!("could not attach to container {container}");
        open(&self.address, &path, b"", Framing::Multiplexed, &what).await
    }

    /// Returns when the program runs, or has run. Engine 20.10 accepts an exec of a missing program, writes a sentence
    /// into its output and says status 126 (never 127), with no process id: that is [`Kind::NoProgram`] here. An unknown
    /// user and a missing working directory look the same; the engine's sentence tells.
    pub(super) async fn exec(&self, spec: &ExecSpec) -> Result<Exec, EngineError> {
        let program = spec.argv.first().map(String::as_str).unwrap_or_default();
        let what = format!("could not run {program} in container {}", spec.container);
        let size = spec.tty.filter(|_| self.api >= CONSOLE_SIZE_SINCE);
        let config = ExecConfig {
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(spec.tty.is_some()),
            console_size: size.map(|(columns, rows)| vec![usize::from(rows), usize::from(columns)]),
            cmd: Some(spec.argv.clone()),
            env: Some(spec.env.iter().map(|(name, value)| format!("{name}={value}")).collect()),
            user: Some(spec.user.clone()),
            working_dir: spec.workdir.clone(),
            ..ExecConfig::default()
        };
        let container = self.container(&spec.container);
        let handle = look(&what, LOOK_WITHIN, self.client.create_exec(&container, config)).await?.id;
        let framing = if spec.tty.is_some() { Framing::Raw } else { Framing::Multiplexed };
        let path = format!("/v{}/exec/{handle}/start", self.api);
        let body = format!(r#"{{"Detach":false,"Tty":{}}}"#, spec.tty.is_some());
        let mut streams = open(&self.address, &path, body.as_bytes(), framing, &what).await?;
        let begun = tokio::time::timeout(DEED_WITHIN, self.begun(&handle, &what));
        if !begun.await.map_err(|_| late(what.as_str(), DEED_WITHIN))?? {
            return Err(said(what, Kind::NoProgram, words(&mut streams).await));
        }
        if let Some(size) = spec.tty {
            match self.resize(&handle, size).await {
                // It may have ended meanwhile, and a size is no reason to lose its output.
                Ok(()) | Err(EngineError { kind: Kind::Other | Kind::NotFound | Kind::Conflict, .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(Exec { handle, streams })
    }

    /// Waits until an exec has a process; false when it ended without one.
    async fn begun(&self, handle: &str, what: &str) -> Result<bool, EngineError> {
        loop {
            let seen = look(what, LOOK_WITHIN, self.client.inspect_exec(handle)).await?;
            if seen.pid.is_some_and(|pid| pid > 0) {
                return Ok(true);
            }
            if ended(&seen).is_some() {
                return Ok(false);
            }
            tokio::time::sleep(EXEC_PAUSE).await;
        }
    }

    pub(super) async fn resize(&self, handle: &str, (columns, rows): (u16, u16)) -> Result<(), EngineError> {
        let options = ResizeExecOptionsBuilder::default().w(columns.into()).h(rows.into()).build();
        look("could not set the size of a terminal", LOOK_WITHIN, self.client.resize_exec(handle, options)).await
    }

    pub(super) async fn exec_code(&self, handle: &str) -> Result<Option<i64>, EngineError> {
        let seen = look("could not ask how an exec ended", LOOK_WITHIN, self.client.inspect_exec(handle)).await?;
        Ok(ended(&seen))
    }

    pub(super) async fn disk_used(&self, container: &str) -> Result<u64, EngineError> {
        let what = format!("could not measure container {container}");
        let options = InspectContainerOptionsBuilder::default().size(true).build();
        // The engine walks the whole layer for it.
        let seen =
            look(&what, DEED_WITHIN, self.client.inspect_container(&self.container(container), Some(options))).await?;
        // An empty layer is left out of the answer.
        Ok(seen.size_rw.unwrap_or(0).try_into().unwrap_or(0))
    }
}

fn ended(exec: &ExecInspectResponse) -> Option<i64> {
    exec.exit_code.filter(|_| exec.running != Some(true))
}

/// What the engine wrote into the output of an exec that did not start.
async fn words(streams: &mut Streams) -> String {
    let mut text = Vec::new();
    while text.len() < WORDS_BYTES_MAX {
        match streams.output.next().await {
            Some(Ok(Chunk::Out(bytes) | Chunk::Err(bytes))) => text.extend_from_slice(&bytes),
            Some(Err(_)) | None => break,
        }
    }
    text.truncate(WORDS_BYTES_MAX);
    String::from_utf8_lossy(&text).trim().to_owned()
}
