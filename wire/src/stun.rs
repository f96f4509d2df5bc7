//! STUN (RFC 8489) with the attributes of TURN (RFC 8656, 6062, 8016, 7635), ICE (RFC 8445) and NAT
//! behaviour discovery (RFC 5780).
//!
//! [`Message`] is the view, [`Builder`] the writer.

mod address;
mod attribute;
mod builder;
mod fingerprint;
mod header;
mod integrity;
mod message;

pub use attribute::{AttributeType, Attributes, ChangeRequest, ErrorCode, Icmp, PasswordAlgorithm};
pub use builder::Builder;
pub use header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId};
pub use integrity::{integrity_key, long_term_key, long_term_key_sha256, userhash};
pub use message::{ATTRIBUTES_MAX, Message};
