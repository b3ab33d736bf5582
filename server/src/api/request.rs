//! From questions on the wire to the terms of the query layer, and what every answer says of itself.

use rootline_engine::{
    Error as EngineError, Labels, MatchOp, Matcher, QueryControl, SpanKind, StatusCode, TimeRange,
    Timestamp, TraceId,
};
use rootline_query::{Memory, PATTERNS_MAX, Selector, SpanConditions, SpanSet, ToSpanSet};

use super::{query::Query, v1};
use crate::refusal::Refusal;

/// Matchers in one request. A selector written by people has a handful.
const MATCHERS_MAX: usize = 256;
/// Compiled patterns of a request that are not booked: a delete has to pass while memory is full.
const PATTERN_BYTES_FREE: u64 = 1 << 20;

/// The range asked for; open bounds reach to the ends of time.
pub(super) fn time_range(range: Option<&v1::TimeRange>) -> Result<TimeRange, Refusal> {
    let start = range
        .and_then(|r| r.start_ns)
        .map_or(Timestamp::MIN, Timestamp::from_nanos);
    let end = range
        .and_then(|r| r.end_ns)
        .map_or(Timestamp::MAX, Timestamp::from_nanos);
    Ok(TimeRange::new(start, end)?)
}

/// Makes the matchers of one request: bounded in number, memory and time, since a short pattern can
/// compile to megabytes for a second. For a blocking thread.
struct MatcherMaker<'q> {
    control: &'q QueryControl,
    memory: &'q mut Memory,
    made: usize,
    free_bytes: u64,
}

impl<'q> MatcherMaker<'q> {
    fn new(control: &'q QueryControl, memory: &'q mut Memory) -> Self {
        Self {
            control,
            memory,
            made: 0,
            free_bytes: PATTERN_BYTES_FREE,
        }
    }

    fn make(&mut self, op: MatchOp, name: &str, value: &str) -> Result<Matcher, Refusal> {
        self.made += 1;
        if self.made > MATCHERS_MAX {
            return Err(too_many());
        }
        self.control.check()?;
        let made = Matcher::new(op, name, value).map_err(EngineError::InvalidMatcher)?;
        let booked_bytes = made.memory_bytes().saturating_sub(self.free_bytes);
        self.free_bytes = self.free_bytes.saturating_sub(made.memory_bytes());
        if booked_bytes > 0 {
            self.memory.take(booked_bytes)?;
        }
        Ok(made)
    }

    fn make_from(&mut self, wanted: &v1::Matcher) -> Result<Matcher, Refusal> {
        let op = match v1::matcher::Type::try_from(wanted.r#type) {
            Ok(v1::matcher::Type::Equal) => MatchOp::Equal,
            Ok(v1::matcher::Type::NotEqual) => MatchOp::NotEqual,
            Ok(v1::matcher::Type::Regex) => MatchOp::Regex,
            Ok(v1::matcher::Type::NotRegex) => MatchOp::NotRegex,
            Err(_) => {
                let number = wanted.r#type;
                return Err(Refusal::invalid(format!(
                    "matcher type {number} is unknown here"
                )));
            }
        };
        if wanted.name.is_empty() {
            return Err(Refusal::invalid("a matcher without a name"));
        }
        self.make(op, &wanted.name, &wanted.value)
    }
}

fn too_many() -> Refusal {
    Refusal::invalid(format!("more than {MATCHERS_MAX} matchers"))
}

/// Labels to group by, as many as a question may have conditions: each costs a look at every series.
pub(super) fn group_labels(by: Vec<String>) -> Result<Vec<String>, Refusal> {
    if by.len() > MATCHERS_MAX {
        return Err(Refusal::invalid(format!(
            "{} labels to group by, at most {MATCHERS_MAX} are taken",
            by.len()
        )));
    }
    if by.iter().any(String::is_empty) {
        return Err(Refusal::invalid("a label name in by is empty"));
    }
    Ok(by)
}

/// Both forms of a selector together.
pub(super) fn selector(
    control: &QueryControl,
    memory: &mut Memory,
    wanted: Option<&v1::SeriesSelector>,
) -> Result<Selector, Refusal> {
    let Some(wanted) = wanted else {
        return Ok(Selector::default());
    };
    if wanted.matchers.len() > MATCHERS_MAX {
        return Err(too_many());
    }
    let mut maker = MatcherMaker::new(control, memory);
    let mut selector = match wanted.selector.as_str() {
        "" => Selector::default(),
        text => Selector::parse_with(text, |op, name, value| maker.make(op, name, value))?,
    };
    let parsed = selector.matchers().iter();
    let patterns = parsed.filter(|m| matches!(m.op(), MatchOp::Regex | MatchOp::NotRegex));
    bound_patterns(patterns.count(), &wanted.matchers)?;
    for matcher in &wanted.matchers {
        selector.and(maker.make_from(matcher)?);
    }
    Ok(selector)
}

/// Refuses more patterns than a question may have, before any is compiled.
fn bound_patterns(before: usize, matchers: &[v1::Matcher]) -> Result<(), Refusal> {
    use v1::matcher::Type;
    let patterns = matchers
        .iter()
        .filter(|m| matches!(m.r#type(), Type::Regex | Type::NotRegex));
    if before + patterns.count() > PATTERNS_MAX {
        return Err(Refusal::invalid(format!(
            "more than {PATTERNS_MAX} patterns (=~, !~) in one request"
        )));
    }
    Ok(())
}

/// A trace id in hexadecimal digits.
pub(super) fn trace_id(text: &str) -> Result<TraceId, Refusal> {
    TraceId::from_hex(text).ok_or_else(|| {
        let shown: String = text.chars().take(64).collect();
        Refusal::invalid(format!(
            "trace id {shown:?} is not 32 hexadecimal digits, at least one of them not 0"
        ))
    })
}

/// Conditions on spans.
pub(super) fn span_conditions(
    control: &QueryControl,
    memory: &mut Memory,
    wanted: Option<&v1::SpanConditions>,
) -> Result<SpanConditions, Refusal> {
    let Some(wanted) = wanted else {
        return Ok(SpanConditions::default());
    };
    if wanted.tags.len() > MATCHERS_MAX {
        return Err(too_many());
    }
    bound_patterns(0, &wanted.tags)?;
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let number = |n: u64| (n > 0).then_some(n);
    let unknown = |what: &str, n: i32| Refusal::invalid(format!("span {what} {n} is unknown here"));
    let status = match wanted.status {
        Some(n) => Some(StatusCode::from_number(n).ok_or_else(|| unknown("status", n))?),
        None => None,
    };
    let kind = match wanted.kind {
        Some(n) => Some(SpanKind::from_number(n).ok_or_else(|| unknown("kind", n))?),
        None => None,
    };
    let mut maker = MatcherMaker::new(control, memory);
    let tags = wanted.tags.iter().map(|tag| maker.make_from(tag));
    Ok(SpanConditions {
        service: text(&wanted.service),
        operation: text(&wanted.operation),
        tags: tags.collect::<Result<_, _>>()?,
        status,
        kind,
        min_duration_ns: number(wanted.min_duration_ns),
        max_duration_ns: number(wanted.max_duration_ns),
    })
}

/// A set of spans from its text; all spans if that is empty.
pub(super) fn span_set(query: &mut Query, text: &str) -> Result<SpanSet, Refusal> {
    if text.is_empty() {
        return Ok(SpanSet::all());
    }
    let mut maker = MatcherMaker::new(&query.control, &mut query.memory);
    SpanSet::parse_with(text, |op, name, value| maker.make(op, name, value))
}

/// Labels as messages.
pub(super) fn labels(labels: &Labels) -> Vec<v1::Label> {
    labels
        .iter()
        .map(|(name, value)| v1::Label {
            name: name.to_owned(),
            value: value.to_owned(),
        })
        .collect()
}

/// What an answer with something in it says of itself.
pub(super) fn info(query: &Query, range: TimeRange, method: &str) -> v1::AnswerInfo {
    let bound = |t: Timestamp, open: Timestamp| (t != open).then(|| t.as_nanos());
    v1::AnswerInfo {
        range: Some(v1::TimeRange {
            start_ns: bound(range.start(), Timestamp::MIN),
            end_ns: bound(range.end(), Timestamp::MAX),
        }),
        snapshot_lsn: query.snapshot.lsn().0,
        method: method.to_owned(),
        exact: true,
        ..v1::AnswerInfo::default()
    }
}

/// As [`info`], of an answer about metrics: not exact if a block that could not be opened may hold some.
pub(super) fn metric_info(query: &Query, range: TimeRange, method: &str) -> v1::AnswerInfo {
    v1::AnswerInfo {
        exact: query.snapshot.is_whole(range),
        ..info(query, range, method)
    }
}

/// As [`info`], of an answer about spans: not exact if a block that could not be opened may hold some.
pub(super) fn span_info(query: &Query, range: TimeRange, method: &str) -> v1::AnswerInfo {
    v1::AnswerInfo {
        exact: query.snapshot.spans_are_whole(range),
        ..info(query, range, method)
    }
}

/// What an answer with nothing in it says: where the data of these series lie.
pub(super) fn where_samples_lie(
    query: &Query,
    matchers: &[Matcher],
    info: &mut v1::AnswerInfo,
) -> Result<(), Refusal> {
    info.empty = true;
    if let Some(bounds) = query
        .snapshot
        .metric_time_bounds(matchers, &query.control)?
    {
        info.data_start_ns = Some(bounds.start().as_nanos());
        info.data_end_ns = Some(bounds.end().as_nanos());
    }
    Ok(())
}

/// What an answer with nothing in it says: between which starts the spans of a set lie.
pub(super) fn where_spans_lie(
    query: &Query,
    spans: &impl ToSpanSet,
    info: &mut v1::AnswerInfo,
) -> Result<(), Refusal> {
    info.empty = true;
    if let Some(bounds) = rootline_query::span_starts(&query.snapshot, spans, &query.control)? {
        info.data_start_ns = Some(bounds.start().as_nanos());
        info.data_end_ns = Some(bounds.end().as_nanos());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern() -> v1::Matcher {
        v1::Matcher {
            r#type: v1::matcher::Type::Regex.into(),
            name: "l".to_owned(),
            value: "a.".to_owned(),
        }
    }

    #[test]
    fn patterns_are_counted_over_both_forms_of_a_selector() {
        assert!(bound_patterns(2, &vec![pattern(); PATTERNS_MAX - 2]).is_ok());
        assert!(bound_patterns(2, &vec![pattern(); PATTERNS_MAX - 1]).is_err());
    }

    #[test]
    fn what_is_no_pattern_is_not_counted() {
        let equal = v1::Matcher {
            r#type: v1::matcher::Type::Equal.into(),
            ..pattern()
        };
        assert!(bound_patterns(0, &vec![equal; PATTERNS_MAX + 1]).is_ok());
    }
}
