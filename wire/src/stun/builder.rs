//! Writes a STUN message front to back into a buffer of the caller's. The first thing that does not fit is
//! remembered and told by [`Builder::finish`], so that calls chain.

use std::net::SocketAddr;

use aws_lc_rs::hmac;

use super::address;
use super::attribute::{AttributeType, ChangeRequest, Icmp, PasswordAlgorithm};
use super::fingerprint::{FINGERPRINT_LEN, fingerprint};
use super::header::{Class, HEADER_LEN, MAGIC_COOKIE, Method, TransactionId, message_type};
use super::integrity::{INTEGRITY_LEN, INTEGRITY_SHA256_LEN, integrity_key, integrity_key_sha256, sign};
use crate::WriteError;
use crate::channel_data::ChannelNumber;
use crate::cursor::Cursor;

/// A message being written. Order is the caller's: integrity after everything it covers, fingerprint last.
pub struct Builder<'b> {
    cursor: Cursor<'b>,
    id: TransactionId,
    failed: Option<WriteError>,
}

impl<'b> Builder<'b> {
    /// Starts with the header.
    pub fn new(buffer: &'b mut [u8], class: Class, method: Method, id: TransactionId) -> Self {
        Self {
            cursor: Cursor::new(buffer),
            id,
            failed: None,
        }
        .step(|cursor| {
            cursor.put_u16(message_type(class, method))?;
            cursor.put_u16(0)?;
            cursor.put_u32(MAGIC_COOKIE)?;
            cursor.put(&id.0)
        })
    }

    /// Any attribute, as bytes.
    pub fn attribute(self, kind: AttributeType, value: &[u8]) -> Self {
        self.parts(kind, &[value])
    }

    /// USERNAME.
    pub fn username(self, username: &str) -> Self {
        self.attribute(AttributeType::USERNAME, username.as_bytes())
    }

    /// REALM.
    pub fn realm(self, realm: &str) -> Self {
        self.attribute(AttributeType::REALM, realm.as_bytes())
    }

    /// NONCE.
    pub fn nonce(self, nonce: &str) -> Self {
        self.attribute(AttributeType::NONCE, nonce.as_bytes())
    }

    /// SOFTWARE.
    pub fn software(self, software: &str) -> Self {
        self.attribute(AttributeType::SOFTWARE, software.as_bytes())
    }

    /// XOR-MAPPED-ADDRESS.
    pub fn xor_mapped_address(self, address: SocketAddr) -> Self {
        self.address(AttributeType::XOR_MAPPED_ADDRESS, address)
    }

    /// XOR-RELAYED-ADDRESS.
    pub fn xor_relayed_address(self, address: SocketAddr) -> Self {
        self.address(AttributeType::XOR_RELAYED_ADDRESS, address)
    }

    /// XOR-PEER-ADDRESS.
    pub fn xor_peer_address(self, address: SocketAddr) -> Self {
        self.address(AttributeType::XOR_PEER_ADDRESS, address)
    }

    /// ERROR-CODE, 300 to 699, with a reason for people.
    pub fn error_code(self, code: u16, reason: &str) -> Self {
        let head = [0, 0, (code / 100) as u8 & 0x07, (code % 100) as u8];
        self.parts(AttributeType::ERROR_CODE, &[&head, reason.as_bytes()])
    }

    /// ADDRESS-ERROR-CODE for a family that was asked for in addition and not given (RFC 8656 section 18.12).
    pub fn address_error_code(self, family: u8, code: u16, reason: &str) -> Self {
        let head = [family, 0, (code / 100) as u8 & 0x07, (code % 100) as u8];
        self.parts(AttributeType::ADDRESS_ERROR_CODE, &[&head, reason.as_bytes()])
    }

    /// UNKNOWN-ATTRIBUTES.
    pub fn unknown_attributes(self, types: impl IntoIterator<Item = u16>) -> Self {
        self.step(|cursor| {
            let start = cursor.position();
            cursor.put_u16(AttributeType::UNKNOWN_ATTRIBUTES.0)?;
            cursor.put_u16(0)?;
            for kind in types {
                cursor.put_u16(kind)?;
            }
            let len = u16::try_from(cursor.position() - start - 4).map_err(|_| WriteError::ValueTooLong)?;
            cursor.patch_u16(start + 2, len);
            cursor.pad_to_word(0)
        })
    }

    /// PRIORITY.
    pub fn priority(self, priority: u32) -> Self {
        self.attribute(AttributeType::PRIORITY, &priority.to_be_bytes())
    }

    /// USE-CANDIDATE.
    pub fn use_candidate(self) -> Self {
        self.attribute(AttributeType::USE_CANDIDATE, &[])
    }

    /// ICE-CONTROLLING.
    pub fn ice_controlling(self, tie_breaker: u64) -> Self {
        self.attribute(AttributeType::ICE_CONTROLLING, &tie_breaker.to_be_bytes())
    }

    /// ICE-CONTROLLED.
    pub fn ice_controlled(self, tie_breaker: u64) -> Self {
        self.attribute(AttributeType::ICE_CONTROLLED, &tie_breaker.to_be_bytes())
    }

    /// LIFETIME in seconds.
    pub fn lifetime(self, seconds: u32) -> Self {
        self.attribute(AttributeType::LIFETIME, &seconds.to_be_bytes())
    }

    /// CHANNEL-NUMBER.
    pub fn channel_number(self, number: ChannelNumber) -> Self {
        let [high, low] = number.get().to_be_bytes();
        self.attribute(AttributeType::CHANNEL_NUMBER, &[high, low, 0, 0])
    }

    /// DATA.
    pub fn data(self, data: &[u8]) -> Self {
        self.attribute(AttributeType::DATA, data)
    }

    /// REQUESTED-TRANSPORT: an IP protocol number.
    pub fn requested_transport(self, protocol: u8) -> Self {
        self.attribute(AttributeType::REQUESTED_TRANSPORT, &[protocol, 0, 0, 0])
    }

    /// REQUESTED-ADDRESS-FAMILY: 1 for IPv4, 2 for IPv6.
    pub fn requested_address_family(self, family: u8) -> Self {
        self.attribute(AttributeType::REQUESTED_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    /// ADDITIONAL-ADDRESS-FAMILY: 2 for IPv6.
    pub fn additional_address_family(self, family: u8) -> Self {
        self.attribute(AttributeType::ADDITIONAL_ADDRESS_FAMILY, &[family, 0, 0, 0])
    }

    /// EVEN-PORT.
    pub fn even_port(self, reserve_next: bool) -> Self {
        self.attribute(AttributeType::EVEN_PORT, &[u8::from(reserve_next) << 7])
    }

    /// RESERVATION-TOKEN.
    pub fn reservation_token(self, token: [u8; 8]) -> Self {
        self.attribute(AttributeType::RESERVATION_TOKEN, &token)
    }

    /// CONNECTION-ID.
    pub fn connection_id(self, id: u32) -> Self {
        self.attribute(AttributeType::CONNECTION_ID, &id.to_be_bytes())
    }

    /// DONT-FRAGMENT.
    pub fn dont_fragment(self) -> Self {
        self.attribute(AttributeType::DONT_FRAGMENT, &[])
    }

    /// USERHASH.
    pub fn userhash(self, hash: &[u8; 32]) -> Self {
        self.attribute(AttributeType::USERHASH, hash)
    }

    /// PASSWORD-ALGORITHM, without parameters.
    pub fn password_algorithm(self, algorithm: PasswordAlgorithm) -> Self {
        let [high, low] = algorithm.number().to_be_bytes();
        self.attribute(AttributeType::PASSWORD_ALGORITHM, &[high, low, 0, 0])
    }

    /// PASSWORD-ALGORITHMS, best first, as it is to be repeated.
    pub fn password_algorithms(self, list: &[u8]) -> Self {
        self.attribute(AttributeType::PASSWORD_ALGORITHMS, list)
    }

    /// ALTERNATE-SERVER.
    pub fn alternate_server(self, address: SocketAddr) -> Self {
        self.plain(AttributeType::ALTERNATE_SERVER, address)
    }

    /// MAPPED-ADDRESS.
    pub fn mapped_address(self, address: SocketAddr) -> Self {
        self.plain(AttributeType::MAPPED_ADDRESS, address)
    }

    /// RESPONSE-ORIGIN.
    pub fn response_origin(self, address: SocketAddr) -> Self {
        self.plain(AttributeType::RESPONSE_ORIGIN, address)
    }

    /// OTHER-ADDRESS.
    pub fn other_address(self, address: SocketAddr) -> Self {
        self.plain(AttributeType::OTHER_ADDRESS, address)
    }

    /// CHANGE-REQUEST.
    pub fn change_request(self, change: ChangeRequest) -> Self {
        let flags = u8::from(change.ip) << 2 | u8::from(change.port) << 1;
        self.attribute(AttributeType::CHANGE_REQUEST, &[0, 0, 0, flags])
    }

    /// RESPONSE-PORT.
    pub fn response_port(self, port: u16) -> Self {
        let [high, low] = port.to_be_bytes();
        self.attribute(AttributeType::RESPONSE_PORT, &[high, low, 0, 0])
    }

    /// ICMP.
    pub fn icmp(self, icmp: Icmp) -> Self {
        let what = u16::from(icmp.kind & 0x7F) << 9 | u16::from(icmp.code);
        self.parts(
            AttributeType::ICMP,
            &[&[0, 0], &what.to_be_bytes(), &icmp.data.to_be_bytes()],
        )
    }

    /// THIRD-PARTY-AUTHORIZATION: the server's name for the authorization server.
    pub fn third_party_authorization(self, server_name: &str) -> Self {
        self.attribute(AttributeType::THIRD_PARTY_AUTHORIZATION, server_name.as_bytes())
    }

    /// ACCESS-TOKEN.
    pub fn access_token(self, token: &[u8]) -> Self {
        self.attribute(AttributeType::ACCESS_TOKEN, token)
    }

    /// MOBILITY-TICKET; empty to ask for one.
    pub fn mobility_ticket(self, ticket: &[u8]) -> Self {
        self.attribute(AttributeType::MOBILITY_TICKET, ticket)
    }

    /// MESSAGE-INTEGRITY over everything so far.
    pub fn integrity(self, key: &[u8]) -> Self {
        self.integrity_key(&integrity_key(key))
    }

    /// MESSAGE-INTEGRITY with a key prepared by [`integrity_key`].
    pub fn integrity_key(self, key: &hmac::Key) -> Self {
        self.signed(AttributeType::MESSAGE_INTEGRITY, key, INTEGRITY_LEN)
    }

    /// MESSAGE-INTEGRITY-SHA256 over everything so far.
    pub fn integrity_sha256(self, key: &[u8]) -> Self {
        let key = integrity_key_sha256(key);
        self.signed(
            AttributeType::MESSAGE_INTEGRITY_SHA256,
            &key,
            INTEGRITY_SHA256_LEN,
        )
    }

    fn signed(self, kind: AttributeType, key: &hmac::Key, len: usize) -> Self {
        self.step(|cursor| {
            let offset = cursor.position();
            if offset > usize::from(u16::MAX) {
                return Err(WriteError::ValueTooLong);
            }
            let tag = sign(key, cursor.written(), offset, len);
            cursor.put_u16(kind.0)?;
            cursor.put_u16(len as u16)?;
            cursor.put(tag.as_ref())
        })
    }

    /// FINGERPRINT over everything so far.
    pub fn fingerprint(self) -> Self {
        self.step(|cursor| {
            let offset = cursor.position();
            let length = u16::try_from(offset - HEADER_LEN + 4 + FINGERPRINT_LEN);
            cursor.patch_u16(2, length.map_err(|_| WriteError::ValueTooLong)?);
            let crc = fingerprint(cursor.written());
            cursor.put_u16(AttributeType::FINGERPRINT.0)?;
            cursor.put_u16(FINGERPRINT_LEN as u16)?;
            cursor.put_u32(crc)
        })
    }

    /// Writes the length field; how many bytes of the buffer the message takes.
    pub fn finish(mut self) -> Result<usize, WriteError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let len = self.cursor.position();
        let length = u16::try_from(len - HEADER_LEN).map_err(|_| WriteError::ValueTooLong)?;
        self.cursor.patch_u16(2, length);
        Ok(len)
    }

    fn address(self, kind: AttributeType, address: SocketAddr) -> Self {
        let (value, len) = address::write(address, self.id);
        self.attribute(kind, &value[..len])
    }

    fn plain(self, kind: AttributeType, address: SocketAddr) -> Self {
        let (value, len) = address::write_plain(address);
        self.attribute(kind, &value[..len])
    }

    fn parts(self, kind: AttributeType, parts: &[&[u8]]) -> Self {
        self.step(|cursor| {
            let len = u16::try_from(parts.iter().map(|part| part.len()).sum::<usize>());
            cursor.put_u16(kind.0)?;
            cursor.put_u16(len.map_err(|_| WriteError::ValueTooLong)?)?;
            for part in parts {
                cursor.put(part)?;
            }
            cursor.pad_to_word(0)
        })
    }

    fn step(mut self, write: impl FnOnce(&mut Cursor<'b>) -> Result<(), WriteError>) -> Self {
        if self.failed.is_none() {
            self.failed = write(&mut self.cursor).err();
        }
        self
    }
}
