//! Guards of what a test makes on the engine with Docker's own command: images and networks, gone with the guard.

use super::Site;
use std::process::{Command, Output};

/// Something on the engine that goes when this does.
pub struct Unmade<'a> {
    site: &'a Site,
    remove: Vec<String>,
    name: String,
}

impl<'a> Unmade<'a> {
    /// Makes an image: `arguments` gives those of `docker`, for a tag that is this process's alone.
    #[track_caller]
    pub fn image(site: &'a Site, name: &str, arguments: impl FnOnce(&str) -> Vec<String>) -> Self {
        let tag = format!("bottle-test/{name}-{}:1", std::process::id());
        // Made first: a build that fails half-way may have tagged something.
        let made = Self { site, remove: ["image", "rm", tag.as_str()].map(str::to_owned).to_vec(), name: tag.clone() };
        made.docker(&arguments(&tag));
        made
    }

    /// Makes a network with a subnet.
    #[track_caller]
    pub fn network(site: &'a Site, name: &str, subnet: &str) -> Self {
        let remove = ["network", "rm", name].map(str::to_owned).to_vec();
        let made = Self { site, remove, name: name.to_owned() };
        made.docker(&["network", "create", "--internal", "--subnet", subnet, name].map(str::to_owned));
        made
    }

    /// Its reference.
    pub fn tag(&self) -> &str {
        &self.name
    }

    #[track_caller]
    fn docker(&self, arguments: &[String]) {
        let output = run(self.site, arguments);
        assert!(output.status.success(), "docker {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn run(site: &Site, arguments: &[String]) -> Output {
    let mut command = Command::new("docker");
    // The builder of old engines: the newer one asks a registry about every image.
    command.args(arguments).env("DOCKER_BUILDKIT", "0").env("HOME", site.path(""));
    command.output().expect("docker's command can be run")
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        let output = run(self.site, &self.remove);
        if !output.status.success() {
            eprintln!("docker {:?}: {}", self.remove, String::from_utf8_lossy(&output.stderr));
        }
    }
}
