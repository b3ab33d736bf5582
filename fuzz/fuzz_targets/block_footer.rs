//! Any bytes are the footer and the ends of a block, or an error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_block_footer;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_block_footer(bytes);
});
