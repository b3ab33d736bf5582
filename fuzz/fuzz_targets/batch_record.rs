//! Any payload is replayed or refused: no panic, no allocation beyond what its bytes can mean.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::{Lsn, check_record};

fuzz_target!(|bytes: &[u8]| {
    let _ = check_record(Lsn(1), bytes);
});
