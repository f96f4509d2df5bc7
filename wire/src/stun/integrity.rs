//! MESSAGE-INTEGRITY and MESSAGE-INTEGRITY-SHA256 (RFC 8489 sections 14.5 and 14.6): an HMAC over the message up to the
//! attribute, with the header's length field as if the message ended with it. And the keys of the long-term mechanism
//! (section 9.2.2).
//!
//! Passwords are taken as they are: the relay makes its own out of ASCII, on which OpaqueString (RFC 8265) is
//! the identity.

use aws_lc_rs::{constant_time, digest, hmac};
use md5::{Digest, Md5};

use super::header::HEADER_LEN;

/// Bytes of an HMAC-SHA1.
pub(super) const INTEGRITY_LEN: usize = 20;

/// Bytes of an HMAC-SHA256; in a message it may be cut to no less than [`INTEGRITY_SHA256_MIN`], in steps of four.
pub(super) const INTEGRITY_SHA256_LEN: usize = 32;

/// The shortest that MESSAGE-INTEGRITY-SHA256 may be.
pub(super) const INTEGRITY_SHA256_MIN: usize = 16;

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

/// SHA-256(username ":" realm ":" password), its key where PASSWORD-ALGORITHM says so.
pub fn long_term_key_sha256(username: &str, realm: &str, password: &str) -> [u8; 32] {
    sha256(&[username, ":", realm, ":", password])
}

/// USERHASH (RFC 8489 section 14.4): SHA-256(username ":" realm).
pub fn userhash(username: &str, realm: &str) -> [u8; 32] {
    sha256(&[username, ":", realm])
}

fn sha256(parts: &[&str]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part.as_bytes()));
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Of MESSAGE-INTEGRITY-SHA256.
pub(super) fn integrity_key_sha256(key: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key)
}

/// The HMAC for an attribute that starts at `offset`. `message` has at least a header before it.
pub(super) fn sign(key: &hmac::Key, message: &[u8], offset: usize, len: usize) -> hmac::Tag {
    let length = (offset - HEADER_LEN + 4 + len) as u16;
    let mut context = hmac::Context::with_key(key);
    context.update(&message[..2]);
    context.update(&length.to_be_bytes());
    context.update(&message[4..offset]);
    context.sign()
}

/// Compares in constant time an attribute at `offset` whose value has `len` bytes, which may be the tag's first.
pub(super) fn verify(key: &hmac::Key, message: &[u8], offset: usize, len: usize) -> bool {
    let tag = sign(key, message, offset, len);
    match (message.get(offset + 4..offset + 4 + len), tag.as_ref().get(..len)) {
        (Some(value), Some(tag)) => constant_time::verify_slices_are_equal(tag, value).is_ok(),
        _ => false,
    }
}
