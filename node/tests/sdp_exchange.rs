//! WHIP (RFC 9725) and WHEP against a really started relay, with offers that real clients wrote.

mod relay;

use std::collections::HashMap;

use identity::{Did, SigningKey, resolve, statement, token};
use relay::{Answer, Relay};

const OBS: &str = include_str!("../../sfu/tests/offers/obs.sdp");
const SAFARI: &str = include_str!("../../sfu/tests/offers/safari.sdp");
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";

/// A client that cannot sign, with a token of its own.
struct Client<'a> {
    relay: &'a Relay,
    authorization: String,
}

impl<'a> Client<'a> {
    fn new(relay: &'a Relay) -> Client<'a> {
        let token = relay.faucet(SigningKey::generate().did().as_str(), 100_000, true);
        Client {
            relay,
            authorization: format!("Bearer {token}"),
        }
    }

    fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        let mut all = vec![("Authorization", self.authorization.as_str())];
        all.extend_from_slice(headers);
        self.relay.call(method, path, &all, body.as_bytes())
    }

    fn post(&self, path: &str, offer: &str) -> Answer {
        self.call("POST", path, &[("Content-Type", "application/sdp")], offer)
    }

    fn patch(&self, session: &str, if_match: &str, fragment: &str) -> Answer {
        let headers = [("Content-Type", FRAGMENT), ("If-Match", if_match)];
        self.call("PATCH", session, &headers, fragment)
    }

    fn delete(&self, session: &str) -> Answer {
        self.call("DELETE", session, &[], "")
    }

    /// Opens a session; its resource and its tag.
    fn open(&self, path: &str, offer: &str) -> (String, String) {
        let answer = self.post(path, offer);
        assert_eq!(answer.status, 201, "{}", answer.text());
        (answer.headers["location"].clone(), answer.headers["etag"].clone())
    }
}

fn fragment(ufrag: &str, pwd: &str) -> String {
    format!(
        "a=group:BUNDLE 0 1\r\nm=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{pwd}\r\n\
         a=candidate:1 1 udp 2122260223 192.0.2.1 61764 typ host\r\na=end-of-candidates\r\n"
    )
}

/// The credentials that the recorded OBS offer has.
fn obs_fragment() -> String {
    fragment("nxcM", "ezjAjgSSLLvbRhUA1zc6Se")
}

fn lines(text: &str) -> HashMap<&str, &str> {
    text.lines().filter_map(|line| line.split_once(':')).collect()
}

#[test]
fn publishing_answers_as_the_rfc_has_it_and_the_relay_signs_for_both_descriptions() {
    let relay = Relay::start();
    let key = SigningKey::generate();
    let token = relay.faucet(key.did().as_str(), 100_000, false);
    let answer = relay.signed(&key, Some(&token), "POST", "/whip/den/Zo%C3%AB", OBS.as_bytes());
    assert_eq!(answer.status, 201, "{}", answer.text());
    let headers = &answer.headers;
    assert_eq!(headers["content-type"], "application/sdp");
    assert_eq!(headers["accept-patch"], FRAGMENT);
    assert!(headers["location"].starts_with("/whip/den/Zo%C3%AB/"));
    assert!(headers["etag"].starts_with('"') && headers["etag"].ends_with('"'));
    let turn = relay.ready["turn"].as_str().unwrap();
    assert!(
        // One for each transport; of headers that come several times the last is kept here.
        headers["link"].starts_with(&format!(
            "<turn:{turn}?transport=tcp>; rel=\"ice-server\"; username=\""
        )),
        "{}",
        headers["link"]
    );
    assert!(headers["link"].ends_with("\"; credential-type=\"password\""));

    let sdp = answer.text();
    assert!(
        sdp.starts_with("v=0\r\n")
            && sdp.contains("\r\na=ice-lite\r\n")
            && sdp.contains("\r\na=recvonly\r\n")
    );
    let sfu = relay.ready["sfu"].as_str().unwrap().replace(':', " ");
    assert!(
        sdp.contains(&format!(" udp 2130706431 {sfu} typ host\r\n")),
        "{sdp}"
    );

    let document = resolve(&Did::parse(relay.did()).unwrap()).unwrap();
    let signed = &headers["milliway-relay"];
    assert!(statement::verify(signed, &document, OBS.as_bytes(), &answer.body).is_ok());
    let swapped = sdp.replace("a=fingerprint:sha-256 ", "a=fingerprint:sha-256 00:");
    assert!(statement::verify(signed, &document, OBS.as_bytes(), swapped.as_bytes()).is_err());
}

#[test]
fn a_subscriber_may_come_before_its_publisher_and_keeps_every_codec() {
    let relay = Relay::start();
    let (viewer, publisher) = (Client::new(&relay), Client::new(&relay));
    let answer = viewer.post("/whep/den/cam", SAFARI);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let sdp = answer.text();
    assert!(answer.headers["location"].starts_with("/whep/den/cam/"));
    for codec in ["opus/48000/2", "VP8/90000", "H264/90000", "VP9/90000"] {
        assert!(sdp.contains(codec), "{codec} in {sdp}");
    }
    assert!(sdp.contains("a=sendonly\r\n") && sdp.contains("a=ssrc-group:FID "));
    publisher.open("/whip/den/cam", OBS);
    // Any number of viewers, under no name of their own.
    for _ in 0..3 {
        Client::new(&relay).open("/whep/den/cam", SAFARI);
    }
}

#[test]
fn each_direction_is_refused_at_the_other_endpoint_with_the_way_out() {
    let relay = Relay::start();
    let client = Client::new(&relay);
    let refused = client.post("/whip/den/cam", SAFARI);
    assert_eq!((refused.status, refused.slug().as_str()), (400, "bad-sdp"));
    assert!(refused.text().contains("WHEP"), "{}", refused.text());
    let refused = client.post("/whep/den/cam", OBS);
    assert_eq!((refused.status, refused.slug().as_str()), (400, "bad-sdp"));
    assert!(refused.text().contains("WHIP"), "{}", refused.text());
}

#[test]
fn what_could_not_be_served_is_said_in_a_header() {
    let relay = Relay::start();
    let answer = Client::new(&relay).post("/whip/den/cam", &OBS.replace("H264/", "H265/"));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert!(answer.headers["milliway-note"].contains("video refused: codec"));
    assert!(answer.text().contains("\r\nm=video 0 "));
}

#[test]
fn a_subscriber_without_the_publishers_codec_gets_audio_and_the_reason() {
    let relay = Relay::start();
    Client::new(&relay).open("/whip/den/cam", OBS);
    let viewer = Client::new(&relay);
    assert!(
        !viewer
            .post("/whep/den/cam", SAFARI)
            .headers
            .contains_key("milliway-note")
    );
    let without = SAFARI.replace("H264/90000", "H263/90000");
    let answer = viewer.post("/whep/den/cam", &without);
    assert_eq!(answer.status, 201, "{}", answer.text());
    let note = &answer.headers["milliway-note"];
    assert!(note.contains("the publisher sends H264"), "{note}");
}

#[test]
fn candidates_trickle_under_the_tag_of_their_ice_session() {
    let relay = Relay::start();
    let client = Client::new(&relay);
    let (session, tag) = client.open("/whip/den/cam", OBS);
    let trickled = client.patch(&session, &tag, &obs_fragment());
    assert_eq!(
        (trickled.status, trickled.body.len()),
        (204, 0),
        "{}",
        trickled.text()
    );
    assert_eq!(trickled.headers["etag"], tag);
    // With * and the credentials of the session nothing restarts either.
    assert_eq!(client.patch(&session, "*", &obs_fragment()).status, 204);
    // End of candidates alone.
    assert_eq!(
        client.patch(&session, &tag, "a=end-of-candidates\r\n").status,
        204
    );

    let unconditional = client.call("PATCH", &session, &[("Content-Type", FRAGMENT)], &obs_fragment());
    let expected = (428, "precondition-required".to_owned());
    assert_eq!((unconditional.status, unconditional.slug()), expected);
    let stale = client.patch(&session, "\"other\"", &obs_fragment());
    assert_eq!((stale.status, stale.slug().as_str()), (412, "etag-mismatch"));
    let weak = client.patch(&session, &format!("W/{tag}"), &obs_fragment());
    assert_eq!(weak.status, 412);
    let typed = client.call(
        "PATCH",
        &session,
        &[("Content-Type", "application/sdp"), ("If-Match", tag.as_str())],
        OBS,
    );
    assert_eq!(
        (typed.status, typed.slug().as_str()),
        (415, "unsupported-media-type")
    );
    assert_eq!(typed.headers["accept-patch"], FRAGMENT);
    for bad in [
        "hello",
        "a=ice-ufrag:abcd\r\n",
        "a=ice-ufrag:<b>\r\na=ice-pwd:x\r\n",
    ] {
        assert_eq!(client.patch(&session, &tag, bad).slug(), "bad-sdp", "{bad}");
    }
}

#[test]
fn ice_restarts_with_new_credentials_and_a_new_tag_on_both_sides() {
    let relay = Relay::start();
    let client = Client::new(&relay);
    let answer = client.post("/whip/den/cam", OBS);
    let (session, tag) = (answer.headers["location"].clone(), answer.headers["etag"].clone());
    let before = lines(answer.text())["a=ice-ufrag"].to_owned();

    let restart = fragment("fresh", "freshfreshfreshfreshfresh");
    let restarted = client.patch(&session, "*", &restart);
    assert_eq!(restarted.status, 200, "{}", restarted.text());
    assert_eq!(restarted.headers["content-type"], FRAGMENT);
    let new_tag = restarted.headers["etag"].clone();
    assert_ne!(new_tag, tag);
    let body = lines(restarted.text());
    assert_ne!(body["a=ice-ufrag"], before);
    assert!(body["a=ice-pwd"].len() >= 22 && body.contains_key("a=candidate"));

    let late = client.patch(&session, &tag, &obs_fragment());
    assert_eq!((late.status, late.slug().as_str()), (412, "etag-mismatch"));
    assert_eq!(client.patch(&session, &new_tag, &restart).status, 204);
}

#[test]
fn a_session_answers_to_its_owner_only_and_ends_once() {
    let relay = Relay::start();
    let (owner, other) = (Client::new(&relay), Client::new(&relay));
    let (session, tag) = owner.open("/whip/den/cam", OBS);
    assert_eq!(other.delete(&session).slug(), "not-found");
    assert_eq!(other.patch(&session, &tag, &obs_fragment()).slug(), "not-found");
    assert_eq!(relay.call("DELETE", &session, &[], b"").status, 401);
    for nowhere in [
        "/whip/den/cam/0000000000000000",
        "/whip/den/cam/x",
        "/whip/den/cam/%3Cb%3E",
    ] {
        assert_eq!(owner.delete(nowhere).slug(), "not-found", "{nowhere}");
    }
    assert_eq!(other.post("/whip/den/cam", OBS).slug(), "name-taken");
    let ended = owner.delete(&session);
    assert_eq!((ended.status, ended.body.len()), (200, 0));
    assert_eq!(owner.delete(&session).slug(), "not-found");
    other.open("/whip/den/cam", OBS);
}

#[test]
fn a_session_outlives_its_token_and_its_owner_can_still_end_it() {
    let relay = Relay::start();
    let key = SigningKey::generate();
    let token = relay.faucet(key.did().as_str(), 100_000, false);
    let opened = relay.signed(&key, Some(&token), "POST", "/whip/den/cam", OBS.as_bytes());
    let session = &opened.headers["location"];
    let operator = Did::parse(relay.did()).unwrap();
    let mut wanted = token::Issue::new(key.did().clone(), operator, 0, relay::now() - 7200);
    wanted.lifetime = 3600;
    let expired = token::issue(&relay.issuer(), &wanted);
    let again = relay.signed(&key, Some(&expired), "POST", "/whip/den/cam", OBS.as_bytes());
    assert_eq!(again.slug(), "token-expired");
    let thief = relay.signed(&SigningKey::generate(), None, "DELETE", session, b"");
    assert_eq!(thief.slug(), "not-found");
    let ended = relay.signed(&key, Some(&expired), "DELETE", session, b"");
    assert_eq!(ended.status, 200, "{}", ended.text());
}

#[test]
fn only_sdp_is_taken_for_an_offer() {
    let relay = Relay::start();
    let client = Client::new(&relay);
    for media_type in ["text/plain", "application/json", "application/sdpx"] {
        let refused = client.call("POST", "/whip/den/cam", &[("Content-Type", media_type)], OBS);
        assert_eq!(
            (refused.status, refused.slug().as_str()),
            (415, "unsupported-media-type")
        );
        assert_eq!(refused.headers["accept-post"], "application/sdp");
    }
    let without = client.call("POST", "/whip/den/cam", &[], OBS);
    assert_eq!(without.status, 415);
    let parameters = [("Content-Type", "Application/SDP; charset=utf-8")];
    assert_eq!(client.call("POST", "/whip/den/cam", &parameters, OBS).status, 201);
}

#[test]
fn scripts_of_any_origin_may_ask_and_read_what_the_protocol_needs() {
    let relay = Relay::start();
    let preflight = [
        ("Origin", "https://player.example"),
        ("Access-Control-Request-Method", "POST"),
        (
            "Access-Control-Request-Headers",
            "authorization,content-type,dpop",
        ),
    ];
    for (path, methods, accepts, media_type) in [
        ("/whip/den/cam", "OPTIONS, POST", "accept-post", "application/sdp"),
        ("/whep/den/cam", "OPTIONS, POST", "accept-post", "application/sdp"),
        (
            "/whip/den/cam/0",
            "DELETE, OPTIONS, PATCH",
            "accept-patch",
            FRAGMENT,
        ),
        (
            "/whep/den/cam/0",
            "DELETE, OPTIONS, PATCH",
            "accept-patch",
            FRAGMENT,
        ),
    ] {
        let answer = relay.call("OPTIONS", path, &preflight, b"");
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["access-control-allow-origin"], "*");
        assert_eq!(answer.headers["access-control-allow-methods"], methods);
        assert_eq!(answer.headers[accepts], media_type);
        let allowed = &answer.headers["access-control-allow-headers"];
        assert!(
            ["Authorization", "Content-Type", "DPoP", "If-Match"]
                .iter()
                .all(|name| allowed.contains(name))
        );
        for method in ["GET", "PUT"] {
            let refused = relay.call(method, path, &[], b"");
            assert_eq!(
                (refused.status, refused.slug().as_str()),
                (405, "method-not-allowed")
            );
            assert_eq!(refused.headers["allow"], methods);
        }
    }
    // A refusal can be read by the script as well, and so can the nonce that it needs for the next try.
    let refused = relay.call(
        "POST",
        "/whip/den/cam",
        &[("Content-Type", "application/sdp")],
        OBS.as_bytes(),
    );
    assert_eq!(refused.status, 401);
    assert_eq!(refused.headers["access-control-allow-origin"], "*");
    let exposed = &refused.headers["access-control-expose-headers"];
    for name in [
        "Location",
        "ETag",
        "Link",
        "Accept-Patch",
        "DPoP-Nonce",
        "Milliway-Relay",
    ] {
        assert!(exposed.contains(name), "{name} in {exposed}");
    }
    // Elsewhere nothing is opened.
    let account = relay.get("/v1/account");
    assert!(!account.headers.contains_key("access-control-allow-origin"));
}

#[test]
fn bad_offers_disturb_no_session() {
    let relay = Relay::start();
    let (steady, hostile) = (Client::new(&relay), Client::new(&relay));
    let (session, tag) = steady.open("/whip/den/cam", OBS);
    let thousand = format!("{OBS}{}", "m=audio 9 UDP/TLS/RTP/SAVPF 0\r\n".repeat(1000));
    let megabyte = OBS.repeat(1_000);
    let half = &OBS[..OBS.len() / 2];
    for (offer, status) in [
        (thousand.as_str(), 400),
        (megabyte.as_str(), 413),
        (half, 400),
        ("", 400),
        ("<script>alert(1)</script>", 400),
    ] {
        let refused = hostile.post("/whip/den/other", offer);
        assert_eq!(refused.status, status, "{}", refused.text());
        assert!(!refused.text().contains("<script>"));
        refused.slug();
    }
    let latin = relay.call(
        "POST",
        "/whip/den/other",
        &[
            ("Authorization", &hostile.authorization),
            ("Content-Type", "application/sdp"),
        ],
        b"v=0\r\ns=\xff\r\n",
    );
    assert_eq!(latin.slug(), "bad-sdp");
    assert_eq!(hostile.post("/whip/%3Cb%3E/other", OBS).slug(), "bad-name");
    assert_eq!(steady.patch(&session, &tag, &obs_fragment()).status, 204);
}
