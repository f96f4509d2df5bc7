//! STUN that lies: lengths, order, repetition. And what honest messages survive.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::SocketAddr;

use proptest::prelude::*;
use wire::channel_data::ChannelNumber;
use wire::stun::{ATTRIBUTES_MAX, AttributeType, Builder, Class, Message, Method, TransactionId};
use wire::{ParseError, WriteError};

const ID: TransactionId = TransactionId(*b"transaction!");
const KEY: &[u8] = b"key";

fn request(write: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 65_536];
    let len = write(Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, ID))
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

fn set_length(message: &mut [u8], length: usize) {
    message[2..4].copy_from_slice(&(length as u16).to_be_bytes());
}

#[test]
fn a_message_cut_anywhere_is_refused() {
    let whole = request(|b| {
        b.username("someone")
            .realm("milliway")
            .integrity(KEY)
            .fingerprint()
    });
    for len in 0..whole.len() {
        assert!(Message::parse(&whole[..len]).is_err(), "cut to {len}");
    }
    assert!(Message::parse(&whole).is_ok());
}

#[test]
fn bytes_after_the_message_are_refused() {
    let mut message = request(|b| b.username("someone"));
    message.extend([0; 4]);
    assert_eq!(Message::parse(&message).unwrap_err(), ParseError::Length);
}

#[test]
fn an_attribute_that_lies_about_its_length_is_refused() {
    for lie in [5u16, 8, 9, 0x7FFF, 0xFFFF] {
        let mut message = request(|b| b.attribute(AttributeType::LIFETIME, &[0, 0, 2, 88]));
        message[22..24].copy_from_slice(&lie.to_be_bytes());
        assert_eq!(
            Message::parse(&message).unwrap_err(),
            ParseError::Attribute,
            "length {lie}"
        );
    }
}

#[test]
fn an_attribute_header_without_room_is_refused() {
    let mut message = request(|b| b.lifetime(600));
    message.extend([0, 6, 0, 4]);
    set_length(&mut message, 12);
    assert_eq!(Message::parse(&message).unwrap_err(), ParseError::Attribute);
}

#[test]
fn a_message_of_odd_length_is_refused() {
    let mut message = request(|b| b.lifetime(600));
    message.push(0);
    set_length(&mut message, 9);
    assert_eq!(Message::parse(&message).unwrap_err(), ParseError::Length);
}

#[test]
fn another_cookie_or_another_version_is_refused() {
    let mut message = request(|b| b);
    message[4] ^= 1;
    assert_eq!(Message::parse(&message).unwrap_err(), ParseError::MagicCookie);
    message[4] ^= 1;
    message[0] |= 0x80;
    assert_eq!(Message::parse(&message).unwrap_err(), ParseError::Version);
}

#[test]
fn attributes_after_message_integrity_are_ignored() {
    let message = request(|b| b.realm("one").integrity(KEY).username("smuggled").lifetime(1));
    let message = Message::parse(&message).unwrap();
    assert!(message.verify_integrity(KEY));
    assert_eq!(message.realm(), Some("one"));
    assert_eq!(message.username(), None);
    assert_eq!(message.lifetime(), None);
    assert_eq!(message.unknown_required(&[AttributeType::REALM]).count(), 0);
}

#[test]
fn a_fingerprint_after_attributes_that_are_ignored_still_counts() {
    let message = request(|b| b.integrity(KEY).username("smuggled").fingerprint());
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.verify_fingerprint(), Some(true));
    assert!(message.verify_integrity(KEY));
    assert_eq!(message.username(), None);
}

#[test]
fn a_second_message_integrity_does_not_widen_what_counts() {
    let message = request(|b| b.integrity(b"stranger").username("smuggled").integrity(KEY));
    let message = Message::parse(&message).unwrap();
    assert!(!message.verify_integrity(KEY));
    assert_eq!(message.username(), None);
}

#[test]
fn sha256_integrity_ends_what_counts_too() {
    let sha256 = AttributeType::MESSAGE_INTEGRITY_SHA256;
    let message = request(|b| b.attribute(sha256, &[7; 32]).username("smuggled").integrity(KEY));
    let message = Message::parse(&message).unwrap();
    assert_eq!(message.username(), None);
    assert!(!message.has_integrity());
}

#[test]
fn message_integrity_of_the_wrong_size_is_refused() {
    for len in [0, 4, 16, 24, 32] {
        let message = request(|b| b.attribute(AttributeType::MESSAGE_INTEGRITY, &[0; 32][..len]));
        assert_eq!(
            Message::parse(&message).unwrap_err(),
            ParseError::Attribute,
            "{len} bytes"
        );
    }
}

#[test]
fn nothing_may_follow_the_fingerprint() {
    let message = request(|b| b.fingerprint().username("late"));
    assert_eq!(
        Message::parse(&message).unwrap_err(),
        ParseError::AfterFingerprint
    );
}

#[test]
fn a_wrong_fingerprint_is_seen() {
    let mut message = request(|b| b.username("someone").fingerprint());
    *message.last_mut().unwrap() ^= 1;
    assert_eq!(
        Message::parse(&message).unwrap().verify_fingerprint(),
        Some(false)
    );
}

#[test]
fn one_flipped_bit_anywhere_before_it_breaks_the_integrity() {
    let message = request(|b| b.username("someone").realm("milliway").nonce("n").integrity(KEY));
    for byte in 0..message.len() {
        for bit in 0..8 {
            let mut flipped = message.clone();
            flipped[byte] ^= 1 << bit;
            let passed = Message::parse(&flipped).is_ok_and(|m| m.verify_integrity(KEY));
            assert!(!passed, "bit {bit} of byte {byte}");
        }
    }
}

#[test]
fn unknown_comprehension_required_attributes_are_listed_in_order() {
    let message = request(|b| {
        b.attribute(AttributeType(0x7001), b"x")
            .lifetime(1)
            .attribute(AttributeType(0x0003), &[0; 4])
            .attribute(AttributeType(0xC001), b"optional")
    });
    let message = Message::parse(&message).unwrap();
    let unknown: Vec<u16> = message.unknown_required(&[AttributeType::LIFETIME]).collect();
    assert_eq!(unknown, [0x7001, 0x0003]);
    let answer = request(|b| b.error_code(420, "Unknown Attribute").unknown_attributes(unknown));
    let answer = Message::parse(&answer).unwrap();
    assert_eq!(answer.unknown_attributes().collect::<Vec<_>>(), [0x7001, 0x0003]);
    assert_eq!(answer.error_code().unwrap().code, 420);
}

#[test]
fn of_a_repeated_attribute_the_first_counts() {
    let message = request(|b| b.lifetime(600).lifetime(3600));
    assert_eq!(Message::parse(&message).unwrap().lifetime(), Some(600));
}

#[test]
fn a_thousand_attributes_are_refused() {
    let many = |count| request(|b| (0..count).fold(b, |b, _| b.dont_fragment()));
    assert!(Message::parse(&many(ATTRIBUTES_MAX)).is_ok());
    assert_eq!(
        Message::parse(&many(ATTRIBUTES_MAX + 1)).unwrap_err(),
        ParseError::TooManyAttributes
    );
    assert_eq!(
        Message::parse(&many(1000)).unwrap_err(),
        ParseError::TooManyAttributes
    );
}

#[test]
fn values_of_the_wrong_size_or_family_read_as_absent() {
    let message = request(|b| {
        b.attribute(AttributeType::LIFETIME, &[1, 2, 3])
            .attribute(AttributeType::XOR_PEER_ADDRESS, &[0, 3, 0, 0, 1, 2, 3, 4])
            .attribute(AttributeType::XOR_MAPPED_ADDRESS, &[0, 2, 0, 0, 1, 2, 3, 4])
            .attribute(AttributeType::CHANNEL_NUMBER, &[0x80, 0, 0, 0])
            .attribute(AttributeType::USERNAME, &[0xFF, 0xFE])
            .attribute(AttributeType::EVEN_PORT, &[])
            .attribute(AttributeType::RESERVATION_TOKEN, &[0; 7])
            .attribute(AttributeType::ERROR_CODE, &[0, 0, 2])
    });
    let message = Message::parse(&message).unwrap();
    assert!(message.has(AttributeType::LIFETIME) && message.lifetime().is_none());
    assert_eq!(message.xor_peer_address(), None);
    assert_eq!(
        message.xor_peer_addresses().collect::<Vec<_>>(),
        [Err(ParseError::Attribute)]
    );
    assert_eq!(message.xor_mapped_address(), None);
    assert_eq!(message.channel_number(), None);
    assert_eq!(message.username(), None);
    assert_eq!(message.even_port(), None);
    assert_eq!(message.reservation_token(), None);
    assert_eq!(message.error_code(), None);
}

#[test]
fn a_builder_out_of_room_says_so_and_writes_nothing_past_the_end() {
    for room in 0..100 {
        let mut buffer = [0; 100];
        let outcome = Builder::new(&mut buffer[..room], Class::Request, Method::ALLOCATE, ID)
            .username("a user's name")
            .integrity(KEY)
            .fingerprint()
            .finish();
        match outcome {
            Ok(len) => assert!(len <= room && Message::parse(&buffer[..len]).is_ok()),
            Err(error) => assert_eq!(error, WriteError::BufferTooSmall),
        }
        assert!(buffer[room..].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn a_value_beyond_its_length_field_is_not_written() {
    let mut buffer = vec![0; 200_000];
    let too_long = vec![0; 65_536];
    let builder = Builder::new(&mut buffer, Class::Indication, Method::DATA, ID);
    assert_eq!(builder.data(&too_long).finish(), Err(WriteError::ValueTooLong));
    let many = std::iter::repeat_n(1, 40_000);
    let builder = Builder::new(&mut buffer, Class::Error, Method::DATA, ID);
    assert_eq!(
        builder.unknown_attributes(many).finish(),
        Err(WriteError::ValueTooLong)
    );
}

/// Calls everything a view offers.
fn read_everything(bytes: &[u8]) {
    let Ok(m) = Message::parse(bytes) else { return };
    let _ = (
        m.class(),
        m.method(),
        m.transaction_id(),
        m.attributes().count(),
        format!("{m:?}"),
    );
    let _ = (
        m.username(),
        m.realm(),
        m.nonce(),
        m.software(),
        m.error_code(),
        m.unknown_attributes().count(),
    );
    let _ = (
        m.xor_mapped_address(),
        m.xor_peer_addresses().count(),
        m.xor_relayed_address(),
        m.data(),
    );
    let _ = (
        m.priority(),
        m.use_candidate(),
        m.ice_controlled(),
        m.ice_controlling(),
        m.lifetime(),
    );
    let _ = (
        m.channel_number(),
        m.requested_transport(),
        m.requested_address_family(),
        m.even_port(),
    );
    let _ = (
        m.additional_address_family(),
        m.reservation_token(),
        m.dont_fragment(),
        m.xor_peer_address(),
    );
    let _ = (
        m.verify_integrity(KEY),
        m.verify_fingerprint(),
        m.unknown_required(&[]).count(),
    );
}

/// A header that is right over bytes that may not be.
fn framed(mut body: Vec<u8>) -> Vec<u8> {
    body.truncate(body.len() / 4 * 4);
    let mut message = request(|b| b);
    set_length(&mut message, body.len());
    message.extend(body);
    message
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        read_everything(&bytes);
        read_everything(&framed(bytes));
    }

    #[test]
    fn any_attributes_are_read_or_refused(
        attributes in proptest::collection::vec(
            (prop_oneof![0u16..0x40, 0x8000u16..0x8040, any::<u16>()], 0u16..40, any::<[u8; 40]>(), 0u8..20),
            0..12,
        )
    ) {
        let mut body = Vec::new();
        for (kind, len, value, lie) in attributes {
            body.extend(kind.to_be_bytes());
            // One in twenty lies.
            body.extend(if lie == 0 { len * 7 } else { len }.to_be_bytes());
            body.extend(&value[..usize::from(len).next_multiple_of(4).min(40)]);
        }
        read_everything(&framed(body));
    }

    #[test]
    fn a_damaged_message_is_read_or_refused(at in 0usize..124, value: u8) {
        let mut message = request(|b| {
            b.username("someone").xor_peer_address("1.2.3.4:5".parse().unwrap()).realm("milliway").data(b"data")
                .integrity(KEY).fingerprint()
        });
        if let Some(byte) = message.get_mut(at) { *byte = value }
        read_everything(&message);
    }

    #[test]
    fn what_is_written_is_read(
        username in "[a-zA-Z0-9:+/]{0,64}", nonce in "[!-~]{0,40}", realm in "\\PC{0,20}", id: [u8; 12],
        addresses in proptest::collection::vec(any::<SocketAddr>(), 1..5), lifetime: u32, priority: u32,
        tie_breaker: u64, number in 0x4000u16..0x8000, token: [u8; 8], reserve: bool, transport: u8, family: u8,
        data in proptest::collection::vec(any::<u8>(), 0..100), code in 300u16..700, key: [u8; 16],
        method in 0u16..0x1000,
    ) {
        let id = TransactionId(id);
        let (method, number) = (Method::new(method).unwrap(), ChannelNumber::new(number).unwrap());
        let mut buffer = [0xAA; 2048];
        let mut builder = Builder::new(&mut buffer, Class::Error, method, id)
            .username(&username).nonce(&nonce).realm(&realm).software("s").xor_mapped_address(addresses[0])
            .xor_relayed_address(addresses[0]).lifetime(lifetime).priority(priority).use_candidate()
            .ice_controlling(tie_breaker).ice_controlled(tie_breaker).channel_number(number)
            .reservation_token(token).even_port(reserve).requested_transport(transport)
            .requested_address_family(family).additional_address_family(family).dont_fragment()
            .data(&data).error_code(code, "why").address_error_code(2, 440, "no");
        for address in &addresses {
            builder = builder.xor_peer_address(*address);
        }
        let len = builder.integrity(&key).fingerprint().finish().unwrap();
        let message = Message::parse(&buffer[..len]).unwrap();
        // IPv6 flow label and scope are not on the wire.
        let plain = |address: &SocketAddr| SocketAddr::new(address.ip(), address.port());
        prop_assert_eq!((message.class(), message.method(), message.transaction_id()), (Class::Error, method, id));
        prop_assert_eq!(message.username(), Some(&username[..]));
        prop_assert_eq!(message.nonce(), Some(&nonce[..]));
        prop_assert_eq!(message.realm(), Some(&realm[..]));
        prop_assert_eq!(message.xor_mapped_address(), Some(plain(&addresses[0])));
        prop_assert_eq!(message.xor_relayed_address(), Some(plain(&addresses[0])));
        let peers: Vec<_> = message.xor_peer_addresses().map(Result::unwrap).collect();
        prop_assert_eq!(peers, addresses.iter().map(plain).collect::<Vec<_>>());
        prop_assert_eq!((message.lifetime(), message.priority()), (Some(lifetime), Some(priority)));
        prop_assert_eq!(message.ice_controlling(), Some(tie_breaker));
        prop_assert_eq!(message.ice_controlled(), Some(tie_breaker));
        prop_assert!(message.use_candidate() && message.dont_fragment());
        prop_assert_eq!(message.channel_number(), Some(number));
        prop_assert_eq!(message.reservation_token(), Some(token));
        prop_assert_eq!(message.even_port(), Some(reserve));
        prop_assert_eq!(message.requested_transport(), Some(transport));
        prop_assert_eq!(message.requested_address_family(), Some(family));
        prop_assert_eq!(message.additional_address_family(), Some(family));
        prop_assert_eq!(message.data(), Some(&data[..]));
        let error = message.error_code().unwrap();
        prop_assert_eq!((error.code, error.reason), (code, "why"));
        prop_assert!(message.verify_integrity(&key));
        prop_assert!(!message.verify_integrity(b"another key"));
        prop_assert_eq!(message.verify_fingerprint(), Some(true));
    }
}
