//! RTP packets and header extensions: written and read back, and hostile ones.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use proptest::prelude::*;
use wire::ParseError;
use wire::WriteError;
use wire::rtp::extension::{self, Element, Form, Writer};
use wire::rtp::{Extension, Header, HeaderMut, HeaderView, Packet};

fn packet(header: Header, extension: Option<Extension<'_>>, payload: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; 4096];
    let len = header.write(&[], extension, &mut buffer).unwrap();
    buffer.truncate(len);
    buffer.extend(payload);
    buffer
}

#[test]
fn a_packet_shorter_than_its_header_is_refused() {
    let whole = packet(
        Header::default(),
        Some(Extension {
            profile: 0xBEDE,
            data: &[0x10, 1, 0, 0],
        }),
        &[],
    );
    for len in 0..whole.len() {
        assert!(HeaderView::parse(&whole[..len]).is_err(), "cut to {len}");
    }
    assert_eq!(HeaderView::parse(&whole).unwrap().header_len(), whole.len());
}

#[test]
fn csrcs_and_extensions_that_overrun_are_refused() {
    let mut bytes = packet(Header::default(), None, &[0; 8]);
    bytes[0] |= 3;
    assert_eq!(HeaderView::parse(&bytes), Err(ParseError::Length));
    let mut bytes = packet(
        Header::default(),
        Some(Extension {
            profile: 0xBEDE,
            data: &[0; 4],
        }),
        &[0; 8],
    );
    bytes[14..16].copy_from_slice(&[0xFF, 0xFF]);
    assert_eq!(HeaderView::parse(&bytes), Err(ParseError::Length));
}

#[test]
fn version_1_is_refused() {
    assert_eq!(HeaderView::parse(&[0x40; 12]), Err(ParseError::Version));
}

#[test]
fn padding_of_zero_or_more_than_there_is_is_refused() {
    let header = Header {
        padding: true,
        ..Header::default()
    };
    for payload in [&[][..], &[0], &[2], &[9, 9, 9, 5]] {
        assert_eq!(
            Packet::parse(&packet(header, None, payload)),
            Err(ParseError::Padding),
            "{payload:?}"
        );
    }
    let padded = packet(header, None, &[7, 0, 2]);
    let padded = Packet::parse(&padded).unwrap();
    assert_eq!((padded.payload(), padded.padding_len()), (&[7][..], 2));
    let only = packet(header, None, &[0, 0, 0, 4]);
    assert_eq!(Packet::parse(&only).unwrap().payload(), []);
}

#[test]
fn a_header_is_read_where_the_payload_is_ciphertext() {
    let encrypted = packet(
        Header {
            padding: true,
            ..Header::default()
        },
        None,
        &[0xFF; 20],
    );
    assert!(Packet::parse(&encrypted).is_err());
    assert_eq!(HeaderView::parse(&encrypted).unwrap().body(), [0xFF; 20]);
}

#[test]
fn one_byte_elements_are_read_around_padding() {
    let block = Extension {
        profile: 0xBEDE,
        data: &[0, 0x10, 9, 0, 0, 0x32, 1, 2, 3, 0, 0, 0],
    };
    let elements: Vec<_> = block.elements().map(|e| (e.id, e.data)).collect();
    assert_eq!(elements, [(1, &[9][..]), (3, &[1, 2, 3][..])]);
    assert_eq!(block.find(3), Some(&[1, 2, 3][..]));
    assert_eq!(block.find(2), None);
}

#[test]
fn id_15_ends_a_one_byte_block() {
    let block = Extension {
        profile: 0xBEDE,
        data: &[0x10, 9, 0xF0, 1, 0x20, 1, 0, 0],
    };
    assert_eq!(block.elements().map(|e| e.id).collect::<Vec<_>>(), [1]);
}

#[test]
fn two_byte_elements_may_be_empty_and_long() {
    let mut data = vec![5, 0, 200, 100];
    data.extend([7; 100]);
    let block = Extension {
        profile: 0x1005,
        data: &data,
    };
    let elements: Vec<_> = block.elements().map(|e| (e.id, e.data.len())).collect();
    assert_eq!(elements, [(5, 0), (200, 100)]);
}

#[test]
fn an_element_that_overruns_the_block_is_not_seen() {
    let one = Extension {
        profile: 0xBEDE,
        data: &[0x10, 9, 0x2F, 1],
    };
    assert_eq!(one.elements().map(|e| e.id).collect::<Vec<_>>(), [1]);
    let two = Extension {
        profile: 0x1000,
        data: &[1, 1, 9, 2, 200, 0, 0, 0],
    };
    assert_eq!(two.elements().map(|e| e.id).collect::<Vec<_>>(), [1]);
    let two = Extension {
        profile: 0x1000,
        data: &[0, 0, 0, 2],
    };
    assert_eq!(two.elements().count(), 0);
}

#[test]
fn another_profile_has_no_elements() {
    assert_eq!(
        Extension {
            profile: 0xABCD,
            data: &[0x10, 9, 0, 0]
        }
        .elements()
        .count(),
        0
    );
}

#[test]
fn the_form_follows_the_elements() {
    let small = Element {
        id: 14,
        data: &[0; 16],
    };
    for (element, form) in [
        (small, Form::OneByte),
        (Element { id: 15, ..small }, Form::TwoByte),
        (Element { data: &[], ..small }, Form::TwoByte),
        (
            Element {
                data: &[0; 17],
                ..small
            },
            Form::TwoByte,
        ),
    ] {
        assert_eq!(Form::for_elements([element]), form);
        let mut buffer = [0; 64];
        let len = extension::write([element], &mut buffer).unwrap();
        let block = Extension {
            profile: u16::from_be_bytes([buffer[0], buffer[1]]),
            data: &buffer[4..len],
        };
        assert_eq!(block.elements().collect::<Vec<_>>(), [element]);
    }
}

#[test]
fn an_element_the_form_cannot_say_leaves_no_trace() {
    let mut buffer = [0; 64];
    let mut writer = Writer::new(&mut buffer, Form::OneByte).unwrap();
    writer.push(1, &[1]).unwrap();
    assert_eq!(writer.push(15, &[1]), Err(WriteError::ValueTooLong));
    assert_eq!(writer.push(0, &[1]), Err(WriteError::ValueTooLong));
    assert_eq!(writer.push(2, &[]), Err(WriteError::ValueTooLong));
    assert_eq!(writer.push(2, &[0; 17]), Err(WriteError::ValueTooLong));
    writer.push(2, &[2]).unwrap();
    let len = writer.finish().unwrap();
    assert_eq!(buffer[..len], [0xBE, 0xDE, 0, 1, 0x10, 1, 0x20, 2]);
    let mut room = [0; 9];
    let mut writer = Writer::new(&mut room, Form::OneByte).unwrap();
    writer.push(1, &[1, 2]).unwrap();
    assert_eq!(writer.push(2, &[1, 2]), Err(WriteError::BufferTooSmall));
    assert_eq!(writer.finish(), Ok(8));
}

fn any_header() -> impl Strategy<Value = Header> {
    (any::<bool>(), 0u8..128, any::<u16>(), any::<u32>(), any::<u32>()).prop_map(
        |(marker, payload_type, sequence_number, timestamp, ssrc)| Header {
            padding: false,
            marker,
            payload_type,
            sequence_number,
            timestamp,
            ssrc,
        },
    )
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..200), version_2: bool, profile in 0u8..4,
    ) {
        if version_2 && bytes.len() > 16 {
            bytes[0] = bytes[0] & 0x31 | 0x80;
            if profile < 2 {
                let at = 12 + 4 * usize::from(bytes[0] & 1);
                if let Some(head) = bytes.get_mut(at..at + 4) {
                    head.copy_from_slice([[0xBE, 0xDE, 0, 20], [0x10, 0, 0, 20]][usize::from(profile)].as_slice());
                }
            }
        }
        if let Ok(view) = HeaderView::parse(&bytes) {
            prop_assert!(view.header_len() <= bytes.len());
            let _ = (view.csrcs().count(), format!("{view:?}"), view.body().len());
            let _ = view.extension().map(|e| e.elements().map(|e| e.data.len()).sum::<usize>());
        }
        if let Ok(packet) = Packet::parse(&bytes) {
            prop_assert_eq!(packet.header_len() + packet.payload().len() + packet.padding_len(), bytes.len());
        }
    }

    #[test]
    fn what_is_written_is_read(
        header in any_header(), csrcs in proptest::collection::vec(any::<u32>(), 0..16),
        elements in proptest::collection::vec((1u8.., proptest::collection::vec(any::<u8>(), 0..40)), 0..8),
        one_byte: bool, payload in proptest::collection::vec(any::<u8>(), 0..50), padding in 0u8..20,
    ) {
        let elements: Vec<(u8, Vec<u8>)> = if one_byte {
            elements.into_iter().map(|(id, mut data)| { data.truncate(16); data.push(1); data.truncate(16);
                (id % 14 + 1, data) }).collect()
        } else { elements };
        let header = Header { padding: padding > 0, ..header };
        let mut block = [0; 1024];
        let list = elements.iter().map(|(id, data)| Element { id: *id, data });
        let len = extension::write(list.clone(), &mut block).unwrap();
        let extension = Extension { profile: u16::from_be_bytes([block[0], block[1]]), data: &block[4..len] };
        prop_assert!(!one_byte || extension.profile == extension::ONE_BYTE_PROFILE);
        let mut bytes = vec![0; 2048];
        let len = header.write(&csrcs, Some(extension), &mut bytes).unwrap();
        bytes.truncate(len);
        bytes.extend(&payload);
        bytes.extend((0..padding).map(|_| padding));
        let packet = Packet::parse(&bytes).unwrap();
        prop_assert_eq!(packet.to_header(), header);
        prop_assert_eq!(packet.version(), 2);
        prop_assert_eq!(packet.csrcs().collect::<Vec<_>>(), csrcs);
        prop_assert_eq!(packet.extension(), Some(extension));
        let read: Vec<_> = packet.extension().unwrap().elements().collect();
        prop_assert_eq!(read, list.collect::<Vec<_>>());
        prop_assert_eq!(packet.payload(), &payload[..]);
        prop_assert_eq!(packet.header_len(), len);
    }

    #[test]
    fn fields_set_in_place_are_read(before in any_header(), after in any_header()) {
        let mut bytes = before.to_bytes();
        let mut packet = HeaderMut::parse(&mut bytes).unwrap();
        packet.set_marker(after.marker);
        packet.set_payload_type(after.payload_type);
        packet.set_sequence_number(after.sequence_number);
        packet.set_timestamp(after.timestamp);
        packet.set_ssrc(after.ssrc);
        prop_assert_eq!(packet.view().to_header(), after);
        prop_assert_eq!(bytes, after.to_bytes());
    }
}
