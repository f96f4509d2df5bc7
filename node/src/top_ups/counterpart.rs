//! HTTP with a Lightning node or a mint that the operator named: JSON, one address, https unless it is on this machine.
//! Nothing is followed, and time, bytes and calls under way are bounded. Connections are kept for the next call.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Uri, header};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::{
    ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, SignatureScheme,
};
use topup::{Answer, Call};

/// From the name's look-up to the last byte. A mint that swaps hundreds of coins takes a second.
const PATIENCE: Duration = Duration::from_secs(10);
/// The largest answer: what a mint signed of 256 coins has some 130 KiB.
const BODY_BYTES_MAX: usize = 512 * 1024;
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Calls under way at once; further ones wait.
const CALLS_MAX: usize = 16;
/// Connections kept open between calls.
const IDLE_MAX: usize = 4;

/// Where somebody's interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Base {
    tls: bool,
    host: String,
    port: u16,
    /// Without a final slash.
    path: String,
}

impl Base {
    /// Reads `https://host:port/path`, or `http://` where the host is this machine.
    pub(crate) fn parse(url: &str) -> Option<Base> {
        let uri: Uri = url.parse().ok()?;
        let host = uri
            .host()?
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        let here = matches!(host.as_str(), "127.0.0.1" | "::1" | "localhost");
        let tls = match uri.scheme_str()? {
            "https" => true,
            "http" if here => false,
            _ => return None,
        };
        let plain = uri.query().is_none() && !url.contains(['#', '@']);
        plain.then(|| Base {
            tls,
            host,
            port: uri.port_u16().unwrap_or(if tls { 443 } else { 80 }),
            path: uri.path().trim_end_matches('/').to_owned(),
        })
    }

    fn authority(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// Why nothing came of a call, for logs. Never what the other side sent.
pub(crate) type Failure = &'static str;

/// The other side.
pub(crate) struct Counterpart {
    base: Base,
    tls: TlsConnector,
    places: Semaphore,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
}

impl Counterpart {
    /// `certificate`: a PEM file with the server's own certificate or its authority's; empty for the system's
    /// authorities.
    pub(crate) fn new(base: Base, certificate: &str) -> Result<Counterpart, String> {
        Ok(Counterpart {
            base,
            tls: connector(certificate).map_err(|error| format!("{certificate}: {error}"))?,
            places: Semaphore::new(CALLS_MAX),
            idle: Mutex::new(Vec::new()),
        })
    }

    /// Asks, and reads what comes back, whatever its status.
    pub(crate) async fn call(&self, call: &Call) -> Result<Answer, Failure> {
        let called = async {
            let _place = self.places.acquire().await;
            let mut connection = match self.take_idle() {
                Some(connection) => connection,
                None => self.connect().await?,
            };
            let answer = exchange(&mut connection, self.request(call)?).await?;
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            if idle.len() < IDLE_MAX {
                idle.push(connection);
            }
            Ok(answer)
        };
        match tokio::time::timeout(PATIENCE, called).await {
            Ok(answer) => answer,
            Err(_) => Err("it did not answer within 10 seconds"),
        }
    }

    fn take_idle(&self) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.retain(|connection| connection.is_ready());
        idle.pop()
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, Failure> {
        let mut request = Request::builder()
            .uri(format!("{}{}", self.base.path, call.path))
            .header(header::HOST, self.base.authority())
            .header(header::ACCEPT, "application/json")
            .header(
                header::USER_AGENT,
                concat!("milliway/", env!("CARGO_PKG_VERSION")),
            );
        if let Some((name, value)) = &call.secret {
            request = request.header(*name, value);
        }
        let body = match &call.body {
            Some(body) => {
                request = request
                    .method("POST")
                    .header(header::CONTENT_TYPE, "application/json");
                Bytes::from(body.to_string())
            }
            None => Bytes::new(),
        };
        request
            .body(Full::new(body))
            .map_err(|_| "its path or its secret fits no request")
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let at = (self.base.host.as_str(), self.base.port);
        let stream = TcpStream::connect(at)
            .await
            .map_err(|_| "it could not be connected to")?;
        // A lost delay of 40 ms would be most of what a look-up takes.
        let _ = stream.set_nodelay(true);
        if !self.base.tls {
            return handshake(stream).await;
        }
        let name = ServerName::try_from(self.base.host.clone()).map_err(|_| "it has no valid name")?;
        let stream = self.tls.connect(name, stream).await;
        handshake(stream.map_err(|_| "it has no certificate that is trusted for it")?).await
    }
}

async fn handshake(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|_| "it speaks no HTTP/1.1")?;
    // Ends with its sender, which goes with the call that gave up or with the idle ones.
    tokio::spawn(connection);
    Ok(sender)
}

async fn exchange(
    connection: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, Failure> {
    let response = connection.send_request(request).await;
    let response = response.map_err(|_| "it gave no HTTP answer")?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "it broke off")?;
        if let Some(data) = frame.data_ref() {
            if bytes.len() + data.len() > BODY_BYTES_MAX {
                return Err("its answer has more than 512 KiB");
            }
            bytes.extend_from_slice(data);
        }
    }
    Ok(Answer {
        status,
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
    })
}

fn connector(certificate: &str) -> Result<TlsConnector, String> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    if certificate.is_empty() {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        let config = builder.with_root_certificates(roots).with_no_client_auth();
        return Ok(TlsConnector::from(Arc::new(config)));
    }
    let pinned = CertificateDer::pem_file_iter(Path::new(certificate))
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| error.to_string())?;
    roots.add_parsable_certificates(pinned.iter().cloned());
    let authorities = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| "it has no certificate".to_owned())?;
    let config = builder
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pinned, authorities }))
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Trusts the very certificates of a file, as nodes make them for themselves, and what these have signed.
#[derive(Debug)]
struct Pinned {
    pinned: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.pinned.iter().any(|pinned| pinned == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        self.authorities.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_spoken_of_over_https_or_on_this_machine() {
        for good in [
            "https://lnd.example:8080",
            "https://mint.example/Bitcoin/",
            "http://127.0.0.1:3338",
            "http://[::1]:3010",
        ] {
            assert!(Base::parse(good).is_some(), "{good}");
        }
        for bad in [
            "http://lnd.example:8080",
            "ftp://127.0.0.1",
            "https://",
            "lnd.example",
            "https://user:word@lnd.example",
            "https://lnd.example/?x=1",
            "http://127.0.0.1.example",
        ] {
            assert!(Base::parse(bad).is_none(), "{bad}");
        }
        let base = Base::parse("https://mint.example/Bitcoin/").unwrap();
        assert_eq!((base.port, base.path.as_str()), (443, "/Bitcoin"));
    }
}
