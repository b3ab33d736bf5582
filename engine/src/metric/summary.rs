//! Least, greatest, sum and count of each series, from statistics of chunks where these tell.
//!
//! A series is read unless blocks alone have it in the range, no delete hides any of it there, and no
//! two of its chunks overlap. Then a chunk that lies in the range as a whole counts by its statistics,
//! and only the others, at the ends of the range or too short to have any, are read.

use std::ops::ControlFlow;

use rootline_index::{Labels, Matcher};
use rootline_wal::Lsn;

use super::{
    block::{ChunkInfo, ChunkStats, MetricBlock},
    part::{Part, PartData, SeriesMerge},
    read::SeriesCount,
    series_reader::{Caches, SeriesReader},
    view::MetricView,
};
use crate::{
    budget::{Holder, Reservation},
    control::QueryControl,
    error::Error,
    time::{TimeRange, Timestamp},
};

/// What one series amounts to in a range. Staleness markers take no part in any of it.
#[derive(Clone, Copy, Debug)]
pub struct SeriesSummary<'a> {
    /// What the series is called.
    pub labels: &'a Labels,
    /// Values, those that are no number included; may be 0.
    pub count: u64,
    /// Of these, values that are no number.
    pub nans: u64,
    /// The least number; infinity if there is none. Zeros of either sign are one.
    pub min: f64,
    /// The greatest number; minus infinity if there is none.
    pub max: f64,
    /// The numbers added up. Not in one fixed order: chunk by chunk where the store does so, so that
    /// the last bits may change when data move into blocks or are merged.
    pub sum: f64,
    /// Whether statistics of chunks served, so that not all samples were read.
    pub from_stats: bool,
}

#[derive(Clone, Copy, Debug)]
struct Totals {
    /// Samples, staleness markers included.
    samples: u64,
    stale: u64,
    nans: u64,
    min: f64,
    max: f64,
    sum: f64,
    from_stats: bool,
}

impl Totals {
    const NONE: Self = Self {
        samples: 0,
        stale: 0,
        nans: 0,
        min: f64::INFINITY,
        max: f64::NEG_INFINITY,
        sum: 0.0,
        from_stats: false,
    };

    fn add(&mut self, samples: usize, stats: &ChunkStats) {
        self.samples += samples as u64;
        self.stale += u64::from(stats.stale);
        self.nans += u64::from(stats.nans);
        self.min = if stats.min < self.min {
            stats.min
        } else {
            self.min
        };
        self.max = if stats.max > self.max {
            stats.max
        } else {
            self.max
        };
        self.sum += stats.sum;
    }

    fn shown<'l>(&self, labels: &'l Labels) -> SeriesSummary<'l> {
        SeriesSummary {
            labels,
            count: self.samples - self.stale,
            nans: self.nans,
            min: self.min,
            max: self.max,
            sum: self.sum,
            from_stats: self.from_stats,
        }
    }
}

impl MetricView {
    /// Shows `visit` what every series that satisfies the matchers and has samples in `range` amounts
    /// to, in the order of labels. No lock is held meanwhile.
    ///
    /// # Errors
    /// What `ctl` or `visit` says, [`Error::MemoryFull`], damage in a block.
    pub(crate) fn summary(
        &self,
        at: Lsn,
        matchers: &[Matcher],
        range: TimeRange,
        ctl: &QueryControl,
        visit: &mut dyn FnMut(SeriesSummary<'_>) -> Result<ControlFlow<()>, Error>,
    ) -> Result<(), Error> {
        let Some(asked) = self.asked(at, matchers, range, ctl) else {
            return Ok(());
        };
        let parts = self.parts(at, asked.range);
        let mut series = SeriesMerge::new(&parts, asked, false)?;
        let mut count = SeriesCount::new(&series, ctl)?;
        let mut reader = SeriesReader::new(asked)?;
        let mut folder = Folder {
            range: asked.range,
            ctl,
            caches: Caches::default(),
            chunks: Vec::new(),
            times: Vec::new(),
            values: Vec::new(),
            held: asked.budget.reserve(Holder::Queries, 0)?,
        };
        while let Some((labels, rows)) = series.next()? {
            ctl.check()?;
            let totals = if let Some(totals) = folder.fold(&parts, &labels, rows)? {
                totals
            } else {
                let samples = reader.read(&parts, &labels, rows)?;
                let mut totals = Totals::NONE;
                totals.add(samples.values.len(), &ChunkStats::of(&samples.values));
                totals
            };
            if totals.samples == 0 {
                continue;
            }
            count.add_one(ctl)?;
            if visit(totals.shown(&labels))?.is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Adds up a series from the chunks of blocks.
struct Folder<'v> {
    range: TimeRange,
    ctl: &'v QueryControl,
    caches: Caches,
    chunks: Vec<(usize, ChunkInfo)>,
    times: Vec<i64>,
    values: Vec<f64>,
    held: Reservation,
}

impl Folder<'_> {
    /// What a series amounts to; `None` if it must be read.
    fn fold(
        &mut self,
        parts: &[Part<'_>],
        labels: &Labels,
        rows: &[(usize, u32)],
    ) -> Result<Option<Totals>, Error> {
        self.chunks.clear();
        let mut hidden = Vec::new();
        let mut of_part = Vec::new();
        for &(index, row) in rows {
            let Some((part, block)) = block_at(parts, index) else {
                return Ok(None);
            };
            part.hiding.ranges(labels, &mut hidden);
            if !hidden.is_empty() {
                return Ok(None);
            }
            block.chunks(row, true, self.caches.of(index), &mut of_part)?;
            let touched = of_part.drain(..).filter(|chunk| chunk.overlaps(self.range));
            self.chunks.extend(touched.map(|chunk| (index, chunk)));
        }
        self.chunks.sort_by_key(|(_, chunk)| chunk.first_ns);
        let overlap = |pair: &[(usize, ChunkInfo)]| match pair {
            [(_, a), (_, b)] => a.last_ns >= b.first_ns,
            _ => false,
        };
        if self.chunks.windows(2).any(overlap) {
            return Ok(None);
        }
        let mut totals = Totals::NONE;
        for (index, chunk) in &self.chunks {
            if let Some(stats) = chunk.stats.filter(|_| is_inside(chunk, self.range)) {
                totals.add(chunk.count as usize, &stats);
                totals.from_stats = true;
                continue;
            }
            let Some((_, block)) = block_at(parts, *index) else {
                return Ok(None);
            };
            // A time and a value each.
            let needed = u64::from(chunk.count) * 16 + self.caches.heap_bytes() as u64;
            if needed > self.held.bytes() {
                self.held.grow(needed - self.held.bytes())?;
            }
            self.times.clear();
            self.values.clear();
            let (times, values) = (&mut self.times, &mut self.values);
            block.read_chunk(chunk, self.range, times, values, self.caches.of(*index))?;
            self.ctl.count_samples(values.len() as u64)?;
            totals.add(values.len(), &ChunkStats::of(values));
        }
        Ok(Some(totals))
    }
}

fn block_at<'p, 'v>(
    parts: &'p [Part<'v>],
    index: usize,
) -> Option<(&'p Part<'v>, &'v MetricBlock)> {
    let part = parts.get(index)?;
    match part.data {
        PartData::Block(block) => Some((part, block)),
        PartData::Head(_) => None,
    }
}

fn is_inside(chunk: &ChunkInfo, range: TimeRange) -> bool {
    [chunk.first_ns, chunk.last_ns]
        .into_iter()
        .all(|end| range.contains(Timestamp::from_nanos(end)))
}
