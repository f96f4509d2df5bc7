//! Streams of other cores, and this core's streams on other cores: who wants what, what begins and ends, what goes back.
//!
//! A core with a subscriber asks all others for the source, once; the one that has it, now or later, answers with its
//! stream and feeds it. Here the stream gets a replica: the same slots in a history of its own, from which this core's
//! subscribers are numbered, served and repaired as from any stream. Back go key frame requests (merged), the largest
//! cap of the subscribers, and the packets that somebody misses and that never came here.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::budget::Budget;
use crate::discard::Discard;
use crate::feed::{Crossed, Feed};
use crate::media::{Kind, Payload};
use crate::report::SenderClock;
use crate::rtx::Retransmitter;
use crate::slot::Slot;
use crate::span::{Crossing, Demand, Interest, Span};
use crate::stream::{Origin, SessionKey, Stream, StreamKey};
use crate::{Sfu, Source};

/// The owner of a replica: nobody here.
pub(crate) const ELSEWHERE: SessionKey = usize::MAX;

/// Crossings taken before the caller's own packets get their turn again, and before output is polled: no stream's list
/// of fresh packets overflows meanwhile.
const CROSSINGS_A_ROUND: usize = 256;
const _: () = assert!(CROSSINGS_A_ROUND <= crate::log::LOG_PACKETS);

/// What found no room is tried again this soon.
const TRY_AGAIN: Duration = Duration::from_millis(1);

/// Packets that one replica may ask for in a second, and at once.
const ASKS_PER_SECOND: u64 = 200;
const ASKS_BURST: u64 = 100;

/// Where a replica's packets come from.
pub(crate) struct Home {
    pub(crate) core: usize,
    pub(crate) serial: u64,
    source: Source,
    asks: Budget,
    asked: Retransmitter,
}

impl Sfu {
    /// Joins this core to others, before anything else happens.
    #[must_use]
    pub fn spanning(mut self, span: Span) -> Sfu {
        self.span = span;
        self
    }

    /// Takes what other cores have sent. True if there is more: poll for output, then call again.
    pub fn handle_crossings(&mut self, now: Instant) -> bool {
        self.observe(now);
        let mut left = CROSSINGS_A_ROUND;
        for core in 0..self.span.links.len() {
            while left > 0
                && let Some(crossing) = self.span.link(core).and_then(|link| link.next())
            {
                left -= 1;
                self.handle_crossing(core, crossing, now);
            }
        }
        self.flush_held_back(now);
        self.span.links.iter().flatten().any(|link| link.has_next())
    }

    /// The next core that is to be woken, since it was sent something.
    pub fn poll_wake(&mut self) -> Option<usize> {
        self.span.next_wake()
    }

    fn handle_crossing(&mut self, core: usize, crossing: Crossing, now: Instant) {
        match crossing {
            Crossing::Packet {
                serial,
                resumes,
                slot,
            } => self.replicate(core, serial, resumes, slot, now),
            Crossing::Want { source, cap } => self.handle_want(core, source, cap, now),
            Crossing::Unwant { source } => self.handle_unwant(core, source, now),
            Crossing::KeyFrame { serial } => {
                if let Some(stream) = self
                    .stream_with_serial(serial)
                    .and_then(|key| self.streams[key].as_mut())
                {
                    stream.keyframes.want();
                    let owner = stream.owner;
                    self.urge(owner, now);
                }
            }
            Crossing::Ask { serial, index } => self.handle_ask(core, serial, index, now),
            Crossing::Begun {
                source,
                serial,
                payloads,
            } => self.begin_replica(core, source, serial, payloads.into_vec(), now),
            Crossing::Clock { serial, clock } => {
                if let Some(&key) = self.span.replicas.get(&(core, serial)) {
                    self.take_clock(key, *clock, now);
                }
            }
            Crossing::Ended { serial } => {
                if let Some(&key) = self.span.replicas.get(&(core, serial)) {
                    self.remove_stream(key);
                }
            }
        }
    }

    // The publisher's side.

    fn stream_with_serial(&self, serial: u64) -> Option<StreamKey> {
        let is_it =
            |stream: &Option<Box<Stream>>| stream.as_ref().is_some_and(|stream| stream.serial == serial);
        self.streams.iter().position(is_it)
    }

    fn handle_want(&mut self, core: usize, source: Source, cap: Option<u64>, now: Instant) {
        let interests = self.span.interests.entry(source).or_default();
        match interests.iter_mut().find(|interest| interest.core == core) {
            Some(interest) => interest.cap = cap,
            None => interests.push(Interest { core, cap }),
        }
        if let Some(key) = self.published_here(source) {
            self.feed(key, source, now);
        }
    }

    fn handle_unwant(&mut self, core: usize, source: Source, now: Instant) {
        if let Some(interests) = self.span.interests.get_mut(&source) {
            interests.retain(|interest| interest.core != core);
            if interests.is_empty() {
                self.span.interests.remove(&source);
            }
        }
        if let Some(stream) = self
            .published_here(source)
            .and_then(|key| self.streams[key].as_mut())
        {
            stream.feeds.retain(|feed| feed.core != core);
            let owner = stream.owner;
            if let Some(publisher) = self.sessions.get_mut(owner).and_then(Option::as_mut) {
                publisher.bandwidth_changed = true;
            }
            self.urge(owner, now);
        }
    }

    fn handle_ask(&mut self, core: usize, serial: u64, index: u64, now: Instant) {
        let stream = self
            .stream_with_serial(serial)
            .and_then(|key| self.streams[key].as_ref());
        let slot = stream.and_then(|stream| stream.history.recent(index, now));
        let passed = slot
            .zip(self.span.links.get_mut(core).and_then(Option::as_mut))
            .map(|(slot, link)| link.pass(serial, false, slot));
        match passed {
            Some(true) => self.counters.crossings_out += 1,
            Some(false) => self.counters.discard(Discard::ShardQueueFull),
            None => self.counters.discard(Discard::NotInHistory),
        }
    }

    /// Lets a stream that was just published cross to those who have been waiting for it.
    pub(crate) fn feed_waiting(&mut self, owner: SessionKey, kind: Kind, now: Instant) {
        let Some(session) = self.sessions[owner].as_ref() else {
            return;
        };
        let source = Source {
            session: session.id,
            kind,
        };
        if let Some(key) = session.published(kind) {
            self.feed(key, source, now);
        }
    }

    /// Makes sure that a stream crosses to every core that wants it, with the cap that was told last.
    fn feed(&mut self, key: StreamKey, source: Source, now: Instant) {
        let Sfu { span, streams, .. } = self;
        let (Some(interests), Some(stream)) = (span.interests.get(&source), streams[key].as_mut()) else {
            return;
        };
        for interest in interests {
            if let Some(feed) = stream.feeds.iter_mut().find(|feed| feed.core == interest.core) {
                feed.cap = interest.cap;
                continue;
            }
            stream.feeds.push(Feed::new(interest.core, interest.cap));
            let Some(link) = span.links.get_mut(interest.core).and_then(Option::as_mut) else {
                continue;
            };
            link.tell(begun(stream, source));
            if let Some(clock) = stream.clock.map(Box::new) {
                let serial = stream.serial;
                link.tell(Crossing::Clock { serial, clock });
            }
        }
        let owner = stream.owner;
        if let Some(publisher) = self.sessions.get_mut(owner).and_then(Option::as_mut) {
            publisher.bandwidth_changed = true;
        }
        self.urge(owner, now);
    }

    /// The payload types of what this session publishes have changed.
    pub(crate) fn describe_again(&mut self, owner: SessionKey) {
        let Sfu {
            sessions,
            streams,
            span,
            ..
        } = self;
        let Some(session) = sessions[owner].as_ref() else {
            return;
        };
        for line in &session.receive {
            let Some(stream) = line.stream.and_then(|stream| streams[stream].as_ref()) else {
                continue;
            };
            let source = Source {
                session: session.id,
                kind: line.kind,
            };
            for feed in &stream.feeds {
                if let Some(link) = span.link(feed.core) {
                    link.tell(begun(stream, source));
                }
            }
        }
    }

    /// A packet of this core's was accepted: it crosses to those who want its stream.
    pub(crate) fn cross(&mut self, key: StreamKey, slot: &Arc<Slot>, now: Instant) {
        let Sfu {
            streams,
            span,
            counters,
            ..
        } = self;
        let Some(stream) = streams[key].as_mut() else {
            return;
        };
        let (mut held_back, mut lost) = (false, false);
        for feed in &mut stream.feeds {
            let Some(link) = span.links.get_mut(feed.core).and_then(Option::as_mut) else {
                continue;
            };
            match feed.offer(link, stream.serial, stream.kind, slot) {
                Crossed::Now => counters.crossings_out += 1,
                Crossed::Later => held_back = true,
                // The other core's subscribers ask for the key frame that they wait for.
                Crossed::Not(Discard::AwaitingKeyFrame | Discard::BeforeJoin) => {}
                Crossed::Not(reason) => {
                    counters.discard(reason);
                    lost = true;
                }
            }
        }
        if held_back {
            span.held_back = true;
            self.urge(ELSEWHERE, now + TRY_AGAIN);
        }
        if lost
            && let Some(stream) = self.streams[key]
                .as_mut()
                .filter(|stream| stream.kind == Kind::Video)
        {
            stream.keyframes.want();
            let owner = stream.owner;
            self.urge(owner, now);
        }
    }

    /// Tells the cores that follow a stream: `crossing` is made from its serial.
    pub(crate) fn tell_followers(span: &mut Span, stream: &Stream, crossing: impl Fn(u64) -> Crossing) {
        for feed in &stream.feeds {
            if let Some(link) = span.link(feed.core) {
                link.tell(crossing(stream.serial));
            }
        }
    }

    fn flush_held_back(&mut self, now: Instant) {
        let Sfu { streams, span, .. } = self;
        let mut held_back = false;
        for link in span.links.iter_mut().flatten() {
            held_back |= link.flush();
        }
        if span.held_back {
            for stream in streams.iter_mut().flatten() {
                let Stream {
                    feeds,
                    history,
                    serial,
                    ..
                } = &mut **stream;
                for feed in feeds {
                    if let Some(link) = span.links.get_mut(feed.core).and_then(Option::as_mut) {
                        held_back |= feed.flush(link, *serial, history);
                    }
                }
            }
        }
        span.held_back = held_back;
        if held_back {
            self.urge(ELSEWHERE, now + TRY_AGAIN);
        }
    }

    // The subscriber's side.

    /// A send line of this core is routed to a source.
    pub(crate) fn demand(&mut self, source: Source) {
        if self.span.links.is_empty() {
            return;
        }
        let here = self.by_id.contains_key(&source.session);
        let demand = self.span.demands.entry(source).or_insert(Demand {
            lines: 0,
            asked: false,
            cap: None,
            replica: None,
        });
        demand.lines += 1;
        if !demand.asked && !here {
            demand.asked = true;
            self.span.tell_all(|| Crossing::Want { source, cap: None });
        }
    }

    /// It is not any more. Call it after the line let go of the stream.
    pub(crate) fn release(&mut self, source: Source) {
        let Some(demand) = self.span.demands.get_mut(&source) else {
            return;
        };
        demand.lines = demand.lines.saturating_sub(1);
        if demand.lines > 0 {
            // Who is left may all be capped.
            if let (Some(now), Some(_)) = (self.now, demand.replica) {
                self.urge(ELSEWHERE, now);
            }
            return;
        }
        let (asked, replica) = (demand.asked, demand.replica);
        self.span.demands.remove(&source);
        if asked {
            self.span.tell_all(|| Crossing::Unwant { source });
        }
        if let Some(replica) = replica {
            self.remove_stream(replica);
        }
    }

    /// The replica of a source that another core has.
    pub(crate) fn replica_of(&self, source: Source) -> Option<StreamKey> {
        self.span.demands.get(&source)?.replica
    }

    fn begin_replica(
        &mut self,
        core: usize,
        source: Source,
        serial: u64,
        payloads: Vec<Payload>,
        now: Instant,
    ) {
        if let Some(&known) = self.span.replicas.get(&(core, serial)) {
            if let Some(stream) = self.streams[known].as_mut() {
                stream.payloads = payloads;
            }
            self.refresh_types_of(known);
            return;
        }
        // Nobody wants it any more: the other core hears of that in a moment.
        let Some(old) = self.span.demands.get(&source).map(|demand| demand.replica) else {
            return;
        };
        if let Some(old) = old {
            self.remove_stream(old);
        }
        self.serial += 1;
        let origin = Origin {
            serial: self.serial,
            owner: ELSEWHERE,
            kind: source.kind,
            ssrc: 0,
        };
        let mut stream = Box::new(Stream::new(origin, payloads, now));
        stream.home = Some(Home {
            core,
            serial,
            source,
            asks: Budget::new(ASKS_PER_SECOND, ASKS_BURST, now),
            asked: Retransmitter::new(0),
        });
        let key = self.place_stream(stream);
        self.span.replicas.insert((core, serial), key);
        if let Some(demand) = self.span.demands.get_mut(&source) {
            demand.replica = Some(key);
        }
        self.connect_waiting(source, Some(key), now);
        self.urge(ELSEWHERE, now);
    }

    /// A replica goes: whoever wants its source is still to be served by the next one.
    pub(crate) fn forget_replica(span: &mut Span, key: StreamKey, home: &Home) {
        span.replicas.remove(&(home.core, home.serial));
        if let Some(demand) = span.demands.get_mut(&home.source)
            && demand.replica == Some(key)
        {
            demand.replica = None;
        }
    }

    fn replicate(&mut self, core: usize, serial: u64, resumes: bool, slot: Arc<Slot>, now: Instant) {
        // On its way while the last subscriber left.
        let Some(&key) = self.span.replicas.get(&(core, serial)) else {
            return;
        };
        let Some(stream) = self.streams[key].as_mut() else {
            return;
        };
        self.counters.crossings_in += 1;
        if resumes {
            stream.resumes = Some(slot.stored().index);
        }
        // Slots of another core's pool are only let go of.
        if let Err(reason) = stream.accept(slot, now, self.config.tick, drop) {
            self.counters.discard(reason);
            return;
        }
        if !stream.queued && !stream.subscribers.is_empty() {
            stream.queued = true;
            self.waiting.push_back(key);
        }
    }

    /// Does what is due for replicas.
    pub(crate) fn tend_replicas(&mut self, now: Instant) {
        if self.span.due.is_none_or(|due| due > now) {
            return;
        }
        self.span.due = None;
        self.flush_held_back(now);
        let Sfu {
            sessions,
            streams,
            span,
            config,
            counters,
            ..
        } = self;
        let mut next: Option<Instant> = None;
        let Span {
            replicas,
            demands,
            links,
            ..
        } = span;
        for key in replicas.values() {
            let Some(stream) = streams[*key].as_mut() else {
                continue;
            };
            let Stream {
                home: Some(home),
                keyframes,
                subscribers,
                kind,
                ..
            } = &mut **stream
            else {
                continue;
            };
            let Some(link) = links.get_mut(home.core).and_then(Option::as_mut) else {
                continue;
            };
            if *kind != Kind::Video {
                continue;
            }
            let caps = subscribers
                .iter()
                .filter_map(|subscriber| Some(sessions[subscriber.session].as_ref()?.gate.video_cap()));
            let cap = largest(caps);
            if let Some(demand) = demands.get_mut(&home.source).filter(|demand| demand.cap != cap) {
                demand.cap = cap;
                let source = home.source;
                link.tell(Crossing::Want { source, cap });
            }
            if keyframes.poll(config.keyframe_interval, now) {
                let serial = home.serial;
                link.tell(Crossing::KeyFrame { serial });
                counters.keyframe_requests_crossed += 1;
            }
            if let Some(due) = keyframes.due(config.keyframe_interval, now) {
                next = Some(next.map_or(due, |next| next.min(due)));
            }
        }
        if let Some(next) = next {
            self.urge(ELSEWHERE, next.max(now + TRY_AGAIN));
        }
    }
}

impl Stream {
    /// A subscriber misses a packet that is not in the history: whether the core that publishes it is to be asked.
    pub(crate) fn ask(&mut self, index: u64, now: Instant) -> Option<(usize, Crossing)> {
        let home = self.home.as_mut()?;
        if !home.asked.may_repeat(index, now, None) || !home.asks.take_if_any(1, now) {
            return None;
        }
        let serial = home.serial;
        Some((home.core, Crossing::Ask { serial, index }))
    }
}

fn begun(stream: &Stream, source: Source) -> Crossing {
    Crossing::Begun {
        source,
        serial: stream.serial,
        payloads: stream.payloads.as_slice().into(),
    }
}

/// The largest cap; none if one has none, or there is none.
pub(crate) fn largest(caps: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    let mut largest = None;
    for cap in caps {
        largest = largest.max(Some(cap?));
    }
    largest
}

impl Sfu {
    /// A publisher's clock, heard here or elsewhere: every subscriber's sender report follows from it.
    pub(crate) fn take_clock(&mut self, key: StreamKey, clock: SenderClock, now: Instant) {
        let Sfu {
            sessions,
            streams,
            span,
            timers,
            ..
        } = self;
        let Some(stream) = streams[key].as_mut() else {
            return;
        };
        stream.clock = Some(clock);
        Sfu::tell_followers(span, stream, |serial| Crossing::Clock {
            serial,
            clock: Box::new(clock),
        });
        for subscriber in &stream.subscribers {
            if let Some(session) = sessions[subscriber.session].as_mut() {
                session.tracks[subscriber.track].report_due = true;
                timers.urge(subscriber.session, now);
            }
        }
    }
}
