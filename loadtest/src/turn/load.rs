//! What flows: each allocation has one client, one channel and one peer, and packets go one way through it. The stamp
//! at the end of a packet says which it is and when it left.

use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

use datagram::{Inbox, Socket, Transmit};
use indicatif::ProgressBar;
use mio::{Events, Interest, Poll, Token};
use wire::channel_data::{self, HEADER_LEN};

use super::allocation::{Allocation, Credentials, Opening};
use super::link::{Link, Transport, bind_peer};
use super::report::{Allocations, Flows};
use super::server::Server;
use crate::Error;
use crate::alarm::{ALARM, Alarm};
use crate::histogram::Histogram;
use crate::media::{Content, STAMP_LEN, Stamp};
use crate::pace::{Pace, ROUND};
use crate::process::{self, Usage};
use crate::publisher::single;
use crate::report::Generator;

/// Packets still on their way are waited for.
const GRACE: Duration = Duration::from_millis(500);
/// Before the measurement.
const SETTLE: Duration = Duration::from_millis(500);
const EVENTS_MAX: usize = 1_024;
/// Allocations that are made at the same time.
const WAVE: usize = 64;
/// A generator that is behind by so much leaves out what it should have sent: a report that says so is worth more than a
/// run that never ends.
const BEHIND_MAX: u64 = 500_000_000;
/// Of all that are open, those whose relaying is tried: bounded, so that it takes no time.
const SAMPLE: usize = 64;
/// For one packet of the sample.
const SAMPLE_MAX: Duration = Duration::from_secs(2);

/// Which way packets go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    /// From clients to peers.
    Up,
    /// From peers to clients.
    Down,
    /// Every other allocation up, the rest down.
    Both,
}

/// A load.
#[derive(Clone, Debug)]
pub struct Load {
    /// "turn sparse" and so on.
    pub scenario: String,
    /// The kind of server.
    pub target: String,
    /// How clients reach it.
    pub transport: Transport,
    /// How many.
    pub allocations: usize,
    /// Packets that leave together, in one send.
    pub burst: usize,
    /// Application bytes of each.
    pub bytes: usize,
    /// Bursts a second of each allocation.
    pub bursts_per_second: f64,
    /// Which way.
    pub way: Way,
    /// For how long it is measured.
    pub duration: Duration,
}

/// One allocation with its peer.
struct Flow {
    allocation: Allocation,
    peer: Socket,
    is_up: bool,
    due: u64,
    number: u64,
    sent: u64,
    seen: Vec<u64>,
    first: u64,
}

/// Everything that flows.
struct Run<'a> {
    load: &'a Load,
    poll: Poll,
    alarm: Alarm,
    epoch: Instant,
    flows: Vec<Flow>,
    inbox: Inbox,
    /// The flow that is due next: all have the same interval, so they stay in order.
    next: usize,
    batch: Vec<u8>,
    window: Range<u64>,
    received: u64,
    duplicates: u64,
    arrived: u64,
    bytes: u64,
    refused: u64,
    latencies: Histogram,
    lateness: Histogram,
    pace: Pace,
    /// Packets sent and received, ever.
    handled: u64,
}

/// Opens every allocation and lets packets flow.
pub fn run(load: &Load, server: &Server, progress: &ProgressBar) -> Result<Flows, Error> {
    if load.bytes < STAMP_LEN || load.burst == 0 {
        return Err(format!("a packet has at least {STAMP_LEN} bytes, and a burst one packet").into());
    }
    let before = server.pid.and_then(process::usage);
    let mut run = Run::open(load, server, progress)?;
    let opened = server.pid.and_then(process::usage);
    run.run_for(SETTLE)?;
    let start = run.now();
    run.measure(start..start + load.duration.as_nanos() as u64);
    let ports = run.ports()?;
    let is_ours = |port: u16| ports.binary_search(&port).is_ok();
    let drops_before = process::socket_drops(is_ours);
    let server_before = server.pid.and_then(process::usage);
    let generator_before = process::usage(std::process::id()).unwrap_or_default();
    let waited_before = process::waited_seconds().unwrap_or_default();
    let began = Instant::now();
    progress.set_message("measuring");
    progress.set_length(load.duration.as_secs().max(1));
    while began.elapsed() < load.duration {
        let left = load.duration.saturating_sub(began.elapsed());
        run.run_for(left.min(Duration::from_millis(500)))?;
        progress.set_position(began.elapsed().as_secs());
    }
    let server_after = server.pid.and_then(process::usage);
    let generator_after = process::usage(std::process::id()).unwrap_or_default();
    let waited = process::waited_seconds().unwrap_or_default() - waited_before;
    let seconds = began.elapsed().as_secs_f64();
    let (arrived, bytes) = (run.arrived, run.bytes);
    run.run_for(GRACE)?;
    let dropped = process::socket_drops(is_ours).saturating_sub(drops_before);
    let sent: u64 = run.flows.iter().map(|flow| flow.sent).sum();
    let generator = Generator::new(
        (generator_before, generator_after),
        seconds,
        arrived,
        waited,
        dropped,
        run.refused,
        &run.lateness,
    );
    let report = Flows::new(
        load,
        seconds,
        (sent, run.received, run.duplicates),
        bytes,
        &run.latencies,
        server_before
            .zip(server_after)
            .map(|usage| (usage, arrived, before.zip(opened))),
        generator,
    );
    progress.set_message("leaving");
    Ok(report)
}

/// Makes some allocations at the same time; the first of them is number `first`.
fn open_wave(
    transport: Transport,
    first: usize,
    credentials: &[(Credentials, SocketAddr)],
    inbox: &mut Inbox,
) -> Result<Vec<Allocation>, Error> {
    let mut openings = Vec::with_capacity(credentials.len());
    for (index, (one, address)) in credentials.iter().enumerate() {
        let client = (first + index) as u32;
        let link = Link::open(transport, *address, client)?;
        openings.push(Opening::begin(link, client, one)?);
    }
    let mut open = Vec::with_capacity(openings.len());
    for opening in openings {
        open.push(opening.authenticate(inbox)?);
    }
    for allocation in &mut open {
        allocation.finish(inbox)?;
    }
    Ok(open)
}

/// Opens so many allocations and says what each cost.
pub fn allocations(
    target: &str,
    transport: Transport,
    count: usize,
    server: &Server,
    progress: &ProgressBar,
) -> Result<Allocations, Error> {
    let credentials = server.credentials(transport, count)?;
    let mut inbox = Inbox::new();
    // What a server needs once, for its first allocations, is not what each costs. By other clients: a server may keep a
    // 5-tuple for a while.
    end_all(
        &mut open_wave(transport, count, &credentials[..WAVE.min(count)], &mut inbox)?,
        &mut inbox,
    )?;
    std::thread::sleep(SETTLE);
    let mut open = Vec::with_capacity(count);
    let before = server.pid.and_then(process::usage);
    let generator_before = process::usage(std::process::id()).unwrap_or_default();
    let began = Instant::now();
    progress.set_length(count as u64);
    for (wave, some) in credentials.chunks(WAVE).enumerate() {
        open.extend(open_wave(transport, wave * WAVE, some, &mut inbox)?);
        progress.set_position(open.len() as u64);
    }
    let seconds = began.elapsed().as_secs_f64();
    // Let what the server does afterwards be counted too.
    std::thread::sleep(SETTLE);
    let after = server.pid.and_then(process::usage);
    let generator_after = process::usage(std::process::id()).unwrap_or_default();
    let mut report = Allocations::new(
        target,
        transport,
        count,
        seconds,
        before.zip(after),
        generator_after.cpu_seconds - generator_before.cpu_seconds,
    );
    if transport == Transport::Udp {
        report.relayed_both_ways = Some(relay_sample(&mut open, &credentials, &mut inbox)?);
    }
    progress.set_message("leaving");
    end_all(&mut open, &mut inbox)?;
    Ok(report)
}

fn end_all(open: &mut [Allocation], inbox: &mut Inbox) -> Result<(), Error> {
    for wave in open.chunks_mut(WAVE) {
        wave.iter_mut().try_for_each(Allocation::end)?;
        wave.iter_mut()
            .try_for_each(|allocation| allocation.done(inbox))?;
    }
    Ok(())
}

/// Lets some allocations, spread over all of them, relay a packet each way. How many did.
fn relay_sample(
    open: &mut [Allocation],
    credentials: &[(Credentials, SocketAddr)],
    inbox: &mut Inbox,
) -> Result<usize, Error> {
    let step = open.len().div_ceil(SAMPLE).max(1);
    let mut relayed = 0;
    for index in (0..open.len()).step_by(step) {
        let allocation = &mut open[index];
        let mut peer = bind_peer(credentials[index].1, index as u32)?;
        allocation.bind(peer.local_addr())?;
        allocation.done(inbox)?;
        let payload = (index as u64).to_be_bytes();
        let mut message = [0; HEADER_LEN + size_of::<u64>()];
        let (head, data) = message.split_at_mut(HEADER_LEN);
        let head = head.first_chunk_mut().ok_or("a message holds its header")?;
        channel_data::write_header(head, channel_data::ChannelNumber::MIN, payload.len() as u16);
        data.copy_from_slice(&payload);
        allocation.link.send(&message, message.len())?;
        let went_up = arrives(|| {
            let mut got = false;
            for buffer in 0..peer.receive(inbox).unwrap_or(0) {
                let datagrams = inbox.datagrams(buffer);
                let of_relay = datagrams.filter(|(meta, _)| meta.source == allocation.relayed);
                got |= of_relay.and_then(|(_, mut all)| all.next_datagram().map(|d| *d == payload))
                    == Some(true);
            }
            Ok(got)
        })?;
        // What the kernel does not take does not arrive, and is told below.
        let _ = peer.send(&single(allocation.relayed, &payload));
        let link = &mut allocation.link;
        let came_down = arrives(|| {
            let mut got = false;
            link.receive(inbox, |answer| got |= answer == message)?;
            Ok(got)
        })?;
        relayed += usize::from(went_up && came_down);
    }
    Ok(relayed)
}

/// Asks again until it is there, or long enough.
fn arrives(mut look: impl FnMut() -> Result<bool, Error>) -> Result<bool, Error> {
    let end = Instant::now() + SAMPLE_MAX;
    while Instant::now() < end {
        if look()? {
            return Ok(true);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
    Ok(false)
}

impl<'a> Run<'a> {
    fn open(load: &'a Load, server: &Server, progress: &ProgressBar) -> Result<Run<'a>, Error> {
        let poll = Poll::new()?;
        let alarm = Alarm::new(poll.registry())?;
        let mut run = Run {
            load,
            poll,
            alarm,
            epoch: Instant::now(),
            flows: Vec::with_capacity(load.allocations),
            inbox: Inbox::new(),
            next: 0,
            batch: Vec::with_capacity(load.burst * (HEADER_LEN + load.bytes + 3)),
            window: 0..0,
            received: 0,
            duplicates: 0,
            arrived: 0,
            bytes: 0,
            refused: 0,
            latencies: Histogram::default(),
            lateness: Histogram::default(),
            pace: Pace::default(),
            handled: 0,
        };
        let credentials = server.credentials(load.transport, load.allocations)?;
        progress.set_length(load.allocations as u64);
        for (wave, some) in credentials.chunks(WAVE).enumerate() {
            let mut peers = Vec::with_capacity(some.len());
            let mut open = open_wave(load.transport, wave * WAVE, some, &mut run.inbox)?;
            for (index, allocation) in open.iter_mut().enumerate() {
                let peer = bind_peer(some[index].1, (wave * WAVE + index) as u32)?;
                allocation.bind(peer.local_addr())?;
                peers.push(peer);
            }
            for (mut allocation, peer) in open.into_iter().zip(peers) {
                allocation.done(&mut run.inbox)?;
                run.take(allocation, peer)?;
            }
            progress.set_position(run.flows.len() as u64);
        }
        let interval = run.interval();
        let now = run.now();
        let count = run.flows.len() as u64;
        for (index, flow) in run.flows.iter_mut().enumerate() {
            flow.due = now + interval * index as u64 / count.max(1);
        }
        Ok(run)
    }

    fn take(&mut self, mut allocation: Allocation, mut peer: Socket) -> Result<(), Error> {
        let index = self.flows.len();
        let registry = self.poll.registry();
        allocation.link.register(registry, Token(2 * index))?;
        registry.register(&mut peer, Token(2 * index + 1), Interest::READABLE)?;
        self.flows.push(Flow {
            allocation,
            peer,
            is_up: match self.load.way {
                Way::Up => true,
                Way::Down => false,
                Way::Both => index.is_multiple_of(2),
            },
            due: 0,
            number: 0,
            sent: 0,
            seen: Vec::new(),
            first: 0,
        });
        Ok(())
    }

    fn now(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }

    fn interval(&self) -> u64 {
        (1e9 / self.load.bursts_per_second.max(0.001)) as u64
    }

    fn measure(&mut self, window: Range<u64>) {
        let rate = self.load.bursts_per_second * self.load.burst as f64;
        let room = rate * (self.load.duration.as_secs_f64() + 1.0) + 64.0;
        for flow in &mut self.flows {
            flow.first = flow.number;
            flow.seen = vec![0; (room as usize).div_ceil(64)];
        }
        self.window = window;
        (
            self.received,
            self.duplicates,
            self.arrived,
            self.bytes,
            self.refused,
        ) = (0, 0, 0, 0, 0);
        self.latencies = Histogram::default();
        self.lateness = Histogram::default();
    }

    /// The generator's own ports, in order.
    fn ports(&self) -> Result<Vec<u16>, Error> {
        let mut ports = Vec::with_capacity(2 * self.flows.len());
        for flow in &self.flows {
            ports.push(flow.peer.local_addr().port());
            ports.push(flow.allocation.link.port()?);
        }
        ports.sort_unstable();
        Ok(ports)
    }

    fn run_for(&mut self, duration: Duration) -> Result<(), Error> {
        let end = self.now() + duration.as_nanos() as u64;
        let mut events = Events::with_capacity(EVENTS_MAX);
        loop {
            let now = self.now();
            if now >= end {
                return Ok(());
            }
            self.send_due(now)?;
            // What is due within a round leaves with the next one.
            let due = if self.pace.is_busy() {
                self.now() + ROUND
            } else {
                self.flows.get(self.next).map_or(end, |flow| flow.due)
            };
            self.pace.wait(self.now(), due.min(end), self.handled);
            self.alarm.set(due.min(end).saturating_sub(self.now()))?;
            match self.poll.poll(&mut events, Some(Duration::from_secs(1))) {
                Err(error) if error.kind() != std::io::ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            for (at, event) in events.iter().enumerate() {
                if event.token() == ALARM {
                    continue;
                }
                self.read(event.token().0)?;
                // Packets leave on time although many sockets are ready.
                if at % 32 == 31 {
                    self.send_due(self.now())?;
                }
            }
        }
    }

    fn send_due(&mut self, now: u64) -> Result<(), Error> {
        let interval = self.interval();
        while let Some(due) = self.flows.get(self.next).map(|flow| flow.due)
            && due <= now
        {
            if self.window.contains(&due) {
                self.lateness.record(((now - due) / 1_000) as u32);
            }
            let behind = now - due;
            if behind > BEHIND_MAX {
                self.flows.iter_mut().for_each(|flow| flow.due += behind);
                continue;
            }
            let index = self.next;
            self.send(index)?;
            self.flows[index].due += interval;
            self.next = (self.next + 1) % self.flows.len();
        }
        Ok(())
    }

    /// A burst of one flow.
    fn send(&mut self, index: usize) -> Result<(), Error> {
        let now = self.now();
        let (burst, bytes) = (self.load.burst, self.load.bytes);
        let flow = &mut self.flows[index];
        let header = if flow.is_up { HEADER_LEN } else { 0 };
        // Over a stream every message is padded (RFC 8656 section 12.5).
        let padded = match flow.allocation.link {
            Link::Stream(_) if flow.is_up => bytes.next_multiple_of(4),
            _ => bytes,
        };
        let size = header + padded;
        self.batch.resize(burst * size, 0x5A);
        for message in self.batch.chunks_exact_mut(size) {
            if flow.is_up {
                let head: &mut [u8; HEADER_LEN] =
                    message.first_chunk_mut().ok_or("a message holds its header")?;
                let number = channel_data::ChannelNumber::MIN;
                channel_data::write_header(head, number, bytes as u16);
            }
            let stamp = Stamp {
                content: Content::Delta,
                publisher: index as u16,
                number: flow.number,
                nanoseconds: now,
            };
            let end = header + bytes;
            message[end - STAMP_LEN..end].copy_from_slice(&stamp.to_bytes());
            flow.number += 1;
        }
        self.handled += burst as u64;
        if self.window.contains(&now) {
            flow.sent += burst as u64;
        }
        self.refused += if flow.is_up {
            flow.allocation.link.send(&self.batch, size)?
        } else {
            let transmit = Transmit {
                segment_size: (burst > 1).then_some(size),
                ..single(flow.allocation.relayed, &self.batch)
            };
            flow.peer
                .send(&transmit)
                .err()
                .map_or(0, |refused| refused.datagrams)
        };
        Ok(())
    }

    fn read(&mut self, token: usize) -> Result<(), Error> {
        let epoch = self.epoch;
        let window = &self.window;
        let Some(flow) = self.flows.get_mut(token / 2) else {
            return Ok(());
        };
        let (first, seen) = (flow.first, &mut flow.seen);
        let (received, duplicates) = (&mut self.received, &mut self.duplicates);
        let (arrived, bytes, latencies) = (&mut self.arrived, &mut self.bytes, &mut self.latencies);
        let handled = &mut self.handled;
        let mut take = |payload: &[u8]| {
            let Some(stamp) = Stamp::read(payload) else { return };
            let now = epoch.elapsed().as_nanos() as u64;
            *arrived += 1;
            *handled += 1;
            *bytes += payload.len() as u64;
            if !window.contains(&stamp.nanoseconds) {
                return;
            }
            let at = stamp.number.wrapping_sub(first);
            let Some(word) = seen.get_mut((at / 64) as usize) else {
                return;
            };
            let bit = 1 << (at % 64);
            if *word & bit != 0 {
                *duplicates += 1;
                return;
            }
            *word |= bit;
            *received += 1;
            let microseconds = now.saturating_sub(stamp.nanoseconds) / 1_000;
            latencies.record(u32::try_from(microseconds).unwrap_or(u32::MAX));
        };
        if token.is_multiple_of(2) {
            // Channel data; what else a server says (Data indications, answers that come twice) carries no stamp of ours.
            return flow.allocation.link.receive(&mut self.inbox, |message| {
                if let Ok(message) = channel_data::parse_datagram(message) {
                    take(message.data);
                }
            });
        }
        loop {
            let filled = flow.peer.receive(&mut self.inbox).unwrap_or(0);
            for index in 0..filled {
                let Some((_, mut datagrams)) = self.inbox.datagrams(index) else {
                    continue;
                };
                while let Some(datagram) = datagrams.next_datagram() {
                    take(datagram);
                }
            }
            if self.inbox.drained() {
                return Ok(());
            }
        }
    }
}

/// What a server used: before and after, and its memory before and after the allocations were made.
pub type ServerUsage = ((Usage, Usage), u64, Option<(Usage, Usage)>);
