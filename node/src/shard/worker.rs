//! The loop of one shard: wait for sockets, bell or time; take a batch of each; send what follows; tell who has to know.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datagram::{Inbox, Socket};
use identity::Permit;
use metering::{Allowance, SessionId};
use mio::{Events, Interest, Token};
use sfu::{CloseReason, Sfu};
use tokio::sync::mpsc;
use turn_server::{AllocationKey, Census};

use super::ShardEvent;
use super::batch::Unsent;
use super::command::{Command, close_reason};
use super::gauges::Gauges;
use super::handover::{Parcel, Peers};
use super::lobby::Lobby;
use super::mailbox::{BELL, Mailbox};
use super::sfu_port::{Adopted, SfuPort, Taken};
use super::turn::{Strayed, TurnPort};
use crate::cashier::CashierHandle;
use crate::clock;

const SFU: Token = Token(1);

/// Readiness taken from one poll.
const EVENTS_MAX: usize = 1_024;

/// Batches of one socket of TURN before the others have their turn. Half of all packets come through the listener: with
/// one batch a round it would wait for thousands of relayed ports with a packet each.
const BATCHES_A_TURN: usize = 16;

/// Commands and parcels taken before packets get their turn again.
const COMMANDS_A_ROUND: usize = 256;
const PARCELS_A_ROUND: usize = 256;

/// How often the lobby is looked through for sessions that never connected.
const LOBBY_EVERY: Duration = Duration::from_millis(500);

/// The longest sleep, for what a lost wake-up would otherwise leave lying.
const SLEEP_MAX: Duration = Duration::from_millis(500);

/// What a worker is made from.
pub(super) struct Parts {
    pub(super) index: usize,
    pub(super) mailbox: Mailbox,
    pub(super) sfu_socket: Socket,
    pub(super) sfu: Sfu,
    pub(super) turn: TurnPort,
    pub(super) census: Arc<Census>,
    pub(super) peers: Peers,
    pub(super) lobby: Arc<Lobby>,
    pub(super) cashier: CashierHandle,
    pub(super) events: mpsc::Sender<ShardEvent>,
}

/// One shard.
pub(super) struct Worker {
    index: usize,
    mailbox: Mailbox,
    inbox: Inbox,
    sfu: SfuPort,
    turn: TurnPort,
    peers: Peers,
    lobby: Arc<Lobby>,
    gauges: Gauges,
    census: Arc<Census>,
    cashier: CashierHandle,
    events: mpsc::Sender<ShardEvent>,
    /// The SFU sessions that are open here.
    sessions: HashMap<SessionId, Arc<Permit>>,
    ready: Ready,
    mail: bool,
    /// The first shard looks after the lobby: when next.
    lobby_due: Option<Instant>,
}

impl Worker {
    pub(super) fn new(parts: Parts) -> io::Result<Self> {
        let Parts {
            mut sfu_socket,
            mut turn,
            mailbox,
            ..
        } = parts;
        let registry = mailbox.poll.registry();
        registry.register(&mut sfu_socket, SFU, Interest::READABLE)?;
        turn.register(registry)?;
        Ok(Self {
            index: parts.index,
            mailbox,
            inbox: Inbox::new(),
            sfu: SfuPort::new(sfu_socket, parts.sfu),
            turn,
            peers: parts.peers,
            lobby: parts.lobby,
            gauges: Gauges::new(parts.index, clock::now()),
            census: parts.census,
            cashier: parts.cashier,
            events: parts.events,
            sessions: HashMap::new(),
            ready: Ready::new(),
            mail: true,
            lobby_due: (parts.index == 0).then(clock::now),
        })
    }

    /// Runs until it is told to stop.
    pub(super) fn run(mut self) {
        pin(self.index);
        let mut polled = Events::with_capacity(EVENTS_MAX);
        loop {
            let timeout = self.timeout(clock::now());
            match self.mailbox.poll.poll(&mut polled, Some(timeout)) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => {
                    tracing::error!(shard = self.index, %error, "the poll failed");
                    return;
                }
            }
            for event in &polled {
                match event.token() {
                    BELL => self.mail = true,
                    _ if self.turn.note(event) => {}
                    token => self.ready.push(token),
                }
            }
            let now = clock::now();
            if self.mail && !self.read_mail(now) {
                self.settle(now);
                return;
            }
            self.read_sockets(now);
            self.sfu.sfu.handle_timeout(now);
            let registry = self.mailbox.poll.registry();
            self.turn.tell_unreachable(&mut self.gauges, now);
            self.turn.work(registry, &mut self.gauges, now);
            self.turn.handle_timeout(registry, &mut self.gauges, now);
            self.hairpin(now);
            self.flush(now);
            if self.lobby_due.is_some_and(|due| due <= now) {
                self.lobby_due = Some(now + LOBBY_EVERY);
                self.lobby.expire(now);
            }
            self.gauges
                .publish(self.sfu.sfu.counters(), &self.turn, self.sessions.len(), now);
        }
    }

    fn timeout(&self, now: Instant) -> Duration {
        if !self.ready.is_empty() || self.mail || self.turn.has_work() {
            return Duration::ZERO;
        }
        let due = [
            self.sfu.sfu.poll_timeout(),
            self.turn.poll_timeout(),
            Some(self.gauges.due()),
        ];
        let first = due.into_iter().flatten().min();
        first
            .map_or(SLEEP_MAX, |first| first.saturating_duration_since(now))
            .min(SLEEP_MAX)
    }

    /// Gives each socket that has something its turn; who has more comes again in the next round.
    fn read_sockets(&mut self, now: Instant) {
        for _ in 0..self.ready.len() {
            let Some(token) = self.ready.pop() else {
                return;
            };
            let batches = if token == SFU { 1 } else { BATCHES_A_TURN };
            if (0..batches).all(|_| self.read_batch(token, now)) {
                self.ready.push(token);
            }
            // The clock is read only for those that are kept.
            if self.gauges.samples() {
                self.gauges.forwarded(clock::now().saturating_duration_since(now));
            }
        }
    }

    /// Takes one batch of a socket; false once there is no more.
    fn read_batch(&mut self, token: Token, now: Instant) -> bool {
        let received = match token {
            SFU => self.sfu.socket.receive(&mut self.inbox),
            token => match self.turn.receive(token, &mut self.inbox) {
                Some(received) => received,
                None => return false,
            },
        };
        match received {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => {
                // One datagram's error (an ICMP message, say) is not the socket's: look again.
                tracing::debug!(shard = self.index, %error, "receiving failed");
                return true;
            }
        }
        match token {
            SFU => {
                self.sfu.receive(&mut self.inbox, &mut self.peers, now);
                self.take_adopted(now);
                self.sfu
                    .flush(&mut self.peers, &mut self.turn, &mut self.gauges, now);
            }
            token => {
                let registry = self.mailbox.poll.registry();
                self.turn
                    .take(token, &mut self.inbox, &mut self.gauges, registry, now);
                if self.hairpin(now) {
                    self.sfu
                        .flush(&mut self.peers, &mut self.turn, &mut self.gauges, now);
                }
            }
        }
        !self.inbox.drained()
    }

    /// Hands what TURN clients sent to our own SFU to it. True if there was something.
    fn hairpin(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some((relayed, sfu, charged, datagram)) = self.turn.next_for_sfu() {
            any = true;
            match self
                .sfu
                .take_relayed(relayed, sfu.ip(), datagram, &mut self.peers, now)
            {
                Taken::Yes => {}
                Taken::Lost => {
                    self.turn.hairpin_counts().full += 1;
                    Unsent::of(charged).give_back(&mut self.turn.core);
                }
                Taken::Answer(length) => {
                    let answer = &self.peers.answer[..length];
                    self.turn
                        .take_from_sfu(relayed.port(), sfu, answer, true, &mut self.gauges, now);
                }
            }
        }
        if any {
            self.peers.ring();
            self.take_adopted(now);
        }
        any
    }

    /// Commands, parcels and what crosses. False once told to stop.
    fn read_mail(&mut self, now: Instant) -> bool {
        self.mailbox.answer_bell();
        let mut more = false;
        for left in (0..COMMANDS_A_ROUND).rev() {
            match self.mailbox.next_command() {
                Some(Command::Stop) => return false,
                Some(command) => self.obey(command, now),
                None => break,
            }
            more |= left == 0;
        }
        for left in (0..PARCELS_A_ROUND).rev() {
            match self.mailbox.next_parcel() {
                Some(Parcel::Datagram(mut datagram)) => {
                    let (source, local_ip, from) = (datagram.source, datagram.local_ip, datagram.from);
                    self.peers.received(source, from, datagram.bytes(), now);
                    self.sfu.take(source, local_ip, datagram.bytes(), now);
                }
                Some(Parcel::Relayed { port, mut datagram }) => {
                    let sfu = datagram.source;
                    self.turn
                        .take_from_sfu(port, sfu, datagram.bytes(), false, &mut self.gauges, now);
                }
                Some(Parcel::Turn(mut datagram, server)) => {
                    let registry = self.mailbox.poll.registry();
                    let (source, bytes) = (datagram.source, datagram.bytes());
                    self.turn
                        .take_moved(source, server, bytes, registry, &mut self.gauges, now);
                }
                Some(Parcel::Owner { address, shard }) => self.peers.learn(address, shard, now),
                None => break,
            }
            more |= left == 0;
        }
        self.turn.finish_batch(&mut self.gauges);
        self.hairpin(now);
        more |= self.sfu.sfu.handle_crossings(now);
        self.mail = more;
        true
    }

    fn obey(&mut self, command: Command, now: Instant) {
        match command {
            Command::SetMedia { session, media } => self.sfu.sfu.set_media(session, *media),
            Command::SetTransport { session, transport } => self.sfu.sfu.set_transport(session, *transport),
            Command::Route {
                subscriber,
                mid,
                source,
            } => self.sfu.sfu.route(subscriber, mid, source),
            Command::CloseSfu { session, reason } => self.sfu.sfu.close(session, reason, now),
            Command::AddTurnCredential(credential) => {
                if !self.turn.core.add_credential(credential, now) {
                    tracing::warn!(shard = self.index, "too many TURN usernames");
                }
            }
            Command::Revoke(denied) => self.turn.core.revoke(&*denied, now),
            // A session is either the SFU's or TURN's; the other core does not know it and ignores it.
            Command::Grant {
                session,
                lease,
                granted_total,
            } => {
                if self.sessions.contains_key(&session) {
                    self.sfu.sfu.grant(session, granted_total);
                } else {
                    self.turn.core.grant(lease, granted_total);
                }
            }
            Command::SetStep { session, step } => {
                if self.sessions.contains_key(&session) {
                    self.sfu.sfu.set_step(session, step, now);
                } else {
                    self.turn.core.set_step(session, step, now);
                }
            }
            Command::LimitBytes {
                session,
                bits_per_second,
            } => self.sfu.sfu.limit_bytes(session, bits_per_second),
            Command::TurnAdmitted {
                allocation,
                session,
                lease,
                granted,
                rates,
                step,
            } => {
                let allowance = Allowance::new(lease, session, rates, granted);
                let allocation = AllocationKey::new(allocation);
                self.turn
                    .admitted(allocation, allowance, step, &mut self.gauges, now);
            }
            Command::TurnRefused { allocation, reason } => {
                let allocation = AllocationKey::new(allocation);
                self.turn.refused(allocation, reason, &mut self.gauges, now);
            }
            Command::AdoptStream(accepted) => {
                self.turn.adopt(*accepted, self.mailbox.poll.registry(), now);
            }
            Command::MoveStream(moved) => {
                let registry = self.mailbox.poll.registry();
                self.turn.adopt_moved(*moved, registry, &mut self.gauges, now);
            }
            Command::TurnDatagram(strayed) => {
                let registry = self.mailbox.poll.registry();
                let Strayed {
                    source,
                    server,
                    bytes,
                } = *strayed;
                self.turn
                    .take_moved(source, server, &bytes, registry, &mut self.gauges, now);
            }
            Command::End { session, reason } => {
                self.sfu.sfu.close(session, close_reason(reason), now);
                self.turn.core.end(session, now);
            }
            Command::Drain => self.turn.core.drain(),
            Command::Stop => {}
        }
    }

    /// Sessions that the core took in from the lobby are this shard's from here on.
    fn take_adopted(&mut self, now: Instant) {
        while let Some(adopted) = self.sfu.next_adopted() {
            let Adopted {
                session,
                permit,
                kept,
                refused,
            } = adopted;
            if let Some(report) = refused {
                self.cashier.try_report(self.index, report);
                self.lobby.forget(session);
                let reason = CloseReason::Fault;
                self.tell(ShardEvent::Closed { session, reason });
                continue;
            }
            tracing::debug!(shard = self.index, %session, "session adopted");
            self.census.call_opened(permit.account());
            self.sessions.insert(session, permit);
            kept.into_iter().for_each(|command| self.obey(command, now));
        }
    }

    /// Sends and tells whatever the cores have to send and to tell.
    fn flush(&mut self, now: Instant) {
        self.sfu
            .flush(&mut self.peers, &mut self.turn, &mut self.gauges, now);
        self.sfu_events();
        self.turn
            .flush(self.mailbox.poll.registry(), &mut self.gauges, now);
    }

    fn sfu_events(&mut self) {
        while let Some(event) = self.sfu.sfu.poll_event() {
            match event {
                sfu::Event::Connected { session } => self.tell(ShardEvent::Connected { session }),
                sfu::Event::Publishing { session, mid, kind } => {
                    self.tell(ShardEvent::Publishing { session, mid, kind });
                }
                sfu::Event::Report { report, .. } => self.cashier.try_report(self.index, report),
                sfu::Event::Closed {
                    session,
                    reason,
                    report,
                } => {
                    self.cashier.try_report(self.index, report);
                    self.lobby.forget(session);
                    if let Some(permit) = self.sessions.remove(&session) {
                        self.census.call_closed(permit.account());
                    }
                    self.tell(ShardEvent::Closed { session, reason });
                }
            }
        }
    }

    fn tell(&self, event: ShardEvent) {
        if self.events.try_send(event).is_err() {
            tracing::warn!(
                shard = self.index,
                "the control plane is behind; it was not told of an event"
            );
        }
    }

    /// Ends everything, each session with its last report.
    fn settle(&mut self, now: Instant) {
        self.lobby.close(now);
        let open: Vec<SessionId> = self.sessions.keys().copied().collect();
        for session in open {
            self.sfu.sfu.close(session, CloseReason::Drain, now);
        }
        self.turn.core.end_all(now);
        self.flush(now);
    }
}

/// UDP sockets that may have more to give, in their order and each once; the poll does not say so again.
struct Ready {
    queue: VecDeque<Token>,
    /// By token: the numbers of UDP sockets are as small as their count.
    is_queued: Vec<bool>,
}

impl Ready {
    fn new() -> Self {
        Self {
            queue: VecDeque::with_capacity(EVENTS_MAX),
            is_queued: Vec::new(),
        }
    }

    fn push(&mut self, token: Token) {
        if self.is_queued.len() <= token.0 {
            self.is_queued.resize(token.0 + 1, false);
        }
        if !std::mem::replace(&mut self.is_queued[token.0], true) {
            self.queue.push_back(token);
        }
    }

    fn pop(&mut self) -> Option<Token> {
        let token = self.queue.pop_front()?;
        self.is_queued[token.0] = false;
        Some(token)
    }

    fn len(&self) -> usize {
        self.queue.len()
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }
}

/// Keeps the shard on one core, so that its caches stay its own. A machine that does not allow it runs as well.
fn pin(index: usize) {
    use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
    let Ok(allowed) = sched_getaffinity(None) else {
        return;
    };
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| allowed.is_set(*core))
        .collect();
    if cores.is_empty() {
        return;
    }
    let mut own = CpuSet::new();
    own.set(cores[index % cores.len()]);
    if let Err(error) = sched_setaffinity(None, &own) {
        tracing::debug!(%error, "a shard is not kept on its core");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_waits_once_however_often_it_is_said_to_be_ready() {
        let mut ready = Ready::new();
        for token in [5, 1, 5, 5, 1, 70_000] {
            ready.push(Token(token));
        }
        assert_eq!((ready.len(), ready.pop()), (3, Some(Token(5))));
        ready.push(Token(5));
        let rest: Vec<_> = std::iter::from_fn(|| ready.pop()).collect();
        assert_eq!(rest, [Token(1), Token(70_000), Token(5)]);
        assert!(ready.is_empty());
    }
}
