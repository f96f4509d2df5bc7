//! Credentials in mid-session, against a really started relay: it asks, `dsip::Client` presents, it verifies, and what
//! was presented counts for the session that is live.
#![allow(clippy::unwrap_used)]

mod relay;

use std::net::TcpStream;
use std::time::{Duration, Instant};

use dsip::credentials::{Present, Request, Verified, Want};
use dsip::message::{ClientChanges, ErrorBody};
use dsip::{Client, Encoding, RelayMessage, SUBPROTOCOL, Terms};
use identity::token::{Confirmation, Issue, delegation, issue};
use identity::{Did, SigningKey};
use relay::{Relay, now, offer};
use serde_json::json;
use tempfile::TempDir;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};

const PATIENCE: Duration = Duration::from_secs(20);

/// A relay with a policy, and the scorer whose word counts there.
struct Setup {
    files: TempDir,
    relay: Relay,
    scorer: SigningKey,
}

impl Setup {
    fn start(rules: &str) -> Setup {
        let files = tempfile::tempdir().unwrap();
        let scorer = SigningKey::generate();
        let path = |name: &str| files.path().join(name).display().to_string();
        write_policy(&files, &scorer, rules);
        let text = format!(
            "[policy]\nfile = \"{}\"\n[auth]\nleeway_seconds = 0\n",
            path("policy.toml")
        );
        std::fs::write(path("relay.toml"), text).unwrap();
        let arguments = ["--config", &path("relay.toml")];
        let relay = Relay::start_with(tempfile::tempdir().unwrap(), &arguments, &[]);
        Setup { files, relay, scorer }
    }

    fn reload(&self, rules: &str) {
        write_policy(&self.files, &self.scorer, rules);
        self.relay.signal("HUP");
    }

    fn token(&self, holder: &SigningKey) -> String {
        let audience = Did::parse(self.relay.did()).unwrap();
        let wish = Issue::new(holder.did().clone(), audience, 1_000_000, now());
        issue(&self.relay.issuer(), &wish)
    }

    /// The status and slug of asking for TURN over HTTP.
    fn turn(&self, holder: &SigningKey, token: &str) -> (u16, String) {
        let answer = self
            .relay
            .signed(holder, Some(token), "POST", "/v1/turn/credentials", b"");
        match answer.status {
            200 => (200, String::new()),
            status => (status, answer.slug()),
        }
    }
}

fn write_policy(files: &TempDir, scorer: &SigningKey, rules: &str) {
    let text = format!(
        "[credentials.\"{}\"]\ntypes = [\"ReputationScore\"]\n{rules}",
        scorer.did()
    );
    std::fs::write(files.path().join("policy.toml"), text).unwrap();
}

/// A ReputationScore (VC 2.0, JOSE) about somebody, valid for some seconds.
fn score(by: &SigningKey, about: &Did, score: i64, seconds: u64) -> String {
    let claims = json!({
        "@context": ["https://www.w3.org/ns/credentials/v2"],
        "type": ["VerifiableCredential", "ReputationScore"],
        "issuer": by.did(), "exp": now() + seconds,
        "credentialSubject": {"id": about, "score": score},
    });
    by.sign_jws("vc+jwt", claims.to_string().as_bytes())
}

/// `dsip::Client` on a WebSocket.
struct Caller {
    socket: WebSocket<TcpStream>,
    client: Client,
}

impl Caller {
    fn connect(relay: &Relay, key: &SigningKey) -> Caller {
        let stream = TcpStream::connect(relay.host()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let url = format!("ws://{}/v1/dsip", relay.host());
        let mut request = url.as_str().into_client_request().unwrap();
        let protocol = SUBPROTOCOL.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        let key = SigningKey::from_jwk(&key.to_private_jwk()).unwrap();
        let client = Client::new(key, Did::parse(relay.did()).unwrap(), &url, Encoding::Json);
        Caller { socket, client }
    }

    fn say(&mut self, envelope: Vec<u8>) {
        let text = String::from_utf8(envelope).unwrap();
        self.socket.send(Message::text(text)).unwrap();
    }

    /// The first message that `wanted` makes something of.
    fn hear<T>(&mut self, what: &str, wanted: impl Fn(&RelayMessage) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            match self.socket.read() {
                Ok(Message::Text(text)) => {
                    let heard = self.client.receive(Encoding::Json, text.as_bytes(), now());
                    if let Some(found) = wanted(&heard.unwrap()) {
                        return found;
                    }
                }
                Ok(Message::Close(_)) | Err(_) => panic!("closed while waiting for {what}"),
                Ok(_) => {}
            }
        }
        panic!("{what} never came")
    }

    fn invite(&mut self, token: &str, name: &str, credentials: &[String]) {
        let hello = self.client.hello(now());
        self.say(hello);
        self.hear("a challenge", |message| {
            matches!(message, RelayMessage::Challenge(_)).then_some(())
        });
        let sdp = offer();
        let terms = Terms {
            room: "den",
            name: Some(name),
            token,
            sdp: &sdp,
            max_msat_per_second: None,
            credentials,
        };
        let invite = self.client.invite(&terms, now()).unwrap();
        self.say(invite);
    }

    fn join(relay: &Relay, key: &SigningKey, token: &str, name: &str, credentials: &[String]) -> Caller {
        Caller::connect(relay, key).joined(token, name, credentials)
    }

    fn joined(self, token: &str, name: &str, credentials: &[String]) -> Caller {
        let mut caller = self;
        caller.invite(token, name, credentials);
        caller.hear("an answer", |message| match message {
            RelayMessage::Error(error) => panic!("{error:?}"),
            message => matches!(message, RelayMessage::Answer(_)).then_some(()),
        });
        caller
    }

    fn change(&mut self, changes: ClientChanges) {
        let envelope = self.client.update(changes, now()).unwrap();
        self.say(envelope);
    }

    fn want(&mut self, service: &str) {
        let service = service.to_owned();
        self.change(ClientChanges {
            want: Some(Want { service }),
            ..ClientChanges::default()
        });
    }

    fn present_with(&mut self, nonce: &str, credentials: &[String]) {
        self.change(ClientChanges {
            present: Some(Present {
                nonce: nonce.to_owned(),
                credentials: credentials.to_vec(),
            }),
            ..ClientChanges::default()
        });
    }

    fn request(&mut self) -> Request {
        self.hear("a request", |message| match message {
            RelayMessage::Update(update) => update.changes.request.clone(),
            _ => None,
        })
    }

    fn verified(&mut self) -> Verified {
        self.hear("a verification", |message| match message {
            RelayMessage::Update(update) => update.changes.verify.clone(),
            RelayMessage::Error(error) => panic!("{error:?}"),
            _ => None,
        })
    }

    fn error(&mut self) -> ErrorBody {
        self.hear("an error", |message| match message {
            RelayMessage::Error(error) => Some(error.clone()),
            _ => None,
        })
    }

    fn bye(&mut self) -> String {
        self.hear("a goodbye", |message| match message {
            RelayMessage::Bye(bye) => Some(bye.reason.clone()),
            _ => None,
        })
    }
}

#[test]
fn a_service_that_asks_for_more_opens_to_a_live_session_once_it_has_presented_that() {
    let setup = Setup::start("[turn]\nreputation_min = 300\n");
    let alice = SigningKey::generate();
    let token = setup.token(&alice);
    let mut call = Caller::join(&setup.relay, &alice, &token, "alice", &[]);
    let closed = (403, "reputation-too-low".to_owned());
    assert_eq!(setup.turn(&alice, &token), closed);

    call.want("turn");
    let request = call.request();
    assert_eq!(
        (request.reason.as_str(), request.ends),
        ("reputation-too-low", false)
    );
    assert_eq!(request.wanted.services[0].service, "turn");
    assert_eq!(request.wanted.services[0].score_min, Some(300));
    assert_eq!(request.wanted.issuers[0].did, *setup.scorer.did());
    let foreign = score(&SigningKey::generate(), alice.did(), 900, 60);
    let held = [foreign, score(&setup.scorer, alice.did(), 812, 60)];
    let fitting = request.wanted.fitting(&held, now());
    assert_eq!(fitting, held[1..]);
    let presentation = call.client.present(fitting, now()).unwrap();
    call.say(presentation);
    let verified = call.verified();
    assert!(verified.credentials.iter().all(|outcome| outcome.accepted));
    assert!(
        verified.services.iter().all(|service| service.open),
        "{verified:?}"
    );
    assert_eq!(setup.turn(&alice, &token).0, 200);

    // Another session of the same holder has it too.
    let mut second = Caller::join(&setup.relay, &alice, &setup.token(&alice), "alice2", &[]);
    second.want("turn");
    assert!(second.verified().services.iter().all(|service| service.open));
    let bye = second.client.bye("hangup", now());
    second.say(bye);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(setup.turn(&alice, &token).0, 200, "the first one is still live");

    let bob = SigningKey::generate();
    assert_eq!(setup.turn(&bob, &setup.token(&bob)), closed, "nobody else gains");
    call.want("turn");
    assert!(call.verified().services.iter().all(|service| service.open));
    let bye = call.client.bye("hangup", now());
    call.say(bye);
    let until = Instant::now() + PATIENCE;
    while setup.turn(&alice, &token).0 == 200 {
        assert!(
            Instant::now() < until,
            "what was presented lasts as long as the session"
        );
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn what_does_not_count_is_refused_with_its_reason() {
    let setup = Setup::start("[turn]\nreputation_min = 300\n");
    let (alice, mallory) = (SigningKey::generate(), SigningKey::generate());
    let token = setup.token(&alice);
    let mut call = Caller::join(&setup.relay, &alice, &token, "alice", &[]);
    let good = score(&setup.scorer, alice.did(), 812, 60);

    call.present_with("guessed", std::slice::from_ref(&good));
    let error = call.error();
    assert_eq!((error.code, error.reason.as_str()), (401, "presentation-stale"));

    let signed = good.rsplit_once('.').unwrap().0;
    let mut refusals = vec![
        (
            score(&mallory, alice.did(), 812, 60),
            403,
            "policy:credential-untrusted-issuer",
        ),
        (
            score(&setup.scorer, mallory.did(), 812, 60),
            403,
            "policy:credential-subject",
        ),
        (
            score(&setup.scorer, alice.did(), 812, 0),
            403,
            "policy:credential-expired",
        ),
        (
            format!("{signed}.{}", "A".repeat(86)),
            401,
            "policy:credential-signature",
        ),
        ("no.jwt".to_owned(), 400, "policy:credential-malformed"),
    ];
    let status = json!({"type": ["VerifiableCredential", "ReputationScore"], "issuer": setup.scorer.did(),
        "credentialStatus": {"id": "https://status.example/1"},
        "credentialSubject": {"id": alice.did(), "score": 812}});
    refusals.push((
        setup.scorer.sign_jws("vc+jwt", status.to_string().as_bytes()),
        403,
        "policy:credential-status",
    ));
    for (credential, code, reason) in refusals {
        call.want("turn");
        let nonce = call.request().nonce;
        call.present_with(&nonce, &[credential]);
        let error = call.error();
        assert_eq!((error.code, error.reason.as_str()), (code, reason));
        assert!(error.detail.len() > 15 && error.correlates.is_some(), "{error:?}");
    }
    call.want("turn");
    let nonce = call.request().nonce;
    call.present_with(&nonce, &[]);
    assert_eq!(call.error().reason, "policy:reputation-too-low");
    call.want("turn");
    let nonce = call.request().nonce;
    let five: Vec<String> = std::iter::repeat_n(good.clone(), 5).collect();
    call.present_with(&nonce, &five);
    assert_eq!(call.error().code, 413);
    assert_eq!(
        setup.turn(&alice, &token).0,
        403,
        "nothing of that opened anything"
    );

    let low = score(&setup.scorer, alice.did(), 299, 60);
    call.present_with(&nonce, &[low]);
    let verified = call.verified();
    assert!(verified.credentials[0].accepted);
    let turn = verified
        .services
        .iter()
        .find(|service| service.service == "turn")
        .unwrap();
    assert_eq!(
        (turn.open, turn.reason.as_deref()),
        (false, Some("policy:reputation-too-low"))
    );
    call.present_with(&nonce, &[good]);
    assert_eq!(call.error().reason, "presentation-stale", "a nonce serves once");
    assert_eq!(setup.turn(&alice, &token).0, 403);
}

#[test]
fn a_refused_invite_says_which_credentials_would_do_and_one_that_brings_them_is_answered() {
    let setup = Setup::start("[sfu]\nreputation_min = 300\n");
    let alice = SigningKey::generate();
    let token = setup.token(&alice);
    let mut call = Caller::connect(&setup.relay, &alice);
    call.invite(&token, "alice", &[]);
    let error = call.error();
    assert_eq!(
        (error.code, error.reason.as_str()),
        (403, "policy:reputation-too-low")
    );
    let wanted = error.wanted.unwrap();
    assert_eq!(wanted.services[0].service, "sfu");
    let credential = score(&setup.scorer, alice.did(), 812, 60);
    let fitting = wanted.fitting(&[credential], now());
    assert_eq!(fitting.len(), 1);
    let _live = Caller::join(&setup.relay, &alice, &token, "alice", &fitting);
}

#[test]
fn a_credential_that_expires_is_asked_for_again_and_the_operator_may_end_who_has_none() {
    let rules = "[sfu]\nreputation_min = 300\n[present]\nends_after_seconds = 3\n";
    let setup = Setup::start(rules);
    let (alice, bob) = (SigningKey::generate(), SigningKey::generate());
    let mut calls = [&alice, &bob].map(|key| {
        let short = score(&setup.scorer, key.did(), 812, 5);
        Caller::join(
            &setup.relay,
            key,
            &setup.token(key),
            &key.did().redacted(),
            &[short],
        )
    });
    for call in &mut calls {
        let request = call.request();
        assert_eq!(
            (request.reason.as_str(), request.ends),
            ("credential-expired", true)
        );
    }
    let [mut with, mut without] = calls;
    let fresh = score(&setup.scorer, alice.did(), 812, 600);
    let presentation = with.client.present(vec![fresh], now()).unwrap();
    with.say(presentation);
    assert!(with.verified().services.iter().all(|service| service.open));
    assert_eq!(without.bye(), "credentials-missing");
    with.want("sfu");
    assert!(
        with.verified().services.iter().all(|service| service.open),
        "it is still live"
    );
}

#[test]
fn a_policy_that_asks_for_more_asks_live_sessions_too_and_leaves_them_running_by_default() {
    let setup = Setup::start("");
    let alice = SigningKey::generate();
    let token = setup.token(&alice);
    let mut call = Caller::join(&setup.relay, &alice, &token, "alice", &[]);
    setup.reload("[sfu]\nreputation_min = 300\n");
    let request = call.request();
    assert_eq!((request.reason.as_str(), request.ends), ("policy-changed", false));
    let nonce = request.nonce;
    call.present_with(&nonce, &[score(&setup.scorer, alice.did(), 812, 60)]);
    assert!(call.verified().services.iter().all(|service| service.open));
}

#[test]
fn a_delegated_device_key_presents_what_is_about_its_holder() {
    let setup = Setup::start("[turn]\nreputation_min = 300\n");
    let (alice, device) = (SigningKey::generate(), SigningKey::generate());
    let audience = Did::parse(setup.relay.did()).unwrap();
    let cnf = Confirmation::Kid(device.kid().to_owned());
    let consent = delegation(&alice, &cnf, &audience, now() + 600);
    let mut wish = Issue::new(alice.did().clone(), audience, 1_000_000, now());
    wish.confirmation = Some((cnf, Some(consent)));
    let token = issue(&setup.relay.issuer(), &wish);
    let mut call = Caller::connect(&setup.relay, &device);
    call.client = call.client.speaking_for(alice.did().clone());
    let mut call = call.joined(&token, "alice", &[]);
    for (about, wanted) in [(&device, 403), (&alice, 200)] {
        call.want("turn");
        let nonce = call.request().nonce;
        call.present_with(&nonce, &[score(&setup.scorer, about.did(), 812, 60)]);
        match wanted {
            200 => assert!(call.verified().services.iter().all(|service| service.open)),
            _ => assert_eq!(call.error().reason, "policy:credential-subject"),
        }
        assert_eq!(setup.turn(&device, &token).0, wanted);
    }
}

#[test]
fn a_session_that_is_resumed_is_asked_again_and_the_old_nonce_serves_no_more() {
    let setup = Setup::start("[turn]\nreputation_min = 300\n");
    let alice = SigningKey::generate();
    let token = setup.token(&alice);
    let mut call = Caller::join(&setup.relay, &alice, &token, "alice", &[]);
    let session = call.client.session().unwrap().to_owned();
    call.want("turn");
    let missed = call.request().nonce;
    call.socket.get_ref().shutdown(std::net::Shutdown::Both).unwrap();

    let until = Instant::now() + PATIENCE;
    let (mut back, again) = loop {
        let mut back = Caller::connect(&setup.relay, &alice);
        let hello = back.client.hello(now());
        back.say(hello);
        back.hear("a challenge", |message| {
            matches!(message, RelayMessage::Challenge(_)).then_some(())
        });
        let resume = back.client.resume(&session, now()).unwrap();
        back.say(resume);
        let request = back.hear("a request", |message| match message {
            // The relay may not have noticed yet that the old connection broke.
            RelayMessage::Error(error) if error.code == 404 => Some(None),
            RelayMessage::Update(update) => update.changes.request.clone().map(Some),
            _ => None,
        });
        match request {
            Some(request) => break (back, request),
            None => assert!(Instant::now() < until, "the session is never taken up again"),
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_ne!(again.nonce, missed);
    let good = score(&setup.scorer, alice.did(), 812, 60);
    back.present_with(&missed, std::slice::from_ref(&good));
    assert_eq!(back.error().reason, "presentation-stale");
    let presentation = back.client.present(vec![good], now()).unwrap();
    back.say(presentation);
    assert!(back.verified().services.iter().all(|service| service.open));
    assert_eq!(setup.turn(&alice, &token).0, 200);
}
