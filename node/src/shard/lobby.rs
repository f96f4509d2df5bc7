//! The lobby: SFU sessions that are let in and that no shard has adopted yet, and which shard has adopted the others.
//!
//! A client's connectivity checks may land on any shard, and any shard answers them from here. The shard where the first
//! DTLS packet lands claims the session, once, and keeps it for good: that is where the kernel delivers the client's
//! media. Where the relay starts DTLS, the first valid check decides. What the session is told before is kept with it
//! and applied when it is adopted; one that never connects expires and gives its lease back.
//!
//! The locks here are taken for commands, for STUN requests whose ufrag the shard does not know, and for the first DTLS
//! packet. No media packet comes near them.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use metering::{Report, SessionId};
use sfu::doorstep::{ADDRESSES_MAX, ANSWER_BYTES_MAX, Checked, Doorstep};
use sfu::media::DtlsRole;
use sfu::{CloseReason, Discard, Refused};

use super::command::{Command, OpenSfu, close_reason};
use super::mailbox::{Full, ShardHandle};

/// Commands kept for a session that waits: a large room's routes twice over. Who needs more is told that the relay is
/// too busy, as with a full mailbox.
const KEPT_MAX: usize = 512;

/// Where a guest is, besides the shards' numbers.
const WAITING: usize = usize::MAX;
const GONE: usize = usize::MAX - 1;

/// A path that passed a check while its session waited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Proved {
    pub(super) source: SocketAddr,
    pub(super) local_ip: Option<IpAddr>,
    pub(super) nominated: bool,
    pub(super) at: Instant,
}

/// A session that waits, with everything that it was told.
pub(super) struct Waiting {
    pub(super) open: OpenSfu,
    pub(super) kept: Vec<Command>,
    /// In the order of their latest checks.
    pub(super) paths: Vec<Proved>,
    doorstep: Doorstep,
}

impl Waiting {
    fn prove(&mut self, path: Proved) -> Result<(), Discard> {
        match self.paths.iter().position(|known| known.source == path.source) {
            Some(known) => drop(self.paths.remove(known)),
            None if self.paths.len() == ADDRESSES_MAX => return Err(Discard::TooManyAddresses),
            None => {}
        }
        self.paths.push(path);
        Ok(())
    }

    fn keep(&mut self, command: Command) -> Result<(), Full> {
        match command {
            Command::SetTransport { transport, .. } => {
                self.doorstep = Doorstep::new(&transport);
                self.open.transport = *transport;
                return Ok(());
            }
            Command::Grant { .. } => self.kept.retain(|kept| !matches!(kept, Command::Grant { .. })),
            Command::SetStep { .. } => self.kept.retain(|kept| !matches!(kept, Command::SetStep { .. })),
            Command::Route { mid, .. } => {
                // The line's later route says it all, unless the lines themselves changed in between.
                let media = self
                    .kept
                    .iter()
                    .rposition(|kept| matches!(kept, Command::SetMedia { .. }));
                let since = media.map_or(0, |at| at + 1);
                let same =
                    |kept: &Command| matches!(kept, Command::Route { mid: other, .. } if *other == mid);
                if let Some(old) = self.kept[since..].iter().position(same) {
                    self.kept.remove(since + old);
                }
            }
            _ => {}
        }
        if self.kept.len() == KEPT_MAX {
            return Err(Full);
        }
        self.kept.push(command);
        Ok(())
    }
}

/// A session, waiting or adopted.
pub(super) struct Guest {
    /// `WAITING`, the shard that adopted it, or `GONE`; written only under the lock.
    place: AtomicUsize,
    waiting: Mutex<Option<Box<Waiting>>>,
}

/// What became of a claim.
pub(super) enum Claim {
    /// It is the claimer's from now on.
    Taken(Box<Waiting>),
    /// It is this shard's.
    With(usize),
    /// It is over.
    Gone,
}

/// What became of a check.
pub(super) enum Knock {
    /// The answer is written; `proved` if the address may begin the handshake.
    Answered { length: usize, proved: bool },
    /// Nothing was answered: the session is the caller's from now on, and so is the check.
    Claimed(Box<Waiting>),
    /// It is this shard's to answer.
    With(usize),
    /// There is no such session any more.
    Gone,
    /// It gets no answer.
    Refused(Discard),
}

impl Guest {
    fn lock(&self) -> MutexGuard<'_, Option<Box<Waiting>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The shard that adopted it. No lock.
    pub(super) fn shard(&self) -> Option<usize> {
        let place = self.place.load(Ordering::Acquire);
        (place < GONE).then_some(place)
    }

    /// Whether nobody has adopted it yet and it is not over. No lock.
    pub(super) fn is_waiting(&self) -> bool {
        self.place.load(Ordering::Acquire) == WAITING
    }

    /// Adopts the session for `shard`, if nobody has.
    pub(super) fn claim(&self, shard: usize) -> Claim {
        let mut waiting = self.lock();
        match waiting.take() {
            Some(waiting) => {
                self.place.store(shard, Ordering::Release);
                Claim::Taken(waiting)
            }
            None => self.shard().map_or(Claim::Gone, Claim::With),
        }
    }

    /// A check that names this session landed on `shard`. `free` says whether nobody else is known at its source: what
    /// comes from a neighbour's address is answered and changes nothing. `room` says whether the shard could adopt.
    #[allow(clippy::too_many_arguments)]
    pub(super) fn knock(
        &self,
        shard: usize,
        datagram: &[u8],
        path: (SocketAddr, Option<IpAddr>),
        free: bool,
        room: bool,
        now: Instant,
        answer: &mut [u8; ANSWER_BYTES_MAX],
    ) -> Knock {
        let (source, local_ip) = path;
        let mut place = self.lock();
        let Some(waiting) = place.as_mut() else {
            return self.shard().map_or(Knock::Gone, Knock::With);
        };
        let (length, nominated) = match waiting.doorstep.answer(datagram, source, answer) {
            Ok(Checked::Valid { length, nominated }) => (length, nominated),
            Ok(Checked::Refused { length }) => {
                return Knock::Answered {
                    length,
                    proved: false,
                };
            }
            Err(reason) => return Knock::Refused(reason),
        };
        if !free {
            return Knock::Answered {
                length,
                proved: false,
            };
        }
        if waiting.open.transport.role == DtlsRole::Active
            && room
            && let Some(waiting) = place.take()
        {
            self.place.store(shard, Ordering::Release);
            return Knock::Claimed(waiting);
        }
        let proved = Proved {
            source,
            local_ip,
            nominated,
            at: now,
        };
        match place.as_mut().map(|waiting| waiting.prove(proved)) {
            Some(Err(reason)) => Knock::Refused(reason),
            _ => Knock::Answered { length, proved: true },
        }
    }

    /// Ends it, if nobody has adopted it.
    fn end(&self) -> Option<Box<Waiting>> {
        let mut place = self.lock();
        let waiting = place.take()?;
        self.place.store(GONE, Ordering::Release);
        Some(waiting)
    }
}

/// A session that ended in the lobby.
pub(crate) struct Farewell {
    pub(super) session: SessionId,
    pub(super) reason: CloseReason,
    /// The only report of its lease.
    pub(super) report: Report,
}

#[derive(Default)]
struct Guests {
    /// With the local ufrag that they are known by at present.
    by_session: HashMap<SessionId, (Arc<Guest>, String)>,
    by_ufrag: HashMap<String, Arc<Guest>>,
}

/// All SFU sessions of the node, by session and by ufrag.
pub(crate) struct Lobby {
    shards: Vec<ShardHandle>,
    guests: RwLock<Guests>,
    /// Who came when, in that order, to be looked at once they have waited long enough.
    arrivals: Mutex<VecDeque<(Instant, SessionId)>>,
    sessions_max: usize,
    patience: Duration,
    draining: AtomicBool,
    farewell: Box<dyn Fn(Farewell) + Send + Sync>,
}

impl Lobby {
    /// An empty lobby before these shards. Who never connects leaves after `patience`.
    pub(crate) fn new(
        shards: Vec<ShardHandle>,
        sessions_max: usize,
        patience: Duration,
        farewell: impl Fn(Farewell) + Send + Sync + 'static,
    ) -> Lobby {
        Lobby {
            shards,
            guests: RwLock::default(),
            arrivals: Mutex::default(),
            sessions_max,
            patience,
            draining: AtomicBool::new(false),
            farewell: Box::new(farewell),
        }
    }

    /// The place where the cashier finds sessions whose shard it does not know: behind those of the shards.
    pub(crate) fn place(&self) -> usize {
        self.shards.len()
    }

    fn read(&self) -> RwLockReadGuard<'_, Guests> {
        self.guests.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Guests> {
        self.guests.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrivals(&self) -> MutexGuard<'_, VecDeque<(Instant, SessionId)>> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a session wait here. Its client may now send connectivity checks.
    pub(crate) fn open(&self, mut open: OpenSfu, now: Instant) -> Result<(), Refused> {
        if self.draining.load(Ordering::Relaxed) {
            return Err(Refused::Capacity);
        }
        if !open.permit.allows("sfu") {
            return Err(Refused::NotPermitted);
        }
        let (session, ufrag) = (open.session, open.transport.local.ufrag.clone());
        let mut guests = self.write();
        if guests.by_session.contains_key(&session) {
            return Err(Refused::Duplicate);
        }
        if guests.by_ufrag.contains_key(&ufrag) {
            return Err(Refused::UfragTaken);
        }
        if guests.by_session.len() >= self.sessions_max {
            return Err(Refused::Capacity);
        }
        // The lease's time runs from here: the first report is due as if the session had been adopted at once.
        let _ = open.allowance.poll_report(now);
        let doorstep = Doorstep::new(&open.transport);
        let waiting = Box::new(Waiting {
            open,
            kept: Vec::new(),
            paths: Vec::new(),
            doorstep,
        });
        let guest = Arc::new(Guest {
            place: AtomicUsize::new(WAITING),
            waiting: Mutex::new(Some(waiting)),
        });
        guests.by_ufrag.insert(ufrag.clone(), guest.clone());
        guests.by_session.insert(session, (guest, ufrag));
        drop(guests);
        self.arrivals().push_back((now, session));
        Ok(())
    }

    /// The session with this local ufrag.
    pub(super) fn find(&self, ufrag: &str) -> Option<Arc<Guest>> {
        self.read().by_ufrag.get(ufrag).cloned()
    }

    /// Tells a session something, wherever it is. One that is over hears nothing more.
    pub(crate) fn send(&self, session: SessionId, command: Command) -> Result<(), Full> {
        if let Command::SetTransport { transport, .. } = &command {
            self.rename(session, &transport.local.ufrag);
        }
        let Some(guest) = self
            .read()
            .by_session
            .get(&session)
            .map(|(guest, _)| guest.clone())
        else {
            return Ok(());
        };
        let end = match command {
            Command::CloseSfu { reason, .. } => Some(reason),
            Command::End { reason, .. } => Some(close_reason(reason)),
            _ => None,
        };
        match end {
            Some(reason) if self.see_off(session, reason, crate::clock::now()) => return Ok(()),
            Some(_) => {}
            None => {
                if let Some(waiting) = guest.lock().as_mut() {
                    return waiting.keep(command);
                }
            }
        }
        match guest.shard() {
            Some(shard) => self.shards[shard].send(command),
            None => Ok(()),
        }
    }

    /// An ICE restart: the session is known by another ufrag from now on.
    fn rename(&self, session: SessionId, ufrag: &str) {
        let mut guests = self.write();
        let Guests { by_session, by_ufrag } = &mut *guests;
        let Some((guest, known)) = by_session.get_mut(&session) else {
            return;
        };
        if known != ufrag && !by_ufrag.contains_key(ufrag) {
            by_ufrag.remove(known);
            by_ufrag.insert(ufrag.to_owned(), guest.clone());
            ufrag.clone_into(known);
        }
    }

    /// A session is over: nobody finds it here any more.
    pub(super) fn forget(&self, session: SessionId) {
        let mut guests = self.write();
        if let Some((guest, ufrag)) = guests.by_session.remove(&session) {
            guests.by_ufrag.remove(&ufrag);
            drop(guests);
            let _place = guest.lock();
            guest.place.store(GONE, Ordering::Release);
        }
    }

    /// Ends a session that still waits, with the only report of its lease. False if it does not wait.
    fn see_off(&self, session: SessionId, reason: CloseReason, now: Instant) -> bool {
        let guest = self
            .read()
            .by_session
            .get(&session)
            .map(|(guest, _)| guest.clone());
        let Some(mut waiting) = guest.and_then(|guest| guest.end()) else {
            return false;
        };
        self.forget(session);
        (self.farewell)(Farewell {
            session,
            reason,
            report: waiting.open.allowance.close(now),
        });
        true
    }

    /// Ends the sessions that never connected. To be called once a second or so.
    pub(super) fn expire(&self, now: Instant) {
        loop {
            let overdue = self
                .arrivals()
                .pop_front_if(|(at, _)| now.saturating_duration_since(*at) >= self.patience);
            let Some((_, session)) = overdue else {
                return;
            };
            self.see_off(session, CloseReason::Setup, now);
        }
    }

    /// No new sessions from now on; those that wait may still be adopted.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Ends the sessions that still wait.
    pub(super) fn close(&self, now: Instant) {
        self.drain();
        let all: Vec<SessionId> = self.read().by_session.keys().copied().collect();
        for session in all {
            self.see_off(session, CloseReason::Drain, now);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
