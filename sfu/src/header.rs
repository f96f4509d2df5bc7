//! The RTP header that a subscriber sees: its own numbers, and the header extensions it agreed to. MID is the
//! subscriber's, abs-send-time and the transport-wide number are stamped as the packet leaves, audio level, video
//! orientation and dependency descriptor are kept; RID and whatever is unknown never get here.
//!
//! The one-byte form is a template of each send line with some bytes patched; the two-byte form, for long
//! dependency descriptors, is written element by element.

use wire::rtp::extension::{Form, Writer};
use wire::rtp::{FIXED_HEADER_LEN, Header};

use crate::media::{ExtensionMap, MID_LENGTH_MAX, Mid};
use crate::slot::{Slot, Stored};

/// What the header of an outgoing packet says besides what was stored.
pub(crate) struct Outgoing {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) sequence_number: u16,
    pub(crate) timestamp: u32,
    pub(crate) transport_sequence: u16,
    pub(crate) sent_at: [u8; 3],
    /// Padding follows the payload.
    pub(crate) padding: bool,
}

/// Room for the fixed header, the block's header and the elements that every packet has.
const FIXED_PART_BYTES_MAX: usize = FIXED_HEADER_LEN + 4 + (2 + MID_LENGTH_MAX) + 5 + 4;
/// The longest element of the one-byte form.
const SMALL_ELEMENT_MAX: usize = 16;

/// The header of one send line, made once: each packet copies it and fills in its own.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    mid: Mid,
    ids: ExtensionMap,
    /// Fixed header, block header, MID, abs-send-time, transport-wide number.
    bytes: [u8; FIXED_PART_BYTES_MAX],
    length: usize,
    sent_at: Option<usize>,
    transport_sequence: Option<usize>,
    /// Every id fits the one-byte form.
    small: bool,
}

impl Template {
    /// For a send line with this MID in a session with these extensions.
    pub(crate) fn new(mid: Mid, ids: &ExtensionMap) -> Template {
        let all = [
            ids.mid,
            ids.abs_send_time,
            ids.transport_wide_cc,
            ids.audio_level,
            ids.video_orientation,
            ids.dependency_descriptor,
        ];
        let mut template = Template {
            mid,
            ids: *ids,
            bytes: [0; FIXED_PART_BYTES_MAX],
            length: FIXED_HEADER_LEN + 4,
            sent_at: None,
            transport_sequence: None,
            small: all.iter().flatten().all(|id| *id <= 14),
        };
        template.bytes[FIXED_HEADER_LEN..FIXED_HEADER_LEN + 2]
            .copy_from_slice(&Form::OneByte.profile().to_be_bytes());
        if let Some(id) = ids.mid {
            template.push(id, mid.as_bytes());
        }
        template.sent_at = ids.abs_send_time.map(|id| template.push(id, &[0; 3]));
        template.transport_sequence = ids.transport_wide_cc.map(|id| template.push(id, &[0; 2]));
        template
    }

    /// Where the element's data is.
    fn push(&mut self, id: u8, data: &[u8]) -> usize {
        let at = self.length + 1;
        self.bytes[self.length] = id << 4 | (data.len() - 1) as u8;
        self.bytes[at..at + data.len()].copy_from_slice(data);
        self.length = at + data.len();
        at
    }

    fn level(&self, stored: &Stored) -> Option<(u8, u8)> {
        self.ids.audio_level.zip(stored.audio_level)
    }

    fn orientation(&self, stored: &Stored) -> Option<(u8, u8)> {
        self.ids.video_orientation.zip(stored.video_orientation)
    }

    fn descriptor<'d>(&self, slot: &'d Slot) -> Option<(u8, &'d [u8])> {
        let id = self.ids.dependency_descriptor?;
        (!slot.descriptor().is_empty()).then(|| (id, slot.descriptor()))
    }

    /// Length of the header of a packet.
    pub(crate) fn length(&self, slot: &Slot) -> usize {
        let descriptor = self.descriptor(slot);
        let stored = slot.stored();
        if !self.small || descriptor.is_some_and(|(_, bytes)| bytes.len() > SMALL_ELEMENT_MAX) {
            return self.length_of_two_byte_form(slot);
        }
        let mut length = self.length;
        length += 2 * usize::from(self.level(stored).is_some());
        length += 2 * usize::from(self.orientation(stored).is_some());
        length += descriptor.map_or(0, |(_, bytes)| 1 + bytes.len());
        if length == FIXED_HEADER_LEN + 4 {
            return FIXED_HEADER_LEN;
        }
        length.next_multiple_of(4)
    }

    /// Writes the header of a packet to the start of `out`: its length, as [`Template::length`] says.
    pub(crate) fn write(&self, out: &mut [u8], outgoing: &Outgoing, slot: &Slot) -> usize {
        let (stored, length) = (slot.stored(), self.length(slot));
        let descriptor = self.descriptor(slot);
        if !self.small || descriptor.is_some_and(|(_, bytes)| bytes.len() > SMALL_ELEMENT_MAX) {
            self.write_two_byte_form(&mut out[FIXED_HEADER_LEN..length], outgoing, slot);
        } else if length > FIXED_HEADER_LEN {
            out[FIXED_HEADER_LEN..self.length].copy_from_slice(&self.bytes[FIXED_HEADER_LEN..self.length]);
            let mut at = self.length;
            for (id, value) in [self.level(stored), self.orientation(stored)]
                .into_iter()
                .flatten()
            {
                out[at..at + 2].copy_from_slice(&[id << 4, value]);
                at += 2;
            }
            if let Some((id, bytes)) = descriptor {
                out[at] = id << 4 | (bytes.len() - 1) as u8;
                out[at + 1..][..bytes.len()].copy_from_slice(bytes);
                at += 1 + bytes.len();
            }
            out[at..length].fill(0);
            let words = ((length - FIXED_HEADER_LEN - 4) / 4) as u16;
            out[FIXED_HEADER_LEN + 2..FIXED_HEADER_LEN + 4].copy_from_slice(&words.to_be_bytes());
            if let Some(at) = self.sent_at {
                out[at..at + 3].copy_from_slice(&outgoing.sent_at);
            }
            if let Some(at) = self.transport_sequence {
                out[at..at + 2].copy_from_slice(&outgoing.transport_sequence.to_be_bytes());
            }
        }
        let fixed = Header {
            padding: outgoing.padding,
            marker: stored.marker,
            payload_type: outgoing.payload_type,
            sequence_number: outgoing.sequence_number,
            timestamp: outgoing.timestamp,
            ssrc: outgoing.ssrc,
        };
        out[..FIXED_HEADER_LEN].copy_from_slice(&fixed.to_bytes());
        if length > FIXED_HEADER_LEN {
            const EXTENSION: u8 = 0x10;
            out[0] |= EXTENSION;
        }
        length
    }

    fn elements<'e>(&'e self, slot: &'e Slot, stamps: &'e Stamps) -> impl Iterator<Item = (u8, &'e [u8])> {
        let elements = [
            self.ids.mid.map(|id| (id, self.mid.as_bytes())),
            self.ids.abs_send_time.map(|id| (id, &stamps.sent_at[..])),
            self.ids
                .transport_wide_cc
                .map(|id| (id, &stamps.transport_sequence[..])),
            self.level(slot.stored()).map(|(id, _)| (id, &stamps.level[..])),
            self.orientation(slot.stored())
                .map(|(id, _)| (id, &stamps.orientation[..])),
            self.descriptor(slot),
        ];
        elements.into_iter().flatten()
    }

    fn length_of_two_byte_form(&self, slot: &Slot) -> usize {
        let stamps = Stamps::default();
        let elements: usize = self.elements(slot, &stamps).map(|(_, data)| 2 + data.len()).sum();
        match elements {
            0 => FIXED_HEADER_LEN,
            _ => FIXED_HEADER_LEN + 4 + elements.next_multiple_of(4),
        }
    }

    fn write_two_byte_form(&self, out: &mut [u8], outgoing: &Outgoing, slot: &Slot) {
        let stamps = Stamps {
            sent_at: outgoing.sent_at,
            transport_sequence: outgoing.transport_sequence.to_be_bytes(),
            level: [slot.stored().audio_level.unwrap_or(0)],
            orientation: [slot.stored().video_orientation.unwrap_or(0)],
        };
        let Ok(mut writer) = Writer::new(out, Form::TwoByte) else {
            return;
        };
        for (id, data) in self.elements(slot, &stamps) {
            // The room was measured, and every id and length here fits the form.
            let _ = writer.push(id, data);
        }
        let _ = writer.finish();
    }
}

/// The bytes of elements that are made for a packet.
#[derive(Default)]
struct Stamps {
    sent_at: [u8; 3],
    transport_sequence: [u8; 2],
    level: [u8; 1],
    orientation: [u8; 1],
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use wire::rtp::HeaderView;

    use super::*;

    const OUTGOING: Outgoing = Outgoing {
        ssrc: 5,
        payload_type: 111,
        sequence_number: 6,
        timestamp: 7,
        transport_sequence: 0x1234,
        sent_at: [1, 2, 3],
        padding: false,
    };

    fn slot(descriptor: &[u8]) -> Slot {
        let now = Instant::now();
        let mut slot = Slot::new(now);
        let stored = Stored {
            marker: true,
            audio_level: Some(0x8f),
            ..Stored::empty(now)
        };
        slot.describe(stored, descriptor);
        slot
    }

    fn written(ids: &ExtensionMap, slot: &Slot) -> Vec<u8> {
        let template = Template::new(Mid::new("a2").unwrap(), ids);
        let mut out = vec![0xEE; 400];
        let length = template.write(&mut out, &OUTGOING, slot);
        assert_eq!(length, template.length(slot));
        assert!(
            out[length..].iter().all(|byte| *byte == 0xEE),
            "nothing behind it"
        );
        out.truncate(length);
        out
    }

    fn ids() -> ExtensionMap {
        ExtensionMap {
            mid: Some(4),
            audio_level: Some(1),
            transport_wide_cc: Some(3),
            abs_send_time: Some(2),
            video_orientation: Some(5),
            dependency_descriptor: Some(6),
            ..ExtensionMap::default()
        }
    }

    #[test]
    fn extensions_are_renumbered_restamped_or_dropped() {
        for (ids, descriptor) in [
            (ids(), vec![9; 7]),
            (ids(), vec![9; 100]),
            (
                ExtensionMap {
                    mid: Some(200),
                    ..ids()
                },
                vec![9; 16],
            ),
        ] {
            let made = written(&ids, &slot(&descriptor));
            let view = HeaderView::parse(&made).unwrap();
            let extension = view.extension().unwrap();
            assert_eq!(extension.find(ids.mid.unwrap()), Some(&b"a2"[..]));
            assert_eq!(extension.find(1), Some(&[0x8f][..]));
            assert_eq!(extension.find(3), Some(&[0x12, 0x34][..]));
            assert_eq!(extension.find(2), Some(&[1, 2, 3][..]));
            assert_eq!(extension.find(5), None);
            assert_eq!(extension.find(6), Some(&descriptor[..]));
            assert!(view.marker() && !view.padding());
            assert_eq!((view.ssrc(), view.payload_type()), (5, 111));
            assert_eq!((view.sequence_number(), view.timestamp()), (6, 7));
            assert_eq!(view.header_len(), made.len());
        }
    }

    #[test]
    fn without_agreed_extensions_the_header_is_bare() {
        assert_eq!(
            written(&ExtensionMap::default(), &slot(&[1])).len(),
            FIXED_HEADER_LEN
        );
    }
}
