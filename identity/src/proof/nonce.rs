//! Server nonces (RFC 9449 section 8): HMAC over node and time under a key of this boot. Nothing is stored, and a
//! nonce of another node or of before a restart does not verify.

use aws_lc_rs::hmac;

use crate::{base64url, random};

/// How long a nonce serves, seconds.
pub(super) const NONCE_LIFETIME: u64 = 300;

pub(super) struct NonceKey {
    key: hmac::Key,
    node: String,
}

impl NonceKey {
    pub(super) fn generate(node: &str) -> NonceKey {
        NonceKey {
            key: hmac::Key::new(hmac::HMAC_SHA256, &random::bytes::<32>()),
            node: node.to_owned(),
        }
    }

    /// Eight bytes of time, then the first half of the HMAC.
    pub(super) fn issue(&self, now: u64) -> String {
        let mut nonce = now.to_be_bytes().to_vec();
        nonce.extend_from_slice(&self.tag(now)[..16]);
        base64url::encode(nonce)
    }

    pub(super) fn is_fresh(&self, nonce: &str, now: u64) -> bool {
        let Some(bytes) = base64url::decode(nonce) else {
            return false;
        };
        let Some((time, tag)) = bytes.split_first_chunk::<8>() else {
            return false;
        };
        let issued = u64::from_be_bytes(*time);
        let genuine = subtle::ConstantTimeEq::ct_eq(&self.tag(issued)[..16], tag);
        // A wall clock that was set back makes nonces "of the future": refused, the client fetches a new one.
        bool::from(genuine) && now.checked_sub(issued).is_some_and(|age| age < NONCE_LIFETIME)
    }

    fn tag(&self, time: u64) -> [u8; 32] {
        let mut message = time.to_be_bytes().to_vec();
        message.extend_from_slice(self.node.as_bytes());
        hmac::sign(&self.key, &message)
            .as_ref()
            .try_into()
            .expect("HMAC-SHA-256 has 32 bytes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_serves_for_300_seconds_on_its_node_and_boot_only() {
        let node = NonceKey::generate("a");
        let nonce = node.issue(1000);
        assert!(node.is_fresh(&nonce, 1000));
        assert!(node.is_fresh(&nonce, 1299));
        assert!(!node.is_fresh(&nonce, 1300));
        assert!(!node.is_fresh(&nonce, 999));
        assert!(!NonceKey::generate("a").is_fresh(&nonce, 1000), "another boot");
        let other = NonceKey {
            key: node.key.clone(),
            node: "b".into(),
        };
        assert!(!other.is_fresh(&nonce, 1000), "another node with the same key");
    }

    #[test]
    fn a_forged_or_cut_nonce_is_stale() {
        let node = NonceKey::generate("a");
        let nonce = node.issue(1000);
        for end in 0..nonce.len() {
            assert!(!node.is_fresh(&nonce[..end], 1000));
        }
        let mut bytes = base64url::decode(&nonce).unwrap();
        bytes[7] ^= 1;
        assert!(!node.is_fresh(&base64url::encode(&bytes), 1000));
        bytes[7] ^= 1;
        bytes.push(0);
        assert!(!node.is_fresh(&base64url::encode(&bytes), 1000));
    }
}
