//! The certificate of the front door, where it speaks HTTPS itself: PEM files that can be read again while the relay runs.
//! Connections keep what they were made with.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use tokio_rustls::TlsAcceptor;

use crate::config::Http;
use crate::turn_keys::{read_chain, read_key};

/// The only protocol of the front door: WebSockets need an upgrade, which HTTP/2 lacks.
const ALPN: &[u8] = b"http/1.1";

/// What new connections are shown.
pub(crate) struct FrontKeys {
    certificate: PathBuf,
    key: PathBuf,
    shown: Arc<Shown>,
    acceptor: TlsAcceptor,
}

/// The lock is taken once a handshake.
#[derive(Debug)]
struct Shown(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

impl FrontKeys {
    /// As configured; none for plain HTTP.
    pub(crate) fn from_config(http: &Http) -> Result<Option<FrontKeys>, String> {
        if http.tls_certificate.is_empty() {
            return Ok(None);
        }
        let (certificate, key) = (PathBuf::from(&http.tls_certificate), PathBuf::from(&http.tls_key));
        let shown = Arc::new(Shown(RwLock::new(read(&certificate, &key)?)));
        let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .map_err(|error| format!("TLS: {error}"))?
            .with_no_client_auth()
            .with_cert_resolver(shown.clone());
        tls.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Some(FrontKeys {
            certificate,
            key,
            shown,
            acceptor: TlsAcceptor::from(Arc::new(tls)),
        }))
    }

    /// Reads the files again. If they are not good, what was there stays.
    pub(crate) fn reload(&self) -> Result<(), String> {
        let read = read(&self.certificate, &self.key)?;
        *self.shown.0.write().unwrap_or_else(PoisonError::into_inner) = read;
        Ok(())
    }

    /// For new connections.
    pub(crate) fn acceptor(&self) -> &TlsAcceptor {
        &self.acceptor
    }
}

fn read(certificate: &std::path::Path, key: &std::path::Path) -> Result<Arc<CertifiedKey>, String> {
    let chain = read_chain("http.tls_certificate", certificate)?;
    let key = read_key("http.tls_key", key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(Arc::new)
        .map_err(|error| format!("http.tls_certificate and http.tls_key: {error}"))
}
