//! ChannelBind (RFC 8656 section 12.2): a number for a peer, and a permission for its address.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::Message;

use crate::allocation::{Family, Protocol};
use crate::answer::Head;
use crate::channel::Conflict;
use crate::client::Client;
use crate::credential::Credential;
use crate::server::TurnServer;

impl TurnServer {
    pub(crate) fn channel_bind(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        match self.bind_channel(now, &client, message, credential) {
            Ok(()) => head.success(&mut self.reply, credential, |answer| answer),
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    fn bind_channel(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<(), (u16, &'static str)> {
        let (key, allocation) = self.own_allocation(client, credential)?;
        // RFC 6062 section 5: a TCP allocation has connections.
        if allocation.protocol != Protocol::Udp {
            return Err((403, "Forbidden: a TCP allocation has no channels"));
        }
        let (Some(number), Some(peer)) = (message.channel_number(), message.xor_peer_address()) else {
            return Err((400, "Bad Request"));
        };
        allocation.may_spend()?;
        if !allocation.has_family(Family::of(peer.ip())) {
            return Err((443, "Peer Address Family Mismatch"));
        }
        self.config
            .policy
            .admit(peer, Protocol::Udp, &self.census)
            .map_err(|_| (403, "Forbidden"))?;
        let allocation = self
            .allocations
            .get_mut(key)
            .ok_or((437, "Allocation Mismatch"))?;
        allocation
            .channels
            .check(number, peer, now)
            .map_err(|conflict| match conflict {
                Conflict::Taken => (400, "Channel or peer already bound"),
                Conflict::Full => (508, "Too many channels"),
            })?;
        if !allocation.permissions.fits([peer.ip()].into_iter(), now) {
            return Err((508, "Too many permissions"));
        }
        allocation.channels.bind(number, peer, now);
        allocation.permissions.install(peer.ip(), now);
        Ok(())
    }
}
