//! Makes the image of real clients unless the engine has it, and prints its tag. For a CI's preparation step, so that
//! no claim pays for it.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match bottle_tests::client_image::ensure() {
        Ok(tag) => {
            let _ = writeln!(std::io::stdout(), "{tag}"); // nobody reads it: the image is there all the same
            ExitCode::SUCCESS
        }
        Err(error) => {
            let why = std::error::Error::source(&error).map(|e| format!(": {e}")).unwrap_or_default();
            let _ = writeln!(std::io::stderr(), "client-image: {error}{why}"); // nobody left to tell
            ExitCode::FAILURE
        }
    }
}
