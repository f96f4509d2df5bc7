//! TURN over TCP and TLS as a client on the wire sees it: messages cut anywhere, garbage, limits, and certificates that
//! change under live connections.
#![allow(clippy::unwrap_used)]

mod relay;

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relay::Relay;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

/// A loaded machine may need this long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A Binding request: 32 bytes with SOFTWARE, so that its answer is not longer than it may be.
const BINDING: [u8; 32] = *b"\x00\x01\x00\x0C\x21\x12\xA4\x42abcdefghijkl\x80\x22\x00\x07testing\0";

fn turn(relay: &Relay) -> SocketAddr {
    relay.ready["turn"].as_str().unwrap().parse().unwrap()
}

fn connect(relay: &Relay) -> TcpStream {
    let stream = TcpStream::connect(turn(relay)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Reads one STUN message; its type.
fn message(stream: &mut impl Read) -> u16 {
    let mut head = [0; 20];
    stream.read_exact(&mut head).unwrap();
    assert_eq!(&head[8..], b"abcdefghijkl");
    let mut rest = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
    stream.read_exact(&mut rest).unwrap();
    u16::from_be_bytes([head[0], head[1]])
}

#[test]
fn messages_are_found_wherever_the_stream_is_cut() {
    let relay = Relay::start();
    let mut stream = connect(&relay);
    let two = [BINDING, BINDING].concat();
    // Within the hundred answers at once that somebody unknown is given.
    for cut in 1..BINDING.len() {
        stream.write_all(&two[..cut]).unwrap();
        stream.flush().unwrap();
        std::thread::sleep(Duration::from_millis(2));
        stream.write_all(&two[cut..]).unwrap();
        assert_eq!(
            [message(&mut stream), message(&mut stream)],
            [0x0101; 2],
            "cut at {cut}"
        );
    }
}

#[test]
fn garbage_ends_its_connection_and_no_other() {
    let relay = Relay::start();
    let mut calm = connect(&relay);
    for garbage in [
        &b"\xFF\xFF\xFF\xFF"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x00\x01\x00\x03",
        b"\x16\x03\x01\x00\x04\xFF\x00\x00\x00",
        b"\x40\x00\xFF\xFF",
    ] {
        let mut stream = connect(&relay);
        stream.write_all(garbage).unwrap();
        let mut rest = Vec::new();
        match stream.read_to_end(&mut rest) {
            Ok(_) => {}
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{garbage:?}"),
        }
    }
    calm.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut calm), 0x0101);
}

#[test]
fn a_source_has_so_many_connections_and_gets_them_back() {
    let data = tempfile::tempdir().unwrap();
    let relay = Relay::start_with(data, &[], &[("MILLIWAY_TURN__CONNECTIONS_PER_SOURCE_MAX", "3")]);
    let works = |stream: &mut TcpStream| {
        stream.write_all(&BINDING).is_ok() && stream.read_exact(&mut [0; 20]).is_ok()
    };
    let mut held: Vec<TcpStream> = (0..3).map(|_| connect(&relay)).collect();
    assert!(held.iter_mut().all(works));
    assert!(!works(&mut connect(&relay)), "one too many");
    held.pop();
    let start = Instant::now();
    while !works(&mut connect(&relay)) {
        assert!(start.elapsed() < PATIENCE, "the place comes free");
    }
}

/// Takes any certificate, and remembers it.
#[derive(Debug, Default)]
struct Shown(Mutex<Vec<u8>>);

impl ServerCertVerifier for Shown {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        *self.0.lock().unwrap() = end_entity.to_vec();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

type Tls = StreamOwned<ClientConnection, TcpStream>;

/// A TLS connection that has had an answer, and the certificate it was shown.
fn tls(relay: &Relay) -> (Tls, Vec<u8>) {
    let shown = Arc::new(Shown::default());
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(shown.clone())
        .with_no_client_auth();
    let name = ServerName::try_from("localhost").unwrap();
    let connection = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut stream = StreamOwned::new(connection, connect(relay));
    stream.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut stream), 0x0101);
    let certificate = shown.0.lock().unwrap().clone();
    (stream, certificate)
}

fn write_certificate(folder: &std::path::Path) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let pem = |label: &str, der: &[u8]| {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    };
    std::fs::write(folder.join("chain.pem"), pem("CERTIFICATE", made.cert.der())).unwrap();
    std::fs::write(
        folder.join("key.pem"),
        pem("PRIVATE KEY", &made.signing_key.serialize_der()),
    )
    .unwrap();
}

#[test]
fn a_hang_up_signal_changes_the_certificate_and_disturbs_no_connection() {
    let keys = tempfile::tempdir().unwrap();
    write_certificate(keys.path());
    let path = |name: &str| keys.path().join(name).display().to_string();
    let environment = [
        ("MILLIWAY_TURN__TLS_CERTIFICATE", &*path("chain.pem")),
        ("MILLIWAY_TURN__TLS_KEY", &*path("key.pem")),
    ];
    let relay = Relay::start_with(tempfile::tempdir().unwrap(), &[], &environment);
    let (mut old, first) = tls(&relay);
    write_certificate(keys.path());
    let pid = relay.ready["pid"].to_string();
    assert!(
        Command::new("kill")
            .args(["-HUP", &pid])
            .status()
            .unwrap()
            .success()
    );
    let start = Instant::now();
    while tls(&relay).1 == first {
        assert!(start.elapsed() < PATIENCE, "the new certificate is shown");
        std::thread::sleep(Duration::from_millis(20));
    }
    old.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut old), 0x0101, "the old connection goes on");
    let mut plain = connect(&relay);
    plain.write_all(&BINDING).unwrap();
    assert_eq!(message(&mut plain), 0x0101, "plain and TLS share the port");
}
