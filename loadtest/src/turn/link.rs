//! The way from a TURN client to its server: UDP, TCP, or TLS over TCP, blocking while an allocation is made and not
//! blocking once load flows.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread::sleep;
use std::time::{Duration, Instant};

use datagram::{Fragmentation, Inbox, Socket, Transmit};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use crate::Error;
use crate::publisher::single;

/// Where clients have their ports.
const PORTS: std::ops::Range<u16> = 12_000..20_000;
/// Ports that are tried for a client, more than the clients that share an address.
const BIND_ATTEMPTS: u16 = 1_024;
const _: () = assert!(PORTS.start + 4_096 + BIND_ATTEMPTS <= PORTS.end);

/// For one answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Before a request is sent again (RFC 8489 section 6.2.1).
const RETRANSMIT: Duration = Duration::from_millis(500);
/// One message of a stream: a STUN message or a ChannelData with its payload.
const MESSAGE_MAX: usize = 1 << 16;
/// What is read from a stream at once.
const READ_MAX: usize = 1 << 16;

/// How a client reaches its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// Datagrams.
    Udp,
    /// A stream.
    Tcp,
    /// An encrypted stream.
    Tls,
}

/// One client's way.
pub enum Link {
    /// Datagrams, to this address.
    Udp(Box<Socket>, SocketAddr),
    /// A stream.
    Stream(Box<Stream>),
}

/// A TCP connection, with TLS in it or not.
pub struct Stream {
    io: TcpStream,
    tls: Option<ClientConnection>,
    /// What arrived and is no whole message yet.
    inward: Vec<u8>,
    /// What did not fit into the socket yet.
    outward: Vec<u8>,
}

impl Link {
    /// Opens one to `server` for the client with this number.
    pub fn open(transport: Transport, server: SocketAddr, client: u32) -> Result<Link, Error> {
        if transport == Transport::Udp {
            let socket = bind(address_of(server, client)?)?;
            return Ok(Link::Udp(Box::new(socket), server));
        }
        let io = TcpStream::connect(server)?;
        io.set_nodelay(true)?;
        io.set_read_timeout(Some(PATIENCE))?;
        let tls = match transport {
            Transport::Tls => Some(ClientConnection::new(
                tls_configuration()?,
                ServerName::from(server.ip()),
            )?),
            _ => None,
        };
        Ok(Link::Stream(Box::new(Stream {
            io,
            tls,
            inward: Vec::new(),
            outward: Vec::new(),
        })))
    }

    /// Its port on this side.
    pub fn port(&self) -> Result<u16, Error> {
        Ok(match self {
            Link::Udp(socket, _) => socket.local_addr().port(),
            Link::Stream(stream) => stream.io.local_addr()?.port(),
        })
    }

    /// Sends a request, whose answer [`Link::answer`] waits for.
    pub fn ask(&mut self, request: &[u8]) -> Result<(), Error> {
        match self {
            // What the kernel does not take is sent again as if it had been lost.
            Link::Udp(socket, server) => drop(socket.send(&single(*server, request))),
            Link::Stream(stream) => {
                stream.queue(request)?;
                stream.flush()?;
            }
        }
        Ok(())
    }

    /// The answer to a request that was sent.
    pub fn answer(&mut self, request: &[u8], inbox: &mut Inbox) -> Result<Vec<u8>, Error> {
        match self {
            Link::Udp(socket, server) => answer_in_datagrams(socket, *server, request, inbox),
            Link::Stream(stream) => {
                let end = Instant::now() + PATIENCE;
                loop {
                    if let Some(message) = stream.next_message() {
                        return Ok(message);
                    }
                    if Instant::now() > end || !stream.fill()? {
                        return Err("the server closed a connection or did not answer".into());
                    }
                }
            }
        }
    }

    /// From now on nothing blocks, and `registry` tells when something arrives.
    pub fn register(&mut self, registry: &Registry, token: Token) -> Result<(), Error> {
        match self {
            Link::Udp(socket, _) => registry.register(socket.as_mut(), token, Interest::READABLE)?,
            Link::Stream(stream) => {
                stream.io.set_nonblocking(true)?;
                let descriptor = stream.io.as_raw_fd();
                let interest = Interest::READABLE | Interest::WRITABLE;
                registry.register(&mut SourceFd(&descriptor), token, interest)?;
            }
        }
        Ok(())
    }

    /// Sends messages that lie end to end, `size` bytes each, in one go. How many were not taken.
    pub fn send(&mut self, messages: &[u8], size: usize) -> Result<u64, Error> {
        match self {
            Link::Udp(socket, server) => {
                let transmit = Transmit {
                    segment_size: (messages.len() > size).then_some(size),
                    ..single(*server, messages)
                };
                Ok(socket
                    .send(&transmit)
                    .err()
                    .map_or(0, |refused| refused.datagrams))
            }
            Link::Stream(stream) => {
                stream.queue(messages)?;
                stream.flush()?;
                Ok(0)
            }
        }
    }

    /// Hands every message that has arrived to `take`.
    pub fn receive(&mut self, inbox: &mut Inbox, mut take: impl FnMut(&[u8])) -> Result<(), Error> {
        match self {
            Link::Udp(socket, _) => loop {
                // Errors are those of an earlier send.
                let filled = socket.receive(inbox).unwrap_or(0);
                for index in 0..filled {
                    let Some((_, mut datagrams)) = inbox.datagrams(index) else {
                        continue;
                    };
                    while let Some(datagram) = datagrams.next_datagram() {
                        take(datagram);
                    }
                }
                if inbox.drained() {
                    return Ok(());
                }
            },
            Link::Stream(stream) => {
                stream.flush()?;
                while stream.fill()? {
                    let mut used = 0;
                    while let Some((message, whole)) = first_message(&stream.inward[used..]) {
                        take(&stream.inward[used..used + message]);
                        used += whole;
                    }
                    stream.inward.drain(..used);
                }
                Ok(())
            }
        }
    }
}

/// Servers limit what one network may ask for, and a generator is many clients: on loopback each has a network of its
/// own, 127.1.0.0/24 and on.
fn address_of(server: SocketAddr, client: u32) -> Result<Ipv4Addr, Error> {
    if server.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return Err(format!("clients and peers are on loopback, and {server} is not 127.0.0.1").into());
    }
    let [_, _, high, low] = client.to_be_bytes();
    Ok(Ipv4Addr::new(127, 1 + high % 64, low, 1))
}

/// A socket for the peer of this client, in its network.
pub fn bind_peer(server: SocketAddr, client: u32) -> Result<Socket, Error> {
    let [a, b, c, _] = address_of(server, client)?.octets();
    bind(Ipv4Addr::new(a, b, c, 2))
}

/// A port below those that servers relay from: an address that a server has given out as a relayed one is no client.
fn bind(ip: Ipv4Addr) -> Result<Socket, Error> {
    let first = PORTS.start + (std::process::id() % 4_096) as u16;
    let mut last = None;
    for port in first..first + BIND_ATTEMPTS {
        match Socket::bind((ip, port).into(), Fragmentation::Forbidden) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = Some(error),
        }
    }
    Err(format!("no free port for a client: {last:?}").into())
}

fn answer_in_datagrams(
    socket: &mut Socket,
    server: SocketAddr,
    request: &[u8],
    inbox: &mut Inbox,
) -> Result<Vec<u8>, Error> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let again = Instant::now() + RETRANSMIT;
        while Instant::now() < again {
            let filled = socket.receive(inbox).unwrap_or(0);
            for index in 0..filled {
                let Some((_, mut datagrams)) = inbox.datagrams(index) else {
                    continue;
                };
                while let Some(datagram) = datagrams.next_datagram() {
                    // The transaction id ties an answer to its request.
                    if datagram.get(8..20) == request.get(8..20) {
                        return Ok(datagram.to_vec());
                    }
                }
            }
            sleep(Duration::from_micros(20));
        }
        let _ = socket.send(&single(server, request));
    }
    Err("the server did not answer".into())
}

/// Length of the first message without and with its padding (RFC 8656 section 12.5), if it is whole.
fn first_message(bytes: &[u8]) -> Option<(usize, usize)> {
    let length = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
    let (message, whole) = if bytes[0] < 0x40 {
        (20 + length, 20 + length)
    } else {
        (4 + length, 4 + length.next_multiple_of(4))
    };
    (bytes.len() >= whole).then_some((message, whole))
}

impl Stream {
    fn queue(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.tls {
            Some(tls) => tls.writer().write_all(bytes)?,
            None => self.outward.extend_from_slice(bytes),
        }
        if self.outward.len() > 64 * MESSAGE_MAX {
            return Err("the server reads nothing any more".into());
        }
        Ok(())
    }

    /// Writes as much as the socket takes.
    fn flush(&mut self) -> Result<(), Error> {
        let result = match &mut self.tls {
            Some(tls) => loop {
                if !tls.wants_write() {
                    break Ok(());
                }
                if let Err(error) = tls.write_tls(&mut self.io) {
                    break Err(error);
                }
            },
            None => loop {
                if self.outward.is_empty() {
                    break Ok(());
                }
                match self.io.write(&self.outward) {
                    Ok(written) => drop(self.outward.drain(..written)),
                    Err(error) => break Err(error),
                }
            },
        };
        match result {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Reads once; false where nothing has come.
    fn fill(&mut self) -> Result<bool, Error> {
        let mut buffer = [0; READ_MAX];
        let read = match &mut self.tls {
            None => self.io.read(&mut buffer),
            Some(tls) => match tls.read_tls(&mut self.io) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(_) => {
                    tls.process_new_packets()?;
                    // A handshake may have something to say.
                    while tls.wants_write() {
                        tls.write_tls(&mut self.io)?;
                    }
                    match tls.reader().read(&mut buffer) {
                        // No application data yet, although something came.
                        Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
                        other => other,
                    }
                }
                Err(error) => Err(error),
            },
        };
        match read {
            Ok(0) => Err("the server closed a connection".into()),
            Ok(length) => {
                self.inward.extend_from_slice(&buffer[..length]);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn next_message(&mut self) -> Option<Vec<u8>> {
        let (message, whole) = first_message(&self.inward)?;
        let bytes = self.inward[..message].to_vec();
        self.inward.drain(..whole);
        Some(bytes)
    }
}

/// A load generator asks nobody who they are.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        use SignatureScheme::{
            ECDSA_NISTP256_SHA256, ECDSA_NISTP384_SHA384, ED25519, RSA_PKCS1_SHA256, RSA_PSS_SHA256,
        };
        vec![
            ECDSA_NISTP256_SHA256,
            ECDSA_NISTP384_SHA384,
            ED25519,
            RSA_PSS_SHA256,
            RSA_PKCS1_SHA256,
        ]
    }
}

fn tls_configuration() -> Result<Arc<ClientConfig>, Error> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let configuration = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody))
        .with_no_client_auth();
    Ok(Arc::new(configuration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_on_loopback_have_networks_of_their_own() {
        let server = "127.0.0.1:3478".parse().unwrap();
        assert_eq!(address_of(server, 0).unwrap(), Ipv4Addr::new(127, 1, 0, 1));
        assert_eq!(address_of(server, 2_000).unwrap(), Ipv4Addr::new(127, 8, 208, 1));
        assert!(address_of("192.0.2.1:3478".parse().unwrap(), 9).is_err());
        let peer = bind_peer(server, 5).unwrap();
        assert_eq!(peer.local_addr().ip(), Ipv4Addr::new(127, 1, 5, 2));
        assert!(PORTS.contains(&peer.local_addr().port()));
    }

    #[test]
    fn messages_of_a_stream_end_where_their_length_says_channels_padded() {
        assert_eq!(
            first_message(&[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0, 0, 9]),
            Some((9, 12))
        );
        assert_eq!(first_message(&[0x40, 0, 0, 5, 1, 2, 3, 4, 5, 0, 0]), None);
        let mut stun = [0; 24];
        stun[3] = 4;
        assert_eq!(first_message(&stun), Some((24, 24)));
        assert_eq!(first_message(&stun[..23]), None);
        assert_eq!(first_message(&[]), None);
    }
}
