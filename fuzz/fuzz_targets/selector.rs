//! Any text is a selector, a set of spans, a page token, or refused with the place of the fault inside it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rootline_query::{Error, PageToken, Selector, SpanSet};

fuzz_target!(|text: &str| {
    match Selector::parse(text) {
        Ok(selector) => {
            let written = selector.to_string();
            assert_eq!(
                Selector::parse(&written).expect("what is written reads back"),
                selector
            );
        }
        Err(Error::Selector(error)) => assert!(error.character <= text.chars().count() + 1),
        Err(_) => {}
    }
    match SpanSet::parse(text) {
        Ok(set) => {
            let written = set.to_string();
            let read = SpanSet::parse(&written).expect("what is written reads back");
            assert_eq!(read.to_string(), written);
            set.check().expect("what is read is within the bounds");
        }
        Err(Error::SpanSet(error)) => assert!(error.character <= text.chars().count() + 1),
        Err(_) => {}
    }
    let _ = PageToken::decode(text, b"conditions");
});
