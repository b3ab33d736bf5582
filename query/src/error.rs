//! The query layer's one error type. [`Error::kind`] says what the caller can do about it.

use rootline_engine::ErrorKind;

use crate::{selector::SelectorError, span_set::SpanSetError};

/// Everything that can go wrong in a query.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The engine ended the query.
    #[error(transparent)]
    Engine(#[from] rootline_engine::Error),
    /// A selector that does not parse.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// Conditions that every series meets.
    #[error(
        "the selector selects everything: give a metric name, or at least one condition that refuses \
         the empty value"
    )]
    SelectsEverything,
    /// A page token that is damaged or came with another request.
    #[error(
        "the page token {found:?} is damaged or belongs to other conditions: use next_page_token as it \
         came, with the request it came from, or start again without one"
    )]
    PageToken {
        /// The token, shortened.
        found: String,
    },
    /// A bound on durations whose upper end is below its lower end.
    #[error("the longest duration, {max_ns} ns, is shorter than the shortest, {min_ns} ns")]
    EmptyDurationRange {
        /// Lower end.
        min_ns: u64,
        /// Upper end.
        max_ns: u64,
    },
    /// A set of spans that does not parse.
    #[error(transparent)]
    SpanSet(#[from] SpanSetError),
    /// A set of spans that is nested too deep.
    #[error("the span set is nested deeper than {max} levels")]
    SpanSetTooDeep {
        /// The bound.
        max: usize,
    },
    /// A set of spans of too many parts.
    #[error("the span set has more than {max} sets and conditions")]
    SpanSetTooLarge {
        /// The bound.
        max: usize,
    },
    /// A set of spans with too many regular expressions.
    #[error("the span set has more than {max} patterns (=~, !~)")]
    SpanSetPatterns {
        /// The bound.
        max: usize,
    },
    /// Bounds on a figure that no number is within.
    #[error("the upper bound on {figure}, {max}, is below the lower one, {min}")]
    EmptyFigureRange {
        /// Which figure.
        figure: &'static str,
        /// Lower end.
        min: u64,
        /// Upper end.
        max: u64,
    },
    /// More groups than were asked for at most.
    #[error(
        "the answer has more than {max} groups: group by less, narrow the set, or raise groups_max (option --groups-max of the command line)"
    )]
    TooManySpanGroups {
        /// The bound.
        max: usize,
    },
    /// Too many things to group by.
    #[error("spans are grouped by more than {max} things")]
    SpanGroupKeys {
        /// The bound.
        max: usize,
    },
    /// A step that does not cut the range into a number of steps within bounds.
    #[error(
        "a step of {step_ns} ns does not cut the range into 1 to {max} steps: give a range with both ends \
         and a longer step"
    )]
    SpanSteps {
        /// The step.
        step_ns: u64,
        /// Most steps.
        max: u64,
    },
    /// Quantiles out of their range, or too many.
    #[error("quantiles are numbers from 0 to 1, at most {max} of them")]
    Quantiles {
        /// Most quantiles.
        max: usize,
    },
}

impl Error {
    /// What the caller can do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Engine(e) => e.kind(),
            Self::Selector(_)
            | Self::SelectsEverything
            | Self::PageToken { .. }
            | Self::EmptyDurationRange { .. }
            | Self::SpanSet(_)
            | Self::SpanSetTooDeep { .. }
            | Self::SpanSetTooLarge { .. }
            | Self::SpanSetPatterns { .. }
            | Self::EmptyFigureRange { .. }
            | Self::TooManySpanGroups { .. }
            | Self::SpanGroupKeys { .. }
            | Self::SpanSteps { .. }
            | Self::Quantiles { .. } => ErrorKind::InvalidRequest,
        }
    }
}
