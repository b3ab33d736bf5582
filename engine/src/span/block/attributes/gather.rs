//! Gathers the occurrences of one column from all sources, in the order of the items of the table to write.
//!
//! Groups of items without the column are passed over, so that a rare column costs little.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops; shapes and pairs are numbered by the writer, codes of columns are checked when loaded"
)]

use super::{
    AttributeTable, GROUP_ITEMS, ItemContext, ItemRun, LooseAttributes, ValueType,
    layout::{Field, Layout},
    places::Begins,
    shapes::{ALL_REST, FIRST_COLUMN, ShapeSet},
    writer::Control,
};
use crate::{
    column::integers::GROUP,
    error::Error,
    span::block::column::{
        ColumnContext, ColumnInput, LoadedColumn, NoClasses, Sink, ValueTable, write_column,
    },
    value::Value,
};

/// A source, as the writer prepared it.
pub(super) enum GatherSource<'a> {
    Loose {
        loose: &'a LooseAttributes,
        field_of: &'a [u32],
    },
    Table {
        table: &'a AttributeTable,
        layout: &'a Layout,
        shapes: &'a [u32],
        kind_of_column: &'a [u32],
        kind_of_fixed: &'a [u32],
    },
}

/// Occurrences of the columns of a loose source: numbers of pairs, column by column.
#[derive(Default)]
struct Distributed {
    pairs: Vec<u32>,
    /// Where the columns end.
    ends: Vec<usize>,
    /// The code of a pair among the values of its column, once it has one.
    code_of: Vec<u32>,
}

/// Gathers columns.
pub(super) struct Gather<'a> {
    sources: Vec<GatherSource<'a>>,
    distributed: Vec<Distributed>,
    runs: &'a [ItemRun],
    /// The run that the first item of each group is of, and how many items of it are before.
    run_of_group: Vec<(usize, u32)>,
    shapes: &'a ShapeSet,
    shape_of: &'a [u32],
    context: &'a ItemContext<'a>,
    /// A bit for each column that a group has, `words` words a group.
    columns_of_group: Vec<u64>,
    words: usize,
}

impl<'a> Gather<'a> {
    pub(super) fn new(
        sources: Vec<GatherSource<'a>>,
        runs: &'a [ItemRun],
        shapes: &'a ShapeSet,
        shape_of: &'a [u32],
        context: &'a ItemContext<'a>,
    ) -> Self {
        let mut run_of_group = Vec::new();
        let mut first = 0_usize;
        for (number, run) in runs.iter().enumerate() {
            let end = first + run.items as usize;
            while run_of_group.len() * GROUP < end {
                let before = run_of_group.len() * GROUP - first;
                run_of_group.push((number, u32::try_from(before).unwrap_or(u32::MAX)));
            }
            first = end;
        }
        Self {
            sources,
            distributed: Vec::new(),
            runs,
            run_of_group,
            shapes,
            shape_of,
            context,
            columns_of_group: Vec::new(),
            words: 0,
        }
    }

    fn columns_of_shape(&self, shape: u32, columns: usize) -> impl Iterator<Item = usize> {
        let fields = self.shapes.fields(shape).iter();
        fields
            .filter_map(|field| field.checked_sub(FIRST_COLUMN))
            .map(|column| column as usize)
            .filter(move |&column| column < columns)
    }

    /// Finds out which groups have which of `columns` columns, and sorts the pairs of loose sources by
    /// column.
    pub(super) fn distribute(
        &mut self,
        columns: usize,
        ctl: &mut Control<'_>,
    ) -> Result<(), Error> {
        self.words = columns.div_ceil(64);
        let mut seen_in = vec![u32::MAX; self.shapes.len() as usize];
        for (group, shapes) in (0..).zip(self.shape_of.chunks(GROUP)) {
            let start = self.columns_of_group.len();
            self.columns_of_group.resize(start + self.words, 0);
            for &shape in shapes {
                if seen_in[shape as usize] != group {
                    seen_in[shape as usize] = group;
                    let fields = self.shapes.fields(shape).iter();
                    for column in fields.filter_map(|field| field.checked_sub(FIRST_COLUMN)) {
                        let column = column as usize;
                        if column < columns {
                            self.columns_of_group[start + column / 64] |= 1 << (column % 64);
                        }
                    }
                }
            }
        }
        for number in 0..self.sources.len() {
            ctl()?;
            let distributed = match &self.sources[number] {
                GatherSource::Loose { loose, field_of } => {
                    self.distribute_loose(number, loose, field_of, columns)
                }
                GatherSource::Table { .. } => Distributed::default(),
            };
            self.distributed.push(distributed);
        }
        Ok(())
    }

    fn distribute_loose(
        &self,
        source: usize,
        loose: &LooseAttributes,
        field_of: &[u32],
        columns: usize,
    ) -> Distributed {
        let mut items_of_shape = vec![0_usize; self.shapes.len() as usize];
        self.each_item_of(source, |_, shape| items_of_shape[shape as usize] += 1);
        let mut next = vec![0_usize; columns + 1];
        for (shape, &items) in (0..).zip(&items_of_shape) {
            for column in self.columns_of_shape(shape, columns) {
                next[column + 1] += items;
            }
        }
        for column in 1..next.len() {
            next[column] += next[column - 1];
        }
        let ends = next[1..].to_vec();
        let mut pairs = vec![0; ends.last().copied().unwrap_or(0)];
        self.each_item_of(source, |item, shape| {
            if self.shapes.fields(shape) == [ALL_REST] {
                return;
            }
            for &pair in loose.tags_of(item) {
                let column = field_of[pair as usize].wrapping_sub(FIRST_COLUMN) as usize;
                if column < columns {
                    pairs[next[column]] = pair;
                    next[column] += 1;
                }
            }
        });
        Distributed {
            pairs,
            ends,
            code_of: vec![u32::MAX; loose.values.len() as usize],
        }
    }

    /// Calls `visit` with each item of a source and its shape, in final order.
    fn each_item_of(&self, source: usize, mut visit: impl FnMut(u32, u32)) {
        let mut item_to = 0;
        for run in self.runs {
            let next = item_to + run.items as usize;
            if run.source as usize == source {
                for (item, &shape) in (run.first..).zip(&self.shape_of[item_to..next]) {
                    visit(item, shape);
                }
            }
            item_to = next;
        }
    }

    /// Writes a column, and where the occurrences of each group begin in it; gives that and the column's
    /// head. `None` if nothing has the column.
    pub(super) fn write_column(
        &mut self,
        column: usize,
        kind: u32,
        value_type: ValueType,
        sink: &mut Sink<'_>,
    ) -> Result<Option<(Begins, Vec<u8>)>, Error> {
        let field = FIRST_COLUMN + u32::try_from(column).unwrap_or(u32::MAX);
        let in_shape: Vec<u16> = (0..self.shapes.len())
            .map(|shape| {
                let fields = self.shapes.fields(shape).iter();
                u16::try_from(fields.filter(|&&f| f == field).count()).unwrap_or(u16::MAX)
            })
            .collect();
        let mut values = Values::new(value_type);
        let mut feeds = Vec::new();
        for (source, distributed) in self.sources.iter().zip(&mut self.distributed) {
            feeds.push(Feed::new(source, distributed, column, kind)?);
        }
        let mut begins = Vec::with_capacity(self.run_of_group.len());
        let mut owners = Vec::new();
        for (group, shapes) in self.shape_of.chunks(GROUP).enumerate() {
            begins.push(u32::try_from(owners.len()).unwrap_or(u32::MAX));
            let bit = self.columns_of_group[group * self.words + column / 64] >> (column % 64);
            if bit & 1 == 0 {
                continue;
            }
            let first = group * GROUP;
            let (mut run, mut before) = self.run_of_group[group];
            let mut at = 0;
            while at < shapes.len() {
                let of_run = self.runs[run];
                let items = (of_run.items - before) as usize;
                let end = shapes.len().min(at + items);
                let mut occurrences = 0;
                for (item, &shape) in (first + at..).zip(&shapes[at..end]) {
                    let here = in_shape[shape as usize];
                    for _ in 0..here {
                        owners.push(self.context.owner_of[item]);
                    }
                    occurrences += usize::from(here);
                }
                if occurrences > 0 {
                    let items = FedItems {
                        first: of_run.first + before,
                        shapes: &shapes[at..end],
                        in_shape: &in_shape,
                        occurrences,
                    };
                    feeds[of_run.source as usize].feed(&items, &mut values)?;
                }
                at = end;
                (run, before) = (run + 1, 0);
            }
        }
        drop(feeds);
        if owners.is_empty() {
            return Ok(None);
        }
        if values.len() != owners.len() {
            return Err(self.other_values());
        }
        let occurrences = u32::try_from(owners.len()).expect("a kind with more is no column");
        let context = ColumnContext {
            class_of: &[],
            owner_of: &owners,
        };
        let head = write_column(values.input(), &context, sink)?;
        let begins = Begins::write_column(&begins, occurrences, sink)?;
        Ok(Some((begins, head)))
    }
}

impl Gather<'_> {
    /// Only a table can give other values than its shapes say: loose attributes are counted by them.
    #[cold]
    fn other_values(&self) -> Error {
        let table = self.sources.iter().find_map(|source| match source {
            GatherSource::Table { table, .. } => Some(table.beyond_column()),
            GatherSource::Loose { .. } => None,
        });
        table.expect("loose attributes have the values that were counted")
    }
}

/// Values of a column, in final order.
enum Values {
    Codes { values: ValueTable, codes: Vec<u32> },
    Ints(Vec<i64>),
    Doubles(Vec<f64>),
}

impl Values {
    fn new(value_type: ValueType) -> Self {
        match value_type {
            ValueType::Int => Self::Ints(Vec::new()),
            ValueType::Double => Self::Doubles(Vec::new()),
            ValueType::Str | ValueType::Bool | ValueType::Other => Self::Codes {
                values: ValueTable::default(),
                codes: Vec::new(),
            },
        }
    }

    fn len(&self) -> usize {
        self.input().len()
    }

    fn input(&self) -> ColumnInput<'_> {
        match self {
            Self::Codes { values, codes } => ColumnInput::Codes { values, codes },
            Self::Ints(values) => ColumnInput::Ints(values),
            Self::Doubles(values) => ColumnInput::Doubles(values),
        }
    }

    /// Appends an encoded value. `code` is what it had before, or `u32::MAX`, and is set.
    #[inline]
    fn push(&mut self, encoded: &[u8], code: &mut u32) -> Result<(), Error> {
        match self {
            Self::Codes { values, codes } => {
                if *code == u32::MAX {
                    *code = values.push(encoded).ok_or_else(too_large)?;
                }
                codes.push(*code);
            }
            Self::Ints(values) => {
                if let Some(Value::Int(value)) = Value::decode(&mut &*encoded) {
                    values.push(value);
                }
            }
            Self::Doubles(values) => {
                if let Some(Value::Double(value)) = Value::decode(&mut &*encoded) {
                    values.push(value);
                }
            }
        }
        Ok(())
    }
}

#[cold]
fn too_large() -> Error {
    Error::Unsupported("a block with more than 4 GiB of values of one attribute")
}

/// Items of one source that follow each other there and in the table to write.
struct FedItems<'a> {
    /// The first, as the source counts.
    first: u32,
    /// Their shapes in the table to write.
    shapes: &'a [u32],
    /// How often each of those has the column.
    in_shape: &'a [u16],
    /// How often all of them have it.
    occurrences: usize,
}

/// Gives the values of one column of one source.
enum Feed<'a> {
    Loose {
        loose: &'a LooseAttributes,
        pairs: std::slice::Iter<'a, u32>,
        code_of: &'a mut [u32],
    },
    Table(Box<TableFeed<'a>>),
}

/// The values of a kind in a table: of a column, of fixed pairs, or of both.
struct TableFeed<'a> {
    table: &'a AttributeTable,
    layout: &'a Layout,
    shapes: &'a [u32],
    /// The table's column, loaded.
    column: Option<LoadedSource>,
    /// By shape, how often it has the column.
    in_shape: Vec<u16>,
    /// By shape, whether it has fixed pairs of the kind.
    has_fixed: Vec<bool>,
    /// By fixed pair, whether it is of the kind, and its code.
    fixed: Vec<Option<u32>>,
    /// The item that the next occurrence is of, or a later one.
    item: u32,
    occurrence: usize,
}

struct LoadedSource {
    number: usize,
    values: LoadedColumn,
    begins: Vec<u32>,
    /// By code in the table, code in the column to write.
    code_of: Vec<u32>,
}

impl<'a> Feed<'a> {
    fn new(
        source: &GatherSource<'a>,
        distributed: &'a mut Distributed,
        column: usize,
        kind: u32,
    ) -> Result<Self, Error> {
        match *source {
            GatherSource::Loose { loose, .. } => {
                let Distributed {
                    pairs,
                    ends,
                    code_of,
                } = distributed;
                let start = column.checked_sub(1).map_or(0, |before| ends[before]);
                Ok(Self::Loose {
                    loose,
                    pairs: pairs[start..ends[column]].iter(),
                    code_of,
                })
            }
            GatherSource::Table {
                table,
                layout,
                shapes,
                kind_of_column,
                kind_of_fixed,
            } => {
                let loaded = match kind_of_column.iter().position(|&of| of == kind) {
                    Some(number) => Some(LoadedSource::new(table, layout, number)?),
                    None => None,
                };
                let fixed: Vec<Option<u32>> = kind_of_fixed
                    .iter()
                    .map(|&of| (of == kind).then_some(u32::MAX))
                    .collect();
                let is_fixed = |&field: &u32| match layout.field(field) {
                    Field::Fixed(pair) => fixed[pair as usize].is_some(),
                    Field::Column(_) | Field::Rest => false,
                };
                let has_fixed = (0..layout.shapes.len())
                    .map(|shape| layout.shapes.fields(shape).iter().any(is_fixed))
                    .collect();
                let in_shape = match &loaded {
                    Some(loaded) => layout.occurrences_by_shape(loaded.number),
                    None => vec![0; layout.shapes.len() as usize],
                };
                Ok(Self::Table(Box::new(TableFeed {
                    table,
                    layout,
                    shapes,
                    column: loaded,
                    in_shape,
                    has_fixed,
                    fixed,
                    item: u32::MAX,
                    occurrence: 0,
                })))
            }
        }
    }

    /// Appends the values of some items.
    fn feed(&mut self, items: &FedItems<'_>, out: &mut Values) -> Result<(), Error> {
        match self {
            Self::Loose {
                loose,
                pairs,
                code_of,
            } => {
                for &pair in pairs.take(items.occurrences) {
                    out.push(loose.values.get(pair).1, &mut code_of[pair as usize])?;
                }
                Ok(())
            }
            Self::Table(feed) => feed.feed(items, out),
        }
    }
}

impl LoadedSource {
    fn new(table: &AttributeTable, layout: &Layout, number: usize) -> Result<Self, Error> {
        let entry = &layout.columns[number];
        let values = entry.open(&table.source)?.load(&NoClasses)?;
        let (len, code_of) = match &values {
            LoadedColumn::Codes { values, codes } => (codes.len(), vec![u32::MAX; values.len()]),
            LoadedColumn::Ints(values) => (values.len(), Vec::new()),
            LoadedColumn::Doubles(values) => (values.len(), Vec::new()),
        };
        let fits = matches!(
            (&values, entry.kind),
            (LoadedColumn::Ints(_), ValueType::Int)
                | (LoadedColumn::Doubles(_), ValueType::Double)
                | (
                    LoadedColumn::Codes { .. },
                    ValueType::Str | ValueType::Bool | ValueType::Other
                )
        );
        if !fits || len != entry.begins.occurrences() as usize {
            return Err(table.beyond_column());
        }
        Ok(Self {
            number,
            values,
            begins: entry.begins.read_all(&table.source)?,
            code_of,
        })
    }

    /// Appends an occurrence; `None` if there is none of this number.
    #[inline]
    fn push(&mut self, occurrence: usize, out: &mut Values) -> Option<Result<(), Error>> {
        match (&self.values, out) {
            (LoadedColumn::Codes { values, codes }, out @ Values::Codes { .. }) => {
                let code = *codes.get(occurrence)?;
                Some(out.push(values.get(code), &mut self.code_of[code as usize]))
            }
            (LoadedColumn::Ints(values), Values::Ints(out)) => {
                out.push(*values.get(occurrence)?);
                Some(Ok(()))
            }
            (LoadedColumn::Doubles(values), Values::Doubles(out)) => {
                out.push(*values.get(occurrence)?);
                Some(Ok(()))
            }
            _ => None,
        }
    }
}

impl TableFeed<'_> {
    /// Moves to an item: `occurrence` is the first of it or a later one then.
    fn seek(&mut self, item: u32) {
        let Some(column) = &self.column else {
            self.item = item;
            return;
        };
        let group = item / GROUP_ITEMS;
        if item < self.item || group != self.item / GROUP_ITEMS {
            self.item = group * GROUP_ITEMS;
            self.occurrence = column.begins[group as usize] as usize;
        }
        for &shape in &self.shapes[self.item as usize..item as usize] {
            self.occurrence += usize::from(self.in_shape[shape as usize]);
        }
        self.item = item;
    }

    fn feed(&mut self, items: &FedItems<'_>, out: &mut Values) -> Result<(), Error> {
        self.seek(items.first);
        for &shape_to in items.shapes {
            let shape = self.shapes[self.item as usize];
            self.item += 1;
            if items.in_shape[shape_to as usize] == 0 {
                // It has none, or has gone to the rest whole.
                self.occurrence += usize::from(self.in_shape[shape as usize]);
                continue;
            }
            if self.has_fixed[shape as usize] {
                self.feed_mixed(shape, out)?;
                continue;
            }
            for _ in 0..self.in_shape[shape as usize] {
                self.feed_occurrence(out)?;
            }
        }
        Ok(())
    }

    /// The next occurrence of the table's column.
    #[inline]
    fn feed_occurrence(&mut self, out: &mut Values) -> Result<(), Error> {
        let column = self.column.as_mut();
        let pushed = column.and_then(|column| column.push(self.occurrence, out));
        self.occurrence += 1;
        pushed.unwrap_or_else(|| Err(self.table.beyond_column()))
    }

    /// An item that has fixed pairs of the kind, and perhaps occurrences of its column as well.
    fn feed_mixed(&mut self, shape: u32, out: &mut Values) -> Result<(), Error> {
        let number = self.column.as_ref().map(|column| column.number);
        let layout = self.layout;
        for &field in layout.shapes.fields(shape) {
            match layout.field(field) {
                Field::Column(column) if Some(column) == number => self.feed_occurrence(out)?,
                Field::Fixed(pair) => {
                    if let Some(code) = &mut self.fixed[pair as usize] {
                        out.push(layout.fixed_values.get(pair), code)?;
                    }
                }
                Field::Column(_) | Field::Rest => {}
            }
        }
        Ok(())
    }
}
