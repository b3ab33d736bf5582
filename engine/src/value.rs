//! Attribute values of OTLP: typed, nested at most [`VALUE_DEPTH_MAX`] deep, never coerced.
//!
//! A value has three forms: [`ValueRef`] borrows from whoever sends it, [`Value`] is owned, and the
//! encoded form is what dictionaries, heads and log records hold (bytes: `docs/formats/span-part.md`).
//!
//! Invariants
//! - Equal values have equal encodings and the reverse: a double is its 64 bits, the pairs of a
//!   nested map keep their order.
//! - An encoding says where it ends. Decoding any bytes ends, allocates in proportion to the bytes
//!   and never panics.

use std::fmt::{self, Write as _};

use crate::varint;

/// How deep arrays and maps may be nested; a plain value has depth 0. Senders use one or two levels;
/// the bound keeps every walk over a value on the stack.
pub const VALUE_DEPTH_MAX: usize = 32;

const EMPTY: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const DOUBLE: u8 = 4;
const STR: u8 = 5;
const BYTES: u8 = 6;
const ARRAY: u8 = 7;
const KEY_VALUES: u8 = 8;

/// A value borrowed from its sender. Nested values are rare, so those are owned already.
#[derive(Clone, Copy, Debug)]
pub enum ValueRef<'a> {
    /// A value that is there but says nothing.
    Empty,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double; every bit pattern survives.
    Double(f64),
    /// Text.
    Str(&'a str),
    /// Bytes.
    Bytes(&'a [u8]),
    /// A list.
    Array(&'a [Value]),
    /// A map as sent: in order, repeated keys kept.
    KeyValues(&'a [(String, Value)]),
}

/// A value that owns its parts. Doubles compare by their bits.
#[derive(Clone, Debug, Default)]
pub enum Value {
    /// A value that is there but says nothing.
    #[default]
    Empty,
    /// A truth value.
    Bool(bool),
    /// A signed integer.
    Int(i64),
    /// A double; every bit pattern survives.
    Double(f64),
    /// Text.
    Str(String),
    /// Bytes.
    Bytes(Vec<u8>),
    /// A list.
    Array(Vec<Value>),
    /// A map as sent: in order, repeated keys kept.
    KeyValues(Vec<(String, Value)>),
}

/// What kind of value an attribute has, as far as searches tell kinds apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AttributeType {
    /// Text.
    Str,
    /// A signed integer.
    Int,
    /// A double.
    Double,
    /// A truth value.
    Bool,
    /// Bytes, a list, a map, or a value that says nothing.
    Other,
}

impl AttributeType {
    /// Of a value.
    pub fn of(value: &Value) -> Self {
        match value {
            Value::Str(_) => Self::Str,
            Value::Int(_) => Self::Int,
            Value::Double(_) => Self::Double,
            Value::Bool(_) => Self::Bool,
            Value::Empty | Value::Bytes(_) | Value::Array(_) | Value::KeyValues(_) => Self::Other,
        }
    }

    /// Of an encoded value.
    pub(crate) fn of_encoded(encoded: &[u8]) -> Self {
        match encoded.first() {
            Some(&STR) => Self::Str,
            Some(&INT) => Self::Int,
            Some(&DOUBLE) => Self::Double,
            Some(&(FALSE | TRUE)) => Self::Bool,
            _ => Self::Other,
        }
    }
}

/// A value nested deeper than [`VALUE_DEPTH_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("attribute value is nested deeper than {VALUE_DEPTH_MAX} levels")]
pub struct TooDeep;

impl Value {
    /// The value, borrowed.
    pub fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Empty => ValueRef::Empty,
            Self::Bool(v) => ValueRef::Bool(*v),
            Self::Int(v) => ValueRef::Int(*v),
            Self::Double(v) => ValueRef::Double(*v),
            Self::Str(v) => ValueRef::Str(v),
            Self::Bytes(v) => ValueRef::Bytes(v),
            Self::Array(v) => ValueRef::Array(v),
            Self::KeyValues(v) => ValueRef::KeyValues(v),
        }
    }

    /// The text, if the value is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            _ => None,
        }
    }

    /// Takes an encoded value off the front of `input`; `None` if it is cut short, of an unknown
    /// type, not UTF-8 where text is due, or nested too deep.
    pub(crate) fn decode(input: &mut &[u8]) -> Option<Self> {
        Self::decode_at(input, 0)
    }

    fn decode_at(input: &mut &[u8], depth: usize) -> Option<Self> {
        let (&kind, rest) = input.split_first()?;
        *input = rest;
        Some(match kind {
            EMPTY => Self::Empty,
            FALSE => Self::Bool(false),
            TRUE => Self::Bool(true),
            INT => Self::Int(varint::take_i64(input)?),
            DOUBLE => Self::Double(f64::from_bits(take_double(input)?)),
            STR => Self::Str(take_text(input)?.to_owned()),
            BYTES => Self::Bytes(varint::take_bytes(input)?.to_vec()),
            ARRAY => {
                let count = take_count(input, depth)?;
                // An element takes a byte at least, so what is reserved is bounded by the input.
                let mut values = Vec::with_capacity(count);
                for _ in 0..count {
                    values.push(Self::decode_at(input, depth + 1)?);
                }
                Self::Array(values)
            }
            KEY_VALUES => {
                let count = take_count(input, depth)?;
                let mut pairs = Vec::with_capacity(count);
                for _ in 0..count {
                    let key = take_text(input)?.to_owned();
                    pairs.push((key, Self::decode_at(input, depth + 1)?));
                }
                Self::KeyValues(pairs)
            }
            _ => return None,
        })
    }
}

impl ValueRef<'_> {
    /// Appends the encoded form. On an error `out` holds a part of it: the caller truncates.
    ///
    /// # Errors
    /// [`TooDeep`].
    pub(crate) fn encode(self, out: &mut Vec<u8>) -> Result<(), TooDeep> {
        self.encode_at(out, 0)
    }

    #[inline]
    fn encode_at(self, out: &mut Vec<u8>, depth: usize) -> Result<(), TooDeep> {
        match self {
            Self::Empty => out.push(EMPTY),
            Self::Bool(v) => out.push(if v { TRUE } else { FALSE }),
            Self::Int(v) => {
                out.push(INT);
                varint::put_i64(out, v);
            }
            Self::Double(v) => {
                out.push(DOUBLE);
                out.extend_from_slice(&v.to_bits().to_le_bytes());
            }
            Self::Str(v) => {
                out.push(STR);
                varint::put_bytes(out, v.as_bytes());
            }
            Self::Bytes(v) => {
                out.push(BYTES);
                varint::put_bytes(out, v);
            }
            Self::Array(values) => {
                if depth >= VALUE_DEPTH_MAX {
                    return Err(TooDeep);
                }
                out.push(ARRAY);
                varint::put_u64(out, values.len() as u64);
                for value in values {
                    value.as_ref().encode_at(out, depth + 1)?;
                }
            }
            Self::KeyValues(pairs) => {
                if depth >= VALUE_DEPTH_MAX {
                    return Err(TooDeep);
                }
                out.push(KEY_VALUES);
                varint::put_u64(out, pairs.len() as u64);
                for (key, value) in pairs {
                    varint::put_bytes(out, key.as_bytes());
                    value.as_ref().encode_at(out, depth + 1)?;
                }
            }
        }
        Ok(())
    }

    /// The value, owned.
    pub fn to_value(self) -> Value {
        match self {
            Self::Empty => Value::Empty,
            Self::Bool(v) => Value::Bool(v),
            Self::Int(v) => Value::Int(v),
            Self::Double(v) => Value::Double(v),
            Self::Str(v) => Value::Str(v.to_owned()),
            Self::Bytes(v) => Value::Bytes(v.to_vec()),
            Self::Array(v) => Value::Array(v.to_vec()),
            Self::KeyValues(v) => Value::KeyValues(v.to_vec()),
        }
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Empty, Self::Empty) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b)) => a == b,
            (Self::Double(a), Self::Double(b)) => a.to_bits() == b.to_bits(),
            (Self::Str(a), Self::Str(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Array(a), Self::Array(b)) => a == b,
            (Self::KeyValues(a), Self::KeyValues(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl<'a> From<&'a str> for ValueRef<'a> {
    fn from(text: &'a str) -> Self {
        Self::Str(text)
    }
}

impl From<i64> for ValueRef<'_> {
    fn from(value: i64) -> Self {
        Self::Int(value)
    }
}

impl From<f64> for ValueRef<'_> {
    fn from(value: f64) -> Self {
        Self::Double(value)
    }
}

impl From<bool> for ValueRef<'_> {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

/// The form people search for and read: text as it is, numbers in decimal, bytes in base64, nothing
/// for an empty value, arrays and maps as JSON (OpenTelemetry's form for protocols without types).
impl fmt::Display for ValueRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => Ok(()),
            Self::Bool(v) => write!(f, "{v}"),
            Self::Int(v) => write!(f, "{v}"),
            Self::Double(v) => write_double(f, *v),
            Self::Str(v) => f.write_str(v),
            Self::Bytes(v) => write_base64(f, v),
            Self::Array(_) | Self::KeyValues(_) => write_json(f, *self),
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.as_ref(), f)
    }
}

/// Shortest decimal that reads back as the same double; an exponent only where digits would be many.
fn write_double(f: &mut fmt::Formatter<'_>, v: f64) -> fmt::Result {
    if v.is_nan() {
        f.write_str("NaN")
    } else if v.is_infinite() {
        f.write_str(if v > 0.0 { "Infinity" } else { "-Infinity" })
    } else if v == 0.0 || (1e-5..1e17).contains(&v.abs()) {
        write!(f, "{v}")
    } else {
        write!(f, "{v:e}")
    }
}

fn write_json(f: &mut fmt::Formatter<'_>, value: ValueRef<'_>) -> fmt::Result {
    match value {
        ValueRef::Empty => f.write_str("null"),
        ValueRef::Bool(_) | ValueRef::Int(_) => write!(f, "{value}"),
        ValueRef::Double(v) if v.is_finite() => write_double(f, v),
        ValueRef::Double(_) | ValueRef::Bytes(_) => write!(f, "\"{value}\""),
        ValueRef::Str(v) => write_json_text(f, v),
        ValueRef::Array(values) => {
            f.write_char('[')?;
            for (i, value) in values.iter().enumerate() {
                if i > 0 {
                    f.write_char(',')?;
                }
                write_json(f, value.as_ref())?;
            }
            f.write_char(']')
        }
        ValueRef::KeyValues(pairs) => {
            f.write_char('{')?;
            for (i, (key, value)) in pairs.iter().enumerate() {
                if i > 0 {
                    f.write_char(',')?;
                }
                write_json_text(f, key)?;
                f.write_char(':')?;
                write_json(f, value.as_ref())?;
            }
            f.write_char('}')
        }
    }
}

fn write_json_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_char('"')?;
    for c in text.chars() {
        match c {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\r' => f.write_str("\\r")?,
            '\t' => f.write_str("\\t")?,
            c if u32::from(c) < 0x20 => write!(f, "\\u{:04x}", u32::from(c))?,
            c => f.write_char(c)?,
        }
    }
    f.write_char('"')
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn write_base64(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    for group in bytes.chunks(3) {
        let byte = |i: usize| u32::from(group.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4u32 {
            let sextet = (bits >> (18 - 6 * i)) as usize & 63;
            let digit = BASE64.get(sextet).copied().unwrap_or(b'=');
            f.write_char(if i as usize <= group.len() {
                char::from(digit)
            } else {
                '='
            })?;
        }
    }
    Ok(())
}

fn read_base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - digits.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(digits.len() / 4 * 3 + 2);
    let (mut bits, mut held) = (0u32, 0);
    for digit in digits.bytes() {
        let sextet = BASE64.iter().position(|&d| d == digit)?;
        bits = bits << 6 | u32::try_from(sextet).ok()?;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(out)
}

fn take_double(input: &mut &[u8]) -> Option<u64> {
    let (bytes, rest) = input.split_first_chunk::<8>()?;
    *input = rest;
    Some(u64::from_le_bytes(*bytes))
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    std::str::from_utf8(varint::take_bytes(input)?).ok()
}

/// The number of elements of an array or map at `depth`, refused if there cannot be as many.
fn take_count(input: &mut &[u8], depth: usize) -> Option<usize> {
    let count = usize::try_from(varint::take_u64(input)?).ok()?;
    (depth < VALUE_DEPTH_MAX && count <= input.len()).then_some(count)
}

/// Passes over an encoded value; `None` exactly where decoding it would fail. Allocates nothing.
pub(crate) fn skip(input: &mut &[u8]) -> Option<()> {
    skip_at(input, 0)
}

fn skip_at(input: &mut &[u8], depth: usize) -> Option<()> {
    let (&kind, rest) = input.split_first()?;
    *input = rest;
    match kind {
        EMPTY | FALSE | TRUE => {}
        INT => drop(varint::take_i64(input)?),
        DOUBLE => drop(take_double(input)?),
        STR => drop(take_text(input)?),
        BYTES => drop(varint::take_bytes(input)?),
        ARRAY => {
            for _ in 0..take_count(input, depth)? {
                skip_at(input, depth + 1)?;
            }
        }
        KEY_VALUES => {
            for _ in 0..take_count(input, depth)? {
                take_text(input)?;
                skip_at(input, depth + 1)?;
            }
        }
        _ => return None,
    }
    Some(())
}

/// The display form of an encoded value. Text is borrowed; anything else is written to `scratch`.
pub(crate) fn display<'a>(encoded: &'a [u8], scratch: &'a mut String) -> &'a str {
    if let Some((&STR, mut text)) = encoded.split_first() {
        return take_text(&mut text).unwrap_or_default();
    }
    scratch.clear();
    let mut input = encoded;
    if let Some(value) = Value::decode(&mut input) {
        // Writing to a string cannot fail.
        let _ = write!(scratch, "{value}");
    }
    scratch
}

/// The text of an encoded value that is text.
pub(crate) fn encoded_text(encoded: &[u8]) -> Option<&[u8]> {
    let (&kind, mut rest) = encoded.split_first()?;
    let text = varint::take_bytes(&mut rest)?;
    (kind == STR && rest.is_empty()).then_some(text)
}

/// Appends the encoding of a text.
#[inline]
pub(crate) fn encode_text(text: &[u8], out: &mut Vec<u8>) {
    out.push(STR);
    varint::put_bytes(out, text);
}

/// Calls `each` with every encoding whose display form is `text`. Returns false if there may be
/// more (arrays, maps, NaN with any payload): the caller then compares display forms one by one.
pub(crate) fn encodings_displayed_as(text: &str, mut each: impl FnMut(&[u8])) -> bool {
    if text.starts_with(['[', '{']) || text == "NaN" {
        return false;
    }
    let mut encoded = Vec::with_capacity(text.len() + 12);
    let mut offer = |value: ValueRef<'_>| {
        encoded.clear();
        if value.encode(&mut encoded).is_ok() {
            each(&encoded);
        }
    };
    offer(ValueRef::Str(text));
    let shown_so = |value: &ValueRef<'_>| value.to_string() == text;
    if text.is_empty() {
        offer(ValueRef::Empty);
    }
    if let Some(value) = text.parse().ok().map(ValueRef::Bool).filter(shown_so) {
        offer(value);
    }
    if let Some(value) = text.parse().ok().map(ValueRef::Int).filter(shown_so) {
        offer(value);
    }
    if let Some(value) = text.parse().ok().map(ValueRef::Double).filter(shown_so) {
        offer(value);
    }
    if let Some(bytes) = read_base64(text)
        && shown_so(&ValueRef::Bytes(&bytes))
    {
        offer(ValueRef::Bytes(&bytes));
    }
    true
}

#[cfg(test)]
pub(crate) mod strategies {
    use proptest::prelude::*;

    use super::Value;

    /// Values of every type, nested up to three levels.
    pub(crate) fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Empty),
            any::<bool>().prop_map(Value::Bool),
            prop_oneof![any::<i64>(), -3i64..600].prop_map(Value::Int),
            any::<u64>().prop_map(|bits| Value::Double(f64::from_bits(bits))),
            prop_oneof![Just(500.0), Just(0.0), Just(-0.0)].prop_map(Value::Double),
            prop_oneof![".{0,12}", "[a-c]{0,2}", "[0-9]{1,3}"].prop_map(Value::Str),
            prop::collection::vec(any::<u8>(), 0..8).prop_map(Value::Bytes),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::Array),
                prop::collection::vec(("[a-c]{0,2}", inner), 0..4).prop_map(Value::KeyValues),
            ]
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{strategies::value, *};

    fn encoded(value: &Value) -> Vec<u8> {
        let mut out = Vec::new();
        value.as_ref().encode(&mut out).unwrap();
        out
    }

    proptest! {
        #[test]
        fn values_come_back_bit_for_bit(value in value()) {
            let bytes = encoded(&value);
            let mut input = bytes.as_slice();
            prop_assert_eq!(Value::decode(&mut input), Some(value));
            prop_assert!(input.is_empty());
            let mut input = bytes.as_slice();
            prop_assert_eq!(skip(&mut input), Some(()));
            prop_assert!(input.is_empty());
        }

        #[test]
        fn any_bytes_are_decoded_or_refused(bytes: Vec<u8>) {
            let (mut decoded, mut skipped) = (bytes.as_slice(), bytes.as_slice());
            let value = Value::decode(&mut decoded);
            prop_assert_eq!(value.is_some(), skip(&mut skipped).is_some());
        }

        #[test]
        fn encodings_are_found_by_what_they_display(value in value()) {
            let text = value.to_string();
            let bytes = encoded(&value);
            let mut found = false;
            let complete = encodings_displayed_as(&text, |candidate| found |= candidate == bytes);
            prop_assert!(found || !complete, "{:?} shown as {:?}", value, text);
            let mut scratch = String::new();
            prop_assert_eq!(display(&bytes, &mut scratch), text);
        }
    }

    #[test]
    fn nesting_past_the_bound_is_refused_both_ways() {
        let nest = |levels| (0..levels).fold(Value::Empty, |v, _| Value::Array(vec![v]));
        assert_eq!(
            nest(VALUE_DEPTH_MAX + 1).as_ref().encode(&mut Vec::new()),
            Err(TooDeep)
        );
        let deepest = nest(VALUE_DEPTH_MAX);
        assert_eq!(
            Value::decode(&mut encoded(&deepest).as_slice()),
            Some(deepest.clone())
        );
        let mut deeper = vec![ARRAY, 1];
        deeper.extend(encoded(&deepest));
        assert_eq!(Value::decode(&mut deeper.as_slice()), None);
    }

    #[test]
    fn values_display_as_people_search_for_them() {
        let shown = [
            (Value::Int(500), "500"),
            (Value::Double(500.0), "500"),
            (Value::Double(1e300), "1e300"),
            (Value::Double(f64::NEG_INFINITY), "-Infinity"),
            (Value::Bytes(b"hello".to_vec()), "aGVsbG8="),
            (Value::Empty, ""),
            (Value::Str("a\"b".into()), "a\"b"),
            (
                Value::KeyValues(vec![
                    (
                        "k\"".into(),
                        Value::Array(vec![Value::Empty, Value::Str("x\n".into())]),
                    ),
                    ("b".into(), Value::Bytes(vec![0])),
                ]),
                r#"{"k\"":[null,"x\n"],"b":"AA=="}"#,
            ),
        ];
        for (value, text) in shown {
            assert_eq!(value.to_string(), text);
        }
    }
}
