//! The bytes of an edit. Page: `docs/formats/manifest.md`.
//!
//! Decoding is strict: every byte has its meaning, and a tag that is not known is one of a newer release,
//! which is refused and not skipped.

use rootline_wal::Lsn;

use super::version::Change;
use crate::{
    block::{BlockId, Signal, decode_meta, encode_meta, signal_code, signal_of},
    tombstone::{SpanTombstone, Tombstone},
    varint::{put_bytes, put_i64, put_u64, take_bytes, take_i64, take_u64},
};

/// The version written, and the newest one read.
const VERSION: u8 = 1;

const TAG_ADD_BLOCK: u8 = 1;
const TAG_DROP_BLOCK: u8 = 2;
const TAG_CUT: u8 = 3;
const TAG_ADD_TOMBSTONE: u8 = 4;
const TAG_DROP_TOMBSTONE: u8 = 5;
const TAG_RETENTION_FLOOR: u8 = 6;
const TAG_SET_STATE: u8 = 7;
const TAG_ADD_SPAN_TOMBSTONE: u8 = 8;
const TAG_DROP_SPAN_TOMBSTONE: u8 = 9;

/// A decoded record of the manifest.
#[derive(Clone, Debug)]
pub(super) struct Edit {
    /// Above every number that was given out when it was written.
    pub(super) next_block: u64,
    pub(super) changes: Vec<Change>,
}

/// Why bytes are no edit.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum EditError {
    /// They are wrong.
    #[error("{0}")]
    Damaged(String),
    /// They may be right, for a newer release.
    #[error("unknown {what} {found}")]
    Unknown {
        /// Version or change.
        what: &'static str,
        found: u8,
    },
}

impl From<&'static str> for EditError {
    fn from(reason: &'static str) -> Self {
        Self::Damaged(reason.to_owned())
    }
}

pub(super) fn encode(next_block: u64, changes: &[Change]) -> Vec<u8> {
    let mut out = vec![VERSION];
    put_u64(&mut out, next_block);
    for change in changes {
        encode_change(&mut out, change);
    }
    out
}

fn encode_change(out: &mut Vec<u8>, change: &Change) {
    match change {
        Change::AddBlock(meta) => {
            out.push(TAG_ADD_BLOCK);
            encode_meta(out, meta);
            put_u64(out, meta.file_bytes);
        }
        Change::DropBlock(id) => {
            out.push(TAG_DROP_BLOCK);
            put_u64(out, id.0);
        }
        Change::Cut { signal, lsn } => {
            out.extend([TAG_CUT, signal_code(*signal)]);
            put_u64(out, lsn.0);
        }
        Change::AddTombstone(tombstone) => {
            out.push(TAG_ADD_TOMBSTONE);
            tombstone.encode(out);
        }
        Change::DropTombstone(lsn) => {
            out.push(TAG_DROP_TOMBSTONE);
            put_u64(out, lsn.0);
        }
        Change::AddSpanTombstone(tombstone) => {
            out.push(TAG_ADD_SPAN_TOMBSTONE);
            tombstone.encode(out);
        }
        Change::DropSpanTombstone(lsn) => {
            out.push(TAG_DROP_SPAN_TOMBSTONE);
            put_u64(out, lsn.0);
        }
        Change::RetentionFloor { signal, time_ns } => {
            out.extend([TAG_RETENTION_FLOOR, signal_code(*signal)]);
            put_i64(out, *time_ns);
        }
        Change::SetState { name, value } => {
            out.push(TAG_SET_STATE);
            put_bytes(out, name.as_bytes());
            put_bytes(out, value);
        }
    }
}

pub(super) fn decode(mut bytes: &[u8]) -> Result<Edit, EditError> {
    let input = &mut bytes;
    let version = take_byte(input)?;
    if version != VERSION {
        return Err(EditError::Unknown {
            what: "manifest version",
            found: version,
        });
    }
    let next_block = take_u64(input).ok_or(CUT)?;
    let mut changes = Vec::new();
    while !input.is_empty() {
        changes.push(decode_change(input)?);
    }
    Ok(Edit {
        next_block,
        changes,
    })
}

const CUT: &str = "edit cut short";

fn decode_change(input: &mut &[u8]) -> Result<Change, EditError> {
    Ok(match take_byte(input)? {
        TAG_ADD_BLOCK => {
            let mut meta = decode_meta(input)?;
            meta.file_bytes = take_u64(input).ok_or(CUT)?;
            Change::AddBlock(meta)
        }
        TAG_DROP_BLOCK => Change::DropBlock(BlockId(take_u64(input).ok_or(CUT)?)),
        TAG_CUT => Change::Cut {
            signal: take_signal(input)?,
            lsn: Lsn(take_u64(input).ok_or(CUT)?),
        },
        TAG_ADD_TOMBSTONE => {
            Change::AddTombstone(Tombstone::decode(input).map_err(EditError::Damaged)?)
        }
        TAG_DROP_TOMBSTONE => Change::DropTombstone(Lsn(take_u64(input).ok_or(CUT)?)),
        TAG_ADD_SPAN_TOMBSTONE => {
            Change::AddSpanTombstone(SpanTombstone::decode(input).map_err(EditError::Damaged)?)
        }
        TAG_DROP_SPAN_TOMBSTONE => Change::DropSpanTombstone(Lsn(take_u64(input).ok_or(CUT)?)),
        TAG_RETENTION_FLOOR => Change::RetentionFloor {
            signal: take_signal(input)?,
            time_ns: take_i64(input).ok_or(CUT)?,
        },
        TAG_SET_STATE => {
            let name = take_bytes(input).ok_or(CUT)?;
            let name = std::str::from_utf8(name).map_err(|_| "a name that is not UTF-8")?;
            Change::SetState {
                name: name.to_owned(),
                value: take_bytes(input).ok_or(CUT)?.to_vec(),
            }
        }
        found => {
            return Err(EditError::Unknown {
                what: "manifest change",
                found,
            });
        }
    })
}

fn take_byte(input: &mut &[u8]) -> Result<u8, EditError> {
    let (&byte, rest) = input.split_first().ok_or(CUT)?;
    *input = rest;
    Ok(byte)
}

fn take_signal(input: &mut &[u8]) -> Result<Signal, EditError> {
    let code = take_byte(input)?;
    signal_of(code).ok_or(EditError::Damaged(format!("unknown signal {code}")))
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use rootline_index::{MatchOp, Matcher};

    use super::*;
    use crate::{
        block::BlockMeta,
        id::TraceId,
        manifest::check_manifest_edit,
        span::{SpanCondition, SpanFilter, StringMatch},
        time::{TimeRange, Timestamp},
        tombstone::SpanDelete,
    };

    fn range() -> impl Strategy<Value = TimeRange> {
        any::<(i64, i64)>().prop_map(|(a, b)| {
            let at = Timestamp::from_nanos;
            TimeRange::new(at(a.min(b)), at(a.max(b))).unwrap()
        })
    }

    fn signal() -> impl Strategy<Value = Signal> {
        prop_oneof![Just(Signal::Metrics), Just(Signal::Spans)]
    }

    prop_compose! {
        fn meta()(
            numbers in any::<[u64; 4]>(),
            mut lsns in any::<[u64; 3]>(),
            (level, spanning, created_ns) in any::<(u8, bool, i64)>(),
            time in range(),
            signal in signal(),
            sources in vec(any::<u64>(), 0..5),
        ) -> BlockMeta {
            lsns.sort_unstable();
            let [id, series, samples, file_bytes] = numbers;
            let [first, last, clean] = lsns;
            BlockMeta {
                id: BlockId(id),
                signal,
                first_lsn: Lsn(first),
                last_lsn: Lsn(last),
                clean_lsn: Lsn(clean),
                time,
                level,
                series,
                samples,
                sources: sources.into_iter().map(BlockId).collect(),
                created_ns,
                spanning,
                file_bytes,
            }
        }
    }

    fn change() -> impl Strategy<Value = Change> {
        prop_oneof![
            meta().prop_map(Change::AddBlock),
            any::<u64>().prop_map(|id| Change::DropBlock(BlockId(id))),
            (signal(), any::<u64>()).prop_map(|(signal, lsn)| Change::Cut {
                signal,
                lsn: Lsn(lsn)
            }),
            (any::<u64>(), range(), "[a-z]{0,3}", ".{0,9}").prop_map(
                |(lsn, range, name, value)| {
                    let matchers = vec![
                        Matcher::equal(&name, &value),
                        Matcher::new(MatchOp::NotRegex, "pod", "a|b.*").unwrap(),
                    ];
                    Change::AddTombstone(Tombstone {
                        lsn: Lsn(lsn),
                        matchers,
                        range,
                    })
                }
            ),
            any::<u64>().prop_map(|lsn| Change::DropTombstone(Lsn(lsn))),
            any::<u64>().prop_map(|lsn| Change::DropSpanTombstone(Lsn(lsn))),
            (any::<u64>(), 1u8..).prop_map(|(lsn, id)| {
                let delete = SpanDelete::Trace(TraceId::new([id; 16]).unwrap());
                Change::AddSpanTombstone(SpanTombstone {
                    lsn: Lsn(lsn),
                    delete,
                })
            }),
            (any::<u64>(), range(), ".{0,9}").prop_map(|(lsn, range, text)| {
                let filter = SpanFilter::in_range(range);
                let filter = filter.and(SpanCondition::Service(StringMatch::equal(&text)));
                let delete = SpanDelete::Matching(filter);
                Change::AddSpanTombstone(SpanTombstone {
                    lsn: Lsn(lsn),
                    delete,
                })
            }),
            (signal(), any::<i64>())
                .prop_map(|(signal, time_ns)| Change::RetentionFloor { signal, time_ns }),
            (".{0,9}", any::<Vec<u8>>()).prop_map(|(name, value)| Change::SetState { name, value }),
        ]
    }

    proptest! {
        #[test]
        fn an_edit_comes_back(next_block in any::<u64>(), changes in vec(change(), 0..8)) {
            let bytes = encode(next_block, &changes);
            let read = decode(&bytes).unwrap();
            prop_assert_eq!(read.next_block, next_block);
            prop_assert_eq!(format!("{:?}", read.changes), format!("{changes:?}"));
            prop_assert_eq!(encode(next_block, &read.changes), bytes);
        }

        #[test]
        fn a_cut_edit_is_refused_or_ends_between_changes(changes in vec(change(), 1..4), at: prop::sample::Index) {
            let bytes = encode(1, &changes);
            let front = &bytes[..at.index(bytes.len())];
            if let Ok(read) = decode(front) {
                prop_assert_eq!(encode(1, &read.changes), front);
            }
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let _ = check_manifest_edit(&bytes);
            let with_version: Vec<u8> = [VERSION, 0].into_iter().chain(bytes).collect();
            let _ = check_manifest_edit(&with_version);
        }

        #[test]
        fn a_changed_edit_is_decoded_or_refused(
            edit in vec(change(), 1..4),
            changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        ) {
            let mut bytes = encode(1, &edit);
            for (at, byte) in changes {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
            let _ = check_manifest_edit(&bytes);
        }
    }

    #[test]
    fn versions_and_changes_of_a_newer_release_are_told_apart_from_damage() {
        let version = decode(&[2, 0]).unwrap_err();
        let change = decode(&[VERSION, 0, 99]).unwrap_err();
        assert!(matches!(version, EditError::Unknown { found: 2, .. }));
        assert!(matches!(change, EditError::Unknown { found: 99, .. }));
        assert!(matches!(decode(&[]), Err(EditError::Damaged(_))));
    }

    /// Version 1 reads the same for ever, and is still what is written.
    #[test]
    fn the_golden_edit_reads_and_is_written_as_it_was() {
        let golden = include_bytes!("../../tests/golden/v1/manifest-edit.bin");
        let time = TimeRange::new(Timestamp::from_nanos(-1), Timestamp::from_nanos(1 << 60));
        let time = time.unwrap();
        let changes = [
            Change::AddBlock(BlockMeta {
                id: BlockId(300),
                signal: Signal::Spans,
                first_lsn: Lsn(1),
                last_lsn: Lsn(2),
                clean_lsn: Lsn(300),
                time,
                level: 3,
                series: 4,
                samples: 500,
                sources: vec![BlockId(7), BlockId(8)],
                created_ns: 1_700_000_000_000_000_000,
                spanning: true,
                file_bytes: 70_000,
            }),
            Change::DropBlock(BlockId(7)),
            Change::Cut {
                signal: Signal::Spans,
                lsn: Lsn(2),
            },
            Change::AddTombstone(Tombstone {
                lsn: Lsn(5),
                matchers: vec![
                    Matcher::equal("job", "api"),
                    Matcher::new(MatchOp::NotRegex, "pod", "a|b.*").unwrap(),
                ],
                range: time,
            }),
            Change::DropTombstone(Lsn(4)),
            Change::RetentionFloor {
                signal: Signal::Metrics,
                time_ns: -9,
            },
            Change::SetState {
                name: "clock".to_owned(),
                value: vec![1, 2, 3],
            },
        ];
        let written = encode(301, &changes);
        assert_eq!(written, golden, "{}", written.escape_ascii());
        let read = decode(golden).unwrap();
        assert_eq!(read.next_block, 301);
        assert_eq!(format!("{:?}", read.changes), format!("{changes:?}"));
    }
}
