//! ChannelData (RFC 8656 section 12.4): four bytes of header, then application data.
//!
//! Only the datagram form: over UDP padding is optional and ignored, over TCP the framing is the stream's.
//!
//! Numbers are those of RFC 5766, 0x4000 to 0x7FFF. RFC 8656 gives out only the first quarter of them, so that
//! channels can share a port with RTP, and says itself that older clients do not keep to that (section 12); coturn's
//! are among them. Where a port is shared, [`crate::demux`] keeps to RFC 7983.

use crate::ParseError;
use crate::cursor::u16_at;

/// Bytes before the application data.
pub const HEADER_LEN: usize = 4;

/// Padding to a multiple of four, which UDP clients may but need not send.
const PADDING_MAX: usize = 3;

/// A channel number, 0x4000 to 0x7FFF.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChannelNumber(u16);

impl ChannelNumber {
    /// The first valid number.
    pub const MIN: ChannelNumber = ChannelNumber(0x4000);
    /// The last valid number of RFC 5766 section 11; that of RFC 8656 is 0x4FFF.
    pub const MAX: ChannelNumber = ChannelNumber(0x7FFF);

    /// `None` outside the range.
    pub fn new(number: u16) -> Option<Self> {
        (Self::MIN.0..=Self::MAX.0)
            .contains(&number)
            .then_some(Self(number))
    }

    /// The number as it is sent.
    pub fn get(self) -> u16 {
        self.0
    }
}

/// A ChannelData message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChannelData<'a> {
    /// The channel it travels on.
    pub number: ChannelNumber,
    /// The application data, without padding.
    pub data: &'a [u8],
}

impl<'a> ChannelData<'a> {
    /// Reads one UDP datagram. The length field may leave up to three bytes of padding over, and no more.
    pub fn parse_datagram(datagram: &'a [u8]) -> Result<Self, ParseError> {
        let number = u16_at(datagram, 0).ok_or(ParseError::Truncated)?;
        let len = usize::from(u16_at(datagram, 2).ok_or(ParseError::Truncated)?);
        let number = ChannelNumber::new(number).ok_or(ParseError::ChannelNumber)?;
        let (data, padding) = datagram[HEADER_LEN..]
            .split_at_checked(len)
            .ok_or(ParseError::Length)?;
        if padding.len() > PADDING_MAX {
            return Err(ParseError::Length);
        }
        Ok(Self { number, data })
    }
}

/// [`ChannelData::parse_datagram`] as a function.
pub fn parse_datagram(datagram: &[u8]) -> Result<ChannelData<'_>, ParseError> {
    ChannelData::parse_datagram(datagram)
}

/// The header for `len` bytes of application data, to be put in the headroom before them.
pub fn write_header(buffer: &mut [u8; HEADER_LEN], number: ChannelNumber, len: u16) {
    let [n0, n1] = number.get().to_be_bytes();
    let [l0, l1] = len.to_be_bytes();
    *buffer = [n0, n1, l0, l1];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut datagram = *b"\0\0\0\0hello";
        let number = ChannelNumber::new(0x4ABC).unwrap();
        write_header(datagram.first_chunk_mut().unwrap(), number, 5);
        assert_eq!(
            parse_datagram(&datagram),
            Ok(ChannelData {
                number,
                data: b"hello"
            })
        );
    }

    #[test]
    fn padding_of_up_to_three_bytes_is_ignored_and_four_are_a_lie() {
        let datagram = [0x40, 0, 0, 1, 7, 0, 0, 0, 0];
        for padding in 0..=3 {
            assert_eq!(parse_datagram(&datagram[..5 + padding]).unwrap().data, [7]);
        }
        assert_eq!(parse_datagram(&datagram), Err(ParseError::Length));
    }

    #[test]
    fn a_length_beyond_the_datagram_is_refused() {
        assert_eq!(parse_datagram(&[0x40, 0, 0, 2, 7]), Err(ParseError::Length));
        assert_eq!(parse_datagram(&[0x40, 0, 0xFF, 0xFF]), Err(ParseError::Length));
        for len in 0..HEADER_LEN {
            assert_eq!(
                parse_datagram(&[0x40; HEADER_LEN][..len]),
                Err(ParseError::Truncated)
            );
        }
    }

    #[test]
    fn an_empty_message_is_valid() {
        assert_eq!(parse_datagram(&[0x7F, 0xFF, 0, 0]).unwrap().data, []);
    }

    #[test]
    fn numbers_of_older_clients_are_taken() {
        for number in [0x4000u16, 0x4FFF, 0x5000, 0x7FFF] {
            assert_eq!(ChannelNumber::new(number).map(ChannelNumber::get), Some(number));
        }
    }

    #[test]
    fn other_numbers_are_refused() {
        for number in [0u16, 0x3FFF, 0x8000, 0xFFFF] {
            let [high, low] = number.to_be_bytes();
            assert_eq!(parse_datagram(&[high, low, 0, 0]), Err(ParseError::ChannelNumber));
            assert_eq!(ChannelNumber::new(number), None);
        }
    }
}
