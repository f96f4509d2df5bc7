//! Streams of messages, as TCP cuts them.

#![allow(clippy::unwrap_used, reason = "a test fails where it unwraps")]

use proptest::prelude::*;
use wire::channel_data::{ChannelNumber, write_header};
use wire::stream::{MESSAGE_MAX, message_len, padding};
use wire::stun::{Builder, Class, Method, TransactionId};

fn channel_message(number: u16, len: usize) -> Vec<u8> {
    let mut message = vec![7; 4 + len];
    let header = message.first_chunk_mut().unwrap();
    write_header(header, ChannelNumber::new(number).unwrap(), len as u16);
    message.resize(message.len() + padding(4 + len), 0);
    message
}

fn stun_message(data: &[u8]) -> Vec<u8> {
    let mut buffer = vec![0; MESSAGE_MAX];
    let id = TransactionId([1; 12]);
    let len = Builder::new(&mut buffer, Class::Indication, Method::SEND, id)
        .data(data)
        .finish()
        .unwrap();
    buffer.truncate(len);
    buffer
}

/// What a reader finds that gets these pieces.
fn read(pieces: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<u8>> {
    let (mut buffer, mut messages) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend(piece);
        while let Some(len) = message_len(&buffer).unwrap().filter(|len| *len <= buffer.len()) {
            messages.push(buffer.drain(..len).collect());
        }
    }
    assert!(buffer.is_empty());
    messages
}

#[test]
fn the_longest_messages_split_at_every_byte_are_the_same_messages() {
    for message in [channel_message(0x4000, 65_535), stun_message(&[9; 65_500])] {
        assert!(message.len() > 65_000 && message.len() <= MESSAGE_MAX);
        for at in 0..=message.len() {
            let told = message_len(&message[..at]).unwrap();
            assert!(told.is_none_or(|len| len == message.len()), "{at}");
            assert!(told.is_some() || at < 8, "{at}: eight bytes are enough to tell");
        }
        let single: Vec<_> = message.iter().map(|byte| vec![*byte]).collect();
        assert_eq!(read(single.into_iter()), [message]);
    }
}

proptest! {
    #[test]
    fn any_messages_cut_anywhere_come_out_as_they_went_in(
        sizes in proptest::collection::vec((any::<bool>(), 0usize..300), 0..12), cut in 1usize..200,
    ) {
        let messages: Vec<Vec<u8>> = sizes
            .into_iter()
            .map(|(stun, size)| match stun {
                true => stun_message(&vec![3; size]),
                false => channel_message(0x4001, size),
            })
            .collect();
        let stream = messages.concat();
        let pieces = stream.chunks(cut).map(<[u8]>::to_vec).collect::<Vec<_>>();
        prop_assert_eq!(read(pieces.into_iter()), messages);
    }

    #[test]
    fn no_bytes_are_waited_for_without_end(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        match message_len(&bytes) {
            Ok(Some(len)) => prop_assert!((4..=MESSAGE_MAX).contains(&len) && len % 4 == 0),
            Ok(None) => prop_assert!(bytes.len() < 8),
            Err(_) => prop_assert!(!bytes.is_empty()),
        }
    }
}
