//! RTP packets (RFC 3550 section 5.1) and their header extensions (RFC 8285).
//!
//! [`HeaderView`] reads the header alone, which SRTP leaves in the clear; [`Packet`] also knows the padding, and
//! so needs plain text. [`Header`] writes, [`HeaderMut`] changes fields in place.

mod header;
mod packet;

pub mod extension;

pub use extension::Extension;
pub use header::{FIXED_HEADER_LEN, Header, HeaderMut, HeaderView};
pub use packet::Packet;
