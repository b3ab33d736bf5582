//! rootline-wal
