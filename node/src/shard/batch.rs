//! TURN egress: a single packet leaves as it lies; several that came together for one destination are laid out once and
//! leave in one send.

use datagram::Outbox;
use turn_server::{Charged, Transmit, TurnServer, Via};

use super::gauges::Gauges;
use super::turn_port::TurnSockets;

/// A batch that is being laid out, and what was paid for it.
pub(super) struct Batch {
    outbox: Outbox,
    via: Via,
    charged: Option<Charged>,
    /// Of each datagram, what is not application data.
    overhead: u64,
}

/// What did not leave although it was paid for.
#[must_use]
pub(super) struct Unsent([Option<Charged>; 2]);

impl Unsent {
    /// Tells the core.
    pub(super) fn give_back(self, turn: &mut TurnServer) {
        self.0
            .into_iter()
            .flatten()
            .for_each(|charged| turn.give_back(charged));
    }
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            outbox: Outbox::new(),
            via: Via::Listener,
            charged: None,
            overhead: 0,
        }
    }

    /// Sends a packet: as it lies if it came `alone`, otherwise together with its neighbours.
    pub(super) fn forward(
        &mut self,
        transmit: &Transmit<'_>,
        alone: bool,
        sockets: &mut TurnSockets,
        gauges: &mut Gauges,
    ) -> Unsent {
        if !alone && self.push(transmit) {
            return Unsent([None, None]);
        }
        // In the order in which they came.
        let before = self.send(sockets, gauges);
        if !alone && self.push(transmit) {
            return Unsent([before, None]);
        }
        Unsent([before, send_one(transmit, sockets, gauges)])
    }

    /// Sends what is still laid out.
    pub(super) fn finish(&mut self, sockets: &mut TurnSockets, gauges: &mut Gauges) -> Unsent {
        Unsent([self.send(sockets, gauges), None])
    }

    /// Sends an answer of the server's own, which costs nothing.
    pub(super) fn answer(
        &self,
        transmit: Option<Transmit<'_>>,
        sockets: &mut TurnSockets,
        gauges: &mut Gauges,
    ) {
        if let Some(transmit) = transmit {
            send_one(&transmit, sockets, gauges);
        }
    }

    /// Adds a packet; false if it belongs to another batch.
    fn push(&mut self, transmit: &Transmit<'_>) -> bool {
        let Some(charged) = transmit.charged else {
            return false;
        };
        let overhead = transmit.contents.len() as u64 - charged.bytes;
        if let Some(open) = &self.charged {
            let same_meter = (open.allocation, open.direction) == (charged.allocation, charged.direction);
            if !same_meter || self.via != transmit.via || self.overhead != overhead {
                return false;
            }
        }
        if !self.outbox.push(&datagram_of(transmit)) {
            return false;
        }
        let open = self.charged.get_or_insert(Charged {
            packets: 0,
            bytes: 0,
            ..charged
        });
        open.packets += 1;
        open.bytes += charged.bytes;
        (self.via, self.overhead) = (transmit.via, overhead);
        true
    }

    fn send(&mut self, sockets: &mut TurnSockets, gauges: &mut Gauges) -> Option<Charged> {
        let charged = self.charged.take()?;
        let unsent = match (self.outbox.transmit(), sockets.via(self.via)) {
            (Some(transmit), Some(socket)) => {
                gauges.batch(self.outbox.segments());
                socket.send(&transmit).err().map(|refused| {
                    gauges.refused(refused.datagrams, refused.kind);
                    let bytes = refused.bytes.saturating_sub(self.overhead * refused.datagrams);
                    Charged {
                        packets: refused.datagrams,
                        bytes,
                        ..charged
                    }
                })
            }
            _ => Some(charged),
        };
        self.outbox.clear();
        unsent
    }
}

fn send_one(transmit: &Transmit<'_>, sockets: &mut TurnSockets, gauges: &mut Gauges) -> Option<Charged> {
    let Some(socket) = sockets.via(transmit.via) else {
        return transmit.charged;
    };
    gauges.batch(1);
    let refused = socket.send(&datagram_of(transmit)).err()?;
    gauges.refused(refused.datagrams, refused.kind);
    transmit.charged
}

fn datagram_of<'a>(transmit: &Transmit<'a>) -> datagram::Transmit<'a> {
    datagram::Transmit {
        destination: transmit.destination,
        source: transmit.source,
        segment_size: None,
        ecn: None,
        contents: transmit.contents,
    }
}
