#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]
//! The index on disk answers as the index in memory does, and damaged bytes never panic.

use std::collections::BTreeSet;

use proptest::prelude::*;
use roaring::RoaringBitmap;

use super::*;
use crate::{Labels, MatchOp, Matcher, MemIndex, Symbols};

/// The two parts of an index.
pub(crate) type Parts = (Vec<u8>, Vec<u8>);

/// Writes an index of label sets, which are sorted here.
pub(crate) fn build(sets: &[Labels]) -> (Parts, Vec<Labels>) {
    let mut sets = sets.to_vec();
    sets.sort();
    sets.dedup();
    let mut symbols = Symbols::new();
    let mut writer = DiskIndexWriter::new();
    for labels in &sets {
        let pairs: Vec<_> = labels
            .iter()
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
            .collect();
        writer.push(&pairs);
    }
    let (mut strings, mut index) = (Vec::new(), Vec::new());
    writer
        .finish(&symbols, &mut append(&mut strings), &mut append(&mut index))
        .unwrap();
    ((strings, index), sets)
}

fn append(part: &mut Vec<u8>) -> impl FnMut(&[u8]) -> Result<u64, std::convert::Infallible> {
    |item| {
        assert!(item.len() <= 32 * 1024);
        let at = part.len() as u64;
        part.extend_from_slice(item);
        Ok(at)
    }
}

pub(crate) fn open(parts: &Parts) -> DiskIndex<&[u8]> {
    DiskIndex::open(&*parts.0, &*parts.1).unwrap()
}

fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
    Labels::from_pairs(pairs).unwrap()
}

fn go() -> bool {
    true
}

/// Rows in a small world: metrics that share what they are of, labels before the metric's name in
/// the order, rare labels and missing ones.
fn label_sets(count: Range<usize>) -> impl Strategy<Value = Vec<Labels>> {
    let name = prop::sample::select(&["__name__", "A", "a", "b", "c"][..]);
    let pairs = prop::collection::btree_map(name, "[xyzé]{1,3}", 0..5);
    let free = pairs.prop_map(|map| Labels::from_pairs(map).unwrap());
    let shared = ("[uv]", "[xy]{1,2}", "[xyz]{1,2}", prop::option::of("[xy]")).prop_map(
        |(metric, a, b, c)| {
            let mut builder = Labels::builder();
            builder.set("__name__", metric).set("a", a).set("b", b);
            builder.set("c", c.unwrap_or_default());
            builder.build().unwrap()
        },
    );
    prop_oneof![
        prop::collection::vec(free, count.clone()),
        prop::collection::vec(shared, 4 * count.start..4 * count.end),
    ]
}

fn matchers() -> impl Strategy<Value = Vec<Matcher>> {
    let op = prop::sample::select(
        &[
            MatchOp::Equal,
            MatchOp::NotEqual,
            MatchOp::Regex,
            MatchOp::NotRegex,
        ][..],
    );
    let value = prop_oneof![
        "[uvwxyz]{0,2}",
        prop::sample::select(
            &[
                "x.*", ".*", ".+", ".*y", "x|yz", "x|", "(xy?)*", "[xy]+", "|z.*", "x?", "[a&&b]",
                "xy.+", "é.*", "u|v",
            ][..]
        )
        .prop_map(str::to_owned),
    ];
    let name = prop::sample::select(&["__name__", "A", "a", "b", "c", "d"][..]);
    let matcher =
        (op, name, value).prop_map(|(op, name, value)| Matcher::new(op, name, &value).unwrap());
    prop::collection::vec(matcher, 0..4)
}

/// The same rows in memory.
fn in_memory(sets: &[Labels]) -> (MemIndex, Symbols) {
    let mut symbols = Symbols::new();
    let mut index = MemIndex::new();
    for (row, labels) in (0..).zip(sets) {
        let pairs: Vec<_> = labels
            .iter()
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)))
            .collect();
        index.insert(row, &pairs);
    }
    (index, symbols)
}

fn check_everything(sets: &[Labels], matchers: &[Matcher], rows: &RoaringBitmap) {
    let (parts, sets) = build(sets);
    let index = open(&parts);
    assert_eq!(index.rows() as usize, sets.len());
    let (twin, symbols) = in_memory(&sets);
    let expected = twin.select(matchers, &symbols);
    assert_eq!(
        index.select(matchers, go).unwrap(),
        expected,
        "{matchers:?}"
    );

    let mut cursor = index.labels_cursor();
    for (row, labels) in (0..).zip(&sets) {
        assert_eq!(&cursor.labels(row).unwrap(), labels);
        assert_eq!(&index.labels(row).unwrap(), labels);
    }
    for row in (0..index.rows()).rev() {
        assert_eq!(cursor.labels(row).unwrap(), sets[row as usize]);
    }
    assert!(index.labels(index.rows()).is_err());

    let mut counted = std::collections::BTreeMap::new();
    for (name, value) in sets.iter().flat_map(Labels::iter) {
        *counted.entry((name, value)).or_insert(0_u64) += 1;
    }
    let mut largest: Vec<_> = counted
        .iter()
        .map(|((n, v), rows)| (*n, *v, *rows))
        .collect();
    largest.sort_by(|a, b| b.2.cmp(&a.2).then((a.0, a.1).cmp(&(b.0, b.1))));
    let tuple = |p: &PairCardinality| (p.name.clone(), p.value.clone(), p.rows);
    let own = |p: &(&str, &str, u64)| (p.0.to_owned(), p.1.to_owned(), p.2);
    for limit in [0, 1, 3, usize::MAX] {
        let found = index.pair_cardinality(limit, go).unwrap();
        let expected = largest.iter().take(limit).map(own);
        assert!(found.iter().map(tuple).eq(expected), "{found:?}");
        let found = index.value_cardinality("a", limit, go).unwrap();
        let expected = largest.iter().filter(|p| p.0 == "a").take(limit).map(own);
        assert!(found.iter().map(tuple).eq(expected), "{found:?}");
    }
    let names = index.name_cardinality().unwrap();
    for found in &names {
        let of_name = || counted.iter().filter(|((name, _), _)| *name == found.name);
        assert_eq!(found.values, of_name().count() as u64);
        assert_eq!(found.rows, of_name().map(|(_, rows)| rows).sum::<u64>());
        let bytes: usize = of_name().map(|((_, value), _)| value.len()).sum();
        assert_eq!(found.value_bytes, bytes as u64);
    }
    assert_eq!(
        names.iter().map(|n| n.values).sum::<u64>(),
        counted.len() as u64
    );

    let rows: RoaringBitmap = rows
        .iter()
        .filter(|row| (*row as usize) < sets.len())
        .collect();
    let all: RoaringBitmap = (0..index.rows()).collect();
    for (given, rows) in [(None, &all), (Some(&rows), &rows)] {
        let chosen = || rows.iter().map(|row| &sets[row as usize]);
        let names: BTreeSet<&str> = chosen().flat_map(|l| l.iter().map(|(n, _)| n)).collect();
        let names: Vec<&str> = names.into_iter().collect();
        assert_eq!(index.label_names(given, usize::MAX, go).unwrap(), names);
        let limited = index.label_names(given, 2, go).unwrap();
        assert_eq!(limited, names[..names.len().min(2)]);
        for name in ["__name__", "A", "a", "b", "c", "d"] {
            for prefix in ["", "x", "xy", "é"] {
                let values: BTreeSet<&str> = chosen().filter_map(|l| l.get(name)).collect();
                let values: Vec<&str> = values
                    .into_iter()
                    .filter(|v| v.starts_with(prefix))
                    .collect();
                let found = index.label_values(name, given, prefix, usize::MAX, go);
                assert_eq!(found.unwrap(), values);
                let found = index.label_values(name, given, prefix, 1, go).unwrap();
                assert_eq!(found, values[..values.len().min(1)]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn everything_agrees_with_the_index_in_memory(
        sets in label_sets(0..60), matchers in matchers(),
        rows in prop::collection::btree_set(0_u32..60, 0..20),
    ) {
        check_everything(&sets, &matchers, &rows.into_iter().collect());
    }
}

#[test]
fn an_index_without_rows_answers() {
    check_everything(&[], &[], &RoaringBitmap::new());
    check_everything(&[Labels::empty()], &[], &RoaringBitmap::new());
    check_everything(
        &[labels([("a", "x")])],
        &[Matcher::equal("a", "x")],
        &RoaringBitmap::from([0]),
    );
}

/// Pods that have most of some metrics, one of them a histogram, and a label in capitals.
fn pods(count: u64, metrics: u64) -> Vec<Labels> {
    let mut sets = vec![
        labels([("A", "odd"), ("__name__", "m0")]),
        labels([("only", "this")]),
    ];
    let mut random = 1_u64;
    let mut next = move || {
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(99);
        random >> 33
    };
    for pod in 0..count {
        let deployment = next() % 50;
        let pod = format!("app-{deployment}-{:08x}-{pod}", next());
        let node = format!("node-{}", next() % 100);
        for metric in 0..metrics {
            if metric % 3 == 1 && next() % 5 < 2 {
                continue;
            }
            let mut builder = Labels::builder();
            builder.set("__name__", format!("m{metric}"));
            builder.set("app", format!("app-{deployment}"));
            builder.set("node", &node).set("pod", &pod);
            if metric % 7 == 3 {
                for le in ["0.1", "1", "+Inf"] {
                    let mut builder = builder.clone();
                    sets.push(builder.set("le", le).clone().build().unwrap());
                }
            } else {
                sets.push(builder.build().unwrap());
            }
        }
    }
    sets
}

#[test]
fn many_pods_are_selected_as_in_memory() {
    let (parts, sets) = build(&pods(2_000, 6));
    let index = open(&parts);
    assert_ne!(
        index.trailer().lead,
        0,
        "rows are told apart into metrics and bodies"
    );
    assert!(index.trailer().bodies > 4 * column::GROUP_ROWS);
    let (twin, symbols) = in_memory(&sets);
    let pod = sets[sets.len() / 2].get("pod").unwrap();
    let two = format!("{pod}|{}", sets[sets.len() / 3].get("pod").unwrap());
    let questions = [
        vec![("__name__", "=", "m0"), ("pod", "=", pod)],
        vec![("pod", "=", pod)],
        vec![("pod", "=~", &*two), ("node", "!=", "node-7")],
        vec![("pod", "=~", "app-1.*")],
        vec![("pod", "=~", ".*[37]"), ("__name__", "=~", "m[13]")],
        vec![("pod", "!~", "app-.*7"), ("le", "", "")],
        vec![("node", "=", "node-7"), ("app", "=", "app-8")],
        vec![("node", "=~", "node-.*"), ("__name__", "!=", "m0")],
        vec![("le", "=", "+Inf")],
        vec![("le", "=~", "0.1|"), ("app", "=~", "app-(1|2).*")],
        vec![("A", "=", "odd")],
        vec![("__name__", "=", "")],
        vec![("__name__", "=~", "m0|m3"), ("__name__", "!=", "m3")],
        vec![("pod", "=", "nobody")],
        vec![],
    ];
    for question in questions {
        let matcher = |(name, op, value): &(&str, &str, &str)| {
            let op = match *op {
                "=" | "" => MatchOp::Equal,
                "!=" => MatchOp::NotEqual,
                "=~" => MatchOp::Regex,
                _ => MatchOp::NotRegex,
            };
            Matcher::new(op, name, value).unwrap()
        };
        let matchers: Vec<_> = question.iter().map(matcher).collect();
        let expected = twin.select(&matchers, &symbols);
        let found = index.select(&matchers, go).unwrap();
        assert_eq!(found, expected, "{matchers:?}");
        for name in ["__name__", "pod", "le", "node"] {
            let values: BTreeSet<&str> = found
                .iter()
                .filter_map(|row| sets[row as usize].get(name))
                .collect();
            let listed = index
                .label_values(name, Some(&found), "", usize::MAX, go)
                .unwrap();
            assert!(listed.iter().eq(values), "{name} of {matchers:?}");
        }
    }
    let mut cursor = index.labels_cursor();
    for (row, labels) in (0..).zip(&sets) {
        assert_eq!(&cursor.labels(row).unwrap(), labels);
    }
}

#[test]
fn a_selection_is_cancelled_when_asked() {
    let (parts, _) = build(&pods(6_000, 2));
    let index = open(&parts);
    let matchers = [Matcher::new(MatchOp::Regex, "pod", ".*7.*").unwrap()];
    let mut left = 2;
    let answer = index.select(&matchers, || {
        left -= 1;
        left > 0
    });
    assert_eq!(answer.unwrap_err(), Error::Cancelled);
}

/// Asks everything of bytes that may be anything; only panics and endless work would be wrong.
fn ask_everything(strings: &[u8], index: &[u8]) {
    let Ok(index) = DiskIndex::open(strings, index) else {
        return;
    };
    // A row costs no bytes, so damage can claim many.
    if index.rows() > 100_000 {
        return;
    }
    let mut left = 1000;
    let mut keep_going = || {
        left -= 1;
        left > 0
    };
    for (op, name, value) in [
        (MatchOp::Equal, "__name__", "m1"),
        (MatchOp::Equal, "pod", "app-1"),
        (MatchOp::Regex, "pod", "app-[1-3].*"),
        (MatchOp::NotRegex, "node", "node-1.*"),
        (MatchOp::NotEqual, "le", "1"),
    ] {
        let matchers = [Matcher::new(op, name, value).unwrap()];
        if let Ok(rows) = index.select(&matchers, &mut keep_going) {
            let some: RoaringBitmap = rows.iter().take(100).collect();
            let _ = index.label_names(Some(&some), 100, &mut keep_going);
            let _ = index.label_values("pod", Some(&some), "", 100, &mut keep_going);
        }
    }
    let _ = index.label_values("pod", None, "app-2", 100, &mut keep_going);
    let mut cursor = index.labels_cursor();
    for row in (0..index.rows()).step_by(17).take(100) {
        let _ = cursor.labels(row);
    }
    let _ = index.name_cardinality();
    let _ = index.pair_cardinality(10, &mut keep_going);
}

#[test]
fn damaged_bytes_give_errors_or_answers() {
    let ((strings, index), _) = build(&pods(60, 6));
    for at in (0..strings.len()).step_by(strings.len() / 100) {
        let mut damaged = strings.clone();
        damaged[at] ^= 1 << (at % 8);
        ask_everything(&damaged, &index);
    }
    // The directory stands at the end.
    for at in (0..index.len()).rev().take(1_200).step_by(5) {
        let mut damaged = index.clone();
        damaged[at] ^= 1 << (at % 8);
        ask_everything(&strings, &damaged);
    }
    for end in (0..index.len()).step_by(index.len() / 30) {
        ask_everything(&strings, &index[..end]);
        ask_everything(&strings[..end.min(strings.len())], &index);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn several_damaged_bytes_give_errors_or_answers(
        damage in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let ((mut strings, mut index), _) = build(&pods(20, 6));
        for (of_strings, at, byte) in damage {
            let part = if of_strings { &mut strings } else { &mut index };
            let at = at.index(part.len());
            part[at] = byte;
        }
        ask_everything(&strings, &index);
    }
}

#[test]
fn a_part_that_is_no_index_is_refused() {
    let ((strings, index), _) = build(&pods(5, 2));
    let open = |index: &[u8]| DiskIndex::open(&*strings, index).unwrap_err();
    assert!(matches!(
        open(&[]),
        Error::Damaged {
            part: Part::Index,
            ..
        }
    ));
    assert!(matches!(open(&[7; 1000]), Error::Damaged { .. }));
    let mut newer = index.clone();
    let at = newer.len() - 5;
    newer[at] = 9;
    assert_eq!(open(&newer), Error::UnknownVersion { version: 9 });
    let mut foreign = index.clone();
    *foreign.last_mut().unwrap() ^= 1;
    assert!(matches!(open(&foreign), Error::Damaged { .. }));
}

/// The bytes of version 1, which every later release must read.
#[test]
fn the_golden_index_is_written_and_read() {
    let sets = [
        labels([("__name__", "up"), ("job", "api"), ("pod", "api-1")]),
        labels([("__name__", "up"), ("job", "api"), ("pod", "api-2")]),
        labels([("__name__", "up"), ("job", "db"), ("le", "0.5")]),
        labels([("job", "db")]),
    ];
    let ((strings, index), _) = build(&sets);
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1");
    let files = [
        ("series-index-strings.bin", &strings),
        ("series-index-index.bin", &index),
    ];
    for (name, written) in files {
        let path = dir.join(name);
        if std::env::var_os("ROOTLINE_WRITE_GOLDEN").is_some() {
            std::fs::create_dir_all(&dir).unwrap();
            std::fs::write(&path, written).unwrap();
        }
        let golden = std::fs::read(&path).unwrap();
        assert_eq!(&golden, written, "{name} is no longer written as it was");
    }
    let parts = (strings, index);
    let index = open(&parts);
    let rows = (0..index.rows()).map(|row| index.labels(row).unwrap());
    assert!(rows.eq(sets));
}
