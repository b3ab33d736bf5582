//! Conditions on one label, with Prometheus' meaning.
//!
//! Invariants
//! - A missing label has the empty value: `a=""`, `a!="x"` and `a=~".*"` match a set without `a`.
//! - A regular expression is anchored at both ends and its dot matches line feeds.

use std::fmt;
use std::sync::Arc;

use crate::error::Error;
use crate::labels::{Labels, is_legacy_valid_name, write_quoted};
use crate::regex_matcher::RegexMatcher;

/// How a [`Matcher`] compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `=`
    Equal,
    /// `!=`
    NotEqual,
    /// `=~`
    Regex,
    /// `!~`
    NotRegex,
}

impl MatchOp {
    /// The operator as `PromQL` writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::Regex => "=~",
            Self::NotRegex => "!~",
        }
    }

    /// Whether the operator negates: `!=` and `!~`.
    pub fn is_negative(self) -> bool {
        matches!(self, Self::NotEqual | Self::NotRegex)
    }
}

/// A condition on one label. Cheap to clone.
#[derive(Clone)]
pub struct Matcher {
    op: MatchOp,
    name: Arc<str>,
    value: Arc<str>,
    /// Present for the two regular operators.
    regex: Option<Arc<RegexMatcher>>,
}

impl Matcher {
    /// Makes a matcher; compiles its pattern if it has one (microseconds for a common pattern).
    ///
    /// # Errors
    /// [`Error::InvalidRegex`] for a pattern that is wrong, too long or compiles to too much.
    pub fn new(op: MatchOp, name: &str, value: &str) -> Result<Self, Error> {
        let regex = match op {
            MatchOp::Equal | MatchOp::NotEqual => None,
            MatchOp::Regex | MatchOp::NotRegex => Some(Arc::new(RegexMatcher::new(name, value)?)),
        };
        Ok(Self {
            op,
            name: name.into(),
            value: value.into(),
            regex,
        })
    }

    /// `name="value"`.
    pub fn equal(name: &str, value: &str) -> Self {
        Self {
            op: MatchOp::Equal,
            name: name.into(),
            value: value.into(),
            regex: None,
        }
    }

    /// Memory that the compiled pattern may hold, rounded up: from some kilobytes to 22 MiB.
    pub fn memory_bytes(&self) -> u64 {
        self.regex
            .as_ref()
            .map_or(0, |regex| regex.memory_bytes() as u64)
    }

    /// The label that the matcher is about.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The value or pattern, as given.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The operator.
    pub fn op(&self) -> MatchOp {
        self.op
    }

    /// Whether a label of this value satisfies the condition; pass `""` for a missing label.
    pub fn matches(&self, value: &str) -> bool {
        self.holds(value) != self.op.is_negative()
    }

    /// Whether a set without the label satisfies the condition.
    pub fn matches_empty(&self) -> bool {
        self.matches("")
    }

    /// Whether a label set satisfies the condition.
    pub fn matches_labels(&self, labels: &Labels) -> bool {
        self.matches(labels.get(&self.name).unwrap_or_default())
    }

    /// If the condition is that the value is, or is not, one of a known few: those values, sorted.
    pub(crate) fn listed_values(&self) -> Option<ListedValues<'_>> {
        match &self.regex {
            None => Some(ListedValues::One(&self.value)),
            Some(regex) => regex.listed_values().map(ListedValues::Many),
        }
    }

    /// Whether the pattern holds for every value, or for every value but the empty one.
    pub(crate) fn holds_for_all_present(&self) -> bool {
        self.regex
            .as_ref()
            .is_some_and(|regex| regex.holds_for_all_present())
    }

    /// What every value that satisfies a pattern starts with; empty if nothing is known.
    pub(crate) fn literal_prefix(&self) -> &str {
        self.regex
            .as_ref()
            .map_or("", |regex| regex.literal_prefix())
    }

    /// The condition without its negation.
    pub(crate) fn holds(&self, value: &str) -> bool {
        match &self.regex {
            None => *self.value == *value,
            Some(regex) => regex.is_match(value),
        }
    }
}

/// See [`Matcher::listed_values`].
pub(crate) enum ListedValues<'m> {
    One(&'m str),
    Many(&'m [Box<str>]),
}

impl<'m> ListedValues<'m> {
    pub(crate) fn iter(&self) -> impl Iterator<Item = &'m str> {
        let (one, many): (Option<&'m str>, &'m [Box<str>]) = match self {
            Self::One(value) => (Some(value), &[]),
            Self::Many(values) => (None, values),
        };
        one.into_iter().chain(many.iter().map(|value| &**value))
    }
}

impl PartialEq for Matcher {
    fn eq(&self, other: &Self) -> bool {
        (self.op, &self.name, &self.value) == (other.op, &other.name, &other.value)
    }
}

impl Eq for Matcher {}

impl fmt::Display for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if is_legacy_valid_name(&self.name) {
            f.write_str(&self.name)?;
        } else {
            write_quoted(f, &self.name)?;
        }
        f.write_str(self.op.as_str())?;
        write_quoted(f, &self.value)
    }
}

impl fmt::Debug for Matcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matcher(op: MatchOp, value: &str) -> Matcher {
        Matcher::new(op, "a", value).unwrap()
    }

    #[test]
    fn a_missing_label_is_the_empty_value() {
        assert!(matcher(MatchOp::Equal, "").matches_empty());
        assert!(!matcher(MatchOp::NotEqual, "").matches_empty());
        assert!(matcher(MatchOp::NotEqual, "x").matches_empty());
        assert!(matcher(MatchOp::Regex, ".*").matches_empty());
        assert!(!matcher(MatchOp::Regex, ".+").matches_empty());
        assert!(matcher(MatchOp::Regex, "|x").matches_empty());
        assert!(matcher(MatchOp::NotRegex, ".+").matches_empty());
        assert!(matcher(MatchOp::Regex, "").matches_empty());
    }

    #[test]
    fn patterns_are_anchored_and_the_dot_takes_line_feeds() {
        let m = matcher(MatchOp::Regex, "b.d|x");
        assert!(m.matches("b\nd") && m.matches("x"));
        assert!(!m.matches("abcd") && !m.matches("bcdx") && !m.matches("xx"));
        assert!(matcher(MatchOp::NotRegex, "b.d|x").matches("xx"));
    }

    #[test]
    fn a_wrong_pattern_is_refused_with_label_and_reason() {
        let error = Matcher::new(MatchOp::Regex, "job", "a(b").unwrap_err();
        let Error::InvalidRegex {
            label,
            pattern,
            reason,
        } = &error
        else {
            panic!("{error}")
        };
        assert_eq!((label.as_str(), pattern.as_str()), ("job", "a(b"));
        assert!(!reason.is_empty() && !reason.contains('\n'), "{reason:?}");
        assert!(Matcher::new(MatchOp::Regex, "job", "a)|(b").is_err());
    }

    #[test]
    fn a_matcher_is_written_as_in_promql() {
        assert_eq!(
            matcher(MatchOp::NotRegex, "a\"b").to_string(),
            r#"a!~"a\"b""#
        );
        let dotted = Matcher::equal("k8s.pod", "x");
        assert_eq!(dotted.to_string(), r#""k8s.pod"="x""#);
        assert_eq!(dotted.op(), MatchOp::Equal);
    }
}
