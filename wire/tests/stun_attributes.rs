//! What is written is read: the attributes of RFC 8489, 8656, 6062, 8016, 5780.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use std::net::SocketAddr;

use wire::stun::{
    AttributeType, Builder, ChangeRequest, Class, Icmp, Message, Method, PasswordAlgorithm, TransactionId,
    long_term_key_sha256, userhash,
};

fn written(write: impl FnOnce(Builder<'_>) -> Builder<'_>) -> Vec<u8> {
    let mut buffer = vec![0; 2048];
    let id = TransactionId(*b"transaction!");
    let len = write(Builder::new(&mut buffer, Class::Request, Method::REFRESH, id))
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

#[test]
fn addresses_in_clear_are_those_that_were_written() {
    for text in ["9.9.9.9:3478", "[2a00::9]:3479"] {
        let address: SocketAddr = text.parse().unwrap();
        let bytes = written(|b| {
            b.mapped_address(address)
                .alternate_server(address)
                .other_address(address)
                .response_origin(address)
        });
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.alternate_server(), Some(address));
        assert_eq!(message.other_address(), Some(address));
        assert_eq!(message.response_origin(), Some(address));
        let mapped = message.attribute(AttributeType::MAPPED_ADDRESS).unwrap();
        assert_eq!(
            mapped[2..4],
            address.port().to_be_bytes(),
            "not combined with anything"
        );
    }
}

#[test]
fn an_icmp_message_has_seven_bits_of_type_and_nine_of_code() {
    let icmp = Icmp {
        kind: 3,
        code: 4,
        data: 1280,
    };
    let bytes = written(|b| b.icmp(icmp));
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.icmp(), Some(icmp));
    assert_eq!(
        message.attribute(AttributeType::ICMP),
        Some(&[0, 0, 0b0000_0110, 4, 0, 0, 5, 0][..])
    );
}

#[test]
fn change_request_response_port_and_connection_id_are_those_that_were_written() {
    for (ip, port) in [(false, false), (true, false), (false, true), (true, true)] {
        let change = ChangeRequest { ip, port };
        let bytes = written(|b| b.change_request(change).response_port(4321).connection_id(77));
        let message = Message::parse(&bytes).unwrap();
        assert_eq!(message.change_request(), Some(change));
        assert_eq!(message.response_port(), Some(4321));
        assert_eq!(message.connection_id(), Some(77));
    }
}

#[test]
fn a_userhash_is_that_of_rfc_8489_and_sha_256_integrity_covers_every_byte() {
    // RFC 8489 appendix B.1.
    let hash = userhash("\u{30de}\u{30c8}\u{30ea}\u{30c3}\u{30af}\u{30b9}", "example.org");
    let expected = "4a3cf38fef6992bda952c6780417da0f24819415569e60b205c46e41407f1704";
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, expected);
    let key = long_term_key_sha256("user", "realm", "pass");
    let bytes = written(|b| {
        b.userhash(&hash)
            .password_algorithm(PasswordAlgorithm::Sha256)
            .integrity_sha256(&key)
            .fingerprint()
    });
    let message = Message::parse(&bytes).unwrap();
    assert_eq!(message.userhash(), Some(hash));
    assert_eq!(message.password_algorithm(), Some(PasswordAlgorithm::Sha256));
    assert!(message.verify_integrity_sha256(&key) && message.verify_fingerprint() == Some(true));
    assert!(!message.verify_integrity_sha256(b"another"));
    for at in 20..bytes.len() - 8 {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let verified = Message::parse(&changed).is_ok_and(|m| m.verify_integrity_sha256(&key));
        assert!(!verified, "byte {at}");
    }
}

#[test]
fn a_sha_256_integrity_of_the_wrong_size_is_refused() {
    for len in 0..=40 {
        let bytes = written(|b| b.attribute(AttributeType::MESSAGE_INTEGRITY_SHA256, &[0; 40][..len]));
        let wanted = matches!(len, 16 | 20 | 24 | 28 | 32);
        assert_eq!(Message::parse(&bytes).is_ok(), wanted, "{len}");
    }
}

#[test]
fn after_message_integrity_only_the_stronger_one_is_seen() {
    let bytes = written(|b| {
        b.integrity(b"key")
            .username("smuggled")
            .integrity_sha256(b"key")
            .realm("smuggled")
    });
    let message = Message::parse(&bytes).unwrap();
    assert!(message.verify_integrity(b"key") && message.verify_integrity_sha256(b"key"));
    assert_eq!((message.username(), message.realm()), (None, None));
}
