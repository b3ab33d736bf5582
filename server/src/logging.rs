//! Structured logs on standard error, as text or JSON.
//!
//! *error* needs a person, *warn* means that the node carried on. Libraries below the node are held
//! to warnings unless debugging was asked for.

use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{
    filter::Targets, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::config::{Config, LogFormat};

/// Sends the log lines of this process where `config` says. Later calls have no effect.
pub(crate) fn init(config: &Config) {
    let others = if config.log_level == Level::TRACE {
        LevelFilter::DEBUG
    } else {
        LevelFilter::from_level(config.log_level).min(LevelFilter::WARN)
    };
    let targets = Targets::new()
        .with_target("rootline", config.log_level)
        .with_default(others);
    let registry = tracing_subscriber::registry().with(targets);
    let layer = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    // It fails only if a subscriber is there already, which then serves.
    let _ = match config.log_format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).try_init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).try_init(),
    };
}
