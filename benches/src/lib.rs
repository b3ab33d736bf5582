//! rootline-benches
