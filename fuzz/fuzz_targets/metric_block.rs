//! Whatever the sections of a metric block hold under checksums that are right: it is read or refused,
//! without a panic and without an allocation beyond what its bytes can mean.
//!
//! The input is seven lengths of two bytes, then the sections in the order of `check_metric_block`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_metric_block;

fuzz_target!(|bytes: &[u8]| {
    let Some((lengths, mut rest)) = bytes.split_at_checked(14) else {
        return;
    };
    let mut sections: [&[u8]; 7] = [&[]; 7];
    for (section, length) in sections.iter_mut().zip(lengths.chunks_exact(2)) {
        let length = u16::from_le_bytes([length[0], length[1]]);
        let (taken, behind) = rest.split_at(usize::from(length).min(rest.len()));
        *section = taken;
        rest = behind;
    }
    let _ = check_metric_block(sections);
});
