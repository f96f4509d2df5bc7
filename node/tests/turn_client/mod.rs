//! A TURN client on real sockets that waits for what it asks for: over UDP, TCP, TLS and DTLS. It counts what it sees
//! itself, so that a bill can be held against it.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

#[path = "../certificate/mod.rs"]
pub(crate) mod certificate;

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use identity::SigningKey;
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};
use serde_json::{Value, json};
use wire::channel_data::{self, ChannelNumber};
use wire::stream;
use wire::stun::{Builder, Class, Message, Method, TransactionId, long_term_key};

use crate::relay::{Answer, Relay};
use certificate::trusting;

/// A loaded machine may need this long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// When a datagram is sent again.
const AGAIN: Duration = Duration::from_millis(500);

/// The channel that tests bind.
pub(crate) const CHANNEL: u16 = 0x4000;

/// What carries a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum By {
    Udp,
    Tcp,
    Tls,
    Dtls,
}

impl By {
    pub(crate) const ALL: [By; 4] = [By::Udp, By::Tcp, By::Tls, By::Dtls];
}

/// An association of DTLS over its socket.
pub(crate) struct Dtls {
    socket: UdpSocket,
    engine: dimpl::Dtls,
    heard: VecDeque<Vec<u8>>,
    connected: bool,
    due: Instant,
}

impl Dtls {
    fn connect(socket: UdpSocket) -> Dtls {
        let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
        let config = dimpl::Config::builder().mtu(1_200).build().unwrap();
        let mut engine = dimpl::Dtls::new_auto(Arc::new(config), certificate, Instant::now());
        engine.set_active(true);
        let mut dtls = Dtls {
            socket,
            engine,
            heard: VecDeque::new(),
            connected: false,
            due: Instant::now(),
        };
        let until = Instant::now() + PATIENCE;
        dtls.engine.handle_timeout(Instant::now()).unwrap();
        dtls.poll();
        while !dtls.connected {
            assert!(Instant::now() < until, "no DTLS handshake");
            dtls.receive(Duration::from_millis(50));
        }
        dtls
    }

    fn poll(&mut self) {
        let mut buffer = vec![0; 20 * 1024];
        loop {
            match self.engine.poll_output(&mut buffer) {
                dimpl::Output::Packet(datagram) => drop(self.socket.send(datagram)),
                dimpl::Output::ApplicationData(message) => self.heard.push_back(message.to_vec()),
                dimpl::Output::Connected => self.connected = true,
                dimpl::Output::Timeout(at) => {
                    self.due = at;
                    return;
                }
                _ => {}
            }
        }
    }

    fn receive(&mut self, wait: Duration) {
        self.socket.set_read_timeout(Some(wait)).unwrap();
        let mut buffer = [0; 4_096];
        if let Ok(len) = self.socket.recv(&mut buffer) {
            self.engine.handle_packet(&buffer[..len]).unwrap();
        }
        if Instant::now() >= self.due {
            self.engine.handle_timeout(Instant::now()).unwrap();
        }
        self.poll();
    }
}

/// What a message goes by.
pub(crate) enum Carrier {
    Udp(UdpSocket),
    Tcp(TcpStream, Vec<u8>),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>, Vec<u8>),
    Dtls(Box<Dtls>),
}

impl Carrier {
    pub(crate) fn connect(by: By, server: SocketAddr) -> Carrier {
        let own: IpAddr = match server {
            SocketAddr::V4(_) => "127.0.0.1".parse().unwrap(),
            SocketAddr::V6(_) => "::1".parse().unwrap(),
        };
        Carrier::connect_from(own, by, server)
    }

    pub(crate) fn connect_from(own: IpAddr, by: By, server: SocketAddr) -> Carrier {
        let udp = || {
            let socket = UdpSocket::bind((own, 0)).unwrap();
            socket.connect(server).unwrap();
            socket
        };
        let tcp = || {
            let raw = socket2::Socket::new(socket2::Domain::for_address(server), socket2::Type::STREAM, None)
                .unwrap();
            raw.bind(&SocketAddr::new(own, 0).into()).unwrap();
            raw.connect(&server.into()).unwrap();
            let stream = TcpStream::from(raw);
            stream.set_nodelay(true).unwrap();
            stream
        };
        match by {
            By::Udp => Carrier::Udp(udp()),
            By::Dtls => Carrier::Dtls(Box::new(Dtls::connect(udp()))),
            By::Tcp => Carrier::Tcp(tcp(), Vec::new()),
            By::Tls => {
                let config = trusting(&Arc::default());
                let name = ServerName::try_from("localhost").unwrap();
                let connection = ClientConnection::new(Arc::new(config), name).unwrap();
                Carrier::Tls(Box::new(StreamOwned::new(connection, tcp())), Vec::new())
            }
        }
    }

    fn is_reliable(&self) -> bool {
        matches!(self, Carrier::Tcp(..) | Carrier::Tls(..))
    }

    /// Sends a message; false if the connection is gone.
    pub(crate) fn send(&mut self, message: &[u8]) -> bool {
        let padded = || {
            let mut padded = message.to_vec();
            padded.resize(message.len() + stream::padding(message.len()), 0);
            padded
        };
        match self {
            Carrier::Udp(socket) => socket.send(message).is_ok(),
            Carrier::Tcp(stream, _) => stream.write_all(&padded()).is_ok(),
            Carrier::Tls(stream, _) => stream.write_all(&padded()).is_ok(),
            Carrier::Dtls(dtls) => {
                let sent = dtls.engine.send_application_data(message).is_ok();
                dtls.poll();
                sent
            }
        }
    }

    /// The next message, none after `wait`. An error if the connection is closed.
    pub(crate) fn receive(&mut self, wait: Duration) -> Result<Option<Vec<u8>>, ErrorKind> {
        let until = Instant::now() + wait;
        let left = || {
            until
                .saturating_duration_since(Instant::now())
                .max(Duration::from_millis(1))
        };
        let mut chunk = [0; 65_536];
        loop {
            let read = match self {
                Carrier::Udp(socket) => {
                    socket.set_read_timeout(Some(left())).unwrap();
                    match socket.recv(&mut chunk) {
                        Ok(len) => return Ok(Some(chunk[..len].to_vec())),
                        Err(error) => Err(error),
                    }
                }
                Carrier::Dtls(dtls) => {
                    if let Some(message) = dtls.heard.pop_front() {
                        return Ok(Some(message));
                    }
                    dtls.receive(left().min(Duration::from_millis(50)));
                    Ok(0)
                }
                Carrier::Tcp(_, kept) | Carrier::Tls(_, kept) => {
                    let whole = stream::message_len(kept).unwrap();
                    if let Some(len) = whole.filter(|len| *len <= kept.len()) {
                        let mut message: Vec<u8> = kept.drain(..len).collect();
                        if message[0] >= 0x40 {
                            // ChannelData: without the padding of streams.
                            let data = usize::from(u16::from_be_bytes([message[2], message[3]]));
                            message.truncate(4 + data);
                        }
                        return Ok(Some(message));
                    }
                    let read = match self {
                        Carrier::Tcp(stream, _) => {
                            stream.set_read_timeout(Some(left())).unwrap();
                            stream.read(&mut chunk)
                        }
                        Carrier::Tls(stream, _) => {
                            stream.sock.set_read_timeout(Some(left())).unwrap();
                            stream.read(&mut chunk)
                        }
                        _ => unreachable!("matched above"),
                    };
                    match read {
                        Ok(0) => return Err(ErrorKind::UnexpectedEof),
                        Ok(len) => {
                            if let Carrier::Tcp(_, kept) | Carrier::Tls(_, kept) = self {
                                kept.extend_from_slice(&chunk[..len]);
                            }
                            continue;
                        }
                        Err(error) => Err(error),
                    }
                }
            };
            match read {
                Ok(_) => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
                    ) => {}
                Err(error) if error.kind() == ErrorKind::ConnectionRefused => {}
                Err(error) => return Err(error.kind()),
            }
            if Instant::now() >= until {
                return Ok(None);
            }
        }
    }

    /// True once the server has closed; what comes before that is passed over.
    pub(crate) fn is_closed_within(&mut self, wait: Duration) -> bool {
        let until = Instant::now() + wait;
        while Instant::now() < until {
            if self.receive(Duration::from_millis(50)).is_err() {
                return true;
            }
        }
        false
    }
}

/// What the server answered.
#[derive(Clone, Debug)]
pub(crate) struct Said(pub(crate) Vec<u8>);

impl Said {
    pub(crate) fn message(&self) -> Message<'_> {
        Message::parse(&self.0).unwrap()
    }

    /// The error code, or 0 for a success, and the reason.
    pub(crate) fn outcome(&self) -> (u16, String) {
        match self.message().error_code() {
            Some(error) => (error.code, error.reason.to_owned()),
            None => (0, String::new()),
        }
    }

    pub(crate) fn code(&self) -> u16 {
        self.outcome().0
    }
}

/// A username and password, bought.
#[derive(Clone, Debug)]
pub(crate) struct Bought {
    pub(crate) username: String,
    pub(crate) password: String,
    pub(crate) session: String,
    pub(crate) urls: Vec<String>,
}

/// What `/v1/turn/credentials` answers.
pub(crate) fn ask_for_credentials(relay: &Relay, key: &SigningKey, token: &str) -> Answer {
    relay.signed(key, Some(token), "POST", "/v1/turn/credentials", b"")
}

pub(crate) fn buy(relay: &Relay, key: &SigningKey, token: &str) -> Bought {
    let answer = ask_for_credentials(relay, key, token);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let answer = answer.json();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let server = &answer["iceServers"][0];
    Bought {
        username: text(&server["username"]),
        password: text(&server["credential"]),
        session: text(&answer["session"]),
        urls: server["urls"].as_array().unwrap().iter().map(text).collect(),
    }
}

/// The TURN server's address.
pub(crate) fn server(relay: &Relay) -> SocketAddr {
    relay.ready["turn"].as_str().unwrap().parse().unwrap()
}

/// A client with a username.
pub(crate) struct Client {
    pub(crate) carrier: Carrier,
    bought: Bought,
    realm: String,
    nonce: String,
    next_id: u64,
    /// Everything that was not asked for: ChannelData and indications.
    pub(crate) unasked: VecDeque<Vec<u8>>,
}

impl Client {
    pub(crate) fn new(carrier: Carrier, bought: &Bought) -> Client {
        Client {
            carrier,
            bought: bought.clone(),
            realm: String::new(),
            nonce: String::new(),
            next_id: 0,
            unasked: VecDeque::new(),
        }
    }

    /// With an allocation of datagrams; its relayed address too.
    pub(crate) fn allocated(relay: &Relay, by: By, bought: &Bought) -> (Client, SocketAddr) {
        let mut client = Client::new(Carrier::connect(by, server(relay)), bought);
        let answer = client.ask(Method::ALLOCATE, |b| b.requested_transport(17));
        assert_eq!(answer.outcome(), (0, String::new()), "{by:?}");
        let relayed = answer.message().xor_relayed_address().unwrap();
        (client, relayed)
    }

    /// An authenticated request and its answer.
    pub(crate) fn ask(&mut self, method: Method, attributes: impl Fn(Builder<'_>) -> Builder<'_>) -> Said {
        self.try_ask(method, attributes).expect("an answer")
    }

    /// Likewise; none if the server says nothing, or closed the connection.
    pub(crate) fn try_ask(
        &mut self,
        method: Method,
        attributes: impl Fn(Builder<'_>) -> Builder<'_>,
    ) -> Option<Said> {
        for _ in 0..4 {
            let answer = self.once(method, &attributes)?;
            let (code, _) = answer.outcome();
            let message = answer.message();
            if !matches!(code, 401 | 438) || message.nonce() == Some(&self.nonce) {
                return Some(answer);
            }
            let (realm, nonce) = (message.realm().unwrap(), message.nonce().unwrap());
            (self.realm, self.nonce) = (realm.to_owned(), nonce.to_owned());
        }
        panic!("never content");
    }

    fn once(&mut self, method: Method, attributes: &impl Fn(Builder<'_>) -> Builder<'_>) -> Option<Said> {
        self.next_id += 1;
        let mut id = [7; 12];
        id[4..].copy_from_slice(&self.next_id.to_be_bytes());
        let mut buffer = vec![0; 2_048];
        let builder = attributes(Builder::new(
            &mut buffer,
            Class::Request,
            method,
            TransactionId(id),
        ));
        let key = long_term_key(&self.bought.username, &self.realm, &self.bought.password);
        let len = if self.nonce.is_empty() {
            builder.software("a test client")
        } else {
            builder
                .username(&self.bought.username)
                .realm(&self.realm)
                .nonce(&self.nonce)
                .integrity(&key)
        }
        .finish()
        .unwrap();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if !self.carrier.send(&buffer[..len]) {
                return None;
            }
            let wait = if self.carrier.is_reliable() {
                PATIENCE
            } else {
                AGAIN
            };
            let again = Instant::now() + wait;
            while let Some(left) = again.checked_duration_since(Instant::now()) {
                match self.carrier.receive(left) {
                    Ok(Some(message)) if is_answer(&message, id) => return Some(Said(message)),
                    Ok(Some(message)) => self.unasked.push_back(message),
                    Ok(None) => break,
                    Err(_) => return None,
                }
            }
        }
        None
    }

    pub(crate) fn permit(&mut self, peer: SocketAddr) -> Said {
        self.ask(Method::CREATE_PERMISSION, |b| b.xor_peer_address(peer))
    }

    pub(crate) fn bind(&mut self, number: u16, peer: SocketAddr) -> Said {
        let number = ChannelNumber::new(number).unwrap();
        self.ask(Method::CHANNEL_BIND, |b| {
            b.channel_number(number).xor_peer_address(peer)
        })
    }

    pub(crate) fn refresh(&mut self, seconds: u32) -> Said {
        self.ask(Method::REFRESH, |b| b.lifetime(seconds))
    }

    /// Over a bound channel.
    pub(crate) fn send(&mut self, number: u16, data: &[u8]) -> bool {
        let mut message = vec![0; 4];
        channel_data::write_header(
            message.first_chunk_mut().unwrap(),
            ChannelNumber::new(number).unwrap(),
            u16::try_from(data.len()).unwrap(),
        );
        message.extend_from_slice(data);
        self.carrier.send(&message)
    }

    /// As a Send indication.
    pub(crate) fn indicate(&mut self, peer: SocketAddr, data: &[u8]) {
        let mut buffer = vec![0; 65_536];
        let id = TransactionId([9; 12]);
        let len = Builder::new(&mut buffer, Class::Indication, Method::SEND, id)
            .xor_peer_address(peer)
            .data(data)
            .finish()
            .unwrap();
        self.carrier.send(&buffer[..len]);
    }

    /// The next application bytes from a peer, none after `wait`.
    pub(crate) fn hear(&mut self, wait: Duration) -> Option<Vec<u8>> {
        let until = Instant::now() + wait;
        loop {
            let message = match self.unasked.pop_front() {
                Some(message) => message,
                None => {
                    let left = until.saturating_duration_since(Instant::now());
                    self.carrier.receive(left).ok()??
                }
            };
            if let Some(data) = data_of(&message) {
                return Some(data.to_vec());
            }
        }
    }
}

fn is_answer(message: &[u8], id: [u8; 12]) -> bool {
    Message::parse(message).is_ok_and(|message| {
        message.transaction_id() == TransactionId(id)
            && matches!(message.class(), Class::Success | Class::Error)
    })
}

/// The application bytes of ChannelData or a Data indication.
fn data_of(message: &[u8]) -> Option<&[u8]> {
    if message.first()? & 0xC0 == 0x40 {
        let len = usize::from(u16::from_be_bytes([message[2], message[3]]));
        return message.get(4..4 + len);
    }
    Message::parse(message).ok()?.data()
}

/// A peer: a socket that knows how many bytes it got.
pub(crate) struct Peer {
    pub(crate) socket: UdpSocket,
    pub(crate) address: SocketAddr,
}

impl Peer {
    pub(crate) fn new(ip: &str) -> Peer {
        let socket = UdpSocket::bind((ip.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let address = socket.local_addr().unwrap();
        Peer { socket, address }
    }

    pub(crate) fn hear(&self, wait: Duration) -> Option<(Vec<u8>, SocketAddr)> {
        self.socket
            .set_read_timeout(Some(wait.max(Duration::from_millis(1))))
            .unwrap();
        let mut buffer = [0; 65_536];
        let (len, from) = self.socket.recv_from(&mut buffer).ok()?;
        Some((buffer[..len].to_vec(), from))
    }
}

/// True if bytes pass both ways now.
pub(crate) fn relays(client: &mut Client, relayed: SocketAddr, peer: &Peer) -> bool {
    let wait = Duration::from_millis(200);
    client.send(CHANNEL, b"there?")
        && peer.hear(wait).is_some()
        && peer.socket.send_to(b"here", relayed).is_ok()
        && client.hear(wait).is_some()
}

/// `GET /v1/account` of the key.
pub(crate) fn account(relay: &Relay, key: &SigningKey) -> Value {
    let answer = relay.signed(key, None, "GET", "/v1/account", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// Tops the account up with a voucher.
pub(crate) fn top_up(relay: &Relay, key: &SigningKey, msat: u64) {
    let token = relay.faucet(key.did().as_str(), msat, false);
    let body = json!({ "token": token }).to_string();
    let answer = relay.signed(key, None, "POST", "/v1/topup", body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The claims of a session's receipt, if there is one yet.
pub(crate) fn receipt(relay: &Relay, key: &SigningKey, session: &str) -> Option<Value> {
    let answer = relay.signed(key, None, "GET", &format!("/v1/receipts/{session}"), b"");
    if answer.status != 200 {
        return None;
    }
    let payload = answer.text().split('.').nth(1).unwrap().to_owned();
    Some(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap())
}

/// The receipt of a session once `done` says that it is whole.
pub(crate) fn receipt_when(
    relay: &Relay,
    key: &SigningKey,
    session: &str,
    done: impl Fn(&Value) -> bool,
) -> Value {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = receipt(relay, key, session);
        if let Some(found) = found.as_ref().filter(|found| done(found)) {
            return found.clone();
        }
        assert!(Instant::now() < until, "the receipt never came: {found:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Waits for something; how long it took.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what} took too long");
        std::thread::sleep(Duration::from_millis(10));
    }
    start.elapsed()
}

/// One figure of `/metrics`, summed over its labels that contain `label`; 0 if it is not there.
pub(crate) fn metric(relay: &Relay, name: &str, label: &str) -> f64 {
    relay
        .get("/metrics")
        .text()
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

/// Resident memory of the relay, bytes.
pub(crate) fn resident(relay: &Relay) -> u64 {
    let path = format!("/proc/{}/status", relay.ready["pid"]);
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    let kib: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib * 1024
}

/// A ClientHello of DTLS 1.2 as any library sends it first, without a cookie.
pub(crate) fn client_hello() -> Vec<u8> {
    let certificate = dimpl::certificate::generate_self_signed_certificate().unwrap();
    let config = Arc::new(dimpl::Config::builder().mtu(1_200).build().unwrap());
    let mut engine = dimpl::Dtls::new_auto(config, certificate, Instant::now());
    engine.set_active(true);
    engine.handle_timeout(Instant::now()).unwrap();
    let mut buffer = vec![0; 4_096];
    loop {
        match engine.poll_output(&mut buffer) {
            dimpl::Output::Packet(hello) => return hello.to_vec(),
            dimpl::Output::Timeout(_) => panic!("no ClientHello"),
            _ => {}
        }
    }
}
