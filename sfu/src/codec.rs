//! What the forwarding stages must know about a video payload without decoding it: does a key frame start
//! here, so that a subscriber can join, resume or switch at this packet?

mod av1;
mod h264;
mod vp8;
mod vp9;

use crate::media::Codec;

/// Whether `payload` is the first packet of a key frame. Audio can always be joined.
#[must_use]
pub(crate) fn starts_key_frame(codec: Codec, payload: &[u8]) -> bool {
    match codec {
        Codec::Opus => true,
        Codec::Vp8 => vp8::starts_key_frame(payload),
        Codec::Vp9 => vp9::starts_key_frame(payload),
        Codec::H264 => h264::starts_key_frame(payload),
        Codec::Av1 => av1::starts_key_frame(payload),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_payload_panics(payload in proptest::collection::vec(any::<u8>(), 0..64)) {
            for codec in [Codec::Opus, Codec::Vp8, Codec::Vp9, Codec::H264, Codec::Av1] {
                let _ = starts_key_frame(codec, &payload);
            }
        }
    }
}
