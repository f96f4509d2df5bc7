//! The vectors that every implementation of DSIP envelopes is tested with, the browser's library too.
//!
//! Made from fixed keys, so that making them again gives the same bytes:
//! `MILLIWAY_WRITE_VECTORS=1 cargo test -p dsip --test vectors`.
#![allow(clippy::unwrap_used)]

#[path = "vectors/credentials.rs"]
mod credentials;
#[path = "vectors/receipts.rs"]
mod receipts;

use std::path::PathBuf;

use dsip::{Encoding, Envelope, canonicalise, seal_cbor_with_id, seal_with_id};
use identity::{Did, SigningKey, resolve};
use serde_json::{Value, json};

const NOW: u64 = 1_760_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

fn envelope(name: &str, seed: u8, to: Option<&Did>, kind: &str, body: Value, number: u8) -> Value {
    let key = key(seed);
    let id = format!("00000000-0000-4000-8000-0000000000{number:02x}");
    let text = seal_with_id(&key, to, kind, &body, NOW, &id);
    let cbor = seal_cbor_with_id(&key, to, kind, &body, NOW, &id);
    let mut without: Value = serde_json::from_str(&text).unwrap();
    let sig = without.as_object_mut().unwrap().remove("sig").unwrap();
    let jwk: Value = serde_json::from_str(&key.to_private_jwk()).unwrap();
    json!({
        "name": name,
        "private_jwk": jwk,
        "did": key.did(),
        "kid": key.kid(),
        "envelope_without_sig": without,
        "jcs": canonicalise(&without),
        "jws": sig["jws"],
        "text": text,
        "cbor": hex(&cbor),
    })
}

fn accepted() -> Value {
    let (client, relay) = (key(1), key(2));
    let (client, relay) = (client.did(), Some(relay.did()));
    json!([
        envelope(
            "hello without a receiver",
            1,
            None,
            "dsip.hello",
            json!({"nonce": "bm9uY2U"}),
            1
        ),
        envelope(
            "challenge by the relay",
            2,
            Some(client),
            "dsip.challenge",
            json!({
                "correlates": "00000000-0000-4000-8000-000000000001", "nonce": "cmVsYXk", "hello_nonce": "bm9uY2U",
                "url": "ws://127.0.0.1:8080/v1/dsip", "relay": key(2).did(),
                "tariff": [{"id": "dev", "service": "sfu", "msat_per_megabyte_out": 50, "msat_per_megabyte_in": 0,
                            "msat_per_second": 8, "valid_until": 1_760_086_400}],
            }),
            2
        ),
        envelope(
            "invite with an SDP of several lines",
            1,
            relay,
            "dsip.invite",
            json!({
                "room": "tea", "name": "Zoë 🍵", "token": "a.b.c", "nonce": "cmVsYXk",
                "media": {"sdp": "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n"},
                "max_msat_per_second": 9_007_199_254_740_991_u64,
            }),
            3
        ),
        envelope(
            "answer with fractions",
            2,
            Some(client),
            "dsip.answer",
            json!({
                "correlates": "00000000-0000-4000-8000-000000000003", "session": "00000000000000ff",
                "media": {"sdp": "v=0\r\n"},
                "economics": {"tariff": "dev", "available_msat": 100_000, "runway_seconds": 333333333.3333333,
                              "step": "full"},
            }),
            4
        ),
        envelope(
            "numbers in every layout",
            1,
            relay,
            "dsip.ice",
            json!({
                "numbers": [0, 1, -1, 1.0, 0.5, -0.25, 1e-6, 1e-7, 123456.789, 9_007_199_254_740_991_u64,
                            -9_007_199_254_740_991_i64, 1e15, 4.5e-300, 5e-324],
            }),
            5
        ),
        envelope(
            "strings with every kind of escape",
            1,
            relay,
            "dsip.ice",
            json!({
                "strings": ["\u{8}\t\n\u{c}\r\"\\/", "\u{0}\u{1f}\u{7f}\u{80}", "€ö\u{2028}\u{2029}", "😀\u{fb33}",
                            "<script>&amp;</script>", ""],
            }),
            6
        ),
        envelope(
            "members sorted by UTF-16 code units",
            1,
            relay,
            "dsip.ice",
            json!({
                "\u{fb33}": 1, "😀": 2, "€": 3, "ö": 4, "\u{80}": 5, "1": 6, "\r": 7, "": 8, "B": 9, "a": 10,
                "nested": {"z": [], "a": {}, "Z": [null, true, false]},
            }),
            7
        ),
        envelope(
            "update with all changes of a client",
            1,
            relay,
            "dsip.update",
            json!({
                "session": "00000000000000ff",
                "changes": {"mute": {"audio": true, "video": false}, "topup": {"token": "d.e.f"},
                            "subscribe": {"name": "Zoë 🍵", "audio": true, "video": true},
                            "answer": {"sdp": "v=0\r\n", "seq": 2}, "offer": {"sdp": "v=0\r\n", "seq": 1}},
            }),
            8
        ),
        envelope("bye", 1, relay, "dsip.bye", json!({"reason": "hangup"}), 9),
        envelope(
            "invite with a credential",
            1,
            relay,
            "dsip.invite",
            json!({
                "room": "tea", "token": "a.b.c", "nonce": "cmVsYXk", "media": {"sdp": "v=0\r\n"},
                "identity": {"proof": "DIDAuth-JWS", "credentials": ["g.h.i"]},
            }),
            10
        ),
        envelope(
            "request for credentials",
            2,
            Some(client),
            "dsip.update",
            json!({
                "session": "00000000000000ff",
                "changes": {"request": {
                    "nonce": "YXNr", "expires": NOW + 300, "reason": "reputation-too-low", "ends": false,
                    "wanted": {
                        "services": [{"service": "turn", "score_min": 300, "roles": ["support"]}],
                        "issuers": [{"did": key(6).did(), "types": ["ReputationScore", "Role"]}],
                    },
                }},
            }),
            11
        ),
        envelope(
            "presentation of credentials",
            1,
            relay,
            "dsip.update",
            json!({
                "session": "00000000000000ff",
                "changes": {"present": {"nonce": "YXNr", "credentials": ["g.h.i", "j.k.l"]}},
            }),
            12
        ),
        envelope(
            "what came of a presentation",
            2,
            Some(client),
            "dsip.update",
            json!({
                "correlates": "00000000-0000-4000-8000-00000000000c", "session": "00000000000000ff",
                "changes": {"verify": {
                    "credentials": [{"accepted": true},
                                    {"accepted": false, "reason": "policy:credential-expired", "detail": "it has expired"}],
                    "services": [{"service": "sfu", "open": true},
                                 {"service": "turn", "open": false, "reason": "policy:reputation-too-low"}],
                }},
            }),
            13
        ),
        envelope(
            "want of a service",
            1,
            relay,
            "dsip.update",
            json!({"session": "00000000000000ff", "changes": {"want": {"service": "turn"}}}),
            14
        ),
    ])
}

/// Texts that no implementation may accept, with the reason of the fault.
fn rejected() -> Value {
    let good = seal_with_id(
        &key(1),
        Some(key(2).did()),
        "dsip.bye",
        &json!({"reason": "hangup", "n": 1}),
        NOW,
        "00000000-0000-4000-8000-0000000000aa",
    );
    let parsed: Value = serde_json::from_str(&good).unwrap();
    let change = |change: &dyn Fn(&mut Value)| {
        let mut value = parsed.clone();
        change(&mut value);
        value.to_string()
    };
    let header = |header: Value| {
        change(&|value| {
            let mut without = value.clone();
            without.as_object_mut().unwrap().remove("sig");
            let header = base64url(header.to_string().as_bytes());
            let input = format!("{header}.{}", canonicalise(&without));
            value["sig"]["jws"] = format!("{header}..{}", base64url(&key(1).sign(input.as_bytes()))).into();
        })
    };
    let kid = key(1).kid().to_owned();
    let exact = || json!({"alg": "EdDSA", "kid": kid, "typ": "dsip+jws", "b64": false, "crit": ["b64"]});
    let with = |name: &str, member: Value| {
        let mut value = exact();
        value[name] = member;
        header(value)
    };
    let without = |name: &str| {
        let mut value = exact();
        value.as_object_mut().unwrap().remove(name);
        header(value)
    };
    let from = key(1).did().clone();
    let reject = |name: &str, text: String, reason: &str| json!({"name": name, "from": from, "text": text, "reason": reason});
    assert!(
        Envelope::open(&header(exact())).is_ok(),
        "the helper makes good ones too"
    );
    json!([
        reject(
            "repeated member",
            good.replacen("{", r#"{"n":1,"#, 1),
            "envelope-malformed"
        ),
        reject(
            "repeated member, escaped",
            good.replacen("{", r#"{"\u006e":1,"#, 1),
            "envelope-malformed"
        ),
        reject(
            "repeated member, deep",
            good.replacen("{", r#"{"m":[{"a":1,"a":1}],"#, 1),
            "envelope-malformed"
        ),
        reject(
            "lone high surrogate",
            good.replace("hangup", r"\ud83d"),
            "envelope-malformed"
        ),
        reject(
            "lone low surrogate",
            good.replace("hangup", r"\ude00x"),
            "envelope-malformed"
        ),
        reject(
            "integer of 2^53",
            good.replace(r#""n":1"#, r#""n":9007199254740992"#),
            "envelope-malformed"
        ),
        reject(
            "integer of -2^53",
            good.replace(r#""n":1"#, r#""n":-9007199254740992"#),
            "envelope-malformed"
        ),
        reject(
            "2^53 with an exponent",
            good.replace(r#""n":1"#, r#""n":9007199254740.992e3"#),
            "envelope-malformed"
        ),
        reject(
            "no sig",
            change(&|v| drop(v.as_object_mut().unwrap().remove("sig"))),
            "signature"
        ),
        reject(
            "a member changed",
            change(&|v| v["reason"] = json!("Hangup")),
            "signature"
        ),
        reject("a member added", change(&|v| v["x"] = Value::Null), "signature"),
        reject(
            "sig.alg is not the header's",
            change(&|v| v["sig"]["alg"] = json!("ES256")),
            "signature"
        ),
        reject(
            "sig.kid is another's",
            change(&|v| v["sig"]["kid"] = json!(key(3).kid())),
            "signature"
        ),
        reject("alg none", with("alg", json!("none")), "signature"),
        reject("alg HS256", with("alg", json!("HS256")), "signature"),
        reject(
            "alg ES256 with an Ed25519 key",
            with("alg", json!("ES256")),
            "signature"
        ),
        reject("header with jwk", with("jwk", json!({"kty": "OKP"})), "signature"),
        reject(
            "header with jku",
            with("jku", json!("https://evil.example/")),
            "signature"
        ),
        reject("header of another type", with("typ", json!("JWT")), "signature"),
        reject("header without typ", without("typ"), "signature"),
        reject("header without b64", without("b64"), "signature"),
        reject("header without crit", without("crit"), "signature"),
        reject("header with b64 true", with("b64", json!(true)), "signature"),
        reject(
            "header with more crit",
            with("crit", json!(["b64", "exp"])),
            "signature"
        ),
        reject(
            "header kid of another key",
            with("kid", json!(key(3).kid())),
            "signature"
        ),
        reject(
            "not detached",
            change(&|v| {
                let jws = v["sig"]["jws"].as_str().unwrap().replace("..", ".e30.");
                v["sig"]["jws"] = json!(jws);
            }),
            "signature"
        ),
        reject(
            "signature cut",
            change(&|v| {
                let jws = v["sig"]["jws"].as_str().unwrap();
                v["sig"]["jws"] = json!(jws[..jws.len() - 4]);
            }),
            "signature"
        ),
    ])
}

fn base64url(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for index in 0..=chunk.len() {
            text.push(ALPHABET[(group >> (18 - 6 * index)) as usize & 63] as char);
        }
    }
    text
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// CBOR that no implementation may accept, with the reason of the fault.
fn rejected_cbor() -> Value {
    let key = key(1);
    let good = seal_cbor_with_id(
        &key,
        Some(self::key(2).did()),
        "dsip.bye",
        &json!({"reason": "hangup"}),
        NOW,
        "00000000-0000-4000-8000-0000000000ab",
    );
    assert!(Envelope::open_cbor(&good).is_ok());
    // The map's head counts six members and `sig`; one more makes eight.
    assert_eq!(good[0], 0xa7);
    let with = |member: &[u8]| [&[0xa8][..], member, &good[1..]].concat();
    let at = |needle: &[u8]| {
        good.windows(needle.len())
            .position(|window| window == needle)
            .unwrap()
    };
    let replaced = |needle: &[u8], by: &[u8]| {
        let at = at(needle);
        [&good[..at], by, &good[at + needle.len()..]].concat()
    };
    let sig = at(b"\x63sig") + 4;
    let without_sig = [&[0xa6][..], &good[1..sig - 4]].concat();
    let from = key.did().clone();
    let reject = |name: &str, bytes: Vec<u8>, reason: &str| json!({"name": name, "from": from, "cbor": hex(&bytes), "reason": reason});
    json!([
        reject("repeated member", with(b"\x66reason\x61x"), "envelope-malformed"),
        reject(
            "byte string as a member",
            with(b"\x61x\x41\x01"),
            "envelope-malformed"
        ),
        reject("tagged member", with(b"\x61x\xc1\x01"), "envelope-malformed"),
        reject("number as a name", with(b"\x01\x01"), "envelope-malformed"),
        reject(
            "integer of 2^53",
            with(b"\x61x\x1b\x00\x20\0\0\0\0\0\0"),
            "envelope-malformed"
        ),
        reject(
            "integer of -2^53",
            with(b"\x61x\x3b\x00\x1f\xff\xff\xff\xff\xff\xff"),
            "envelope-malformed"
        ),
        reject(
            "infinite number",
            with(b"\x61x\xf9\x7c\x00"),
            "envelope-malformed"
        ),
        reject(
            "repeated member, deep",
            with(b"\x61x\xa2\x61a\x01\x61a\x01"),
            "envelope-malformed"
        ),
        reject(
            "something after it",
            [&good[..], &[0xf6]].concat(),
            "envelope-malformed"
        ),
        reject("cut off", good[..good.len() - 1].to_vec(), "envelope-malformed"),
        reject("an array", [&[0x81][..], &good].concat(), "envelope-malformed"),
        reject("no sig", without_sig, "signature"),
        reject(
            "a member changed",
            replaced(b"\x66hangup", b"\x66Hangup"),
            "signature"
        ),
        reject("a member added", with(b"\x61x\xf6"), "signature"),
        reject(
            "tagged sig",
            [&good[..sig], &[0xd2], &good[sig..]].concat(),
            "signature"
        ),
        reject(
            "attached payload",
            replaced(b"\xa0\xf6\x58\x40", b"\xa0\x41\x00\x58\x40"),
            "signature"
        ),
        reject(
            "alg of another key",
            replaced(b"\xa2\x01\x27\x04", b"\xa2\x01\x26\x04"),
            "signature"
        ),
        reject(
            "unprotected parameter",
            replaced(b"\xa0\xf6\x58\x40", b"\xa1\x04\x41\x00\xf6\x58\x40"),
            "signature"
        ),
    ])
}

fn vectors() -> Value {
    json!({"valid": accepted(), "rejected": rejected(), "rejected_cbor": rejected_cbor()})
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/envelopes.json")
}

/// Holds a stored file against what is made here, or stores it.
fn stored(name: &str, vectors: &Value) {
    let made = serde_json::to_string_pretty(vectors).unwrap() + "\n";
    let path = path().with_file_name(name);
    if std::env::var_os("MILLIWAY_WRITE_VECTORS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    assert!(
        std::fs::read_to_string(path).unwrap_or_default() == made,
        "dsip/vectors/{name} is not what is made here"
    );
}

#[test]
fn the_stored_vectors_are_made_again_byte_for_byte() {
    stored("envelopes.json", &vectors());
}

#[test]
fn messages_of_both_sides_are_read_as_what_they_are() {
    for vector in accepted().as_array().unwrap() {
        let envelope = Envelope::open(vector["text"].as_str().unwrap()).unwrap();
        if *envelope.from() == *key(2).did() {
            dsip::RelayMessage::read(&envelope).unwrap_or_else(|e| panic!("{}: {e}", vector["name"]));
        }
    }
}

#[test]
fn the_stored_envelopes_verify() {
    let vectors = vectors();
    for vector in vectors["valid"].as_array().unwrap() {
        let name = &vector["name"];
        let envelope =
            Envelope::open(vector["text"].as_str().unwrap()).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(envelope.canonical(), vector["jcs"].as_str().unwrap(), "{name}");
        assert_eq!(envelope.kid(), vector["kid"].as_str().unwrap(), "{name}");
        assert!(envelope.is_signed_by_sender(), "{name}");
        let did = Did::parse(vector["did"].as_str().unwrap()).unwrap();
        assert_eq!(
            envelope.key(),
            resolve(&did).unwrap().key(envelope.kid()).unwrap(),
            "{name}"
        );
        assert_eq!(envelope.encoding(), Encoding::Json);
        let cbor = Envelope::open_cbor(&unhex(vector["cbor"].as_str().unwrap()))
            .unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(
            (cbor.canonical(), cbor.kid(), cbor.encoding()),
            (envelope.canonical(), envelope.kid(), Encoding::Cbor),
            "{name}"
        );
        // A sender need not write canonically.
        let mut spaced: Value = vector["envelope_without_sig"].clone();
        spaced["sig"] = json!({"alg": "EdDSA", "kid": vector["kid"], "jws": vector["jws"]});
        assert!(
            Envelope::open(&serde_json::to_string_pretty(&spaced).unwrap()).is_ok(),
            "{name}"
        );
    }
}

#[test]
fn the_stored_rejects_are_refused_for_their_reason() {
    let vectors = vectors();
    for vector in vectors["rejected"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let fault = Envelope::open(vector["text"].as_str().unwrap()).expect_err(name);
        assert_eq!(
            fault.reason,
            vector["reason"].as_str().unwrap(),
            "{name}: {fault}"
        );
        assert!(!fault.detail.is_empty(), "{name}");
    }
}

#[test]
fn the_stored_cbor_rejects_are_refused_for_their_reason() {
    for vector in vectors()["rejected_cbor"].as_array().unwrap() {
        let name = vector["name"].as_str().unwrap();
        let fault = Envelope::open_cbor(&unhex(vector["cbor"].as_str().unwrap())).expect_err(name);
        assert_eq!(
            fault.reason,
            vector["reason"].as_str().unwrap(),
            "{name}: {fault}"
        );
    }
}
