//! The last stage: what leaves, sealed into the caller's send buffer, ready for one system call.
//!
//! Control packets first, retransmissions next, then the fresh packets of each stream, one subscriber after
//! the other, so that a frame for one destination leaves in one send.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use metering::SessionId;

use crate::Sfu;
use crate::discard::Discard;
use crate::forward::{Batch, Clock, forward, retransmit};
use crate::ice::Path;
use crate::stream::SessionKey;

/// The caller's send buffer: room for the largest GSO batch.
pub struct SendBuffer {
    bytes: Box<[u8]>,
}

/// What one UDP send can carry with segmentation offload: 65,507 bytes of UDP payload over IPv4.
const BATCH_BYTES_MAX: usize = 65_507;

impl SendBuffer {
    /// An empty buffer, allocated once.
    #[must_use]
    pub fn new() -> SendBuffer {
        SendBuffer {
            bytes: vec![0; BATCH_BYTES_MAX].into_boxed_slice(),
        }
    }
}

impl Default for SendBuffer {
    fn default() -> Self {
        SendBuffer::new()
    }
}

/// One send: one datagram, or several equal ones of which the last may be shorter.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// The local address to leave from: the one the client hit.
    pub source: Option<IpAddr>,
    /// Length of each datagram but the last, when there are several.
    pub segment_size: Option<usize>,
    /// The datagrams, end to end.
    pub contents: &'a [u8],
    /// What was charged for it, to give back when the kernel refuses.
    pub charged: Option<Charged>,
}

/// A charge that [`crate::Sfu::give_back`] can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Who paid.
    pub session: SessionId,
    /// UDP payload bytes.
    pub bytes: u64,
}

/// Where the walk over streams and subscribers stands.
#[derive(Debug, Default)]
pub(crate) struct Cursor {
    subscriber: usize,
    packet: usize,
}

struct Ready {
    path: Path,
    batch: Batch,
    charged: Option<Charged>,
}

impl Sfu {
    pub(crate) fn transmit<'b>(&mut self, now: Instant, buffer: &'b mut SendBuffer) -> Option<Transmit<'b>> {
        let ready = self
            .control(&mut buffer.bytes)
            .or_else(|| self.retransmissions(now, &mut buffer.bytes))
            .or_else(|| self.media(now, &mut buffer.bytes))?;
        Some(Transmit {
            destination: ready.path.remote,
            source: ready.path.local,
            segment_size: (ready.batch.segments > 1).then_some(ready.batch.segment),
            contents: &buffer.bytes[..ready.batch.length],
            charged: ready.charged,
        })
    }

    fn control(&mut self, buffer: &mut [u8]) -> Option<Ready> {
        let (path, length, charged) = self.outbox.pop(buffer)?;
        Some(Ready {
            path,
            batch: Batch {
                length,
                segment: length,
                segments: 1,
            },
            charged,
        })
    }

    fn clock(&self, now: Instant) -> Clock {
        Clock {
            now,
            epoch: self.epoch.unwrap_or(now),
        }
    }

    fn retransmissions(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Ready> {
        let clock = self.clock(now);
        let mut batch = Batch::default();
        let mut to: Option<SessionKey> = None;
        while let Some(what) = self.retransmissions.front().copied() {
            if to.is_some_and(|to| to != what.session) {
                break;
            }
            let Sfu {
                sessions,
                streams,
                scratch,
                ..
            } = self;
            let result = match sessions[what.session].as_mut() {
                Some(session) => {
                    let stream = session.tracks[what.track]
                        .stream
                        .and_then(|stream| streams[stream].as_ref());
                    match stream.filter(|stream| stream.serial == what.segment.stream) {
                        Some(stream) => {
                            retransmit(stream, session, &what, clock, &mut batch, buffer, scratch)
                        }
                        None => Err(Some(Discard::NotInHistory)),
                    }
                }
                None => Err(Some(Discard::NotInHistory)),
            };
            match result {
                Ok(()) => {
                    to = Some(what.session);
                    self.counters.retransmissions += 1;
                }
                Err(Some(reason)) => self.counters.discard(reason),
                Err(None) => break,
            }
            self.retransmissions.pop_front();
        }
        self.ready(to?, batch)
    }

    fn media(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Ready> {
        let clock = self.clock(now);
        while let Some(&key) = self.dirty.front() {
            let Sfu {
                sessions,
                streams,
                counters,
                cursor,
                dirty,
                next_due,
                ..
            } = self;
            let stream = streams[key].as_mut().filter(|stream| stream.queued);
            let Some(stream) = stream else {
                dirty.pop_front();
                *cursor = Cursor::default();
                continue;
            };
            while let Some(&subscriber) = stream.subscribers.get(cursor.subscriber) {
                if let Some(session) = sessions[subscriber.session]
                    .as_mut()
                    .filter(|session| session.is_connected())
                {
                    let batch = forward(
                        stream,
                        session,
                        subscriber.track,
                        &mut cursor.packet,
                        clock,
                        buffer,
                        counters,
                    );
                    // A report that became urgent, and a sender report that can go now that media flows.
                    let mut due = session.allowance.next_report();
                    if batch.segments > 0 && session.tracks[subscriber.track].report_due {
                        due = Some(now);
                    }
                    if let Some(due) = due.filter(|due| *due < session.due) {
                        session.due = due.max(now);
                        *next_due = Some(next_due.map_or(session.due, |next| next.min(session.due)));
                    }
                    if batch.segments > 0 {
                        return self.ready(subscriber.session, batch);
                    }
                }
                cursor.subscriber += 1;
                cursor.packet = 0;
            }
            stream.fresh.clear();
            stream.queued = false;
            dirty.pop_front();
            *cursor = Cursor::default();
        }
        None
    }

    fn ready(&mut self, key: SessionKey, batch: Batch) -> Option<Ready> {
        let session = self.sessions[key].as_ref()?;
        let bytes = batch.length as u64;
        self.counters.packets_out += batch.segments as u64;
        self.counters.bytes_out += bytes;
        let charged = Some(Charged {
            session: session.id,
            bytes,
        });
        Some(Ready {
            path: session.agent.selected()?,
            batch,
            charged,
        })
    }
}
