//! DTLS-SRTP of a light client (RFC 5764) through `dimpl`, either role, down to the SRTP contexts.
//!
//! `dimpl` offers AES-256-GCM, AES-128-GCM and AES-CM with SHA-1 in this order and cannot be told otherwise, so the
//! profile is what the two sides make of that; the report says which one it was.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use dimpl::{Dtls, Output, SrtpProfile};
use sfu::srtp::{Master, Opener, Profile, RtcpOpener, RtcpSealer, Sealer};

/// Loaded servers take their time.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(30);
const MTU: usize = 1_150;

/// Room for one datagram of the engine's.
pub const DATAGRAM_MAX: usize = 2_048;

/// The certificate of all light clients of a run.
#[derive(Clone)]
pub struct Certificate {
    inner: Arc<dimpl::DtlsCertificate>,
    config: Arc<dimpl::Config>,
}

impl Certificate {
    /// A fresh self-signed one.
    pub fn generate() -> Result<Certificate, crate::Error> {
        let certificate = dimpl::certificate::generate_self_signed_certificate()
            .map_err(|error| format!("no certificate: {error}"))?;
        let config = dimpl::Config::builder()
            .mtu(MTU)
            .use_server_cookie(false)
            .handshake_timeout(HANDSHAKE_TIME_MAX)
            .build()
            .map_err(|error| format!("no DTLS configuration: {error}"))?;
        Ok(Certificate {
            inner: Arc::new(certificate),
            config: Arc::new(config),
        })
    }

    /// The value of `a=fingerprint`.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        let digest = digest::digest(&digest::SHA256, &self.inner.certificate);
        let bytes: Vec<String> = digest.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("sha-256 {}", bytes.join(":"))
    }
}

/// The SRTP contexts of one client.
pub struct Keys {
    /// Which profile was agreed on.
    pub profile: Profile,
    /// For RTP that arrives.
    pub opener: Opener,
    /// For RTCP that arrives.
    pub rtcp_opener: RtcpOpener,
    /// For RTP that leaves.
    pub sealer: Sealer,
    /// For RTCP that leaves.
    pub rtcp_sealer: RtcpSealer,
}

/// What is to be done for a handshake.
pub enum Step {
    /// Send so many bytes of the buffer.
    Datagram(usize),
    /// It is over.
    Connected(Box<Keys>),
    /// It failed.
    Failed(String),
    /// Nothing before this instant.
    Idle(Instant),
}

/// A handshake under way.
pub struct Handshake {
    dtls: Dtls,
    is_client: bool,
    expected: (String, Vec<u8>),
    is_verified: bool,
    keys: Option<Box<Keys>>,
    is_connected: bool,
}

impl Handshake {
    /// Begins; the other side must show a certificate with this digest.
    #[must_use]
    pub fn new(
        certificate: &Certificate,
        is_client: bool,
        expected: (String, Vec<u8>),
        now: Instant,
    ) -> Handshake {
        let mut dtls = Dtls::new_auto(Arc::clone(&certificate.config), (*certificate.inner).clone(), now);
        dtls.set_active(is_client);
        Handshake {
            dtls,
            is_client,
            expected,
            is_verified: false,
            keys: None,
            is_connected: false,
        }
    }

    /// Lets time pass; poll afterwards.
    pub fn handle_timeout(&mut self, now: Instant) -> Result<(), String> {
        self.dtls.handle_timeout(now).map_err(|error| error.to_string())
    }

    /// Takes a datagram; poll afterwards.
    pub fn handle_datagram(&mut self, datagram: &[u8], now: Instant) -> Result<(), String> {
        self.handle_timeout(now)?;
        self.dtls
            .handle_packet(datagram)
            .map_err(|error| error.to_string())
    }

    /// What is next.
    pub fn poll(&mut self, buffer: &mut [u8; DATAGRAM_MAX]) -> Step {
        loop {
            match self.dtls.poll_output(buffer) {
                Output::Packet(packet) => return Step::Datagram(packet.len()),
                Output::PeerCert(der) => {
                    let algorithm = match self.expected.0.as_str() {
                        "sha-384" => &digest::SHA384,
                        "sha-512" => &digest::SHA512,
                        _ => &digest::SHA256,
                    };
                    if digest::digest(algorithm, der).as_ref() != self.expected.1 {
                        return Step::Failed("the server's certificate is not the one of its SDP".into());
                    }
                    self.is_verified = true;
                }
                Output::KeyingMaterial(material, profile) => match keys(&material, profile, self.is_client) {
                    Some(keys) => self.keys = Some(Box::new(keys)),
                    None => return Step::Failed("keys of a profile that is not known".into()),
                },
                Output::Connected => self.is_connected = true,
                Output::CloseNotify => return Step::Failed("the server closed the session".into()),
                Output::Timeout(at) => {
                    if self.is_connected
                        && self.is_verified
                        && let Some(keys) = self.keys.take()
                    {
                        return Step::Connected(keys);
                    }
                    return Step::Idle(at);
                }
                // No data channels; the buffer exceeds the MTU.
                _ => {}
            }
        }
    }
}

fn keys(material: &[u8], profile: SrtpProfile, is_client: bool) -> Option<Keys> {
    let profile = match profile {
        SrtpProfile::AEAD_AES_128_GCM => Profile::AeadAes128Gcm,
        SrtpProfile::AEAD_AES_256_GCM => Profile::AeadAes256Gcm,
        SrtpProfile::AES128_CM_SHA1_80 => Profile::Aes128CmSha1_80,
        _ => return None,
    };
    let (client, server) = Master::from_dtls(profile, material)?;
    let (ours, theirs) = if is_client {
        (client, server)
    } else {
        (server, client)
    };
    Some(Keys {
        profile,
        opener: Opener::new(theirs),
        rtcp_opener: RtcpOpener::new(theirs),
        sealer: Sealer::new(ours),
        rtcp_sealer: RtcpSealer::new(ours),
    })
}
