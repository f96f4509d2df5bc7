//! Who is believed (RFC 8489 sections 9.2 and 14.6, RFC 7635): both integrities, both password algorithms, anonymous
//! usernames, bid-down protection, access tokens.
#![allow(clippy::unwrap_used)]

mod world;

use std::time::Duration;

use turn_server::{AccessTokens, AuthFailure, Client, Config, REALM, Transport};
use wire::stun::{
    AttributeType, Builder, Message, Method, PasswordAlgorithm, long_term_key_sha256, userhash,
};
use world::*;

/// SHA-256, then MD5.
const OFFER: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

/// A client that is told everything: size does not matter over TCP.
fn client() -> Client {
    connected(Transport::Tcp, address("8.8.4.4:4000"), 1)
}

fn challenge(world: &mut World) -> Vec<u8> {
    let id = world.id();
    let request = build(Method::ALLOCATE, id, |b| b.requested_transport(17));
    world.sends(client(), &request)[0].bytes.clone()
}

fn ask(world: &mut World, attributes: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Sent {
    let id = world.id();
    let request = build(Method::ALLOCATE, id, |b| attributes(b.requested_transport(17)));
    world.sends(client(), &request)[0].clone()
}

#[test]
fn a_challenge_offers_sha_256_and_its_nonce_says_so() {
    let mut world = World::new();
    let bytes = challenge(&mut world);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.attribute(AttributeType::PASSWORD_ALGORITHMS), Some(OFFER));
    assert!(message.nonce().unwrap().starts_with("obMatJos2wAAA"));
}

#[test]
fn over_udp_the_offer_is_made_where_there_is_room_for_it() {
    let mut world = World::new();
    for (padding, offered) in [(0, false), (24, true)] {
        let id = world.id();
        let request = build(Method::ALLOCATE, id, |b| {
            b.requested_transport(17).software(&"x".repeat(padding))
        });
        let answers = world.client_sends(address("8.8.4.4:4000"), &request);
        let message = answers[0].message();
        assert_eq!(message.has(AttributeType::PASSWORD_ALGORITHMS), offered);
        assert_eq!(message.nonce().unwrap().starts_with("obMatJos2"), offered);
    }
}

#[test]
fn a_client_signs_with_sha_256_under_its_hashed_username_and_is_answered_likewise() {
    let mut world = World::new();
    let user = world.user();
    let key = long_term_key_sha256(&user.name, REALM, PASSWORD);
    let nonce = world.nonce_of(client());
    let answer = ask(&mut world, |b| {
        b.userhash(&userhash(&user.name, REALM))
            .realm(REALM)
            .nonce(&nonce)
            .password_algorithm(PasswordAlgorithm::Sha256)
            .password_algorithms(OFFER)
            .integrity_sha256(&key)
    });
    assert_eq!(answer.code(), 0);
    let message = answer.message();
    assert!(message.verify_integrity_sha256(&key));
    assert!(!message.has_integrity(), "one integrity, the one that was shown");
}

#[test]
fn who_knows_nothing_of_algorithms_signs_as_ever() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce_of(client());
    let answer = ask(&mut world, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity(&user.key)
    });
    assert_eq!(answer.code(), 0);
    assert!(answer.message().verify_integrity(&user.key));
}

#[test]
fn the_stronger_integrity_counts_where_both_are_there() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce_of(client());
    let answer = ask(&mut world, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity(&user.key)
            .integrity_sha256(b"another key")
    });
    assert_eq!(answer.code(), 401);
}

#[test]
fn an_offer_that_was_weakened_on_the_way_is_refused() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce_of(client());
    let md5_only: &[u8] = &[0, 1, 0, 0];
    type Shape<'a> = &'a dyn Fn(Builder<'_>) -> Builder<'_>;
    let shapes: [Shape<'_>; 4] = [
        &|b| b.password_algorithm(PasswordAlgorithm::Md5),
        &|b| b.password_algorithms(OFFER),
        &|b| {
            b.password_algorithm(PasswordAlgorithm::Md5)
                .password_algorithms(md5_only)
        },
        &|b| {
            b.attribute(AttributeType::PASSWORD_ALGORITHM, &[0, 9, 0, 0])
                .password_algorithms(OFFER)
        },
    ];
    for (index, shape) in shapes.into_iter().enumerate() {
        let answer = ask(&mut world, |b| {
            let b = b.username(&user.name).realm(REALM).nonce(&nonce);
            shape(b).integrity(&user.key)
        });
        assert_eq!(answer.code(), 400, "shape {index}");
    }
    let counted = world
        .turn
        .counters()
        .auth_failures()
        .find(|(reason, _)| *reason == AuthFailure::BidDown);
    assert_eq!(counted, Some((AuthFailure::BidDown, 4)));
    let without = nonce.replacen("wAAA", "AAAA", 1);
    let answer = ask(&mut world, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&without)
            .integrity(&user.key)
    });
    assert_eq!(answer.code(), 438, "nor can the cookie's features be taken away");
}

#[test]
fn a_truncated_integrity_is_taken_down_to_16_bytes() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce_of(client());
    let id = world.id();
    let full = build(Method::ALLOCATE, id, |b| {
        b.requested_transport(17)
            .username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity_sha256(&user.key)
    });
    // Cut to 16 bytes the HMAC is another, since the header's length is part of it: made here by hand.
    let mut cut = full[..full.len() - 16].to_vec();
    let len = (cut.len() - 20) as u16;
    cut[2..4].copy_from_slice(&len.to_be_bytes());
    let value = cut.len() - 16;
    cut[value - 2..value].copy_from_slice(&16u16.to_be_bytes());
    let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, &user.key);
    let tag = aws_lc_rs::hmac::sign(&key, &cut[..value - 4]);
    cut[value..].copy_from_slice(&tag.as_ref()[..16]);
    assert_eq!(world.sends(client(), &cut)[0].code(), 0);
}

fn third_party(world: &mut World) -> AccessTokens {
    let tokens = AccessTokens::new("turn.example", [5; 32], (world.now, 1_800_000_000));
    world.turn = turn_server::TurnServer::new(
        Config {
            access_tokens: Some(tokens.clone()),
            ..config()
        },
        world.census.clone(),
        [7; 32],
        world.now,
    );
    tokens
}

#[test]
fn an_access_token_takes_the_place_of_a_password() {
    let mut world = World::new();
    let tokens = third_party(&mut world);
    let user = world.user();
    let bytes = challenge(&mut world);
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(
        message.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION),
        Some(&b"turn.example"[..])
    );
    let nonce = message.nonce().unwrap().to_owned();
    let mac_key = [3; 32];
    let token = tokens.issue(&mac_key, 1_800_000_000, 600, [1; 12]).unwrap();
    let answer = ask(&mut world, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .access_token(&token)
            .integrity_sha256(&mac_key)
    });
    assert_eq!(answer.code(), 0);
    assert!(answer.message().verify_integrity_sha256(&mac_key));
    // What follows on the allocation is signed with the token's key.
    let id = world.id();
    let refresh = build(Method::REFRESH, id, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .integrity_sha256(&mac_key)
    });
    assert_eq!(world.sends(client(), &refresh)[0].code(), 0);
}

#[test]
fn a_token_that_is_not_for_now_or_for_nobody_we_know_opens_nothing() {
    let mut world = World::new();
    let tokens = third_party(&mut world);
    let user = world.user();
    let mac_key = [3; 32];
    let good = tokens.issue(&mac_key, 1_800_000_000, 600, [1; 12]).unwrap();
    let late = tokens.issue(&mac_key, 1_799_999_000, 600, [2; 12]).unwrap();
    let nonce = world.nonce_of(client());
    let mut code = |name: &str, token: &[u8], key: &[u8]| {
        ask(&mut world, |b| {
            b.username(name)
                .realm(REALM)
                .nonce(&nonce)
                .access_token(token)
                .integrity_sha256(key)
        })
        .code()
    };
    assert_eq!(code(&user.name, &late, &mac_key), 401);
    assert_eq!(code("nobody", &good, &mac_key), 401, "a token is no permit");
    assert_eq!(code(&user.name, &good, &[4; 32]), 401);
    assert_eq!(code(&user.name, &good[..40], &mac_key), 401);
    assert_eq!(code(&user.name, &good, &mac_key), 0);
}

#[test]
fn where_tokens_are_not_taken_they_are_unknown() {
    let mut world = World::new();
    let user = world.user();
    let nonce = world.nonce_of(client());
    let answer = ask(&mut world, |b| {
        b.username(&user.name)
            .realm(REALM)
            .nonce(&nonce)
            .access_token(&[1; 60])
            .integrity(&user.key)
    });
    assert_eq!(answer.code(), 420);
    world.pass(Duration::from_secs(1));
    assert_eq!(world.turn.allocations(), 0);
}
