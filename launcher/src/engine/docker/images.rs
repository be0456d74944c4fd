//! Images: looked up, loaded, pulled, built, derived. Nothing but the image asked for is left behind: no container, and no
//! image that lost its tag to a newer one.

use super::failure::{failed, late, said};
use super::{DEED_WITHIN, Inner, LOAD_WITHIN, LOOK_WITHIN, look, scratch};
use crate::engine::{CONTENT_LABEL, CommitSpec, EngineError, ImageFacts, Kind, Owner, ScratchImage, body};
use bollard::errors::Error;
use bollard::models::{BuildInfo, ContainerConfig, ContainerCreateBody, CreateImageInfo, HostConfig};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CommitContainerOptionsBuilder, ContainerArchiveInfoOptionsBuilder,
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, ImportImageOptionsBuilder, ListContainersOptionsBuilder,
    RemoveImageOptionsBuilder, UploadToContainerOptionsBuilder,
};
use bytes::Bytes;
use futures_util::StreamExt;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Committing writes all that a build has made.
const COMMIT_WITHIN: Duration = Duration::from_secs(600);

/// The role that the labels of an image of a bottle say.
const IMAGE_ROLE: &str = "image";

/// How many lines of a failed build its error carries.
const LINES_MAX: usize = 20;

/// Longest line of progress.
const LINE_BYTES_MAX: usize = 8 << 10;

/// What the names of containers begin with that live while an image is derived.
const DERIVATION: &str = "bottle-derive-";

/// How old such a container must be for its process to be surely gone; clocks of engine and launcher may differ.
const DERIVATION_AGE: Duration = Duration::from_secs(3600);

/// What `derive` is asked for.
pub(super) struct Derived {
    pub base: String,
    pub tag: String,
    pub path: String,
    pub mode: u32,
    pub content: Bytes,
    pub entrypoint: Vec<String>,
    pub labels: BTreeMap<String, String>,
}

impl Inner {
    pub(super) async fn image(&self, reference: &str) -> Result<Option<ImageFacts>, EngineError> {
        let what = format!("could not look for image {reference}");
        checked(reference, &what)?;
        let seen = match look(&what, LOOK_WITHIN, self.client.inspect_image(reference)).await {
            Ok(seen) => seen,
            Err(e) if e.kind == Kind::NotFound => return Ok(None),
            Err(e) => return Err(e),
        };
        let config = seen.config.unwrap_or_default();
        Ok(Some(ImageFacts {
            id: seen.id.unwrap_or_default(),
            digests: seen.repo_digests.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            command: config.cmd.unwrap_or_default(),
            env: config.env.unwrap_or_default(),
            workdir: config.working_dir.unwrap_or_default(),
            content: config.labels.unwrap_or_default().remove(CONTENT_LABEL).unwrap_or_default(),
        }))
    }

    pub(super) async fn load(&self, image: &ScratchImage) -> Result<String, EngineError> {
        let what = format!("could not load image {}", image.tag);
        let mut before = Vec::new();
        for name in std::iter::once(&image.tag).chain(&image.aliases) {
            before.push(self.image(name).await?);
        }
        // Known by its own label it need not even be made into an archive, which costs more than the question.
        let content = image.labels.get(CONTENT_LABEL);
        let id = before.first().cloned().flatten().map(|seen| seen.id);
        let same = |seen: &Option<ImageFacts>| {
            seen.as_ref().is_some_and(|seen| Some(&seen.content) == content && Some(&seen.id) == id.as_ref())
        };
        if let Some(id) = id.clone().filter(|_| before.iter().all(same)) {
            return Ok(id);
        }
        let archive = scratch::archive(image, &self.arch)
            .map_err(|e| EngineError::new(what.as_str(), Kind::Other, Some(Box::new(e) as _)))?;
        if before.iter().all(|seen| seen.as_ref().is_some_and(|seen| seen.id == archive.id)) {
            return Ok(archive.id);
        }
        let loading = async {
            let options = ImportImageOptionsBuilder::default().quiet(true).build();
            let mut answers = self.client.import_image(options, bollard::body_full(archive.bytes), None);
            while let Some(answer) = answers.next().await {
                answer?;
            }
            Ok(())
        };
        look(&what, LOAD_WITHIN, loading).await?;
        // An engine with another image store gives other ids: its word counts.
        let Some(after) = self.image(&image.tag).await? else {
            return Err(said(what, Kind::Other, "the engine took it and does not have it".to_owned()));
        };
        for seen in before {
            self.drop_untagged(seen, &after.id).await;
        }
        Ok(after.id)
    }

    pub(super) async fn pull(
        &self,
        reference: &str,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EngineError> {
        let what = format!("could not pull image {reference}");
        checked(reference, &what)?;
        // Without a tag the engine would pull all of them.
        let name = if has_tag(reference) { reference.to_owned() } else { format!("{reference}:latest") };
        let options = CreateImageOptionsBuilder::default().from_image(&name).build();
        let mut answers = std::pin::pin!(self.client.create_image(Some(options), None, None));
        while let Some(answer) = answers.next().await {
            if let Some(line) = pull_line(answer.map_err(|e| failed(what.as_str(), e))?) {
                progress(&line);
            }
        }
        Ok(())
    }

    pub(super) async fn build(
        &self,
        tag: &str,
        context: Bytes,
        progress: &(dyn Fn(&str) + Send + Sync),
    ) -> Result<(), EngineError> {
        let what = format!("could not build image {tag}");
        checked(tag, &what)?;
        let before = self.image(tag).await?;
        let options =
            BuildImageOptionsBuilder::default().dockerfile("Dockerfile").t(tag).rm(true).forcerm(true).build();
        let mut answers = std::pin::pin!(self.client.build_image(options, None, Some(bollard::body_full(context))));
        let mut lines = Lines::default();
        while let Some(answer) = answers.next().await {
            match answer {
                Ok(BuildInfo { stream: Some(text), .. }) => lines.push(&text, progress),
                Ok(info) => {
                    if let Some(status) = info.status {
                        lines.push(&format!("{status}\n"), progress);
                    }
                }
                Err(e) => {
                    lines.finish(progress);
                    return Err(lines.failed(&what, e));
                }
            }
        }
        lines.finish(progress);
        if let Some(after) = self.image(tag).await? {
            self.drop_untagged(before, &after.id).await;
        }
        Ok(())
    }

    pub(super) async fn derive(&self, derived: &Derived) -> Result<(), EngineError> {
        let what = format!("could not derive image {} from {}", derived.tag, derived.base);
        checked(&derived.base, &what)?;
        checked(&derived.tag, &what)?;
        let before = self.image(&derived.tag).await?;
        // Never started, so it needs no more than a configuration that the engine accepts.
        let body = ContainerCreateBody {
            image: Some(derived.base.clone()),
            entrypoint: Some(derived.entrypoint.clone()),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        self.sweep_derivations(&what).await?;
        let options = CreateContainerOptionsBuilder::default().name(&derivation_name()).build();
        let id = look(&what, LOOK_WITHIN, self.client.create_container(Some(options), body)).await?.id;
        let committed = self.put_and_commit(&id, derived, &what).await;
        let removed = match tokio::time::timeout(DEED_WITHIN, self.remove_container(&id)).await {
            Ok(answer) => answer.map_err(|e| failed(what.as_str(), e)),
            Err(_) => Err(late(what.as_str(), DEED_WITHIN)),
        };
        let image = committed?;
        removed?;
        self.drop_untagged(before, &image).await;
        Ok(())
    }

    /// Removes containers of derivations whose process was killed: of our naming, never started, and old. Labels would
    /// find them better, and end up in the image.
    async fn sweep_derivations(&self, what: &str) -> Result<(), EngineError> {
        let filters = HashMap::from([("name", vec![DERIVATION]), ("status", vec!["created"])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        let found = look(what, LOOK_WITHIN, self.client.list_containers(Some(options))).await?;
        let before = seconds_now() - DERIVATION_AGE.as_secs().cast_signed();
        let prefix = format!("/{DERIVATION}");
        let old = found.into_iter().filter(|c| {
            c.created.is_some_and(|at| at < before) && c.names.iter().flatten().any(|name| name.starts_with(&prefix))
        });
        for id in old.filter_map(|c| c.id) {
            look(what, DEED_WITHIN, self.remove_container(&id)).await?;
        }
        Ok(())
    }

    pub(super) async fn remove_image(&self, reference: &str) -> Result<(), EngineError> {
        let what = format!("could not remove image {reference}");
        checked(reference, &what)?;
        let options = RemoveImageOptionsBuilder::default().build();
        match look(&what, DEED_WITHIN, self.client.remove_image(reference, Some(options), None)).await {
            Ok(_) => Ok(()),
            Err(e) if e.kind == Kind::NotFound => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Removes an image if its labels say that it belongs to this bottle.
    pub(super) async fn remove_own_image(&self, reference: &str, owner: &Owner) -> Result<(), EngineError> {
        let what = format!("could not remove image {reference}");
        checked(reference, &what)?;
        let seen = match look(&what, LOOK_WITHIN, self.client.inspect_image(reference)).await {
            Ok(seen) => seen,
            Err(e) if e.kind == Kind::NotFound => return Ok(()),
            Err(e) => return Err(e),
        };
        let labels = seen.config.and_then(|config| config.labels).unwrap_or_default();
        let is_ours = body::owner(&labels)
            .is_some_and(|(found, _)| (&found.id, &found.host, &found.state) == (&owner.id, &owner.host, &owner.state));
        if is_ours { self.remove_image(reference).await } else { Ok(()) }
    }

    pub(super) async fn commit(&self, container: &str, image: &CommitSpec) -> Result<String, EngineError> {
        let what = format!("could not make image {} of container {container}", image.reference);
        checked(&image.reference, &what)?;
        let (repo, tag) = image.reference.rsplit_once(':').unwrap_or((&image.reference, "latest"));
        let id = self.container(container);
        let options = CommitContainerOptionsBuilder::default().container(&id).repo(repo).tag(tag).pause(false).build();
        let mut labels = body::labels(&image.owner, IMAGE_ROLE);
        labels.insert(CONTENT_LABEL.to_owned(), image.content.clone());
        // All of it is said: what is left out, the engine takes from the container.
        let config = ContainerConfig {
            entrypoint: Some(image.entrypoint.clone()),
            cmd: Some(image.command.clone()),
            env: Some(image.env.clone()),
            user: Some(image.user.clone()),
            working_dir: Some(image.workdir.clone()),
            labels: Some(labels),
            healthcheck: Some(body::no_health_check()),
            ..ContainerConfig::default()
        };
        let before = self.image(&image.reference).await?;
        let made = look(&what, COMMIT_WITHIN, self.client.commit_container(options, config)).await?.id;
        self.drop_untagged(before, &made).await;
        Ok(made)
    }

    async fn put_and_commit(&self, id: &str, derived: &Derived, what: &str) -> Result<String, EngineError> {
        let archive = self.archive(id, derived, what).await?;
        let options = UploadToContainerOptionsBuilder::default().path("/").build();
        let put = self.client.upload_to_container(id, Some(options), bollard::body_full(archive.into()));
        look(what, DEED_WITHIN, put).await?;
        let (repo, tag) = derived.tag.rsplit_once(':').unwrap_or((&derived.tag, "latest"));
        let options = CommitContainerOptionsBuilder::default().container(id).repo(repo).tag(tag).pause(false).build();
        // What is not said here stays as the base has it. An entry point of our own takes the command away.
        let config = ContainerConfig {
            entrypoint: Some(derived.entrypoint.clone()),
            cmd: Some(Vec::new()),
            labels: Some(derived.labels.clone().into_iter().collect()),
            healthcheck: Some(body::no_health_check()),
            ..ContainerConfig::default()
        };
        Ok(look(what, DEED_WITHIN, self.client.commit_container(options, config)).await?.id)
    }

    /// The file, with those directories above it that the base does not have: unpacking one that exists would change
    /// its mode.
    async fn archive(&self, id: &str, derived: &Derived, what: &str) -> Result<Vec<u8>, EngineError> {
        let unmade = |e: std::io::Error| EngineError::new(what, Kind::Other, Some(Box::new(e) as _));
        let path = scratch::relative(&derived.path).map_err(unmade)?;
        let mut tar = tar::Builder::new(Vec::new());
        for parent in scratch::parents(path) {
            let options = ContainerArchiveInfoOptionsBuilder::default().path(&format!("/{parent}")).build();
            match look(what, LOOK_WITHIN, self.client.get_container_archive_info(id, Some(options))).await {
                Ok(_) => {}
                Err(e) if e.kind == Kind::NotFound => scratch::append_directory(&mut tar, parent).map_err(unmade)?,
                Err(e) => return Err(e),
            }
        }
        scratch::append(&mut tar, path, derived.mode, &derived.content).map_err(unmade)?;
        tar.into_inner().map_err(unmade)
    }

    /// Removes the image that had a tag before, unless it is the same, has another name, or is used.
    async fn drop_untagged(&self, before: Option<ImageFacts>, after: &str) {
        let Some(before) = before.filter(|image| image.id != after && !image.id.is_empty()) else { return };
        let removal = async {
            let seen = self.client.inspect_image(&before.id).await?;
            if seen.repo_tags.unwrap_or_default().is_empty() && seen.repo_digests.unwrap_or_default().is_empty() {
                let options = RemoveImageOptionsBuilder::default().build();
                self.client.remove_image(&before.id, Some(options), None).await?;
            }
            Ok::<(), Error>(())
        };
        // It takes room and nothing else: a container that uses it keeps it, and that is right.
        let _ = tokio::time::timeout(DEED_WITHIN, removal).await;
    }
}

/// A name that no other derivation has, on this host or another with the same engine.
fn derivation_name() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    format!("{DERIVATION}{since:x}-{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

fn seconds_now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs().cast_signed()
}

/// Text in pieces -> lines, and the last of them.
#[derive(Default)]
struct Lines {
    open: String,
    last: VecDeque<String>,
}

impl Lines {
    fn push(&mut self, text: &str, progress: &(dyn Fn(&str) + Send + Sync)) {
        for piece in text.split_inclusive('\n') {
            self.open.push_str(piece);
            if piece.ends_with('\n') || self.open.len() > LINE_BYTES_MAX {
                self.finish(progress);
            }
        }
    }

    fn finish(&mut self, progress: &(dyn Fn(&str) + Send + Sync)) {
        let line = std::mem::take(&mut self.open);
        let line = line.trim_end();
        if line.is_empty() {
            return;
        }
        progress(line);
        if self.last.len() == LINES_MAX {
            self.last.pop_front();
        }
        self.last.push_back(line.to_owned());
    }

    fn failed(self, what: &str, error: Error) -> EngineError {
        let failed = failed(what, error);
        let words = failed.source.map(|s| s.to_string()).unwrap_or_default();
        let lines: Vec<String> = self.last.into();
        said(what, failed.kind, format!("{words}\n{}", lines.join("\n")))
    }
}

/// Pulls tell every few KB of every layer; a line is what is new to a reader.
fn pull_line(info: CreateImageInfo) -> Option<String> {
    let status = info.status?;
    if info.progress_detail.is_some_and(|p| p.current.is_some()) {
        return None;
    }
    Some(match info.id {
        Some(id) if !id.is_empty() => format!("{id}: {status}"),
        _ => status,
    })
}

/// A reference goes into the path of a request: only what references are made of.
fn checked(reference: &str, what: &str) -> Result<(), EngineError> {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    let good = !reference.is_empty()
        && reference.len() <= 512
        && reference.chars().all(plain)
        && reference.split('/').all(|part| !matches!(part, "" | "." | ".."));
    if good {
        return Ok(());
    }
    Err(said(what, Kind::Other, format!("{reference:?} is not an image reference")))
}

/// Has it a tag or a digest? A colon before the last slash is a port.
fn has_tag(reference: &str) -> bool {
    let name = reference.rsplit('/').next().unwrap_or(reference);
    name.contains(':') || reference.contains('@')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn references() {
        for (reference, good, tagged) in [
            ("debian", true, false),
            ("debian:bookworm-slim", true, true),
            ("there:5000/a/b", true, false),
            ("there:5000/a/b:1", true, true),
            ("a@sha256:00", true, true),
            ("sha256:00", true, true),
            ("../containers/json", false, false),
            ("a/../b", false, false),
            ("/a", false, false),
            ("a?b", false, false),
            ("a b", false, false),
            ("a#b", false, false),
            ("a%2e", false, false),
            ("", false, false),
        ] {
            assert_eq!(checked(reference, "x").is_ok(), good, "{reference}");
            if good {
                assert_eq!(has_tag(reference), tagged, "{reference}");
            }
        }
    }

    #[test]
    fn a_failed_build_carries_its_last_lines() {
        let told = Mutex::new(Vec::new());
        let progress = |line: &str| told.lock().unwrap().push(line.to_owned());
        let mut lines = Lines::default();
        lines.push("Step 1", &progress);
        lines.push("/2 : FROM x\n\n", &progress);
        for n in 0..30 {
            lines.push(&format!("line {n}\nha"), &progress);
            lines.push("lf\n", &progress);
        }
        lines.push("no end", &progress);
        lines.finish(&progress);
        let error = lines.failed("could not build image x", Error::DockerStreamError { error: "code: 1".to_owned() });
        let words = error.source.unwrap().to_string();
        assert!(words.starts_with("code: 1\n"), "{words}");
        assert!(words.ends_with("line 29\nhalf\nno end"), "{words}");
        assert_eq!(words.lines().count(), 1 + LINES_MAX);
        let told = told.into_inner().unwrap();
        assert_eq!((told.len(), told[0].as_str()), (62, "Step 1/2 : FROM x"));
    }
}
