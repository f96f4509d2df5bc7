//! An issuer can only add money: a trusted issuer that lies about `sub`, `payer`, `cnf` or `bearer` gets nothing of
//! anybody else's. Rows of "Tokens, DIDs, vouchers".
#![allow(clippy::unwrap_used)]

mod support;

use identity::token::{self, Confirmation, Issue, delegation, issue, payer_grant};
use identity::{Documents, Owner, Permit, Refusal};
use serde_json::json;
use support::*;

fn refusal(jwt: &str) -> Refusal {
    verify(jwt).expect_err("refused")
}

#[test]
fn a_rogue_issuer_that_names_a_victim_as_payer_gets_nothing() {
    let no_grant = |refusal: Refusal| matches!(refusal, Refusal::PayerGrant { .. });
    let victim = victim();
    assert!(
        no_grant(refusal(&token_with("payer", json!(victim.did())))),
        "no grant at all"
    );
    let with_grant = |grant: String| {
        let mut claims = claims();
        claims["payer"] = json!(victim.did());
        claims["payer_grant"] = json!(grant);
        token_of(&claims.to_string())
    };
    let (sub, aud) = (holder().did().clone(), operator());
    let exp = NOW + 600;
    for forged in [
        payer_grant(&issuer(), &sub, &aud, exp, "g", 5),
        payer_grant(&holder(), &sub, &aud, exp, "g", 5),
        payer_grant(&victim, attacker().did(), &aud, exp, "g", 5),
        payer_grant(&victim, &sub, attacker().did(), exp, "g", 5),
        // things the victim did sign, for something else
        delegation(&victim, &Confirmation::Kid(holder().kid().into()), &aud, exp),
        issue(&victim, &Issue::new(sub.clone(), aud.clone(), 5, NOW)),
        "a.b.c".into(),
        String::new(),
    ] {
        assert!(no_grant(refusal(&with_grant(forged))));
    }
    for (name, value) in [
        ("max_msat", json!(-1)),
        ("max_msat", json!("5")),
        ("exp", json!(1.5)),
        ("jti", json!("")),
    ] {
        let mut claims = json!({"sub": sub, "aud": aud, "exp": exp, "jti": "g", "max_msat": 5});
        claims[name] = value;
        let grant = signed(
            &json!({"alg": "EdDSA", "kid": victim.kid()}),
            &claims.to_string(),
            &victim,
        );
        assert!(no_grant(refusal(&with_grant(grant))), "{name}");
    }
    let token = verify(&with_grant(payer_grant(&victim, &sub, &aud, exp, "g", 5))).unwrap();
    assert_eq!(
        token.account(),
        victim.did().as_str(),
        "with the payer's own consent it pays"
    );
    let (_, grant) = token.payer().unwrap();
    assert_eq!((grant.id.as_str(), grant.max_msat, grant.expires), ("g", 5, exp));
    assert_eq!(token.expires(), exp, "no longer than the grant");
}

#[test]
fn an_expired_grant_or_delegation_expires_the_token() {
    let mut claims = claims();
    claims["payer"] = json!(victim().did());
    claims["payer_grant"] = json!(payer_grant(
        &victim(),
        holder().did(),
        &operator(),
        NOW - 30,
        "g",
        5
    ));
    assert_eq!(refusal(&token_of(&claims.to_string())), Refusal::TokenExpired);
    let mut claims = support::claims();
    let cnf = Confirmation::Kid(attacker().kid().into());
    claims["cnf"] = json!({"kid": attacker().kid()});
    claims["delegation"] = json!(delegation(&holder(), &cnf, &operator(), NOW - 30));
    assert_eq!(refusal(&token_of(&claims.to_string())), Refusal::TokenExpired);
}

#[test]
fn a_rogue_issuer_that_names_a_victim_as_sub_with_its_own_key_gets_nothing() {
    let not_delegated = |refusal: Refusal| matches!(refusal, Refusal::Delegation { .. });
    let (victim, attacker, aud, exp) = (victim(), attacker(), operator(), NOW + 600);
    let thumbprint = attacker.public_key().thumbprint();
    for cnf in [
        Confirmation::Kid(attacker.kid().into()),
        Confirmation::Thumbprint(thumbprint),
    ] {
        let cnf_json = match &cnf {
            Confirmation::Kid(kid) => json!({"kid": kid}),
            Confirmation::Thumbprint(thumbprint) => json!({"jkt": thumbprint.to_text()}),
        };
        let with = |delegation: Option<String>| {
            let mut claims = claims();
            claims["sub"] = json!(victim.did());
            claims["cnf"] = cnf_json.clone();
            if let Some(delegation) = delegation {
                claims["delegation"] = json!(delegation);
            }
            token_of(&claims.to_string())
        };
        assert!(not_delegated(refusal(&with(None))));
        for forged in [
            delegation(&issuer(), &cnf, &aud, exp),
            delegation(&attacker, &cnf, &aud, exp),
            delegation(&victim, &Confirmation::Kid(holder().kid().into()), &aud, exp),
            delegation(&victim, &cnf, attacker.did(), exp),
            payer_grant(&victim, attacker.did(), &aud, exp, "g", 5),
        ] {
            assert!(not_delegated(refusal(&with(Some(forged)))));
        }
        let token = verify(&with(Some(delegation(&victim, &cnf, &aud, exp)))).unwrap();
        assert_eq!(token.expires(), exp, "no longer than the delegation");
    }
    let own = token_with("cnf", json!({"kid": holder().kid()}));
    assert!(verify(&own).is_ok(), "a key of `sub` needs no delegation");
    let own = token_with(
        "cnf",
        json!({"jkt": holder().public_key().thumbprint().to_text()}),
    );
    assert!(verify(&own).is_ok());
}

#[test]
fn a_rogue_issuer_that_sets_bearer_gets_nothing_of_the_victims() {
    let jwt = |id: &str| {
        let mut claims = claims();
        claims["sub"] = json!(victim().did());
        claims["bearer"] = json!(true);
        claims["jti"] = json!(id);
        token_of(&claims.to_string())
    };
    assert_eq!(refusal(&jwt("a")), Refusal::BearerNotAllowed);
    let mut policy = policy();
    policy.allow_bearer = true;
    let token = token::verify(&jwt("a"), &policy, NOW).unwrap();
    let permit = Permit::from_bearer(token.clone()).unwrap();
    assert!(permit.account().starts_with("bearer:"));
    assert_eq!(
        permit.voucher().account,
        permit.account(),
        "its own voucher pays, in an account of its own"
    );
    assert_eq!(
        permit.holder(),
        None,
        "a bearer does not act in the name of `sub`"
    );
    assert_eq!(permit.subject(), permit.account());
    let other = Permit::from_bearer(token::verify(&jwt("b"), &policy, NOW).unwrap()).unwrap();
    assert_ne!(
        other.account(),
        permit.account(),
        "each (iss, jti) has its own account"
    );
    assert!(token.voucher_for(victim().did().as_str()).is_err());
}

#[test]
fn a_bearer_token_cannot_name_a_payer_or_a_key() {
    let mut policy = policy();
    policy.allow_bearer = true;
    for (name, value) in [
        ("payer", json!(victim().did())),
        ("payer_grant", json!("x")),
        ("delegation", json!("x")),
        ("cnf", json!({"kid": holder().kid()})),
    ] {
        let mut claims = claims();
        claims["bearer"] = json!(true);
        claims[name] = value;
        let refused = token::verify(&token_of(&claims.to_string()), &policy, NOW).unwrap_err();
        assert!(
            matches!(refused, Refusal::TokenMalformed { field: "bearer", .. }),
            "{name}"
        );
    }
}

#[test]
fn a_token_without_bearer_opens_nothing_without_a_proof() {
    let token = verify(&token_of(&claims().to_string())).unwrap();
    assert_eq!(Permit::from_bearer(token).unwrap_err(), Refusal::ProofMissing);
}

#[test]
fn an_expired_bearer_token_still_names_its_account_but_opens_nothing() {
    let mut policy = policy();
    policy.allow_bearer = true;
    let jwt = token_with("bearer", json!(true));
    let later = NOW + 1_000_000;
    assert_eq!(
        token::verify(&jwt, &policy, later).unwrap_err(),
        Refusal::TokenExpired
    );
    let account = token::verify(&jwt, &policy, NOW).unwrap().account();
    let owner = Owner::from_bearer(&jwt, &policy, &Documents::none(), later).unwrap();
    assert_eq!(
        (owner.own(), owner.charged()),
        (account.as_str(), account.as_str())
    );
    let held = token_of(&claims().to_string());
    assert_eq!(
        Owner::from_bearer(&held, &policy, &Documents::none(), later).unwrap_err(),
        Refusal::ProofMissing
    );
}

#[test]
fn a_top_up_credits_the_callers_account_only() {
    let token = verify(&token_of(&claims().to_string())).unwrap();
    assert_eq!(
        token.voucher_for(holder().did().as_str()).unwrap().balance_msat,
        1000
    );
    assert_eq!(
        token.voucher_for(victim().did().as_str()),
        Err(Refusal::TokenSubject)
    );
}
