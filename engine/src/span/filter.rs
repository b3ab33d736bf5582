//! What spans are searched by.
//!
//! Values are compared in their display form, so that `500` finds the integer, the text and the
//! double. Something that is absent is the empty text, as in Prometheus. A key that a span has
//! several times satisfies a condition if one of its values does; so do several events or links.

use std::fmt;

use rootline_index::{MatchOp, Matcher};

use super::model::{SpanKind, StatusCode};
use crate::{error::Error, time::TimeRange};

/// A condition on one text: equal, not equal, a regular expression or its negation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StringMatch(Matcher);

impl StringMatch {
    /// From an operator and its operand. Regular expressions are anchored at both ends.
    ///
    /// # Errors
    /// [`Error::InvalidMatcher`] for a pattern that does not compile.
    pub fn new(op: MatchOp, value: &str) -> Result<Self, Error> {
        Matcher::new(op, "", value)
            .map(Self)
            .map_err(Error::InvalidMatcher)
    }

    /// Exactly this text.
    pub fn equal(value: &str) -> Self {
        Self(Matcher::equal("", value))
    }

    /// The operator.
    pub fn op(&self) -> MatchOp {
        self.0.op()
    }

    /// The operand, as given.
    pub fn value(&self) -> &str {
        self.0.value()
    }

    /// Whether a text satisfies it.
    pub fn matches(&self, text: &str) -> bool {
        self.0.matches(text)
    }

    /// Whether something absent satisfies it.
    pub fn matches_absent(&self) -> bool {
        self.0.matches_empty()
    }

    /// The one text that satisfies it, if it is the only one.
    pub(crate) fn only_text(&self) -> Option<&str> {
        (self.op() == MatchOp::Equal).then(|| self.value())
    }
}

impl From<Matcher> for StringMatch {
    /// The matcher's condition on its label's value; the label's name plays no part.
    fn from(matcher: Matcher) -> Self {
        Self(matcher)
    }
}

impl fmt::Display for StringMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.op().as_str(), self.value())
    }
}

/// Where an attribute is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TagScope {
    /// On the span; on its resource if the span does not have the key.
    #[default]
    Any,
    /// On the span alone.
    Span,
    /// On its resource alone.
    Resource,
    /// On one of its events.
    Event,
    /// On one of its links.
    Link,
    /// On the instrumentation scope that made it.
    Scope,
}

/// One condition on a span.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum SpanCondition {
    /// The service's name.
    Service(StringMatch),
    /// The operation's name.
    Name(StringMatch),
    /// The role in a call.
    Kind(SpanKind),
    /// How it ended.
    Status(StatusCode),
    /// How long it took, both ends included.
    DurationNs {
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
    /// An attribute.
    Tag {
        /// Its key.
        key: String,
        /// Where.
        of: TagScope,
        /// On its value.
        matches: StringMatch,
    },
    /// An attribute is there, whatever its value.
    Exists {
        /// Its key.
        key: String,
        /// Where.
        of: TagScope,
    },
    /// The name of one of its events.
    EventName(StringMatch),
    /// The name of the instrumentation scope that made it.
    ScopeName(StringMatch),
    /// What is said about how it ended.
    StatusMessage(StringMatch),
}

/// Which spans: those that start in the range and satisfy every condition.
#[derive(Clone, Debug)]
pub struct SpanFilter {
    /// When spans start.
    pub range: TimeRange,
    /// All must hold.
    pub conditions: Vec<SpanCondition>,
}

impl SpanFilter {
    /// All spans that start in `range`.
    pub fn in_range(range: TimeRange) -> Self {
        Self {
            range,
            conditions: Vec::new(),
        }
    }

    /// With one more condition.
    #[must_use]
    pub fn and(mut self, condition: SpanCondition) -> Self {
        self.conditions.push(condition);
        self
    }
}
