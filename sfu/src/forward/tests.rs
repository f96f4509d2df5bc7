use super::*;

fn payload(pt: u8, codec: Codec, fmtp: &str) -> Payload {
    Payload {
        pt,
        codec,
        clock_rate: 90_000,
        rtx: None,
        nack: true,
        pli: true,
        fir: true,
        transport_cc: true,
        remb: true,
        fmtp: fmtp.to_owned(),
    }
}

#[test]
fn payload_types_match_by_codec_and_by_what_changes_the_bit_stream() {
    let baseline = payload(
        102,
        Codec::H264,
        "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
    );
    let offered = [
        payload(96, Codec::Vp8, ""),
        payload(97, Codec::H264, "packetization-mode=0;profile-level-id=42e01f"),
        payload(98, Codec::H264, "packetization-mode=1; profile-level-id=64001f"),
        payload(99, Codec::H264, "packetization-mode=1; profile-level-id=42001F"),
    ];
    assert_eq!(
        best_match(&baseline, &offered).map(|payload| payload.pt),
        Some(99)
    );
    assert_eq!(
        best_match(&payload(1, Codec::Vp8, ""), &offered).map(|payload| payload.pt),
        Some(96)
    );
    assert_eq!(best_match(&payload(1, Codec::Av1, ""), &offered), None);
    let vp9 = [
        payload(98, Codec::Vp9, "profile-id=2"),
        payload(99, Codec::Vp9, "profile-id=0"),
    ];
    assert_eq!(
        best_match(&payload(1, Codec::Vp9, ""), &vp9).map(|payload| payload.pt),
        Some(99)
    );
}

#[test]
fn a_batch_is_equal_segments_and_at_most_one_shorter_at_its_end() {
    let mut batch = Batch::default();
    batch.add(1_200);
    batch.add(1_200);
    assert!(batch.is_open() && batch.fits(1_200, 65_507) && batch.fits(100, 65_507));
    assert!(!batch.fits(1_201, 65_507), "a longer one starts its own");
    assert!(!batch.fits(1_200, 3_599), "no room");
    batch.add(100);
    assert!(!batch.is_open());
}

#[test]
fn extensions_are_renumbered_restamped_or_dropped() {
    let stored = Stored {
        index: 1,
        arrival: Instant::now(),
        timestamp: 1,
        payload_type: 96,
        marker: true,
        starts_key_frame: false,
        payload_length: 0,
        descriptor_length: 0,
        audio_level: Some(0x8f),
        video_orientation: None,
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
