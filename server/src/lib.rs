//! rootline
