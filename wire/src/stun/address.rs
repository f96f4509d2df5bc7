//! XOR-MAPPED-ADDRESS and its siblings (RFC 8489 section 14.2): family, port and address, the last two
//! combined with the magic cookie and the transaction id; and MAPPED-ADDRESS with its own (section 14.1), as they are.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::header::{MAGIC_COOKIE, TransactionId};

const FAMILY_IPV4: u8 = 0x01;
const FAMILY_IPV6: u8 = 0x02;

fn mask(id: TransactionId) -> [u8; 16] {
    let mut mask = [0; 16];
    mask[..4].copy_from_slice(&MAGIC_COOKIE.to_be_bytes());
    mask[4..].copy_from_slice(&id.0);
    mask
}

/// `None` unless the family is known and the size is exactly that family's.
pub(super) fn read(value: &[u8], id: TransactionId) -> Option<SocketAddr> {
    read_masked(value, mask(id))
}

/// Likewise of an address that is not combined with anything.
pub(super) fn read_plain(value: &[u8]) -> Option<SocketAddr> {
    read_masked(value, [0; 16])
}

fn read_masked(value: &[u8], mask: [u8; 16]) -> Option<SocketAddr> {
    let (&[_, family, p0, p1], address) = value.split_first_chunk()?;
    let port = u16::from_be_bytes([p0 ^ mask[0], p1 ^ mask[1]]);
    let xor = |byte: usize, value: u8| value ^ mask[byte];
    let ip = match family {
        FAMILY_IPV4 => {
            let mut octets = <[u8; 4]>::try_from(address).ok()?;
            octets.iter_mut().enumerate().for_each(|(i, o)| *o = xor(i, *o));
            IpAddr::V4(Ipv4Addr::from(octets))
        }
        FAMILY_IPV6 => {
            let mut octets = <[u8; 16]>::try_from(address).ok()?;
            octets.iter_mut().enumerate().for_each(|(i, o)| *o = xor(i, *o));
            IpAddr::V6(Ipv6Addr::from(octets))
        }
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The value's bytes and how many of them are used: 8 or 20.
pub(super) fn write(address: SocketAddr, id: TransactionId) -> ([u8; 20], usize) {
    write_masked(address, mask(id))
}

/// Likewise of an address that is not combined with anything.
pub(super) fn write_plain(address: SocketAddr) -> ([u8; 20], usize) {
    write_masked(address, [0; 16])
}

fn write_masked(address: SocketAddr, mask: [u8; 16]) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    let [p0, p1] = address.port().to_be_bytes();
    value[2] = p0 ^ mask[0];
    value[3] = p1 ^ mask[1];
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = FAMILY_IPV4;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = FAMILY_IPV6;
            value[4..].copy_from_slice(&ip.octets());
            20
        }
    };
    value[4..len].iter_mut().zip(mask).for_each(|(v, m)| *v ^= m);
    (value, len)
}
