//! A client's way through TURN: an allocation of its own account and a channel to the SFU, with every application byte
//! counted, as the bill counts it.

use std::net::SocketAddr;

use datagram::Inbox;
use mio::{Registry, Token};
use wire::channel_data::{self, ChannelData, ChannelNumber};

use crate::Error;
use crate::http::{self, Answer};
use crate::turn::allocation::{Allocation, Opening};
use crate::turn::link::{Link, Transport};
use crate::turn::server::bought;

/// A way through TURN to one peer.
pub struct Detour {
    allocation: Allocation,
    inbox: Inbox,
    peer: SocketAddr,
    base: String,
    authorization: String,
    session: String,
    /// Application bytes that the server was sent for the peer.
    pub bytes_to_peer: u64,
    /// Application bytes that came from the peer.
    pub bytes_to_client: u64,
    /// Sends that this machine did not take.
    pub refused_sends: u64,
}

impl Detour {
    /// Allocates in the name of a bearer token and binds a channel to `peer`. `client` tells this client from all others
    /// of the run.
    pub fn open(base: &str, token: &str, peer: SocketAddr, client: u32) -> Result<Detour, Error> {
        let bought = bought(base, token, Transport::Udp)?;
        let mut inbox = Inbox::new();
        let link = Link::open(Transport::Udp, bought.server, client)?;
        let opening = Opening::begin(link, client, &bought.credentials)?;
        let mut allocation = opening.authenticate(&mut inbox)?;
        allocation.finish(&mut inbox)?;
        allocation.bind(peer)?;
        allocation.done(&mut inbox)?;
        Ok(Detour {
            allocation,
            inbox,
            peer,
            base: base.to_owned(),
            authorization: format!("Bearer {token}"),
            session: bought.session,
            bytes_to_peer: 0,
            bytes_to_client: 0,
            refused_sends: 0,
        })
    }

    /// The relayed address.
    #[must_use]
    pub fn relayed(&self) -> SocketAddr {
        self.allocation.relayed
    }

    /// Who it leads to.
    #[must_use]
    pub fn peer(&self) -> SocketAddr {
        self.peer
    }

    /// Ends the allocation, and with it the bill: what has not been read by now is not counted.
    pub fn end(&mut self) -> Result<(), Error> {
        self.allocation.end()?;
        self.allocation.done(&mut self.inbox)
    }

    /// The relay's signed receipt of this session, as a compact JWS.
    pub fn receipt(&self) -> Result<Answer, Error> {
        let headers = [("authorization", &self.authorization[..])];
        let path = format!("/v1/receipts/{}", self.session);
        http::call(&self.base, "GET", &path, &headers, "")
    }

    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        self.allocation.link.register(registry, token)
    }

    pub(super) fn send(&mut self, datagram: &[u8]) {
        let mut message = vec![0; channel_data::HEADER_LEN];
        let length = u16::try_from(datagram.len()).unwrap_or(u16::MAX);
        if let Some(header) = message.first_chunk_mut() {
            channel_data::write_header(header, ChannelNumber::MIN, length);
        }
        message.extend_from_slice(datagram);
        match self.allocation.link.send(&message, message.len()) {
            Ok(0) => self.bytes_to_peer += datagram.len() as u64,
            _ => self.refused_sends += 1,
        }
    }

    /// What has arrived.
    pub(super) fn receive(&mut self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let arrived = self.allocation.link.receive(&mut self.inbox, |message| {
            if let Ok(message) = ChannelData::parse_datagram(message) {
                all.push(message.data.to_vec());
            }
        });
        drop(arrived);
        self.bytes_to_client += all.iter().map(|datagram| datagram.len() as u64).sum::<u64>();
        all
    }
}
