//! Blind signatures over secp256k1 (NUT-00) and the mint's proof that it signed with its own key (NUT-12).

use bitcoin::hashes::{Hash, HashEngine, sha256};
use bitcoin::secp256k1::{PublicKey, Scalar, Secp256k1, SecretKey, SignOnly, VerifyOnly};

use crate::hex;

/// Half of all hashes name a point, so that a secret without one among so many does not exist.
const TRIES_MAX: u32 = 1 << 16;

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    let mut engine = sha256::Hash::engine();
    parts.iter().for_each(|part| engine.input(part));
    sha256::Hash::from_engine(engine).to_byte_array()
}

fn signing() -> Secp256k1<SignOnly> {
    Secp256k1::signing_only()
}

fn verifying() -> Secp256k1<VerifyOnly> {
    Secp256k1::verification_only()
}

/// Y: the point that a secret stands for.
pub(crate) fn hash_to_curve(secret: &[u8]) -> Option<PublicKey> {
    let message = sha(&[b"Secp256k1_HashToCurve_Cashu_", secret]);
    (0..TRIES_MAX).find_map(|counter| {
        let x = sha(&[&message, &counter.to_le_bytes()]);
        let mut compressed = [2; 33];
        compressed[1..].copy_from_slice(&x);
        PublicKey::from_slice(&compressed).ok()
    })
}

/// B_ = Y + rG: what the mint is shown of a secret.
pub(crate) fn blind(secret: &[u8], r: &SecretKey) -> Option<PublicKey> {
    let y = hash_to_curve(secret)?;
    y.combine(&PublicKey::from_secret_key(&signing(), r)).ok()
}

/// C = C_ - rK: the mint's signature on the secret, out of that on the blinded one.
pub(crate) fn unblind(c_blind: &PublicKey, r: &SecretKey, mint_key: &PublicKey) -> Option<PublicKey> {
    let rk = mint_key.mul_tweak(&verifying(), &Scalar::from(*r)).ok()?;
    c_blind.combine(&rk.negate(&verifying())).ok()
}

/// Did whoever holds the private key of `mint_key` make `c_blind` out of `b_blind`?
pub(crate) fn is_proved(
    e: &SecretKey,
    s: &SecretKey,
    mint_key: &PublicKey,
    b_blind: &PublicKey,
    c_blind: &PublicKey,
) -> bool {
    let curve = verifying();
    let (e_scalar, s_scalar) = (Scalar::from(*e), Scalar::from(*s));
    let difference = |left: PublicKey, right: &PublicKey| {
        let right = right.mul_tweak(&curve, &e_scalar).ok()?;
        left.combine(&right.negate(&curve)).ok()
    };
    let r1 = difference(PublicKey::from_secret_key(&signing(), s), mint_key);
    let r2 = b_blind
        .mul_tweak(&curve, &s_scalar)
        .ok()
        .and_then(|left| difference(left, c_blind));
    let (Some(r1), Some(r2)) = (r1, r2) else {
        return false;
    };
    let text = [&r1, &r2, mint_key, c_blind].map(|point| hex::encode(&point.serialize_uncompressed()));
    sha(&[text.concat().as_bytes()]) == e.secret_bytes()
}

/// The same of a coin that somebody else unblinded and that comes with the blinding factor.
pub(crate) fn is_proved_of_coin(
    e: &SecretKey,
    s: &SecretKey,
    r: &SecretKey,
    mint_key: &PublicKey,
    secret: &[u8],
    c: &PublicKey,
) -> bool {
    let shown = || {
        let rk = mint_key.mul_tweak(&verifying(), &Scalar::from(*r)).ok()?;
        Some((blind(secret, r)?, c.combine(&rk).ok()?))
    };
    shown().is_some_and(|(b_blind, c_blind)| is_proved(e, s, mint_key, &b_blind, &c_blind))
}

/// A point, as the protocol writes it.
pub(crate) fn point(text: &str) -> Option<PublicKey> {
    if text.len() != 66 {
        return None;
    }
    PublicKey::from_slice(&hex::decode(text)?).ok()
}

/// A number modulo the group's order, as the protocol writes it.
pub(crate) fn scalar(text: &str) -> Option<SecretKey> {
    SecretKey::from_slice(&hex::decode_32(text)?).ok()
}

/// As the protocol writes a point.
pub(crate) fn text(point: &PublicKey) -> String {
    hex::encode(&point.serialize())
}

#[cfg(test)]
mod tests {
    use super::*;

    // The vectors of NUT-00 and NUT-12.
    #[test]
    fn hash_to_curve_agrees_with_the_specification() {
        for (message, expected) in [
            (
                "0000000000000000000000000000000000000000000000000000000000000000",
                "024cce997d3b518f739663b757deaec95bcd9473c30a14ac2fd04023a739d1a725",
            ),
            (
                "0000000000000000000000000000000000000000000000000000000000000001",
                "022e7158e11c9506f1aa4248bf531298daa7febd6194f003edcd9b93ade6253acf",
            ),
            (
                "0000000000000000000000000000000000000000000000000000000000000002",
                "026cdbe15362df59cd1dd3c9c11de8aedac2106eca69236ecd9fbe117af897be4f",
            ),
        ] {
            let y = hash_to_curve(&hex::decode(message).unwrap()).unwrap();
            assert_eq!(text(&y), expected);
        }
    }

    #[test]
    fn a_signature_is_blinded_proved_and_unblinded() {
        let curve = Secp256k1::new();
        let mint = scalar(&"17".repeat(32)).unwrap();
        let mint_key = PublicKey::from_secret_key(&curve, &mint);
        let (secret, r) = (b"a secret", scalar(&"2a".repeat(32)).unwrap());
        let b_blind = blind(secret, &r).unwrap();
        let c_blind = b_blind.mul_tweak(&curve, &Scalar::from(mint)).unwrap();
        let c = unblind(&c_blind, &r, &mint_key).unwrap();
        let y = hash_to_curve(secret).unwrap();
        assert_eq!(c, y.mul_tweak(&curve, &Scalar::from(mint)).unwrap());

        // The mint's side of NUT-12, with a fixed nonce.
        let nonce = scalar(&"55".repeat(32)).unwrap();
        let r1 = PublicKey::from_secret_key(&curve, &nonce);
        let r2 = b_blind.mul_tweak(&curve, &Scalar::from(nonce)).unwrap();
        let texts = [&r1, &r2, &mint_key, &c_blind].map(|point| hex::encode(&point.serialize_uncompressed()));
        let e = SecretKey::from_slice(&sha(&[texts.concat().as_bytes()])).unwrap();
        let ek = e.mul_tweak(&Scalar::from(mint)).unwrap();
        let s = nonce.add_tweak(&Scalar::from(ek)).unwrap();
        assert!(is_proved(&e, &s, &mint_key, &b_blind, &c_blind));
        assert!(is_proved_of_coin(&e, &s, &r, &mint_key, secret, &c));
        assert!(!is_proved(&e, &s, &mint_key, &c_blind, &b_blind));
        assert!(!is_proved_of_coin(&e, &s, &r, &mint_key, b"another", &c));
        let other = PublicKey::from_secret_key(&curve, &nonce);
        assert!(!is_proved(&e, &s, &other, &b_blind, &c_blind));
    }

    #[test]
    fn the_specifications_proof_verifies_and_a_changed_one_does_not() {
        // NUT-12, test vector of a blind signature.
        let key = point("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798").unwrap();
        let b = point("02a9acc1e48c25eeeb9289b5031cc57da9fe72f3fe2861d264bdc074209b107ba2").unwrap();
        let e = scalar("9818e061ee51d5c8edc3342369a554998ff7b4381c8652d724cdf46429be73d9").unwrap();
        let s = scalar("9818e061ee51d5c8edc3342369a554998ff7b4381c8652d724cdf46429be73da").unwrap();
        assert!(is_proved(&e, &s, &key, &b, &b));
        assert!(!is_proved(&s, &e, &key, &b, &b));
    }
}
