//! Which labels a body has: most bodies have the labels of many others, so that the sets of labels
//! are numbered and each body has the number of its own.

use hashbrown::HashMap;

use super::Source;
use super::column::{ColumnRef, ColumnWriter};
use super::error::Error;
use super::packed::{PackedArray, pack, width_of};
use super::region::Region;
use super::sink::Sink;

/// Where the shapes lie in the index part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ShapesRef {
    /// By body, its shape.
    pub(crate) column: ColumnRef,
    /// By shape, where its names start in `names`; and where those of the last end.
    pub(crate) starts: PackedArray,
    /// Codes of names, rising for each shape.
    pub(crate) names: PackedArray,
}

impl ShapesRef {
    /// Shapes there are.
    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.starts.count.saturating_sub(1)).unwrap_or(u32::MAX)
    }
}

/// Takes the names of bodies in order.
#[derive(Debug, Default)]
pub(crate) struct ShapesWriter {
    shapes: HashMap<Box<[u32]>, u32>,
    column: ColumnWriter,
    starts: Vec<u64>,
    names: Vec<u64>,
    previous: Option<u32>,
}

impl ShapesWriter {
    pub(crate) fn push(&mut self, body: u32, names: &[u32]) {
        let shape = match self.previous {
            Some(previous) if self.is_shape(previous, names) => previous,
            _ => self.shape(names),
        };
        self.previous = Some(shape);
        self.column.push(body, shape);
    }

    fn is_shape(&self, shape: u32, names: &[u32]) -> bool {
        let start = self.starts.get(shape as usize).copied().unwrap_or_default();
        let end = self.starts.get(shape as usize + 1).copied();
        let end = end.unwrap_or(self.names.len() as u64);
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX);
        let held = self.names.get(at(start)..at(end)).unwrap_or_default();
        held.iter()
            .copied()
            .eq(names.iter().map(|name| u64::from(*name)))
    }

    fn shape(&mut self, names: &[u32]) -> u32 {
        if let Some(shape) = self.shapes.get(names) {
            return *shape;
        }
        let shape = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        self.starts.push(self.names.len() as u64);
        self.names.extend(names.iter().map(|name| u64::from(*name)));
        self.shapes.insert(names.into(), shape);
        shape
    }

    pub(crate) fn write<E>(mut self, bodies: u32, sink: &mut Sink<'_, E>) -> Result<ShapesRef, E> {
        self.starts.push(self.names.len() as u64);
        let mut array = |values: &[u64]| {
            let width = width_of(values.iter().copied().max().unwrap_or_default());
            let mut bytes = Vec::new();
            pack(values.iter().copied(), width, &mut bytes);
            Ok(PackedArray {
                offset_bytes: sink.push(&bytes)?,
                count: values.len() as u64,
                width,
            })
        };
        let starts = array(&self.starts)?;
        let names = array(&self.names)?;
        Ok(ShapesRef {
            column: self.column.finish(bodies).write(sink)?,
            starts,
            names,
        })
    }
}

/// The codes of the names of a shape, of `names_max` that there are.
pub(crate) fn names_of<S: Source>(
    index: Region<'_, S>,
    at: &ShapesRef,
    shape: u32,
    names_max: u32,
) -> Result<Vec<u32>, Error<S::Error>> {
    let start = at.starts.get(index, u64::from(shape))?;
    let end = at.starts.get(index, u64::from(shape) + 1)?;
    if end.saturating_sub(start) > u64::from(names_max) {
        return Err(index.damaged(
            at.starts.offset_bytes,
            "a shape of more names than there are",
        ));
    }
    let mut names = Vec::new();
    for place in start..end {
        let name = at.names.get(index, place)?;
        names.push(u32::try_from(name).unwrap_or(u32::MAX));
    }
    Ok(names)
}
