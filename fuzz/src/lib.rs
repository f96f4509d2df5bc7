//! What each fuzz target does with its bytes: read everything a view offers, write again what can be written,
//! and read that. `wire/tests/seeds.rs` runs the same functions over the committed seeds.

use wire::channel_data::{self, HEADER_LEN};
use wire::demux::{self, Kind};
use wire::rtcp::{Packet, Writer, compound};
use wire::rtp::{self, HeaderView, extension};
use wire::stream;
use wire::stun::{Builder, Message};

/// One STUN message.
pub fn stun(bytes: &[u8]) {
    let Ok(message) = Message::parse(bytes) else {
        return;
    };
    let _ = (
        message.username(),
        message.realm(),
        message.nonce(),
        message.software(),
        message.error_code(),
    );
    let _ = (
        message.xor_mapped_address(),
        message.xor_relayed_address(),
        message.xor_peer_address(),
    );
    let _ = (
        message.unknown_attributes().count(),
        message.unknown_required(&[]).count(),
    );
    let _ = (
        message.xor_peer_addresses().count(),
        message.data(),
        message.channel_number(),
    );
    let _ = (
        message.priority(),
        message.ice_controlled(),
        message.ice_controlling(),
        message.lifetime(),
    );
    let _ = (
        message.even_port(),
        message.reservation_token(),
        message.requested_transport(),
    );
    let _ = (message.verify_integrity(b"key"), message.verify_fingerprint());
    let _ = (
        message.verify_integrity_sha256(b"key"),
        message.userhash(),
        message.password_algorithm(),
        message.alternate_server(),
    );
    let _ = (
        message.change_request(),
        message.response_port(),
        message.response_origin(),
        message.other_address(),
    );
    let _ = (
        message.icmp(),
        message.connection_id(),
        message.mobility_ticket(),
        message.address_error_code(),
        message.xor_relayed_addresses().count(),
    );
    let mut buffer = vec![0; bytes.len() + 68];
    let (class, method, id) = (message.class(), message.method(), message.transaction_id());
    let builder = Builder::new(&mut buffer, class, method, id);
    let builder = message
        .attributes()
        .fold(builder, |b, (kind, value)| b.attribute(kind, value));
    // Signing makes the message longer than the longest there is, where it already was about that long.
    let signed = builder.integrity(b"key").integrity_sha256(b"key");
    let Ok(len) = signed.fingerprint().finish() else {
        return;
    };
    let Ok(again) = Message::parse(&buffer[..len]) else {
        return;
    };
    assert!(again.verify_integrity(b"key") && again.verify_integrity_sha256(b"key"));
    assert_eq!(again.verify_fingerprint(), Some(true));
    assert!(again.attributes().eq(message.attributes()));
}

/// One ChannelData message.
pub fn channel_data(bytes: &[u8]) {
    let Ok(message) = channel_data::parse_datagram(bytes) else {
        return;
    };
    let mut header = [0; HEADER_LEN];
    channel_data::write_header(&mut header, message.number, message.data.len() as u16);
    assert_eq!(header, bytes[..HEADER_LEN]);
}

/// A stream of messages: read at once and byte by byte, it is the same messages.
pub fn stream(bytes: &[u8]) {
    let mut at = 0;
    while let Ok(Some(len)) = stream::message_len(&bytes[at..]) {
        assert!((4..=stream::MESSAGE_MAX).contains(&len) && len % 4 == 0);
        // What the first bytes say does not change with those that follow.
        let mut told = None;
        for end in at..=bytes.len().min(at + 24) {
            match (told, stream::message_len(&bytes[at..end])) {
                (None, Ok(now)) => told = now,
                (told, now) => assert_eq!(now, Ok(told)),
            }
        }
        let Some(message) = bytes.get(at..at + len) else {
            return;
        };
        demux(message);
        at += len;
    }
}

/// One RTP packet.
pub fn rtp(bytes: &[u8]) {
    let Ok(header) = HeaderView::parse(bytes) else {
        return;
    };
    let csrcs: Vec<u32> = header.csrcs().collect();
    let mut buffer = vec![0; header.header_len()];
    let len = header.to_header().write(&csrcs, header.extension(), &mut buffer);
    assert_eq!(len, Ok(header.header_len()));
    assert_eq!(buffer, bytes[..header.header_len()]);
    if let Some(block) = header.extension() {
        let mut again = vec![0; 2 * block.data.len() + 8];
        if extension::write(block.elements(), &mut again).is_ok() {
            let profile = u16::from_be_bytes([again[0], again[1]]);
            let again = rtp::Extension {
                profile,
                data: &again[4..],
            };
            assert!(block.elements().eq(again.elements()));
        }
    }
    if let Ok(packet) = rtp::Packet::parse(bytes) {
        assert_eq!(
            packet.header_len() + packet.payload().len() + packet.padding_len(),
            bytes.len()
        );
    }
}

/// One RTCP datagram.
pub fn rtcp(bytes: &[u8]) {
    let mut buffer = vec![0; 1 << 18];
    for packet in compound(bytes) {
        let mut writer = Writer::new(&mut buffer);
        match packet {
            Ok(Packet::SenderReport(p)) => {
                let reports: Vec<_> = p.reports().collect();
                writer
                    .sender_report(&p.sender, &reports)
                    .expect("as many blocks as were read");
            }
            Ok(Packet::ReceiverReport(p)) => {
                let reports: Vec<_> = p.reports().collect();
                writer
                    .receiver_report(p.ssrc, &reports)
                    .expect("as many blocks as were read");
            }
            Ok(Packet::SourceDescription(p)) => {
                for chunk in p.chunks() {
                    let _ = (p.cname(chunk.ssrc), chunk.items().count());
                }
                continue;
            }
            Ok(Packet::Goodbye(p)) => {
                let sources: Vec<_> = p.sources().collect();
                writer
                    .goodbye(&sources, None)
                    .expect("as many sources as were read");
            }
            Ok(Packet::Nack(p)) => {
                let numbers: Vec<_> = p.sequence_numbers().collect();
                if writer
                    .nack(p.sender_ssrc, p.media_ssrc, numbers.iter().copied())
                    .is_err()
                {
                    continue;
                }
            }
            Ok(Packet::PictureLossIndication(p)) => {
                writer
                    .picture_loss_indication(p.sender_ssrc, p.media_ssrc)
                    .expect("twelve bytes");
            }
            Ok(Packet::FullIntraRequest(p)) => {
                let entries: Vec<_> = p.entries().collect();
                writer
                    .full_intra_request(p.sender_ssrc, &entries)
                    .expect("as many entries as were read");
            }
            Ok(Packet::Remb(p)) => {
                let ssrcs: Vec<_> = p.ssrcs().collect();
                writer
                    .remb(p.sender_ssrc, p.bitrate, &ssrcs)
                    .expect("as many sources as were read");
            }
            Ok(Packet::TransportWideFeedback(p)) => {
                let arrivals = p.statuses().map(|(_, delta)| delta);
                assert_eq!(arrivals.clone().count(), usize::from(p.status_count));
                let (base, time) = (p.base_sequence_number, p.reference_time);
                let (sender, media, count) = (p.sender_ssrc, p.media_ssrc, p.feedback_count);
                writer
                    .transport_wide_feedback(sender, media, base, time, count, arrivals)
                    .expect("at most 65,535 numbers fit the buffer");
                let len = writer.finish();
                let Some(Ok(Packet::TransportWideFeedback(again))) = compound(&buffer[..len]).next() else {
                    panic!("what was written is not read")
                };
                assert!(again.statuses().eq(p.statuses()));
                continue;
            }
            Ok(Packet::Unknown(_)) | Err(_) => continue,
        }
        let len = writer.finish();
        assert!(
            compound(&buffer[..len]).all(|packet| packet.is_ok()),
            "what was written is not read"
        );
    }
}

/// Any datagram, read as what it claims to be.
pub fn demux(bytes: &[u8]) {
    match demux::classify(bytes) {
        Kind::Stun => stun(bytes),
        Kind::TurnChannel => channel_data(bytes),
        Kind::Rtp => rtp(bytes),
        Kind::Rtcp => rtcp(bytes),
        Kind::Zrtp | Kind::Dtls | Kind::Unknown => {}
    }
}
