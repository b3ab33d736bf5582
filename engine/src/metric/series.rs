//! One series in the head: its main stream, its side chunk, and what snapshots need to read them.
//!
//! Samples that rise in time go to the *main stream*, a run of Gorilla chunks: the open one grows,
//! closed ones never change. A sample that is not later than all before it goes to the *side chunk*
//! with its LSN, and wins over the main one of its time.
//!
//! What a snapshot sees of the main stream is its first `n` samples. *Marks* say how many: for each
//! record newer than the floor that appended, how many samples there were before it. The newest
//! mark stands in the series itself, so that an ordinary series has no list of them.
//!
//! Invariants
//! - Times of the main stream rise strictly; a side sample is newer than the main one of its time.
//!   So a sample goes to the main stream only if it is later than everything in both.
//! - Indices of main samples count what was ever appended; dropping a chunk does not move them.
//! - Only what no snapshot from the floor on can see is dropped.

use std::sync::Arc;

use rootline_wal::Lsn;

pub(crate) use super::runs::Samples;
use super::{
    exemplar::{Exemplar, ExemplarWindow},
    side::{SideChunk, SideSample},
    tombstone::{Tombstone, Tombstones},
};
use crate::{
    chunk::{AppendRefusal, Chunk},
    time::{TimeRange, Timestamp},
};

/// Samples a main stream counts; later ones go to the side chunk. One less than the type holds, so
/// that the index behind the last sample exists.
const MAIN_SAMPLES_MAX: u32 = u32::MAX - 1;

/// A series of the slab. Most of its bytes are the open chunk's state; what most series do not have
/// stands behind one pointer.
#[derive(Debug, Default)]
pub(crate) struct Series {
    open: Option<Chunk>,
    rare: Option<Box<Rare>>,
    /// The newest mark: the last record that appended to the main stream ...
    last_lsn: Lsn,
    /// ... and how many samples there were before it.
    before: u32,
    /// Samples ever appended to the main stream.
    total: u32,
}

const _: () = assert!(size_of::<Series>() <= 80);

#[derive(Debug, Default)]
struct Rare {
    closed: Vec<Arc<ClosedChunk>>,
    /// Marks older than the newest one, by rising LSN.
    marks: Vec<Mark>,
    side: SideChunk,
    tombstones: Tombstones,
    exemplars: ExemplarWindow,
}

/// A full chunk of the main stream.
#[derive(Debug)]
pub(crate) struct ClosedChunk {
    pub(crate) chunk: Chunk,
    /// Index of its first sample.
    pub(crate) start: u32,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    lsn: Lsn,
    before: u32,
}

/// What changed in a shard, to be added to its counts and charged to the budget.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Change {
    pub(crate) bytes: i64,
    pub(crate) samples: i64,
    pub(crate) side_samples: i64,
    pub(crate) chunks: i64,
    pub(crate) exemplars: i64,
}

/// Whether a series has visible samples, or where they lie; some questions take decoding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bounds {
    /// Exactly these; `None` if there is no sample.
    Known(Option<TimeRange>),
    /// Deleted samples must be left out: read the series.
    NeedsRead,
}

fn signed(bytes: usize) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

fn times(chunk: &Chunk) -> TimeRange {
    let (start, end) = (chunk.min_time_ns(), chunk.max_time_ns());
    TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end))
        .unwrap_or(TimeRange::ALL)
}

impl ClosedChunk {
    fn end(&self) -> u32 {
        self.start + u32::from(self.chunk.len())
    }

    fn heap_bytes(&self) -> usize {
        // The two counters of the Arc stand before it.
        size_of::<Self>() + 2 * size_of::<usize>() + self.chunk.heap_bytes()
    }
}

impl Series {
    /// Whether anything was ever applied to it.
    pub(crate) fn is_used(&self) -> bool {
        self.total > 0 || self.rare.is_some()
    }

    /// Applies a sample of record `lsn`.
    #[inline]
    pub(crate) fn append(
        &mut self,
        lsn: Lsn,
        time_ns: i64,
        value: f64,
        floor: Lsn,
        change: &mut Change,
    ) {
        if self.rare.is_some() || self.total >= MAIN_SAMPLES_MAX {
            self.append_checked(lsn, time_ns, value, floor, change);
            return;
        }
        let Some(open) = &mut self.open else {
            self.append_first(lsn, time_ns, value, floor, change);
            return;
        };
        let before_bytes = open.heap_bytes();
        match open.append(time_ns, value) {
            Ok(()) => {
                change.bytes += signed(open.heap_bytes()) - signed(before_bytes);
                change.samples += 1;
                if self.last_lsn != lsn {
                    self.mark(lsn, floor, change);
                }
                self.total += 1;
            }
            Err(_) => self.append_checked(lsn, time_ns, value, floor, change),
        }
    }

    /// The cases beside the plain one.
    fn append_checked(
        &mut self,
        lsn: Lsn,
        time_ns: i64,
        value: f64,
        floor: Lsn,
        change: &mut Change,
    ) {
        let side_max = self.rare.as_ref().and_then(|rare| rare.side.time_max());
        let is_latest = self.main_time_max().is_none_or(|last| time_ns > last)
            && side_max.is_none_or(|last| time_ns > last);
        if !is_latest || self.total >= MAIN_SAMPLES_MAX {
            self.append_side(
                SideSample {
                    time_ns,
                    lsn,
                    value,
                },
                floor,
                change,
            );
            return;
        }
        let Some(open) = &mut self.open else {
            self.append_first(lsn, time_ns, value, floor, change);
            return;
        };
        let before_bytes = open.heap_bytes();
        match open.append(time_ns, value) {
            Ok(()) => {
                change.bytes += signed(open.heap_bytes()) - signed(before_bytes);
                change.samples += 1;
                if self.last_lsn != lsn {
                    self.mark(lsn, floor, change);
                }
                self.total += 1;
            }
            Err(AppendRefusal::NotLater) => {
                debug_assert!(false, "the time was compared with the last one");
                self.append_side(
                    SideSample {
                        time_ns,
                        lsn,
                        value,
                    },
                    floor,
                    change,
                );
            }
            Err(AppendRefusal::Full | AppendRefusal::OtherUnit) => {
                self.close(change);
                self.append_first(lsn, time_ns, value, floor, change);
            }
        }
    }

    /// Starts the open chunk.
    fn append_first(
        &mut self,
        lsn: Lsn,
        time_ns: i64,
        value: f64,
        floor: Lsn,
        change: &mut Change,
    ) {
        let chunk = Chunk::new(time_ns, value);
        change.bytes += signed(chunk.heap_bytes());
        change.chunks += 1;
        change.samples += 1;
        self.open = Some(chunk);
        if self.last_lsn != lsn {
            self.mark(lsn, floor, change);
        }
        self.total += 1;
    }

    fn append_side(&mut self, sample: SideSample, floor: Lsn, change: &mut Change) {
        let is_plain = self
            .rare
            .as_ref()
            .is_none_or(|r| r.tombstones.is_empty() && r.side.time_max() < Some(sample.time_ns));
        // A sender's repeat of the last sample is common, and adds nothing.
        if let Some(open) = self.open.as_ref().filter(|_| is_plain)
            && open.max_time_ns() == sample.time_ns
            && open.last_value().to_bits() == sample.value.to_bits()
        {
            return;
        }
        let rare = self.rare.get_or_insert_with(|| new_rare(change));
        let before = (rare.side.heap_bytes(), rare.side.len());
        let skip_repeat = rare.tombstones.is_empty();
        rare.side.insert(sample, floor, skip_repeat);
        change.bytes += signed(rare.side.heap_bytes()) - signed(before.0);
        change.side_samples += signed(rare.side.len()) - signed(before.1);
    }

    /// Remembers where the samples of record `lsn` begin. Called before the first is counted.
    fn mark(&mut self, lsn: Lsn, floor: Lsn, change: &mut Change) {
        let is_needed = self.total > 0 && self.last_lsn > floor;
        if is_needed
            || self
                .rare
                .as_ref()
                .is_some_and(|rare| !rare.marks.is_empty())
        {
            let rare = self.rare.get_or_insert_with(|| new_rare(change));
            let before = rare.marks.capacity();
            let passed = rare.marks.partition_point(|mark| mark.lsn <= floor);
            rare.marks.drain(..passed);
            if is_needed {
                rare.marks.push(Mark {
                    lsn: self.last_lsn,
                    before: self.before,
                });
            } else if rare.marks.is_empty() {
                rare.marks = Vec::new();
            }
            let grown = signed(rare.marks.capacity()) - signed(before);
            change.bytes += grown * signed(size_of::<Mark>());
        }
        self.last_lsn = lsn;
        self.before = self.total;
    }

    fn close(&mut self, change: &mut Change) {
        let Some(mut chunk) = self.open.take() else {
            return;
        };
        change.bytes -= signed(chunk.heap_bytes());
        chunk.shrink();
        let start = self.total - u32::from(chunk.len());
        let closed = ClosedChunk { chunk, start };
        change.bytes += signed(closed.heap_bytes());
        let rare = self.rare.get_or_insert_with(|| new_rare(change));
        let before = rare.closed.capacity();
        rare.closed.push(Arc::new(closed));
        let grown = signed(rare.closed.capacity()) - signed(before);
        change.bytes += grown * signed(size_of::<Arc<ClosedChunk>>());
    }

    /// Applies an exemplar of record `lsn`.
    pub(crate) fn push_exemplar(
        &mut self,
        lsn: Lsn,
        exemplar: &Exemplar,
        floor: Lsn,
        change: &mut Change,
    ) {
        let rare = self.rare.get_or_insert_with(|| new_rare(change));
        let before = (rare.exemplars.heap_bytes(), rare.exemplars.len());
        let tombstones = &rare.tombstones;
        let is_hidden =
            |at: Lsn, e: &Exemplar| tombstones.hides(Lsn(u64::MAX), at, e.time.as_nanos());
        rare.exemplars.push(lsn, exemplar, floor, is_hidden);
        change.bytes += signed(rare.exemplars.heap_bytes()) - signed(before.0);
        change.exemplars += signed(rare.exemplars.len()) - signed(before.1);
    }

    /// Applies the delete of record `lsn`. Returns whether there is something for it to hide.
    pub(crate) fn delete(&mut self, lsn: Lsn, range: TimeRange, change: &mut Change) -> bool {
        let overlaps = |chunk: &Chunk| times(chunk).overlaps(range);
        let hits_open = self.open.as_ref().is_some_and(overlaps);
        let hits_rare = self.rare.as_ref().is_some_and(|rare| {
            rare.closed.iter().any(|closed| overlaps(&closed.chunk))
                || rare.side.range(range).next().is_some()
                || rare
                    .exemplars
                    .at(Lsn(u64::MAX))
                    .any(|(_, e)| range.contains(e.time))
        });
        if !hits_open && !hits_rare {
            return false;
        }
        let rare = self.rare.get_or_insert_with(|| new_rare(change));
        let before = rare.tombstones.heap_bytes();
        rare.tombstones.push(Tombstone {
            lsn,
            main_count: self.total,
            range,
        });
        change.bytes += signed(rare.tombstones.heap_bytes()) - signed(before);
        true
    }

    /// Drops what tombstones at or below the floor hide: side samples, and chunks hidden as a whole.
    /// Exemplars stay in their window: it is defined by arrival.
    pub(crate) fn reclaim(&mut self, floor: Lsn, change: &mut Change) {
        let Some(rare) = &mut self.rare else { return };
        let Rare {
            closed,
            marks,
            side,
            tombstones,
            exemplars,
        } = &mut **rare;
        if tombstones.is_empty() {
            return;
        }
        let before = (side.heap_bytes(), side.len(), tombstones.heap_bytes());
        side.retain(|s| !tombstones.hides(floor, s.lsn, s.time_ns));
        closed.retain(|c| {
            let is_hidden = tombstones.hides_all(floor, c.end(), times(&c.chunk));
            if is_hidden {
                change.bytes -= signed(c.heap_bytes());
                change.samples -= i64::from(c.chunk.len());
                change.chunks -= 1;
            }
            !is_hidden
        });
        let is_hidden = |chunk: &mut Chunk| tombstones.hides_all(floor, self.total, times(chunk));
        if let Some(dropped) = self.open.take_if(is_hidden) {
            change.bytes -= signed(dropped.heap_bytes());
            change.samples -= i64::from(dropped.len());
            change.chunks -= 1;
        }
        let open = self
            .open
            .as_ref()
            .map(|open| (self.total - u32::from(open.len()), open));
        tombstones.prune(floor, |tombstone| {
            let hides = |start: u32, chunk: &Chunk| {
                start < tombstone.main_count && times(chunk).overlaps(tombstone.range)
            };
            tombstone.lsn > floor
                || closed.iter().any(|c| hides(c.start, &c.chunk))
                || open.is_some_and(|(start, chunk)| hides(start, chunk))
                || exemplars
                    .kept()
                    .any(|(lsn, e)| lsn < tombstone.lsn && tombstone.range.contains(e.time))
        });
        change.bytes += signed(side.heap_bytes()) - signed(before.0);
        change.side_samples += signed(side.len()) - signed(before.1);
        change.bytes += signed(tombstones.heap_bytes()) - signed(before.2);
        let is_empty = closed.is_empty()
            && marks.is_empty()
            && side.len() == 0
            && tombstones.is_empty()
            && exemplars.kept().next().is_none();
        if is_empty {
            // Else a delete of everything would leave more than it found.
            let heap_bytes = closed.capacity() * size_of::<Arc<ClosedChunk>>()
                + marks.capacity() * size_of::<Mark>()
                + side.heap_bytes()
                + tombstones.heap_bytes()
                + exemplars.heap_bytes();
            change.bytes -= signed(size_of::<Rare>() + heap_bytes);
            self.rare = None;
        }
    }

    /// Samples of the main stream that the snapshot `at` sees.
    pub(crate) fn main_count(&self, at: Lsn) -> u32 {
        if at >= self.last_lsn {
            return self.total;
        }
        let marks = self.rare.as_ref().map_or(&[][..], |rare| &rare.marks);
        // The first record that the snapshot does not see tells what was before it.
        let first_newer = marks.partition_point(|mark| mark.lsn <= at);
        marks
            .get(first_newer)
            .map_or(self.before, |mark| mark.before)
    }

    /// Copies what the snapshot `at` needs to read `range` outside the lock: closed chunks by
    /// counter, the open one decoded, the side chunk filtered.
    pub(crate) fn copy_into(&self, at: Lsn, range: TimeRange, out: &mut SeriesCopy) {
        out.clear();
        out.at = at;
        let visible = self.main_count(at);
        if let Some(rare) = &self.rare {
            rare.tombstones.copy_into(at, range, &mut out.tombstones);
            for closed in rare.closed.iter().take_while(|c| c.start < visible) {
                if times(&closed.chunk).overlaps(range) {
                    out.closed
                        .push((Arc::clone(closed), prefix(visible - closed.start)));
                }
            }
            for side in rare.side.range(range) {
                if side.lsn > at || out.tombstones.hides(at, side.lsn, side.time_ns) {
                    continue;
                }
                match out.side.last_mut() {
                    // A later version of the same time.
                    Some((time, value)) if *time == side.time_ns => *value = side.value,
                    _ => out.side.push((side.time_ns, side.value)),
                }
            }
        }
        if let Some((start, open)) = self.open_chunk()
            && start < visible
            && times(open).overlaps(range)
        {
            let (first, last) = (range.start().as_nanos(), range.end().as_nanos());
            for (index, (time, value)) in (start..).zip(open.iter_prefix(prefix(visible - start))) {
                if time > last {
                    break;
                }
                if time >= first && !out.tombstones.hides_main(at, index, time) {
                    out.open.push((time, value));
                }
            }
        }
    }

    /// A byte of what [`read_all`](Self::read_all) begins with, read to have it near.
    #[inline]
    pub(crate) fn touch(&self) -> u8 {
        let bytes = self.open.as_ref().map(Chunk::as_bytes);
        bytes.and_then(|bytes| bytes.first().copied()).unwrap_or(0)
    }

    /// Everything that a snapshot at `at` sees, where nothing is newer than `at`: for a generation
    /// that takes no writes. Appends to `out`, which is empty.
    pub(crate) fn read_all(&self, at: Lsn, out: &mut Samples) {
        debug_assert!(self.main_count(at) == self.total, "nothing is newer");
        let Some(rare) = &self.rare else {
            if let Some(open) = &self.open {
                out.extend(open.iter());
            }
            return;
        };
        let is_hidden = |index: u32, time: i64| rare.tombstones.hides_main(at, index, time);
        let closed = rare.closed.iter().map(|c| (c.start, &c.chunk));
        for (start, chunk) in closed.chain(self.open_chunk()) {
            if rare.tombstones.is_empty() {
                out.extend(chunk.iter());
            } else {
                let kept = (start..).zip(chunk.iter());
                let kept = kept.filter(|(index, (time, _))| !is_hidden(*index, *time));
                out.extend(kept.map(|(_, sample)| sample));
            }
        }
        if rare.side.len() > 0 {
            let mut side: Vec<(i64, f64)> = Vec::with_capacity(rare.side.len());
            for sample in rare.side.range(TimeRange::ALL) {
                if rare.tombstones.hides(at, sample.lsn, sample.time_ns) {
                    continue;
                }
                match side.last_mut() {
                    // A later version of the same time.
                    Some((time, value)) if *time == sample.time_ns => *value = sample.value,
                    _ => side.push((sample.time_ns, sample.value)),
                }
            }
            out.merge(0, &side);
        }
    }

    /// Calls `each` with stretches of time, numbered from the epoch, and how many samples lie in them;
    /// deleted and superseded ones are counted as well. Decodes only chunks that cross a border.
    pub(crate) fn count_by(&self, stretch_ns: i64, each: &mut dyn FnMut(i64, u64)) {
        let stretch = |time_ns: i64| time_ns.div_euclid(stretch_ns);
        let closed = self.rare.iter().flat_map(|rare| &rare.closed);
        for chunk in closed.map(|c| &c.chunk).chain(&self.open) {
            let first = stretch(chunk.min_time_ns());
            if first == stretch(chunk.max_time_ns()) {
                each(first, u64::from(chunk.len()));
            } else {
                chunk.iter().for_each(|(time, _)| each(stretch(time), 1));
            }
        }
        if let Some(rare) = &self.rare {
            for sample in rare.side.range(TimeRange::ALL) {
                each(stretch(sample.time_ns), 1);
            }
        }
    }

    /// Whether the snapshot `at` sees a sample in `range`. Decodes at most the chunks at the ends of
    /// the range, but for partly deleted ones.
    pub(crate) fn has_samples(&self, at: Lsn, range: TimeRange) -> bool {
        if !self.may_have_samples(at, range) {
            return false;
        }
        let mut tombstones = Tombstones::default();
        if let Some(rare) = &self.rare {
            rare.tombstones.copy_into(at, range, &mut tombstones);
            let is_visible =
                |s: &SideSample| s.lsn <= at && !tombstones.hides(at, s.lsn, s.time_ns);
            if rare.side.range(range).any(is_visible) {
                return true;
            }
        }
        let visible = self.main_count(at);
        let closed = self.rare.iter().flat_map(|rare| &rare.closed);
        let chunks = closed.map(|c| (c.start, &c.chunk)).chain(self.open_chunk());
        for (start, chunk) in chunks.take_while(|(start, _)| *start < visible) {
            let span = times(chunk);
            let count = prefix(visible - start).min(chunk.len());
            if !span.overlaps(range) || tombstones.hides_all(at, start + u32::from(count), span) {
                continue;
            }
            let starts_inside = range.contains(span.start());
            let ends_inside = range.contains(span.end()) && count == chunk.len();
            if tombstones.is_empty() && (starts_inside || ends_inside) {
                return true;
            }
            let is_visible = |(index, (time, _)): (u32, (i64, f64))| {
                range.contains(Timestamp::from_nanos(time))
                    && !tombstones.hides_main(at, index, time)
            };
            if (start..).zip(chunk.iter_prefix(count)).any(is_visible) {
                return true;
            }
        }
        false
    }

    /// Whether the snapshot `at` can see a sample in `range`, judged by the ends of chunks alone.
    pub(crate) fn may_have_samples(&self, at: Lsn, range: TimeRange) -> bool {
        let visible = self.main_count(at);
        let overlaps = |start: u32, chunk: &Chunk| start < visible && times(chunk).overlaps(range);
        self.open_chunk()
            .is_some_and(|(start, chunk)| overlaps(start, chunk))
            || self.rare.as_ref().is_some_and(|rare| {
                rare.closed.iter().any(|c| overlaps(c.start, &c.chunk))
                    || rare.side.range(range).any(|s| s.lsn <= at)
            })
    }

    /// Where the samples that the snapshot `at` sees lie.
    pub(crate) fn bounds(&self, at: Lsn) -> Bounds {
        let visible = self.main_count(at);
        let mut bounds: Option<TimeRange> = None;
        let mut add = |more: TimeRange| {
            bounds = Some(bounds.map_or(more, |bounds| bounds.union(more)));
        };
        if let Some(rare) = &self.rare {
            if rare.tombstones.iter().any(|t| t.lsn <= at) {
                return Bounds::NeedsRead;
            }
            for side in rare.side.range(TimeRange::ALL).filter(|s| s.lsn <= at) {
                add(point(side.time_ns));
            }
        }
        let closed = self.rare.iter().flat_map(|rare| &rare.closed);
        let chunks = closed.map(|c| (c.start, &c.chunk)).chain(self.open_chunk());
        for (start, chunk) in chunks.take_while(|(start, _)| *start < visible) {
            let count = prefix(visible - start);
            if count >= chunk.len() {
                add(times(chunk));
            } else {
                add(point(chunk.min_time_ns()));
                if let Some((time, _)) = chunk.iter_prefix(count).last() {
                    add(point(time));
                }
            }
        }
        Bounds::Known(bounds)
    }

    /// The exemplars that the snapshot `at` sees in `range`, in order of arrival.
    pub(crate) fn exemplars(&self, at: Lsn, range: TimeRange) -> Vec<Exemplar> {
        let Some(rare) = &self.rare else {
            return Vec::new();
        };
        let is_visible = |(lsn, exemplar): &(Lsn, &Exemplar)| {
            range.contains(exemplar.time)
                && !rare.tombstones.hides(at, *lsn, exemplar.time.as_nanos())
        };
        rare.exemplars
            .at(at)
            .filter(is_visible)
            .map(|(_, exemplar)| exemplar.clone())
            .collect()
    }

    fn open_chunk(&self) -> Option<(u32, &Chunk)> {
        self.open
            .as_ref()
            .map(|open| (self.total - u32::from(open.len()), open))
    }

    fn main_time_max(&self) -> Option<i64> {
        let closed = || Some(self.rare.as_ref()?.closed.last()?.chunk.max_time_ns());
        self.open.as_ref().map(Chunk::max_time_ns).or_else(closed)
    }
}

fn new_rare(change: &mut Change) -> Box<Rare> {
    change.bytes += signed(size_of::<Rare>());
    Box::default()
}

fn prefix(samples: u32) -> u16 {
    u16::try_from(samples).unwrap_or(u16::MAX)
}

fn point(time_ns: i64) -> TimeRange {
    let time = Timestamp::from_nanos(time_ns);
    TimeRange::new(time, time).unwrap_or(TimeRange::ALL)
}

/// What a snapshot needs of one series, taken out of the shard's lock. Reused from series to series.
#[derive(Debug)]
pub(crate) struct SeriesCopy {
    at: Lsn,
    closed: Vec<(Arc<ClosedChunk>, u16)>,
    open: Vec<(i64, f64)>,
    side: Vec<(i64, f64)>,
    tombstones: Tombstones,
}

impl Default for SeriesCopy {
    fn default() -> Self {
        Self {
            at: Lsn(0),
            closed: Vec::new(),
            open: Vec::new(),
            side: Vec::new(),
            tombstones: Tombstones::default(),
        }
    }
}

impl SeriesCopy {
    fn clear(&mut self) {
        self.closed.clear();
        self.open.clear();
        self.side.clear();
        self.tombstones = Tombstones::default();
    }

    /// Samples that reading can yield at most.
    pub(crate) fn samples_max(&self) -> usize {
        let closed: usize = self
            .closed
            .iter()
            .map(|(c, n)| usize::from(c.chunk.len().min(*n)))
            .sum();
        closed + self.open.len() + self.side.len()
    }

    /// Reads the samples inside `range`, which the copy was made for, by rising time, in the place of
    /// what `out` held. `check` is called for every chunk.
    #[cfg(test)]
    fn read<E>(
        &self,
        range: TimeRange,
        out: &mut Samples,
        check: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        out.clear();
        self.append(range, out, check)
    }

    /// Appends the samples inside `range`, which the copy was made for, by rising time, as a run of
    /// `out`. `check` is called for every chunk.
    pub(crate) fn append<E>(
        &self,
        range: TimeRange,
        out: &mut Samples,
        mut check: impl FnMut() -> Result<(), E>,
    ) -> Result<(), E> {
        let start = out.begin_run();
        let (first, last) = (range.start().as_nanos(), range.end().as_nanos());
        let deletes = !self.tombstones.is_empty();
        for (closed, count) in &self.closed {
            check()?;
            for (index, (time, value)) in (closed.start..).zip(closed.chunk.iter_prefix(*count)) {
                if time > last {
                    break;
                }
                if time >= first && !(deletes && self.tombstones.hides_main(self.at, index, time)) {
                    out.times.push(time);
                    out.values.push(value);
                }
            }
        }
        out.times.extend(self.open.iter().map(|(time, _)| time));
        out.values.extend(self.open.iter().map(|(_, value)| value));
        out.merge(start, &self.side);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn append(series: &mut Series, lsn: u64, t: i64, v: f64, floor: u64) -> Change {
        let mut change = Change::default();
        series.append(Lsn(lsn), t, v, Lsn(floor), &mut change);
        change
    }

    fn read(series: &Series, at: u64, range: TimeRange) -> Vec<(i64, u64)> {
        let mut copy = SeriesCopy::default();
        let mut out = Samples::default();
        series.copy_into(Lsn(at), range, &mut copy);
        copy.read(range, &mut out, || Ok::<(), ()>(())).unwrap();
        assert!(out.times.len() <= copy.samples_max());
        assert_eq!(series.has_samples(Lsn(at), range), !out.times.is_empty());
        assert!(series.may_have_samples(Lsn(at), range) || out.times.is_empty());
        if let Bounds::Known(bounds) = series.bounds(Lsn(at))
            && range == TimeRange::ALL
        {
            let ends = out.times.first().zip(out.times.last());
            assert_eq!(
                bounds.map(|b| (b.start().as_nanos(), b.end().as_nanos())),
                ends.map(|(a, b)| (*a, *b))
            );
        }
        out.times
            .iter()
            .zip(&out.values)
            .map(|(t, v)| (*t, v.to_bits()))
            .collect()
    }

    fn range(start: i64, end: i64) -> TimeRange {
        TimeRange::new(Timestamp::from_nanos(start), Timestamp::from_nanos(end)).unwrap()
    }

    #[test]
    fn each_snapshot_sees_the_samples_of_its_records() {
        let mut series = Series::default();
        for lsn in 1..=5 {
            append(&mut series, lsn, i64::try_from(lsn).unwrap(), 1.0, 0);
        }
        for at in 0..=6u64 {
            let want = usize::try_from(at.min(5)).unwrap();
            assert_eq!(read(&series, at, TimeRange::ALL).len(), want);
        }
    }

    #[test]
    fn marks_behind_the_floor_are_dropped() {
        let mut series = Series::default();
        for lsn in 1..100 {
            append(&mut series, lsn, i64::try_from(lsn).unwrap(), 1.0, lsn - 1);
        }
        assert!(
            series.rare.is_none(),
            "a series without an open snapshot has no list of marks"
        );
        for lsn in 100..110 {
            append(&mut series, lsn, i64::try_from(lsn).unwrap(), 1.0, 99);
        }
        assert_eq!(read(&series, 99, TimeRange::ALL).len(), 99);
        assert_eq!(read(&series, 104, TimeRange::ALL).len(), 104);
        append(&mut series, 110, 110, 1.0, 109);
        assert!(series.rare.unwrap().marks.is_empty());
    }

    #[test]
    fn a_repeat_of_the_last_sample_costs_nothing() {
        let mut series = Series::default();
        append(&mut series, 1, 5, 1.0, 0);
        let change = append(&mut series, 2, 5, 1.0, 0);
        assert_eq!((change.samples, change.side_samples), (0, 0));
        append(&mut series, 3, 5, 2.0, 0);
        assert_eq!(read(&series, 2, TimeRange::ALL), [(5, 1.0f64.to_bits())]);
        assert_eq!(read(&series, 3, TimeRange::ALL), [(5, 2.0f64.to_bits())]);
        append(&mut series, 4, 5, 1.0, 0);
        assert_eq!(read(&series, 4, TimeRange::ALL), [(5, 1.0f64.to_bits())]);
    }

    #[test]
    fn extreme_times_and_all_value_bits_come_back() {
        let mut series = Series::default();
        let values = [
            f64::NAN,
            -0.0,
            f64::INFINITY,
            f64::from_bits(0x7ff0_0000_0000_0002),
            5e-324,
        ];
        let times = [i64::MIN, i64::MIN + 1, -1, 0, i64::MAX];
        for (lsn, (t, v)) in (1..).zip(times.iter().zip(values)) {
            append(&mut series, lsn, *t, v, 0);
        }
        append(&mut series, 6, i64::MIN, -0.0, 0);
        let mut want: Vec<_> = times
            .iter()
            .copied()
            .zip(values.iter().map(|v| v.to_bits()))
            .collect();
        assert_eq!(read(&series, 5, TimeRange::ALL), want);
        want[0].1 = (-0.0f64).to_bits();
        assert_eq!(read(&series, 6, TimeRange::ALL), want);
        assert_eq!(read(&series, 6, range(-1, 0)), want[2..4]);
    }

    #[test]
    fn a_delete_hides_older_samples_from_later_snapshots_and_a_rewrite_shows() {
        let mut series = Series::default();
        let mut change = Change::default();
        for t in 1..=3000 {
            append(&mut series, 1, t * 10, 1.0, 0);
        }
        append(&mut series, 2, 15, 1.5, 0);
        assert!(series.delete(Lsn(3), range(0, 20_000), &mut change));
        append(&mut series, 4, 20, 7.0, 0);
        assert_eq!(read(&series, 2, TimeRange::ALL).len(), 3001);
        assert_eq!(read(&series, 3, TimeRange::ALL).len(), 1000);
        assert_eq!(read(&series, 4, range(0, 100)), [(20, 7.0f64.to_bits())]);
        let before = series.rare.as_ref().unwrap().closed.len();
        series.reclaim(Lsn(4), &mut change);
        assert!(series.rare.as_ref().unwrap().closed.len() < before);
        assert_eq!(read(&series, 4, range(0, 100)), [(20, 7.0f64.to_bits())]);
        assert_eq!(read(&series, 4, TimeRange::ALL).len(), 1001);
    }

    #[test]
    fn a_deleted_exemplar_stays_deleted_for_snapshots_that_still_have_it_in_their_window() {
        let exemplar = |t: i64| Exemplar {
            time: Timestamp::from_nanos(t),
            value: 1.0,
            trace_id: None,
            span_id: None,
            labels: rootline_index::Labels::empty(),
        };
        let mut series = Series::default();
        let mut change = Change::default();
        series.push_exemplar(Lsn(1), &exemplar(1), Lsn(0), &mut change);
        assert!(series.delete(Lsn(2), TimeRange::ALL, &mut change));
        // A snapshot at 3 stays open while the window moves on.
        for lsn in 3..200 {
            let time = i64::try_from(lsn).unwrap();
            series.push_exemplar(Lsn(lsn), &exemplar(time), Lsn(3), &mut change);
        }
        series.reclaim(Lsn(3), &mut change);
        let times = |at: u64| -> Vec<i64> {
            let seen = series.exemplars(Lsn(at), TimeRange::ALL);
            seen.iter().map(|e| e.time.as_nanos()).collect()
        };
        assert_eq!(times(1), [1]);
        assert_eq!(times(3), [3]);
        assert_eq!(times(199).len(), super::super::EXEMPLARS_PER_SERIES_MAX);
    }

    #[test]
    fn a_series_deleted_whole_gives_its_memory_back_and_starts_again() {
        let mut series = Series::default();
        let mut change = Change::default();
        for t in 1..=3000 {
            series.append(Lsn(1), t, 1.0, Lsn(0), &mut change);
        }
        series.append(Lsn(2), 1, 2.0, Lsn(1), &mut change);
        series.delete(Lsn(3), TimeRange::ALL, &mut change);
        series.reclaim(Lsn(3), &mut change);
        assert_eq!(
            (change.samples, change.side_samples, change.chunks),
            (0, 0, 0)
        );
        assert!(series.rare.is_none() && series.open.is_none());
        assert_eq!(change.bytes, 0);
        assert!(!series.delete(Lsn(4), TimeRange::ALL, &mut change));
        series.append(Lsn(5), 2, 9.0, Lsn(4), &mut change);
        series.append(Lsn(5), 1, 8.0, Lsn(4), &mut change);
        assert_eq!(
            read(&series, 5, TimeRange::ALL),
            [(1, 8.0f64.to_bits()), (2, 9.0f64.to_bits())]
        );
        assert!(read(&series, 4, TimeRange::ALL).is_empty());
    }
}
