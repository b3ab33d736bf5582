//! From questions on the wire to the terms of the query layer, and what every answer says of itself.

use rootline_engine::{
    Error as EngineError, Labels, MatchOp, Matcher, SpanKind, StatusCode, TimeRange, Timestamp,
    TraceId,
};
use rootline_query::{PATTERNS_MAX, Selector, SpanConditions};

use super::{query::Query, v1};
use crate::refusal::Refusal;

/// Matchers in one request. A selector written by people has a handful.
const MATCHERS_MAX: usize = 256;

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

/// Both forms of a selector together.
pub(super) fn selector(wanted: Option<&v1::SeriesSelector>) -> Result<Selector, Refusal> {
    let Some(wanted) = wanted else {
        return Ok(Selector::default());
    };
    if wanted.matchers.len() > MATCHERS_MAX {
        return Err(too_many(wanted.matchers.len()));
    }
    let mut selector = match wanted.selector.as_str() {
        "" => Selector::default(),
        text => Selector::parse(text)?,
    };
    let parsed = selector.matchers().iter();
    let patterns = parsed.filter(|m| matches!(m.op(), MatchOp::Regex | MatchOp::NotRegex));
    bound_patterns(patterns.count(), &wanted.matchers)?;
    for matcher in &wanted.matchers {
        selector.and(self::matcher(matcher)?);
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

fn too_many(count: usize) -> Refusal {
    Refusal::invalid(format!(
        "{count} matchers, at most {MATCHERS_MAX} are taken"
    ))
}

fn matcher(matcher: &v1::Matcher) -> Result<Matcher, Refusal> {
    let op = match v1::matcher::Type::try_from(matcher.r#type) {
        Ok(v1::matcher::Type::Equal) => MatchOp::Equal,
        Ok(v1::matcher::Type::NotEqual) => MatchOp::NotEqual,
        Ok(v1::matcher::Type::Regex) => MatchOp::Regex,
        Ok(v1::matcher::Type::NotRegex) => MatchOp::NotRegex,
        Err(_) => {
            let number = matcher.r#type;
            return Err(Refusal::invalid(format!(
                "matcher type {number} is unknown here"
            )));
        }
    };
    if matcher.name.is_empty() {
        return Err(Refusal::invalid("a matcher without a name"));
    }
    let made = Matcher::new(op, &matcher.name, &matcher.value);
    Ok(made.map_err(EngineError::InvalidMatcher)?)
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
    wanted: Option<&v1::SpanConditions>,
) -> Result<SpanConditions, Refusal> {
    let Some(wanted) = wanted else {
        return Ok(SpanConditions::default());
    };
    if wanted.tags.len() > MATCHERS_MAX {
        return Err(too_many(wanted.tags.len()));
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
    Ok(SpanConditions {
        service: text(&wanted.service),
        operation: text(&wanted.operation),
        tags: wanted.tags.iter().map(matcher).collect::<Result<_, _>>()?,
        status,
        kind,
        min_duration_ns: number(wanted.min_duration_ns),
        max_duration_ns: number(wanted.max_duration_ns),
    })
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

/// What an answer with nothing in it says: between which starts the spans that meet `conditions` lie.
pub(super) fn where_spans_lie(
    query: &Query,
    conditions: &SpanConditions,
    info: &mut v1::AnswerInfo,
) -> Result<(), Refusal> {
    info.empty = true;
    if let Some(bounds) = rootline_query::span_starts(&query.snapshot, conditions, &query.control)?
    {
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
        let wanted = |count| v1::SeriesSelector {
            selector: r#"{a=~"b.",c!~"d."}"#.to_owned(),
            matchers: vec![pattern(); count],
        };
        assert!(selector(Some(&wanted(PATTERNS_MAX - 2))).is_ok());
        assert!(selector(Some(&wanted(PATTERNS_MAX - 1))).is_err());
    }

    #[test]
    fn patterns_on_tags_are_counted_too() {
        let wanted = |count| v1::SpanConditions {
            tags: vec![pattern(); count],
            ..v1::SpanConditions::default()
        };
        assert!(span_conditions(Some(&wanted(PATTERNS_MAX))).is_ok());
        assert!(span_conditions(Some(&wanted(PATTERNS_MAX + 1))).is_err());
    }
}
