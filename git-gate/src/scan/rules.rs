//! What is searched for: rules as data (`rules/*.toml`), read and checked.
//!
//! ```toml
//! [[rule]]
//! id = "acme-token"                # unique
//! description = "Acme token"       # for people; starts in lower case unless it is a name
//! source = "https://..."           # the vendor's document or the RFC that the form is taken from
//! tier = "block"                   # or "generic": found by name and randomness, can be switched off by the operator
//! keywords = ["acme_"]             # one of these, in any case, has to stand in the text; 2 bytes at least
//! regex = 'acme_[0-9a-f]{32}\b'    # begins at the keyword, ASCII classes; or
//! value = '[0-9a-f]{32}'           # what is assigned to a name with the keyword in it
//! secret = 1                       # the group that is the secret: by default 1, or the whole match if there is no group
//! before = 8                       # the match may begin this many bytes before the keyword (default 0) ...
//! after = 256                      # ... and ends at most as many after the keyword's beginning
//! near = true                      # the match need not hold the keyword, it is only near
//! boundary = false                 # a letter or digit may stand before the keyword (default: not)
//! entropy = 3.5                    # least Shannon entropy of the secret, bits per byte
//! mixed = 0.25                     # least share of changes between upper case, lower case and digits
//! except = 'EXAMPLE$'              # a secret that this matches is none
//! stopwords = "placeholder"        # a secret that is made of words of this list alone is none
//! hit = ["acme_<hex:32>"]          # the rule's own test: found ...
//! miss = ["acme_<hex:31>"]         # ... and not found
//!
//! [stopwords]
//! placeholder = ["example", "x+"]  # regular expressions without groups
//! ```
//!
//! In `hit` and `miss`, `<hex:32>` stands for 32 random characters of a set, so that no scanner, ours or a code host's, takes
//! the rule file itself for a leak.

use regex_automata::util::syntax;
use std::collections::{BTreeMap, BTreeSet};

/// The rules that Bottle ships.
const BUILT_IN: [&str; 9] = [
    include_str!("../../rules/ai.toml"),
    include_str!("../../rules/cloud.toml"),
    include_str!("../../rules/code.toml"),
    include_str!("../../rules/commerce.toml"),
    include_str!("../../rules/generic.toml"),
    include_str!("../../rules/keys.toml"),
    include_str!("../../rules/messaging.toml"),
    include_str!("../../rules/observability.toml"),
    include_str!("../../rules/places.toml"),
];

/// What stands between a name and what is assigned to it, in the notations of shells, languages, JSON, YAML and XML.
const ASSIGNED: &str = r#"[\w.-]{0,32}?["'`\])]{0,3}(?:[ \t]{0,8}(?::[ \t]?&?[A-Za-z0-9' ]{2,16}=|:=|=>|={1,3}|:|\|\||->|>|,|\()|\s{1,40}-?[ \t]{0,4}["']?value["']?[ \t]{0,4}[:=])[ \t]{0,8}|[ \t]"#;
/// What may stand around an assigned value.
const OPENED: &str = r#"(?:[bfru]{0,2}\\{0,2}["'`]|[(\[{]){0,2}"#;
const CLOSED: &str = r#"(?:["'`;,\s\\<)}\]&]|\z)"#;

/// The longest window around a keyword, so that a piece of a stream holds it.
pub(super) const WINDOW_BYTES_MAX: usize = 8192;
const AFTER_BYTES: usize = 256;
const KEYWORD_BYTES_MIN: usize = 2;
const RULES_MAX: usize = 4096;

/// How sure a rule is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// The form alone says that it is a credential.
    Block,
    /// A name and the randomness of the value say it.
    Generic,
}

/// A set of rules.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(super) rules: Vec<Rule>,
    /// Each list as one regular expression for a whole value.
    pub(super) stopwords: BTreeMap<String, String>,
}

/// One rule, checked.
#[derive(Debug, Clone, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Its name, unique.
    pub id: String,
    /// What it finds, for people.
    pub description: String,
    /// The document its form is taken from.
    pub source: String,
    /// How sure it is.
    #[serde(default = "block")]
    pub tier: Tier,
    pub(super) keywords: Vec<String>,
    regex: Option<String>,
    value: Option<String>,
    #[serde(default)]
    pub(super) secret: Option<usize>,
    #[serde(default)]
    pub(super) before: usize,
    #[serde(default = "after")]
    pub(super) after: usize,
    #[serde(default)]
    pub(super) near: bool,
    #[serde(default = "yes")]
    pub(super) boundary: bool,
    #[serde(default)]
    pub(super) entropy: f32,
    #[serde(default)]
    pub(super) mixed: f32,
    #[serde(default)]
    pub(super) except: Option<String>,
    #[serde(default)]
    pub(super) stopwords: Option<String>,
    /// Texts in which it finds something, with placeholders.
    #[serde(default)]
    pub hit: Vec<String>,
    /// Texts in which it finds nothing, with placeholders.
    #[serde(default)]
    pub miss: Vec<String>,
}

fn block() -> Tier {
    Tier::Block
}

fn after() -> usize {
    AFTER_BYTES
}

fn yes() -> bool {
    true
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    rule: Vec<Rule>,
    #[serde(default)]
    stopwords: BTreeMap<String, Vec<String>>,
}

/// Why a rule file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no TOML or has keys that no rule has.
    #[error("the rule file cannot be read")]
    Syntax(#[source] Box<toml::de::Error>),
    /// A rule or list of stopwords cannot be used.
    #[error("rule {id}: {reason}")]
    Rule {
        /// Which one.
        id: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl Rules {
    /// The rules that Bottle ships.
    pub fn built_in() -> Result<Self, RulesError> {
        Self::read(&BUILT_IN)
    }

    /// Reads a rule file, which stands for itself: the built-in rules are not added.
    pub fn parse(toml: &str) -> Result<Self, RulesError> {
        Self::read(&[toml])
    }

    /// The same without rules of the generic tier.
    pub fn without_generic(mut self) -> Self {
        self.rules.retain(|rule| rule.tier == Tier::Block);
        self
    }

    /// Each rule.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Rule> {
        self.rules.iter()
    }

    fn read(files: &[&str]) -> Result<Self, RulesError> {
        let (mut rules, mut stopwords) = (Vec::new(), BTreeMap::new());
        for text in files {
            let file: File = toml::from_str(text).map_err(|e| RulesError::Syntax(Box::new(e)))?;
            rules.extend(file.rule);
            for (name, words) in file.stopwords {
                let regex = whole(&words);
                parses(&regex).map_err(|reason| RulesError::Rule { id: name.clone(), reason })?;
                stopwords.insert(name, regex);
            }
        }
        let mut ids = BTreeSet::new();
        for rule in &rules {
            let wrong = |reason: String| RulesError::Rule { id: rule.id.clone(), reason };
            rule.check(&stopwords).map_err(wrong)?;
            if !ids.insert(rule.id.as_str()) {
                return Err(wrong("there are two of that name".to_owned()));
            }
        }
        if rules.len() > RULES_MAX {
            return Err(RulesError::Rule { id: String::new(), reason: format!("there are more than {RULES_MAX}") });
        }
        Ok(Self { rules, stopwords })
    }
}

impl Rule {
    /// The whole regular expression. Of an assigned value it begins after the keyword, else at it.
    pub(super) fn pattern(&self) -> String {
        match (&self.regex, &self.value) {
            (Some(regex), _) => regex.clone(),
            (None, value) => format!("(?:{ASSIGNED}){OPENED}({}){CLOSED}", value.as_deref().unwrap_or_default()),
        }
    }

    /// Is it a rule for what is assigned to a name?
    pub(super) fn is_assigned(&self) -> bool {
        self.value.is_some()
    }

    /// The public beginning that such a secret has, as the rule has it: nothing of the text. Empty if the secret begins
    /// with no keyword.
    pub(super) fn prefix_of(&self, secret: &super::Secret) -> &str {
        let secret = secret.expose();
        let begins = |word: &&String| {
            secret.len() > 2 * word.len() && secret.get(..word.len()).is_some_and(|head| head == word.as_bytes())
        };
        self.keywords.iter().filter(begins).max_by_key(|word| word.len()).map_or("", String::as_str)
    }

    fn check(&self, stopwords: &BTreeMap<String, String>) -> Result<(), String> {
        let is_id = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        if self.id.is_empty() || !self.id.bytes().all(is_id) {
            return Err("an id is made of lower case letters, digits and -".to_owned());
        }
        if self.regex.is_some() == self.value.is_some() {
            return Err("it has to have either regex or value".to_owned());
        }
        if self.value.is_some() && (self.near || self.before > 0) {
            return Err("a value is searched for after its keyword: near and before have no meaning".to_owned());
        }
        if self.keywords.is_empty() || self.keywords.iter().any(|word| word.len() < KEYWORD_BYTES_MIN) {
            return Err(format!("it has to have keywords of {KEYWORD_BYTES_MIN} bytes at least"));
        }
        if self.before + self.after > WINDOW_BYTES_MAX + AFTER_BYTES || self.after == 0 {
            return Err(format!("before and after may be {WINDOW_BYTES_MAX} bytes together, and after at least 1"));
        }
        if let Some(list) = &self.stopwords
            && !stopwords.contains_key(list)
        {
            return Err(format!("there is no list of stopwords {list}"));
        }
        parses(&self.pattern())?;
        self.except.as_deref().map_or(Ok(()), parses)
    }
}

/// How all our regular expressions are read: bytes, ASCII classes.
pub(super) fn syntax() -> syntax::Config {
    syntax::Config::new().unicode(false).utf8(false)
}

fn parses(regex: &str) -> Result<(), String> {
    syntax::parse_with(regex, &syntax()).map(drop).map_err(|e| e.to_string())
}

/// A value that is made of these words alone; four digits may follow.
fn whole(words: &[String]) -> String {
    format!(r"(?i)\A[^a-z0-9]*(?:(?:{})[^a-z0-9]*)+[0-9]{{0,4}}[^a-z0-9]*\z", words.join("|"))
}
