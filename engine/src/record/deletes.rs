//! Deletes as record parts. Bytes: `docs/formats/batch-record.md`.

use rootline_index::{MatchOp, Matcher};

use crate::{
    error::Error,
    id::TraceId,
    record::Part,
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
        let op = match op {
            0 => MatchOp::Equal,
            1 => MatchOp::NotEqual,
            2 => MatchOp::Regex,
            3 => MatchOp::NotRegex,
            other => return Err(part.corrupt(format!("matcher operator {other}"))),
        };
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
        }
    }
}
