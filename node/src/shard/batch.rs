//! TURN egress: a single packet leaves as it lies; several that came together for one destination are laid out once and
//! leave in one send.

use std::net::SocketAddr;

use datagram::{Ecn, Outbox};
use turn_server::{Charged, Transmit, TurnServer, Via};

use super::gauges::Gauges;
use super::turn_port::TurnSockets;

/// A batch that is being laid out, and what was paid for it.
pub(super) struct Batch {
    outbox: Outbox,
    via: Via,
    source: Option<SocketAddr>,
    charged: Option<Charged>,
    /// Of each datagram, what is not application data.
    overhead: u64,
}

/// What did not leave although it was paid for.
#[must_use]
pub(super) struct Unsent([Option<Charged>; 2]);

impl Unsent {
    /// This, if anything.
    pub(super) fn of(charged: Option<Charged>) -> Self {
        Self([charged, None])
    }

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
            source: None,
            charged: None,
            overhead: 0,
        }
    }

    /// Sends a packet: as it lies if it came `alone`, otherwise together with its neighbours. It leaves with the
    /// congestion marks that it came with.
    pub(super) fn forward(
        &mut self,
        transmit: &Transmit<'_>,
        ecn: Option<Ecn>,
        alone: bool,
        sockets: &mut TurnSockets,
        gauges: &mut Gauges,
    ) -> Unsent {
        // Each with the DF bit for itself: who is told that one is too large sends smaller ones.
        let alone = alone || transmit.dont_fragment;
        if !alone && self.push(transmit, ecn) {
            return Unsent([None, None]);
        }
        // In the order in which they came.
        let before = self.send(sockets, gauges);
        if !alone && self.push(transmit, ecn) {
            return Unsent([before, None]);
        }
        Unsent([before, send_one(transmit, ecn, sockets, gauges)])
    }

    /// Sends what is still laid out.
    pub(super) fn finish(&mut self, sockets: &mut TurnSockets, gauges: &mut Gauges) -> Unsent {
        Unsent([self.send(sockets, gauges), None])
    }

    /// Adds a packet; false if it belongs to another batch.
    fn push(&mut self, transmit: &Transmit<'_>, ecn: Option<Ecn>) -> bool {
        let Some(charged) = transmit.charged else {
            return false;
        };
        let overhead = transmit.contents.len() as u64 - charged.bytes;
        if let Some(open) = &self.charged {
            let same_meter = (open.allocation, open.direction) == (charged.allocation, charged.direction);
            let same_way = (self.via, self.source) == (transmit.via, transmit.source);
            if !same_meter || !same_way || self.overhead != overhead {
                return false;
            }
        }
        if !self.outbox.push(&datagram_of(transmit, ecn)) {
            return false;
        }
        let open = self.charged.get_or_insert(Charged {
            packets: 0,
            bytes: 0,
            ..charged
        });
        open.packets += 1;
        open.bytes += charged.bytes;
        (self.via, self.source, self.overhead) = (transmit.via, transmit.source, overhead);
        true
    }

    fn send(&mut self, sockets: &mut TurnSockets, gauges: &mut Gauges) -> Option<Charged> {
        let charged = self.charged.take()?;
        let unsent = match (self.outbox.transmit(), sockets.via(self.via, self.source)) {
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

fn send_one(
    transmit: &Transmit<'_>,
    ecn: Option<Ecn>,
    sockets: &mut TurnSockets,
    gauges: &mut Gauges,
) -> Option<Charged> {
    let Some(socket) = sockets.via(transmit.via, transmit.source) else {
        return transmit.charged;
    };
    gauges.batch(1);
    let datagram = datagram_of(transmit, ecn);
    let sent = match transmit.dont_fragment {
        true => socket.send_whole(&datagram),
        false => socket.send(&datagram),
    };
    let refused = sent.err()?;
    gauges.refused(refused.datagrams, refused.kind);
    transmit.charged
}

fn datagram_of<'a>(transmit: &Transmit<'a>, ecn: Option<Ecn>) -> datagram::Transmit<'a> {
    datagram::Transmit {
        destination: transmit.destination,
        source: transmit
            .source
            .map(|source| source.ip())
            .filter(|ip| !ip.is_unspecified()),
        segment_size: None,
        ecn,
        contents: transmit.contents,
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use datagram::{Fragmentation, Inbox, Socket};
    use metering::Direction;
    use turn_server::AllocationKey;

    use super::super::turn_port::RelayAddresses;
    use super::*;

    #[test]
    fn what_is_relayed_keeps_its_congestion_marks_and_batches_do_not_mix_them() {
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let bind = || Socket::bind(local, Fragmentation::Allowed).unwrap();
        let receiver = bind();
        let destination = receiver.local_addr();
        let mut sockets = TurnSockets::new(vec![bind()], RelayAddresses::new(&[], &[]));
        let (mut batch, mut gauges) = (Batch::new(), Gauges::new(0, Instant::now()));
        let transmit = Transmit {
            via: Via::Listener,
            destination,
            source: None,
            contents: &[7; 100],
            charged: Some(Charged {
                allocation: AllocationKey::new(1),
                direction: Direction::FromClient,
                packets: 1,
                bytes: 100,
            }),
            peer: None,
            dont_fragment: false,
        };
        let marks = [Some(Ecn::Ect0), Some(Ecn::Ect0), Some(Ecn::Ce), None];
        for (index, mark) in marks.into_iter().enumerate() {
            let Unsent(unsent) = batch.forward(&transmit, mark, index == 3, &mut sockets, &mut gauges);
            assert_eq!(unsent, [None, None]);
        }
        let (mut inbox, mut seen) = (Inbox::new(), Vec::new());
        let patience = Instant::now() + Duration::from_secs(5);
        while seen.len() < marks.len() && Instant::now() < patience {
            let filled = receiver.receive(&mut inbox).unwrap_or_default();
            for index in 0..filled {
                let (meta, mut datagrams) = inbox.datagrams(index).unwrap();
                while datagrams.next_datagram().is_some() {
                    seen.push(meta.ecn);
                }
            }
        }
        assert_eq!(seen, marks);
    }
}
