//! What can be wrong with labels and matchers, and what the caller should do about it.

/// Longest part of a label name or pattern that an error message repeats, so that a hostile name
/// does not become a hostile log line.
const ERROR_TEXT_CHARS_MAX: usize = 120;

/// What to do about an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong and will stay so: do not send it again.
    InvalidRequest,
    /// Bytes that we wrote ourselves do not decode.
    Corrupted,
    /// The caller asked to stop.
    Cancelled,
}

/// Everything that this crate refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// One label of a set is not acceptable.
    #[error("invalid label {label:?}: {fault}")]
    InvalidLabel {
        /// The label's name, shortened; unreadable bytes are replaced.
        label: String,
        /// What is wrong with it.
        fault: LabelFault,
    },
    /// The set has more labels than [`LabelLimits::labels_max`](crate::LabelLimits::labels_max).
    #[error("{count} labels in one set, at most {max} are accepted")]
    TooManyLabels {
        /// Labels found, empty ones not counted.
        count: usize,
        /// The limit that was passed.
        max: usize,
    },
    /// The set is larger than [`LabelLimits::set_bytes_max`](crate::LabelLimits::set_bytes_max).
    #[error("a label set of {bytes} bytes, at most {max} are accepted")]
    LabelSetTooLarge {
        /// Bytes of all names and values together.
        bytes: usize,
        /// The limit that was passed.
        max: usize,
    },
    /// Bytes that should hold labels have another shape.
    #[error("malformed label bytes at offset {offset_bytes}: {reason}")]
    MalformedLabels {
        /// Where in the given bytes the shape breaks.
        offset_bytes: usize,
        /// What was expected there.
        reason: &'static str,
    },
    /// A matcher's pattern does not compile, or compiles to more than the size limit.
    #[error("invalid regular expression {pattern:?} for label {label:?}: {reason}")]
    InvalidRegex {
        /// The label that the matcher is about.
        label: String,
        /// The pattern, shortened.
        pattern: String,
        /// The compiler's reason, on one line.
        reason: String,
    },
    /// The caller's `keep_going` said no while a matcher was being evaluated.
    #[error("the selection was cancelled")]
    Cancelled,
}

/// What is wrong with one label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LabelFault {
    /// A label name must have at least one byte.
    #[error("the name is empty")]
    EmptyName,
    /// An empty value means that the label is absent, so canonical bytes never hold one.
    #[error("the value is empty")]
    EmptyValue,
    /// The name is not UTF-8.
    #[error("the name is not valid UTF-8")]
    NameNotUtf8,
    /// The value is not UTF-8.
    #[error("the value is not valid UTF-8")]
    ValueNotUtf8,
    /// The name is longer than allowed.
    #[error("the name has {bytes} bytes, at most {max} are accepted")]
    NameTooLong {
        /// Bytes found.
        bytes: usize,
        /// The limit that was passed.
        max: usize,
    },
    /// The value is longer than allowed.
    #[error("the value has {bytes} bytes, at most {max} are accepted")]
    ValueTooLong {
        /// Bytes found.
        bytes: usize,
        /// The limit that was passed.
        max: usize,
    },
    /// The same name stands twice in one set.
    #[error("the name occurs twice")]
    Duplicate,
    /// Canonical bytes hold names in rising order; this one came late.
    #[error("the name is out of order")]
    OutOfOrder,
}

impl Error {
    /// What the caller should do.
    ///
    /// The crate cannot know whether label bytes came from a sender or from our own log; a caller
    /// that reads its own bytes reports [`ErrorKind::Corrupted`] whatever this says.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            Self::MalformedLabels { .. } => ErrorKind::Corrupted,
            _ => ErrorKind::InvalidRequest,
        }
    }

    pub(crate) fn label(name: &str, fault: LabelFault) -> Self {
        Self::InvalidLabel {
            label: shortened(name),
            fault,
        }
    }

    pub(crate) fn label_bytes(name: &[u8], fault: LabelFault) -> Self {
        let shown = name.get(..ERROR_TEXT_CHARS_MAX * 4).unwrap_or(name);
        Self::label(&String::from_utf8_lossy(shown), fault)
    }
}

/// At most [`ERROR_TEXT_CHARS_MAX`] characters of `text`, with an ellipsis if that cuts it.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(ERROR_TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hostile_name_is_shortened_in_the_message() {
        let error = Error::label(&"é".repeat(100_000), LabelFault::Duplicate);
        assert!(error.to_string().len() < 300);
    }
}
