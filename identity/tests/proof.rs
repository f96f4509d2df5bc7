//! Proofs of possession: a stolen token without its key, a proof that was made for something else or used before.
//! Rows of "Tokens, DIDs, vouchers".
#![allow(clippy::unwrap_used)]

mod support;

use identity::detached::Detached;
use identity::proof::{Challenge, HolderProof, Request, Verifier, sign_dpop};
use identity::token::{self, Confirmation, RelayToken, delegation};
use identity::{Documents, Owner, Permit, Refusal, SigningKey, cose, jws};
use serde_json::{Value, json};
use support::*;

const URL: &str = "https://relay.example/whip/tea/zoe";
const OFFER: Request<'_> = Request {
    method: "POST",
    url: URL,
    body: b"v=0",
};

fn jwt() -> String {
    token_of(&claims().to_string())
}

fn token() -> RelayToken {
    verify(&jwt()).unwrap()
}

fn node() -> Verifier {
    Verifier::new("node-1", true)
}

/// A proof by `key` with one claim changed; null removes it.
fn proof_with(node: &Verifier, name: &str, value: Value, key: &SigningKey) -> String {
    let mut claims = json!({
        "jti": "proof-1", "htm": "POST", "htu": URL, "iat": NOW, "nonce": node.nonce(NOW),
        "ath": sha256(jwt().as_bytes()), "bdh": sha256(b"v=0"),
    });
    claims[name] = value.clone();
    if value.is_null() {
        claims.as_object_mut().unwrap().remove(name);
    }
    let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key.public_key().to_jwk()});
    signed(&header, &claims.to_string(), key)
}

fn refusal(node: &Verifier, proof: &str) -> Refusal {
    node.possession(proof, &token(), &OFFER, NOW)
        .expect_err("refused")
}

fn is_mismatch(refusal: &Refusal, of: &str) -> bool {
    matches!(refusal, Refusal::ProofMismatch { field, .. } if *field == of)
}

#[test]
fn a_token_and_a_proof_by_its_holder_make_a_permit() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    let possession = node.possession(&proof, &token(), &OFFER, NOW).unwrap();
    let permit = Permit::from_possession(token(), possession).unwrap();
    assert_eq!(permit.account(), holder().did().as_str());
    assert_eq!(permit.holder(), Some(holder().did()));
    assert!(permit.allows("sfu") && permit.allows("turn") && !permit.allows("gpu"));
    assert_eq!(permit.require_room("any"), Ok(()));
    assert_eq!(permit.voucher().balance_msat, 1000);
    assert_eq!(permit.token_expires(), NOW + 3600);
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&permit);
}

#[test]
fn a_permit_keeps_to_its_room_and_services() {
    let mut claims = claims();
    claims["room"] = json!("tea");
    claims["service"] = json!(["sfu"]);
    let jwt = token_of(&claims.to_string());
    let token = verify(&jwt).unwrap();
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt), &node.nonce(NOW), NOW);
    let possession = node.possession(&proof, &token, &OFFER, NOW).unwrap();
    let permit = Permit::from_possession(token, possession).unwrap();
    assert_eq!(permit.require_room("coffee"), Err(Refusal::RoomForbidden));
    assert_eq!(permit.require_room("tea"), Ok(()));
    assert_eq!(permit.require_service("turn"), Err(Refusal::ServiceForbidden));
}

#[test]
fn a_p256_holder_proves_possession_too() {
    let p256 = P256::generate();
    let jwt = token_with("sub", json!(p256.did()));
    let node = node();
    let header = json!({"typ": "dpop+jwt", "alg": "ES256", "jwk": p256.public().to_jwk()}).to_string();
    let claims = json!({
        "jti": "1", "htm": "POST", "htu": URL, "iat": NOW, "nonce": node.nonce(NOW), "ath": sha256(jwt.as_bytes()),
        "bdh": sha256(b"v=0"),
    });
    let proof = jws_of(&header, &claims.to_string(), &p256);
    assert!(
        node.possession(&proof, &verify(&jwt).unwrap(), &OFFER, NOW)
            .is_ok()
    );
}

fn jws_of(header: &str, payload: &str, key: &P256) -> String {
    support::jws(header, payload, |input| key.sign(input))
}

#[test]
fn a_stolen_token_without_its_key_opens_nothing() {
    let node = node();
    assert_eq!(refusal(&node, ""), Refusal::ProofMissing);
    assert_eq!(
        refusal(
            &node,
            &sign_dpop(&attacker(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW)
        ),
        Refusal::ProofKey
    );
    assert_eq!(
        refusal(
            &node,
            &sign_dpop(&issuer(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW)
        ),
        Refusal::ProofKey
    );
    // The holder's key in the header, the thief's signature.
    let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": holder().public_key().to_jwk()});
    assert_eq!(
        refusal(&node, &signed(&header, r#"{"jti":"1"}"#, &attacker())),
        Refusal::ProofSignature
    );
}

#[test]
fn the_key_in_cnf_and_no_other_proves_possession() {
    let device = key(20);
    let mut claims = claims();
    let cnf = Confirmation::Thumbprint(device.public_key().thumbprint());
    claims["cnf"] = json!({"jkt": device.public_key().thumbprint().to_text()});
    claims["delegation"] = json!(delegation(&holder(), &cnf, &operator(), NOW + 60));
    let jwt = token_of(&claims.to_string());
    let token = verify(&jwt).unwrap();
    let node = node();
    let by = |key: &SigningKey| {
        node.possession(
            &sign_dpop(key, &OFFER, Some(&jwt), &node.nonce(NOW), NOW),
            &token,
            &OFFER,
            NOW,
        )
    };
    assert!(by(&device).is_ok());
    assert_eq!(by(&holder()).unwrap_err(), Refusal::ProofKey);
}

#[test]
fn a_proof_serves_once() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    assert!(node.possession(&proof, &token(), &OFFER, NOW).is_ok());
    assert_eq!(refusal(&node, &proof), Refusal::ProofReplayed);
    // The same jti signed anew is the same proof.
    assert!(
        node.possession(
            &proof_with(&node, "jti", json!("x"), &holder()),
            &token(),
            &OFFER,
            NOW
        )
        .is_ok()
    );
    let again = proof_with(&node, "iat", json!(NOW - 1), &holder()).clone();
    assert!(
        node.possession(&again, &token(), &OFFER, NOW).is_ok(),
        "another jti"
    );
    assert_eq!(
        refusal(&node, &proof_with(&node, "jti", json!("x"), &holder())),
        Refusal::ProofReplayed
    );
}

#[test]
fn a_refused_proof_does_not_use_its_id_up() {
    let node = node();
    assert!(is_mismatch(
        &refusal(&node, &proof_with(&node, "htm", json!("GET"), &holder())),
        "htm"
    ));
    assert!(
        node.possession(
            &proof_with(&node, "x", Value::Null, &holder()),
            &token(),
            &OFFER,
            NOW
        )
        .is_ok()
    );
}

#[test]
fn a_proof_for_another_relay_does_not_serve_here() {
    let (here, there) = (node(), node());
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &there.nonce(NOW), NOW);
    assert_eq!(refusal(&here, &proof), Refusal::NonceRequired);
}

#[test]
fn a_proof_without_a_fresh_nonce_is_refused() {
    let node = node();
    for nonce in [
        Value::Null,
        json!(""),
        json!("AAAA"),
        json!(1),
        json!(node.nonce(NOW - 300)),
        json!(node.nonce(NOW + 1)),
    ] {
        assert_eq!(
            refusal(&node, &proof_with(&node, "nonce", nonce, &holder())),
            Refusal::NonceRequired
        );
    }
    let almost = proof_with(&node, "nonce", json!(node.nonce(NOW - 299)), &holder());
    assert!(node.possession(&almost, &token(), &OFFER, NOW).is_ok());
}

#[test]
fn a_proof_for_another_token_method_url_or_body_is_refused() {
    let node = node();
    for (name, value) in [
        ("ath", json!(sha256(b"another token"))),
        ("ath", Value::Null),
        ("ath", json!(jwt())),
        ("htm", json!("DELETE")),
        ("htm", json!("post")),
        ("htm", Value::Null),
        ("htu", json!("https://relay.example/whip/tea/eve")),
        ("htu", json!("https://evil.example/whip/tea/zoe")),
        ("htu", json!("http://relay.example/whip/tea/zoe")),
        ("htu", json!("/whip/tea/zoe")),
        ("htu", Value::Null),
        ("bdh", json!(sha256(b"v=0 with another fingerprint"))),
        ("bdh", Value::Null),
        ("bdh", json!("")),
    ] {
        assert!(
            is_mismatch(&refusal(&node, &proof_with(&node, name, value, &holder())), name),
            "{name}"
        );
    }
}

#[test]
fn a_proxy_that_swaps_the_fingerprint_in_the_offer_is_found_out_by_the_body_hash() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    let swapped = Request {
        body: b"v=0 a=fingerprint:evil",
        ..OFFER
    };
    assert!(is_mismatch(
        &node.possession(&proof, &token(), &swapped, NOW).unwrap_err(),
        "bdh"
    ));
    let bodyless = Request { body: b"", ..OFFER };
    assert!(
        is_mismatch(
            &node.possession(&proof, &token(), &bodyless, NOW).unwrap_err(),
            "bdh"
        ),
        "a body cut off"
    );
}

#[test]
fn a_body_hash_is_checked_even_where_it_is_not_required() {
    let node = Verifier::new("node-1", false);
    let without = proof_with(&node, "bdh", Value::Null, &holder());
    assert!(node.possession(&without, &token(), &OFFER, NOW).is_ok());
    let wrong = proof_with(&node, "bdh", json!("AAAA"), &holder());
    assert!(is_mismatch(&refusal(&node, &wrong), "bdh"));
}

#[test]
fn a_proof_with_a_clock_far_off_is_refused() {
    let node = node();
    for (iat, ok) in [
        (NOW - 330, true),
        (NOW - 331, false),
        (NOW + 330, true),
        (NOW + 331, false),
    ] {
        let proof = signed_with_id(&node, iat);
        assert_eq!(
            node.possession(&proof, &token(), &OFFER, NOW).is_ok(),
            ok,
            "{iat}"
        );
    }
    for iat in [json!(0), json!(9_007_199_254_740_991_u64)] {
        assert_eq!(
            refusal(&node, &proof_with(&node, "iat", iat, &holder())),
            Refusal::ProofExpired
        );
    }
    for iat in [json!("1760000000"), json!(1.5), json!(-1), Value::Null] {
        let refused = refusal(&node, &proof_with(&node, "iat", iat, &holder()));
        assert!(matches!(refused, Refusal::ProofMalformed { field: "iat", .. }));
    }
}

fn signed_with_id(node: &Verifier, iat: u64) -> String {
    sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), iat)
}

#[test]
fn algorithm_confusion_in_a_proof_is_refused() {
    let node = node();
    let good = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": holder().public_key().to_jwk()});
    let with = |name: &str, value: Value| {
        let mut header = good.clone();
        header[name] = value;
        refusal(&node, &signed(&header, r#"{"jti":"1"}"#, &holder()))
    };
    for alg in ["none", "HS256", "ES256", "RS256"] {
        assert!(
            matches!(
                with("alg", json!(alg)),
                Refusal::ProofMalformed { field: "alg", .. }
            ),
            "{alg}"
        );
    }
    for typ in [json!("JWT"), json!("relay+jwt"), Value::Null] {
        assert!(matches!(
            with("typ", typ),
            Refusal::ProofMalformed { field: "typ", .. }
        ));
    }
    for (name, value) in [
        ("jku", json!("https://evil.example")),
        ("crit", json!(["b64"])),
        ("x5c", json!([])),
    ] {
        assert!(
            matches!(with(name, value), Refusal::ProofMalformed { field: "header", .. }),
            "{name}"
        );
    }
    let mut private = holder().public_key().to_jwk();
    private["d"] = json!("AAAA");
    for jwk in [
        json!({"kty": "oct", "k": "AAAA"}),
        private,
        json!({}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": base64url(&[0; 32])}),
    ] {
        assert!(matches!(with("jwk", jwk), Refusal::ProofKeyRefused(_)));
    }
    assert!(matches!(
        with("jwk", json!("x")),
        Refusal::ProofMalformed { field: "jwk", .. }
    ));
    assert!(matches!(
        with("kid", json!(1)),
        Refusal::ProofMalformed { field: "kid", .. }
    ));
    for jti in [Value::Null, json!(""), json!(1), json!("x".repeat(257))] {
        let refused = refusal(&node, &proof_with(&node, "jti", jti, &holder()));
        assert!(matches!(refused, Refusal::ProofMalformed { field: "jti", .. }));
    }
    assert!(matches!(
        refusal(&node, &"a".repeat(9000)),
        Refusal::ProofMalformed { field: "JWT", .. }
    ));
}

#[test]
fn a_possession_of_one_token_does_not_permit_another() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    let possession = node.possession(&proof, &token(), &OFFER, NOW).unwrap();
    let other = verify(&token_with("jti", json!("voucher-2"))).unwrap();
    assert!(is_mismatch(
        &Permit::from_possession(other, possession).unwrap_err(),
        "ath"
    ));
}

#[test]
fn a_bearer_token_with_a_proof_still_spends_only_its_own_voucher() {
    let mut policy = policy();
    policy.allow_bearer = true;
    let jwt = token_with("bearer", json!(true));
    let token = token::verify(&jwt, &policy, NOW).unwrap();
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt), &node.nonce(NOW), NOW);
    let possession = node.possession(&proof, &token, &OFFER, NOW).unwrap();
    let permit = Permit::from_possession(token, possession).unwrap();
    assert!(permit.account().starts_with("bearer:"));
    assert_eq!(permit.holder(), None);
}

// Calls without a token.

const ACCOUNT: Request<'_> = Request {
    method: "GET",
    url: "https://relay.example/v1/account",
    body: b"",
};

#[test]
fn an_account_is_seen_with_a_proof_by_its_key_alone() {
    let node = node();
    let proof = sign_dpop(&holder(), &ACCOUNT, None, &node.nonce(NOW), NOW);
    assert_eq!(
        node.account(&proof, &ACCOUNT, &Documents::none(), NOW)
            .unwrap()
            .did(),
        holder().did()
    );
    assert_eq!(
        node.account(&proof, &ACCOUNT, &Documents::none(), NOW)
            .unwrap_err(),
        Refusal::ProofReplayed
    );
}

#[test]
fn an_account_of_a_did_jwk_is_named_by_kid_and_nobody_elses_is() {
    let node = node();
    let did = format!(
        "did:jwk:{}",
        base64url(holder().public_key().to_jwk().to_string().as_bytes())
    );
    let proof = |kid: &str, key: &SigningKey| {
        let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": key.public_key().to_jwk(), "kid": kid});
        let claims = json!({"jti": format!("for {kid}"), "htm": "GET", "htu": ACCOUNT.url, "iat": NOW, "nonce": node.nonce(NOW)});
        node.account(
            &signed(&header, &claims.to_string(), key),
            &ACCOUNT,
            &Documents::none(),
            NOW,
        )
    };
    assert_eq!(proof(&format!("{did}#0"), &holder()).unwrap().did().as_str(), did);
    assert_eq!(proof(victim().kid(), &attacker()).unwrap_err(), Refusal::ProofKey);
    assert_eq!(
        proof(&format!("{did}#0"), &attacker()).unwrap_err(),
        Refusal::ProofKey
    );
    for kid in ["", "x", "did:web:a.example#k"] {
        assert!(matches!(
            proof(kid, &holder()).unwrap_err(),
            Refusal::ProofMalformed { field: "kid", .. }
        ));
    }
}

#[test]
fn a_proof_that_names_no_did_shows_every_did_that_is_just_this_key() {
    let node = node();
    let jwk = holder().public_key().to_jwk();
    let kty_first = format!(r#"{{"kty":"OKP","crv":"Ed25519","x":{}}}"#, jwk["x"]);
    let header = json!({"typ": "dpop+jwt", "alg": "EdDSA", "jwk": jwk});
    let claims = json!({"jti": "a", "htm": "GET", "htu": ACCOUNT.url, "iat": NOW, "nonce": node.nonce(NOW)});
    let proof = node
        .account(
            &signed(&header, &claims.to_string(), &holder()),
            &ACCOUNT,
            &Documents::none(),
            NOW,
        )
        .unwrap();
    assert_eq!(proof.did(), holder().did());
    let owner = Owner::from_key(&proof);
    for text in [jwk.to_string(), kty_first] {
        let did = format!("did:jwk:{}", base64url(text.as_bytes()));
        assert!(owner.may_see(&did), "{text}");
    }
    assert!(!owner.may_see(victim().did().as_str()));
}

#[test]
fn an_expired_token_and_its_holders_key_still_own_what_is_there_but_open_nothing() {
    let (node, policy, later) = (node(), policy(), NOW + 1_000_000);
    let owner = |key: &SigningKey, jwt: &str| {
        let proof = sign_dpop(key, &ACCOUNT, Some(jwt), &node.nonce(later), later);
        Owner::from_token(jwt, &proof, &ACCOUNT, &node, &policy, &Documents::none(), later)
    };
    assert_eq!(
        token::verify(&jwt(), &policy, later).unwrap_err(),
        Refusal::TokenExpired
    );
    let own = owner(&holder(), &jwt()).unwrap();
    assert_eq!(
        (own.own(), own.charged()),
        (holder().did().as_str(), holder().did().as_str())
    );
    assert_eq!(owner(&attacker(), &jwt()).unwrap_err(), Refusal::ProofKey);

    let cnf = Confirmation::Thumbprint(attacker().public_key().thumbprint());
    let mut claims = claims();
    claims["cnf"] = json!({"jkt": attacker().public_key().thumbprint().to_text()});
    claims["delegation"] = json!(delegation(&holder(), &cnf, &operator(), NOW + 60));
    assert_eq!(
        owner(&attacker(), &token_of(&claims.to_string())).unwrap_err(),
        Refusal::TokenExpired,
        "a delegation ends when it says so"
    );
}

#[test]
fn who_spends_on_a_payers_account_owns_their_own() {
    let node = node();
    let mut claims = claims();
    claims["payer"] = json!(victim().did());
    claims["payer_grant"] = json!(token::payer_grant(
        &victim(),
        holder().did(),
        &operator(),
        NOW + 60,
        "g",
        9
    ));
    let jwt = token_of(&claims.to_string());
    let proof = sign_dpop(&holder(), &ACCOUNT, Some(&jwt), &node.nonce(NOW), NOW);
    let owner = Owner::from_token(&jwt, &proof, &ACCOUNT, &node, &policy(), &Documents::none(), NOW).unwrap();
    assert_eq!(owner.own(), holder().did().as_str());
    assert_eq!(owner.charged(), victim().did().as_str());
}

#[test]
fn a_proof_for_one_call_does_not_serve_for_another() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    assert!(node.account(&proof, &ACCOUNT, &Documents::none(), NOW).is_err());
    let proof = sign_dpop(&holder(), &ACCOUNT, None, &node.nonce(NOW), NOW);
    assert!(is_mismatch(
        &node.possession(&proof, &token(), &ACCOUNT, NOW).unwrap_err(),
        "ath"
    ));
}

// Over DSIP: the answer to a challenge.

fn envelope(nonce: &str) -> Value {
    json!({"from": holder().did(), "to": operator(), "nonce": nonce, "token": jwt()})
}

fn answer(challenge: Challenge, envelope: &Value, key: &SigningKey, now: u64) -> Result<Permit, Refusal> {
    let payload = envelope.to_string();
    let jws = jws::sign_detached(key, payload.as_bytes());
    let signature = Detached::jws(&jws).unwrap();
    let proof = HolderProof::verify(challenge, payload.as_bytes(), &signature, &Documents::none(), now)?;
    Permit::from_holder_proof(token(), proof)
}

#[test]
fn a_signature_over_the_challenge_and_the_token_makes_a_permit() {
    let challenge = Challenge::new(NOW);
    let envelope = envelope(challenge.nonce());
    let permit = answer(challenge, &envelope, &holder(), NOW + 59).unwrap();
    assert_eq!(permit.holder(), Some(holder().did()));
}

#[test]
fn a_cose_signature_over_the_same_bytes_makes_the_same_permit() {
    let challenge = Challenge::new(NOW);
    let payload = envelope(challenge.nonce()).to_string();
    let cose = cose::sign_cose(&holder(), payload.as_bytes());
    let proof = HolderProof::verify(
        challenge,
        payload.as_bytes(),
        &Detached::cose(&cose).unwrap(),
        &Documents::none(),
        NOW,
    )
    .unwrap();
    let permit = Permit::from_holder_proof(token(), proof).unwrap();
    assert_eq!(permit.holder(), Some(holder().did()));
    let forged = cose::sign_cose(&attacker(), payload.as_bytes());
    let challenge = Challenge::new(NOW);
    assert!(
        HolderProof::verify(
            challenge,
            b"{}",
            &Detached::cose(&forged).unwrap(),
            &Documents::none(),
            NOW
        )
        .is_err()
    );
}

#[test]
fn an_answer_that_is_late_or_to_another_challenge_is_refused() {
    let challenge = Challenge::new(NOW);
    let late = envelope(challenge.nonce());
    assert_eq!(
        answer(challenge, &late, &holder(), NOW + 60).unwrap_err(),
        Refusal::NonceRequired
    );
    let other = envelope(Challenge::new(NOW).nonce());
    assert_eq!(
        answer(Challenge::new(NOW), &other, &holder(), NOW).unwrap_err(),
        Refusal::NonceRequired
    );
}

#[test]
fn an_answer_by_another_key_for_another_relay_token_or_name_is_refused() {
    let with = |name: &str, value: Value, key: &SigningKey| {
        let challenge = Challenge::new(NOW);
        let mut envelope = envelope(challenge.nonce());
        envelope[name] = value;
        answer(challenge, &envelope, key, NOW).unwrap_err()
    };
    assert_eq!(with("x", json!(1), &attacker()), Refusal::ProofKey);
    assert!(is_mismatch(
        &with("from", json!(attacker().did()), &attacker()),
        "from"
    ));
    assert!(is_mismatch(&with("to", json!(attacker().did()), &holder()), "to"));
    assert!(is_mismatch(
        &with("token", json!(token_with("jti", json!("v2"))), &holder()),
        "token"
    ));
    assert_eq!(with("token", Value::Null, &holder()), Refusal::TokenMissing);
}

#[test]
fn people_tokens_and_keys_do_not_print() {
    let node = node();
    let proof = sign_dpop(&holder(), &OFFER, Some(&jwt()), &node.nonce(NOW), NOW);
    let possession = node.possession(&proof, &token(), &OFFER, NOW).unwrap();
    let permit = Permit::from_possession(token(), possession).unwrap();
    let shown = format!("{permit:?} {:?} {:?}", permit.token(), permit.voucher());
    assert!(
        !shown.contains(&holder().did().as_str()[8..]) && !shown.contains(&jwt()),
        "{shown}"
    );
}

proptest::proptest! {
    #[test]
    fn any_proof_text_is_refused_without_a_panic(text in ".{0,300}") {
        let node = node();
        proptest::prop_assert!(node.possession(&text, &token(), &OFFER, NOW).is_err());
        proptest::prop_assert!(node.account(&text, &OFFER, &Documents::none(), NOW).is_err());
        proptest::prop_assert!(Detached::jws(&text).is_err() && Detached::cose(text.as_bytes()).is_err());
    }
}
