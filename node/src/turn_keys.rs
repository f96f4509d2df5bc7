//! The certificate that TURN clients are shown over TLS and DTLS, from PEM files that can be read again while the relay
//! runs: connections keep what they were made with, and new ones get what is there then.

use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dimpl::DtlsCertificate;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};

use crate::config::Turn;

/// Records of one DTLS datagram, handshake included; below the smallest path MTU of IPv6 less IP and UDP headers.
const DTLS_MTU: usize = 1200;

/// From the first ClientHello to the end of the handshake.
pub(crate) const DTLS_HANDSHAKE_MAX: Duration = Duration::from_secs(10);

/// Where the certificate comes from.
enum Source {
    Files {
        certificate: PathBuf,
        key: PathBuf,
    },
    /// Made at the start, for trying out.
    SelfSigned(Vec<String>),
}

/// What new connections are shown. Shared by all shards.
pub(crate) struct TurnKeys {
    source: Source,
    shown: Arc<Shown>,
    tls: Arc<rustls::ServerConfig>,
    dtls_config: Arc<dimpl::Config>,
}

/// The lock is taken once a handshake.
#[derive(Debug)]
struct Shown(RwLock<Identity>);

/// One certificate, for both.
#[derive(Clone)]
struct Identity {
    tls: Arc<CertifiedKey>,
    /// None if the key is not ECDSA, which the DTLS library needs.
    dtls: Option<Arc<DtlsCertificate>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.get().tls)
    }
}

impl Shown {
    fn get(&self) -> Identity {
        // What is replaced is one value, so a panic elsewhere does not leave half of it.
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TurnKeys {
    /// As configured: from files, self-signed for these addresses, or none.
    pub(crate) fn from_config(turn: &Turn, addresses: &[IpAddr]) -> Result<Option<Arc<TurnKeys>>, String> {
        let files = [&turn.tls_certificate, &turn.tls_key];
        let source = if files.iter().all(|file| !file.is_empty()) {
            Source::Files {
                certificate: PathBuf::from(&turn.tls_certificate),
                key: PathBuf::from(&turn.tls_key),
            }
        } else if turn.tls_self_signed {
            let mut names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            names.extend(Some(turn.tls_name.clone()).filter(|name| !name.is_empty()));
            Source::SelfSigned(names)
        } else {
            return Ok(None);
        };
        TurnKeys::load(source).map(Arc::new).map(Some)
    }

    fn load(source: Source) -> Result<TurnKeys, String> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let dtls_config = dimpl::Config::builder()
            .mtu(DTLS_MTU)
            .require_client_certificate(false)
            .use_server_cookie(true)
            .handshake_timeout(DTLS_HANDSHAKE_MAX)
            .flight_start_rto(Duration::from_millis(500))
            .build()
            .map_err(|error| format!("DTLS: {error}"))?;
        let identity = source.read(&provider, &dtls_config)?;
        if identity.dtls.is_none() {
            tracing::warn!(
                "the certificate of turn.tls_certificate has no ECDSA key: TURN over DTLS is not offered"
            );
        }
        let shown = Arc::new(Shown(RwLock::new(identity)));
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| format!("TLS: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        Ok(TurnKeys {
            source,
            shown,
            tls: Arc::new(tls),
            dtls_config: Arc::new(dtls_config),
        })
    }

    /// Reads the files again. If they are not good, what was there stays.
    pub(crate) fn reload(&self) -> Result<(), String> {
        if let Source::SelfSigned(_) = self.source {
            return Ok(());
        }
        let identity = self.source.read(self.tls.crypto_provider(), &self.dtls_config)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }

    /// For new TLS connections.
    pub(crate) fn tls(&self) -> &Arc<rustls::ServerConfig> {
        &self.tls
    }

    /// For a new DTLS association; none if the key is not ECDSA.
    pub(crate) fn dtls(&self) -> Option<(Arc<dimpl::Config>, DtlsCertificate)> {
        let certificate = self.shown.get().dtls?;
        Some((self.dtls_config.clone(), (*certificate).clone()))
    }

    /// May clients that check certificates come? A self-signed one is for who looks away.
    pub(crate) fn is_checkable(&self) -> bool {
        matches!(self.source, Source::Files { .. })
    }

    /// Is DTLS spoken?
    pub(crate) fn has_dtls(&self) -> bool {
        self.shown.get().dtls.is_some()
    }
}

impl Source {
    fn read(&self, provider: &CryptoProvider, dtls: &dimpl::Config) -> Result<Identity, String> {
        let (chain, key) = match self {
            Source::Files { certificate, key } => (
                read_chain("turn.tls_certificate", certificate)?,
                read_key("turn.tls_key", key)?,
            ),
            Source::SelfSigned(names) => self_signed(names)?,
        };
        let leaf = chain.first().map(|leaf| leaf.to_vec()).unwrap_or_default();
        let private_key = key.secret_der().to_vec();
        let tls = CertifiedKey::from_der(chain, key, provider)
            .map_err(|error| format!("turn.tls_certificate and turn.tls_key: {error}"))?;
        let ecdsa = dtls
            .crypto_provider()
            .key_provider
            .load_private_key(&private_key)
            .is_ok();
        let dtls = ecdsa.then(|| {
            Arc::new(DtlsCertificate {
                certificate: leaf,
                private_key,
            })
        });
        Ok(Identity {
            tls: Arc::new(tls),
            dtls,
        })
    }
}

/// The certificates of a PEM file, which the setting `name` names.
pub(crate) fn read_chain(name: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |error: &dyn fmt::Display| format!("{name} {}: {error}", file.display());
    let chain: Result<Vec<_>, _> = CertificateDer::pem_file_iter(file)
        .map_err(|error| wrong(&error))?
        .collect();
    let chain = chain.map_err(|error| wrong(&error))?;
    if chain.is_empty() {
        return Err(wrong(&"there is no certificate in it"));
    }
    Ok(chain)
}

/// The private key of a PEM file, which the setting `name` names.
pub(crate) fn read_key(name: &str, file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| format!("{name} {}: {error}", file.display()))
}

fn self_signed(names: &[String]) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), String> {
    let made = rcgen::generate_simple_self_signed(names)
        .map_err(|error| format!("a self-signed certificate: {error}"))?;
    let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    Ok((vec![made.cert.der().clone()], key.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str, der: &[u8]) -> String {
        use base64::Engine;
        let text = base64::engine::general_purpose::STANDARD.encode(der);
        format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
    }

    fn write(folder: &Path) -> Turn {
        let (chain, key) = self_signed(&["localhost".to_owned()]).unwrap();
        let (certificate_file, key_file) = (folder.join("chain.pem"), folder.join("key.pem"));
        std::fs::write(&certificate_file, pem("CERTIFICATE", &chain[0])).unwrap();
        std::fs::write(&key_file, pem("PRIVATE KEY", key.secret_der())).unwrap();
        Turn {
            tls_certificate: certificate_file.display().to_string(),
            tls_key: key_file.display().to_string(),
            ..Turn::default()
        }
    }

    #[test]
    fn files_that_are_read_again_change_what_is_shown_and_bad_ones_do_not() {
        let folder = tempfile::tempdir().unwrap();
        let keys = TurnKeys::from_config(&write(folder.path()), &[])
            .unwrap()
            .unwrap();
        let shown = |keys: &TurnKeys| keys.shown.get().tls.cert[0].clone();
        let first = shown(&keys);
        let turn = write(folder.path());
        keys.reload().unwrap();
        let second = shown(&keys);
        assert_ne!(first, second);
        assert!(keys.has_dtls() && keys.is_checkable());
        std::fs::write(&turn.tls_key, "nonsense").unwrap();
        assert!(keys.reload().unwrap_err().contains("turn.tls_key"));
        assert_eq!(shown(&keys), second, "what was good stays");
        write(folder.path());
        std::fs::write(
            &turn.tls_key,
            pem(
                "PRIVATE KEY",
                self_signed(&["other".to_owned()]).unwrap().1.secret_der(),
            ),
        )
        .unwrap();
        assert!(keys.reload().is_err(), "the key of another certificate");
    }

    #[test]
    fn without_files_there_is_a_self_signed_one_or_none() {
        assert!(TurnKeys::from_config(&Turn::default(), &[]).unwrap().is_none());
        let turn = Turn {
            tls_self_signed: true,
            ..Turn::default()
        };
        let keys = TurnKeys::from_config(&turn, &["127.0.0.1".parse().unwrap()])
            .unwrap()
            .unwrap();
        assert!(keys.has_dtls() && !keys.is_checkable());
        keys.reload().unwrap();
    }
}
