//! `turn-client-proto` over UDP, TCP and TLS. It has no clock of its own, so that its refreshes come when the test says so.
//! Over TCP and TLS it hides its username and signs with SHA-256 (RFC 8489).

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant as Clock};

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use turn_client_proto::api::{TurnConfig, TurnEvent, TurnRecvRet};
use turn_client_proto::prelude::*;
use turn_client_proto::stun::Instant;
use turn_client_proto::stun::agent::Transmit;
use turn_client_proto::stun::auth::Feature;
use turn_client_proto::tcp::TurnClientTcp;
use turn_client_proto::types::stun::message::IntegrityAlgorithm;
use turn_client_proto::types::{TransportType, TurnCredentials};
use turn_client_proto::udp::TurnClientUdp;

use super::{BYTES, Credentials, MESSAGES, PATIENCE, credentials, is_served, is_served_by, message};
use loadtest::relay::Relay;

/// The longest lifetime that an allocation is given, and how the client's clock gets there.
const LIFETIME_MAX: Duration = Duration::from_secs(3_600);
const STEP: Duration = Duration::from_secs(60);

/// A message in a stream: this client neither pads ChannelData there nor expects it padded, as RFC 8656 section 12.5 wants it, so
/// that it keeps in step with servers only if every message is a multiple of four.
const STREAM_BYTES: usize = 332;

/// The way to the server.
enum Way {
    Datagrams(UdpSocket),
    Plain(TcpStream),
    Encrypted(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Way {
    fn send(&mut self, bytes: &[u8]) {
        match self {
            Way::Datagrams(socket) => drop(socket.send(bytes).expect("the socket takes it")),
            Way::Plain(stream) => stream.write_all(bytes).expect("the stream takes it"),
            Way::Encrypted(stream) => stream.write_all(bytes).expect("the stream takes it"),
        }
    }

    /// What comes within a moment.
    fn receive(&mut self) -> Option<Vec<u8>> {
        let mut buffer = [0; 4096];
        let read = match self {
            Way::Datagrams(socket) => socket.recv(&mut buffer),
            Way::Plain(stream) => stream.read(&mut buffer),
            Way::Encrypted(stream) => stream.read(&mut buffer),
        };
        match read {
            Ok(len) => Some(buffer[..len].to_vec()),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => None,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A client, its way, and what came of both.
struct Session<C> {
    client: C,
    way: Way,
    started: Clock,
    /// How far its clock is ahead of ours.
    ahead: Duration,
    refreshes: usize,
    events: Vec<TurnEvent>,
    data: Vec<(SocketAddr, Vec<u8>)>,
    /// Of a message.
    bytes: usize,
}

impl<C: TurnClientApi> Session<C> {
    fn new(client: C, way: Way, bytes: usize) -> Self {
        Session {
            client,
            way,
            started: Clock::now(),
            ahead: Duration::ZERO,
            refreshes: 0,
            events: Vec::new(),
            data: Vec::new(),
            bytes,
        }
    }

    fn now(&self) -> Instant {
        Instant::from_nanos(i64::try_from((self.started.elapsed() + self.ahead).as_nanos()).expect("minutes"))
    }

    fn turn(&mut self) {
        let now = self.now();
        self.client.poll(now);
        while let Some(transmit) = self.client.poll_transmit(now) {
            // Refresh requests, by their type (RFC 8656 section 17).
            self.refreshes += usize::from(transmit.data.starts_with(&[0x00, 0x04]));
            self.way.send(&transmit.data);
        }
        if let Some(bytes) = self.way.receive() {
            let (from, to) = (self.client.remote_addr(), self.client.local_addr());
            let transmit = Transmit::new(bytes, self.client.transport(), from, to);
            let now = self.now();
            match self.client.recv(transmit, now) {
                TurnRecvRet::PeerData(data) => self.data.push((data.peer, data.data().to_vec())),
                TurnRecvRet::Handled => {}
                other => panic!("{other:?}"),
            }
            while let Some(data) = self.client.poll_recv(now) {
                self.data.push((data.peer, data.data().to_vec()));
            }
        }
        while let Some(event) = self.client.poll_event() {
            self.events.push(event);
        }
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let end = Clock::now() + PATIENCE;
        while !done(self) {
            assert!(Clock::now() < end, "{what}: {:?}", self.events);
            self.turn();
        }
    }

    fn until_event(&mut self, what: &str, wanted: impl Fn(&TurnEvent) -> bool) {
        self.until(what, |session| session.events.iter().any(&wanted));
    }

    /// Sends and gets back what it sent.
    fn exchange(&mut self, peer: SocketAddr) {
        for n in 0..MESSAGES {
            let now = self.now();
            let transmit = self
                .client
                .send_to(TransportType::Udp, peer, message(n, self.bytes), now);
            if let Some(transmit) = transmit.expect("a permission") {
                self.way.send(&transmit.build().data);
            }
            self.until("an echo", |session| session.data.len() == n + 1);
        }
        for (n, (from, data)) in self.data.drain(..).enumerate() {
            assert_eq!((from, data), (peer, message(n, self.bytes)));
        }
    }

    /// The whole life of an allocation.
    fn live(mut self, peer: SocketAddr) {
        self.until_event("an allocation", |event| {
            matches!(event, TurnEvent::AllocationCreated(TransportType::Udp, relayed) if relayed.ip().is_loopback())
        });
        let now = self.now();
        let permission = self.client.create_permission(TransportType::Udp, peer.ip(), now);
        permission.expect("an allocation");
        self.until_event("a permission", |event| {
            matches!(event, TurnEvent::PermissionCreated(..))
        });
        self.exchange(peer);
        let now = self.now();
        let channel = self.client.bind_channel(TransportType::Udp, peer, now);
        channel.expect("an allocation");
        self.until_event("a channel", |event| {
            matches!(event, TurnEvent::ChannelCreated(..))
        });
        // Its clock is put forward until it refreshes its allocation, permission and channel on the way.
        while self.refreshes == 0 {
            assert!(self.ahead < LIFETIME_MAX, "it refreshes its allocation");
            self.ahead += STEP;
            for _ in 0..3 {
                self.turn();
            }
        }
        self.exchange(peer);
        let now = self.now();
        self.client.delete(now).expect("an allocation");
        for _ in 0..4 {
            self.turn();
        }
        let failed = |event: &&TurnEvent| {
            !matches!(
                event,
                TurnEvent::AllocationCreated(..)
                    | TurnEvent::PermissionCreated(..)
                    | TurnEvent::ChannelCreated(..)
            )
        };
        assert_eq!(self.events.iter().filter(failed).count(), 0, "{:?}", self.events);
    }
}

fn configuration(who: &Credentials) -> TurnConfig {
    TurnConfig::new(TurnCredentials::new(&who.username, &who.password))
}

/// RFC 8489 to the full: SHA-256, and a hash in place of the username.
fn hidden(who: &Credentials) -> TurnConfig {
    let mut config = configuration(who);
    config.set_supported_integrity(IntegrityAlgorithm::Sha256);
    config.set_anonymous_username(Feature::Required);
    config
}

fn stream(server: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(server).expect("a connection");
    stream.set_nodelay(true).expect("an option");
    stream
        .set_read_timeout(Some(Duration::from_millis(20)))
        .expect("an option");
    stream
}

#[test]
fn turn_client_proto_is_served_over_udp() {
    is_served(BYTES, |server, who, peer| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.connect(server).expect("an address");
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("an option");
        let local = socket.local_addr().expect("an address");
        let client = TurnClientUdp::allocate(local, server, configuration(who));
        Session::new(client, Way::Datagrams(socket), BYTES).live(peer);
    });
}

#[test]
fn turn_client_proto_is_served_over_tcp_under_a_hashed_username() {
    is_served(STREAM_BYTES, |server, who, peer| {
        let stream = stream(server);
        let local = stream.local_addr().expect("an address");
        let client = TurnClientTcp::allocate(local, server, hidden(who));
        Session::new(client, Way::Plain(stream), STREAM_BYTES).live(peer);
    });
}

#[test]
fn turn_client_proto_is_served_over_tls() {
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, pem: String| {
        let path = folder.path().join(name);
        std::fs::write(&path, pem).expect("a file");
        path.display().to_string()
    };
    let settings = [
        (
            "MILLIWAY_TURN__TLS_CERTIFICATE",
            write("chain.pem", key.cert.pem()),
        ),
        (
            "MILLIWAY_TURN__TLS_KEY",
            write("key.pem", key.signing_key.serialize_pem()),
        ),
    ];
    let relay = Relay::start_with(&settings).expect("a relay that starts");
    let who = credentials(&relay);
    assert!(
        who.urls.iter().any(|url| url.starts_with("turns:127.0.0.1:")),
        "{:?}",
        who.urls
    );
    is_served_by(&relay, &who, STREAM_BYTES, |server, who, peer| {
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(key.cert.der().to_vec()))
            .expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("TLS 1.2 and 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let tls = ClientConnection::new(Arc::new(config), ServerName::from(server.ip())).expect("a client");
        let stream = stream(server);
        stream.set_read_timeout(None).expect("an option");
        let local = stream.local_addr().expect("an address");
        let mut encrypted = StreamOwned::new(tls, stream);
        while encrypted.conn.is_handshaking() {
            encrypted
                .conn
                .complete_io(&mut encrypted.sock)
                .expect("a handshake");
        }
        encrypted
            .sock
            .set_read_timeout(Some(Duration::from_millis(20)))
            .expect("an option");
        let client = TurnClientTcp::allocate(local, server, hidden(who));
        Session::new(client, Way::Encrypted(Box::new(encrypted)), STREAM_BYTES).live(peer);
    });
}
