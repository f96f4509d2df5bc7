//! The test vectors of RFC 5769, read, verified and written again byte for byte.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use wire::stun::{AttributeType, Builder, Class, Message, Method, TransactionId, long_term_key};

const ID: TransactionId = TransactionId([
    0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae,
]);
const SHORT_TERM_PASSWORD: &[u8] = b"VOkJxbRl1RmTxUk/WvJxBt";

const REQUEST: &str = "00010058 2112a442 b7e7a701bc34d686fa87dfae
    80220010 5354554e207465737420636c69656e74
    00240004 6e0001ff
    80290008 932ff9b151263b36
    00060009 6576746a3a68367659202020
    00080014 9aeaa70cbfd8cb56781ef2b5b2d3f249c1b571a2
    80280004 e57a3bcf";

const IPV4_RESPONSE: &str = "0101003c 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200008 0001a147e112a643
    00080014 2b91f599fd9e90c38c7489f92af9ba53f06be7d7
    80280004 c07d4c96";

const IPV6_RESPONSE: &str = "01010048 2112a442 b7e7a701bc34d686fa87dfae
    8022000b 7465737420766563746f7220
    00200014 0002a1470113a9faa5d3f179bc25f4b5bed2b9d9
    00080014 a382954e4be67bf11784c97c8292c275bfe3ed41
    80280004 c8fb0b4c";

const LONG_TERM_REQUEST: &str = "00010060 2112a442 78ad3433c6ad72c029da412e
    00060012 e3839ee38388e383aae38383e382afe382b90000
    0015001c 662f2f3439396b39353464364f4c33346f4c39465354767936347341
    0014000b 6578616d706c652e6f726700
    00080014 f67024656dd64a3e02b8e0712e85c9a28ca89666";

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] << 4 | pair[1]) as u8)
        .collect()
}

#[test]
fn sample_request_of_section_2_1() {
    let datagram = bytes(REQUEST);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Request, Method::BINDING)
    );
    assert_eq!(message.transaction_id(), ID);
    assert_eq!(message.software(), Some("STUN test client"));
    assert_eq!(message.priority(), Some(0x6e00_01ff));
    assert_eq!(message.ice_controlled(), Some(0x932f_f9b1_5126_3b36));
    assert_eq!(message.ice_controlling(), None);
    assert_eq!(message.username(), Some("evtj:h6vY"));
    assert_eq!(message.verify_fingerprint(), Some(true));
    assert!(message.verify_integrity(SHORT_TERM_PASSWORD));
    assert!(!message.verify_integrity(b"another password"));
}

#[test]
fn sample_ipv4_response_of_section_2_2() {
    let datagram = bytes(IPV4_RESPONSE);
    let message = Message::parse(&datagram).unwrap();
    assert_eq!(
        (message.class(), message.method()),
        (Class::Success, Method::BINDING)
    );
    assert_eq!(message.software(), Some("test vector"));
    assert_eq!(
        message.xor_mapped_address(),
        Some("192.0.2.1:32853".parse().unwrap())
    );
    assert_eq!(message.verify_fingerprint(), Some(true));
    assert!(message.verify_integrity(SHORT_TERM_PASSWORD));
}

#[test]
fn sample_ipv6_response_of_section_2_3() {
    let datagram = bytes(IPV6_RESPONSE);
    let message = Message::parse(&datagram).unwrap();
    let address = "[2001:db8:1234:5678:11:2233:4455:6677]:32853".parse().unwrap();
    assert_eq!(message.xor_mapped_address(), Some(address));
    assert_eq!(message.verify_fingerprint(), Some(true));
    assert!(message.verify_integrity(SHORT_TERM_PASSWORD));
}

#[test]
fn sample_request_with_long_term_authentication_of_section_2_4() {
    let datagram = bytes(LONG_TERM_REQUEST);
    let message = Message::parse(&datagram).unwrap();
    let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    assert_eq!(message.username(), Some(username));
    assert_eq!(message.nonce(), Some("f//499k954d6OL34oL9FSTvy64sA"));
    assert_eq!(message.realm(), Some("example.org"));
    assert_eq!(message.verify_fingerprint(), None);
    assert!(message.verify_integrity(&long_term_key(username, "example.org", "TheMatrIX")));
    assert!(!message.verify_integrity(&long_term_key(username, "example.org", "thematrix")));
}

#[test]
fn the_responses_are_written_byte_for_byte_but_for_the_padding_that_is_zero_here() {
    for (vector, address) in [
        (IPV4_RESPONSE, "192.0.2.1:32853"),
        (IPV6_RESPONSE, "[2001:db8:1234:5678:11:2233:4455:6677]:32853"),
    ] {
        let mut buffer = [0; 128];
        let len = Builder::new(&mut buffer, Class::Success, Method::BINDING, ID)
            .software("test vector")
            .xor_mapped_address(address.parse().unwrap())
            .finish()
            .unwrap();
        let expected = bytes(vector);
        // The vectors pad with a space and end with integrity and fingerprint over it.
        assert_eq!(buffer[20..35], expected[20..35]);
        assert_eq!(buffer[36..len], expected[36..len]);
    }
}

#[test]
fn the_long_term_request_is_written_byte_for_byte() {
    let id = TransactionId(*bytes(LONG_TERM_REQUEST)[8..].first_chunk().unwrap());
    let username = "\u{30DE}\u{30C8}\u{30EA}\u{30C3}\u{30AF}\u{30B9}";
    let mut buffer = [0xAA; 128];
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, id)
        .username(username)
        .nonce("f//499k954d6OL34oL9FSTvy64sA")
        .realm("example.org")
        .integrity(&long_term_key(username, "example.org", "TheMatrIX"))
        .finish()
        .unwrap();
    assert_eq!(buffer[..len], bytes(LONG_TERM_REQUEST)[..]);
}

#[test]
fn the_request_is_written_byte_for_byte_from_its_raw_attributes() {
    let expected = bytes(REQUEST);
    // Written by hand up to the padding that the vector fills with spaces, then signed as the builder signs.
    let mut buffer = [0; 128];
    let len = Builder::new(&mut buffer, Class::Request, Method::BINDING, ID)
        .software("STUN test client")
        .priority(0x6e00_01ff)
        .ice_controlled(0x932f_f9b1_5126_3b36)
        .attribute(AttributeType::USERNAME, b"evtj:h6vY")
        .integrity(SHORT_TERM_PASSWORD)
        .fingerprint()
        .finish()
        .unwrap();
    assert_eq!(len, expected.len());
    assert_eq!(buffer[4..73], expected[4..73]);
    let message = Message::parse(&buffer[..len]).unwrap();
    assert!(message.verify_integrity(SHORT_TERM_PASSWORD));
    assert_eq!(message.verify_fingerprint(), Some(true));
}
