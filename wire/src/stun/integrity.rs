//! MESSAGE-INTEGRITY (RFC 8489 section 14.5): HMAC-SHA1 over the message up to the attribute, with the header's
//! length field as if the message ended with it. And the key of the long-term mechanism (section 9.2.2).
//!
//! Passwords are taken as they are: the relay makes its own out of ASCII, on which OpaqueString (RFC 8265) is
//! the identity.

use aws_lc_rs::{constant_time, hmac};
use md5::{Digest, Md5};

use super::header::HEADER_LEN;

/// Bytes of an HMAC-SHA1.
pub(super) const INTEGRITY_LEN: usize = 20;

/// Prepares a key once for many messages: an ICE password, or what [`long_term_key`] made.
pub fn integrity_key(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, key)
}

/// MD5(username ":" realm ":" password), the key of the long-term credential mechanism.
pub fn long_term_key(username: &str, realm: &str, password: &str) -> [u8; 16] {
    let mut hash = Md5::new();
    for part in [username, ":", realm, ":", password] {
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// The HMAC for an attribute that starts at `offset`. `message` has at least a header before it.
pub(super) fn sign(key: &hmac::Key, message: &[u8], offset: usize) -> hmac::Tag {
    let length = (offset - HEADER_LEN + 4 + INTEGRITY_LEN) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(&message[..2]);
    context.update(&length.to_be_bytes());
    context.update(&message[4..offset]);
    context.sign()
}

/// Compares in constant time.
pub(super) fn verify(key: &hmac::Key, message: &[u8], offset: usize) -> bool {
    let Some(value) = message.get(offset + 4..offset + 4 + INTEGRITY_LEN) else {
        return false;
    };
    constant_time::verify_slices_are_equal(sign(key, message, offset).as_ref(), value).is_ok()
}
