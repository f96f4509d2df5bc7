//! A holder at the relay's doors: tokens of the faucet, and calls with a proof of the key (RFC 9449).

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use identity::{SigningKey, proof};
use serde_json::json;

use crate::Error;
use crate::http::{self, Answer};

/// How long one that is told to come later comes again.
const PATIENCE: Duration = Duration::from_secs(20);
/// And how soon.
const AGAIN: Duration = Duration::from_millis(100);

/// A bearer token of the relay's own faucet, with an account of its own behind it.
pub fn bearer_token(base: &str, msat: u64) -> Result<String, Error> {
    faucet(base, SigningKey::generate().did().as_str(), msat, true)
}

/// A token of the relay's own faucet for this key.
pub fn token(base: &str, key: &SigningKey, msat: u64) -> Result<String, Error> {
    faucet(base, key.did().as_str(), msat, false)
}

fn faucet(base: &str, holder: &str, msat: u64, bearer: bool) -> Result<String, Error> {
    let body = json!({ "sub": holder, "balance_msat": msat, "bearer": bearer }).to_string();
    let headers = [("content-type", "application/json")];
    let answer = http::call(base, "POST", "/v1/dev/faucet", &headers, &body)?;
    let token = answer.expect(200, "the faucet")?.json()?["token"].take();
    match token {
        serde_json::Value::String(token) => Ok(token),
        other => Err(format!("the faucet gave {other} for a token").into()),
    }
}

/// The relay's nonce for proofs, which serves for some minutes or until the relay is killed.
pub fn nonce(base: &str) -> Result<String, Error> {
    let challenge = http::call(base, "GET", "/v1/account", &[], "")?;
    let nonce = challenge
        .header("dpop-nonce")
        .ok_or("a challenge without a nonce")?;
    Ok(nonce.to_owned())
}

/// A call with a proof of the key, and the token where there is one. Answers of 429 are waited out, each time with a new
/// proof: one serves once.
pub fn signed(
    base: &str,
    nonce: &str,
    key: &SigningKey,
    token: Option<&str>,
    method: &str,
    path: &str,
    body: &str,
) -> Result<Answer, Error> {
    let url = format!("{base}{path}");
    let authorization = token.map(|token| format!("DPoP {token}"));
    let end = Instant::now() + PATIENCE;
    loop {
        let request = proof::Request {
            method,
            url: &url,
            body: body.as_bytes(),
        };
        let dpop = proof::sign_dpop(key, &request, token, nonce, now()?);
        let mut headers = vec![("dpop", &dpop[..]), ("content-type", "application/json")];
        if let Some(authorization) = &authorization {
            headers.push(("authorization", authorization));
        }
        let answer = http::call_once(base, method, path, &headers, body)?;
        if answer.status != 429 || Instant::now() > end {
            return Ok(answer);
        }
        sleep(AGAIN);
    }
}

/// Unix seconds.
pub fn now() -> Result<u64, Error> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
