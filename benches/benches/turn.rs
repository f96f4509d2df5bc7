//! The TURN core on one datagram of 1,200 bytes each way: looked up, permitted, charged and turned into the send that
//! is ready for the kernel.

#![allow(missing_docs, reason = "criterion's macros write the functions")]

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use benches::call::permit;
use criterion::{Criterion, criterion_group, criterion_main};
use metering::{Allowance, LeaseId, Msat, Rates, SessionId, Step};
use turn_server::{
    AddressPolicy, AllocationKey, Census, Client, Config, Credential, Event, HEADROOM, REALM, TurnServer,
};
use wire::channel_data::{self, ChannelNumber};
use wire::stun::{Builder, Class, Message, Method, TransactionId, long_term_key};

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 2,
};
const PAYLOAD: usize = 1_200;
const UDP: u8 = 17;

/// One allocation with a permission and a channel to one peer.
struct Relayed {
    server: TurnServer,
    allocation: AllocationKey,
    client: Client,
    peer: SocketAddr,
    now: Instant,
}

fn relayed(with_channel: bool) -> Relayed {
    let now = Instant::now();
    let client = Client::udp(
        SocketAddr::from(([198, 18, 0, 2], 40_000)),
        SocketAddr::from(([192, 0, 3, 1], 3478)),
    );
    let peer = SocketAddr::from(([8, 8, 8, 8], 9_000));
    let census = Arc::new(Census::new());
    let mut server = TurnServer::new(Config::new(AddressPolicy::default()), census, [7; 32], now);
    let credential = Credential::new(
        "name",
        "password",
        SessionId::new(1),
        Arc::new(permit()),
        now + Duration::from_secs(600),
    );
    assert!(server.add_credential(Arc::new(credential), now));
    let key = long_term_key("name", REALM, "password");
    let mut nonce = String::new();
    let mut call = |server: &mut TurnServer, method: Method| {
        let mut request = [0; 512];
        let builder = Builder::new(
            &mut request,
            Class::Request,
            method,
            TransactionId(*b"transaction!"),
        );
        let builder = match method {
            Method::ALLOCATE => builder.requested_transport(UDP),
            Method::CHANNEL_BIND => builder.channel_number(ChannelNumber::MIN).xor_peer_address(peer),
            _ => builder.xor_peer_address(peer),
        };
        let builder = if nonce.is_empty() {
            builder
        } else {
            builder
                .username("name")
                .realm(REALM)
                .nonce(&nonce)
                .integrity(&key)
        };
        let len = builder.finish().expect("512 bytes are enough");
        let answer = server.handle_client(now, client, &request[..len])?;
        let answer = Message::parse(answer.contents).expect("a STUN answer");
        nonce = answer.nonce().map_or(nonce.clone(), str::to_owned);
        Some(answer.class())
    };
    assert_eq!(
        call(&mut server, Method::ALLOCATE),
        Some(Class::Error),
        "a nonce first"
    );
    assert_eq!(call(&mut server, Method::ALLOCATE), None, "money first");
    let Some(Event::Admit {
        allocation, session, ..
    }) = server.poll_event()
    else {
        panic!("nobody to admit")
    };
    let allowance = Allowance::new(LeaseId::new(1), session, RATES, Msat::MAX_BALANCE);
    assert!(server.admitted(allocation, allowance, Step::Full, now).is_none());
    let port = std::iter::from_fn(|| server.poll_event()).find_map(|event| match event {
        Event::OpenRelay { port, .. } => Some(port),
        _ => None,
    });
    let relay = SocketAddr::from(([192, 0, 3, 1], port.expect("a port to open")));
    assert!(server.relay_opened(allocation, relay, now).is_some());
    let bound = match with_channel {
        true => call(&mut server, Method::CHANNEL_BIND),
        false => call(&mut server, Method::CREATE_PERMISSION),
    };
    assert_eq!(bound, Some(Class::Success));
    Relayed {
        server,
        allocation,
        client,
        peer,
        now,
    }
}

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
