//! Reading a frozen generation whole: its series in the order of labels, each as of the cut.
//!
//! All of its locks are held shared for the whole walk, which disturbs nobody: a frozen generation has
//! no writers, and readers share.

use parking_lot::RwLockReadGuard;
use rootline_index::{Symbol, Symbols};
use rootline_wal::Lsn;

use super::{
    exemplar::Exemplar,
    head::{MetricHead, Shard},
    label_order,
    registry::{RegistryRows, SeriesNumber, Sharding},
    runs::Samples,
    series::Series,
};
use crate::time::TimeRange;

/// See the module's doc.
pub(crate) struct FrozenReader<'h> {
    cut: Lsn,
    sharding: Sharding,
    rows: RegistryRows<'h>,
    shards: Vec<RwLockReadGuard<'h, Shard>>,
    symbols: RwLockReadGuard<'h, Symbols>,
}

impl<'h> FrozenReader<'h> {
    /// A reader of `head` as of `cut`, the LSN that it was frozen at.
    pub(crate) fn new(head: &'h MetricHead, cut: Lsn) -> Self {
        Self {
            cut,
            sharding: head.registry.sharding,
            rows: head.registry.rows(),
            shards: head.read_all(),
            symbols: head.registry.symbols.read(),
        }
    }

    /// The series that hold anything, in the order of memory.
    pub(crate) fn numbers(&self) -> Vec<SeriesNumber> {
        let used = self.rows.numbers().filter(|number| {
            let series = self.series(*number);
            series.is_some_and(Series::is_used)
        });
        used.collect()
    }

    /// These series in the order of `Labels`.
    pub(crate) fn by_labels(&self, numbers: &[SeriesNumber]) -> Vec<SeriesNumber> {
        label_order::by_labels(&self.rows, &self.symbols, numbers)
    }

    /// Has the processor fetch what reading these series will need: in the order of labels they lie
    /// anywhere, and one after the other each would be waited for. Fetched at once, some of them wait
    /// together (at a million series this saves a third of the sealing).
    pub(crate) fn fetch(&self, numbers: &[SeriesNumber]) {
        let touch = |number: &SeriesNumber| {
            let values = self.rows.pairs(*number).next();
            let values = values.map_or(0, |pair| pair.1.as_u32());
            let bytes = self.series(*number).map_or(0, Series::touch);
            u64::from(values) ^ u64::from(bytes)
        };
        let touched = numbers.iter().map(touch).fold(0, |a, b| a ^ b);
        std::hint::black_box(touched);
    }

    /// The table that label pairs point into.
    pub(crate) fn symbols(&self) -> &Symbols {
        &self.symbols
    }

    /// The label pairs of a series, sorted by the names' text.
    pub(crate) fn pairs(&self, number: SeriesNumber, pairs: &mut Vec<(Symbol, Symbol)>) {
        pairs.clear();
        pairs.extend(self.rows.pairs(number));
    }

    /// The value of a label, empty if the series has none of this name.
    pub(crate) fn label(&self, number: SeriesNumber, name: &str) -> &str {
        let mut pairs = self.rows.pairs(number);
        let value = pairs.find(|(of, _)| self.symbols.resolve(*of) == name);
        value.map_or("", |(_, value)| self.symbols.resolve(value))
    }

    /// The samples of a series, in place of what `out` held.
    pub(crate) fn samples(&self, number: SeriesNumber, out: &mut Samples) {
        out.clear();
        if let Some(series) = self.series(number) {
            series.read_all(self.cut, out);
        }
    }

    /// Calls `each` with stretches of time, numbered from the epoch, and how many samples of the
    /// series lie in them: a forecast, as deleted and superseded ones are counted as well.
    pub(crate) fn count_by(
        &self,
        number: SeriesNumber,
        stretch_ns: i64,
        each: &mut dyn FnMut(i64, u64),
    ) {
        if let Some(series) = self.series(number) {
            series.count_by(stretch_ns, each);
        }
    }

    /// The exemplars of a series, in order of arrival.
    pub(crate) fn exemplars(&self, number: SeriesNumber) -> Vec<Exemplar> {
        self.series(number).map_or_else(Vec::new, |series| {
            series.exemplars(self.cut, TimeRange::ALL)
        })
    }

    fn series(&self, number: SeriesNumber) -> Option<&Series> {
        self.shards
            .get(self.sharding.shard(number))?
            .get(self.sharding.slot(number))
    }
}
