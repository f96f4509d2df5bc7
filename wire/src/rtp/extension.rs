//! Header extensions (RFC 8285): a block of elements, each an id and a few bytes, in the one-byte form
//! (profile 0xBEDE, ids 1 to 14, 1 to 16 bytes) or the two-byte form (profile 0x100x, ids 1 to 255, 0 to 255
//! bytes).

use crate::WriteError;
use crate::cursor::Cursor;

/// The profile of the one-byte form.
pub const ONE_BYTE_PROFILE: u16 = 0xBEDE;

/// The profile of the two-byte form; its four low bits belong to the application.
pub const TWO_BYTE_PROFILE: u16 = 0x1000;

/// Id 15 of the one-byte form ends the block (RFC 8285 section 4.2).
const ONE_BYTE_STOP: u8 = 15;

/// An extension block as it is on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extension<'a> {
    /// "Defined by profile": which form the data has.
    pub profile: u16,
    /// The elements, padded to a multiple of four bytes.
    pub data: &'a [u8],
}

impl<'a> Extension<'a> {
    /// The elements in order. An element that overruns the block ends the walk, and a profile that is neither
    /// form has none.
    pub fn elements(&self) -> Elements<'a> {
        let form = Form::of_profile(self.profile);
        Elements {
            rest: if form.is_some() { self.data } else { &[] },
            form: form.unwrap_or(Form::OneByte),
        }
    }

    /// The first element with this id.
    pub fn find(&self, id: u8) -> Option<&'a [u8]> {
        self.elements()
            .find(|element| element.id == id)
            .map(|element| element.data)
    }
}

/// How elements are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Four bits of id, four of length less one.
    OneByte,
    /// A byte of id, a byte of length.
    TwoByte,
}

impl Form {
    /// `None` for a profile that is not RFC 8285's.
    pub fn of_profile(profile: u16) -> Option<Self> {
        match profile {
            ONE_BYTE_PROFILE => Some(Form::OneByte),
            profile if profile & 0xFFF0 == TWO_BYTE_PROFILE => Some(Form::TwoByte),
            _ => None,
        }
    }

    /// The form's profile.
    pub fn profile(self) -> u16 {
        match self {
            Form::OneByte => ONE_BYTE_PROFILE,
            Form::TwoByte => TWO_BYTE_PROFILE,
        }
    }

    /// The one-byte form where every element fits it.
    pub fn for_elements<'e>(elements: impl IntoIterator<Item = Element<'e>>) -> Self {
        let fits = |e: Element<'_>| (1..ONE_BYTE_STOP).contains(&e.id) && (1..=16).contains(&e.data.len());
        if elements.into_iter().all(fits) {
            Form::OneByte
        } else {
            Form::TwoByte
        }
    }
}

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    /// What the offer mapped to a URI; never 0, which is padding.
    pub id: u8,
    /// The element's bytes.
    pub data: &'a [u8],
}

/// Walks the elements of a block.
#[derive(Clone, Debug)]
pub struct Elements<'a> {
    rest: &'a [u8],
    form: Form,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Element<'a>;

    fn next(&mut self) -> Option<Element<'a>> {
        while let [0, rest @ ..] = self.rest {
            self.rest = rest;
        }
        let (id, len, rest) = match (self.form, self.rest) {
            // Id 0 with a length is nobody's element: the end, as libwebrtc has it.
            (Form::OneByte, &[head, ref rest @ ..]) if (1..ONE_BYTE_STOP).contains(&(head >> 4)) => {
                (head >> 4, usize::from(head & 0x0F) + 1, rest)
            }
            (Form::TwoByte, &[id, len, ref rest @ ..]) => (id, usize::from(len), rest),
            _ => {
                self.rest = &[];
                return None;
            }
        };
        let Some((data, rest)) = rest.split_at_checked(len) else {
            self.rest = &[];
            return None;
        };
        self.rest = rest;
        Some(Element { id, data })
    }
}

/// Writes a whole block, profile and length included, for the end of an RTP header: in the one-byte form where
/// every element fits it. How many bytes of the buffer it takes, a multiple of four.
pub fn write<'e, I>(elements: I, buffer: &mut [u8]) -> Result<usize, WriteError>
where
    I: IntoIterator<Item = Element<'e>> + Clone,
{
    let mut writer = Writer::new(buffer, Form::for_elements(elements.clone()))?;
    for element in elements {
        writer.push(element.id, element.data)?;
    }
    writer.finish()
}

/// Writes a block element by element, in a form chosen beforehand.
pub struct Writer<'b> {
    cursor: Cursor<'b>,
    form: Form,
}

impl<'b> Writer<'b> {
    /// Starts with profile and length.
    pub fn new(buffer: &'b mut [u8], form: Form) -> Result<Self, WriteError> {
        let mut cursor = Cursor::new(buffer);
        cursor.put_u16(form.profile())?;
        cursor.put_u16(0)?;
        Ok(Self { cursor, form })
    }

    /// One element. [`WriteError::ValueTooLong`] where the form cannot say its id or length; id 0 never can be.
    pub fn push(&mut self, id: u8, data: &[u8]) -> Result<(), WriteError> {
        let start = self.cursor.position();
        let result = match (self.form, data.len()) {
            (Form::OneByte, 1..=16) if (1..ONE_BYTE_STOP).contains(&id) => {
                self.cursor.put_u8(id << 4 | (data.len() - 1) as u8)
            }
            (Form::TwoByte, 0..=255) if id != 0 => self.cursor.put(&[id, data.len() as u8]),
            _ => Err(WriteError::ValueTooLong),
        };
        result
            .and_then(|()| self.cursor.put(data))
            .inspect_err(|_| self.cursor.rewind(start))
    }

    /// Pads and writes the length; how many bytes of the buffer the block takes.
    pub fn finish(mut self) -> Result<usize, WriteError> {
        self.cursor.pad_to_word(0)?;
        let len = self.cursor.position();
        let words = u16::try_from(len / 4 - 1).map_err(|_| WriteError::ValueTooLong)?;
        self.cursor.patch_u16(2, words);
        Ok(len)
    }
}
