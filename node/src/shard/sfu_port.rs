//! The SFU's socket on one shard: datagrams to the core that owns them, and the core's batches out.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use datagram::{Inbox, Socket};
use sfu::{Charged, SendBuffer, Sfu};

use super::gauges::Gauges;
use super::handover::Peers;

/// The SFU and its socket.
pub(super) struct SfuPort {
    pub(super) socket: Socket,
    pub(super) sfu: Sfu,
    buffer: SendBuffer,
}

impl SfuPort {
    pub(super) fn new(socket: Socket, sfu: Sfu) -> Self {
        Self {
            socket,
            sfu,
            buffer: SendBuffer::new(),
        }
    }

    /// Takes what has been received: to this shard's core, or to another shard.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, peers: &mut Peers, now: Instant) {
        for index in 0..inbox.filled() {
            let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                continue;
            };
            while let Some(datagram) = datagrams.next_datagram() {
                if !peers.hand_over(meta.source, meta.local_ip, datagram) {
                    self.sfu
                        .handle_datagram(now, meta.source, meta.local_ip, datagram);
                }
            }
        }
        peers.ring();
    }

    /// Takes a datagram that another shard received.
    pub(super) fn take(
        &mut self,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &mut [u8],
        now: Instant,
    ) {
        self.sfu.handle_datagram(now, source, local_ip, datagram);
    }

    /// Sends everything that the core has to say.
    pub(super) fn flush(&mut self, peers: &mut Peers, gauges: &mut Gauges, now: Instant) {
        while let Some(transmit) = self.sfu.poll_transmit(now, &mut self.buffer) {
            let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            gauges.batch(transmit.contents.len().div_ceil(size));
            let outcome = self.socket.send(&datagram::Transmit {
                destination: transmit.destination,
                source: transmit.source,
                segment_size: transmit.segment_size,
                ecn: None,
                contents: transmit.contents,
            });
            match outcome {
                // What is charged for is media or DTLS; what shards tell each other of is neither.
                Ok(()) if transmit.charged.is_some() => {}
                Ok(()) => peers.sent(transmit.destination, transmit.contents, now),
                Err(refused) => {
                    gauges.refused(refused.datagrams, refused.kind);
                    if let Some(charged) = transmit.charged {
                        let bytes = charged.bytes.min(refused.bytes);
                        self.sfu.give_back(Charged { bytes, ..charged });
                    }
                }
            }
        }
        peers.ring();
    }
}
