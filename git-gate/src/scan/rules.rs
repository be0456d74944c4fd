//! What is searched for: rules as data (`rules/*.toml`), read and checked.

/// A set of rules.
#[derive(Debug, Clone)]
pub struct Rules {}

/// Why a rule file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// It is no TOML or has keys that no rule has.
    #[error("the rule file cannot be read")]
    Syntax(#[source] Box<toml::de::Error>),
    /// A rule cannot be used.
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
        Ok(Self {})
    }

    /// Reads a rule file.
    pub fn parse(toml: &str) -> Result<Self, RulesError> {
        toml::from_str::<toml::Table>(toml).map_err(|e| RulesError::Syntax(Box::new(e)))?;
        Ok(Self {})
    }
}
