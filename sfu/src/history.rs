//! The ring of recent packets of one published stream, in plain text: what is forwarded now, and what a NACK
//! may ask for later. One ring a stream, shared by all its subscribers.
//!
//! A packet is opened into a spare slot and takes its place only once it proved authentic, so a forgery
//! cannot spoil what is stored. Bounded in packets (the ring) and in time ([`AGE_MAX`]).

use std::time::{Duration, Instant};

use crate::media::Kind;

/// Video packets remembered: 6 s at 1.5 Mbit/s, 1 s at 10 Mbit/s.
pub(crate) const VIDEO_PACKETS: usize = 1024;
/// Audio packets remembered: 2.5 s at 50 packets a second.
pub(crate) const AUDIO_PACKETS: usize = 128;
/// Nobody waits longer for a retransmission.
pub(crate) const AGE_MAX: Duration = Duration::from_secs(5);
/// Bytes of a slot. An Ethernet frame's payload fits with its dependency descriptor.
pub(crate) const SLOT_BYTES: usize = 2048;
/// Room in front of the payload for the original sequence number of a retransmission (RFC 4588 section 4).
pub(crate) const OSN_LENGTH: usize = 2;
/// Room for the dependency descriptor, the only header extension of more than a byte that is kept.
pub(crate) const DESCRIPTOR_BYTES_MAX: usize = 256;
const PAYLOAD_AT: usize = DESCRIPTOR_BYTES_MAX + OSN_LENGTH;
/// The largest payload that fits.
pub(crate) const PAYLOAD_BYTES_MAX: usize = SLOT_BYTES - PAYLOAD_AT;

const _: () = assert!(
    PAYLOAD_BYTES_MAX >= 1500,
    "every packet of an Ethernet path must fit a slot"
);
const _: () = assert!(VIDEO_PACKETS.is_power_of_two() && AUDIO_PACKETS.is_power_of_two());

/// What is known about a stored packet besides its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stored {
    /// Packet index: ROC and sequence number.
    pub(crate) index: u64,
    /// When it arrived.
    pub(crate) arrival: Instant,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
    /// Payload type as the publisher numbers it.
    pub(crate) payload_type: u8,
    /// Marker bit.
    pub(crate) marker: bool,
    /// First packet of a key frame (always true for audio).
    pub(crate) starts_key_frame: bool,
    /// Length of the payload without padding.
    pub(crate) payload_length: u16,
    /// Length of the dependency descriptor; 0 when there is none.
    pub(crate) descriptor_length: u16,
    /// Audio level extension.
    pub(crate) audio_level: Option<u8>,
    /// Video orientation extension.
    pub(crate) video_orientation: Option<u8>,
}

/// The ring.
pub(crate) struct History {
    bytes: Box<[u8]>,
    /// Ring position -> slot; the last entry is the spare slot.
    slots: Box<[u16]>,
    stored: Box<[Option<Stored>]>,
}

impl History {
    /// An empty ring for a stream of this kind. The memory is touched as packets come.
    #[must_use]
    pub(crate) fn new(kind: Kind) -> History {
        let packets = match kind {
            Kind::Audio => AUDIO_PACKETS,
            Kind::Video => VIDEO_PACKETS,
        };
        History {
            bytes: vec![0; (packets + 1) * SLOT_BYTES].into_boxed_slice(),
            slots: (0..=packets as u16).collect(),
            stored: vec![None; packets].into_boxed_slice(),
        }
    }

    fn position(&self, index: u64) -> usize {
        (index as usize) & (self.stored.len() - 1)
    }

    fn slot(&self, position: usize) -> usize {
        usize::from(self.slots[position]) * SLOT_BYTES
    }

    /// Whether a packet with this index could be stored: not there yet, and not older than the ring.
    #[must_use]
    pub(crate) fn has_room(&self, index: u64) -> bool {
        self.stored[self.position(index)].is_none_or(|stored| stored.index < index)
    }

    /// The spare slot's payload room, to open a packet into.
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let at = self.slot(self.stored.len());
        &mut self.bytes[at + PAYLOAD_AT..at + SLOT_BYTES]
    }

    /// The spare slot's payload room with two bytes in front, to open a retransmission into: its original
    /// sequence number lands in front of where the payload belongs.
    pub(crate) fn spare_with_osn(&mut self) -> &mut [u8] {
        let at = self.slot(self.stored.len());
        &mut self.bytes[at + PAYLOAD_AT - OSN_LENGTH..at + SLOT_BYTES]
    }

    /// The first `length` bytes of the payload in the spare slot.
    #[must_use]
    pub(crate) fn spare_payload(&self, length: usize) -> &[u8] {
        let at = self.slot(self.stored.len());
        &self.bytes[at + PAYLOAD_AT..at + SLOT_BYTES][..length]
    }

    /// The original sequence number in front of the payload in the spare slot.
    #[must_use]
    pub(crate) fn spare_osn(&self) -> u16 {
        let at = self.slot(self.stored.len()) + PAYLOAD_AT;
        u16::from_be_bytes([self.bytes[at - 2], self.bytes[at - 1]])
    }

    /// Puts the packet that was opened into the spare slot in its place. `descriptor` is copied beside it
    /// when it fits. False, and nothing happens, when [`History::has_room`] says no.
    pub(crate) fn store(&mut self, mut stored: Stored, descriptor: &[u8]) -> bool {
        if !self.has_room(stored.index) {
            return false;
        }
        let spare = self.stored.len();
        let position = self.position(stored.index);
        let at = self.slot(spare);
        stored.descriptor_length = 0;
        if descriptor.len() <= DESCRIPTOR_BYTES_MAX {
            self.bytes[at..at + descriptor.len()].copy_from_slice(descriptor);
            stored.descriptor_length = descriptor.len() as u16;
        }
        self.slots.swap(position, spare);
        self.stored[position] = Some(stored);
        true
    }

    /// The packet with this index, with its payload and its dependency descriptor.
    #[must_use]
    pub(crate) fn get(&self, index: u64) -> Option<(&Stored, &[u8], &[u8])> {
        let position = self.position(index);
        let stored = self.stored[position]
            .as_ref()
            .filter(|stored| stored.index == index)?;
        let at = self.slot(position);
        let payload = &self.bytes[at + PAYLOAD_AT..][..usize::from(stored.payload_length)];
        let descriptor = &self.bytes[at..][..usize::from(stored.descriptor_length)];
        Some((stored, payload, descriptor))
    }

    /// The packet with this index for a retransmission: its payload with `osn` in front, unless it is older
    /// than [`AGE_MAX`].
    pub(crate) fn get_with_osn(
        &mut self,
        index: u64,
        osn: u16,
        now: Instant,
    ) -> Option<(Stored, &[u8], &[u8])> {
        let position = self.position(index);
        let stored = self.stored[position].filter(|stored| stored.index == index)?;
        if now.saturating_duration_since(stored.arrival) > AGE_MAX {
            return None;
        }
        let at = self.slot(position);
        let slot = &mut self.bytes[at..at + SLOT_BYTES];
        slot[PAYLOAD_AT - OSN_LENGTH..PAYLOAD_AT].copy_from_slice(&osn.to_be_bytes());
        let payload = &slot[PAYLOAD_AT - OSN_LENGTH..PAYLOAD_AT + usize::from(stored.payload_length)];
        Some((stored, payload, &slot[..usize::from(stored.descriptor_length)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(index: u64, arrival: Instant, payload_length: u16) -> Stored {
        Stored {
            index,
            arrival,
            timestamp: 0,
            payload_type: 96,
            marker: false,
            starts_key_frame: false,
            payload_length,
            descriptor_length: 0,
            audio_level: None,
            video_orientation: None,
        }
    }

    #[test]
    fn a_packet_is_found_by_its_index_until_the_ring_comes_round() {
        let now = Instant::now();
        let mut history = History::new(Kind::Audio);
        for index in 0..(AUDIO_PACKETS as u64 + 10) {
            history.spare()[0] = index as u8;
            assert!(history.store(stored(index, now, 1), &[7, index as u8]));
        }
        assert!(history.get(9).is_none());
        for index in 10..(AUDIO_PACKETS as u64 + 10) {
            let (_, payload, descriptor) = history.get(index).unwrap();
            assert_eq!((payload, descriptor), (&[index as u8][..], &[7, index as u8][..]));
        }
        assert!(!history.has_room(9), "older than the ring");
        assert!(!history.store(stored(20, now, 1), &[]), "there already");
    }

    #[test]
    fn a_packet_that_was_opened_but_not_stored_spoils_nothing() {
        let now = Instant::now();
        let mut history = History::new(Kind::Audio);
        history.spare()[..4].copy_from_slice(b"good");
        assert!(history.store(stored(5, now, 4), &[]));
        history.spare()[..4].copy_from_slice(b"evil");
        assert_eq!(history.get(5).unwrap().1, b"good");
    }

    #[test]
    fn a_retransmission_carries_the_osn_in_front_and_is_not_given_once_too_old() {
        let now = Instant::now();
        let mut history = History::new(Kind::Video);
        history.spare_with_osn()[..5].copy_from_slice(&[1, 2, b'a', b'b', b'c']);
        assert!(history.store(stored(5, now, 3), &[]));
        assert_eq!(history.get(5).unwrap().1, b"abc");
        assert_eq!(
            history.get_with_osn(5, 0x0304, now).unwrap().1,
            &[3, 4, b'a', b'b', b'c']
        );
        assert!(
            history
                .get_with_osn(5, 0, now + AGE_MAX + Duration::from_millis(1))
                .is_none()
        );
    }
}
