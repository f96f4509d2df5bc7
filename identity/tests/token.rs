//! Relay tokens: what an issuer may say, and what it gets for lying. Rows of "Tokens, DIDs, vouchers".
#![allow(clippy::unwrap_used)]

mod support;

use identity::token::{self, Issue, issue};
use identity::{Refusal, SigningKey};
use serde_json::{Value, json};
use support::*;

fn refusal(jwt: &str) -> Refusal {
    verify(jwt).expect_err("refused")
}

fn malformed(jwt: &str) -> &'static str {
    match refusal(jwt) {
        Refusal::TokenMalformed { field, fix } => {
            assert!(!fix.is_empty());
            field
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_issued_token_verifies_with_every_claim() {
    let mut request = Issue::new(holder().did().clone(), operator(), 123_456, NOW);
    request.services = Some(vec!["turn".into()]);
    request.room = Some("tea".into());
    request.tariff = Some("t1".into());
    request.reputation = Some(812);
    let token = verify(&issue(&issuer(), &request)).unwrap();
    assert_eq!(token.issuer(), issuer().did());
    assert_eq!(token.issuer_kid(), issuer().kid());
    assert_eq!(token.subject(), holder().did());
    assert_eq!(token.audience(), &operator());
    assert_eq!(
        (token.balance_msat(), token.expires(), token.issued_at()),
        (123_456, NOW + 3600, NOW)
    );
    assert_eq!((token.services().sfu, token.services().turn), (false, true));
    assert_eq!(
        (token.room(), token.tariff(), token.reputation()),
        (Some("tea"), Some("t1"), Some(812))
    );
    assert_eq!(token.account(), holder().did().as_str());
    assert!(!token.is_bearer() && token.payer().is_none());
    let again = verify(&issue(&issuer(), &request)).unwrap();
    assert_ne!(token.id(), again.id(), "each token has its own jti");
}

#[test]
fn tokens_of_an_independent_library_verify_and_ours_verify_there() {
    use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
    let p256 = P256::generate();
    let mut claims = claims();
    // Ed25519: PKCS #8 v1 around the seed.
    let pkcs8 = [
        &[
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ][..],
        &[1; 32],
    ]
    .concat();
    let mut header = Header::new(Algorithm::EdDSA);
    header.typ = Some("relay+jwt".into());
    header.kid = Some(issuer().kid().into());
    let theirs = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_ed_der(&pkcs8)).unwrap();
    assert!(verify(&theirs).is_ok());

    let ours = issue(&issuer(), &Issue::new(holder().did().clone(), operator(), 5, NOW));
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_audience(&[operator()]);
    validation.validate_exp = false;
    let x = issuer().public_key().to_jwk()["x"].as_str().unwrap().to_owned();
    let decoded: jsonwebtoken::TokenData<Value> =
        jsonwebtoken::decode(&ours, &DecodingKey::from_ed_components(&x).unwrap(), &validation).unwrap();
    assert_eq!(decoded.claims["balance_msat"], 5);

    // ES256 issuer.
    claims["iss"] = json!(p256.did());
    let header = json!({"alg": "ES256", "typ": "relay+jwt", "kid": p256.kid()}).to_string();
    let jwt = jws(&header, &claims.to_string(), |input| p256.sign(input));
    let mut policy = policy();
    policy.issuers.push(p256.did());
    assert!(token::verify(&jwt, &policy, NOW).is_ok());
}

#[test]
fn an_untrusted_issuer_is_refused_before_its_signature_is_looked_at() {
    let rogue = attacker();
    let mut claims = claims();
    claims["iss"] = json!(rogue.did());
    let header = json!({"alg": "EdDSA", "typ": "relay+jwt", "kid": rogue.kid()});
    assert_eq!(
        refusal(&signed(&header, &claims.to_string(), &rogue)),
        Refusal::TokenUntrustedIssuer
    );
    claims["sub"] = json!("did:web:slow.example");
    assert_eq!(
        refusal(&signed(&header, &claims.to_string(), &issuer())),
        Refusal::TokenUntrustedIssuer
    );
}

#[test]
fn a_signature_by_another_key_or_over_other_claims_is_refused() {
    assert_eq!(
        refusal(&signed(&header(), &claims().to_string(), &attacker())),
        Refusal::TokenSignature
    );
    let good = token_with("jti", json!("a"));
    let other = token_with("balance_msat", json!(9_000_000));
    let parts = |jwt: &str| jwt.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (good, other) = (parts(&good), parts(&other));
    assert_eq!(
        refusal(&format!("{}.{}.{}", good[0], other[1], good[2])),
        Refusal::TokenSignature
    );
}

#[test]
fn algorithm_confusion_is_refused() {
    for alg in [
        "none", "None", "HS256", "HS512", "ES256", "RS256", "PS256", "", "eddsa",
    ] {
        let mut header = header();
        header["alg"] = json!(alg);
        assert_eq!(
            malformed(&signed(&header, &claims().to_string(), &issuer())),
            "alg",
            "{alg}"
        );
    }
    // `none` without a signature, HS256 with the public key as the secret.
    let none = jws(
        r#"{"alg":"none","typ":"relay+jwt","kid":"x"}"#,
        &claims().to_string(),
        |_| vec![],
    );
    assert!(verify(&none).is_err());
    let kid = issuer().kid().to_owned();
    let none = jws(
        &json!({"alg": "none", "typ": "relay+jwt", "kid": kid}).to_string(),
        &claims().to_string(),
        |_| vec![],
    );
    assert!(verify(&none).is_err());
    let public = issuer().public_key().to_jwk()["x"].as_str().unwrap().to_owned();
    let secret = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, public.as_bytes());
    let header = json!({"alg": "HS256", "typ": "relay+jwt", "kid": kid}).to_string();
    let hs256 = jws(&header, &claims().to_string(), |input| {
        aws_lc_rs::hmac::sign(&secret, input).as_ref().to_vec()
    });
    assert!(verify(&hs256).is_err());
    let mut missing = support::header();
    missing.as_object_mut().unwrap().remove("alg");
    assert!(verify(&signed(&missing, &claims().to_string(), &issuer())).is_err());
}

#[test]
fn a_key_or_a_place_to_fetch_one_in_the_header_is_refused() {
    let attacker = attacker();
    for (name, value) in [
        ("jwk", attacker.public_key().to_jwk()),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/cert")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
    ] {
        let mut header = header();
        header[name] = value;
        assert_eq!(
            malformed(&signed(&header, &claims().to_string(), &attacker)),
            "header",
            "{name}"
        );
        assert_eq!(
            malformed(&signed(&header, &claims().to_string(), &issuer())),
            "header",
            "{name}"
        );
    }
}

#[test]
fn a_jws_of_another_type_is_not_a_token() {
    for typ in [
        json!("JWT"),
        json!("dpop+jwt"),
        json!("payer-grant+jwt"),
        json!(""),
        json!(1),
        Value::Null,
    ] {
        let mut header = header();
        header["typ"] = typ;
        assert_eq!(
            malformed(&signed(&header, &claims().to_string(), &issuer())),
            "typ"
        );
    }
}

#[test]
fn the_kid_must_be_one_of_the_issuers_own_keys() {
    for kid in [
        attacker().kid().to_owned(),
        issuer().did().to_string(),
        "#key".into(),
        String::new(),
    ] {
        let mut header = header();
        header["kid"] = json!(kid);
        assert_eq!(
            malformed(&signed(&header, &claims().to_string(), &attacker())),
            "kid",
            "{kid}"
        );
    }
}

#[test]
fn a_token_for_another_operator_or_for_several_is_refused() {
    assert_eq!(
        refusal(&token_with("aud", json!(attacker().did()))),
        Refusal::TokenAudience
    );
    assert_eq!(malformed(&token_with("aud", json!([operator()]))), "aud");
    assert_eq!(
        malformed(&token_with("aud", json!([operator(), attacker().did()]))),
        "aud"
    );
}

#[test]
fn every_required_claim_is_required() {
    for name in ["iss", "sub", "aud", "iat", "nbf", "exp", "jti", "balance_msat"] {
        assert_eq!(malformed(&token_with(name, Value::Null)), name);
        assert_eq!(malformed(&token_with(name, json!({}))), name);
        assert_eq!(malformed(&token_with(name, json!(true))), name);
    }
}

#[test]
fn time_is_checked_up_to_the_leeway_and_no_further() {
    let at = |now: u64| token::verify(&token_of(&claims().to_string()), &policy(), now);
    assert!(at(NOW - 30).is_ok());
    assert_eq!(at(NOW - 31).unwrap_err(), Refusal::TokenNotYetValid);
    assert!(at(NOW + 3600 + 29).is_ok());
    assert_eq!(at(NOW + 3600 + 30).unwrap_err(), Refusal::TokenExpired);
    assert_eq!(
        refusal(&token_with("nbf", json!(NOW + 31))),
        Refusal::TokenNotYetValid
    );
    assert_eq!(
        refusal(&token_with("iat", json!(NOW + 31))),
        Refusal::TokenNotYetValid
    );
    assert!(verify(&token_with("nbf", json!(NOW + 30))).is_ok());
    for now in [0, u64::MAX] {
        assert!(at(now).is_err(), "no clock overflows");
    }
}

#[test]
fn a_token_that_lives_too_long_or_backwards_is_refused() {
    assert!(verify(&token_with("exp", json!(NOW + 24 * 3600))).is_ok());
    assert_eq!(
        refusal(&token_with("exp", json!(NOW + 24 * 3600 + 1))),
        Refusal::TokenLifetime { maximum: 86400 }
    );
    assert_eq!(malformed(&token_with("exp", json!(NOW))), "exp");
    assert_eq!(malformed(&token_with("exp", json!(NOW - 1))), "exp");
}

#[test]
fn balance_msat_is_an_integer_literal_from_0_to_2_to_the_53_less_one() {
    let with = |literal: &str| {
        token_of(
            &claims()
                .to_string()
                .replace(r#""balance_msat":1000"#, &format!(r#""balance_msat":{literal}"#)),
        )
    };
    for literal in ["0", "1", "9007199254740991"] {
        assert!(verify(&with(literal)).is_ok(), "{literal}");
    }
    for literal in [
        "-1",
        "-0",
        "1.0",
        "1.5",
        "1e3",
        "1E3",
        "\"1000\"",
        "null",
        "[1000]",
        "true",
        "9007199254740992",
        "18446744073709551616",
        "1e400",
        "01",
        "+1",
        "0x10",
        "NaN",
    ] {
        assert!(
            matches!(refusal(&with(literal)), Refusal::TokenMalformed { .. }),
            "{literal}"
        );
    }
}

#[test]
fn times_are_integer_literals_too() {
    for name in ["iat", "nbf", "exp"] {
        for literal in ["1.0", "1e9", "\"1760000000\"", "-1"] {
            let mut claims = claims();
            claims[name] = json!("HERE");
            let text = claims.to_string().replace("\"HERE\"", literal);
            assert_eq!(malformed(&token_of(&text)), name, "{literal}");
        }
    }
}

#[test]
fn repeated_claims_are_refused() {
    for name in ["balance_msat", "sub", "iss", "unheard"] {
        let text = claims().to_string();
        let text = format!(
            r#"{{"{name}":1,"\u{:04x}{}":1,{}"#,
            u32::from(name.as_bytes()[0]),
            &name[1..],
            &text[1..]
        );
        assert_eq!(malformed(&token_of(&text)), "claims", "{name}");
    }
    let repeated_header = r#"{"alg":"none","alg":"EdDSA","typ":"relay+jwt","kid":"x"}"#;
    assert!(verify(&jws(repeated_header, "{}", |_| vec![])).is_err());
}

#[test]
fn unusable_optional_claims_are_refused_by_name() {
    for (name, value) in [
        ("service", json!([])),
        ("service", json!("sfu")),
        ("service", json!(["sfu", "gpu"])),
        ("service", json!([1])),
        ("room", json!("")),
        ("room", json!(1)),
        ("room", json!("a\u{7}b")),
        ("room", json!("x".repeat(257))),
        ("tariff", json!({})),
        ("bearer", json!("true")),
        ("bearer", json!(1)),
        ("jti", json!("")),
        ("jti", json!("x".repeat(257))),
        ("payer", json!("bob")),
        ("cnf", json!({})),
        ("cnf", json!("x")),
        ("cnf", json!({"jwk": {}})),
        ("cnf", json!({"jkt": "short"})),
        ("cnf", json!({"kid": "x"})),
        ("cnf", json!({"kid": holder().kid(), "jkt": "x"})),
        ("cnf", json!({"kid": "did:web:a.example#k"})),
        ("reputation", json!(812)),
        ("reputation", json!({"score": 1.5, "iss": issuer().did()})),
        ("vc", json!("x")),
        ("vc", json!(["", "", "", "", ""])),
    ] {
        assert_eq!(malformed(&token_with(name, value.clone())), name, "{value}");
    }
    assert!(
        verify(&token_with("unheard", json!({"of": [1]}))).is_ok(),
        "unknown claims are ignored (RFC 7519)"
    );
}

#[test]
fn a_holder_without_a_usable_key_is_refused() {
    assert!(matches!(
        refusal(&token_with("sub", json!("did:web:bob.example"))),
        Refusal::TokenHolder(_)
    ));
    let oct = format!("did:jwk:{}", base64url(br#"{"kty":"oct","k":"AAAA"}"#));
    assert!(matches!(
        refusal(&token_with("sub", json!(oct))),
        Refusal::TokenHolder(_)
    ));
}

// Reputation.

fn credential(scorer: &SigningKey, subject: &str, score: Value) -> String {
    let claims = json!({
        "iss": scorer.did(), "sub": subject, "exp": NOW + 60,
        "vc": {"type": ["VerifiableCredential", "ReputationScore"],
               "credentialSubject": {"id": subject, "score": score}},
    });
    signed(
        &json!({"alg": "EdDSA", "kid": scorer.kid(), "typ": "JWT"}),
        &claims.to_string(),
        scorer,
    )
}

#[test]
fn reputation_counts_only_from_the_issuer_or_a_listed_scorer() {
    assert_eq!(
        malformed(&token_with(
            "reputation",
            json!({"score": 900, "iss": attacker().did()})
        )),
        "reputation"
    );
    let scorer = key(9);
    let mut policy = policy();
    policy.credential_issuers.push(scorer.did().clone());
    let holder = holder().did().to_string();
    let score = |credentials: Vec<String>| {
        token::verify(&token_with("vc", json!(credentials)), &policy, NOW)
            .unwrap()
            .reputation()
    };
    let good = credential(&scorer, &holder, json!(812));
    assert_eq!(score(vec![good.clone()]), Some(812));
    assert_eq!(
        score(vec![good, credential(&scorer, &holder, json!(900))]),
        Some(900)
    );
    assert_eq!(
        score(vec![credential(&attacker(), &holder, json!(999))]),
        None,
        "not listed"
    );
    assert_eq!(
        score(vec![credential(&scorer, victim().did().as_str(), json!(999))]),
        None,
        "about another"
    );
    assert_eq!(
        score(vec![credential(&scorer, &holder, json!("999"))]),
        None,
        "not an integer"
    );
    assert_eq!(score(vec!["a.b.c".into()]), None);
    let token = token_with("vc", json!([credential(&scorer, &holder, json!(1))]));
    assert_eq!(
        token::verify(&token, &policy, NOW + 90).unwrap().reputation(),
        None,
        "expired"
    );
}

#[test]
fn long_or_broken_texts_are_refused() {
    for text in ["", ".", "..", "...", "a.b", "a.b.c.d", "é.é.é", "e30.e30.e30"] {
        assert!(!malformed(text).is_empty(), "{text}");
    }
    assert_eq!(malformed(&"a".repeat(16 * 1024 + 1)), "JWT");
    let good = token_of(&claims().to_string());
    for end in 0..good.len() {
        assert!(verify(&good[..end]).is_err());
    }
    assert!(verify(&format!("{good}=")).is_err());
    assert!(verify(&format!(" {good}")).is_err());
}

#[test]
fn every_refusal_says_what_to_do_and_repeats_nothing() {
    for refused in [
        refusal(&token_with("sub", json!("secret-person"))),
        refusal(&token_with("room", json!(["secret-person"]))),
        refusal("secret-person"),
        Refusal::ProofReplayed,
        Refusal::NonceRequired,
        Refusal::TokenMissing,
        Refusal::RoomForbidden,
    ] {
        let sentence = refused.to_string();
        assert!(
            sentence.len() > 40 && !sentence.contains("secret-person"),
            "{sentence}"
        );
        assert!(!refused.slug().is_empty() && (401..=429).contains(&refused.status()));
    }
    assert_eq!(Refusal::TokenExpired.slug(), "token-expired");
    assert_eq!(
        Refusal::NonceRequired.www_authenticate().unwrap(),
        r#"DPoP error="use_dpop_nonce", algs="EdDSA ES256 ES256K""#
    );
}

proptest::proptest! {
    #[test]
    fn any_text_is_refused_without_a_panic(text in ".{0,300}") {
        proptest::prop_assert!(verify(&text).is_err());
    }
    #[test]
    fn any_claims_under_a_good_signature_are_verified_or_refused_without_a_panic(text in ".{0,100}", name in "[a-z_]{2,12}") {
        let _ = verify(&token_of(&text));
        let _ = verify(&token_with(&name, json!(text)));
    }
    #[test]
    fn any_changed_character_is_refused(at in 0usize..600, to in "[A-Za-z0-9_.-]") {
        let good = token_of(&claims().to_string());
        let at = at % good.len();
        let changed = format!("{}{to}{}", &good[..at], &good[at + 1..]);
        proptest::prop_assume!(changed != good);
        proptest::prop_assert!(verify(&changed).is_err());
    }
}
