//! The 20-byte header (RFC 8489 section 5): type, length, magic cookie, transaction id.

/// Bytes before the first attribute.
pub const HEADER_LEN: usize = 20;

/// The fixed value of bytes 4 to 7.
pub const MAGIC_COOKIE: u32 = 0x2112_A442;

/// The two class bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// Expects an answer.
    Request,
    /// Expects none.
    Indication,
    /// A success response.
    Success,
    /// An error response, with ERROR-CODE.
    Error,
}

/// The twelve method bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Method(u16);

impl Method {
    /// RFC 8489: also ICE's connectivity check.
    pub const BINDING: Method = Method(0x001);
    /// RFC 8656 section 7.
    pub const ALLOCATE: Method = Method(0x003);
    /// RFC 8656 section 8.
    pub const REFRESH: Method = Method(0x004);
    /// RFC 8656 section 11, from the client.
    pub const SEND: Method = Method(0x006);
    /// RFC 8656 section 11, to the client.
    pub const DATA: Method = Method(0x007);
    /// RFC 8656 section 10.
    pub const CREATE_PERMISSION: Method = Method(0x008);
    /// RFC 8656 section 12.
    pub const CHANNEL_BIND: Method = Method(0x009);
    /// RFC 6062 section 6.1.
    pub const CONNECT: Method = Method(0x00A);
    /// RFC 6062 section 6.1.
    pub const CONNECTION_BIND: Method = Method(0x00B);
    /// RFC 6062 section 6.1, to the client.
    pub const CONNECTION_ATTEMPT: Method = Method(0x00C);

    /// `None` above twelve bits.
    pub const fn new(method: u16) -> Option<Self> {
        if method <= 0xFFF { Some(Self(method)) } else { None }
    }

    /// The twelve bits.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Ties a response to its request; random in the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(pub [u8; 12]);

/// Class and method interleaved as in RFC 8489 figure 3.
pub(super) fn message_type(class: Class, method: Method) -> u16 {
    let class = match class {
        Class::Request => 0x000,
        Class::Indication => 0x010,
        Class::Success => 0x100,
        Class::Error => 0x110,
    };
    let m = method.get();
    class | (m & 0x00F) | (m & 0x070) << 1 | (m & 0xF80) << 2
}

/// The inverse of [`message_type`] for a type whose two top bits are zero.
pub(super) fn class_and_method(message_type: u16) -> (Class, Method) {
    let class = match message_type & 0x110 {
        0x000 => Class::Request,
        0x010 => Class::Indication,
        0x100 => Class::Success,
        _ => Class::Error,
    };
    let t = message_type;
    (class, Method((t & 0x00F) | (t >> 1 & 0x070) | (t >> 2 & 0xF80)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives_the_interleaving() {
        for message_type_ in 0..0x4000 {
            let (class, method) = class_and_method(message_type_);
            assert_eq!(message_type(class, method), message_type_);
        }
    }

    #[test]
    fn the_types_of_turn_are_those_of_rfc_8656() {
        assert_eq!(message_type(Class::Request, Method::ALLOCATE), 0x0003);
        assert_eq!(message_type(Class::Error, Method::ALLOCATE), 0x0113);
        assert_eq!(message_type(Class::Success, Method::CHANNEL_BIND), 0x0109);
        assert_eq!(message_type(Class::Indication, Method::SEND), 0x0016);
        assert_eq!(message_type(Class::Indication, Method::DATA), 0x0017);
    }
}
