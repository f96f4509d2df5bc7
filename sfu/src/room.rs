//! Who hears and sees whom: the slots of each subscriber and what they carry. Pure: joins and leaves go in,
//! [`Change`]s for the core and for the clients come out.
//!
//! A publisher occupies one slot, an audio and a video m-line, at each subscriber that wants it, from when it first
//! publishes until it leaves or is unsubscribed; then the slot serves the next one without renegotiation. A slot
//! never changes hands otherwise, so tiles do not jump. Muting changes what the others are told, not the routes.

mod member;

use std::sync::Arc;

use metering::SessionId;

use crate::Source;
use crate::media::{Kind, Mid};
use member::{Place, Subscription};

/// A participant's place at a subscriber: the m-lines that carry its audio and its video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slot {
    /// The audio line.
    pub audio: Option<Mid>,
    /// The video line.
    pub video: Option<Mid>,
}

/// Which kinds somebody publishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Published {
    /// Audio.
    pub audio: bool,
    /// Video.
    pub video: bool,
}

/// What a member takes part as.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Is seen by everybody and sees everybody else.
    Call {
        /// Its name in the room.
        name: Arc<str>,
    },
    /// Is seen and sees nobody.
    Publish {
        /// Its name in the room.
        name: Arc<str>,
    },
    /// Sees one publisher and is not seen.
    Subscribe {
        /// Whom.
        to: Arc<str>,
    },
}

/// Somebody who joins.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its session.
    pub session: SessionId,
    /// Its DID or bearer account: who may replace it.
    pub holder: Arc<str>,
    /// What as.
    pub mode: Mode,
    /// What it publishes (`Negotiation::published`).
    pub published: Published,
    /// What it can receive on (`Negotiation::slots`).
    pub slots: Vec<Slot>,
}

/// What one of a subscriber's lines carries now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// The subscriber's m-line.
    pub mid: Mid,
    /// Audio or video.
    pub kind: Kind,
    /// Whose.
    pub name: Arc<str>,
}

/// Somebody in the room, as the others are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Participant {
    /// The name.
    pub name: Arc<str>,
    /// Publishes audio and has not muted it.
    pub audio: bool,
    /// Publishes video and has not muted it.
    pub video: bool,
}

/// What follows from a change in the room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// For the core: what a line carries from now on.
    Route {
        /// Whose line.
        subscriber: SessionId,
        /// Which line.
        mid: Mid,
        /// What it carries.
        source: Option<Source>,
    },
    /// For the subscriber: the whole mapping of its lines.
    Tracks {
        /// Whom to tell.
        subscriber: SessionId,
        /// The mapping.
        tracks: Vec<Track>,
    },
    /// For the subscriber: everybody else in the room.
    Participants {
        /// Whom to tell.
        subscriber: SessionId,
        /// Everybody else.
        list: Vec<Participant>,
    },
    /// For the subscriber: it needs further lines (`Negotiation::offer_more`).
    NeedLines {
        /// Whose lines.
        subscriber: SessionId,
        /// Further audio lines.
        audio: usize,
        /// Further video lines.
        video: usize,
    },
}

/// Whether a name may be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it.
    Free,
    /// The same holder has it: that session is to leave first.
    Replaces(SessionId),
    /// Somebody else has it.
    Taken,
}

/// Why somebody cannot join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RoomError {
    /// The room is full.
    #[error(
        "the room is full: at most {MEMBERS_MAX} take part under a name and {WATCHERS_MAX} watch; wait until somebody leaves"
    )]
    Full,
    /// The name is another member's, or the session is already in.
    #[error("the name is taken by somebody else in this room: choose another one")]
    NameTaken,
}

/// Members with a name: each change of one tells every other, so the work grows with the square.
pub const MEMBERS_MAX: usize = 64;
/// Members who only watch: nobody is told of them, so each is work for itself alone.
pub const WATCHERS_MAX: usize = 10_000;
/// Slots of a subscriber: more tiles than this nobody looks at, and more lines do not fit into one description.
pub const SLOTS_MAX: usize = 16;

/// One room.
#[derive(Debug, Default)]
pub struct Room {
    /// Those with a name, in the order they joined: earlier publishers get slots first.
    named: Vec<Place>,
    /// Those who only watch.
    watchers: Vec<Place>,
}

/// Where a member sits.
#[derive(Debug, Clone, Copy)]
enum Seat {
    Named(usize),
    Watcher(usize),
}

impl Room {
    /// Nobody is in.
    #[must_use]
    pub fn new() -> Room {
        Room::default()
    }

    /// Members of all modes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.named.len() + self.watchers.len()
    }

    /// Whether nobody is in.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.watchers.is_empty()
    }

    /// Whether `holder` may take `name`. Where it replaces a session of its own, that one is to [`Room::leave`]
    /// first.
    #[must_use]
    pub fn claim(&self, name: &str, holder: &str) -> Claim {
        match self
            .named
            .iter()
            .find(|place| place.name().is_some_and(|taken| &**taken == name))
        {
            None => Claim::Free,
            Some(place) if &*place.holder == holder => Claim::Replaces(place.session),
            Some(_) => Claim::Taken,
        }
    }

    /// Who has that name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<SessionId> {
        let has_name = |place: &&Place| place.name().is_some_and(|taken| &**taken == name);
        self.named.iter().find(has_name).map(|place| place.session)
    }

    /// Somebody comes in.
    pub fn join(&mut self, member: Member) -> Result<Vec<Change>, RoomError> {
        let place = Place::new(member);
        let same_name = |other: &Place| place.name().is_some() && other.name() == place.name();
        if self.seat(place.session).is_some() || self.named.iter().any(same_name) {
            return Err(RoomError::NameTaken);
        }
        let (seats, most) = match place.name() {
            Some(_) => (&mut self.named, MEMBERS_MAX),
            None => (&mut self.watchers, WATCHERS_MAX),
        };
        if seats.len() >= most {
            return Err(RoomError::Full);
        }
        let is_named = place.name().is_some();
        seats.push(place);
        Ok(match is_named {
            true => self.settle(),
            false => self.settle_only(Seat::Watcher(self.watchers.len() - 1)),
        })
    }

    /// Somebody goes. What its own lines carried is not routed back: its session ends.
    pub fn leave(&mut self, session: SessionId) -> Vec<Change> {
        match self.seat(session) {
            Some(Seat::Named(at)) => {
                self.named.remove(at);
                self.settle()
            }
            Some(Seat::Watcher(at)) => {
                self.watchers.swap_remove(at);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    /// What a member publishes, after each negotiation.
    pub fn set_published(&mut self, session: SessionId, published: Published) -> Vec<Change> {
        self.change(session, |place| place.published = published)
    }

    /// The lines that a member receives on, after each negotiation (`Negotiation::slots`).
    pub fn set_slots(&mut self, session: SessionId, slots: Vec<Slot>) -> Vec<Change> {
        self.change(session, |place| place.set_slots(slots))
    }

    /// What a member says it has muted. The others are told; its routes stay, so that it is back at once.
    pub fn set_mute(&mut self, session: SessionId, audio: bool, video: bool) -> Vec<Change> {
        self.change(session, |place| place.muted = Published { audio, video })
    }

    /// What of `name` a member wants; everything until it says otherwise. Wanting nothing frees the slot.
    pub fn set_subscription(
        &mut self,
        session: SessionId,
        name: &str,
        audio: bool,
        video: bool,
    ) -> Vec<Change> {
        self.change(session, |place| {
            place.subscribe(name, Subscription { audio, video })
        })
    }

    /// Lines (audio, video) that a member still lacks. [`Change::NeedLines`] comes once for each further line; ask
    /// here again when an offer was lost.
    #[must_use]
    pub fn lines_needed(&self, session: SessionId) -> (usize, usize) {
        let place = self.seat(session).map(|seat| self.place(seat));
        place.map_or((0, 0), |place| place.lines_needed(self.wanted(place).len()))
    }

    fn seat(&self, session: SessionId) -> Option<Seat> {
        let at = |places: &[Place]| places.iter().position(|place| place.session == session);
        at(&self.named)
            .map(Seat::Named)
            .or_else(|| at(&self.watchers).map(Seat::Watcher))
    }

    fn place(&self, seat: Seat) -> &Place {
        match seat {
            Seat::Named(at) => &self.named[at],
            Seat::Watcher(at) => &self.watchers[at],
        }
    }

    fn place_mut(&mut self, seat: Seat) -> &mut Place {
        match seat {
            Seat::Named(at) => &mut self.named[at],
            Seat::Watcher(at) => &mut self.watchers[at],
        }
    }

    fn change(&mut self, session: SessionId, change: impl FnOnce(&mut Place)) -> Vec<Change> {
        let Some(seat) = self.seat(session) else {
            return Vec::new();
        };
        change(self.place_mut(seat));
        match seat {
            Seat::Named(_) => self.settle(),
            Seat::Watcher(_) => self.settle_only(seat),
        }
    }

    /// The publishers that `place` wants, in the order they joined.
    fn wanted(&self, place: &Place) -> Vec<SessionId> {
        let wants = |other: &&Place| {
            let subscription = other
                .name()
                .map(|name| place.subscription_to(name))
                .unwrap_or_default();
            let audio = other.published.audio && subscription.audio;
            let video = other.published.video && subscription.video;
            other.session != place.session && (audio || video)
        };
        self.named
            .iter()
            .filter(wants)
            .map(|other| other.session)
            .collect()
    }

    /// Brings every subscriber's slots, routes and lists up to date, and says what changed.
    fn settle(&mut self) -> Vec<Change> {
        let named = (0..self.named.len()).map(Seat::Named);
        let seats: Vec<Seat> = named.chain((0..self.watchers.len()).map(Seat::Watcher)).collect();
        let (mut routes, mut told) = (Vec::new(), Vec::new());
        for seat in seats {
            self.settle_seat(seat, &mut routes, &mut told);
        }
        routes.extend(told);
        routes
    }

    /// The same for one whom nobody else is told of.
    fn settle_only(&mut self, seat: Seat) -> Vec<Change> {
        let (mut routes, mut told) = (Vec::new(), Vec::new());
        self.settle_seat(seat, &mut routes, &mut told);
        routes.extend(told);
        routes
    }

    fn settle_seat(&mut self, seat: Seat, routes: &mut Vec<Change>, told: &mut Vec<Change>) {
        let wanted = self.wanted(self.place(seat));
        self.place_mut(seat).occupy(&wanted);
        let tracks = self.tracks(self.place(seat));
        let list = self.participants(self.place(seat));
        let place = self.place_mut(seat);
        let subscriber = place.session;
        let now: Vec<(Mid, Source)> = tracks
            .iter()
            .map(|(track, source)| (track.mid, *source))
            .collect();
        let gone = place
            .routes
            .iter()
            .filter(|(mid, _)| now.iter().all(|(kept, _)| kept != mid));
        routes.extend(gone.map(|(mid, _)| Change::Route {
            subscriber,
            mid: *mid,
            source: None,
        }));
        let new = now.iter().filter(|route| !place.routes.contains(route));
        routes.extend(new.map(|(mid, source)| Change::Route {
            subscriber,
            mid: *mid,
            source: Some(*source),
        }));
        place.routes = now;
        let tracks: Vec<Track> = tracks.into_iter().map(|(track, _)| track).collect();
        if place.tracks.as_ref() != Some(&tracks) {
            place.tracks = Some(tracks.clone());
            told.push(Change::Tracks { subscriber, tracks });
        }
        if place.participants.as_ref() != Some(&list) {
            place.participants = Some(list.clone());
            told.push(Change::Participants { subscriber, list });
        }
        if let Some((audio, video)) = place.ask(wanted.len()) {
            told.push(Change::NeedLines {
                subscriber,
                audio,
                video,
            });
        }
    }

    /// What each of a subscriber's lines is to carry.
    fn tracks(&self, place: &Place) -> Vec<(Track, Source)> {
        let mut tracks = Vec::new();
        for (slot, occupant) in place.occupied() {
            let Some(publisher) = self.named.iter().find(|other| other.session == occupant) else {
                continue;
            };
            let Some(name) = publisher.name() else { continue };
            let subscription = place.subscription_to(name);
            for (kind, mid, flows) in [
                (
                    Kind::Audio,
                    slot.audio,
                    publisher.published.audio && subscription.audio,
                ),
                (
                    Kind::Video,
                    slot.video,
                    publisher.published.video && subscription.video,
                ),
            ] {
                if let (Some(mid), true) = (mid, flows) {
                    let track = Track {
                        mid,
                        kind,
                        name: name.clone(),
                    };
                    tracks.push((
                        track,
                        Source {
                            session: occupant,
                            kind,
                        },
                    ));
                }
            }
        }
        tracks
    }

    /// Everybody else, as `place` is told; those without a socket are told nothing.
    fn participants(&self, place: &Place) -> Vec<Participant> {
        let others = self.named.iter().filter(|other| other.session != place.session);
        let participant = |other: &Place| {
            Some(Participant {
                name: other.name()?.clone(),
                audio: other.published.audio && !other.muted.audio,
                video: other.published.video && !other.muted.video,
            })
        };
        match place.mode {
            Mode::Call { .. } => others.filter_map(participant).collect(),
            Mode::Publish { .. } | Mode::Subscribe { .. } => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests;
