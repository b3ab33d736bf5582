//! Any bytes are a column of rising timestamps or an error, the same with every kernel; what was decoded
//! comes back through the encoder.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_engine::column::{kernel::Kernel, times};

fuzz_target!(|bytes: &[u8]| {
    let mut times_ns = Vec::new();
    let decoded = times::decode_with(Kernel::Plain, bytes, &mut times_ns);
    for kernel in Kernel::ALL {
        let mut others = Vec::new();
        assert_eq!(times::decode_with(kernel, bytes, &mut others), decoded);
        assert_eq!(others, times_ns);
    }
    if decoded.is_err() {
        assert!(times_ns.is_empty());
        return;
    }
    assert!(times_ns.is_sorted_by(|a, b| a < b));
    let bounds = times::bounds(bytes).expect("the column was decoded");
    assert_eq!(bounds.count as usize, times_ns.len());
    assert_eq!(Some(&bounds.first_ns), times_ns.first());
    assert_eq!(Some(&bounds.last_ns), times_ns.last());

    let (mut encoded, mut again) = (Vec::new(), Vec::new());
    times::encode(&times_ns, &mut encoded);
    assert_eq!(times::bounds(&encoded), Ok(bounds));
    times::decode(&encoded, &mut again).expect("what was encoded is a column");
    assert_eq!(again, times_ns);
});
