//! Whatever the section of edges of a span block holds under checksums that are right: it is read or
//! refused, without a panic and without an allocation beyond what its bytes can mean.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_span_edges;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_span_edges(bytes);
});
