//! Which bodies carry a rare value, so that a column need not be scanned for it.
//!
//! The bodies of all listed values stand one value behind the other in one column; another column
//! says where each value's begin. Values that stand on many bodies are not listed: scanning costs
//! less than reading what it finds. A label has no postings at all if its values stand so close
//! together that a scan skips nearly all groups. The bytes: `docs/formats/series-index.md`.

use super::Source;
use super::column::{Column, ColumnRef, FinishedColumn, GROUP_ROWS};
use super::error::Error;
use super::region::Region;
use super::sink::Sink;

/// A value is listed up to this many bodies, however few bodies there are.
const LISTED_BODIES_MIN: u32 = 16;
/// Beyond them, up to one in so many bodies: a scan for it costs about as much as looking at what
/// it finds.
const LISTED_ONE_IN: u32 = 2048;
/// Groups that a scan may unpack for one value on average: some microseconds.
const SCANNED_GROUPS_MAX: u64 = 4;

/// Where the postings of a label lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct PostingsRef {
    /// Bodies listed; 0 without postings.
    pub(crate) listed: u32,
    /// By code, where its bodies begin: the number is the place + values - code.
    pub(crate) starts: ColumnRef,
    /// The bodies, rising for each value.
    pub(crate) bodies: ColumnRef,
}

/// Writes the postings of a column of codes, if it needs any.
pub(crate) fn write<E>(
    column: &FinishedColumn,
    values: u32,
    bodies: u32,
    sink: &mut Sink<'_, E>,
) -> Result<PostingsRef, E> {
    let touched: u64 = column
        .groups()
        .filter(|group| group.constant().is_none())
        .map(|group| u64::from(group.max() - group.base) + 1)
        .sum();
    if touched <= SCANNED_GROUPS_MAX * u64::from(values) || bodies <= 4 * GROUP_ROWS {
        return Ok(PostingsRef::default());
    }
    let mut counts = vec![0_u32; values as usize + 1];
    for group in column.groups() {
        group.each(|_, code| {
            if let Some(count) = counts.get_mut(code as usize) {
                *count += 1;
            }
        });
    }
    let most = (bodies / LISTED_ONE_IN).max(LISTED_BODIES_MIN);
    let mut listed = 0;
    // By code, where its next body goes; beyond the end for what is not listed.
    let mut next = Vec::with_capacity(counts.len());
    let mut starts = Vec::with_capacity(counts.len());
    for (code, count) in (0..).zip(&counts) {
        starts.push(listed + (values - code));
        if code != 0 && *count <= most {
            next.push(listed);
            listed += count;
        } else {
            next.push(u32::MAX);
        }
    }
    if listed == 0 {
        return Ok(PostingsRef::default());
    }
    let mut by_code = vec![0_u32; listed as usize];
    for group in column.groups() {
        group.each(|body, code| {
            let Some(next) = next.get_mut(code as usize) else {
                return;
            };
            if let Some(place) = by_code.get_mut(*next as usize) {
                *place = body;
                *next += 1;
            }
        });
    }
    // One more start, for the end of the last value.
    let starts = starts
        .into_iter()
        .skip(1)
        .map(|start| start + 1)
        .chain([listed]);
    Ok(PostingsRef {
        listed,
        starts: FinishedColumn::of(starts).write(sink)?,
        bodies: FinishedColumn::of(by_code).write(sink)?,
    })
}

/// Postings that can be read.
#[derive(Debug)]
pub(crate) struct DiskPostings<'a, S> {
    values: u32,
    listed: u32,
    starts: Column<'a, S>,
    bodies: Column<'a, S>,
}

impl<'a, S: Source> DiskPostings<'a, S> {
    /// The postings of a label with so many values, if it has any.
    pub(crate) fn new(index: Region<'a, S>, at: &PostingsRef, values: u32) -> Option<Self> {
        (at.listed > 0).then(|| Self {
            values,
            listed: at.listed,
            starts: Column::new(index, at.starts, values.saturating_add(1)),
            bodies: Column::new(index, at.bodies, at.listed),
        })
    }

    /// Where the bodies of a value stand; empty if it is not listed.
    pub(crate) fn range(&mut self, code: u32) -> Result<std::ops::Range<u32>, Error<S::Error>> {
        let index = code.saturating_sub(1);
        let start = self.start(index)?;
        let end = self.start(index.saturating_add(1))?;
        Ok(start.min(end)..end.min(self.listed))
    }

    fn start(&mut self, index: u32) -> Result<u32, Error<S::Error>> {
        let number = self.starts.get(index)?;
        Ok(number.saturating_sub(self.values.saturating_sub(index)))
    }

    /// Appends the bodies of such a range.
    pub(crate) fn read(
        &mut self,
        places: std::ops::Range<u32>,
        out: &mut Vec<u32>,
    ) -> Result<(), Error<S::Error>> {
        for place in places {
            out.push(self.bodies.get(place)?);
        }
        Ok(())
    }
}
