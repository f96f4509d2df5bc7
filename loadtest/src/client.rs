//! One WebRTC client: a str0m session in RTP mode on a socket of its own, joined through WHIP or WHEP, and where it is
//! to be so, behind a TURN server.

mod detour;

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket as StdUdpSocket};
use std::time::{Duration, Instant};

use mio::net::UdpSocket;
use mio::{Interest, Registry, Token};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};
use wire::demux::{Kind, classify};

pub use detour::Detour;

use crate::Error;
use crate::http::{self, Answer};
use crate::media::{AUDIO_INTERVAL, Audio, Content, FRAME_INTERVAL, Outgoing, Stamp, Video};
use crate::reception::Reception;

/// The largest datagram that arrives: nothing sends more than an Ethernet frame here.
const DATAGRAM_MAX: usize = 2_000;

/// Where a client joins and in whose name.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The relay's front door, "http://host:port".
    pub base: &'a str,
    /// A bearer token.
    pub token: &'a str,
    /// The room.
    pub room: &'a str,
    /// The publisher's name in it.
    pub name: &'a str,
}

/// What the client is there for.
pub enum Role {
    /// Sends audio and video.
    Publisher(Publisher),
    /// Receives both.
    Subscriber(Subscriber),
}

/// A publisher's streams.
pub struct Publisher {
    /// Its video.
    pub video: Video,
    /// Its audio.
    pub audio: Audio,
    /// Times it was asked for a keyframe.
    pub keyframe_requests: u64,
    next_frame: Option<Instant>,
    next_audio: Option<Instant>,
}

impl Publisher {
    fn new(epoch: Instant) -> Publisher {
        Publisher {
            video: Video::new(epoch),
            audio: Audio::new(epoch),
            keyframe_requests: 0,
            next_frame: None,
            next_audio: None,
        }
    }
}

/// What a subscriber received.
#[derive(Default)]
pub struct Subscriber {
    /// Of the video.
    pub video: Reception,
    /// Of the audio.
    pub audio: Reception,
    /// UDP payload of every datagram that arrived and is billed, by its first bytes: RTP, and DTLS of type 23 and 32 to
    /// 63.
    pub billable_bytes: u64,
}

/// A client and its session at the relay.
pub struct Client {
    rtc: Rtc,
    socket: UdpSocket,
    detour: Option<Box<Detour>>,
    local: SocketAddr,
    epoch: Instant,
    video: Mid,
    audio: Mid,
    deadline: Instant,
    connected: bool,
    failure: Option<String>,
    refused_sends: u64,
    loss: Option<Loss>,
    authorization: String,
    base: String,
    resource: String,
    /// What it does.
    pub role: Role,
}

impl Client {
    /// Joins as a publisher through WHIP. Stamps count from `epoch`.
    pub fn publish(place: Place<'_>, epoch: Instant) -> Result<Client, Error> {
        let role = Role::Publisher(Publisher::new(epoch));
        Client::join(place, epoch, "whip", Direction::SendOnly, role, None)
    }

    /// The same, and all that it sends and receives takes this way.
    pub fn publish_through(place: Place<'_>, epoch: Instant, detour: Detour) -> Result<Client, Error> {
        let role = Role::Publisher(Publisher::new(epoch));
        Client::join(place, epoch, "whip", Direction::SendOnly, role, Some(detour))
    }

    /// Joins as a subscriber through WHEP. Latencies count from `epoch`.
    pub fn subscribe(place: Place<'_>, epoch: Instant) -> Result<Client, Error> {
        Client::join(
            place,
            epoch,
            "whep",
            Direction::RecvOnly,
            Role::Subscriber(Subscriber::default()),
            None,
        )
    }

    /// The same, and all that it sends and receives takes this way.
    pub fn subscribe_through(place: Place<'_>, epoch: Instant, detour: Detour) -> Result<Client, Error> {
        let role = Role::Subscriber(Subscriber::default());
        Client::join(place, epoch, "whep", Direction::RecvOnly, role, Some(detour))
    }

    /// From now on there is this way too, and it is the better one.
    pub fn move_to(&mut self, detour: Detour) -> Result<(), Error> {
        // What decides among candidates is their kind's priority, not what they are.
        self.rtc
            .add_local_candidate(Candidate::host(detour.relayed(), "udp")?);
        self.detour = Some(Box::new(detour));
        self.advance(Instant::now());
        Ok(())
    }

    /// Its way through TURN, where it has one.
    pub fn detour(&mut self) -> Option<&mut Detour> {
        self.detour.as_deref_mut()
    }

    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        registry.register(&mut self.socket, token, Interest::READABLE)?;
        self.register_detour(registry, token)
    }

    pub(crate) fn register_detour(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        match &mut self.detour {
            Some(detour) => detour.register(registry, token),
            None => Ok(()),
        }
    }

    fn join(
        place: Place<'_>,
        epoch: Instant,
        door: &str,
        direction: Direction,
        role: Role,
        detour: Option<Detour>,
    ) -> Result<Client, Error> {
        let socket = StdUdpSocket::bind((local_ip(place.base)?, 0))?;
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let now = Instant::now();
        let builder = Rtc::builder()
            .clear_codecs()
            .enable_opus(true, false)
            .enable_vp8(true);
        let mut rtc = builder.set_rtp_mode(true).build(now);
        // Of the lowest priority, so that a better way can follow.
        let only = detour.as_ref().map_or(local, Detour::relayed);
        rtc.add_local_candidate(Candidate::relayed(only, only, "udp")?);
        let mut offer = rtc.sdp_api();
        let audio = offer.add_media(MediaKind::Audio, direction, None, None, None);
        let video = offer.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = offer.apply().ok_or("two new m-lines make no offer")?;
        let authorization = format!("Bearer {}", place.token);
        let path = format!("/{door}/{}/{}", place.room, place.name);
        let headers = [
            ("authorization", &authorization[..]),
            ("content-type", "application/sdp"),
        ];
        let answer = http::call(place.base, "POST", &path, &headers, &offer.to_sdp_string())?;
        let answer = answer.expect(201, &path)?;
        let resource = answer
            .header("location")
            .ok_or("a 201 without Location")?
            .to_owned();
        let sdp = SdpAnswer::from_sdp_string(&answer.body).map_err(|e| format!("{e} in {}", answer.body))?;
        rtc.sdp_api()
            .accept_answer(pending, sdp)
            .map_err(|e| format!("{e} in {}", answer.body))?;
        let mut client = Client {
            rtc,
            socket: UdpSocket::from_std(socket),
            detour: detour.map(Box::new),
            local,
            epoch,
            video,
            audio,
            deadline: now,
            connected: false,
            failure: None,
            refused_sends: 0,
            loss: None,
            authorization,
            base: place.base.to_owned(),
            resource,
            role,
        };
        client.drain(Instant::now());
        Ok(client)
    }

    /// Ends the session: DELETE on its resource.
    pub fn leave(&self) -> Result<Answer, Error> {
        let headers = [("authorization", &self.authorization[..])];
        http::call(&self.base, "DELETE", &self.resource, &headers, "")
    }

    /// The session's id at the relay: the last part of its resource.
    pub fn session(&self) -> &str {
        self.resource.rsplit('/').next().unwrap_or_default()
    }

    /// The relay's signed receipt of this session, as a compact JWS.
    pub fn receipt(&self) -> Result<Answer, Error> {
        let headers = [("authorization", &self.authorization[..])];
        http::call(
            &self.base,
            "GET",
            &format!("/v1/receipts/{}", self.session()),
            &headers,
            "",
        )
    }

    /// Whether ICE and DTLS are through.
    pub fn is_connected(&self) -> bool {
        self.connected
    }

    /// Why it cannot go on.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Datagrams that this machine did not take.
    pub fn refused_sends(&self) -> u64 {
        self.refused_sends
    }

    /// From now on this share of the RTP packets of this client is lost on the way, in both directions: one in
    /// `one_in`, the same ones in every run.
    pub fn lose_one_in(&mut self, one_in: u64) {
        self.loss = Some(Loss {
            one_in: one_in.max(1),
            state: 0x9E37_79B9_7F4A_7C15,
            lost: 0,
        });
    }

    /// RTP packets that were lost on the way so.
    pub fn lost(&self) -> u64 {
        self.loss.as_ref().map_or(0, |loss| loss.lost)
    }

    /// What it received; `None` for a publisher.
    pub fn subscriber(&mut self) -> Option<&mut Subscriber> {
        match &mut self.role {
            Role::Subscriber(subscriber) => Some(subscriber),
            Role::Publisher(_) => None,
        }
    }

    /// What it sends; `None` for a subscriber.
    pub fn publisher(&mut self) -> Option<&mut Publisher> {
        match &mut self.role {
            Role::Publisher(publisher) => Some(publisher),
            Role::Subscriber(_) => None,
        }
    }

    /// When [`Client::handle_timeout`] is due: str0m's timers and the next media.
    pub(crate) fn deadline(&self) -> Instant {
        let media = match &self.role {
            Role::Publisher(publisher) => publisher.next_frame.into_iter().chain(publisher.next_audio).min(),
            Role::Subscriber(_) => None,
        };
        media.map_or(self.deadline, |media| media.min(self.deadline))
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        self.publish_due(now);
        self.advance(now);
    }

    /// Reads the socket, and what came through TURN, until there is no more.
    pub fn handle_readable(&mut self) {
        let mut buffer = [0; DATAGRAM_MAX];
        loop {
            let (len, source) = match self.socket.recv_from(&mut buffer) {
                Ok(received) => received,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => continue,
            };
            self.take(source, self.local, &buffer[..len]);
        }
        let Some(detour) = &mut self.detour else {
            return;
        };
        let (peer, relayed) = (detour.peer(), detour.relayed());
        for datagram in detour.receive() {
            self.take(peer, relayed, &datagram);
        }
    }

    fn take(&mut self, source: SocketAddr, at: SocketAddr, datagram: &[u8]) {
        let now = Instant::now();
        if let Role::Subscriber(subscriber) = &mut self.role
            && is_billable(datagram)
        {
            subscriber.billable_bytes += datagram.len() as u64;
        }
        if self.loss.as_mut().is_some_and(|loss| loss.takes(datagram)) {
            return;
        }
        let Ok(receive) = Receive::new(Protocol::Udp, source, at, datagram) else {
            return;
        };
        self.handle_input(Input::Receive(now, receive));
        self.drain(now);
    }

    /// Starts sending media. The clock of both streams starts now.
    fn start_media(&mut self, now: Instant) {
        if let Role::Publisher(publisher) = &mut self.role {
            publisher.next_frame.get_or_insert(now);
            publisher.next_audio.get_or_insert(now);
        }
    }

    fn publish_due(&mut self, now: Instant) {
        let Role::Publisher(publisher) = &mut self.role else {
            return;
        };
        let mut due: Vec<(Mid, Outgoing)> = Vec::new();
        while let Some(at) = publisher.next_audio.filter(|at| *at <= now) {
            due.push((self.audio, publisher.audio.packet(now)));
            publisher.next_audio = Some(at + AUDIO_INTERVAL);
        }
        while let Some(at) = publisher.next_frame.filter(|at| *at <= now) {
            due.extend(
                publisher
                    .video
                    .frame(now)
                    .into_iter()
                    .map(|packet| (self.video, packet)),
            );
            publisher.next_frame = Some(at + FRAME_INTERVAL);
        }
        for (mid, packet) in due {
            self.write(mid, packet, now);
        }
    }

    fn write(&mut self, mid: Mid, packet: Outgoing, now: Instant) {
        let Some(pt) = self
            .rtc
            .media(mid)
            .and_then(|media| media.remote_pts().first().copied())
        else {
            return;
        };
        let mut direct = self.rtc.direct_api();
        let Some(stream) = direct.stream_tx_by_mid(mid, None) else {
            return;
        };
        let Outgoing {
            sequence_number,
            timestamp,
            marker,
            payload,
        } = packet;
        let write = RtpWrite::new(pt, sequence_number.into(), timestamp, now, payload);
        stream.write_rtp(write.marker(marker).nackable(mid == self.video));
        self.advance(now);
    }

    /// Runs str0m's own timers until none is due.
    fn advance(&mut self, now: Instant) {
        self.drain(now);
        // Each turn moves str0m's time to `now`, after which its next timer lies ahead; the bound is for a bug in it.
        for _ in 0..64 {
            if self.deadline > now || self.failure.is_some() {
                return;
            }
            self.handle_input(Input::Timeout(now));
            self.drain(now);
        }
        self.deadline = now + Duration::from_millis(1);
    }

    fn handle_input(&mut self, input: Input<'_>) {
        if self.failure.is_none()
            && let Err(error) = self.rtc.handle_input(input)
        {
            self.fail(error.to_string());
        }
    }

    fn drain(&mut self, now: Instant) {
        while self.failure.is_none() {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(deadline)) => {
                    self.deadline = deadline;
                    return;
                }
                Ok(Output::Transmit(transmit)) => {
                    if self
                        .loss
                        .as_mut()
                        .is_some_and(|loss| loss.takes(&transmit.contents))
                    {
                        continue;
                    }
                    if let Some(detour) = &mut self.detour
                        && transmit.source == detour.relayed()
                    {
                        detour.send(&transmit.contents);
                        continue;
                    }
                    let sent = self.socket.send_to(&transmit.contents, transmit.destination);
                    self.refused_sends += u64::from(sent.is_err());
                }
                Ok(Output::Event(event)) => self.handle_event(event, now),
                Err(error) => self.fail(error.to_string()),
            }
        }
    }

    fn handle_event(&mut self, event: Event, now: Instant) {
        match (event, &mut self.role) {
            (Event::Connected, _) => {
                self.connected = true;
                self.start_media(now);
            }
            (Event::KeyframeRequest(_), Role::Publisher(publisher)) => {
                publisher.keyframe_requests += 1;
                publisher.video.want_keyframe();
            }
            (Event::RtpPacket(packet), Role::Subscriber(subscriber)) => {
                let Some(stamp) = Stamp::read(&packet.payload) else {
                    return;
                };
                match stamp.content {
                    Content::Audio => subscriber.audio.receive(stamp),
                    Content::Delta | Content::Key => subscriber.video.receive(stamp),
                }
            }
            (Event::Closed, _) => self.fail("the relay closed the session".to_owned()),
            _ => {}
        }
    }

    fn fail(&mut self, why: String) {
        self.failure = Some(why);
        // Far enough that a failed client is not polled again.
        self.deadline = self.epoch + Duration::from_secs(365 * 24 * 3600);
    }
}

fn is_billable(datagram: &[u8]) -> bool {
    classify(datagram) == Kind::Rtp || matches!(datagram, [23 | 32..=63, ..])
}

/// Which packets are lost: a fixed sequence of pseudo-random draws, so that a failure happens again.
struct Loss {
    one_in: u64,
    state: u64,
    lost: u64,
}

impl Loss {
    fn takes(&mut self, datagram: &[u8]) -> bool {
        if classify(datagram) != Kind::Rtp {
            return false;
        }
        // Marsaglia's xorshift64.
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        let lost = self.state.is_multiple_of(self.one_in);
        self.lost += u64::from(lost);
        lost
    }
}

/// The address this machine reaches the relay from.
fn local_ip(base: &str) -> Result<std::net::IpAddr, Error> {
    let authority = base
        .strip_prefix("http://")
        .ok_or("only http:// is spoken here")?
        .trim_end_matches('/');
    let probe = StdUdpSocket::bind(("0.0.0.0", 0))?;
    probe.connect(authority)?;
    Ok(probe.local_addr()?.ip())
}
