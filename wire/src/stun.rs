//! STUN (RFC 8489) with the attributes of TURN (RFC 8656) and ICE (RFC 8445).
//!
//! [`Message`] is the view, [`Builder`] the writer. MESSAGE-INTEGRITY-SHA256 is recognised as the end of what
//! counts but not verified: no client of the relay is offered it.

mod address;
mod attribute;
mod builder;
mod fingerprint;
mod header;
mod integrity;
mod message;

pub use attribute::{AttributeType, Attributes, ErrorCode};
pub use builder::Builder;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{integrity_key, long_term_key};
pub use message::{ATTRIBUTES_MAX, Message};
