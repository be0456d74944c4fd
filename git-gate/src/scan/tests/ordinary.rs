//! Ordinary text is clean: this repository's own sources, but for tests and what they hide on purpose, and what looks like a
//! secret and is none.

use super::*;
use std::path::{Path, PathBuf};

fn files(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let name = entry.file_name();
        match entry.file_type().unwrap() {
            kind if kind.is_dir() && !["target", ".git", "tests"].iter().any(|skip| name == *skip) => {
                files(&entry.path(), into)
            }
            kind if kind.is_file() && name != "tests.rs" => into.push(entry.path()),
            _ => {}
        }
    }
}

#[test]
fn the_sources_of_this_repository_are_clean() {
    let mut paths = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut paths);
    assert!(paths.len() > 100);
    let (scanner, mut wrong) = (scanner(), Vec::new());
    for path in paths {
        let scan = scanner.start(Budget::default());
        let text = std::fs::read(&path).unwrap();
        let tests = memchr::memmem::find(&text, b"#[cfg(test)]").unwrap_or(text.len());
        let refused = scan.text(blob(1), &text[..tests]).err();
        wrong.extend(refused.map(|refused| format!("{}: {refused}", path.display())));
        if let Err(Unclean::Findings(findings)) = scan.finish() {
            wrong.extend(findings.iter().map(|finding| format!("{}: {finding}", path.display())));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_only_looks_like_a_secret_is_clean() {
    let hex = |length: usize| "9f86d081884c7d659a2feaa0c55ad015".repeat(5)[..length].to_owned();
    let scanner = scanner();
    for text in [
        format!("commit {}\nparent {}\n", hex(40), hex(40)),
        format!("\"integrity\": \"sha512-{}==\"", "k3J9xQ2mZ7".repeat(9)),
        format!("checksum = \"{}\"", hex(64)),
        format!("uuid: 123e4567-e89b-12d3-a456-426614174000, etag: \"{}\"", hex(32)),
        "let token = tokens.next().ok_or(Error::Missing2)?;".to_owned(),
        "const SECRET_KEY: &str = \"your-256-bit-secret-goes-here\";".to_owned(),
        "password: ${{ secrets.REGISTRY_PASSWORD_V2 }}".to_owned(),
        "api_key = os.environ[\"SERVICE_API_KEY_2024\"]".to_owned(),
        "see https://example.com/a/b?token_type=bearer and mailto:a@b.example".to_owned(),
        "git clone ssh://git@example.com:2222/team/project.git".to_owned(),
        "postgres://postgres:postgres@localhost:5432/test".to_owned(),
        "AccessKeyId=ASIAIOSFODNN7EXAMPLE".to_owned(),
        "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==".to_owned(),
    ] {
        let found = found(&scanner, text.as_bytes());
        assert!(found.is_empty(), "{text}: {found:?}");
    }
}
