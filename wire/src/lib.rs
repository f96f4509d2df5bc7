//! Bytes to typed views and back: STUN (RFC 8489), ChannelData (RFC 8656), RTP and its header
//! extensions (RFC 3550, RFC 8285), RTCP and its feedback (RFC 3550, 4585, 5104), demultiplexing
//! (RFC 7983).
//!
//! A view borrows the datagram and its lengths are checked once, in `parse`; a writer fills a buffer of the
//! caller's. Nothing here allocates, reads a clock, holds a socket or panics on any input.

mod cursor;
mod error;

pub mod channel_data;
pub mod demux;
pub mod rtcp;
pub mod rtp;
pub mod stream;
pub mod stun;

pub use error::{ParseError, WriteError};
