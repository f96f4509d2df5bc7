//! Access tokens (RFC 7635): instead of a password a client shows a token that an authorization server sealed for this
//! server, with the key that it signs its requests with inside. For native clients, behind a configuration switch.
//!
//! A token is no permit: USERNAME (the token's `kid`) still names a session that was opened for one, and the token takes
//! the place of that session's password and of nothing else.

use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// Clocks of the two servers may differ by this much (RFC 7635 section 7 suggests 5 s).
const LEEWAY_SECONDS: u64 = 5;

/// The longest key that is of use: a block of SHA-256.
const MAC_KEY_MAX: usize = 64;

/// HMAC-SHA1's and the shortest that RFC 7635 knows.
const MAC_KEY_MIN: usize = 16;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;

/// Seconds and their 1/64,000 parts share a timestamp.
const FRACTION_BITS: u32 = 16;

/// What this server and the authorization server share.
#[derive(Clone)]
pub struct AccessTokens {
    server_name: String,
    key: [u8; 32],
    /// An instant and what the calendar said then, unix seconds.
    clock: (Instant, u64),
}

/// What a token holds.
pub(crate) struct Opened {
    pub(crate) mac_key: Vec<u8>,
}

impl AccessTokens {
    /// Tokens for the server of this name under a key of AES-256-GCM. `clock` is one instant, told twice.
    pub fn new(server_name: impl Into<String>, key: [u8; 32], clock: (Instant, u64)) -> Self {
        Self {
            server_name: server_name.into(),
            key,
            clock,
        }
    }

    /// What THIRD-PARTY-AUTHORIZATION says.
    pub(crate) fn server_name(&self) -> &str {
        &self.server_name
    }

    /// The authorization server's part: seals a key for `lifetime` seconds from `issued` (unix seconds) on. A nonce never
    /// serves twice under one key. `None` for a key of a length that is of no use.
    pub fn issue(
        &self,
        mac_key: &[u8],
        issued: u64,
        lifetime: u32,
        nonce: [u8; NONCE_LEN],
    ) -> Option<Vec<u8>> {
        (MAC_KEY_MIN..=MAC_KEY_MAX)
            .contains(&mac_key.len())
            .then_some(())?;
        let mut block = (mac_key.len() as u16).to_be_bytes().to_vec();
        block.extend_from_slice(mac_key);
        block.extend_from_slice(&(issued << FRACTION_BITS).to_be_bytes());
        block.extend_from_slice(&lifetime.to_be_bytes());
        let unique = Nonce::assume_unique_for_key(nonce);
        self.cipher()
            .seal_in_place_append_tag(unique, Aad::from(self.server_name.as_bytes()), &mut block)
            .ok()?;
        Some([&(NONCE_LEN as u16).to_be_bytes()[..], &nonce, &block].concat())
    }

    /// The key inside of a token; `None` unless it was sealed for this server and its time is now.
    pub(crate) fn open(&self, token: &[u8], now: Instant) -> Option<Opened> {
        let (nonce_len, rest) = token.split_first_chunk::<2>()?;
        (usize::from(u16::from_be_bytes(*nonce_len)) == NONCE_LEN).then_some(())?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let longest = 2 + MAC_KEY_MAX + 8 + 4 + TAG_LEN;
        let mut buffer = [0; 2 + MAC_KEY_MAX + 8 + 4 + TAG_LEN];
        (sealed.len() <= longest).then_some(())?;
        let sealed_here = &mut buffer[..sealed.len()];
        sealed_here.copy_from_slice(sealed);
        let aad = Aad::from(self.server_name.as_bytes());
        let block = self
            .cipher()
            .open_in_place(Nonce::assume_unique_for_key(*nonce), aad, sealed_here)
            .ok()?;
        let (key_len, rest) = block.split_first_chunk::<2>()?;
        let (mac_key, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes(*key_len)))?;
        let (timestamp, lifetime) = rest.split_first_chunk::<8>()?;
        let lifetime = u32::from_be_bytes(lifetime.try_into().ok()?);
        (MAC_KEY_MIN..=MAC_KEY_MAX)
            .contains(&mac_key.len())
            .then_some(())?;
        let issued = u64::from_be_bytes(*timestamp) >> FRACTION_BITS;
        let (then, seconds) = self.clock;
        let unix = seconds.saturating_add(now.saturating_duration_since(then).as_secs());
        let last = issued
            .saturating_add(lifetime.into())
            .saturating_add(LEEWAY_SECONDS);
        (issued <= unix.saturating_add(LEEWAY_SECONDS) && unix < last).then(|| Opened {
            mac_key: mac_key.to_vec(),
        })
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&AES_256_GCM, &self.key).expect("32 bytes are a key of AES-256");
        LessSafeKey::new(key)
    }
}

/// Keys do not print.
impl std::fmt::Debug for AccessTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AccessTokens({})", self.server_name)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const ISSUED: u64 = 1_800_000_000;

    #[test]
    fn a_token_serves_its_server_and_its_time() {
        let now = Instant::now();
        let tokens = AccessTokens::new("turn.example", [7; 32], (now, ISSUED));
        let token = tokens.issue(&[9; 32], ISSUED, 600, [1; 12]).unwrap();
        let opens = |tokens: &AccessTokens, at| tokens.open(&token, at).map(|opened| opened.mac_key);
        assert_eq!(opens(&tokens, now), Some(vec![9; 32]));
        assert!(opens(&tokens, now + Duration::from_secs(604)).is_some());
        assert!(
            opens(&tokens, now + Duration::from_secs(605)).is_none(),
            "too late"
        );
        let early = AccessTokens::new("turn.example", [7; 32], (now, ISSUED - 6));
        assert!(opens(&early, now).is_none(), "too early");
        let elsewhere = AccessTokens::new("turn.example.org", [7; 32], (now, ISSUED));
        assert!(opens(&elsewhere, now).is_none(), "another server's");
        let stranger = AccessTokens::new("turn.example", [8; 32], (now, ISSUED));
        assert!(opens(&stranger, now).is_none(), "another key's");
        for at in 0..token.len() {
            let mut changed = token.clone();
            changed[at] ^= 1;
            assert!(tokens.open(&changed, now).is_none(), "byte {at}");
            assert!(tokens.open(&token[..at], now).is_none(), "{at} bytes");
        }
        assert!(tokens.issue(&[9; 8], ISSUED, 600, [1; 12]).is_none());
        assert!(tokens.issue(&[9; 65], ISSUED, 600, [1; 12]).is_none());
    }
}
