//! The RTP header that a subscriber sees: its own numbers, and the header extensions it agreed to. MID is the
//! subscriber's, abs-send-time and the transport-wide number are stamped as the packet leaves, audio level, video
//! orientation and dependency descriptor are kept; RID and whatever is unknown never get here.

use wire::rtp::extension::{Form, Writer};
use wire::rtp::{FIXED_HEADER_LEN, Header};

use crate::media::{ExtensionMap, Mid};
use crate::slot::{DESCRIPTOR_BYTES_MAX, Stored};

/// Fixed header, block header, every element with its own header, padding.
const HEADER_BYTES_MAX: usize = FIXED_HEADER_LEN + 4 + (DESCRIPTOR_BYTES_MAX + 2) + 48;

/// A header in the making.
pub(crate) struct HeaderBytes {
    pub(crate) bytes: [u8; HEADER_BYTES_MAX],
    pub(crate) length: usize,
}

/// What the header of an outgoing packet says besides what was stored.
pub(crate) struct Outgoing {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) sequence_number: u16,
    pub(crate) timestamp: u32,
    pub(crate) transport_sequence: u16,
    pub(crate) sent_at: [u8; 3],
}

pub(crate) fn header(
    outgoing: &Outgoing,
    mid: Mid,
    ids: &ExtensionMap,
    stored: &Stored,
    descriptor: &[u8],
) -> HeaderBytes {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let fixed = Header {
        padding: false,
        marker: stored.marker,
        payload_type: outgoing.payload_type,
        sequence_number: outgoing.sequence_number,
        timestamp: outgoing.timestamp,
        ssrc: outgoing.ssrc,
    };
    bytes[..FIXED_HEADER_LEN].copy_from_slice(&fixed.to_bytes());
    let transport_sequence = outgoing.transport_sequence.to_be_bytes();
    let (level, orientation) = (
        stored.audio_level.unwrap_or(0),
        stored.video_orientation.unwrap_or(0),
    );
    let elements: [(Option<u8>, &[u8]); 6] = [
        (ids.mid, mid.as_bytes()),
        (ids.abs_send_time, &outgoing.sent_at),
        (ids.transport_wide_cc, &transport_sequence),
        (ids.audio_level.filter(|_| stored.audio_level.is_some()), &[level]),
        (
            ids.video_orientation
                .filter(|_| stored.video_orientation.is_some()),
            &[orientation],
        ),
        (
            ids.dependency_descriptor.filter(|_| !descriptor.is_empty()),
            descriptor,
        ),
    ];
    let present = || elements.iter().filter_map(|(id, data)| Some(((*id)?, *data)));
    let mut length = FIXED_HEADER_LEN;
    if present().next().is_some() {
        let small = present().all(|(id, data)| id <= 14 && data.len() <= 16);
        let form = if small { Form::OneByte } else { Form::TwoByte };
        let written = Writer::new(&mut bytes[FIXED_HEADER_LEN..], form).and_then(|mut writer| {
            // An element that its form cannot hold is left out; none of these can be.
            for (id, data) in present() {
                let _ = writer.push(id, data);
            }
            writer.finish()
        });
        if let Ok(written) = written {
            const EXTENSION: u8 = 0x10;
            bytes[0] |= EXTENSION;
            length += written;
        }
    }
    HeaderBytes { bytes, length }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn extensions_are_renumbered_restamped_or_dropped() {
        let stored = Stored {
            index: 1,
            timestamp: 1,
            marker: true,
            audio_level: Some(0x8f),
            ..Stored::empty(Instant::now())
        };
        let outgoing = Outgoing {
            ssrc: 5,
            payload_type: 111,
            sequence_number: 6,
            timestamp: 7,
            transport_sequence: 0x1234,
            sent_at: [1, 2, 3],
        };
        let mid = Mid::new("a2").unwrap();
        let ids = ExtensionMap {
            mid: Some(4),
            audio_level: Some(1),
            transport_wide_cc: Some(3),
            abs_send_time: Some(2),
            video_orientation: Some(5),
            ..ExtensionMap::default()
        };
        let made = header(&outgoing, mid, &ids, &stored, &[]);
        let view = wire::rtp::HeaderView::parse(&made.bytes[..made.length]).unwrap();
        let extension = view.extension().unwrap();
        assert_eq!(extension.find(4), Some(&b"a2"[..]));
        assert_eq!(extension.find(1), Some(&[0x8f][..]));
        assert_eq!(extension.find(3), Some(&[0x12, 0x34][..]));
        assert_eq!(extension.find(2), Some(&[1, 2, 3][..]));
        assert_eq!(extension.find(5), None);
        assert!(view.marker());

        let none = header(&outgoing, mid, &ExtensionMap::default(), &stored, &[]);
        assert_eq!(none.length, FIXED_HEADER_LEN);
        let ids = ExtensionMap {
            dependency_descriptor: Some(9),
            mid: Some(4),
            ..ExtensionMap::default()
        };
        let long = header(&outgoing, mid, &ids, &stored, &[7; DESCRIPTOR_BYTES_MAX - 1]);
        let view = wire::rtp::HeaderView::parse(&long.bytes[..long.length]).unwrap();
        assert_eq!(
            view.extension().unwrap().find(9),
            Some(&[7; DESCRIPTOR_BYTES_MAX - 1][..])
        );
    }
}
