//! What the sdp target does with its bytes: take them for a first offer, a later one, an answer and a trickle
//! fragment. `sfu/tests/seeds.rs` runs the same function over the committed seeds.

use sfu::media::{Fingerprint, FingerprintAlgorithm, IceCredentials};
use sfu::sdp::{Fragment, LocalParameters, Negotiation, Purpose, VideoCodecs};

/// A client that anybody may be: the session that later descriptions run into.
const OFFER: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0\r\na=ice-ufrag:abcd\r\n\
    a=ice-pwd:abcdefghijklmnopqrstuv\r\na=setup:actpass\r\na=fingerprint:sha-256 00:00:00:00:00:00:00:00:00:00:00:\
    00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00:00\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n\
    a=rtcp-mux\r\na=sendrecv\r\na=rtpmap:111 opus/48000/2\r\n";

fn relay(purpose: Purpose) -> Negotiation {
    let local = LocalParameters {
        purpose,
        ice: IceCredentials {
            ufrag: "00abcdefghijkl".into(),
            pwd: "abcdefghijklmnopqrstuvwx".into(),
        },
        fingerprint: Fingerprint {
            algorithm: FingerprintAlgorithm::Sha256,
            value: vec![1; 32],
        },
        candidates: vec![([192, 0, 2, 1], 5004).into()],
        video_codecs: VideoCodecs::default(),
    };
    Negotiation::new(local, [7; 32])
}

/// One description.
pub(crate) fn sdp(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = Fragment::parse(text);
    for purpose in [Purpose::Call, Purpose::Publish, Purpose::Subscribe] {
        let mut session = relay(purpose);
        let Ok(answer) = session.answer(text) else {
            continue;
        };
        let again = session.answer(text).expect("the same offer is good twice");
        assert_eq!(again.media, answer.media);
        assert_eq!(again.transport, answer.transport);
        let slots = session.slots();
        let _ = session.offer_more(1, 1);
        session.abandon_offer();
        assert_eq!(session.slots(), slots);
    }
    let mut session = relay(Purpose::Call);
    session.answer(OFFER).expect("a plain offer");
    if let Ok((_, seq)) = session.offer_more(1, 1) {
        let _ = session.accept_answer(seq, text);
    }
    session.abandon_offer();
    let _ = session.answer(text);
}
