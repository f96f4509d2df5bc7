//! Receipts, good and doctored, with what a client has to make of each.

use dsip::receipt::{Expected, RECEIPT_TYP, Seen, Terms, verify};
use identity::{Documents, SigningKey};
use serde_json::{Value, json};

use super::{base64url, key, stored};

const SESSION: &str = "00000000000000ff";

fn terms() -> Value {
    json!([{"service": "sfu", "tariff": "sfu-1", "msat_per_megabyte_out": 50, "msat_per_megabyte_in": 0,
            "msat_per_second": 8}])
}

/// Ten minutes, 112.5 MB: 5,625 + 4,800 msat.
fn segment(number: u64) -> Value {
    json!({"service": "sfu", "tariff": "sfu-1", "lease": format!("{SESSION}-0"), "segment": number,
           "bytes_out": 112_500_000, "bytes_in": 7_000_000, "nanoseconds": 600_000_000_000_u64, "msat": 10_425,
           "settled_at": 1_760_000_600_000_000_000_u64, "recovered": false, "settlement": number + 1})
}

fn claims(number: u64, prev: Option<&str>, segments: &[Value]) -> Value {
    let sum = |name: &str| {
        segments
            .iter()
            .map(|segment| segment[name].as_u64().unwrap())
            .sum::<u64>()
    };
    json!({"iss": key(2).did(), "iat": 1_760_000_600, "number": number, "prev": prev, "session": SESSION,
           "account": key(1).did(), "terms": terms(), "segments": segments, "bytes_out": sum("bytes_out"),
           "bytes_in": sum("bytes_in"), "nanoseconds": sum("nanoseconds"), "msat": sum("msat"),
           "started": 1_760_000_000_000_000_000_u64, "ended": null, "reason": null, "recovered": false})
}

fn sealed(by: &SigningKey, claims: &Value) -> String {
    by.sign_jws(RECEIPT_TYP, claims.to_string().as_bytes())
}

fn hash(jws: &str) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, jws.as_bytes());
    base64url(digest.as_ref())
}

fn changed(claims: &Value, change: impl FnOnce(&mut Value)) -> String {
    let mut claims = claims.clone();
    change(&mut claims);
    sealed(&key(2), &claims)
}

/// Name, receipt, the one before, what was seen, what it comes to.
type Case = (
    &'static str,
    String,
    Option<String>,
    Option<Seen>,
    Result<&'static [&'static str], &'static str>,
);

fn made() -> Vec<Case> {
    let relay = key(2);
    let first_claims = claims(0, None, &[segment(0)]);
    let first = sealed(&relay, &first_claims);
    let second_claims = claims(1, Some(&hash(&first)), &[segment(0), segment(1)]);
    let second = sealed(&relay, &second_claims);
    let third = sealed(
        &relay,
        &claims(2, Some(&hash(&second)), &[segment(0), segment(1), segment(2)]),
    );
    let doctored = |change: &dyn Fn(&mut Value)| changed(&first_claims, change);
    let seen = |bytes_out: u64, seconds: u64| {
        Some(Seen {
            bytes_out,
            bytes_in: 7_000_000,
            nanoseconds: seconds * 1_000_000_000,
        })
    };
    let before = || Some(first.clone());
    vec![
        ("the first", first.clone(), None, None, Ok(&[])),
        (
            "the first, as seen",
            first.clone(),
            None,
            seen(112_500_000, 600),
            Ok(&[]),
        ),
        (
            "1 % of it was lost on the way",
            first.clone(),
            None,
            seen(111_390_000, 600),
            Ok(&[]),
        ),
        (
            "more was seen than is billed",
            first.clone(),
            None,
            seen(120_000_000, 700),
            Ok(&[]),
        ),
        (
            "2 % more than was seen",
            first.clone(),
            None,
            seen(110_250_000, 600),
            Ok(&["bytes-out"]),
        ),
        (
            "longer than the client was there",
            first.clone(),
            None,
            seen(112_500_000, 550),
            Ok(&["seconds"]),
        ),
        (
            "both",
            first.clone(),
            None,
            seen(100, 1),
            Ok(&["bytes-out", "seconds"]),
        ),
        (
            "the second after the first",
            second.clone(),
            before(),
            None,
            Ok(&[]),
        ),
        ("the first again", first.clone(), before(), None, Ok(&[])),
        (
            "the third after the first",
            third.clone(),
            before(),
            None,
            Ok(&[]),
        ),
        (
            "prices that were not quoted",
            doctored(&|claims| {
                claims["terms"][0]["msat_per_second"] = json!(9);
                claims["segments"][0]["msat"] = json!(11_025);
                claims["msat"] = json!(11_025);
            }),
            None,
            None,
            Ok(&["terms"]),
        ),
        (
            "a segment that the relay did not see the end of, rounded down",
            doctored(&|claims| {
                claims["segments"][0]["recovered"] = json!(true);
                claims["segments"][0]["bytes_out"] = json!(112_510_000);
            }),
            None,
            None,
            Ok(&[]),
        ),
        (
            "a segment that is rounded down without a reason",
            doctored(&|claims| claims["segments"][0]["bytes_out"] = json!(112_510_000)),
            None,
            None,
            Err("arithmetic"),
        ),
        (
            "a msat too many",
            doctored(&|claims| claims["segments"][0]["msat"] = json!(10_426)),
            None,
            None,
            Err("arithmetic"),
        ),
        (
            "another sum",
            doctored(&|claims| claims["msat"] = json!(10_424)),
            None,
            None,
            Err("arithmetic"),
        ),
        (
            "a segment without terms",
            doctored(&|claims| claims["terms"] = json!([])),
            None,
            None,
            Err("arithmetic"),
        ),
        (
            "a settlement counted twice",
            changed(&second_claims, |claims| {
                claims["segments"][1]["settlement"] = json!(1)
            }),
            None,
            None,
            Err("arithmetic"),
        ),
        (
            "another session",
            doctored(&|claims| claims["session"] = json!("00000000000000fe")),
            None,
            None,
            Err("session"),
        ),
        (
            "signed by somebody else",
            sealed(&key(3), &first_claims),
            None,
            None,
            Err("signature"),
        ),
        (
            "issued by somebody else",
            doctored(&|claims| claims["iss"] = json!(key(3).did())),
            None,
            None,
            Err("signature"),
        ),
        (
            "signed as something else",
            key(2).sign_jws("JWT", first_claims.to_string().as_bytes()),
            None,
            None,
            Err("signature"),
        ),
        (
            "cut",
            first[..first.len() - 2].to_owned(),
            None,
            None,
            Err("signature"),
        ),
        ("no receipt", "a.b.c".to_owned(), None, None, Err("malformed")),
        (
            "the second without a hash",
            sealed(&relay, &claims(1, None, &[segment(0), segment(1)])),
            None,
            None,
            Err("chain"),
        ),
        (
            "the first with a hash",
            sealed(&relay, &claims(0, Some("x"), &[segment(0)])),
            None,
            None,
            Err("chain"),
        ),
        (
            "the second with the hash of another",
            sealed(
                &relay,
                &claims(1, Some(&hash(&second)), &[segment(0), segment(1)]),
            ),
            before(),
            None,
            Err("chain"),
        ),
        (
            "the second, which takes back what the first said",
            sealed(&relay, &claims(1, Some(&hash(&first)), &[segment(1), segment(2)])),
            before(),
            None,
            Err("chain"),
        ),
        (
            "the first after the second",
            first.clone(),
            Some(second.clone()),
            None,
            Err("chain"),
        ),
        (
            "another first",
            doctored(&|claims| claims["iat"] = json!(1_760_000_601)),
            before(),
            None,
            Err("chain"),
        ),
    ]
}

fn quoted() -> Vec<Terms> {
    serde_json::from_value(terms()).unwrap()
}

#[test]
fn each_receipt_comes_to_what_it_should() {
    for (name, jws, before, seen, wanted) in made() {
        let expected = Expected {
            session: SESSION,
            before: before.as_deref(),
            seen: seen.map(|seen| ("sfu", seen)),
            quoted: &quoted(),
        };
        let came = verify(&jws, key(2).did(), &Documents::none(), &expected);
        let came = came.map(|(_, warnings)| warnings.into_iter().map(|warning| warning.slug()).collect());
        let wanted = wanted.map(<[&str]>::to_vec);
        assert_eq!(came.map_err(|fault| fault.slug()), wanted, "{name}");
    }
}

#[test]
fn the_stored_receipts_are_made_again() {
    let cases = made().into_iter().map(|(name, jws, before, seen, wanted)| {
        let seen = seen.map(|seen| {
            json!({"bytes_out": seen.bytes_out, "bytes_in": seen.bytes_in, "nanoseconds": seen.nanoseconds})
        });
        let (warnings, fault) = match wanted {
            Ok(warnings) => (Some(warnings), None),
            Err(fault) => (None, Some(fault)),
        };
        json!({"name": name, "jws": jws, "before": before, "seen": seen, "warnings": warnings, "fault": fault})
    });
    let cases: Vec<Value> = cases.collect();
    stored(
        "receipts.json",
        &json!({"relay": key(2).did(), "session": SESSION, "service": "sfu", "quoted": terms(), "cases": cases}),
    );
}
