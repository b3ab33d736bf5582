//! The exemplars part of a batch record. Bytes: `docs/formats/batch-record.md`, "Exemplars".

use rootline_index::Labels;

use super::Part;
use crate::{
    error::Error,
    id::{SeriesRef, SpanId, TraceId},
    metric::Exemplar,
    time::Timestamp,
    varint::{put_bytes, put_i64, take_bytes, take_i64, take_slice},
};

const HAS_TRACE: u8 = 1;
const HAS_SPAN: u8 = 2;

/// Writes exemplars in order.
#[derive(Debug)]
pub(crate) struct Encoder<'o> {
    out: &'o mut Vec<u8>,
    previous_ref: u64,
    previous_time: i64,
    label_bytes: Vec<u8>,
}

impl<'o> Encoder<'o> {
    /// Starts a part that stays empty without an exemplar.
    pub(crate) fn new(out: &'o mut Vec<u8>) -> Self {
        Self {
            out,
            previous_ref: 0,
            previous_time: 0,
            label_bytes: Vec::new(),
        }
    }

    /// Appends one exemplar.
    pub(crate) fn push(&mut self, series: SeriesRef, exemplar: &Exemplar) {
        let time = exemplar.time.as_nanos();
        put_i64(
            self.out,
            series.0.wrapping_sub(self.previous_ref).cast_signed(),
        );
        put_i64(self.out, time.wrapping_sub(self.previous_time));
        self.previous_ref = series.0;
        self.previous_time = time;
        self.out
            .extend_from_slice(&exemplar.value.to_bits().to_le_bytes());
        let trace = if exemplar.trace_id.is_some() {
            HAS_TRACE
        } else {
            0
        };
        let span = if exemplar.span_id.is_some() {
            HAS_SPAN
        } else {
            0
        };
        self.out.push(trace | span);
        if let Some(id) = exemplar.trace_id {
            self.out.extend_from_slice(id.as_bytes());
        }
        if let Some(id) = exemplar.span_id {
            self.out.extend_from_slice(id.as_bytes());
        }
        self.label_bytes.clear();
        exemplar.labels.encode_canonical(&mut self.label_bytes);
        put_bytes(self.out, &self.label_bytes);
    }
}

/// Reads the exemplars of a part, in order. The first error ends the iteration.
pub(crate) fn decode(
    part: Part<'_>,
) -> impl Iterator<Item = Result<(SeriesRef, Exemplar), Error>> + '_ {
    let mut rest = part.bytes;
    let mut previous_ref = 0u64;
    let mut previous_time = 0i64;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = part.bytes.len() - rest.len();
        let exemplar = take(&mut rest, &mut previous_ref, &mut previous_time);
        Some(exemplar.ok_or_else(|| {
            rest = &[];
            part.corrupt(format!("exemplar at byte {at} of its part does not decode"))
        }))
    })
}

fn take(
    rest: &mut &[u8],
    previous_ref: &mut u64,
    previous_time: &mut i64,
) -> Option<(SeriesRef, Exemplar)> {
    *previous_ref = previous_ref.wrapping_add(take_i64(rest)?.cast_unsigned());
    *previous_time = previous_time.wrapping_add(take_i64(rest)?);
    let value = f64::from_bits(u64::from_le_bytes(take_slice(rest, 8)?.try_into().ok()?));
    let flags = *take_slice(rest, 1)?.first()?;
    if flags & !(HAS_TRACE | HAS_SPAN) != 0 {
        return None;
    }
    let trace_id = match flags & HAS_TRACE {
        0 => None,
        _ => Some(TraceId::from_slice(take_slice(rest, 16)?)?),
    };
    let span_id = match flags & HAS_SPAN {
        0 => None,
        _ => Some(SpanId::from_slice(take_slice(rest, 8)?)?),
    };
    let labels = Labels::decode_canonical(take_bytes(rest)?).ok()?;
    let time = Timestamp::from_nanos(*previous_time);
    Some((
        SeriesRef(*previous_ref),
        Exemplar {
            time,
            value,
            trace_id,
            span_id,
            labels,
        },
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootline_wal::Lsn;

    use super::*;
    use crate::record::Tag;

    fn part(bytes: &[u8]) -> Part<'_> {
        Part {
            tag: Tag::Exemplars,
            bytes,
            lsn: Lsn(1),
        }
    }

    proptest! {
        #[test]
        fn exemplars_come_back(
            raw in prop::collection::vec(
                (any::<u64>(), any::<i64>(), any::<u64>(), any::<[u8; 16]>(), any::<[u8; 8]>(), "\\PC{1,9}"),
                0..20,
            ),
            with_ids in any::<bool>(),
        ) {
            let mut out = Vec::new();
            let mut encoder = Encoder::new(&mut out);
            let mut given = Vec::new();
            for (series, time, bits, trace, span, value) in raw {
                let exemplar = Exemplar {
                    time: Timestamp::from_nanos(time),
                    value: f64::from_bits(bits),
                    trace_id: TraceId::new(trace).filter(|_| with_ids),
                    span_id: SpanId::new(span).filter(|_| with_ids),
                    labels: Labels::from_pairs([("a", value)]).unwrap(),
                };
                encoder.push(SeriesRef(series), &exemplar);
                given.push((SeriesRef(series), exemplar));
            }
            let read: Vec<_> = decode(part(&out)).map(Result::unwrap).collect();
            prop_assert_eq!(read.len(), given.len());
            for ((series_a, a), (series_b, b)) in read.iter().zip(&given) {
                prop_assert_eq!(series_a, series_b);
                prop_assert!(a.is_same(b));
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert!(decode(part(&bytes)).filter(Result::is_err).count() <= 1);
        }
    }
}
