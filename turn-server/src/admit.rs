//! The second stage for requests: is this who they say? Long-term credentials (RFC 8489 section 9.2.4), in the order
//! nonce, username, password, so that the cheap check comes first and nothing is stored for who fails one.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::{self, AttributeType, Message};

use crate::access_token::Opened;
use crate::answer::Head;
use crate::binding::DISCOVERY;
use crate::client::Client;
use crate::credential::{Credential, REALM};
use crate::discard::AuthFailure;
use crate::nonce::Features;
use crate::server::TurnServer;

/// Comprehension-required attributes that every server of ours knows.
const KNOWN: &[AttributeType] = &[
    AttributeType::USERNAME,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::PASSWORD_ALGORITHM,
    AttributeType::USERHASH,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::CONNECTION_ID,
    AttributeType::RESERVATION_TOKEN,
];

/// PASSWORD-ALGORITHMS: SHA-256 and MD5, best first, without parameters.
pub(crate) const PASSWORD_ALGORITHMS: &[u8] = &[0, 2, 0, 0, 0, 1, 0, 0];

/// What somebody who is not believed is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unauthenticated {
    /// 401: show a password.
    Unauthorized,
    /// 438: with this newer nonce.
    StaleNonce,
    /// 400: half of what a password takes.
    BadRequest,
}

impl TurnServer {
    /// What a 420 lists. A server that cannot set the DF bit for each packet does not know DONT-FRAGMENT (RFC 8656
    /// section 7.2), nor one without a second address the attributes of NAT behaviour discovery.
    pub(crate) fn unknown_required<'a>(
        &self,
        message: &Message<'a>,
        discovery: bool,
    ) -> impl Iterator<Item = u16> + Clone + use<'a> {
        let (dont_fragment, tokens) = (self.config.dont_fragment, self.config.access_tokens.is_some());
        message
            .attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| {
                let known = match *kind {
                    AttributeType::DONT_FRAGMENT => dont_fragment,
                    AttributeType::ACCESS_TOKEN => tokens,
                    kind if DISCOVERY.contains(&kind) => discovery,
                    kind => KNOWN.contains(&kind),
                };
                kind.comprehension_required() && !known
            })
            .map(|kind| kind.0)
    }

    /// The credential that this request proved.
    pub(crate) fn authenticate(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
    ) -> Result<Arc<Credential>, Unauthenticated> {
        if !message.has_integrity() && !message.has_integrity_sha256() {
            return Err(Unauthenticated::Unauthorized);
        }
        let userhash = message
            .username()
            .map(|name| stun::userhash(name, REALM))
            .or_else(|| message.userhash());
        let (Some(userhash), Some(realm), Some(nonce)) = (userhash, message.realm(), message.nonce()) else {
            return Err(Unauthenticated::BadRequest);
        };
        let Some(features) = self.nonces.check(nonce, client.source, now) else {
            self.counters.auth_failure(AuthFailure::StaleNonce);
            return Err(Unauthenticated::StaleNonce);
        };
        if !algorithms_are_ours(features, message) {
            self.counters.auth_failure(AuthFailure::BidDown);
            return Err(Unauthenticated::BadRequest);
        }
        let Some(credential) = self.credential(now, client, message, &userhash) else {
            self.counters.auth_failure(AuthFailure::UnknownUsername);
            return Err(Unauthenticated::Unauthorized);
        };
        let credential = match self.token_key(now, message) {
            Ok(None) => credential,
            Ok(Some(opened)) => Arc::new(credential.with_token_key(&opened.mac_key)),
            Err(refusal) => return Err(refusal),
        };
        if realm != REALM || !Head::of(message).verify(message, &credential) {
            self.counters.auth_failure(AuthFailure::WrongPassword);
            return Err(Unauthenticated::Unauthorized);
        }
        Ok(credential)
    }

    /// A username that made this client's allocation serves it past its own expiry: a live session runs until its money
    /// ends.
    fn credential(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        userhash: &[u8; 32],
    ) -> Option<Arc<Credential>> {
        let here = self.allocations.key_of(client);
        let moved = || Some(self.tickets.open(message.mobility_ticket()?)?.allocation);
        let allocation = here.or_else(moved).and_then(|key| self.allocations.get_mut(key));
        let of_allocation = allocation.map(|allocation| &allocation.credential);
        let found = of_allocation.filter(|credential| credential.userhash() == userhash);
        found.or_else(|| self.credentials.find(userhash, now)).cloned()
    }

    /// The key of an access token, if one is shown and taken (RFC 7635 section 7).
    fn token_key(&mut self, now: Instant, message: &Message<'_>) -> Result<Option<Opened>, Unauthenticated> {
        let (Some(tokens), Some(token)) = (
            &self.config.access_tokens,
            message.attribute(AttributeType::ACCESS_TOKEN),
        ) else {
            return Ok(None);
        };
        let opened = tokens.open(token, now);
        if opened.is_none() {
            self.counters.auth_failure(AuthFailure::WrongToken);
        }
        opened.map(Some).ok_or(Unauthenticated::Unauthorized)
    }
}

/// Bid-down protection (RFC 8489 section 9.2.4): whoever was offered algorithms repeats the whole offer with its choice,
/// under its MESSAGE-INTEGRITY, so that nobody on the way can have weakened it. Or it knows nothing of them.
fn algorithms_are_ours(features: Features, message: &Message<'_>) -> bool {
    let chosen = message.has(AttributeType::PASSWORD_ALGORITHM);
    let offer = message.attribute(AttributeType::PASSWORD_ALGORITHMS);
    match features {
        Features::None => !chosen,
        Features::Cookie => match (chosen, offer) {
            (false, None) => true,
            (true, Some(offer)) => offer == PASSWORD_ALGORITHMS && message.password_algorithm().is_some(),
            _ => false,
        },
    }
}
