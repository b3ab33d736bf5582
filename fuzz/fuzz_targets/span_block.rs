//! Whatever the sections of a span block hold under checksums that are right: it is read or refused,
//! without a panic and without an allocation beyond what its bytes can mean.
//!
//! The input is the number of spans and of traces (two bytes each), ten lengths of two bytes, then the
//! sections in the order of `check_span_block`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_span_block;

fuzz_target!(|bytes: &[u8]| {
    let Some((counts, rest)) = bytes.split_at_checked(4) else {
        return;
    };
    let Some((lengths, mut rest)) = rest.split_at_checked(20) else {
        return;
    };
    let number = |bytes: &[u8]| u16::from_le_bytes([bytes[0], bytes[1]]);
    let mut sections: [&[u8]; 10] = [&[]; 10];
    for (section, length) in sections.iter_mut().zip(lengths.chunks_exact(2)) {
        let length = usize::from(number(length));
        let (taken, behind) = rest.split_at(length.min(rest.len()));
        *section = taken;
        rest = behind;
    }
    let spans = u32::from(number(&counts[..2]));
    let traces = u32::from(number(&counts[2..]));
    let _ = check_span_block(spans, traces, sections);
});
