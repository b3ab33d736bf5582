//! Clients written by others, driven through both kinds of refusal and a restart: nothing is lost, and
//! what was refused for good holds nothing else up.
//!
//! - `otel_sdk.rs`: the OpenTelemetry Python SDK. Needs a Python that has it: `ROOTLINE_TESTS_PYTHON`
//!   names one, else `python3`.
//! - `prometheus.rs`: Prometheus with `remote_write`. Needs `prometheus` on the path.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test fails by panicking, in its helpers too"
)]

mod otel_sdk;
mod pressure;
mod prometheus;
