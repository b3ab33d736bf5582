//! OTLP ingest: traces and metrics over gRPC and HTTP, in protobuf and JSON.
//!
//! ```text
//! http.rs, grpc.rs   read a request (budget first), answer in the protocol's own way (answer.rs)
//! ingest.rs          what both do: decode and write on a blocking thread
//!   json.rs          JSON is written out as protobuf
//!   wire.rs          protobuf, walked over the request's bytes
//!   trace.rs         spans  -> the engine's span batch
//!   metrics.rs       points -> the engine's metric batch
//!     translate.rs   names, units        series.rs   label bytes        any_value.rs   values
//! ```
//!
//! What becomes what, and what is refused: `docs/otlp.md`.

mod answer;
mod any_value;
mod error;
mod grpc;
mod http;
mod ingest;
mod json;
mod metrics;
mod series;
mod trace;
mod translate;
pub(crate) mod wire;

pub use error::DecodeError;
pub use grpc::{MetricsService, TraceService};
pub use http::routes;
pub use json::{metrics_to_protobuf, traces_to_protobuf};
pub use metrics::{
    BATCH_BYTES_MAX, DecodeStats, Room, STALE_NAN_BITS, decode_metrics, decode_metrics_within,
};
pub use trace::decode_traces;
pub use translate::{PROMOTED_ATTRIBUTES_DEFAULT, Translation};

#[cfg(test)]
mod tests;
