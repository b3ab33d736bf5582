//! Deletes as record parts. Bytes: `docs/formats/batch-record.md`.

use rootline_index::{MatchOp, Matcher};

use crate::{
    error::Error,
    id::TraceId,
    record::Part,
    span::{SpanCondition, SpanFilter, SpanKind, StatusCode, StringMatch, TagScope},
    time::{TimeRange, Timestamp},
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_u64},
};

/// A delete: hides what is older than its record, nothing else.
#[derive(Clone, Debug)]
pub(crate) enum Delete {
    /// Samples in `range` of the series that all `matchers` select when it is applied.
    Series {
        /// All must hold.
        matchers: Vec<Matcher>,
        /// Of sample time.
        range: TimeRange,
    },
    /// Every span of one trace.
    Trace(TraceId),
    /// Every span that matches when it is applied.
    Spans(SpanFilter),
}

impl Delete {
    /// Whether it hides spans.
    pub(crate) fn concerns_spans(&self) -> bool {
        matches!(self, Self::Trace(_) | Self::Spans(_))
    }
}

const SERVICE: u8 = 1;
const NAME: u8 = 2;
const KIND: u8 = 3;
const STATUS: u8 = 4;
const DURATION: u8 = 5;
const TAG: u8 = 6;
const EXISTS: u8 = 7;
const EVENT_NAME: u8 = 8;
const SCOPE_NAME: u8 = 9;
const STATUS_MESSAGE: u8 = 10;

fn op_of(byte: u8) -> Option<MatchOp> {
    Some(match byte {
        0 => MatchOp::Equal,
        1 => MatchOp::NotEqual,
        2 => MatchOp::Regex,
        3 => MatchOp::NotRegex,
        _ => return None,
    })
}

fn op_byte(op: MatchOp) -> u8 {
    match op {
        MatchOp::Equal => 0,
        MatchOp::NotEqual => 1,
        MatchOp::Regex => 2,
        MatchOp::NotRegex => 3,
    }
}

pub(crate) fn encode_series(out: &mut Vec<u8>, matchers: &[Matcher], range: TimeRange) {
    put_i64(out, range.start().as_nanos());
    put_i64(out, range.end().as_nanos());
    put_u64(out, matchers.len() as u64);
    for matcher in matchers {
        out.push(op_byte(matcher.op()));
        put_bytes(out, matcher.name().as_bytes());
        put_bytes(out, matcher.value().as_bytes());
    }
}

pub(crate) fn decode_series(part: Part<'_>) -> Result<Delete, Error> {
    let input = &mut { part.bytes };
    let cut = || part.corrupt("delete cut short");
    let start = Timestamp::from_nanos(take_i64(input).ok_or_else(cut)?);
    let end = Timestamp::from_nanos(take_i64(input).ok_or_else(cut)?);
    let range = TimeRange::new(start, end).map_err(|e| part.corrupt(e.to_string()))?;
    let count = take_u64(input).ok_or_else(cut)?;
    let mut matchers = Vec::new();
    for _ in 0..count {
        let (&op, rest) = input.split_first().ok_or_else(cut)?;
        *input = rest;
        let op = op_of(op).ok_or_else(|| part.corrupt(format!("matcher operator {op}")))?;
        let mut text = || {
            let bytes = take_bytes(input).ok_or_else(cut)?;
            std::str::from_utf8(bytes).map_err(|e| part.corrupt(e.to_string()))
        };
        let (name, value) = (text()?, text()?);
        let matcher = Matcher::new(op, name, value).map_err(|e| part.corrupt(e.to_string()))?;
        matchers.push(matcher);
    }
    if !input.is_empty() {
        return Err(part.corrupt("bytes after the delete"));
    }
    Ok(Delete::Series { matchers, range })
}

pub(crate) fn decode_trace(part: Part<'_>) -> Result<Delete, Error> {
    TraceId::from_slice(part.bytes)
        .map(Delete::Trace)
        .ok_or_else(|| part.corrupt("trace id of a delete"))
}

fn scope_byte(of: TagScope) -> u8 {
    match of {
        TagScope::Any => 0,
        TagScope::Span => 1,
        TagScope::Resource => 2,
        TagScope::Event => 3,
        TagScope::Link => 4,
        TagScope::Scope => 5,
    }
}

fn scope_of(byte: u8) -> Option<TagScope> {
    Some(match byte {
        0 => TagScope::Any,
        1 => TagScope::Span,
        2 => TagScope::Resource,
        3 => TagScope::Event,
        4 => TagScope::Link,
        5 => TagScope::Scope,
        _ => return None,
    })
}

pub(crate) fn encode_spans(out: &mut Vec<u8>, filter: &SpanFilter) {
    put_i64(out, filter.range.start().as_nanos());
    put_i64(out, filter.range.end().as_nanos());
    put_u64(out, filter.conditions.len() as u64);
    for condition in &filter.conditions {
        encode_condition(out, condition);
    }
}

fn encode_condition(out: &mut Vec<u8>, condition: &SpanCondition) {
    let text = |out: &mut Vec<u8>, kind: u8, matches: &StringMatch| {
        out.push(kind);
        put_match(out, matches);
    };
    match condition {
        SpanCondition::Service(matches) => text(out, SERVICE, matches),
        SpanCondition::Name(matches) => text(out, NAME, matches),
        SpanCondition::EventName(matches) => text(out, EVENT_NAME, matches),
        SpanCondition::ScopeName(matches) => text(out, SCOPE_NAME, matches),
        SpanCondition::StatusMessage(matches) => text(out, STATUS_MESSAGE, matches),
        SpanCondition::Kind(kind) => {
            out.push(KIND);
            put_i64(out, kind.number().into());
        }
        SpanCondition::Status(status) => {
            out.push(STATUS);
            put_i64(out, status.number().into());
        }
        SpanCondition::DurationNs { min, max } => {
            out.push(DURATION);
            put_u64(out, *min);
            put_u64(out, *max);
        }
        SpanCondition::Tag { key, of, matches } => {
            out.extend([TAG, scope_byte(*of)]);
            put_bytes(out, key.as_bytes());
            put_match(out, matches);
        }
        SpanCondition::Exists { key, of } => {
            out.extend([EXISTS, scope_byte(*of)]);
            put_bytes(out, key.as_bytes());
        }
    }
}

fn put_match(out: &mut Vec<u8>, matches: &StringMatch) {
    out.push(op_byte(matches.op()));
    put_bytes(out, matches.value().as_bytes());
}

pub(crate) fn decode_spans(part: Part<'_>) -> Result<Delete, Error> {
    let input = &mut { part.bytes };
    let cut = || part.corrupt("delete of spans cut short");
    let start = Timestamp::from_nanos(take_i64(input).ok_or_else(cut)?);
    let end = Timestamp::from_nanos(take_i64(input).ok_or_else(cut)?);
    let range = TimeRange::new(start, end).map_err(|e| part.corrupt(e.to_string()))?;
    let mut filter = SpanFilter::in_range(range);
    for _ in 0..take_u64(input).ok_or_else(cut)? {
        let condition = decode_condition(input).map_err(|reason| part.corrupt(reason))?;
        filter.conditions.push(condition);
    }
    if !input.is_empty() {
        return Err(part.corrupt("bytes after the delete of spans"));
    }
    Ok(Delete::Spans(filter))
}

fn decode_condition(input: &mut &[u8]) -> Result<SpanCondition, String> {
    let cut = || "condition cut short".to_owned();
    let kind = take_byte(input).ok_or_else(cut)?;
    Ok(match kind {
        SERVICE => SpanCondition::Service(take_match(input)?),
        NAME => SpanCondition::Name(take_match(input)?),
        EVENT_NAME => SpanCondition::EventName(take_match(input)?),
        SCOPE_NAME => SpanCondition::ScopeName(take_match(input)?),
        STATUS_MESSAGE => SpanCondition::StatusMessage(take_match(input)?),
        KIND => {
            let number = take_i64(input).ok_or_else(cut)?;
            let kind = i32::try_from(number).ok().and_then(SpanKind::from_number);
            SpanCondition::Kind(kind.ok_or_else(|| format!("span kind {number}"))?)
        }
        STATUS => {
            let number = take_i64(input).ok_or_else(cut)?;
            let status = i32::try_from(number).ok().and_then(StatusCode::from_number);
            SpanCondition::Status(status.ok_or_else(|| format!("span status {number}"))?)
        }
        DURATION => SpanCondition::DurationNs {
            min: take_u64(input).ok_or_else(cut)?,
            max: take_u64(input).ok_or_else(cut)?,
        },
        TAG | EXISTS => {
            let of = take_byte(input).ok_or_else(cut)?;
            let of = scope_of(of).ok_or_else(|| format!("scope {of} of an attribute"))?;
            let key = take_text(input)?.to_owned();
            if kind == EXISTS {
                SpanCondition::Exists { key, of }
            } else {
                let matches = take_match(input)?;
                SpanCondition::Tag { key, of, matches }
            }
        }
        other => return Err(format!("condition {other}")),
    })
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (&byte, rest) = input.split_first()?;
    *input = rest;
    Some(byte)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Result<&'a str, String> {
    let bytes = take_bytes(input).ok_or("text cut short")?;
    std::str::from_utf8(bytes).map_err(|error| error.to_string())
}

fn take_match(input: &mut &[u8]) -> Result<StringMatch, String> {
    let op = take_byte(input).ok_or("operator cut short")?;
    let op = op_of(op).ok_or_else(|| format!("matcher operator {op}"))?;
    StringMatch::new(op, take_text(input)?).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootline_wal::Lsn;

    use super::*;
    use crate::record::Tag;

    #[test]
    fn a_delete_of_series_comes_back() {
        let matchers = [
            Matcher::new(MatchOp::Equal, "job", "api").unwrap(),
            Matcher::new(MatchOp::NotRegex, "pod", "a|b.*").unwrap(),
        ];
        let mut bytes = Vec::new();
        encode_series(&mut bytes, &matchers, TimeRange::ALL);
        let part = Part {
            tag: Tag::DeleteSeries,
            bytes: &bytes,
            lsn: Lsn(1),
        };
        let Delete::Series {
            matchers: read,
            range,
        } = decode_series(part).unwrap()
        else {
            panic!("a delete of series")
        };
        assert_eq!(range, TimeRange::ALL);
        let show = |m: &Matcher| (m.op(), m.name().to_owned(), m.value().to_owned());
        assert_eq!(
            read.iter().map(show).collect::<Vec<_>>(),
            matchers.iter().map(show).collect::<Vec<_>>()
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = decode_series(Part { tag: Tag::DeleteSeries, bytes: &bytes, lsn: Lsn(1) });
            let _ = decode_trace(Part { tag: Tag::DeleteTrace, bytes: &bytes, lsn: Lsn(1) });
            let _ = decode_spans(Part { tag: Tag::DeleteSpans, bytes: &bytes, lsn: Lsn(1) });
        }
    }

    #[test]
    fn a_delete_of_spans_comes_back() {
        let text = |value: &str| StringMatch::new(MatchOp::Regex, value).unwrap();
        let key = || "user.id".to_owned();
        let mut filter = SpanFilter::in_range(TimeRange::ALL)
            .and(SpanCondition::Service(text("shop|cart")))
            .and(SpanCondition::Name(StringMatch::equal("GET /")))
            .and(SpanCondition::Kind(SpanKind::Consumer))
            .and(SpanCondition::Status(StatusCode::Error))
            .and(SpanCondition::DurationNs {
                min: 1,
                max: u64::MAX,
            })
            .and(SpanCondition::EventName(text("e.*")))
            .and(SpanCondition::ScopeName(text("")))
            .and(SpanCondition::StatusMessage(text("m")));
        for of in (0..6).filter_map(scope_of) {
            let matches = StringMatch::new(MatchOp::NotEqual, "7").unwrap();
            filter = filter
                .and(SpanCondition::Tag {
                    key: key(),
                    of,
                    matches,
                })
                .and(SpanCondition::Exists { key: key(), of });
        }
        let mut bytes = Vec::new();
        encode_spans(&mut bytes, &filter);
        let part = |bytes| Part {
            tag: Tag::DeleteSpans,
            bytes,
            lsn: Lsn(1),
        };
        let Delete::Spans(read) = decode_spans(part(&bytes)).unwrap() else {
            panic!("a delete of spans")
        };
        assert_eq!(format!("{read:?}"), format!("{filter:?}"));
        assert!((0..bytes.len()).all(|end| decode_spans(part(&bytes[..end])).is_err()));
    }
}
