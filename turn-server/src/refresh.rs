//! Refresh (RFC 8656 section 8): longer, or gone. Of a dual allocation one family can go and the other stay.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::{AttributeType, Message};

use crate::allocate::{lifetime, seconds};
use crate::allocation::{AllocationKey, Family, Port};
use crate::answer::Head;
use crate::client::Client;
use crate::credential::Credential;
use crate::data_connection::Data;
use crate::event::{CloseReason, Event};
use crate::server::TurnServer;

impl TurnServer {
    pub(crate) fn refresh(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        if let Some(ticket) = message.mobility_ticket() {
            return self.move_allocation(now, client, message, ticket, credential);
        }
        let head = Head::of(message);
        match self.own_allocation(&client, credential) {
            Ok((key, _)) => self.refreshed(now, key, head, message, credential),
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    /// Does what a Refresh asks for.
    pub(crate) fn refreshed(
        &mut self,
        now: Instant,
        key: AllocationKey,
        head: Head,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let allocation = self.allocations.get_mut(key)?;
        let asked = message.has(AttributeType::REQUESTED_ADDRESS_FAMILY);
        let family = message.requested_address_family().and_then(Family::from_number);
        if asked && !family.is_some_and(|family| allocation.has_family(family)) {
            let error = (443, "Peer Address Family Mismatch");
            return head.error(&mut self.reply, credential, error);
        }
        if message.lifetime() == Some(0) {
            self.delete(now, key, family);
            return head.success(&mut self.reply, credential, |answer| answer.lifetime(0));
        }
        if let Err(error) = allocation.may_spend() {
            return head.error(&mut self.reply, credential, error);
        }
        let lifetime = lifetime(message);
        allocation.expires = now + lifetime;
        // Of two access tokens the later one lasts longer.
        allocation.credential = credential.clone();
        let ticket = match (message.mobility_ticket(), allocation.mobility) {
            (Some(_), Some(mobility)) => Some(self.tickets.issue(key, mobility.moves, &mut self.rng)),
            _ => None,
        };
        self.schedule(key, now);
        head.success(&mut self.reply, credential, |answer| {
            let answer = answer.lifetime(seconds(lifetime));
            ticket
                .iter()
                .fold(answer, |answer, ticket| answer.mobility_ticket(ticket))
        })
    }

    /// Deletes an allocation, or of its two families this one.
    fn delete(&mut self, now: Instant, key: AllocationKey, family: Option<Family>) {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let both = Family::ALL
            .into_iter()
            .all(|family| allocation.has_family(family));
        let Some((family, relayed)) = family
            .filter(|_| both)
            .and_then(|family| Some((family, allocation.relayed(family)?)))
        else {
            return self.remove(key, CloseReason::Deleted, now);
        };
        let protocol = allocation.protocol;
        *allocation.port_mut(family) = Port::None;
        allocation.permissions.remove_family(family);
        allocation.channels.remove_family(family);
        self.events.push_back(Event::CloseRelay {
            allocation: key,
            family,
        });
        self.census.free_port(protocol, relayed.port());
        let of_family = |data: &Data| Family::of(data.peer.ip()) == family;
        let data: Vec<_> = self
            .data
            .of(key)
            .filter(|(_, data)| of_family(data))
            .map(|(id, _)| id)
            .collect();
        data.into_iter().for_each(|data| self.close_data(data));
    }
}
