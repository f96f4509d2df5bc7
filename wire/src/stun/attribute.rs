//! Attributes: type, length, value, padding to four bytes (RFC 8489 section 14).

use crate::cursor::u16_at;

/// The 16-bit attribute type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttributeType(pub u16);

macro_rules! attribute_types {
    ($($name:ident = $value:literal, $doc:literal;)*) => {
        impl AttributeType {
            $(#[doc = $doc] pub const $name: AttributeType = AttributeType($value);)*

            /// Types below 0x8000 must be understood, or the request is answered 420.
            pub const fn comprehension_required(self) -> bool {
                self.0 < 0x8000
            }
        }
    };
}

attribute_types! {
    MAPPED_ADDRESS = 0x0001, "RFC 8489 section 14.1.";
    CHANGE_REQUEST = 0x0003, "RFC 5780 section 7.2.";
    USERNAME = 0x0006, "RFC 8489 section 14.3.";
    MESSAGE_INTEGRITY = 0x0008, "RFC 8489 section 14.5.";
    ERROR_CODE = 0x0009, "RFC 8489 section 14.8.";
    UNKNOWN_ATTRIBUTES = 0x000A, "RFC 8489 section 14.13.";
    CHANNEL_NUMBER = 0x000C, "RFC 8656 section 18.1.";
    LIFETIME = 0x000D, "RFC 8656 section 18.2.";
    XOR_PEER_ADDRESS = 0x0012, "RFC 8656 section 18.3.";
    DATA = 0x0013, "RFC 8656 section 18.4.";
    REALM = 0x0014, "RFC 8489 section 14.9.";
    NONCE = 0x0015, "RFC 8489 section 14.10.";
    XOR_RELAYED_ADDRESS = 0x0016, "RFC 8656 section 18.5.";
    REQUESTED_ADDRESS_FAMILY = 0x0017, "RFC 8656 section 18.6.";
    EVEN_PORT = 0x0018, "RFC 8656 section 18.7.";
    REQUESTED_TRANSPORT = 0x0019, "RFC 8656 section 18.8.";
    DONT_FRAGMENT = 0x001A, "RFC 8656 section 18.9.";
    ACCESS_TOKEN = 0x001B, "RFC 7635 section 6.2.";
    MESSAGE_INTEGRITY_SHA256 = 0x001C, "RFC 8489 section 14.6.";
    PASSWORD_ALGORITHM = 0x001D, "RFC 8489 section 14.12.";
    USERHASH = 0x001E, "RFC 8489 section 14.4.";
    XOR_MAPPED_ADDRESS = 0x0020, "RFC 8489 section 14.2.";
    RESERVATION_TOKEN = 0x0022, "RFC 8656 section 18.10.";
    PRIORITY = 0x0024, "RFC 8445 section 7.1.1.";
    USE_CANDIDATE = 0x0025, "RFC 8445 section 7.1.2.";
    PADDING = 0x0026, "RFC 5780 section 7.6.";
    RESPONSE_PORT = 0x0027, "RFC 5780 section 7.5.";
    CONNECTION_ID = 0x002A, "RFC 6062 section 6.2.1.";
    ADDITIONAL_ADDRESS_FAMILY = 0x8000, "RFC 8656 section 18.11.";
    ADDITIONAL_ADDRESS_FAMILY_DRAFT = 0x8032, "The same as coturn's clients up to 4.6 still send it, from a draft.";
    ADDRESS_ERROR_CODE = 0x8001, "RFC 8656 section 18.12.";
    PASSWORD_ALGORITHMS = 0x8002, "RFC 8489 section 14.11.";
    ICMP = 0x8004, "RFC 8656 section 18.13.";
    SOFTWARE = 0x8022, "RFC 8489 section 14.14.";
    ALTERNATE_SERVER = 0x8023, "RFC 8489 section 14.15.";
    FINGERPRINT = 0x8028, "RFC 8489 section 14.7.";
    ICE_CONTROLLED = 0x8029, "RFC 8445 section 7.1.3.";
    ICE_CONTROLLING = 0x802A, "RFC 8445 section 7.1.3.";
    RESPONSE_ORIGIN = 0x802B, "RFC 5780 section 7.3.";
    OTHER_ADDRESS = 0x802C, "RFC 5780 section 7.4.";
    THIRD_PARTY_AUTHORIZATION = 0x802E, "RFC 7635 section 6.1.";
    MOBILITY_TICKET = 0x8030, "RFC 8016 section 3.3.";
}

/// ERROR-CODE (RFC 8489 section 14.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorCode<'a> {
    /// 300 to 699.
    pub code: u16,
    /// For people; empty where it was not UTF-8.
    pub reason: &'a str,
}

/// ICMP (RFC 8656 section 18.13): what the network answered to a datagram that was relayed to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Icmp {
    /// The ICMP type, of IPv4 or IPv6 as the peer is.
    pub kind: u8,
    /// The ICMP code.
    pub code: u8,
    /// Where a packet was too big, what the next link can take; else 0.
    pub data: u32,
}

/// CHANGE-REQUEST (RFC 5780 section 7.2): which of the server's addresses the answer is to come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChangeRequest {
    /// From the other IP address.
    pub ip: bool,
    /// From the other port.
    pub port: bool,
}

/// A password algorithm (RFC 8489 section 18.5): how a long-term key is made of a password.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PasswordAlgorithm {
    /// MD5, of whoever says nothing.
    #[default]
    Md5,
    /// SHA-256.
    Sha256,
}

impl PasswordAlgorithm {
    /// As in PASSWORD-ALGORITHM.
    pub const fn number(self) -> u16 {
        match self {
            PasswordAlgorithm::Md5 => 1,
            PasswordAlgorithm::Sha256 => 2,
        }
    }

    /// `None` for one that nobody defined.
    pub const fn from_number(number: u16) -> Option<Self> {
        match number {
            1 => Some(PasswordAlgorithm::Md5),
            2 => Some(PasswordAlgorithm::Sha256),
            _ => None,
        }
    }
}

/// Walks the attributes of a message in order.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (AttributeType, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, value, rest) = split_attribute(self.rest)?;
        self.rest = rest;
        Some((kind, value))
    }
}

/// The first attribute and what follows its padding; `None` at the end and where the length field lies.
pub(super) fn split_attribute(bytes: &[u8]) -> Option<(AttributeType, &[u8], &[u8])> {
    let kind = u16_at(bytes, 0)?;
    let len = usize::from(u16_at(bytes, 2)?);
    let value = bytes.get(4..4 + len)?;
    let rest = bytes.get(4 + len.next_multiple_of(4)..)?;
    Some((AttributeType(kind), value, rest))
}
