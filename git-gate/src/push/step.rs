//! The steps of a push as types, each made of the one before and of the proofs that it needs. PURE.
//!
//! [`Forward`] is the only thing that is sent to an upstream. There is no way to it but through [`Cleared`], and none to
//! that without a [`Clean`] of everything in the push, a [`Verified`] of its pack, and the policy's [`Permitted`].

use super::command::{Commands, Reader, Update};
use crate::advert::{Capabilities, FirstLine, push_first_line, push_offer};
use crate::limits::Limits;
use crate::pack::Verified;
use crate::policy::{Denied, Policy};
use crate::scan::{Clean, Source};
use gix_hash::Kind;

/// What the upstream has said, and what the client is offered.
#[derive(Debug)]
pub struct Offered {
    first: FirstLine,
    offer: Capabilities,
    format: Kind,
}

impl Offered {
    /// Of an upstream's first line; `format` is what it names.
    pub fn new(first: FirstLine, format: Kind, policy: &Policy) -> Self {
        let offer = push_offer(&first.capabilities, policy.deletes());
        Self { first, offer, format }
    }

    /// The first line as the client gets it.
    pub fn line(&self) -> Vec<u8> {
        push_first_line(&self.first, &self.offer)
    }

    /// What takes the client's lines.
    pub fn reader<'a>(&'a self, limits: &'a Limits) -> Reader<'a> {
        Reader::new(&self.offer, self.format, limits)
    }
}

/// What the client wants of refs, all of it read.
#[derive(Debug)]
pub struct Asked {
    commands: Commands,
    options: Vec<Vec<u8>>,
}

/// Was it shown that a ref moves forward?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forwardness {
    /// It was.
    Forward,
    /// It was shown that it does not.
    NotForward,
    /// Nobody could tell.
    Unknown,
}

/// The proof that policy lets every ref update of a push pass.
#[derive(Debug)]
pub struct Permitted(());

impl Asked {
    /// Of a client's lines and options.
    pub fn new(commands: Commands, options: Vec<Vec<u8>>) -> Self {
        Self { commands, options }
    }

    /// The lines.
    pub fn commands(&self) -> &Commands {
        &self.commands
    }

    /// What there is to scan before any pack: ref names and push options.
    pub fn texts(&self) -> impl Iterator<Item = (Source, &[u8])> {
        let names = self.commands.updates().iter().map(|update| update.name.as_str());
        let names = names.map(|name| (Source::RefName(name.to_owned()), name.as_bytes()));
        let options = self.options.iter().enumerate();
        names.chain(options.map(|(index, option)| (Source::PushOption(index), option.as_slice())))
    }

    /// What policy refuses already, by the names and kinds of change alone: one answer for each update.
    pub fn denied_early(&self, policy: &Policy) -> Option<Vec<Option<Denied>>> {
        let denied: Vec<Option<Denied>> =
            self.commands.updates().iter().map(|update| policy.check(&update.name, update.change()).err()).collect();
        denied.iter().any(Option::is_some).then_some(denied)
    }

    /// The updates of which it must be shown that they go forward.
    pub fn to_show<'a>(&'a self, policy: &'a Policy) -> impl Iterator<Item = &'a Update> {
        self.commands.updates().iter().filter(|update| policy.wants_forward(update.change()))
    }

    /// The policy's last word. `shown` tells of an update whether it goes forward.
    pub fn permit(
        &self,
        policy: &Policy,
        shown: impl Fn(&Update) -> Forwardness,
    ) -> Result<Permitted, Vec<Option<Denied>>> {
        let judge = |update: &Update| {
            policy.check(&update.name, update.change())?;
            if !policy.wants_forward(update.change()) {
                return Ok(());
            }
            match shown(update) {
                Forwardness::Forward => Ok(()),
                Forwardness::NotForward => Err(Denied::NotForward),
                Forwardness::Unknown => Err(Denied::ForwardUnknown),
            }
        };
        let denied: Vec<Option<Denied>> = self.commands.updates().iter().map(|update| judge(update).err()).collect();
        if denied.iter().all(Option::is_none) { Ok(Permitted(())) } else { Err(denied) }
    }

    /// With every proof together, the push may go. `None` when they are not of this push: a pack where none belongs, none
    /// where one does, another hash function, or a scan that saw less than there is.
    pub fn clear(self, _permitted: Permitted, clean: &Clean, pack: Option<Verified>) -> Option<Cleared> {
        let objects = pack.as_ref().map_or(0, |pack| u64::from(pack.objects()));
        let texts = self.texts().count() as u64;
        let fits = self.commands.has_pack() == pack.is_some()
            && pack.as_ref().is_none_or(|pack| pack.format() == self.commands.format())
            && clean.objects() >= objects + texts;
        fits.then_some(Cleared { asked: self, pack })
    }
}

/// A push that may go to the upstream.
#[derive(Debug)]
pub struct Cleared {
    asked: Asked,
    pack: Option<Verified>,
}

/// The upstream is no longer what it was when the push began.
#[derive(Debug, thiserror::Error)]
#[error("the upstream offers something else than at the beginning of this push")]
pub struct Changed;

/// What is sent.
#[derive(Debug)]
pub struct Forward {
    /// The lines.
    pub head: Vec<u8>,
    /// Exactly the verified bytes, when a pack belongs to it.
    pub pack: Option<Verified>,
    /// What was asked.
    pub asked: Asked,
}

impl Cleared {
    /// What goes to the upstream, given what it offers now.
    pub fn forward(self, upstream: &Capabilities) -> Result<Forward, Changed> {
        let Asked { commands, options } = &self.asked;
        if !commands.suits(upstream) {
            return Err(Changed);
        }
        let head = commands.lines(upstream, options);
        Ok(Forward { head, pack: self.pack, asked: self.asked })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Push;
    use crate::scan::{Budget, Rules, Scanner};

    const A: &str = "1111111111111111111111111111111111111111";
    const B: &str = "2222222222222222222222222222222222222222";
    const NULL: &str = "0000000000000000000000000000000000000000";

    fn policy(force: bool) -> Policy {
        let push = Push { refs: vec!["refs/heads/*".into()], force, delete: true, max_pack: None };
        Policy::parse(&push, 1 << 20).unwrap()
    }

    fn first() -> FirstLine {
        FirstLine::parse(format!("{A} refs/heads/a\0report-status delete-refs push-options agent=x").as_bytes())
            .unwrap()
    }

    fn asked(lines: &[String]) -> Asked {
        let offered = Offered::new(first(), Kind::Sha1, &policy(false));
        let limits = Limits::default();
        let mut reader = offered.reader(&limits);
        lines.iter().for_each(|line| reader.line(line.as_bytes()).unwrap());
        Asked::new(reader.end().unwrap(), Vec::new())
    }

    fn scanned(texts: &[(Source, &[u8])]) -> Clean {
        let scan = Scanner::new(Rules::built_in().unwrap(), Vec::new()).unwrap().start(Budget::default());
        texts.iter().for_each(|(source, text)| scan.text(source.clone(), text).unwrap());
        scan.finish().unwrap()
    }

    #[test]
    fn a_delete_is_forwarded_with_its_proofs() {
        let asked = asked(&[format!("{A} {NULL} refs/heads/a\0report-status")]);
        let permitted = asked.permit(&policy(false), |_| Forwardness::Unknown).unwrap();
        let clean = scanned(&asked.texts().collect::<Vec<_>>());
        let forward = asked.clear(permitted, &clean, None).unwrap().forward(&first().capabilities).unwrap();
        assert!(forward.head.ends_with(b"0000") && forward.pack.is_none());
    }

    #[test]
    fn proofs_of_something_else_clear_nothing() {
        let delete = || asked(&[format!("{A} {NULL} refs/heads/a\0report-status")]);
        let update = || asked(&[format!("{NULL} {B} refs/heads/a\0report-status")]);
        let permitted = |asked: &Asked| asked.permit(&policy(false), |_| Forwardness::Forward).unwrap();
        let nothing = scanned(&[]);
        let (first, second) = (delete(), update());
        let clean = scanned(&second.texts().collect::<Vec<_>>());
        let (proof, other) = (permitted(&first), permitted(&second));
        assert!(first.clear(proof, &nothing, None).is_none(), "the scan did not see the ref's name");
        assert!(second.clear(other, &clean, None).is_none(), "the pack is missing");
    }

    #[test]
    fn the_upstream_must_be_what_it_was() {
        let asked = asked(&[format!("{A} {NULL} refs/heads/a\0report-status push-options")]);
        let permitted = asked.permit(&policy(false), |_| Forwardness::Unknown).unwrap();
        let clean = scanned(&asked.texts().collect::<Vec<_>>());
        let cleared = asked.clear(permitted, &clean, None).unwrap();
        assert!(cleared.forward(&Capabilities::parse(b"report-status delete-refs")).is_err());
    }

    #[test]
    fn policy_has_the_last_word() {
        let lines = [format!("{A} {B} refs/heads/a\0report-status"), format!("{NULL} {B} refs/x/b")];
        let asked = asked(&lines);
        let early = asked.denied_early(&policy(false)).unwrap();
        assert_eq!(early, [None, Some(Denied::Ref)]);
        let denied = |force, shown| asked.permit(&policy(force), |_| shown).map(drop).unwrap_err();
        assert_eq!(denied(false, Forwardness::Forward), [None, Some(Denied::Ref)]);
        assert_eq!(denied(false, Forwardness::NotForward), [Some(Denied::NotForward), Some(Denied::Ref)]);
        assert_eq!(denied(false, Forwardness::Unknown), [Some(Denied::ForwardUnknown), Some(Denied::Ref)]);
        assert_eq!(denied(true, Forwardness::NotForward), [None, Some(Denied::Ref)]);
        assert_eq!(asked.to_show(&policy(false)).count(), 1);
        assert_eq!(asked.to_show(&policy(true)).count(), 0);
    }
}
