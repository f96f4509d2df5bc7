//! Messages in a stream (RFC 8489 section 6.2.2, RFC 8656 section 12.5): STUN and ChannelData one after the other over TCP
//! or TLS. Each says its own length; ChannelData is padded to a multiple of four, which its length field does not count.
//!
//! No buffer here: whoever reads the stream keeps the bytes and asks how many of them the first message takes.

use crate::ParseError;
use crate::channel_data;
use crate::cursor::{u16_at, u32_at};
use crate::stun::{HEADER_LEN, MAGIC_COOKIE};

/// The longest message that a stream can hold: STUN with the longest length field that is a multiple of four.
pub const MESSAGE_MAX: usize = HEADER_LEN + (u16::MAX as usize & !3);

const _: () = assert!(
    MESSAGE_MAX > channel_data::HEADER_LEN + u16::MAX as usize,
    "ChannelData is shorter, padding included"
);

/// The padding of a ChannelData message of this length in a stream: 0 to 3 zeroes. STUN needs none.
pub const fn padding(len: usize) -> usize {
    len.wrapping_neg() % 4
}

/// How many bytes the first message of a stream takes, padding included; `None` where too few have come to tell. An error
/// means that the stream is not ours, or lost its step: nothing after it can be read.
pub fn message_len(bytes: &[u8]) -> Result<Option<usize>, ParseError> {
    let Some(&first) = bytes.first() else {
        return Ok(None);
    };
    // Before the length field is there: nothing but these is waited for.
    if !matches!(first, 0..=3 | 0x40..=0x7F) {
        return Err(ParseError::Version);
    }
    let Some(length) = u16_at(bytes, 2).map(usize::from) else {
        return Ok(None);
    };
    if first >= 0x40 {
        let len = channel_data::HEADER_LEN + length;
        return Ok(Some(len + padding(len)));
    }
    if length % 4 != 0 {
        return Err(ParseError::Length);
    }
    match u32_at(bytes, 4) {
        Some(cookie) if cookie != MAGIC_COOKIE => Err(ParseError::MagicCookie),
        Some(_) => Ok(Some(HEADER_LEN + length)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stun_message_takes_its_header_and_its_length() {
        let mut bytes = [0; 64];
        bytes[..8].copy_from_slice(&[0, 3, 0, 8, 0x21, 0x12, 0xA4, 0x42]);
        assert_eq!(message_len(&bytes), Ok(Some(28)));
        for len in 0..8 {
            assert_eq!(message_len(&bytes[..len]), Ok(None), "{len} bytes are too few");
        }
        assert_eq!(message_len(&bytes[..8]), Ok(Some(28)), "the rest may still come");
    }

    #[test]
    fn channel_data_takes_its_padding_too() {
        for (length, takes) in [(0, 4), (1, 8), (3, 8), (4, 8), (5, 12), (65_535, 65_540)] {
            let [high, low] = u16::to_be_bytes(length);
            assert_eq!(message_len(&[0x40, 0, high, low]), Ok(Some(takes)), "{length}");
            assert_eq!(padding(4 + usize::from(length)), takes - 4 - usize::from(length));
        }
    }

    #[test]
    fn what_is_neither_is_not_waited_for() {
        for first in [4, 0x16, 0x3F, 0x80, 0xFF] {
            assert_eq!(message_len(&[first]), Err(ParseError::Version));
        }
        assert_eq!(message_len(&[0, 1, 0, 3]), Err(ParseError::Length));
        assert_eq!(
            message_len(&[0, 1, 0, 0, 1, 2, 3, 4]),
            Err(ParseError::MagicCookie)
        );
    }
}
