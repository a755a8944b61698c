//! HTTP rules of one group, indexed so that many exact paths cost the same as one.

use crate::Fault;
use crate::pattern::{self, Pattern};
use foldhash::HashMap;
use regex::bytes::RegexSet;
use sidegate_proto::v1;
use std::borrow::Cow;

/// A request as the rules see it. Values are bytes: nothing says that they are UTF-8.
pub trait HttpRequest {
    fn method(&self) -> &[u8];
    /// The whole request target, with its query.
    fn path(&self) -> &[u8];
    /// `:authority` or Host, with its port.
    fn host(&self) -> &[u8];
    /// The value under a lower-case name, several joined by commas (RFC 9110, section 5.3).
    fn header(&self, name: &str) -> Option<Cow<'_, [u8]>>;
}

#[derive(Debug)]
struct Header {
    name: Box<str>,
    /// None: presence is enough.
    value: Option<Box<[u8]>>,
}

#[derive(Debug)]
struct Rule {
    origin: usize,
    method: Pattern,
    host: Pattern,
    headers: Vec<Header>,
    path: Pattern,
    path_source: Box<str>,
}

impl Rule {
    fn matches(&self, request: &impl HttpRequest) -> bool {
        self.method.matches(request.method())
            && self.host.matches(request.host())
            && self.headers.iter().all(|header| {
                match (request.header(&header.name), &header.value) {
                    (Some(actual), Some(value)) => *actual == **value,
                    (Some(_), None) => true,
                    (None, _) => false,
                }
            })
    }
}

/// Rules of which any may match. The path is told apart from the rest because it may be judged
/// in two forms.
#[derive(Debug, Default)]
pub struct HttpRules {
    rules: Vec<Rule>,
    exact: HashMap<Box<[u8]>, Vec<usize>>,
    patterns: Vec<usize>,
    set: Option<RegexSet>,
}

/// Below this, matching one by one is as fast as the set.
const SET_MIN: usize = 4;

impl HttpRules {
    /// Adds a rule; `origin` is given back when it matches.
    pub fn add(&mut self, rule: &v1::HttpRule, origin: usize) -> Result<(), Fault> {
        let pattern = |field, source: &str| {
            Pattern::new(source).map_err(|error| Fault(format!("{field} {source:?}: {error}")))
        };
        self.rules.push(Rule {
            origin,
            method: pattern("method", &rule.method)?,
            host: pattern("host", &rule.host)?,
            path: pattern("path", &rule.path)?,
            path_source: rule.path.as_str().into(),
            headers: rule
                .headers
                .iter()
                .map(|header| Header {
                    name: header.name.as_str().into(),
                    value: header.has_value.then(|| header.value.as_bytes().into()),
                })
                .collect(),
        });
        Ok(())
    }

    /// Builds the indices; to be called once, after the last [`Self::add`].
    pub fn index(&mut self) {
        for (number, rule) in self.rules.iter().enumerate() {
            match &rule.path {
                Pattern::Literal(path) => self.exact.entry(path.clone()).or_default().push(number),
                Pattern::Any | Pattern::Prefix(_) | Pattern::Regex(_) => self.patterns.push(number),
            }
        }
        if self.patterns.len() >= SET_MIN {
            self.set =
                pattern::set(self.patterns.iter().map(|&rule| match self.rules[rule].path {
                    Pattern::Any => "(?s-u:.)*",
                    _ => &*self.rules[rule].path_source,
                }));
        }
    }

    /// The origin of a rule that matches `request` with `path` in the place of its own.
    pub fn find(&self, request: &impl HttpRequest, path: &[u8]) -> Option<usize> {
        let exact = self.exact.get(path).into_iter().flatten().copied();
        let matching = exact.map(|number| &self.rules[number]).find(|rule| rule.matches(request));
        let found = matching.or_else(|| match &self.set {
            Some(set) => set
                .matches(path)
                .into_iter()
                .map(|matched| &self.rules[self.patterns[matched]])
                .find(|rule| rule.matches(request)),
            None => self
                .patterns
                .iter()
                .map(|&number| &self.rules[number])
                .find(|rule| rule.path.matches(path) && rule.matches(request)),
        });
        found.map(|rule| rule.origin)
    }
}
