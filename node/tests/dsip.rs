//! DSIP over a WebSocket, against a really started relay: the conversation, and what breaks it.
#![allow(clippy::unwrap_used)]

mod relay;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use dsip::message::{
    Answer, Bye, Challenge, ClientChanges, ErrorBody, Hello, Invite, Media, Mute, Topup, Update,
};
use dsip::{Envelope, RelayMessage, SUBPROTOCOL};
use identity::{Did, SigningKey};
use relay::{Relay, now, offer};
use serde::Serialize;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

/// How long a word of the relay may take on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(15);

/// One connection of a client that checks everything it hears.
struct Client {
    socket: WebSocket<TcpStream>,
    key: SigningKey,
    relay: Did,
    session: String,
}

impl Client {
    fn connect(relay: &Relay, key: &SigningKey) -> Client {
        let stream = TcpStream::connect(relay.host()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut request = format!("ws://{}/v1/dsip", relay.host())
            .into_client_request()
            .unwrap();
        request
            .headers_mut()
            .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
        let (socket, response) = tungstenite::client(request, stream).unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], SUBPROTOCOL);
        let key = SigningKey::from_jwk(&key.to_private_jwk()).unwrap();
        Client {
            socket,
            key,
            relay: Did::parse(relay.did()).unwrap(),
            session: String::new(),
        }
    }

    fn text(&mut self, text: String) {
        self.socket.send(Message::text(text)).unwrap();
    }

    fn say(&mut self, kind: &str, body: &impl Serialize) {
        let envelope = dsip::seal(&self.key, Some(&self.relay), kind, body, now());
        self.text(envelope);
    }

    /// The next envelope, verified as the relay's, or None once the relay has closed.
    fn hear(&mut self) -> Option<RelayMessage> {
        loop {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let envelope = Envelope::open(&text).expect("the relay signs what it says");
                    assert!(envelope.is_signed_by_sender() && *envelope.from() == self.relay);
                    return Some(RelayMessage::read(&envelope).unwrap());
                }
                Ok(Message::Close(_)) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    /// The first message that `wanted` makes something of; updates that it does not want are passed over.
    fn hear_until<T>(&mut self, what: &str, wanted: impl Fn(&RelayMessage) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            let message = self
                .hear()
                .unwrap_or_else(|| panic!("closed while waiting for {what}"));
            if let Some(found) = wanted(&message) {
                return found;
            }
            assert!(
                matches!(message, RelayMessage::Update(_)),
                "waiting for {what}: {message:?}"
            );
        }
        panic!("{what} never came");
    }

    fn hello(&mut self) -> Challenge {
        self.say("dsip.hello", &Hello { nonce: "mine".into() });
        match self.hear() {
            Some(RelayMessage::Challenge(challenge)) => challenge,
            other => panic!("not a challenge: {other:?}"),
        }
    }

    fn invite(&mut self, challenge: &Challenge, token: &str, name: &str) {
        self.invite_as(challenge, token, name, None);
    }

    fn invite_as(&mut self, challenge: &Challenge, token: &str, name: &str, priority: Option<&str>) {
        let invite = Invite {
            room: "den".into(),
            name: Some(name.into()),
            token: token.into(),
            nonce: challenge.nonce.clone(),
            media: Media { sdp: offer() },
            max_msat_per_second: None,
            identity: None,
            priority: priority.map(str::to_owned),
        };
        self.say("dsip.invite", &invite);
    }

    fn answer(&mut self) -> Answer {
        let answer = match self.hear() {
            Some(RelayMessage::Answer(answer)) => answer,
            other => panic!("not an answer: {other:?}"),
        };
        self.session.clone_from(&answer.session);
        answer
    }

    fn error(&mut self) -> (u16, String) {
        let error: ErrorBody = self.hear_until("an error", |message| match message {
            RelayMessage::Error(error) => Some(error.clone()),
            _ => None,
        });
        assert!(
            error.detail.len() > 15 && error.detail.ends_with('.'),
            "a sentence: {}",
            error.detail
        );
        (error.code, error.reason)
    }

    fn bye(&mut self) -> String {
        let reason = self.hear_until("a goodbye", |message| match message {
            RelayMessage::Bye(bye) => Some(bye.reason.clone()),
            _ => None,
        });
        assert_eq!(self.hear(), None, "nothing follows a goodbye");
        reason
    }

    fn change(&mut self, changes: ClientChanges) {
        let update = Update {
            correlates: None,
            session: self.session.clone(),
            changes,
        };
        self.say("dsip.update", &update);
    }

    /// Who else is in the room, once it is what is expected: (name, audio, video).
    fn sees(&mut self, expected: &[(&str, bool, bool)]) {
        self.hear_until("the right participants", |message| {
            let RelayMessage::Update(update) = message else {
                return None;
            };
            let list = update.changes.participants.as_ref()?;
            let seen: Vec<_> = list
                .iter()
                .map(|one| (one.name.as_str(), one.audio, one.video))
                .collect();
            (seen == expected).then_some(())
        });
    }
}

/// A client in the room, with what it takes.
fn joined(relay: &Relay, key: &SigningKey, balance_msat: u64, name: &str) -> Client {
    let token = relay.faucet(key.did().as_str(), balance_msat, false);
    let mut client = Client::connect(relay, key);
    let challenge = client.hello();
    client.invite(&challenge, &token, name);
    client.answer();
    client
}

#[test]
fn a_conversation_from_hello_to_bye() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let token = relay.faucet(key.did().as_str(), 50_000, false);
    let mut client = Client::connect(&relay, &key);
    let challenge = client.hello();
    assert_eq!(challenge.hello_nonce, "mine");
    assert_eq!(challenge.relay.as_str(), relay.did());
    assert_eq!(challenge.url, format!("ws://{}/v1/dsip", relay.host()));
    assert_eq!(challenge.tariff.len(), 2);
    client.invite(&challenge, &token, "ada");
    let answer = client.answer();
    assert_eq!(answer.economics.tariff, "sfu-1");
    assert_eq!(answer.economics.step, "full");
    assert!(answer.media.sdp.contains("a=ice-lite") && answer.media.sdp.contains("a=setup:passive"));
    let candidate = relay.ready["sfu"].as_str().unwrap().replace(':', " ");
    assert!(answer.media.sdp.contains(&candidate), "{}", answer.media.sdp);
    client.say(
        "dsip.bye",
        &Bye {
            reason: "hangup".into(),
            session: Some(answer.session.clone()),
        },
    );
    while client.hear().is_some() {}
    let until = Instant::now() + PATIENCE;
    while relay.signed(&key, None, "GET", "/v1/account", b"").json()["reserved_msat"] != 0 {
        assert!(Instant::now() < until, "the lease is never given back");
    }
    let receipt = relay.signed(
        &key,
        None,
        "GET",
        &format!("/v1/receipts/{}", answer.session),
        b"",
    );
    assert_eq!(receipt.status, 200, "{}", receipt.text());
    assert_eq!(receipt.text().split('.').count(), 3, "a compact JWS");
    let stranger = SigningKey::generate();
    let refused = relay.signed(
        &stranger,
        None,
        "GET",
        &format!("/v1/receipts/{}", answer.session),
        b"",
    );
    assert_eq!(refused.status, 404);
}

#[test]
fn people_see_each_other_come_mute_and_go() {
    let relay = Relay::start_with(
        tempfile::tempdir().unwrap(),
        &[],
        &[("MILLIWAY_ROOM__RESUME_SECONDS", "1")],
    );
    let (ada, grace) = (SigningKey::generate(), SigningKey::generate());
    let mut ada = joined(&relay, &ada, 50_000, "ada");
    ada.sees(&[]);
    let mut grace = joined(&relay, &grace, 50_000, "grace");
    grace.sees(&[("ada", true, true)]);
    ada.sees(&[("grace", true, true)]);
    let tracks = |message: &RelayMessage| match message {
        RelayMessage::Update(update) => update.changes.tracks.clone().filter(|tracks| !tracks.is_empty()),
        _ => None,
    };
    grace.change(ClientChanges {
        mute: Some(Mute {
            audio: true,
            video: false,
        }),
        ..ClientChanges::default()
    });
    ada.sees(&[("grace", false, true)]);
    grace.change(ClientChanges {
        mute: Some(Mute {
            audio: false,
            video: false,
        }),
        ..ClientChanges::default()
    });
    ada.sees(&[("grace", true, true)]);
    let mut mary = joined(&relay, &SigningKey::generate(), 50_000, "mary");
    let carried = mary.hear_until("tracks", tracks);
    assert!(
        carried
            .iter()
            .all(|track| ["ada", "grace"].contains(&track.name.as_str())),
        "{carried:?}"
    );
    // Her socket just closes, and she does not come back in time.
    drop(grace);
    ada.sees(&[("mary", true, true)]);
}

#[test]
fn the_balance_is_told_every_two_seconds_and_a_top_up_at_once() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let mut client = joined(&relay, &key, 50_000, "ada");
    let balance = |message: &RelayMessage| match message {
        RelayMessage::Update(update) => update.changes.balance.clone(),
        _ => None,
    };
    let first = client.hear_until("a balance", balance);
    let began = Instant::now();
    let second = client.hear_until("another balance", balance);
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!((first.step.as_str(), second.step.as_str()), ("full", "full"));
    let token = relay.faucet(key.did().as_str(), 7_000, false);
    for repeated in [false, true] {
        client.change(ClientChanges {
            topup: Some(Topup { token: token.clone() }),
            ..ClientChanges::default()
        });
        let credited = client.hear_until("the credit", |message| match message {
            RelayMessage::Update(update) => update.changes.topup.clone(),
            _ => None,
        });
        assert_eq!((credited.credited_msat, credited.repeated), (7_000, repeated));
    }
    let strangers = relay.faucet(SigningKey::generate().did().as_str(), 7_000, false);
    client.change(ClientChanges {
        topup: Some(Topup { token: strangers }),
        ..ClientChanges::default()
    });
    assert_eq!(client.error(), (403, "token-subject".into()));
}

#[test]
fn the_same_holder_replaces_and_somebody_else_does_not() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let mut first = joined(&relay, &key, 50_000, "ada");
    let other = SigningKey::generate();
    let token = relay.faucet(other.did().as_str(), 50_000, false);
    let mut client = Client::connect(&relay, &other);
    let challenge = client.hello();
    client.invite(&challenge, &token, "ada");
    assert_eq!(client.error(), (409, "policy:name-taken".into()));
    // The connection is still good for another try.
    let challenge = client.hello();
    client.invite(&challenge, &token, "grace");
    client.answer();
    let mut second = joined(&relay, &key, 0, "ada");
    assert_eq!(first.bye(), "replaced");
    second.sees(&[("grace", true, true)]);
}

#[test]
fn a_stolen_token_or_nonce_opens_nothing() {
    let (relay, key, thief) = (Relay::start(), SigningKey::generate(), SigningKey::generate());
    let token = relay.faucet(key.did().as_str(), 50_000, false);
    let mut client = Client::connect(&relay, &thief);
    let challenge = client.hello();
    client.invite(&challenge, &token, "ada");
    assert_eq!(client.error().0, 401);
    // A nonce serves once, on the connection that it was given on.
    let mut honest = Client::connect(&relay, &key);
    let elsewhere = honest.hello();
    let mut client = Client::connect(&relay, &key);
    client.hello();
    client.invite(&elsewhere, &token, "ada");
    assert_eq!(client.error().0, 401);
    client.invite(&elsewhere, &token, "ada");
    assert_eq!(client.error().0, 401, "the challenge was used up");
    honest.invite(&elsewhere, &token, "ada");
    honest.answer();
}

#[test]
fn without_money_the_invite_is_answered_402() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let token = relay.faucet(key.did().as_str(), 10, false);
    let mut client = Client::connect(&relay, &key);
    let challenge = client.hello();
    client.invite(&challenge, &token, "ada");
    assert_eq!(client.error(), (402, "payment:balance-exhausted".into()));
}

#[test]
fn what_is_not_signed_fresh_and_new_is_refused() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let did = Did::parse(relay.did()).unwrap();
    let hello = Hello { nonce: "n".into() };
    let mut client = Client::connect(&relay, &key);
    for text in [
        "",
        "{",
        "[]",
        "null",
        "{\"type\":\"dsip.hello\"}",
        "{\"id\":\"a\",\"id\":\"b\"}",
    ] {
        client.text(text.into());
        assert_eq!(client.error().0 / 100, 4, "{text}");
    }
    let good = dsip::seal(&key, Some(&did), "dsip.hello", &hello, now());
    client.text(good.replace("\"n\"", "\"m\""));
    assert_eq!(client.error().0, 401, "another body than was signed");
    client.text(dsip::seal(&key, Some(&did), "dsip.hello", &hello, now() - 300));
    assert_eq!(client.error().0, 408);
    client.text(dsip::seal(&key, Some(key.did()), "dsip.hello", &hello, now()));
    assert_eq!(client.error().0, 401, "for another relay");
    client.say("dsip.bogus", &hello);
    assert_eq!(client.error().0 / 100, 4);
    client.text(good.clone());
    assert!(matches!(client.hear(), Some(RelayMessage::Challenge(_))));
    client.text(good);
    assert_eq!(client.error(), (409, "replay".into()));
    client.socket.send(Message::binary(vec![0xa0])).unwrap();
    match client.socket.read().unwrap() {
        Message::Binary(bytes) => assert_eq!(Envelope::open_cbor(&bytes).unwrap().kind(), "dsip.error"),
        other => panic!("what came in CBOR is answered in CBOR: {other:?}"),
    }
    client.session = "0123456789abcdef".into();
    client.change(ClientChanges {
        mute: Some(Mute {
            audio: true,
            video: true,
        }),
        ..ClientChanges::default()
    });
    assert_eq!(client.error().0, 404);
}

#[test]
fn an_envelope_beyond_64_kib_is_refused_by_name() {
    let relay = Relay::start();
    let mut client = Client::connect(&relay, &SigningKey::generate());
    client.text("x".repeat(65_537));
    let refused = |client: &mut Client| match client.hear() {
        Some(RelayMessage::Error(error)) => (error.code, error.reason),
        other => panic!("not an error: {other:?}"),
    };
    assert_eq!(refused(&mut client), (413, "too-large".into()));
    client.hello();
    client.text("x".repeat(300_000));
    assert_eq!(refused(&mut client), (413, "too-large".into()));
    assert!(client.hear().is_none(), "past that, the connection ends too");
}

#[test]
fn an_envelope_of_a_megabyte_ends_the_connection_and_nothing_else() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let mut other = joined(&relay, &SigningKey::generate(), 50_000, "grace");
    let mut client = Client::connect(&relay, &key);
    // The relay may cut the connection before all of it is written.
    let _ = client.socket.send(Message::text("x".repeat(1_000_000)));
    while client.hear().is_some() {}
    other.change(ClientChanges {
        mute: Some(Mute {
            audio: true,
            video: true,
        }),
        ..ClientChanges::default()
    });
    other.sees(&[]);
}

#[test]
fn who_talks_without_end_is_cut_off() {
    let (relay, key) = (Relay::start(), SigningKey::generate());
    let mut client = Client::connect(&relay, &key);
    for _ in 0..300 {
        if client.socket.send(Message::text("{}")).is_err() {
            break;
        }
    }
    let mut last = None;
    while let Some(message) = client.hear() {
        last = Some(message);
    }
    match last {
        Some(RelayMessage::Error(error)) => {
            assert_eq!((error.code, error.reason.as_str()), (429, "rate-limited"))
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_websocket_of_another_protocol_is_refused() {
    let relay = Relay::start();
    let headers = [
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("Sec-WebSocket-Protocol", "chat"),
    ];
    assert_eq!(relay.call("GET", "/v1/dsip", &headers, b"").slug(), "bad-request");
}

#[test]
fn a_draining_relay_tells_its_clients_and_says_goodbye() {
    let data = tempfile::tempdir().unwrap();
    let mut relay = Relay::start_with(data, &[], &[("MILLIWAY_RELAY__DRAIN_SECONDS", "5")]);
    let mut client = joined(&relay, &SigningKey::generate(), 50_000, "ada");
    relay.signal("TERM");
    assert_eq!(client.bye(), "draining");
    assert_eq!(relay.wait(Duration::from_secs(10)), Some(0));
}

/// A client that asks to join with this token, whatever comes of it.
fn asking(relay: &Relay, key: &SigningKey, token: &str, name: &str, priority: Option<&str>) -> Client {
    let mut client = Client::connect(relay, key);
    let challenge = client.hello();
    client.invite_as(&challenge, token, name, priority);
    client
}

/// How many emergency sessions were counted, by what proved them.
fn emergencies(relay: &Relay, proof: &str) -> u64 {
    let metrics = relay.get("/metrics");
    let name = format!("milliway_emergency_sessions_total{{proof=\"{proof}\"}} ");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

#[test]
fn an_emergency_call_is_free_and_one_that_nobody_answers_is_one_at_a_time() {
    let (service, anna, bert) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name).display().to_string();
    let policy = format!("[emergency]\ndids = [\"{}\"]\n", service.did());
    std::fs::write(path("policy.toml"), policy).unwrap();
    let configuration = format!("[policy]\nfile = \"{}\"\n", path("policy.toml"));
    std::fs::write(path("relay.toml"), configuration).unwrap();
    let relay = Relay::start_with(
        tempfile::tempdir().unwrap(),
        &["--config", &path("relay.toml")],
        &[],
    );
    let penniless = |key: &SigningKey| relay.faucet(key.did().as_str(), 0, false);
    let of_anna = penniless(&anna);
    let mut refused = asking(&relay, &anna, &of_anna, "anna", None);
    assert_eq!(refused.error().0, 402, "a call like any other costs");

    // By its word alone: let in, once, and told that it is free.
    let mut first = asking(&relay, &anna, &of_anna, "anna", Some("emergency"));
    let economics = first.answer().economics;
    assert_eq!(
        (economics.tariff.as_str(), economics.step.as_str()),
        ("emergency", "full")
    );
    let mut second = asking(&relay, &anna, &of_anna, "anna-again", Some("emergency"));
    assert_eq!(second.error().0, 429, "one session for each holder");
    assert_eq!((emergencies(&relay, "none"), emergencies(&relay, "peer")), (1, 0));

    // The service comes, proves its DID, and needs no money; whoever calls now is answered.
    let mut answered = asking(&relay, &service, &penniless(&service), "112", None);
    assert_eq!(answered.answer().economics.tariff, "emergency");
    for name in ["bert", "bert-2", "bert-3", "bert-4"] {
        let mut call = asking(&relay, &bert, &penniless(&bert), name, Some("emergency"));
        assert_eq!(
            call.answer().economics.tariff,
            "emergency",
            "no count where a service is"
        );
        let bye = Bye {
            session: Some(call.session.clone()),
            reason: "hangup".into(),
        };
        call.say("dsip.bye", &bye);
    }
    assert_eq!((emergencies(&relay, "none"), emergencies(&relay, "peer")), (1, 5));
    let mut billed = asking(&relay, &bert, &penniless(&bert), "bert-5", None);
    assert_eq!(
        billed.error().0,
        402,
        "who does not say so is billed, also in that room"
    );

    // Under a token by the service itself, TURN too; over WHIP the header says it.
    let audience = identity::Did::parse(relay.did()).unwrap();
    let issue = identity::token::Issue::new(bert.did().clone(), audience, 0, now());
    let by_service = identity::token::issue(&service, &issue);
    let ice = relay.signed(&bert, Some(&by_service), "POST", "/v1/turn/credentials", b"");
    assert_eq!(ice.status, 200, "{}", ice.text());
    let whip = relay.signed(
        &bert,
        Some(&by_service),
        "POST",
        "/whip/elsewhere/bert",
        offer().as_bytes(),
    );
    assert_eq!(whip.status, 201, "{}", whip.text());
    // Two TURN usernames, for WHIP hands one out as well, and the session.
    assert_eq!(emergencies(&relay, "token"), 3);
    let data = relay.stop();
    let proof = std::process::Command::new(relay::MILLIWAY)
        .args(["ledger", "verify", "--data", data.path().to_str().unwrap()])
        .output()
        .unwrap();
    assert!(
        proof.status.success(),
        "{}",
        String::from_utf8_lossy(&proof.stderr)
    );
}
