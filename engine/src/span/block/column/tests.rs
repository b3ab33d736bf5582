//! What is written comes back; what is found is what a naive search finds; damage is an error.
#![allow(
    clippy::cast_possible_truncation,
    clippy::type_complexity,
    clippy::match_same_arms,
    clippy::format_collect,
    clippy::single_match_else,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "tests"
)]

use std::{collections::BTreeMap, sync::Arc};

use proptest::prelude::*;

use super::*;
use crate::{value::strategies, varint};

/// Classes as they were given.
pub(super) struct Given<'a>(pub(super) &'a [u32]);

impl Classes for Given<'_> {
    fn classes(&self, occurrences: Range<u32>, out: &mut Vec<u32>) -> Result<(), Error> {
        if self.0.is_empty() {
            return NoClasses.classes(occurrences, out);
        }
        out.extend_from_slice(&self.0[occurrences.start as usize..occurrences.end as usize]);
        Ok(())
    }
}

/// A column in memory.
struct Written {
    head: Vec<u8>,
    section: Vec<u8>,
    classes: Vec<u32>,
    encoded: Vec<Vec<u8>>,
}

fn encoded(value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    value.as_ref().encode(&mut out).unwrap();
    out
}

fn write(input: ColumnInput<'_>, classes: &[u32], owners: &[u32]) -> Written {
    let mut section = vec![0xaa; 5];
    let context = ColumnContext {
        class_of: classes,
        owner_of: owners,
    };
    let head = write_column(input, &context, &mut |item| {
        assert!(item.len() <= crate::block::PAGE_BYTES_MAX);
        let at = section.len() as u64;
        section.extend_from_slice(item);
        Ok(at)
    });
    let encoded = match input {
        ColumnInput::Codes { values, codes } => codes
            .iter()
            .map(|&code| values.get(code).to_vec())
            .collect(),
        ColumnInput::Ints(ints) => ints.iter().map(|&int| encoded(&Value::Int(int))).collect(),
        ColumnInput::Doubles(doubles) => doubles
            .iter()
            .map(|&double| encoded(&Value::Double(double)))
            .collect(),
    };
    Written {
        head: head.unwrap(),
        section,
        classes: classes.to_vec(),
        encoded,
    }
}

impl Written {
    fn open(&self) -> Column {
        let source = ColumnSource::Bytes(self.section.as_slice().into());
        Column::open(&self.head, source).unwrap()
    }

    /// Reads it in every way there is and compares.
    fn check(&self) -> Column {
        let column = self.open();
        let classes = &Given(&self.classes);
        assert_eq!(column.len() as usize, self.encoded.len());
        // One by one, forward and back.
        let mut cursor = ColumnCursor::default();
        let forward = 0..self.encoded.len();
        for i in forward.clone().chain(forward.rev()) {
            let mut out = vec![7];
            column
                .value(i as u32, classes, &mut cursor, &mut out)
                .unwrap();
            assert_eq!(out[1..], self.encoded[i], "{} of {}", i, column.describe());
        }
        let beyond = column.value(column.len(), classes, &mut cursor, &mut Vec::new());
        assert!(beyond.is_err());
        assert_eq!(loaded(column.load(classes).unwrap()), self.encoded);

        let mut counts = BTreeMap::new();
        let visited = column.counts(classes, &mut |value, count| {
            assert!(counts.insert(value.to_vec(), count).is_none());
            Ok(())
        });
        visited.unwrap();
        let mut expected = BTreeMap::new();
        for value in &self.encoded {
            *expected.entry(value.clone()).or_insert(0) += 1;
        }
        assert_eq!(counts, expected);

        let some: RoaringBitmap = (0..column.len()).filter(|i| i % 7 != 2).collect();
        let coded = column.codes_of(&some, classes).unwrap();
        let values: Vec<&[u8]> = coded
            .codes
            .iter()
            .map(|&code| coded.values.get(code))
            .collect();
        let expected: Vec<&[u8]> = some.iter().map(|i| &self.encoded[i as usize][..]).collect();
        assert_eq!(values, expected);
        column
    }

    /// Looks for values in every way there is and compares.
    fn check_find(&self, looked_for: &[Vec<u8>]) {
        let column = self.open();
        let classes = &Given(&self.classes);
        let all = None;
        let many: RoaringBitmap = (0..column.len()).filter(|i| i % 3 != 1).collect();
        let few: RoaringBitmap = (0..column.len() + 9).step_by(97).collect();
        let predicates: [&dyn Fn(&[u8]) -> bool; 3] = [
            &|value| value.len() % 2 == 0,
            &|value| value.iter().any(|byte| *byte % 16 == 1),
            &|value| looked_for.iter().step_by(2).any(|wanted| wanted == value),
        ];
        for candidates in [all, Some(&many), Some(&few)] {
            let naive = |passes: &dyn Fn(&[u8]) -> bool| -> RoaringBitmap {
                (0..column.len())
                    .filter(|&i| candidates.is_none_or(|c| c.contains(i)))
                    .filter(|&i| passes(&self.encoded[i as usize]))
                    .collect()
            };
            for passes in predicates {
                let found =
                    column.find(
                        &mut |v| passes(v),
                        None,
                        candidates,
                        classes,
                        &mut || Ok(()),
                    );
                assert_eq!(found.unwrap(), naive(passes), "{}", column.describe());
            }
            for only in looked_for {
                let mut unasked = |_: &[u8]| panic!("the test is not asked");
                let found =
                    column.find(
                        &mut unasked,
                        Some(only),
                        candidates,
                        classes,
                        &mut || Ok(()),
                    );
                assert_eq!(
                    found.unwrap(),
                    naive(&|v| v == only),
                    "{}",
                    column.describe()
                );
            }
        }
    }
}

fn loaded(column: LoadedColumn) -> Vec<Vec<u8>> {
    match column {
        LoadedColumn::Codes { values, codes } => codes
            .iter()
            .map(|&code| values.get(code).to_vec())
            .collect(),
        LoadedColumn::Ints(ints) => ints.iter().map(|&int| encoded(&Value::Int(int))).collect(),
        LoadedColumn::Doubles(doubles) => doubles
            .iter()
            .map(|&double| encoded(&Value::Double(double)))
            .collect(),
    }
}

/// Texts of the kinds that attributes have.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-c]{0,2}",
        "/(cart|item)/[0-9]{0,6}",
        "203\\.0\\.[0-9]{1,3}\\.[0-9]{1,3}",
        "[0-9]{1,22}",
        "[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}",
        "[0-9a-f]{32}",
        ".{0,20}",
        "[a-z]{300,400}",
    ]
}

/// Values of one column: all texts, or anything; with repeats, by class, by owner.
#[derive(Debug, Clone)]
struct Case {
    values: ValueTable,
    codes: Vec<u32>,
    classes: Vec<u32>,
    owners: Vec<u32>,
}

fn case() -> impl Strategy<Value = Case> {
    let text = prop::collection::vec(text().prop_map(Value::Str), 1..60);
    let others = prop::collection::vec(strategies::value(), 1..20);
    let lengths = prop_oneof![1..40_usize, 1000..3000_usize];
    (
        prop_oneof![4 => text, 1 => others],
        lengths,
        any::<u64>(),
        0..5_u8,
    )
        .prop_map(|(values, length, seed, kind)| {
            let values: ValueTable = values
                .iter()
                .map(encoded)
                .collect::<Vec<_>>()
                .iter()
                .map(|v| &v[..])
                .collect();
            let mut state = seed | 1;
            let mut random = move || {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                (state >> 20) as u32
            };
            let count = values.len() as u32;
            let owners: Vec<u32> = (0..length as u32).map(|i| i / 13).collect();
            let classes: Vec<u32> = (0..length).map(|_| random() % 9).collect();
            let codes = (0..length)
                .map(|i| match kind {
                    0 => random() % count,
                    1 => classes[i].wrapping_mul(7) % count,
                    2 => owners[i].wrapping_mul(31) % count,
                    3 if random() % 40 != 0 => classes[i].wrapping_mul(5) % count,
                    3 => random() % count,
                    _ => i as u32 % count,
                })
                .collect();
            Case {
                values,
                codes,
                classes,
                owners,
            }
        })
}

/// Many distinct texts of a few shapes.
fn patterned() -> impl Strategy<Value = Case> {
    (0..9_u8, 300..900_usize, 1..4_u32, any::<u64>()).prop_map(|(kind, distinct, each, seed)| {
        let mut state = seed | 1;
        let mut random = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state >> 9
        };
        let values: Vec<Vec<u8>> = (0..distinct)
            .map(|i| {
                let (a, b) = (random(), random());
                let text = match kind {
                    0 => format!("{a:08x}-{:04x}-4{:03x}-{b:016x}", a & 0xffff, b & 0xfff),
                    1 => format!("u-{:07x}", a & 0xfff_ffff),
                    2 => format!("{:016x}{:016x}", a << 9, b << 9),
                    3 => format!("/cart/{}", a % 1_000_000),
                    4 => format!("203.0.{}.{}", a % 256, b % 256),
                    5 => match a % 3 {
                        0 => format!("select {} from t7 limit {}", b % 5000, a % 90),
                        1 => format!("insert {:06} into t7", b % 1000),
                        _ => "begin 007".to_owned(),
                    },
                    6 => format!("order {} at {b}{a} of 00{}", i * 3, a % 3),
                    7 => format!("{}:{}", "abc".get(..a as usize % 4).unwrap(), b % 100_000),
                    _ => (0..30).map(|j| format!("{} ", a >> j & 3)).collect(),
                };
                encoded(&Value::Str(text))
            })
            .collect();
        let values: ValueTable = values.iter().map(|value| &value[..]).collect();
        let length = distinct * each as usize;
        let codes: Vec<u32> = (0..length as u32)
            .map(|i| {
                if seed % 2 == 0 {
                    i / each
                } else {
                    (random() % distinct as u64) as u32
                }
            })
            .collect();
        Case {
            values,
            classes: codes.iter().map(|code| code % 5).collect(),
            owners: (0..length as u32).map(|i| i / 9).collect(),
            codes,
        }
    })
}

impl Case {
    fn write(&self) -> Written {
        let input = ColumnInput::Codes {
            values: &self.values,
            codes: &self.codes,
        };
        write(input, &self.classes, &self.owners)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn coded_values_come_back_and_are_found(case in case()) {
        let written = case.write();
        written.check();
        let mut looked_for: Vec<Vec<u8>> = case.values.iter().take(5).map(<[u8]>::to_vec).collect();
        looked_for.push(encoded(&Value::Str("/cart/4711".into())));
        looked_for.push(encoded(&Value::Int(3)));
        written.check_find(&looked_for);
    }

    #[test]
    fn texts_of_one_shape_come_back_and_are_found(case in patterned()) {
        let written = case.write();
        written.check();
        let mut looked_for: Vec<Vec<u8>> =
            case.values.iter().step_by(293).map(<[u8]>::to_vec).collect();
        for text in ["/cart/4711", "/cart/04711", "203.0.300.1", "begin 007", "u-000000g", ""] {
            looked_for.push(encoded(&Value::Str(text.into())));
        }
        written.check_find(&looked_for);
    }

    #[test]
    fn integers_come_back_and_are_found(
        case in case(),
        numbers in prop::collection::vec(prop_oneof![any::<i64>(), -5..900_i64], 1..60),
    ) {
        let ints: Vec<i64> =
            case.codes.iter().map(|&code| numbers[code as usize % numbers.len()]).collect();
        let written = write(ColumnInput::Ints(&ints), &case.classes, &case.owners);
        written.check();
        let looked_for = [Value::Int(numbers[0]), Value::Int(-7), Value::Str("3".into())];
        written.check_find(&looked_for.each_ref().map(encoded));
    }

    #[test]
    fn doubles_come_back_and_are_found(
        case in case(),
        numbers in prop::collection::vec(
            prop_oneof![any::<u64>().prop_map(f64::from_bits), (0..500).prop_map(f64::from)],
            1..60,
        ),
    ) {
        let doubles: Vec<f64> =
            case.codes.iter().map(|&code| numbers[code as usize % numbers.len()]).collect();
        let written = write(ColumnInput::Doubles(&doubles), &case.classes, &case.owners);
        written.check();
        let looked_for = [Value::Double(numbers[0]), Value::Double(-0.0), Value::Int(3)];
        written.check_find(&looked_for.each_ref().map(encoded));
    }

    #[test]
    fn damaged_columns_give_values_or_errors(
        case in prop_oneof![case(), patterned()],
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let mut written = case.write();
        for (at, byte, in_head) in damage {
            let bytes = if in_head { &mut written.head } else { &mut written.section };
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            let cut = cut.index(written.section.len());
            written.section.truncate(cut);
        }
        read_everything(&written.head, written.section.as_slice().into(), &Given(&case.classes));
    }
}

/// Reads any bytes as a column, in every way there is.
fn read_everything(head: &[u8], section: Arc<[u8]>, classes: &dyn Classes) {
    let Ok(column) = Column::open(head, ColumnSource::Bytes(section)) else {
        return;
    };
    if column.len() > 1 << 16 {
        return;
    }
    let mut cursor = ColumnCursor::default();
    let some: Vec<u32> = (0..column.len()).step_by(61).collect();
    for &i in &some {
        let _ = column.value(i, classes, &mut cursor, &mut Vec::new());
    }
    let _ = column.load(classes);
    let _ = column.counts(classes, &mut |_, _| Ok(()));
    let _ = column.codes_of(&some.iter().copied().collect(), classes);
    let only = encoded(&Value::Str("/cart/4711".into()));
    for only in [None, Some(&only[..])] {
        let _ = column.find(&mut |v| v.len() > 3, only, None, classes, &mut || Ok(()));
    }
}

#[test]
fn a_column_without_values_is_a_column() {
    let values = ValueTable::default();
    let inputs = [
        ColumnInput::Codes {
            values: &values,
            codes: &[],
        },
        ColumnInput::Ints(&[]),
        ColumnInput::Doubles(&[]),
    ];
    for input in inputs {
        let written = write(input, &[], &[]);
        written.check();
        written.check_find(&[encoded(&Value::Int(1))]);
    }
}

#[test]
fn long_texts_and_many_distinct_ones_come_back() {
    let values: ValueTable = (0..3000_u32)
        .map(|i| {
            let text = match i % 1000 {
                0 => "x".repeat(200_000),
                1 => (0..20_000).map(|j| (i ^ j).to_string()).collect(),
                _ => format!("{i}: some text that is like all others {}", i * 7919),
            };
            encoded(&Value::Str(text))
        })
        .collect::<Vec<_>>()
        .iter()
        .map(|value| &value[..])
        .collect();
    let codes: Vec<u32> = (0..3000).rev().collect();
    let input = ColumnInput::Codes {
        values: &values,
        codes: &codes,
    };
    let written = write(input, &[], &[]);
    written.check();
    written.check_find(&[values.get(0).to_vec(), values.get(1999).to_vec()]);
    // The same values twice, so that they become a dictionary.
    let twice: Vec<u32> = codes.iter().chain(&codes).copied().collect();
    let input = ColumnInput::Codes {
        values: &values,
        codes: &twice,
    };
    let written = write(input, &[], &[]);
    written.check();
    written.check_find(&[values.get(0).to_vec(), values.get(1999).to_vec()]);
}

/// The promise: version 1 reads the same for ever.
///
/// `engine/tests/golden/v1/attribute-column.bin` holds columns of every encoding: length of the head,
/// length of the section (u32 each), both. They must decode to what they were made of; with
/// `ROOTLINE_GOLDEN=write` they are written again, which is a change of the format.
#[test]
fn golden_columns_read_as_ever() {
    const GOLDEN: &[u8] = include_bytes!("../../../../tests/golden/v1/attribute-column.bin");
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/golden/v1/attribute-column.bin"
    );
    let columns = golden_columns();
    if std::env::var("ROOTLINE_GOLDEN").is_ok_and(|wish| wish == "write") {
        let mut out = Vec::new();
        for (written, _) in &columns {
            for part in [&written.head, &written.section] {
                out.extend_from_slice(&(part.len() as u32).to_le_bytes());
            }
            out.extend_from_slice(&written.head);
            out.extend_from_slice(&written.section);
        }
        std::fs::write(path, out).unwrap();
        return;
    }
    let mut rest = GOLDEN;
    for (mut expected, encoding) in columns {
        let mut length = || {
            let (four, behind) = rest.split_first_chunk::<4>().unwrap();
            rest = behind;
            u32::from_le_bytes(*four) as usize
        };
        let (head, section) = (length(), length());
        expected.head = varint::take_slice(&mut rest, head).unwrap().to_vec();
        expected.section = varint::take_slice(&mut rest, section).unwrap().to_vec();
        assert_eq!(expected.check().describe(), encoding);
    }
    assert!(rest.is_empty());
}

/// A column of every encoding and form.
fn golden_columns() -> Vec<(Written, &'static str)> {
    let mut state = 0x5eed_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state >> 9
    };
    let mut columns = Vec::new();
    let classes: Vec<u32> = (0..1500).map(|_| random() as u32 % 7).collect();
    let texts = |count: usize, text: &mut dyn FnMut(usize) -> String, codes: &[u32]| {
        let values: Vec<Vec<u8>> = (0..count).map(|i| encoded(&Value::Str(text(i)))).collect();
        let values: ValueTable = values.iter().map(|value| &value[..]).collect();
        let input = ColumnInput::Codes {
            values: &values,
            codes,
        };
        write(input, &classes[..codes.len()], &[])
    };
    let each: Vec<u32> = (0..1500).collect();
    let by_class: Vec<u32> = classes.iter().map(|class| class * 3).collect();
    let runs: Vec<u32> = (0..1500).map(|i| i / 25 * 11 % 40).collect();
    let name = &mut |i: usize| format!("name {i}");
    columns.push((texts(40, name, &by_class), "7 texts, by class"));
    columns.push((texts(40, name, &runs), "40 texts, runs"));
    let words = ["no number", "here", "and", "there"];
    let mut letters = |i: usize| {
        let letter = |k: u32| char::from(b'a' + ((i as u32 / 26_u32.pow(k)) % 26) as u8);
        format!("{} {}{}{}", words[i % 4], letter(0), letter(1), letter(2))
    };
    columns.push((texts(1500, &mut letters, &each), "texts"));
    let mut uuid = |i: usize| format!("{:08x}-4a{:024x}", i * 7919, random());
    columns.push((texts(1500, &mut uuid, &each), "hex texts"));
    let runs: Vec<u32> = (0..1500).map(|i| i / 5).collect();
    columns.push((texts(300, &mut uuid, &runs), "300 hex texts, runs"));
    let mut target = |i: usize| match i % 3 {
        0 => format!("/cart/{}/item/{}", random() % 5000, random() % 70),
        _ => format!("/user/{}", random() % 5000),
    };
    let encoding = "2 templates, plain; numbers, plain; numbers, plain";
    columns.push((texts(1500, &mut target, &each), encoding));
    let ints: Vec<i64> = (0..1500).map(|i| i * i - 7).collect();
    columns.push((write(ColumnInput::Ints(&ints), &[], &[]), "integers, plain"));
    let far: Vec<i64> = (0..1500)
        .map(|_| (random() % 3).cast_signed() << 40)
        .collect();
    columns.push((write(ColumnInput::Ints(&far), &[], &[]), "integers, ranked"));
    let doubles: Vec<f64> = (0..1500).map(|_| random() as f64 / 64.0).collect();
    columns.push((write(ColumnInput::Doubles(&doubles), &[], &[]), "doubles"));
    let steps: Vec<f64> = (0..1500).map(|i| f64::from(i / 300) / 3.0).collect();
    columns.push((
        write(ColumnInput::Doubles(&steps), &[], &[]),
        "doubles as bits, runs",
    ));
    columns
}
