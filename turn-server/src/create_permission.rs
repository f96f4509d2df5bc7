//! CreatePermission (RFC 8656 section 10): several peers in one request, all of them or none.

use std::sync::Arc;
use std::time::Instant;

use wire::stun::Message;

use crate::allocation::Family;
use crate::answer::Head;
use crate::client::Client;
use crate::credential::Credential;
use crate::server::TurnServer;

impl TurnServer {
    pub(crate) fn create_permission(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        match self.install_permissions(now, &client, message, credential) {
            Ok(()) => head.success(&mut self.reply, credential, |answer| answer),
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    fn install_permissions(
        &mut self,
        now: Instant,
        client: &Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<(), (u16, &'static str)> {
        let (key, allocation) = self.own_allocation(client, credential)?;
        allocation.may_spend()?;
        let families = [Family::V4, Family::V6].map(|family| allocation.has_family(family));
        let mut none = true;
        for peer in message.xor_peer_addresses() {
            let peer = peer.map_err(|_| (400, "Bad Request"))?;
            if !families[Family::of(peer.ip()).index()] {
                return Err((443, "Peer Address Family Mismatch"));
            }
            self.config
                .policy
                .admit_address(peer.ip())
                .map_err(|_| (403, "Forbidden"))?;
            none = false;
        }
        if none {
            return Err((400, "Bad Request"));
        }
        let ips = || message.xor_peer_addresses().flatten().map(|peer| peer.ip());
        let allocation = self
            .allocations
            .get_mut(key)
            .ok_or((437, "Allocation Mismatch"))?;
        if !allocation.permissions.fits(ips(), now) {
            return Err((508, "Too many permissions"));
        }
        ips().for_each(|ip| allocation.permissions.install(ip, now));
        Ok(())
    }
}
