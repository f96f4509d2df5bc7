//! Bad descriptions (THREATS: "SDP of 1 MB or 1,000 m-lines, ICE candidates by the thousand"): each gets a refusal
//! that names the field and the fix, and nothing panics, whatever the bytes.
#![allow(missing_docs, clippy::unwrap_used)]

mod negotiator;

use std::time::{Duration, Instant};

use negotiator::{answer, recorded, relay};
use proptest::prelude::*;
use sfu::sdp::{Fragment, Purpose, SdpError};

fn refusal(offer: &str) -> SdpError {
    let error = answer(Purpose::Publish, offer).unwrap_err();
    let sentence = error.to_string();
    assert!(
        sentence.len() > 30 && sentence.contains([':', ';']),
        "says what to do: {sentence}"
    );
    assert!(
        !sentence.contains(['<', '>', '&', '"']) || sentence.matches('"').count() == 2,
        "no markup: {sentence}"
    );
    error
}

#[test]
fn a_megabyte_is_refused_unread() {
    let error = refusal(&recorded("obs").repeat(1_000));
    assert_eq!(error, SdpError::TooLarge);
    assert_eq!(error.slug(), "too-large");
}

#[test]
fn a_thousand_m_lines_are_refused() {
    let offer = recorded("obs") + &"m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(1_000);
    assert_eq!(refusal(&offer), SdpError::TooManyLines);
    assert_eq!(SdpError::TooManyLines.slug(), "bad-sdp");
}

#[test]
fn an_offer_cut_in_half_is_refused() {
    for name in [
        "chromium-sendonly",
        "chromium-sendrecv",
        "obs",
        "ffmpeg",
        "firefox",
        "gstreamer",
    ] {
        let whole = recorded(name);
        refusal(&whole[..whole.len() / 2]);
    }
}

#[test]
fn an_offer_cut_anywhere_never_loses_codecs_unnoticed() {
    let whole = recorded("chromium-sendonly");
    let served = answer(Purpose::Publish, &whole).unwrap().media.lines[1].payloads[0].clone();
    for end in (0..whole.len()).step_by(7) {
        if let Ok(answer) = answer(Purpose::Publish, &whole[..end]) {
            let video = answer
                .media
                .lines
                .iter()
                .find(|line| line.payloads[0].codec == served.codec);
            let audio_only = whole[..end].matches("m=").count() == 1;
            assert!(audio_only || video.is_some(), "cut at {end}");
        }
    }
}

#[test]
fn an_offer_of_unknown_codecs_only_is_refused_and_told_the_known_ones() {
    let offer = recorded("obs")
        .replace("H264/90000", "H265/90000")
        .replace("opus/", "speex/");
    let error = refusal(&offer);
    assert!(matches!(error, SdpError::NothingUsable(_)), "{error}");
    assert!(error.to_string().contains("VP8"));
}

#[test]
fn each_missing_or_refused_field_is_named() {
    let obs = recorded("obs");
    let print = obs
        .lines()
        .find(|line| line.starts_with("a=fingerprint"))
        .unwrap();
    for (offer, field) in [
        (obs.replace("a=group:BUNDLE 0 1\r\n", ""), "a=group:BUNDLE"),
        (obs.replace("a=rtcp-mux\r\n", ""), "a=rtcp-mux"),
        (
            obs.replace(print, &format!("a=fingerprint:sha-1 {}", ["AB"; 20].join(":"))),
            "sha-1",
        ),
        (obs.replace(print, "a=fingerprint:sha-256 AB"), "a=fingerprint"),
        (obs.replace(print, "a=x"), "a=fingerprint"),
        (obs.replace("a=mid:1", "a=mid:0"), "a=mid:0"),
        (obs.replace("a=mid:1\r\n", ""), "a=mid"),
        (obs.replace("a=mid:1", "a=mid:<script>alert(1)</script>"), "a=mid"),
        (obs.replace("a=ice-pwd:", "a=x:"), "a=ice-pwd"),
        (obs.replace("a=ice-ufrag:nxcM", "a=ice-ufrag:x"), "a=ice-ufrag"),
        (obs.replace("a=setup:actpass", "a=setup:<b>holdconn"), "a=setup"),
        (
            obs.replace("a=mid:0\r\n", "a=mid:0\r\na=ssrc:<b> cname:x\r\n"),
            "a=ssrc",
        ),
        (obs.replace("a=setup:actpass", "a=ice-lite"), "a=ice-lite"),
        (obs.replace("a=rtpmap:96 H264/90000\r\n", ""), "a=rtpmap"),
        (obs.replace("a=sendonly", "a=recvonly"), "a=sendonly"),
        (
            obs.replace("m=video 57249 UDP", "m=<b>video 57249 UDP"),
            "media type",
        ),
        (obs.replace("m=video 57249", "m=video 99999"), "line 25"),
        (obs.replace("v=0", "v=1"), "v="),
        (String::new(), "v=0"),
        ("v=0\r\ns=-\r\nt=0 0\r\n".to_owned(), "m-line"),
    ] {
        let error = refusal(&offer);
        assert!(error.to_string().contains(field), "{field} in: {error}");
        assert_eq!(error.slug(), "bad-sdp");
    }
}

#[test]
fn a_subscriber_that_offers_nothing_to_receive_is_told_so() {
    let error = answer(Purpose::Subscribe, &recorded("obs")).unwrap_err();
    assert_eq!(error, SdpError::NothingReceived);
}

#[test]
fn markup_in_any_string_is_not_repeated() {
    let markup = "<img src=x onerror=alert(1)>";
    let offer = recorded("chromium-sendonly")
        .replace("s=-", &format!("s={markup}"))
        .replace("minptime=10", &format!("minptime={markup};stereo={markup}"))
        .replace("profile-level-id=42e01f", &format!("profile-level-id={markup}"))
        .replace("a=msid:", &format!("a=msid:{markup}"))
        .replace("cname:", &format!("cname:{markup}"));
    let answer = answer(Purpose::Publish, &offer).unwrap();
    assert!(!answer.sdp.contains(['<', '>']), "{}", answer.sdp);
    assert!(!format!("{:?}", answer.media).contains(['<', '>']));
}

#[test]
fn the_worst_offer_within_the_limits_is_answered_quickly() {
    let obs = recorded("obs");
    let (head, _) = obs.split_once("m=audio").unwrap();
    let mut offer = head.replace("BUNDLE 0 1", "BUNDLE 0");
    let formats: Vec<String> = (0..128).map(|pt| pt.to_string()).collect();
    offer += &format!(
        "m=video 9 UDP/TLS/RTP/SAVPF {}\r\na=mid:0\r\na=sendrecv\r\na=rtcp-mux\r\n",
        formats.join(" ")
    );
    for pt in 0..128 {
        offer += &format!("a=rtpmap:{pt} VP8/90000\r\n");
    }
    while offer.len() < 60_000 {
        offer += "a=rtcp-fb:* x\r\na=ssrc-group:FID 1 2\r\n";
    }
    let begin = Instant::now();
    let _ = answer(Purpose::Call, &offer);
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

const NAMES: [&str; 12] = [
    "chromium-sendonly",
    "chromium-recvonly",
    "chromium-simulcast",
    "chromium-datachannel-first",
    "chromium-call/1-offer",
    "chromium-call/3-offer",
    "firefox",
    "safari",
    "obs",
    "gstreamer",
    "ffmpeg",
    "ffmpeg-video-only",
];

fn purpose() -> impl Strategy<Value = Purpose> {
    prop_oneof![
        Just(Purpose::Call),
        Just(Purpose::Publish),
        Just(Purpose::Subscribe)
    ]
}

/// What one edit does to a text.
#[derive(Debug, Clone)]
enum Edit {
    DropLine(usize),
    RepeatLine(usize),
    SwapLines(usize, usize),
    Overwrite(usize, String),
    Cut(usize),
}

fn edit() -> impl Strategy<Value = Edit> {
    let at = 0..10_000_usize;
    prop_oneof![
        at.clone().prop_map(Edit::DropLine),
        at.clone().prop_map(Edit::RepeatLine),
        (at.clone(), at.clone()).prop_map(|(one, other)| Edit::SwapLines(one, other)),
        (at.clone(), "\\PC{1,8}").prop_map(|(at, text)| Edit::Overwrite(at, text)),
        at.prop_map(Edit::Cut),
    ]
}

fn apply(text: String, edit: Edit) -> String {
    let mut lines: Vec<String> = text.split_inclusive('\n').map(str::to_owned).collect();
    let count = lines.len().max(1);
    match edit {
        Edit::DropLine(at) if !lines.is_empty() => {
            lines.remove(at % count);
        }
        Edit::RepeatLine(at) if !lines.is_empty() => lines.insert(at % count, lines[at % count].clone()),
        Edit::SwapLines(one, other) if !lines.is_empty() => lines.swap(one % count, other % count),
        Edit::Overwrite(at, new) => {
            let start = (0..=at % (text.len() + 1))
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            let end = (start + new.len()).min(text.len());
            let end = (end..=text.len())
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(text.len());
            return format!("{}{new}{}", &text[..start], &text[end..]);
        }
        Edit::Cut(at) => {
            let end = (0..=at % (text.len() + 1))
                .rev()
                .find(|at| text.is_char_boundary(*at))
                .unwrap_or(0);
            return text[..end].to_owned();
        }
        _ => {}
    }
    lines.concat()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn no_text_makes_negotiation_panic(text in "(v=0\r\n)?\\PC{0,200}(\r\n[a-z]=\\PC{0,40}){0,20}", purpose in purpose()) {
        let _ = answer(purpose, &text);
        let _ = Fragment::parse(&text);
        let mut running = relay(Purpose::Call);
        running.answer(&recorded("chromium-call/1-offer")).unwrap();
        let _ = running.answer(&text);
        if let Ok((_, seq)) = running.offer_more(1, 1) {
            let _ = running.accept_answer(seq, &text);
        }
    }

    #[test]
    fn no_mutated_offer_panics_and_every_answer_is_well_formed(
        name in prop::sample::select(NAMES.to_vec()),
        edits in prop::collection::vec(edit(), 1..6),
        purpose in purpose(),
    ) {
        let offer = edits.into_iter().fold(recorded(name), apply);
        let mut negotiation = relay(purpose);
        if let Ok(answer) = negotiation.answer(&offer) {
            let lines = |sdp: &str| sdp.lines().filter(|line| line.starts_with("m=")).count();
            prop_assert_eq!(lines(&answer.sdp), lines(&offer));
            prop_assert!(answer.sdp.lines().all(|line| line.as_bytes().get(1) == Some(&b'=')));
            // The same offer again agrees on the same.
            let again = negotiation.answer(&offer).unwrap();
            prop_assert_eq!(again.media, answer.media);
            prop_assert_eq!(again.transport, answer.transport);
        }
    }

    #[test]
    fn no_mutated_answer_panics_and_a_refused_one_changes_nothing(
        edits in prop::collection::vec(edit(), 1..6),
    ) {
        let mut call = relay(Purpose::Call);
        call.answer(&recorded("chromium-call/1-offer")).unwrap();
        let before = call.media();
        let (_, seq) = call.offer_more(1, 1).unwrap();
        let answer = edits.into_iter().fold(recorded("chromium-call/2-answer"), apply);
        if call.accept_answer(seq, &answer).is_err() {
            prop_assert_eq!(call.media(), before);
        }
    }
}
