//! Chunks: the samples of one series, compressed.
//!
//! A chunk knows timestamps and values. It does not know its series, its LSNs or its window, and
//! takes no lock: the head owns it, under the lock of the series' shard.
//!
//! | file | what |
//! | --- | --- |
//! | `gorilla.rs` | the chunk of the head: appended in place, read while it grows |
//! | `bitstream.rs` | single bits in and out of bytes |

mod bitstream;
mod gorilla;

pub use gorilla::{
    AppendRefusal, CHUNK_BYTES_MAX, CHUNK_SAMPLES_MAX, Chunk, ChunkCopy, ChunkError, ChunkIter,
    TimeUnit,
};
