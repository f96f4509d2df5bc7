//! One published packet in plain text, shared by everybody who still has to send it: payload, dependency
//! descriptor and what is known about both.
//!
//! A slot is written by its shard's [`pool`](crate::pool) alone, while nobody else holds it, and is never
//! written again for as long as it is shared: all that a subscriber's packet needs besides goes into headers
//! and scratch of its own.

use std::time::Instant;

/// Memory of a slot with its reference counts. An Ethernet frame's payload fits with its descriptor.
pub(crate) const SLOT_BYTES: usize = 2048;
/// Room in front of the payload for the original sequence number of a publisher's retransmission
/// (RFC 4588 section 4).
pub(crate) const OSN_LENGTH: usize = 2;
/// Room for the dependency descriptor, the only header extension of more than a byte that is kept.
pub(crate) const DESCRIPTOR_BYTES_MAX: usize = 256;
/// The two counts in front of what an `Arc` holds.
const COUNTS_BYTES: usize = 2 * size_of::<usize>();
const BYTES: usize = SLOT_BYTES - COUNTS_BYTES - size_of::<Stored>();
const PAYLOAD_AT: usize = DESCRIPTOR_BYTES_MAX + OSN_LENGTH;
/// The largest payload that fits.
pub(crate) const PAYLOAD_BYTES_MAX: usize = BYTES - PAYLOAD_AT;

const _: () = assert!(
    PAYLOAD_BYTES_MAX >= 1500,
    "every packet of an Ethernet path must fit a slot"
);
const _: () = assert!(size_of::<Slot>() + COUNTS_BYTES <= SLOT_BYTES);

/// What is known about a stored packet besides its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// Packet index: ROC and sequence number.
    pub(crate) index: u64,
    /// When it arrived.
    pub(crate) arrival: Instant,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
    /// Length of the payload without padding.
    pub(crate) payload_length: u16,
    /// Length of the dependency descriptor; 0 when there is none.
    pub(crate) descriptor_length: u16,
    /// Payload type as the publisher numbers it.
    pub(crate) payload_type: u8,
    /// Marker bit.
    pub(crate) marker: bool,
    /// The publisher padded it (RFC 3550 section 5.1). The padding itself is not kept.
    pub(crate) padded: bool,
    /// Any packet of a video key frame.
    pub(crate) of_key_frame: bool,
    /// First packet of a key frame (always true for audio).
    pub(crate) starts_key_frame: bool,
    /// Audio level extension.
    pub(crate) audio_level: Option<u8>,
    /// Video orientation extension.
    pub(crate) video_orientation: Option<u8>,
}

impl Stored {
    /// Of a packet that nothing is known about.
    pub(crate) fn empty(now: Instant) -> Stored {
        Stored {
            index: 0,
            arrival: now,
            timestamp: 0,
            payload_length: 0,
            descriptor_length: 0,
            payload_type: 0,
            marker: false,
            padded: false,
            of_key_frame: false,
            starts_key_frame: false,
            audio_level: None,
            video_orientation: None,
        }
    }
}

/// A published packet.
pub struct Slot {
    stored: Stored,
    bytes: [u8; BYTES],
}

impl Slot {
    pub(crate) fn new(now: Instant) -> Slot {
        Slot {
            stored: Stored::empty(now),
            bytes: [0; BYTES],
        }
    }

    /// What is known about the packet.
    pub(crate) fn stored(&self) -> &Stored {
        &self.stored
    }

    /// The payload, without padding.
    pub(crate) fn payload(&self) -> &[u8] {
        &self.bytes[PAYLOAD_AT..][..usize::from(self.stored.payload_length)]
    }

    /// The dependency descriptor; empty when there is none.
    pub(crate) fn descriptor(&self) -> &[u8] {
        &self.bytes[..usize::from(self.stored.descriptor_length)]
    }

    /// The payload's room, to open a packet into.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[PAYLOAD_AT..]
    }

    /// The payload's room with two bytes in front, to open a retransmission into: its original sequence number
    /// lands in front of where the payload belongs.
    pub(crate) fn room_with_osn(&mut self) -> &mut [u8] {
        &mut self.bytes[PAYLOAD_AT - OSN_LENGTH..]
    }

    /// The original sequence number in front of the payload of a retransmission.
    pub(crate) fn osn(&self) -> u16 {
        u16::from_be_bytes([self.bytes[PAYLOAD_AT - 2], self.bytes[PAYLOAD_AT - 1]])
    }

    /// The first `length` bytes of what was opened.
    pub(crate) fn opened(&self, length: usize) -> &[u8] {
        &self.bytes[PAYLOAD_AT..][..length]
    }

    /// Says what was opened into the room. `descriptor` is copied beside it when it fits.
    pub(crate) fn describe(&mut self, stored: Stored, descriptor: &[u8]) {
        self.stored = stored;
        self.stored.descriptor_length = 0;
        if descriptor.len() <= DESCRIPTOR_BYTES_MAX {
            self.bytes[..descriptor.len()].copy_from_slice(descriptor);
            self.stored.descriptor_length = descriptor.len() as u16;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_retransmission_s_payload_lies_where_the_original_s_would() {
        let now = Instant::now();
        let mut slot = Slot::new(now);
        slot.room_with_osn()[..5].copy_from_slice(&[3, 4, b'a', b'b', b'c']);
        assert_eq!(slot.osn(), 0x0304);
        assert_eq!(slot.opened(3), b"abc");
        let stored = Stored {
            payload_length: 3,
            ..Stored::empty(now)
        };
        slot.describe(stored, &[7, 8]);
        assert_eq!((slot.payload(), slot.descriptor()), (&b"abc"[..], &[7, 8][..]));
        slot.describe(stored, &[0; DESCRIPTOR_BYTES_MAX + 1]);
        assert!(
            slot.descriptor().is_empty(),
            "a descriptor that does not fit is left out"
        );
    }
}
