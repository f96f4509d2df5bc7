//! The shared vectors in `dsip/vectors/`, which the JavaScript library passes too. The valid ones are made here, from
//! fixed keys (Ed25519 signatures are deterministic); `MILLIWAY_WRITE_VECTORS=1 cargo test -p dsip` writes them anew.

use std::path::Path;

use dsip::{Draft, Envelope};
use identity::SigningKey;
use serde_json::{Map, Value, json};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        _ => panic!("an object"),
    }
}

fn bodies() -> Vec<(&'static str, &'static str, Value)> {
    vec![
        ("hello", "dsip.hello", json!({"nonce": "bm9uY2U"})),
        (
            "invite with line breaks and slashes in its SDP",
            "dsip.invite",
            json!({"room": "standup", "token": "a.b.c", "nonce": "x", "media": {"sdp": "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\na=fmtp:111 a/b\r\n"}}),
        ),
        (
            "numbers as ECMAScript writes them",
            "dsip.update",
            json!({"changes": {"balance": {"runway_seconds": 0.1, "a": 1e21, "b": 1e-7, "c": 100.0, "d": -0.0, "e": 9_007_199_254_740_991_u64}}}),
        ),
        (
            "names sorted by UTF-16 code units",
            "dsip.update",
            json!({"changes": {"\u{fb33}": 1, "\u{1f600}": 2, "€": 3, "ö": 4, "1": 5, "\r": 6}}),
        ),
        (
            "characters that need escapes",
            "dsip.bye",
            json!({"reason": "\"\\\u{8}\t\n\u{c}\r\u{1}/<é>\u{2028}"}),
        ),
        (
            "empty containers and literals",
            "dsip.ice",
            json!({"candidate": null, "list": [], "map": {}, "flags": [true, false]}),
        ),
    ]
}

fn made() -> Value {
    let key = SigningKey::from_seed(&[1; 32]);
    let peer = SigningKey::from_seed(&[2; 32]);
    let valid: Vec<Value> = bodies()
        .into_iter()
        .map(|(name, kind, body)| {
            let text = Draft {
                kind,
                id: "5f0c1ff0-0f2a-4a53-9be4-0a1b2c3d4e5f",
                timestamp: 1_733_871_542,
                to: Some(peer.did()),
                correlates: None,
                body: object(body),
            }
            .sign(&key);
            let envelope = Envelope::parse(&text).expect("our own");
            json!({
                "name": name,
                "private_jwk": serde_json::from_str::<Value>(&key.to_private_jwk()).expect("a JWK"),
                "did": key.did().as_str(),
                "kid": key.kid(),
                "envelope_without_sig": envelope.members(),
                "jcs": envelope.canonical(),
                "jws": envelope.jws(),
                "text": text,
            })
        })
        .collect();
    let good = valid[0]["text"].as_str().expect("text").to_owned();
    let swap = |old: &str, new: &str| {
        let text = good.replacen(old, new, 1);
        assert_ne!(text, good, "{old} is in the envelope");
        text
    };
    let rejected = json!([
        {"name": "a changed body", "text": swap("bm9uY2U", "bm9uY2V")},
        {"name": "another sender's DID", "text": swap(&format!("\"from\":\"{}\"", key.did().as_str()), &format!("\"from\":\"{}\"", peer.did().as_str()))},
        {"name": "alg of sig differs from the protected header", "text": swap("\"alg\":\"EdDSA\"", "\"alg\":\"ES256\"")},
        {"name": "kid of sig differs from the protected header", "text": swap(&format!("\"kid\":\"{}\"", key.kid()), &format!("\"kid\":\"{}\"", peer.kid()))},
        {"name": "a repeated member", "text": swap("\"nonce\":\"bm9uY2U\"", "\"nonce\":\"bm9uY2U\",\"nonce\":\"bm9uY2U\"")},
        {"name": "a lone surrogate", "text": swap("bm9uY2U", "\\ud800")},
        {"name": "an integer beyond 2^53-1", "text": swap("1733871542", "9007199254740992")},
        {"name": "no signature", "text": format!("{}}}", good.split(",\"sig\"").next().expect("a part"))},
    ]);
    json!({"valid": valid, "rejected": rejected})
}

#[test]
fn the_vectors_are_what_this_library_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("vectors/envelopes.json");
    let made = made();
    if std::env::var_os("MILLIWAY_WRITE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&made).expect("JSON");
        std::fs::write(&path, text + "\n").expect("the vectors can be written");
    }
    let stored: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).expect("vectors/envelopes.json")).expect("JSON");
    assert_eq!(stored, made);
}

#[test]
fn every_valid_vector_verifies() {
    for vector in made()["valid"].as_array().expect("a list") {
        let envelope = Envelope::parse(vector["text"].as_str().expect("text")).expect("it parses");
        envelope
            .verify()
            .unwrap_or_else(|error| panic!("{}: {error}", vector["name"]));
    }
}

#[test]
fn every_rejected_vector_is_refused() {
    for vector in made()["rejected"].as_array().expect("a list") {
        let verdict =
            Envelope::parse(vector["text"].as_str().expect("text")).and_then(|envelope| envelope.verify());
        assert!(verdict.is_err(), "{} was accepted", vector["name"]);
    }
}
