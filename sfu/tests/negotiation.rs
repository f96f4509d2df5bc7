//! A session's life in descriptions (RFC 8829 sections 3.4.1, 4.1.10 and 5.2.2): a recorded Chromium call with
//! offers of the relay, stopped and recycled m-lines, ICE restart; glare and late answers.
#![allow(missing_docs, clippy::unwrap_used)]

mod negotiator;

use negotiator::{recorded, relay, section};
use sfu::media::{Mid, Role};
use sfu::room::{Published, Slot};
use sfu::sdp::{Fragment, Negotiation, Purpose, SdpError};

fn in_call(step: &str) -> String {
    recorded(&format!("chromium-call/{step}"))
}

fn mid(text: &str) -> Option<Mid> {
    Some(Mid::new(text).unwrap())
}

/// SSRC pair of a line that the relay sends on.
fn ssrcs(negotiation: &Negotiation, text: &str) -> (u32, Option<u32>) {
    let media = negotiation.media();
    let line = media.lines.iter().find(|line| line.mid.as_str() == text).unwrap();
    match line.role {
        Role::Send { ssrc, rtx_ssrc, .. } => (ssrc, rtx_ssrc),
        ref other => panic!("{other:?}"),
    }
}

const BOTH: Published = Published {
    audio: true,
    video: true,
};

#[test]
fn a_recorded_call_grows_stops_its_camera_restarts_it_and_restarts_ice() {
    let mut call = relay(Purpose::Call);
    let first = call.answer(&in_call("1-offer")).unwrap();
    assert_eq!(call.published(), BOTH);
    assert_eq!(
        call.slots(),
        [Slot {
            audio: mid("2"),
            video: mid("3")
        }]
    );
    let fixed = ssrcs(&call, "3");

    let (offer, seq) = call.offer_more(1, 1).unwrap();
    assert!(offer.contains("a=group:BUNDLE 0 1 2 3 r0 r1\r\n"), "{offer}");
    assert!(offer.matches("a=setup:actpass").count() == 6 && !offer.contains("a=setup:passive"));
    let (media, transport) = call.accept_answer(seq, &in_call("2-answer")).unwrap();
    assert_eq!(transport, first.transport);
    assert_eq!(media.lines.len(), 6);
    let slots = [
        Slot {
            audio: mid("2"),
            video: mid("3"),
        },
        Slot {
            audio: mid("r0"),
            video: mid("r1"),
        },
    ];
    assert_eq!(call.slots(), slots);

    let stopped = call.answer(&in_call("3-offer")).unwrap();
    assert_eq!(
        call.published(),
        Published {
            audio: true,
            video: false
        }
    );
    assert!(
        stopped.sdp.contains("\r\nm=video 0 UDP/TLS/RTP/SAVPF"),
        "{}",
        stopped.sdp
    );
    assert_eq!(call.slots(), slots);

    let recycled = call.answer(&in_call("4-offer")).unwrap();
    assert_eq!(call.published(), BOTH);
    assert_eq!(recycled.media.lines.len(), 6);
    assert_eq!(recycled.transport, first.transport);

    let restarted = call.answer(&in_call("5-offer")).unwrap();
    assert_ne!(restarted.transport.remote, first.transport.remote);
    assert_ne!(restarted.transport.local, first.transport.local);
    assert_eq!(restarted.transport.role, first.transport.role);
    assert_eq!(ssrcs(&call, "3"), fixed, "a line keeps its SSRCs for its life");
}

#[test]
fn the_version_of_the_description_rises_with_each_one_and_the_id_stays() {
    let mut call = relay(Purpose::Call);
    let origin = |sdp: &str| {
        let line = sdp.lines().find_map(|line| line.strip_prefix("o=- ")).unwrap();
        let mut words = line.split(' ').map(str::to_owned);
        (
            words.next().unwrap(),
            words.next().unwrap().parse::<u64>().unwrap(),
        )
    };
    let first = origin(&call.answer(&in_call("1-offer")).unwrap().sdp);
    let (offer, _) = call.offer_more(1, 1).unwrap();
    let second = origin(&offer);
    assert_eq!(first.0, second.0);
    assert_eq!(second.1, first.1 + 1);
    assert!(first.0.parse::<i64>().is_ok(), "fits a signed 64-bit integer");
}

#[test]
fn glare_is_for_the_client_to_roll_back_and_costs_nothing() {
    let mut call = relay(Purpose::Call);
    call.answer(&in_call("1-offer")).unwrap();
    let (_, seq) = call.offer_more(1, 1).unwrap();
    assert!(call.is_offering());
    let lost = call.answer(&in_call("3-offer")).unwrap_err();
    assert!(lost.is_glare(), "{lost}");
    assert!(call.offer_more(1, 0).unwrap_err().is_glare());
    assert_eq!(
        call.accept_answer(seq + 1, &in_call("2-answer")),
        Err(SdpError::StaleAnswer { seq: seq + 1 })
    );
    call.accept_answer(seq, &in_call("2-answer")).unwrap();
    assert_eq!(
        call.accept_answer(seq, &in_call("2-answer")),
        Err(SdpError::StaleAnswer { seq })
    );
    call.answer(&in_call("3-offer")).unwrap();
}

#[test]
fn an_abandoned_offer_leaves_everything_as_it_was() {
    let mut call = relay(Purpose::Call);
    call.answer(&in_call("1-offer")).unwrap();
    let before = (call.media(), call.slots());
    let (_, seq) = call.offer_more(2, 2).unwrap();
    call.abandon_offer();
    assert_eq!((call.media(), call.slots()), before);
    assert!(call.accept_answer(seq, &in_call("2-answer")).is_err());
    call.answer(&in_call("1-offer")).unwrap();
}

#[test]
fn a_refused_answer_leaves_the_offer_open() {
    let mut call = relay(Purpose::Call);
    call.answer(&in_call("1-offer")).unwrap();
    let (_, seq) = call.offer_more(1, 1).unwrap();
    let good = in_call("2-answer");
    let other_key = good.replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:");
    let other_key = other_key.replace(":00:", ":"); // keeps it malformed: one byte too many or none at all
    for bad in [
        "v=0\r\n".to_owned(),
        other_key,
        good.replace("a=ice-ufrag:", "a=ice-ufrag:zz"),
        good.replace("a=mid:r0", "a=mid:r9"),
        good.replace("a=rtcp-mux\r\n", ""),
        in_call("1-offer"),
    ] {
        assert!(call.accept_answer(seq, &bad).is_err(), "{bad}");
        assert!(call.is_offering());
    }
    call.accept_answer(seq, &good).unwrap();
}

#[test]
fn declined_lines_are_no_slots() {
    let mut call = relay(Purpose::Call);
    call.answer(&in_call("1-offer")).unwrap();
    let (_, seq) = call.offer_more(1, 1).unwrap();
    let answer = in_call("2-answer");
    let (head, last) = answer.rsplit_once("m=video").unwrap();
    let declined = format!("{head}m=video{}", last.replace("a=recvonly", "a=inactive"));
    let (media, _) = call.accept_answer(seq, &declined).unwrap();
    assert_eq!(media.lines[5].role, Role::Inactive);
    assert_eq!(
        call.slots()[1],
        Slot {
            audio: mid("r0"),
            video: None
        }
    );
}

#[test]
fn more_lines_than_a_session_may_have_are_not_offered() {
    let mut call = relay(Purpose::Call);
    assert_eq!(call.offer_more(1, 1), Err(SdpError::NotNegotiated));
    call.answer(&in_call("1-offer")).unwrap();
    assert_eq!(call.offer_more(31, 30), Err(SdpError::TooManyLines));
    assert_eq!(call.offer_more(usize::MAX, 1), Err(SdpError::TooManyLines));
    let (offer, _) = call.offer_more(15, 15).unwrap();
    assert!(offer.len() < 64 * 1024, "{} bytes", offer.len());
}

#[test]
fn a_client_without_video_is_offered_video_on_free_payload_types() {
    let mut call = relay(Purpose::Call);
    let offer = recorded("chromium-sendonly");
    let (audio, _) = offer.split_once("m=video").unwrap();
    call.answer(&audio.replace("BUNDLE 0 1", "BUNDLE 0")).unwrap();
    let (offer, _) = call.offer_more(1, 1).unwrap();
    let video = section(&offer, "r1");
    assert!(
        video.contains("VP8/90000") && video.contains("H264/90000"),
        "{video}"
    );
    assert!(!video.contains("a=rtpmap:111 "), "{video}");
}

#[test]
fn lines_cannot_vanish_or_change_places() {
    let mut call = relay(Purpose::Call);
    call.answer(&in_call("1-offer")).unwrap();
    let fewer = in_call("1-offer");
    let (fewer, _) = fewer.rsplit_once("m=video").unwrap();
    assert_eq!(
        call.answer(fewer).unwrap_err(),
        SdpError::LinesMissing {
            found: 3,
            expected: 4
        }
    );
    let swapped = in_call("1-offer")
        .replace("a=mid:2", "a=mid:9")
        .replace("BUNDLE 0 1 2", "BUNDLE 0 1 9");
    assert_eq!(
        call.answer(&swapped).unwrap_err(),
        SdpError::LineChanged { index: 2 }
    );
}

#[test]
fn another_certificate_or_swapped_roles_need_another_session() {
    let mut call = relay(Purpose::Call);
    let offer = in_call("1-offer");
    call.answer(&offer).unwrap();
    let line = offer
        .lines()
        .find(|line| line.starts_with("a=fingerprint"))
        .unwrap();
    let other = offer.replace(line, &format!("a=fingerprint:sha-256 {}", ["00"; 32].join(":")));
    assert_eq!(call.answer(&other).unwrap_err(), SdpError::FingerprintChanged);
    let passive = offer.replace("a=setup:actpass", "a=setup:passive");
    assert_eq!(call.answer(&passive).unwrap_err(), SdpError::RoleChanged);
    call.answer(&offer.replace("a=setup:actpass", "a=setup:active"))
        .unwrap();
}

#[test]
fn ice_restarts_without_sdp_and_the_fragment_carries_the_new_credentials() {
    let mut whip = relay(Purpose::Publish);
    assert_eq!(
        whip.restart_ice("abcd", &"p".repeat(22)),
        Err(SdpError::NotNegotiated)
    );
    let before = whip.answer(&recorded("obs")).unwrap().transport;
    assert_eq!(whip.remote_ice(), Some(&before.remote));
    let after = whip.restart_ice("abcd", &"p".repeat(22)).unwrap();
    assert_eq!(after.remote.ufrag, "abcd");
    assert_ne!(after.local, before.local);
    let text = whip.fragment();
    let fragment = Fragment::parse(&text).unwrap();
    assert_eq!(fragment.ice, Some(after.local));
    assert_eq!((fragment.candidates, fragment.end_of_candidates), (2, true));
    assert!(
        text.starts_with("a=ice-lite\r\n")
            && text.contains("\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n")
    );
    assert!(whip.restart_ice("a", "b").is_err());
}
