//! Remote-write requests, encoded by hand so that they can also be wrong.

use std::net::SocketAddr;

use crate::http::{self, Response};

/// Appends a varint.
pub fn varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// Appends a length-delimited field.
pub fn field(out: &mut Vec<u8>, number: u64, content: &[u8]) {
    varint(out, number << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

/// A `TimeSeries`: labels as given, samples as (milliseconds, value).
pub fn series(labels: &[(&[u8], &[u8])], samples: &[(i64, f64)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let mut label = Vec::new();
        field(&mut label, 1, name);
        field(&mut label, 2, value);
        field(&mut out, 1, &label);
    }
    for (ms, value) in samples {
        let mut sample = vec![0x09];
        sample.extend_from_slice(&value.to_le_bytes());
        sample.push(0x10);
        varint(&mut sample, ms.cast_unsigned());
        field(&mut out, 2, &sample);
    }
    out
}

/// A `WriteRequest` of these series.
pub fn request(series: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    for one in series {
        field(&mut out, 1, one);
    }
    out
}

/// Posts a request as Prometheus does.
///
/// # Errors
/// Whatever the socket says.
///
/// # Panics
/// If the body cannot be compressed.
pub fn post(http: SocketAddr, body: &[u8]) -> std::io::Result<Response> {
    let body = snap::raw::Encoder::new()
        .compress_vec(body)
        .expect("snappy takes any bytes");
    post_raw(http, &body)
}

/// Posts bytes as if they were a compressed request.
///
/// # Errors
/// Whatever the socket says.
pub fn post_raw(http: SocketAddr, body: &[u8]) -> std::io::Result<Response> {
    let headers = [
        ("Content-Type", "application/x-protobuf"),
        ("Content-Encoding", "snappy"),
        ("X-Prometheus-Remote-Write-Version", "0.1.0"),
    ];
    http::request(http, "POST", "/api/v1/write", &headers, body)
}
