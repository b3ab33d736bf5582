//! rootline-query
