//! A regular expression that must match a whole value; literals are told apart.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use regex_syntax::hir::HirKind;

/// Bytes that one compiled pattern (or one set) may take; a policy is another tenant's input.
const SIZE_LIMIT: usize = 4 << 20;

/// What a pattern turned out to be.
#[derive(Debug)]
pub enum Pattern {
    /// The empty pattern of a rule: any value.
    Any,
    Literal(Box<[u8]>),
    Regex(Regex),
}

impl Pattern {
    /// # Errors
    /// Says what is wrong with `source`, in the regex crate's words.
    pub fn new(source: &str) -> Result<Self, String> {
        if source.is_empty() {
            return Ok(Self::Any);
        }
        let hir = regex_syntax::Parser::new().parse(source).map_err(|error| error.to_string())?;
        if let HirKind::Literal(literal) = hir.kind() {
            return Ok(Self::Literal(literal.0.clone()));
        }
        RegexBuilder::new(&anchored(source))
            .size_limit(SIZE_LIMIT)
            .build()
            .map(Self::Regex)
            .map_err(|error| error.to_string())
    }

    pub fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Any => true,
            Self::Literal(literal) => **literal == *value,
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// One automaton for many sources. None if it would be too large: match them one by one then.
pub fn set<'a>(sources: impl Iterator<Item = &'a str>) -> Option<RegexSet> {
    RegexSetBuilder::new(sources.map(anchored)).size_limit(SIZE_LIMIT).build().ok()
}

/// A source is parsed alone first, so that `a)|(b` cannot reach out of the group.
fn anchored(source: &str) -> String {
    format!(r"\A(?:{source})\z")
}

#[cfg(test)]
mod tests {
    use super::Pattern;

    #[test]
    fn table() {
        for (source, value, matches) in [
            ("", "anything", true),
            ("GET", "GET", true),
            ("GET", "GETS", false),
            ("GET|POST", "POST", true),
            ("GET|POST", "XPOST", false),
            ("/a|/b", "/b/c", false),
            ("/v1/.*", "/v1/orders", true),
            ("/v1/.*", "/x/v1/orders", false),
            (r"/a\.b", "/a.b", true),
            (r"/a\.b", "/axb", false),
            ("^/a$", "/a", true),
            ("^/a$", "/a\n", false),
            ("/a.*", "/a\nb", false),
            ("(?i)get", "GET", true),
        ] {
            let pattern = Pattern::new(source).unwrap();
            assert_eq!(pattern.matches(value.as_bytes()), matches, "{source:?} {value:?}");
        }
    }

    #[test]
    fn literals_need_no_regex() {
        for source in
            ["GET", "/v1/orders", r"/v1\.0", "shop.example.com".replace('.', r"\.").as_str()]
        {
            assert!(matches!(Pattern::new(source), Ok(Pattern::Literal(_))), "{source}");
        }
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for source in ["(", "a)|(b", "[", "*", r"(?<n>a)\k<n>", "(?x) a.* # b", "a{100000}{100000}"]
        {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
    }
}
