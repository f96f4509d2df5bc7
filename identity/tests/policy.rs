//! The operator's policy: who is served on which terms, and why. Rows of "Tokens, DIDs, vouchers" (an issuer that is
//! trusted but compromised) and "Money" (a new DID per day for the free allowance).
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use identity::policy::{
    AllowanceRule, CredentialRule, CreditStep, Decision, DenyList, IssuerRule, Kind, ListFault, Policy,
    Service, ServiceRule, SignedList, Verdict, sign_list,
};
use identity::token::{self, TokenPolicy};
use identity::{Did, Refusal, RelayToken, SigningKey, resolve};
use serde_json::{Value, json};
use support::*;

const DAY: u64 = NOW / 86_400;

fn scorer() -> SigningKey {
    key(6)
}

/// A VC of the 2.0 data model by `by` about the holder.
fn credential(by: &SigningKey, kind: &str, member: &str, value: Value) -> String {
    let mut about = json!({"id": holder().did()});
    about[member] = value;
    let claims = json!({
        "@context": ["https://www.w3.org/ns/credentials/v2"],
        "id": "urn:uuid:7c0f3c9c",
        "type": ["VerifiableCredential", kind],
        "issuer": {"id": by.did(), "name": "Trust"},
        "validFrom": "2025-01-01T00:00:00Z", "validUntil": "2035-01-01T00:00:00Z",
        "credentialSubject": about,
    });
    signed(
        &json!({"alg": "EdDSA", "kid": by.kid(), "typ": "vc+jwt", "cty": "vc"}),
        &claims.to_string(),
        by,
    )
}

fn score(value: i64) -> String {
    credential(&scorer(), "ReputationScore", "score", json!(value))
}

fn token_in(policy: &Policy, changes: &[(&str, Value)]) -> RelayToken {
    let mut claims = claims();
    for (name, value) in changes {
        claims[*name] = value.clone();
    }
    let mut rules = TokenPolicy::new(operator(), vec![issuer().did().clone()]);
    rules.allow_bearer = true;
    rules.credential_issuers = policy.credential_issuers();
    token::verify(&token_of(&claims.to_string()), &rules, NOW).unwrap()
}

fn decide(policy: &Policy, changes: &[(&str, Value)]) -> Decision {
    let none = DenyList::default();
    policy.decide(&token_in(policy, changes), Service::Sfu, &none, &none, NOW)
}

fn refusal(policy: &Policy, changes: &[(&str, Value)]) -> Option<Refusal> {
    decide(policy, changes).refusal
}

fn trusting(rule: CredentialRule) -> Policy {
    Policy {
        credentials: BTreeMap::from([(scorer().did().clone(), rule)]),
        ..Policy::default()
    }
}

fn everything() -> CredentialRule {
    CredentialRule {
        score: true,
        role: true,
        organization: true,
        credit_max: 100_000,
        allowance_day_max: 50_000,
    }
}

#[test]
fn without_a_policy_every_listed_issuers_token_is_served_on_no_special_terms() {
    let decision = decide(&Policy::default(), &[]);
    assert!(
        decision
            .findings
            .iter()
            .all(|finding| finding.verdict == Verdict::Pass)
    );
    assert_eq!(decision.terms(), Ok(Default::default()));
}

#[test]
fn a_service_asks_for_a_score_of_the_tokens_issuer_or_a_listed_scorer() {
    let mut policy = trusting(everything());
    policy.sfu.score_min = Some(500);
    let own = |score: i64| [("reputation", json!({"score": score, "iss": issuer().did()}))];
    assert_eq!(refusal(&policy, &[]), Some(Refusal::ReputationTooLow));
    assert_eq!(refusal(&policy, &own(499)), Some(Refusal::ReputationTooLow));
    assert_eq!(refusal(&policy, &own(500)), None);
    assert_eq!(refusal(&policy, &[("vc", json!([score(500)]))]), None);
    let stranger = credential(&attacker(), "ReputationScore", "score", json!(999));
    assert_eq!(
        refusal(&policy, &[("vc", json!([stranger]))]),
        Some(Refusal::ReputationTooLow)
    );
    policy.credentials.get_mut(scorer().did()).unwrap().score = false;
    assert_eq!(
        refusal(&policy, &[("vc", json!([score(999)]))]),
        Some(Refusal::ReputationTooLow),
        "listed, but not for scores"
    );
    assert_eq!(
        (
            Refusal::ReputationTooLow.slug(),
            Refusal::ReputationTooLow.status()
        ),
        ("reputation-too-low", 403)
    );
}

#[test]
fn a_threshold_is_its_services_own() {
    let mut policy = trusting(everything());
    policy.turn.score_min = Some(1);
    let (token, none) = (token_in(&policy, &[]), DenyList::default());
    let refusal = |service| policy.decide(&token, service, &none, &none, NOW).refusal;
    assert_eq!(refusal(Service::Sfu), None);
    assert_eq!(refusal(Service::Turn), Some(Refusal::ReputationTooLow));
    let sfu_only = token_in(&policy, &[("service", json!(["sfu"]))]);
    let refused = policy.decide(&sfu_only, Service::Turn, &none, &none, NOW).refusal;
    assert_eq!(refused, Some(Refusal::ServiceForbidden));
}

#[test]
fn a_role_and_an_organization_are_credentials_by_who_may_say_so() {
    let mut policy = trusting(everything());
    policy.sfu = ServiceRule {
        roles: vec!["support".into(), "legal".into()],
        organizations: vec!["did:web:voice.example".into()],
        ..ServiceRule::default()
    };
    let role = credential(&scorer(), "Role", "role", json!("legal"));
    let other_role = credential(&scorer(), "Role", "role", json!("intern"));
    let member = credential(
        &scorer(),
        "Organization",
        "organization",
        json!("did:web:voice.example"),
    );
    let with = |list: &[&String]| refusal(&policy, &[("vc", json!(list))]);
    assert_eq!(with(&[&role, &member]), None);
    assert_eq!(with(&[&role]), Some(Refusal::ReputationTooLow));
    assert_eq!(with(&[&member, &other_role]), Some(Refusal::ReputationTooLow));
    let mut strict = policy.clone();
    strict.credentials.get_mut(scorer().did()).unwrap().role = false;
    assert_eq!(
        refusal(&strict, &[("vc", json!([role, member]))]),
        Some(Refusal::ReputationTooLow)
    );
}

#[test]
fn an_issuers_voucher_is_capped_and_its_sums_of_the_day_are_named() {
    let rule = IssuerRule {
        voucher_max: Some(1000),
        day_max: Some(5000),
        holder_day_max: Some(2000),
        outstanding_max: Some(9000),
        promotional: true,
    };
    let policy = Policy {
        issuers: BTreeMap::from([(issuer().did().clone(), rule)]),
        ..Policy::default()
    };
    assert_eq!(
        refusal(&policy, &[("balance_msat", json!(1001))]),
        Some(Refusal::IssuerLimit)
    );
    let terms = decide(&policy, &[]).terms().unwrap();
    assert!(terms.promotional);
    let named: Vec<(String, u64)> = terms
        .ceilings
        .into_iter()
        .map(|one| (one.name, one.max_msat))
        .collect();
    assert_eq!(
        named,
        [
            (format!("issuer {} {DAY}", issuer().did()), 5000),
            (
                format!("holder {} {} {DAY}", issuer().did(), holder().did()),
                2000
            ),
        ]
    );
}

#[test]
fn a_deny_list_hits_by_jti_sub_kid_and_iss_and_a_payer_is_a_sub() {
    let policy = Policy::default();
    let (token, none) = (token_in(&policy, &[]), DenyList::default());
    for (kind, value) in [
        (Kind::Jti, "voucher-1".to_owned()),
        (Kind::Sub, holder().did().to_string()),
        (Kind::Kid, issuer().kid().to_owned()),
        (Kind::Iss, issuer().did().to_string()),
    ] {
        let mut list = DenyList::default();
        assert_eq!(list.add(kind, &value), Ok(true));
        assert_eq!(list.hit(&token), Some(kind));
        for service in [Service::Sfu, Service::Turn] {
            assert_eq!(
                policy.decide(&token, service, &list, &none, NOW).refusal,
                Some(Refusal::Denied)
            );
            assert_eq!(
                policy.decide(&token, service, &none, &list, NOW).refusal,
                Some(Refusal::Denied)
            );
        }
        assert_eq!(
            policy.crediting(&token, &list, &none, NOW).refusal,
            Some(Refusal::Denied),
            "nor credited"
        );
        assert!(list.remove(kind, &value) && list.is_empty());
        let mut other = DenyList::default();
        for wrong in Kind::ALL.into_iter().filter(|wrong| *wrong != kind) {
            other.add(wrong, &value).unwrap();
        }
        assert_eq!(other.hit(&token), None, "a {kind} under another name is none");
    }
    let grant = token::payer_grant(&victim(), holder().did(), &operator(), NOW + 60, "g", 5);
    let paid = token_in(
        &policy,
        &[("payer", json!(victim().did())), ("payer_grant", json!(grant))],
    );
    let mut list = DenyList::default();
    list.add(Kind::Sub, victim().did().as_str()).unwrap();
    assert_eq!(list.hit(&paid), Some(Kind::Sub));
}

#[test]
fn the_operators_allowance_of_a_holder_is_above_a_communitys_list_but_not_above_the_operators_own() {
    let policy = Policy {
        allow: vec![holder().did().clone()],
        ..Policy::default()
    };
    let (token, none) = (token_in(&policy, &[]), DenyList::default());
    let mut list = DenyList::default();
    list.add(Kind::Sub, holder().did().as_str()).unwrap();
    let refusal = |own, others| policy.decide(&token, Service::Sfu, own, others, NOW).refusal;
    assert_eq!(refusal(&none, &list), None);
    assert_eq!(refusal(&list, &none), Some(Refusal::Denied));
    let only = Policy {
        allow: vec![victim().did().clone()],
        allow_only: true,
        ..Policy::default()
    };
    assert_eq!(
        only.decide(&token, Service::Sfu, &none, &none, NOW).refusal,
        Some(Refusal::Denied)
    );
}

#[test]
fn a_score_that_no_listed_scorer_signed_buys_no_credit_and_no_allowance() {
    let mut policy = trusting(everything());
    policy.credit = vec![
        CreditStep {
            score: 500,
            msat: 10_000,
        },
        CreditStep {
            score: 800,
            msat: 200_000,
        },
    ];
    policy.allowance = AllowanceRule {
        msat_per_day: 1_000,
        score_min: 300,
    };
    let terms = |changes: &[(&str, Value)]| decide(&policy, changes).terms().unwrap();
    let vc = |text: String| [("vc", json!([text]))];
    for nothing in [
        terms(&[]),
        // The token's issuer may be anybody's friend: its opinion is no credential.
        terms(&[("reputation", json!({"score": 999, "iss": issuer().did()}))]),
        terms(&vc(credential(
            &attacker(),
            "ReputationScore",
            "score",
            json!(999),
        ))),
        terms(&vc(score(299))),
    ] {
        assert_eq!((nothing.credit, nothing.allowance), (None, None));
    }
    let some = terms(&vc(score(500)));
    let (credit, allowance) = (some.credit.unwrap(), some.allowance.unwrap());
    assert_eq!((credit.msat, credit.within.max_msat), (10_000, 100_000));
    assert_eq!(
        (allowance.msat, allowance.day, allowance.within.max_msat),
        (1_000, DAY, 50_000)
    );
    assert_eq!(
        terms(&vc(score(900))).credit.unwrap().msat,
        100_000,
        "no line is longer than its scorer's word"
    );
    assert_eq!(terms(&vc(score(300))).credit, None);
    let bearer = terms(&[("bearer", json!(true)), ("vc", json!([score(900)]))]);
    assert_eq!(
        (bearer.credit, bearer.allowance),
        (None, None),
        "a bearer spends its own voucher only"
    );
}

#[test]
fn a_scorer_whose_word_is_good_for_nothing_gives_nothing() {
    let mut policy = trusting(CredentialRule {
        score: true,
        ..CredentialRule::default()
    });
    policy.credit = vec![CreditStep {
        score: 0,
        msat: 10_000,
    }];
    policy.allowance = AllowanceRule {
        msat_per_day: 1_000,
        score_min: 0,
    };
    let terms = decide(&policy, &[("vc", json!([score(999)]))]).terms().unwrap();
    assert_eq!((terms.credit, terms.allowance), (None, None));
}

#[test]
fn a_denied_credential_counts_as_absent() {
    let mut policy = trusting(everything());
    policy.sfu.score_min = Some(1);
    let (token, none) = (
        token_in(&policy, &[("vc", json!([score(5)]))]),
        DenyList::default(),
    );
    assert_eq!(
        policy.decide(&token, Service::Sfu, &none, &none, NOW).refusal,
        None
    );
    for (kind, value) in [
        (Kind::Jti, "urn:uuid:7c0f3c9c".to_owned()),
        (Kind::Kid, scorer().kid().to_owned()),
        (Kind::Iss, scorer().did().to_string()),
    ] {
        let mut list = DenyList::default();
        list.add(kind, &value).unwrap();
        let refused = policy.decide(&token, Service::Sfu, &list, &none, NOW).refusal;
        assert_eq!(refused, Some(Refusal::ReputationTooLow), "{kind}");
    }
}

#[test]
fn a_token_by_an_emergency_service_is_free() {
    let policy = Policy {
        emergency: vec![issuer().did().clone()],
        ..Policy::default()
    };
    assert!(decide(&policy, &[]).terms().unwrap().emergency);
    let mut denied = DenyList::default();
    denied.add(Kind::Sub, holder().did().as_str()).unwrap();
    let refused = policy.decide(
        &token_in(&policy, &[]),
        Service::Sfu,
        &denied,
        &DenyList::default(),
        NOW,
    );
    assert_eq!(refused.refusal, Some(Refusal::Denied));
}

#[test]
fn every_refusal_is_a_finding_and_the_first_is_the_answer() {
    let mut policy = trusting(everything());
    policy.sfu.score_min = Some(1);
    let mut list = DenyList::default();
    list.add(Kind::Jti, "voucher-1").unwrap();
    let decision = policy.decide(
        &token_in(&policy, &[]),
        Service::Sfu,
        &list,
        &DenyList::default(),
        NOW,
    );
    let refused: Vec<&str> = decision
        .findings
        .iter()
        .filter(|finding| finding.verdict == Verdict::Refuse)
        .map(|finding| finding.rule)
        .collect();
    assert_eq!(refused, ["deny", "reputation"]);
    assert_eq!(decision.refusal, Some(Refusal::Denied));
    assert!(decision.findings.iter().all(|finding| !finding.why.is_empty()));
}

#[test]
fn a_list_takes_no_entry_that_could_not_be_written_in_a_line_and_not_too_many() {
    let mut list = DenyList::default();
    for bad in ["", "a b", "a\nb", "a\u{0}", &"a".repeat(2049)] {
        assert!(list.add(Kind::Sub, bad).is_err());
    }
    for number in 0..identity::policy::ENTRIES_MAX {
        list.add(Kind::Jti, &number.to_string()).unwrap();
    }
    assert!(list.add(Kind::Jti, "one more").is_err() && list.add(Kind::Jti, "more").is_err());
}

fn community() -> SigningKey {
    key(11)
}

fn list(text: &str, now: u64) -> Result<SignedList, ListFault> {
    SignedList::verify(text, &resolve(community().did()).unwrap(), 30, now)
}

#[test]
fn a_communitys_list_is_read_back_as_it_was_signed() {
    let mut deny = DenyList::default();
    deny.add(Kind::Sub, attacker().did().as_str()).unwrap();
    deny.add(Kind::Jti, "stolen").unwrap();
    let text = sign_list(&community(), &deny, &[victim().did().clone()], NOW, NOW + 3600);
    let read = list(&text, NOW).unwrap();
    assert_eq!(read.deny, deny);
    assert_eq!(read.allow, [victim().did().clone()]);
    assert_eq!((read.issued_at, read.expires), (NOW, NOW + 3600));
    assert_eq!(list(&text, NOW + 3630), Err(ListFault::Time));
    assert_eq!(list(&text, NOW - 31), Err(ListFault::Time));
}

#[test]
fn a_list_by_another_or_for_another_purpose_is_not_taken() {
    let text = sign_list(&attacker(), &DenyList::default(), &[], NOW, NOW + 60);
    assert_eq!(list(&text, NOW), Err(ListFault::Issuer));
    let claims = json!({"iss": community().did(), "iat": NOW, "exp": NOW + 60, "deny": {"sub": ["a"]}});
    let header = |kid: &str, typ: &str| json!({"alg": "EdDSA", "kid": kid, "typ": typ});
    let forged = signed(
        &header(community().kid(), "list+jwt"),
        &claims.to_string(),
        &attacker(),
    );
    assert_eq!(list(&forged, NOW), Err(ListFault::Signature));
    let other = signed(
        &header(community().kid(), "relay+jwt"),
        &claims.to_string(),
        &community(),
    );
    assert_eq!(list(&other, NOW), Err(ListFault::Malformed));
    let by_other = json!({"iss": attacker().did(), "iat": NOW, "exp": NOW + 60});
    let lied = signed(
        &header(community().kid(), "list+jwt"),
        &by_other.to_string(),
        &community(),
    );
    assert_eq!(list(&lied, NOW), Err(ListFault::Issuer));
    for bad in [
        json!(["a"]),
        json!({"who": ["a"]}),
        json!({"sub": "a"}),
        json!({"sub": [7]}),
        json!({"sub": ["a b"]}),
    ] {
        let mut claims = claims.clone();
        claims["deny"] = bad;
        let text = signed(
            &header(community().kid(), "list+jwt"),
            &claims.to_string(),
            &community(),
        );
        assert!(list(&text, NOW).is_err());
    }
}

// Credentials by themselves: both data models.

fn verify_credential(claims: &Value) -> Option<RelayToken> {
    let policy = trusting(everything());
    let text = signed(
        &json!({"alg": "EdDSA", "kid": scorer().kid()}),
        &claims.to_string(),
        &scorer(),
    );
    let token = token_in(&policy, &[("vc", json!([text]))]);
    (!token.credentials().is_empty()).then_some(token)
}

#[test]
fn credentials_of_both_data_models_are_read_and_what_differs_from_them_is_not() {
    let v1 = json!({
        "iss": scorer().did(), "sub": holder().did(), "nbf": NOW - 5, "exp": NOW + 5, "jti": "vc-1",
        "vc": {"@context": ["https://www.w3.org/2018/credentials/v1"],
               "type": ["VerifiableCredential", "ReputationScore"], "issuanceDate": "2025-01-01T00:00:00Z",
               "credentialSubject": {"id": holder().did(), "score": 812}},
    });
    let v2 = json!({
        "@context": ["https://www.w3.org/ns/credentials/v2"], "id": "vc-2",
        "type": ["VerifiableCredential", "ReputationScore"], "issuer": scorer().did(),
        "validFrom": "2025-01-01T00:00:00Z", "validUntil": "2035-01-01T00:00:00+01:00",
        "credentialSubject": [{"id": victim().did(), "score": 1}, {"id": holder().did(), "score": 812}],
    });
    for (good, id) in [(&v1, "vc-1"), (&v2, "vc-2")] {
        let token = verify_credential(good).unwrap();
        assert_eq!(token.credentials()[0].score(), Some(812));
        assert_eq!(token.credentials()[0].id(), Some(id));
    }
    let change = |base: &Value, pointer: &str, value: Value| {
        let mut changed = base.clone();
        match changed.pointer_mut(pointer) {
            Some(place) => *place = value,
            None => changed[&pointer[1..]] = value,
        }
        verify_credential(&changed).is_none()
    };
    for (pointer, value) in [
        ("/iss", json!(attacker().did())),
        ("/iss", json!(7)),
        ("/issuer", json!(attacker().did())),
        ("/sub", json!(victim().did())),
        ("/exp", json!(NOW - 31)),
        ("/exp", json!("soon")),
        ("/nbf", json!(NOW + 31)),
        ("/vc/credentialSubject/id", json!(victim().did())),
        ("/vc/credentialSubject/score", json!(812.5)),
        ("/vc/type", json!(["VerifiableCredential"])),
        ("/vc/type", json!(["ReputationScore"])),
        ("/vc/issuanceDate", json!("yesterday")),
    ] {
        let refused = match pointer {
            // `issuer` beside an `iss` that differs.
            "/issuer" => {
                let mut changed = v1.clone();
                changed["vc"]["issuer"] = value;
                verify_credential(&changed).is_none()
            }
            _ => change(&v1, pointer, value),
        };
        assert!(refused, "{pointer}");
    }
    for (pointer, value) in [
        ("/issuer", json!({"name": "nobody"})),
        ("/validUntil", json!("2025-10-01T00:00:00Z")),
        ("/validFrom", json!("2035-01-01T00:00:00Z")),
        ("/credentialStatus", json!({"type": "BitstringStatusListEntry"})),
        ("/credentialSubject", json!("did:key:z")),
    ] {
        assert!(change(&v2, pointer, value), "{pointer}");
    }
}

#[test]
fn a_key_that_only_authenticates_signs_no_credential() {
    use identity::{Document, Documents};
    let did = Did::parse("did:web:trust.example").unwrap();
    let login = key(6).listed_as(did.clone(), "login");
    let document = json!({
        "id": did,
        "authentication": [{"id": "#login", "type": "JsonWebKey2020", "publicKeyJwk": login.public_key().to_jwk()}],
        "assertionMethod": [{"id": "#issue", "type": "JsonWebKey2020", "publicKeyJwk": key(7).public_key().to_jwk()}],
    });
    let mut documents = Documents::none();
    documents.insert(
        did.clone(),
        Ok(Document::parse(&did, &document.to_string()).unwrap().into()),
    );
    let (issuers, holder) = ([did.clone()], holder());
    let rules = identity::credential::Rules {
        issuers: &issuers,
        subject: holder.did(),
        leeway: 30,
        now: NOW,
    };
    let verify = |key: &SigningKey| {
        let text = credential(key, "ReputationScore", "score", json!(1));
        identity::credential::verify(&text, &rules, &documents).is_ok()
    };
    assert!(!verify(&login));
    assert!(verify(&key(7).listed_as(did.clone(), "issue")));
}

#[test]
fn a_credential_that_expires_counts_no_longer_in_a_token_that_was_verified_before() {
    let mut policy = trusting(everything());
    policy.sfu.score_min = Some(300);
    let token = token_in(&policy, &[("vc", json!([score(500)]))]);
    let expires = token.credentials()[0].counts_until().unwrap();
    assert_eq!(
        token.credentials()[0].expires(),
        Some(2_051_222_400),
        "2035-01-01"
    );
    let none = DenyList::default();
    let at = |now| {
        let decision = policy.decide(&token, Service::Sfu, &none, &none, now);
        decision.refusal
    };
    assert_eq!(at(expires - 1), None);
    assert_eq!(at(expires), Some(Refusal::ReputationTooLow));
}
