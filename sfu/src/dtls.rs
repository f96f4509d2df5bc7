//! DTLS-SRTP (RFC 5763, RFC 5764) through `dimpl`: certificate, handshake, fingerprint, exported keys.
//!
//! Only paths that passed an authenticated connectivity check reach the engine, which is what a cookie would
//! prove, so none is asked for. A handshake is bounded in time, in datagrams and in the ClientHello's size.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Dtls, Output, SrtpProfile};
use subtle::ConstantTimeEq;

use crate::discard::Discard;
use crate::event::CloseReason;
use crate::media::{DtlsRole, Fingerprint, FingerprintAlgorithm};
use crate::srtp::{Master, Opener, Profile, RtcpOpener, RtcpSealer, Sealer};

/// From the first ClientHello to the end of the handshake.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(20);
/// Datagrams one handshake may take, retransmissions included: a lossy one takes some dozen.
const HANDSHAKE_DATAGRAMS_MAX: u32 = 200;
/// The largest ClientHello: with post-quantum key shares they reach 2 KB.
const CLIENT_HELLO_BYTES_MAX: usize = 8 * 1024;
/// Records of one datagram; below the smallest path MTU of IPv6 less IP, UDP and TURN headers.
const MTU: usize = 1150;
/// Room for one datagram of the engine's.
pub(crate) const DATAGRAM_BYTES_MAX: usize = 2048;
const _: () = assert!(MTU < DATAGRAM_BYTES_MAX);

/// Record header: type, version, epoch, sequence number, length (RFC 6347 section 4.1).
const RECORD_HEADER_LENGTH: usize = 13;
const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;

/// The relay's certificate, shared by every shard so that one fingerprint serves all.
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<dimpl::DtlsCertificate>,
    config: Arc<dimpl::Config>,
}

impl Certificate {
    /// A fresh self-signed ECDSA P-256 certificate.
    ///
    /// # Panics
    /// When the operating system gives no randomness.
    #[must_use]
    pub fn generate() -> Certificate {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .expect("a P-256 key and a self-signed certificate can always be made");
        let config = dimpl::Config::builder()
            .mtu(MTU)
            .use_server_cookie(false)
            .handshake_timeout(HANDSHAKE_TIME_MAX)
            .flight_start_rto(Duration::from_millis(500))
            .build()
            .expect("the limits above are valid");
        Certificate {
            inner: Arc::new(certificate),
            config: Arc::new(config),
        }
    }

    /// The SHA-256 fingerprint for `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        fingerprint_of(FingerprintAlgorithm::Sha256, &self.inner.certificate)
    }
}

fn fingerprint_of(algorithm: FingerprintAlgorithm, der: &[u8]) -> Fingerprint {
    let digest = match algorithm {
        FingerprintAlgorithm::Sha256 => digest::digest(&digest::SHA256, der),
        FingerprintAlgorithm::Sha384 => digest::digest(&digest::SHA384, der),
        FingerprintAlgorithm::Sha512 => digest::digest(&digest::SHA512, der),
    };
    Fingerprint {
        algorithm,
        value: digest.as_ref().to_vec(),
    }
}

/// The key contexts of a session, from its DTLS handshake.
pub(crate) struct Keys {
    pub(crate) opener: Opener,
    pub(crate) rtcp_opener: RtcpOpener,
    pub(crate) sealer: Sealer,
    pub(crate) rtcp_sealer: RtcpSealer,
}

/// What [`Connection::poll`] has for its session.
pub(crate) enum Polled {
    /// A datagram of this length is in the buffer, to be sent.
    Datagram(usize),
    /// The handshake is over and the peer is who its SDP said.
    Connected(Box<Keys>),
    /// The connection is over.
    Closed(CloseReason),
    /// Nothing until the time given by [`Connection::due`].
    Idle,
}

/// The DTLS association of one session.
pub(crate) struct Connection {
    dtls: Dtls,
    expected: Fingerprint,
    verified: bool,
    established: bool,
    keys: Option<Box<Keys>>,
    client: bool,
    datagrams: u32,
    due: Option<Instant>,
}

impl Connection {
    pub(crate) fn new(
        certificate: &Certificate,
        role: DtlsRole,
        expected: Fingerprint,
        now: Instant,
    ) -> Connection {
        let config = Arc::clone(&certificate.config);
        let mut dtls = Dtls::new_auto(config, (*certificate.inner).clone(), now);
        let client = role == DtlsRole::Active;
        dtls.set_active(client);
        Connection {
            dtls,
            expected,
            verified: false,
            established: false,
            keys: None,
            client,
            datagrams: 0,
            due: Some(now),
        }
    }

    /// Whether the handshake is over.
    pub(crate) fn is_established(&self) -> bool {
        self.established
    }

    /// When the engine wants to be driven.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Feeds a datagram; poll afterwards.
    pub(crate) fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Result<(), DtlsRefused> {
        if !self.established {
            self.datagrams += 1;
            if self.datagrams > HANDSHAKE_DATAGRAMS_MAX {
                return Err(DtlsRefused::Fatal(CloseReason::Handshake));
            }
            if client_hello_length(datagram).is_some_and(|length| length > CLIENT_HELLO_BYTES_MAX) {
                return Err(DtlsRefused::Dropped(Discard::OversizeClientHello));
            }
        }
        self.drive(now)?;
        self.dtls
            .handle_packet(datagram)
            .map_err(|_| DtlsRefused::Fatal(self.failure()))
    }

    /// Lets time pass; poll afterwards.
    pub(crate) fn drive(&mut self, now: Instant) -> Result<(), DtlsRefused> {
        self.dtls
            .handle_timeout(now)
            .map_err(|_| DtlsRefused::Fatal(self.failure()))
    }

    fn failure(&self) -> CloseReason {
        if self.established {
            CloseReason::Bye
        } else {
            CloseReason::Handshake
        }
    }

    /// Says goodbye, once: poll afterwards.
    pub(crate) fn close(&mut self) {
        // An error means that there is nobody to say it to.
        let _ = self.dtls.close();
    }

    /// The next thing to do. Call until [`Polled::Idle`] or [`Polled::Closed`].
    pub(crate) fn poll(&mut self, buffer: &mut [u8; DATAGRAM_BYTES_MAX]) -> Polled {
        loop {
            match self.dtls.poll_output(buffer) {
                Output::Packet(packet) => return Polled::Datagram(packet.len()),
                Output::PeerCert(der) => {
                    let shown = fingerprint_of(self.expected.algorithm, der);
                    if !bool::from(shown.value.ct_eq(&self.expected.value)) {
                        return Polled::Closed(CloseReason::Fingerprint);
                    }
                    self.verified = true;
                }
                Output::KeyingMaterial(material, profile) => {
                    let Some(keys) = keys(&material, profile, self.client) else {
                        return Polled::Closed(CloseReason::Handshake);
                    };
                    self.keys = Some(Box::new(keys));
                    if let Some(connected) = self.connected() {
                        return connected;
                    }
                }
                Output::Connected => {
                    self.established = true;
                    if let Some(connected) = self.connected() {
                        return connected;
                    }
                }
                Output::CloseNotify => return Polled::Closed(CloseReason::Bye),
                Output::Timeout(at) => {
                    self.due = Some(at);
                    if self.established && !self.verified {
                        return Polled::Closed(CloseReason::Fingerprint);
                    }
                    return Polled::Idle;
                }
                // There are no data channels, and a buffer too small cannot be: it exceeds the MTU.
                Output::ApplicationData(_) => {}
                _ => return Polled::Idle,
            }
        }
    }

    /// Keys are handed out once the handshake is over and the certificate is the announced one.
    fn connected(&mut self) -> Option<Polled> {
        if self.established && self.verified {
            self.keys.take().map(Polled::Connected)
        } else {
            None
        }
    }
}

/// Why a datagram did not reach the engine, or what it did to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DtlsRefused {
    /// Only this datagram is dropped.
    Dropped(Discard),
    /// The association is beyond repair.
    Fatal(CloseReason),
}

fn keys(material: &[u8], profile: SrtpProfile, client: bool) -> Option<Keys> {
    let profile = match profile {
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
        _ => return None,
    };
    let (client_write, server_write) = Master::from_dtls(profile, material)?;
    let (ours, theirs) = if client {
        (client_write, server_write)
    } else {
        (server_write, client_write)
    };
    Some(Keys {
        opener: Opener::new(theirs),
        rtcp_opener: RtcpOpener::new(theirs),
        sealer: Sealer::new(ours),
        rtcp_sealer: RtcpSealer::new(ours),
    })
}

/// The full length of the ClientHello that the datagram starts, or starts a fragment of.
fn client_hello_length(datagram: &[u8]) -> Option<usize> {
    let handshake = datagram.get(RECORD_HEADER_LENGTH..)?;
    match (datagram.first(), handshake) {
        (Some(&HANDSHAKE), &[CLIENT_HELLO, high, middle, low, ..]) => {
            Some(usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low))
        }
        _ => None,
    }
}

/// The records of `datagram`, cut where those that are free and those that are paid for meet, each piece with the
/// bytes to charge. Sent one by one (records stand alone, RFC 9147 section 4.3), so that the first byte of a datagram
/// on the wire says whether it is paid for: DTLS 1.3 would pack its free ServerHello with encrypted records.
pub(crate) fn pieces(datagram: &[u8]) -> impl Iterator<Item = (&[u8], u64)> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let paid = is_paid(*rest.first()?);
        let mut length = 0;
        while let Some(&first) = rest.get(length)
            && is_paid(first) == paid
        {
            length += record_length(&rest[length..]).unwrap_or(rest.len() - length);
        }
        let (piece, after) = rest.split_at(length);
        rest = after;
        Some((piece, if paid { length as u64 } else { 0 }))
    })
}

/// Application data is paid for, and everything in the unified header of DTLS 1.3 (RFC 9147 section 4), whose true
/// type nobody outside can see.
fn is_paid(first: u8) -> bool {
    first == APPLICATION_DATA || (32..=63).contains(&first)
}

/// Header and body of the first record; `None` when it is cut or takes all that is left.
fn record_length(records: &[u8]) -> Option<usize> {
    let first = *records.first()?;
    let length = if (32..=63).contains(&first) {
        const HAS_CONNECTION_ID: u8 = 0x10;
        const LONG_SEQUENCE: u8 = 0x08;
        const HAS_LENGTH: u8 = 0x04;
        // Connection ids are never negotiated, so their length is not known.
        if first & HAS_LENGTH == 0 || first & HAS_CONNECTION_ID != 0 {
            return None;
        }
        let at = if first & LONG_SEQUENCE == 0 { 2 } else { 3 };
        at + 2 + usize::from(u16::from_be_bytes([*records.get(at)?, *records.get(at + 1)?]))
    } else {
        RECORD_HEADER_LENGTH + usize::from(u16::from_be_bytes([*records.get(11)?, *records.get(12)?]))
    };
    (length <= records.len()).then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of the records in `datagram` that are paid for.
    fn charged_bytes(datagram: &[u8]) -> u64 {
        pieces(datagram).map(|(_, charged)| charged).sum()
    }

    fn handshake(client_expects: Option<Fingerprint>) -> (Vec<CloseReason>, [Option<Box<Keys>>; 2], u64) {
        let mut now = Instant::now();
        let (client_certificate, relay_certificate) = (Certificate::generate(), Certificate::generate());
        let expected = client_expects.unwrap_or_else(|| client_certificate.fingerprint());
        let relay = Connection::new(&relay_certificate, DtlsRole::Passive, expected, now);
        let client = Connection::new(
            &client_certificate,
            DtlsRole::Active,
            relay_certificate.fingerprint(),
            now,
        );
        let mut ends = [relay, client];
        let (mut closed, mut keys, mut charged) = (Vec::new(), [None, None], 0);
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        for _ in 0..40 {
            for end in 0..2 {
                let _ = ends[end].drive(now);
                loop {
                    match ends[end].poll(&mut buffer) {
                        Polled::Datagram(length) => {
                            charged += charged_bytes(&buffer[..length]);
                            let _ = ends[1 - end].handle_datagram(&buffer[..length], now);
                        }
                        Polled::Connected(made) => keys[end] = Some(made),
                        Polled::Closed(reason) => {
                            closed.push(reason);
                            break;
                        }
                        Polled::Idle => break,
                    }
                }
            }
            now += Duration::from_millis(10);
        }
        (closed, keys, charged)
    }

    #[test]
    fn both_ends_get_matching_keys() {
        let (closed, [relay, client], _) = handshake(None);
        assert!(closed.is_empty());
        let (relay, client) = (relay.unwrap(), client.unwrap());
        let mut packet = vec![0; 12 + 3 + client.sealer.tag_length()];
        packet[..12].copy_from_slice(&[0x80, 96, 0, 1, 0, 0, 0, 0, 0, 0, 0, 5]);
        client.sealer.seal(&mut packet, 12, 1, b"abc");
        let mut out = [0; 16];
        assert_eq!(relay.opener.open(&packet, 12, 1, &mut out), Ok(3));
    }

    #[test]
    fn a_certificate_that_does_not_match_the_signed_fingerprint_gets_no_keys() {
        let other = Certificate::generate().fingerprint();
        let (closed, [relay, _], _) = handshake(Some(other));
        assert!(closed.contains(&CloseReason::Fingerprint));
        assert!(relay.is_none());
    }

    #[test]
    fn an_oversize_client_hello_is_dropped_before_the_engine_sees_it() {
        let now = Instant::now();
        let certificate = Certificate::generate();
        let mut relay = Connection::new(&certificate, DtlsRole::Passive, certificate.fingerprint(), now);
        let mut hello = vec![
            22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0x03, 0xe8, 1, 0x00, 0x40, 0x00,
        ];
        hello.resize(1013, 0);
        assert_eq!(
            relay.handle_datagram(&hello, now),
            Err(DtlsRefused::Dropped(Discard::OversizeClientHello))
        );
    }

    #[test]
    fn a_handshake_is_bounded_in_datagrams() {
        let now = Instant::now();
        let certificate = Certificate::generate();
        let mut relay = Connection::new(&certificate, DtlsRole::Passive, certificate.fingerprint(), now);
        let last = (0..=HANDSHAKE_DATAGRAMS_MAX)
            .map(|_| relay.handle_datagram(&[22, 1, 2], now))
            .last();
        assert_eq!(last, Some(Err(DtlsRefused::Fatal(CloseReason::Handshake))));
    }

    #[test]
    fn only_application_data_and_encrypted_records_cost() {
        let record = |kind: u8, length: usize| {
            let mut record = vec![0; RECORD_HEADER_LENGTH + length];
            record[0] = kind;
            record[11..13].copy_from_slice(&(length as u16).to_be_bytes());
            record
        };
        assert_eq!(charged_bytes(&record(22, 100)), 0);
        assert_eq!(charged_bytes(&record(23, 100)), 113);
        assert_eq!(
            charged_bytes(&[record(22, 50), record(23, 10), record(20, 1)].concat()),
            23
        );
        let unified = [&[0x2e, 0, 1, 0, 3, 9, 9, 9][..], &record(21, 2)[..]].concat();
        assert_eq!(charged_bytes(&unified), 8);
        assert_eq!(
            charged_bytes(&[0x22, 1, 2, 3]),
            4,
            "without a length it takes the rest"
        );
        assert_eq!(charged_bytes(&[23, 1]), 2, "cut short");
        // A first flight: ServerHello in the clear, then two encrypted records, then an alert in the clear.
        let encrypted = &unified[..8];
        let flight = [&record(22, 50)[..], encrypted, encrypted, &record(21, 2)[..]].concat();
        let lengths: Vec<_> = pieces(&flight)
            .map(|(piece, charged)| (piece.len(), charged))
            .collect();
        assert_eq!(lengths, [(63, 0), (16, 16), (15, 0)]);
        let whole: Vec<u8> = pieces(&flight).flat_map(|(piece, _)| piece.to_vec()).collect();
        assert_eq!(whole, flight);
    }
}
