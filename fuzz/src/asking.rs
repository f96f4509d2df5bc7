//! What the fuzz targets of identity and dsip do with their bytes. What signatures would stop is signed first, so
//! that the code behind the signature is reached too. `dsip/tests/seeds.rs` runs the same over the committed seeds.
#![allow(dead_code, reason = "each target uses one of these")]

use std::sync::Arc;

use dsip::{Envelope, Memory, Receiver, canonicalise, seal_cbor_with_id, seal_with_id};
use identity::detached::Detached;
use identity::proof::{Challenge, HolderProof, Request, Verifier};
use identity::token::{self, TokenPolicy};
use identity::{Did, Document, Documents, Permit, SigningKey, cose, json, resolve};
use serde_json::Value;

const NOW: u64 = 1_760_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32])
}

/// A relay token, its claims, a DPoP proof.
pub(crate) fn token(bytes: &[u8]) {
    let mut policy = TokenPolicy::new(key(2).did().clone(), vec![key(1).did().clone()]);
    policy.allow_bearer = true;
    policy.credential_issuers.push(key(1).did().clone());
    if let Ok(text) = str::from_utf8(bytes) {
        let _ = (token::verify(text, &policy, NOW), token::show_unverified(text));
        let request = Request {
            method: "GET",
            url: "https://relay.example/v1/account",
            body: b"",
        };
        let _ = Verifier::new("node", true).account(text, &request, &Documents::none(), NOW);
        if let Ok(signature) = Detached::jws(text) {
            let _ = HolderProof::verify(Challenge::new(NOW), bytes, &signature, &Documents::none(), NOW);
        }
    }
    if let Ok(signature) = Detached::cose(bytes) {
        let _ = HolderProof::verify(Challenge::new(NOW), bytes, &signature, &Documents::none(), NOW);
    }
    let cose = cose::sign_cose(&key(3), bytes);
    let signature = Detached::cose(&cose).expect("what was signed parses");
    let _ = HolderProof::verify(Challenge::new(NOW), bytes, &signature, &Documents::none(), NOW);
    if let Ok(verified) = token::verify(&key(1).sign_jws(token::TYP, bytes), &policy, NOW) {
        assert!(verified.balance_msat() <= json::INTEGER_MAX);
        assert_eq!(verified.audience(), key(2).did());
        // Whatever an issuer says: without a proof, nobody's account but the bearer's own is opened.
        if let Ok(permit) = Permit::from_bearer(verified) {
            assert!(permit.account().starts_with("bearer:") && permit.holder().is_none());
        }
    }
}

/// An envelope, or the body of one.
pub(crate) fn envelope(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::open_cbor(bytes) {
        let again = json::parse(envelope.canonical()).expect("the canonical form is strict JSON");
        assert_eq!(canonicalise(&again), envelope.canonical());
    }
    let Ok(text) = str::from_utf8(bytes) else { return };
    if let Ok(envelope) = Envelope::open(text) {
        let again = json::parse(envelope.canonical()).expect("the canonical form is strict JSON");
        assert_eq!(canonicalise(&again), envelope.canonical());
    }
    let Ok(body @ Value::Object(_)) = json::parse(text) else {
        return;
    };
    let kind = body
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or("dsip.update")
        .to_owned();
    let sealed = seal_with_id(&key(1), Some(key(2).did()), &kind, &body, NOW, "1");
    let mut connection = Receiver::new(key(2).did().clone(), Arc::new(Memory::new()));
    let hello = serde_json::json!({"nonce": "n"});
    let hello = seal_with_id(&key(1), Some(key(2).did()), "dsip.hello", &hello, NOW, "0");
    connection.receive(&hello, NOW).expect("a good hello");
    if let Err(fault) = connection.receive(&sealed, NOW) {
        assert_ne!(fault.reason, "signature", "what seal signs, open verifies");
    }
    let sealed = seal_cbor_with_id(&key(1), Some(key(2).did()), &kind, &body, NOW, "2");
    if let Err(fault) = connection.receive_cbor(&sealed, NOW) {
        assert_ne!(
            fault.reason, "signature",
            "what seal_cbor signs, open_cbor verifies"
        );
    }
}

/// A DID, or a document that a server sent for one.
pub(crate) fn did(bytes: &[u8]) {
    let asked = Did::parse("did:web:issuer.example").expect("a DID");
    if let Some(document) = str::from_utf8(bytes)
        .ok()
        .and_then(|text| Document::parse(&asked, text).ok())
    {
        assert_eq!(document.id, asked);
    }
    let Some(did) = str::from_utf8(bytes).ok().and_then(|text| Did::parse(text).ok()) else {
        return;
    };
    let _ = (did.redacted(), did.method().len());
    if let Ok(location) = identity::did_web::Location::of(&did) {
        let again = identity::did_web::Location::of_url(&location.to_string());
        assert_eq!(again.as_ref(), Ok(&location), "a location is an https URL");
    }
    if let Ok(document) = resolve(&did) {
        for method in &document.authentication {
            let key = resolve(&Did::from_key(&method.key)).expect("a key's own did:key resolves");
            assert_eq!(key.authentication[0].key, method.key);
            if did.method() == "key" {
                assert_eq!(key.id, did, "one text per key");
            }
        }
    }
}
