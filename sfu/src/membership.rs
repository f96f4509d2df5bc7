//! Sessions come, change and go: what the control plane asks for.

use std::sync::Arc;
use std::time::Instant;

use identity::Permit;
use metering::{Allowance, Direction, SessionId, Step};
use rand::Rng;

use crate::discard::Discard;
use crate::dtls::DATAGRAM_BYTES_MAX;
use crate::egress::Charged;
use crate::event::{CloseReason, Event, Refused};
use crate::media::{Kind, Media, Mid, Transport};
use crate::pacer::Queue;
use crate::session::Session;
use crate::span::Crossing;
use crate::stream::{SessionKey, StreamKey, Subscriber};
use crate::{Sfu, Source, dtls};

/// Reports waiting for the control plane. Past this they are left out: they are cumulative, so the next one
/// says it all.
const REPORTS_MAX: usize = 65_536;

impl Sfu {
    pub(crate) fn admit_session(
        &mut self,
        id: SessionId,
        permit: Arc<Permit>,
        transport: Transport,
        allowance: Allowance,
        now: Instant,
    ) -> Result<(), Refused> {
        if !permit.allows("sfu") {
            return Err(Refused::NotPermitted);
        }
        if self.by_id.contains_key(&id) {
            return Err(Refused::Duplicate);
        }
        if self.by_ufrag.contains_key(&transport.local.ufrag) {
            return Err(Refused::UfragTaken);
        }
        if self.by_id.len() >= self.config.sessions_max {
            return Err(Refused::Capacity);
        }
        let ufrag = transport.local.ufrag.clone();
        let (tie_breaker, rtcp_ssrc) = (self.rng.next_u64(), self.rng.next_u32().max(1));
        let config = &self.config;
        let session = Box::new(Session::new(
            id,
            permit,
            transport,
            allowance,
            config,
            tie_breaker,
            rtcp_ssrc,
            now,
        ));
        let key = match self.sessions.iter().position(Option::is_none) {
            Some(free) => {
                self.sessions[free] = Some(session);
                free
            }
            None => {
                self.sessions.push(Some(session));
                self.sessions.len() - 1
            }
        };
        self.by_id.insert(id, key);
        self.make_room_for_queues();
        self.by_ufrag.insert(ufrag, key);
        self.urge(key, now);
        Ok(())
    }

    pub(crate) fn replace_media(&mut self, key: SessionKey, media: Media) {
        let Sfu {
            sessions,
            streams,
            rng,
            ..
        } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let gone = session.set_media(media, &mut || rng.next_u32() as u16);
        for line in &session.receive {
            if let Some(stream) = line.stream.and_then(|stream| streams[stream].as_mut()) {
                stream.payloads.clone_from(&line.payloads);
            }
        }
        for stream in gone {
            self.remove_stream(stream);
        }
        self.detach_inactive(key);
        self.refresh_types(key);
        self.describe_again(key);
    }

    /// Send lines that are gone carry nothing any more.
    fn detach_inactive(&mut self, key: SessionKey) {
        let Sfu {
            sessions, streams, ..
        } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let mut released = Vec::new();
        for (at, track) in session
            .tracks
            .iter_mut()
            .enumerate()
            .filter(|(_, track)| !track.active)
        {
            released.extend(track.source.take());
            if let Some(stream) = track.stream.and_then(|stream| streams[stream].as_mut()) {
                stream.subscribers.retain(|other| {
                    *other
                        != Subscriber {
                            session: key,
                            track: at,
                        }
                });
            }
            track.attach(None, None);
        }
        released.into_iter().for_each(|source| self.release(source));
    }

    /// Matches payload types again at every subscriber of a stream.
    pub(crate) fn refresh_types_of(&mut self, key: StreamKey) {
        let Sfu {
            sessions, streams, ..
        } = self;
        let Some(stream) = streams[key].as_ref() else {
            return;
        };
        for subscriber in &stream.subscribers {
            if let Some(session) = sessions[subscriber.session].as_mut() {
                session.tracks[subscriber.track].map_types(Some(stream));
            }
        }
    }

    /// Matches payload types again wherever this session publishes or subscribes.
    fn refresh_types(&mut self, key: SessionKey) {
        let Sfu {
            sessions, streams, ..
        } = self;
        for stream in streams.iter().flatten() {
            for subscriber in &stream.subscribers {
                if (subscriber.session == key || stream.owner == key)
                    && let Some(session) = sessions[subscriber.session].as_mut()
                {
                    session.tracks[subscriber.track].map_types(Some(stream));
                }
            }
        }
    }

    pub(crate) fn replace_transport(&mut self, key: SessionKey, transport: Transport, now: Instant) {
        let taken = self
            .by_ufrag
            .get(&transport.local.ufrag)
            .is_some_and(|&owner| owner != key);
        let Some(session) = self.sessions[key].as_mut().filter(|_| !taken) else {
            return;
        };
        if !session.agent.has_credentials(&transport.local, &transport.remote) {
            self.by_ufrag.remove(session.agent.local_ufrag());
            session
                .agent
                .restart(transport.local.clone(), transport.remote.clone());
            self.by_ufrag.insert(transport.local.ufrag.clone(), key);
        }
        // Another certificate is another association: its keys are new, so its indices may start anew.
        let other_peer = session.transport.fingerprint != transport.fingerprint;
        session.transport = transport;
        if other_peer {
            self.drop_dtls(key);
        }
        self.urge(key, now);
    }

    pub(crate) fn set_route(&mut self, key: SessionKey, mid: Mid, source: Option<Source>, now: Instant) {
        let Some(session) = self.sessions[key].as_mut() else {
            return;
        };
        let Some(track) = session
            .tracks
            .iter()
            .position(|track| track.active && track.mid == mid)
        else {
            return;
        };
        if session.tracks[track].source == source && session.tracks[track].stream.is_some() {
            return;
        }
        let before = std::mem::replace(&mut session.tracks[track].source, source);
        if let Some(source) = source.filter(|_| source != before) {
            self.demand(source);
        }
        let stream = source.and_then(|source| self.stream_of(source));
        self.connect(Subscriber { session: key, track }, stream, now);
        if let Some(before) = before.filter(|_| source != before) {
            self.release(before);
        }
    }

    /// The stream that a source publishes at present.
    fn stream_of(&self, source: Source) -> Option<StreamKey> {
        self.published_here(source).or_else(|| self.replica_of(source))
    }

    /// The stream that a session of this core publishes.
    pub(crate) fn published_here(&self, source: Source) -> Option<StreamKey> {
        let &owner = self.by_id.get(&source.session)?;
        self.sessions[owner].as_ref()?.published(source.kind)
    }

    /// Makes a send line carry `stream` instead of what it carried.
    fn connect(&mut self, subscriber: Subscriber, stream: Option<StreamKey>, now: Instant) {
        let Sfu {
            sessions, streams, ..
        } = self;
        let Some(session) = sessions[subscriber.session].as_mut() else {
            return;
        };
        let track = &mut session.tracks[subscriber.track];
        if track.stream == stream {
            return;
        }
        if let Some(old) = track.stream.and_then(|old| streams[old].as_mut()) {
            old.subscribers.retain(|other| *other != subscriber);
        }
        let stream = stream.filter(|stream| streams[*stream].is_some());
        track.attach(stream, stream.and_then(|stream| streams[stream].as_deref()));
        let wants_video = track.can_carry() && session.gate.wants_video(now);
        let Some(stream) = stream.and_then(|stream| streams[stream].as_mut()) else {
            return;
        };
        stream.subscribers.push(subscriber);
        if stream.kind == Kind::Video && wants_video {
            stream.keyframes.want();
        }
        let owner = stream.owner;
        self.urge(owner, now);
        self.urge(subscriber.session, now);
    }

    /// Connects every send line that waits for what session `owner` publishes of a kind.
    pub(crate) fn connect_subscribers(&mut self, owner: SessionKey, kind: Kind, now: Instant) {
        let Some(session) = self.sessions[owner].as_ref() else {
            return;
        };
        let (source, stream) = (
            Source {
                session: session.id,
                kind,
            },
            session.published(kind),
        );
        self.connect_waiting(source, stream, now);
    }

    /// Connects every send line that waits for `source`, to what has come of it.
    pub(crate) fn connect_waiting(&mut self, source: Source, stream: Option<StreamKey>, now: Instant) {
        for key in 0..self.sessions.len() {
            let tracks = self.sessions[key]
                .as_ref()
                .map_or(0, |session| session.tracks.len());
            for track in 0..tracks {
                let waits = self.sessions[key].as_ref().is_some_and(|session| {
                    session.tracks[track].active && session.tracks[track].source == Some(source)
                });
                if waits {
                    self.connect(Subscriber { session: key, track }, stream, now);
                }
            }
        }
    }

    /// Ends a stream: its subscribers carry nothing until something takes its place.
    pub(crate) fn remove_stream(&mut self, key: StreamKey) {
        let Some(mut stream) = self.streams[key].take() else {
            return;
        };
        match &stream.home {
            // Slots of another core's pool are only let go of.
            Some(home) => {
                Sfu::forget_replica(&mut self.span, key, home);
                stream.history.clear(drop);
            }
            None => {
                Sfu::tell_followers(&mut self.span, &stream, |serial| Crossing::Ended { serial });
                stream.history.clear(|slot| self.pool.give(slot));
            }
        }
        for subscriber in &stream.subscribers {
            if let Some(session) = self.sessions[subscriber.session].as_mut() {
                session.tracks[subscriber.track].attach(None, None);
            }
        }
        if let Some(owner) = self.sessions.get_mut(stream.owner).and_then(Option::as_mut) {
            owner
                .receive
                .iter_mut()
                .filter(|line| line.stream == Some(key))
                .for_each(|line| line.stream = None);
            let sources = owner.sources.iter_mut();
            sources
                .filter(|source| source.stream == Some(key))
                .for_each(|source| source.stream = None);
        }
    }

    pub(crate) fn change_step(&mut self, key: SessionKey, step: Step, now: Instant) {
        let Some(session) = self.sessions[key].as_mut() else {
            return;
        };
        let before = session.gate.step();
        if before == step {
            return;
        }
        session.gate.set_step(step, now);
        let id = session.id;
        if step == Step::Ended {
            self.close_key(key, CloseReason::Balance, now);
            return;
        }
        let was_held = before == Step::Held;
        if step == Step::Held {
            for track in &mut session.tracks {
                track.rewrite.wait();
            }
            if let Some(report) = session.allowance.pause(now) {
                self.events.push_back(Event::Report { session: id, report });
            }
        } else if was_held {
            session.allowance.resume();
        }
        session.starved = None;
        self.urge(key, now);
        // The publishers this session watches may hear of another bandwidth, and of a key frame at once.
        let watched = self.sessions[key]
            .as_ref()
            .map_or(0, |session| session.tracks.len());
        for track in 0..watched {
            let stream = self.sessions[key]
                .as_ref()
                .and_then(|session| session.tracks[track].stream);
            if let Some(owner) = stream
                .and_then(|stream| self.streams[stream].as_ref())
                .map(|stream| stream.owner)
            {
                if let Some(publisher) = self.sessions.get_mut(owner).and_then(Option::as_mut) {
                    publisher.bandwidth_changed = true;
                }
                self.urge(owner, now);
            }
        }
    }

    pub(crate) fn close_key(&mut self, key: SessionKey, reason: CloseReason, now: Instant) {
        self.say_goodbye(key, reason, now);
        self.drop_dtls(key);
        let Some(mut session) = self.sessions[key].take() else {
            return;
        };
        self.by_id.remove(&session.id);
        self.timers.remove(key);
        self.queues[key] = Queue::default();
        self.by_ufrag.remove(session.agent.local_ufrag());
        for address in session.agent.addresses() {
            if self.by_address.get(&address) == Some(&key) {
                self.by_address.remove(&address);
            }
        }
        for (at, track) in session.tracks.iter().enumerate() {
            if let Some(stream) = track.stream.and_then(|stream| self.streams[stream].as_mut()) {
                stream.subscribers.retain(|other| {
                    *other
                        != Subscriber {
                            session: key,
                            track: at,
                        }
                });
            }
        }
        let routed: Vec<Source> = session.tracks.iter().filter_map(|track| track.source).collect();
        routed.into_iter().for_each(|source| self.release(source));
        let published: Vec<StreamKey> = session.receive.iter().filter_map(|line| line.stream).collect();
        published
            .into_iter()
            .for_each(|stream| self.remove_stream(stream));
        self.retransmissions
            .retain(|retransmission| retransmission.session != key);
        let ended = if reason.bills_to_last_sign_of_life() {
            session.last_sign_of_life()
        } else {
            now
        };
        let report = session.allowance.close(ended);
        self.events.push_back(Event::Closed {
            session: session.id,
            reason,
            report,
        });
    }

    /// Tells the client over DTLS that it is over, unless nobody is there to hear it.
    fn say_goodbye(&mut self, key: SessionKey, reason: CloseReason, now: Instant) {
        let Sfu { sessions, outbox, .. } = self;
        let Some(session) = sessions[key].as_mut() else {
            return;
        };
        let absent = matches!(reason, CloseReason::Consent | CloseReason::Setup);
        let (Some(path), Some(connection)) = (session.agent.selected(), session.dtls.as_mut()) else {
            return;
        };
        if absent || !connection.is_established() {
            return;
        }
        connection.close();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        while let dtls::Polled::Datagram(length) = connection.poll(&mut buffer) {
            for (piece, bytes) in dtls::pieces(&buffer[..length]) {
                if bytes > 0 && session.allowance.charge(Direction::ToClient, bytes, now).is_err() {
                    self.counters.discard(Discard::Exhausted);
                    continue;
                }
                let charged = (bytes > 0).then_some(Charged {
                    session: session.id,
                    bytes,
                });
                outbox.push(path, charged, |out| {
                    out[..piece.len()].copy_from_slice(piece);
                    Some(piece.len())
                });
            }
        }
    }

    pub(crate) fn report(&mut self, key: SessionKey, now: Instant) {
        let Some(session) = self.sessions[key].as_mut() else {
            return;
        };
        // A closing segment and the last usage come one after the other.
        while let Some(report) = session.allowance.poll_report(now) {
            if self.events.len() < REPORTS_MAX || report.closed {
                self.events.push_back(Event::Report {
                    session: session.id,
                    report,
                });
            }
        }
    }
}
