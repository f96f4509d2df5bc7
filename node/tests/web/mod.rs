//! An HTTPS site on loopback, `site.example`, with an authority of its own: what did:web documents, aliases and signed
//! lists are served from.
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use identity::did_web::Location;
use identity::{Did, SigningKey};
use serde_json::json;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// The site. It goes with the process.
pub(crate) struct Site {
    /// Its port.
    pub(crate) port: u16,
    /// Where its authority's certificate lies, and room for a test's files.
    pub(crate) data: TempDir,
    pages: Arc<Mutex<HashMap<String, String>>>,
    requests: Arc<AtomicUsize>,
}

impl Site {
    pub(crate) fn start() -> Site {
        let data = tempfile::tempdir().unwrap();
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).unwrap();
        std::fs::write(data.path().join("ca.pem"), certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["site.example".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![leaf.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let site = Site {
            port: listener.local_addr().unwrap().port(),
            data,
            pages: Arc::default(),
            requests: Arc::default(),
        };
        let (pages, requests) = (site.pages.clone(), site.requests.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                requests.fetch_add(1, Ordering::SeqCst);
                let connection = ServerConnection::new(config.clone()).unwrap();
                let mut stream = BufReader::new(StreamOwned::new(connection, stream));
                let mut line = String::new();
                let _ = stream.read_line(&mut line);
                let path = line.split(' ').nth(1).unwrap_or_default();
                let answer = match pages.lock().unwrap().get(path) {
                    Some(page) => format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{page}", page.len()),
                    None => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                };
                let mut stream = stream.into_inner();
                let _ = stream.write_all(answer.as_bytes());
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        });
        site
    }

    pub(crate) fn ca_file(&self) -> PathBuf {
        self.data.path().join("ca.pem")
    }

    /// A did:web of this site; `path` begins with a colon or is empty.
    pub(crate) fn did(&self, path: &str) -> Did {
        Did::parse(&format!("did:web:site.example%3A{}{path}", self.port)).unwrap()
    }

    /// A key whose did:web document is published here, in place of the one before.
    pub(crate) fn key(&self, seed: u8, path: &str) -> SigningKey {
        let did = self.did(path);
        let key = SigningKey::from_seed(&[seed; 32]).listed_as(did.clone(), "key-1");
        let document = json!({
            "id": did,
            "verificationMethod": [{"id": key.kid(), "type": "JsonWebKey2020", "controller": did,
                                    "publicKeyJwk": key.public_key().to_jwk()}],
            "authentication": [key.kid()], "assertionMethod": [key.kid()],
        });
        self.publish(&Location::of(&did).unwrap().path, document.to_string());
        key
    }

    pub(crate) fn publish(&self, path: &str, page: String) {
        self.pages.lock().unwrap().insert(path.to_owned(), page);
    }

    pub(crate) fn remove(&self, did: &Did) {
        self.pages
            .lock()
            .unwrap()
            .remove(&Location::of(did).unwrap().path);
    }

    /// Connections so far.
    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}
