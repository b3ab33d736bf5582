//! Label sets as bytes: the layout that Prometheus remote write uses for the `labels` fields of a
//! series, so that what a sender sent can be looked up as it stands.
//!
//! ```text
//! set   = label*
//! label = 0x0a len [ 0x0a name_len name 0x12 value_len value ]      lengths are LEB128
//! ```
//!
//! *Canonical* bytes hold names in strictly rising order, no empty name or value, shortest-form
//! lengths, and nothing else; so two sets are equal exactly if their canonical bytes are. What
//! comes from a sender may be any protobuf of that shape: [`LabelsBuilder::from_encoded`] takes it.

use crate::error::{Error, LabelFault};
use crate::labels::{Labels, LabelsBuilder};
use crate::varint::{push_varint, read_varint, varint_len};

/// Field 1, length-delimited: a label of a set, and the name of a label.
const TAG_FIELD_1: u8 = 0x0a;
/// Field 2, length-delimited: the value of a label.
const TAG_FIELD_2: u8 = 0x12;

impl Labels {
    /// Appends the canonical bytes.
    pub fn encode_canonical(&self, out: &mut Vec<u8>) {
        for (name, value) in self {
            let inner =
                2 + varint_len(name.len()) + name.len() + varint_len(value.len()) + value.len();
            out.push(TAG_FIELD_1);
            push_varint(out, inner as u64);
            out.push(TAG_FIELD_1);
            push_varint(out, name.len() as u64);
            out.extend_from_slice(name.as_bytes());
            out.push(TAG_FIELD_2);
            push_varint(out, value.len() as u64);
            out.extend_from_slice(value.as_bytes());
        }
    }

    /// Reads canonical bytes, to their end.
    ///
    /// # Errors
    /// [`Error::MalformedLabels`] where the shape breaks, [`Error::InvalidLabel`] for a name or
    /// value that a canonical set cannot hold. Never panics, whatever the bytes.
    pub fn decode_canonical(bytes: &[u8]) -> Result<Self, Error> {
        let mut cursor = Cursor { bytes, at: 0 };
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        while !cursor.is_at_end() {
            cursor.expect_tag(TAG_FIELD_1, "a label must start with 0x0a")?;
            let inner = cursor.take_canonical_delimited()?;
            let mut label = Cursor {
                bytes: inner,
                at: 0,
            };
            let base = cursor.at - inner.len();
            let (name, value) = label.take_canonical_label().map_err(|e| e.moved_by(base))?;
            let (name, value) = label_utf8(name, value)?;
            if name.is_empty() {
                return Err(Error::label(name, LabelFault::EmptyName));
            }
            if value.is_empty() {
                return Err(Error::label(name, LabelFault::EmptyValue));
            }
            match pairs.last().map(|(last, _)| (*last).cmp(name)) {
                None | Some(std::cmp::Ordering::Less) => pairs.push((name, value)),
                Some(std::cmp::Ordering::Equal) => {
                    return Err(Error::label(name, LabelFault::Duplicate));
                }
                Some(std::cmp::Ordering::Greater) => {
                    return Err(Error::label(name, LabelFault::OutOfOrder));
                }
            }
        }
        Ok(Self::from_checked_pairs(pairs.iter().copied()))
    }
}

impl<'a> LabelsBuilder<'a> {
    /// Reads the `labels` fields of a sender's series: any order, protobuf's freedoms taken
    /// (unknown fields, fields left out, long lengths). Strings stay slices of `bytes`.
    ///
    /// # Errors
    /// [`Error::MalformedLabels`] where the bytes are no protobuf, [`Error::InvalidLabel`] for
    /// text that is not UTF-8. Order, repetition and limits are for [`build`](Self::build).
    pub fn from_encoded(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut builder = Self::default();
        let mut cursor = Cursor { bytes, at: 0 };
        while !cursor.is_at_end() {
            if let Some((TAG_FIELD_1, label)) = cursor.take_field()? {
                let base = cursor.at - label.len();
                builder.set_encoded(label).map_err(|e| e.moved_by(base))?;
            }
        }
        Ok(builder)
    }

    /// Adds one label given as the inside of a sender's `Label` message.
    ///
    /// # Errors
    /// As [`from_encoded`](Self::from_encoded).
    pub fn set_encoded(&mut self, label: &'a [u8]) -> Result<&mut Self, Error> {
        let mut cursor = Cursor {
            bytes: label,
            at: 0,
        };
        let (mut name, mut value): (&[u8], &[u8]) = (&[], &[]);
        while !cursor.is_at_end() {
            match cursor.take_field()? {
                Some((TAG_FIELD_1, bytes)) => name = bytes,
                Some((TAG_FIELD_2, bytes)) => value = bytes,
                _ => {}
            }
        }
        let (name, value) = label_utf8(name, value)?;
        Ok(self.set(name, value))
    }
}

impl Error {
    /// The same error, with its offset counted from further out.
    fn moved_by(self, base_bytes: usize) -> Self {
        match self {
            Self::MalformedLabels {
                offset_bytes,
                reason,
            } => Self::MalformedLabels {
                offset_bytes: offset_bytes + base_bytes,
                reason,
            },
            other => other,
        }
    }
}

fn label_utf8<'b>(name: &'b [u8], value: &'b [u8]) -> Result<(&'b str, &'b str), Error> {
    let name_text =
        std::str::from_utf8(name).map_err(|_| Error::label_bytes(name, LabelFault::NameNotUtf8))?;
    let value_text = std::str::from_utf8(value)
        .map_err(|_| Error::label_bytes(name, LabelFault::ValueNotUtf8))?;
    Ok((name_text, value_text))
}

/// A place in label bytes. Every step forward is checked against their end.
struct Cursor<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    fn is_at_end(&self) -> bool {
        self.at >= self.bytes.len()
    }

    fn malformed(&self, reason: &'static str) -> Error {
        Error::MalformedLabels {
            offset_bytes: self.at,
            reason,
        }
    }

    fn rest(&self) -> &'b [u8] {
        self.bytes.get(self.at..).unwrap_or_default()
    }

    fn expect_tag(&mut self, tag: u8, reason: &'static str) -> Result<(), Error> {
        if self.rest().first() != Some(&tag) {
            return Err(self.malformed(reason));
        }
        self.at += 1;
        Ok(())
    }

    fn take(&mut self, len: u64) -> Result<&'b [u8], Error> {
        let taken = usize::try_from(len)
            .ok()
            .and_then(|len| self.rest().get(..len));
        let taken = taken.ok_or_else(|| self.malformed("a length points past the end"))?;
        self.at += taken.len();
        Ok(taken)
    }

    fn take_varint(&mut self) -> Result<(u64, bool), Error> {
        let (n, len, shortest) = read_varint(self.rest())
            .ok_or_else(|| self.malformed("a number is cut or too long"))?;
        self.at += len;
        Ok((n, shortest))
    }

    fn take_canonical_delimited(&mut self) -> Result<&'b [u8], Error> {
        let (len, shortest) = self.take_varint()?;
        if !shortest {
            return Err(self.malformed("a length is not in its shortest form"));
        }
        self.take(len)
    }

    fn take_canonical_label(&mut self) -> Result<(&'b [u8], &'b [u8]), Error> {
        self.expect_tag(TAG_FIELD_1, "a name must start with 0x0a")?;
        let name = self.take_canonical_delimited()?;
        self.expect_tag(TAG_FIELD_2, "a value must start with 0x12")?;
        let value = self.take_canonical_delimited()?;
        if !self.is_at_end() {
            return Err(self.malformed("a label goes on behind its value"));
        }
        Ok((name, value))
    }

    /// One field of any protobuf message: its tag and bytes if it is length-delimited and its tag
    /// takes one byte, `None` for any other field, which is skipped.
    fn take_field(&mut self) -> Result<Option<(u8, &'b [u8])>, Error> {
        let start = self.at;
        let (key, _) = self.take_varint()?;
        let field = key >> 3;
        if field == 0 || field > 0x1fff_ffff {
            self.at = start;
            return Err(self.malformed("a field number is out of range"));
        }
        match key & 7 {
            0 => {
                self.take_varint()?;
            }
            1 => {
                self.take(8)?;
            }
            2 => {
                let (len, _) = self.take_varint()?;
                let bytes = self.take(len)?;
                return Ok(u8::try_from(key).ok().map(|key| (key, bytes)));
            }
            5 => {
                self.take(4)?;
            }
            _ => {
                self.at = start;
                return Err(self.malformed("an unknown wire type"));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encode(pairs: &[(&str, &str)]) -> Vec<u8> {
        let mut out = Vec::new();
        for (name, value) in pairs {
            Labels::from_pairs([(*name, *value)])
                .unwrap()
                .encode_canonical(&mut out);
        }
        out
    }

    #[test]
    fn the_layout_is_that_of_remote_write() {
        let bytes = encode(&[("__name__", "up"), ("a", "b")]);
        assert_eq!(
            bytes,
            b"\x0a\x0e\x0a\x08__name__\x12\x02up\x0a\x06\x0a\x01a\x12\x01b"
        );
    }

    #[test]
    fn canonical_bytes_out_of_order_are_refused_by_name() {
        let error = Labels::decode_canonical(&encode(&[("b", "1"), ("a", "2")])).unwrap_err();
        assert_eq!(error, Error::label("a", LabelFault::OutOfOrder));
        let error = Labels::decode_canonical(&encode(&[("a", "1"), ("a", "2")])).unwrap_err();
        assert_eq!(error, Error::label("a", LabelFault::Duplicate));
    }

    #[test]
    fn empty_names_and_values_are_not_canonical() {
        let error = Labels::decode_canonical(b"\x0a\x05\x0a\x01a\x12\x00").unwrap_err();
        assert_eq!(error, Error::label("a", LabelFault::EmptyValue));
        let error = Labels::decode_canonical(b"\x0a\x05\x0a\x00\x12\x01a").unwrap_err();
        assert_eq!(error, Error::label("", LabelFault::EmptyName));
    }

    #[test]
    fn lengths_must_be_shortest_and_inside() {
        let long = b"\x0a\x86\x00\x0a\x01a\x12\x01b";
        assert!(matches!(
            Labels::decode_canonical(long),
            Err(Error::MalformedLabels { .. })
        ));
        let past = b"\x0a\x06\x0a\x01a\x12\x02b";
        let Err(Error::MalformedLabels { offset_bytes, .. }) = Labels::decode_canonical(past)
        else {
            panic!("a value past its label must be refused")
        };
        assert_eq!(offset_bytes, 7);
    }

    #[test]
    fn text_that_is_not_utf8_names_its_label() {
        let error = Labels::decode_canonical(b"\x0a\x06\x0a\x01a\x12\x01\xff").unwrap_err();
        assert_eq!(error, Error::label("a", LabelFault::ValueNotUtf8));
        let error = LabelsBuilder::from_encoded(b"\x0a\x06\x0a\x01\xff\x12\x01a").unwrap_err();
        assert_eq!(error, Error::label("\u{fffd}", LabelFault::NameNotUtf8));
    }

    #[test]
    fn a_senders_bytes_may_be_any_protobuf() {
        // Value before name, an unknown varint field, a label without a value, a long length.
        let bytes =
            b"\x0a\x08\x12\x01b\x0a\x01a\x18\x05\x0a\x03\x0a\x01c\x0a\x86\x00\x0a\x01A\x12\x01B";
        let labels = LabelsBuilder::from_encoded(bytes).unwrap().build().unwrap();
        assert_eq!(
            labels,
            Labels::from_pairs([("a", "b"), ("A", "B")]).unwrap()
        );
    }

    proptest! {
        #[test]
        fn canonical_bytes_round_trip(
            map in prop::collection::btree_map("\\PC{1,8}", "\\PC{1,200}", 0..8),
        ) {
            let labels = Labels::from_pairs(map).unwrap();
            let mut bytes = Vec::new();
            labels.encode_canonical(&mut bytes);
            prop_assert_eq!(&Labels::decode_canonical(&bytes).unwrap(), &labels);
            prop_assert_eq!(LabelsBuilder::from_encoded(&bytes).unwrap().build().unwrap(), labels);
        }

        #[test]
        fn whatever_decodes_is_canonical(bytes: Vec<u8>) {
            let _ = LabelsBuilder::from_encoded(&bytes);
            if let Ok(labels) = Labels::decode_canonical(&bytes) {
                let mut again = Vec::new();
                labels.encode_canonical(&mut again);
                prop_assert_eq!(again, bytes);
            }
        }

        #[test]
        fn damaged_bytes_never_panic(
            map in prop::collection::btree_map("[a-z]{1,4}", "[a-z]{1,9}", 1..5),
            at: prop::sample::Index, byte: u8, cut: prop::sample::Index,
        ) {
            let mut bytes = Vec::new();
            Labels::from_pairs(map).unwrap().encode_canonical(&mut bytes);
            let at = at.index(bytes.len());
            bytes[at] = byte;
            bytes.truncate(cut.index(bytes.len() + 1));
            if let Ok(labels) = Labels::decode_canonical(&bytes) {
                let mut again = Vec::new();
                labels.encode_canonical(&mut again);
                prop_assert_eq!(again, bytes.clone());
            }
            let _ = LabelsBuilder::from_encoded(&bytes);
        }
    }
}
