//! The search for keywords, against a comparison at every place: words in any case and what stands between them, over the
//! edges of lanes, of what is searched at once, and of a stream's blocks.
#![no_main]

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::LazyLock;

use git_gate::scan::{Budget, KNOWN_SECRET, Rules, Scanner, Secret, Source, Unclean};
use gix_hash::{Kind, ObjectId};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;

/// Words that begin and end like one another, and one that is longer than any other keyword.
const WORDS: [&str; 8] = ["ab", "bab", "aaaa", "b_", "abcabc", "_a-b", "ca", "abcabcabcabcabcabcabcabc"];
const KNOWN: &str = "-Known_a-Bab";
/// What else a text is made of: nothing that any decoder takes for the beginning of something.
const LETTERS: &[u8; 16] = b"abcABC_-x \nKnoak";
const TEXT_BYTES_MAX: usize = 3 << 20;

static SCANNER: LazyLock<Scanner> = LazyLock::new(|| {
    let mut rules = String::new();
    for (number, word) in WORDS.iter().enumerate() {
        write!(
            rules,
            "[[rule]]\nid = \"word-{number}\"\ndescription = \"a word\"\nsource = \"here\"\nkeywords = [\"{word}\"]\n\
             regex = '(?i){word}'\nboundary = false\n"
        )
        .expect("a string");
    }
    let known = vec![Secret::new(KNOWN.as_bytes().to_vec())];
    Scanner::new(Rules::parse(&rules).expect("rules"), known).expect("a scanner")
});

#[derive(Arbitrary, Debug)]
enum Part {
    Letters(Vec<u8>),
    /// So much of one letter.
    Gap(u8, u16),
    /// A word; each bit makes one of its letters upper case.
    Word(u8, u8),
    Known,
}

fn text_of(parts: &[Part]) -> Vec<u8> {
    let mut text = Vec::new();
    let letter = |byte: &u8| LETTERS[usize::from(byte % 16)];
    for part in parts {
        match part {
            Part::Letters(bytes) => text.extend(bytes.iter().map(letter)),
            Part::Gap(byte, length) => text.extend(std::iter::repeat_n(letter(byte), (*length).into())),
            Part::Word(number, upper) => {
                let word = WORDS[usize::from(*number) % WORDS.len()].bytes().enumerate();
                text.extend(word.map(|(at, byte)| if upper >> (at % 8) & 1 == 1 { byte.to_ascii_uppercase() } else { byte }));
            }
            Part::Known => text.extend_from_slice(KNOWN.as_bytes()),
        }
    }
    text.truncate(TEXT_BYTES_MAX);
    text
}

/// The first place of each spelling of each word, which is what a scan tells.
fn wanted(text: &[u8]) -> BTreeSet<(String, u64)> {
    let mut all = BTreeSet::new();
    for (number, word) in WORDS.iter().enumerate() {
        let mut spellings = BTreeSet::new();
        for (at, here) in text.windows(word.len()).enumerate() {
            if here.eq_ignore_ascii_case(word.as_bytes()) && spellings.insert(here) {
                all.insert((format!("word-{number}"), at as u64));
            }
        }
    }
    if let Some(at) = text.windows(KNOWN.len()).position(|here| here == KNOWN.as_bytes()) {
        all.insert((KNOWN_SECRET.to_owned(), at as u64));
    }
    all
}

fn found(text: &[u8], stream: bool) -> BTreeSet<(String, u64)> {
    let scan = SCANNER.start(Budget { depth_max: 0, findings_max: u64::MAX, ..Budget::default() });
    let source = Source::Blob(ObjectId::null(Kind::Sha1));
    let scanned = if stream { scan.stream(source, &mut &*text) } else { scan.text(source, text) };
    scanned.expect("nothing in it is over a limit");
    match scan.finish() {
        Ok(_) => BTreeSet::new(),
        Err(Unclean::Refused(refused)) => panic!("{refused}"),
        Err(Unclean::Findings(findings)) => findings
            .iter()
            .filter(|finding| finding.via.is_empty())
            .map(|finding| (finding.rule.clone(), finding.offset))
            .collect(),
    }
}

fuzz_target!(|parts: Vec<Part>| {
    let text = text_of(&parts);
    let wanted = wanted(&text);
    assert_eq!(found(&text, false), wanted, "as a text");
    assert_eq!(found(&text, true), wanted, "as a stream");
});
