//! Bytes to views and back: what every datagram passes through first.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use wire::channel_data;
use wire::demux::classify;
use wire::rtcp::{Writer, compound};
use wire::rtp::{Extension, Header, HeaderMut, HeaderView, Packet, extension};
use wire::stun::{Builder, Class, Message, Method, TransactionId, integrity_key};

fn check(buffer: &mut [u8]) -> usize {
    let id = TransactionId(*b"transaction!");
    Builder::new(buffer, Class::Request, Method::BINDING, id)
        .username("01abcdef:remoteufrag")
        .ice_controlling(7)
        .priority(1_853_824_767)
        .use_candidate()
        .integrity(b"a password of the ICE agent")
        .fingerprint()
        .finish()
        .expect("the buffer is large enough")
}

fn media(payload: usize) -> Vec<u8> {
    let mut packet = vec![0; 12 + 12 + payload];
    let data = [0x10, b'0', 0x22, 1, 2, 3, 0x31, 0, 9];
    let header = Header {
        payload_type: 96,
        sequence_number: 7,
        timestamp: 90_000,
        ssrc: 42,
        ..Header::default()
    };
    let len = header.write(
        &[],
        Some(Extension {
            profile: 0xBEDE,
            data: &data,
        }),
        &mut packet,
    );
    packet.truncate(len.expect("the buffer is large enough") + payload);
    packet
}

fn stun(c: &mut Criterion) {
    let mut buffer = [0; 256];
    let len = check(&mut buffer);
    let key = integrity_key(b"a password of the ICE agent");
    let mut group = c.benchmark_group("stun");
    group.bench_function("parse a connectivity check", |b| {
        b.iter(|| Message::parse(black_box(&buffer[..len])))
    });
    group.bench_function("verify its integrity, key prepared", |b| {
        let message = Message::parse(&buffer[..len]).expect("just written");
        b.iter(|| black_box(&message).verify_integrity_key(black_box(&key)))
    });
    group.bench_function("verify its fingerprint", |b| {
        let message = Message::parse(&buffer[..len]).expect("just written");
        b.iter(|| black_box(&message).verify_fingerprint())
    });
    group.bench_function("write its answer, key prepared", |b| {
        let mut answer = [0; 256];
        let id = TransactionId(*b"transaction!");
        let address = "192.0.2.1:32853".parse().expect("an address");
        b.iter(|| {
            Builder::new(black_box(&mut answer), Class::Success, Method::BINDING, id)
                .xor_mapped_address(address)
                .integrity_key(&key)
                .fingerprint()
                .finish()
        })
    });
    group.finish();
}

fn rtp(c: &mut Criterion) {
    let packet = media(1_100);
    let mut group = c.benchmark_group("rtp");
    group.bench_function("classify", |b| b.iter(|| classify(black_box(&packet))));
    group.bench_function("parse a header", |b| {
        b.iter(|| HeaderView::parse(black_box(&packet)))
    });
    group.bench_function("parse a packet and find an extension", |b| {
        b.iter(|| {
            Packet::parse(black_box(&packet))
                .ok()
                .and_then(|p| p.extension()?.find(3))
        })
    });
    group.bench_function("rewrite in place", |b| {
        let mut packet = packet.clone();
        b.iter(|| {
            let mut header = HeaderMut::parse(black_box(&mut packet)).expect("just written");
            header.set_sequence_number(1);
            header.set_timestamp(2);
            header.set_ssrc(3);
            header.set_payload_type(4);
        })
    });
    group.bench_function("write a header with three extensions", |b| {
        let mut buffer = [0; 64];
        let mut block = [0; 32];
        let header = HeaderView::parse(&packet).expect("just written");
        b.iter(|| {
            let elements = header.extension().into_iter().flat_map(|e| e.elements());
            let len = extension::write(elements, &mut block).expect("three small elements");
            let extension = Extension {
                profile: 0xBEDE,
                data: &block[4..len],
            };
            black_box(&header)
                .to_header()
                .write(&[], Some(extension), black_box(&mut buffer))
        })
    });
    group.finish();
}

fn rtcp(c: &mut Criterion) {
    let mut buffer = [0; 2_048];
    let arrivals = || (0..100).map(|n| if n % 17 == 0 { None } else { Some(n % 7) });
    let len = {
        let mut writer = Writer::new(&mut buffer);
        writer
            .transport_wide_feedback(1, 2, 3, 4, 5, arrivals())
            .expect("the buffer is large enough");
        writer.finish()
    };
    let mut group = c.benchmark_group("rtcp");
    group.bench_function("read transport-wide feedback on 100 packets", |b| {
        b.iter(|| {
            compound(black_box(&buffer[..len]))
                .flatten()
                .map(|packet| match packet {
                    wire::rtcp::Packet::TransportWideFeedback(feedback) => feedback.statuses().count(),
                    _ => 0,
                })
                .sum::<usize>()
        })
    });
    group.bench_function("write transport-wide feedback on 100 packets", |b| {
        let mut out = [0; 2_048];
        b.iter(|| {
            let mut writer = Writer::new(black_box(&mut out));
            writer
                .transport_wide_feedback(1, 2, 3, 4, 5, arrivals())
                .map(|w| w.len())
        })
    });
    group.finish();
}

fn channel_data_(c: &mut Criterion) {
    let mut datagram = vec![0; 1_204];
    let number = channel_data::ChannelNumber::MIN;
    let header = datagram.first_chunk_mut().expect("1,204 bytes");
    channel_data::write_header(header, number, 1_200);
    c.bench_function("channel_data/parse", |b| {
        b.iter(|| channel_data::parse_datagram(black_box(&datagram)))
    });
}

criterion_group!(benches, stun, rtp, rtcp, channel_data_);
criterion_main!(benches);
