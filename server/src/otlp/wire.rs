//! Protobuf's wire format, walked field by field over borrowed bytes. Knows nothing of OTLP.
//!
//! Invariants
//! - Total: any bytes end in a walk or in a [`DecodeError`] with the offset; nothing panics, nothing
//!   is read twice, and time is linear in the bytes.
//! - Nothing is copied or allocated. A sub-message is a slice of its parent.
//! - Groups, long deprecated, are checked and skipped, to a depth of [`GROUP_DEPTH_MAX`].
//!
//! The caller gives meaning to numbers. A known field of another wire type than the schema's is
//! malformed, an unknown field is skipped; the exception protobuf makes for repeated numbers, packed or
//! not, is [`Field::fixed64s`].

use super::error::DecodeError;

/// Groups inside groups that are followed before the message is refused.
pub(crate) const GROUP_DEPTH_MAX: usize = 32;

/// The value of a field, by wire type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// One field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Field<'a> {
    /// The schema's number for it.
    pub(crate) number: u32,
    value: Value<'a>,
    /// Offset in the whole message of the first byte behind the field.
    end_offset: usize,
}

impl<'a> Field<'a> {
    /// The value, whatever its wire type: for those who do not know the schema.
    pub(crate) fn value(&self) -> Value<'a> {
        self.value
    }

    fn wrong_type(&self, reason: &'static str) -> DecodeError {
        DecodeError::Protobuf {
            offset_bytes: self.end_offset,
            reason,
        }
    }

    /// A length-delimited value.
    #[inline]
    pub(crate) fn bytes(&self) -> Result<&'a [u8], DecodeError> {
        match self.value {
            Value::Bytes(bytes) => Ok(bytes),
            _ => Err(self.wrong_type("expected a length-delimited field")),
        }
    }

    /// A sub-message.
    #[inline]
    pub(crate) fn message(&self) -> Result<Message<'a>, DecodeError> {
        Ok(Message {
            bytes: self.bytes()?,
            end_offset: self.end_offset,
        })
    }

    /// An integer, enum or bool.
    #[inline]
    pub(crate) fn varint(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Varint(value) => Ok(value),
            _ => Err(self.wrong_type("expected a varint field")),
        }
    }

    /// A `uint32`: protobuf keeps the low 32 bits of what was sent.
    #[inline]
    #[expect(clippy::cast_possible_truncation, reason = "what protobuf asks for")]
    pub(crate) fn uint32(&self) -> Result<u32, DecodeError> {
        Ok(self.varint()? as u32)
    }

    /// An enum or `int32`: the low 32 bits, sign-extended.
    #[inline]
    pub(crate) fn int32(&self) -> Result<i32, DecodeError> {
        Ok(self.uint32()?.cast_signed())
    }

    /// A `fixed64`.
    #[inline]
    pub(crate) fn fixed64(&self) -> Result<u64, DecodeError> {
        match self.value {
            Value::Fixed64(value) => Ok(value),
            _ => Err(self.wrong_type("expected a 64-bit field")),
        }
    }

    /// A `double`.
    #[inline]
    pub(crate) fn double(&self) -> Result<f64, DecodeError> {
        Ok(f64::from_bits(self.fixed64()?))
    }

    /// A `fixed32`.
    #[inline]
    pub(crate) fn fixed32(&self) -> Result<u32, DecodeError> {
        match self.value {
            Value::Fixed32(value) => Ok(value),
            _ => Err(self.wrong_type("expected a 32-bit field")),
        }
    }

    /// The elements of a repeated `fixed64` or `double` that this field adds: one, or a packed run.
    pub(crate) fn fixed64s(&self) -> Result<impl Iterator<Item = u64> + 'a, DecodeError> {
        let (single, packed) = match self.value {
            Value::Fixed64(value) => (Some(value), &[][..]),
            Value::Bytes(bytes) => (None, bytes),
            _ => return Err(self.wrong_type("expected 64-bit elements")),
        };
        let (chunks, rest) = packed.as_chunks::<8>();
        if !rest.is_empty() {
            return Err(self.wrong_type("packed 64-bit elements cut short"));
        }
        Ok(single
            .into_iter()
            .chain(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk))))
    }
}

/// The bytes of a message, and where they end in the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    bytes: &'a [u8],
    end_offset: usize,
}

impl<'a> Message<'a> {
    /// The outermost message.
    pub(crate) fn root(bytes: &'a [u8]) -> Self {
        Self {
            bytes,
            end_offset: bytes.len(),
        }
    }

    /// The encoded message.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Starts a walk over the fields. A message may be walked more than once.
    #[inline]
    pub(crate) fn fields(self) -> Reader<'a> {
        Reader {
            rest: self.bytes,
            end_offset: self.end_offset,
        }
    }
}

/// A walk over the fields of one message, in the order of the bytes.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    end_offset: usize,
}

impl<'a> Reader<'a> {
    /// What was not walked over yet.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[cold]
    fn malformed(&self, reason: &'static str) -> DecodeError {
        DecodeError::Protobuf {
            offset_bytes: self.end_offset - self.rest.len(),
            reason,
        }
    }

    /// The next field, or `None` at the end.
    #[inline]
    pub(crate) fn next(&mut self) -> Result<Option<Field<'a>>, DecodeError> {
        loop {
            if self.rest.is_empty() {
                return Ok(None);
            }
            let (number, wire_type) = self.key()?;
            let value = match wire_type {
                0 => Value::Varint(self.varint()?),
                1 => Value::Fixed64(u64::from_le_bytes(*self.array()?)),
                2 => {
                    let length = self.varint()?;
                    Value::Bytes(self.take(length)?)
                }
                3 => {
                    self.skip_group(number)?;
                    continue;
                }
                4 => return Err(self.malformed("a group ends that did not begin")),
                5 => Value::Fixed32(u32::from_le_bytes(*self.array()?)),
                _ => return Err(self.malformed("unknown wire type")),
            };
            let end_offset = self.end_offset - self.rest.len();
            return Ok(Some(Field {
                number,
                value,
                end_offset,
            }));
        }
    }

    /// The next byte. If it is the key of a field whose number is below 16, `known_bytes` or
    /// `known_fixed64` read the field without looking at the key again; any other is for `next`.
    #[inline]
    pub(crate) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The length-delimited field whose key `peek` has shown.
    #[inline]
    pub(crate) fn known_bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        self.pass_key();
        let length = self.varint()?;
        self.take(length)
    }

    /// The sub-message whose key `peek` has shown.
    #[inline]
    pub(crate) fn known_message(&mut self) -> Result<Message<'a>, DecodeError> {
        let bytes = self.known_bytes()?;
        let end_offset = self.end_offset - self.rest.len();
        Ok(Message { bytes, end_offset })
    }

    /// The 64-bit field whose key `peek` has shown.
    #[inline]
    pub(crate) fn known_fixed64(&mut self) -> Result<u64, DecodeError> {
        self.pass_key();
        Ok(u64::from_le_bytes(*self.array()?))
    }

    /// The varint whose key `peek` has shown.
    #[inline]
    pub(crate) fn known_varint(&mut self) -> Result<u64, DecodeError> {
        self.pass_key();
        self.varint()
    }

    #[inline]
    fn pass_key(&mut self) {
        if let Some((_, rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    #[inline]
    fn key(&mut self) -> Result<(u32, u8), DecodeError> {
        let key = self.varint()?;
        let number = u32::try_from(key >> 3).unwrap_or(u32::MAX);
        if number == 0 || number > 0x1fff_ffff {
            return Err(self.malformed("field number out of range"));
        }
        Ok((number, (key & 7) as u8))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, DecodeError> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(u64::from(byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for (i, &byte) in self.rest.iter().enumerate().take(10) {
            if i == 9 && byte > 1 {
                return Err(self.malformed("varint past 64 bits"));
            }
            value |= u64::from(byte & 0x7f) << (7 * i);
            if byte < 0x80 {
                self.rest = self.rest.get(i + 1..).unwrap_or_default();
                return Ok(value);
            }
        }
        Err(self.malformed("varint cut short"))
    }

    #[inline]
    fn take(&mut self, length: u64) -> Result<&'a [u8], DecodeError> {
        let taken = usize::try_from(length)
            .ok()
            .and_then(|n| self.rest.split_at_checked(n));
        let Some((taken, rest)) = taken else {
            return Err(self.malformed("length reaches past the end"));
        };
        self.rest = rest;
        Ok(taken)
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], DecodeError> {
        let Some((array, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.malformed("fixed-width field cut short"));
        };
        self.rest = rest;
        Ok(array)
    }

    #[cold]
    fn skip_group(&mut self, number: u32) -> Result<(), DecodeError> {
        let mut open = [0u32; GROUP_DEPTH_MAX];
        let mut depth = 0;
        let mut entering = Some(number);
        loop {
            if let Some(number) = entering.take() {
                let Some(slot) = open.get_mut(depth) else {
                    return Err(self.malformed("groups nested too deep"));
                };
                *slot = number;
                depth += 1;
            }
            if self.rest.is_empty() {
                return Err(self.malformed("a group does not end"));
            }
            let (number, wire_type) = self.key()?;
            match wire_type {
                0 => drop(self.varint()?),
                1 => drop(self.array::<8>()?),
                2 => {
                    let length = self.varint()?;
                    self.take(length)?;
                }
                3 => entering = Some(number),
                4 => {
                    depth -= 1;
                    if open.get(depth) != Some(&number) {
                        return Err(self.malformed("a group ends that did not begin"));
                    }
                    if depth == 0 {
                        return Ok(());
                    }
                }
                5 => drop(self.array::<4>()?),
                _ => return Err(self.malformed("unknown wire type")),
            }
        }
    }
}

/// An enum or `int32` from its varint: the low 32 bits, sign-extended.
#[inline]
#[expect(clippy::cast_possible_truncation, reason = "what protobuf asks for")]
pub(crate) fn int32(varint: u64) -> i32 {
    (varint as u32).cast_signed()
}

/// The one-byte key of a length-delimited field with a number below 16.
pub(crate) const fn bytes_key(number: u8) -> u8 {
    number << 3 | 2
}

/// The one-byte key of a varint field with a number below 16.
pub(crate) const fn varint_key(number: u8) -> u8 {
    number << 3
}

/// The one-byte key of a 64-bit field with a number below 16.
pub(crate) const fn fixed64_key(number: u8) -> u8 {
    number << 3 | 1
}

/// A `string` field's text; `None` if it is not UTF-8, which costs the item and not the request.
#[inline]
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(bytes: &[u8]) -> Result<Vec<Field<'_>>, DecodeError> {
        let mut reader = Message::root(bytes).fields();
        let mut fields = Vec::new();
        while let Some(field) = reader.next()? {
            fields.push(field);
        }
        Ok(fields)
    }

    fn reason(bytes: &[u8]) -> (usize, &'static str) {
        match all(bytes) {
            Err(DecodeError::Protobuf {
                offset_bytes,
                reason,
            }) => (offset_bytes, reason),
            other => panic!("expected a malformed message, got {other:?}"),
        }
    }

    #[test]
    fn each_wire_type_is_read() {
        let bytes = [
            0x08, 0x96, 0x01, // 1: varint 150
            0x11, 1, 0, 0, 0, 0, 0, 0, 0, // 2: fixed64 1
            0x1a, 2, b'h', b'i', // 3: "hi"
            0x25, 7, 0, 0, 0, // 4: fixed32 7
        ];
        let fields = all(&bytes).unwrap();
        let numbers: Vec<_> = fields.iter().map(|f| f.number).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
        assert_eq!(fields[0].varint(), Ok(150));
        assert_eq!(fields[1].fixed64(), Ok(1));
        assert_eq!(fields[2].bytes(), Ok(&b"hi"[..]));
        assert_eq!(fields[3].fixed32(), Ok(7));
        assert!(fields[0].bytes().is_err() && fields[2].varint().is_err());
    }

    #[test]
    fn groups_are_skipped_to_their_own_end() {
        // 1: group { 2: group { 3: "x" } 4: varint }, then 5: varint 9
        let bytes = [0x0b, 0x13, 0x1a, 1, b'x', 0x14, 0x20, 1, 0x0c, 0x28, 9];
        let fields = all(&bytes).unwrap();
        assert_eq!(fields.len(), 1);
        assert_eq!(fields[0].varint(), Ok(9));
        assert_eq!(reason(&[0x0b, 0x14]).1, "a group ends that did not begin");
        assert_eq!(reason(&[0x0b]).1, "a group does not end");
        assert_eq!(reason(&[0x0c]).1, "a group ends that did not begin");
        assert_eq!(reason(&[0x0b; 100]).1, "groups nested too deep");
    }

    #[test]
    fn damage_is_refused_where_it_is() {
        assert_eq!(reason(&[0x08]), (1, "varint cut short"));
        assert_eq!(
            reason(&[0x08, 1, 0x1a, 5, b'a']),
            (4, "length reaches past the end")
        );
        assert_eq!(reason(&[0x11, 1, 2]), (1, "fixed-width field cut short"));
        assert_eq!(reason(&[0x0f]), (1, "unknown wire type"));
        assert_eq!(reason(&[0x00, 1]), (1, "field number out of range"));
        assert_eq!(
            reason(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 2]).0,
            1
        );
        let huge = [0x1a, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1];
        assert_eq!(reason(&huge).1, "length reaches past the end");
    }

    #[test]
    fn offsets_inside_a_sub_message_are_those_of_the_whole() {
        let bytes = [0x08, 1, 0x12, 2, 0x08, 0x80, 0x08, 1];
        let fields = all(&bytes).unwrap();
        let mut inner = fields[1].message().unwrap().fields();
        assert_eq!(
            inner.next(),
            Err(DecodeError::Protobuf {
                offset_bytes: 5,
                reason: "varint cut short"
            })
        );
    }

    #[test]
    fn repeated_numbers_may_be_packed_or_not() {
        let mut packed = vec![0x32, 16];
        packed.extend_from_slice(&3u64.to_le_bytes());
        packed.extend_from_slice(&4u64.to_le_bytes());
        let field = all(&packed).unwrap()[0];
        assert_eq!(field.fixed64s().unwrap().collect::<Vec<_>>(), [3, 4]);
        let field = all(&[0x31, 5, 0, 0, 0, 0, 0, 0, 0]).unwrap()[0];
        assert_eq!(field.fixed64s().unwrap().collect::<Vec<_>>(), [5]);
        let field = all(&[0x32, 3, 0, 0, 0]).unwrap()[0];
        assert!(field.fixed64s().is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_walked_or_refused(bytes: Vec<u8>) {
            if let Ok(fields) = all(&bytes) {
                for field in fields {
                    let _ = field.message().map(|m| m.fields().next());
                    let _ = field.fixed64s().map(Iterator::count);
                }
            }
        }
    }
}
