//! Writing a column: choosing its encoding.

use hashbrown::HashSet;

use super::{
    ColumnContext, ColumnInput, Content, DICTIONARY, DOUBLES, DOUBLES_AS_BITS, HEX, INTS,
    TEMPLATES, TEXTS,
    dictionary::{Dictionary, Sorted},
    doubles::Doubles,
    head::put_unsigned,
    hex::{Hex, Pattern},
    numbers::Numbers,
    sequence::Sequence,
    sink::Sink,
    table::ValueTable,
    template::Split,
    texts::Texts,
};
use crate::error::Error;

/// Of so many occurrences one must be of a value seen before for a dictionary to be worth sorting.
const REPEATS_SHARE: usize = 2;
/// Columns of no more occurrences always get a dictionary.
const SMALL: usize = 64;
/// Counts of values are stored if a value occurs so often on average.
const COUNTED_OCCURRENCES: usize = 16;
/// Fewer distinct values are a page or a few, whatever they look like.
const PATTERN_VALUES_MIN: usize = 256;
/// Doubles are looked at through this many of them.
const SAMPLE: usize = 1024;
/// If no more of a sample are distinct, doubles are numbers that repeat.
const SAMPLE_DISTINCT_MAX: usize = 128;

/// Writes a column to a section and gives its head, which [`super::Column::open`] wants back. Every item
/// given to `sink` has at most 64 KiB; nothing else is written to the section meanwhile.
///
/// # Errors
/// What `sink` returned.
pub(crate) fn write_column(
    input: ColumnInput<'_>,
    context: &ColumnContext<'_>,
    sink: &mut Sink<'_>,
) -> Result<Vec<u8>, Error> {
    debug_assert!(
        context.owner_of.is_empty() || context.owner_of.len() == input.len(),
        "each occurrence has an owner"
    );
    let mut head = Vec::new();
    let count = u64::try_from(input.len()).unwrap_or(u64::MAX);
    match input {
        ColumnInput::Codes { values, codes } => {
            write_codes(values, codes, context, &mut head, sink)?;
        }
        ColumnInput::Ints(values) => {
            let sequence = Sequence::write(values, context.class_of, sink)?;
            head.push(INTS);
            put_unsigned(&mut head, count);
            sequence.put(&mut head);
        }
        ColumnInput::Doubles(values) => {
            if repeats(values) {
                let bits = values.iter().map(|value| value.to_bits().cast_signed());
                let bits: Vec<i64> = bits.collect();
                let sequence = Sequence::write(&bits, context.class_of, sink)?;
                head.push(DOUBLES_AS_BITS);
                put_unsigned(&mut head, count);
                sequence.put(&mut head);
            } else {
                let doubles = Doubles::write(values, sink)?;
                head.push(DOUBLES);
                put_unsigned(&mut head, count);
                doubles.put(&mut head);
            }
        }
    }
    Ok(head)
}

/// Whether runs of equal doubles are long.
fn repeats(values: &[f64]) -> bool {
    let step = values.len().div_ceil(SAMPLE).max(1);
    let sample = values.iter().step_by(step);
    let distinct: HashSet<u64> = sample.clone().map(|value| value.to_bits()).collect();
    let changes = values
        .windows(2)
        .filter(|pair| matches!(pair, [a, b] if a.to_bits() != b.to_bits()))
        .count();
    distinct.len() <= SAMPLE_DISTINCT_MAX && changes * 4 <= values.len()
}

fn write_codes(
    values: &ValueTable,
    codes: &[u32],
    context: &ColumnContext<'_>,
    head: &mut Vec<u8>,
    sink: &mut Sink<'_>,
) -> Result<(), Error> {
    let mut counts = vec![0_u32; values.len()];
    for &code in codes {
        *counts.get_mut(code as usize).expect("a code of the table") += 1;
    }
    let used: Vec<u32> = (0..)
        .zip(&counts)
        .filter_map(|(number, &count)| (count > 0).then_some(number))
        .collect();
    let is_text = (used.iter()).all(|&number| Content::Text.stored(values.get(number)).is_some());
    let content = if is_text {
        Content::Text
    } else {
        Content::Encoded
    };
    let stored = |number: u32| content.stored(values.get(number)).unwrap_or_default();

    let is_mostly_unique = codes.len() > SMALL && used.len() * REPEATS_SHARE > codes.len();
    let count = codes.len() as u64;
    if is_text && used.len() >= PATTERN_VALUES_MIN {
        let pattern = Pattern::of(used.iter().map(|&number| stored(number)));
        match pattern {
            Some(pattern) if is_mostly_unique => {
                let hex = Hex::write(pattern, codes.iter().map(|&code| stored(code)), sink)?;
                head.push(HEX);
                put_unsigned(head, count);
                hex.put(head);
                return Ok(());
            }
            // A sorted dictionary of it.
            Some(_) => {}
            None => {
                let split = Split::new(stored, &used, values.len(), codes);
                let runs = codes.chunk_by(|a, b| a == b).count();
                if let Some(split) = split.filter(|split| split.pays(used.len(), runs)) {
                    let templates = split.write(context.class_of, sink)?;
                    head.push(TEMPLATES);
                    put_unsigned(head, count);
                    templates.put(head);
                    return Ok(());
                }
            }
        }
    }
    if is_mostly_unique {
        let texts = Texts::write(codes.iter().map(|&code| stored(code)), false, sink)?;
        head.push(TEXTS);
        put_unsigned(head, count);
        head.push(content as u8);
        texts.put(head);
        return Ok(());
    }
    let sorted = Sorted::new(values, &counts, content);
    let dictionary = Dictionary::write(sorted.order.iter().map(|&number| stored(number)), sink)?;
    let counts = if sorted.order.len() * COUNTED_OCCURRENCES <= codes.len() {
        let counts = sorted.counts.iter().map(|&count| i64::from(count));
        Some(Numbers::write(counts, sink)?)
    } else {
        None
    };
    let place = |&code: &u32| {
        let place = sorted.places.get(code as usize).copied();
        i64::from(place.unwrap_or(u32::MAX))
    };
    let places: Vec<i64> = codes.iter().map(place).collect();
    let sequence = Sequence::write(&places, context.class_of, sink)?;
    head.push(DICTIONARY);
    put_unsigned(head, codes.len() as u64);
    head.push(content as u8);
    dictionary.put(head);
    match counts {
        Some(counts) => {
            head.push(1);
            counts.put(head);
        }
        None => head.push(0),
    }
    sequence.put(head);
    Ok(())
}
