//! Rooms that span shards: what one core tells another, and the bounded queues it does so through.
//!
//! There is one queue for each ordered pair of cores. A published packet crosses once to each other core that has a
//! subscriber, as a reference to its slot (`feed.rs`); the other core keeps a replica of the stream and serves
//! its own subscribers from it (`replica.rs`). Nothing here waits: a full queue loses whole frames, and what is
//! not media is kept until there is room. Cores know nothing of each other but these queues, so a simulation joins them
//! as the node does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use rtrb::{Consumer, Producer, RingBuffer};

use crate::Source;
use crate::media::Payload;
use crate::report::SenderClock;
use crate::slot::Slot;
use crate::stream::StreamKey;

/// Places of one queue: 70 ms of 1 Gbit/s. They hold references, 40 bytes each.
const QUEUE_MAX: usize = 8_192;
/// Where there are many cores each sends less to each other one.
const QUEUE_MIN: usize = 1_024;
/// Places of all queues into one core together.
const QUEUES_INTO_MAX: usize = 65_536;
/// Places that media leaves to what is not media.
const RESERVED: usize = 64;
/// Places that must be free for a frame to begin: most key frames then cross at once.
const FRAME_ROOM: usize = 64;
/// Told but not yet queued, to one core. More would mean that it stands still; then nothing helps.
const PENDING_MAX: usize = 65_536;

const _: () = assert!(QUEUE_MIN > 2 * (RESERVED + FRAME_ROOM));

/// What crosses from one core to another.
pub(crate) enum Crossing {
    /// Somebody here has subscribed to it; where one of them is capped, so are all: the largest cap.
    Want { source: Source, cap: Option<u64> },
    /// Nobody here has any more.
    Unwant { source: Source },
    /// A subscriber of your stream needs a key frame.
    KeyFrame { serial: u64 },
    /// A subscriber of your stream misses a packet that never came here.
    Ask { serial: u64, index: u64 },
    /// A source that you want is this stream of mine; also when its payload types change.
    Begun {
        source: Source,
        serial: u64,
        payloads: Box<[Payload]>,
    },
    /// The publisher's clock (RFC 3550 section 6.4.1).
    Clock { serial: u64, clock: Box<SenderClock> },
    /// The stream is over.
    Ended { serial: u64 },
    /// A packet of a stream. `resumes` where frames before it were lost on the way: it starts a key frame.
    Packet {
        serial: u64,
        resumes: bool,
        slot: Arc<Slot>,
    },
}

/// The two queues between this core and another.
pub(crate) struct Link {
    out: Producer<Crossing>,
    into: Consumer<Crossing>,
    /// What is not media and found no room, in order.
    pending: VecDeque<Crossing>,
    /// Something was queued since the other core was last woken.
    posted: bool,
}

impl Link {
    /// Tells something that must not be lost.
    pub(crate) fn tell(&mut self, crossing: Crossing) {
        self.flush();
        if self.pending.is_empty() {
            match self.out.push(crossing) {
                Ok(()) => self.posted = true,
                Err(rtrb::PushError::Full(crossing)) => self.pending.push_back(crossing),
            }
        } else if self.pending.len() < PENDING_MAX {
            self.pending.push_back(crossing);
        }
    }

    /// Whether a frame may begin to cross.
    pub(crate) fn has_room_for_a_frame(&self) -> bool {
        self.pending.is_empty() && self.out.slots() > RESERVED + FRAME_ROOM
    }

    /// Queues a packet, if there is room.
    pub(crate) fn pass(&mut self, serial: u64, resumes: bool, slot: &Arc<Slot>) -> bool {
        if !self.pending.is_empty() || self.out.slots() <= RESERVED {
            return false;
        }
        let slot = slot.clone();
        let passed = self
            .out
            .push(Crossing::Packet {
                serial,
                resumes,
                slot,
            })
            .is_ok();
        self.posted |= passed;
        passed
    }

    /// Queues what waits. True if something still does.
    pub(crate) fn flush(&mut self) -> bool {
        while !self.out.is_full()
            && let Some(crossing) = self.pending.pop_front()
        {
            // There is room: nobody else fills this queue.
            let _ = self.out.push(crossing);
            self.posted = true;
        }
        !self.pending.is_empty()
    }

    pub(crate) fn next(&mut self) -> Option<Crossing> {
        self.into.pop().ok()
    }

    pub(crate) fn has_next(&self) -> bool {
        !self.into.is_empty()
    }
}

/// What subscribers of this core want of a source that another core has.
pub(crate) struct Demand {
    /// Send lines that it is routed to.
    pub(crate) lines: usize,
    /// Whether the other cores were asked.
    pub(crate) asked: bool,
    /// The cap that they were told.
    pub(crate) cap: Option<u64>,
    /// The stream that came of it.
    pub(crate) replica: Option<StreamKey>,
}

/// What another core wants of a source, whether or not it is published here yet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Interest {
    pub(crate) core: usize,
    pub(crate) cap: Option<u64>,
}

/// A core's place among the others.
pub struct Span {
    /// One for each core; none for this one.
    pub(crate) links: Vec<Option<Link>>,
    pub(crate) demands: HashMap<Source, Demand>,
    pub(crate) interests: HashMap<Source, Vec<Interest>>,
    /// Replicas by the core that feeds them and its serial.
    pub(crate) replicas: HashMap<(usize, u64), StreamKey>,
    /// Whether a feed or a link holds something back for want of room.
    pub(crate) held_back: bool,
    /// When replicas and what is held back are to be looked at.
    pub(crate) due: Option<Instant>,
}

impl Span {
    /// Of a core that is alone.
    pub(crate) fn alone() -> Span {
        Span::over(Vec::new())
    }

    fn over(links: Vec<Option<Link>>) -> Span {
        Span {
            links,
            demands: HashMap::new(),
            interests: HashMap::new(),
            replicas: HashMap::new(),
            held_back: false,
            due: None,
        }
    }

    /// Places for `cores` cores that know each other.
    #[must_use]
    pub fn among(cores: usize) -> Vec<Span> {
        let places = (QUEUES_INTO_MAX / cores.max(1)).clamp(QUEUE_MIN, QUEUE_MAX);
        Span::with_queues(cores, places)
    }

    /// The same, with queues of so many places.
    #[must_use]
    pub fn with_queues(cores: usize, places: usize) -> Vec<Span> {
        let mut intos: Vec<Vec<Option<Consumer<Crossing>>>> =
            (0..cores).map(|_| Vec::with_capacity(cores)).collect();
        let mut outs: Vec<Vec<Option<Producer<Crossing>>>> = Vec::with_capacity(cores);
        for from in 0..cores {
            let mut row = Vec::with_capacity(cores);
            for (to, into_it) in intos.iter_mut().enumerate() {
                // Each row of the receivers grows by the queue from `from`, in the order of the senders.
                let (out, into) = if from == to {
                    (None, None)
                } else {
                    let (out, into) = RingBuffer::new(places);
                    (Some(out), Some(into))
                };
                row.push(out);
                into_it.push(into);
            }
            outs.push(row);
        }
        let span = |(outs, intos): (Vec<Option<_>>, Vec<Option<_>>)| {
            let link = |(out, into): (Option<_>, Option<_>)| {
                Some(Link {
                    out: out?,
                    into: into?,
                    pending: VecDeque::new(),
                    posted: false,
                })
            };
            Span::over(outs.into_iter().zip(intos).map(link).collect())
        };
        outs.into_iter().zip(intos).map(span).collect()
    }

    pub(crate) fn link(&mut self, core: usize) -> Option<&mut Link> {
        self.links.get_mut(core)?.as_mut()
    }

    /// Tells every other core.
    pub(crate) fn tell_all(&mut self, mut crossing: impl FnMut() -> Crossing) {
        self.links
            .iter_mut()
            .flatten()
            .for_each(|link| link.tell(crossing()));
    }

    /// A core that was told something since this was last asked.
    pub(crate) fn next_wake(&mut self) -> Option<usize> {
        let posted =
            |link: &mut Option<Link>| link.as_mut().is_some_and(|link| std::mem::take(&mut link.posted));
        self.links.iter_mut().position(posted)
    }

    /// Makes sure that replicas and what is held back are looked at by `at`.
    pub(crate) fn urge(&mut self, at: Instant) {
        self.due = Some(self.due.map_or(at, |due| due.min(at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn links() -> (Span, Span) {
        let mut spans = Span::with_queues(2, QUEUE_MIN);
        let second = spans.remove(1);
        (spans.remove(0), second)
    }

    #[test]
    fn media_leaves_room_and_what_is_not_media_arrives_however_full_the_queue_was() {
        let (mut one, mut two) = links();
        let slot = Arc::new(Slot::new(Instant::now()));
        let link = one.link(1).unwrap();
        let mut passed = 0;
        while link.pass(1, false, &slot) {
            passed += 1;
        }
        assert_eq!(passed, QUEUE_MIN - RESERVED);
        assert!(!link.has_room_for_a_frame());
        for serial in 0..1_000 {
            link.tell(Crossing::Ended { serial });
        }
        assert!(link.flush(), "not all of it fits");
        let mut ended = Vec::new();
        while let Some(crossing) = two.link(0).unwrap().next() {
            if let Crossing::Ended { serial } = crossing {
                ended.push(serial);
            }
            one.link(1).unwrap().flush();
        }
        assert!(ended.iter().copied().eq(0..1_000), "all of it, in order");
        assert_eq!(Arc::strong_count(&slot), 1);
    }

    #[test]
    fn a_core_is_woken_once_for_however_much_it_is_told() {
        let (mut one, _two) = links();
        one.tell_all(|| Crossing::Ended { serial: 1 });
        one.tell_all(|| Crossing::Ended { serial: 2 });
        assert_eq!((one.next_wake(), one.next_wake()), (Some(1), None));
    }
}
