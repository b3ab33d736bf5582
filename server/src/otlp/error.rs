//! Why a request as a whole is not OTLP.

/// A request body that does not parse. Nothing of it is stored, and it will fail again.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The bytes are not the protobuf message they should be.
    #[error("malformed protobuf at byte {offset_bytes}: {reason}")]
    Protobuf {
        /// Where in the (decompressed) message.
        offset_bytes: usize,
        /// What is wrong there.
        reason: &'static str,
    },
    /// The text is not the JSON form of the message it should be.
    #[error("malformed OTLP JSON: {reason}")]
    Json {
        /// What is wrong, with line and column.
        reason: String,
    },
    /// The labels of its series would take too much memory.
    #[error(
        "the request's series would take more than {bytes_max} bytes: send fewer points at once or shorter attributes"
    )]
    TooLarge {
        /// The bound.
        bytes_max: u64,
    },
    /// There is no memory for its series now.
    #[error("no memory for the request's series")]
    NoRoom,
}
