//! Type, unit and help by metric, as a block keeps them. Bytes: `docs/formats/metric-block.md`,
//! "Metadata".

use std::collections::BTreeMap;

use rootline_wal::Lsn;

use super::section::{SectionReader, u32_at};
use crate::{
    error::Error,
    metric::{Metadata, MetricKind},
    varint::{put_bytes, put_u64, take_bytes, take_slice, take_u64},
};

const VERSION: u32 = 1;
/// An item ends with the metric that brings it to so many bytes.
const ITEM_BYTES: usize = 8 * 1024;

/// Collects what is known of metrics; of a metric, what the latest record said.
#[derive(Debug, Default)]
pub(super) struct MetadataWriter {
    metrics: BTreeMap<String, (Lsn, Metadata)>,
}

impl MetadataWriter {
    /// `lsn` is the record that said so.
    pub(super) fn set(&mut self, lsn: Lsn, metadata: &Metadata) {
        let known = self.metrics.get(&metadata.metric);
        if known.is_none_or(|(at, _)| *at <= lsn) {
            self.metrics
                .insert(metadata.metric.clone(), (lsn, metadata.clone()));
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.metrics.is_empty()
    }

    /// Writes the whole section through `write`, which takes one item and says where it put it.
    pub(super) fn finish(
        self,
        write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
    ) -> Result<(), Error> {
        write(&VERSION.to_le_bytes())?;
        let mut item = vec![0; 4];
        for (lsn, metadata) in self.metrics.into_values() {
            encode(&mut item, lsn, &metadata);
            if item.len() >= ITEM_BYTES {
                write_item(&mut item, write)?;
            }
        }
        if item.len() > 4 {
            write_item(&mut item, write)?;
        }
        Ok(())
    }
}

/// Puts the length of the entries into the first four bytes, writes, and starts the next item.
fn write_item(
    item: &mut Vec<u8>,
    write: &mut dyn FnMut(&[u8]) -> Result<u64, Error>,
) -> Result<(), Error> {
    let length = u32::try_from(item.len() - 4).unwrap_or(u32::MAX);
    if let Some(place) = item.first_chunk_mut::<4>() {
        *place = length.to_le_bytes();
    }
    write(item)?;
    item.truncate(4);
    Ok(())
}

fn encode(out: &mut Vec<u8>, lsn: Lsn, metadata: &Metadata) {
    put_u64(out, lsn.0);
    put_bytes(out, metadata.metric.as_bytes());
    out.push(metadata.kind.code());
    put_bytes(out, metadata.unit.as_bytes());
    put_bytes(out, metadata.help.as_bytes());
}

/// Everything the section holds, by rising name.
pub(super) fn read(section: &SectionReader<'_>) -> Result<Vec<(Lsn, Metadata)>, Error> {
    let len_bytes = section.len_bytes();
    let mut out = Vec::new();
    if len_bytes == 0 {
        return Ok(out);
    }
    if len_bytes < 4 || u32_at(&section.bytes(0..4)?, 0) != VERSION {
        return Err(section.damaged(0, "unknown version of the metadata"));
    }
    let mut at = 4u64;
    while at < len_bytes {
        if len_bytes - at < 4 {
            return Err(section.damaged(at, "metadata are cut short"));
        }
        let length = u64::from(u32_at(&section.bytes(at..at + 4)?, 0));
        let bytes = section.bytes(at + 4..at + 4 + length)?;
        let mut rest = &*bytes;
        while !rest.is_empty() {
            let metadata = take(&mut rest);
            out.push(metadata.ok_or_else(|| section.damaged(at, "metadata do not decode"))?);
        }
        at += 4 + length;
    }
    Ok(out)
}

fn take(rest: &mut &[u8]) -> Option<(Lsn, Metadata)> {
    let lsn = Lsn(take_u64(rest)?);
    let text = |rest: &mut &[u8]| {
        let bytes = take_bytes(rest)?;
        Some(std::str::from_utf8(bytes).ok()?.to_owned())
    };
    let metric = text(rest)?;
    let kind = MetricKind::from_code(*take_slice(rest, 1)?.first()?)?;
    let metadata = Metadata {
        metric,
        kind,
        unit: text(rest)?,
        help: text(rest)?,
    };
    Some((lsn, metadata))
}
