//! Whole loads over real folders: each refusal beside its allowed neighbour, and what an operator sees.

use super::load::{Loaded, load};
use super::{Bottle, LoadErrors, Places};
use std::path::{Path, PathBuf};

mod any;
mod bottles;
mod egress;
mod examples;
mod extends;
mod git;
mod golden;
mod routes;
mod trust;
mod user;

/// A configuration directory and a repository of a test's own.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().unwrap() };
        world.write("config/agents/coder.md", "---\nbottle: dev\n---\nWrite code.\n");
        std::fs::create_dir_all(world.path("repo/.git")).unwrap();
        world
    }

    /// A world whose bottle `dev` has this header.
    fn with_bottle(header: &str) -> Self {
        let world = Self::new();
        world.write("config/bottles/dev.md", &format!("---\n{header}---\nNotes.\n"));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        self.write_bytes(name, text.as_bytes());
    }

    fn write_bytes(&self, name: &str, bytes: &[u8]) {
        let file = self.path(name);
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, bytes).unwrap();
    }

    fn places(&self) -> Places {
        Places { config: self.path("config"), repository: Some(self.path("repo")), home: Some(self.path("home")) }
    }

    fn load(&self) -> Result<Loaded, LoadErrors> {
        load(&self.places(), "coder", None)
    }

    /// A text without the folder of this test.
    fn plain(&self, text: impl std::fmt::Display) -> String {
        text.to_string().replace(&format!("{}/", self.dir.path().display()), "")
    }
}

/// A header of a bottle that is right, and then some.
fn header(more: &str) -> String {
    format!("agent: {{image: debian:bookworm-slim}}\n{more}")
}

/// The bottle that a right header with `more` in it makes.
fn bottle(more: &str) -> Bottle {
    let world = World::with_bottle(&header(more));
    match world.load() {
        Ok(loaded) => loaded.bottle,
        Err(errors) => panic!("{more}\n{errors}"),
    }
}

/// `more` is refused: the first error is on line `line` of the file (the header begins on line 2, `more` on line 3),
/// and it or its hint has this part. Gives how many errors there are.
fn refused(more: &str, line: usize, part: &str) -> usize {
    refused_header(&header(more), line, part)
}

fn refused_header(header: &str, line: usize, part: &str) -> usize {
    let world = World::with_bottle(header);
    let errors = match world.load() {
        Ok(loaded) => panic!("accepted:\n{header}\n{:?}", loaded.bottle),
        Err(errors) => errors,
    };
    let first = &errors.errors[0];
    let shown = format!("{}\n{}", first.message, first.hint.as_deref().unwrap_or_default());
    assert!(shown.contains(part), "{part:?} is not in:\n{errors}");
    assert_eq!(first.place.as_ref().map(|place| place.line), Some(line), "{errors}");
    assert_eq!(first.file.as_deref(), Some(Path::new(&world.path("config/bottles/dev.md"))));
    errors.errors.len()
}

/// `more` is taken, with a warning that has this part.
fn warned(more: &str, part: &str) {
    let world = World::with_bottle(&header(more));
    let warnings = world.load().unwrap_or_else(|errors| panic!("{errors}")).warnings;
    assert!(warnings.iter().any(|warning| warning.contains(part)), "{part:?} is not in {warnings:?}");
}
