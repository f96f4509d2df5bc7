//! What real clients' offers are answered (RFC 8829 section 5.3): each recorded offer with its answer, its notes and
//! the state that the packet stages get, as snapshots.
#![allow(missing_docs, clippy::unwrap_used)]

mod negotiator;

use negotiator::{answer, recorded, relay, section};
use sfu::media::{Codec, DtlsRole, Kind, Role, SourceSsrc};
use sfu::sdp::{Note, Purpose};

fn snapshot(name: &str, purpose: Purpose) {
    let answer = answer(purpose, &recorded(name)).unwrap();
    let notes: String = answer
        .notes
        .iter()
        .map(|note| format!("note: {note}\n"))
        .collect();
    let text = format!(
        "{}\n{notes}{:?}\n{:#?}",
        answer.sdp.replace("\r\n", "\n"),
        answer.transport.role,
        answer.media
    );
    insta::assert_snapshot!(name, text);
}

#[test]
fn chromium_publishes() {
    snapshot("chromium-sendonly", Purpose::Publish);
    snapshot("chromium-sendrecv", Purpose::Publish);
    snapshot("chromium-simulcast", Purpose::Publish);
    snapshot("chromium-datachannel-first", Purpose::Publish);
}

#[test]
fn chromium_subscribes() {
    snapshot("chromium-recvonly", Purpose::Subscribe);
}

#[test]
fn firefox_publishes() {
    snapshot("firefox", Purpose::Publish);
}

#[test]
fn safari_subscribes() {
    snapshot("safari", Purpose::Subscribe);
}

#[test]
fn obs_publishes() {
    snapshot("obs", Purpose::Publish);
}

#[test]
fn gstreamer_publishes() {
    snapshot("gstreamer", Purpose::Publish);
}

#[test]
fn ffmpeg_publishes() {
    snapshot("ffmpeg", Purpose::Publish);
    snapshot("ffmpeg-video-only", Purpose::Publish);
}

#[test]
fn a_publisher_is_answered_vp8_with_rtx_and_no_other_codec() {
    let answer = answer(Purpose::Publish, &recorded("chromium-sendonly")).unwrap();
    let video = &answer.media.lines[1];
    assert_eq!(video.payloads.len(), 1);
    let payload = &video.payloads[0];
    assert_eq!(
        (payload.codec, payload.pt, payload.rtx),
        (Codec::Vp8, 96, Some(97))
    );
    assert!(payload.nack && payload.pli && payload.fir && payload.transport_cc);
    let Role::Receive { ssrcs } = &video.role else {
        panic!("{video:?}")
    };
    assert!(matches!(ssrcs[..], [SourceSsrc { rtx: Some(_), .. }]));
    assert!(answer.notes.is_empty());
}

#[test]
fn a_subscriber_keeps_every_codec_it_offered_and_has_no_transport_cc() {
    let answer = answer(Purpose::Subscribe, &recorded("safari")).unwrap();
    let video = &answer.media.lines[1];
    let codecs: Vec<(Codec, u8)> = video
        .payloads
        .iter()
        .map(|payload| (payload.codec, payload.pt))
        .collect();
    assert_eq!(
        codecs,
        [
            (Codec::H264, 96),
            (Codec::H264, 98),
            (Codec::Vp8, 102),
            (Codec::Vp9, 104)
        ]
    );
    assert!(!answer.sdp.contains("transport-cc") && !answer.sdp.contains("transport-wide-cc"));
    assert!(answer.sdp.contains("goog-remb"));
}

#[test]
fn audio_and_video_of_a_slot_share_stream_and_cname_for_lip_sync() {
    let answer = answer(Purpose::Subscribe, &recorded("chromium-recvonly")).unwrap();
    let cnames: Vec<&str> = answer
        .media
        .lines
        .iter()
        .map(|line| match &line.role {
            Role::Send { cname, .. } => cname.as_str(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(cnames[0], cnames[1]);
    for mid in ["0", "1"] {
        let section = section(&answer.sdp, mid);
        assert!(
            section.contains(&format!("a=msid:{} {}-", cnames[0], cnames[0])),
            "{section}"
        );
        assert!(section.contains(&format!("cname:{}\r\n", cnames[0])), "{section}");
    }
}

#[test]
fn a_passive_client_is_answered_active_and_others_passive() {
    for (name, role, setup) in [
        ("ffmpeg", DtlsRole::Active, "a=setup:active\r\n"),
        ("obs", DtlsRole::Passive, "a=setup:passive\r\n"),
        ("chromium-sendonly", DtlsRole::Passive, "a=setup:passive\r\n"),
    ] {
        let answer = answer(Purpose::Publish, &recorded(name)).unwrap();
        assert_eq!(answer.transport.role, role, "{name}");
        assert_eq!(
            answer.sdp.matches("a=setup:").count(),
            answer.sdp.matches(setup).count(),
            "{name}"
        );
    }
}

#[test]
fn the_answer_is_ice_lite_with_all_candidates_at_the_head_of_the_bundle() {
    let answer = answer(Purpose::Publish, &recorded("chromium-datachannel-first")).unwrap();
    assert!(answer.sdp.contains("\r\na=ice-lite\r\n"));
    let group = answer
        .sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=group:BUNDLE "))
        .unwrap();
    let head = section(&answer.sdp, group.split(' ').next().unwrap());
    assert!(
        head.contains("a=candidate:1 1 udp 2130706431 192.0.2.1 5004 typ host\r\n"),
        "{head}"
    );
    assert!(head.contains(" 2001:db8::1 5004 typ host\r\n"), "{head}");
    assert!(head.contains("a=end-of-candidates\r\n"));
    assert_eq!(answer.sdp.matches("a=candidate:").count(), 2);
    let rejected = answer
        .sdp
        .split("\r\nm=")
        .find(|section| section.starts_with("application"))
        .unwrap();
    assert!(
        rejected.starts_with("application 0 UDP/DTLS/SCTP webrtc-datachannel\r\n"),
        "{rejected}"
    );
    assert!(!rejected.contains("ice-ufrag"));
}

#[test]
fn a_bundle_only_line_has_port_0_and_is_served() {
    let answer = answer(Purpose::Publish, &recorded("gstreamer")).unwrap();
    assert_eq!(answer.media.lines.len(), 2);
    assert_eq!(answer.media.lines[1].kind, Kind::Video);
    assert!(matches!(answer.media.lines[1].role, Role::Receive { .. }));
}

#[test]
fn simulcast_is_not_agreed_to_and_rids_are_known_for_removal() {
    let answer = answer(Purpose::Publish, &recorded("chromium-simulcast")).unwrap();
    assert!(!answer.sdp.contains("a=simulcast") && !answer.sdp.contains("a=rid:"));
    assert!(!answer.sdp.contains("rtp-stream-id"));
    assert!(answer.media.extensions.rid.is_some());
}

#[test]
fn an_unknown_codec_costs_its_line_only_and_is_said() {
    let offer = recorded("obs").replace("H264/90000", "H265/90000");
    let answer = answer(Purpose::Publish, &offer).unwrap();
    assert_eq!(answer.notes, [Note::CodecRefused { kind: Kind::Video }]);
    assert!(answer.notes[0].to_string().contains("video refused: codec"));
    assert_eq!(answer.media.lines.len(), 1);
    assert!(answer.sdp.contains("\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\n"));
    assert!(answer.sdp.contains("a=group:BUNDLE 0\r\n"));
}

#[test]
fn candidates_of_any_kind_and_number_are_ignored() {
    let plain = answer(Purpose::Publish, &recorded("obs")).unwrap();
    let mut many = String::from("a=candidate:x 1 tcp 1 <script>.local 9 typ host\r\n");
    for port in 0..500 {
        many += &format!("a=candidate:{port} 1 udp 1 192.0.2.9 {port} typ srflx\r\n");
    }
    let offer = recorded("obs").replace(
        "a=candidate:1 1 UDP 2122317823 192.0.2.53 57249 typ host\r\n",
        &many,
    );
    assert_eq!(answer(Purpose::Publish, &offer).unwrap().sdp, plain.sdp);
}

#[test]
fn a_second_camera_is_left_inactive() {
    let offer = recorded("chromium-sendonly");
    let (head, video) = offer.split_once("m=video").unwrap();
    let second = video.replace("a=mid:1", "a=mid:2");
    let offer = format!("{head}m=video{video}m=video{second}").replace("BUNDLE 0 1", "BUNDLE 0 1 2");
    let answer = relay(Purpose::Call).answer(&offer).unwrap();
    assert_eq!(answer.notes, [Note::SecondStream { kind: Kind::Video }]);
    assert!(section(&answer.sdp, "2").contains("a=inactive\r\n"));
    assert_eq!(answer.media.lines[2].role, Role::Inactive);
}
