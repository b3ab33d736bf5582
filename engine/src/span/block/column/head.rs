//! Reading and writing heads: the few bytes that say where the parts of a column lie.

use super::source::ColumnSource;
use crate::{error::Error, varint};

/// Reads a head from its front.
#[derive(Debug)]
pub(super) struct HeadReader<'a> {
    rest: &'a [u8],
    source: &'a ColumnSource,
}

impl<'a> HeadReader<'a> {
    pub(super) fn new(head: &'a [u8], source: &'a ColumnSource) -> Self {
        Self { rest: head, source }
    }

    #[cold]
    pub(super) fn damaged(&self, reason: &str) -> Error {
        self.source
            .damaged(0, &format!("the head of an attribute column: {reason}"))
    }

    pub(super) fn byte(&mut self) -> Result<u8, Error> {
        match self.rest.split_first() {
            Some((&byte, rest)) => {
                self.rest = rest;
                Ok(byte)
            }
            None => Err(self.damaged("it ends early")),
        }
    }

    /// A length, at most `max`, and so many bytes.
    pub(super) fn bytes(&mut self, max: usize) -> Result<&'a [u8], Error> {
        let bytes = varint::take_bytes(&mut self.rest).filter(|bytes| bytes.len() <= max);
        bytes.ok_or_else(|| self.damaged("bytes that are cut short or too many"))
    }

    pub(super) fn unsigned(&mut self) -> Result<u64, Error> {
        varint::take_u64(&mut self.rest).ok_or_else(|| self.damaged("a number is cut short"))
    }

    pub(super) fn signed(&mut self) -> Result<i64, Error> {
        varint::take_i64(&mut self.rest).ok_or_else(|| self.damaged("a number is cut short"))
    }

    /// A number of values.
    pub(super) fn count(&mut self) -> Result<u32, Error> {
        u32::try_from(self.unsigned()?).map_err(|_| self.damaged("more values than a column has"))
    }

    pub(super) fn end(&self) -> Result<(), Error> {
        if self.rest.is_empty() {
            Ok(())
        } else {
            Err(self.damaged("bytes behind its end"))
        }
    }
}

pub(super) fn put_unsigned(head: &mut Vec<u8>, value: u64) {
    varint::put_u64(head, value);
}

pub(super) fn put_signed(head: &mut Vec<u8>, value: i64) {
    varint::put_i64(head, value);
}
