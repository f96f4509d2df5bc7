//! Tokens of issuers and holders whose documents come from a network: which documents are asked for, in which order,
//! and what they change. Rows of "Tokens, DIDs, vouchers": did:web as a weapon.
#![allow(clippy::unwrap_used)]

mod support;

use std::sync::Arc;

use identity::detached::Detached;
use identity::proof::{Challenge, HolderProof, Request, Verifier, account_named, sign_dpop};
use identity::token::{self, Confirmation, Issue, TokenPolicy, issue, lacking};
use identity::{Did, DidError, Document, Documents, Permit, Refusal, SigningKey, jws};
use serde_json::json;
use support::*;

fn did(text: &str) -> Did {
    Did::parse(text).unwrap()
}

fn web_issuer() -> SigningKey {
    key(1).listed_as(did("did:web:issuer.example"), "key-1")
}

fn web_holder() -> SigningKey {
    key(3).listed_as(did("did:web:voice.example:users:alice"), "key-1")
}

fn policy() -> TokenPolicy {
    TokenPolicy::new(operator(), vec![web_issuer().did().clone()])
}

/// The document that lists this key.
fn document(key: &SigningKey) -> Arc<Document> {
    let text = json!({
        "id": key.did(),
        "verificationMethod": [{"id": key.kid(), "type": "JsonWebKey2020", "controller": key.did(),
                                "publicKeyJwk": key.public_key().to_jwk()}],
        "authentication": [key.kid()], "assertionMethod": [key.kid()],
    });
    Arc::new(Document::parse(key.did(), &text.to_string()).unwrap())
}

fn fetched(keys: &[&SigningKey]) -> Documents {
    let mut documents = Documents::none();
    for key in keys {
        documents.insert(key.did().clone(), Ok(document(key)));
    }
    documents
}

fn token(issuer: &SigningKey) -> String {
    issue(
        issuer,
        &Issue::new(web_holder().did().clone(), operator(), 1000, NOW),
    )
}

#[test]
fn the_issuer_is_asked_for_first_and_the_holder_only_once_its_signature_stands() {
    let jwt = token(&web_issuer());
    let asked = |documents: &Documents| lacking(&jwt, &policy(), documents);
    assert_eq!(asked(&Documents::none()), Ok(vec![web_issuer().did().clone()]));
    assert_eq!(
        asked(&fetched(&[&web_issuer()])),
        Ok(vec![web_holder().did().clone()])
    );
    let all = fetched(&[&web_issuer(), &web_holder()]);
    assert_eq!(asked(&all), Ok(vec![]));
    assert!(token::verify_with(&jwt, &policy(), &all, NOW).is_ok());
}

#[test]
fn nothing_is_asked_for_on_the_word_of_an_issuer_that_is_not_listed() {
    let stranger = key(9).listed_as(did("did:web:stranger.example"), "key-1");
    let refused = lacking(&token(&stranger), &policy(), &Documents::none());
    assert_eq!(refused, Err(Refusal::TokenUntrustedIssuer));
}

#[test]
fn nothing_more_is_asked_for_when_the_issuer_did_not_sign_or_signed_for_another_relay() {
    let forged = token(&key(9).listed_as(web_issuer().did().clone(), "key-1"));
    let documents = fetched(&[&web_issuer()]);
    assert_eq!(
        lacking(&forged, &policy(), &documents),
        Err(Refusal::TokenSignature)
    );
    let other = Issue::new(web_holder().did().clone(), attacker().did().clone(), 1000, NOW);
    let elsewhere = issue(&web_issuer(), &other);
    assert_eq!(
        lacking(&elsewhere, &policy(), &documents),
        Err(Refusal::TokenAudience)
    );
}

#[test]
fn a_key_that_the_issuer_took_out_of_its_document_no_longer_issues() {
    let jwt = token(&web_issuer());
    let rotated = key(8).listed_as(web_issuer().did().clone(), "key-2");
    let refused = token::verify_with(&jwt, &policy(), &fetched(&[&rotated, &web_holder()]), NOW).unwrap_err();
    assert!(matches!(refused, Refusal::TokenMalformed { field: "kid", .. }));
    let same_name = key(8).listed_as(web_issuer().did().clone(), "key-1");
    let refused =
        token::verify_with(&jwt, &policy(), &fetched(&[&same_name, &web_holder()]), NOW).unwrap_err();
    assert_eq!(refused, Refusal::TokenSignature);
}

#[test]
fn a_document_that_could_not_be_fetched_is_a_refusal_and_not_asked_for_again() {
    let jwt = token(&web_issuer());
    let mut documents = fetched(&[&web_issuer()]);
    documents.insert(web_holder().did().clone(), Err(DidError::Fetch("no answer")));
    assert_eq!(lacking(&jwt, &policy(), &documents), Ok(vec![]));
    let refused = token::verify_with(&jwt, &policy(), &documents, NOW).unwrap_err();
    assert_eq!(refused, Refusal::TokenHolder(DidError::Fetch("no answer")));
    let mut documents = Documents::none();
    documents.insert(web_issuer().did().clone(), Err(DidError::Fetch("no answer")));
    let refused = Refusal::TokenIssuer(DidError::Fetch("no answer"));
    assert_eq!(lacking(&jwt, &policy(), &documents), Err(refused.clone()));
    assert_eq!(
        token::verify_with(&jwt, &policy(), &documents, NOW).unwrap_err(),
        refused
    );
}

#[test]
fn a_payer_a_device_key_and_listed_credential_issuers_are_asked_for_as_well() {
    let (payer, scorer, stranger) = (
        did("did:web:payer.example"),
        key(6).listed_as(did("did:web:trustgraph.example"), "key-1"),
        key(7).listed_as(did("did:web:stranger.example"), "key-1"),
    );
    let mut policy = policy();
    policy.credential_issuers.push(scorer.did().clone());
    let credential = |key: &SigningKey| {
        let claims = json!({"iss": key.did(), "vc": {"type": ["VerifiableCredential", "ReputationScore"],
            "credentialSubject": {"id": web_holder().did(), "score": 1}}});
        key.sign_jws("JWT", claims.to_string().as_bytes())
    };
    let mut claims = claims();
    claims["iss"] = json!(web_issuer().did());
    claims["sub"] = json!(web_holder().did());
    claims["payer"] = json!(payer);
    claims["cnf"] = json!({"kid": "did:web:device.example#a"});
    claims["vc"] = json!([credential(&scorer), credential(&stranger)]);
    let header = json!({"alg": "EdDSA", "typ": "relay+jwt", "kid": web_issuer().kid()});
    let jwt = signed(&header, &claims.to_string(), &web_issuer());
    let mut expected = vec![
        payer,
        scorer.did().clone(),
        web_holder().did().clone(),
        did("did:web:device.example"),
    ];
    expected.sort();
    assert_eq!(lacking(&jwt, &policy, &fetched(&[&web_issuer()])), Ok(expected));
}

#[test]
fn a_did_web_holder_proves_possession_over_http_and_dsip() {
    let (jwt, all) = (token(&web_issuer()), fetched(&[&web_issuer(), &web_holder()]));
    let verified = token::verify_with(&jwt, &policy(), &all, NOW).unwrap();
    let node = Verifier::new("node", true);
    let request = Request {
        method: "POST",
        url: "https://relay.example/whip/tea/zoe",
        body: b"v=0",
    };
    let dpop = sign_dpop(&web_holder(), &request, Some(&jwt), &node.nonce(NOW), NOW);
    let possession = node.possession(&dpop, &verified, &request, NOW).unwrap();
    let permit = Permit::from_possession(verified.clone(), possession).unwrap();
    assert_eq!(permit.account(), web_holder().did().as_str());

    let challenge = Challenge::new(NOW);
    let envelope =
        json!({"from": web_holder().did(), "to": operator(), "nonce": challenge.nonce(), "token": jwt});
    let payload = envelope.to_string();
    let jws = jws::sign_detached(&web_holder(), payload.as_bytes());
    let jws = Detached::jws(&jws).unwrap();
    let proof = HolderProof::verify(challenge, payload.as_bytes(), &jws, &all, NOW).unwrap();
    assert!(Permit::from_holder_proof(verified, proof).is_ok());
    let unknown = HolderProof::verify(
        Challenge::new(NOW),
        payload.as_bytes(),
        &jws,
        &Documents::none(),
        NOW,
    );
    assert!(unknown.is_err(), "nobody fetched the holder's document");
}

#[test]
fn a_did_web_account_is_seen_by_a_key_that_its_document_lists_today() {
    let node = Verifier::new("node", true);
    let request = Request {
        method: "GET",
        url: "https://relay.example/v1/account",
        body: b"",
    };
    let dpop = |key: &SigningKey| sign_dpop(key, &request, None, &node.nonce(NOW), NOW);
    let mine = dpop(&web_holder());
    assert_eq!(account_named(&mine).as_ref(), Some(web_holder().did()));
    assert_eq!(account_named(&dpop(&holder())), None, "did:key needs nothing");
    assert_eq!(account_named("a.b.c"), None);
    let all = fetched(&[&web_holder()]);
    let proof = node.account(&mine, &request, &all, NOW).unwrap();
    assert_eq!(proof.did(), web_holder().did());
    let thief = key(9).listed_as(web_holder().did().clone(), "key-1");
    assert_eq!(
        node.account(&dpop(&thief), &request, &all, NOW).unwrap_err(),
        Refusal::ProofKey
    );
}

#[test]
fn a_cnf_key_of_another_did_web_needs_the_holders_own_delegation() {
    let device = key(6).listed_as(did("did:web:device.example"), "a");
    let cnf = Confirmation::Kid(device.kid().to_owned());
    let all = fetched(&[&web_issuer(), &web_holder(), &device]);
    let with = |delegation: Option<String>| {
        let mut wanted = Issue::new(web_holder().did().clone(), operator(), 1, NOW);
        wanted.confirmation = Some((cnf.clone(), delegation));
        token::verify_with(&issue(&web_issuer(), &wanted), &policy(), &all, NOW)
    };
    assert!(matches!(with(None), Err(Refusal::Delegation { .. })));
    let forged = token::delegation(&device, &cnf, &operator(), NOW + 60);
    assert!(matches!(with(Some(forged)), Err(Refusal::Delegation { .. })));
    let consent = token::delegation(&web_holder(), &cnf, &operator(), NOW + 60);
    assert!(with(Some(consent)).is_ok());
}
