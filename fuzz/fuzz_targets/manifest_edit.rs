//! Any payload is an edit of the manifest or an error, and one that is an edit is written back as it was
//! read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::check_manifest_edit;

fuzz_target!(|bytes: &[u8]| {
    let _ = check_manifest_edit(bytes);
});
