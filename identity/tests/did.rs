//! DIDs and their keys: the methods' own vectors, and keys that prove nothing.
#![allow(clippy::unwrap_used)]

mod support;

use identity::{Did, DidError, Document, KeyError, PublicKey, SigningKey, resolve};
use serde_json::{Value, json};
use support::{P256, base64url, key};

fn jwk_did(jwk: &Value) -> Did {
    Did::parse(&format!("did:jwk:{}", base64url(jwk.to_string().as_bytes()))).unwrap()
}

fn key_did(multicodec: &[u8]) -> Did {
    Did::parse(&format!("did:key:z{}", bs58::encode(multicodec).into_string())).unwrap()
}

#[test]
fn the_ed25519_vectors_of_the_did_key_specification_resolve() {
    for text in [
        "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp",
        "did:key:z6MkjchhfUsD6mmvni8mCdXHw216Xrm9bQe2mBH1P5RDjVJG",
        "did:key:z6MknGc3ocHs3zdPiJbnaaqDi58NGb4pk1Sp9WxWufuXSdxf",
    ] {
        let did = Did::parse(text).unwrap();
        let document = resolve(&did).unwrap();
        let kid = format!("{text}#{}", &text["did:key:".len()..]);
        let key = document.key(&kid).expect("the key's fragment is the identifier");
        assert_eq!(Did::from_key(key), did);
    }
}

#[test]
fn the_p256_vectors_of_the_did_key_specification_resolve() {
    let did = Did::parse("did:key:zDnaerDaTF5BXEavCrfRZEk316dpbLsfPDZ3WJ5hRTPFU2169").unwrap();
    let document = resolve(&did).unwrap();
    assert_eq!(
        document.authentication[0].key.to_jwk(),
        json!({"kty": "EC", "crv": "P-256", "x": "fyNYMN0976ci7xqiSdag3buk-ZCwgXU4kz9XNkBlNUI",
               "y": "hW2ojTNfH7Jbi8--CJUo3OCbH3y5n91g-IMA9MLMbTU"})
    );
    assert_eq!(Did::from_key(&document.authentication[0].key), did);
    assert!(
        resolve(&Did::parse("did:key:zDnaerx9CtbPJ1q36T5Ln5wYt3MQYeGRG5ehnPAmxcf5mDZpv").unwrap()).is_ok()
    );
}

#[test]
fn the_secp256k1_vectors_of_the_did_key_specification_resolve() {
    for (text, public) in [
        (
            "did:key:zQ3shokFTS3brHcDQrn82RUDfCZESWL1ZdCEJwekUDPQiYBme",
            "23o6Sau8NxxzXcgSc3PLcNxrzrZpbLeBn1izfv3jbKhuv",
        ),
        (
            "did:key:zQ3shtxV1FrJfhqE1dvxYRcCknWNjHc3c5X1y3ZSoPDi2aur2",
            "291KzQhqCPC18PqH83XKhxv1HdqrdnxyS7dh15t2uNRzJ",
        ),
        (
            "did:key:zQ3shZc2QzApp2oymGvQbzP8eKheVshBHbU4ZYjeXqwSKEn6N",
            "oesQ92MLiAkt2pjBcJFbW7H4DvzKJv22cotjYbmC2JEe",
        ),
        (
            "did:key:zQ3shadCps5JLAHcZiuX5YUtWHHL8ysBJqFLWvjZDKAWUBGzy",
            "pg3p1vprqePgUoqfAQ1TTgxhL6zLYhHyzooR1pqLxo9F",
        ),
        (
            "did:key:zQ3shptjE6JwdkeKN4fcpnYQY3m9Cet3NiHdAfpvSUZBFoKBj",
            "24waDFAUAS16UpZwQQTXVEAmm17rQRjadjuAeBDW8aqL1",
        ),
    ] {
        let did = Did::parse(text).unwrap();
        let document = resolve(&did).unwrap();
        let kid = format!("{text}#{}", &text["did:key:".len()..]);
        let key = document.key(&kid).expect("the key's fragment is the identifier");
        let compressed = bs58::decode(public).into_vec().unwrap();
        assert_eq!(Some(key), PublicKey::secp256k1(&compressed).ok().as_ref());
        assert_eq!((Did::from_key(key), key.algorithm().name()), (did, "ES256K"));
        assert_eq!(
            resolve(&jwk_did(&key.to_jwk())).unwrap().authentication[0].key,
            *key,
            "as did:jwk"
        );
    }
}

#[test]
fn the_p256_vector_of_the_did_jwk_specification_resolves() {
    let did = Did::parse(
        "did:jwk:eyJjcnYiOiJQLTI1NiIsImt0eSI6IkVDIiwieCI6ImFjYklRaXVNczNpOF91c3pFakoydHBUdFJNNEVVM3l6OTFQSDZDZEgyVjAiLCJ5IjoiX0tjeUxqOXZXTXB0bm1LdG00NkdxRHo4d2Y3NEk1TEtncmwyR3pIM25TRSJ9",
    )
    .unwrap();
    let document = resolve(&did).unwrap();
    assert!(document.key(&format!("{did}#0")).is_some());
    assert!(document.key(did.as_str()).is_none());
}

#[test]
fn the_thumbprint_of_rfc_8037_appendix_a3_is_made() {
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
    let key = PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap();
    assert_eq!(
        key.thumbprint().to_text(),
        "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"
    );
}

#[test]
fn a_did_is_checked_for_syntax_and_length() {
    for text in [
        "",
        "did",
        "did:",
        "did:key",
        "did:key:",
        "did::z",
        "DID:key:z",
        "did:Key:z",
        "did:key:z#a",
        "did:key:z/a",
        "did:key:z?a",
        "did:key:z ",
        "did:key:é",
        "did:web:a%",
        "did:web:a%2",
        "did:web:a%zz",
        "did:web:a:",
        "did:a\0:b",
    ] {
        assert_eq!(Did::parse(text), Err(DidError::Syntax), "{text}");
    }
    assert!(Did::parse("did:web:relay.example%3A8443:users:bob").is_ok());
    assert_eq!(
        Did::parse(&format!("did:web:{}", "a".repeat(1024))),
        Err(DidError::Syntax)
    );
}

#[test]
fn a_did_that_needs_a_network_does_not_resolve_here() {
    for text in ["did:web:relay.example", "did:ion:abc", "did:unheard:x"] {
        assert_eq!(resolve(&Did::parse(text).unwrap()), Err(DidError::Method));
    }
}

#[test]
fn a_did_key_that_is_not_a_key_is_refused() {
    for text in [
        "did:key:z",
        "did:key:6Mk",
        "did:key:z0OIl",
        // X25519 encrypts and signs nothing.
        "did:key:z6LSbgq3GejX88eiAYWmZ9EiddS3GaXodvm8MJJyEH7bqXgz",
    ] {
        assert!(resolve(&Did::parse(text).unwrap()).is_err(), "{text}");
    }
    assert!(
        resolve(&key_did(&[&[0xed, 1][..], &[9; 31]].concat())).is_err(),
        "31 bytes"
    );
    assert!(
        resolve(&key_did(&[&[0xed, 1][..], &[9; 33]].concat())).is_err(),
        "33 bytes"
    );
    assert!(
        resolve(&Did::parse(&format!("did:key:z{}", "1".repeat(900))).unwrap()).is_err(),
        "long"
    );
}

#[test]
fn a_did_key_has_one_text_per_key() {
    let public = P256::generate().public();
    let jwk = public.to_jwk();
    let decode = |name: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD
            .decode(jwk[name].as_str().unwrap())
            .unwrap()
    };
    let uncompressed = [&[0x80, 0x24, 4][..], &decode("x"), &decode("y")].concat();
    assert!(
        resolve(&key_did(&uncompressed)).is_err(),
        "an uncompressed point would be a second DID of the key"
    );
}

#[test]
fn small_order_and_non_canonical_ed25519_keys_are_refused() {
    let hex = |text: &str| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    for point in [
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000080",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000080",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
        // not canonical: p, p + 1, 2^255 - 1, with and without the sign bit
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
    ] {
        assert!(PublicKey::ed25519(&hex(point)).is_err(), "{point}");
        assert!(
            resolve(&key_did(&[&[0xed, 1][..], &hex(point)].concat())).is_err(),
            "{point}"
        );
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&hex(point))});
        assert!(resolve(&jwk_did(&jwk)).is_err(), "{point}");
    }
}

#[test]
fn a_malleated_ed25519_signature_is_refused() {
    // S + L verifies under the same equation; RFC 8032 section 5.1.7 demands S < L.
    const L: [u8; 32] = [
        0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
    ];
    let key = key(9);
    let mut signature = key.sign(b"message");
    assert!(key.public_key().verify(b"message", &signature));
    let mut carry = 0u16;
    for (byte, l) in signature[32..].iter_mut().zip(L) {
        carry += u16::from(*byte) + u16::from(l);
        *byte = carry as u8;
        carry >>= 8;
    }
    assert!(!key.public_key().verify(b"message", &signature));
}

#[test]
fn an_ecdsa_signature_with_r_or_s_of_zero_or_the_order_is_refused() {
    const ORDER: [u8; 32] = [
        0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc, 0xe6, 0xfa,
        0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
    ];
    let key = P256::generate();
    let good = key.sign(b"message");
    assert!(key.public().verify(b"message", &good));
    let (r, s) = good.split_at(32);
    for bad in [
        [&[0; 32], s].concat(),
        [r, &[0; 32]].concat(),
        vec![0; 64],
        [&ORDER, s].concat(),
        [r, &ORDER].concat(),
        vec![],
        good[..63].to_vec(),
        [&good[..], &[0]].concat(),
    ] {
        assert!(!key.public().verify(b"message", &bad));
    }
}

#[test]
fn a_p256_point_off_the_curve_is_refused() {
    let mut jwk = P256::generate().public().to_jwk();
    jwk["y"] = jwk["x"].clone();
    assert_eq!(resolve(&jwk_did(&jwk)), Err(DidError::Key(KeyError::NotOnCurve)));
    assert!(PublicKey::p256(&[0]).is_err(), "the point at infinity");
    assert!(
        PublicKey::p256(&[&[2][..], &[0xff; 32]].concat()).is_err(),
        "x beyond the field"
    );
}

#[test]
fn symmetric_private_and_other_keys_in_a_did_jwk_are_refused() {
    let public = key(9).public_key().to_jwk();
    let with = |name: &str, value: &str| {
        let mut jwk = public.clone();
        jwk[name] = value.into();
        resolve(&jwk_did(&jwk))
    };
    assert_eq!(
        resolve(&jwk_did(&json!({"kty": "oct", "k": "AAAA"}))),
        Err(DidError::Key(KeyError::Symmetric))
    );
    assert_eq!(with("d", "AAAA"), Err(DidError::Key(KeyError::Private)));
    assert_eq!(with("k", "AAAA"), Err(DidError::Key(KeyError::Private)));
    assert_eq!(with("alg", "HS256"), Err(DidError::Key(KeyError::Unsupported)));
    assert_eq!(with("alg", "ES256"), Err(DidError::Key(KeyError::Unsupported)));
    assert_eq!(with("kty", "RSA"), Err(DidError::Key(KeyError::Unsupported)));
    assert_eq!(with("crv", "X25519"), Err(DidError::Key(KeyError::Unsupported)));
    assert_eq!(with("use", "enc"), Err(DidError::Identifier));
    assert!(with("use", "sig").is_ok());
    assert!(with("alg", "EdDSA").is_ok());
    assert!(resolve(&jwk_did(&P256::generate().public().to_jwk())).is_ok());
}

#[test]
fn a_did_jwk_with_repeated_members_is_refused() {
    let x = key(9).public_key().to_jwk()["x"].as_str().unwrap().to_owned();
    let text = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{x}","x":"{x}"}}"#);
    let did = Did::parse(&format!("did:jwk:{}", base64url(text.as_bytes()))).unwrap();
    assert_eq!(resolve(&did), Err(DidError::Identifier));
}

#[test]
fn people_and_keys_do_not_print() {
    let secret = SigningKey::generate();
    let d = serde_json::from_str::<Value>(&secret.to_private_jwk()).unwrap()["d"]
        .as_str()
        .unwrap()
        .to_owned();
    let shown = format!("{secret:?} {:?} {:?}", secret.did(), secret.public_key());
    assert!(!shown.contains(&d));
    assert!(!shown.contains(&secret.did().as_str()[8..]));
    assert!(shown.contains("did:key:~"));
    assert_ne!(secret.did().redacted(), key(1).did().redacted());
}

proptest::proptest! {
    #[test]
    fn any_text_is_a_did_or_not_without_a_panic(text in "(did:(key|jwk|web):)?.{0,80}") {
        if let Ok(did) = Did::parse(&text) {
            let _ = (resolve(&did), did.redacted(), did.method().len());
        }
    }
    #[test]
    fn any_multicodec_bytes_resolve_or_not_without_a_panic(bytes: Vec<u8>, p256: bool) {
        let prefix: &[u8] = if p256 { &[0x80, 0x24] } else { &[0xed, 1] };
        let _ = resolve(&key_did(&[prefix, &bytes[..bytes.len().min(40)]].concat()));
    }
    #[test]
    fn a_keys_did_resolves_to_the_key(seed: [u8; 32]) {
        let key = SigningKey::from_seed(&seed);
        let document = resolve(key.did()).unwrap();
        proptest::prop_assert_eq!(document.key(key.kid()), Some(key.public_key()));
    }
}

fn web() -> Did {
    Did::parse("did:web:issuer.example").unwrap()
}

fn method(fragment: &str, key: &PublicKey) -> Value {
    json!({"id": format!("did:web:issuer.example#{fragment}"), "type": "JsonWebKey2020",
           "controller": "did:web:issuer.example", "publicKeyJwk": key.to_jwk()})
}

fn document(value: &Value) -> Result<Document, DidError> {
    Document::parse(&web(), &value.to_string())
}

#[test]
fn the_minimal_document_of_dsip_4_2_is_read() {
    let (did, signer) = (Did::parse("did:web:voice.example:users:alice").unwrap(), key(1));
    let multibase = &signer.did().as_str()["did:key:".len()..];
    let text = json!({
        "@context": ["https://www.w3.org/ns/did/v1"],
        "id": did,
        "verificationMethod": [{"id": "#key-1", "type": "Ed25519VerificationKey2020", "controller": did,
                                "publicKeyMultibase": multibase}],
        "authentication": ["#key-1"],
        "service": [{"id": "#dsip", "type": "DSIPService", "serviceEndpoint": {"ws": ["wss://relay.voice.example/dsip"]}}],
    });
    let document = Document::parse(&did, &text.to_string()).unwrap();
    let kid = format!("{did}#key-1");
    assert_eq!(document.key(&kid), Some(signer.public_key()));
    assert_eq!(
        document.issuing_key(&kid),
        Some(signer.public_key()),
        "no assertionMethod: the one key does both"
    );
}

#[test]
fn every_way_to_write_a_key_is_read_and_other_kinds_are_passed_over() {
    let (ed25519, p256) = (key(1), P256::generate());
    let multibase = ed25519.did().as_str()["did:key:".len()..].to_owned();
    let raw = bs58::decode(&multibase[1..]).into_vec().unwrap()[2..].to_vec();
    let id = |fragment: &str| format!("did:web:issuer.example#{fragment}");
    let read = document(&json!({
        "id": web(),
        "verificationMethod": [
            method("jwk", &p256.public()),
            {"id": "#multikey", "type": "Multikey", "publicKeyMultibase": multibase},
            {"id": id("2018"), "type": "Ed25519VerificationKey2018", "publicKeyBase58": bs58::encode(raw).into_string()},
            {"id": id("hex"), "type": "EcdsaSecp256k1VerificationKey2019",
             "publicKeyHex": "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"},
            {"id": id("odd"), "type": "EcdsaSecp256k1VerificationKey2019", "publicKeyHex": "0279b"},
            {"id": id("rsa"), "type": "JsonWebKey2020", "publicKeyJwk": {"kty": "RSA", "n": "AQAB", "e": "AQAB"}},
            {"id": id("x"), "type": "X25519KeyAgreementKey2020",
             "publicKeyMultibase": "z6LSbgq3GejX88eiAYWmZ9EiddS3GaXodvm8MJJyEH7bqXgz"},
            {"id": "did:web:other.example#k", "type": "JsonWebKey2020", "publicKeyJwk": p256.public().to_jwk()},
            "nonsense", 7, {},
        ],
        "authentication": ["#jwk", id("multikey"), "#2018", "#hex", "#odd", "#rsa", "#x", "#absent", "did:web:other.example#k", 7],
        "assertionMethod": [{"id": "#own", "type": "JsonWebKey2020", "publicKeyJwk": p256.public().to_jwk()}],
    }))
    .unwrap();
    let ids: Vec<&str> = read
        .authentication
        .iter()
        .map(|method| method.id.as_str())
        .collect();
    assert_eq!(ids, [id("jwk"), id("multikey"), id("2018"), id("hex")]);
    assert_eq!(read.key(&id("2018")), Some(ed25519.public_key()));
    assert_eq!(read.issuing_key(&id("own")), Some(&p256.public()));
    assert_eq!(
        read.issuing_key(&id("jwk")),
        None,
        "what only authenticates does not issue"
    );
    assert_eq!(read.key(&id("own")), None, "and the other way round");
}

#[test]
fn a_document_whose_id_differs_is_refused() {
    for id in [
        json!("did:web:victim.example"),
        json!("did:web:issuer.example:"),
        json!("did:web:issuer.example%3A443"),
        json!("did:web:Issuer.example"),
        json!(["did:web:issuer.example"]),
        Value::Null,
    ] {
        let refused = document(&json!({"id": id, "authentication": [method("a", key(1).public_key())]}));
        assert!(matches!(refused, Err(DidError::Document(_))), "{id}");
    }
}

#[test]
fn a_symmetric_or_private_key_in_a_did_document_is_refused() {
    let with = |jwk: Value| {
        document(
            &json!({"id": web(), "authentication": [{"id": "#a", "type": "JsonWebKey2020", "publicKeyJwk": jwk}]}),
        )
    };
    assert_eq!(
        with(json!({"kty": "oct", "k": "AAAA"})),
        Err(DidError::Key(KeyError::Symmetric))
    );
    let private: Value = serde_json::from_str(&key(1).to_private_jwk()).unwrap();
    assert_eq!(with(private), Err(DidError::Key(KeyError::Private)));
}

#[test]
fn a_document_that_two_readers_could_read_differently_is_refused() {
    let (one, two) = (method("a", key(1).public_key()), method("a", key(2).public_key()));
    assert!(
        document(&json!({"id": web(), "verificationMethod": [one, two], "authentication": ["#a"]})).is_err()
    );
    assert!(document(&json!({"id": web(), "verificationMethod": [one], "authentication": [two]})).is_err());
    assert!(
        document(&json!({"id": web(), "verificationMethod": [one, one], "authentication": ["#a"]})).is_ok()
    );
    let twice = r#"{"id":"did:web:issuer.example","id":"did:web:issuer.example"}"#;
    assert!(Document::parse(&web(), twice).is_err());
    assert!(document(&json!({"id": web(), "authentication": "#a"})).is_err());
    assert!(document(&json!({"id": web(), "authentication": vec!["#a"; 257]})).is_err());
    assert!(
        Document::parse(
            &web(),
            &format!("{{\"id\":\"did:web:issuer.example\"{}}}", " ".repeat(65_536))
        )
        .is_err()
    );
    for text in ["", "[]", "null", "<html>", "{\"id\":"] {
        assert!(Document::parse(&web(), text).is_err(), "{text}");
    }
}

proptest::proptest! {
    #[test]
    fn no_document_panics_the_reader(text in ".{0,200}", list in proptest::collection::vec(".{0,30}", 0..5)) {
        let _ = Document::parse(&web(), &text);
        let _ = document(&json!({"id": web(), "verificationMethod": list, "authentication": [{"id": text}, text]}));
        if let Ok(did) = Did::parse(&format!("did:web:{text}")) {
            let _ = identity::did_web::Location::of(&did);
        }
    }
}
