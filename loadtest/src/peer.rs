//! A light WebRTC client on a socket of its own: connectivity checks, DTLS, and what it publishes or receives. It costs
//! some microseconds of CPU time a packet less than a whole WebRTC stack, so that one core can be a thousand of them.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Inbox, Socket};
use sfu::srtp::Profile;
use wire::demux::{Kind as Protocol, classify};

use crate::Error;
use crate::dtls::{Certificate, DATAGRAM_MAX, Handshake, Keys, Step};
use crate::ice::{Checks, MESSAGE_MAX};
use crate::publisher::{Arrival, Publisher, single};
use crate::receiver::{FEEDBACK_MAX, Receiver, Tally};
use crate::sdp::{Direction, Kind, Local, Remote, Setup, Ssrcs};

/// The engine's state is kept so long after the handshake, for a last flight that has to be sent again.
const HANDSHAKE_KEPT: u64 = 5_000_000_000;

/// What a client and its server agreed on.
pub struct Negotiated {
    /// What the server said.
    pub remote: Remote,
    /// Whether we made the offer.
    pub we_offered: bool,
}

/// Buffers that all clients of a thread share.
pub struct Scratch {
    opened: [u8; 2_048],
    dtls: [u8; DATAGRAM_MAX],
    feedback: [u8; FEEDBACK_MAX],
    sealed: [u8; FEEDBACK_MAX + 64],
}

impl Default for Scratch {
    fn default() -> Scratch {
        Scratch {
            opened: [0; 2_048],
            dtls: [0; DATAGRAM_MAX],
            feedback: [0; FEEDBACK_MAX],
            sealed: [0; FEEDBACK_MAX + 64],
        }
    }
}

/// One client.
pub struct Peer {
    socket: Socket,
    local: Local,
    epoch: Instant,
    certificate: Certificate,
    link: Option<Link>,
    publishes: Option<(u16, Arrival)>,
    publisher: Option<Box<Publisher>>,
    receiver: Option<Box<Receiver>>,
    failure: Option<String>,
}

/// The way to the server.
struct Link {
    to: SocketAddr,
    checks: Checks,
    is_dtls_client: bool,
    remote: Remote,
    handshake: Option<Box<Handshake>>,
    handshake_due: u64,
    connected_at: Option<u64>,
    keys: Option<Box<Keys>>,
}

impl Peer {
    /// A client with a socket on `ip`. `index` tells it from all others of the run. Where it is to publish, `publishes`
    /// says as which publisher and how.
    pub fn new(
        ip: IpAddr,
        index: u32,
        publishes: Option<(u16, Arrival)>,
        certificate: &Certificate,
        epoch: Instant,
    ) -> Result<Peer, Error> {
        let socket = Socket::bind(SocketAddr::new(ip, 0), Fragmentation::Forbidden)?;
        let ssrc = (index + 1).wrapping_mul(0x0100_0193) | 1;
        let local = Local {
            ufrag: format!("lt{index:06x}"),
            pwd: format!(
                "{:024x}",
                u128::from(index) << 64 | u128::from(epoch.elapsed().as_nanos() as u64)
            ),
            fingerprint: certificate.fingerprint(),
            address: socket.local_addr(),
            ssrcs: Ssrcs {
                audio: ssrc,
                video: ssrc ^ 0x4000_0000,
                rtx: ssrc ^ 0x2000_0000,
            },
        };
        Ok(Peer {
            socket,
            local,
            epoch,
            certificate: certificate.clone(),
            link: None,
            publishes,
            publisher: None,
            receiver: None,
            failure: None,
        })
    }

    /// Its side, for an offer or an answer.
    #[must_use]
    pub fn local(&self) -> &Local {
        &self.local
    }

    pub(crate) fn socket(&mut self) -> &mut Socket {
        &mut self.socket
    }

    /// Begins to connect.
    pub fn connect(&mut self, negotiated: Negotiated, now: u64) -> Result<(), Error> {
        let Negotiated { remote, we_offered } = negotiated;
        let same_family = |address: &&SocketAddr| address.is_ipv4() == self.local.address.is_ipv4();
        let to = *remote
            .candidates
            .iter()
            .find(same_family)
            .ok_or("the server names no address that this client can reach")?;
        let is_controlling = we_offered || remote.ice_lite;
        let receives = remote
            .lines
            .iter()
            .any(|line| matches!(line.direction, Direction::Send | Direction::Both) && !line.is_rejected);
        if receives {
            self.receiver = Some(Box::new(Receiver::new(self.local.ssrcs.audio ^ 1, &remote, now)));
        }
        self.link = Some(Link {
            to,
            checks: Checks::new(&self.local, &remote.ufrag, &remote.pwd, is_controlling, now),
            // An answer of ours to "actpass" says active.
            is_dtls_client: remote.setup != Setup::Active,
            remote,
            handshake: None,
            handshake_due: u64::MAX,
            connected_at: None,
            keys: None,
        });
        Ok(())
    }

    /// Whether media can flow.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.connected_at.is_some())
    }

    /// Why it cannot go on.
    #[must_use]
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// The SRTP profile.
    #[must_use]
    pub fn profile(&self) -> Option<Profile> {
        Some(self.link.as_ref()?.keys.as_ref()?.profile)
    }

    /// What it publishes.
    pub fn publisher(&mut self) -> Option<&mut Publisher> {
        self.publisher.as_deref_mut()
    }

    /// What it receives.
    pub fn receiver(&mut self) -> Option<&mut Receiver> {
        self.receiver.as_deref_mut()
    }

    /// As [`Receiver::measure`] and [`Publisher::measure`] say, for what it has of both.
    pub fn measure(&mut self, window: Range<u64>, first: impl Fn(u16) -> (u64, u64), room: usize) {
        if let Some(publisher) = &mut self.publisher {
            publisher.measure(window.clone());
        }
        if let Some(receiver) = &mut self.receiver {
            receiver.measure(window, first, room);
        }
    }

    /// When [`Peer::handle_timeout`] is to be called next.
    #[must_use]
    pub fn due(&self) -> u64 {
        let Some(link) = self.link.as_ref().filter(|_| self.failure.is_none()) else {
            return u64::MAX;
        };
        let mut due = link.checks.due().min(link.handshake_due);
        if let Some(at) = link.connected_at {
            if link.handshake.is_some() {
                due = due.min(at + HANDSHAKE_KEPT);
            }
            if let Some(publisher) = &self.publisher {
                due = due.min(publisher.due());
            }
            if let Some(receiver) = &self.receiver {
                due = due.min(receiver.due());
            }
        }
        due
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: u64, scratch: &mut Scratch) {
        let Some(link) = self.link.as_mut().filter(|_| self.failure.is_none()) else {
            return;
        };
        if link.checks.is_lost(now) {
            self.failure = Some("the server stopped answering connectivity checks".into());
            return;
        }
        let mut message = [0; MESSAGE_MAX];
        if let Some(length) = link.checks.request(now, &mut message) {
            let _ = self.socket.send(&single(link.to, &message[..length]));
        }
        match link.connected_at {
            Some(at) if link.handshake.is_some() && now >= at + HANDSHAKE_KEPT => {
                link.handshake = None;
                link.handshake_due = u64::MAX;
            }
            _ if link.handshake_due <= now => {
                let instant = self.epoch + Duration::from_nanos(now);
                let passed = link
                    .handshake
                    .as_mut()
                    .map_or(Ok(()), |handshake| handshake.handle_timeout(instant));
                self.after_handshake_input(passed, now, scratch);
            }
            _ => {}
        }
        self.run_media(now, scratch);
    }

    /// Sends the media and the feedback that are due.
    fn run_media(&mut self, now: u64, scratch: &mut Scratch) {
        let Some(link) = &mut self.link else { return };
        let (Some(keys), to) = (link.keys.as_deref_mut(), link.to) else {
            return;
        };
        let epoch = self.epoch;
        if let Some(publisher) = &mut self.publisher
            && publisher.due() <= now
        {
            let clock = || epoch.elapsed().as_nanos() as u64;
            publisher.run(clock, keys, &mut self.socket, to);
        }
        if let Some(receiver) = &mut self.receiver
            && receiver.due() <= now
            && let Some(length) = receiver.feedback(now, &mut scratch.feedback)
            && let Some(length) = keys
                .rtcp_sealer
                .seal(&scratch.feedback[..length], &mut scratch.sealed)
        {
            let _ = self.socket.send(&single(to, &scratch.sealed[..length]));
        }
    }

    /// Reads the socket until it is empty. How many datagrams there were.
    pub fn handle_readable(&mut self, inbox: &mut Inbox, scratch: &mut Scratch, tally: &mut Tally) -> u64 {
        let mut datagrams_read = 0;
        loop {
            // Errors are those of an earlier send (ICMP); the socket is still good.
            let filled = self.socket.receive(inbox).unwrap_or(0);
            let now = self.epoch.elapsed().as_nanos() as u64;
            for index in 0..filled {
                let Some((meta, mut datagrams)) = inbox.datagrams(index) else {
                    continue;
                };
                while let Some(datagram) = datagrams.next_datagram() {
                    datagrams_read += 1;
                    self.handle_datagram(now, meta.source, datagram, scratch, tally);
                }
            }
            if inbox.drained() {
                break;
            }
        }
        // What a gap makes due is said at once.
        if let Some(receiver) = &self.receiver {
            let now = self.epoch.elapsed().as_nanos() as u64;
            if receiver.due() <= now {
                self.run_media(now, scratch);
            }
        }
        datagrams_read
    }

    fn handle_datagram(
        &mut self,
        now: u64,
        source: SocketAddr,
        datagram: &[u8],
        scratch: &mut Scratch,
        tally: &mut Tally,
    ) {
        let Some(link) = &mut self.link else { return };
        match classify(datagram) {
            Protocol::Rtp => {
                if let (Some(receiver), Some(keys)) = (&mut self.receiver, &link.keys) {
                    receiver.handle_rtp(now, datagram, keys, &mut scratch.opened, tally);
                }
            }
            Protocol::Rtcp => {
                let Some(keys) = &mut link.keys else { return };
                let Ok(length) = keys.rtcp_opener.open(datagram, &mut scratch.opened) else {
                    return;
                };
                let packets = &scratch.opened[..length];
                if let Some(publisher) = &mut self.publisher {
                    publisher.handle_rtcp(packets, now, keys, &mut self.socket, link.to);
                }
                if let Some(receiver) = &mut self.receiver {
                    receiver.handle_rtcp(packets, now);
                }
            }
            Protocol::Stun => {
                let mut message = [0; MESSAGE_MAX];
                if let Some(length) = link.checks.handle(now, source, datagram, &mut message) {
                    let _ = self.socket.send(&single(source, &message[..length]));
                }
                if link.checks.is_valid() && link.handshake.is_none() && link.connected_at.is_none() {
                    self.begin_handshake(now, scratch);
                }
            }
            Protocol::Dtls => {
                let instant = self.epoch + Duration::from_nanos(now);
                if link.handshake.is_none() && link.connected_at.is_none() {
                    self.begin_handshake(now, scratch);
                }
                let Some(handshake) = self.link.as_mut().and_then(|link| link.handshake.as_mut()) else {
                    return;
                };
                let taken = handshake.handle_datagram(datagram, instant);
                self.after_handshake_input(taken, now, scratch);
            }
            _ => {}
        }
    }

    fn begin_handshake(&mut self, now: u64, scratch: &mut Scratch) {
        let Some(link) = &mut self.link else { return };
        let instant = self.epoch + Duration::from_nanos(now);
        let fingerprint = link.remote.fingerprint.clone();
        let mut handshake = Handshake::new(&self.certificate, link.is_dtls_client, fingerprint, instant);
        let begun = handshake.handle_timeout(instant);
        link.handshake = Some(Box::new(handshake));
        self.after_handshake_input(begun, now, scratch);
    }

    fn after_handshake_input(&mut self, result: Result<(), String>, now: u64, scratch: &mut Scratch) {
        let Some(link) = &mut self.link else { return };
        let is_connected = link.connected_at.is_some();
        if let Err(error) = result {
            // After the handshake nothing of DTLS is needed any more.
            if !is_connected {
                self.failure = Some(format!("DTLS: {error}"));
            }
            link.handshake = None;
            return;
        }
        while let Some(handshake) = &mut link.handshake {
            match handshake.poll(&mut scratch.dtls) {
                Step::Datagram(length) => {
                    let _ = self.socket.send(&single(link.to, &scratch.dtls[..length]));
                }
                Step::Connected(keys) => {
                    link.keys = Some(keys);
                    link.connected_at = Some(now);
                    let publishes = self.publishes.filter(|_| self.publisher.is_none());
                    if let Some((id, arrival)) = publishes {
                        let remote = &link.remote;
                        let audio = remote.agreed(Kind::Audio, Direction::Receive);
                        let video = remote.agreed(Kind::Video, Direction::Receive);
                        let (Some(audio), Some(video)) = (audio, video) else {
                            self.failure = Some("the server does not take Opus and VP8".into());
                            return;
                        };
                        let (ssrcs, epoch) = (self.local.ssrcs, self.epoch);
                        let publisher = Publisher::new(id, arrival, ssrcs, audio, video, epoch, now);
                        self.publisher = Some(Box::new(publisher));
                    }
                }
                Step::Failed(why) => {
                    if !is_connected {
                        self.failure = Some(format!("DTLS: {why}"));
                    } else {
                        self.failure = Some("the server closed the session".into());
                    }
                    link.handshake = None;
                }
                Step::Idle(at) => {
                    let at = at.saturating_duration_since(self.epoch).as_nanos() as u64;
                    link.handshake_due = at.max(now + 1_000_000);
                    return;
                }
            }
        }
    }
}
