//! Writing front to back into a buffer of the caller's.

use crate::WriteError;

pub(crate) struct Cursor<'b> {
    buffer: &'b mut [u8],
    at: usize,
}

impl<'b> Cursor<'b> {
    pub(crate) fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, at: 0 }
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    pub(crate) fn rewind(&mut self, position: usize) {
        self.at = self.at.min(position);
    }

    pub(crate) fn written(&self) -> &[u8] {
        &self.buffer[..self.at]
    }

    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        let end = self
            .at
            .checked_add(bytes.len())
            .ok_or(WriteError::BufferTooSmall)?;
        self.buffer
            .get_mut(self.at..end)
            .ok_or(WriteError::BufferTooSmall)?
            .copy_from_slice(bytes);
        self.at = end;
        Ok(())
    }

    pub(crate) fn put_u8(&mut self, value: u8) -> Result<(), WriteError> {
        self.put(&[value])
    }

    pub(crate) fn put_u16(&mut self, value: u16) -> Result<(), WriteError> {
        self.put(&value.to_be_bytes())
    }

    pub(crate) fn put_u32(&mut self, value: u32) -> Result<(), WriteError> {
        self.put(&value.to_be_bytes())
    }

    /// Zeroes up to the next multiple of four from `start`.
    pub(crate) fn pad_to_word(&mut self, start: usize) -> Result<(), WriteError> {
        const ZEROES: [u8; 3] = [0; 3];
        let odd = (self.at - start) % 4;
        if odd == 0 {
            Ok(())
        } else {
            self.put(&ZEROES[..4 - odd])
        }
    }

    /// Overwrites two bytes already written.
    pub(crate) fn patch_u16(&mut self, position: usize, value: u16) {
        if let Some(field) = self.buffer[..self.at].get_mut(position..position + 2) {
            field.copy_from_slice(&value.to_be_bytes());
        }
    }
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

pub(crate) fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}
