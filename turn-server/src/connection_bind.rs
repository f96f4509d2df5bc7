//! ConnectionBind (RFC 6062 section 5.4): a client comes, on a connection of its own, for one that a peer waits on.

use std::sync::Arc;
use std::time::Instant;

use metering::Direction;
use wire::stun::Message;

use crate::allocation::Protocol;
use crate::answer::Head;
use crate::charge::Charge;
use crate::client::Client;
use crate::credential::Credential;
use crate::data_connection::{DataConnection, Spend, Stage};
use crate::egress::Charged;
use crate::event::Event;
use crate::server::TurnServer;

impl TurnServer {
    pub(crate) fn connection_bind(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Option<usize> {
        let head = Head::of(message);
        match self.bind_connection(now, client, message, credential) {
            Ok(data) => head.success(&mut self.reply, credential, |answer| {
                answer.connection_id(data.get())
            }),
            Err(error) => head.error(&mut self.reply, credential, error),
        }
    }

    fn bind_connection(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
        credential: &Arc<Credential>,
    ) -> Result<DataConnection, (u16, &'static str)> {
        const UNKNOWN: (u16, &str) = (400, "No such connection");
        let connection = client
            .connection
            .filter(|_| client.transport.is_stream())
            .ok_or((400, "Not a TCP connection"))?;
        let id = message.connection_id().ok_or((400, "Bad Request"))?;
        let data = DataConnection::new(id);
        if self.allocations.key_of(&client).is_some() {
            return Err((400, "A control connection carries no data"));
        }
        let found = self
            .data
            .get_mut(data)
            .filter(|data| matches!(data.stage, Stage::Waiting) && now < data.deadline)
            .ok_or(UNKNOWN)?;
        let allocation = self.allocations.get_mut(found.allocation).ok_or(UNKNOWN)?;
        if allocation.credential.username() != credential.username() {
            self.counters
                .auth_failure(crate::discard::AuthFailure::WrongCredentials);
            return Err((441, "Wrong Credentials"));
        }
        allocation.may_spend()?;
        self.data.join(data, connection);
        self.events.push_back(Event::Join {
            data,
            client: connection,
        });
        Ok(data)
    }

    /// Pays for a chunk of a data connection that is about to be passed on: at most [`crate::DATA_CHUNK`] bytes, so that
    /// a slow rung is felt as a slow flow.
    pub fn spend(&mut self, data: DataConnection, direction: Direction, bytes: u64, now: Instant) -> Spend {
        let Some(found) = self.data.get_mut(data) else {
            return Spend::Gone;
        };
        let (key, peer) = (found.allocation, found.peer);
        let Some(allocation) = self.allocations.get_mut(key) else {
            return Spend::Gone;
        };
        let Ok(kind) = self
            .config
            .policy
            .admit_permitted(peer, Protocol::Tcp, &self.census)
        else {
            self.close_data(data);
            return Spend::Gone;
        };
        let charge = Charge {
            peer: kind,
            direction,
            bytes,
        };
        if let Err(until) = allocation.charge_stream(&self.config, charge, now, &mut self.events) {
            return Spend::Wait(until);
        }
        self.counters.relayed(direction, 0, bytes);
        Spend::Paid(Charged {
            allocation: key,
            direction,
            packets: 0,
            bytes,
        })
    }

    /// Closes a data connection from this side.
    pub(crate) fn close_data(&mut self, data: DataConnection) {
        if self.data.remove(data).is_some() {
            self.events.push_back(Event::CloseData { data });
        }
    }
}
