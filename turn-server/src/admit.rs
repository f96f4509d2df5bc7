//! The second stage for requests: is this who they say? Long-term credentials (RFC 8489 section 9.2.4), in the order
//! nonce, username, password, so that the cheap check comes first and nothing is stored for who fails one.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::{AttributeType, Message};

use crate::client::Client;
use crate::credential::{Credential, REALM};
use crate::discard::AuthFailure;
use crate::server::TurnServer;

/// Comprehension-required attributes that this server knows.
const KNOWN: &[AttributeType] = &[
    AttributeType::USERNAME,
    AttributeType::REALM,
    AttributeType::NONCE,
    AttributeType::MESSAGE_INTEGRITY,
    AttributeType::MESSAGE_INTEGRITY_SHA256,
    AttributeType::CHANNEL_NUMBER,
    AttributeType::LIFETIME,
    AttributeType::XOR_PEER_ADDRESS,
    AttributeType::DATA,
    AttributeType::REQUESTED_ADDRESS_FAMILY,
    AttributeType::EVEN_PORT,
    AttributeType::REQUESTED_TRANSPORT,
    AttributeType::DONT_FRAGMENT,
    AttributeType::CONNECTION_ID,
    AttributeType::RESERVATION_TOKEN,
];

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
    /// section 7.2).
    pub(crate) fn unknown_required<'a>(
        &self,
        message: &Message<'a>,
    ) -> impl Iterator<Item = u16> + Clone + use<'a> {
        let dont_fragment = self.config.dont_fragment;
        message
            .attributes()
            .map(|(kind, _)| kind)
            .filter(move |kind| {
                let known = KNOWN.contains(kind) && (dont_fragment || *kind != AttributeType::DONT_FRAGMENT);
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
        if !message.has_integrity() {
            return Err(Unauthenticated::Unauthorized);
        }
        let (Some(username), Some(realm), Some(nonce)) =
            (message.username(), message.realm(), message.nonce())
        else {
            return Err(Unauthenticated::BadRequest);
        };
        if !self.nonces.valid(nonce, client.source, now) {
            self.counters.auth_failure(AuthFailure::StaleNonce);
            return Err(Unauthenticated::StaleNonce);
        }
        let Some(credential) = self.credential(now, client, username) else {
            self.counters.auth_failure(AuthFailure::UnknownUsername);
            return Err(Unauthenticated::Unauthorized);
        };
        if realm != REALM || !message.verify_integrity_key(credential.integrity()) {
            self.counters.auth_failure(AuthFailure::WrongPassword);
            return Err(Unauthenticated::Unauthorized);
        }
        Ok(credential)
    }

    /// A username that made this client's allocation serves it past its own expiry: a live session runs until its money
    /// ends.
    fn credential(&mut self, now: Instant, client: &Client, username: &str) -> Option<Arc<Credential>> {
        let of_allocation = self
            .allocations
            .of_client(client)
            .map(|(_, allocation)| &allocation.credential);
        let found = of_allocation.filter(|credential| credential.username() == username);
        found.or_else(|| self.credentials.find(username, now)).cloned()
    }
}
