//! Where the agent's container comes from: provider, image or Dockerfile, and user.

use super::error::{path, quoted};
use super::places::Places;
use super::reader::{Table, Text, text};
use super::report::{Report, Span, read_text};
use super::tree::Entry;
use super::{AgentSource, ImageSource};
use crate::provider::{self, Provider};
use std::path::Path;

/// Characters of an image's reference.
const REFERENCE_CHARS_MAX: usize = 255;

/// Reads the table `agent`. `top` is where to say that there is none.
pub(super) fn read(entry: Option<&Entry>, top: Span, places: &Places, report: &mut Report) -> Option<AgentSource> {
    let Some(entry) = entry else {
        let hint = "write `agent: {provider: shell, image: debian:bookworm-slim}`";
        report.missing(top, "`agent` is missing in the bottle", hint.to_owned());
        return None;
    };
    let mut table = Table::open(&entry.value, "`agent`", entry.at, report)?;
    let before = report.errors();
    let provider = match table.take("provider") {
        Some(provider) => text(&provider.value, "`provider`", report),
        None => Some(Text { text: "shell".to_owned(), at: entry.at }),
    };
    let provider = provider.and_then(|provider| super::provider::find(&provider, places, report));
    let image = image(&mut table, provider.as_ref(), places, report);
    let user = table.take("user").and_then(|entry| text(&entry.value, "`user`", report));
    let user = user.and_then(|user| read_user(&user, report));
    table.finish(report);
    let source = AgentSource { provider: provider?, image: image?, user };
    (report.errors() == before).then_some(source)
}

/// What the manifest says, or else the provider. `provider` is `None` after an error.
fn image(
    table: &mut Table<'_>,
    provider: Option<&Provider>,
    places: &Places,
    report: &mut Report,
) -> Option<ImageSource> {
    match (table.take("image"), table.take("dockerfile")) {
        (Some(_), Some(dockerfile)) => {
            let hint = "keep the one that the agent's container is made from";
            report.error_with(dockerfile.at, "`dockerfile` stands beside `image`", hint.to_owned());
            None
        }
        (Some(image), None) => {
            let image = text(&image.value, "`image`", report)?;
            match reference(&image.text) {
                Ok(()) => Some(ImageSource::Reference(image.text)),
                Err(reason) => {
                    let message = format!("`{}` is not an image: {reason}", quoted(&image.text));
                    report.error(image.at, message);
                    None
                }
            }
        }
        (None, Some(dockerfile)) => {
            let written = text(&dockerfile.value, "`dockerfile`", report)?;
            let (path, text) = read_beside(&written, "the Dockerfile", places, report)?;
            if text.trim().is_empty() {
                report.error(written.at, "the Dockerfile is empty");
                return None;
            }
            Some(ImageSource::Dockerfile { path, text })
        }
        (None, None) => match &provider?.source {
            Some(provider::Source::Image(reference)) => Some(ImageSource::Reference(reference.clone())),
            Some(provider::Source::Dockerfile { name, text }) => Some(ImageSource::Dockerfile {
                path: Path::new("images").join(name).join("Dockerfile"),
                text: text.clone(),
            }),
            None => {
                let hint = "its provider has no image of its own: write `image:` or `dockerfile:`";
                table.missing("image", hint, report);
                None
            }
        },
    }
}

/// The file that a manifest names, read now.
pub(super) fn read_beside(
    written: &Text,
    what: &str,
    places: &Places,
    report: &mut Report,
) -> Option<(std::path::PathBuf, String)> {
    let file = match places.resolve(&written.text, report.file(written.at.source)) {
        Ok(file) => file,
        Err(reason) => {
            report.error(written.at, format!("cannot find {what}: {reason}"));
            return None;
        }
    };
    match read_text(&file) {
        Ok(text) => Some((file, text)),
        Err(error) => {
            let hint = format!("looked at {}", path(&file));
            report.error_with(written.at, format!("cannot use {what}: {error}"), hint);
            None
        }
    }
}

/// An image's reference, as far as it matters here: nothing that an engine could take for something else.
pub(super) fn reference(text: &str) -> Result<(), &'static str> {
    let inside = |b: u8| b.is_ascii_alphanumeric() || b"._-/:@+".contains(&b);
    if text.len() > REFERENCE_CHARS_MAX {
        return Err("it is longer than 255 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("it must begin with a letter or a digit");
    }
    if !text.bytes().all(inside) || text.contains("//") {
        return Err("write a reference such as debian:bookworm-slim");
    }
    Ok(())
}

fn read_user(user: &Text, report: &mut Report) -> Option<String> {
    let bad = |report: &mut Report, reason: &str| {
        report.error(user.at, format!("`{}` is not a user: {reason}", quoted(&user.text)));
        None
    };
    if user.text == "auto" {
        return None;
    }
    let (name, group) = match user.text.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user.text.as_str(), None),
    };
    for part in [Some(name), group].into_iter().flatten() {
        let number = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        let word = part.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && part.len() <= 32
            && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-');
        if !number && !word {
            return bad(report, "write auto, root, a name of the image, or uid:gid");
        }
        if number && !part.parse::<u32>().is_ok_and(|id| id < u32::MAX && id != bottle_images::init::UID) {
            return bad(report, "the number is out of range, or the bottle's own");
        }
    }
    Some(user.text.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_plain() {
        for good in ["debian:bookworm-slim", "host.example.org:5000/a/b@sha256:00ff", "image"] {
            assert!(reference(good).is_ok(), "{good}");
        }
        for bad in ["", "-v", "--privileged", "a b", "a//b", "a\nb", "/abs", "${X}", &"a".repeat(256)] {
            assert!(reference(bad).is_err(), "{bad}");
        }
    }
}
