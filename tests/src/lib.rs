//! Black-box tests of Rootline: the real binary, its ports, its files.
//!
//! This library is the harness: [`Node`] starts, kills and asks a node, [`http`] speaks to it as well as
//! or as badly as a test wants, [`otlp`] and [`remote_write`] make requests whose content is known,
//! [`requirement`] finds the recorded data beside the checkout. The tests stand in folders by what they show,
//! see `docs/testing.md`.

pub mod binary;
pub mod http;
pub mod node;
pub mod otlp;
pub mod remote_write;
pub mod requirement;
pub mod seeded;

pub use node::Node;

/// The README's example compiles and runs as it stands.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
