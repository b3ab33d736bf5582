//! Generated from `server/proto/`.

#![expect(missing_docs, clippy::pedantic, reason = "generated code")]

/// Prometheus remote write 1.0.
pub mod prometheus {
    tonic::include_proto!("prometheus");
}

/// Descriptors of everything under `server/proto/`, as server reflection hands them out.
pub const FILE_DESCRIPTOR_SET: &[u8] =
    include_bytes!(concat!(env!("OUT_DIR"), "/rootline_descriptors.bin"));
