//! The SFU core, sans-IO: one file per pipeline stage.
//!
//! `classify -> admit -> forward -> charge -> egress`, by the names of the packet's journey. Datagrams,
//! instants and a seed go in; datagrams to send and events come out. Nothing in this crate owns a socket or
//! reads a clock. Signalling (`sdp`, `room`) lives beside the core and meets it only in [`media`].

pub mod config;
pub mod discard;
pub mod doorstep;
pub mod dtls;
pub mod egress;
pub mod event;
pub mod media;
pub mod replay;
pub mod room;
pub mod sdp;
pub mod span;
pub mod srtp;

mod admit;
mod batch;
mod budget;
mod classify;
mod codec;
mod control;
mod feed;
mod feedback;
mod forward;
mod header;
mod history;
mod ice;
mod keyframe;
mod ladder_gate;
mod log;
mod membership;
mod nack;
mod outbox;
mod pacer;
mod payload_type;
mod pool;
mod replica;
mod report;
mod rewrite;
mod rtx;
mod session;
mod slot;
mod stream;
mod timeout;
mod timers;
mod track;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use identity::Permit;
use metering::{Allowance, Direction, Msat, SessionId, Step};
use rand::SeedableRng;
use rand::rngs::StdRng;

pub use config::Config;
pub use discard::{Counters, Discard};
pub use doorstep::Doorstep;
pub use egress::{Charged, SendBuffer, Transmit};
pub use event::{CloseReason, Event, Refused};
pub use slot::Slot;
pub use span::Span;

use forward::Planned;
use media::{Kind, Media, Mid, Transport};
use outbox::Outbox;
use pacer::{Load, Queue};
use pool::Pool;
use rtx::Retransmission;
use session::Session;
use stream::{SessionKey, Stream, StreamKey};
use timers::Timers;

/// What a send line carries: one publisher's audio or video.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// The publishing session.
    pub session: SessionId,
    /// Its audio or its video.
    pub kind: Kind,
}

/// The core of one shard: every session whose datagrams the shard owns.
///
/// Drive it so: hand in what happened (datagrams, the passing of time, requests of the control plane), then call
/// [`Sfu::poll_transmit`] and [`Sfu::poll_event`] until both have nothing, then sleep until
/// [`Sfu::poll_timeout`] or the next input.
pub struct Sfu {
    config: Config,
    certificate: dtls::Certificate,
    rng: StdRng,
    sessions: Vec<Option<Box<Session>>>,
    streams: Vec<Option<Box<Stream>>>,
    pool: Pool,
    by_id: HashMap<SessionId, SessionKey>,
    by_ufrag: HashMap<String, SessionKey>,
    by_address: HashMap<SocketAddr, SessionKey>,
    /// Serial of the stream made last.
    serial: u64,
    /// DTLS handshakes under way.
    handshakes: usize,
    /// Streams with packets that their subscribers were not told of yet.
    waiting: VecDeque<StreamKey>,
    /// What waits for each session, by the session's key.
    queues: Vec<Queue>,
    /// Sessions to be served now.
    ready: VecDeque<SessionKey>,
    /// Sessions whose key frame goes on at an instant; in order, as all wait for one tick at most.
    paced: VecDeque<(Instant, SessionKey)>,
    load: Load,
    plan: Vec<Planned>,
    timers: Timers,
    /// The other cores.
    span: Span,
    outbox: Outbox,
    retransmissions: VecDeque<Retransmission>,
    events: VecDeque<Event>,
    counters: Counters,
    /// Sessions to look at, while another is being looked at.
    wake: Vec<(SessionKey, Instant)>,
    /// The first instant seen: what abs-send-time counts from.
    epoch: Option<Instant>,
    now: Option<Instant>,
    scratch: Box<[u8; slot::SLOT_BYTES]>,
}

impl Sfu {
    /// An empty core. `seed` feeds what the core itself must make unguessable: SSRCs, initial sequence
    /// numbers, transaction ids.
    #[must_use]
    pub fn new(config: Config, certificate: dtls::Certificate, seed: [u8; 32]) -> Sfu {
        Sfu {
            pool: Pool::new(config.slots),
            config,
            certificate,
            rng: StdRng::from_seed(seed),
            sessions: Vec::new(),
            streams: Vec::new(),
            by_id: HashMap::new(),
            by_ufrag: HashMap::new(),
            by_address: HashMap::new(),
            serial: 0,
            handshakes: 0,
            waiting: VecDeque::with_capacity(1024),
            queues: Vec::new(),
            ready: VecDeque::new(),
            paced: VecDeque::new(),
            load: Load::default(),
            plan: Vec::with_capacity(batch::SEGMENTS_MAX),
            timers: Timers::new(),
            span: Span::alone(),
            outbox: Outbox::new(),
            retransmissions: VecDeque::with_capacity(rtx::QUEUE_MAX),
            events: VecDeque::with_capacity(1024),
            counters: Counters::new(),
            wake: Vec::with_capacity(session::LINES_MAX * 2),
            epoch: None,
            now: None,
            scratch: Box::new([0; slot::SLOT_BYTES]),
        }
    }

    /// Lets a session in. Its client may now send connectivity checks.
    ///
    /// # Errors
    /// As [`Refused`] says; nothing was changed.
    pub fn open(
        &mut self,
        session: SessionId,
        permit: Arc<Permit>,
        transport: Transport,
        allowance: Allowance,
        now: Instant,
    ) -> Result<(), Refused> {
        self.observe(now);
        self.admit_session(session, permit, transport, allowance, now)
    }

    /// An authenticated check for the session came from `source` at `at` and was answered while it waited at the
    /// [`Doorstep`]. Call it in the order in which they came, right after [`Sfu::open`].
    pub fn prove(
        &mut self,
        session: SessionId,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        nominated: bool,
        at: Instant,
    ) {
        let path = ice::Path {
            remote: source,
            local: local_ip,
        };
        if let (Some(&key), Some(now)) = (self.by_id.get(&session), self.now)
            && let Err(reason) = self.admit_path(key, path, nominated, at.min(now), now)
        {
            self.counters.discard(reason);
        }
    }

    /// Whether a session that is open here has this local ufrag.
    #[must_use]
    pub fn has_ufrag(&self, ufrag: &str) -> bool {
        self.by_ufrag.contains_key(ufrag)
    }

    /// Whether a session that is open here receives from this address.
    #[must_use]
    pub fn has_address(&self, source: SocketAddr) -> bool {
        self.by_address.contains_key(&source)
    }

    /// Whether another session can be opened and begin its handshake now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.by_id.len() < self.config.sessions_max && self.handshakes < self.config.handshakes_max
    }

    /// Counts what was dropped on the way here.
    pub fn discard(&mut self, reason: Discard) {
        self.counters.discard(reason);
    }

    /// Replaces the session's negotiated media: the whole state, after each offer and answer. m-lines are
    /// recognised by MID.
    pub fn set_media(&mut self, session: SessionId, media: Media) {
        if let Some(&key) = self.by_id.get(&session) {
            self.replace_media(key, media);
        }
    }

    /// Replaces the session's transport: an ICE restart, and with another fingerprint a new DTLS association.
    pub fn set_transport(&mut self, session: SessionId, transport: Transport) {
        if let (Some(&key), Some(now)) = (self.by_id.get(&session), self.now) {
            self.replace_transport(key, transport, now);
        }
    }

    /// Makes a subscriber's send line carry a source, or nothing. The source need not exist or publish yet.
    pub fn route(&mut self, subscriber: SessionId, mid: Mid, source: Option<Source>) {
        if let (Some(&key), Some(now)) = (self.by_id.get(&subscriber), self.now) {
            self.set_route(key, mid, source, now);
        }
    }

    /// Puts a session on a step of the low-balance ladder.
    pub fn set_step(&mut self, session: SessionId, step: Step, now: Instant) {
        self.observe(now);
        if let Some(&key) = self.by_id.get(&session) {
            self.change_step(key, step, now);
        }
    }

    /// What the session is sent at most; for one that costs nothing.
    pub fn limit_bytes(&mut self, session: SessionId, bits_per_second: Option<u64>) {
        if let Some(session) = self.session_mut(session) {
            session.allowance.set_byte_limit(bits_per_second);
        }
    }

    /// Raises what the session's lease may spend in all.
    pub fn grant(&mut self, session: SessionId, granted_total: Msat) {
        if let Some(session) = self.session_mut(session) {
            session.allowance.grant(granted_total);
            session.starved = None;
        }
    }

    /// Ends a session, billed up to `now`.
    pub fn close(&mut self, session: SessionId, reason: CloseReason, now: Instant) {
        self.observe(now);
        if let Some(&key) = self.by_id.get(&session) {
            self.close_key(key, reason, now);
        }
    }

    /// Takes one UDP datagram that arrived from `source` at `local_ip`.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        source: SocketAddr,
        local_ip: Option<IpAddr>,
        datagram: &mut [u8],
    ) {
        self.observe(now);
        if let Err(reason) = self.classify(now, source, local_ip, datagram) {
            self.counters.discard(reason);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.observe(now);
        self.expire(now);
    }

    /// When [`Sfu::handle_timeout`] and [`Sfu::poll_transmit`] are to be called next.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = [self.timers.next(), self.next_egress(), self.span.due];
        due.into_iter().flatten().min()
    }

    /// The next send, sealed into `buffer`. Call until `None` after each batch of inputs.
    pub fn poll_transmit<'b>(&mut self, now: Instant, buffer: &'b mut SendBuffer) -> Option<Transmit<'b>> {
        self.observe(now);
        self.transmit(now, buffer)
    }

    /// The kernel refused to send what was charged for.
    pub fn give_back(&mut self, charged: Charged) {
        if let Some(session) = self.session_mut(charged.session) {
            session.allowance.give_back(Direction::ToClient, charged.bytes);
        }
    }

    /// The next thing the control plane should know.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What passed and what did not.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Sessions that are open.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.by_id.len()
    }

    fn observe(&mut self, now: Instant) {
        self.epoch.get_or_insert(now);
        self.now = Some(now);
    }

    fn session_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        let &key = self.by_id.get(&session)?;
        self.sessions[key].as_deref_mut()
    }
}
