//! What may pass on a route: `METHOD /path/pattern[?query]`. PURE.
//!
//! `*` is one segment, `**` any number of them, `*` as method is any. A pattern without a query permits any query, one
//! with a query exactly that one. Paths are those of [`crate::path`], relative to the route.

use crate::path::{PathError, normalise};

/// One permission of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allow {
    method: Option<String>,
    segments: Vec<Segment>,
    query: Option<String>,
}

/// Why a pattern is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AllowError {
    /// There is no space between method and path.
    #[error("it is not `METHOD /path`")]
    NotMethodAndPath,
    /// The method has other characters than A-Z, or is one that never passes.
    #[error("`{0}` is not a method that can be allowed")]
    Method(String),
    /// The path begins with neither `/` nor `**`.
    #[error("the path begins with neither `/` nor `**`")]
    NotAbsolute,
    /// A wildcard that is only part of a segment.
    #[error("`{0}` mixes a wildcard with other characters; `*` stands for a whole segment")]
    PartialWildcard(String),
    /// A literal part that no request could ever have.
    #[error("no request can match it")]
    Path(#[from] PathError),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Segment {
    Literal(String),
    One,
    Any,
}

impl Allow {
    /// Reads a pattern.
    pub fn parse(text: &str) -> Result<Self, AllowError> {
        let (method, rest) = text.trim().split_once(' ').ok_or(AllowError::NotMethodAndPath)?;
        let method = match method {
            "*" => None,
            "CONNECT" | "TRACE" => return Err(AllowError::Method(method.into())),
            _ if method.is_empty() || !method.bytes().all(|byte| byte.is_ascii_uppercase()) => {
                return Err(AllowError::Method(method.into()));
            }
            _ => Some(method.to_owned()),
        };
        let (path, query) = match rest.trim_start().split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (rest.trim_start(), None),
        };
        let path = match path.strip_prefix('/') {
            Some(path) => path,
            None if path.starts_with("**") => path,
            None => return Err(AllowError::NotAbsolute),
        };
        let last = path.split('/').count() - 1;
        let segments = path
            .split('/')
            .enumerate()
            .map(|(index, segment)| Segment::parse(segment, index == last))
            .collect::<Result<_, _>>()?;
        Ok(Self { method, segments, query })
    }

    /// Does it permit this request? `path` is normal and relative to the route, beginning with `/`.
    pub fn permits(&self, method: &str, path: &str, query: Option<&str>) -> bool {
        self.method.as_deref().is_none_or(|own| own == method)
            && self.query.as_deref().is_none_or(|own| query == Some(own))
            && matches(&self.segments, path)
    }
}

impl Segment {
    fn parse(text: &str, is_last: bool) -> Result<Self, AllowError> {
        match text {
            "*" => Ok(Self::One),
            "**" => Ok(Self::Any),
            "" if is_last => Ok(Self::Literal(String::new())),
            "" => Err(PathError::EmptySegment.into()),
            _ if text.contains('*') => Err(AllowError::PartialWildcard(text.into())),
            _ => Ok(Self::Literal(normalise(&format!("/{text}"))?.split_off(1))),
        }
    }

    fn takes(&self, segment: &str) -> bool {
        match self {
            Self::Literal(own) => own == segment,
            Self::One => !segment.is_empty(),
            Self::Any => true,
        }
    }
}

/// Wildcard matching with one point of return, the last `**`: at most segments times pattern steps.
fn matches(pattern: &[Segment], path: &str) -> bool {
    let path: Vec<&str> = path.strip_prefix('/').unwrap_or(path).split('/').collect();
    let (mut at, mut in_pattern) = (0, 0);
    let mut back: Option<(usize, usize)> = None;
    while at < path.len() {
        match pattern.get(in_pattern) {
            Some(Segment::Any) => {
                back = Some((at, in_pattern));
                in_pattern += 1;
            }
            Some(segment) if segment.takes(path[at]) => {
                at += 1;
                in_pattern += 1;
            }
            _ => match &mut back {
                Some((from, any)) => {
                    *from += 1;
                    (at, in_pattern) = (*from, *any + 1);
                }
                None => return false,
            },
        }
    }
    pattern[in_pattern..].iter().all(|segment| *segment == Segment::Any)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_and_their_refused_neighbours() {
        let table: &[(&str, &str, &str, bool)] = &[
            ("POST /v1/messages", "POST", "/v1/messages", true),
            ("POST /v1/messages", "GET", "/v1/messages", false),
            ("POST /v1/messages", "post", "/v1/messages", false),
            ("POST /v1/messages", "POST", "/v1/messages/", false),
            ("POST /v1/messages", "POST", "/v1/messages/batches", false),
            ("POST /v1/messages", "POST", "/v1/Messages", false),
            ("POST /v1/messages", "POST", "/x/v1/messages", false),
            ("GET /v1/models/**", "GET", "/v1/models", true),
            ("GET /v1/models/**", "GET", "/v1/models/", true),
            ("GET /v1/models/**", "GET", "/v1/models/a/b", true),
            ("GET /v1/models/**", "GET", "/v1/modelsx", false),
            ("GET /v1/*/x", "GET", "/v1/a/x", true),
            ("GET /v1/*/x", "GET", "/v1/x", false),
            ("GET /v1/*/x", "GET", "/v1/a/b/x", false),
            ("GET /v1/*", "GET", "/v1/a", true),
            ("GET /v1/*", "GET", "/v1/", false),
            ("GET /**", "GET", "/", true),
            ("GET /**", "GET", "/a/b/c", true),
            ("GET /**", "HEAD", "/a/b/c", false),
            ("* /a", "DELETE", "/a", true),
            ("* /a", "DELETE", "/b", false),
            ("GET /", "GET", "/", true),
            ("GET /", "GET", "/a", false),
            ("POST **/git-upload-pack", "POST", "/team/app.git/git-upload-pack", true),
            ("POST **/git-upload-pack", "POST", "/git-upload-pack", true),
            ("POST **/git-upload-pack", "POST", "/team/git-upload-pack/x", false),
            ("GET /a/**/b/**/c", "GET", "/a/b/c", true),
            ("GET /a/**/b/**/c", "GET", "/a/x/b/y/z/c", true),
            ("GET /a/**/b/**/c", "GET", "/a/x/c/y/b", false),
            ("GET /%61", "GET", "/a", true),
        ];
        for (pattern, method, path, wanted) in table {
            let allow = Allow::parse(pattern).unwrap();
            assert_eq!(allow.permits(method, path, None), *wanted, "{pattern} on {method} {path}");
        }
    }

    #[test]
    fn a_query_in_the_pattern_is_the_only_one_permitted() {
        let allow = Allow::parse("GET **/info/refs?service=git-upload-pack").unwrap();
        assert!(allow.permits("GET", "/a/info/refs", Some("service=git-upload-pack")));
        for query in [None, Some(""), Some("service=git-receive-pack"), Some("service=git-upload-pack&service=x")] {
            assert!(!allow.permits("GET", "/a/info/refs", query), "{query:?}");
        }
        assert!(Allow::parse("GET /a").unwrap().permits("GET", "/a", Some("any=thing")));
    }

    #[test]
    fn what_is_no_pattern() {
        for text in [
            "",
            "GET",
            "GET ",
            "/a",
            "get /a",
            "G,T /a",
            "TRACE /a",
            "CONNECT /a",
            "GET a",
            "GET /a*",
            "GET /**a",
            "GET /../a",
            "GET /a//b",
            "GET /a;b",
        ] {
            assert!(Allow::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn many_wildcards_cost_no_explosion() {
        let allow = Allow::parse(&format!("GET /{}x", "**/a/".repeat(20))).unwrap();
        assert!(!allow.permits("GET", &"/a".repeat(20_000), None));
    }
}
