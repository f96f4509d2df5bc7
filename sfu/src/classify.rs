//! The first stage: what is this datagram, and whose is it?
//!
//! Connectivity checks name their session by ufrag. Everything else is known by its source address, which an
//! authenticated check has vouched for; anything from elsewhere is dropped before it is looked at.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use rand::Rng;
use wire::demux::{Kind, classify};
use wire::stun::{Class, Message, Method, TransactionId};

use crate::Sfu;
use crate::discard::Discard;
use crate::dtls::{Connection, DATAGRAM_BYTES_MAX, DtlsRefused, Polled, pieces};
use crate::egress::Charged;
use crate::event::Event;
use crate::ice::{Answered, Path};
use crate::media::DtlsRole;
use crate::session::Session;
use crate::stream::SessionKey;

impl Sfu {
    pub(crate) fn classify(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local: Option<IpAddr>,
        datagram: &[u8],
    ) -> Result<(), Discard> {
        if source.port() == 0 {
            return Err(Discard::SourcePortZero);
        }
        let path = Path {
            remote: source,
            local,
        };
        let kind = classify(datagram);
        if kind == Kind::Stun {
            return self.handle_stun(now, path, datagram);
        }
        let &key = self.by_address.get(&source).ok_or(Discard::UnknownAddress)?;
        let session = self.sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        if !session.ingress.take_if_any(datagram.len() as u64 * 8, now) {
            return Err(Discard::PublisherTooFast);
        }
        match kind {
            Kind::Rtp => self.admit(now, key, datagram),
            Kind::Rtcp => self.handle_rtcp(now, key, datagram),
            Kind::Dtls => self.handle_dtls(now, key, datagram),
            Kind::Stun | Kind::Zrtp | Kind::TurnChannel | Kind::Unknown => Err(Discard::UnknownProtocol),
        }
    }

    fn handle_stun(&mut self, now: Instant, path: Path, datagram: &[u8]) -> Result<(), Discard> {
        let message = Message::parse(datagram).map_err(|_| Discard::MalformedStun)?;
        if message.method() != Method::BINDING {
            return Err(Discard::MalformedStun);
        }
        match message.class() {
            Class::Request => self.handle_check(now, path, &message),
            Class::Success | Class::Error => self.handle_check_response(path, &message),
            // Keepalives (RFC 8445 section 11) ask for nothing.
            Class::Indication => Ok(()),
        }
    }

    fn handle_check(&mut self, now: Instant, path: Path, message: &Message<'_>) -> Result<(), Discard> {
        let username = message.username().ok_or(Discard::MalformedStun)?;
        let (ufrag, _) = username.split_once(':').ok_or(Discard::MalformedStun)?;
        let &key = self.by_ufrag.get(ufrag).ok_or(Discard::UnknownUfrag)?;
        let owner = self.by_address.get(&path.remote).copied();
        let contested = owner.is_some_and(|owner| owner != key && self.receives_at(owner, path));
        let Sfu {
            sessions,
            rng,
            outbox,
            ..
        } = self;
        let session = sessions[key].as_mut().ok_or(Discard::UnknownUfrag)?;
        let connected = session.is_connected();
        let mut answered = Err(Discard::ControlBacklog);
        outbox.push(path, None, |out| {
            let transaction = || transaction(key, rng);
            answered = session
                .agent
                .handle_request(message, path, connected, transaction, now, out);
            match answered {
                Ok(Answered::Valid { length, .. } | Answered::Refused { length }) => Some(length),
                Err(_) => None,
            }
        });
        let Answered::Valid { forgotten, .. } = answered? else {
            return Ok(());
        };
        if let Some(forgotten) = forgotten.filter(|address| self.by_address.get(address) == Some(&key)) {
            self.by_address.remove(&forgotten);
        }
        self.settle_path(key, path, owner, contested, now)
    }

    /// A check over `path` was answered before the session came here, `at` some time ago.
    pub(crate) fn admit_path(
        &mut self,
        key: SessionKey,
        path: Path,
        nominated: bool,
        at: Instant,
        now: Instant,
    ) -> Result<(), Discard> {
        let owner = self.by_address.get(&path.remote).copied();
        let contested = owner.is_some_and(|owner| owner != key && self.receives_at(owner, path));
        let Sfu { sessions, rng, .. } = self;
        let session = sessions[key].as_mut().ok_or(Discard::UnknownUfrag)?;
        let connected = session.is_connected();
        let transaction = || transaction(key, rng);
        session
            .agent
            .accept(path, nominated, connected, transaction, at)?;
        self.settle_path(key, path, owner, contested, now)
    }

    /// What a valid check leads to: the address is the session's, unless somebody else receives there; then it has to
    /// prove itself first.
    fn settle_path(
        &mut self,
        key: SessionKey,
        path: Path,
        owner: Option<SessionKey>,
        contested: bool,
        now: Instant,
    ) -> Result<(), Discard> {
        let Sfu { sessions, rng, .. } = self;
        let session = sessions[key].as_mut().ok_or(Discard::UnknownUfrag)?;
        if contested {
            session.agent.prove(path, transaction(key, rng), now);
        } else if owner != Some(key) {
            self.by_address.insert(path.remote, key);
        }
        self.urge(key, now);
        self.start_dtls(key, now);
        Ok(())
    }

    /// Whether `owner` is alive and receives its media at this address.
    fn receives_at(&self, owner: SessionKey, path: Path) -> bool {
        let session = self.sessions[owner].as_ref();
        session
            .and_then(|session| session.agent.selected())
            .is_some_and(|at| at.remote == path.remote)
    }

    fn handle_check_response(&mut self, path: Path, message: &Message<'_>) -> Result<(), Discard> {
        let key = transaction_owner(message.transaction_id());
        let session = self
            .sessions
            .get_mut(key)
            .and_then(Option::as_mut)
            .ok_or(Discard::UnexpectedResponse)?;
        session.agent.handle_response(message, path)?;
        self.by_address.insert(path.remote, key);
        Ok(())
    }

    /// The active side starts after the first valid check, the passive one waits for a ClientHello.
    fn start_dtls(&mut self, key: SessionKey, now: Instant) {
        let active = self.sessions[key]
            .as_ref()
            .is_some_and(|session| session.dtls.is_none() && session.transport.role == DtlsRole::Active);
        if active && self.connection(key, now).is_ok() {
            self.poll_dtls(key, now);
        }
    }

    /// The session's association, made when it is first needed.
    fn connection(&mut self, key: SessionKey, now: Instant) -> Result<&mut Connection, Discard> {
        let Sfu {
            sessions,
            certificate,
            config,
            handshakes,
            ..
        } = self;
        let session: &mut Session = sessions[key].as_mut().ok_or(Discard::UnknownAddress)?;
        if session.dtls.is_none() {
            if *handshakes >= config.handshakes_max {
                return Err(Discard::TooManyHandshakes);
            }
            *handshakes += 1;
        }
        let transport = &session.transport;
        Ok(session.dtls.get_or_insert_with(|| {
            Connection::new(certificate, transport.role, transport.fingerprint.clone(), now)
        }))
    }

    fn handle_dtls(&mut self, now: Instant, key: SessionKey, datagram: &[u8]) -> Result<(), Discard> {
        match self.connection(key, now)?.handle_datagram(datagram, now) {
            Ok(()) => {}
            Err(DtlsRefused::Dropped(reason)) => return Err(reason),
            Err(DtlsRefused::Fatal(reason)) => {
                self.close_key(key, reason, now);
                return Ok(());
            }
        }
        self.poll_dtls(key, now);
        Ok(())
    }

    /// Lets the association's clock run.
    pub(crate) fn drive_dtls(&mut self, key: SessionKey, now: Instant) {
        let Some(connection) = self.sessions[key]
            .as_mut()
            .and_then(|session| session.dtls.as_mut())
        else {
            return;
        };
        if connection.due().is_none_or(|due| due > now) {
            return;
        }
        match connection.drive(now) {
            Err(DtlsRefused::Fatal(reason)) => self.close_key(key, reason, now),
            _ => self.poll_dtls(key, now),
        }
    }

    /// Sends what the association has to send and takes what it has to tell.
    pub(crate) fn poll_dtls(&mut self, key: SessionKey, now: Instant) {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        loop {
            let Some(session) = self.sessions[key].as_mut() else {
                return;
            };
            let Some(connection) = session.dtls.as_mut() else {
                return;
            };
            match connection.poll(&mut buffer) {
                Polled::Datagram(length) => {
                    let Some(path) = session.agent.selected() else {
                        continue;
                    };
                    let direction = metering::Direction::ToClient;
                    for (piece, bytes) in pieces(&buffer[..length]) {
                        if bytes > 0 && session.allowance.charge(direction, bytes, now).is_err() {
                            self.counters.discard(Discard::Exhausted);
                            continue;
                        }
                        let charged = (bytes > 0).then_some(Charged {
                            session: session.id,
                            bytes,
                        });
                        let queued = self.outbox.push(path, charged, |out| {
                            out[..piece.len()].copy_from_slice(piece);
                            Some(piece.len())
                        });
                        if !queued {
                            self.counters.discard(Discard::ControlBacklog);
                            if let Some(charged) = charged {
                                session.allowance.give_back(direction, charged.bytes);
                            }
                        }
                    }
                }
                Polled::Connected(keys) => {
                    session.keys = Some(keys);
                    session.sources.clear();
                    for track in &mut session.tracks {
                        track.rekey(self.rng.next_u32() as u16);
                    }
                    let id = session.id;
                    self.queues[key].connected = true;
                    self.handshakes -= 1;
                    self.events.push_back(Event::Connected { session: id });
                    self.urge(key, now);
                }
                Polled::Closed(reason) => {
                    self.close_key(key, reason, now);
                    return;
                }
                Polled::Idle => break,
            }
        }
        self.urge_from_dtls(key, now);
    }

    fn urge_from_dtls(&mut self, key: SessionKey, now: Instant) {
        let due = self.sessions[key]
            .as_ref()
            .and_then(|session| session.dtls.as_ref())
            .and_then(Connection::due);
        if let Some(due) = due {
            self.urge(key, due.max(now));
        }
    }

    /// Forgets the session's association, so that a new one can be made.
    pub(crate) fn drop_dtls(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions[key].as_mut() {
            if session.dtls.take().is_some() && session.keys.is_none() {
                self.handshakes -= 1;
            }
            session.keys = None;
            self.queues[key].connected = false;
        }
    }
}

/// A transaction id that names its session, so that the answer finds back even from a contested address, and is
/// otherwise random.
fn transaction(key: SessionKey, rng: &mut impl Rng) -> TransactionId {
    let mut id = [0; 12];
    rng.fill_bytes(&mut id);
    id[..4].copy_from_slice(&(key as u32).to_be_bytes());
    TransactionId(id)
}

fn transaction_owner(id: TransactionId) -> SessionKey {
    u32::from_be_bytes([id.0[0], id.0[1], id.0[2], id.0[3]]) as SessionKey
}
