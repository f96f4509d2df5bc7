//! The SFU's socket on one shard: datagrams to the core that owns them, and the core's batches out.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use datagram::{Inbox, Refused, Socket};
use identity::Permit;
use metering::{Report, SessionId};
use sfu::{Charged, SendBuffer, Sfu};

use super::command::{Command, OpenSfu};
use super::gauges::Gauges;
use super::hairpin::Way;
use super::handover::{Peers, Sorted};
use super::lobby::Waiting;
use super::turn::TurnPort;

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

/// What became of a datagram that did not come through the socket.
pub(super) enum Taken {
    /// It is the core's, or another shard's.
    Yes,
    /// There was no room for it on the way to its shard.
    Lost,
    /// An answer of this length is to go back; [`Peers::answer`] has it.
    Answer(usize),
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
                    Sorted::Done | Sorted::Lost => continue,
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

    /// Takes a datagram that came in memory, out of a relayed port of ours.
    pub(super) fn take_relayed(
        &mut self,
        relayed: SocketAddr,
        local_ip: IpAddr,
        datagram: &mut [u8],
        peers: &mut Peers,
        now: Instant,
    ) -> Taken {
        let local_ip = Some(local_ip);
        match peers.sort(&mut self.sfu, relayed, local_ip, datagram, now) {
            Sorted::Here => {}
            Sorted::Done => return Taken::Yes,
            Sorted::Lost => return Taken::Lost,
            Sorted::Answer(length) => return Taken::Answer(length),
            Sorted::Adopt(waiting) => self.adopt(*waiting, now),
        }
        self.sfu.handle_datagram(now, relayed, local_ip, datagram);
        Taken::Yes
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
    pub(super) fn flush(
        &mut self,
        peers: &mut Peers,
        turn: &mut TurnPort,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        while let Some(transmit) = self.sfu.poll_transmit(now, &mut self.buffer) {
            let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            let outcome = match turn.way_from_sfu(transmit.destination, transmit.source) {
                Way::Kernel => {
                    gauges.batch(transmit.contents.len().div_ceil(size));
                    self.socket.send(&datagram::Transmit {
                        destination: transmit.destination,
                        source: transmit.source,
                        segment_size: transmit.segment_size,
                        ecn: None,
                        contents: transmit.contents,
                    })
                }
                way => {
                    let bound = self.socket.local_addr();
                    let sfu = SocketAddr::new(transmit.source.unwrap_or(bound.ip()), bound.port());
                    to_relay(&transmit, sfu, way, peers, turn, gauges, now)
                }
            };
            match outcome {
                // What is charged for is media or DTLS; what shards tell each other of is neither.
                Ok(()) if transmit.charged.is_some() => {}
                Ok(()) => peers.sent(transmit.destination, transmit.contents, now),
                Err(refused) => {
                    // What was lost on the way to a relayed port is counted there.
                    if refused.kind != ErrorKind::AddrNotAvailable {
                        gauges.refused(refused.datagrams, refused.kind);
                    }
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

/// Hands a send to the relayed port that it is for, on this shard or another. What no queue has room for was not sent;
/// what the relayed port does not let through was.
fn to_relay(
    transmit: &sfu::Transmit<'_>,
    sfu: SocketAddr,
    way: Way,
    peers: &mut Peers,
    turn: &mut TurnPort,
    gauges: &mut Gauges,
    now: Instant,
) -> Result<(), Refused> {
    let port = transmit.destination.port();
    let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
    let alone = transmit.contents.len() <= size;
    let (mut bytes, mut datagrams) = (0, 0);
    for datagram in transmit.contents.chunks(size) {
        let sent = match way {
            Way::Shard(shard) if shard == peers.own() => {
                turn.take_from_sfu(port, sfu, datagram, alone, gauges, now);
                true
            }
            Way::Shard(shard) => {
                let posted = peers.hand_to_relay(shard, port, sfu, datagram);
                let counts = turn.hairpin_counts();
                counts.crossed += u64::from(posted);
                counts.full += u64::from(!posted);
                posted
            }
            Way::Gone | Way::Kernel => {
                turn.hairpin_counts().gone += 1;
                false
            }
        };
        if !sent {
            bytes += datagram.len() as u64;
            datagrams += 1;
        }
    }
    turn.finish_batch(gauges);
    if datagrams == 0 {
        return Ok(());
    }
    Err(Refused {
        bytes,
        datagrams,
        kind: ErrorKind::AddrNotAvailable,
    })
}
