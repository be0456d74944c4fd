//! Real bottles on a real engine, for tests: a [`Site`] is an operator's machine in miniature (configuration, state and
//! workspace in a temporary folder), a [`World`] is what lies outside, a [`Bottle`] is what `launcher run` started.
//! Everything is taken back when it goes, also when a test panics; then plan and logs are printed first.
//!
//! ```no_run
//! use bottle_tests::harness::{Site, World};
//!
//! let Some(site) = Site::new() else { return }; // said aloud: no engine
//! let world = World::start(&site);
//! site.bottle("dev", &world.bottle_yaml(&site.clients()));
//! site.agent("coder", "dev");
//! let bottle = site.run("coder").detached(&["sleep", "600"]);
//! let got = bottle.exec(&["curl", "-sS", "https://files.world.example/public/hello"]);
//! assert_eq!(got.status, 0, "{got:?}");
//! let refused = bottle.exec(&["curl", "-sS", "https://attacker.world.example/"]);
//! assert_ne!(refused.status, 0, "{refused:?}");
//! assert!(bottle.log("pipelock").contains("domain not in allowlist: attacker.world.example"));
//! bottle.stop();
//! site.assert_nothing_left();
//! ```
//!
//! The same lines run as a test in `tests/tests/harness.rs`.

pub use bottle::{Bottle, Run};
pub use output::{Output, wait_until};
pub use process::{finish, is_alive, signal};
pub use screen::Screen;
pub use site::Site;
pub use sshd::Sshd;
pub use terminal::Terminal;
pub use unmade::Unmade;
pub use world::World;

mod bottle;
mod git_host;
mod output;
mod process;
mod screen;
mod site;
mod sshd;
mod terminal;
mod unmade;
mod world;
