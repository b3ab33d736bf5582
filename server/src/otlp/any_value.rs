//! OTLP's `AnyValue` and `KeyValue`, read where they lie, and the text a value has as a label.
//!
//! Two kinds of fault are told apart: bytes that are no protobuf spoil the whole request, a value that
//! cannot be kept (text that is not UTF-8, nesting past [`DEPTH_MAX`]) spoils the item that holds it.
//!
//! Of a value given twice the last one counts; parts of one list sent apart are not joined (protobuf
//! would allow it, no encoder does it).

use std::fmt::Write as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};

use rootline_engine::{Value, ValueRef};

use super::{
    error::DecodeError,
    wire::{Message, Reader, bytes_key, text, varint_key},
};

/// Lists inside lists that are followed before the item is refused: as deep as the engine's values.
pub(crate) const DEPTH_MAX: usize = 32;

const TEXT_KEY: u8 = bytes_key(1);
const INT_KEY: u8 = varint_key(3);

/// Why an item, or the whole request, cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is malformed.
    Request(DecodeError),
    /// The item (a span, a data point, a whole resource) is refused; the rest goes on.
    Item(&'static str),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Request(error)
    }
}

/// A value; strings, bytes and lists are slices of the request.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum AnyValue<'a> {
    Empty,
    Text(&'a str),
    Bool(bool),
    Int(i64),
    Double(f64),
    Bytes(&'a [u8]),
    Array(Message<'a>),
    KeyValues(Message<'a>),
}

impl<'a> AnyValue<'a> {
    /// Reads an `AnyValue` message.
    pub(crate) fn read(message: Message<'a>) -> Result<Self, Fault> {
        let mut value = Self::Empty;
        let mut fields = message.fields();
        // Almost every value is one text or integer.
        if fields.peek() == Some(TEXT_KEY) {
            value = Self::Text(string(fields.known_bytes()?)?);
        } else if fields.peek() == Some(INT_KEY) {
            value = Self::Int(fields.known_varint()?.cast_signed());
        }
        while let Some(field) = fields.next()? {
            value = match field.number {
                1 => Self::Text(string(field.bytes()?)?),
                2 => Self::Bool(field.varint()? != 0),
                3 => Self::Int(field.varint()?.cast_signed()),
                4 => Self::Double(field.double()?),
                5 => Self::Array(field.message()?),
                6 => Self::KeyValues(field.message()?),
                7 => Self::Bytes(field.bytes()?),
                _ => continue,
            };
        }
        Ok(value)
    }
}

/// A `string` field, or the refusal of what holds it.
#[inline]
pub(crate) fn string(bytes: &[u8]) -> Result<&str, Fault> {
    text(bytes).ok_or(Fault::Item("a string is not valid UTF-8"))
}

/// Reads a `KeyValue` message.
pub(crate) fn key_value(message: Message<'_>) -> Result<(&str, AnyValue<'_>), Fault> {
    let mut key = "";
    let mut value = AnyValue::Empty;
    let mut fields = message.fields();
    // Almost every pair is a key and a value in this order.
    if fields.peek() == Some(bytes_key(1)) {
        key = string(fields.known_bytes()?)?;
    }
    if fields.peek() == Some(bytes_key(2)) {
        value = AnyValue::read(fields.known_message()?)?;
    }
    while let Some(field) = fields.next()? {
        match field.number {
            1 => key = string(field.bytes()?)?,
            2 => value = AnyValue::read(field.message()?)?,
            _ => {}
        }
    }
    Ok((key, value))
}

/// The elements of an `ArrayValue` message.
pub(crate) struct Elements<'a>(Reader<'a>);

impl<'a> Elements<'a> {
    pub(crate) fn of(array: Message<'a>) -> Self {
        Self(array.fields())
    }

    pub(crate) fn next(&mut self) -> Result<Option<AnyValue<'a>>, Fault> {
        while let Some(field) = self.0.next()? {
            if field.number == 1 {
                return AnyValue::read(field.message()?).map(Some);
            }
        }
        Ok(None)
    }
}

/// The pairs of a `KeyValueList` message.
pub(crate) struct Pairs<'a>(Reader<'a>);

impl<'a> Pairs<'a> {
    pub(crate) fn of(list: Message<'a>) -> Self {
        Self(list.fields())
    }

    pub(crate) fn next(&mut self) -> Result<Option<(&'a str, AnyValue<'a>)>, Fault> {
        while let Some(field) = self.0.next()? {
            if field.number == 1 {
                return key_value(field.message()?).map(Some);
            }
        }
        Ok(None)
    }
}

/// A value as the engine takes it: borrowed, but for lists, which are rare.
#[derive(Debug)]
pub(crate) enum EngineValue<'a> {
    Borrowed(ValueRef<'a>),
    Owned(Value),
}

impl EngineValue<'_> {
    #[inline]
    pub(crate) fn as_ref(&self) -> ValueRef<'_> {
        match self {
            Self::Borrowed(value) => *value,
            Self::Owned(value) => value.as_ref(),
        }
    }
}

impl<'a> AnyValue<'a> {
    /// The value for the engine.
    #[inline]
    pub(crate) fn for_engine(self) -> Result<EngineValue<'a>, Fault> {
        Ok(EngineValue::Borrowed(match self {
            Self::Empty => ValueRef::Empty,
            Self::Text(text) => ValueRef::Str(text),
            Self::Bool(value) => ValueRef::Bool(value),
            Self::Int(value) => ValueRef::Int(value),
            Self::Double(value) => ValueRef::Double(value),
            Self::Bytes(bytes) => ValueRef::Bytes(bytes),
            Self::Array(_) | Self::KeyValues(_) => {
                return self.to_value(0).map(EngineValue::Owned);
            }
        }))
    }

    fn to_value(self, depth: usize) -> Result<Value, Fault> {
        Ok(match self {
            Self::Empty => Value::Empty,
            Self::Text(text) => Value::Str(text.to_owned()),
            Self::Bool(value) => Value::Bool(value),
            Self::Int(value) => Value::Int(value),
            Self::Double(value) => Value::Double(value),
            Self::Bytes(bytes) => Value::Bytes(bytes.to_vec()),
            Self::Array(_) | Self::KeyValues(_) if depth >= DEPTH_MAX => {
                return Err(Fault::Item(TOO_DEEP));
            }
            Self::Array(array) => {
                let mut elements = Elements::of(array);
                let mut values = Vec::new();
                while let Some(element) = elements.next()? {
                    values.push(element.to_value(depth + 1)?);
                }
                Value::Array(values)
            }
            Self::KeyValues(list) => {
                let mut pairs = Pairs::of(list);
                let mut values = Vec::new();
                while let Some((key, value)) = pairs.next()? {
                    values.push((key.to_owned(), value.to_value(depth + 1)?));
                }
                Value::KeyValues(values)
            }
        })
    }
}

impl AnyValue<'_> {
    /// Appends the text the value has where only text can be kept, as OpenTelemetry's common
    /// specification writes non-string attributes: a string as it is, numbers and lists as JSON,
    /// bytes in base64, nothing for an empty value.
    pub(crate) fn push_text(&self, out: &mut String) -> Result<(), Fault> {
        match self {
            Self::Empty => {}
            Self::Text(text) => out.push_str(text),
            Self::Double(value) => push_double(out, *value),
            Self::Bytes(bytes) => BASE64_STANDARD.encode_string(bytes, out),
            Self::Bool(_) | Self::Int(_) | Self::Array(_) | Self::KeyValues(_) => {
                self.push_json(out, 0)?;
            }
        }
        Ok(())
    }

    fn push_json(&self, out: &mut String, depth: usize) -> Result<(), Fault> {
        match self {
            Self::Array(_) | Self::KeyValues(_) if depth >= DEPTH_MAX => {
                return Err(Fault::Item(TOO_DEEP));
            }
            Self::Empty => out.push_str("null"),
            Self::Text(text) => push_json_string(out, text),
            Self::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
            Self::Int(value) => drop(write!(out, "{value}")),
            Self::Double(value) if value.is_finite() => push_double(out, *value),
            Self::Double(value) => {
                out.push('"');
                push_double(out, *value);
                out.push('"');
            }
            Self::Bytes(bytes) => {
                out.push('"');
                BASE64_STANDARD.encode_string(bytes, out);
                out.push('"');
            }
            Self::Array(array) => {
                let mut elements = Elements::of(*array);
                let mut separator = '[';
                while let Some(element) = elements.next()? {
                    out.push(separator);
                    element.push_json(out, depth + 1)?;
                    separator = ',';
                }
                out.push_str(if separator == '[' { "[]" } else { "]" });
            }
            Self::KeyValues(list) => {
                let mut pairs = Pairs::of(*list);
                let mut separator = '{';
                while let Some((key, value)) = pairs.next()? {
                    out.push(separator);
                    push_json_string(out, key);
                    out.push(':');
                    value.push_json(out, depth + 1)?;
                    separator = ',';
                }
                out.push_str(if separator == '{' { "{}" } else { "}" });
            }
        }
        Ok(())
    }
}

/// The refusal for nesting past [`DEPTH_MAX`].
pub(crate) const TOO_DEEP: &str = "an attribute's value is nested too deep";

/// A number as JavaScript writes it: shortest digits that read back, an exponent outside 1e-6..1e21.
fn push_double(out: &mut String, value: f64) {
    let size = value.abs();
    let _ = if value.is_nan() {
        write!(out, "NaN")
    } else if value.is_infinite() {
        write!(out, "{}Infinity", if value < 0.0 { "-" } else { "" })
    } else if size == 0.0 || (1e-6..1e21).contains(&size) {
        write!(out, "{value}")
    } else {
        let start = out.len();
        let written = write!(out, "{value:e}");
        if let Some(e) = out.get(start..).and_then(|s| s.find('e'))
            && !out
                .get(start + e + 1..)
                .unwrap_or_default()
                .starts_with('-')
        {
            out.insert(start + e + 1, '+');
        }
        written
    };
}

fn push_json_string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => drop(write!(out, "\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::common::v1::{
        AnyValue as ProtoValue, ArrayValue, KeyValue, KeyValueList, any_value::Value,
    };
    use prost::Message as _;

    use super::*;

    fn text_of(value: Value) -> String {
        let bytes = ProtoValue { value: Some(value) }.encode_to_vec();
        let mut out = String::new();
        AnyValue::read(Message::root(&bytes))
            .unwrap()
            .push_text(&mut out)
            .unwrap();
        out
    }

    fn list(values: Vec<Value>) -> Value {
        let values = values
            .into_iter()
            .map(|v| ProtoValue { value: Some(v) })
            .collect();
        Value::ArrayValue(ArrayValue { values })
    }

    #[test]
    fn scalars_are_written_plainly() {
        assert_eq!(text_of(Value::StringValue("a\"b".into())), "a\"b");
        assert_eq!(text_of(Value::BoolValue(true)), "true");
        assert_eq!(text_of(Value::IntValue(-5)), "-5");
        assert_eq!(text_of(Value::BytesValue(vec![1, 2, 255])), "AQL/");
    }

    #[test]
    fn doubles_are_written_as_javascript_writes_them() {
        for (value, text) in [
            (1.0, "1"),
            (0.1, "0.1"),
            (-0.000_001, "-0.000001"),
            (1e-7, "1e-7"),
            (1e21, "1e+21"),
            (-1.5e300, "-1.5e+300"),
            (f64::NAN, "NaN"),
            (f64::NEG_INFINITY, "-Infinity"),
        ] {
            assert_eq!(text_of(Value::DoubleValue(value)), text);
        }
    }

    #[test]
    fn lists_are_written_as_json() {
        let value = list(vec![
            Value::StringValue("a\"\n\u{1}".into()),
            Value::IntValue(1),
            Value::DoubleValue(f64::NAN),
            list(vec![]),
            Value::KvlistValue(KeyValueList {
                values: vec![KeyValue {
                    key: "k".into(),
                    value: Some(ProtoValue { value: None }),
                    ..Default::default()
                }],
            }),
        ]);
        assert_eq!(text_of(value), r#"["a\"\n\u0001",1,"NaN",[],{"k":null}]"#);
    }

    #[test]
    fn nesting_without_end_refuses_the_item() {
        let mut value = list(vec![]);
        for _ in 0..DEPTH_MAX {
            value = list(vec![value]);
        }
        let bytes = ProtoValue { value: Some(value) }.encode_to_vec();
        let read = AnyValue::read(Message::root(&bytes)).unwrap();
        assert_eq!(
            read.push_text(&mut String::new()),
            Err(Fault::Item(TOO_DEEP))
        );
        assert!(matches!(read.for_engine(), Err(Fault::Item(TOO_DEEP))));
    }
}
