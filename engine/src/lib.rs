//! Rootline's embeddable store for metrics and traces.
#![deny(unsafe_code)]

mod budget;
mod control;
mod error;
mod id;
mod metric;
mod outcome;
mod record;
mod settings;
mod span;
mod time;
mod value;
mod varint;
