//! JWS: the RFCs' own vectors, and detached ones that differ in the header.
#![allow(clippy::unwrap_used)]

mod support;

use identity::PublicKey;
use identity::jws::{DetachedJws, Jws, JwsError, sign_detached};
use serde_json::{Value, json};
use support::{attacker, base64url, holder, signed};

fn public(jwk: &Value) -> PublicKey {
    PublicKey::from_jwk(jwk.as_object().unwrap()).unwrap()
}

#[test]
fn the_ed25519_vector_of_rfc_8037_appendix_a4_verifies() {
    let key =
        public(&json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}));
    let text = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    let jws = Jws::parse(text, "alg").unwrap();
    assert_eq!(jws.verify(&key), Ok(()));
    assert_eq!(jws.payload(), b"Example of Ed25519 signing");
}

#[test]
fn the_es256_vector_of_rfc_7515_appendix_a3_verifies() {
    let key = public(
        &json!({"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
                             "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}),
    );
    let text = "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";
    let jws = Jws::parse(text, "alg").unwrap();
    assert_eq!(jws.verify(&key), Ok(()));
    assert_eq!(jws.claims().unwrap()["iss"], "joe");
}

/// A secp256k1 key pair, which the crate itself never holds.
fn secp256k1() -> (k256::ecdsa::SigningKey, PublicKey) {
    let key = k256::ecdsa::SigningKey::from_slice(&[7; 32]).unwrap();
    let public = PublicKey::secp256k1(key.verifying_key().to_sec1_point(true).as_bytes()).unwrap();
    (key, public)
}

#[test]
fn es256k_signatures_verify_whichever_half_their_s_is_in() {
    use k256::ecdsa::signature::Signer as _;
    let (key, public) = secp256k1();
    let sign = |input: &[u8]| -> k256::ecdsa::Signature { key.sign(input) };
    let low = support::jws(r#"{"alg":"ES256K"}"#, "{}", |input| {
        sign(input).to_bytes().to_vec()
    });
    let high = support::jws(r#"{"alg":"ES256K"}"#, "{}", |input| {
        let (r, s) = sign(input).split_scalars();
        k256::ecdsa::Signature::from_scalars(r, -s)
            .unwrap()
            .to_bytes()
            .to_vec()
    });
    for text in [&low, &high] {
        assert_eq!(Jws::parse(text, "alg").unwrap().verify(&public), Ok(()));
        assert_eq!(
            Jws::parse(text, "alg").unwrap().verify(holder().public_key()),
            Err(JwsError::Algorithm)
        );
    }
    let p256 = support::P256::generate().public();
    assert_eq!(
        Jws::parse(&low, "alg").unwrap().verify(&p256),
        Err(JwsError::Algorithm)
    );
    let as_es256 = support::jws(r#"{"alg":"ES256"}"#, "{}", |input| {
        sign(input).to_bytes().to_vec()
    });
    assert_eq!(
        Jws::parse(&as_es256, "alg").unwrap().verify(&public),
        Err(JwsError::Algorithm)
    );
}

#[test]
fn an_es256k_signature_with_r_or_s_of_zero_or_of_another_message_does_not_verify() {
    use k256::ecdsa::signature::Signer as _;
    let (key, public) = secp256k1();
    let good: k256::ecdsa::Signature = key.sign(b"message");
    let good = good.to_bytes().to_vec();
    assert!(public.verify(b"message", &good));
    assert!(!public.verify(b"another", &good));
    for zeroed in [0..32, 32..64, 0..64] {
        let mut bad = good.clone();
        bad[zeroed].fill(0);
        assert!(!public.verify(b"message", &bad));
    }
    assert!(!public.verify(b"message", &good[..63]));
    assert!(!public.verify(b"message", &[0xff; 64]));
}

#[test]
fn the_algorithm_is_the_keys_and_the_header_only_agrees() {
    let with = |alg: Value| {
        let text = signed(&json!({"alg": alg}), "{}", &holder());
        Jws::parse(&text, "alg").unwrap().verify(holder().public_key())
    };
    assert_eq!(with(json!("EdDSA")), Ok(()));
    assert_eq!(
        with(json!("Ed25519")),
        Ok(()),
        "RFC 9864 names the same algorithm"
    );
    for alg in [
        json!("none"),
        json!("HS256"),
        json!("ES256"),
        json!(["EdDSA"]),
        Value::Null,
    ] {
        assert_eq!(with(alg), Err(JwsError::Algorithm));
    }
}

#[test]
fn a_detached_signature_is_over_the_unencoded_payload() {
    // RFC 7797 section 3: BASE64URL(header) "." payload, the payload as it is.
    let text = sign_detached(&holder(), b"{\"a\":1}");
    let jws = DetachedJws::parse(&text).unwrap();
    assert_eq!(jws.kid(), holder().kid());
    assert_eq!(jws.verify(holder().public_key(), b"{\"a\":1}"), Ok(()));
    assert_eq!(
        jws.verify(holder().public_key(), b"{\"a\":2}"),
        Err(JwsError::Signature)
    );
    assert_eq!(
        jws.verify(attacker().public_key(), b"{\"a\":1}"),
        Err(JwsError::Signature)
    );
    let (header, signature) = text.split_once("..").unwrap();
    let input = [header.as_bytes(), b".{\"a\":1}"].concat();
    assert_eq!(signature, base64url(&holder().sign(&input)));
}

#[test]
fn a_detached_signature_does_not_pass_for_an_attached_one_nor_the_other_way() {
    let payload = base64url(b"{}");
    let detached = sign_detached(&holder(), payload.as_bytes());
    let attached = detached.replace("..", &format!(".{payload}."));
    assert!(
        Jws::parse(&attached, "alg, kid, typ").is_err(),
        "`b64` and `crit` are not in an attached JWS's list"
    );
    let text = signed(&json!({"alg": "EdDSA", "kid": holder().kid()}), "{}", &holder());
    assert!(DetachedJws::parse(&text).is_err());
}

#[test]
fn broken_texts_are_refused() {
    for text in [
        "",
        ".",
        "..",
        "...",
        "a..b",
        "e30..",
        "e30..AA",
        "..e30",
        "é..é",
        "e30.e30.AA=",
        "e30.e30.AA.AA",
    ] {
        assert!(DetachedJws::parse(text).is_err(), "{text}");
        let verified = Jws::parse(text, "alg").and_then(|jws| jws.verify(holder().public_key()));
        assert!(verified.is_err(), "{text}");
    }
    assert!(matches!(
        Jws::parse(&"a".repeat(70_000), "alg"),
        Err(JwsError::TooLong)
    ));
    let long = signed(&json!({"alg": "x".repeat(5000)}), "{}", &holder());
    assert!(matches!(Jws::parse(&long, "alg"), Err(JwsError::TooLong)));
}
