//! Refresh (RFC 8656 section 8): longer, or gone.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::{AttributeType, Message};

use crate::allocate::{lifetime, seconds};
use crate::allocation::Family;
use crate::answer::Head;
use crate::client::Client;
use crate::credential::Credential;
use crate::event::CloseReason;
use crate::server::TurnServer;

impl TurnServer {
    pub(crate) fn refresh(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        let key = credential.integrity();
        let (allocation_key, allocation) = match self.own_allocation(&client, credential) {
            Ok(found) => found,
            Err(error) => return head.error(&mut self.reply, key, error),
        };
        if message.has(AttributeType::REQUESTED_ADDRESS_FAMILY)
            && !message
                .requested_address_family()
                .and_then(Family::from_number)
                .is_some_and(|family| allocation.has_family(family))
        {
            return head.error(&mut self.reply, key, (443, "Peer Address Family Mismatch"));
        }
        if message.lifetime() == Some(0) {
            self.remove(allocation_key, CloseReason::Deleted, now);
            return head.success(&mut self.reply, key, |answer| answer.lifetime(0));
        }
        if let Err(error) = allocation.may_spend() {
            return head.error(&mut self.reply, key, error);
        }
        let lifetime = lifetime(message);
        allocation.expires = now + lifetime;
        head.success(&mut self.reply, key, |answer| answer.lifetime(seconds(lifetime)))
    }
}
