//! A series index answers as the rows do that it was written from; with bytes of it changed, it
//! gives an error or another answer and never panics.
//!
//! The input is changes, four bytes each, behind their count; then rows, two bytes each.
#![no_main]

use std::collections::BTreeSet;
use std::convert::Infallible;

use libfuzzer_sys::fuzz_target;
use rootline_index::disk::{DiskIndex, DiskIndexWriter};
use rootline_index::{Labels, MatchOp, Matcher, Symbols};

/// A row in a small world, from its two bytes.
fn labels(row: [u8; 2]) -> Labels {
    let [a, b] = row.map(u32::from);
    let mut builder = Labels::builder();
    builder.set("__name__", ["", "m0", "m1", "m2"][(a % 4) as usize]);
    builder.set("app", ["", "api", "db", "app-10"][(a / 4 % 4) as usize]);
    builder.set("A", if a / 16 % 8 == 7 { "odd" } else { "" });
    builder.set("pod", format!("pod-{}", b * 7 % 100));
    builder.build().expect("names differ")
}

fn matchers() -> Vec<Matcher> {
    [
        (MatchOp::Equal, "__name__", "m1"),
        (MatchOp::Regex, "pod", "pod-1.*"),
        (MatchOp::NotRegex, "app", "app-.*[0-9]"),
        (MatchOp::NotEqual, "pod", "pod-7"),
        (MatchOp::Equal, "A", ""),
    ]
    .into_iter()
    .map(|(op, name, value)| Matcher::new(op, name, value).expect("a valid pattern"))
    .collect()
}

fn write(rows: &BTreeSet<Labels>) -> (Vec<u8>, Vec<u8>) {
    let mut symbols = Symbols::new();
    let mut writer = DiskIndexWriter::new();
    for labels in rows {
        let pairs = labels
            .iter()
            .map(|(n, v)| (symbols.intern(n), symbols.intern(v)));
        writer.push(&pairs.collect::<Vec<_>>());
    }
    let (mut strings, mut index) = (Vec::new(), Vec::new());
    let Ok(()) = writer.finish::<Infallible>(
        &symbols,
        &mut |item| {
            let at = strings.len() as u64;
            strings.extend_from_slice(item);
            Ok(at)
        },
        &mut |item| {
            let at = index.len() as u64;
            index.extend_from_slice(item);
            Ok(at)
        },
    );
    (strings, index)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((count, rest)) = bytes.split_first() else {
        return;
    };
    let (changes, rows) = rest.split_at((usize::from(*count % 8) * 4).min(rest.len()));
    let rows: BTreeSet<Labels> = rows
        .chunks_exact(2)
        .map(|row| labels([row[0], row[1]]))
        .collect();
    let (mut strings, mut index) = write(&rows);

    let sound = DiskIndex::open(&*strings, &*index).expect("what was just written");
    let mut cursor = sound.labels_cursor();
    for (row, labels) in (0..).zip(&rows) {
        assert_eq!(&cursor.labels(row).expect("sound bytes"), labels);
    }
    for matcher in matchers() {
        let expected = (0_u32..)
            .zip(&rows)
            .filter(|(_, l)| matcher.matches_labels(l));
        let found = sound
            .select(&[matcher.clone()], || true)
            .expect("sound bytes");
        assert!(found.iter().eq(expected.map(|(row, _)| row)), "{matcher}");
    }

    for change in changes.chunks_exact(4) {
        let part = if change[0] % 2 == 0 {
            &mut strings
        } else {
            &mut index
        };
        let at = usize::from(u16::from_le_bytes([change[1], change[2]])) % part.len().max(1);
        // Counted from the end, where the directory is.
        let at = part.len().saturating_sub(at + 1);
        if let Some(byte) = part.get_mut(at) {
            *byte = change[3];
        }
    }
    let Ok(damaged) = DiskIndex::open(&*strings, &*index) else {
        return;
    };
    if damaged.rows() > 100_000 {
        return; // a row costs no bytes, so damage can claim many
    }
    let mut left = 100;
    let mut keep_going = || {
        left -= 1;
        left > 0
    };
    let rows = damaged.select(&matchers(), &mut keep_going).ok();
    let _ = damaged.label_names(rows.as_ref(), 10, &mut keep_going);
    let _ = damaged.label_values("pod", rows.as_ref(), "pod-", 100, &mut keep_going);
    let _ = damaged.pair_cardinality(10, &mut keep_going);
    let _ = damaged.name_cardinality();
    let mut cursor = damaged.labels_cursor();
    for row in (0..damaged.rows()).take(100) {
        let _ = cursor.labels(row);
    }
});
