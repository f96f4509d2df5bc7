//! Binding (RFC 8489) and NAT behaviour discovery (RFC 5780).
#![allow(clippy::unwrap_used)]

mod world;

use std::net::SocketAddr;

use turn_server::{Client, Config, Discovery, Transport};
use wire::stun::{AttributeType, Builder, ChangeRequest, Message, Method};
use world::*;

const CLIENT: &str = "8.8.4.4:4000";
const PRIMARY: &str = "9.9.9.9:3478";
const ALTERNATE: &str = "9.9.9.10:3479";

fn world() -> World {
    let pair = Discovery::new(address(PRIMARY), address(ALTERNATE)).unwrap();
    World::with(Config {
        discovery: vec![pair],
        ..config()
    })
}

/// What leaves, from where and to where.
struct Answer {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

impl Answer {
    fn message(&self) -> Message<'_> {
        Message::parse(&self.bytes).unwrap()
    }

    fn code(&self) -> u16 {
        self.message().error_code().map_or(0, |error| error.code)
    }
}

fn ask(
    world: &mut World,
    client: Client,
    attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
) -> Option<Answer> {
    let id = world.id();
    let request = build(Method::BINDING, id, attributes);
    let transmit = world.turn.handle_client(world.now, client, &request)?;
    Some(Answer {
        from: transmit.source.unwrap(),
        to: transmit.destination,
        bytes: transmit.contents.to_vec(),
    })
}

fn at(server: &str) -> Client {
    Client::udp(address(CLIENT), address(server))
}

const BOTH: ChangeRequest = ChangeRequest { ip: true, port: true };

fn padded(b: Builder<'_>) -> Builder<'_> {
    b.attribute(AttributeType::PADDING, &[0; 1400])
}

fn change(b: Builder<'_>) -> Builder<'_> {
    b.change_request(BOTH)
}

fn long(b: Builder<'_>) -> Builder<'_> {
    change(b).software("a request with room for its answer")
}

#[test]
fn a_plain_request_is_told_its_address_and_where_else_to_ask() {
    let mut world = world();
    let answer = ask(&mut world, at(PRIMARY), |b| b).unwrap();
    let message = answer.message();
    assert_eq!(message.xor_mapped_address(), Some(address(CLIENT)));
    assert_eq!(message.other_address(), Some(address(ALTERNATE)));
    assert_eq!((answer.from, answer.to), (address(PRIMARY), address(CLIENT)));
    let answer = ask(&mut world, at(ALTERNATE), |b| b).unwrap();
    assert_eq!(answer.message().other_address(), Some(address(PRIMARY)));
}

#[test]
fn the_answer_comes_from_where_it_is_asked_to_come_from() {
    let mut world = world();
    for (ip, port, from) in [
        (false, false, "9.9.9.9:3478"),
        (true, false, "9.9.9.10:3478"),
        (false, true, "9.9.9.9:3479"),
        (true, true, "9.9.9.10:3479"),
    ] {
        let answer = ask(&mut world, at(PRIMARY), |b| {
            b.change_request(ChangeRequest { ip, port })
        })
        .unwrap();
        assert_eq!(answer.from, address(from));
        assert_eq!(answer.message().response_origin(), Some(address(from)));
        assert_eq!(answer.message().other_address(), Some(address(ALTERNATE)));
    }
}

#[test]
fn the_answer_goes_to_the_port_it_is_asked_to_go_to_and_to_no_other_address() {
    let mut world = world();
    let answer = ask(&mut world, at(PRIMARY), |b| b.response_port(4321)).unwrap();
    assert_eq!(answer.to, address("8.8.4.4:4321"));
    assert_eq!(answer.message().xor_mapped_address(), Some(address(CLIENT)));
    assert_eq!(
        ask(&mut world, at(PRIMARY), |b| b.response_port(0))
            .unwrap()
            .code(),
        400
    );
}

#[test]
fn padding_is_padded_back_but_never_to_another_port() {
    let mut world = world();
    let padding = [0; 1400];
    let answer = ask(&mut world, at(PRIMARY), padded).unwrap();
    assert_eq!(
        answer.message().attribute(AttributeType::PADDING),
        Some(&padding[..])
    );
    let answer = ask(&mut world, at(PRIMARY), |b| padded(b).response_port(4321)).unwrap();
    assert_eq!((answer.code(), answer.to), (400, address(CLIENT)));
}

#[test]
fn without_a_second_address_and_over_connections_discovery_is_unknown() {
    let mut plain = World::new();
    let answer = ask(&mut plain, at(PRIMARY), long).unwrap();
    assert_eq!(answer.code(), 420);
    assert_eq!(
        answer.message().unknown_attributes().collect::<Vec<_>>(),
        [0x0003]
    );
    let mut world = world();
    let tcp = connected(Transport::Tcp, address(CLIENT), 1);
    assert_eq!(ask(&mut world, tcp, change).unwrap().code(), 420);
    let answer = ask(&mut world, tcp, |b| b).unwrap();
    assert_eq!(answer.message().other_address(), None);
    let elsewhere = Client::udp(address(CLIENT), address("9.9.9.11:3478"));
    assert_eq!(ask(&mut world, elsewhere, long).unwrap().code(), 420);
}

#[test]
fn no_answer_of_discovery_outgrows_its_request() {
    let mut world = world();
    for extra in 0..12 {
        let mut request = 0;
        let answer = ask(&mut world, at(PRIMARY), |b| match extra {
            0 => b,
            1 => b.change_request(ChangeRequest { ip: true, port: true }),
            more => b.software(&"x".repeat(4 * more)),
        });
        request += match extra {
            0 => 20,
            1 => 28,
            more => 24 + 4 * more,
        };
        let answer = answer.unwrap().bytes.len();
        let headers = if request < 32 { 28 } else { 0 };
        assert!(
            2 * (answer + headers) <= 3 * (request + headers),
            "{request} -> {answer}"
        );
    }
}

#[test]
fn two_addresses_that_differ_in_both_parts_make_a_pair() {
    let pair = |a: &str, b: &str| Discovery::new(address(a), address(b)).is_some();
    assert!(pair(PRIMARY, ALTERNATE));
    assert!(!pair(PRIMARY, "9.9.9.9:3479"));
    assert!(!pair(PRIMARY, "9.9.9.10:3478"));
    assert!(!pair(PRIMARY, "[2a00::9]:3479"));
    assert!(!pair(PRIMARY, "0.0.0.0:3479"));
}
