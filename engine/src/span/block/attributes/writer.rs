//! Writes a table from loose attributes and other tables.
//!
//! 1. Count the occurrences of each key and type, and choose what is a column, what is fixed and what goes
//!    to the rest.
//! 2. Give each item its shape. The shapes of a table that is merged are translated once each; its items
//!    then cost an array access.
//! 3. Write the rest, then one column after the other (`gather.rs`), then shapes and codes.
//!
//! Memory: 4 bytes an item for shapes, the occurrences of columns of loose attributes at 4 bytes each, and
//! one column at a time.

#![expect(
    clippy::indexing_slicing,
    reason = "hot loops; shapes, kinds and values are numbered here, runs are checked first"
)]

use std::sync::Arc;

use hashbrown::{HashMap, HashSet};

use super::{
    AttributeCursor, AttributeSource, AttributeTable, GROUP_ITEMS, ItemContext, ItemRun, Limits,
    LooseAttributes, ValueType,
    codes::{GroupScratch, write_codes},
    gather::{Gather, GatherSource},
    layout::{DirectoryWriter, Field, Head, Layout, WrittenColumn},
    placed::write_bytes,
    rest::RestWriter,
    roles::{self, ClassSample, FIXED_ONE_IN, Kinds, Role},
    shapes::{ALL_REST, FIRST_COLUMN, REST, ShapeSet},
};
use crate::{
    block::BlockWriter,
    error::Error,
    span::block::column::{Sink, ValueTable},
};

/// Items between two calls of `ctl`.
const CHECK_ITEMS: usize = 16 << 10;
/// Items of a stretch of the sample, and stretches.
const SAMPLE_ITEMS: usize = 512;
const SAMPLE_STRETCHES: usize = 64;
/// Numbers of values of one kind that are compared to find how many are distinct.
const DISTINCT_LOOKED_AT_MAX: usize = 16 << 10;

/// Called now and then while a table is written: an error ends the writing.
pub(super) type Control<'c> = dyn FnMut() -> Result<(), Error> + 'c;

/// Writes the attributes of the items of `runs`, in that order, to the section that is open, and gives the
/// head that [`AttributeTable::open`] wants back: below 200 bytes. Nothing else is written to the section
/// meanwhile.
///
/// # Errors
/// [`Error::Storage`]; [`Error::CorruptBlock`] for damage in a table that is merged; what `ctl` returned.
pub(crate) fn write_attributes(
    writer: &mut BlockWriter,
    sources: &[AttributeSource<'_>],
    runs: &[ItemRun],
    context: &ItemContext<'_>,
    ctl: &mut dyn FnMut() -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    let sink = &mut |item: &[u8]| writer.write(item);
    write_table(sink, sources, runs, context, &Limits::STANDARD, ctl)
}

/// The same through a sink, which is given items of at most 64 KiB.
pub(super) fn write_table(
    sink: &mut Sink<'_>,
    sources: &[AttributeSource<'_>],
    runs: &[ItemRun],
    context: &ItemContext<'_>,
    limits: &Limits,
    ctl: &mut Control<'_>,
) -> Result<Vec<u8>, Error> {
    let items: usize = runs.iter().map(|run| run.items as usize).sum();
    assert!(
        context.class_of.len() == items && context.owner_of.len() == items,
        "what is known of items is known of each"
    );
    let items = u32::try_from(items).expect("a block has fewer than 2^32 items");
    let mut plan = Plan::new(sources, runs, limits, ctl)?;
    let shaped = plan.shape_items(runs, context, limits, ctl)?;
    let (rest, rest_pages) = plan.write_rest(runs, &shaped, sink, ctl)?;
    plan.write_columns(runs, context, shaped, items, (rest, rest_pages), sink, ctl)
}

/// A source with what was found out about it.
enum Prepared<'a> {
    Loose {
        loose: &'a LooseAttributes,
        /// Kinds of pairs by number.
        kind_of: Vec<u32>,
        /// For pairs of kinds with few values, the first pair that is equal.
        same_as: Vec<u32>,
        /// Fields of pairs by number.
        field_of: Vec<u32>,
    },
    Table {
        table: &'a AttributeTable,
        layout: &'a Layout,
        /// The shape of each item, as the table numbers them.
        shapes: Vec<u32>,
        kind_of_column: Vec<u32>,
        kind_of_fixed: Vec<u32>,
        /// Fields in the table to write of the table's fields.
        field_of: Vec<u32>,
        /// Shapes in the table to write of the table's shapes; `u32::MAX` if not known yet.
        shape_of: Vec<u32>,
    },
}

/// The items' shapes, and what fields stand for.
struct Shaped {
    shapes: ShapeSet,
    shape_of: Vec<u32>,
    /// Kinds of columns.
    columns: Vec<u32>,
    fixed: FixedPairs,
}

/// Pairs that are fixed, by number.
#[derive(Default)]
struct FixedPairs {
    numbers: HashMap<(u32, Vec<u8>), u32>,
    kinds: Vec<u32>,
    values: ValueTable,
}

impl FixedPairs {
    fn intern(&mut self, kind: u32, value: &[u8]) -> u32 {
        let next = u32::try_from(self.kinds.len()).unwrap_or(u32::MAX);
        let number = *self.numbers.entry((kind, value.to_vec())).or_insert(next);
        if number == next {
            self.kinds.push(kind);
            let pushed = self.values.push(value);
            pushed.expect("fixed values are few, and each is of a span");
        }
        number
    }
}

struct Plan<'a> {
    sources: Vec<Prepared<'a>>,
    kinds: Kinds,
}

impl<'a> Plan<'a> {
    /// Counts what there is.
    fn new(
        sources: &[AttributeSource<'a>],
        runs: &[ItemRun],
        limits: &Limits,
        ctl: &mut Control<'_>,
    ) -> Result<Self, Error> {
        let mut kinds = Kinds::default();
        let mut prepared = Vec::new();
        for (number, source) in (0..).zip(sources) {
            let runs = runs.iter().filter(|run| run.source == number);
            let of_source = match *source {
                AttributeSource::Loose(loose) => {
                    prepare_loose(loose, runs, &mut kinds, limits, ctl)
                }
                AttributeSource::Table(table) => prepare_table(table, runs, &mut kinds, ctl),
            };
            prepared.push(of_source?);
        }
        Ok(Self {
            sources: prepared,
            kinds,
        })
    }

    /// Chooses roles and gives each item its shape.
    fn shape_items(
        &mut self,
        runs: &[ItemRun],
        context: &ItemContext<'_>,
        limits: &Limits,
        ctl: &mut Control<'_>,
    ) -> Result<Shaped, Error> {
        let has_table = |source: &Prepared<'_>| matches!(source, Prepared::Table { .. });
        let mut fixed = if self.sources.iter().any(has_table) {
            roles::fixed_by_tables(&self.kinds)
        } else {
            self.fixed_by_sample(runs, context, limits)
        };
        while fixed.contains(&true) {
            if let Some(shaped) = self.shape_with(runs, &fixed, true, limits, ctl)? {
                return Ok(shaped);
            }
            roles::fix_fewer(&self.kinds, &mut fixed);
        }
        let shaped = self.shape_with(runs, &fixed, false, limits, ctl)?;
        Ok(shaped.expect("what does not fit goes to the rest"))
    }

    /// What is fixed as far as a sample says, so that it has not too many shapes.
    fn fixed_by_sample(
        &self,
        runs: &[ItemRun],
        context: &ItemContext<'_>,
        limits: &Limits,
    ) -> Vec<bool> {
        let stretches = sample_stretches(runs);
        let mut sample = ClassSample::new(self.kinds.len());
        self.each_sampled(runs, &stretches, |item, tags, kind_of, same_as| {
            for &tag in tags {
                let (kind, value) = (kind_of[tag as usize], same_as[tag as usize]);
                sample.note(context.class_of[item], kind, value);
            }
        });
        let mut fixed = Vec::new();
        for one_in in FIXED_ONE_IN {
            fixed = roles::fixed_by_sample(&self.kinds, &sample, one_in, limits);
            if self.sampled_shapes(runs, &stretches, &fixed) <= limits.sampled_shapes_max {
                break;
            }
        }
        fixed
    }

    /// Calls `visit` with the final number and the pairs of each item of the sample, and the kinds and equals
    /// of pairs.
    fn each_sampled(
        &self,
        runs: &[ItemRun],
        stretches: &[(usize, usize)],
        mut visit: impl FnMut(usize, &[u32], &[u32], &[u32]),
    ) {
        let mut run_start = 0;
        let mut runs = runs.iter();
        let mut run = runs.next();
        for &(from, to) in stretches {
            let mut item = from;
            while item < to
                && let Some(current) = run
            {
                let run_end = run_start + current.items as usize;
                if item >= run_end {
                    run_start = run_end;
                    run = runs.next();
                    continue;
                }
                if let Prepared::Loose {
                    loose,
                    kind_of,
                    same_as,
                    ..
                } = &self.sources[current.source as usize]
                {
                    let before = u32::try_from(item - run_start).unwrap_or(u32::MAX);
                    let tags = loose.tags_of(current.first + before);
                    visit(item, tags, kind_of, same_as);
                }
                item += 1;
            }
        }
    }

    /// How many shapes the sample has if these kinds are fixed.
    fn sampled_shapes(
        &self,
        runs: &[ItemRun],
        stretches: &[(usize, usize)],
        fixed: &[bool],
    ) -> usize {
        let mut shapes: HashSet<Vec<u32>> = HashSet::new();
        let mut fields = Vec::new();
        self.each_sampled(runs, stretches, |_, tags, kind_of, same_as| {
            fields.clear();
            for &tag in tags {
                let kind = kind_of[tag as usize];
                fields.push(kind);
                if fixed[kind as usize] {
                    fields.push(same_as[tag as usize]);
                }
            }
            if !shapes.contains(&fields) {
                shapes.insert(fields.clone());
            }
        });
        shapes.len()
    }

    /// Gives each item its shape with these kinds fixed. If `strict`, `None` if there are too many shapes.
    fn shape_with(
        &mut self,
        runs: &[ItemRun],
        fixed: &[bool],
        strict: bool,
        limits: &Limits,
        ctl: &mut Control<'_>,
    ) -> Result<Option<Shaped>, Error> {
        let (roles, columns) = roles::choose(&self.kinds, fixed, limits);
        let mut pairs = FixedPairs::default();
        let first_fixed = FIRST_COLUMN + u32::try_from(columns.len()).unwrap_or(u32::MAX);
        let mut field = |kind: u32, value: Option<&[u8]>| match (roles[kind as usize], value) {
            (Role::Column(column), _) => FIRST_COLUMN + column,
            (Role::Fixed, Some(value)) => first_fixed + pairs.intern(kind, value),
            (Role::Fixed | Role::Rest, _) => REST,
        };
        for source in &mut self.sources {
            match source {
                Prepared::Loose {
                    loose,
                    kind_of,
                    field_of,
                    ..
                } => {
                    field_of.clear();
                    field_of.extend((0..).zip(&*kind_of).map(|(pair, &kind)| {
                        if kind == u32::MAX {
                            return REST;
                        }
                        field(kind, Some(loose.values.get(pair).1))
                    }));
                }
                Prepared::Table {
                    layout,
                    kind_of_column,
                    kind_of_fixed,
                    field_of,
                    shape_of,
                    ..
                } => {
                    field_of.clear();
                    field_of.extend([REST, ALL_REST]);
                    field_of.extend(kind_of_column.iter().map(|&kind| field(kind, None)));
                    field_of.extend(
                        (0..)
                            .zip(&*kind_of_fixed)
                            .map(|(pair, &kind)| field(kind, Some(layout.fixed_values.get(pair)))),
                    );
                    shape_of.clear();
                    shape_of.resize(layout.shapes.len() as usize, u32::MAX);
                }
            }
        }
        let mut shapes = ShapeSet::default();
        let mut shape_of = Vec::new();
        let mut fields = Vec::new();
        let mut until_check = CHECK_ITEMS;
        let intern = |shapes: &mut ShapeSet, fields: &[u32]| {
            let shape = if fields == [ALL_REST] {
                Some(shapes.intern_all_rest())
            } else {
                shapes.intern(fields, limits)
            };
            match shape {
                None if !strict => Some(shapes.intern_all_rest()),
                // One item's many fields are no reason to fix less.
                None if fields.len() > limits.shape_fields_max => Some(shapes.intern_all_rest()),
                shape => shape,
            }
        };
        for run in runs {
            for item in run.first..run.first + run.items {
                let shape = match &mut self.sources[run.source as usize] {
                    Prepared::Loose {
                        loose, field_of, ..
                    } => {
                        fields.clear();
                        let tags = loose.tags_of(item).iter();
                        fields.extend(tags.map(|&tag| field_of[tag as usize]));
                        intern(&mut shapes, &fields)
                    }
                    Prepared::Table {
                        layout,
                        shapes: old,
                        field_of,
                        shape_of,
                        ..
                    } => {
                        let old = old[item as usize];
                        match shape_of[old as usize] {
                            u32::MAX => {
                                fields.clear();
                                let old_fields = layout.shapes.fields(old).iter();
                                fields.extend(old_fields.map(|&field| field_of[field as usize]));
                                let shape = intern(&mut shapes, &fields);
                                shape_of[old as usize] = shape.unwrap_or(u32::MAX);
                                shape
                            }
                            shape => Some(shape),
                        }
                    }
                };
                let Some(shape) = shape else {
                    return Ok(None);
                };
                shapes.count(shape, 1);
                shape_of.push(shape);
                until_check -= 1;
                if until_check == 0 {
                    ctl()?;
                    until_check = CHECK_ITEMS;
                }
            }
        }
        Ok(Some(Shaped {
            shapes,
            shape_of,
            columns,
            fixed: pairs,
        }))
    }

    /// Writes what is in no column and not fixed.
    fn write_rest(
        &self,
        runs: &[ItemRun],
        shaped: &Shaped,
        sink: &mut Sink<'_>,
        ctl: &mut Control<'_>,
    ) -> Result<(super::placed::Place, u64), Error> {
        let has_rest: Vec<bool> = (0..shaped.shapes.len())
            .map(|shape| {
                let fields = shaped.shapes.fields(shape);
                fields.contains(&REST) || fields.contains(&ALL_REST)
            })
            .collect();
        let mut rest = RestWriter::default();
        let mut cursors: HashMap<u32, AttributeCursor> = HashMap::new();
        let mut item_to = 0_u32;
        for run in runs {
            for item in run.first..run.first + run.items {
                let shape = shaped.shape_of[item_to as usize];
                if has_rest[shape as usize] {
                    let fields = shaped.shapes.fields(shape);
                    let goes = |field: usize| fields == [ALL_REST] || fields[field] == REST;
                    match &self.sources[run.source as usize] {
                        Prepared::Loose { loose, .. } => {
                            for (field, &tag) in loose.tags_of(item).iter().enumerate() {
                                if goes(field) {
                                    let (key, value) = loose.values.get(tag);
                                    let key = loose.keys.get(key as usize).map_or("", |key| key);
                                    rest.push(item_to, key, value, sink)?;
                                }
                            }
                        }
                        Prepared::Table { table, .. } => {
                            let cursor = cursors.entry(run.source).or_default();
                            let mut field = 0;
                            table.visit_item(item, None, cursor, &mut |_, key, value, _| {
                                if goes(field) {
                                    rest.push(item_to, key, value, sink)?;
                                }
                                field += 1;
                                Ok(())
                            })?;
                        }
                    }
                }
                item_to += 1;
                if (item_to as usize).is_multiple_of(CHECK_ITEMS) {
                    ctl()?;
                }
            }
        }
        rest.finish(sink)
    }

    /// Writes columns, shapes and codes; gives the head.
    #[expect(clippy::too_many_arguments, reason = "all that a table is made of")]
    fn write_columns(
        &self,
        runs: &[ItemRun],
        context: &ItemContext<'_>,
        mut shaped: Shaped,
        items: u32,
        (rest, rest_pages): (super::placed::Place, u64),
        sink: &mut Sink<'_>,
        ctl: &mut Control<'_>,
    ) -> Result<Vec<u8>, Error> {
        let mut keys = UsedKeys::default();
        let mut columns: Vec<WrittenColumn> = Vec::new();
        // Columns without an occurrence, of items that went to the rest whole, are left out.
        let mut column_numbers = vec![u32::MAX; shaped.columns.len()];
        let sources = self.gather_sources();
        let mut gather = Gather::new(sources, runs, &shaped.shapes, &shaped.shape_of, context);
        gather.distribute(shaped.columns.len(), ctl)?;
        for (column, &kind) in (0..).zip(&shaped.columns) {
            ctl()?;
            let Some(of_kind) = self.kinds.get(kind) else {
                continue;
            };
            let Some((begins, head)) = gather.write_column(column, kind, of_kind.kind, sink)?
            else {
                continue;
            };
            column_numbers[column as usize] = u32::try_from(columns.len()).unwrap_or(u32::MAX);
            columns.push(WrittenColumn {
                key: keys.number_of(&of_kind.key),
                kind: of_kind.kind,
                begins,
                head,
            });
        }
        drop(gather);

        // Shapes by falling number of items, then only the fixed pairs that one of them has.
        let shapes = &shaped.shapes;
        let mut order: Vec<u32> = (0..shapes.len()).collect();
        order.retain(|&shape| shapes.items(shape) > 0);
        order.sort_by_key(|&shape| std::cmp::Reverse(shapes.items(shape)));
        let mut number_of = vec![0; shapes.len() as usize];
        for (number, &shape) in (0..).zip(&order) {
            number_of[shape as usize] = number;
        }
        let first_fixed = FIRST_COLUMN + u32::try_from(shaped.columns.len()).unwrap_or(u32::MAX);
        let new_first_fixed = FIRST_COLUMN + u32::try_from(columns.len()).unwrap_or(u32::MAX);
        let mut fixed_numbers = vec![u32::MAX; shaped.fixed.kinds.len()];
        let mut fixed: Vec<(u32, u32)> = Vec::new();
        for &shape in &order {
            for &field in shapes.fields(shape) {
                if let Some(pair) = field.checked_sub(first_fixed)
                    && fixed_numbers[pair as usize] == u32::MAX
                {
                    fixed_numbers[pair as usize] = u32::try_from(fixed.len()).unwrap_or(u32::MAX);
                    let kind = self.kinds.get(shaped.fixed.kinds[pair as usize]);
                    let key = kind.map_or(0, |kind| keys.number_of(&kind.key));
                    fixed.push((key, pair));
                }
            }
        }
        shaped.shapes.renumber(|field| {
            if let Some(pair) = field.checked_sub(first_fixed) {
                // Of shapes without items, which are not written, it may have no number.
                new_first_fixed.saturating_add(fixed_numbers[pair as usize])
            } else if let Some(column) = field.checked_sub(FIRST_COLUMN) {
                FIRST_COLUMN.saturating_add(column_numbers[column as usize])
            } else {
                field
            }
        });
        for shape in &mut shaped.shape_of {
            *shape = number_of[*shape as usize];
        }
        let shape_count = u32::try_from(order.len()).unwrap_or(u32::MAX);
        let codes = write_codes(&shaped.shape_of, context.class_of, shape_count, sink)?;

        let mut directory = DirectoryWriter::default();
        directory.keys(keys.keys.iter().map(|key| &**key));
        directory.columns(&columns);
        let pairs = fixed.iter();
        directory.fixed(pairs.map(|&(key, pair)| (key, shaped.fixed.values.get(pair))));
        let shapes = &shaped.shapes;
        let in_order = order.iter();
        directory.shapes(in_order.map(|&shape| (shapes.items(shape), shapes.fields(shape))));
        let head = Head {
            items,
            directory: write_bytes(sink, &directory.finish())?,
            codes,
            rest,
            rest_pages,
        };
        Ok(head.encode())
    }

    fn gather_sources(&self) -> Vec<GatherSource<'_>> {
        let of = |source| match source {
            &Prepared::Loose {
                loose,
                ref field_of,
                ..
            } => GatherSource::Loose { loose, field_of },
            &Prepared::Table {
                table,
                layout,
                ref shapes,
                ref kind_of_column,
                ref kind_of_fixed,
                ..
            } => GatherSource::Table {
                table,
                layout,
                shapes,
                kind_of_column,
                kind_of_fixed,
            },
        };
        self.sources.iter().map(of).collect()
    }
}

/// Keys of columns and fixed pairs, by number.
#[derive(Default)]
struct UsedKeys {
    keys: Vec<Arc<str>>,
    numbers: HashMap<Arc<str>, u32>,
}

impl UsedKeys {
    fn number_of(&mut self, key: &Arc<str>) -> u32 {
        if let Some(&number) = self.numbers.get(key) {
            return number;
        }
        let number = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        self.keys.push(Arc::clone(key));
        self.numbers.insert(Arc::clone(key), number);
        number
    }
}

/// Final numbers of the items that are looked at: stretches at even distances.
fn sample_stretches(runs: &[ItemRun]) -> Vec<(usize, usize)> {
    let items: usize = runs.iter().map(|run| run.items as usize).sum();
    if items <= SAMPLE_ITEMS * SAMPLE_STRETCHES {
        return vec![(0, items)];
    }
    let distance = items / SAMPLE_STRETCHES;
    (0..SAMPLE_STRETCHES)
        .map(|stretch| stretch * distance)
        .map(|start| (start, start + SAMPLE_ITEMS))
        .collect()
}

fn prepare_loose<'a, 'r>(
    loose: &'a LooseAttributes,
    runs: impl Iterator<Item = &'r ItemRun>,
    kinds: &mut Kinds,
    limits: &Limits,
    ctl: &mut Control<'_>,
) -> Result<Prepared<'a>, Error> {
    // How often each pair occurs; pairs that do not have no kind.
    let mut used = vec![0_u32; loose.values.len() as usize];
    for run in runs {
        assert!(
            run.first <= loose.items() && run.items <= loose.items() - run.first,
            "a run is of items that there are"
        );
        for item in run.first..run.first + run.items {
            for &tag in loose.tags_of(item) {
                used[tag as usize] = used[tag as usize].saturating_add(1);
            }
        }
        ctl()?;
    }
    let none = [u32::MAX; ValueType::ALL.len()];
    let mut by_key = vec![none; loose.keys.len()];
    let mut kind_of = Vec::with_capacity(used.len());
    // Numbers of pairs by kind, as long as they are few.
    let mut pairs_of: Vec<Vec<u32>> = Vec::new();
    for (pair, &occurrences) in (0..).zip(&used) {
        if occurrences == 0 {
            kind_of.push(u32::MAX);
            continue;
        }
        let (key, value) = loose.values.get(pair);
        let value_type = ValueType::of(value);
        let number = &mut by_key[key as usize][value_type as usize];
        if *number == u32::MAX {
            *number = kinds.intern(&loose.keys[key as usize], value_type);
        }
        let number = *number;
        kind_of.push(number);
        if let Some(kind) = kinds.get_mut(number) {
            kind.occurrences += u64::from(occurrences);
        }
        if pairs_of.len() <= number as usize {
            pairs_of.resize_with(number as usize + 1, Vec::new);
        }
        let pairs = &mut pairs_of[number as usize];
        if pairs.len() <= DISTINCT_LOOKED_AT_MAX {
            pairs.push(pair);
        }
    }
    let mut same_as: Vec<u32> = (0..loose.values.len()).collect();
    for (number, pairs) in (0..).zip(pairs_of) {
        let Some(kind) = kinds.get_mut(number) else {
            continue;
        };
        if pairs.len() <= DISTINCT_LOOKED_AT_MAX {
            let mut distinct: HashMap<&[u8], u32> = HashMap::new();
            for &pair in &pairs {
                let first = *distinct.entry(loose.values.get(pair).1).or_insert(pair);
                same_as[pair as usize] = first;
                if distinct.len() > limits.fixed_values_max {
                    break;
                }
            }
            kind.distinct = distinct.len();
        }
    }
    Ok(Prepared::Loose {
        loose,
        kind_of,
        same_as,
        field_of: Vec::new(),
    })
}

fn prepare_table<'a, 'r>(
    table: &'a AttributeTable,
    runs: impl Iterator<Item = &'r ItemRun>,
    kinds: &mut Kinds,
    ctl: &mut Control<'_>,
) -> Result<Prepared<'a>, Error> {
    let layout = table.layout()?;
    let mut shapes = Vec::with_capacity(table.items() as usize);
    let mut scratch = GroupScratch::default();
    let mut of_group = Vec::new();
    for group in 0..table.items().div_ceil(GROUP_ITEMS) {
        table.group_shapes(layout, group, &mut scratch, &mut of_group)?;
        shapes.extend_from_slice(&of_group);
        if group.is_multiple_of(64) {
            ctl()?;
        }
    }
    let mut items_of_shape = vec![0_u64; layout.shapes.len() as usize];
    for run in runs {
        assert!(
            run.first <= table.items() && run.items <= table.items() - run.first,
            "a run is of items that there are"
        );
        for &shape in &shapes[run.first as usize..(run.first + run.items) as usize] {
            items_of_shape[shape as usize] += 1;
        }
    }
    let key = |number: u32| Arc::clone(&layout.keys[number as usize]);
    let kind_of_column: Vec<u32> = (layout.columns.iter())
        .map(|column| kinds.intern(&key(column.key), column.kind))
        .collect();
    let kind_of_fixed: Vec<u32> = (0..)
        .zip(&layout.fixed_keys)
        .map(|(pair, &number)| {
            kinds.intern(&key(number), ValueType::of(layout.fixed_values.get(pair)))
        })
        .collect();
    for &number in &kind_of_fixed {
        if let Some(kind) = kinds.get_mut(number) {
            kind.distinct = match kind.distinct {
                usize::MAX => 1,
                distinct => distinct + 1,
            };
        }
    }
    for (shape, &items) in (0..).zip(&items_of_shape) {
        if items == 0 {
            continue;
        }
        for &field in layout.shapes.fields(shape) {
            let (number, is_column) = match layout.field(field) {
                Field::Column(column) => (kind_of_column[column], true),
                Field::Fixed(pair) => (kind_of_fixed[pair as usize], false),
                Field::Rest => continue,
            };
            if let Some(kind) = kinds.get_mut(number) {
                kind.occurrences += items;
                kind.was_column |= is_column;
                kind.was_fixed |= !is_column;
            }
        }
    }
    Ok(Prepared::Table {
        table,
        layout,
        shapes,
        kind_of_column,
        kind_of_fixed,
        field_of: Vec::new(),
        shape_of: Vec::new(),
    })
}
