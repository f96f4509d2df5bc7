//! Mobility (RFC 8016): a client whose address has changed shows a ticket, and its allocation comes along.
//!
//! A ticket is sealed with a key of the node's and names a shard, an allocation and how often it has moved; whoever shows it
//! must sign as the user that made the allocation, so that a stolen one opens nothing. Until the client sends something
//! else from its new address, what peers send still goes to the old one, where the last news of it came from.

use std::sync::Arc;
use std::time::Instant;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use rand::Rng;
use rand::rngs::StdRng;
use wire::stun::Message;

use crate::allocation::{Allocation, AllocationKey};
use crate::answer::Head;
use crate::client::Client;
use crate::credential::Credential;
use crate::event::CloseReason;
use crate::server::TurnServer;

const NONCE_LEN: usize = 12;
const TAG_LEN: usize = 16;
/// An allocation and how often it has moved.
const CONTENT_LEN: usize = 8 + 4;

/// The shard in clear, but under the seal, and the rest.
pub(crate) const TICKET_LEN: usize = 1 + NONCE_LEN + CONTENT_LEN + TAG_LEN;

/// Makes tickets and reads them.
pub(crate) struct Tickets {
    key: LessSafeKey,
    shard: u8,
}

impl Tickets {
    pub(crate) fn new(secret: &[u8; 32], shard: u8) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, secret).expect("32 bytes are a key of AES-256");
        Self {
            key: LessSafeKey::new(key),
            shard,
        }
    }

    pub(crate) fn issue(&self, allocation: AllocationKey, moves: u32, rng: &mut StdRng) -> [u8; TICKET_LEN] {
        let mut ticket = [0; TICKET_LEN];
        ticket[0] = self.shard;
        let (clear, content) = ticket.split_at_mut(1 + NONCE_LEN);
        let (content, tag_place) = content.split_at_mut(CONTENT_LEN);
        let mut nonce = [0; NONCE_LEN];
        // 96 random bits, and a key that lasts as long as the process: no nonce comes twice.
        rng.fill_bytes(&mut nonce);
        clear[1..].copy_from_slice(&nonce);
        content[..8].copy_from_slice(&allocation.get().to_be_bytes());
        content[8..].copy_from_slice(&moves.to_be_bytes());
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from([self.shard]), content)
            .expect("twelve bytes can be sealed");
        tag_place.copy_from_slice(tag.as_ref());
        ticket
    }

    /// What a ticket says; `None` unless this node made it.
    pub(crate) fn open(&self, ticket: &[u8]) -> Option<Ticket> {
        let ticket: &[u8; TICKET_LEN] = ticket.try_into().ok()?;
        let nonce = Nonce::try_assume_unique_for_key(&ticket[1..1 + NONCE_LEN]).ok()?;
        let mut sealed = [0; CONTENT_LEN + TAG_LEN];
        sealed.copy_from_slice(&ticket[1 + NONCE_LEN..]);
        let content = self
            .key
            .open_in_place(nonce, Aad::from([ticket[0]]), &mut sealed)
            .ok()?;
        let (allocation, moves) = content.split_first_chunk::<8>()?;
        Some(Ticket {
            shard: ticket[0],
            allocation: AllocationKey::new(u64::from_be_bytes(*allocation)),
            moves: u32::from_be_bytes(moves.try_into().ok()?),
        })
    }
}

/// What a ticket says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) shard: u8,
    pub(crate) allocation: AllocationKey,
    /// How often it had moved.
    pub(crate) moves: u32,
}

/// What a mobile allocation remembers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Mobility {
    /// How often a ticket has been used.
    pub(crate) moves: u32,
    /// Where the client is going to be.
    pub(crate) next: Option<Client>,
}

impl Allocation {
    /// True while two 5-tuples lead to this allocation.
    pub(crate) fn is_moving(&self) -> bool {
        self.mobility.is_some_and(|mobility| mobility.next.is_some())
    }
}

impl TurnServer {
    /// A Refresh with a ticket (RFC 8016 section 3.2.2).
    pub(crate) fn move_allocation(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        ticket: &[u8],
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        if !self.config.mobility {
            let error = (405, "Mobility Forbidden");
            return head.error(&mut self.reply, credential, error);
        }
        match self.moved(client, ticket, credential) {
            Ok(key) => self.refreshed(now, key, head, message, credential),
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    fn moved(
        &mut self,
        client: Client,
        ticket: &[u8],
        credential: &Credential,
    ) -> Result<AllocationKey, (u16, &'static str)> {
        const MISMATCH: (u16, &str) = (437, "Allocation Mismatch");
        if ticket.is_empty() {
            return Err((400, "An empty ticket moves nothing"));
        }
        let ticket = self.tickets.open(ticket);
        let ticket = ticket.filter(|ticket| ticket.shard == self.config.shard);
        let Ticket {
            allocation: key,
            moves,
            ..
        } = ticket.ok_or(MISMATCH)?;
        let here = self.allocations.key_of(&client);
        let allocation = self
            .allocations
            .get_mut(key)
            .filter(|allocation| allocation.is_open())
            .ok_or(MISMATCH)?;
        if allocation.credential.username() != credential.username() {
            self.counters
                .auth_failure(crate::discard::AuthFailure::WrongCredentials);
            return Err((441, "Wrong Credentials"));
        }
        let mobility = allocation.mobility.as_mut().ok_or(MISMATCH)?;
        match here {
            // The same request again, or one that had no need of a ticket.
            Some(here) if here == key => return Ok(key),
            Some(_) => return Err(MISMATCH),
            None => {}
        }
        if moves != mobility.moves {
            return Err(MISMATCH);
        }
        mobility.moves = mobility.moves.wrapping_add(1);
        if let Some(given_up) = mobility.next.replace(client) {
            self.allocations.forget(&given_up);
        }
        self.allocations.also(client, key);
        Ok(key)
    }

    /// Something that only an arrived client sends came from this 5-tuple: if it is the new one, the old one is
    /// discarded.
    pub(crate) fn arrived(&mut self, key: AllocationKey, client: &Client) {
        let Some(allocation) = self.allocations.get_mut(key) else {
            return;
        };
        let Some(mobility) = allocation
            .mobility
            .as_mut()
            .filter(|mobility| mobility.next == Some(*client))
        else {
            return;
        };
        mobility.next = None;
        let old = std::mem::replace(&mut allocation.client, *client);
        self.allocations.forget(&old);
    }

    /// A client's connection (TCP, TLS, DTLS) is closed. Its allocation goes with it (RFC 8656 section 3.1), unless it is
    /// mobile, and its data connection.
    pub fn connection_closed(&mut self, client: &Client, now: Instant) {
        if let Some((key, allocation)) = self.allocations.of_client(client) {
            match (
                allocation.mobility.and_then(|mobility| mobility.next),
                allocation.mobility,
            ) {
                // Where it comes from is closed: it is where it goes.
                (Some(next), _) if next != *client => self.arrived(key, &next),
                (_, Some(_)) => {}
                (_, None) => self.remove(key, CloseReason::Disconnected, now),
            }
        }
        let joined = |connection| self.data.of_client(connection);
        if let Some(data) = client.connection.and_then(joined) {
            self.close_data(data);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;

    #[test]
    fn a_ticket_says_nothing_and_no_bit_of_it_can_be_changed() {
        let mut rng = StdRng::from_seed([1; 32]);
        let tickets = Tickets::new(&[7; 32], 3);
        let key = AllocationKey::new(0x1234_5678_9ABC);
        let ticket = tickets.issue(key, 5, &mut rng);
        let says = Ticket {
            shard: 3,
            allocation: key,
            moves: 5,
        };
        assert_eq!(tickets.open(&ticket), Some(says));
        let other_shard = Tickets::new(&[7; 32], 4);
        assert_eq!(other_shard.open(&ticket), Some(says), "the node's");
        assert!(!ticket.windows(6).any(|w| w == &key.get().to_be_bytes()[2..]));
        for bit in 0..8 * TICKET_LEN {
            let mut changed = ticket;
            changed[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(tickets.open(&changed), None, "bit {bit}");
        }
        assert_eq!(tickets.open(&ticket[..TICKET_LEN - 1]), None);
        assert_eq!(Tickets::new(&[8; 32], 3).open(&ticket), None, "another node's");
        assert_ne!(tickets.issue(key, 5, &mut rng), ticket);
    }
}
