//! Everybody who takes part in a run: who joins, who is to hear whom, and what was sent and received while it was
//! measured.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;

use crate::Error;
use crate::dtls::Certificate;
use crate::engine::Engine;
use crate::loss::Loss;
use crate::media::{AUDIO_INTERVAL, VIDEO_BITS_PER_SECOND};
use crate::peer::Peer;
use crate::process::{self, Usage};
use crate::publisher::{Arrival, Sent};
use crate::receiver::Tally;
use crate::signalling::{Desk, Wish};

/// How long a client may take from its wish to its first picture, when the server does nothing else.
const CONNECT_MAX: Duration = Duration::from_secs(30);
/// And so much more for each client that joins with it.
const CONNECT_MAX_EACH: Duration = Duration::from_millis(150);
/// Clients that are being let in at the same time.
const CONNECTING_MAX: usize = 24;
/// After the last measured packet left, it may still arrive.
const GRACE: Duration = Duration::from_millis(1_200);
/// Before the measurement, for keyframes and retransmissions of the start to pass.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Whose link loses packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LossOn {
    /// Every receiver's, from the server.
    Subscribers,
    /// Every publisher's, to the server.
    Publisher,
    /// Nobody's.
    None,
}

/// Packets that are lost on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Lossy {
    /// Of a hundred.
    pub percent: f64,
    /// Whose.
    pub on: LossOn,
}

/// One client.
struct Seat {
    publishes: Option<u16>,
    /// Whose media it receives.
    hears: Vec<u16>,
}

/// A run.
pub struct Stage {
    /// The clients.
    pub engine: Engine,
    desk: Desk,
    certificate: Certificate,
    ip: IpAddr,
    arrival: Arrival,
    pid: Option<u32>,
    seats: Vec<Seat>,
    publishers: u16,
    /// Clients that were asked for and are not connected yet.
    waiting: Vec<usize>,
    asked: usize,
}

/// What was measured.
pub struct Measured {
    /// For how long.
    pub seconds: f64,
    /// What all publishers sent.
    pub sent: Sent,
    /// Packets that should have arrived somewhere, and those that did, each once.
    pub expected: u64,
    /// Of them those that did, each once.
    pub received: u64,
    /// Packets that arrived again.
    pub duplicates: u64,
    /// RTP packets that reached a client's socket, whatever became of them.
    pub arrived: u64,
    /// Their UDP payload.
    pub bytes: u64,
    /// Frames that should have arrived somewhere, and those that did whole.
    pub frames_expected: u64,
    /// Of them those that came whole.
    pub frames_complete: u64,
    /// The smallest share of frames that one receiver got whole of one publisher, in hundredths.
    pub frames_complete_percent_worst: f64,
    /// The largest share of packets that one receiver missed of one publisher, in hundredths.
    pub loss_percent_worst: f64,
    /// Latencies.
    pub tally: Tally,
    /// Packets that receivers asked for again.
    pub nacked: u64,
    /// Packets that were lost on purpose.
    pub lost_on_purpose: u64,
    /// Packets that no receiver could open.
    pub unopened: u64,
    /// Keyframes that the server asked for, ever.
    pub keyframe_requests: u64,
    /// What the server used before and after.
    pub server: Option<(Usage, Usage)>,
    /// What this program used.
    pub generator: (Usage, Usage),
    /// How long this thread waited for a core.
    pub generator_waited: f64,
    /// Datagrams that this program's sockets dropped.
    pub generator_drops: u64,
}

impl Stage {
    /// Nobody on it. Clients bind to `ip`; `pid` is the server's process.
    pub fn new(ip: IpAddr, desk: Desk, arrival: Arrival, pid: Option<u32>) -> Result<Stage, Error> {
        Ok(Stage {
            engine: Engine::new()?,
            desk,
            certificate: Certificate::generate()?,
            ip,
            arrival,
            pid,
            seats: Vec::new(),
            publishers: 0,
            waiting: Vec::new(),
            asked: 0,
        })
    }

    /// What conferences look like at this server.
    #[must_use]
    pub fn manner(&self) -> crate::signalling::Manner {
        self.desk.manner
    }

    /// The next publisher's number.
    pub fn number_publisher(&mut self) -> u16 {
        self.publishers += 1;
        self.publishers - 1
    }

    /// Asks for a client that publishes as `publishes` and hears `hears`.
    pub fn seat(
        &mut self,
        wish: Wish,
        publishes: Option<u16>,
        hears: Vec<u16>,
        progress: &ProgressBar,
    ) -> Result<(), Error> {
        while self.waiting.len() >= CONNECTING_MAX {
            self.advance(Duration::from_millis(2))?;
            progress.set_message(format!("{} joined", self.seats.len() - self.waiting.len()));
        }
        let publishing = publishes.map(|id| (id, self.arrival));
        let index = self.seats.len() as u32;
        let peer = Peer::new(self.ip, index, publishing, &self.certificate, self.engine.epoch())?;
        let local = peer.local().clone();
        let index = self.engine.add(peer)?;
        self.seats.push(Seat { publishes, hears });
        self.waiting.push(index);
        self.asked += 1;
        self.desk.ask(index, local, wish)
    }

    /// Lets everybody connect who was asked for. `complete`: until everybody hears everybody that it should; otherwise
    /// until publishers are connected.
    pub fn gather(&mut self, complete: bool) -> Result<(), Error> {
        let end = Instant::now() + CONNECT_MAX + CONNECT_MAX_EACH * self.asked as u32;
        loop {
            self.advance(Duration::from_millis(5))?;
            let blind = if complete {
                (0..self.seats.len()).find(|index| !self.hears_all(*index))
            } else {
                self.waiting.first().copied()
            };
            let Some(blind) = blind.or(self.waiting.first().copied()) else {
                self.asked = 0;
                return Ok(());
            };
            if Instant::now() > end {
                let connected = self.engine.peers()[blind].is_connected();
                return Err(format!(
                    "client {blind} of {} does not receive what it should; it is {}connected",
                    self.seats.len(),
                    if connected { "" } else { "not " }
                )
                .into());
            }
        }
    }

    /// Whether everything that this client is there for has begun.
    fn hears_all(&mut self, index: usize) -> bool {
        let expected = self.seats[index].hears.len();
        let peer = &mut self.engine.peers()[index];
        peer.is_connected()
            && (expected == 0 || peer.receiver().is_some_and(|receiver| receiver.sees(expected)))
    }

    /// Drives everybody for a moment and lets in who was answered.
    fn advance(&mut self, moment: Duration) -> Result<(), Error> {
        self.engine.run_for(moment)?;
        while let Some((index, negotiated)) = self.desk.answer()? {
            let now = self.engine.now();
            self.engine.with(index, |peer| peer.connect(negotiated, now))?;
        }
        if let Some(failure) = self.engine.failure() {
            return Err(failure.into());
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        waiting.retain(|index| !self.engine.peers()[*index].is_connected());
        self.waiting = waiting;
        Ok(())
    }

    /// What the server uses now.
    #[must_use]
    pub fn server_usage(&self) -> Option<Usage> {
        self.pid.and_then(process::usage)
    }

    /// The SRTP profile that everybody got.
    pub fn profile(&mut self) -> Result<sfu::srtp::Profile, Error> {
        let mut profiles = self.engine.peers().iter().filter_map(Peer::profile);
        let first = profiles.next().ok_or("nobody is connected")?;
        if profiles.any(|other| other != first) {
            return Err("clients got different SRTP profiles".into());
        }
        Ok(first)
    }

    /// Measures for so long.
    pub fn measure(
        &mut self,
        duration: Duration,
        lossy: Option<Lossy>,
        progress: &ProgressBar,
    ) -> Result<Measured, Error> {
        self.lose(lossy);
        self.engine.run_for(SETTLE)?;
        let ports = self.ports();
        let is_ours = |port: u16| ports.binary_search(&port).is_ok();
        let drops_before = process::socket_drops(is_ours);
        let nanoseconds = duration.as_nanos() as u64;
        // Room for the packets of the whole time, and again as many for keyframes on request.
        let rate = VIDEO_BITS_PER_SECOND / 8 / 500 + 1_000 / AUDIO_INTERVAL.as_millis() as u64;
        let room = (rate * (duration.as_secs() + 2)) as usize;
        let numbers = self.numbers();
        let first = |publisher: u16| numbers.get(usize::from(publisher)).copied().unwrap_or_default();
        self.engine.tally = Tally::default();
        let start = self.engine.now();
        let window = start..start + nanoseconds;
        for peer in self.engine.peers() {
            peer.measure(window.clone(), first, room);
        }
        let (arrived_before, bytes_before, unopened_before) = self.arrivals();
        let server_before = self.server_usage();
        let generator_before = process::usage(std::process::id()).unwrap_or_default();
        let waited_before = process::waited_seconds().unwrap_or_default();
        let began = Instant::now();
        progress.set_message("measuring");
        progress.set_length(duration.as_secs().max(1));
        while began.elapsed() < duration {
            let left = duration.saturating_sub(began.elapsed());
            self.advance(left.min(Duration::from_millis(500)))?;
            progress.set_position(began.elapsed().as_secs());
        }
        let server_after = self.server_usage();
        let generator_after = process::usage(std::process::id()).unwrap_or_default();
        let generator_waited = process::waited_seconds().unwrap_or_default() - waited_before;
        let seconds = began.elapsed().as_secs_f64();
        let (arrived_after, bytes_after, unopened_after) = self.arrivals();
        self.engine.run_for(GRACE)?;
        let mut measured = Measured {
            seconds,
            sent: Sent::default(),
            expected: 0,
            received: 0,
            duplicates: 0,
            arrived: arrived_after - arrived_before,
            bytes: bytes_after - bytes_before,
            frames_expected: 0,
            frames_complete: 0,
            frames_complete_percent_worst: 100.0,
            loss_percent_worst: 0.0,
            tally: std::mem::take(&mut self.engine.tally),
            nacked: 0,
            lost_on_purpose: 0,
            unopened: unopened_after - unopened_before,
            keyframe_requests: 0,
            server: server_before.zip(server_after),
            generator: (generator_before, generator_after),
            generator_waited,
            generator_drops: process::socket_drops(is_ours).saturating_sub(drops_before),
        };
        self.lose(None);
        self.compare(&mut measured);
        Ok(measured)
    }

    fn lose(&mut self, lossy: Option<Lossy>) {
        for (index, peer) in self.engine.peers().iter_mut().enumerate() {
            let loss = |on| {
                lossy
                    .filter(|lossy| lossy.on == on && lossy.percent > 0.0)
                    .map(|lossy| Loss::new(lossy.percent, index as u64 + 1))
            };
            if let Some(publisher) = peer.publisher() {
                publisher.lose(loss(LossOn::Publisher));
            }
            if let Some(receiver) = peer.receiver() {
                receiver.lose(loss(LossOn::Subscribers));
            }
        }
    }

    fn ports(&mut self) -> Vec<u16> {
        let mut ports: Vec<u16> = self
            .engine
            .peers()
            .iter()
            .map(|peer| peer.local().address.port())
            .collect();
        ports.sort_unstable();
        ports
    }

    /// Every publisher's next audio and video number.
    fn numbers(&mut self) -> Vec<(u64, u64)> {
        let mut numbers = vec![(0, 0); usize::from(self.publishers)];
        for publisher in self.engine.peers().iter_mut().filter_map(Peer::publisher) {
            numbers[usize::from(publisher.id())] = publisher.next_numbers();
        }
        numbers
    }

    fn arrivals(&mut self) -> (u64, u64, u64) {
        let receivers = self.engine.peers().iter_mut().filter_map(Peer::receiver);
        receivers.fold((0, 0, 0), |(packets, bytes, unopened), receiver| {
            (
                packets + receiver.rtp_packets,
                bytes + receiver.rtp_bytes,
                unopened + receiver.unopened,
            )
        })
    }

    /// Holds what arrived against what was sent.
    fn compare(&mut self, measured: &mut Measured) {
        let mut sent = vec![Sent::default(); usize::from(self.publishers)];
        for publisher in self.engine.peers().iter_mut().filter_map(Peer::publisher) {
            measured.keyframe_requests += publisher.keyframe_requests;
            let id = usize::from(publisher.id());
            sent[id] = std::mem::take(&mut publisher.sent);
        }
        for (seat, peer) in self.seats.iter().zip(self.engine.peers()) {
            let Some(receiver) = peer.receiver() else { continue };
            measured.nacked += receiver.nacked;
            measured.lost_on_purpose += receiver.lost_on_purpose;
            for id in &seat.hears {
                let sent = &sent[usize::from(*id)];
                let track = receiver.tracks.iter().find(|track| track.publisher == *id);
                let expected: u64 = sent.packets.iter().sum();
                let received = track.map_or(0, |track| track.audio.packets + track.video.packets);
                let complete = sent
                    .frames
                    .iter()
                    .filter(|frame| {
                        let mut numbers = frame.first_packet..frame.first_packet + frame.count;
                        track.is_some_and(|track| numbers.all(|number| track.video.contains(number)))
                    })
                    .count() as u64;
                measured.duplicates +=
                    track.map_or(0, |track| track.audio.duplicates + track.video.duplicates);
                measured.expected += expected;
                measured.received += received;
                measured.frames_expected += sent.frames.len() as u64;
                measured.frames_complete += complete;
                let share = complete as f64 * 100.0 / (sent.frames.len() as f64).max(1.0);
                measured.frames_complete_percent_worst = measured.frames_complete_percent_worst.min(share);
                let loss = expected.saturating_sub(received) as f64 * 100.0 / (expected as f64).max(1.0);
                measured.loss_percent_worst = measured.loss_percent_worst.max(loss);
            }
        }
        for one in sent {
            for (sum, packets) in measured.sent.packets.iter_mut().zip(one.packets) {
                *sum += packets;
            }
            measured.sent.frames.extend(one.frames);
            measured.sent.retransmitted += one.retransmitted;
            measured.sent.lost_on_purpose += one.lost_on_purpose;
            measured.sent.refused += one.refused;
            measured.sent.lateness.add(&one.lateness);
        }
        measured.lost_on_purpose += measured.sent.lost_on_purpose;
    }

    /// How many publish.
    #[must_use]
    pub fn publishers(&self) -> usize {
        self.seats.iter().filter(|seat| seat.publishes.is_some()).count()
    }

    /// How many receive.
    #[must_use]
    pub fn receivers(&self) -> usize {
        self.seats.iter().filter(|seat| !seat.hears.is_empty()).count()
    }
}
