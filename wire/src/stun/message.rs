//! The view of one STUN message. Its attributes are walked once, in [`Message::parse`]; from then on every
//! getter is a search in checked bytes.

use std::net::SocketAddr;

use aws_lc_rs::hmac;

use super::address;
use super::attribute::{
    AttributeType, Attributes, ChangeRequest, ErrorCode, Icmp, PasswordAlgorithm, split_attribute,
};
use super::fingerprint::{FINGERPRINT_LEN, fingerprint};
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, class_and_method};
use super::integrity::{
    INTEGRITY_LEN, INTEGRITY_SHA256_LEN, INTEGRITY_SHA256_MIN, integrity_key, integrity_key_sha256, verify,
};
use crate::ParseError;
use crate::channel_data::ChannelNumber;
use crate::cursor::{u16_at, u32_at, u64_at};

/// Attributes in one message. The longest honest one is a CreatePermission with a peer address for each of a
/// client's candidates; the bound keeps a getter's search short whatever arrives.
pub const ATTRIBUTES_MAX: usize = 128;

/// One STUN message in one datagram.
///
/// Attributes after MESSAGE-INTEGRITY or MESSAGE-INTEGRITY-SHA256 are not seen, except the second after the first, and
/// FINGERPRINT; of an attribute that repeats only the
/// first is (RFC 8489 section 14), but for XOR-PEER-ADDRESS.
#[derive(Clone, Copy)]
pub struct Message<'a> {
    bytes: &'a [u8],
    class: Class,
    method: Method,
    /// Where the attributes that count end.
    visible: usize,
    integrity: Option<usize>,
    /// Where MESSAGE-INTEGRITY-SHA256 is, and how long its value.
    integrity_sha256: Option<(usize, usize)>,
    fingerprint: Option<usize>,
}

impl<'a> Message<'a> {
    /// Checks header, length and every attribute's extent. The datagram holds the message and nothing else.
    pub fn parse(datagram: &'a [u8]) -> Result<Self, ParseError> {
        if datagram.len() < HEADER_LEN {
            return Err(ParseError::Truncated);
        }
        let message_type = u16_at(datagram, 0).ok_or(ParseError::Truncated)?;
        if message_type & 0xC000 != 0 {
            return Err(ParseError::Version);
        }
        if u32_at(datagram, 4) != Some(MAGIC_COOKIE) {
            return Err(ParseError::MagicCookie);
        }
        let length = usize::from(u16_at(datagram, 2).ok_or(ParseError::Truncated)?);
        if length % 4 != 0 || HEADER_LEN + length != datagram.len() {
            return Err(ParseError::Length);
        }
        let (class, method) = class_and_method(message_type);
        let mut message = Self {
            bytes: datagram,
            class,
            method,
            visible: datagram.len(),
            integrity: None,
            integrity_sha256: None,
            fingerprint: None,
        };
        message.walk()?;
        Ok(message)
    }

    fn walk(&mut self) -> Result<(), ParseError> {
        let mut rest = &self.bytes[HEADER_LEN..];
        for _ in 0..ATTRIBUTES_MAX {
            if rest.is_empty() {
                return Ok(());
            }
            let offset = self.bytes.len() - rest.len();
            let (kind, value, after) = split_attribute(rest).ok_or(ParseError::Attribute)?;
            rest = after;
            match kind {
                AttributeType::FINGERPRINT if value.len() != FINGERPRINT_LEN => {
                    return Err(ParseError::Attribute);
                }
                AttributeType::FINGERPRINT if !rest.is_empty() => return Err(ParseError::AfterFingerprint),
                AttributeType::FINGERPRINT => {
                    self.fingerprint = Some(offset);
                    self.visible = self.visible.min(offset);
                }
                AttributeType::MESSAGE_INTEGRITY
                    if self.integrity.is_none() && self.integrity_sha256.is_none() =>
                {
                    if value.len() != INTEGRITY_LEN {
                        return Err(ParseError::Attribute);
                    }
                    self.integrity = Some(offset);
                    self.visible = offset;
                }
                AttributeType::MESSAGE_INTEGRITY_SHA256 if self.integrity_sha256.is_none() => {
                    let len = value.len();
                    if !(INTEGRITY_SHA256_MIN..=INTEGRITY_SHA256_LEN).contains(&len) || len % 4 != 0 {
                        return Err(ParseError::Attribute);
                    }
                    self.integrity_sha256 = Some((offset, len));
                    self.visible = self.visible.min(offset);
                }
                _ => {}
            }
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(ParseError::TooManyAttributes)
        }
    }

    /// Request, indication, success or error.
    pub fn class(&self) -> Class {
        self.class
    }

    /// Binding, Allocate and so on.
    pub fn method(&self) -> Method {
        self.method
    }

    /// The twelve bytes that tie answer and request together.
    pub fn transaction_id(&self) -> TransactionId {
        let mut id = [0; 12];
        id.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        TransactionId(id)
    }

    /// The whole message.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The attributes that count, in order, without MESSAGE-INTEGRITY and FINGERPRINT.
    pub fn attributes(&self) -> Attributes<'a> {
        Attributes {
            rest: &self.bytes[HEADER_LEN..self.visible],
        }
    }

    /// The first attribute of this type.
    pub fn attribute(&self, kind: AttributeType) -> Option<&'a [u8]> {
        self.attributes()
            .find(|&(k, _)| k == kind)
            .map(|(_, value)| value)
    }

    /// Whether it is there, in whatever form.
    pub fn has(&self, kind: AttributeType) -> bool {
        self.attribute(kind).is_some()
    }

    /// Comprehension-required types outside `known`, in order of appearance: what a 420 lists. The integrity
    /// attributes and FINGERPRINT are always known.
    pub fn unknown_required<'k>(
        &self,
        known: &'k [AttributeType],
    ) -> impl Iterator<Item = u16> + use<'a, 'k> {
        self.attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| kind.comprehension_required() && !known.contains(kind))
            .map(|kind| kind.0)
    }

    // --- RFC 8489

    /// USERNAME.
    pub fn username(&self) -> Option<&'a str> {
        self.text(AttributeType::USERNAME)
    }

    /// REALM.
    pub fn realm(&self) -> Option<&'a str> {
        self.text(AttributeType::REALM)
    }

    /// NONCE.
    pub fn nonce(&self) -> Option<&'a str> {
        self.text(AttributeType::NONCE)
    }

    /// SOFTWARE.
    pub fn software(&self) -> Option<&'a str> {
        self.text(AttributeType::SOFTWARE)
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(&self) -> Option<SocketAddr> {
        self.address(AttributeType::XOR_MAPPED_ADDRESS)
    }

    /// ERROR-CODE; `None` unless its code is 300 to 699.
    pub fn error_code(&self) -> Option<ErrorCode<'a>> {
        let (&[_, _, hundreds, rest], reason) =
            self.attribute(AttributeType::ERROR_CODE)?.split_first_chunk()?;
        let code = u16::from(hundreds & 0x07) * 100 + u16::from(rest);
        let reason = str::from_utf8(reason).unwrap_or_default();
        (rest < 100 && (300..700).contains(&code)).then_some(ErrorCode { code, reason })
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(&self) -> impl Iterator<Item = u16> + use<'a> {
        let value = self
            .attribute(AttributeType::UNKNOWN_ATTRIBUTES)
            .unwrap_or_default();
        value
            .chunks_exact(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
    }

    /// Whether MESSAGE-INTEGRITY is there.
    pub fn has_integrity(&self) -> bool {
        self.integrity.is_some()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there.
    pub fn has_integrity_sha256(&self) -> bool {
        self.integrity_sha256.is_some()
    }

    /// Whether MESSAGE-INTEGRITY-SHA256 is there and right under this key.
    pub fn verify_integrity_sha256(&self, key: &[u8]) -> bool {
        self.integrity_sha256
            .is_some_and(|(offset, len)| verify(&integrity_key_sha256(key), self.bytes, offset, len))
    }

    /// Whether MESSAGE-INTEGRITY is there and right under this key.
    pub fn verify_integrity(&self, key: &[u8]) -> bool {
        self.has_integrity() && self.verify_integrity_key(&integrity_key(key))
    }

    /// [`Message::verify_integrity`] with a key prepared by [`integrity_key`].
    pub fn verify_integrity_key(&self, key: &hmac::Key) -> bool {
        self.integrity
            .is_some_and(|offset| verify(key, self.bytes, offset, INTEGRITY_LEN))
    }

    /// Whether FINGERPRINT is right; `None` where there is none.
    pub fn verify_fingerprint(&self) -> Option<bool> {
        let offset = self.fingerprint?;
        Some(u32_at(self.bytes, offset + 4) == Some(fingerprint(&self.bytes[..offset])))
    }

    /// USERHASH.
    pub fn userhash(&self) -> Option<[u8; 32]> {
        self.exact(AttributeType::USERHASH)
    }

    /// PASSWORD-ALGORITHM; `None` also for one that is unknown or comes with parameters, which none has.
    pub fn password_algorithm(&self) -> Option<PasswordAlgorithm> {
        let [high, low, 0, 0] = self.exact::<4>(AttributeType::PASSWORD_ALGORITHM)? else {
            return None;
        };
        PasswordAlgorithm::from_number(u16::from_be_bytes([high, low]))
    }

    /// ALTERNATE-SERVER.
    pub fn alternate_server(&self) -> Option<SocketAddr> {
        self.plain(AttributeType::ALTERNATE_SERVER)
    }

    // --- RFC 5780

    /// CHANGE-REQUEST.
    pub fn change_request(&self) -> Option<ChangeRequest> {
        self.exact::<4>(AttributeType::CHANGE_REQUEST)
            .map(|[_, _, _, flags]| ChangeRequest {
                ip: flags & 4 != 0,
                port: flags & 2 != 0,
            })
    }

    /// RESPONSE-PORT.
    pub fn response_port(&self) -> Option<u16> {
        self.exact::<4>(AttributeType::RESPONSE_PORT)
            .and_then(|value| u16_at(&value, 0))
    }

    /// RESPONSE-ORIGIN.
    pub fn response_origin(&self) -> Option<SocketAddr> {
        self.plain(AttributeType::RESPONSE_ORIGIN)
    }

    /// OTHER-ADDRESS.
    pub fn other_address(&self) -> Option<SocketAddr> {
        self.plain(AttributeType::OTHER_ADDRESS)
    }

    // --- RFC 8445

    /// PRIORITY.
    pub fn priority(&self) -> Option<u32> {
        self.exact::<4>(AttributeType::PRIORITY).map(u32::from_be_bytes)
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(&self) -> bool {
        self.has(AttributeType::USE_CANDIDATE)
    }

    /// ICE-CONTROLLING, with its tie-breaker.
    pub fn ice_controlling(&self) -> Option<u64> {
        self.exact::<8>(AttributeType::ICE_CONTROLLING)
            .and_then(|v| u64_at(&v, 0))
    }

    /// ICE-CONTROLLED, with its tie-breaker.
    pub fn ice_controlled(&self) -> Option<u64> {
        self.exact::<8>(AttributeType::ICE_CONTROLLED)
            .and_then(|v| u64_at(&v, 0))
    }

    // --- RFC 8656

    /// LIFETIME in seconds.
    pub fn lifetime(&self) -> Option<u32> {
        self.exact::<4>(AttributeType::LIFETIME).map(u32::from_be_bytes)
    }

    /// CHANNEL-NUMBER; `None` also outside 0x4000..=0x7FFF.
    pub fn channel_number(&self) -> Option<ChannelNumber> {
        let [high, low, _, _] = self.exact::<4>(AttributeType::CHANNEL_NUMBER)?;
        ChannelNumber::new(u16::from_be_bytes([high, low]))
    }

    /// The first XOR-PEER-ADDRESS.
    pub fn xor_peer_address(&self) -> Option<SocketAddr> {
        self.address(AttributeType::XOR_PEER_ADDRESS)
    }

    /// Every XOR-PEER-ADDRESS of a CreatePermission; a malformed one is an error, not a gap.
    pub fn xor_peer_addresses(&self) -> impl Iterator<Item = Result<SocketAddr, ParseError>> + use<'a> {
        let id = self.transaction_id();
        self.attributes()
            .filter(|&(kind, _)| kind == AttributeType::XOR_PEER_ADDRESS)
            .map(move |(_, value)| address::read(value, id).ok_or(ParseError::Attribute))
    }

    /// XOR-RELAYED-ADDRESS.
    pub fn xor_relayed_address(&self) -> Option<SocketAddr> {
        self.address(AttributeType::XOR_RELAYED_ADDRESS)
    }

    /// Every XOR-RELAYED-ADDRESS: a dual allocation has two (RFC 8656 section 7.3).
    pub fn xor_relayed_addresses(&self) -> impl Iterator<Item = SocketAddr> + use<'a> {
        let id = self.transaction_id();
        self.attributes()
            .filter(|&(kind, _)| kind == AttributeType::XOR_RELAYED_ADDRESS)
            .filter_map(move |(_, value)| address::read(value, id))
    }

    /// ADDRESS-ERROR-CODE: the family and its error.
    pub fn address_error_code(&self) -> Option<(u8, u16)> {
        let (&[family, _, hundreds, rest], _) = self
            .attribute(AttributeType::ADDRESS_ERROR_CODE)?
            .split_first_chunk()?;
        Some((family, u16::from(hundreds & 0x07) * 100 + u16::from(rest)))
    }

    /// DATA: what a Send or Data indication carries.
    pub fn data(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::DATA)
    }

    /// REQUESTED-TRANSPORT: an IP protocol number, 17 for UDP.
    pub fn requested_transport(&self) -> Option<u8> {
        self.exact::<4>(AttributeType::REQUESTED_TRANSPORT)
            .map(|[protocol, ..]| protocol)
    }

    /// REQUESTED-ADDRESS-FAMILY: 1 for IPv4, 2 for IPv6.
    pub fn requested_address_family(&self) -> Option<u8> {
        self.exact::<4>(AttributeType::REQUESTED_ADDRESS_FAMILY)
            .map(|[family, ..]| family)
    }

    /// ADDITIONAL-ADDRESS-FAMILY, by its number or that of its draft: 2 for IPv6.
    pub fn additional_address_family(&self) -> Option<u8> {
        self.exact::<4>(AttributeType::ADDITIONAL_ADDRESS_FAMILY)
            .or_else(|| self.exact::<4>(AttributeType::ADDITIONAL_ADDRESS_FAMILY_DRAFT))
            .map(|[family, ..]| family)
    }

    /// EVEN-PORT, and whether the next port is to be reserved.
    pub fn even_port(&self) -> Option<bool> {
        self.exact::<1>(AttributeType::EVEN_PORT)
            .map(|[flags]| flags & 0x80 != 0)
    }

    /// RESERVATION-TOKEN.
    pub fn reservation_token(&self) -> Option<[u8; 8]> {
        self.exact(AttributeType::RESERVATION_TOKEN)
    }

    /// DONT-FRAGMENT.
    pub fn dont_fragment(&self) -> bool {
        self.has(AttributeType::DONT_FRAGMENT)
    }

    /// ICMP.
    pub fn icmp(&self) -> Option<Icmp> {
        let value = self.exact::<8>(AttributeType::ICMP)?;
        let what = u16_at(&value, 2)?;
        Some(Icmp {
            kind: (what >> 9) as u8,
            code: u8::try_from(what & 0x1FF).ok()?,
            data: u32_at(&value, 4)?,
        })
    }

    // --- RFC 8016

    /// MOBILITY-TICKET; empty where one is asked for.
    pub fn mobility_ticket(&self) -> Option<&'a [u8]> {
        self.attribute(AttributeType::MOBILITY_TICKET)
    }

    // --- RFC 6062

    /// CONNECTION-ID.
    pub fn connection_id(&self) -> Option<u32> {
        self.exact::<4>(AttributeType::CONNECTION_ID)
            .map(u32::from_be_bytes)
    }

    // --- shapes

    fn text(&self, kind: AttributeType) -> Option<&'a str> {
        str::from_utf8(self.attribute(kind)?).ok()
    }

    fn address(&self, kind: AttributeType) -> Option<SocketAddr> {
        address::read(self.attribute(kind)?, self.transaction_id())
    }

    fn plain(&self, kind: AttributeType) -> Option<SocketAddr> {
        address::read_plain(self.attribute(kind)?)
    }

    fn exact<const N: usize>(&self, kind: AttributeType) -> Option<[u8; N]> {
        self.attribute(kind)?.try_into().ok()
    }
}

/// Type and size: usernames and addresses do not print.
impl std::fmt::Debug for Message<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (class, method, len) = (self.class, self.method, self.bytes.len());
        write!(f, "Message({class:?} {:#05x}, {len} bytes)", method.get())
    }
}
