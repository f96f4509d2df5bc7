//! What a datagram is, from its first byte (RFC 7983 section 7) and, for RTP and RTCP on one port, its second
//! (RFC 5761 section 4). Nothing else is looked at: whether it parses is the next stage's question.

/// The protocol that a datagram claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// First byte 0 to 3.
    Stun,
    /// First byte 16 to 19.
    Zrtp,
    /// First byte 20 to 63.
    Dtls,
    /// First byte 64 to 79: a TURN channel.
    TurnChannel,
    /// First byte 128 to 191, second outside 192 to 223.
    Rtp,
    /// First byte 128 to 191, second 192 to 223.
    Rtcp,
    /// Empty, or a first byte that belongs to nobody here.
    Unknown,
}

/// Names the protocol of a datagram.
pub fn classify(datagram: &[u8]) -> Kind {
    match datagram {
        [0..=3, ..] => Kind::Stun,
        [16..=19, ..] => Kind::Zrtp,
        [20..=63, ..] => Kind::Dtls,
        [64..=79, ..] => Kind::TurnChannel,
        [128..=191, 192..=223, ..] => Kind::Rtcp,
        [128..=191, ..] => Kind::Rtp,
        _ => Kind::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_first_byte_goes_where_rfc_7983_says() {
        for first in 0..=255u8 {
            let expected = match first {
                0..=3 => Kind::Stun,
                16..=19 => Kind::Zrtp,
                20..=63 => Kind::Dtls,
                64..=79 => Kind::TurnChannel,
                128..=191 => Kind::Rtp,
                _ => Kind::Unknown,
            };
            assert_eq!(classify(&[first, 0]), expected, "first byte {first}");
            assert_eq!(classify(&[first]), expected, "first byte {first} alone");
        }
    }

    #[test]
    fn the_second_byte_tells_rtcp_from_rtp() {
        for second in 0..=255u8 {
            let expected = if (192..=223).contains(&second) {
                Kind::Rtcp
            } else {
                Kind::Rtp
            };
            assert_eq!(classify(&[0x80, second]), expected, "second byte {second}");
        }
    }

    #[test]
    fn an_empty_datagram_is_nothing() {
        assert_eq!(classify(&[]), Kind::Unknown);
    }
}
