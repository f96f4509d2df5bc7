//! What TURN exchanges beside clients and their peers' datagrams: with our own SFU in memory ([`crate::shard::hairpin`]),
//! and what the network answers ([`crate::shard::icmp`]).

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use turn_server::{Charged, HEADROOM};

use super::{Outlets, TurnPort};
use crate::shard::gauges::Gauges;
use crate::shard::hairpin::{Counts, Way};
use crate::shard::icmp::icmp_of;

impl TurnPort {
    /// The next datagram for our own SFU: from which relayed address, to which address of the SFU, what was paid for it,
    /// and what it says.
    pub(in crate::shard) fn next_for_sfu(
        &mut self,
    ) -> Option<(SocketAddr, SocketAddr, Option<Charged>, &mut [u8])> {
        let (waiting, bytes) = self.outlets.hairpin.next()?;
        Some((waiting.relayed, waiting.sfu, waiting.charged, bytes))
    }

    /// Where a send of our own SFU goes.
    pub(in crate::shard) fn way_from_sfu(&self, destination: SocketAddr, source: Option<IpAddr>) -> Way {
        self.outlets.hairpin.way(destination, source)
    }

    /// Takes one datagram that our own SFU, at the address `sfu`, sent to a relayed port of this shard. Several in a row
    /// end with [`TurnPort::finish_batch`].
    pub(in crate::shard) fn take_from_sfu(
        &mut self,
        port: u16,
        sfu: SocketAddr,
        datagram: &[u8],
        alone: bool,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self {
            core,
            outlets,
            from_sfu,
            ..
        } = self;
        let Some(allocation) = outlets.hairpin.allocation(port) else {
            return;
        };
        let Some(packet) = from_sfu.get_mut(..HEADROOM + datagram.len()) else {
            return;
        };
        packet[HEADROOM..].copy_from_slice(datagram);
        outlets.hairpin.counts.to_clients += 1;
        if let Some(transmit) = core.handle_peer(now, allocation, sfu, packet) {
            let unsent = outlets.forward(&transmit, None, alone, gauges);
            unsent.give_back(core);
        }
    }

    /// Sends what is laid out.
    pub(in crate::shard) fn finish_batch(&mut self, gauges: &mut Gauges) {
        let Self { core, outlets, .. } = self;
        let Outlets { batch, sockets, .. } = outlets;
        batch.finish(sockets, gauges).give_back(core);
    }

    /// What went between TURN and our own SFU.
    pub(in crate::shard) fn hairpin_figures(&self) -> &Counts {
        &self.outlets.hairpin.counts
    }

    /// The same, to be added to.
    pub(in crate::shard) fn hairpin_counts(&mut self) -> &mut Counts {
        &mut self.outlets.hairpin.counts
    }

    /// Tells clients what the network answered to datagrams for their peers, a part of it.
    pub(in crate::shard) fn tell_unreachable(&mut self, gauges: &mut Gauges, now: Instant) {
        let Self {
            core,
            outlets,
            unreachable,
            ..
        } = self;
        for _ in 0..unreachable.waiting() {
            let Some(token) = unreachable.next() else {
                break;
            };
            let Some(allocation) = outlets.sockets.allocation(token) else {
                continue;
            };
            let socket = outlets.sockets.relay_mut(token);
            let errors = unreachable.read(token, allocation, socket, now);
            for error in errors {
                let told = core.peer_unreachable(now, allocation, error.destination, icmp_of(error));
                Self::answer(outlets, told, gauges);
            }
        }
    }

    /// What was not told.
    pub(in crate::shard) fn untold(&self) -> u64 {
        self.unreachable.untold
    }
}
