//! OTLP's JSON form, written out as protobuf while it is read, so that one decoder serves both.
//!
//! The JSON form is protobuf's own with OTLP's changes: trace and span ids in hexadecimal, enums as
//! numbers, unknown fields ignored. 64-bit integers come as strings or as numbers; field names in
//! lowerCamelCase or as in the `.proto` files; enum names are taken too; `null` is a field left out;
//! `NaN`, `Infinity` and `-Infinity` are strings.
//!
//! A table says what each message holds ([`Schema`]); fields a table leaves out are skipped like
//! unknown ones. Lengths are written as five-byte varints, so that nothing is moved afterwards.
//! Nesting is bounded by the JSON reader (128 levels).

use std::fmt;

use base64::{
    Engine as _,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::error::DecodeError;

/// Appends the protobuf form of an `ExportTraceServiceRequest` in JSON.
///
/// # Errors
/// [`DecodeError::Json`]; `out` then holds a part.
pub fn traces_to_protobuf(json: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    transcode(json, &TRACE_REQUEST, out)
}

/// Appends the protobuf form of an `ExportMetricsServiceRequest` in JSON.
///
/// # Errors
/// [`DecodeError::Json`]; `out` then holds a part.
pub fn metrics_to_protobuf(json: &[u8], out: &mut Vec<u8>) -> Result<(), DecodeError> {
    transcode(json, &METRICS_REQUEST, out)
}

fn transcode(json: &[u8], schema: &'static Schema, out: &mut Vec<u8>) -> Result<(), DecodeError> {
    let mut reader = serde_json::Deserializer::from_slice(json);
    let read = MessageSeed { schema, out }
        .deserialize(&mut reader)
        .and_then(|()| reader.end());
    read.map_err(|e| DecodeError::Json {
        reason: e.to_string(),
    })
}

/// What a message may hold.
struct Schema(&'static [FieldSchema]);

struct FieldSchema {
    /// In lowerCamelCase.
    name: &'static str,
    number: u32,
    kind: Kind,
}

/// How a field is written in both forms. Repetition needs no mark: a JSON array is written as so many
/// fields, and only the message's decoder knows whether it wants the last one or all.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Bool,
    /// Bytes in base64, of either alphabet.
    Base64,
    /// An id in hexadecimal.
    Hex,
    /// `uint32`.
    Uint32,
    /// `int64`.
    Int64,
    Fixed32,
    Fixed64,
    Sfixed64,
    Double,
    Enum(&'static [&'static str]),
    Message(&'static Schema),
}

const fn field(name: &'static str, number: u32, kind: Kind) -> FieldSchema {
    FieldSchema { name, number, kind }
}

use Kind::{Base64, Bool, Double, Enum, Fixed32, Fixed64, Hex, Int64, Sfixed64, Text, Uint32};

static TRACE_REQUEST: Schema = Schema(&[field("resourceSpans", 1, Kind::Message(&RESOURCE_SPANS))]);
static RESOURCE_SPANS: Schema = Schema(&[
    field("resource", 1, Kind::Message(&RESOURCE)),
    field("scopeSpans", 2, Kind::Message(&SCOPE_SPANS)),
    field("schemaUrl", 3, Text),
]);
static SCOPE_SPANS: Schema = Schema(&[
    field("scope", 1, Kind::Message(&SCOPE)),
    field("spans", 2, Kind::Message(&SPAN)),
    field("schemaUrl", 3, Text),
]);
static SPAN: Schema = Schema(&[
    field("traceId", 1, Hex),
    field("spanId", 2, Hex),
    field("traceState", 3, Text),
    field("parentSpanId", 4, Hex),
    field("name", 5, Text),
    field("kind", 6, Enum(&SPAN_KINDS)),
    field("startTimeUnixNano", 7, Fixed64),
    field("endTimeUnixNano", 8, Fixed64),
    field("attributes", 9, Kind::Message(&KEY_VALUE)),
    field("droppedAttributesCount", 10, Uint32),
    field("events", 11, Kind::Message(&EVENT)),
    field("droppedEventsCount", 12, Uint32),
    field("links", 13, Kind::Message(&LINK)),
    field("droppedLinksCount", 14, Uint32),
    field("status", 15, Kind::Message(&STATUS)),
    field("flags", 16, Fixed32),
]);
static SPAN_KINDS: [&str; 6] = [
    "SPAN_KIND_UNSPECIFIED",
    "SPAN_KIND_INTERNAL",
    "SPAN_KIND_SERVER",
    "SPAN_KIND_CLIENT",
    "SPAN_KIND_PRODUCER",
    "SPAN_KIND_CONSUMER",
];
static EVENT: Schema = Schema(&[
    field("timeUnixNano", 1, Fixed64),
    field("name", 2, Text),
    field("attributes", 3, Kind::Message(&KEY_VALUE)),
    field("droppedAttributesCount", 4, Uint32),
]);
static LINK: Schema = Schema(&[
    field("traceId", 1, Hex),
    field("spanId", 2, Hex),
    field("traceState", 3, Text),
    field("attributes", 4, Kind::Message(&KEY_VALUE)),
    field("droppedAttributesCount", 5, Uint32),
    field("flags", 6, Fixed32),
]);
static STATUS: Schema = Schema(&[
    field("message", 2, Text),
    field("code", 3, Enum(&STATUS_CODES)),
]);
static STATUS_CODES: [&str; 3] = ["STATUS_CODE_UNSET", "STATUS_CODE_OK", "STATUS_CODE_ERROR"];

static RESOURCE: Schema = Schema(&[
    field("attributes", 1, Kind::Message(&KEY_VALUE)),
    field("droppedAttributesCount", 2, Uint32),
    field("entityRefs", 3, Kind::Message(&ENTITY_REF)),
]);
static ENTITY_REF: Schema = Schema(&[
    field("schemaUrl", 1, Text),
    field("type", 2, Text),
    field("idKeys", 3, Text),
    field("descriptionKeys", 4, Text),
]);
static SCOPE: Schema = Schema(&[
    field("name", 1, Text),
    field("version", 2, Text),
    field("attributes", 3, Kind::Message(&KEY_VALUE)),
    field("droppedAttributesCount", 4, Uint32),
]);
static KEY_VALUE: Schema = Schema(&[
    field("key", 1, Text),
    field("value", 2, Kind::Message(&ANY_VALUE)),
]);
static ANY_VALUE: Schema = Schema(&[
    field("stringValue", 1, Text),
    field("boolValue", 2, Bool),
    field("intValue", 3, Int64),
    field("doubleValue", 4, Double),
    field("arrayValue", 5, Kind::Message(&ARRAY_VALUE)),
    field("kvlistValue", 6, Kind::Message(&KEY_VALUE_LIST)),
    field("bytesValue", 7, Base64),
]);
static ARRAY_VALUE: Schema = Schema(&[field("values", 1, Kind::Message(&ANY_VALUE))]);
static KEY_VALUE_LIST: Schema = Schema(&[field("values", 1, Kind::Message(&KEY_VALUE))]);

static METRICS_REQUEST: Schema = Schema(&[field(
    "resourceMetrics",
    1,
    Kind::Message(&RESOURCE_METRICS),
)]);
static RESOURCE_METRICS: Schema = Schema(&[
    field("resource", 1, Kind::Message(&RESOURCE)),
    field("scopeMetrics", 2, Kind::Message(&SCOPE_METRICS)),
    field("schemaUrl", 3, Text),
]);
static SCOPE_METRICS: Schema = Schema(&[
    field("scope", 1, Kind::Message(&SCOPE)),
    field("metrics", 2, Kind::Message(&METRIC)),
    field("schemaUrl", 3, Text),
]);
static METRIC: Schema = Schema(&[
    field("name", 1, Text),
    field("description", 2, Text),
    field("unit", 3, Text),
    field("gauge", 5, Kind::Message(&GAUGE)),
    field("sum", 7, Kind::Message(&SUM)),
    field("histogram", 9, Kind::Message(&HISTOGRAM)),
    field(
        "exponentialHistogram",
        10,
        Kind::Message(&EXPONENTIAL_HISTOGRAM),
    ),
    field("summary", 11, Kind::Message(&SUMMARY)),
    field("metadata", 12, Kind::Message(&KEY_VALUE)),
]);
static GAUGE: Schema = Schema(&[field("dataPoints", 1, Kind::Message(&NUMBER_POINT))]);
static SUM: Schema = Schema(&[
    field("dataPoints", 1, Kind::Message(&NUMBER_POINT)),
    field("aggregationTemporality", 2, Enum(&TEMPORALITIES)),
    field("isMonotonic", 3, Bool),
]);
static TEMPORALITIES: [&str; 3] = [
    "AGGREGATION_TEMPORALITY_UNSPECIFIED",
    "AGGREGATION_TEMPORALITY_DELTA",
    "AGGREGATION_TEMPORALITY_CUMULATIVE",
];
static HISTOGRAM: Schema = Schema(&[
    field("dataPoints", 1, Kind::Message(&HISTOGRAM_POINT)),
    field("aggregationTemporality", 2, Enum(&TEMPORALITIES)),
]);
/// Its points are counted and refused: nothing of them is read.
static EXPONENTIAL_HISTOGRAM: Schema =
    Schema(&[field("dataPoints", 1, Kind::Message(&EXPONENTIAL_POINT))]);
static EXPONENTIAL_POINT: Schema = Schema(&[]);
static SUMMARY: Schema = Schema(&[field("dataPoints", 1, Kind::Message(&SUMMARY_POINT))]);
static NUMBER_POINT: Schema = Schema(&[
    field("startTimeUnixNano", 2, Fixed64),
    field("timeUnixNano", 3, Fixed64),
    field("asDouble", 4, Double),
    field("exemplars", 5, Kind::Message(&EXEMPLAR)),
    field("asInt", 6, Sfixed64),
    field("attributes", 7, Kind::Message(&KEY_VALUE)),
    field("flags", 8, Uint32),
]);
static HISTOGRAM_POINT: Schema = Schema(&[
    field("startTimeUnixNano", 2, Fixed64),
    field("timeUnixNano", 3, Fixed64),
    field("count", 4, Fixed64),
    field("sum", 5, Double),
    field("bucketCounts", 6, Fixed64),
    field("explicitBounds", 7, Double),
    field("exemplars", 8, Kind::Message(&EXEMPLAR)),
    field("attributes", 9, Kind::Message(&KEY_VALUE)),
    field("flags", 10, Uint32),
    field("min", 11, Double),
    field("max", 12, Double),
]);
static SUMMARY_POINT: Schema = Schema(&[
    field("startTimeUnixNano", 2, Fixed64),
    field("timeUnixNano", 3, Fixed64),
    field("count", 4, Fixed64),
    field("sum", 5, Double),
    field("quantileValues", 6, Kind::Message(&QUANTILE)),
    field("attributes", 7, Kind::Message(&KEY_VALUE)),
    field("flags", 8, Uint32),
]);
static QUANTILE: Schema = Schema(&[field("quantile", 1, Double), field("value", 2, Double)]);
static EXEMPLAR: Schema = Schema(&[
    field("timeUnixNano", 2, Fixed64),
    field("asDouble", 3, Double),
    field("spanId", 4, Hex),
    field("traceId", 5, Hex),
    field("asInt", 6, Sfixed64),
    field("filteredAttributes", 7, Kind::Message(&KEY_VALUE)),
]);

/// Base64 as protobuf's JSON form takes it: padded or not.
const STANDARD: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&base64::alphabet::URL_SAFE, LENIENT);
const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);

/// Reads a JSON object as the message `schema` describes.
struct MessageSeed<'o> {
    schema: &'static Schema,
    out: &'o mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for MessageSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for MessageSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(KeySeed(self.schema))? {
            match field {
                Some(field) => map.next_value_seed(ValueSeed {
                    field,
                    out: self.out,
                    nested: false,
                })?,
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// Finds the field a JSON key names.
struct KeySeed(&'static Schema);

impl<'de> DeserializeSeed<'de> for KeySeed {
    type Value = Option<&'static FieldSchema>;

    fn deserialize<D: serde::Deserializer<'de>>(
        self,
        deserializer: D,
    ) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeySeed {
    type Value = Option<&'static FieldSchema>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a field name")
    }

    fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
        let fields = self.0.0;
        let exact = fields.iter().find(|field| field.name == key);
        Ok(exact.or_else(|| {
            fields
                .iter()
                .find(|field| is_snake_case_of(key, field.name))
        }))
    }
}

/// Whether `snake` is the `.proto` name of the JSON name `camel`.
fn is_snake_case_of(snake: &str, camel: &str) -> bool {
    let mut snake = snake.bytes();
    let same = camel.bytes().all(|c| {
        if c.is_ascii_uppercase() {
            snake.next() == Some(b'_') && snake.next() == Some(c.to_ascii_lowercase())
        } else {
            snake.next() == Some(c)
        }
    });
    same && snake.next().is_none()
}

/// Reads a JSON value as one field, or an array as many.
struct ValueSeed<'o> {
    field: &'static FieldSchema,
    out: &'o mut Vec<u8>,
    /// Inside an array, where there is no second one.
    nested: bool,
}

impl ValueSeed<'_> {
    fn key(&mut self, wire_type: u32) {
        put_varint(self.out, u64::from(self.field.number << 3 | wire_type));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.key(2);
        put_varint(self.out, bytes.len() as u64);
        self.out.extend_from_slice(bytes);
    }

    fn wrong<E: serde::de::Error>(&self, found: impl fmt::Display) -> E {
        E::custom(format_args!("field {}: {found}", self.field.name))
    }

    fn integer<E: serde::de::Error>(mut self, value: i128) -> Result<(), E> {
        let out_of_range = |seed: &Self| seed.wrong(format_args!("{value} is out of range"));
        match self.field.kind {
            Uint32 => {
                let value = u32::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(0);
                put_varint(self.out, value.into());
            }
            Enum(_) => {
                let value = i32::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(0);
                put_varint(self.out, i64::from(value).cast_unsigned());
            }
            Int64 => {
                let value = i64::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(0);
                put_varint(self.out, value.cast_unsigned());
            }
            Fixed32 => {
                let value = u32::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(5);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Fixed64 => {
                let value = u64::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(1);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Sfixed64 => {
                let value = i64::try_from(value).map_err(|_| out_of_range(&self))?;
                self.key(1);
                self.out.extend_from_slice(&value.to_le_bytes());
            }
            Double => return self.double(value as f64),
            _ => return Err(self.wrong("a number is out of place")),
        }
        Ok(())
    }

    fn double<E: serde::de::Error>(mut self, value: f64) -> Result<(), E> {
        if matches!(self.field.kind, Double) {
            self.key(1);
            self.out.extend_from_slice(&value.to_bits().to_le_bytes());
            return Ok(());
        }
        // Protobuf's JSON form takes 1.0 and 1e3 for integers.
        #[expect(
            clippy::cast_possible_truncation,
            reason = "whole and in range is checked beside it"
        )]
        if value.fract() == 0.0 && value.abs() < 1.9e19 {
            return self.integer(value as i128);
        }
        Err(self.wrong(format_args!("{value} is not an integer in range")))
    }

    fn text<E: serde::de::Error>(mut self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Text => self.bytes(text.as_bytes()),
            Base64 => {
                let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text));
                let bytes = bytes.map_err(|e| self.wrong(format_args!("not base64: {e}")))?;
                self.bytes(&bytes);
            }
            Hex => {
                let bytes = from_hex(text).ok_or_else(|| self.wrong("not hexadecimal"))?;
                self.bytes(&bytes);
            }
            Enum(names) => {
                if let Some(value) = names.iter().position(|name| *name == text) {
                    return self.integer(value as i128);
                }
                let number = text.parse::<i32>();
                let number =
                    number.map_err(|_| self.wrong(format_args!("unknown value {text:?}")))?;
                return self.integer(number.into());
            }
            Bool | Kind::Message(_) => return Err(self.wrong("a string is out of place")),
            _ => {
                if let Ok(value) = text.parse::<i128>() {
                    return self.integer(value);
                }
                let value = match text {
                    "NaN" => f64::NAN,
                    "Infinity" => f64::INFINITY,
                    "-Infinity" => f64::NEG_INFINITY,
                    // Rust reads more than JSON writes ("inf", "nan"): only digits may begin or end.
                    _ if text.ends_with(|c: char| c.is_ascii_digit()) => text
                        .parse()
                        .map_err(|_| self.wrong(format_args!("{text:?} is not a number")))?,
                    _ => return Err(self.wrong(format_args!("{text:?} is not a number"))),
                };
                return self.double(value);
            }
        }
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for ValueSeed<'_> {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for ValueSeed<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value for the field {}", self.field.name)
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: serde::de::Error>(mut self, value: bool) -> Result<(), E> {
        if !matches!(self.field.kind, Bool) {
            return Err(self.wrong("a truth value is out of place"));
        }
        self.key(0);
        self.out.push(u8::from(value));
        Ok(())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<(), E> {
        self.integer(value.into())
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<(), E> {
        self.double(value)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<(), E> {
        self.text(text)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        if self.nested {
            return Err(self.wrong("a list inside a list"));
        }
        let Self { field, out, .. } = self;
        while seq
            .next_element_seed(ValueSeed {
                field,
                out,
                nested: true,
            })?
            .is_some()
        {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        let Kind::Message(schema) = self.field.kind else {
            return Err(self.wrong("an object is out of place"));
        };
        self.key(2);
        let start = self.out.len();
        self.out.extend_from_slice(&[0; 5]);
        let body = self.out.len();
        MessageSeed {
            schema,
            out: self.out,
        }
        .visit_map(map)?;
        let length = u32::try_from(self.out.len() - body);
        let length = length.map_err(|_| A::Error::custom("a message past 4 GiB"))?;
        if let Some(place) = self.out.get_mut(start..body) {
            place.copy_from_slice(&padded_varint(length));
        }
        Ok(())
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

fn padded_varint(value: u32) -> [u8; 5] {
    let bits = |shift: u32| ((value >> shift) & 0x7f) as u8;
    [
        bits(0) | 0x80,
        bits(7) | 0x80,
        bits(14) | 0x80,
        bits(21) | 0x80,
        bits(28),
    ]
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| u8::try_from(digit(*high)? * 16 + digit(*low)?).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::{
        collector::{
            metrics::v1::ExportMetricsServiceRequest, trace::v1::ExportTraceServiceRequest,
        },
        common::v1::any_value::Value,
        metrics::v1::{metric::Data, number_data_point},
    };
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    fn traces(json: &str) -> Result<ExportTraceServiceRequest, DecodeError> {
        let mut out = Vec::new();
        traces_to_protobuf(json.as_bytes(), &mut out)?;
        Ok(ExportTraceServiceRequest::decode(out.as_slice()).unwrap())
    }

    fn metrics(json: &str) -> Result<ExportMetricsServiceRequest, DecodeError> {
        let mut out = Vec::new();
        metrics_to_protobuf(json.as_bytes(), &mut out)?;
        Ok(ExportMetricsServiceRequest::decode(out.as_slice()).unwrap())
    }

    fn reason(json: &str) -> String {
        traces(json).unwrap_err().to_string()
    }

    const SPAN_JSON: &str = r#"{"resourceSpans":[{
        "scopeSpans":[{"spans":[{
            "traceId":"5B8EFFF798038103D269B633813FC60C","spanId":"eee19b7ec3c1b174",
            "parentSpanId":"eee19b7ec3c1b173","name":"I'm a server span","traceState":"a=b",
            "startTimeUnixNano":"1544712660000000000","endTimeUnixNano":1544712661000000000,
            "kind":2,"flags":257,"droppedAttributesCount":3,"unknownField":{"a":[1,{"b":null}]},
            "attributes":[
                {"key":"s","value":{"stringValue":"ü\n"}},
                {"key":"i","value":{"intValue":"-9223372036854775808"}},
                {"key":"n","value":{"intValue":7}},
                {"key":"d","value":{"doubleValue":1}},
                {"key":"b","value":{"boolValue":false}},
                {"key":"y","value":{"bytesValue":"-_8="}},
                {"key":"a","value":{"arrayValue":{"values":[{"stringValue":"x"},{"doubleValue":"NaN"}]}}},
                {"key":"m","value":{"kvlistValue":{"values":[{"key":"k","value":{}}]}}},
                {"key":"e"}],
            "events":[{"timeUnixNano":"1","name":"ev","attributes":[],"droppedAttributesCount":1}],
            "links":[{"traceId":"5b8efff798038103d269b633813fc60c","spanId":"eee19b7ec3c1b174","flags":1}],
            "status":{"code":"STATUS_CODE_ERROR","message":"no"}}],
            "scope":{"name":"lib","version":"1"},"schemaUrl":"https://scope"}],
        "resource":{"attributes":[{"key":"service.name","value":{"stringValue":"shop"}}],
            "entityRefs":[{"type":"service","idKeys":["service.name"]}]},
        "schemaUrl":"https://resource"}]}"#;

    #[test]
    fn a_span_in_json_is_the_span_in_protobuf() {
        let request = traces(SPAN_JSON).unwrap();
        let resource_spans = &request.resource_spans[0];
        assert_eq!(resource_spans.schema_url, "https://resource");
        let resource = resource_spans.resource.as_ref().unwrap();
        assert_eq!(resource.entity_refs[0].id_keys, ["service.name"]);
        let span = &resource_spans.scope_spans[0].spans[0];
        assert_eq!(span.trace_id[..4], [0x5b, 0x8e, 0xff, 0xf7]);
        assert_eq!((span.span_id.len(), span.parent_span_id.len()), (8, 8));
        assert_eq!(span.start_time_unix_nano, 1_544_712_660_000_000_000);
        assert_eq!(span.end_time_unix_nano, 1_544_712_661_000_000_000);
        assert_eq!(
            (span.kind, span.flags, span.dropped_attributes_count),
            (2, 257, 3)
        );
        let status = span.status.as_ref().unwrap();
        assert_eq!((status.code, status.message.as_str()), (2, "no"));
        let values: Vec<_> = span
            .attributes
            .iter()
            .map(|a| a.value.clone().and_then(|v| v.value))
            .collect();
        assert_eq!(values[0], Some(Value::StringValue("ü\n".into())));
        assert_eq!(values[1], Some(Value::IntValue(i64::MIN)));
        assert_eq!(values[2], Some(Value::IntValue(7)));
        assert_eq!(values[3], Some(Value::DoubleValue(1.0)));
        assert_eq!(values[4], Some(Value::BoolValue(false)));
        assert_eq!(values[5], Some(Value::BytesValue(vec![0xfb, 0xff])));
        assert!(matches!(&values[6], Some(Value::ArrayValue(a)) if a.values.len() == 2));
        assert!(matches!(&values[7], Some(Value::KvlistValue(l)) if l.values[0].key == "k"));
        assert_eq!(values[8], None);
        assert_eq!(span.events[0].name, "ev");
        assert_eq!(span.links[0].flags, 1);
    }

    #[test]
    fn field_names_of_the_proto_files_are_taken_too() {
        let request = traces(
            r#"{"resource_spans":[{"scope_spans":[{"spans":[{"trace_id":"01",
                "start_time_unix_nano":5}]}]}]}"#,
        )
        .unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.trace_id.as_slice(), span.start_time_unix_nano),
            (&[1][..], 5)
        );
    }

    #[test]
    fn points_of_each_kind_are_read() {
        let request = metrics(
            r#"{"resourceMetrics":[{"scopeMetrics":[{"metrics":[
            {"name":"g","unit":"1","gauge":{"dataPoints":[
                {"timeUnixNano":"9","asInt":"-4"},{"asDouble":"-Infinity"},{"asDouble":1e3},
                {"asInt":"12","exemplars":[{"traceId":"0102","asDouble":2,"filteredAttributes":[]}]}]}},
            {"name":"s","sum":{"isMonotonic":true,"aggregationTemporality":2,"dataPoints":[{}]}},
            {"name":"h","histogram":{"aggregationTemporality":"AGGREGATION_TEMPORALITY_DELTA",
                "dataPoints":[{"count":"3","sum":1.5,"bucketCounts":["1",2,"0"],
                "explicitBounds":[1,"2.5"],"min":null}]}},
            {"name":"e","exponentialHistogram":{"dataPoints":[{"scale":3},{}]}},
            {"name":"q","summary":{"dataPoints":[{"count":1,"quantileValues":[
                {"quantile":0.5,"value":7}]}]}}]}]}]}"#,
        )
        .unwrap();
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(Data::Gauge(gauge)) = &metrics[0].data else {
            panic!()
        };
        let values: Vec<_> = gauge.data_points.iter().map(|p| p.value.unwrap()).collect();
        assert_eq!(
            values,
            [
                number_data_point::Value::AsInt(-4),
                number_data_point::Value::AsDouble(f64::NEG_INFINITY),
                number_data_point::Value::AsDouble(1000.0),
                number_data_point::Value::AsInt(12),
            ]
        );
        assert_eq!(gauge.data_points[3].exemplars[0].trace_id, [1, 2]);
        let Some(Data::Sum(sum)) = &metrics[1].data else {
            panic!()
        };
        assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
        let Some(Data::Histogram(histogram)) = &metrics[2].data else {
            panic!()
        };
        let point = &histogram.data_points[0];
        assert_eq!(histogram.aggregation_temporality, 1);
        assert_eq!(point.bucket_counts, [1, 2, 0]);
        assert_eq!(point.explicit_bounds, [1.0, 2.5]);
        assert_eq!((point.count, point.sum, point.min), (3, Some(1.5), None));
        let Some(Data::ExponentialHistogram(exponential)) = &metrics[3].data else {
            panic!()
        };
        assert_eq!(exponential.data_points.len(), 2);
        let Some(Data::Summary(summary)) = &metrics[4].data else {
            panic!()
        };
        assert!((summary.data_points[0].quantile_values[0].value - 7.0).abs() < f64::EPSILON);
    }

    #[test]
    fn an_empty_object_is_an_empty_request() {
        assert_eq!(traces("{}").unwrap().resource_spans, []);
        assert_eq!(
            traces(r#" {"resourceSpans":null} "#)
                .unwrap()
                .resource_spans,
            []
        );
    }

    #[test]
    fn what_does_not_fit_its_field_is_refused_by_name() {
        let span = |inner: &str| {
            reason(&format!(
                r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{inner}}}]}}]}}]}}"#
            ))
        };
        assert!(span(r#""traceId":"xy""#).contains("field traceId: not hexadecimal"));
        assert!(span(r#""kind":"SPAN_KIND_ODD""#).contains("field kind: unknown value"));
        assert!(span(r#""startTimeUnixNano":-1"#).contains("-1 is out of range"));
        assert!(span(r#""startTimeUnixNano":1.5"#).contains("is not an integer"));
        assert!(span(r#""startTimeUnixNano":"inf""#).contains("is not a number"));
        assert!(span(r#""name":7"#).contains("a number is out of place"));
        assert!(span(r#""name":{}"#).contains("an object is out of place"));
        assert!(span(r#""flags":true"#).contains("a truth value is out of place"));
        assert!(span(r#""events":[[]]"#).contains("a list inside a list"));
        assert!(
            span(r#""attributes":[{"key":"b","value":{"bytesValue":"*"}}]"#).contains("base64")
        );
        assert!(reason("[]").contains("expected an object"));
        assert!(reason("{} x").contains("trailing"));
        assert!(reason("").contains("EOF"));
    }

    #[test]
    fn nesting_without_end_is_refused() {
        let deep = format!("{}{}", "{\"arrayValue\":{\"values\":[".repeat(100_000), "");
        let json = format!(
            r#"{{"resourceSpans":[{{"resource":{{"attributes":[{{"key":"k","value":{deep}"#
        );
        assert!(reason(&json).contains("recursion"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>) {
            let _ = traces_to_protobuf(&bytes, &mut Vec::new());
        }

        #[test]
        fn damaged_json_is_read_or_refused(at: prop::sample::Index, byte: u8) {
            let mut json = SPAN_JSON.as_bytes().to_vec();
            let at = at.index(json.len());
            json[at] = byte;
            let mut out = Vec::new();
            if traces_to_protobuf(&json, &mut out).is_ok() {
                prop_assert!(ExportTraceServiceRequest::decode(out.as_slice()).is_ok());
            }
        }

        #[test]
        fn doubles_and_integers_survive(double: f64, int: i64, time: u64) {
            let json = serde_json::json!({"resourceMetrics":[{"scopeMetrics":[{"metrics":[{"gauge":
                {"dataPoints":[{"asDouble":double,"timeUnixNano":time.to_string()},{"asInt":int}]}}]}]}]});
            let request = metrics(&json.to_string()).unwrap();
            let Some(Data::Gauge(gauge)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data
            else { panic!() };
            prop_assert_eq!(gauge.data_points[0].time_unix_nano, time);
            prop_assert_eq!(gauge.data_points[1].value, Some(number_data_point::Value::AsInt(int)));
            if double.is_finite() {
                let expected = Some(number_data_point::Value::AsDouble(double));
                prop_assert_eq!(gauge.data_points[0].value, expected);
            }
        }
    }
}
