use identity::SigningKey;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn key() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn signed(body: Value) -> String {
    let Value::Object(body) = body else {
        panic!("a body is an object")
    };
    Draft {
        kind: "dsip.update",
        id: "1",
        timestamp: 1_733_871_542,
        to: None,
        correlates: None,
        body,
    }
    .sign(&key())
}

#[test]
fn what_was_signed_verifies_and_reads_back() {
    let peer = SigningKey::from_seed(&[2; 32]);
    let text = Draft {
        kind: "dsip.answer",
        id: "b",
        timestamp: 7,
        to: Some(peer.did()),
        correlates: Some("a"),
        body: json!({"media": {"sdp": "v=0\r\n"}}).as_object().unwrap().clone(),
    }
    .sign(&key());
    let envelope = Envelope::parse(&text).unwrap();
    envelope.verify().unwrap();
    assert_eq!(envelope.kind(), "dsip.answer");
    assert_eq!(envelope.id(), "b");
    assert_eq!(envelope.correlates(), Some("a"));
    assert_eq!(envelope.timestamp(), 7);
    assert_eq!(envelope.from(), key().did());
    assert_eq!(envelope.to(), Some(peer.did()));
    assert_eq!(envelope.member("media"), Some(&json!({"sdp": "v=0\r\n"})));
}

#[test]
fn any_changed_member_breaks_the_signature() {
    let text = signed(json!({"room": "a"}));
    for (old, new) in [
        ("\"room\":\"a\"", "\"room\":\"b\""),
        ("1733871542", "1733871543"),
        ("dsip.update", "dsip.invite"),
        ("\"id\":\"1\"", "\"id\":\"2\""),
        ("\"room\":\"a\"", "\"room\":\"a\",\"extra\":1"),
    ] {
        let changed = text.replacen(old, new, 1);
        assert_ne!(changed, text);
        let envelope = Envelope::parse(&changed).unwrap();
        assert_eq!(
            envelope.verify(),
            Err(EnvelopeError::Jws(JwsError::Signature)),
            "{new}"
        );
    }
}

#[test]
fn an_envelope_from_somebody_else_does_not_verify() {
    let victim = SigningKey::from_seed(&[2; 32]);
    let text = signed(json!({})).replace(key().did().as_str(), victim.did().as_str());
    assert!(Envelope::parse(&text).unwrap().verify().is_err());

    // `from` is the victim, but signature and kid are the attacker's own.
    let mut value: Value = serde_json::from_str(&signed(json!({}))).unwrap();
    value["from"] = victim.did().as_str().into();
    let Value::Object(mut members) = value else {
        unreachable!()
    };
    let sig = members.remove("sig").unwrap();
    let jws = jws::sign_detached(&key(), canonical(&members).as_bytes());
    members.insert(
        "sig".into(),
        json!({"alg": "EdDSA", "kid": sig["kid"], "jws": jws}),
    );
    let envelope = Envelope::parse(&Value::Object(members).to_string()).unwrap();
    assert_eq!(envelope.verify(), Err(EnvelopeError::Key));
}

#[test]
fn sig_must_agree_with_the_protected_header() {
    let text = signed(json!({}));
    let other_alg = text.replacen("\"alg\":\"EdDSA\"", "\"alg\":\"ES256\"", 1);
    assert_ne!(text, other_alg);
    assert_eq!(
        Envelope::parse(&other_alg).unwrap().verify(),
        Err(EnvelopeError::Header)
    );
}

#[test]
fn what_parsers_could_read_differently_is_refused() {
    let text = signed(json!({"room": "a"}));
    let twice = text.replacen("\"room\":\"a\"", "\"room\":\"a\",\"room\":\"b\"", 1);
    assert!(matches!(Envelope::parse(&twice), Err(EnvelopeError::Json(_))));
    let surrogate = text.replacen("\"room\":\"a\"", r#""room":"\ud800""#, 1);
    assert!(matches!(Envelope::parse(&surrogate), Err(EnvelopeError::Json(_))));
    let huge = text.replacen("\"room\":\"a\"", "\"room\":9007199254740992", 1);
    assert!(matches!(Envelope::parse(&huge), Err(EnvelopeError::Json(_))));
}

#[test]
fn a_refusal_names_the_member_and_what_to_do() {
    let said = |text: &str| Envelope::parse(text).unwrap_err().to_string();
    let text = signed(json!({}));
    assert!(said(&text.replacen("\"ts\":1733871542", "\"ts\":\"now\"", 1)).contains("`ts`"));
    assert!(said(&text.replacen("\"ts\":1733871542", "\"ts\":1.5", 1)).contains("`ts`"));
    assert!(said(&text.replacen("\"id\":\"1\"", "\"id\":\"\"", 1)).contains("`id`"));
    assert!(said(&text.replacen("\"type\":\"dsip.update\",", "", 1)).contains("`type`"));
    assert!(
        said(&text.replacen(
            &format!("\"from\":\"{}\"", key().did().as_str()),
            "\"from\":\"alice\"",
            1
        ))
        .contains("`from`")
    );
    assert!(said("{}").contains("`sig`"));
    assert_eq!(
        Envelope::parse(&" ".repeat(LENGTH_MAX + 1)).unwrap_err(),
        EnvelopeError::TooLong
    );
}

#[test]
fn the_canonical_form_is_that_of_rfc_8785() {
    // RFC 8785 section 3.2.2 and 3.2.3.
    let input = r#"{
        "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
        "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
        "literals": [null, true, false]
    }"#;
    let Value::Object(members) = serde_json::from_str(input).unwrap() else {
        unreachable!()
    };
    assert_eq!(
        canonical(&members),
        "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],\
         \"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}"
    );
    let input = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",
        "\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"}"#;
    let Value::Object(members) = serde_json::from_str(input).unwrap() else {
        unreachable!()
    };
    let canonical = canonical(&members);
    let order = ["Carriage", "One", "Control", "Latin", "Euro", "Emoji", "Hebrew"]
        .map(|word| canonical.find(word).unwrap());
    assert!(order.is_sorted(), "{canonical}");
}

#[test]
fn an_envelope_does_not_print_what_it_carries() {
    let envelope = Envelope::parse(&signed(json!({"token": "secret"}))).unwrap();
    assert_eq!(format!("{envelope:?}"), "Envelope(dsip.update)");
}

proptest! {
    #[test]
    fn any_text_is_refused_or_parsed_but_never_panics(text in ".{0,400}") {
        let _ = Envelope::parse(&text);
    }

    #[test]
    fn any_flipped_byte_is_refused_or_fails_to_verify(at in 0usize..400, to in any::<u8>()) {
        let text = signed(json!({"room": "a", "media": {"sdp": "v=0"}}));
        let mut bytes = text.clone().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        if let Ok(changed) = String::from_utf8(bytes)
            && let Ok(envelope) = Envelope::parse(&changed)
        {
            let same_meaning = envelope.canonical() == Envelope::parse(&text).unwrap().canonical();
            prop_assert!(envelope.verify().is_err() || same_meaning);
        }
    }
}
