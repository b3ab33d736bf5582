//! Any bytes are a label set or an error; what decodes as canonical encodes to the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_index::{Labels, LabelsBuilder};

fuzz_target!(|bytes: &[u8]| {
    if let Ok(labels) = LabelsBuilder::from_encoded(bytes).and_then(LabelsBuilder::build) {
        let mut canonical = Vec::new();
        labels.encode_canonical(&mut canonical);
        assert_eq!(Labels::decode_canonical(&canonical).as_ref(), Ok(&labels));
    }
    if let Ok(labels) = Labels::decode_canonical(bytes) {
        let mut canonical = Vec::new();
        labels.encode_canonical(&mut canonical);
        assert_eq!(canonical, bytes);
    }
});
