//! Any bytes are spans, refused spans, or an error that leaves nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline::otlp::decode_traces;
use rootline_engine::{Rejections, SpanBatch};

fuzz_target!(|bytes: &[u8]| {
    let (mut batch, mut rejections) = (SpanBatch::new(), Rejections::default());
    if decode_traces(bytes, &mut batch, &mut rejections).is_err() {
        assert!(batch.is_empty());
    }
});
