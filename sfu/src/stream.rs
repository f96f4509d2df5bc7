//! One published stream: an SSRC of one session's m-line, its history, its reception, its subscribers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discard::Discard;
use crate::feed::Feed;
use crate::history::History;
use crate::keyframe::KeyframeRequests;
use crate::log::Log;
use crate::media::{Kind, Payload};
use crate::nack::Gaps;
use crate::replica::Home;
use crate::report::{Reception, SenderClock};
use crate::slot::Slot;

/// Streams by position; freed positions are reused, so whoever remembers one also remembers the serial.
pub(crate) type StreamKey = usize;
/// Sessions by position.
pub(crate) type SessionKey = usize;

/// A send line that carries this stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Subscriber {
    pub(crate) session: SessionKey,
    pub(crate) track: usize,
}

/// A published stream.
pub(crate) struct Stream {
    /// Unique for the life of the core.
    pub(crate) serial: u64,
    pub(crate) owner: SessionKey,
    pub(crate) kind: Kind,
    pub(crate) ssrc: u32,
    pub(crate) payloads: Vec<Payload>,
    pub(crate) history: History,
    /// What arrived, for each subscriber to take from where it stands.
    pub(crate) fresh: Log,
    /// Whether the stream waits for its subscribers to be told of what is fresh.
    pub(crate) queued: bool,
    /// When they are told at the latest.
    pub(crate) due: Instant,
    /// RTP timestamp of the latest key frame.
    pub(crate) key_frame: Option<u32>,
    pub(crate) gaps: Gaps,
    pub(crate) reception: Reception,
    pub(crate) clock: Option<SenderClock>,
    pub(crate) keyframes: KeyframeRequests,
    pub(crate) subscribers: Vec<Subscriber>,
    pub(crate) last_arrival: Instant,
    /// The highest index that arrived as an original.
    pub(crate) last_index: Option<u64>,
    /// The other cores that it crosses to.
    pub(crate) feeds: Vec<Feed>,
    /// Of a replica: the core that it comes from.
    pub(crate) home: Option<Home>,
    /// Of a replica: the packet behind frames that were lost on the way.
    pub(crate) resumes: Option<u64>,
}

/// What a stream is made of.
pub(crate) struct Origin {
    pub(crate) serial: u64,
    pub(crate) owner: SessionKey,
    pub(crate) kind: Kind,
    pub(crate) ssrc: u32,
}

impl Stream {
    pub(crate) fn new(origin: Origin, payloads: Vec<Payload>, now: Instant) -> Stream {
        let clock_rate = payloads.first().map_or(90_000, |payload| payload.clock_rate);
        Stream {
            serial: origin.serial,
            owner: origin.owner,
            kind: origin.kind,
            ssrc: origin.ssrc,
            payloads,
            history: History::new(origin.kind),
            fresh: Log::new(),
            queued: false,
            due: now,
            key_frame: None,
            gaps: Gaps::new(),
            reception: Reception::new(clock_rate, now),
            clock: None,
            keyframes: KeyframeRequests::default(),
            subscribers: Vec::new(),
            last_arrival: now,
            last_index: None,
            feeds: Vec::new(),
            home: None,
            resumes: None,
        }
    }

    /// Remembers a packet, of this shard's pool or of another's, and says until when its subscribers may be left
    /// waiting for it: a frame that is complete waits for nothing. Whatever the history forgets goes into `evicted`; so does the packet itself when it is there already.
    pub(crate) fn accept(
        &mut self,
        slot: Arc<Slot>,
        now: Instant,
        tick: Duration,
        mut evicted: impl FnMut(Arc<Slot>),
    ) -> Result<(), Discard> {
        let stored = *slot.stored();
        if let Err(slot) = self.history.store(slot, &mut evicted) {
            evicted(slot);
            return Err(Discard::Duplicate);
        }
        self.last_arrival = now;
        if stored.starts_key_frame {
            self.keyframes.arrived();
        }
        self.fresh.push(stored.index);
        let complete = self.kind == Kind::Video && stored.marker;
        let due = if complete { now } else { now + tick };
        self.due = if self.queued { self.due.min(due) } else { due };
        Ok(())
    }

    /// The payload with this payload type.
    pub(crate) fn payload(&self, payload_type: u8) -> Option<&Payload> {
        self.payloads.iter().find(|payload| payload.pt == payload_type)
    }

    /// The payload whose retransmissions have this payload type.
    pub(crate) fn payload_of_rtx(&self, payload_type: u8) -> Option<&Payload> {
        self.payloads
            .iter()
            .find(|payload| payload.rtx == Some(payload_type))
    }
}
