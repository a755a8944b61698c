//! A regular expression that must match a whole value; literals are told apart.

use regex::bytes::{Regex, RegexBuilder, RegexSet, RegexSetBuilder};
use regex_syntax::hir::{Dot, Hir, HirKind};

/// Bytes that one compiled pattern (or one set) may take; a policy is another tenant's input.
const SIZE_LIMIT: usize = 4 << 20;

/// What a pattern turned out to be.
#[derive(Debug)]
pub enum Pattern {
    /// The empty pattern of a rule: any value.
    Any,
    Literal(Box<[u8]>),
    /// A literal and then `.*`: text without a line feed.
    Prefix(Box<[u8]>),
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
        if let Some(prefix) = prefix(&hir) {
            return Ok(Self::Prefix(prefix));
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
            Self::Prefix(prefix) => value.strip_prefix(&**prefix).is_some_and(|rest| {
                str::from_utf8(rest).is_ok_and(|rest| !rest.as_bytes().contains(&b'\n'))
            }),
            Self::Regex(regex) => regex.is_match(value),
        }
    }
}

/// The literal before `.*`, if that is all there is.
fn prefix(hir: &Hir) -> Option<Box<[u8]>> {
    let HirKind::Concat(parts) = hir.kind() else { return None };
    let [literal, rest] = parts.as_slice() else { return None };
    let (HirKind::Literal(literal), HirKind::Repetition(rest)) = (literal.kind(), rest.kind())
    else {
        return None;
    };
    let anything =
        rest.min == 0 && rest.max.is_none() && *rest.sub == Hir::dot(Dot::AnyCharExceptLF);
    anything.then(|| literal.0.clone())
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
    use proptest::prelude::*;

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

    proptest! {
        #[test]
        fn a_prefix_is_what_the_regex_says(value in prop::collection::vec(any::<u8>(), 0..6)) {
            let value = [b"/v1", &*value].concat();
            let plain = regex::bytes::Regex::new(&super::anchored("/v1.*")).unwrap();
            let pattern = Pattern::new("/v1.*").unwrap();
            prop_assert!(matches!(pattern, Pattern::Prefix(_)));
            prop_assert_eq!(pattern.matches(&value), plain.is_match(&value));
        }
    }

    #[test]
    fn wrong_patterns_are_refused() {
        for source in
            ["(", "a)|(b", "[", "*", r"(?<n>a)\k<n>", "(?x) [ab]* # b", "a{100000}{100000}"]
        {
            assert!(Pattern::new(source).is_err(), "{source}");
        }
    }
}
