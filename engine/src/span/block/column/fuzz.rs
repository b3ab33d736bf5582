//! What the fuzz target does with its bytes.

use roaring::RoaringBitmap;

use super::{
    Column, ColumnContext, ColumnCursor, ColumnInput, ColumnSource, LoadedColumn, NoClasses,
    ValueTable, encode, write_column,
};
use crate::value::{self, ValueRef};

/// Occurrences up to which a column is read.
const COUNT_MAX: u32 = 1 << 16;

/// Reads them as a column.
pub(super) fn read(bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else {
        return;
    };
    let length = usize::from(u16::from_le_bytes(*length));
    let (head, section) = rest.split_at(length.min(rest.len()));
    let Ok(column) = Column::open(head, ColumnSource::Bytes(section.into())) else {
        return;
    };
    if column.len() > COUNT_MAX {
        return;
    }
    let mut cursor = ColumnCursor::default();
    let some: RoaringBitmap = (0..column.len()).step_by(61).collect();
    for occurrence in &some {
        let _ = column.value(occurrence, &NoClasses, &mut cursor, &mut Vec::new());
    }
    let _ = column.load(&NoClasses);
    let _ = column.counts(&NoClasses, &mut |_, _| Ok(()));
    let _ = column.codes_of(&some, &NoClasses);
    let mut only = Vec::new();
    encode(ValueRef::Str("/cart/4711"), &mut only);
    for only in [None, Some(only.as_slice())] {
        for candidates in [None, Some(&some)] {
            let mut test = |value: &[u8]| value.len().is_multiple_of(2);
            let _ = column.find(&mut test, only, candidates, &NoClasses, &mut || Ok(()));
        }
    }
}

/// Writes them as texts and as integers, many times over, and compares.
pub(super) fn come_back(bytes: &[u8]) {
    let mut values = ValueTable::default();
    let mut encoded = Vec::new();
    for text in bytes.split(|&byte| byte == b'\n') {
        encoded.clear();
        value::encode_text(text, &mut encoded);
        values.push(&encoded);
    }
    let count = u32::try_from(values.len()).unwrap_or(u32::MAX);
    let codes: Vec<u32> = (0..count.saturating_mul(3))
        .map(|i| i * 7 % count)
        .collect();
    let ints: Vec<i64> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|four| i64::from(i32::from_le_bytes(*four)))
        .collect();
    let inputs = [
        ColumnInput::Codes {
            values: &values,
            codes: &codes,
        },
        ColumnInput::Ints(&ints),
    ];
    for input in inputs {
        let mut section = Vec::new();
        let head = write_column(input, &ColumnContext::default(), &mut |item| {
            let at = section.len() as u64;
            section.extend_from_slice(item);
            Ok(at)
        });
        let head = head.expect("memory takes everything");
        let column = Column::open(&head, ColumnSource::Bytes(section.into()));
        let loaded = column.and_then(|column| column.load(&NoClasses));
        match (input, loaded.expect("what was written is a column")) {
            (ColumnInput::Ints(ints), LoadedColumn::Ints(loaded)) => assert_eq!(ints, loaded),
            (
                _,
                LoadedColumn::Codes {
                    values: found,
                    codes: loaded,
                },
            ) => {
                let expected = codes.iter().map(|&code| values.get(code));
                assert!(loaded.iter().map(|&code| found.get(code)).eq(expected));
            }
            _ => panic!("a column of another kind came back"),
        }
    }
}
