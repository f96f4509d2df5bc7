//! RTCP: written and read back, and hostile compounds.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use proptest::collection::vec;
use proptest::prelude::*;
use wire::rtcp::{FirEntry, Packet, ReportBlock, SenderInfo, Writer, compound};
use wire::{ParseError, WriteError};

fn written(write: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut buffer = vec![0xAA; 65_536];
    let mut writer = Writer::new(&mut buffer);
    write(&mut writer);
    let len = writer.finish();
    buffer.truncate(len);
    buffer
}

fn only(datagram: &[u8]) -> Packet<'_> {
    let packets: Vec<_> = compound(datagram).collect();
    assert_eq!(packets.len(), 1, "{packets:?}");
    packets[0].unwrap()
}

#[test]
fn a_compound_is_read_packet_by_packet() {
    let datagram = written(|w| {
        w.sender_report(&SenderInfo::default(), &[ReportBlock::default()])
            .and_then(|w| w.source_description(1, "cname"))
            .and_then(|w| w.goodbye(&[1, 2], Some("over")))
            .unwrap();
    });
    let kinds: Vec<_> = compound(&datagram).map(Result::unwrap).collect();
    assert!(matches!(
        kinds[..],
        [
            Packet::SenderReport(_),
            Packet::SourceDescription(_),
            Packet::Goodbye(_)
        ]
    ));
}

#[test]
fn a_compound_ends_at_the_first_lie() {
    let good = written(|w| {
        w.picture_loss_indication(1, 2).unwrap();
    });
    let mut lying = good.clone();
    lying[3] = 200;
    let datagram = [good.clone(), lying, good].concat();
    let packets: Vec<_> = compound(&datagram).collect();
    assert_eq!(packets.len(), 2);
    assert_eq!(packets[1], Err(ParseError::Length));
}

#[test]
fn counts_beyond_the_packet_are_refused() {
    for packet_type in [200, 201, 202, 203] {
        let mut datagram = vec![0x9F, packet_type, 0, 6];
        datagram.extend([1; 24]);
        assert_eq!(
            compound(&datagram).next(),
            Some(Err(ParseError::Length)),
            "type {packet_type}"
        );
    }
}

#[test]
fn padding_that_lies_is_refused_and_honest_padding_is_left_out() {
    let mut datagram = vec![0xA1, 203, 0, 2, 0, 0, 0, 9, 0, 0, 0, 4];
    let Packet::Goodbye(goodbye) = only(&datagram) else {
        panic!("not a BYE")
    };
    assert_eq!(
        (goodbye.sources().collect::<Vec<_>>(), goodbye.reason),
        (vec![9], None)
    );
    for lie in [0, 9, 255] {
        datagram[11] = lie;
        assert_eq!(
            compound(&datagram).next(),
            Some(Err(ParseError::Padding)),
            "padding {lie}"
        );
    }
}

#[test]
fn bytes_that_are_no_header_are_refused() {
    assert_eq!(compound(&[0x80]).next(), Some(Err(ParseError::Truncated)));
    assert_eq!(compound(&[0x80, 200, 0]).next(), Some(Err(ParseError::Truncated)));
    assert_eq!(
        compound(&[0x40, 200, 0, 0]).next(),
        Some(Err(ParseError::Version))
    );
    assert_eq!(compound(&[]).next(), None);
}

#[test]
fn a_description_without_its_terminating_zero_is_refused() {
    let datagram = [0x81, 202, 0, 2, 0, 0, 0, 1, 1, 2, b'a', b'b'];
    assert_eq!(compound(&datagram).next(), Some(Err(ParseError::Length)));
    let datagram = [0x81, 202, 0, 2, 0, 0, 0, 1, 1, 200, b'a', 0];
    assert_eq!(compound(&datagram).next(), Some(Err(ParseError::Length)));
}

#[test]
fn a_nack_spans_seventeen_numbers_and_the_wrap() {
    let numbers = [0xFFFE, 0xFFFF, 0, 14, 15, 400];
    let datagram = written(|w| {
        w.nack(1, 2, numbers).unwrap();
    });
    assert_eq!(datagram.len(), 12 + 3 * 4);
    let Packet::Nack(nack) = only(&datagram) else {
        panic!("not a NACK")
    };
    assert_eq!(nack.sequence_numbers().collect::<Vec<_>>(), numbers);
    let all = [0x81, 205, 0, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 7, 0xFF, 0xFF];
    let Packet::Nack(nack) = only(&all) else {
        panic!("not a NACK")
    };
    assert_eq!(
        nack.sequence_numbers().collect::<Vec<_>>(),
        (7..=23).collect::<Vec<_>>()
    );
}

#[test]
fn application_feedback_that_is_not_remb_is_unknown() {
    let datagram = [0x8F, 206, 0, 3, 0, 0, 0, 1, 0, 0, 0, 0, b'A', b'B', b'C', b'D'];
    assert!(matches!(only(&datagram), Packet::Unknown(_)));
}

#[test]
fn a_remb_beyond_64_bits_saturates() {
    let mut datagram = written(|w| {
        w.remb(1, u64::MAX, &[7]).unwrap();
    });
    let Packet::Remb(remb) = only(&datagram) else {
        panic!("not a REMB")
    };
    assert_eq!(remb.bitrate >> 46, u64::MAX >> 46);
    datagram[17] = 0xFF;
    let Packet::Remb(remb) = only(&datagram) else {
        panic!("not a REMB")
    };
    assert_eq!(remb.bitrate, u64::MAX);
}

#[test]
fn transport_wide_feedback_as_libwebrtc_writes_it() {
    // Base 1, five statuses, reference time 2, count 3: a two-bit vector with small, none, large, small, small.
    let datagram = [
        0x8F, 205, 0, 6, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 5, 0, 0, 2, 3, 0xD2, 0x50, 10, 0xFF, 0xF0, 20, 30,
        0,
    ];
    let Packet::TransportWideFeedback(feedback) = only(&datagram) else {
        panic!("not TWCC")
    };
    assert_eq!((feedback.reference_time, feedback.feedback_count), (2, 3));
    let expected = [
        (1, Some(10)),
        (2, None),
        (3, Some(-16)),
        (4, Some(20)),
        (5, Some(30)),
    ];
    assert_eq!(feedback.statuses().collect::<Vec<_>>(), expected);
}

#[test]
fn transport_wide_feedback_without_its_deltas_is_refused() {
    // A run of 8,191 received packets and no delta.
    let datagram = [
        0x8F, 205, 0, 5, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0x1F, 0xFF, 0, 0, 0, 0, 0x3F, 0xFF, 0, 0,
    ];
    assert_eq!(compound(&datagram).next(), Some(Err(ParseError::Length)));
    // Runs of none for ever.
    let mut datagram = vec![0x8F, 205, 0, 54, 0, 0, 0, 1, 0, 0, 0, 2, 0, 1, 0, 9, 0, 0, 0, 0];
    datagram.extend([0; 200]);
    assert_eq!(compound(&datagram).next(), Some(Err(ParseError::Length)));
}

#[test]
fn a_long_run_is_one_chunk() {
    let datagram = written(|w| {
        w.transport_wide_feedback(1, 2, 3, 4, 5, std::iter::repeat_n(None, 8000))
            .unwrap();
    });
    assert_eq!(datagram.len(), 24);
}

#[test]
fn what_does_not_fit_leaves_what_was_written_before() {
    let mut buffer = [0; 30];
    let mut writer = Writer::new(&mut buffer);
    writer.picture_loss_indication(1, 2).unwrap();
    assert_eq!(
        writer.receiver_report(1, &[ReportBlock::default()]).err(),
        Some(WriteError::BufferTooSmall)
    );
    assert_eq!(
        writer.receiver_report(1, &[ReportBlock::default(); 32]).err(),
        Some(WriteError::ValueTooLong)
    );
    assert_eq!(
        writer.source_description(1, &"x".repeat(256)).err(),
        Some(WriteError::ValueTooLong)
    );
    writer.picture_loss_indication(3, 4).unwrap();
    assert_eq!(writer.finish(), 24);
    assert_eq!(compound(&buffer[..24]).filter(Result::is_ok).count(), 2);
}

#[test]
fn a_loss_count_beyond_24_bits_is_clamped() {
    for (lost, read) in [(i32::MAX, 0x7F_FFFF), (i32::MIN, -0x80_0000), (-1, -1)] {
        let block = ReportBlock {
            cumulative_lost: lost,
            ..ReportBlock::default()
        };
        let datagram = written(|w| {
            w.receiver_report(1, &[block]).unwrap();
        });
        let Packet::ReceiverReport(report) = only(&datagram) else {
            panic!("not an RR")
        };
        assert_eq!(report.reports().next().unwrap().cumulative_lost, read);
    }
}

/// Calls everything the views offer.
fn read_everything(datagram: &[u8]) {
    for packet in compound(datagram) {
        match packet {
            Ok(Packet::SenderReport(p)) => drop(p.reports().count()),
            Ok(Packet::ReceiverReport(p)) => drop(p.reports().count()),
            Ok(Packet::SourceDescription(p)) => {
                let _ = (p.cname(1), p.chunks().map(|c| c.items().count()).sum::<usize>());
            }
            Ok(Packet::Goodbye(p)) => drop(p.sources().count()),
            Ok(Packet::Nack(p)) => assert!(p.sequence_numbers().count() <= datagram.len() / 4 * 17),
            Ok(Packet::FullIntraRequest(p)) => drop(p.entries().count()),
            Ok(Packet::Remb(p)) => drop(p.ssrcs().count()),
            Ok(Packet::TransportWideFeedback(p)) => {
                assert_eq!(p.statuses().count(), usize::from(p.status_count));
            }
            Ok(Packet::PictureLossIndication(_) | Packet::Unknown(_)) | Err(_) => {}
        }
    }
}

fn report() -> impl Strategy<Value = ReportBlock> {
    (any::<[u32; 5]>(), any::<u8>(), -0x80_0000i32..=0x7F_FFFF).prop_map(|(word, fraction_lost, lost)| {
        ReportBlock {
            ssrc: word[0],
            fraction_lost,
            cumulative_lost: lost,
            extended_highest_sequence: word[1],
            jitter: word[2],
            last_sender_report: word[3],
            delay_since_last_sender_report: word[4],
        }
    })
}

fn sender() -> impl Strategy<Value = SenderInfo> {
    (any::<[u32; 4]>(), any::<u64>()).prop_map(|(word, ntp)| SenderInfo {
        ssrc: word[0],
        ntp,
        rtp_timestamp: word[1],
        packet_count: word[2],
        octet_count: word[3],
    })
}

/// Arrivals in stretches, so that every kind of chunk is made.
fn arrivals() -> impl Strategy<Value = Vec<Option<i16>>> {
    let delta = prop_oneof![
        Just(None),
        (0i16..256).prop_map(Some),
        any::<i16>().prop_map(Some)
    ];
    vec(
        (
            delta,
            prop_oneof![4 => 1usize..4, 3 => 5usize..30, 1 => 8190usize..8200],
        ),
        0..20,
    )
    .prop_map(|runs| {
        runs.into_iter()
            .flat_map(|(delta, len)| std::iter::repeat_n(delta, len))
            .take(30_000)
            .collect()
    })
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(
        mut bytes in vec(any::<u8>(), 0..200), kind in 200u8..208, format in 0u8..32, framed: bool,
    ) {
        if framed && bytes.len() >= 4 {
            bytes.truncate(bytes.len() / 4 * 4);
            let words = (bytes.len() / 4 - 1) as u8;
            bytes[..4].copy_from_slice(&[0x80 | format, kind, 0, words]);
        }
        read_everything(&bytes);
    }

    #[test]
    fn a_damaged_compound_is_read_or_refused(damage in vec((0usize..200, any::<u8>()), 1..4)) {
        let mut datagram = written(|w| {
            w.sender_report(&SenderInfo::default(), &[ReportBlock::default()]).unwrap();
            w.source_description(1, "cname").unwrap();
            w.nack(1, 2, [1, 2, 3, 90]).unwrap();
            w.transport_wide_feedback(1, 2, 3, 4, 5, [Some(1), None, Some(-4), Some(900)]).unwrap();
            w.remb(1, 300_000, &[1, 2]).unwrap();
        });
        for (at, value) in damage {
            if let Some(byte) = datagram.get_mut(at) { *byte = value }
        }
        read_everything(&datagram);
    }

    #[test]
    fn reports_are_read_as_written(info in sender(), reports in vec(report(), 0..32), ssrc: u32) {
        let datagram = written(|w| {
            w.sender_report(&info, &reports).unwrap().receiver_report(ssrc, &reports).unwrap();
        });
        let packets: Vec<_> = compound(&datagram).map(Result::unwrap).collect();
        let [Packet::SenderReport(sr), Packet::ReceiverReport(rr)] = packets[..] else { panic!("{packets:?}") };
        prop_assert_eq!((sr.sender, rr.ssrc), (info, ssrc));
        prop_assert_eq!(sr.reports().collect::<Vec<_>>(), &reports[..]);
        prop_assert_eq!(rr.reports().collect::<Vec<_>>(), &reports[..]);
    }

    #[test]
    fn names_and_goodbyes_are_read_as_written(
        ssrc: u32, cname in "[ -~]{0,255}", sources in vec(any::<u32>(), 0..32),
        reason in proptest::option::of("[ -~]{0,255}"),
    ) {
        let datagram = written(|w| {
            w.source_description(ssrc, &cname).unwrap().goodbye(&sources, reason.as_deref()).unwrap();
        });
        let packets: Vec<_> = compound(&datagram).map(Result::unwrap).collect();
        let [Packet::SourceDescription(sdes), Packet::Goodbye(bye)] = packets[..] else { panic!("{packets:?}") };
        prop_assert_eq!(sdes.cname(ssrc), Some(&cname[..]));
        prop_assert_eq!(sdes.chunks().count(), 1);
        prop_assert_eq!(bye.sources().collect::<Vec<_>>(), sources);
        prop_assert_eq!(bye.reason, reason.as_ref().map(|r| r.as_bytes()));
    }

    #[test]
    fn nacks_are_read_as_written(start: u16, gaps in vec(1u16..40, 0..100)) {
        let numbers: Vec<u16> =
            gaps.iter().scan(start, |n, gap| { *n = n.wrapping_add(*gap); Some(*n) }).collect();
        let datagram = written(|w| { w.nack(1, 2, numbers.iter().copied()).unwrap(); });
        let Packet::Nack(nack) = only(&datagram) else { panic!("not a NACK") };
        prop_assert_eq!((nack.sender_ssrc, nack.media_ssrc), (1, 2));
        prop_assert_eq!(nack.sequence_numbers().collect::<Vec<_>>(), numbers);
    }

    #[test]
    fn keyframe_requests_are_read_as_written(entries in vec((any::<u32>(), any::<u8>()), 0..10)) {
        let entries: Vec<_> =
            entries.into_iter().map(|(ssrc, sequence_number)| FirEntry { ssrc, sequence_number }).collect();
        let datagram = written(|w| {
            w.picture_loss_indication(1, 2).unwrap().full_intra_request(3, &entries).unwrap();
        });
        let packets: Vec<_> = compound(&datagram).map(Result::unwrap).collect();
        let [Packet::PictureLossIndication(pli), Packet::FullIntraRequest(fir)] = packets[..] else {
            panic!("{packets:?}")
        };
        prop_assert_eq!((pli.sender_ssrc, pli.media_ssrc, fir.sender_ssrc), (1, 2, 3));
        prop_assert_eq!(fir.entries().collect::<Vec<_>>(), entries);
    }

    #[test]
    fn remb_is_read_as_written_to_18_bits(bitrate: u64, ssrcs in vec(any::<u32>(), 0..255)) {
        let datagram = written(|w| { w.remb(1, bitrate, &ssrcs).unwrap(); });
        let Packet::Remb(remb) = only(&datagram) else { panic!("not a REMB") };
        prop_assert_eq!(remb.ssrcs().collect::<Vec<_>>(), ssrcs);
        prop_assert!(remb.bitrate <= bitrate);
        prop_assert!(u128::from(bitrate - remb.bitrate) * (1 << 17) <= u128::from(bitrate));
    }

    #[test]
    fn transport_wide_feedback_is_read_as_written(
        base: u16, time in -0x80_0000i32..=0x7F_FFFF, count: u8, arrivals in arrivals(),
    ) {
        let mut buffer = vec![0xAA; 200_000];
        let mut writer = Writer::new(&mut buffer);
        writer.transport_wide_feedback(1, 2, base, time, count, arrivals.iter().copied()).unwrap();
        let len = writer.finish();
        let Packet::TransportWideFeedback(feedback) = only(&buffer[..len]) else { panic!("not TWCC") };
        prop_assert_eq!((feedback.base_sequence_number, feedback.reference_time), (base, time));
        prop_assert_eq!(feedback.feedback_count, count);
        let expected: Vec<_> =
            arrivals.iter().enumerate().map(|(i, delta)| (base.wrapping_add(i as u16), *delta)).collect();
        prop_assert_eq!(feedback.statuses().collect::<Vec<_>>(), expected);
    }
}
