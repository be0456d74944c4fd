//! A file of JSON lines that is only ever appended to: a record is there whole and on the disk, or it is not there.
//! What a dying machine left of the last one is cut off when the file is opened next.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// A larger file is not read: it is none of ours.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// An open file.
#[derive(Debug)]
pub struct Journal {
    file: File,
    /// Its length up to the last whole record.
    length: u64,
}

/// Why a file cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The system said no.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A whole line is no record.
    #[error("line {line} is no record: {source}")]
    Damaged {
        /// Counted from 1.
        line: usize,
        /// Why.
        source: serde_json::Error,
    },
}

impl Journal {
    /// Opens a file, or makes it, and gives the records in it. A last line without an end is cut off.
    pub fn open<T: DeserializeOwned>(path: &Path) -> Result<(Self, Vec<T>), JournalError> {
        let mut file = OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
        // Read in part, its last whole line would be taken for its end, and the rest be cut off.
        if file.metadata()?.len() > FILE_BYTES_MAX {
            return Err(io::Error::from(io::ErrorKind::FileTooLarge).into());
        }
        let mut bytes = Vec::new();
        (&mut file).take(FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        let whole = whole_lines(&bytes);
        let records = parse(whole)?;
        let length = whole.len() as u64;
        if whole.len() < bytes.len() {
            file.set_len(length)?;
            file.sync_data()?;
        }
        Ok((Self { file, length }, records))
    }

    /// Appends a record, and returns when it is on the disk. After an error it is not in the file.
    pub fn append<T: Serialize>(&mut self, record: &T) -> io::Result<()> {
        let mut line = serde_json::to_vec(record)?;
        line.push(b'\n');
        self.append_line(&line)
    }

    /// The same with a line that is written already, its newline included.
    pub fn append_line(&mut self, line: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(line).and_then(|()| self.file.sync_data());
        match written {
            Ok(()) => {
                self.length += line.len() as u64;
                Ok(())
            }
            Err(error) => {
                // Half a line must not stand before the next one. Where even that fails, the next open cuts it off, and
                // until then nothing more can be appended either.
                self.file.set_len(self.length)?;
                Err(error)
            }
        }
    }
}

/// The records of a file; none where there is no file.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>, JournalError> {
    parse(whole_lines(&read_bytes(path)?))
}

/// The bytes of a file; none where there is no file.
pub fn read_bytes(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    match File::open(path) {
        Ok(file) => file.take(FILE_BYTES_MAX).read_to_end(&mut bytes)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
        Err(error) => return Err(error),
    };
    Ok(bytes)
}

/// Everything up to the last newline.
pub fn whole_lines(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    &bytes[..end]
}

fn parse<T: DeserializeOwned>(whole: &[u8]) -> Result<Vec<T>, JournalError> {
    let lines = whole.split(|byte| *byte == b'\n').enumerate().filter(|(_, line)| !line.is_empty());
    lines
        .map(|(at, line)| serde_json::from_slice(line).map_err(|source| JournalError::Damaged { line: at + 1, source }))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_too_large_is_refused_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, "1\n2").unwrap();
        assert!(Journal::open::<u64>(&path).is_ok(), "its neighbour loses half a line and is read");
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        file.set_len(FILE_BYTES_MAX + 1).unwrap();
        assert!(matches!(Journal::open::<u64>(&path), Err(JournalError::Io(_))));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES_MAX + 1);
    }

    #[test]
    fn a_file_that_is_cut_anywhere_loses_the_last_record_at_most_and_goes_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        let records = ["one", "t\nw\u{e4}o", "three"].map(str::to_owned).to_vec();
        let (mut journal, before) = Journal::open::<String>(&path).unwrap();
        assert_eq!(before, Vec::<String>::new());
        records.iter().for_each(|record| journal.append(record).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        for cut in 0..=bytes.len() {
            std::fs::write(&path, &bytes[..cut]).unwrap();
            let whole = bytes[..cut].iter().filter(|b| **b == b'\n').count();
            let (mut journal, kept) = Journal::open::<String>(&path).unwrap();
            assert_eq!(kept, records[..whole], "cut at {cut}");
            journal.append(&"further").unwrap();
            let all = read::<String>(&path).unwrap();
            assert_eq!((all.len(), all.last().map(String::as_str)), (whole + 1, Some("further")), "cut at {cut}");
        }
    }

    #[test]
    fn a_whole_line_that_is_no_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("j.jsonl");
        std::fs::write(&path, "\"one\"\n{torn\n\"three\"\n").unwrap();
        let error = Journal::open::<String>(&path).unwrap_err();
        assert!(matches!(error, JournalError::Damaged { line: 2, .. }), "{error}");
        assert_eq!(read::<String>(&dir.path().join("none")).unwrap(), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_leaves_no_half_record() {
        // A device that takes nothing: what is written to it is refused with "no space left".
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let mut journal = Journal { file, length: 0 };
        assert!(journal.append(&"lost").is_err());
        assert_eq!(journal.length, 0);
    }
}
