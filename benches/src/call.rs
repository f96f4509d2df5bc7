//! A broadcast in memory: the SFU core, one str0m publisher and many str0m subscribers, with datagrams handed over
//! by function call and a clock that is moved by hand. What is measured is the core alone, between a datagram that
//! arrived and the sends that are ready for the kernel.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use identity::token::{self, Issue, TokenPolicy};
use identity::{Permit, SigningKey};
use metering::{Allowance, LeaseId, Msat, Rates, SessionId};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sfu::dtls::Certificate;
use sfu::media::{IceCredentials, Kind, Role};
use sfu::sdp::{LocalParameters, Negotiation, Purpose, VideoCodecs};
use sfu::{Config, SendBuffer, Sfu, Source};
use str0m::change::SdpAnswer;
use str0m::media::{Direction, MediaKind, Mid};
use str0m::net::{Protocol, Receive};
use str0m::rtp::RtpWrite;
use str0m::{Candidate, Event, Input, Output, Rtc};

const RATES: Rates = Rates {
    out: 50,
    in_: 0,
    second: 8,
};

/// Datagrams that one step may move; a handshake takes some dozens.
const STEP: Duration = Duration::from_millis(5);

struct Client {
    rtc: Rtc,
    address: SocketAddr,
    deadline: Instant,
    connected: bool,
    packets: u64,
}

/// A room with one publisher and its subscribers, all connected.
pub struct Call {
    sfu: Sfu,
    buffer: SendBuffer,
    relay: SocketAddr,
    clients: Vec<Client>,
    video: Mid,
    sequence_number: u64,
    now: Instant,
}

impl Call {
    /// Opens and connects everybody.
    pub fn new(subscribers: usize) -> Call {
        let certificate = Certificate::generate();
        let fingerprint = certificate.fingerprint();
        let relay = SocketAddr::from(([10, 0, 0, 1], 5004));
        // Nothing is to be refused for being too fast: the clock hardly moves.
        let config = Config {
            publisher_bits_per_second: 1 << 50,
            handshakes_max: subscribers + 1,
            ..Config::default()
        };
        let mut call = Call {
            sfu: Sfu::new(config, certificate, [7; 32]),
            buffer: SendBuffer::new(),
            relay,
            clients: Vec::new(),
            video: Mid::from("none"),
            sequence_number: 0,
            now: Instant::now(),
        };
        let permit = Arc::new(permit());
        for index in 0..=subscribers {
            let session = SessionId::new(index as u64 + 1);
            let purpose = if index == 0 {
                Purpose::Publish
            } else {
                Purpose::Subscribe
            };
            let local = LocalParameters {
                purpose,
                ice: IceCredentials::generate(&mut StdRng::seed_from_u64(index as u64)),
                fingerprint: fingerprint.clone(),
                candidates: vec![relay],
                video_codecs: VideoCodecs::from_names(["VP8"]).expect("a codec the relay knows"),
            };
            call.join(
                index,
                session,
                &permit,
                Negotiation::new(local, [index as u8; 32]),
            );
        }
        call.connect();
        call
    }

    fn join(&mut self, index: usize, session: SessionId, permit: &Arc<Permit>, mut negotiation: Negotiation) {
        let address = SocketAddr::from(([10, 1, (index >> 8) as u8, index as u8], 4_000));
        let builder = Rtc::builder().clear_codecs().enable_vp8(true).set_rtp_mode(true);
        let mut rtc = builder.build(self.now);
        rtc.add_local_candidate(Candidate::host(address, "udp").expect("a host candidate"));
        let mut offer = rtc.sdp_api();
        let direction = if index == 0 {
            Direction::SendOnly
        } else {
            Direction::RecvOnly
        };
        let mid = offer.add_media(MediaKind::Video, direction, None, None, None);
        let (offer, pending) = offer.apply().expect("a new m-line makes an offer");
        let answer = negotiation
            .answer(&offer.to_sdp_string())
            .expect("an offer the relay can answer");
        let sdp = SdpAnswer::from_sdp_string(&answer.sdp).expect("SDP");
        rtc.sdp_api()
            .accept_answer(pending, sdp)
            .expect("an answer that fits the offer");
        let allowance = Allowance::new(LeaseId::new(index as u64), session, RATES, Msat::MAX_BALANCE);
        self.sfu
            .open(session, permit.clone(), answer.transport, allowance, self.now)
            .expect("room for a session");
        let send = answer
            .media
            .lines
            .iter()
            .find(|line| matches!(line.role, Role::Send { .. }));
        let outlet = send.map(|line| line.mid);
        self.sfu.set_media(session, answer.media);
        if let Some(outlet) = outlet {
            let source = Source {
                session: SessionId::new(1),
                kind: Kind::Video,
            };
            self.sfu.route(session, outlet, Some(source));
        }
        if index == 0 {
            self.video = mid;
        }
        self.clients.push(Client {
            rtc,
            address,
            deadline: self.now,
            connected: false,
            packets: 0,
        });
    }

    fn connect(&mut self) {
        for _ in 0..2_000 {
            self.step();
            if self.clients.iter().all(|client| client.connected) {
                return;
            }
        }
        panic!("not everybody connected within ten seconds of simulated time");
    }

    /// Moves time on and every datagram to where it goes.
    fn step(&mut self) {
        self.now += STEP;
        let now = self.now;
        for index in 0..self.clients.len() {
            if self.clients[index].deadline <= now {
                drop(self.clients[index].rtc.handle_input(Input::Timeout(now)));
            }
            self.drain(index);
        }
        self.sfu.handle_timeout(now);
        for (destination, datagram) in self.ready() {
            let Some(index) = self
                .clients
                .iter()
                .position(|client| client.address == destination)
            else {
                continue;
            };
            let receive = Receive::new(Protocol::Udp, self.relay, destination, &datagram);
            let Ok(receive) = receive else { continue };
            drop(self.clients[index].rtc.handle_input(Input::Receive(now, receive)));
            self.drain(index);
        }
        while self.sfu.poll_event().is_some() {}
    }

    /// Everything a client has to say goes straight into the core.
    fn drain(&mut self, index: usize) {
        for mut datagram in drain(&mut self.clients[index]) {
            self.sfu
                .handle_datagram(self.now, self.clients[index].address, None, &mut datagram);
        }
    }

    fn ready(&mut self) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut datagrams = Vec::new();
        while let Some(transmit) = self.sfu.poll_transmit(self.now, &mut self.buffer) {
            let size = transmit.segment_size.unwrap_or(transmit.contents.len()).max(1);
            let segments = transmit
                .contents
                .chunks(size)
                .map(|segment| (transmit.destination, segment.to_vec()));
            datagrams.extend(segments);
        }
        datagrams
    }

    /// A frame of the publisher's, encrypted, as it would arrive.
    pub fn frame(&mut self, packets: usize, payload: usize) -> Vec<Vec<u8>> {
        self.now += Duration::from_micros(10);
        let (now, video) = (self.now, self.video);
        let mut datagrams = Vec::new();
        for at in 0..packets {
            let publisher = &mut self.clients[0];
            let pt = publisher
                .rtc
                .media(video)
                .and_then(|media| media.remote_pts().first().copied());
            let mut direct = publisher.rtc.direct_api();
            let stream = direct
                .stream_tx_by_mid(video, None)
                .expect("the negotiated stream");
            let mut bytes = vec![0x5A; payload];
            // The descriptor and header of a VP8 frame; the very first one is a keyframe.
            bytes[..5].copy_from_slice(&[if at == 0 { 0x90 } else { 0x80 }, 0x80, 0x80, 0x00, 0x11]);
            bytes[4] = u8::from(self.sequence_number > 0) | 0x10;
            let number = self.sequence_number.into();
            let timestamp = (self.sequence_number / packets as u64 * 3_000) as u32;
            let write = RtpWrite::new(pt.expect("a negotiated codec"), number, timestamp, now, bytes);
            stream.write_rtp(write.marker(at + 1 == packets));
            self.sequence_number += 1;
            datagrams.extend(drain(publisher));
            drop(publisher.rtc.handle_input(Input::Timeout(now)));
            datagrams.extend(drain(publisher));
        }
        datagrams
    }

    /// The work that is measured: a batch of datagrams in, every send it causes out. How many RTP packets that were.
    pub fn forward(&mut self, datagrams: &mut [Vec<u8>]) -> u64 {
        let before = self.sfu.counters().packets_out;
        let publisher = self.clients[0].address;
        for datagram in datagrams {
            self.sfu.handle_datagram(self.now, publisher, None, datagram);
        }
        while self.sfu.poll_transmit(self.now, &mut self.buffer).is_some() {}
        self.sfu.counters().packets_out - before
    }

    /// Like [`Call::forward`], but handed to the subscribers; how many packets str0m accepted of it.
    pub fn deliver(&mut self, datagrams: &mut [Vec<u8>]) -> u64 {
        let publisher = self.clients[0].address;
        for datagram in datagrams {
            self.sfu.handle_datagram(self.now, publisher, None, datagram);
        }
        let before: u64 = self.clients.iter().map(|client| client.packets).sum();
        self.step();
        self.clients.iter().map(|client| client.packets).sum::<u64>() - before
    }
}

fn drain(client: &mut Client) -> Vec<Vec<u8>> {
    let mut datagrams = Vec::new();
    loop {
        match client.rtc.poll_output() {
            Ok(Output::Timeout(deadline)) => {
                client.deadline = deadline;
                return datagrams;
            }
            Ok(Output::Transmit(transmit)) => datagrams.push(transmit.contents.to_vec()),
            Ok(Output::Event(Event::Connected)) => client.connected = true,
            Ok(Output::Event(Event::RtpPacket(_))) => client.packets += 1,
            Ok(Output::Event(_)) => {}
            Err(_) => return datagrams,
        }
    }
}

/// A real token of a real issuer: there is no other way to a permit.
pub fn permit() -> Permit {
    const NOW: u64 = 1_800_000_000;
    let (operator, holder) = (SigningKey::generate(), SigningKey::generate());
    let mut issue = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, NOW);
    issue.bearer = true;
    let jwt = token::issue(&operator, &issue);
    let mut policy = TokenPolicy::new(operator.did().clone(), vec![operator.did().clone()]);
    policy.allow_bearer = true;
    let token = token::verify(&jwt, &policy, NOW).expect("just issued");
    Permit::from_bearer(token).expect("a bearer token, and the policy allows them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subscriber_of_the_measured_call_gets_every_packet() {
        let mut call = Call::new(3);
        // Whatever the first keyframe needs to get through has passed after a few frames.
        for _ in 0..3 {
            let mut frame = call.frame(6, 1_100);
            call.deliver(&mut frame);
        }
        let mut frame = call.frame(6, 1_100);
        assert_eq!(frame.len(), 6);
        assert_eq!(call.deliver(&mut frame), 18);
        let mut frame = call.frame(6, 1_100);
        assert_eq!(call.forward(&mut frame), 18);
    }
}
