//! The search of one text for rules and known secrets: keywords in one pass, then each rule's regular expression on the
//! window around its keyword, then the secret's randomness and the lists of what is none. PURE.

use super::ScannerError;
use super::container::Container;
use super::keywords::{Ends, Keywords};
use super::known::{self, Form};
use super::rules::{Rule, Rules, Tier, syntax};
use super::{Refused, Secret};
use regex_automata::meta::{BuildError, Cache, Regex};
use regex_automata::util::captures::Captures;
use regex_automata::{Anchored as Where, Input};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::OnceLock;

/// Memory of one regular expression's automaton on one thread.
const AUTOMATON_BYTES_MAX: usize = 512 << 10;
/// A compiled regular expression; the largest of ours needs a tenth.
const COMPILED_BYTES_MAX: usize = 8 << 20;
/// Matches that are looked at around one keyword.
const MATCHES_PER_WINDOW_MAX: usize = 16;
/// What trying a rule costs beside its window, in units of work.
const TRY_UNITS: u64 = 32;

/// Everything that is searched for, ready.
pub(super) struct Engine {
    keywords: Keywords,
    /// What each keyword is of.
    targets: Vec<Vec<Target>>,
    rules: Vec<Search>,
    forms: Vec<Form>,
    stopwords: BTreeMap<String, OnceLock<Option<Regex>>>,
    patterns: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Rule(usize),
    Form(usize),
    Container(Container),
}

struct Search {
    rule: Rule,
    regex: OnceLock<Option<Regex>>,
    except: OnceLock<Option<Regex>>,
}

/// Which rule found something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum By {
    /// The known secrets of the bottle.
    Known(usize),
    /// A rule, by its place.
    Rule(usize),
}

/// A secret in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hit {
    pub(super) by: By,
    pub(super) at: Range<usize>,
}

/// One thread's memory for searches.
#[derive(Default)]
pub(super) struct Workspace {
    searches: Vec<Option<Box<(Cache, Captures)>>>,
    ends: Ends,
}

/// What one pass over a text gives.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) hits: Vec<Hit>,
    /// Beginnings of what may be compressed, in order.
    pub(super) containers: Vec<(usize, Container)>,
}

impl Engine {
    pub(super) fn new(rules: Rules, known: &[Secret]) -> Result<Self, ScannerError> {
        let forms = known::forms(known)?;
        let mut words: BTreeMap<Vec<u8>, Vec<Target>> = BTreeMap::new();
        let mut add = |word: &[u8], target: Target| {
            let targets = words.entry(word.to_ascii_lowercase()).or_default();
            if !targets.contains(&target) {
                targets.push(target);
            }
        };
        for (index, rule) in rules.rules.iter().enumerate() {
            rule.keywords.iter().for_each(|word| add(word.as_bytes(), Target::Rule(index)));
        }
        for (index, form) in forms.iter().enumerate() {
            add(form.keyword(), Target::Form(index));
        }
        for kind in Container::ALL {
            kind.magic().iter().for_each(|magic| add(magic, Target::Container(kind)));
        }
        let (words, targets): (Vec<_>, Vec<_>) = words.into_iter().unzip();
        let keywords = Keywords::new(&words)?;
        let search = |rule| Search { rule, regex: OnceLock::new(), except: OnceLock::new() };
        Ok(Self {
            keywords,
            targets,
            rules: rules.rules.into_iter().map(search).collect(),
            forms,
            stopwords: rules.stopwords.keys().map(|name| (name.clone(), OnceLock::new())).collect(),
            patterns: rules.stopwords,
        })
    }

    pub(super) fn rule(&self, by: By) -> Option<&Rule> {
        match by {
            By::Known(_) => None,
            By::Rule(index) => self.rules.get(index).map(|search| &search.rule),
        }
    }

    /// The secret that a hit is of: what stands in the text, and of an encoded known one the known one.
    pub(super) fn secret(&self, hit: &Hit, text: &[u8]) -> Secret {
        match hit.by {
            By::Known(form) => self.forms.get(form).map_or_else(|| Secret::new(Vec::new()), |form| form.secret.clone()),
            By::Rule(_) => Secret::new(text.get(hit.at.clone()).unwrap_or_default().to_vec()),
        }
    }

    /// The form of a known secret.
    pub(super) fn form(&self, by: By) -> Option<&Form> {
        match by {
            By::Known(index) => self.forms.get(index),
            By::Rule(_) => None,
        }
    }

    /// costs as it goes and may end it.
    pub(super) fn search(
        &self,
        text: &[u8],
        own: Range<usize>,
        space: &mut Workspace,
        work: &mut dyn FnMut(u64) -> Result<(), Refused>,
    ) -> Result<Seen, Refused> {
        const STRIDE: usize = 64 << 10;
        let mut seen = Seen::default();
        // A keyword that begins in `own` may end after it.
        let end = text.len().min(own.end.saturating_add(self.keywords.longest()));
        let mut from = own.start;
        while from < end {
            let to = end.min(from + STRIDE);
            let mut units = (to - from) as u64;
            let mut ends = std::mem::take(&mut space.ends);
            self.keywords.search(text, own.start, from..to, &mut ends)?;
            for (at, word) in self.keywords.found(&ends) {
                if at.start < own.end {
                    units += self.keyword(text, at, word, space, &mut seen)?;
                }
            }
            space.ends = ends;
            work(units)?;
            from = to;
        }
        self.settle(&mut seen);
        Ok(seen)
    }

    /// Looks at everything that has this keyword; gives what that cost.
    fn keyword(
        &self,
        text: &[u8],
        at: Range<usize>,
        word: usize,
        space: &mut Workspace,
        seen: &mut Seen,
    ) -> Result<u64, Refused> {
        let mut units = 0;
        for target in self.targets.get(word).into_iter().flatten() {
            match *target {
                Target::Container(kind) => seen.containers.extend(kind.begins(text, at.start).map(|from| (from, kind))),
                Target::Form(index) => {
                    if let Some(form) = self.forms.get(index)
                        && form.is_at(text, at.start)
                    {
                        seen.hits.push(Hit { by: By::Known(index), at: at.start..at.start + form.len() });
                    }
                }
                Target::Rule(index) => {
                    if let Some(search) = self.rules.get(index) {
                        units += self.attempt(search, index, text, at.clone(), space, &mut seen.hits)?;
                    }
                }
            }
        }
        Ok(units)
    }

    fn attempt(
        &self,
        search: &Search,
        index: usize,
        text: &[u8],
        at: Range<usize>,
        space: &mut Workspace,
        hits: &mut Vec<Hit>,
    ) -> Result<u64, Refused> {
        let rule = &search.rule;
        let assigned = rule.is_assigned();
        if rule.boundary && rule.before == 0 && !assigned && !is_boundary(text, at.start) {
            return Ok(1);
        }
        let end = text.len().min(at.start.saturating_add(rule.after));
        let start = if assigned { at.end } else { at.start.saturating_sub(rule.before) };
        if start >= end {
            return Ok(1);
        }
        let regex = search.regex.get_or_init(|| compile(&rule.pattern()).ok()).as_ref().ok_or(UNUSABLE)?;
        let (cache, found) = &mut **space.of(index, regex);
        let anchored = if rule.before == 0 { Where::Yes } else { Where::No };
        let (mut from, mut units) = (start, 0);
        for _ in 0..MATCHES_PER_WINDOW_MAX {
            units += TRY_UNITS + (end - from) as u64;
            let input = Input::new(text).span(from..end).anchored(anchored);
            regex.search_captures_with(cache, &input, found);
            let Some(whole) = found.get_match() else { break };
            // What ends before the keyword is of another one; what begins after it will be found by its own.
            let near = rule.near || assigned || (whole.start() <= at.start && at.start < whole.end());
            if near
                && let Some(secret) = group(rule, found)
                && self.is_secret(search, &text[secret.clone()])?
                && !hits.iter().rev().take(8).any(|hit| hit.by == By::Rule(index) && hit.at == secret)
            {
                hits.push(Hit { by: By::Rule(index), at: secret });
            }
            if rule.before == 0 || whole.is_empty() || (whole.start() > at.start && !rule.near) {
                break;
            }
            from = whole.end();
            if from >= end {
                break;
            }
        }
        Ok(units)
    }

    /// Is it random enough, and none of what the rule excepts?
    fn is_secret(&self, search: &Search, secret: &[u8]) -> Result<bool, Refused> {
        let rule = &search.rule;
        if secret.is_empty() || !super::randomness::is_random(secret, rule.entropy, rule.mixed) {
            return Ok(false);
        }
        if let Some(except) = &rule.except {
            let except = search.except.get_or_init(|| compile(except).ok()).as_ref().ok_or(UNUSABLE)?;
            if except.is_match(secret) {
                return Ok(false);
            }
        }
        if let Some(list) = &rule.stopwords {
            let compiled = self.stopwords.get(list).zip(self.patterns.get(list));
            let (lock, pattern) = compiled.ok_or(UNUSABLE)?;
            let words = lock.get_or_init(|| compile(pattern).ok()).as_ref().ok_or(UNUSABLE)?;
            return Ok(!words.is_match(secret));
        }
        Ok(true)
    }

    /// One finding per secret: the surest rule's, and of those the first.
    fn settle(&self, seen: &mut Seen) {
        let rank = |hit: &Hit| self.rule(hit.by).is_some_and(|rule| rule.tier == Tier::Generic);
        seen.hits.sort_by(|one, other| {
            (rank(one), one.at.start, one.by, one.at.end).cmp(&(rank(other), other.at.start, other.by, other.at.end))
        });
        let mut kept: Vec<Hit> = Vec::new();
        for hit in std::mem::take(&mut seen.hits) {
            let covers = |other: &Hit| match rank(&hit) {
                true => other.at.start < hit.at.end && hit.at.start < other.at.end,
                false => other.at == hit.at,
            };
            // Sure ones are in order of place, so only the last few can be at the same; of generic ones there are few.
            let near = if rank(&hit) { kept.len() } else { 8 };
            if !kept.iter().rev().take(near).any(covers) {
                kept.push(hit);
            }
        }
        kept.sort_by_key(|hit| (hit.at.start, hit.by));
        seen.hits = kept;
        seen.containers.sort_by_key(|(at, _)| *at);
    }

    /// Every rule's expression is built now, for tests and for a rule file that was just read.
    pub(super) fn compile_all(&self) -> Result<(), (String, Box<BuildError>)> {
        for search in &self.rules {
            let patterns = [Some(search.rule.pattern()), search.rule.except.clone()];
            for pattern in patterns.into_iter().flatten() {
                compile(&pattern).map_err(|e| (search.rule.id.clone(), e))?;
            }
        }
        Ok(())
    }
}

/// A rule whose expression cannot be built finds nothing, so nothing may be called clean. A test builds all of ours.
const UNUSABLE: Refused =
    Refused::Limit { name: "compiled rule", value: COMPILED_BYTES_MAX as u64, unit: "bytes of memory" };

impl Workspace {
    fn of(&mut self, index: usize, regex: &Regex) -> &mut Box<(Cache, Captures)> {
        if self.searches.len() <= index {
            self.searches.resize_with(index + 1, || None);
        }
        self.searches[index].get_or_insert_with(|| Box::new((regex.create_cache(), regex.create_captures())))
    }
}

fn compile(pattern: &str) -> Result<Regex, Box<BuildError>> {
    Regex::builder()
        .syntax(syntax())
        .configure(
            Regex::config()
                .utf8_empty(false)
                .nfa_size_limit(Some(COMPILED_BYTES_MAX))
                .hybrid_cache_capacity(AUTOMATON_BYTES_MAX),
        )
        .build(pattern)
        .map_err(Box::new)
}

/// The group that is the secret.
fn group(rule: &Rule, found: &Captures) -> Option<Range<usize>> {
    let group = rule.secret.unwrap_or(usize::from(found.group_len() > 1));
    found.get_group(group).map(|span| span.range())
}

/// May a token that begins with a letter or digit begin here? Not inside a word; but after an escape such as `\n` in a
/// string literal.
fn is_boundary(text: &[u8], at: usize) -> bool {
    let before = |back: usize| at.checked_sub(back).and_then(|at| text.get(at)).copied();
    match before(1) {
        _ if text.get(at).is_none_or(|first| !first.is_ascii_alphanumeric()) => true,
        Some(byte) if byte.is_ascii_alphanumeric() => matches!(byte, b'n' | b'r' | b't') && before(2) == Some(b'\\'),
        _ => true,
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Engine({} rules, known secrets [redacted])", self.rules.len())
    }
}

/// It may remember parts of secrets.
impl std::fmt::Debug for Workspace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workspace([redacted])")
    }
}
