//! The TURN core on one datagram of 1,200 bytes each way: looked up, permitted, charged and turned into the send that
//! is ready for the kernel.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::hint::black_box;

use benches::relayed::{Relayed, relayed};
use criterion::{Criterion, criterion_group, criterion_main};
use turn_server::HEADROOM;
use wire::channel_data::{self, ChannelNumber};
use wire::stun::{Builder, Class, Method, TransactionId};

const PAYLOAD: usize = 1_200;

fn turn(c: &mut Criterion) {
    let mut group = c.benchmark_group("turn, 1,200 B");
    group.bench_function("channel to peer", |b| {
        let Relayed {
            mut server,
            client,
            now,
            ..
        } = relayed(true);
        let mut datagram = vec![0x5A; HEADROOM + PAYLOAD];
        let header = datagram.first_chunk_mut().expect("longer than a header");
        channel_data::write_header(header, ChannelNumber::MIN, PAYLOAD as u16);
        b.iter(|| {
            let transmit = server.handle_client(now, client, black_box(&datagram));
            assert!(transmit.is_some_and(|t| t.contents.len() == PAYLOAD));
        })
    });
    group.bench_function("peer to channel", |b| {
        let Relayed {
            mut server,
            allocation,
            peer,
            now,
            ..
        } = relayed(true);
        let mut packet = vec![0x5A; HEADROOM + PAYLOAD];
        b.iter(|| {
            let transmit = server.handle_peer(now, allocation, peer, black_box(&mut packet));
            assert!(transmit.is_some_and(|t| t.contents.len() == HEADROOM + PAYLOAD));
        })
    });
    group.bench_function("send indication to peer", |b| {
        let Relayed {
            mut server,
            client,
            peer,
            now,
            ..
        } = relayed(false);
        let mut datagram = vec![0; 2_000];
        let id = TransactionId(*b"transaction!");
        let builder = Builder::new(&mut datagram, Class::Indication, Method::SEND, id);
        let len = builder
            .xor_peer_address(peer)
            .data(&[0x5A; PAYLOAD])
            .finish()
            .expect("2,000 bytes are enough");
        b.iter(|| {
            let transmit = server.handle_client(now, client, black_box(&datagram[..len]));
            assert!(transmit.is_some_and(|t| t.contents.len() == PAYLOAD));
        })
    });
    group.finish();
}

criterion_group!(benches, turn);
criterion_main!(benches);
