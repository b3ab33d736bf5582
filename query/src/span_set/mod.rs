//! Sets of spans: what the causal algebra computes with. `docs/api/span-sets.md` is its page.
//!
//! | file | holds |
//! | --- | --- |
//! | `mod.rs` | the expressions, their bounds, what is plain about them |
//! | `parse.rs`, `print.rs` | their text form: read, written |
//! | `evaluate.rs` | the rows of one part that are in a set |
//!
//! Meaning
//! - A set is asked within a range of time: in the answer are the spans of the set that *start* in the
//!   range. What they are related to may lie outside of it: a window that cuts through a trace changes
//!   which of its spans are shown, never who caused what.
//! - Relations are those of the parent rule, within one trace.
//! - Every trace lies whole in one part of the store. So a set is computed part by part, and the answers
//!   are put side by side.

mod evaluate;
mod parse;
mod print;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use rootline_engine::{Axis, MatchOp, SpanCondition, SpanFilter, SpanKind, StatusCode, TimeRange};

pub(crate) use evaluate::{Evaluation, may_start_in, pieces};
pub use parse::SpanSetError;

use crate::{error::Error, selector::PATTERNS_MAX, span_conditions::SpanConditions};

/// How deep expressions may be nested: every walk over one fits on the stack.
pub const SPAN_SET_DEPTH_MAX: usize = 64;
/// Nodes (sets, conditions) of one expression.
pub const SPAN_SET_NODES_MAX: usize = 1_000;

/// Which spans.
#[derive(Clone, Debug)]
pub enum SpanSet {
    /// Those that meet all conditions; without any, all.
    Where(Vec<SpanCondition>),
    /// Those of `among` that have a span of `of` as their child, parent, ...; if `negated`, the others
    /// of `among`.
    Relative {
        /// Where the result is taken from.
        among: Box<SpanSet>,
        /// What the span of `of` is to the span of `among`.
        axis: Axis,
        /// Who they are related to.
        of: Box<SpanSet>,
        /// Have, or have not.
        negated: bool,
    },
    /// Those of `among` whose trace has a span of `of` anywhere, be it the span itself; if `negated`,
    /// the others of `among`.
    InSameTrace {
        /// Where the result is taken from.
        among: Box<SpanSet>,
        /// Who shares their trace.
        of: Box<SpanSet>,
        /// Has, or has not.
        negated: bool,
    },
    /// Those that are in all of them; of no sets, all spans.
    And(Vec<SpanSet>),
    /// Those that are in one of them at least; of no sets, no span.
    Or(Vec<SpanSet>),
    /// Those of the first that are not in the second.
    Minus(Box<SpanSet>, Box<SpanSet>),
    /// Those of `set` with a figure within bounds.
    Having {
        /// Where the result is taken from.
        set: Box<SpanSet>,
        /// Which figure.
        figure: SpanFigure,
        /// At least.
        min: u64,
        /// At most.
        max: u64,
    },
}

/// A figure of a span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SpanFigure {
    /// From its start to its end, in ns.
    Duration,
    /// Its duration less the union of its children's intervals within it, in ns.
    Own,
    /// How many spans lead up to its root: 0 for a root, and for a span whose parent is not stored.
    Depth,
    /// How many children it has.
    Children,
}

impl SpanFigure {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Duration => "duration",
            Self::Own => "own",
            Self::Depth => "depth",
            Self::Children => "children",
        }
    }

    /// Whether it is a time, in ns.
    pub fn is_time(self) -> bool {
        matches!(self, Self::Duration | Self::Own)
    }
}

impl Default for SpanSet {
    /// All spans.
    fn default() -> Self {
        Self::Where(Vec::new())
    }
}

impl SpanSet {
    /// All spans.
    pub fn all() -> Self {
        Self::default()
    }

    /// Those of `self` that have a span of `of` as their `axis`.
    #[must_use]
    pub fn with(self, axis: Axis, of: Self) -> Self {
        self.related(axis, of, false)
    }

    /// Those of `self` that have no span of `of` as their `axis`.
    #[must_use]
    pub fn without(self, axis: Axis, of: Self) -> Self {
        self.related(axis, of, true)
    }

    fn related(self, axis: Axis, of: Self, negated: bool) -> Self {
        Self::Relative {
            among: Box::new(self),
            axis,
            of: Box::new(of),
            negated,
        }
    }

    /// Those of `self` with a figure from `min` to `max`, both included.
    #[must_use]
    pub fn having(self, figure: SpanFigure, min: u64, max: u64) -> Self {
        Self::Having {
            set: Box::new(self),
            figure,
            min,
            max,
        }
    }

    /// Refuses an expression past the bounds on depth, size and patterns. Everything that takes a set
    /// asks it first.
    ///
    /// # Errors
    /// [`Error::SpanSetTooDeep`], [`Error::SpanSetTooLarge`], [`Error::SpanSetPatterns`],
    /// [`Error::EmptyFigureRange`].
    pub fn check(&self) -> Result<(), Error> {
        let mut size = Size::default();
        self.measure(1, &mut size)
    }

    fn measure(&self, depth: usize, size: &mut Size) -> Result<(), Error> {
        if depth > SPAN_SET_DEPTH_MAX {
            return Err(Error::SpanSetTooDeep {
                max: SPAN_SET_DEPTH_MAX,
            });
        }
        size.add_nodes(1)?;
        match self {
            Self::Where(conditions) => {
                size.add_nodes(conditions.len())?;
                conditions.iter().try_for_each(|c| size.add_condition(c))
            }
            Self::Relative { among, of, .. } | Self::InSameTrace { among, of, .. } => {
                among.measure(depth + 1, size)?;
                of.measure(depth + 1, size)
            }
            Self::Minus(from, what) => {
                from.measure(depth + 1, size)?;
                what.measure(depth + 1, size)
            }
            Self::And(sets) | Self::Or(sets) => {
                sets.iter().try_for_each(|set| set.measure(depth + 1, size))
            }
            Self::Having {
                set,
                figure,
                min,
                max,
            } => {
                empty_range(figure.as_str(), *min, *max)?;
                set.measure(depth + 1, size)
            }
        }
    }

    /// If conditions on single spans alone decide: those, in no particular order.
    pub(crate) fn conditions(&self) -> Option<Vec<SpanCondition>> {
        match self {
            Self::Where(conditions) => Some(conditions.clone()),
            Self::And(sets) => {
                let mut all = Vec::new();
                for set in sets {
                    all.extend(set.conditions()?);
                }
                Some(all)
            }
            Self::Having {
                set,
                figure: SpanFigure::Duration,
                min,
                max,
            } => {
                let mut all = set.conditions()?;
                all.push(SpanCondition::DurationNs {
                    min: *min,
                    max: *max,
                });
                Some(all)
            }
            _ => None,
        }
    }

    /// If conditions on single spans alone decide: the engine's filter for those that start in `range`.
    pub(crate) fn filter(&self, range: TimeRange) -> Option<SpanFilter> {
        let conditions = self.conditions()?;
        Some(SpanFilter { range, conditions })
    }

    /// Text that is the same for the same set and range, for page tokens.
    pub(crate) fn fingerprint(&self, range: TimeRange) -> String {
        format!("{range}{self}")
    }
}

/// A kind by its word in the text form.
pub(crate) fn kind_word(kind: SpanKind) -> &'static str {
    print::word_of(&print::KINDS, &kind)
}

/// An outcome by its word in the text form.
pub(crate) fn status_word(status: StatusCode) -> &'static str {
    print::word_of(&print::STATUSES, &status)
}

fn empty_range(figure: &'static str, min: u64, max: u64) -> Result<(), Error> {
    if max < min {
        return Err(Error::EmptyFigureRange { figure, min, max });
    }
    Ok(())
}

/// What an expression takes.
#[derive(Debug, Default)]
struct Size {
    nodes: usize,
    patterns: usize,
}

impl Size {
    fn add_nodes(&mut self, more: usize) -> Result<(), Error> {
        self.nodes = self.nodes.saturating_add(more);
        if self.nodes > SPAN_SET_NODES_MAX {
            return Err(Error::SpanSetTooLarge {
                max: SPAN_SET_NODES_MAX,
            });
        }
        Ok(())
    }

    fn add_condition(&mut self, condition: &SpanCondition) -> Result<(), Error> {
        let text = match condition {
            SpanCondition::Service(text)
            | SpanCondition::Name(text)
            | SpanCondition::EventName(text)
            | SpanCondition::ScopeName(text)
            | SpanCondition::StatusMessage(text) => Some(text),
            SpanCondition::Tag { matches, .. } => Some(matches),
            SpanCondition::DurationNs { min, max } => return empty_range("duration", *min, *max),
            _ => None,
        };
        if text.is_some_and(|text| matches!(text.op(), MatchOp::Regex | MatchOp::NotRegex)) {
            self.patterns += 1;
            if self.patterns > PATTERNS_MAX {
                return Err(Error::SpanSetPatterns { max: PATTERNS_MAX });
            }
        }
        Ok(())
    }
}

/// Something that names spans: a [`SpanSet`], or [`SpanConditions`] on one span.
pub trait ToSpanSet {
    /// As a set.
    ///
    /// # Errors
    /// When it is wrong in itself.
    fn to_span_set(&self) -> Result<Cow<'_, SpanSet>, Error>;
}

impl ToSpanSet for SpanSet {
    fn to_span_set(&self) -> Result<Cow<'_, SpanSet>, Error> {
        self.check()?;
        Ok(Cow::Borrowed(self))
    }
}

impl ToSpanSet for SpanConditions {
    fn to_span_set(&self) -> Result<Cow<'_, SpanSet>, Error> {
        let filter = self.filter(TimeRange::ALL)?;
        Ok(Cow::Owned(SpanSet::Where(filter.conditions)))
    }
}
