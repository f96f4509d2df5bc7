//! The relay's signature over an offer and its answer (the `Milliway-Relay` header): a proxy that ends TLS cannot
//! swap a DTLS fingerprint without being seen.

use crate::base64url;
use crate::document::Document;
use crate::jws::{Jws, JwsError};
use crate::key::sha256;
use crate::signing_key::SigningKey;

/// The `typ` of the statement.
pub const TYP: &str = "milliway-relay+jws";

/// A JWS over {`answer`, `offer`}: base64url SHA-256 of the exact bodies.
pub fn sign(key: &SigningKey, offer: &[u8], answer: &[u8]) -> String {
    let payload = format!(r#"{{"answer":"{}","offer":"{}"}}"#, digest(answer), digest(offer));
    key.sign_jws(TYP, payload.as_bytes())
}

/// What a client does: is this the relay's statement about these two bodies?
pub fn verify(statement: &str, relay: &Document, offer: &[u8], answer: &[u8]) -> Result<(), JwsError> {
    let jws = Jws::parse(statement, "alg, kid, typ")?;
    let key = jws
        .header("kid")
        .and_then(|kid| relay.key(kid))
        .ok_or(JwsError::Signature)?;
    jws.verify(key)?;
    let claims = jws.claims()?;
    let matches = jws.header("typ") == Some(TYP)
        && claims.get("offer").is_some_and(|hash| *hash == digest(offer))
        && claims.get("answer").is_some_and(|hash| *hash == digest(answer));
    if matches { Ok(()) } else { Err(JwsError::Signature) }
}

fn digest(body: &[u8]) -> String {
    base64url::encode(sha256(body))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resolve;

    #[test]
    fn a_swapped_fingerprint_in_offer_or_answer_breaks_the_relays_statement() {
        let key = SigningKey::from_seed(&[7; 32]);
        let relay = resolve(key.did()).unwrap();
        let statement = sign(&key, b"offer", b"answer");
        assert_eq!(verify(&statement, &relay, b"offer", b"answer"), Ok(()));
        assert!(verify(&statement, &relay, b"offer2", b"answer").is_err());
        assert!(verify(&statement, &relay, b"offer", b"answer2").is_err());
        let proxy = sign(&SigningKey::from_seed(&[8; 32]), b"offer", b"answer");
        assert!(verify(&proxy, &relay, b"offer", b"answer").is_err());
    }
}
