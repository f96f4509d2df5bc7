//! The SFU core, sans-IO: one file per pipeline stage.
//!
//! `classify -> admit -> forward -> charge -> egress`, by the names of the packet's journey. Datagrams,
//! instants and a seed go in; datagrams to send and events come out. Nothing in this crate owns a socket or
//! reads a clock. Signalling (`sdp`, `room`) lives beside the core and meets it only in [`media`].

mod budget;
mod codec;
pub mod config;
pub mod discard;
pub mod dtls;
pub mod egress;
pub mod event;
mod feedback;
mod history;
mod ice;
mod keyframe;
mod ladder_gate;
pub mod media;
mod nack;
pub mod replay;
mod report;
mod rewrite;
pub mod room;
pub mod sdp;
pub mod srtp;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use identity::Permit;
use metering::{Allowance, Msat, SessionId, Step};

pub use config::Config;
pub use discard::{Counters, Discard};
pub use egress::{Charged, SendBuffer, Transmit};
pub use event::{CloseReason, Event, Refused};

use media::{Kind, Media, Mid, Transport};

/// What a send line carries: one publisher's audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The publishing session.
    pub session: SessionId,
    /// Its audio or its video.
    pub kind: Kind,
}

/// The core of one shard: every session whose datagrams the shard owns.
pub struct Sfu {
    counters: Counters,
}

#[allow(unused_variables, clippy::todo, missing_docs)]
impl Sfu {
    /// An empty core. `seed` feeds what the core itself must make unguessable: SSRCs, initial sequence
    /// numbers, transaction ids.
    #[must_use]
    pub fn new(config: Config, certificate: dtls::Certificate, seed: [u8; 32]) -> Sfu {
        todo!()
    }

    pub fn open(
        &mut self,
        session: SessionId,
        permit: Arc<Permit>,
        transport: Transport,
        allowance: Allowance,
        now: Instant,
    ) -> Result<(), Refused> {
        todo!()
    }

    pub fn set_media(&mut self, session: SessionId, media: Media) {
        todo!()
    }

    pub fn set_transport(&mut self, session: SessionId, transport: Transport) {
        todo!()
    }

    pub fn route(&mut self, subscriber: SessionId, mid: Mid, source: Option<Source>) {
        todo!()
    }

    pub fn set_step(&mut self, session: SessionId, step: Step, now: Instant) {
        todo!()
    }

    pub fn grant(&mut self, session: SessionId, granted_total: Msat) {
        todo!()
    }

    pub fn close(&mut self, session: SessionId, reason: CloseReason, now: Instant) {
        todo!()
    }

    pub fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &mut [u8],
    ) {
        todo!()
    }

    pub fn handle_timeout(&mut self, now: Instant) {
        todo!()
    }

    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }

    pub fn poll_transmit<'b>(&mut self, now: Instant, buffer: &'b mut SendBuffer) -> Option<Transmit<'b>> {
        todo!()
    }

    pub fn give_back(&mut self, charged: Charged) {
        todo!()
    }

    pub fn poll_event(&mut self) -> Option<Event> {
        todo!()
    }

    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }
}
