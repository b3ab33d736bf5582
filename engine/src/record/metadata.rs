//! The metadata part of a batch record. Bytes: `docs/formats/batch-record.md`, "Metadata".

use super::Part;
use crate::{
    error::Error,
    metric::{Metadata, MetricKind},
    varint::{put_bytes, take_bytes, take_slice},
};

/// Appends one entry.
pub(crate) fn encode(out: &mut Vec<u8>, metadata: &Metadata) {
    put_bytes(out, metadata.metric.as_bytes());
    out.push(metadata.kind.code());
    put_bytes(out, metadata.unit.as_bytes());
    put_bytes(out, metadata.help.as_bytes());
}

/// Reads the entries of a part, in order. The first error ends the iteration.
pub(crate) fn decode(part: Part<'_>) -> impl Iterator<Item = Result<Metadata, Error>> + '_ {
    let mut rest = part.bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let at = part.bytes.len() - rest.len();
        Some(take(&mut rest).ok_or_else(|| {
            rest = &[];
            part.corrupt(format!("metadata at byte {at} of its part does not decode"))
        }))
    })
}

fn take(rest: &mut &[u8]) -> Option<Metadata> {
    let text = |rest: &mut &[u8]| {
        let bytes = take_bytes(rest)?;
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    };
    let metric = text(rest)?;
    let kind = MetricKind::from_code(*take_slice(rest, 1)?.first()?)?;
    Some(Metadata {
        metric,
        kind,
        unit: text(rest)?,
        help: text(rest)?,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rootline_wal::Lsn;

    use super::*;
    use crate::record::Tag;

    fn part(bytes: &[u8]) -> Part<'_> {
        Part {
            tag: Tag::Metadata,
            bytes,
            lsn: Lsn(1),
        }
    }

    proptest! {
        #[test]
        fn metadata_comes_back(
            raw in prop::collection::vec(("\\PC{0,9}", 0u8..8, "\\PC{0,9}", "\\PC{0,9}"), 0..20),
        ) {
            let given: Vec<_> = raw
                .into_iter()
                .map(|(metric, kind, unit, help)| {
                    Metadata { metric, kind: MetricKind::from_code(kind).unwrap(), unit, help }
                })
                .collect();
            let mut out = Vec::new();
            for metadata in &given {
                encode(&mut out, metadata);
            }
            let read: Vec<_> = decode(part(&out)).map(Result::unwrap).collect();
            prop_assert_eq!(read, given);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            prop_assert!(decode(part(&bytes)).filter(Result::is_err).count() <= 1);
        }
    }
}
