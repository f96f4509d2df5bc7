//! SDES (RFC 3550 section 6.5): chunks of a source and its items, of which only CNAME matters here.

use crate::ParseError;
use crate::cursor::u32_at;

/// A source description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceDescription<'a> {
    count: u8,
    body: &'a [u8],
}

/// One source and its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk<'a> {
    /// Who is described.
    pub ssrc: u32,
    items: &'a [u8],
}

/// One item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item<'a> {
    /// 1 is CNAME.
    pub kind: u8,
    /// UTF-8 where the sender was honest.
    pub text: &'a [u8],
}

impl Item<'_> {
    /// The item that ties a participant's sources together.
    pub const CNAME: u8 = 1;
}

impl<'a> SourceDescription<'a> {
    pub(super) fn parse(count: u8, body: &'a [u8]) -> Result<Self, ParseError> {
        let mut rest = body;
        for _ in 0..count {
            (_, rest) = split_chunk(rest).ok_or(ParseError::Length)?;
        }
        Ok(Self { count, body })
    }

    /// At most 31 chunks.
    pub fn chunks(&self) -> impl Iterator<Item = Chunk<'a>> + use<'a> {
        let mut rest = self.body;
        (0..self.count).map_while(move |_| {
            let (chunk, after) = split_chunk(rest)?;
            rest = after;
            Some(chunk)
        })
    }

    /// The CNAME of a source, where it is one.
    pub fn cname(&self, ssrc: u32) -> Option<&'a str> {
        let chunk = self.chunks().find(|chunk| chunk.ssrc == ssrc)?;
        let item = chunk.items().find(|item| item.kind == Item::CNAME)?;
        str::from_utf8(item.text).ok()
    }
}

impl<'a> Chunk<'a> {
    /// The items in order.
    pub fn items(&self) -> impl Iterator<Item = Item<'a>> + use<'a> {
        let mut rest = self.items;
        std::iter::from_fn(move || {
            let (item, after) = split_item(rest)?;
            rest = after;
            Some(item)
        })
    }
}

/// `None` at the list's end and where an item overruns.
fn split_item(bytes: &[u8]) -> Option<(Item<'_>, &[u8])> {
    let (&[kind, len], rest) = bytes.split_first_chunk()?;
    if kind == 0 {
        return None;
    }
    let (text, rest) = rest.split_at_checked(usize::from(len))?;
    Some((Item { kind, text }, rest))
}

/// A chunk ends with one to four zeroes, at a multiple of four bytes.
fn split_chunk(bytes: &[u8]) -> Option<(Chunk<'_>, &[u8])> {
    let ssrc = u32_at(bytes, 0)?;
    let items = &bytes[4..];
    let mut rest = items;
    while let Some((_, after)) = split_item(rest) {
        rest = after;
    }
    let used = items.len() - rest.len();
    if *rest.first()? != 0 {
        return None;
    }
    let end = (used + 1).next_multiple_of(4);
    Some((
        Chunk {
            ssrc,
            items: &items[..used],
        },
        items.get(end..)?,
    ))
}
