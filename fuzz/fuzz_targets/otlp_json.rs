//! Any bytes are no OTLP JSON, or become protobuf that the decoder of spans takes or refuses item by
//! item: what the JSON side writes is never malformed.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline::otlp::{decode_traces, metrics_to_protobuf, traces_to_protobuf};
use rootline_engine::{Rejections, SpanBatch};

fuzz_target!(|bytes: &[u8]| {
    let mut protobuf = Vec::new();
    if traces_to_protobuf(bytes, &mut protobuf).is_ok() {
        let (mut batch, mut rejections) = (SpanBatch::new(), Rejections::default());
        decode_traces(&protobuf, &mut batch, &mut rejections).expect("well-formed protobuf");
    }
    let _ = metrics_to_protobuf(bytes, &mut Vec::new());
});
