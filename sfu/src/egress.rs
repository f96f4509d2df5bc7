//! The last stage: what leaves, sealed into the caller's send buffer, ready for one system call.
//!
//! Control packets first, retransmissions next, then what waits for each subscriber: all its tracks in one send
//! where that is possible. When streams tell their subscribers what is there is the pacer's business.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use metering::SessionId;

use crate::Sfu;
use crate::batch::Batch;
use crate::discard::Discard;
use crate::forward::{Clock, Forwarder, Left, retransmit};
use crate::ice::Path;
use crate::pacer::Queue;
use crate::stream::{SessionKey, Stream};

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

struct Ready {
    path: Path,
    length: usize,
    segment: Option<usize>,
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
            segment_size: ready.segment,
            contents: &buffer.bytes[..ready.length],
            charged: ready.charged,
        })
    }

    fn control(&mut self, buffer: &mut [u8]) -> Option<Ready> {
        let (path, length, charged) = self.outbox.pop(buffer)?;
        Some(Ready {
            path,
            length,
            segment: None,
            charged,
        })
    }

    fn clock(&self, now: Instant) -> Clock {
        Clock {
            now,
            epoch: self.epoch.unwrap_or(now),
            tick: self.config.tick,
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

    /// The next send of media: one session's, as much as one send carries.
    fn media(&mut self, now: Instant, buffer: &mut [u8]) -> Option<Ready> {
        let clock = self.clock(now);
        loop {
            while let Some(&key) = self.ready.front() {
                let (batch, done) = self.serve(key, clock, buffer);
                if done {
                    self.ready.pop_front();
                }
                if batch.segments > 0
                    && let Some(ready) = self.ready(key, batch)
                {
                    return Some(ready);
                }
            }
            if !self.collect(now) {
                return None;
            }
        }
    }

    /// One send for a session, and whether that was all for now.
    fn serve(&mut self, key: SessionKey, clock: Clock, buffer: &mut [u8]) -> (Batch, bool) {
        let Sfu {
            sessions,
            streams,
            counters,
            queues,
            paced,
            plan,
            timers,
            ..
        } = self;
        let queue = &mut queues[key];
        let Some(session) = sessions[key].as_mut().filter(|_| queue.listed) else {
            return (Batch::default(), true);
        };
        let mut forwarder = Forwarder {
            streams,
            counters,
            plan,
            clock,
        };
        let (batch, left) = forwarder.forward(session, queue, buffer);
        // A report of usage that became urgent, and a sender report that can go now that media flows.
        if let Some(due) = session.allowance.next_report() {
            timers.urge(key, due.max(clock.now));
        }
        if plan
            .iter()
            .any(|planned| session.tracks[planned.track()].report_due)
        {
            timers.urge(key, clock.now);
        }
        if left == Left::KeyFrame && !queue.paced {
            queue.paced = true;
            paced.push_back((queue.next_tick(clock.now), key));
        }
        // Without a packet there is nothing that could make room for more.
        let done = left != Left::More || batch.segments == 0;
        queue.listed = !done;
        (batch, done)
    }

    /// Lists whoever is to be served at `now`: false when nobody is.
    fn collect(&mut self, now: Instant) -> bool {
        let Sfu {
            sessions,
            streams,
            counters,
            queues,
            ready,
            paced,
            waiting,
            load,
            ..
        } = self;
        while let Some(&(due, key)) = paced.front() {
            if due > now {
                break;
            }
            paced.pop_front();
            let queue = &mut queues[key];
            if std::mem::take(&mut queue.paced) && !queue.listed {
                queue.listed = true;
                ready.push_back(key);
            }
        }
        if waiting.is_empty() {
            return !ready.is_empty();
        }
        let busy = load.is_busy(counters.packets_out, now);
        let streams_waiting = waiting.len();
        for round in 0..2 * streams_waiting {
            let Some(key) = waiting.pop_front() else {
                break;
            };
            let Some(stream) = streams[key].as_mut().filter(|stream| stream.queued) else {
                continue;
            };
            // Those that are due first, then what goes to the same people and could wait: it rides along.
            let rides = |stream: &Stream| {
                let mut first = stream.subscribers.iter().take(2);
                round >= streams_waiting && first.any(|subscriber| queues[subscriber.session].listed)
            };
            if busy && stream.due > now && !rides(stream) {
                waiting.push_back(key);
                continue;
            }
            stream.queued = false;
            for subscriber in &stream.subscribers {
                let queue = &mut queues[subscriber.session];
                if queue.connected {
                    queue.mark(subscriber.track, stream.kind);
                    if !queue.listed {
                        queue.listed = true;
                        ready.push_back(subscriber.session);
                    }
                } else if let Some(session) = sessions[subscriber.session].as_mut() {
                    session.tracks[subscriber.track].cursor = stream.fresh.end();
                }
            }
        }
        !ready.is_empty()
    }

    /// When something that is held may leave.
    pub(crate) fn next_egress(&self) -> Option<Instant> {
        let paced = self.paced.front().map(|(due, _)| *due);
        let streams = self
            .waiting
            .iter()
            .filter_map(|key| self.streams[*key].as_ref())
            .filter(|stream| stream.queued)
            .map(|stream| stream.due);
        streams.chain(paced).min()
    }

    /// So that nothing grows while packets flow.
    pub(crate) fn make_room_for_queues(&mut self) {
        let sessions = self.sessions.len();
        self.queues
            .resize(self.queues.len().max(sessions), Queue::default());
        // A key that was given up and taken again may be listed twice.
        self.ready
            .reserve((2 * sessions).saturating_sub(self.ready.len()));
        self.paced
            .reserve((2 * sessions).saturating_sub(self.paced.len()));
    }

    fn ready(&mut self, key: SessionKey, batch: Batch) -> Option<Ready> {
        let session = self.sessions[key].as_ref()?;
        let bytes = batch.length() as u64;
        self.counters.packets_out += batch.segments as u64;
        self.counters.bytes_out += bytes;
        let charged = Some(Charged {
            session: session.id,
            bytes,
        });
        Some(Ready {
            path: session.agent.selected()?,
            length: batch.length(),
            segment: (batch.segments > 1).then_some(batch.segment),
            charged,
        })
    }
}
