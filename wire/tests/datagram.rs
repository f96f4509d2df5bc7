//! What is first done with any datagram.

use proptest::prelude::*;
use wire::channel_data::{self, ChannelNumber, HEADER_LEN};
use wire::demux::{Kind, classify};

proptest! {
    #[test]
    fn any_bytes_are_classified(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
        let kind = classify(&bytes);
        prop_assert_eq!(kind == Kind::Unknown && !bytes.is_empty(),
            bytes.first().is_some_and(|b| matches!(b, 4..=15 | 80..=127 | 192..)));
    }

    #[test]
    fn any_bytes_are_channel_data_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..80), first in 60u8..132) {
        let mut bytes = bytes;
        if let Some(byte) = bytes.first_mut() { *byte = first }
        if let Ok(message) = channel_data::parse_datagram(&bytes) {
            prop_assert_eq!(classify(&bytes) == Kind::TurnChannel, first < 80);
            prop_assert!((64..128).contains(&first));
            prop_assert!(message.data.len() + HEADER_LEN + 3 >= bytes.len());
        }
    }

    #[test]
    fn channel_data_is_read_as_written(
        number in 0x4000u16..0x8000, data in proptest::collection::vec(any::<u8>(), 0..1500), padding in 0usize..4,
    ) {
        let number = ChannelNumber::new(number).unwrap();
        let mut datagram = vec![0; HEADER_LEN];
        channel_data::write_header(datagram.first_chunk_mut().unwrap(), number, data.len() as u16);
        datagram.extend(&data);
        datagram.resize(datagram.len() + padding, 0);
        let message = channel_data::parse_datagram(&datagram).unwrap();
        prop_assert_eq!((message.number, message.data), (number, &data[..]));
    }
}
