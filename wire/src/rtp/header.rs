//! The RTP header: twelve fixed bytes, up to fifteen CSRCs, one extension block.

use super::extension::Extension;
use crate::cursor::{Cursor, u16_at, u32_at};
use crate::{ParseError, WriteError};

/// Bytes before CSRCs and extension.
pub const FIXED_HEADER_LEN: usize = 12;

/// CSRCs that the four-bit count can say.
const CSRCS_MAX: usize = 15;

const VERSION: u8 = 2;
const PADDING: u8 = 0x20;
const EXTENSION: u8 = 0x10;
const MARKER: u8 = 0x80;

/// The header of a packet whose payload may be encrypted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HeaderView<'a> {
    bytes: &'a [u8],
    header_len: usize,
}

impl<'a> HeaderView<'a> {
    /// Checks version, CSRCs and the extension's extent.
    pub fn parse(packet: &'a [u8]) -> Result<Self, ParseError> {
        if packet.len() < FIXED_HEADER_LEN {
            return Err(ParseError::Truncated);
        }
        if packet[0] >> 6 != VERSION {
            return Err(ParseError::Version);
        }
        let mut header_len = FIXED_HEADER_LEN + 4 * usize::from(packet[0] & 0x0F);
        if packet[0] & EXTENSION != 0 {
            let words = u16_at(packet, header_len + 2).ok_or(ParseError::Length)?;
            header_len += 4 + 4 * usize::from(words);
        }
        if header_len > packet.len() {
            return Err(ParseError::Length);
        }
        Ok(Self {
            bytes: packet,
            header_len,
        })
    }

    /// The whole packet.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Fixed header, CSRCs and extension block.
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// Always 2.
    pub fn version(&self) -> u8 {
        self.bytes[0] >> 6
    }

    /// Whether the payload ends with padding.
    pub fn padding(&self) -> bool {
        self.bytes[0] & PADDING != 0
    }

    /// The marker bit.
    pub fn marker(&self) -> bool {
        self.bytes[1] & MARKER != 0
    }

    /// 0 to 127.
    pub fn payload_type(&self) -> u8 {
        self.bytes[1] & !MARKER
    }

    /// The 16 bits on the wire; the rollover counter is SRTP's.
    pub fn sequence_number(&self) -> u16 {
        u16_at(self.bytes, 2).unwrap_or_default()
    }

    /// In units of the payload type's clock.
    pub fn timestamp(&self) -> u32 {
        u32_at(self.bytes, 4).unwrap_or_default()
    }

    /// The source.
    pub fn ssrc(&self) -> u32 {
        u32_at(self.bytes, 8).unwrap_or_default()
    }

    /// Contributing sources, at most fifteen.
    pub fn csrcs(&self) -> impl Iterator<Item = u32> + use<'a> {
        let count = usize::from(self.bytes[0] & 0x0F);
        let (words, _) = self.bytes[FIXED_HEADER_LEN..self.header_len].as_chunks::<4>();
        words.iter().take(count).map(|word| u32::from_be_bytes(*word))
    }

    /// The extension block, where the X bit is set.
    pub fn extension(&self) -> Option<Extension<'a>> {
        if self.bytes[0] & EXTENSION == 0 {
            return None;
        }
        let start = FIXED_HEADER_LEN + 4 * usize::from(self.bytes[0] & 0x0F);
        let profile = u16_at(self.bytes, start)?;
        Some(Extension {
            profile,
            data: &self.bytes[start + 4..self.header_len],
        })
    }

    /// Everything after the header: in an SRTP packet ciphertext and tag.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[self.header_len..]
    }

    /// The fixed fields, to change and write elsewhere.
    pub fn to_header(&self) -> Header {
        Header {
            padding: self.padding(),
            marker: self.marker(),
            payload_type: self.payload_type(),
            sequence_number: self.sequence_number(),
            timestamp: self.timestamp(),
            ssrc: self.ssrc(),
        }
    }
}

impl std::fmt::Debug for HeaderView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:?}, header {} of {} bytes",
            self.to_header(),
            self.header_len,
            self.bytes.len()
        )
    }
}

/// The fields of the fixed header, owned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Whether the payload will end with padding.
    pub padding: bool,
    /// The marker bit.
    pub marker: bool,
    /// 0 to 127.
    pub payload_type: u8,
    /// 16 bits.
    pub sequence_number: u16,
    /// In units of the payload type's clock.
    pub timestamp: u32,
    /// The source.
    pub ssrc: u32,
}

impl Header {
    /// Writes the header with neither CSRCs nor extension: always twelve bytes.
    pub fn to_bytes(&self) -> [u8; FIXED_HEADER_LEN] {
        let mut bytes = [0; FIXED_HEADER_LEN];
        bytes[0] = VERSION << 6 | if self.padding { PADDING } else { 0 };
        bytes[1] = self.payload_type & !MARKER | if self.marker { MARKER } else { 0 };
        bytes[2..4].copy_from_slice(&self.sequence_number.to_be_bytes());
        bytes[4..8].copy_from_slice(&self.timestamp.to_be_bytes());
        bytes[8..].copy_from_slice(&self.ssrc.to_be_bytes());
        bytes
    }

    /// Writes the header, CSRCs and an extension block whose data is a multiple of four bytes (zeroes are added
    /// where it is not); how many bytes of the buffer it takes.
    pub fn write(
        &self,
        csrcs: &[u32],
        extension: Option<Extension<'_>>,
        buffer: &mut [u8],
    ) -> Result<usize, WriteError> {
        if csrcs.len() > CSRCS_MAX {
            return Err(WriteError::ValueTooLong);
        }
        let mut fixed = self.to_bytes();
        fixed[0] |= csrcs.len() as u8 | if extension.is_some() { EXTENSION } else { 0 };
        let mut cursor = Cursor::new(buffer);
        cursor.put(&fixed)?;
        for csrc in csrcs {
            cursor.put_u32(*csrc)?;
        }
        if let Some(Extension { profile, data }) = extension {
            let words = u16::try_from(data.len().div_ceil(4)).map_err(|_| WriteError::ValueTooLong)?;
            cursor.put_u16(profile)?;
            cursor.put_u16(words)?;
            cursor.put(data)?;
            cursor.pad_to_word(0)?;
        }
        Ok(cursor.position())
    }
}

/// Changes fields of a packet where it lies.
pub struct HeaderMut<'a>(&'a mut [u8]);

impl<'a> HeaderMut<'a> {
    /// Checks as [`HeaderView::parse`] does.
    pub fn parse(packet: &'a mut [u8]) -> Result<Self, ParseError> {
        HeaderView::parse(packet)?;
        Ok(Self(packet))
    }

    /// The packet as it now is.
    pub fn view(&self) -> HeaderView<'_> {
        HeaderView::parse(self.0).expect("parsed in HeaderMut::parse, and no setter changes a length")
    }

    /// Sets the marker bit.
    pub fn set_marker(&mut self, marker: bool) {
        self.0[1] = self.0[1] & !MARKER | if marker { MARKER } else { 0 };
    }

    /// Sets the payload type, of which seven bits count.
    pub fn set_payload_type(&mut self, payload_type: u8) {
        self.0[1] = self.0[1] & MARKER | payload_type & !MARKER;
    }

    /// Sets the sequence number.
    pub fn set_sequence_number(&mut self, sequence_number: u16) {
        self.0[2..4].copy_from_slice(&sequence_number.to_be_bytes());
    }

    /// Sets the timestamp.
    pub fn set_timestamp(&mut self, timestamp: u32) {
        self.0[4..8].copy_from_slice(&timestamp.to_be_bytes());
    }

    /// Sets the source.
    pub fn set_ssrc(&mut self, ssrc: u32) {
        self.0[8..12].copy_from_slice(&ssrc.to_be_bytes());
    }
}
