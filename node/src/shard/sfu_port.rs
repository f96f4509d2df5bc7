//! The SFU's socket on one shard: datagrams to the core that owns them, and the core's batches out.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use datagram::{Inbox, Socket};
use identity::Permit;
use metering::{Report, SessionId};
use sfu::{Charged, SendBuffer, Sfu};

use super::command::{Command, OpenSfu};
use super::gauges::Gauges;
use super::handover::{Peers, Sorted};
use super::lobby::Waiting;

/// The SFU and its socket.
pub(super) struct SfuPort {
    pub(super) socket: Socket,
    pub(super) sfu: Sfu,
    buffer: SendBuffer,
    /// Sessions that were adopted since the worker looked.
    adopted: Vec<Adopted>,
}

/// A session that the core has taken in, or (with the only report of its lease) has not.
pub(super) struct Adopted {
    pub(super) session: SessionId,
    pub(super) permit: Arc<Permit>,
    /// What it was told before.
    pub(super) kept: Vec<Command>,
    pub(super) refused: Option<Report>,
}

impl SfuPort {
    pub(super) fn new(socket: Socket, sfu: Sfu) -> Self {
        Self {
            socket,
            sfu,
            buffer: SendBuffer::new(),
            adopted: Vec::new(),
        }
    }

    /// Takes what has been received: to this shard's core, or to another shard.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, peers: &mut Peers, now: Instant) {
        for index in 0..inbox.filled() {
            let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                continue;
            };
            while let Some(datagram) = datagrams.next_datagram() {
                match peers.sort(&mut self.sfu, meta.source, meta.local_ip, datagram, now) {
                    Sorted::Here => {}
                    Sorted::Done => continue,
                    Sorted::Answer(length) => {
                        let answer = datagram::Transmit {
                            destination: meta.source,
                            source: meta.local_ip,
                            segment_size: None,
                            ecn: None,
                            contents: &peers.answer[..length],
                        };
                        // An answer that the kernel does not take is asked for again.
                        let _ = self.socket.send(&answer);
                        continue;
                    }
                    Sorted::Adopt(waiting) => self.adopt(*waiting, now),
                }
                self.sfu
                    .handle_datagram(now, meta.source, meta.local_ip, datagram);
            }
        }
        peers.ring();
    }

    /// Takes a session in from the lobby.
    fn adopt(&mut self, waiting: Waiting, now: Instant) {
        let Waiting {
            open, kept, paths, ..
        } = waiting;
        let OpenSfu {
            session,
            permit,
            transport,
            media,
            allowance,
        } = open;
        // Kept for the case that the core does not take the session: its lease then goes back.
        let mut unused = allowance.clone();
        let opened = self.sfu.open(session, permit.clone(), transport, allowance, now);
        if opened.is_ok() {
            self.sfu.set_media(session, media);
            for path in paths {
                self.sfu
                    .prove(session, path.source, path.local_ip, path.nominated, path.at);
            }
        }
        self.adopted.push(Adopted {
            session,
            permit,
            kept,
            refused: opened.is_err().then(|| unused.close(now)),
        });
    }

    /// A session that was adopted and that the worker does not know of yet.
    pub(super) fn next_adopted(&mut self) -> Option<Adopted> {
        self.adopted.pop()
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
        while let Some(shard) = self.sfu.poll_wake() {
            peers.wake(shard);
        }
        peers.ring();
    }
}
