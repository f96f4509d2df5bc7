//! TLS to the database, as libpq names it in the URL: `sslmode` and `sslrootcert`.
//!
//! | `sslmode` | encrypted | the server's certificate |
//! |---|---|---|
//! | none, `disable`, `prefer`, `allow` | no | |
//! | `require` | yes | not looked at, unless `sslrootcert` is given: then as `verify-ca` |
//! | `verify-ca` | yes | by an authority of `sslrootcert`, or of the system |
//! | `verify-full` | yes | that, and for the host's name |
//!
//! `prefer` is not tried: whoever can listen on the way can also answer that there is no TLS.

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use metering::ledger::LedgerError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};

/// How much of the server's certificate is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Anything,
    Authority,
    AuthorityAndName,
}

/// A URL, taken apart: what the driver understands, and how the connection is protected.
pub(crate) struct Address {
    pub(crate) config: Config,
    /// None: not at all.
    pub(crate) tls: Option<Connector>,
}

fn wrong(what: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> LedgerError {
    LedgerError::Storage(what.into())
}

/// Reads a URL.
pub(crate) fn address(url: &str) -> Result<Address, LedgerError> {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (mut mode, mut authorities, mut rest) = (String::new(), None, Vec::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("sslmode", value)) => mode = value.to_owned(),
            Some(("sslrootcert", value)) => authorities = Some(PathBuf::from(decoded(value)?)),
            _ => rest.push(pair),
        }
    }
    let url = match rest.is_empty() {
        true => base.to_owned(),
        false => format!("{base}?{}", rest.join("&")),
    };
    let mut config: Config = url.parse().map_err(|error: tokio_postgres::Error| wrong(error))?;
    let trust = match mode.as_str() {
        "" | "disable" | "allow" | "prefer" => None,
        "require" if authorities.is_none() => Some(Trust::Anything),
        "require" | "verify-ca" => Some(Trust::Authority),
        "verify-full" => Some(Trust::AuthorityAndName),
        other => {
            return Err(wrong(format!(
                "sslmode is disable, require, verify-ca or verify-full, not {other:?}"
            )));
        }
    };
    config.ssl_mode(match trust {
        Some(_) => SslMode::Require,
        None => SslMode::Disable,
    });
    let tls = trust
        .map(|trust| Connector::new(trust, authorities))
        .transpose()?;
    Ok(Address { config, tls })
}

/// A value of a URL's query.
fn decoded(text: &str) -> Result<String, LedgerError> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
        bytes.push(byte.ok_or_else(|| wrong("a % in ledger.url is not followed by two digits"))?);
        rest = &tail[2..];
    }
    String::from_utf8(bytes).map_err(wrong)
}

/// Makes TLS connections.
#[derive(Clone)]
pub(crate) struct Connector(tokio_rustls::TlsConnector);

impl Connector {
    fn new(trust: Trust, authorities: Option<PathBuf>) -> Result<Self, LedgerError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(file) => {
                let said =
                    |error: &dyn std::fmt::Display| wrong(format!("sslrootcert {}: {error}", file.display()));
                for certificate in CertificateDer::pem_file_iter(&file).map_err(|error| said(&error))? {
                    let certificate = certificate.map_err(|error| said(&error))?;
                    roots.add(certificate).map_err(|error| said(&error))?;
                }
                if roots.is_empty() {
                    return Err(said(&"it has no certificate"));
                }
            }
            None if trust != Trust::Anything => {
                roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            }
            None => {}
        }
        let roots = Arc::new(roots);
        let verifier: Arc<dyn ServerCertVerifier> = match trust {
            Trust::AuthorityAndName => WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(wrong)?,
            Trust::Anything | Trust::Authority => Arc::new(AnyName {
                provider: provider.clone(),
                roots: (trust == Trust::Authority).then_some(roots),
            }),
        };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(Arc::new(config).into()))
    }
}

/// Believes a certificate whatever name it is for: of these authorities, or of nobody in particular. That the server has
/// its key is checked all the same.
#[derive(Debug)]
struct AnyName {
    provider: Arc<CryptoProvider>,
    roots: Option<Arc<RootCertStore>>,
}

impl ServerCertVerifier for AnyName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

impl<S> MakeTlsConnect<S> for Connector
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type TlsConnect = ToHost;
    type Error = io::Error;

    fn make_tls_connect(&mut self, host: &str) -> io::Result<ToHost> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        Ok(ToHost(self.0.clone(), name))
    }
}

/// The way to one host.
pub(crate) struct ToHost(tokio_rustls::TlsConnector, ServerName<'static>);

impl<S> TlsConnect<S> for ToHost
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    type Stream = Stream<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Stream<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move { self.0.connect(self.1, stream).await.map(Stream) })
    }
}

/// An encrypted connection. Passwords are not bound to it (SCRAM without channel binding).
pub(crate) struct Stream<S>(tokio_rustls::client::TlsStream<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Stream<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Stream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_whether_the_connection_is_encrypted_and_the_driver_is_told_the_rest() {
        let plain = address("postgres://a@h/d?options=-csearch_path%3Dx").unwrap();
        assert!(plain.tls.is_none());
        assert_eq!(plain.config.get_options(), Some("-csearch_path=x"));
        let full = address("postgres://a@h/d?sslmode=verify-full&application_name=x").unwrap();
        assert!(full.tls.is_some());
        assert_eq!(full.config.get_ssl_mode(), SslMode::Require);
        for wrong in [
            "sslmode=maybe",
            "sslmode=require&sslrootcert=%2Fnowhere%2Fca.pem",
            "sslrootcert=%2",
        ] {
            assert!(address(&format!("postgres://a@h/d?{wrong}")).is_err(), "{wrong}");
        }
    }
}
