//! rootline-index
