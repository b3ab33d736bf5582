//! rootline-tests
