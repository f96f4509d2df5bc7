//! A relay whose issuer and holders are did:web: their documents come from a real HTTPS server of the test's.
#![allow(clippy::unwrap_used)]

mod relay;
mod web;

use dsip::{Envelope, RelayMessage};
use identity::token::{Issue, issue};
use identity::{Did, SigningKey};
use relay::{Relay, offer};
use serde_json::json;
use tokio_tungstenite::tungstenite;
use web::Site;

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs()
}

/// A relay that trusts the did:web issuer of this site, and reaches the site on loopback.
fn relay(site: &Site, issuer: &SigningKey) -> Relay {
    let configuration = site.data.path().join("relay.toml");
    let text = format!(
        "[auth]\nissuers = [\"{}\"]\n[did]\nca_file = \"{}\"\nhosts = [\"site.example=127.0.0.1\"]\n\
         allow_addresses = [\"127.0.0.1/32\"]\ncache_seconds = 1\nfailure_cache_seconds = 1\n",
        issuer.did(),
        site.ca_file().display()
    );
    std::fs::write(&configuration, text).unwrap();
    let arguments = ["--config", configuration.to_str().unwrap()];
    Relay::start_with(tempfile::tempdir().unwrap(), &arguments, &[])
}

fn token(issuer: &SigningKey, holder: &Did, relay: &Relay) -> String {
    let audience = Did::parse(relay.did()).unwrap();
    issue(issuer, &Issue::new(holder.clone(), audience, 50_000, now()))
}

#[test]
fn did_web_issuers_and_holders_join_and_see_their_account() {
    let site = Site::start();
    let issuer = site.key(1, "");
    let holder = site.key(2, ":users:alice");
    let relay = relay(&site, &issuer);
    let jwt = token(&issuer, holder.did(), &relay);
    let account = |key: &SigningKey| relay.signed(key, None, "GET", "/v1/account", b"");
    assert_eq!(
        account(&holder).status,
        401,
        "nobody vouched for this DID yet, so it is not fetched"
    );
    assert_eq!(site.requests(), 0);

    let joined = relay.signed(&holder, Some(&jwt), "POST", "/whip/den/alice", offer().as_bytes());
    assert_eq!(joined.status, 201, "{}", joined.text());
    assert_eq!(site.requests(), 2, "the issuer's document and the holder's");
    let seen = account(&holder);
    assert_eq!(seen.status, 200, "{}", seen.text());
    assert_eq!(seen.json()["did"], holder.did().as_str());

    let thief = site.key(9, "").listed_as(holder.did().clone(), "key-1");
    assert_eq!(
        relay
            .signed(
                &thief,
                Some(&jwt),
                "POST",
                "/whip/den/mallory",
                offer().as_bytes()
            )
            .slug(),
        "proof-key"
    );
    assert_eq!(account(&thief).slug(), "proof-key");
}

#[test]
fn a_key_that_was_rotated_out_opens_nothing_more() {
    let site = Site::start();
    let issuer = site.key(1, "");
    let relay = relay(&site, &issuer);
    let holder = SigningKey::generate();
    let ice = |jwt: &str| relay.signed(&holder, Some(jwt), "POST", "/v1/turn/credentials", b"");
    let jwt = token(&issuer, holder.did(), &relay);
    assert_eq!(ice(&jwt).status, 200);
    let rotated = site.key(7, "");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(ice(&jwt).slug(), "token-signature");
    assert_eq!(ice(&token(&rotated, holder.did(), &relay)).status, 200);
    site.remove(rotated.did());
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let refused = ice(&token(&rotated, holder.did(), &relay));
    assert_eq!((refused.status, refused.slug().as_str()), (401, "token-issuer"));
}

#[test]
fn a_relay_fetches_nothing_for_issuers_that_its_operator_does_not_list() {
    let site = Site::start();
    let (issuer, stranger) = (site.key(1, ""), site.key(3, ":strangers"));
    let relay = relay(&site, &issuer);
    let holder = site.key(2, ":users:alice");
    let jwt = token(&stranger, holder.did(), &relay);
    let refused = relay.signed(&holder, Some(&jwt), "POST", "/v1/turn/credentials", b"");
    assert_eq!(refused.slug(), "token-untrusted-issuer");
    assert_eq!(site.requests(), 0);
}

/// Says `kind` on a connection to the relay and hears the next envelope, opened.
struct Conversation {
    socket: tungstenite::WebSocket<std::net::TcpStream>,
}

impl Conversation {
    fn begin(relay: &Relay) -> Conversation {
        use tungstenite::client::IntoClientRequest;
        let stream = std::net::TcpStream::connect(relay.host()).unwrap();
        let patience = std::time::Duration::from_secs(15);
        stream.set_read_timeout(Some(patience)).unwrap();
        let mut request = format!("ws://{}/v1/dsip", relay.host())
            .into_client_request()
            .unwrap();
        let protocol = dsip::SUBPROTOCOL.parse().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", protocol);
        let (socket, _) = tungstenite::client(request, stream).unwrap();
        Conversation { socket }
    }

    fn say(&mut self, key: &SigningKey, relay: &Relay, kind: &str, body: serde_json::Value) -> RelayMessage {
        let relay = Did::parse(relay.did()).unwrap();
        let envelope = dsip::seal(key, Some(&relay), kind, &body, now());
        self.socket.send(tungstenite::Message::text(envelope)).unwrap();
        loop {
            if let tungstenite::Message::Text(text) = self.socket.read().unwrap() {
                return RelayMessage::read(&Envelope::open(&text).unwrap()).unwrap();
            }
        }
    }
}

#[test]
fn a_did_web_holder_speaks_dsip_with_a_token_in_its_hello() {
    let site = Site::start();
    let (issuer, holder) = (site.key(1, ""), site.key(2, ":users:alice"));
    let relay = relay(&site, &issuer);
    let jwt = token(&issuer, holder.did(), &relay);
    let stranger = Conversation::begin(&relay).say(&holder, &relay, "dsip.hello", json!({"nonce": "n"}));
    assert!(
        matches!(stranger, RelayMessage::Error(error) if error.code == 401),
        "nobody vouches for it"
    );
    assert_eq!(site.requests(), 0);

    let mut conversation = Conversation::begin(&relay);
    let hello = json!({"nonce": "n", "token": jwt});
    let RelayMessage::Challenge(challenge) = conversation.say(&holder, &relay, "dsip.hello", hello) else {
        panic!("no challenge");
    };
    let invite = json!({"room": "den", "name": "alice", "token": jwt, "nonce": challenge.nonce, "media": {"sdp": offer()}});
    let answer = conversation.say(&holder, &relay, "dsip.invite", invite);
    assert!(matches!(answer, RelayMessage::Answer(_)), "{answer:?}");

    let thief = SigningKey::from_seed(&[9; 32]).listed_as(holder.did().clone(), "key-1");
    let refused =
        Conversation::begin(&relay).say(&thief, &relay, "dsip.hello", json!({"nonce": "n", "token": jwt}));
    assert!(matches!(refused, RelayMessage::Error(error) if error.reason == "signature"));
}
