//! The sessions of this node and what a change in one of them means for the others: plain state behind the control
//! plane's one short lock. Nothing here waits; shards and sockets are told through bounded queues, in the order in
//! which things happened. Who cannot be told any more is closed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use identity::{Did, Permit};
use metering::{AccountId, SessionId};
use sfu::room::{Change, Member};
use sfu::sdp::Negotiation;
use tokio::sync::mpsc;

use crate::clock;
use crate::config::Config;
use crate::http::problem::Problem;
use crate::rooms::Rooms;
use crate::session::{EndReason, Told};
use crate::shard::{Command, Lobby, OpenSfu};

/// The longest that a session lasts: past it the token that opened it says too little about who is there.
const SESSION_LIFETIME_MAX: Duration = Duration::from_secs(12 * 3600);

/// What the control plane knows of a session.
pub(crate) struct Session {
    /// Who opened it.
    pub(crate) permit: Arc<Permit>,
    /// Who pays.
    pub(crate) account: AccountId,
    /// Its room.
    pub(crate) room: Arc<str>,
    /// The name it holds; subscribers hold none.
    pub(crate) name: Option<String>,
    /// Its offers and answers. This lock is taken before the control plane's, never while holding it.
    pub(crate) negotiation: Arc<Mutex<Negotiation>>,
    /// Where to tell its client things.
    pub(crate) outbox: Option<mpsc::Sender<Told>>,
    /// The tag of its ICE session.
    pub(crate) etag: String,
    /// When it was opened.
    pub(crate) opened: Instant,
}

/// A place that is taken while a session is being admitted.
pub(crate) struct Place {
    /// The session to be.
    pub(crate) session: SessionId,
    /// Who pays.
    pub(crate) account: AccountId,
    /// Its room.
    pub(crate) room: Arc<str>,
    /// The name it will hold.
    pub(crate) name: Option<String>,
}

/// Sessions and rooms.
pub(crate) struct Registry {
    lobby: Arc<Lobby>,
    sessions: HashMap<SessionId, Session>,
    rooms: Rooms,
    /// Sessions, admitted or about to be, of each account.
    per_account: HashMap<AccountId, usize>,
    /// The sessions in which a holder presented credentials, the last one last.
    presenters: HashMap<Did, Vec<SessionId>>,
    places: usize,
    sessions_max: usize,
    per_account_max: usize,
}

impl Registry {
    pub(crate) fn new(config: &Config, lobby: Arc<Lobby>) -> Registry {
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        Registry {
            lobby,
            sessions: HashMap::new(),
            rooms: Rooms::new(whole(config.room.rooms_max), whole(config.room.members_max)),
            per_account: HashMap::new(),
            presenters: HashMap::new(),
            places: 0,
            sessions_max: whole(config.sfu.sessions_max),
            per_account_max: whole(config.sfu.sessions_per_account_max),
        }
    }

    /// Live sessions and rooms.
    pub(crate) fn live(&self) -> (usize, usize) {
        (self.sessions.len(), self.rooms.len())
    }

    /// A live session.
    pub(crate) fn session(&self, session: SessionId) -> Option<&Session> {
        self.sessions.get(&session)
    }

    /// Takes a place for a session that is being admitted, with the name it wants. Given back with
    /// [`Registry::give_back`] or turned into a session with [`Registry::open`].
    pub(crate) fn reserve(
        &mut self,
        session: SessionId,
        room: &str,
        name: Option<&str>,
        permit: &Permit,
    ) -> Result<Place, Problem> {
        if self.places >= self.sessions_max {
            return Err(Problem::new(
                "capacity",
                "This relay is full; try again later or use another one.",
            ));
        }
        let account = AccountId::new(permit.account());
        if self.per_account.get(&account).copied().unwrap_or_default() >= self.per_account_max {
            let detail = "This account has as many sessions as one may have; end one of them first.";
            return Err(Problem::new("capacity", detail));
        }
        let room: Arc<str> = room.into();
        self.rooms
            .reserve(&room, name, &permit.subject().into(), session)?;
        *self.per_account.entry(account.clone()).or_default() += 1;
        self.places += 1;
        Ok(Place {
            session,
            account,
            room,
            name: name.map(str::to_owned),
        })
    }

    /// Gives a reserved place back.
    pub(crate) fn give_back(&mut self, place: &Place) {
        self.forget(&place.account, &place.room, place.name.as_deref(), place.session);
    }

    fn forget(&mut self, account: &AccountId, room: &str, name: Option<&str>, session: SessionId) {
        self.rooms.leave(room, name, session);
        self.places = self.places.saturating_sub(1);
        if let Some(count) = self.per_account.get_mut(account) {
            *count -= 1;
            if *count == 0 {
                self.per_account.remove(account);
            }
        }
    }

    /// Opens an admitted session: in the lobby, in its room, in place of the one that held its name. The reason of a
    /// failure is the client's to read; the place is then still reserved.
    pub(crate) fn open(
        &mut self,
        place: &Place,
        session: Session,
        member: Member,
        in_lobby: OpenSfu,
    ) -> Result<(), Problem> {
        let replaced = match place.name.as_deref() {
            Some(name) => self.rooms.take_over(&place.room, name, place.session)?,
            None => None,
        };
        if let Some(old) = replaced {
            self.end(old, EndReason::Replaced);
        }
        self.lobby.open(in_lobby, clock::now()).map_err(|refused| {
            let detail = format!("This relay has no place for the session: {refused}.");
            Problem::new("capacity", detail)
        })?;
        let permit = session.permit.clone();
        self.sessions.insert(place.session, session);
        self.set_permit(place.session, permit);
        let joined = match self.rooms.room(&place.room) {
            Some(room) => room
                .join(member)
                .map_err(|full| Problem::new("capacity", full.to_string())),
            None => Err(Problem::internal(&"a reserved room is gone")),
        };
        match joined {
            Ok(changes) => {
                self.apply(changes);
                Ok(())
            }
            Err(problem) => {
                if let Some(gone) = self.sessions.remove(&place.session) {
                    self.forget_presenter(&gone.permit, place.session);
                }
                let close = Command::CloseSfu {
                    session: place.session,
                    reason: EndReason::Internal.close_reason(),
                };
                let _ = self.lobby.send(place.session, close);
                Err(problem)
            }
        }
    }

    /// The holder of a session presented credentials.
    pub(crate) fn set_permit(&mut self, session: SessionId, permit: Arc<Permit>) {
        let Some(known) = self.sessions.get_mut(&session) else {
            return;
        };
        if let Some(holder) = permit.holder().filter(|_| !permit.token().presented().is_empty()) {
            let presenters = self.presenters.entry(holder.clone()).or_default();
            presenters.retain(|presenter| *presenter != session);
            presenters.push(session);
        }
        known.permit = permit;
    }

    /// The permit of the session in which a holder presented credentials last.
    pub(crate) fn presenter(&self, holder: &Did) -> Option<Arc<Permit>> {
        let session = self.sessions.get(self.presenters.get(holder)?.last()?)?;
        Some(session.permit.clone())
    }

    fn forget_presenter(&mut self, permit: &Permit, session: SessionId) {
        let Some(holder) = permit.holder() else { return };
        if let Some(presenters) = self.presenters.get_mut(holder) {
            presenters.retain(|presenter| *presenter != session);
            if presenters.is_empty() {
                self.presenters.remove(holder);
            }
        }
    }

    /// Tells the session's shard something. A shard that cannot take it has lost track of the session, which ends.
    pub(crate) fn at_shard(&mut self, session: SessionId, command: Command) {
        if self.sessions.contains_key(&session) && self.lobby.send(session, command).is_err() {
            tracing::error!(%session, "the shard's queue is full");
            self.end(session, EndReason::Internal);
        }
    }

    /// Is there a live session in the room whose permit is such?
    pub(crate) fn has_in_room(&self, room: &str, such: impl Fn(&Permit) -> bool) -> bool {
        self.sessions
            .values()
            .any(|session| &*session.room == room && such(&session.permit))
    }

    /// Works on the room of a session, and applies what follows.
    pub(crate) fn in_room(
        &mut self,
        session: SessionId,
        work: impl FnOnce(&mut sfu::room::Room) -> Vec<Change>,
    ) {
        let Some(room) = self.sessions.get(&session).map(|known| known.room.clone()) else {
            return;
        };
        let changes = self.rooms.room(&room).map(work).unwrap_or_default();
        self.apply(changes);
    }

    /// Whoever publishes under `name` in the room of a session.
    pub(crate) fn named(&mut self, session: SessionId, name: &str) -> Option<&Session> {
        let room = self.sessions.get(&session)?.room.clone();
        let publisher = self.rooms.room(&room)?.named(name)?;
        self.sessions.get(&publisher)
    }

    /// Lines that the session still lacks (audio, video).
    pub(crate) fn lines_needed(&mut self, session: SessionId) -> (usize, usize) {
        let Some(room) = self.sessions.get(&session).map(|known| known.room.clone()) else {
            return (0, 0);
        };
        self.rooms
            .room(&room)
            .map_or((0, 0), |room| room.lines_needed(session))
    }

    /// Remembers the tag of a session's new ICE credentials.
    pub(crate) fn set_etag(&mut self, session: SessionId, etag: String) {
        if let Some(known) = self.sessions.get_mut(&session) {
            known.etag = etag;
        }
    }

    /// Ends a session: its shard, its client and its room learn of it.
    pub(crate) fn end(&mut self, session: SessionId, reason: EndReason) {
        let changes = self.remove(session, reason, true);
        self.apply(changes);
    }

    /// The shard has closed a session by itself: its client and its room learn of it.
    pub(crate) fn closed(&mut self, session: SessionId, reason: EndReason) {
        let changes = self.remove(session, reason, false);
        self.apply(changes);
    }

    /// Tells every client with a socket.
    pub(crate) fn tell_all(&mut self, told: &Told) {
        let slow: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| {
                session
                    .outbox
                    .as_ref()
                    .is_some_and(|out| out.try_send(told.clone()).is_err())
            })
            .map(|(id, _)| *id)
            .collect();
        for session in slow {
            self.end(session, EndReason::SlowClient);
        }
    }

    /// Ends the sessions that have lasted as long as one may.
    pub(crate) fn end_overdue(&mut self, now: Instant) {
        let overdue: Vec<SessionId> = self
            .sessions
            .iter()
            .filter(|(_, session)| now.saturating_duration_since(session.opened) > SESSION_LIFETIME_MAX)
            .map(|(id, _)| *id)
            .collect();
        for session in overdue {
            self.end(session, EndReason::TimeLimit);
        }
    }

    /// Ends the sessions whose permits are such, and says how many they were.
    pub(crate) fn end_where(&mut self, such: impl Fn(&Permit) -> bool, reason: EndReason) -> usize {
        let sessions = self.sessions.iter().filter(|(_, session)| such(&session.permit));
        let ending: Vec<SessionId> = sessions.map(|(id, _)| *id).collect();
        for session in &ending {
            self.end(*session, reason);
        }
        ending.len()
    }

    /// Ends all sessions.
    pub(crate) fn end_all(&mut self, reason: EndReason) {
        let all: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in all {
            self.end(session, reason);
        }
    }

    fn remove(&mut self, session: SessionId, reason: EndReason, at_shard: bool) -> Vec<Change> {
        let Some(gone) = self.sessions.remove(&session) else {
            return Vec::new();
        };
        self.forget_presenter(&gone.permit, session);
        tracing::info!(%session, reason = reason.as_str(), "session ended");
        if at_shard {
            let close = Command::CloseSfu {
                session,
                reason: reason.close_reason(),
            };
            // A full queue here only delays the end: the core closes by itself once the client's checks stop.
            let _ = self.lobby.send(session, close);
        }
        if let Some(outbox) = &gone.outbox {
            // A full outbox is dropped with the session, which its socket takes as the end.
            let _ = outbox.try_send(Told::Ended(reason));
        }
        let changes = self
            .rooms
            .room(&gone.room)
            .map(|room| room.leave(session))
            .unwrap_or_default();
        self.forget(&gone.account, &gone.room, gone.name.as_deref(), session);
        changes
    }

    /// Carries out what follows from a change in a room, and from what that leads to.
    fn apply(&mut self, changes: Vec<Change>) {
        let mut queue = VecDeque::from(changes);
        while let Some(change) = queue.pop_front() {
            let (session, told) = match change {
                Change::Route {
                    subscriber,
                    mid,
                    source,
                } => {
                    let route = Command::Route {
                        subscriber,
                        mid,
                        source,
                    };
                    if self.sessions.contains_key(&subscriber) && self.lobby.send(subscriber, route).is_err()
                    {
                        tracing::error!(session = %subscriber, "the shard's queue is full");
                        queue.extend(self.remove(subscriber, EndReason::Internal, true));
                    }
                    continue;
                }
                Change::Tracks { subscriber, tracks } => (subscriber, Told::Tracks(tracks)),
                Change::Participants { subscriber, list } => (subscriber, Told::Participants(list)),
                Change::NeedLines { subscriber, .. } => (subscriber, Told::NeedLines),
            };
            let Some(known) = self.sessions.get(&session) else {
                continue;
            };
            if known
                .outbox
                .as_ref()
                .is_some_and(|outbox| outbox.try_send(told).is_err())
            {
                queue.extend(self.remove(session, EndReason::SlowClient, true));
            }
        }
    }
}
