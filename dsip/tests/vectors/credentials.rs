//! Which of a holder's credentials answer a request.

use dsip::credentials::{Scorer, Wanted, WantedBy};
use identity::SigningKey;
use serde_json::{Value, json};

use super::{NOW, key, stored};

fn credential(by: &SigningKey, kind: &str, more: Value) -> String {
    let mut claims = json!({
        "type": ["VerifiableCredential", kind], "issuer": by.did(),
        "credentialSubject": {"id": key(1).did(), "score": 812, "role": "support"},
    });
    for (name, value) in more.as_object().unwrap() {
        claims[name] = value.clone();
    }
    by.sign_jws("vc+jwt", claims.to_string().as_bytes())
}

fn cases() -> Value {
    let (scorer, other) = (key(6), key(7));
    let wanted = Wanted {
        services: vec![WantedBy {
            service: "turn".into(),
            score_min: Some(300),
            ..WantedBy::default()
        }],
        issuers: vec![
            Scorer {
                did: scorer.did().clone(),
                types: vec!["ReputationScore".into()],
            },
            Scorer {
                did: other.did().clone(),
                types: vec!["Role".into()],
            },
        ],
    };
    let score = |more: Value| credential(&scorer, "ReputationScore", more);
    let inner = json!({"type": ["VerifiableCredential", "ReputationScore"],
                       "credentialSubject": {"id": key(1).did(), "score": 812}});
    let of_1_1 = json!({"iss": scorer.did(), "sub": key(1).did(), "exp": NOW + 9, "vc": inner});
    let of_1_1 = scorer.sign_jws("JWT", of_1_1.to_string().as_bytes());
    let kinds: Vec<(&str, Vec<String>)> = vec![
        ("none held", vec![]),
        ("a score by the scorer", vec![score(json!({}))]),
        ("data model 1.1", vec![of_1_1]),
        (
            "a type that its issuer's word does not count for",
            vec![credential(&scorer, "Role", json!({}))],
        ),
        (
            "an issuer that is not listed",
            vec![credential(&key(8), "ReputationScore", json!({}))],
        ),
        ("a role by the other", vec![credential(&other, "Role", json!({}))]),
        ("expired by exp", vec![score(json!({"exp": NOW}))]),
        (
            "expired by validUntil",
            vec![score(json!({"validUntil": "2025-10-09T08:53:20Z"}))],
        ),
        (
            "a second left",
            vec![score(
                json!({"exp": NOW + 1, "validUntil": "2035-01-01T00:00:00Z"}),
            )],
        ),
        ("no date", vec![score(json!({"validUntil": "some day"}))]),
        ("no VC-JWT", vec!["a.b.c".into(), String::new(), "x".into()]),
        (
            "more than a presentation has",
            (0..6)
                .map(|number| score(json!({"jti": format!("{number}")})))
                .collect(),
        ),
    ];
    let cases = kinds.into_iter().map(|(name, held)| {
        let fitting = wanted.fitting(&held, NOW);
        json!({"name": name, "held": held, "fitting": fitting})
    });
    json!({"now": NOW, "wanted": wanted, "cases": cases.collect::<Vec<_>>()})
}

#[test]
fn the_stored_choices_are_made_again() {
    stored("credentials.json", &cases());
}

#[test]
fn only_what_could_help_is_presented() {
    let cases = cases();
    let counts: Vec<usize> = cases["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["fitting"].as_array().unwrap().len())
        .collect();
    assert_eq!(counts, [0, 1, 1, 0, 0, 1, 0, 0, 1, 0, 0, 4]);
}
