//! One connection at the relay: time, replay, one speaker, and the way from an invite to a permit.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;

use dsip::message::{Bye, ClientChanges, ErrorBody, Hello, Invite, Media, Mute, Subscribe, Update};
use dsip::{
    ClientMessage, ENVELOPE_LENGTH_MAX, Envelope, Fault, Memory, Received, Receiver, RelayMessage, message,
    seal, seal_with_id,
};
use identity::proof::Challenge;
use identity::token::{self, Issue, TokenPolicy};
use identity::{Did, Permit, Refusal, SigningKey};
use serde_json::{Value, json};

const NOW: u64 = 1_760_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn client() -> SigningKey {
    key(1)
}

fn relay() -> Did {
    key(2).did().clone()
}

fn connection() -> Receiver {
    Receiver::new(relay(), Arc::new(Memory::new()))
}

fn hello(key: &SigningKey) -> String {
    seal(key, None, "dsip.hello", &Hello { nonce: "n".into() }, NOW)
}

/// A connection on which the client has said hello.
fn greeted() -> Receiver {
    let mut connection = connection();
    connection.receive(&hello(&client()), NOW).unwrap();
    connection
}

fn by_client(kind: &str, body: Value) -> String {
    seal(&client(), Some(&relay()), kind, &body, NOW)
}

fn fault(connection: &mut Receiver, text: &str) -> Fault {
    connection.receive(text, NOW).expect_err("refused")
}

fn jwt() -> String {
    token::issue(&key(3), &Issue::new(client().did().clone(), relay(), 1000, NOW))
}

fn invite(challenge: &Challenge, token: String) -> Invite {
    Invite {
        room: "tea".into(),
        name: None,
        token,
        nonce: challenge.nonce().into(),
        media: Media {
            sdp: "v=0\r\n".into(),
        },
        max_msat_per_second: Some(40),
        identity: None,
        priority: None,
    }
}

fn permit(received: &Received, challenge: Challenge) -> Result<Permit, Fault> {
    let ClientMessage::Invite(invite) = &received.message else {
        panic!("an invite")
    };
    let policy = TokenPolicy::new(relay(), vec![key(3).did().clone()]);
    let token = token::verify(&invite.token, &policy, NOW)?;
    Ok(Permit::from_holder_proof(
        token,
        received.holder_proof(challenge, &identity::Documents::none(), NOW)?,
    )?)
}

#[test]
fn hello_challenge_and_invite_lead_to_a_permit() {
    let mut connection = greeted();
    assert_eq!(connection.speaker(), Some(client().did()));
    let challenge = Challenge::new(NOW);
    let text = seal(
        &client(),
        Some(&relay()),
        "dsip.invite",
        &invite(&challenge, jwt()),
        NOW,
    );
    let received = connection.receive(&text, NOW).unwrap();
    let permit = permit(&received, challenge).unwrap();
    assert_eq!(permit.holder(), Some(client().did()));
    assert_eq!(permit.voucher().balance_msat, 1000);
}

#[test]
fn a_stolen_token_in_an_invite_by_another_key_opens_nothing() {
    let thief = key(9);
    let mut connection = connection();
    connection.receive(&hello(&thief), NOW).unwrap();
    let challenge = Challenge::new(NOW);
    let text = seal(
        &thief,
        Some(&relay()),
        "dsip.invite",
        &invite(&challenge, jwt()),
        NOW,
    );
    let received = connection.receive(&text, NOW).unwrap();
    assert_eq!(permit(&received, challenge).unwrap_err().code, 401);

    // The thief writes the holder's name, but signs with its own key.
    let mut body = serde_json::to_value(invite(&Challenge::new(NOW), jwt())).unwrap();
    body["from"] = json!(client().did());
    let text = resign(&thief, body, "dsip.invite");
    assert_eq!(fault(&mut connection, &text).reason, "speaker");
}

/// An envelope by `key` whose `from` is what the body says.
fn resign(key: &SigningKey, mut body: Value, kind: &str) -> String {
    body["type"] = json!(kind);
    body["id"] = json!("00000000-0000-4000-8000-00000000ffff");
    body["ts"] = json!(NOW);
    body["to"] = json!(relay());
    let jws = identity::jws::sign_detached(key, dsip::canonicalise(&body).as_bytes());
    body["sig"] = json!({"alg": "EdDSA", "kid": key.kid(), "jws": jws});
    body.to_string()
}

#[test]
fn an_invite_captured_on_one_connection_does_not_serve_on_another() {
    let memory = Arc::new(Memory::new());
    let mut first = Receiver::new(relay(), memory.clone());
    first.receive(&hello(&client()), NOW).unwrap();
    let challenge = Challenge::new(NOW);
    let text = seal(
        &client(),
        Some(&relay()),
        "dsip.invite",
        &invite(&challenge, jwt()),
        NOW,
    );
    first.receive(&text, NOW).unwrap();
    let mut second = Receiver::new(relay(), memory);
    second.receive(&hello(&client()), NOW).unwrap();
    assert_eq!(fault(&mut second, &text).reason, "replay");

    // Even on another node, which has not seen its id.
    let mut elsewhere = greeted();
    let received = elsewhere.receive(&text, NOW).unwrap();
    assert_eq!(
        permit(&received, Challenge::new(NOW)).unwrap_err().reason,
        "challenge-stale"
    );
}

#[test]
fn an_invite_whose_token_sdp_or_nonce_was_swapped_is_refused() {
    let challenge = Challenge::new(NOW);
    let text = seal(
        &client(),
        Some(&relay()),
        "dsip.invite",
        &invite(&challenge, jwt()),
        NOW,
    );
    for (old, new) in [
        ("v=0", "v=1"),
        ("\"tea\"", "\"gin\""),
        (challenge.nonce(), "x"),
        (&jwt()[..9], "e"),
    ] {
        let swapped = text.replacen(old, new, 1);
        if swapped != text {
            assert_eq!(fault(&mut greeted(), &swapped).reason, "signature", "{old}");
        }
    }
}

#[test]
fn ts_is_accepted_within_60_seconds_of_the_relays_time() {
    for (ts, ok) in [
        (NOW - 60, true),
        (NOW - 61, false),
        (NOW + 60, true),
        (NOW + 61, false),
        (0, false),
    ] {
        let text = seal(&client(), None, "dsip.hello", &Hello { nonce: "n".into() }, ts);
        assert_eq!(
            connection()
                .receive(&text, NOW)
                .map_err(|fault| fault.code)
                .map(|_| ()),
            if ok { Ok(()) } else { Err(408) }
        );
    }
}

#[test]
fn an_id_serves_once() {
    let mut connection = greeted();
    let id = "00000000-0000-4000-8000-000000000001";
    let text = seal_with_id(&client(), Some(&relay()), "dsip.ice", &json!({}), NOW, id);
    assert!(connection.receive(&text, NOW).is_ok());
    let replayed = fault(&mut connection, &text);
    assert_eq!(
        (
            replayed.code,
            replayed.reason.as_ref(),
            replayed.correlates.as_deref()
        ),
        (409, "replay", Some(id))
    );
    let same_id = seal_with_id(&client(), Some(&relay()), "dsip.ice", &json!({"x": 1}), NOW, id);
    assert_eq!(fault(&mut connection, &same_id).reason, "replay");
}

#[test]
fn an_envelope_that_was_refused_does_not_burn_its_id() {
    let id = "00000000-0000-4000-8000-000000000001";
    let mut connection = greeted();
    let forged = seal_with_id(&key(9), Some(&relay()), "dsip.ice", &json!({}), NOW, id);
    assert_eq!(fault(&mut connection, &forged).reason, "speaker");
    let good = seal_with_id(&client(), Some(&relay()), "dsip.ice", &json!({}), NOW, id);
    assert!(connection.receive(&good, NOW).is_ok());
}

#[test]
fn an_envelope_for_somebody_else_is_refused() {
    let text = seal(
        &client(),
        Some(key(9).did()),
        "dsip.hello",
        &Hello { nonce: "n".into() },
        NOW,
    );
    assert_eq!(fault(&mut connection(), &text).reason, "to");
    let text = seal(&client(), None, "dsip.bye", &Bye::default(), NOW);
    assert_eq!(
        fault(&mut greeted(), &text).reason,
        "to",
        "only hello may leave the receiver out"
    );
}

#[test]
fn hello_comes_first_and_the_speaker_stays() {
    assert_eq!(
        fault(&mut connection(), &by_client("dsip.bye", json!({}))).reason,
        "hello-first"
    );
    let mut connection = greeted();
    assert_eq!(fault(&mut connection, &hello(&key(9))).reason, "speaker");
    assert!(
        connection.receive(&hello(&client()), NOW).is_ok(),
        "a second hello asks for a new challenge"
    );
}

#[test]
fn updates_are_read_with_all_their_changes() {
    let changes = ClientChanges {
        mute: Some(Mute {
            audio: true,
            video: false,
        }),
        subscribe: Some(Subscribe {
            name: "zoe".into(),
            audio: true,
            video: false,
        }),
        ..ClientChanges::default()
    };
    let update = Update {
        correlates: None,
        session: "00000000000000ff".into(),
        changes,
    };
    let text = seal(&client(), Some(&relay()), "dsip.update", &update, NOW);
    assert_eq!(
        greeted().receive(&text, NOW).unwrap().message,
        ClientMessage::Update(update)
    );
    let text = by_client(
        "dsip.update",
        json!({"session": "s", "changes": {"mute": {"audio": true}, "later": {}}}),
    );
    let ClientMessage::Update(update) = greeted().receive(&text, NOW).unwrap().message else {
        panic!("an update")
    };
    assert_eq!(
        update.changes.mute,
        Some(Mute {
            audio: true,
            video: false
        })
    );
}

#[test]
fn a_body_of_the_wrong_shape_is_refused_with_the_right_one_and_repeats_nothing() {
    let long = "x".repeat(257);
    for (kind, body, says) in [
        ("dsip.hello", json!({}), "`nonce`"),
        ("dsip.hello", json!({"nonce": "secret".repeat(60)}), "256 bytes"),
        ("dsip.invite", json!({"room": "secret"}), "`token`"),
        (
            "dsip.invite",
            json!({"room": "secret", "token": 1, "nonce": "n", "media": {"sdp": ""}}),
            "`token`",
        ),
        (
            "dsip.invite",
            json!({"room": long, "token": "t", "nonce": "n", "media": {"sdp": ""}}),
            "256 bytes",
        ),
        (
            "dsip.invite",
            json!({"room": "a\u{0}secret", "token": "t", "nonce": "n", "media": {"sdp": ""}}),
            "control",
        ),
        (
            "dsip.invite",
            json!({"room": "r", "token": "t", "nonce": "n", "media": {"sdp": ""}, "max_msat_per_second": -1}),
            "integer",
        ),
        (
            "dsip.update",
            json!({"session": "s", "changes": {"offer": {"sdp": "secret"}}}),
            "`seq`",
        ),
        (
            "dsip.update",
            json!({"session": "s", "changes": {"secret": 1}}),
            "`subscribe`",
        ),
        ("dsip.update", json!({"changes": {"mute": {}}}), "`session`"),
        ("dsip.bye", json!({"reason": ["secret"]}), "`reason`"),
        ("dsip.secret", json!({}), "`dsip.hello`"),
    ] {
        let refused = fault(&mut greeted(), &by_client(kind, body));
        assert!(refused.detail.contains(says), "{kind}: {refused}");
        assert!(!refused.to_string().contains("secret"), "{refused}");
        assert!(refused.correlates.is_some());
    }
}

#[test]
fn ice_is_accepted_and_ignored() {
    let text = by_client("dsip.ice", json!({"candidate": {"any": ["thing"]}}));
    assert_eq!(greeted().receive(&text, NOW).unwrap().message, ClientMessage::Ice);
}

#[test]
fn an_envelope_has_at_most_64_kib() {
    let text = hello(&client());
    let padded = format!("{text}{}", " ".repeat(ENVELOPE_LENGTH_MAX - text.len()));
    assert!(connection().receive(&padded, NOW).is_ok());
    assert_eq!(fault(&mut connection(), &format!("{padded} ")).code, 413);
}

#[test]
fn what_is_cut_malformed_or_not_an_object_is_refused() {
    let good = hello(&client());
    for text in ["", "null", "[]", "1", "{", "{}", "\u{feff}{}"] {
        assert_eq!(fault(&mut connection(), text).code, 400, "{text}");
    }
    for end in 0..good.len() {
        assert!(connection().receive(&good[..end], NOW).is_err());
    }
    assert_eq!(
        fault(&mut connection(), &format!("{good}{{}}")).reason,
        "envelope-malformed"
    );
    let change = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_str(&good).unwrap();
        change(&mut value);
        value.to_string()
    };
    for (text, reason) in [
        (change(&|v| v["ts"] = json!(1.5)), "envelope-malformed"),
        (change(&|v| v["ts"] = json!("now")), "envelope-malformed"),
        (change(&|v| v["from"] = json!("alice")), "envelope-malformed"),
        (change(&|v| v["to"] = json!([relay()])), "envelope-malformed"),
        (change(&|v| v["id"] = json!("")), "envelope-malformed"),
        (change(&|v| v["id"] = json!("a b")), "envelope-malformed"),
        (change(&|v| v["id"] = json!("x".repeat(65))), "envelope-malformed"),
        (change(&|v| v["type"] = json!(1)), "envelope-malformed"),
        (change(&|v| v["sig"]["x"] = json!(1)), "signature"),
        (change(&|v| v["sig"] = json!("x")), "signature"),
    ] {
        assert_eq!(fault(&mut connection(), &text).reason, reason, "{text}");
    }
}

#[test]
fn the_relays_messages_read_back_as_a_client_reads_them() {
    let relay_key = key(2);
    let read = |kind: &str, body: &Value| {
        let envelope = Envelope::open(&seal(&relay_key, Some(client().did()), kind, body, NOW)).unwrap();
        assert!(envelope.is_signed_by_sender());
        RelayMessage::read(&envelope).unwrap()
    };
    let balance = message::Balance {
        available_msat: 5,
        runway_seconds: Some(12.5),
        step: "warned".into(),
        burn_msat_per_second: 0.4,
    };
    let changes = message::RelayChanges {
        balance: Some(balance),
        ..Default::default()
    };
    let update = Update {
        correlates: None,
        session: "s".into(),
        changes,
    };
    assert_eq!(
        read("dsip.update", &serde_json::to_value(&update).unwrap()),
        RelayMessage::Update(Box::new(update))
    );
    let refused = Fault::balance_exhausted("top up and try again").about("1");
    let body = ErrorBody::from(&refused);
    assert_eq!(
        (body.code, body.reason.as_str()),
        (402, "payment:balance-exhausted")
    );
    assert_eq!(
        read("dsip.error", &serde_json::to_value(&body).unwrap()),
        RelayMessage::Error(body)
    );
    let unheard = Envelope::open(&seal(&relay_key, None, "dsip.hello", &json!({"nonce": "n"}), NOW)).unwrap();
    assert_eq!(RelayMessage::read(&unheard).unwrap_err().code, 404);
}

#[test]
fn refusals_of_tokens_become_faults_with_their_slug_and_code() {
    let expired = Fault::from(Refusal::TokenExpired);
    assert_eq!((expired.code, expired.reason.as_ref()), (401, "token-expired"));
    assert_eq!(Fault::from(Refusal::RoomForbidden).code, 403);
    assert_eq!(Fault::reputation_too_low().reason, "policy:reputation-too-low");
}

#[test]
fn tokens_and_people_do_not_print() {
    let challenge = Challenge::new(NOW);
    let text = seal(
        &client(),
        Some(&relay()),
        "dsip.invite",
        &invite(&challenge, jwt()),
        NOW,
    );
    let shown = format!("{:?} {challenge:?}", greeted().receive(&text, NOW).unwrap());
    assert!(
        !shown.contains(&jwt()[..20]) && !shown.contains(&client().did().as_str()[8..]),
        "{shown}"
    );
    assert!(!shown.contains(challenge.nonce()));
}

proptest::proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,400}") {
        proptest::prop_assert!(connection().receive(&text, NOW).is_err());
    }

    #[test]
    fn any_changed_byte_is_refused_or_means_the_same(at in 0usize..600, to: u8) {
        let text = hello(&client());
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] = to;
        if let Ok(changed) = String::from_utf8(bytes)
            && let Ok(envelope) = Envelope::open(&changed)
        {
            let original = Envelope::open(&text).unwrap();
            proptest::prop_assert_eq!(envelope.canonical(), original.canonical());
        }
    }
}
