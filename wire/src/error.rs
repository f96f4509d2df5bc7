//! Why bytes were not a message, and why a message did not fit its buffer.

use thiserror::Error;

/// Why a datagram is not what its first byte promised. `Copy`, so that it can be counted on the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum ParseError {
    /// Fewer bytes than the fixed header needs.
    #[error("shorter than its fixed header")]
    Truncated,
    /// A length field that disagrees with the bytes that are there.
    #[error("a length field disagrees with the bytes present")]
    Length,
    /// The version or the two leading type bits are not those of the protocol.
    #[error("not the protocol's version")]
    Version,
    /// STUN without the magic cookie 0x2112A442.
    #[error("no STUN magic cookie")]
    MagicCookie,
    /// A STUN attribute that runs past the message's end or has the wrong size for its type.
    #[error("a STUN attribute overruns the message or has the wrong size")]
    Attribute,
    /// More STUN attributes than [`crate::stun::ATTRIBUTES_MAX`].
    #[error("too many STUN attributes")]
    TooManyAttributes,
    /// Something follows FINGERPRINT, which must be last (RFC 8489 section 14.7).
    #[error("FINGERPRINT is not the last attribute")]
    AfterFingerprint,
    /// A channel number outside 0x4000..=0x7FFF.
    #[error("not a channel number")]
    ChannelNumber,
    /// RTP or RTCP padding that is zero or larger than what it pads.
    #[error("padding larger than the packet")]
    Padding,
}

/// Why something was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
pub enum WriteError {
    /// The buffer is too small.
    #[error("the buffer is too small")]
    BufferTooSmall,
    /// A value is larger than its length field can say, or a list longer than its count can.
    #[error("a value is larger than its field can say")]
    ValueTooLong,
}
