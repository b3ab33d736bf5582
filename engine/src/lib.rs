//! rootline-engine
#![deny(unsafe_code)]

pub mod chunk;
