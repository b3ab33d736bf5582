//! Any bytes are a `rootline.v1.WriteRequest` or refused; what is taken is stored without a panic.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rootline::api::decode_write;
use rootline_engine::{Durability, Engine, Settings};

/// One store for all runs: its memory limit refuses what becomes too much.
fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let dir = std::env::temp_dir().join(format!("rootline-fuzz-{}", std::process::id()));
        let mut settings = Settings::default();
        settings.durability = Durability::Interval(std::time::Duration::from_secs(3600));
        settings.memory_limit_bytes = 256 << 20;
        Engine::builder(dir)
            .settings(settings)
            .open()
            .expect("a fresh directory opens")
    })
}

fuzz_target!(|request: &[u8]| {
    let mut batch = engine().batch();
    if decode_write(request, &mut batch).is_ok() {
        let _ = engine().write(&mut batch);
    }
});
