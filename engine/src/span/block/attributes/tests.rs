//! The promises of an attribute table: attributes come back as they were sent, searches and counts are those
//! of a naive look at every item, a merge is what its parts say together, and a damaged byte costs its page.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use proptest::prelude::*;
use roaring::RoaringBitmap;
use rootline_index::MatchOp;
use rootline_wal::{Lsn, PowerCutStorage, Storage, StoreId, SystemClock};

use super::{writer::write_table, *};
use crate::{
    block::{Block, BlockId, BlockMeta, BlockWriter, SectionKind, Signal},
    control::{QueryControl, QueryLimits},
    span::{StringMatch, block::column::ColumnSource, model::Attributes},
    time::TimeRange,
    value::{Value, strategies},
};

/// Limits that a few items pass.
const TIGHT: Limits = Limits {
    columns_max: 3,
    column_occurrences_min: 2,
    shapes_max: 6,
    shape_fields_max: 4,
    fields_max: 30,
    fixed_values_max: 3,
    sampled_shapes_max: 8,
};

#[derive(Debug)]
struct Given(Vec<u32>);

impl ItemClasses for Given {
    fn class_group(&self, group: u32, out: &mut Vec<u32>) -> Result<(), Error> {
        out.clear();
        let of_group = self.0.chunks(GROUP_ITEMS as usize).nth(group as usize);
        out.extend_from_slice(of_group.unwrap_or_default());
        Ok(())
    }
}

/// Items with their classes.
type Items = Vec<(u32, Attributes)>;

fn control() -> QueryControl {
    QueryControl::new(Arc::new(SystemClock::new()), None, QueryLimits::default())
}

fn loose(items: &Items) -> LooseAttributes {
    let mut out = LooseAttributes::default();
    let mut numbers: BTreeMap<Arc<str>, u32> = BTreeMap::new();
    for (_, attributes) in items {
        out.push_attributes(attributes, &mut |key, keys| {
            *numbers.entry(Arc::clone(key)).or_insert_with(|| {
                keys.push(Arc::clone(key));
                keys.len() as u32 - 1
            })
        })
        .unwrap();
    }
    out
}

/// Writes a table of runs; `items` are what they are of, in final order.
fn write(
    sources: &[AttributeSource<'_>],
    runs: &[ItemRun],
    items: &Items,
    limits: &Limits,
) -> AttributeTable {
    let class_of: Vec<u32> = items.iter().map(|(class, _)| *class).collect();
    let owner_of: Vec<u32> = (0..items.len() as u32).map(|item| item / 3).collect();
    let context = ItemContext {
        class_of: &class_of,
        owner_of: &owner_of,
    };
    let mut section = vec![0xee; 5];
    let sink = &mut |item: &[u8]| {
        assert!(item.len() <= 64 << 10, "an item lies on a page");
        let at = section.len() as u64;
        section.extend_from_slice(item);
        Ok(at)
    };
    let head = write_table(sink, sources, runs, &context, limits, &mut || Ok(())).unwrap();
    assert!(head.len() < 200);
    let source = ColumnSource::Bytes(Arc::from(section));
    AttributeTable::from_source(source, &head, Arc::new(Given(class_of))).unwrap()
}

fn table(items: &Items, limits: &Limits) -> AttributeTable {
    let loose = loose(items);
    let run = ItemRun {
        source: 0,
        first: 0,
        items: items.len() as u32,
    };
    write(&[AttributeSource::Loose(&loose)], &[run], items, limits)
}

fn assert_holds(table: &AttributeTable, items: &Items) {
    assert_eq!(table.items() as usize, items.len());
    let mut cursor = AttributeCursor::default();
    let read = |item: usize, cursor: &mut AttributeCursor| {
        let mut out = Attributes::new();
        table.attributes(item as u32, cursor, &mut out).unwrap();
        out
    };
    for (item, (_, attributes)) in items.iter().enumerate() {
        assert_eq!(read(item, &mut cursor), *attributes, "item {item}");
    }
    // Not in order, and an item twice.
    for item in [items.len() / 2, 0, items.len() / 3, items.len() / 3] {
        if let Some((_, attributes)) = items.get(item) {
            assert_eq!(read(item, &mut cursor), *attributes, "item {item}");
        }
    }
    assert!(read(items.len(), &mut cursor).is_empty());
}

fn naive(items: &Items, matches: impl Fn(&str, &Value) -> bool) -> RoaringBitmap {
    let has = |attributes: &Attributes| attributes.iter().any(|(k, v)| matches(k, v));
    let found = items.iter().enumerate().filter(|(_, (_, a))| has(a));
    found.map(|(item, _)| item as u32).collect()
}

/// Every answer about a key is that of a naive look at every item.
fn assert_answers(table: &AttributeTable, items: &Items, key: &str, candidates: &RoaringBitmap) {
    let ctl = control();
    let shown: BTreeSet<String> = (items.iter().flat_map(|(_, attributes)| attributes))
        .filter(|(k, _)| **k == *key)
        .map(|(_, v)| v.to_string())
        .collect();
    let having = naive(items, |k, _| k == key);
    assert_eq!(table.having(key, None, &ctl).unwrap(), having, "{key}");
    let among = table.having(key, Some(candidates), &ctl).unwrap();
    assert_eq!(among, &having & candidates, "{key}");
    let wanted = shown.iter().take(2).map(String::as_str);
    for text in wanted.chain(["", "500", "[1]", "NaN"]) {
        let conditions = [
            (MatchOp::Equal, text.to_owned()),
            (MatchOp::NotEqual, text.to_owned()),
            (MatchOp::Regex, ".*[0-4a-m].*".to_owned()),
            (MatchOp::NotRegex, "[0-9]+".to_owned()),
        ];
        for (op, operand) in conditions {
            let condition = StringMatch::new(op, &operand).unwrap();
            let expected = naive(items, |k, v| k == key && condition.matches(&v.to_string()));
            let test = |text: &str| condition.matches(text);
            let only = condition.only_text();
            let found = table.select(key, &test, only, None, &ctl).unwrap();
            assert_eq!(found, expected, "{key} {condition}");
            let found = table.select(key, &test, only, Some(candidates), &ctl);
            assert_eq!(found.unwrap(), &expected & candidates, "{key} {condition}");
        }
    }
    let values = table.values_of(candidates, key, &ctl).unwrap();
    assert_eq!(values.codes.len() as u64, candidates.len());
    for (item, code) in candidates.iter().zip(values.codes) {
        let attributes = items.get(item as usize).map(|(_, attributes)| attributes);
        let mut of_key = attributes
            .into_iter()
            .flatten()
            .filter(|(k, _)| **k == *key);
        let first = of_key.next().map(|(_, value)| value);
        assert_eq!(values.values.get(code as usize), first, "{key} of {item}");
    }
    // Hidden are those that were candidates.
    let mut expected: BTreeMap<Vec<u8>, u64> = BTreeMap::new();
    for (item, (_, attributes)) in items.iter().enumerate() {
        let of_key = attributes.iter().filter(|(k, _)| **k == *key);
        let distinct: BTreeSet<Vec<u8>> = of_key.map(|(_, value)| encoded(value)).collect();
        for value in distinct {
            if !candidates.contains(item as u32) {
                *expected.entry(value).or_default() += 1;
            }
        }
    }
    let mut counted = BTreeMap::new();
    table
        .value_counts(key, candidates, &ctl, &mut |value, count| {
            assert!(counted.insert(value.to_vec(), count).is_none());
            Ok(())
        })
        .unwrap();
    assert_eq!(counted, expected, "{key}");
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.as_ref().encode(&mut out).unwrap();
    out
}

fn assert_keys(table: &AttributeTable, items: &Items) {
    let mut expected: BTreeMap<(Arc<str>, ValueType), u64> = BTreeMap::new();
    for (_, attributes) in items {
        let kinds: BTreeSet<(Arc<str>, ValueType)> = (attributes.iter())
            .map(|(key, value)| (Arc::clone(key), ValueType::of(&encoded(value))))
            .collect();
        for kind in kinds {
            *expected.entry(kind).or_default() += 1;
        }
    }
    let keys = table.keys(&control()).unwrap();
    let found: BTreeMap<_, _> = (keys.into_iter())
        .map(|key| ((key.key, key.kind), key.items))
        .collect();
    assert_eq!(found, expected);
}

/// Splits items over sources of both kinds and merges them again; some are left out.
fn merged(items: &Items, sources: usize, seed: u64, limits: &Limits) -> (AttributeTable, Items) {
    let mut state = seed | 1;
    let mut random = |below: usize| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 33) as usize % below
    };
    let mut parts: Vec<Items> = vec![Items::new(); sources];
    let mut runs: Vec<ItemRun> = Vec::new();
    let mut kept = Items::new();
    let mut at = 0;
    while at < items.len() {
        let of_run = items.len().min(at + 1 + random(1 + items.len() / 4)) - at;
        let source = random(sources);
        let part = &mut parts[source];
        let first = part.len() as u32;
        part.extend_from_slice(&items[at..at + of_run]);
        if random(4) > 0 {
            kept.extend_from_slice(&items[at..at + of_run]);
            runs.push(ItemRun {
                source: source as u32,
                first,
                items: of_run as u32,
            });
        }
        at += of_run;
    }
    let loose: Vec<LooseAttributes> = parts.iter().map(loose).collect();
    let tables: Vec<AttributeTable> = parts.iter().map(|part| table(part, limits)).collect();
    let sources: Vec<AttributeSource<'_>> = (loose.iter().zip(&tables).enumerate())
        .map(|(number, (loose, table))| match number % 3 {
            2 => AttributeSource::Loose(loose),
            _ => AttributeSource::Table(table),
        })
        .collect();
    (write(&sources, &runs, &kept, limits), kept)
}

fn attributes() -> impl Strategy<Value = Attributes> {
    let key = prop_oneof![4 => "[a-d]", 1 => "[a-z]{0,3}"];
    let value = prop_oneof![
        2 => strategies::value(),
        2 => prop_oneof![Just(200), Just(500), 0..9i64].prop_map(Value::Int),
        2 => "[a-c]{1,2}".prop_map(Value::Str),
        1 => Just(Value::Str("500".into())),
        1 => any::<bool>().prop_map(Value::Bool),
    ];
    let pair = (key, value).prop_map(|(key, value)| (Arc::from(key.as_str()), value));
    prop::collection::vec(pair, 0..7)
}

/// Items, of which many are alike.
fn items() -> impl Strategy<Value = Items> {
    let pool = prop::collection::vec((0..4u32, attributes()), 1..12);
    let lengths = prop_oneof![4 => 0..40usize, 1 => 1000..1060usize];
    (pool, lengths, any::<u64>()).prop_map(|(pool, length, seed)| {
        let mut state = seed | 1;
        (0..length)
            .map(|item| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                let (class, mut attributes) = pool[(state >> 33) as usize % pool.len()].clone();
                if state >> 60 == 0 {
                    attributes.push((Arc::from("own"), Value::Int(item as i64)));
                }
                (class, attributes)
            })
            .collect()
    })
}

fn limits() -> impl Strategy<Value = Limits> {
    prop_oneof![Just(Limits::STANDARD), Just(TIGHT)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn attributes_come_back_in_order_with_repeats(items in items(), limits in limits()) {
        let table = table(&items, &limits);
        assert_holds(&table, &items);
        assert_keys(&table, &items);
    }

    #[test]
    fn answers_are_those_of_a_naive_look(
        items in items(),
        limits in limits(),
        candidates in prop::collection::btree_set(0..1100u32, 0..30),
    ) {
        let table = table(&items, &limits);
        let candidates = candidates.into_iter().collect();
        for key in ["a", "own", "nobody's"] {
            assert_answers(&table, &items, key, &candidates);
        }
        let most = (0..items.len() as u32).filter(|item| item % 5 != 0).collect();
        assert_answers(&table, &items, "a", &most);
    }

    #[test]
    fn a_merge_is_what_its_parts_say_together(
        items in items(),
        sources in 1..5usize,
        limits in limits(),
        seed: u64,
    ) {
        let (table, kept) = merged(&items, sources, seed, &limits);
        assert_holds(&table, &kept);
        assert_keys(&table, &kept);
        for key in ["a", "own"] {
            assert_answers(&table, &kept, key, &(0..9).collect());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn damaged_tables_are_refused_or_other_attributes(
        items in items(),
        limits in limits(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 1..=255u8), 1..4),
        cut: prop::sample::Index,
    ) {
        let items: Items = items.into_iter().take(60).collect();
        let (mut section, head, _) = written(&items, &limits);
        for (at, flip) in &flips {
            if !section.is_empty() {
                let at = at.index(section.len());
                section[at] ^= flip;
            }
        }
        exercise(&section, &head);
        let mut other_head = head.clone();
        for (at, flip) in &flips {
            let at = at.index(other_head.len());
            other_head[at] ^= flip;
        }
        exercise(&section, &other_head);
        section.truncate(cut.index(section.len() + 1));
        exercise(&section, &head);
    }
}

/// Asks everything of bytes that may be no table.
fn exercise(section: &[u8], head: &[u8]) {
    let mut bytes = vec![head.len() as u8];
    bytes.extend_from_slice(head);
    bytes.extend_from_slice(section);
    let _ = check_attribute_table(&bytes);
}

fn written(items: &Items, limits: &Limits) -> (Vec<u8>, Vec<u8>, Vec<u32>) {
    let loose = loose(items);
    let class_of: Vec<u32> = items.iter().map(|(class, _)| *class).collect();
    let owner_of: Vec<u32> = vec![0; items.len()];
    let context = ItemContext {
        class_of: &class_of,
        owner_of: &owner_of,
    };
    let run = ItemRun {
        source: 0,
        first: 0,
        items: items.len() as u32,
    };
    let mut section = Vec::new();
    let sink = &mut |item: &[u8]| {
        let at = section.len() as u64;
        section.extend_from_slice(item);
        Ok(at)
    };
    let sources = [AttributeSource::Loose(&loose)];
    let head = write_table(sink, &sources, &[run], &context, limits, &mut || Ok(())).unwrap();
    (section, head, class_of)
}

/// A span with ten thousand keys, many spans with keys of their own, and some of the usual kind.
fn wild(spans: usize) -> Items {
    let int = |key: String, value: usize| (Arc::from(key), Value::Int(value as i64));
    let mut items: Items = (0..spans)
        .map(|n| {
            let mut attributes: Attributes = (0..3)
                .map(|k| int(format!("own.{}", (n * 3 + k) * 7_919 % 1_000_003), n))
                .collect();
            attributes.push((Arc::from("method"), Value::Str("GET".into())));
            attributes.push(int(format!("shared.{}", n % 700), n));
            (0, attributes)
        })
        .collect();
    let many = (0..10_000).map(|k| int(format!("many.{k}"), k)).collect();
    items.insert(spans / 2, (1, many));
    items
}

#[test]
fn ten_thousand_keys_and_random_keys_go_to_the_rest() {
    let items = wild(6_000);
    let table = table(&items, &Limits::STANDARD);
    assert_holds(&table, &items);
    assert!(table.heap_bytes() < 2 << 20, "{} B", table.heap_bytes());
    let ctl = control();
    for key in [
        "many.0",
        "many.9999",
        "shared.0",
        "shared.699",
        "method",
        "own.7919",
    ] {
        let expected = naive(&items, |k, _| k == key);
        assert!(!expected.is_empty(), "{key}");
        assert_eq!(table.having(key, None, &ctl).unwrap(), expected, "{key}");
    }
    // What does not fit stays in the rest when tables are merged, and columns that do not fit join it.
    let (merged, kept) = merged(&items, 3, 5, &Limits::STANDARD);
    assert_holds(&merged, &kept);
    let keys = merged.keys(&ctl).unwrap();
    let distinct: BTreeSet<&str> = (kept.iter().flat_map(|(_, attributes)| attributes))
        .map(|(key, _)| &**key)
        .collect();
    assert_eq!(keys.len(), distinct.len());
}

#[test]
fn what_is_left_out_of_a_merge_is_nowhere_in_it() {
    let secret = |n: usize| Value::Str(format!("secret-{n}"));
    let items: Items = (0..3_000)
        .map(|n| {
            let kind = if n % 10 == 0 { "secret-kind" } else { "plain" };
            let mut attributes = Attributes::from([
                (Arc::from("kind"), Value::Str(kind.into())),
                (Arc::from("id"), Value::Str(format!("{n}"))),
            ]);
            if n % 10 == 0 {
                attributes.push((Arc::from("secret-key"), secret(n)));
                attributes.push((Arc::from("id"), secret(n)));
            }
            if n % 100 == 0 {
                attributes.push((Arc::from(format!("secret-key-{n}")), secret(n)));
            }
            (u32::from(n % 10 == 0), attributes)
        })
        .collect();
    for limits in [Limits::STANDARD, TIGHT] {
        let before = table(&items, &limits);
        let runs: Vec<ItemRun> = (0..300)
            .map(|n| ItemRun {
                source: 0,
                first: n * 10 + 1,
                items: 9,
            })
            .collect();
        let kept: Items = (items.chunks(10))
            .flat_map(|ten| ten[1..].to_vec())
            .collect();
        let after = write(&[AttributeSource::Table(&before)], &runs, &kept, &limits);
        assert_holds(&after, &kept);
        let ColumnSource::Bytes(section) = &after.source else {
            unreachable!("tests write to memory");
        };
        assert!(!section.windows(6).any(|window| window == b"secret"));
    }
}

const STORE: StoreId = StoreId::from_bytes([7; 16]);

#[test]
fn a_damaged_page_costs_what_lies_on_it() {
    let storage = Arc::new(PowerCutStorage::new());
    let dir = Path::new("/blocks");
    storage.create_dir_all(dir).unwrap();
    let shared: Arc<dyn Storage> = Arc::<PowerCutStorage>::clone(&storage);
    let mut state = 7u64;
    let mut items: Items = (0..40_000)
        .map(|n: i64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let mut attributes = vec![(Arc::from("method"), Value::Str("GET".into()))];
            if n < 20_000 {
                for key in ["noise.1", "noise.2", "noise.3"] {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    attributes.push((Arc::from(key), Value::Int((state >> 8).cast_signed())));
                }
            }
            (0, attributes)
        })
        .collect();
    items[30_000].1.extend(wild(1).pop().unwrap().1);
    let class_of = vec![0; items.len()];
    let context = ItemContext {
        class_of: &class_of,
        owner_of: &class_of,
    };
    let run = ItemRun {
        source: 0,
        first: 0,
        items: items.len() as u32,
    };
    let mut writer = BlockWriter::create(&shared, dir, STORE, BlockId(1)).unwrap();
    writer.begin(SectionKind::SpanAttributes).unwrap();
    let loose = loose(&items);
    let sources = [AttributeSource::Loose(&loose)];
    let head = write_attributes(&mut writer, &sources, &[run], &context, &mut || Ok(())).unwrap();
    let meta = BlockMeta {
        id: BlockId(1),
        signal: Signal::Spans,
        first_lsn: Lsn(1),
        last_lsn: Lsn(2),
        clean_lsn: Lsn(2),
        time: TimeRange::ALL,
        level: 0,
        series: 1,
        samples: 1,
        sources: Vec::new(),
        created_ns: 0,
        spanning: false,
        file_bytes: 0,
    };
    let meta = writer.finish(meta).unwrap();
    let open = || {
        let block = Block::open(&shared, dir, Some(STORE), BlockId(1), &Arc::default()).unwrap();
        let classes = Arc::new(OneClass {
            items: items.len() as u32,
        });
        AttributeTable::open(Arc::new(block), SectionKind::SpanAttributes, &head, classes).unwrap()
    };
    let ctl = control();
    let method = |table: &AttributeTable| table.select("method", &|_| true, None, None, &ctl);
    let all: RoaringBitmap = (0..items.len() as u32)
        .filter(|item| *item != 30_000)
        .collect();
    assert!(all.is_subset(&method(&open()).unwrap()));
    let path = crate::block::path(dir, BlockId(1));
    let (mut served, mut readable) = (0, 0);
    let places: Vec<usize> = (64..meta.file_bytes as usize).step_by(5_777).collect();
    for &offset in &places {
        storage.damage(&path, offset, 0x20).unwrap();
        let table = open();
        match method(&table) {
            Ok(found) => {
                assert!(all.is_subset(&found));
                served += 1;
            }
            Err(error) => assert!(matches!(error, Error::CorruptBlock { .. }), "{error}"),
        }
        let mut cursor = AttributeCursor::default();
        for item in (0..items.len()).step_by(501).chain([30_000]) {
            let mut out = Attributes::new();
            match table.attributes(item as u32, &mut cursor, &mut out) {
                Ok(()) => {
                    assert_eq!(out, items[item].1);
                    readable += 1;
                }
                Err(error) => assert!(matches!(error, Error::CorruptBlock { .. }), "{error}"),
            }
        }
        storage.damage(&path, offset, 0x20).unwrap();
    }
    // Nearly all bytes are noise: what has none is read whole whatever of them is damaged, and what has some
    // as long as it does not lie on that page.
    assert!(
        served * 10 > places.len() * 6,
        "{served} of {}",
        places.len()
    );
    assert!(readable > places.len() * 40, "{readable}");
}
