//! Carries an approved Dockerfile out before the bottle is launched: the little bottle of [`crate::plan::build`] is made, every
//! RUN is an exec in it, its container ends, an image is made of its files, and everything but the image is taken back.
//!
//! What it will make, the image included, is recorded on the host first, so that a keeper that dies leaves nothing that a
//! sweep does not take back; only when all of it went well does the image stay, until the bottle is forgotten.

use super::{ATTEMPTS, Charge, Outcome, Shared, failure, panicked, serve, supplies};
use crate::control::Sidecar;
use crate::engine::{Chunk, CommitSpec, Engine, EngineError, ExecSpec, ImageFacts};
use crate::error::Failure;
use crate::image_files::Memory;
use crate::launch::{Launch, LaunchError};
use crate::plan::build::{Built, Deed, ROLE, deeds};
use crate::plan::provision::ImageFiles;
use crate::plan::{self, Facts, Names, Plan, Undo};
use crate::state::{KeptImage, Session};
use crate::stop::{Level, Stop};
use crate::transfer::Home;
use crate::undo::{Leftover, UndoStack};
use futures_util::{FutureExt, StreamExt};
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;
use supervise::check::Dockerfile;

/// How long all steps may take together, where the bottle's own time is not shorter.
const BUILD_WITHIN: Duration = Duration::from_secs(2 * 3600);
/// How long the container may take to end when its input has.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How often the writable layer is measured.
const DISK_LOOK: Duration = Duration::from_secs(5);
/// How often a step is asked whether it has ended, where its output goes on: something that it left behind may hold it.
const END_LOOK: Duration = Duration::from_secs(1);
/// Lines of a failed step that the error shows, and bytes of each.
const LAST_LINES: usize = 20;
const LINE_BYTES_MAX: usize = 2 << 10;

type Ended = (Outcome, Vec<Leftover>);

/// Makes the image that the bottle needs, unless it is there. Gives the users and groups of the image that it began with, by
/// which the agent's user is looked up; `None` where no Dockerfile is used.
pub async fn ready<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &mut Charge,
    session: &Session,
    stop: &Stop,
) -> Result<Option<ImageFiles>, Ended> {
    let Some(built) = charge.order.built().cloned() else { return Ok(None) };
    let failed = |failure: Failure| (Outcome::Failed(failure), Vec::new());
    if let Some(kept) = session.dir.image().filter(|kept| kept.content == built.content) {
        let found = shared.engine.image(&built.reference).await.map_err(|e| failed(e.into()))?;
        if found.is_some_and(|found| found.content == built.content) {
            return Ok(Some(kept.base));
        }
    }
    for attempt in 0..ATTEMPTS {
        charge.order.attempt = attempt;
        let (tried, leftovers) = one_try(shared, charge, &built, session, stop).await;
        let error = match tried {
            Ok(base) if leftovers.is_empty() => return Ok(Some(base)),
            Ok(_) => LaunchError::Build("it was, and not all of what it took could be taken back".to_owned()),
            Err(error) => error,
        };
        let is_last = !error.is_conflict() || attempt + 1 == ATTEMPTS || stop.level() > Level::Run;
        if is_last || !leftovers.is_empty() {
            let outcome = match error {
                LaunchError::Stopped => Outcome::Stopped,
                error => Outcome::Failed(failure(&error)),
            };
            return Err((outcome, leftovers));
        }
    }
    Err(failed(panicked()))
}

async fn one_try<E: Engine>(
    shared: &Arc<Shared<E>>,
    charge: &Charge,
    built: &Built,
    session: &Session,
    stop: &Stop,
) -> (Result<ImageFiles, LaunchError>, Vec<Leftover>) {
    let said = |failure: Failure| LaunchError::Build(failure.message);
    let prepared = async {
        let base = shared.engine.image(&built.base).await?;
        let base = base.ok_or_else(|| LaunchError::Build(format!("the engine has lost the image {}", built.from)))?;
        let facts = Facts { engine: Some(shared.engine.facts().await?), agent_image: Some(base.clone()) };
        let plan = plan::build::plan(&charge.order, &facts).map_err(|e| LaunchError::Build(e.to_string()))?;
        let made = supplies::supplies(&plan, charge, &session.dir).map_err(said)?;
        let image =
            crate::engine::Undo::RemoveImage { reference: built.reference.clone(), owner: charge.order.owner.clone() };
        let mut recorded = plan.undos();
        recorded.push(vec![Undo::Engine(image.clone())]);
        let io = |e: std::io::Error| LaunchError::Build(format!("the bottle's folder cannot be written: {e}"));
        session.dir.record_undos(&plan.owner, &recorded).map_err(io)?;
        Ok::<_, LaunchError>((base, plan, made, image))
    };
    let (base, plan, made, image) = match prepared.await {
        Ok(prepared) => prepared,
        Err(error) => return (Err(error), Vec::new()),
    };
    let progress = |text: &str| shared.console.progress_now(text);
    let notify = |text: &str| shared.log.line("keeper", "out", text);
    notify(&format!("carrying the Dockerfile out: {} on {}", built.reference, built.from));
    let launch = Launch::new(&*shared.engine, &plan, &made.supplies, stop, &shared.log, &progress, &notify);
    let launch = launch.remembering(Memory::beside(&session.dir), base.id.clone());
    let mut undo = UndoStack::default();
    let mut held = None;
    let building = async {
        let mut sidecars = launch.carry_out(&mut undo).await?;
        let files = launch.image_files(&Names::of(&plan.owner.id).build).await?;
        let container = sidecars.remove(ROLE);
        held = Some(sidecars);
        let container = container.ok_or_else(|| LaunchError::Build("its container is missing".to_owned()))?;
        Work { shared, charge, plan: &plan, built, base: &base, session, stop, files }.carry_out(container).await
    };
    let tried = match AssertUnwindSafe(building).catch_unwind().await {
        Ok(tried) => tried,
        Err(_) => Err(LaunchError::Panicked("the build; the log says where".to_owned())),
    };
    if tried.is_err() {
        // It may have been made all the same, by a request whose answer was lost.
        undo.stage();
        undo.push(Undo::Engine(image));
        let forgotten = match session.dir.image().filter(|kept| kept.reference == built.reference) {
            Some(_) => session.dir.forget_image(),
            None => Ok(()),
        };
        if let Err(error) = forgotten {
            shared.log.line("keeper", "err", &format!("the record of the image cannot be removed: {error}"));
        }
    }
    let home = Home { engine: &*shared.engine, dir: &session.dir, progress: &progress };
    let leftovers = undo.unwind(&*shared.engine, &home).await;
    drop(held);
    if leftovers.is_empty()
        && let Err(error) = session.dir.forget_recorded()
    {
        shared.log.line("keeper", "err", &format!("the record of the build cannot be removed: {error}"));
    }
    (tried, leftovers)
}

/// A build that is under way.
struct Work<'a, E: Engine> {
    shared: &'a Arc<Shared<E>>,
    charge: &'a Charge,
    plan: &'a Plan,
    built: &'a Built,
    base: &'a ImageFacts,
    session: &'a Session,
    stop: &'a Stop,
    files: ImageFiles,
}

impl<E: Engine> Work<'_, E> {
    /// All steps, the end of the container, and the image.
    async fn carry_out(self, container: Sidecar) -> Result<ImageFiles, LaunchError> {
        let wrong = |why: String| LaunchError::Build(why);
        let dockerfile = Dockerfile::parse(&self.built.text).map_err(|e| wrong(e.to_string()))?;
        let (steps, facts) = deeds(self.base, &dockerfile);
        let own = self.charge.order.bottle.limits.time_s.map_or(BUILD_WITHIN, Duration::from_secs);
        let within = own.min(BUILD_WITHIN);
        tokio::select! {
            ended = self.steps(&steps) => ended?,
            () = self.stop.reached(Level::Graceful) => return Err(LaunchError::Stopped),
            () = tokio::time::sleep(within) => return Err(wrong(format!("it took longer than {} s", within.as_secs()))),
            why = self.watch_disk() => return Err(wrong(why)),
        }
        // Whatever a step left running ends here, and writes no more.
        let name = Names::of(&self.plan.owner.id).build;
        if !container.end(END_WITHIN).await {
            return Err(wrong("its container does not end".to_owned()));
        }
        let ended = tokio::time::timeout(END_WITHIN, self.shared.engine.wait_exit(&name)).await;
        ended.map_err(|_| wrong("its container does not end".to_owned()))??;
        if let Some(why) = self.too_large(self.shared.engine.disk_used(&name).await?) {
            return Err(wrong(why));
        }
        self.commit(&name, facts).await?;
        Ok(self.files)
    }

    async fn commit(&self, container: &str, facts: ImageFacts) -> Result<(), LaunchError> {
        let io = |e: std::io::Error| LaunchError::Build(format!("the bottle's folder cannot be written: {e}"));
        let owner = self.charge.order.owner.clone();
        if let Some(old) = self.session.dir.image().filter(|old| old.reference != self.built.reference) {
            let undo = crate::engine::Undo::RemoveImage { reference: old.reference, owner: old.owner };
            self.shared.engine.undo(&undo).await?;
            self.session.dir.forget_image().map_err(io)?;
        }
        self.tell("making the image").await;
        let archive = plan::provision::cleared()?;
        let bytes = futures_util::stream::once(async move { Ok(bytes::Bytes::from(archive)) }).boxed();
        self.shared.engine.put(container, "/", bytes).await?;
        let image = CommitSpec {
            reference: self.built.reference.clone(),
            owner: owner.clone(),
            content: self.built.content.clone(),
            entrypoint: facts.entrypoint,
            command: facts.command,
            env: facts.env,
            user: facts.user,
            workdir: facts.workdir,
        };
        let kept = KeptImage {
            reference: self.built.reference.clone(),
            content: self.built.content.clone(),
            owner,
            base: self.files.clone(),
        };
        // First, since an engine may make it for a keeper that is dead by then, after a sweep has looked: what is written
        // down here is whole where it is there, and is used or forgotten by this.
        self.session.dir.write_image(&kept).map_err(io)?;
        self.shared.engine.commit(container, &image).await?;
        Ok(())
    }

    async fn steps(&self, steps: &[Deed]) -> Result<(), LaunchError> {
        for (n, step) in steps.iter().enumerate() {
            self.tell(&format!("step {} of {}: {}", n + 1, steps.len(), step.shown)).await;
            let (status, last) = self.step(step).await?;
            if status != 0 {
                let said = if last.is_empty() { String::new() } else { format!(":\n  {}", last.join("\n  ")) };
                let (line, shown) = (step.line, &step.shown);
                return Err(LaunchError::Build(format!("line {line}, {shown}, ended with status {status}{said}")));
            }
        }
        Ok(())
    }

    /// One step to its end: its status, and what it said last.
    async fn step(&self, step: &Deed) -> Result<(i64, Vec<String>), LaunchError> {
        let spec = ExecSpec {
            container: Names::of(&self.plan.owner.id).build,
            argv: step.argv.clone(),
            env: step.env.clone(),
            user: step.user.clone(),
            workdir: Some(step.workdir.clone()),
            tty: None,
        };
        let unrun = |error: EngineError| {
            let words = crate::error::chain(&error);
            LaunchError::Build(format!("line {}, {}, cannot be run: {words}", step.line, step.shown))
        };
        let exec = self.shared.engine.exec(&spec).await.map_err(unrun)?;
        // Nothing to read: what asks is answered with the end.
        let mut input = exec.streams.input;
        let _ = tokio::io::AsyncWriteExt::shutdown(&mut input).await;
        drop(input);
        let mut output = exec.streams.output;
        let mut said = Said::default();
        let mut look = tokio::time::interval(END_LOOK);
        loop {
            tokio::select! {
                piece = output.next() => match piece {
                    Some(Ok(Chunk::Out(bytes) | Chunk::Err(bytes))) => said.push(&bytes, |line| self.hear(line)),
                    Some(Err(_)) | None => break,
                },
                _ = look.tick() => {
                    if self.shared.engine.exec_code(&exec.handle).await.is_ok_and(|code| code.is_some()) {
                        // What it wrote before it ended is here within a moment.
                        let rest = async {
                            while let Some(Ok(Chunk::Out(bytes) | Chunk::Err(bytes))) = output.next().await {
                                said.push(&bytes, |line| self.hear(line));
                            }
                        };
                        let _ = tokio::time::timeout(END_LOOK, rest).await;
                        break;
                    }
                }
            }
        }
        said.finish(|line| self.hear(line));
        let code = serve::code(&*self.shared.engine, &exec.handle).await;
        let code = code.ok_or_else(|| LaunchError::Build("the engine lost a step".to_owned()))?;
        Ok((code, said.last.into()))
    }

    fn hear(&self, line: &str) {
        self.shared.log.line(ROLE, "out", line);
        self.shared.console.progress_now(&crate::ui::clean(line));
    }

    async fn tell(&self, text: &str) {
        self.shared.log.line("keeper", "out", text);
        self.shared.console.progress(&crate::ui::clean(text)).await;
    }

    /// Ends with the reason when more was written than may be.
    async fn watch_disk(&self) -> String {
        let container = Names::of(&self.plan.owner.id).build;
        loop {
            tokio::time::sleep(DISK_LOOK).await;
            let used = self.shared.engine.disk_used(&container).await;
            if let Some(why) = used.ok().and_then(|used| self.too_large(used)) {
                return why;
            }
        }
    }

    fn too_large(&self, used: u64) -> Option<String> {
        let limit = self.charge.order.bottle.limits.disk_bytes;
        (used > limit).then(|| format!("it wrote more than the bottle's limit of {} MiB", limit >> 20))
    }
}

/// Output in pieces -> lines, cut where they are too long, and the last of them.
#[derive(Default)]
struct Said {
    open: Vec<u8>,
    last: VecDeque<String>,
}

impl Said {
    fn push(&mut self, bytes: &[u8], mut hear: impl FnMut(&str)) {
        for piece in bytes.split_inclusive(|b| matches!(b, b'\n' | b'\r')) {
            self.open.extend_from_slice(piece);
            if piece.ends_with(b"\n") || piece.ends_with(b"\r") || self.open.len() > LINE_BYTES_MAX {
                self.finish(&mut hear);
            }
        }
    }

    fn finish(&mut self, mut hear: impl FnMut(&str)) {
        let mut open = std::mem::take(&mut self.open);
        open.truncate(LINE_BYTES_MAX);
        let line = String::from_utf8_lossy(&open);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        hear(line);
        if self.last.len() == LAST_LINES {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }
}
