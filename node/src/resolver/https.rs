//! One GET over https to a stranger's server, which may be an attacker's (THREATS: did:web as a weapon): the address
//! was checked and is the one connected to, the certificate must be the host's, nothing is followed, and time, bytes
//! and requests under way are bounded.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use identity::did_web::Location;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::names::Names;

/// From the first question to DNS to the last byte.
const PATIENCE: Duration = Duration::from_secs(3);
/// The largest answer; identity's limit for a document.
const BODY_BYTES_MAX: usize = identity::document::DOCUMENT_LENGTH_MAX;
/// The largest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Requests under way at once, and of one host: a slow host does not take every place.
const REQUESTS_MAX: usize = 32;
const REQUESTS_PER_HOST_MAX: usize = 4;
/// Addresses of one host that are tried.
const ADDRESSES_TRIED_MAX: usize = 2;

/// Why nothing came of a request, for people. Never what the server sent.
pub(crate) type Failure = &'static str;

/// Fetches small texts.
pub(crate) struct Https {
    names: Names,
    tls: TlsConnector,
    places: Semaphore,
    per_host: Mutex<HashMap<String, Weak<Semaphore>>>,
}

impl Https {
    /// Trusts the authorities in `ca_file`, or the system's where it is empty.
    pub(crate) fn new(names: Names, ca_file: &str) -> Result<Https, String> {
        let mut roots = RootCertStore::empty();
        if ca_file.is_empty() {
            // Without any, every fetch fails, which says so; a relay without did:web needs none.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        } else {
            let wrong = |error: &dyn std::fmt::Display| format!("{ca_file}: {error}");
            let certificates =
                CertificateDer::pem_file_iter(Path::new(ca_file)).map_err(|error| wrong(&error))?;
            for certificate in certificates {
                let certificate = certificate.map_err(|error| wrong(&error))?;
                roots.add(certificate).map_err(|error| wrong(&error))?;
            }
            if roots.is_empty() {
                return Err(wrong(&"it has no certificate"));
            }
        }
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Https {
            names,
            tls: TlsConnector::from(Arc::new(config)),
            places: Semaphore::new(REQUESTS_MAX),
            per_host: Mutex::new(HashMap::new()),
        })
    }

    /// The body of a 200, as text.
    pub(crate) async fn get(&self, location: &Location, accept: &'static str) -> Result<String, Failure> {
        let host = self.host(&location.host);
        let fetched = async {
            let _turn = host.acquire().await;
            let _place = self.places.acquire().await;
            self.fetch(location, accept).await
        };
        match tokio::time::timeout(PATIENCE, fetched).await {
            Ok(fetched) => fetched,
            Err(_) => Err("its host did not answer within 3 seconds"),
        }
    }

    /// Sends a body and says the status of the answer, whose own body is not read.
    pub(crate) async fn post(
        &self,
        location: &Location,
        headers: &[(&'static str, String)],
        body: Vec<u8>,
        patience: Duration,
    ) -> Result<u16, Failure> {
        let sent = async {
            let stream = self.connect(location).await?;
            let (mut sender, connection) = http1::Builder::new()
                .max_buf_size(HEAD_BYTES_MAX)
                .handshake::<_, Full<Bytes>>(TokioIo::new(stream))
                .await
                .map_err(|_| "its host speaks no HTTP/1.1")?;
            let mut request = Request::post(&location.path)
                .header(header::HOST, location.authority())
                .header(
                    header::USER_AGENT,
                    concat!("milliway/", env!("CARGO_PKG_VERSION")),
                );
            for (name, value) in headers {
                request = request.header(*name, value);
            }
            let request = request
                .body(Full::new(Bytes::from(body)))
                .map_err(|_| "its path fits no request")?;
            tokio::pin!(connection);
            let answered = sender.send_request(request);
            tokio::pin!(answered);
            let mut closed = false;
            loop {
                tokio::select! {
                    response = &mut answered => {
                        let response = response.map_err(|_| "its host gave no HTTP answer")?;
                        return Ok(response.status().as_u16());
                    }
                    _ = &mut connection, if !closed => closed = true,
                }
            }
        };
        match tokio::time::timeout(patience, sent).await {
            Ok(sent) => sent,
            Err(_) => Err("its host did not answer in time"),
        }
    }

    async fn fetch(&self, location: &Location, accept: &'static str) -> Result<String, Failure> {
        let stream = self.connect(location).await?;
        let (mut sender, connection) = http1::Builder::new()
            .max_buf_size(HEAD_BYTES_MAX)
            .handshake::<_, Empty<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|_| "its host speaks no HTTP/1.1")?;
        let request = Request::get(&location.path)
            .header(header::HOST, location.authority())
            .header(header::ACCEPT, accept)
            .header(
                header::USER_AGENT,
                concat!("milliway/", env!("CARGO_PKG_VERSION")),
            )
            .body(Empty::new())
            .map_err(|_| "its path fits no request")?;
        let answered = async {
            let response = sender.send_request(request).await;
            read(response.map_err(|_| "its host gave no HTTP answer")?).await
        };
        // The connection is driven here and goes with this future: nothing outlives the time limit.
        tokio::pin!(connection);
        tokio::pin!(answered);
        let mut closed = false;
        loop {
            tokio::select! {
                body = &mut answered => return body,
                _ = &mut connection, if !closed => closed = true,
            }
        }
    }

    async fn connect(&self, location: &Location) -> Result<TlsStream<TcpStream>, Failure> {
        let name = ServerName::try_from(location.host.clone()).map_err(|_| "its host has no valid name")?;
        let addresses = self.names.addresses(&location.host, location.port).await?;
        let mut failure = "its host could not be connected to";
        for address in addresses.into_iter().take(ADDRESSES_TRIED_MAX) {
            let Ok(stream) = TcpStream::connect(address).await else {
                continue;
            };
            match self.tls.connect(name.clone(), stream).await {
                Ok(stream) => return Ok(stream),
                Err(_) => failure = "its host has no certificate that is trusted for its name",
            }
        }
        Err(failure)
    }

    /// Where requests to one host queue.
    fn host(&self, name: &str) -> Arc<Semaphore> {
        let mut hosts = self.per_host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = hosts.get(name).and_then(Weak::upgrade) {
            return queue;
        }
        hosts.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::new(Semaphore::new(REQUESTS_PER_HOST_MAX));
        hosts.insert(name.to_owned(), Arc::downgrade(&queue));
        queue
    }
}

/// The text of an answer, if it is one that says "here it is" and means it.
async fn read(response: Response<Incoming>) -> Result<String, Failure> {
    if response.status().is_redirection() {
        return Err("its host redirects, which is not followed");
    }
    if response.status() != StatusCode::OK {
        return Err("its host did not answer 200");
    }
    if response.headers().contains_key(header::CONTENT_ENCODING) {
        return Err("its host compressed it, which was not asked for");
    }
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| "its host broke off")?;
        if let Some(data) = frame.data_ref() {
            if text.len() + data.len() > BODY_BYTES_MAX {
                return Err("it has more than 64 KiB");
            }
            text.extend_from_slice(data);
        }
    }
    String::from_utf8(text).map_err(|_| "it is not UTF-8")
}
