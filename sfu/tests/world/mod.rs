//! A simulated world: one core, str0m clients, and a network between them that loses, delays, reorders and
//! duplicates by a seed. Time is simulated; only the DTLS handshake's own randomness is real.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::Permit;
use identity::SigningKey;
use identity::token::{Issue, TokenPolicy, issue, verify};
use metering::{Allowance, LeaseId, Msat, Rates, SessionId, Usage};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use sfu::media::{IceCredentials, Kind, Media, Mid, Role};
use sfu::sdp::{LocalParameters, Negotiation, Purpose, VideoCodecs};
use sfu::{CloseReason, Config, Event, SendBuffer, Sfu, Source, Span};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind};
use str0m::net::{Protocol, Receive};
use str0m::rtp::rtcp::Rtcp;
use str0m::rtp::{RawPacket, RtpPacket, RtpWrite};
use str0m::{Candidate, Input, Output, Rtc};

pub const RELAY: &str = "192.0.2.1:5004";

/// A permit as the front door makes one: from a token that was really issued and verified.
pub fn permit() -> Arc<Permit> {
    let (operator, issuer, holder) = (
        SigningKey::generate(),
        SigningKey::generate(),
        SigningKey::generate(),
    );
    let mut claims = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, 1_000);
    claims.bearer = true;
    let jwt = issue(&issuer, &claims);
    let mut policy = TokenPolicy::new(operator.did().clone(), vec![issuer.did().clone()]);
    policy.allow_bearer = true;
    let token = verify(&jwt, &policy, 1_000).unwrap();
    Arc::new(Permit::from_bearer(token).unwrap())
}

/// What the network does to a datagram.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub loss: f64,
    pub duplication: f64,
    /// Extra delay of a share of datagrams, which reorders them.
    pub reordering: f64,
}

impl Weather {
    pub const FAIR: Weather = Weather {
        loss: 0.0,
        duplication: 0.0,
        reordering: 0.0,
    };
    pub const FOUL: Weather = Weather {
        loss: 0.05,
        duplication: 0.03,
        reordering: 0.05,
    };
}

const LATENCY: Duration = Duration::from_millis(10);

struct Datagram {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

/// A packet as a subscriber got it, in the clear.
pub struct Got {
    pub at: Instant,
    pub packet: RtpPacket,
}

pub struct Client {
    pub id: SessionId,
    pub address: SocketAddr,
    pub rtc: Rtc,
    pub negotiation: Negotiation,
    pub media: Media,
    /// What the simulated ledger grants in all; every report is answered with it.
    pub granted: Msat,
    pub publishing: bool,
    /// The core that has its session.
    pub core: usize,
    pub silent: bool,
    /// Media to it is thrown away unread: it only stays connected.
    pub deaf: bool,
    audio: Option<str0m::media::Mid>,
    video: Option<str0m::media::Mid>,
    pub got: Vec<Got>,
    pub rtcp: Vec<(Instant, Rtcp)>,
    pub key_frames_sent: u32,
    pub frames_sent: u32,
    want_key_frame: bool,
    audio_sequence: u64,
    video_sequence: u64,
    pub video_packets: u32,
    pub video_packet_bytes: usize,
    /// The last packet of a frame is so many bytes longer than the others, as libwebrtc splits frames.
    pub video_last_longer: usize,
    next_audio: Instant,
    next_video: Instant,
    timeout: Instant,
}

impl Client {
    /// The client's receive lines: the relay's send lines, audio and video of one slot next to each other.
    pub fn slots(&self, kind: Kind) -> Vec<Mid> {
        let sends = |role: &Role| matches!(role, Role::Send { .. });
        self.media
            .lines
            .iter()
            .filter(|line| line.kind == kind && sends(&line.role))
            .map(|line| line.mid)
            .collect()
    }

    /// Received packets of a kind, by extended sequence number.
    pub fn sequences(&self, kind: Kind) -> BTreeMap<u64, &Got> {
        let media = &self.media;
        let of_kind = |got: &&Got| {
            media.lines.iter().any(|line| {
                line.kind == kind
                    && matches!(line.role, Role::Send { ssrc, .. } if ssrc == *got.packet.header.ssrc)
            })
        };
        self.got
            .iter()
            .filter(of_kind)
            .map(|got| (*got.packet.seq_no, got))
            .collect()
    }
}

pub struct World {
    pub seed: u64,
    pub sfu: Sfu,
    /// Further cores, joined to the first.
    pub others: Vec<Sfu>,
    /// The core of whoever joins next.
    pub join_at: usize,
    /// Cores that take nothing from the others at present.
    pub stalled: Vec<usize>,
    pub now: Instant,
    pub start: Instant,
    pub clients: Vec<Client>,
    pub weather: Weather,
    pub events: Vec<Event>,
    /// Billable bytes that left for each client, counted on the wire as the money rules say.
    pub on_the_wire: BTreeMap<SocketAddr, u64>,
    /// (destination, ssrc, sequence number, ROC guess by order) -> ciphertext, for the nonce rule.
    pub sealed: BTreeMap<(SocketAddr, u32, u16), Vec<u8>>,
    pub sealed_twice: u32,
    /// Datagrams that clients sent to the relay, kept while this is `Some`.
    pub tap: Option<Vec<(SocketAddr, Vec<u8>)>>,
    /// Everything that left for an address no client has.
    pub strays: Vec<(SocketAddr, Vec<u8>)>,
    /// Told when a call into the core begins (true) and ends (false).
    pub watch: fn(bool),
    setup: &'static str,
    /// Refuse every n-th media send, as a kernel may.
    pub refuse_every: Option<u32>,
    /// Sends of media that left, in order: when, where to, and how many datagrams.
    pub media_sends: Vec<(Instant, SocketAddr, usize)>,
    sends: u32,
    rng: StdRng,
    flying: BTreeMap<(Instant, u64), Datagram>,
    flights: u64,
    certificate: sfu::dtls::Certificate,
    buffer: SendBuffer,
}

/// 50 msat per MB out, 8 msat a second: the default tariff.
pub const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};

impl World {
    pub fn new(seed: u64) -> World {
        World::with_config(seed, Config::default())
    }

    pub fn with_config(seed: u64, config: Config) -> World {
        println!("seed {seed}");
        let certificate = sfu::dtls::Certificate::generate();
        let start = Instant::now();
        World {
            seed,
            sfu: Sfu::new(config, certificate.clone(), [seed as u8; 32]),
            others: Vec::new(),
            join_at: 0,
            stalled: Vec::new(),
            now: start,
            start,
            clients: Vec::new(),
            weather: Weather::FAIR,
            events: Vec::new(),
            on_the_wire: BTreeMap::new(),
            sealed: BTreeMap::new(),
            sealed_twice: 0,
            tap: None,
            strays: Vec::new(),
            watch: |_| {},
            setup: "actpass",
            refuse_every: None,
            media_sends: Vec::new(),
            sends: 0,
            rng: StdRng::seed_from_u64(seed),
            flying: BTreeMap::new(),
            flights: 0,
            certificate,
            buffer: SendBuffer::new(),
        }
    }

    /// Several cores, joined by queues of so many places.
    pub fn spanning(seed: u64, cores: usize, places: usize) -> World {
        let mut world = World::new(seed);
        let make = |(core, span): (usize, Span)| {
            let seed = [seed as u8 ^ (core as u8).rotate_left(4); 32];
            Sfu::new(Config::default(), world.certificate.clone(), seed).spanning(span)
        };
        let mut all: Vec<Sfu> = Span::with_queues(cores, places)
            .into_iter()
            .enumerate()
            .map(make)
            .collect();
        world.sfu = all.remove(0);
        world.others = all;
        world
    }

    pub fn core(&mut self, core: usize) -> &mut Sfu {
        match core.checked_sub(1) {
            Some(other) => &mut self.others[other],
            None => &mut self.sfu,
        }
    }

    /// The core of a client's session.
    pub fn sfu_of(&mut self, client: usize) -> &mut Sfu {
        self.core(self.clients[client].core)
    }

    pub fn cores(&self) -> impl Iterator<Item = &Sfu> {
        std::iter::once(&self.sfu).chain(&self.others)
    }

    /// A client that publishes (if told so) and has `slots` pairs of receive lines. Returns its position.
    pub fn join(&mut self, publishing: bool, slots: usize) -> usize {
        self.join_with(publishing, slots, Msat::new(1_000_000), RATES)
    }

    /// As `join`, but the offer says `a=setup:passive`, so the relay starts DTLS.
    pub fn join_passive(&mut self, publishing: bool, slots: usize) -> usize {
        self.setup = "passive";
        let client = self.join(publishing, slots);
        self.setup = "actpass";
        client
    }

    pub fn join_with(&mut self, publishing: bool, slots: usize, granted: Msat, rates: Rates) -> usize {
        let number = self.clients.len();
        let address = SocketAddr::from(([198, 51, 100, number as u8 + 1], 40_000 + number as u16));
        let mut rtc = Rtc::builder()
            .set_rtp_mode(true)
            .enable_raw_packets(true)
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true)
            .build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").unwrap())
            .unwrap();
        let mut change = rtc.sdp_api();
        let (mut audio, mut video) = (None, None);
        if publishing {
            let stream = Some("stream".to_owned());
            audio = Some(change.add_media(MediaKind::Audio, Direction::SendOnly, stream.clone(), None, None));
            video = Some(change.add_media(MediaKind::Video, Direction::SendOnly, stream, None, None));
        }
        for _ in 0..slots {
            change.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
            change.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        }
        let (offer, pending) = change.apply().unwrap();
        let local = LocalParameters {
            purpose: Purpose::Call,
            ice: IceCredentials::generate(&mut self.rng),
            fingerprint: self.certificate.fingerprint(),
            candidates: vec![RELAY.parse().unwrap()],
            video_codecs: VideoCodecs::default(),
        };
        let mut negotiation = Negotiation::new(local, [number as u8 + 1; 32]);
        let offer = offer
            .to_sdp_string()
            .replace("a=setup:actpass", &format!("a=setup:{}", self.setup));
        let answer = negotiation.answer(&offer).unwrap();
        rtc.sdp_api()
            .accept_answer(pending, SdpAnswer::from_sdp_string(&answer.sdp).unwrap())
            .unwrap();

        let id = SessionId::new(number as u64 + 1);
        let allowance = Allowance::new(LeaseId::new(number as u64 + 1), id, rates, granted);
        let (core, now) = (self.join_at, self.now);
        let (permit, media) = (permit(), answer.media.clone());
        (self.watch)(true);
        let sfu = self.core(core);
        sfu.open(id, permit, answer.transport, allowance, now).unwrap();
        sfu.set_media(id, media);
        (self.watch)(false);
        let first = self.rng.random_range(65_000..65_536);
        self.clients.push(Client {
            id,
            address,
            rtc,
            negotiation,
            media: answer.media,
            granted,
            publishing,
            core,
            silent: false,
            deaf: false,
            audio,
            video,
            got: Vec::new(),
            rtcp: Vec::new(),
            key_frames_sent: 0,
            frames_sent: 0,
            want_key_frame: true,
            // Close to the wrap, so that every run crosses it.
            audio_sequence: first,
            video_sequence: first - 200,
            video_packets: 5,
            video_packet_bytes: 1_000,
            video_last_longer: 0,
            next_audio: self.now,
            next_video: self.now,
            timeout: self.now,
        });
        number
    }

    /// Routes everything `publisher` sends into slot `slot` of `subscriber`.
    pub fn subscribe(&mut self, subscriber: usize, slot: usize, publisher: usize) {
        let session = self.clients[publisher].id;
        for kind in [Kind::Audio, Kind::Video] {
            let mid = self.clients[subscriber].slots(kind)[slot];
            let id = self.clients[subscriber].id;
            (self.watch)(true);
            self.sfu_of(subscriber)
                .route(id, mid, Some(Source { session, kind }));
            (self.watch)(false);
        }
    }

    pub fn unsubscribe(&mut self, subscriber: usize, slot: usize) {
        for kind in [Kind::Audio, Kind::Video] {
            let mid = self.clients[subscriber].slots(kind)[slot];
            let id = self.clients[subscriber].id;
            self.sfu_of(subscriber).route(id, mid, None);
        }
    }

    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
        }
    }

    /// Runs until `done`, at most 30 simulated seconds.
    pub fn run_until(&mut self, what: &str, mut done: impl FnMut(&World) -> bool) {
        let end = self.now + Duration::from_secs(30);
        while !done(self) {
            assert!(self.now < end, "seed {}: never: {what}", self.seed);
            self.step();
        }
    }

    pub fn connect_all(&mut self) {
        let count = self.clients.len();
        self.run_until("all connected", |world| {
            world
                .events
                .iter()
                .filter(|event| matches!(event, Event::Connected { .. }))
                .count()
                >= count
        });
    }

    pub fn closed(&self, client: usize) -> Option<(CloseReason, Usage)> {
        self.events.iter().find_map(|event| match event {
            Event::Closed {
                session,
                reason,
                report,
            } if *session == self.clients[client].id => Some((*reason, report.usage)),
            _ => None,
        })
    }

    /// One millisecond.
    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let now = self.now;
        while let Some(entry) = self.flying.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let datagram = entry.remove();
            self.deliver(datagram);
        }
        for core in 0..=self.others.len() {
            let stalled = self.stalled.contains(&core);
            (self.watch)(true);
            let mut more = !self.others.is_empty() && !stalled;
            while more {
                more = self.core(core).handle_crossings(now);
                self.drain_core(core);
            }
            if self.core(core).poll_timeout().is_some_and(|due| due <= now) {
                self.core(core).handle_timeout(now);
            }
            (self.watch)(false);
        }
        for client in 0..self.clients.len() {
            self.publish(client);
            if self.clients[client].timeout <= now {
                self.clients[client]
                    .rtc
                    .handle_input(Input::Timeout(now))
                    .unwrap();
            }
            self.drain_client(client);
        }
        self.drain_sfu();
    }

    fn deliver(&mut self, mut datagram: Datagram) {
        let relay: SocketAddr = RELAY.parse().unwrap();
        if datagram.to == relay {
            let local: IpAddr = relay.ip();
            let from = self.clients.iter().find(|client| client.address == datagram.from);
            let (core, now) = (from.map_or(0, |client| client.core), self.now);
            (self.watch)(true);
            self.core(core)
                .handle_datagram(now, datagram.from, Some(local), &mut datagram.bytes);
            (self.watch)(false);
            return;
        }
        let Some(client) = self
            .clients
            .iter_mut()
            .position(|client| client.address == datagram.to)
        else {
            return;
        };
        if self.clients[client].silent || self.clients[client].deaf && rtp_identity(&datagram.bytes).is_some()
        {
            return;
        }
        let receive = Receive::new(Protocol::Udp, datagram.from, datagram.to, &datagram.bytes).unwrap();
        self.clients[client]
            .rtc
            .handle_input(Input::Receive(self.now, receive))
            .unwrap();
        self.drain_client(client);
    }

    /// A datagram out of nowhere reaches the relay.
    pub fn inject(&mut self, from: SocketAddr, bytes: &[u8]) {
        let mut bytes = bytes.to_vec();
        self.sfu.handle_datagram(self.now, from, None, &mut bytes);
        self.drain_sfu();
    }

    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: Vec<u8>) {
        if to == RELAY.parse().unwrap() {
            if let Some(tap) = &mut self.tap {
                tap.push((from, bytes.clone()));
            }
        } else if !self.clients.iter().any(|client| client.address == to) {
            self.strays.push((to, bytes.clone()));
        }
        let copies = 1 + usize::from(self.rng.random_bool(self.weather.duplication));
        for _ in 0..copies {
            if self.rng.random_bool(self.weather.loss) {
                continue;
            }
            let late = self.rng.random_bool(self.weather.reordering);
            let delay = LATENCY
                + if late {
                    Duration::from_millis(self.rng.random_range(1..25))
                } else {
                    Duration::ZERO
                };
            self.flights += 1;
            let datagram = Datagram {
                from,
                to,
                bytes: bytes.clone(),
            };
            self.flying.insert((self.now + delay, self.flights), datagram);
        }
    }

    fn drain_client(&mut self, at: usize) {
        let now = self.now;
        loop {
            let client = &mut self.clients[at];
            let Ok(output) = client.rtc.poll_output() else {
                // A client that nobody answers gives up at some point.
                client.silent = true;
                client.timeout = now + Duration::from_secs(3_600);
                return;
            };
            match output {
                Output::Timeout(due) => {
                    client.timeout = due;
                    return;
                }
                Output::Transmit(transmit) => {
                    if !client.silent {
                        self.send(transmit.source, transmit.destination, transmit.contents.to_vec());
                    }
                }
                Output::Event(event) => match event {
                    str0m::Event::RtpPacket(packet) => client.got.push(Got { at: now, packet }),
                    str0m::Event::KeyframeRequest(_) => client.want_key_frame = true,
                    str0m::Event::RawPacket(packet) => {
                        if let RawPacket::RtcpRx(rtcp) = *packet {
                            client.rtcp.push((now, rtcp));
                        }
                    }
                    _ => {}
                },
            }
        }
    }

    fn publish(&mut self, at: usize) {
        let now = self.now;
        let client = &mut self.clients[at];
        if !client.publishing || client.silent || !client.rtc.is_connected() {
            (client.next_audio, client.next_video) = (now, now);
            return;
        }
        let elapsed = now.duration_since(self.start).as_micros() as u64;
        let mut direct = client.rtc.direct_api();
        if client.next_audio <= now {
            client.next_audio += Duration::from_millis(20);
            if let Some(stream) = client.audio.and_then(|mid| direct.stream_tx_by_mid(mid, None)) {
                let body = vec![at as u8; 80];
                let time = (elapsed * 48 / 1000) as u32;
                stream.write_rtp(RtpWrite::new(
                    111.into(),
                    client.audio_sequence.into(),
                    time,
                    now,
                    body,
                ));
                client.audio_sequence += 1;
            }
        }
        if client.next_video <= now {
            client.next_video += Duration::from_micros(33_333);
            if let Some(stream) = client.video.and_then(|mid| direct.stream_tx_by_mid(mid, None)) {
                let key = std::mem::take(&mut client.want_key_frame);
                client.key_frames_sent += u32::from(key);
                client.frames_sent += 1;
                let time = (elapsed * 90 / 1000) as u32;
                for packet in 0..client.video_packets {
                    let longer = if packet + 1 == client.video_packets {
                        client.video_last_longer
                    } else {
                        0
                    };
                    let mut body = vec![client.video_sequence as u8; client.video_packet_bytes + longer];
                    // The VP8 payload descriptor and the P bit.
                    body[0] = if packet == 0 { 0x10 } else { 0x00 };
                    body[1] = u8::from(!key);
                    body[2..6].copy_from_slice(&client.frames_sent.to_be_bytes());
                    body[6] = packet as u8;
                    body[7] = at as u8;
                    let sequence = client.video_sequence.into();
                    stream.write_rtp(
                        RtpWrite::new(96.into(), sequence, time, now, body)
                            .marker(packet + 1 == client.video_packets)
                            .nackable(true),
                    );
                    client.video_sequence += 1;
                }
            }
        }
    }

    fn drain_sfu(&mut self) {
        for core in 0..=self.others.len() {
            self.drain_core(core);
        }
    }

    fn drain_core(&mut self, core: usize) {
        let mut outgoing = Vec::new();
        let mut refused = Vec::new();
        let mut buffer = std::mem::take(&mut self.buffer);
        loop {
            (self.watch)(true);
            let now = self.now;
            let transmit = match core.checked_sub(1) {
                Some(other) => self.others[other].poll_transmit(now, &mut buffer),
                None => self.sfu.poll_transmit(now, &mut buffer),
            };
            (self.watch)(false);
            let Some(transmit) = transmit else {
                break;
            };
            assert!(!transmit.contents.is_empty());
            let segment = transmit.segment_size.unwrap_or(transmit.contents.len());
            let billable: u64 = transmit.contents.chunks(segment).map(billable).sum();
            assert_eq!(
                transmit.charged.map_or(0, |charged| charged.bytes),
                billable,
                "seed {}",
                self.seed
            );
            self.sends += 1;
            if rtp_identity(transmit.contents).is_some() {
                let datagrams = transmit.contents.len().div_ceil(segment);
                self.media_sends.push((self.now, transmit.destination, datagrams));
            }
            let deaf = self
                .clients
                .iter()
                .any(|client| client.deaf && client.address == transmit.destination);
            if deaf && rtp_identity(transmit.contents).is_some() {
                *self.on_the_wire.entry(transmit.destination).or_default() += billable;
                continue;
            }
            let refuse = self
                .refuse_every
                .is_some_and(|every| self.sends.is_multiple_of(every))
                && billable > 0;
            for datagram in transmit.contents.chunks(segment) {
                if let Some((ssrc, sequence)) = rtp_identity(datagram) {
                    let key = (transmit.destination, ssrc, sequence);
                    if self
                        .sealed
                        .insert(key, datagram.to_vec())
                        .is_some_and(|old| old != datagram)
                    {
                        self.sealed_twice += 1;
                    }
                }
                if !refuse {
                    outgoing.push((transmit.destination, datagram.to_vec()));
                }
            }
            if refuse {
                refused.push(transmit.charged.unwrap());
            } else {
                *self.on_the_wire.entry(transmit.destination).or_default() += billable;
            }
        }
        self.buffer = buffer;
        refused
            .into_iter()
            .for_each(|charged| self.core(core).give_back(charged));
        let relay = RELAY.parse().unwrap();
        outgoing
            .into_iter()
            .for_each(|(to, bytes)| self.send(relay, to, bytes));
        while self.core(core).poll_wake().is_some() {}
        while let Some(event) = self.core(core).poll_event() {
            if let Event::Report { session, .. } = &event {
                let client = self.clients.iter().find(|client| client.id == *session).unwrap();
                let granted = client.granted;
                self.core(core).grant(*session, granted);
            }
            self.events.push(event);
        }
    }
}

/// What a capture would count, written down again from the money rules.
pub fn billable(datagram: &[u8]) -> u64 {
    match datagram {
        [128..=191, 192..=223, ..] => 0,
        [128..=191, ..] => datagram.len() as u64,
        [23 | 32..=63, ..] => datagram.len() as u64,
        // A flight of plain handshake records may end in encrypted ones.
        [20..=22, ..] => {
            let length = 13 + usize::from(u16::from_be_bytes([datagram[11], datagram[12]]));
            if length < datagram.len() {
                billable(&datagram[length..])
            } else {
                0
            }
        }
        _ => 0,
    }
}

fn rtp_identity(datagram: &[u8]) -> Option<(u32, u16)> {
    if !(128..=191).contains(&datagram[0]) || (192..=223).contains(&datagram[1]) {
        return None;
    }
    let ssrc = u32::from_be_bytes(datagram[8..12].try_into().unwrap());
    Some((ssrc, u16::from_be_bytes([datagram[2], datagram[3]])))
}

/// Frame number and packet number of a simulated video payload.
pub fn frame_of(payload: &[u8]) -> (u32, u8) {
    (u32::from_be_bytes(payload[2..6].try_into().unwrap()), payload[6])
}

/// Which client published a simulated payload, audio or video.
pub fn publisher_of(kind: Kind, payload: &[u8]) -> usize {
    usize::from(payload[if kind == Kind::Audio { 0 } else { 7 }])
}
