//! FINGERPRINT (RFC 8489 section 14.7): the CRC-32 of everything before it, so that STUN is told apart from what
//! shares its port.

/// "STUN", so that a CRC of the payload's own does not pass for a fingerprint.
const XOR: u32 = 0x5354_554E;

/// Bytes of the value.
pub(super) const FINGERPRINT_LEN: usize = 4;

/// Of a message whose header already counts the attribute.
pub(super) fn fingerprint(before: &[u8]) -> u32 {
    crc32fast::hash(before) ^ XOR
}
