//! rootline-engine
