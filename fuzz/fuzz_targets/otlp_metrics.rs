//! Any bytes are samples, refused points, or an error that leaves nothing; with legal names and with
//! names as sent.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rootline::otlp::{Translation, decode_metrics};
use rootline_engine::{Engine, Rejections};

/// A batch comes from a store; nothing is written to it.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("rootline-fuzz-{}", std::process::id()));
        Engine::builder(dir)
            .open()
            .expect("a store in the temporary directory")
    })
}

fuzz_target!(|bytes: &[u8]| {
    let Some((mode, bytes)) = bytes.split_first() else {
        return;
    };
    let mut translation = Translation::default();
    translation.utf8_names = mode & 1 == 1;
    let mut batch = engine().batch();
    let (metrics, _, _) = batch.split();
    let mut rejections = Rejections::default();
    match decode_metrics(bytes, metrics, &mut rejections, &translation) {
        Ok(stats) => assert!(rejections.samples <= stats.points),
        Err(_) => assert!(metrics.is_empty()),
    }
});
