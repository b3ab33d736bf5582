//! Makes new blocks of several: what compaction does with metrics.
//!
//! 1. The series of all sources are walked together, in the order of `Labels`.
//! 2. Of a series, the source with the least next timestamp is followed up to the next timestamp of
//!    any other; where several have one timestamp, the source with the highest LSN wins.
//! 3. A chunk of at least [`COPIED_SAMPLES_MIN`] samples that nothing overlaps, hides or cuts is copied
//!    as it stands, and so is the only chunk of a series. All else is decoded, gathered and encoded
//!    anew in larger columns.
//! 4. What a tombstone hides in a source that does not have it applied, and what lies below the floor,
//!    is left out.
//!
//! Memory: for each source a decoded chunk, for each output what its writer holds.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
};

use roaring::RoaringBitmap;
use rootline_index::{Labels, Symbol, Symbols};

use super::{
    reader::{ChunkInfo, ColumnCache, MetricBlock, SeriesLabels},
    writer::MetricBlockWriter,
};
use crate::{
    block::SectionKind,
    column::times::COLUMN_SAMPLES_MAX,
    error::Error,
    metric::{EXEMPLARS_PER_SERIES_MAX, Exemplar},
    time::{NS_PER_S, TimeRange, Timestamp},
    tombstone::Tombstone,
};

/// A chunk of so many samples is large enough to be copied.
pub(crate) const COPIED_SAMPLES_MIN: u32 = 4_000;
/// Samples that are gathered before the first half of them is written.
const GATHERED_SAMPLES_MAX: usize = 8 * COLUMN_SAMPLES_MAX;
/// A series keeps the last [`EXEMPLARS_PER_SERIES_MAX`] exemplars of each window of this length.
const EXEMPLAR_WINDOW_NS: i64 = 2 * 3600 * NS_PER_S;

/// A block to be made, and the times it takes.
#[derive(Debug)]
pub(crate) struct MergeOutput {
    /// Which samples.
    pub(crate) range: TimeRange,
    /// Where they go.
    pub(crate) writer: MetricBlockWriter,
}

/// What a merge did. What it wrote, the finished blocks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// Series of the sources, each once.
    pub(crate) series: u64,
    /// Samples in chunks that were copied.
    pub(crate) samples_copied: u64,
    /// Samples that were encoded anew.
    pub(crate) samples_encoded: u64,
    /// Bytes of value columns that were read.
    pub(crate) read_bytes: u64,
}

/// Merges `sources` (by rising LSN: disjoint where they share time) into `outputs` (by rising range,
/// disjoint, and covering every sample that stays), whose series get symbols of `symbols`. The caller
/// finishes the outputs.
///
/// `tombstones` are those to be applied. Samples and exemplars before `floor_ns` are left out. `each`
/// is called for every series, and may wait or end the merge.
///
/// # Errors
/// Those of the sources and of the writers; what `each` returned; [`Error::BadRange`] for a sample that
/// no output takes.
pub(crate) fn merge(
    sources: &[Arc<MetricBlock>],
    tombstones: &[Tombstone],
    floor_ns: Option<i64>,
    outputs: &mut [MergeOutput],
    symbols: &mut Symbols,
    each: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Merged, Error> {
    let floor_ns = floor_ns.unwrap_or(i64::MIN);
    let mut streams = Vec::with_capacity(sources.len());
    for source in sources {
        streams.push(Stream::open(source, tombstones, floor_ns)?);
    }
    for source in sources {
        for (lsn, metadata) in source.metadata()? {
            for output in &mut *outputs {
                output.writer.metadata(lsn, &metadata);
            }
        }
    }
    let mut series = BinaryHeap::new();
    for (index, stream) in streams.iter_mut().enumerate() {
        if let Some(labels) = stream.next_series()? {
            series.push(Reverse((labels, index)));
        }
    }
    let mut gathered = Gathered::new(outputs);
    let mut names = SeriesNames::default();
    let mut active = Vec::new();
    let mut merged = Merged::default();
    while let Some(Reverse((labels, first))) = series.pop() {
        each()?;
        active.clear();
        active.push(first);
        while let Some(Reverse((next, _))) = series.peek()
            && *next == labels
            && let Some(Reverse((_, index))) = series.pop()
        {
            active.push(index);
        }
        merged.series += 1;
        gathered.start_series(names.symbols(&labels, symbols));
        merge_series(&mut streams, &active, &mut gathered, &mut merged)?;
        merge_exemplars(&streams, &active, &mut gathered)?;
        for &index in &active {
            if let Some(stream) = streams.get_mut(index)
                && let Some(labels) = stream.next_series()?
            {
                series.push(Reverse((labels, index)));
            }
        }
    }
    Ok(merged)
}

/// One source: its series one after the other, and the samples of the one it is at.
struct Stream<'s> {
    source: &'s Arc<MetricBlock>,
    labels: SeriesLabels<'s>,
    /// What the row is called.
    at: Labels,
    /// Rows that a tombstone concerns, and the times it hides.
    hidden: Vec<(RoaringBitmap, TimeRange)>,
    floor_ns: i64,
    /// The row it is at, and the one after it.
    row: u32,
    next_row: u32,
    /// Chunks of the row, which of them is next, and what hides samples of the row.
    chunks: Vec<ChunkInfo>,
    next_chunk: usize,
    hidden_of_row: Vec<TimeRange>,
    /// The chunk that is decoded, from `position` on.
    times: Vec<i64>,
    values: Vec<f64>,
    position: usize,
    cache: ColumnCache,
}

impl<'s> Stream<'s> {
    fn open(
        source: &'s Arc<MetricBlock>,
        tombstones: &[Tombstone],
        floor_ns: i64,
    ) -> Result<Self, Error> {
        let meta = source.meta();
        let concern = tombstones
            .iter()
            .filter(|t| t.lsn > meta.clean_lsn && t.range.overlaps(meta.time));
        let mut hidden = Vec::new();
        for tombstone in concern {
            let rows = source.select(&tombstone.matchers, &mut || true)?;
            if !rows.is_empty() {
                hidden.push((rows, tombstone.range));
            }
        }
        Ok(Self {
            source,
            labels: source.labels_cursor(),
            at: Labels::empty(),
            hidden,
            floor_ns,
            row: 0,
            next_row: 0,
            chunks: Vec::new(),
            next_chunk: 0,
            hidden_of_row: Vec::new(),
            times: Vec::new(),
            values: Vec::new(),
            position: 0,
            cache: ColumnCache::default(),
        })
    }

    /// Goes to the next row and says what it is called; `None` behind the last.
    fn next_series(&mut self) -> Result<Option<Labels>, Error> {
        if self.next_row >= self.source.series_count() {
            return Ok(None);
        }
        self.row = self.next_row;
        self.next_row += 1;
        let labels = self.labels.labels(self.row)?;
        // The walk stands on the order of labels; a checksum does not vouch for it.
        if self.row > 0 && labels <= self.at {
            let reason = format!("the labels of series {} do not rise", self.row);
            let block = self.source.block();
            return Err(block.damage(SectionKind::SeriesIndex, 0, reason));
        }
        self.at = labels.clone();
        Ok(Some(labels))
    }

    /// Reads which chunks the row has.
    fn load(&mut self) -> Result<(), Error> {
        self.chunks.clear();
        self.times.clear();
        self.values.clear();
        (self.next_chunk, self.position) = (0, 0);
        let of_row = self
            .hidden
            .iter()
            .filter(|(rows, _)| rows.contains(self.row));
        self.hidden_of_row.clear();
        self.hidden_of_row.extend(of_row.map(|(_, range)| *range));
        self.source
            .chunks(self.row, true, &mut self.cache, &mut self.chunks)
    }

    /// The least timestamp that may come next; of a chunk that is not decoded, its first.
    fn next_ns(&self) -> Option<i64> {
        match self.times.get(self.position) {
            Some(&time) => Some(time),
            None => Some(self.chunks.get(self.next_chunk)?.first_ns),
        }
    }

    fn is_decoded(&self) -> bool {
        self.position < self.times.len()
    }

    fn hides(&self, time_ns: i64) -> bool {
        let time = Timestamp::from_nanos(time_ns);
        time_ns < self.floor_ns || self.hidden_of_row.iter().any(|range| range.contains(time))
    }

    /// Whether nothing of a chunk is hidden.
    fn is_untouched(&self, chunk: &ChunkInfo) -> bool {
        chunk.first_ns >= self.floor_ns
            && !self
                .hidden_of_row
                .iter()
                .any(|range| chunk.overlaps(*range))
    }

    /// Decodes the next chunk, less what is hidden.
    fn decode(&mut self, merged: &mut Merged) -> Result<(), Error> {
        self.times.clear();
        self.values.clear();
        self.position = 0;
        let Some(chunk) = self.chunks.get(self.next_chunk).cloned() else {
            return Ok(());
        };
        self.next_chunk += 1;
        let covers = |range: &TimeRange| {
            range.start().as_nanos() <= chunk.first_ns && chunk.last_ns <= range.end().as_nanos()
        };
        if chunk.last_ns < self.floor_ns || self.hidden_of_row.iter().any(covers) {
            return Ok(());
        }
        merged.read_bytes += chunk.value_bytes();
        self.source.read_chunk(
            &chunk,
            TimeRange::ALL,
            &mut self.times,
            &mut self.values,
            &mut self.cache,
        )?;
        // The merge stands on the order of timestamps; a checksum does not vouch for it.
        let is_sound = self.times.is_sorted_by(|a, b| a < b)
            && self.times.first() == Some(&chunk.first_ns)
            && self.times.last() == Some(&chunk.last_ns)
            && self.times.len() == self.values.len();
        if !is_sound {
            let reason = format!("the timestamps of series {} do not rise", self.row);
            return Err(self.source.block().damage(SectionKind::Times, 0, reason));
        }
        if !self.is_untouched(&chunk) {
            let mut kept = 0;
            for index in 0..self.times.len() {
                let (Some(&time), Some(&value)) = (self.times.get(index), self.values.get(index))
                else {
                    break;
                };
                if !self.hides(time)
                    && let (Some(to_time), Some(to_value)) =
                        (self.times.get_mut(kept), self.values.get_mut(kept))
                {
                    (*to_time, *to_value) = (time, value);
                    kept += 1;
                }
            }
            self.times.truncate(kept);
            self.values.truncate(kept);
        }
        Ok(())
    }
}

/// Merges the samples of one series, which the streams of `active` (rising) are at.
fn merge_series(
    streams: &mut [Stream<'_>],
    active: &[usize],
    gathered: &mut Gathered<'_>,
    merged: &mut Merged,
) -> Result<(), Error> {
    let mut chunks = 0;
    for &index in active {
        if let Some(stream) = streams.get_mut(index) {
            stream.load()?;
            chunks += stream.chunks.len();
        }
    }
    loop {
        // The stream with the least next timestamp, and the least of the others.
        let mut least: Option<(i64, usize)> = None;
        let mut limit_ns: Option<i64> = None;
        for &index in active {
            let Some(next) = streams.get(index).and_then(Stream::next_ns) else {
                continue;
            };
            match least {
                Some((time, _)) if next >= time => {
                    limit_ns = Some(limit_ns.map_or(next, |limit| limit.min(next)));
                }
                _ => {
                    limit_ns = least.map(|(time, _)| time).or(limit_ns);
                    least = Some((next, index));
                }
            }
        }
        let Some((time_ns, index)) = least else { break };
        if limit_ns == Some(time_ns) {
            merge_one(streams, active, time_ns, gathered, merged)?;
            continue;
        }
        let Some(stream) = streams.get_mut(index) else {
            break;
        };
        if !stream.is_decoded() {
            let copied = stream.chunks.get(stream.next_chunk).filter(|chunk| {
                (chunk.count >= COPIED_SAMPLES_MIN || chunks == 1)
                    && limit_ns.is_none_or(|limit| chunk.last_ns < limit)
                    && stream.is_untouched(chunk)
                    && gathered.takes_whole(chunk)
            });
            match copied.cloned() {
                Some(chunk) => {
                    stream.next_chunk += 1;
                    stream.position = stream.times.len();
                    gathered.copy(stream, &chunk)?;
                    merged.read_bytes += chunk.value_bytes();
                    merged.samples_copied += u64::from(chunk.count);
                }
                None => stream.decode(merged)?,
            }
            continue;
        }
        let times = stream.times.get(stream.position..).unwrap_or_default();
        let values = stream.values.get(stream.position..).unwrap_or_default();
        let count = limit_ns.map_or(times.len(), |limit| times.partition_point(|t| *t < limit));
        gathered.push(
            times.get(..count).unwrap_or_default(),
            values.get(..count).unwrap_or_default(),
        )?;
        merged.samples_encoded += count as u64;
        stream.position += count;
    }
    gathered.flush()
}

/// Takes one timestamp that several streams are at: the newest wins, the others are dropped.
fn merge_one(
    streams: &mut [Stream<'_>],
    active: &[usize],
    time_ns: i64,
    gathered: &mut Gathered<'_>,
    merged: &mut Merged,
) -> Result<(), Error> {
    for &index in active {
        // The first timestamp of a chunk that is not decoded may turn out to be hidden.
        if let Some(stream) = streams.get_mut(index)
            && stream.next_ns() == Some(time_ns)
            && !stream.is_decoded()
        {
            return stream.decode(merged);
        }
    }
    let mut newest = None;
    for &index in active {
        if let Some(stream) = streams.get_mut(index)
            && stream.next_ns() == Some(time_ns)
        {
            newest = stream.values.get(stream.position).copied().or(newest);
            stream.position += 1;
        }
    }
    if let Some(value) = newest {
        gathered.push(&[time_ns], &[value])?;
        merged.samples_encoded += 1;
    }
    Ok(())
}

/// Merges the exemplars of one series: exact repeats once, and of each window the last received.
fn merge_exemplars(
    streams: &[Stream<'_>],
    active: &[usize],
    gathered: &mut Gathered<'_>,
) -> Result<(), Error> {
    let mut all: Vec<Exemplar> = Vec::new();
    let mut places: HashMap<(i64, u64), Vec<usize>> = HashMap::new();
    for stream in active.iter().filter_map(|&index| streams.get(index)) {
        if !stream.source.has_exemplars() {
            continue;
        }
        for exemplar in stream.source.exemplars(stream.row, TimeRange::ALL)? {
            if stream.hides(exemplar.time.as_nanos()) {
                continue;
            }
            let key = (exemplar.time.as_nanos(), exemplar.value.to_bits());
            let same = places.entry(key).or_default();
            let mut known = same.iter().filter_map(|&place| all.get(place));
            if !known.any(|known| known.is_same(&exemplar)) {
                same.push(all.len());
                all.push(exemplar);
            }
        }
    }
    if all.is_empty() {
        return Ok(());
    }
    let mut in_window: HashMap<i64, usize> = HashMap::new();
    let mut kept = Vec::with_capacity(all.len());
    for exemplar in all.into_iter().rev() {
        let window = exemplar.time.as_nanos().div_euclid(EXEMPLAR_WINDOW_NS);
        let count = in_window.entry(window).or_default();
        *count += 1;
        if *count <= EXEMPLARS_PER_SERIES_MAX {
            kept.push(exemplar);
        }
    }
    for exemplar in kept.iter().rev() {
        gathered.exemplar(exemplar)?;
    }
    Ok(())
}

/// Samples of one series on their way to the output that takes their times.
struct Gathered<'o> {
    outputs: &'o mut [MergeOutput],
    /// Labels of the series, and which outputs know of it.
    labels: Vec<(Symbol, Symbol)>,
    started: Vec<bool>,
    /// All of one output.
    output: usize,
    times: Vec<i64>,
    values: Vec<f64>,
}

impl<'o> Gathered<'o> {
    fn new(outputs: &'o mut [MergeOutput]) -> Self {
        Self {
            started: vec![false; outputs.len()],
            outputs,
            labels: Vec::new(),
            output: 0,
            times: Vec::new(),
            values: Vec::new(),
        }
    }

    fn start_series(&mut self, labels: &[(Symbol, Symbol)]) {
        self.labels.clear();
        self.labels.extend_from_slice(labels);
        self.started.fill(false);
    }

    /// The output that takes a time.
    fn output_of(&self, time_ns: i64) -> Result<usize, Error> {
        let time = Timestamp::from_nanos(time_ns);
        let index = self.outputs.partition_point(|o| o.range.end() < time);
        match self.outputs.get(index) {
            Some(output) if output.range.contains(time) => Ok(index),
            _ => Err(TimeRange::new(time, time).map_or_else(|e| e, Error::BadRange)),
        }
    }

    /// Whether one output takes all of a chunk.
    fn takes_whole(&self, chunk: &ChunkInfo) -> bool {
        let first = self.output_of(chunk.first_ns);
        let last = self.output_of(chunk.last_ns);
        matches!((first, last), (Ok(first), Ok(last)) if first == last)
    }

    /// The writer of an output, at the series.
    fn writer(&mut self, output: usize) -> Option<&mut MetricBlockWriter> {
        let writer = &mut self.outputs.get_mut(output)?.writer;
        let started = self.started.get_mut(output)?;
        if !std::mem::replace(started, true) {
            writer.start_series(&self.labels);
        }
        Some(writer)
    }

    fn push(&mut self, mut times: &[i64], mut values: &[f64]) -> Result<(), Error> {
        while let Some(&first) = times.first() {
            let output = self.output_of(first)?;
            if output != self.output {
                self.flush()?;
                self.output = output;
            }
            let end = self.outputs.get(output).map(|o| o.range.end().as_nanos());
            let count = times.partition_point(|t| end.is_some_and(|end| *t <= end));
            let (now, later) = times.split_at_checked(count).unwrap_or((times, &[]));
            let (values_now, values_later) =
                values.split_at_checked(count).unwrap_or((values, &[]));
            self.times.extend_from_slice(now);
            self.values.extend_from_slice(values_now);
            (times, values) = (later, values_later);
            if self.times.len() >= GATHERED_SAMPLES_MAX {
                self.write(GATHERED_SAMPLES_MAX / 2)?;
            }
        }
        Ok(())
    }

    fn copy(&mut self, stream: &mut Stream<'_>, chunk: &ChunkInfo) -> Result<(), Error> {
        self.flush()?;
        let output = self.output_of(chunk.first_ns)?;
        let Some(writer) = self.writer(output) else {
            return Ok(());
        };
        stream
            .source
            .with_columns(chunk, &mut stream.cache, |columns| {
                writer.copy_chunk(columns)
            })
    }

    fn exemplar(&mut self, exemplar: &Exemplar) -> Result<(), Error> {
        let output = self.output_of(exemplar.time.as_nanos())?;
        match self.writer(output) {
            Some(writer) => writer.exemplar(exemplar),
            None => Ok(()),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        self.write(self.times.len())
    }

    /// Writes the first `count` samples.
    fn write(&mut self, count: usize) -> Result<(), Error> {
        if count == 0 {
            return Ok(());
        }
        let (times, values) = (
            std::mem::take(&mut self.times),
            std::mem::take(&mut self.values),
        );
        let result = match self.writer(self.output) {
            Some(writer) => writer.samples(
                times.get(..count).unwrap_or(&times),
                values.get(..count).unwrap_or(&values),
            ),
            None => Ok(()),
        };
        (self.times, self.values) = (times, values);
        self.times.drain(..count.min(self.times.len()));
        self.values.drain(..count.min(self.values.len()));
        result
    }
}

/// Symbols of label sets that come in order, so that most pairs are those of the set before.
#[derive(Debug, Default)]
struct SeriesNames {
    labels: Option<Labels>,
    symbols: Vec<(Symbol, Symbol)>,
}

impl SeriesNames {
    fn symbols(&mut self, labels: &Labels, table: &mut Symbols) -> &[(Symbol, Symbol)] {
        let before = self.labels.take().unwrap_or_default();
        let mut known = before.iter();
        for (place, (name, value)) in labels.iter().enumerate() {
            let at_place = self.symbols.get(place).copied();
            let symbols = match (known.next(), at_place) {
                (Some((n, v)), Some(symbols)) if n == name && v == value => symbols,
                (Some((n, _)), Some((symbol, _))) if n == name => (symbol, table.intern(value)),
                _ => (table.intern(name), table.intern(value)),
            };
            match self.symbols.get_mut(place) {
                Some(slot) => *slot = symbols,
                None => self.symbols.push(symbols),
            }
        }
        self.symbols.truncate(labels.len());
        self.labels = Some(labels.clone());
        &self.symbols
    }
}
