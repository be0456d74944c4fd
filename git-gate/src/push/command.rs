//! What an agent wants of refs: the lines before a push's pack (gitprotocol-pack(5), "Reference Update Request"). PURE.

use crate::advert::{AGENT, Capabilities, object_format};
use crate::limits::Limits;
use crate::pktline::{self, text};
use crate::policy::{Change, RefName};
use gix_hash::{Kind, ObjectId};
use std::collections::HashSet;

/// One ref update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Update {
    /// What the client believes the ref stands at; the upstream compares.
    pub old: ObjectId,
    /// What it is to stand at.
    pub new: ObjectId,
    /// The ref.
    pub name: RefName,
}

impl Update {
    /// What kind of change it is. Both ends null is none, and was refused.
    pub fn change(&self) -> Change {
        match (self.old.is_null(), self.new.is_null()) {
            (true, _) => Change::Create,
            (false, true) => Change::Delete,
            (false, false) => Change::Update,
        }
    }
}

/// All ref updates of a push, with what was agreed on for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commands {
    shallow: Vec<ObjectId>,
    updates: Vec<Update>,
    agreed: Vec<String>,
    format: Kind,
}

/// Why the lines are refused; the words go to the agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// Not a line of the protocol.
    #[error("a ref update cannot be read")]
    Malformed,
    /// git would not take it either, or it has characters that cannot be shown.
    #[error("a ref name is not one that git allows")]
    Name,
    /// The same ref twice.
    #[error("a ref is named twice")]
    Twice,
    /// A capability that was not offered.
    #[error("the client uses a capability that was not offered")]
    Capability,
    /// Nobody would learn what became of the push.
    #[error("the client does not ask for a report (report-status)")]
    NoReport,
    /// Not the repository's hash function.
    #[error("the client uses another object format than the repository")]
    Format,
    /// `git push --signed`.
    #[error("signed pushes are not offered")]
    Signed,
    /// Over a limit.
    #[error("more than {limit} {of} ({name})", name = .name, limit = .limit, of = .of)]
    Limit {
        /// The limit's name.
        name: &'static str,
        /// Its value.
        limit: u64,
        /// What it counts.
        of: &'static str,
    },
}

/// Takes lines one by one.
#[derive(Debug)]
pub struct Reader<'a> {
    offer: &'a Capabilities,
    limits: &'a Limits,
    commands: Commands,
    names: HashSet<RefName>,
}

impl<'a> Reader<'a> {
    /// For a client that got this `offer` for a repository of this `format`.
    pub fn new(offer: &'a Capabilities, format: Kind, limits: &'a Limits) -> Self {
        let commands = Commands { shallow: Vec::new(), updates: Vec::new(), agreed: Vec::new(), format };
        Self { offer, limits, commands, names: HashSet::new() }
    }

    /// Takes one packet's data.
    pub fn line(&mut self, data: &[u8]) -> Result<(), CommandError> {
        if self.commands.updates.is_empty() {
            if let Some(oid) = data.strip_prefix(b"shallow ") {
                self.commands.shallow.push(self.oid(text(oid))?);
                let of = "shallow commits";
                return self.within("objects", self.commands.shallow.len(), self.limits.objects, of);
            }
            if data.starts_with(b"push-cert") {
                return Err(CommandError::Signed);
            }
            let zero = data.iter().position(|byte| *byte == 0).ok_or(CommandError::NoReport)?;
            self.capabilities(&data[zero + 1..])?;
            return self.update(&data[..zero]);
        }
        self.update(text(data))
    }

    /// Does the client take what it is told in bands from here on? Its first line says so.
    pub fn side_band(&self) -> bool {
        self.commands.agreed("side-band-64k")
    }

    /// The lines have ended with a flush; `None` when there was no update, which is how a client says goodbye.
    pub fn end(self) -> Option<Commands> {
        (!self.commands.updates.is_empty()).then_some(self.commands)
    }

    fn update(&mut self, line: &[u8]) -> Result<(), CommandError> {
        let hex = self.commands.format.len_in_hex();
        if line.len() < 2 * hex + 3 || line[hex] != b' ' || line[2 * hex + 1] != b' ' {
            return Err(CommandError::Malformed);
        }
        let old = self.oid(&line[..hex])?;
        let new = self.oid(&line[hex + 1..2 * hex + 1])?;
        if old.is_null() && new.is_null() {
            return Err(CommandError::Malformed);
        }
        let name = &line[2 * hex + 2..];
        self.within("ref_bytes", name.len(), self.limits.ref_bytes, "bytes in a ref name")?;
        let name = RefName::parse(name, self.limits.ref_bytes).ok_or(CommandError::Name)?;
        if !self.names.insert(name.clone()) {
            return Err(CommandError::Twice);
        }
        self.commands.updates.push(Update { old, new, name });
        self.within("commands", self.commands.updates.len(), self.limits.commands, "ref updates")
    }

    fn capabilities(&mut self, list: &[u8]) -> Result<(), CommandError> {
        let asked = Capabilities::parse(text(list));
        if object_format(&asked) != Some(self.commands.format) {
            return Err(CommandError::Format);
        }
        if !asked.has("report-status") && !asked.has("report-status-v2") {
            return Err(CommandError::NoReport);
        }
        for word in asked.iter() {
            if word.starts_with("agent=") || word.starts_with("object-format=") {
                continue;
            }
            if !self.offer.iter().any(|offered| offered == word) {
                return Err(CommandError::Capability);
            }
            // It binds the client and says nothing to the upstream.
            if word != "no-thin" {
                self.commands.agreed.push(word.to_owned());
            }
        }
        Ok(())
    }

    fn oid(&self, hex: &[u8]) -> Result<ObjectId, CommandError> {
        let oid = ObjectId::from_hex(hex).map_err(|_| CommandError::Malformed)?;
        if oid.kind() == self.commands.format { Ok(oid) } else { Err(CommandError::Malformed) }
    }

    fn within(&self, name: &'static str, have: usize, limit: u64, of: &'static str) -> Result<(), CommandError> {
        if have as u64 <= limit { Ok(()) } else { Err(CommandError::Limit { name, limit, of }) }
    }
}

impl Commands {
    /// The ref updates, in the client's order.
    pub fn updates(&self) -> &[Update] {
        &self.updates
    }

    /// The repository's hash function.
    pub fn format(&self) -> Kind {
        self.format
    }

    /// Was this capability agreed on?
    pub fn agreed(&self, capability: &str) -> bool {
        self.agreed.iter().any(|word| word == capability)
    }

    /// Does a pack follow? Only when all are deletes does none.
    pub fn has_pack(&self) -> bool {
        self.updates.iter().any(|update| update.change() != Change::Delete)
    }

    /// Is all that was agreed on for this push among what the upstream offers (now)?
    pub fn suits(&self, upstream: &Capabilities) -> bool {
        let has = |word: &str| upstream.iter().any(|offered| offered == word);
        object_format(upstream) == Some(self.format) && self.agreed.iter().all(|word| has(word))
    }

    /// The lines as the upstream gets them, push options included, up to where a pack begins.
    pub fn lines(&self, upstream: &Capabilities, options: &[Vec<u8>]) -> Vec<u8> {
        let mut out = Vec::new();
        for oid in &self.shallow {
            pktline::put(&mut out, format!("shallow {oid}").as_bytes());
        }
        let mut capabilities = self.agreed.join(" ");
        if upstream.has("object-format") {
            capabilities.push_str(&format!(" object-format={}", self.format));
        }
        if upstream.has("agent") {
            capabilities.push_str(&format!(" agent={AGENT}"));
        }
        for (index, Update { old, new, name }) in self.updates.iter().enumerate() {
            let mut line = format!("{old} {new} {name}");
            if index == 0 {
                line.push_str(&format!("\0 {capabilities}"));
            }
            pktline::put(&mut out, line.as_bytes());
        }
        out.extend_from_slice(pktline::FLUSH);
        if self.agreed("push-options") {
            options.iter().for_each(|option| pktline::put(&mut out, option));
            out.extend_from_slice(pktline::FLUSH);
        }
        out
    }
}

/// Why a push option is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OptionError {
    /// It would make a forge skip its own scan.
    #[error("push options that switch a forge's secret scan off are not allowed")]
    SkipsScan,
    /// Control characters.
    #[error("a push option has characters that it may not have")]
    Malformed,
    /// Over a limit.
    #[error("push options are over the limit {0} ({1})")]
    Limit(&'static str, u64),
}

/// Checks one more option, `index` from 0.
pub fn check_option(data: &[u8], index: usize, limits: &Limits) -> Result<(), OptionError> {
    if index as u64 >= limits.push_options {
        return Err(OptionError::Limit("push_options", limits.push_options));
    }
    let option = text(data);
    if option.len() as u64 > limits.push_option_bytes {
        return Err(OptionError::Limit("push_option_bytes", limits.push_option_bytes));
    }
    let option = std::str::from_utf8(option).map_err(|_| OptionError::Malformed)?;
    if option.chars().any(char::is_control) {
        return Err(OptionError::Malformed);
    }
    let option = option.trim_start().to_ascii_lowercase();
    let skips = ["secret_push_protection", "secret_detection"].iter().any(|prefix| option.starts_with(prefix));
    if skips { Err(OptionError::SkipsScan) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";
    const NULL: &str = "0000000000000000000000000000000000000000";

    fn offer() -> Capabilities {
        Capabilities::parse(b"report-status side-band-64k atomic push-options object-format=sha1 no-thin agent=x")
    }

    fn read(lines: &[String]) -> Result<Option<Commands>, CommandError> {
        let limits = Limits { commands: 3, ..Limits::default() };
        let offer = offer();
        let mut reader = Reader::new(&offer, Kind::Sha1, &limits);
        lines.iter().try_for_each(|line| reader.line(line.as_bytes()))?;
        Ok(reader.end())
    }

    #[test]
    fn commands_go_on_as_they_came_but_for_the_agent() {
        let lines = [
            format!("shallow {A}"),
            format!("{A} {B} refs/heads/a\0 report-status side-band-64k object-format=sha1 agent=git/2"),
            format!("{A} {NULL} refs/heads/b"),
        ];
        let commands = read(&lines).unwrap().unwrap();
        assert!(commands.has_pack() && commands.agreed("side-band-64k") && !commands.agreed("atomic"));
        let upstream = Capabilities::parse(b"report-status side-band-64k object-format=sha1 agent=git/9");
        assert!(commands.suits(&upstream));
        assert!(!commands.suits(&Capabilities::parse(b"report-status")));
        assert!(!commands.suits(&Capabilities::parse(b"report-status side-band-64k object-format=sha256")));
        let mut wanted = Vec::new();
        let first = format!("{A} {B} refs/heads/a\0 report-status side-band-64k object-format=sha1 agent={AGENT}");
        for line in [&lines[0], &first, &lines[2]] {
            pktline::put(&mut wanted, line.as_bytes());
        }
        wanted.extend_from_slice(b"0000");
        assert_eq!(commands.lines(&upstream, &[]), wanted);
    }

    #[test]
    fn options_follow_when_agreed_on() {
        let lines = [format!("{NULL} {B} refs/heads/a\0report-status push-options")];
        let commands = read(&lines).unwrap().unwrap();
        let sent = commands.lines(&Capabilities::parse(b"report-status push-options"), &[b"ci.skip".to_vec()]);
        assert!(sent.ends_with(b"0000000bci.skip0000"), "{}", String::from_utf8_lossy(&sent));
    }

    #[test]
    fn deletes_alone_have_no_pack() {
        let commands = read(&[format!("{A} {NULL} refs/heads/a\0report-status")]).unwrap().unwrap();
        assert!(!commands.has_pack());
        assert_eq!(read(&[]), Ok(None));
    }

    #[test]
    fn lines_that_are_refused() {
        use CommandError::*;
        let good = |name: &str| format!("{A} {B} {name}\0report-status");
        for (lines, wanted) in [
            (vec![format!("{A} {B} refs/heads/a")], NoReport),
            (vec![format!("{A} {B} refs/heads/a\0atomic")], NoReport),
            (vec![format!("{A} {B} refs/heads/a\0report-status quiet")], Capability),
            (vec![format!("{A} {B} refs/heads/a\0report-status session-id=x")], Capability),
            (vec![format!("{A} {B} refs/heads/a\0report-status object-format=sha256")], Format),
            (vec!["push-cert\0report-status".into()], Signed),
            (vec![good("HEAD")], Name),
            (vec![good("refs/heads/../../x")], Name),
            (vec![good("refs/heads/a\nb")], Name),
            (
                vec![good(&format!("refs/heads/{}", "a".repeat(1014)))],
                Limit { name: "ref_bytes", limit: 1024, of: "bytes in a ref name" },
            ),
            (vec![format!("{NULL} {NULL} refs/heads/a\0report-status")], Malformed),
            (vec![format!("{A}  {B} refs/heads/a\0report-status")], Malformed),
            (vec![format!("{A}\0report-status")], Malformed),
            (vec![format!("{A}z {B} refs/heads/a\0report-status")], Malformed),
            (vec![format!("shallow {A}{A}")], Malformed),
            (vec![format!("shallow {}", "1".repeat(64))], Malformed),
            (vec![good("refs/heads/a"), format!("{A} {B} refs/heads/a")], Twice),
            (vec![good("refs/heads/a"), format!("shallow {A}")], Malformed),
            (
                vec![good("refs/a"), format!("{A} {B} refs/b"), format!("{A} {B} refs/c"), format!("{A} {B} refs/d")],
                Limit { name: "commands", limit: 3, of: "ref updates" },
            ),
        ] {
            assert_eq!(read(&lines), Err(wanted), "{lines:?}");
        }
        // The longest name that there may be.
        assert!(read(&[good(&format!("refs/heads/{}", "a".repeat(1013)))]).is_ok_and(|commands| commands.is_some()));
    }

    #[test]
    fn options_and_their_refused_neighbours() {
        let limits = Limits { push_options: 2, push_option_bytes: 30, ..Limits::default() };
        for (option, index, wanted) in [
            ("ci.skip", 0, Ok(())),
            ("ci.skip", 1, Ok(())),
            ("ci.skip", 2, Err(OptionError::Limit("push_options", 2))),
            ("merge_request.title=a b", 0, Ok(())),
            ("a\x1b[2J", 0, Err(OptionError::Malformed)),
            ("a\nb", 0, Err(OptionError::Malformed)),
            (&"a".repeat(31), 0, Err(OptionError::Limit("push_option_bytes", 30))),
            ("secret_push_protection.skip", 0, Err(OptionError::SkipsScan)),
            (" Secret_Detection.skip_all", 0, Err(OptionError::SkipsScan)),
        ] {
            assert_eq!(check_option(option.as_bytes(), index, &limits), wanted, "{option}");
        }
    }
}
