//! Which of a subscriber's payload types a publisher's becomes (RFC 3264 section 6.1, RFC 6184 section 8.2.2).

use crate::media::{Codec, Payload};

/// From a publisher's payload type to a subscriber's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TypeMap {
    pub(crate) from: u8,
    pub(crate) to: u8,
    pub(crate) rtx: Option<u8>,
}

/// The subscriber's payload that a publisher's fits: of the same codec, and for codecs whose parameters change
/// the bit stream, of the same parameters.
pub(crate) fn best_match<'p>(payload: &Payload, offered: &'p [Payload]) -> Option<&'p Payload> {
    let same = |candidate: &&Payload| {
        candidate.codec == payload.codec
            && match payload.codec {
                Codec::H264 => {
                    parameter(payload, "packetization-mode").unwrap_or("0")
                        == parameter(candidate, "packetization-mode").unwrap_or("0")
                        && h264_profile(payload) == h264_profile(candidate)
                }
                Codec::Vp9 => {
                    parameter(payload, "profile-id").unwrap_or("0")
                        == parameter(candidate, "profile-id").unwrap_or("0")
                }
                Codec::Av1 => {
                    parameter(payload, "profile").unwrap_or("0")
                        == parameter(candidate, "profile").unwrap_or("0")
                }
                Codec::Opus | Codec::Vp8 => true,
            }
    };
    let exact = offered
        .iter()
        .filter(same)
        .find(|candidate| candidate.fmtp == payload.fmtp);
    exact.or_else(|| offered.iter().find(same))
}

fn parameter<'p>(payload: &'p Payload, name: &str) -> Option<&'p str> {
    payload.fmtp.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

/// `profile_idc` of `profile-level-id`; baseline when it is absent (RFC 6184 section 8.1). Constrained and plain
/// baseline decode alike, and levels are the encoder's to keep.
fn h264_profile(payload: &Payload) -> [u8; 2] {
    let id = parameter(payload, "profile-level-id")
        .unwrap_or("42e01f")
        .as_bytes();
    match id {
        [first, second, ..] => [first.to_ascii_lowercase(), second.to_ascii_lowercase()],
        _ => *b"42",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(pt: u8, codec: Codec, fmtp: &str) -> Payload {
        Payload {
            pt,
            codec,
            clock_rate: 90_000,
            rtx: None,
            nack: true,
            pli: true,
            fir: true,
            transport_cc: true,
            remb: true,
            fmtp: fmtp.to_owned(),
        }
    }

    #[test]
    fn payload_types_match_by_codec_and_by_what_changes_the_bit_stream() {
        let baseline = payload(
            102,
            Codec::H264,
            "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f",
        );
        let offered = [
            payload(96, Codec::Vp8, ""),
            payload(97, Codec::H264, "packetization-mode=0;profile-level-id=42e01f"),
            payload(98, Codec::H264, "packetization-mode=1; profile-level-id=64001f"),
            payload(99, Codec::H264, "packetization-mode=1; profile-level-id=42001F"),
        ];
        assert_eq!(
            best_match(&baseline, &offered).map(|payload| payload.pt),
            Some(99)
        );
        assert_eq!(
            best_match(&payload(1, Codec::Vp8, ""), &offered).map(|payload| payload.pt),
            Some(96)
        );
        assert_eq!(best_match(&payload(1, Codec::Av1, ""), &offered), None);
        let vp9 = [
            payload(98, Codec::Vp9, "profile-id=2"),
            payload(99, Codec::Vp9, "profile-id=0"),
        ];
        assert_eq!(
            best_match(&payload(1, Codec::Vp9, ""), &vp9).map(|payload| payload.pt),
            Some(99)
        );
    }
}
