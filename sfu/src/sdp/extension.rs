//! RTP header extensions in SDP: `a=extmap` (RFC 8285 section 5), one id map for the whole BUNDLE.

use super::state::Flow;
use crate::media::{ExtensionMap, Kind};

/// The highest id where one- and two-byte forms may be mixed (`a=extmap-allow-mixed`), and where not.
const ID_MAX_MIXED: u8 = 255;
const ID_MAX: u8 = 14;

/// A header extension that the relay knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extension {
    Mid,
    Rid,
    RepairedRid,
    AbsSendTime,
    TransportWideCc,
    AudioLevel,
}

const KNOWN: [(Extension, &str); 6] = [
    (Extension::Mid, "urn:ietf:params:rtp-hdrext:sdes:mid"),
    (Extension::Rid, "urn:ietf:params:rtp-hdrext:sdes:rtp-stream-id"),
    (
        Extension::RepairedRid,
        "urn:ietf:params:rtp-hdrext:sdes:repaired-rtp-stream-id",
    ),
    (
        Extension::AbsSendTime,
        "http://www.webrtc.org/experiments/rtp-hdrext/abs-send-time",
    ),
    (
        Extension::TransportWideCc,
        "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01",
    ),
    (
        Extension::AudioLevel,
        "urn:ietf:params:rtp-hdrext:ssrc-audio-level",
    ),
];

impl Extension {
    fn from_uri(uri: &str) -> Option<Extension> {
        KNOWN
            .iter()
            .find(|(_, known)| *known == uri)
            .map(|(extension, _)| *extension)
    }

    pub(super) fn uri(self) -> &'static str {
        let known = KNOWN.iter().find(|(extension, _)| *extension == self);
        known
            .map(|(_, uri)| *uri)
            .expect("every extension has its URI in KNOWN")
    }

    /// Whether an answer agrees to it on a line of that kind. Video orientation and the dependency descriptor are
    /// left out on purpose: a sender without the former turns its pictures itself, which every receiver
    /// understands.
    pub(super) fn agreed(self, kind: Kind, flow: &Flow, transport_cc: bool) -> bool {
        match self {
            Extension::Mid | Extension::AbsSendTime => true,
            Extension::AudioLevel => kind == Kind::Audio,
            // Only where the relay sends the feedback.
            Extension::TransportWideCc => matches!(flow, Flow::Receive { .. }) && transport_cc,
            // Simulcast is not agreed to, so no stream has a RID; the ids are kept so that they can be removed.
            Extension::Rid | Extension::RepairedRid => false,
        }
    }
}

/// The value of one `a=extmap`, or `None` for extensions and ids of no use to us.
pub(super) fn parse(value: &str, mixed: bool) -> Option<(u8, Extension)> {
    let mut words = value.split_ascii_whitespace();
    let id = words.next()?.split('/').next()?.parse::<u8>().ok()?;
    let extension = Extension::from_uri(words.next()?)?;
    let id_max = if mixed { ID_MAX_MIXED } else { ID_MAX };
    // 15 is reserved in the one-byte form.
    (id != 0 && id != 15 && id <= id_max).then_some((id, extension))
}

/// Enters the extension into the BUNDLE's map. `false` when the id or the extension is taken differently: then
/// the line has to do without (RFC 9143 section 9.2 forbids two meanings).
pub(super) fn enter(map: &mut ExtensionMap, id: u8, extension: Extension) -> bool {
    let taken_by_another = KNOWN
        .iter()
        .any(|(other, _)| *other != extension && *field(map, *other) == Some(id));
    if taken_by_another {
        return false;
    }
    let slot = field(map, extension);
    *slot.get_or_insert(id) == id
}

fn field(map: &mut ExtensionMap, extension: Extension) -> &mut Option<u8> {
    match extension {
        Extension::Mid => &mut map.mid,
        Extension::Rid => &mut map.rid,
        Extension::RepairedRid => &mut map.rrid,
        Extension::AbsSendTime => &mut map.abs_send_time,
        Extension::TransportWideCc => &mut map.transport_wide_cc,
        Extension::AudioLevel => &mut map.audio_level,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_uris_and_reserved_ids_are_of_no_use() {
        let mid = "urn:ietf:params:rtp-hdrext:sdes:mid";
        assert_eq!(parse(&format!("4 {mid}"), false), Some((4, Extension::Mid)));
        assert_eq!(
            parse(&format!("4/sendonly {mid}"), false),
            Some((4, Extension::Mid))
        );
        assert_eq!(parse(&format!("15 {mid}"), true), None);
        assert_eq!(parse(&format!("0 {mid}"), true), None);
        assert_eq!(parse(&format!("17 {mid}"), false), None);
        assert_eq!(parse(&format!("17 {mid}"), true), Some((17, Extension::Mid)));
        assert_eq!(parse("3 urn:3gpp:video-orientation", true), None);
        assert_eq!(parse("", true), None);
    }

    #[test]
    fn an_id_has_one_meaning_in_a_bundle() {
        let mut map = ExtensionMap::default();
        assert!(enter(&mut map, 1, Extension::Mid));
        assert!(enter(&mut map, 1, Extension::Mid));
        assert!(!enter(&mut map, 2, Extension::Mid));
        assert!(!enter(&mut map, 1, Extension::AudioLevel));
        assert_eq!(map.audio_level, None);
    }
}
