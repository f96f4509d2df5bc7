//! Instructions of the packet path under valgrind: the same on a busy machine as on a quiet one, so that a regression
//! shows where a time would not. Each figure is of one call on warm state. `benches/instructions.sh` runs this and
//! compares with the committed figures.

#![allow(missing_docs, reason = "gungraun's macros write the functions")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use benches::books::Books;
use benches::call::Call;
use benches::keys::{opener, sealer};
use benches::relayed::{Relayed, relayed};
use gungraun::{library_benchmark, library_benchmark_group, main};
use metering::ledger::Command;
use metering::{Allowance, Direction, LeaseId, Msat, Rates, SessionId};
use sfu::srtp::{Opener, Profile, Sealer};
use tempfile::TempDir;
use turn_server::HEADROOM;
use wire::channel_data::{self, ChannelNumber};
use wire::demux::{Kind, classify};
use wire::rtp::{Extension, FIXED_HEADER_LEN, Header, HeaderMut, Packet};

/// RTP with the three header extensions of a browser and 1,100 bytes.
fn media() -> Vec<u8> {
    let mut packet = vec![0; 12 + 12 + 1_100];
    let data = [0x10, b'0', 0x22, 1, 2, 3, 0x31, 0, 9];
    let header = Header {
        payload_type: 96,
        sequence_number: 7,
        timestamp: 90_000,
        ssrc: 42,
        ..Header::default()
    };
    let extension = Extension {
        profile: 0xBEDE,
        data: &data,
    };
    let len = header.write(&[], Some(extension), &mut packet);
    packet.truncate(len.expect("the buffer is large enough") + 1_100);
    packet
}

#[library_benchmark]
#[bench::media(setup = media)]
fn demux(packet: Vec<u8>) -> (Kind, Vec<u8>) {
    (classify(black_box(&packet)), packet)
}

#[library_benchmark]
#[bench::media(setup = media)]
fn rtp_parse(packet: Vec<u8>) -> (bool, Vec<u8>) {
    let found = Packet::parse(black_box(&packet))
        .ok()
        .and_then(|packet| packet.extension()?.find(3))
        .is_some();
    (found, packet)
}

#[library_benchmark]
#[bench::media(setup = media)]
fn rtp_rewrite(mut packet: Vec<u8>) -> Vec<u8> {
    let mut header = HeaderMut::parse(black_box(&mut packet)).expect("just written");
    header.set_sequence_number(1);
    header.set_timestamp(2);
    header.set_ssrc(3);
    header.set_payload_type(4);
    packet
}

/// A context that has sealed before, and room for a packet.
struct ToSeal {
    sealer: Sealer,
    payload: Vec<u8>,
    packet: Vec<u8>,
}

fn to_seal(profile: Profile, size: usize) -> ToSeal {
    let mut packet = vec![0; FIXED_HEADER_LEN + size + profile.tag_length()];
    packet[0] = 0x80;
    let (sealer, payload) = (sealer(profile, 0), vec![0x5A; size]);
    sealer.seal(&mut packet, FIXED_HEADER_LEN, 6, &payload);
    ToSeal {
        sealer,
        payload,
        packet,
    }
}

#[library_benchmark(setup = to_seal)]
#[bench::gcm128_100(Profile::AeadAes128Gcm, 100)]
#[bench::gcm128_1200(Profile::AeadAes128Gcm, 1_200)]
#[bench::gcm256_100(Profile::AeadAes256Gcm, 100)]
#[bench::gcm256_1200(Profile::AeadAes256Gcm, 1_200)]
#[bench::cm_sha1_100(Profile::Aes128CmSha1_80, 100)]
#[bench::cm_sha1_1200(Profile::Aes128CmSha1_80, 1_200)]
fn protect(mut to: ToSeal) -> ToSeal {
    to.sealer.seal(
        black_box(&mut to.packet),
        FIXED_HEADER_LEN,
        7,
        black_box(&to.payload),
    );
    to
}

/// A context that has opened before, and a packet for it.
struct ToOpen {
    opener: Opener,
    packet: Vec<u8>,
    slot: Vec<u8>,
    opened: usize,
}

fn to_open(profile: Profile, size: usize) -> ToOpen {
    let packet = to_seal(profile, size).packet;
    let mut to = ToOpen {
        opener: opener(profile, 0),
        packet,
        slot: vec![0; 2_048],
        opened: 0,
    };
    to.opened = to
        .opener
        .open(&to.packet, FIXED_HEADER_LEN, 6, &mut to.slot)
        .expect("sealed with the same key");
    to
}

#[library_benchmark(setup = to_open)]
#[bench::gcm128_100(Profile::AeadAes128Gcm, 100)]
#[bench::gcm128_1200(Profile::AeadAes128Gcm, 1_200)]
#[bench::gcm256_100(Profile::AeadAes256Gcm, 100)]
#[bench::gcm256_1200(Profile::AeadAes256Gcm, 1_200)]
#[bench::cm_sha1_100(Profile::Aes128CmSha1_80, 100)]
#[bench::cm_sha1_1200(Profile::Aes128CmSha1_80, 1_200)]
fn unprotect(mut to: ToOpen) -> ToOpen {
    let opened = to
        .opener
        .open(black_box(&to.packet), FIXED_HEADER_LEN, 6, &mut to.slot);
    to.opened = opened.expect("sealed with the same key");
    to
}

const FRAME: usize = 6;

/// A call in which keyframes and retransmissions of the start have passed, and a frame for it.
fn call_with_frame(subscribers: usize) -> (Call, Vec<Vec<u8>>, u64) {
    let mut call = Call::new(subscribers);
    for _ in 0..5 {
        let mut frame = call.frame(FRAME, 1_100);
        call.deliver(&mut frame);
    }
    let frame = call.frame(FRAME, 1_100);
    (call, frame, 0)
}

#[library_benchmark(setup = call_with_frame)]
#[bench::to_1(1)]
#[bench::to_10(10)]
#[bench::to_100(100)]
fn fan_out((mut call, mut frame, _): (Call, Vec<Vec<u8>>, u64)) -> (Call, Vec<Vec<u8>>, u64) {
    let sent = call.forward(black_box(&mut frame));
    (call, frame, sent)
}

fn allowance() -> (Allowance, Instant) {
    let rates = Rates {
        out: 50,
        in_: 0,
        second: 8,
    };
    let now = Instant::now();
    let mut allowance = Allowance::new(LeaseId::new(1), SessionId::new(1), rates, Msat::MAX_BALANCE);
    assert!(allowance.charge(Direction::ToClient, 1_150, now).is_ok());
    (allowance, now + Duration::from_micros(100))
}

#[library_benchmark]
#[bench::packet(setup = allowance)]
fn charge((mut allowance, now): (Allowance, Instant)) -> (bool, Allowance) {
    let charged = allowance.charge(Direction::ToClient, black_box(1_150), now);
    (charged.is_ok(), allowance)
}

const PAYLOAD: usize = 1_200;

fn channel_to_peer() -> (Relayed, Vec<u8>) {
    let mut relayed = relayed(true);
    let mut datagram = vec![0x5A; HEADROOM + PAYLOAD];
    let header = datagram.first_chunk_mut().expect("longer than a header");
    channel_data::write_header(header, ChannelNumber::MIN, PAYLOAD as u16);
    turn_to_peer_once(&mut relayed, &datagram);
    (relayed, datagram)
}

fn turn_to_peer_once(relayed: &mut Relayed, datagram: &[u8]) -> usize {
    let (now, client) = (relayed.now, relayed.client);
    let transmit = relayed.server.handle_client(now, client, datagram);
    transmit.map_or(0, |transmit| transmit.contents.len())
}

#[library_benchmark]
#[bench::channel(setup = channel_to_peer)]
fn turn_to_peer((mut relayed, datagram): (Relayed, Vec<u8>)) -> (usize, Relayed, Vec<u8>) {
    let len = turn_to_peer_once(&mut relayed, black_box(&datagram));
    (len, relayed, datagram)
}

fn peer_to_channel() -> (Relayed, Vec<u8>) {
    let mut relayed = relayed(true);
    let mut packet = vec![0x5A; HEADROOM + PAYLOAD];
    turn_to_client_once(&mut relayed, &mut packet);
    (relayed, packet)
}

fn turn_to_client_once(relayed: &mut Relayed, packet: &mut [u8]) -> usize {
    let (now, allocation, peer) = (relayed.now, relayed.allocation, relayed.peer);
    let transmit = relayed.server.handle_peer(now, allocation, peer, packet);
    transmit.map_or(0, |transmit| transmit.contents.len())
}

#[library_benchmark]
#[bench::channel(setup = peer_to_channel)]
fn turn_to_client((mut relayed, mut packet): (Relayed, Vec<u8>)) -> (usize, Relayed, Vec<u8>) {
    let len = turn_to_client_once(&mut relayed, black_box(&mut packet));
    (len, relayed, packet)
}

fn books_with_reports(leases: usize) -> (Books, Vec<Command>, TempDir) {
    let folder = tempfile::tempdir().expect("a folder to write to");
    let mut books = Books::open(&folder.path().join("books.redb"));
    books.open_leases(leases);
    let reports = books.reports();
    books.commit(&reports);
    let reports = books.reports();
    (books, reports, folder)
}

#[library_benchmark(setup = books_with_reports)]
#[bench::reports_100(100)]
fn ledger_commit(
    (mut books, reports, folder): (Books, Vec<Command>, TempDir),
) -> (Books, Vec<Command>, TempDir) {
    books.commit(black_box(&reports));
    (books, reports, folder)
}

library_benchmark_group!(
    name = path,
    benchmarks = [
        demux,
        rtp_parse,
        rtp_rewrite,
        protect,
        unprotect,
        fan_out,
        charge,
        turn_to_peer,
        turn_to_client,
        ledger_commit
    ]
);
main!(library_benchmark_groups = path);
