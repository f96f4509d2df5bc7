//! Payload types: `a=rtpmap`, `a=fmtp`, `a=rtcp-fb` of one m-line read into [`Payload`]s, with RTX (RFC 4588)
//! folded into the codec it repairs, and the choice among them.

use std::collections::BTreeMap;

use sdp_types::Attribute;

use super::VideoCodecs;
use super::error::SdpError;
use crate::media::{Codec, Kind, Mid, Payload};

/// Payload types that RTCP packet types collide with once the marker bit is set (RFC 5761 section 4).
const RTCP_COLLISIONS: std::ops::RangeInclusive<u8> = 64..=95;
/// Static payload types (RFC 3551 section 6) need no `a=rtpmap`; all others do.
const STATIC_MAX: u8 = 34;
/// Payload types looked at in one m-line: there are no more than 128.
const FORMATS_MAX: usize = 128;
/// `a=rtcp-fb` lines looked at in one m-line: Chromium's longest has about 60.
const FEEDBACK_MAX: usize = 512;
/// Longest value of an `a=fmtp` parameter that is kept.
const PARAMETER_LENGTH_MAX: usize = 32;

/// The payloads of an m-line that the relay can carry, in the order of the m-line. Errs on a dynamic payload type
/// that has no `a=rtpmap`: that is what an SDP cut in the middle looks like.
pub(super) fn read(
    mid: Mid,
    kind: Kind,
    formats: &str,
    attributes: &[Attribute],
) -> Result<Vec<Payload>, SdpError> {
    let listed: Vec<u8> = formats
        .split_ascii_whitespace()
        .take(FORMATS_MAX)
        .filter_map(|format| format.parse().ok())
        .filter(|pt: &u8| *pt < 128)
        .collect();
    let mut maps: BTreeMap<u8, &str> = BTreeMap::new();
    let mut parameters: BTreeMap<u8, &str> = BTreeMap::new();
    let mut feedback: Vec<(Option<u8>, &str)> = Vec::new();
    for attribute in attributes {
        let Some((target, value)) = attribute
            .value
            .as_deref()
            .and_then(|value| value.trim().split_once(' '))
        else {
            continue;
        };
        let pt = target.parse::<u8>().ok();
        match (attribute.attribute.as_str(), pt) {
            ("rtpmap", Some(pt)) => {
                maps.entry(pt).or_insert(value.trim());
            }
            ("rtpmap", None) => {
                return Err(SdpError::BadAttribute {
                    mid,
                    attribute: "rtpmap",
                });
            }
            ("fmtp", Some(pt)) => {
                parameters.entry(pt).or_insert(value.trim());
            }
            ("rtcp-fb", _) if (pt.is_some() || target == "*") && feedback.len() < FEEDBACK_MAX => {
                feedback.push((pt, value.trim()));
            }
            _ => {}
        }
    }
    if let Some(pt) = listed
        .iter()
        .copied()
        .find(|pt| *pt > STATIC_MAX && !maps.contains_key(pt))
    {
        return Err(SdpError::MissingRtpmap { mid, pt });
    }

    let repairs = repairs(&listed, &maps, &parameters);
    let mut payloads: Vec<Payload> = Vec::new();
    for pt in listed {
        let Some((codec, clock_rate)) = maps.get(&pt).and_then(|map| codec(map, kind)) else {
            continue;
        };
        let seen = payloads.iter().any(|payload| payload.pt == pt);
        if seen || RTCP_COLLISIONS.contains(&pt) {
            continue;
        }
        let agreed = |wanted: &str| {
            feedback.iter().any(|(target, value)| {
                target.is_none_or(|target| target == pt) && value.eq_ignore_ascii_case(wanted)
            })
        };
        payloads.push(Payload {
            pt,
            codec,
            clock_rate,
            rtx: repairs
                .get(&pt)
                .copied()
                .filter(|rtx| !RTCP_COLLISIONS.contains(rtx)),
            nack: agreed("nack"),
            pli: agreed("nack pli"),
            fir: agreed("ccm fir"),
            transport_cc: agreed("transport-cc"),
            remb: agreed("goog-remb"),
            fmtp: agreed_parameters(codec, parameters.get(&pt).copied().unwrap_or("")),
        });
    }
    Ok(payloads)
}

/// Payload type -> payload type of its retransmissions.
fn repairs(listed: &[u8], maps: &BTreeMap<u8, &str>, parameters: &BTreeMap<u8, &str>) -> BTreeMap<u8, u8> {
    let mut repairs = BTreeMap::new();
    for &rtx in listed {
        let is_rtx = maps
            .get(&rtx)
            .and_then(|map| map.split('/').next())
            .is_some_and(|name| name.eq_ignore_ascii_case("rtx"));
        let apt = parameters
            .get(&rtx)
            .and_then(|text| parameter(text, "apt"))
            .and_then(|apt| apt.parse().ok());
        if let (true, Some(apt)) = (is_rtx, apt)
            && apt != rtx
        {
            repairs.entry(apt).or_insert(rtx);
        }
    }
    repairs
}

fn codec(map: &str, kind: Kind) -> Option<(Codec, u32)> {
    let mut words = map.split('/');
    let codec = Codec::from_name(words.next()?).filter(|codec| codec.kind() == kind)?;
    let clock_rate = words.next()?.parse().ok()?;
    let expected = match codec {
        Codec::Opus => 48_000,
        _ => 90_000,
    };
    (clock_rate == expected).then_some((codec, clock_rate))
}

/// One parameter of an `a=fmtp` value.
fn parameter<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let harmless = |value: &&str| {
            value.len() <= PARAMETER_LENGTH_MAX && value.bytes().all(|byte| byte.is_ascii_alphanumeric())
        };
        key.trim()
            .eq_ignore_ascii_case(name)
            .then(|| value.trim())
            .filter(harmless)
    })
}

/// The `a=fmtp` that both sides live by: of what was offered, the parameters that name the format.
fn agreed_parameters(codec: Codec, offered: &str) -> String {
    let keep = |names: &[&str]| {
        let pairs = names
            .iter()
            .filter_map(|name| Some(format!("{name}={}", parameter(offered, name)?)));
        pairs.collect::<Vec<_>>().join(";")
    };
    match codec {
        Codec::Opus => {
            let wants = |name: &str| parameter(offered, name) == Some("1");
            // What the relay asks a publisher for is what its subscribers would: FEC, and stereo if there is any.
            let stereo = if wants("stereo") || wants("sprop-stereo") {
                ";stereo=1"
            } else {
                ""
            };
            let dtx = if wants("usedtx") { ";usedtx=1" } else { "" };
            format!("minptime=10;useinbandfec=1{stereo}{dtx}")
        }
        Codec::H264 => keep(&[
            "level-asymmetry-allowed",
            "packetization-mode",
            "profile-level-id",
        ]),
        Codec::Vp9 => keep(&["profile-id"]),
        Codec::Av1 => keep(&["level-idx", "profile", "tier"]),
        Codec::Vp8 => String::new(),
    }
}

/// The one payload that a publisher is answered: what most subscribers will be able to decode.
pub(super) fn choose(kind: Kind, offered: &[Payload], video: &VideoCodecs) -> Option<Payload> {
    let best_of = |codec: Codec| {
        offered
            .iter()
            .filter(|payload| payload.codec == codec)
            .min_by_key(|payload| rarity(payload))
            .cloned()
    };
    if kind == Kind::Audio {
        return best_of(Codec::Opus);
    }
    let preferred = video.preferred.iter().find_map(|codec| best_of(*codec));
    preferred.or_else(|| {
        offered
            .first()
            .filter(|_| video.others)
            .and_then(|first| best_of(first.codec))
    })
}

/// H.264 of any profile in packetization mode 1, and profile 0 of VP9 and AV1.
const RARITY_OFFERED_MAX: u8 = 2;

/// How few decoders take this variant of its codec: 0 is what everybody takes.
fn rarity(payload: &Payload) -> u8 {
    let value = |name| parameter(&payload.fmtp, name).unwrap_or("").to_ascii_lowercase();
    match payload.codec {
        Codec::H264 => {
            let single_nal = if value("packetization-mode") == "1" { 0 } else { 4 };
            let profile = match value("profile-level-id").get(..4) {
                Some("42e0" | "42c0") => 0,
                Some("4200") => 1,
                _ => 2,
            };
            single_nal + profile
        }
        Codec::Vp9 if matches!(value("profile-id").as_str(), "" | "0") => 0,
        Codec::Av1 if matches!(value("profile").as_str(), "" | "0") => 0,
        Codec::Vp9 | Codec::Av1 => 4,
        Codec::Opus | Codec::Vp8 => 0,
    }
}

/// Of what a client decodes, what the relay offers it on a line of its own. Rare variants are left out: sixteen
/// slots of everything that Chromium knows do not fit into one description.
pub(super) fn worth_offering(decodes: &[Payload]) -> Vec<Payload> {
    decodes
        .iter()
        .filter(|payload| rarity(payload) <= RARITY_OFFERED_MAX)
        .cloned()
        .collect()
}

/// What the relay offers a client that never told what it decodes: Opus, VP8 and H.264 on payload types that
/// `taken` leaves free.
pub(super) fn defaults(kind: Kind, taken: impl Fn(u8) -> bool) -> Vec<Payload> {
    let mut free = (96..=127).chain(35..=63).filter(|pt| !taken(*pt));
    let mut payload = |codec: Codec, offered: &str| {
        let video = kind == Kind::Video;
        Some(Payload {
            pt: free.next()?,
            codec,
            clock_rate: if video { 90_000 } else { 48_000 },
            rtx: if video { Some(free.next()?) } else { None },
            nack: video,
            pli: video,
            fir: video,
            transport_cc: false,
            remb: video,
            fmtp: agreed_parameters(codec, offered),
        })
    };
    let baseline = "level-asymmetry-allowed=1;packetization-mode=1;profile-level-id=42e01f";
    let payloads = match kind {
        Kind::Audio => vec![payload(Codec::Opus, "")],
        Kind::Video => vec![payload(Codec::Vp8, ""), payload(Codec::H264, baseline)],
    };
    payloads.into_iter().flatten().collect()
}

/// What of our offered payloads an answer left standing.
pub(super) fn intersect(ours: &[Payload], theirs: &[Payload]) -> Vec<Payload> {
    let both = ours.iter().filter_map(|our| {
        let their = theirs
            .iter()
            .find(|their| their.pt == our.pt && their.codec == our.codec)?;
        Some(Payload {
            rtx: our.rtx.filter(|rtx| their.rtx == Some(*rtx)),
            nack: our.nack && their.nack,
            pli: our.pli && their.pli,
            fir: our.fir && their.fir,
            transport_cc: our.transport_cc && their.transport_cc,
            remb: our.remb && their.remb,
            ..our.clone()
        })
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(formats: &str, attributes: &[(&str, &str)]) -> Result<Vec<Payload>, SdpError> {
        let attributes: Vec<Attribute> = attributes
            .iter()
            .map(|(name, value)| Attribute::with_value(name, value))
            .collect();
        read(Mid::new("v").unwrap(), Kind::Video, formats, &attributes)
    }

    #[test]
    fn rtx_belongs_to_the_codec_it_repairs() {
        let payloads = line(
            "96 97 98",
            &[
                ("rtpmap", "96 VP8/90000"),
                ("rtpmap", "97 rtx/90000"),
                ("fmtp", "97 apt=96"),
                ("rtpmap", "98 red/90000"),
                ("rtcp-fb", "* nack pli"),
                ("rtcp-fb", "96 nack"),
                ("rtcp-fb", "97 goog-remb"),
            ],
        )
        .unwrap();
        assert_eq!(payloads.len(), 1);
        assert_eq!((payloads[0].pt, payloads[0].rtx), (96, Some(97)));
        assert!(payloads[0].nack && payloads[0].pli && !payloads[0].fir && !payloads[0].remb);
    }

    #[test]
    fn a_payload_type_without_its_rtpmap_means_a_cut_sdp() {
        let error = line("96 97", &[("rtpmap", "96 VP8/90000")]).unwrap_err();
        assert_eq!(
            error,
            SdpError::MissingRtpmap {
                mid: Mid::new("v").unwrap(),
                pt: 97
            }
        );
    }

    #[test]
    fn payload_types_that_look_like_rtcp_are_passed_over() {
        let payloads = line(
            "72 100",
            &[("rtpmap", "72 VP8/90000"), ("rtpmap", "100 VP8/90000")],
        )
        .unwrap();
        assert_eq!(
            payloads.iter().map(|payload| payload.pt).collect::<Vec<_>>(),
            [100]
        );
    }

    #[test]
    fn the_codec_everybody_decodes_is_chosen() {
        let payloads = line(
            "100 101 102",
            &[
                ("rtpmap", "100 H264/90000"),
                ("fmtp", "100 packetization-mode=0;profile-level-id=42e01f"),
                ("rtpmap", "101 H264/90000"),
                ("fmtp", "101 packetization-mode=1;profile-level-id=640c1f"),
                ("rtpmap", "102 H264/90000"),
                (
                    "fmtp",
                    "102 packetization-mode=1; profile-level-id=42E01F; sprop-parameter-sets=<b>",
                ),
            ],
        )
        .unwrap();
        let only_h264 = VideoCodecs {
            preferred: vec![Codec::Vp8, Codec::H264],
            others: false,
        };
        let chosen = choose(Kind::Video, &payloads, &only_h264).unwrap();
        assert_eq!(chosen.pt, 102);
        assert_eq!(chosen.fmtp, "packetization-mode=1;profile-level-id=42E01F");
        let only_vp8 = VideoCodecs {
            preferred: vec![Codec::Vp8],
            others: false,
        };
        assert_eq!(choose(Kind::Video, &payloads, &only_vp8), None);
    }

    #[test]
    fn defaults_take_free_payload_types_only() {
        let payloads = defaults(Kind::Video, |pt| (96..=126).contains(&pt));
        let used: Vec<u8> = payloads
            .iter()
            .flat_map(|p| [Some(p.pt), p.rtx])
            .flatten()
            .collect();
        assert_eq!(used, [127, 35, 36, 37]);
        assert!(defaults(Kind::Video, |_| true).is_empty());
    }
}
