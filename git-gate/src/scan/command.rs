//! `git-gate scan`: the scan of a push for files, folders and standard input, for people and tests.

use super::{Budget, Finding, Rules, Scanner, Secret, Source, Unclean};
use gix_hash::{Kind, ObjectId};
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: git-gate scan [--format text|json] [--rules FILE] [--known FILE] [--without-generic] [PATH...]

Scans files, and folders with all that is in them, for secrets as a push is scanned; without a PATH, or for -, standard input.

  --format text|json   lines for people (default), or one JSON object per finding
  --rules FILE         these rules instead of the built-in ones
  --known FILE         known secrets, one a line, searched for in all their encodings
  --without-generic    no rules that find a credential by its name and randomness alone

Exit status: 0 nothing found, 1 findings, 2 something could not be scanned.
";
/// Files up to this size are read into memory.
const WHOLE_BYTES_MAX: u64 = 4 << 20;
const KNOWN_FILE_BYTES_MAX: u64 = 16 << 20;

/// Runs the command on its arguments, without `git-gate scan` before them. 0: clean, 1: findings, 2: could not scan.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr().lock());
    ExitCode::from(run(args, &mut std::io::stdin().lock(), &mut out, &mut err))
}

/// The command with its streams.
fn run(args: impl IntoIterator<Item = OsString>, input: &mut dyn Read, out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let mut found = 0;
    let outcome = Options::parse(args).and_then(|options| match options {
        Some(options) => scan(&options, input, out, err, &mut found),
        None => write!(out, "{USAGE}").map(|()| true).map_err(|e| format!("nobody reads: {e}")),
    });
    match outcome {
        Ok(true) if found == 0 => 0,
        Ok(true) => 1,
        Ok(false) => 2,
        Err(reason) => {
            // Without a standard error there is nobody to tell; the exit status says it.
            let _ = writeln!(err, "git-gate scan: {reason}");
            2
        }
    }
}

#[derive(Debug, Default)]
struct Options {
    json: bool,
    rules: Option<PathBuf>,
    known: Option<PathBuf>,
    without_generic: bool,
    paths: Vec<PathBuf>,
}

impl Options {
    /// `None`: help was asked for.
    fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Option<Self>, String> {
        let (mut options, mut args) = (Self::default(), args.into_iter());
        let mut only_paths = false;
        while let Some(arg) = args.next() {
            let mut value = |what: &str| args.next().ok_or_else(|| format!("{what} is missing; see --help"));
            match arg.to_str() {
                _ if only_paths => options.paths.push(arg.into()),
                Some("--") => only_paths = true,
                Some("--help" | "-h") => return Ok(None),
                Some("--without-generic") => options.without_generic = true,
                Some("--rules") => options.rules = Some(value("the file of --rules")?.into()),
                Some("--known") => options.known = Some(value("the file of --known")?.into()),
                Some("--format") => match value("text or json after --format")?.to_str() {
                    Some("text") => options.json = false,
                    Some("json") => options.json = true,
                    _ => return Err("--format is text or json".to_owned()),
                },
                Some(other) if other.starts_with('-') && other != "-" => {
                    return Err(format!("there is no option {}; see --help", other.escape_default()));
                }
                _ => options.paths.push(arg.into()),
            }
        }
        if options.paths.is_empty() {
            options.paths.push("-".into());
        }
        Ok(Some(options))
    }

    fn scanner(&self) -> Result<Scanner, String> {
        let rules = match &self.rules {
            None => Rules::built_in(),
            Some(path) => Rules::parse(&text(path)?),
        };
        let mut rules = rules.map_err(|e| chain(&e))?;
        if self.without_generic {
            rules = rules.without_generic();
        }
        let known = match &self.known {
            None => Vec::new(),
            Some(path) => {
                let lines = Secret::new(text(path)?.into_bytes());
                let lines = lines.expose().split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
                lines.filter(|line| !line.is_empty()).map(|line| Secret::new(line.to_vec())).collect()
            }
        };
        let scanner = Scanner::new(rules, known).map_err(|e| e.to_string())?;
        if self.rules.is_some() {
            scanner.check().map_err(|e| chain(&e))?;
        }
        Ok(scanner)
    }
}

/// Scans all paths; false if one could not be scanned.
fn scan(
    options: &Options,
    input: &mut dyn Read,
    out: &mut dyn Write,
    err: &mut dyn Write,
    found: &mut usize,
) -> Result<bool, String> {
    let scanner = options.scanner()?;
    let mut complete = true;
    let mut failed = |path: &Path, reason: &str| {
        complete = false;
        let _ = writeln!(err, "git-gate scan: {}: {reason}", shown(path));
    };
    for path in &options.paths {
        let mut folders = vec![path.clone()];
        while let Some(path) = folders.pop() {
            let findings = if path.as_os_str() == "-" {
                judge(&scanner, input)
            } else {
                match std::fs::symlink_metadata(&path) {
                    Ok(kind) if kind.is_dir() => {
                        list(&path).map(|mut inside| folders.append(&mut inside)).map(|()| Vec::new())
                    }
                    Ok(kind) if kind.is_symlink() => link(&scanner, &path),
                    Ok(kind) if kind.is_file() => file(&scanner, &path),
                    // A socket or device is nothing that can be in a push.
                    Ok(_) => Ok(Vec::new()),
                    Err(e) => Err(e.to_string()),
                }
            };
            match findings {
                Ok(findings) => {
                    *found += findings.len();
                    for finding in &findings {
                        tell(options.json, &path, finding, out).map_err(|e| format!("nobody reads: {e}"))?;
                    }
                }
                Err(reason) => failed(&path, &reason),
            }
        }
    }
    Ok(complete)
}

/// What is in a folder, last name first, since the last one is taken first.
fn list(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let entries: Result<Vec<_>, _> = std::fs::read_dir(folder).and_then(Iterator::collect);
    let mut paths: Vec<PathBuf> = entries.map_err(|e| e.to_string())?.into_iter().map(|entry| entry.path()).collect();
    paths.sort_by(|one, other| other.cmp(one));
    Ok(paths)
}

/// Git stores where a link points to as a blob.
fn link(scanner: &Scanner, path: &Path) -> Result<Vec<Finding>, String> {
    let target = std::fs::read_link(path).map_err(|e| e.to_string())?;
    judge(scanner, &mut target.as_os_str().as_encoded_bytes())
}

fn file(scanner: &Scanner, path: &Path) -> Result<Vec<Finding>, String> {
    judge(scanner, &mut File::open(path).map_err(|e| e.to_string())?)
}

/// Scans all that a reader gives as one push.
fn judge(scanner: &Scanner, reader: &mut dyn Read) -> Result<Vec<Finding>, String> {
    let scan = scanner.start(Budget::default());
    let source = Source::Blob(ObjectId::null(Kind::Sha1));
    let mut head = Vec::new();
    (&mut *reader).take(WHOLE_BYTES_MAX + 1).read_to_end(&mut head).map_err(|e| e.to_string())?;
    let outcome = if head.len() as u64 <= WHOLE_BYTES_MAX {
        scan.text(source, &head)
    } else {
        scan.stream(source, &mut head.as_slice().chain(reader))
    };
    outcome.map_err(|e| chain(&e))?;
    match scan.finish() {
        Ok(_) => Ok(Vec::new()),
        Err(Unclean::Findings(findings)) => Ok(findings.iter().cloned().collect()),
        Err(Unclean::Refused(refused)) => Err(chain(&refused)),
    }
}

fn tell(json: bool, path: &Path, finding: &Finding, out: &mut dyn Write) -> std::io::Result<()> {
    let fingerprint = finding.fingerprint(Some(path.as_os_str().as_encoded_bytes()));
    if !json {
        return writeln!(out, "{}: {finding}   {fingerprint}", shown(path));
    }
    let via: Vec<&str> = finding.via.iter().map(|decoder| decoder.name()).collect();
    let object = serde_json::json!({
        "path": path.to_string_lossy(),
        "rule": finding.rule,
        "description": finding.description,
        "line": finding.line,
        "column": finding.column,
        "offset": finding.offset,
        "length": finding.length,
        "via": via,
        "preview": finding.preview(),
        "fingerprint": fingerprint.full(),
    });
    writeln!(out, "{object}")
}

/// A path without control characters, which a terminal would obey.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars().flat_map(|c| if c.is_control() { c.escape_default().collect::<Vec<_>>() } else { vec![c] }).collect()
}

fn text(path: &Path) -> Result<String, String> {
    let named = |e: std::io::Error| format!("{}: {e}", shown(path));
    let mut text = String::new();
    File::open(path).and_then(|file| file.take(KNOWN_FILE_BYTES_MAX).read_to_string(&mut text)).map_err(named)?;
    Ok(text)
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;

    fn command(args: &[&OsStr], input: &[u8]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let status = run(args.iter().map(OsString::from), &mut &input[..], &mut out, &mut err);
        (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Built here so that it stands nowhere in this repository.
    fn token() -> String {
        ["gh", "p_", &"k3J9xQ2mZ7".repeat(4)[..36]].concat()
    }

    #[test]
    fn the_exit_status_says_what_was_found_and_no_secret_is_told() {
        let token = token();
        let (status, out, err) = command(&[], format!("a\nb {token}\n").as_bytes());
        assert_eq!((status, err.as_str()), (1, ""), "{out}");
        assert!(out.starts_with("-: github-personal-access-token: line 2, column 3   ghp_…(40 chars)   "), "{out}");
        assert!(!out.contains(&token[8..]));

        let (status, out, _) = command(&["--format".as_ref(), "json".as_ref()], token.as_bytes());
        let object: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(
            (status, object["rule"].as_str(), object["line"].as_u64()),
            (1, Some("github-personal-access-token"), Some(1))
        );
        assert_eq!(object["fingerprint"].as_str().map(str::len), Some(64));
        assert!(!out.contains(&token[8..]));

        assert_eq!(command(&[], b"nothing here").0, 0);
        for wrong in [
            &["--no-such".as_ref()][..],
            &["--rules".as_ref()],
            &["/no/such/file".as_ref()],
            &["--format".as_ref(), "x".as_ref()],
        ] {
            let (status, out, err) = command(wrong, b"");
            assert_eq!((status, out.as_str()), (2, ""));
            assert!(err.starts_with("git-gate scan: "), "{err}");
        }
        assert_eq!(command(&["--help".as_ref()], b"").0, 0);
    }

    #[test]
    fn folders_links_and_rule_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(path("tree/node_modules")).unwrap();
        std::fs::write(path("tree/node_modules/a.png"), token()).unwrap();
        std::os::unix::fs::symlink(token(), path("tree/link")).unwrap();
        let (status, out, _) = command(&[path("tree").as_os_str()], b"");
        assert_eq!((status, out.lines().count()), (1, 2), "{out}");

        std::fs::write(path("known"), "opensesame-not-random\n").unwrap();
        let (status, out, _) = command(&["--known".as_ref(), path("known").as_os_str()], b"-> opensesame-not-random");
        assert!(status == 1 && out.contains("known-secret"), "{out}");

        std::fs::write(path("rules"), "[[rule]]\nid='x'\ndescription='x'\nsource='x'\nkeywords=['zz']\nregex='zz9'")
            .unwrap();
        let rules = path("rules");
        let with = |input: &str| command(&["--rules".as_ref(), rules.as_os_str()], input.as_bytes()).0;
        assert_eq!((with("zz9"), with("zz8"), with(&token())), (1, 0, 0));
        std::fs::write(path("rules"), "[[rule]]\nid='x'").unwrap();
        assert_eq!(with("zz9"), 2);
    }
}
