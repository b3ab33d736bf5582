//! Sets as text, in a form that reads back as the same set.
//!
//! Operands that are composed themselves stand in parentheses, so that the text shows the structure.

use std::fmt::{self, Display, Formatter, Write as _};

use rootline_engine::{Axis, SpanCondition, SpanKind, StatusCode, StringMatch, TagScope};

use super::{SpanFigure, SpanSet};

/// Words that stand for something else than an attribute at the beginning of a condition.
pub(super) const RESERVED: [&str; 17] = [
    "service", "name", "kind", "status", "duration", "event", "scope", "message", "and", "or",
    "minus", "not", "with", "without", "having", "exists", "in",
];
/// Where an attribute is looked for, as written before its key.
pub(super) const SCOPES: [(&str, TagScope); 5] = [
    ("span.", TagScope::Span),
    ("resource.", TagScope::Resource),
    ("event.", TagScope::Event),
    ("link.", TagScope::Link),
    ("scope.", TagScope::Scope),
];
/// The relations, as written after `with` and `without`.
pub(super) const AXES: [(&str, Axis); 5] = [
    ("child", Axis::Child),
    ("parent", Axis::Parent),
    ("descendant", Axis::Descendant),
    ("ancestor", Axis::Ancestor),
    ("sibling", Axis::Sibling),
];
/// The relation of spans that share a trace.
pub(super) const ANY: &str = "any";
/// The kinds.
pub(super) const KINDS: [(&str, SpanKind); 6] = [
    ("unspecified", SpanKind::Unspecified),
    ("internal", SpanKind::Internal),
    ("server", SpanKind::Server),
    ("client", SpanKind::Client),
    ("producer", SpanKind::Producer),
    ("consumer", SpanKind::Consumer),
];
/// The outcomes.
pub(super) const STATUSES: [(&str, StatusCode); 3] = [
    ("unset", StatusCode::Unset),
    ("ok", StatusCode::Ok),
    ("error", StatusCode::Error),
];
/// Units of time in ns, the largest first.
pub(super) const UNITS_NS: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// The word of something in one of the tables above.
pub(super) fn word_of<T: PartialEq>(table: &[(&'static str, T)], of: &T) -> &'static str {
    let found = table.iter().find(|(_, known)| known == of);
    found.map_or("", |(word, _)| word)
}

/// Whether a character may stand in an attribute's key without quotes.
pub(super) fn is_key_char(at: usize, c: char) -> bool {
    let first = c.is_ascii_alphabetic() || c == '_';
    first || (at > 0 && (c.is_ascii_digit() || matches!(c, '.' | '-' | '/')))
}

impl Display for SpanSet {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Where(conditions) => {
                f.write_char('{')?;
                joined(f, conditions, ", ", condition)?;
                f.write_char('}')
            }
            Self::Relative {
                among,
                axis,
                of,
                negated,
            } => relation(f, among, word_of(&AXES, axis), of, *negated),
            Self::InSameTrace { among, of, negated } => relation(f, among, ANY, of, *negated),
            Self::And(sets) => match sets.as_slice() {
                [] => f.write_str("{}"),
                [set] => Display::fmt(set, f),
                sets => joined(f, sets, " and ", operand),
            },
            Self::Or(sets) => match sets.as_slice() {
                [] => f.write_str("{} minus {}"),
                [set] => Display::fmt(set, f),
                sets => joined(f, sets, " or ", operand),
            },
            Self::Minus(from, what) => {
                operand(f, from)?;
                f.write_str(" minus ")?;
                operand(f, what)
            }
            Self::Having {
                set,
                figure,
                min,
                max,
            } => {
                operand(f, set)?;
                write!(f, " having {} ", figure.as_str())?;
                bounds(f, *figure, *min, *max, " ")
            }
        }
    }
}

fn joined<T>(
    f: &mut Formatter<'_>,
    items: &[T],
    between: &str,
    mut one: impl FnMut(&mut Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for (i, item) in items.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        one(f, item)?;
    }
    Ok(())
}

/// A set as an operand of `and`, `or`, `minus`, and on the left of `with` and `having`.
fn operand(f: &mut Formatter<'_>, set: &SpanSet) -> fmt::Result {
    match set {
        SpanSet::Where(_)
        | SpanSet::Relative { .. }
        | SpanSet::InSameTrace { .. }
        | SpanSet::Having { .. } => Display::fmt(set, f),
        SpanSet::And(_) | SpanSet::Or(_) | SpanSet::Minus(..) => write!(f, "({set})"),
    }
}

fn relation(
    f: &mut Formatter<'_>,
    among: &SpanSet,
    word: &str,
    of: &SpanSet,
    negated: bool,
) -> fmt::Result {
    operand(f, among)?;
    let with = if negated { "without" } else { "with" };
    write!(f, " {with} {word} ")?;
    match of {
        SpanSet::Where(_) => Display::fmt(of, f),
        _ => write!(f, "({of})"),
    }
}

fn condition(f: &mut Formatter<'_>, condition: &SpanCondition) -> fmt::Result {
    match condition {
        SpanCondition::Service(text) => compared(f, "service", text),
        SpanCondition::Name(text) => compared(f, "name", text),
        SpanCondition::Kind(kind) => write!(f, "kind={}", word_of(&KINDS, kind)),
        SpanCondition::Status(status) => write!(f, "status={}", word_of(&STATUSES, status)),
        SpanCondition::DurationNs { min, max } => {
            f.write_str("duration")?;
            bounds(f, SpanFigure::Duration, *min, *max, "")
        }
        SpanCondition::Tag { key, of, matches } => {
            attribute(f, key, *of)?;
            compared(f, "", matches)
        }
        SpanCondition::Exists { key, of } => attribute(f, key, *of),
        SpanCondition::EventName(text) => compared(f, "event", text),
        SpanCondition::ScopeName(text) => compared(f, "scope", text),
        SpanCondition::StatusMessage(text) => compared(f, "message", text),
        // A condition of the engine that this language has no words for yet.
        other => write!(f, "{other:?}"),
    }
}

fn compared(f: &mut Formatter<'_>, what: &str, text: &StringMatch) -> fmt::Result {
    write!(f, "{what}{}", text.op().as_str())?;
    quoted(f, text.value())
}

/// An attribute's key, with where it is looked for.
fn attribute(f: &mut Formatter<'_>, key: &str, of: TagScope) -> fmt::Result {
    let scope = word_of(&SCOPES, &of);
    f.write_str(scope)?;
    let bare = !key.is_empty() && key.char_indices().all(|(i, c)| is_key_char(i, c));
    let means_more = scope.is_empty()
        && (RESERVED.contains(&key) || SCOPES.iter().any(|(word, _)| key.starts_with(word)));
    if bare && !means_more {
        f.write_str(key)
    } else {
        quoted(f, key)
    }
}

fn quoted(f: &mut Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '\\' => f.write_str("\\\\")?,
            '"' => f.write_str("\\\"")?,
            '\n' => f.write_str("\\n")?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

fn bounds(
    f: &mut Formatter<'_>,
    figure: SpanFigure,
    min: u64,
    max: u64,
    blank: &str,
) -> fmt::Result {
    let shown = |number| Figure(number, figure.is_time());
    match (min, max) {
        (min, max) if min == max => write!(f, "={blank}{}", shown(min)),
        (min, u64::MAX) => write!(f, ">={blank}{}", shown(min)),
        (0, max) => write!(f, "<={blank}{}", shown(max)),
        (min, max) => write!(f, "={blank}{}..{}", shown(min), shown(max)),
    }
}

/// A number, with the largest unit that leaves it whole if it is a time.
struct Figure(u64, bool);

impl Display for Figure {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(number, is_time) = *self;
        if !is_time {
            return write!(f, "{number}");
        }
        // Minutes and hours are read, but seconds are what people compare.
        let mut units = UNITS_NS.iter().skip(2);
        match units.find(|(_, ns)| number % ns == 0) {
            Some((unit, ns)) => write!(f, "{}{unit}", number / ns),
            None => write!(f, "{number}ns"),
        }
    }
}
