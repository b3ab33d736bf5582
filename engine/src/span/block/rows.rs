//! The section of rows: class, parent, subtree, start and duration of each, in groups of 1,024.
//!
//! | column | value of a row |
//! | --- | --- |
//! | class | its number in the table of classes |
//! | parent | distance back to the parent's row; 0: none |
//! | subtree | descendants: the rows right behind it |
//! | start | to the parent's start if the parent is in the same group; else to the start of the row before it of which that is not true, the first such row of a group to the group's earliest start |
//! | duration | ns |
//!
//! The directory has, of each group, where it lies, its earliest and latest start, and its longest
//! duration. So a group is decoded alone, and a group that cannot matter is passed over.
//!
//! Invariants
//! - A class is one of the table, a parent is a row before, a subtree ends with the rows at the latest:
//!   checked when a group is decoded.

use std::cell::RefCell;

use super::{
    directory::{HeadReader, Wrong, put_integers},
    groups::{GROUP_ROWS, Groups, GroupsWriter, group_of},
};
use crate::{
    block::{Block, BlockWriter, SectionKind},
    column::{
        integers::GROUP,
        kernel::{Kernel, Op},
    },
    error::Error,
};

const SECTION: SectionKind = SectionKind::SpanRows;

/// What is known of a group of rows without decoding it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RowBounds {
    /// Earliest start, ns since the epoch.
    pub(crate) start_min_ns: i64,
    /// Latest start, ns since the epoch.
    pub(crate) start_max_ns: i64,
    /// Longest duration.
    pub(crate) duration_max_ns: u64,
}

/// Writes the column of starts.
pub(super) struct StartsWriter {
    groups: GroupsWriter,
    parents: Vec<u32>,
    starts_ns: Vec<i64>,
    bounds: Vec<(i64, i64)>,
}

impl StartsWriter {
    pub(super) fn new() -> Self {
        Self {
            groups: GroupsWriter::new(),
            parents: Vec::with_capacity(GROUP),
            starts_ns: Vec::with_capacity(GROUP),
            bounds: Vec::new(),
        }
    }

    pub(super) fn push(
        &mut self,
        writer: &mut BlockWriter,
        parent: u32,
        start_ns: i64,
    ) -> Result<(), Error> {
        self.parents.push(parent);
        self.starts_ns.push(start_ns);
        if self.starts_ns.len() == GROUP {
            self.end_group(writer)?;
        }
        Ok(())
    }

    fn end_group(&mut self, writer: &mut BlockWriter) -> Result<(), Error> {
        let (Some(&min), Some(&max)) = (self.starts_ns.iter().min(), self.starts_ns.iter().max())
        else {
            return Ok(());
        };
        let mut before_ns = min;
        for (place, (&parent, &start_ns)) in self.parents.iter().zip(&self.starts_ns).enumerate() {
            let known = parent_in_group(&self.starts_ns, place, parent);
            let value = start_ns.wrapping_sub(known.unwrap_or(before_ns));
            if known.is_none() {
                before_ns = start_ns;
            }
            self.groups.push(writer, value)?;
        }
        self.bounds.push((min, max));
        self.parents.clear();
        self.starts_ns.clear();
        Ok(())
    }

    /// Gives back earliest and latest start of each group.
    pub(super) fn finish(
        mut self,
        writer: &mut BlockWriter,
        head: &mut Vec<u8>,
    ) -> Result<Vec<(i64, i64)>, Error> {
        self.end_group(writer)?;
        self.groups.finish(writer, head)?;
        put_integers(head, self.bounds.iter().map(|(min, _)| *min));
        let wide = |(min, max): &(i64, i64)| max.wrapping_sub(*min);
        put_integers(head, self.bounds.iter().map(wide));
        Ok(self.bounds)
    }
}

/// The start of a row's parent, if that is in the same group.
#[inline]
fn parent_in_group(starts_ns: &[i64], place: usize, parent: u32) -> Option<i64> {
    if parent == 0 {
        return None;
    }
    starts_ns.get(place.checked_sub(parent as usize)?).copied()
}

/// Appends the longest duration of each group to the head.
pub(super) fn put_durations_max(head: &mut Vec<u8>, longest_ns: &[u64]) {
    put_integers(head, longest_ns.iter().map(|ns| ns.cast_signed()));
}

/// The columns to read.
#[derive(Debug)]
pub(crate) struct Rows {
    count: u32,
    classes: u32,
    class: Groups,
    parent: Groups,
    subtree: Groups,
    start: Groups,
    duration: Groups,
    bounds: Vec<RowBounds>,
}

impl Rows {
    pub(super) fn open(mut head: HeadReader<'_>, rows: u32, classes: u32) -> Result<Self, Wrong> {
        let head = &mut head;
        let class = Groups::open(SECTION, rows, head)?;
        let parent = Groups::open(SECTION, rows, head)?;
        let subtree = Groups::open(SECTION, rows, head)?;
        let start = Groups::open(SECTION, rows, head)?;
        let (mut first, mut wide, mut longest) = (Vec::new(), Vec::new(), Vec::new());
        let groups = rows.div_ceil(GROUP_ROWS);
        head.integers(groups, &mut first)?;
        head.integers(groups, &mut wide)?;
        let duration = Groups::open(SECTION, rows, head)?;
        head.integers(groups, &mut longest)?;
        head.end()?;
        let bounds = first.iter().zip(&wide).zip(&longest);
        let bounds = bounds.map(|((&first, &wide), &longest)| RowBounds {
            start_min_ns: first,
            start_max_ns: first.wrapping_add(wide),
            duration_max_ns: longest.cast_unsigned(),
        });
        Ok(Self {
            count: rows,
            classes,
            class,
            parent,
            subtree,
            start,
            duration,
            bounds: bounds.collect(),
        })
    }

    pub(super) fn bounds(&self) -> &[RowBounds] {
        &self.bounds
    }

    pub(super) fn heap_bytes(&self) -> usize {
        let columns = [
            &self.class,
            &self.parent,
            &self.subtree,
            &self.start,
            &self.duration,
        ];
        columns
            .iter()
            .map(|groups| groups.heap_bytes())
            .sum::<usize>()
            + self.bounds.capacity() * size_of::<RowBounds>()
    }

    /// Hands the classes of a group over as they are decoded: they were not looked at, and may be out of
    /// range.
    pub(super) fn with_class_group<T>(
        &self,
        block: &Block,
        group: u32,
        take: impl FnOnce(&[i64]) -> T,
    ) -> Result<T, Error> {
        with_group(|values| {
            let count = self.class.load(block, group, values)?;
            Ok(take(values.get(..count).unwrap_or_default()))
        })
    }

    pub(super) fn class_group(
        &self,
        block: &Block,
        group: u32,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let classes = self.classes;
        load_numbers(&self.class, block, group, out, |_, class| class < classes)
    }

    pub(super) fn parent_group(
        &self,
        block: &Block,
        group: u32,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        load_numbers(&self.parent, block, group, out, |row, parent| parent <= row)
    }

    pub(super) fn subtree_group(
        &self,
        block: &Block,
        group: u32,
        out: &mut Vec<u32>,
    ) -> Result<(), Error> {
        let count = self.count;
        load_numbers(&self.subtree, block, group, out, |row, subtree| {
            subtree < count - row
        })
    }

    /// `parents` is the same group of that column.
    pub(super) fn start_group(
        &self,
        block: &Block,
        group: u32,
        parents: &[u32],
        out: &mut Vec<i64>,
    ) -> Result<(), Error> {
        out.clear();
        let mut values = [0; GROUP];
        let count = self.start.load(block, group, &mut values)?;
        let bounds = self.bounds.get(group as usize);
        let mut before_ns = bounds.map_or(0, |bounds| bounds.start_min_ns);
        for (place, (&value, &parent)) in values.iter().take(count).zip(parents).enumerate() {
            let known = parent_in_group(out, place, parent);
            let start_ns = value.wrapping_add(known.unwrap_or(before_ns));
            if known.is_none() {
                before_ns = start_ns;
            }
            out.push(start_ns);
        }
        Ok(())
    }

    pub(super) fn duration_group(
        &self,
        block: &Block,
        group: u32,
        out: &mut Vec<u64>,
    ) -> Result<(), Error> {
        out.clear();
        with_group(|values| {
            let count = self.duration.load(block, group, values)?;
            out.extend(values.iter().take(count).map(|value| value.cast_unsigned()));
            Ok(())
        })
    }
}

/// Decodes a group of numbers for which `holds`, given the row, holds.
fn load_numbers(
    groups: &Groups,
    block: &Block,
    group: u32,
    out: &mut Vec<u32>,
    holds: impl Fn(u32, u32) -> bool,
) -> Result<(), Error> {
    let right = with_group(|values| {
        let count = groups.load(block, group, values)?;
        out.resize(count, 0);
        Ok(Kernel::best().run(Narrow {
            values: values.get(..count).unwrap_or_default(),
            first: group.saturating_mul(GROUP_ROWS),
            out,
            holds,
        }))
    })?;
    if right {
        Ok(())
    } else {
        Err(block.damage(
            SECTION,
            0,
            format!("group {group} of a column is out of its range"),
        ))
    }
}

thread_local! {
    /// Room to decode a group into: cleared once a thread, not once a group.
    static GROUP_VALUES: RefCell<Box<[i64; GROUP]>> = RefCell::new(Box::new([0; GROUP]));
}

/// Lends room for a group. Not to be asked for inside.
fn with_group<T>(decode: impl FnOnce(&mut [i64; GROUP]) -> Result<T, Error>) -> Result<T, Error> {
    GROUP_VALUES.with(|values| match values.try_borrow_mut() {
        Ok(mut values) => decode(&mut values),
        Err(_) => decode(&mut [0; GROUP]),
    })
}

/// Makes values numbers; says whether they are all in range, and right for their rows.
struct Narrow<'a, H> {
    values: &'a [i64],
    /// Row of the first.
    first: u32,
    /// As long as `values`.
    out: &'a mut [u32],
    holds: H,
}

impl<H: Fn(u32, u32) -> bool> Op for Narrow<'_, H> {
    type Answer = bool;

    #[expect(clippy::inline_always, reason = "as the trait asks")]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "what does not come back the same is told"
    )]
    #[inline(always)]
    fn run(self) -> bool {
        let mut wrong = 0u32;
        let mut row = self.first;
        for (slot, &value) in self.out.iter_mut().zip(self.values) {
            let number = value as u32;
            wrong |= u32::from(i64::from(number) != value) | u32::from(!(self.holds)(row, number));
            *slot = number;
            row = row.wrapping_add(1);
        }
        wrong == 0
    }
}

/// A group that was decoded.
#[derive(Clone, Debug)]
struct Cached<T> {
    /// `u32::MAX`: none.
    group: u32,
    values: Vec<T>,
}

impl<T> Default for Cached<T> {
    fn default() -> Self {
        Self {
            group: u32::MAX,
            values: Vec::new(),
        }
    }
}

impl<T: Copy> Cached<T> {
    #[inline]
    fn get(
        &mut self,
        block: &Block,
        row: u32,
        load: impl FnOnce(u32, &mut Vec<T>) -> Result<(), Error>,
    ) -> Result<T, Error> {
        let group = group_of(row);
        self.turn_to(group, load)?;
        let value = self.values.get((row % GROUP_ROWS) as usize).copied();
        value.ok_or_else(|| block.damage(SECTION, 0, "a row past the last"))
    }

    #[inline]
    fn turn_to(
        &mut self,
        group: u32,
        load: impl FnOnce(u32, &mut Vec<T>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        if self.group != group {
            self.group = u32::MAX;
            load(group, &mut self.values)?;
            self.group = group;
        }
        Ok(())
    }
}

/// The groups of each column that were decoded last.
#[derive(Clone, Debug, Default)]
pub(super) struct RowGroups {
    class: Cached<u32>,
    parent: Cached<u32>,
    subtree: Cached<u32>,
    start: Cached<i64>,
    duration: Cached<u64>,
}

impl RowGroups {
    #[inline]
    pub(super) fn class(&mut self, rows: &Rows, block: &Block, row: u32) -> Result<u32, Error> {
        self.class
            .get(block, row, |group, out| rows.class_group(block, group, out))
    }

    /// The distance back to the parent; 0: none.
    #[inline]
    pub(super) fn parent(&mut self, rows: &Rows, block: &Block, row: u32) -> Result<u32, Error> {
        self.parent.get(block, row, |group, out| {
            rows.parent_group(block, group, out)
        })
    }

    #[inline]
    pub(super) fn subtree(&mut self, rows: &Rows, block: &Block, row: u32) -> Result<u32, Error> {
        self.subtree.get(block, row, |group, out| {
            rows.subtree_group(block, group, out)
        })
    }

    #[inline]
    pub(super) fn start_ns(&mut self, rows: &Rows, block: &Block, row: u32) -> Result<i64, Error> {
        let group = group_of(row);
        if self.start.group != group {
            self.parent
                .turn_to(group, |group, out| rows.parent_group(block, group, out))?;
        }
        let parents = &self.parent.values;
        self.start.get(block, row, |group, out| {
            rows.start_group(block, group, parents, out)
        })
    }

    #[inline]
    pub(super) fn duration_ns(
        &mut self,
        rows: &Rows,
        block: &Block,
        row: u32,
    ) -> Result<u64, Error> {
        self.duration.get(block, row, |group, out| {
            rows.duration_group(block, group, out)
        })
    }
}
