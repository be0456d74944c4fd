//! `logs`: what a bottle's sidecars said, from the file that the keeper writes; also of one that has ended.

use super::Here;
use crate::cli::Logs;
use crate::error::Failure;
use crate::exit::Exit;
use crate::log::LogLine;
use std::io::{BufRead, BufReader};
use std::time::Duration;

/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// Shows a bottle's log.
pub async fn logs(here: &Here, args: &Logs) -> Result<Exit, Failure> {
    let dir = here.bottle(&args.id)?;
    let file = std::fs::File::open(dir.log())
        .map_err(|e| Failure::usage(format!("the log of {} cannot be read: {e}", dir.id()), None))?;
    let mut reader = BufReader::new(file);
    let mut line = String::new();
    loop {
        // A line that is still being written is finished by a later look.
        let read = reader.read_line(&mut line);
        let read = read.map_err(|e| Failure::launch(format!("the log cannot be read: {e}"), None))?;
        if read > 0 && line.ends_with('\n') {
            let shown = if args.json { line.clone() } else { pretty(&line) };
            line.clear();
            if !here.ui.data(&shown) {
                return Ok(Exit::Success);
            }
        } else if args.follow && dir.is_living() {
            tokio::time::sleep(LOOK).await;
        } else {
            return Ok(Exit::Success);
        }
    }
}

fn pretty(line: &str) -> String {
    match serde_json::from_str::<LogLine>(line) {
        Ok(entry) => {
            let time = entry.time.get(11..23).unwrap_or(&entry.time);
            let more =
                if entry.repeated > 0 { format!(" (and {} times before)", entry.repeated) } else { String::new() };
            format!("{time} {:<14} {}{more}\n", entry.role, crate::ui::clean(&entry.line))
        }
        Err(_) => crate::ui::clean(line),
    }
}
