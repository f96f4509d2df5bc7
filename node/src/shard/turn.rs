//! TURN on one shard: the core and everything that carries it, from UDP datagrams, streams and DTLS records to the core
//! and back, and what the core asks for in between.

mod beside;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use datagram::{Ecn, Inbox};
use metering::{AccountId, Allowance};
use mio::event::Event as Readiness;
use mio::{Registry, Token};
use turn_server::{
    AllocationKey, Client, ConnectionId, DataConnection, Event, HEADROOM, PeerKind, Protocol, Refusal,
    Transmit, TurnServer, Via,
};

use super::batch::{Batch, Unsent};
use super::command::Command;
use super::gauges::Gauges;
use super::hairpin::Hairpin;
use super::handover::{Datagram, Parcel};
use super::icmp::Unreachable;
use super::mailbox::ShardHandle;
use super::turn_data::{DataSockets, Happened};
use super::turn_dtls::{Associations, Out, is_dtls, refusal};
use super::turn_port::TurnSockets;
use super::turn_stream::connection::{Connection, Ended};
use super::turn_stream::{Accepted, Scratch, StreamDiscard, Streams};
use crate::cashier::{self, CashierHandle, TurnAdmission};

/// Reads of one stream before others get their turn.
const READS_A_ROUND: usize = 4;

/// Clients over UDP that are known to be another shard's (RFC 8016: they came with its ticket).
const MOVED_MAX: usize = 65_536;

/// A moved client that was not heard for so long is forgotten: longer than any allocation lives without a Refresh.
const MOVED_FORGET: Duration = Duration::from_secs(3_700);

/// The largest datagram of the SFU, and the room for a header before it.
const FROM_SFU_MAX: usize = HEADROOM + (1 << 16);

/// A connection on its way to another shard, with what was read of it and not dealt with.
pub(crate) struct Moved {
    connection: Connection,
    bytes: Vec<u8>,
}

/// A datagram on its way to another shard that is too long for a parcel.
pub(crate) struct Strayed {
    pub(super) source: SocketAddr,
    pub(super) server: SocketAddr,
    pub(super) bytes: Vec<u8>,
}

/// Everything that leaves.
struct Outlets {
    sockets: TurnSockets,
    batch: Batch,
    streams: Streams,
    dtls: Associations,
    hairpin: Hairpin,
}

impl Outlets {
    /// Sends a message by whatever carries its destination.
    fn forward(
        &mut self,
        transmit: &Transmit<'_>,
        ecn: Option<Ecn>,
        alone: bool,
        gauges: &mut Gauges,
    ) -> Unsent {
        if transmit.peer == Some(PeerKind::OwnSfu)
            && let Via::Relay { allocation, family } = transmit.via
        {
            let port = self.sockets.relayed_port(allocation, family);
            let kept = port.is_some_and(|port| self.hairpin.push(port, transmit));
            return Unsent::of(transmit.charged.filter(|_| !kept));
        }
        let Via::Connection(id) = transmit.via else {
            return self
                .batch
                .forward(transmit, ecn, alone, &mut self.sockets, gauges);
        };
        let sent = match Associations::names(id) {
            true => self.dtls.send(id, transmit.contents) && self.dtls_out(id, gauges),
            false => self
                .streams
                .push(id, transmit.contents, transmit.charged.is_none()),
        };
        Unsent::of(transmit.charged.filter(|_| !sent))
    }

    /// Sends what a DTLS association has to send; messages that come out here have no place to go, and there are none.
    fn dtls_out(&mut self, id: ConnectionId, gauges: &mut Gauges) -> bool {
        let Some(client) = self.dtls.client(id) else {
            return false;
        };
        let mut sent = true;
        while let Some(out) = self.dtls.poll(id) {
            if let Out::Datagram(datagram) = out {
                sent &= self.sockets.send_to_client(&client, datagram, gauges);
            }
        }
        sent
    }
}

/// TURN on one shard.
pub(super) struct TurnPort {
    index: usize,
    pub(super) core: TurnServer,
    outlets: Outlets,
    data: DataSockets,
    scratch: Scratch,
    /// A datagram of the SFU on its way to a client, behind the room for a header.
    from_sfu: Box<[u8]>,
    unreachable: Unreachable,
    shards: Vec<ShardHandle>,
    moved: HashMap<(SocketAddr, SocketAddr), (usize, Instant)>,
    cashier: CashierHandle,
}

impl TurnPort {
    #[allow(clippy::too_many_arguments)]
    pub(super) fn new(
        index: usize,
        core: TurnServer,
        sockets: TurnSockets,
        streams: Streams,
        dtls: Associations,
        hairpin: Hairpin,
        shards: Vec<ShardHandle>,
        cashier: CashierHandle,
    ) -> Self {
        Self {
            index,
            core,
            outlets: Outlets {
                sockets,
                batch: Batch::new(),
                streams,
                dtls,
                hairpin,
            },
            data: DataSockets::new(),
            scratch: Scratch::new(),
            from_sfu: vec![0; FROM_SFU_MAX].into_boxed_slice(),
            unreachable: Unreachable::new(),
            shards,
            moved: HashMap::new(),
            cashier,
        }
    }

    /// Registers what listens.
    pub(super) fn register(&mut self, registry: &Registry) -> std::io::Result<()> {
        self.outlets.sockets.register(registry)?;
        self.outlets.streams.register(registry)
    }

    /// Notes what the poll said of connections; false if the token is of a UDP socket.
    pub(super) fn note(&mut self, event: &Readiness) -> bool {
        let Self { outlets, data, .. } = self;
        if event.is_error() && outlets.sockets.allocation(event.token()).is_some() {
            self.unreachable.note(event.token());
        }
        let noted = data.note(event) || outlets.streams.note(event);
        while let Some(id) = outlets.streams.next_writable() {
            data.client_writable(id);
        }
        noted
    }

    /// True if there is something to do without another event.
    pub(super) fn has_work(&self) -> bool {
        self.outlets.streams.has_work() || self.data.has_work() || self.unreachable.has_work()
    }

    /// When [`TurnPort::handle_timeout`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let due = [
            self.core.poll_timeout(),
            self.outlets.streams.due(),
            self.outlets.dtls.due(),
            self.data.due(),
        ];
        due.into_iter().flatten().min()
    }

    /// Fills `inbox` from the UDP socket of this token; none if there is no such socket.
    pub(super) fn receive(&self, token: Token, inbox: &mut Inbox) -> Option<std::io::Result<usize>> {
        Some(self.outlets.sockets.socket(token)?.receive(inbox))
    }

    /// Takes what was received.
    pub(super) fn take(
        &mut self,
        token: Token,
        inbox: &mut Inbox,
        gauges: &mut Gauges,
        registry: &Registry,
        now: Instant,
    ) {
        match self.outlets.sockets.allocation(token) {
            Some(allocation) => self.take_from_peers(allocation, inbox, gauges, now),
            None => self.take_from_clients(token, inbox, gauges, now),
        }
        self.events(registry, gauges, now);
    }

    /// What clients sent to a UDP listener.
    fn take_from_clients(&mut self, token: Token, inbox: &mut Inbox, gauges: &mut Gauges, now: Instant) {
        let Some(listener) = self
            .outlets
            .sockets
            .socket(token)
            .map(|socket| socket.local_addr())
        else {
            return;
        };
        for index in 0..inbox.filled() {
            let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                continue;
            };
            let alone = datagrams.remaining() == 1;
            let server = SocketAddr::new(meta.local_ip.unwrap_or(listener.ip()), listener.port());
            while let Some(datagram) = datagrams.next_datagram() {
                if is_dtls(datagram) {
                    self.take_from_association(meta.source, server, datagram, gauges, now);
                    continue;
                }
                if !self.moved.is_empty() && self.stray(meta.source, server, datagram, now) {
                    continue;
                }
                let Self { core, outlets, .. } = self;
                let client = Client::udp(meta.source, server);
                if let Some(transmit) = core.handle_client(now, client, datagram) {
                    let unsent = outlets.forward(&transmit, meta.ecn, alone, gauges);
                    unsent.give_back(core);
                } else {
                    self.hand_over_datagram(&client, datagram, now);
                }
            }
            let Outlets { batch, sockets, .. } = &mut self.outlets;
            batch.finish(sockets, gauges).give_back(&mut self.core);
        }
    }

    /// What peers sent to a relayed port.
    fn take_from_peers(
        &mut self,
        allocation: AllocationKey,
        inbox: &mut Inbox,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self { core, outlets, .. } = self;
        for index in 0..inbox.filled() {
            let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                continue;
            };
            let alone = datagrams.remaining() == 1;
            while let Some(packet) = datagrams.next_with_headroom() {
                let Some(transmit) = core.handle_peer(now, allocation, meta.source, packet) else {
                    continue;
                };
                let unsent = outlets.forward(&transmit, meta.ecn, alone, gauges);
                unsent.give_back(core);
            }
            let Outlets { batch, sockets, .. } = outlets;
            batch.finish(sockets, gauges).give_back(core);
        }
    }

    /// A DTLS record, and whatever messages come out of it.
    fn take_from_association(
        &mut self,
        source: SocketAddr,
        server: SocketAddr,
        datagram: &[u8],
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self {
            core,
            outlets,
            scratch,
            ..
        } = self;
        if let Some(alert) = refusal(datagram) {
            outlets.streams.count(StreamDiscard::TlsHandshake);
            outlets
                .sockets
                .send_to_client(&Client::udp(source, server), alert, gauges);
            return;
        }
        let Some(id) = outlets.dtls.of(source, server, datagram, now) else {
            return;
        };
        if outlets.dtls.receive(id, datagram, now) {
            let Some(client) = outlets.dtls.client(id) else {
                return;
            };
            // Messages wait until everything is out of the association, which may have to answer them.
            let mut len = 0;
            let mut ends = [0_usize; 16];
            let mut messages = 0;
            while let Some(out) = outlets.dtls.poll(id) {
                match out {
                    Out::Datagram(datagram) => {
                        outlets.sockets.send_to_client(&client, datagram, gauges);
                    }
                    Out::Message(message)
                        if messages < ends.len() && len + message.len() <= scratch.plain.len() =>
                    {
                        scratch.plain[len..len + message.len()].copy_from_slice(message);
                        len += message.len();
                        ends[messages] = len;
                        messages += 1;
                    }
                    Out::Message(_) => {}
                }
            }
            let mut start = 0;
            for end in ends.into_iter().take(messages) {
                if let Some(transmit) = core.handle_client(now, client, &scratch.plain[start..end]) {
                    let unsent = outlets.forward(&transmit, None, messages == 1, gauges);
                    unsent.give_back(core);
                }
                start = end;
            }
        }
        self.after_dtls(gauges, now);
    }

    fn after_dtls(&mut self, gauges: &mut Gauges, now: Instant) {
        let Self { core, outlets, .. } = self;
        while let Some(client) = outlets.dtls.next_ended() {
            core.connection_closed(&client, now);
        }
        outlets
            .dtls
            .discards
            .drain(..)
            .for_each(|reason| outlets.streams.count(reason));
        let Outlets { batch, sockets, .. } = outlets;
        batch.finish(sockets, gauges).give_back(core);
    }

    /// Connections: what waits to be accepted, to be read and to be passed on, a part of each.
    pub(super) fn work(&mut self, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        self.outlets.streams.accept(registry, now);
        for _ in 0..self.outlets.streams.readable() {
            if self.outlets.hairpin.is_filling() {
                break;
            }
            let Some(id) = self.outlets.streams.next_readable() else {
                break;
            };
            self.read_stream(id, registry, gauges, now);
        }
        self.work_data(registry, gauges, now);
        self.flush(registry, gauges, now);
    }

    fn read_stream(&mut self, id: ConnectionId, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        for _ in 0..READS_A_ROUND {
            let carries = self.data.carries(id);
            if carries && !self.data.takes(id) {
                // What came before is still on its way; it is read again after that.
                return;
            }
            let outcome = match self.outlets.streams.read(id, &mut self.scratch) {
                Ok((0, false)) => return,
                Ok((len, _)) => self.messages(id, 0, len, registry, gauges, now),
                Err(ended) => Err(ended),
            };
            match outcome {
                Ok(()) => {}
                Err(Ended::ByClient) if carries => return self.data.client_ended(id),
                Err(ended) => return self.close_stream(id, ended, registry, now),
            }
        }
        self.outlets.streams.read_again(id);
    }

    /// Takes the messages out of `scratch.plain[at..len]`.
    fn messages(
        &mut self,
        id: ConnectionId,
        mut at: usize,
        len: usize,
        registry: &Registry,
        gauges: &mut Gauges,
        now: Instant,
    ) -> Result<(), Ended> {
        loop {
            if self.data.carries(id) {
                self.data.take_from_client(id, &self.scratch.plain[at..len]);
                return Ok(());
            }
            let Some(client) = self.outlets.streams.client(id) else {
                return Ok(());
            };
            let Self {
                core,
                outlets,
                scratch,
                ..
            } = self;
            let Some(message) = outlets.streams.message_len(id, &scratch.plain[at..len], now)? else {
                let Outlets { batch, sockets, .. } = outlets;
                batch.finish(sockets, gauges).give_back(core);
                return outlets.streams.keep(id, &scratch.plain[at..len]);
            };
            if let Some(transmit) = core.handle_client(now, client, &scratch.plain[at..at + message]) {
                let unsent = outlets.forward(&transmit, None, false, gauges);
                unsent.give_back(core);
            }
            while let Some(event) = self.core.poll_event() {
                if let Event::HandOver { client, shard } = event {
                    return self.hand_over_stream(&client, usize::from(shard), at, len, registry);
                }
                self.obey(event, registry, gauges, now);
            }
            at += message;
        }
    }

    fn hand_over_stream(
        &mut self,
        client: &Client,
        shard: usize,
        at: usize,
        len: usize,
        registry: &Registry,
    ) -> Result<(), Ended> {
        let (Some(id), Some(handle)) = (client.connection, self.shards.get(shard)) else {
            return Ok(());
        };
        if let Some(connection) = self.outlets.streams.take(id, registry) {
            let bytes = self.scratch.plain[at..len].to_vec();
            // A shard that is too busy loses it: the client sees its connection closed.
            let _ = handle.send(Command::MoveStream(Box::new(Moved { connection, bytes })));
        }
        Ok(())
    }

    /// Takes in a connection that another shard accepted.
    pub(super) fn adopt(&mut self, accepted: Accepted, registry: &Registry, now: Instant) {
        self.outlets.streams.adopt(accepted, registry, now);
    }

    /// Takes in a connection that another shard had read from.
    pub(super) fn adopt_moved(
        &mut self,
        moved: Moved,
        registry: &Registry,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Some(id) = self
            .outlets
            .streams
            .adopt_connection(moved.connection, registry, now)
        else {
            return;
        };
        let len = moved.bytes.len();
        self.scratch.plain[..len].copy_from_slice(&moved.bytes);
        if let Err(ended) = self.messages(id, 0, len, registry, gauges, now) {
            self.close_stream(id, ended, registry, now);
        }
    }

    /// The core did not answer a datagram: it may be another shard's.
    fn hand_over_datagram(&mut self, client: &Client, datagram: &[u8], now: Instant) {
        if self.shards.len() < 2 {
            return;
        }
        let Some(shard) = self.core.take_hand_over(client).map(usize::from) else {
            return;
        };
        if self.moved.len() >= MOVED_MAX {
            self.moved
                .retain(|_, (_, heard)| now.saturating_duration_since(*heard) < MOVED_FORGET);
        }
        if shard < self.shards.len() && self.moved.len() < MOVED_MAX {
            self.moved.insert((client.source, client.server), (shard, now));
            self.stray(client.source, client.server, datagram, now);
        }
    }

    /// True if this client is another shard's, which its datagram was sent to.
    fn stray(&mut self, source: SocketAddr, server: SocketAddr, datagram: &[u8], now: Instant) -> bool {
        let Some((shard, heard)) = self.moved.get_mut(&(source, server)) else {
            return false;
        };
        *heard = now;
        let there = &self.shards[*shard];
        // One that finds a full queue is lost, as datagrams are.
        match Datagram::new(source, Some(server.ip()), self.index, datagram) {
            Some(datagram) => {
                there.post(Parcel::Turn(datagram, server));
                // It rings once however often it is told to before that shard looks.
                there.ring();
            }
            None => {
                let bytes = datagram.to_vec();
                let _ = there.send(Command::TurnDatagram(Box::new(Strayed {
                    source,
                    server,
                    bytes,
                })));
            }
        }
        true
    }

    /// Takes in a datagram that another shard received.
    pub(super) fn take_moved(
        &mut self,
        source: SocketAddr,
        server: SocketAddr,
        datagram: &[u8],
        registry: &Registry,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self { core, outlets, .. } = self;
        let client = Client::udp(source, server);
        if let Some(transmit) = core.handle_client(now, client, datagram) {
            let unsent = outlets.forward(&transmit, None, true, gauges);
            unsent.give_back(core);
        }
        self.events(registry, gauges, now);
    }

    fn close_stream(&mut self, id: ConnectionId, ended: Ended, registry: &Registry, now: Instant) {
        if let Some(client) = self.outlets.streams.client(id) {
            self.core.connection_closed(&client, now);
        }
        self.outlets.streams.close(id, ended, registry);
    }

    fn work_data(&mut self, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        for _ in 0..DataSockets::accepts_a_round() {
            let Some((allocation, io, peer)) = self.data.next_accepted() else {
                break;
            };
            let Self {
                core, outlets, data, ..
            } = self;
            let Some((connection, transmit)) = core.accepted(allocation, peer, now) else {
                continue;
            };
            let _ = outlets.forward(&transmit, None, true, gauges);
            if data.keep(registry, io, connection).is_err() {
                core.data_closed(connection);
            }
        }
        while let Some(happened) = self.data.happened.pop_front() {
            let Self { core, outlets, .. } = self;
            let answer = match happened {
                Happened::Connected(data) => core.connected(data, now),
                Happened::Failed(data) => core.connect_failed(data),
            };
            if let Some(transmit) = answer {
                let _ = outlets.forward(&transmit, None, true, gauges);
            }
        }
        let Self {
            core, outlets, data, ..
        } = self;
        let over = data.pump(core, &mut outlets.streams, now);
        for connection in over {
            self.core.data_closed(connection);
            self.close_data(connection, registry);
        }
        self.events(registry, gauges, now);
    }

    fn close_data(&mut self, data: DataConnection, registry: &Registry) {
        let (connecting, client) = self.data.close(data);
        if connecting {
            self.data.happened.push_back(Happened::Failed(data));
        }
        if let Some(id) = client {
            self.outlets.streams.close(id, Ended::ByClient, registry);
        }
    }

    /// Sends what waits on connections.
    pub(super) fn flush(&mut self, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        while let Some((id, ended)) = self.outlets.streams.flush() {
            self.close_stream(id, ended, registry, now);
        }
        self.events(registry, gauges, now);
    }

    /// Lets time pass.
    pub(super) fn handle_timeout(&mut self, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        self.core.handle_timeout(now);
        self.data.handle_timeout(now);
        let Self { core, outlets, .. } = self;
        for id in outlets.streams.silent(now, |client| core.serves(client)) {
            self.close_stream(id, Ended::Silent, registry, now);
        }
        let Self { core, outlets, .. } = self;
        for id in outlets.dtls.handle_timeout(now, |client| core.serves(client)) {
            outlets.dtls_out(id, gauges);
        }
        self.after_dtls(gauges, now);
    }

    /// Sends an answer of the core's own.
    fn answer(outlets: &mut Outlets, transmit: Option<Transmit<'_>>, gauges: &mut Gauges) {
        if let Some(transmit) = transmit {
            // It costs nothing, so there is nothing to give back.
            let _ = outlets.forward(&transmit, None, true, gauges);
        }
    }

    /// The money for a pending allocation is there.
    pub(super) fn admitted(
        &mut self,
        allocation: AllocationKey,
        allowance: Allowance,
        step: metering::Step,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self { core, outlets, .. } = self;
        let answer = core.admitted(allocation, allowance, step, now);
        Self::answer(outlets, answer, gauges);
    }

    /// There is no money for a pending allocation.
    pub(super) fn refused(
        &mut self,
        allocation: AllocationKey,
        reason: Refusal,
        gauges: &mut Gauges,
        now: Instant,
    ) {
        let Self { core, outlets, .. } = self;
        let answer = core.refused(allocation, reason, now);
        Self::answer(outlets, answer, gauges);
    }

    /// Does what the core asks for.
    pub(super) fn events(&mut self, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        while let Some(event) = self.core.poll_event() {
            self.obey(event, registry, gauges, now);
        }
    }

    fn obey(&mut self, event: Event, registry: &Registry, gauges: &mut Gauges, now: Instant) {
        match event {
            Event::Admit {
                allocation,
                session,
                permit,
            } => {
                let admission = TurnAdmission {
                    shard: self.index,
                    allocation: allocation.get(),
                    session,
                    account: AccountId::new(permit.account()),
                    cap: cashier::cap(&permit),
                };
                if !self.cashier.try_turn_admit(admission) {
                    self.refused(allocation, Refusal::Unavailable, gauges, now);
                }
            }
            Event::OpenRelay {
                allocation,
                protocol,
                family,
                port,
            } => {
                let Self {
                    core, outlets, data, ..
                } = self;
                let sockets = &mut outlets.sockets;
                let opened = match protocol {
                    Protocol::Udp => sockets
                        .open(registry, allocation, family, port)
                        .inspect(|_| outlets.hairpin.opened(port, allocation)),
                    Protocol::Tcp => sockets.addresses_of(family, port).and_then(|(bound, told)| {
                        data.listen(registry, allocation, family, bound)?;
                        Ok(told)
                    }),
                };
                let answer = match opened {
                    Ok(relayed) => core.relay_opened(allocation, relayed, now),
                    Err(error) => {
                        tracing::debug!(shard = self.index, %error, "a relayed port was not opened");
                        core.relay_failed(allocation, family, now)
                    }
                };
                if let Some(Via::Connection(id)) = answer.as_ref().map(|answer| answer.via) {
                    outlets.streams.set_known(id);
                }
                Self::answer(outlets, answer, gauges);
            }
            Event::CloseRelay { allocation, family } => {
                if let Some(port) = self.outlets.sockets.relayed_port(allocation, family) {
                    self.outlets.hairpin.closed(port);
                }
                self.outlets.sockets.close(registry, allocation, family);
                self.data.close_relay(allocation, family);
            }
            Event::Connect {
                data,
                allocation,
                peer,
            } => self.data.connect(registry, data, allocation, peer),
            Event::Join { data, client } => self.data.join(data, client),
            Event::CloseData { data } => self.close_data(data, registry),
            // Taken care of where the message came from; a DTLS association cannot change its shard.
            Event::HandOver { .. } => {}
            Event::Report(report) => self.cashier.try_report(self.index, report),
            Event::Closed { session, reason, .. } => {
                tracing::debug!(shard = self.index, %session, ?reason, "allocation closed");
            }
        }
    }

    /// What connections did not bring in or out, by reason.
    pub(super) fn stream_discards(&self) -> &[u64; StreamDiscard::ALL.len()] {
        &self.outlets.streams.discards
    }
}
