//! What a role means where the bottle does not say: what may pass, and whether it is inspected.

use super::Role;

/// What reads but does not write.
const READING: [&str; 2] = ["GET /**", "HEAD /**"];

/// A session with Anthropic's API. Batches and files are not in it: they keep what they are given and fetch for their
/// caller.
const ANTHROPIC: [&str; 4] =
    ["POST /v1/messages", "POST /v1/messages/count_tokens", "GET /v1/models", "GET /v1/models/*"];

/// A session with OpenAI's API, under the same rule.
const OPENAI: [&str; 6] = [
    "POST /v1/responses",
    "POST /v1/responses/compact",
    "POST /v1/chat/completions",
    "POST /v1/embeddings",
    "GET /v1/models",
    "GET /v1/models/*",
];

/// Fetching over git's smart protocol, and not pushing.
const GIT: [&str; 2] = ["GET **/info/refs?service=git-upload-pack", "POST **/git-upload-pack"];

impl Role {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::AnthropicBaseUrl, Self::OpenaiBaseUrl, Self::NpmRegistry, Self::GitInsteadof, Self::TeaLogin];

    /// As a manifest writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::AnthropicBaseUrl => "anthropic-base-url",
            Self::OpenaiBaseUrl => "openai-base-url",
            Self::NpmRegistry => "npm-registry",
            Self::GitInsteadof => "git-insteadof",
            Self::TeaLogin => "tea-login",
        }
    }

    /// Is there one place alone in the agent's configuration for it, so that two routes cannot both have it?
    pub(super) fn single(self) -> bool {
        match self {
            Self::AnthropicBaseUrl | Self::OpenaiBaseUrl | Self::NpmRegistry => true,
            Self::GitInsteadof | Self::TeaLogin => false,
        }
    }

    /// The variables by which the agent's tools are told of a route with this role.
    pub fn variables(self) -> &'static [&'static str] {
        match self {
            Self::AnthropicBaseUrl => &["ANTHROPIC_BASE_URL", "ANTHROPIC_API_KEY"],
            Self::OpenaiBaseUrl => &["OPENAI_BASE_URL", "OPENAI_API_KEY"],
            Self::NpmRegistry => &["npm_config_registry", "npm_config_replace_registry_host"],
            Self::GitInsteadof | Self::TeaLogin => &[],
        }
    }

    /// Do its clients ask for paths that begin with the API's version?
    pub(super) fn versioned(self) -> bool {
        match self {
            Self::AnthropicBaseUrl | Self::OpenaiBaseUrl => true,
            Self::NpmRegistry | Self::GitInsteadof | Self::TeaLogin => false,
        }
    }

    fn allow(self) -> &'static [&'static str] {
        match self {
            Self::AnthropicBaseUrl => &ANTHROPIC,
            Self::OpenaiBaseUrl => &OPENAI,
            Self::GitInsteadof => &GIT,
            Self::NpmRegistry | Self::TeaLogin => &READING,
        }
    }

    fn inspect(self) -> bool {
        match self {
            Self::AnthropicBaseUrl | Self::OpenaiBaseUrl | Self::NpmRegistry | Self::GitInsteadof => false,
            Self::TeaLogin => true,
        }
    }
}

/// What passes a route with these roles.
pub(super) fn default_allow(roles: &[Role]) -> Vec<String> {
    let lists: Vec<&[&str]> = if roles.is_empty() { vec![&READING] } else { roles.iter().map(|r| r.allow()).collect() };
    let mut allow: Vec<String> = Vec::new();
    for line in lists.into_iter().flatten() {
        if !allow.iter().any(|other| other == line) {
            allow.push((*line).to_owned());
        }
    }
    allow
}

/// Is a route with these roles inspected? Not inspected wins.
pub(super) fn default_inspect(roles: &[Role]) -> bool {
    roles.iter().all(|role| role.inspect())
}

#[cfg(test)]
mod tests {
    use super::super::upstream::pattern;
    use super::*;

    #[test]
    fn every_default_is_a_pattern_and_no_llm_default_has_files() {
        for role in Role::ALL {
            for line in default_allow(&[role]) {
                assert_eq!(pattern(&line), Ok(()), "{line}");
                assert!(!line.contains("files") && !line.contains("batches"), "{line}");
            }
        }
        for role in [Role::AnthropicBaseUrl, Role::OpenaiBaseUrl] {
            assert!(default_allow(&[role]).iter().all(|line| !line.contains("**")));
        }
    }

    #[test]
    fn two_roles_pass_the_union_and_are_not_inspected_if_one_is_not() {
        let both = default_allow(&[Role::GitInsteadof, Role::TeaLogin, Role::NpmRegistry]);
        assert_eq!(both, [GIT[0], GIT[1], READING[0], READING[1]]);
        assert!(!default_inspect(&[Role::GitInsteadof, Role::TeaLogin]));
        assert!(default_inspect(&[Role::TeaLogin]));
        assert!(default_inspect(&[]));
    }

    #[test]
    fn a_role_is_written_as_it_is_stored() {
        for role in Role::ALL {
            assert_eq!(serde_json::to_string(&role).unwrap(), format!("\"{}\"", role.name()));
        }
    }
}
