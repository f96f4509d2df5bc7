//! The resolver against real HTTPS servers on loopback with an authority of their own, and a DNS that says what each
//! test needs. Row "did:web as a weapon" of the threats: each clause has a test here that fails without it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::token::{self, Issue, TokenPolicy};
use identity::{Did, DidError, Refusal, SigningKey};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::config::Config;

/// What a server does with each connection: the bytes it sends, or a stall after them.
type Answer = Arc<Mutex<Vec<u8>>>;

/// A server of one host's documents, its authority, and what it heard.
struct Server {
    address: SocketAddr,
    answer: Answer,
    heard: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
    ca_file: tempfile::NamedTempFile,
}

impl Server {
    /// For certificates of these names.
    async fn start(names: &[&str]) -> Server {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).unwrap();
        let ca_file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(ca_file.path(), certificate.pem()).unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let leaf = rcgen::CertificateParams::new(names)
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
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let server = Server {
            address: listener.local_addr().unwrap(),
            answer: Answer::default(),
            heard: Arc::default(),
            connections: Arc::default(),
            ca_file,
        };
        let (answer, heard, connections) = (
            server.answer.clone(),
            server.heard.clone(),
            server.connections.clone(),
        );
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::SeqCst);
                let (acceptor, answer, heard) = (acceptor.clone(), answer.clone(), heard.clone());
                tokio::spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let mut request = vec![0; 8192];
                    let length = stream.read(&mut request).await.unwrap_or_default();
                    let text = String::from_utf8_lossy(&request[..length]).into_owned();
                    heard.lock().unwrap().push(text);
                    let answer = answer.lock().unwrap().clone();
                    let _ = stream.write_all(&answer).await;
                    if answer.ends_with(b"\r\n\r\n") || answer.is_empty() {
                        tokio::time::sleep(Duration::from_secs(60)).await;
                    }
                    let _ = stream.shutdown().await;
                });
            }
        });
        server
    }

    fn say(&self, status: &str, headers: &str, body: &[u8]) {
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n",
            body.len()
        )
        .into_bytes();
        answer.extend_from_slice(body);
        *self.answer.lock().unwrap() = answer;
    }

    fn publish(&self, key: &SigningKey) {
        self.say("200 OK", "", document(key).as_bytes());
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// A did:web on this server's port.
    fn did(&self, path: &str) -> Did {
        Did::parse(&format!("did:web:issuer.example%3A{}{path}", self.address.port())).unwrap()
    }

    /// A resolver that trusts this server's authority and may reach loopback.
    fn resolver(&self, addresses: &'static [&'static str]) -> (Resolver, Arc<AtomicUsize>) {
        self.resolver_with("[did]\nallow_addresses = [\"127.0.0.1/32\"]\n", addresses)
    }

    fn resolver_with(&self, toml: &str, addresses: &'static [&'static str]) -> (Resolver, Arc<AtomicUsize>) {
        let mut config = config(toml);
        config.ca_file = self.ca_file.path().display().to_string();
        let (lookup, asked) = dns(addresses);
        (Resolver::with_lookup(&config, lookup).unwrap(), asked)
    }
}

fn config(toml: &str) -> DidWeb {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    Config::load(Some(file.path()), Vec::new()).unwrap().did
}

/// A DNS that answers every name alike, and how often it was asked. After each answer it has another one ready: the
/// metadata service's address.
fn dns(addresses: &'static [&'static str]) -> (names::Lookup, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let lookup: names::Lookup = Box::new(move |_| {
        let first = count.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(async move {
            match (first, addresses) {
                (_, []) => Err(io::ErrorKind::NotFound.into()),
                (true, _) => Ok(addresses.iter().map(|address| address.parse().unwrap()).collect()),
                (false, _) => Ok(vec![IpAddr::from([169, 254, 169, 254])]),
            }
        })
    });
    (lookup, asked)
}

fn document(key: &SigningKey) -> String {
    json!({
        "id": key.did(),
        "verificationMethod": [{"id": key.kid(), "type": "JsonWebKey2020", "controller": key.did(),
                                "publicKeyJwk": key.public_key().to_jwk()}],
        "authentication": [key.kid()], "assertionMethod": [key.kid()],
    })
    .to_string()
}

fn key(seed: u8, did: &Did) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).listed_as(did.clone(), "key-1")
}

#[tokio::test]
async fn a_document_is_fetched_from_where_its_did_says_and_with_its_hosts_name() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did(":users:alice");
    let key = key(1, &did);
    server.publish(&key);
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    let fetched = resolver.resolve(&did).await.unwrap();
    assert_eq!(fetched.key(key.kid()), Some(key.public_key()));
    let heard = server.heard.lock().unwrap()[0].clone();
    assert!(
        heard.starts_with("GET /users/alice/did.json HTTP/1.1\r\n"),
        "{heard}"
    );
    let host = format!("host: issuer.example:{}\r\n", server.address.port());
    assert!(heard.to_lowercase().contains(&host), "{heard}");
    assert!(resolver.knows(&did));
}

#[tokio::test]
async fn every_address_of_a_host_must_be_public() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.publish(&key(1, &did));
    for addresses in [
        &["127.0.0.1"] as &'static [&'static str],
        &["10.0.0.1"],
        &["172.16.0.1"],
        &["192.168.1.1"],
        &["100.64.0.1"],
        &["169.254.169.254"],
        &["0.0.0.0"],
        &["224.0.0.1"],
        &["255.255.255.255"],
        &["192.0.2.1"],
        &["::1"],
        &["::"],
        &["::ffff:127.0.0.1"],
        &["::ffff:8.8.8.8"],
        &["64:ff9b::7f00:1"],
        &["64:ff9b:1::1"],
        &["2002:7f00:1::"],
        &["2001:0:1::1"],
        &["fe80::1"],
        &["fc00::1"],
        &["ff02::1"],
        &["2001:db8::1"],
        // One bad address among good ones: somebody would have us try.
        &["8.8.8.8", "127.0.0.1"],
        &["2606:4700::1111", "::ffff:10.0.0.1"],
    ] {
        let (resolver, _) = server.resolver_with("", addresses);
        assert_eq!(
            resolver.resolve(&did).await.unwrap_err(),
            DidError::Fetch("its host has an address that is not public"),
            "{addresses:?}"
        );
    }
    assert_eq!(server.connections(), 0, "none of them was connected to");
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked_and_no_name_is_asked_for_twice() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.publish(&key(1, &did));
    // The second answer would be the metadata service: whoever looks up again before connecting ends there.
    let (resolver, asked) = server.resolver(&["127.0.0.1"]);
    assert!(resolver.resolve(&did).await.is_ok());
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (1, 1));
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let (server, elsewhere) = (
        Server::start(&["issuer.example"]).await,
        Server::start(&["issuer.example"]).await,
    );
    let did = server.did("");
    elsewhere.publish(&key(1, &did));
    for status in [
        "301 Moved",
        "302 Found",
        "303 See",
        "307 Temporary",
        "308 Permanent",
    ] {
        let location = format!("Location: https://{}/\r\n", elsewhere.address);
        server.say(status, &location, document(&key(1, &did)).as_bytes());
        let (resolver, _) = server.resolver(&["127.0.0.1"]);
        let refused = resolver.resolve(&did).await.unwrap_err();
        assert_eq!(
            refused,
            DidError::Fetch("its host redirects, which is not followed")
        );
    }
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn only_a_200_is_taken_and_only_uncompressed() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    let good = document(&key(1, &did));
    for (status, headers) in [
        ("404 Not Found", ""),
        ("203 Non-Authoritative", ""),
        ("206 Partial", ""),
        ("500 Oops", ""),
        ("200 OK", "Content-Encoding: gzip\r\n"),
    ] {
        server.say(status, headers, good.as_bytes());
        let (resolver, _) = server.resolver(&["127.0.0.1"]);
        assert!(resolver.resolve(&did).await.is_err(), "{status} {headers}");
    }
}

#[tokio::test]
async fn more_than_64_kib_are_not_read() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    let mut padded = document(&key(1, &did)).into_bytes();
    padded.resize(64 * 1024, b' ');
    server.say("200 OK", "", &padded);
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    assert!(resolver.resolve(&did).await.is_ok(), "64 KiB are");
    padded.push(b' ');
    server.say("200 OK", "", &padded);
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    assert_eq!(
        resolver.resolve(&did).await.unwrap_err(),
        DidError::Fetch("it has more than 64 KiB")
    );
}

#[tokio::test]
async fn a_host_that_stalls_is_given_up() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    let stalls: [&[u8]; 2] = [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"];
    for stall in stalls {
        *server.answer.lock().unwrap() = stall.to_vec();
        let (resolver, _) = server.resolver(&["127.0.0.1"]);
        let patient = tokio::time::timeout(Duration::from_secs(30), resolver.resolve(&did));
        let refused = patient.await.expect("it gave up by itself").unwrap_err();
        assert_eq!(
            refused,
            DidError::Fetch("its host did not answer within 3 seconds")
        );
    }
}

#[tokio::test]
async fn a_certificate_of_another_name_or_authority_is_not_trusted() {
    let (other_name, other_authority) = (
        Server::start(&["other.example"]).await,
        Server::start(&["issuer.example"]).await,
    );
    let untrusted = DidError::Fetch("its host has no certificate that is trusted for its name");
    let did = other_name.did("");
    other_name.publish(&key(1, &did));
    let (resolver, _) = other_name.resolver(&["127.0.0.1"]);
    assert_eq!(resolver.resolve(&did).await.unwrap_err(), untrusted);
    let did = other_authority.did("");
    other_authority.publish(&key(1, &did));
    let (lookup, _) = dns(&["127.0.0.1"]);
    let mut config = config("[did]\nallow_addresses = [\"127.0.0.1/32\"]\n");
    config.ca_file = other_name.ca_file.path().display().to_string();
    let resolver = Resolver::with_lookup(&config, lookup).unwrap();
    assert_eq!(resolver.resolve(&did).await.unwrap_err(), untrusted);
}

#[tokio::test]
async fn plain_http_is_not_spoken() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let did = Did::parse(&format!("did:web:issuer.example%3A{port}")).unwrap();
    let body = document(&key(1, &did));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let (lookup, _) = dns(&["127.0.0.1"]);
    let config = config("[did]\nallow_addresses = [\"127.0.0.1/32\"]\n");
    let resolver = Resolver::with_lookup(&config, lookup).unwrap();
    assert!(resolver.resolve(&did).await.is_err());
}

#[tokio::test]
async fn a_document_of_another_did_is_refused() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.publish(&key(1, &Did::parse("did:web:victim.example").unwrap()));
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    assert!(matches!(resolver.resolve(&did).await, Err(DidError::Document(_))));
}

#[tokio::test]
async fn a_failure_is_remembered_and_not_tried_again_at_once() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.say("404 Not Found", "", b"");
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    for _ in 0..5 {
        assert!(resolver.resolve(&did).await.is_err());
    }
    assert_eq!(server.connections(), 1);
    assert!(!resolver.knows(&did));
}

#[tokio::test]
async fn a_failure_is_tried_again_after_its_time() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.say("404 Not Found", "", b"");
    let (resolver, _) = server.resolver_with(
        "[did]\nhosts = [\"issuer.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\n\
         failure_cache_seconds = 1\n",
        &[],
    );
    assert!(resolver.resolve(&did).await.is_err());
    server.publish(&key(1, &did));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(resolver.resolve(&did).await.is_ok());
}

#[tokio::test]
async fn a_rotated_key_is_honoured_once_the_cache_time_is_over() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    let (old, new) = (key(1, &did), key(2, &did));
    server.publish(&old);
    let (resolver, _) = server.resolver_with(
        "[did]\nhosts = [\"issuer.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\ncache_seconds = 1\n",
        &[],
    );
    let lists = async |key: &SigningKey| {
        resolver.resolve(&did).await.unwrap().key(key.kid()) == Some(key.public_key())
    };
    assert!(lists(&old).await);
    server.publish(&new);
    assert!(lists(&old).await, "kept for its time");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert!(lists(&new).await);
    assert_eq!(server.connections(), 2);
    assert!(
        config("").cache_seconds <= 300,
        "five minutes at most, and no configuration says more"
    );
}

#[tokio::test]
async fn many_who_ask_at_once_cause_one_fetch() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.publish(&key(1, &did));
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    let resolver = Arc::new(resolver);
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let (resolver, did) = (resolver.clone(), did.clone());
            tokio::spawn(async move { resolver.resolve(&did).await })
        })
        .collect();
    for asked in asking {
        assert!(asked.await.unwrap().is_ok());
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn the_cache_is_bounded() {
    let (lookup, _) = dns(&[]);
    let resolver = Resolver::with_lookup(&config(""), lookup).unwrap();
    for number in 0..ENTRIES_MAX + 500 {
        let did = Did::parse(&format!("did:web:issuer.example:{number}")).unwrap();
        assert!(resolver.resolve(&did).await.is_err());
        assert!(resolver.entries().len() <= ENTRIES_MAX);
    }
}

#[tokio::test]
async fn a_listed_issuer_is_fetched_first_and_nobody_for_a_stranger() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    let issuer = key(1, &did);
    server.publish(&issuer);
    let operator = SigningKey::from_seed(&[2; 32]);
    let holder = Did::parse("did:web:holder.example").unwrap();
    let jwt = token::issue(
        &issuer,
        &Issue::new(holder.clone(), operator.did().clone(), 1, 1_000),
    );
    let (resolver, asked) = server.resolver(&["127.0.0.1"]);
    let stranger = TokenPolicy::new(operator.did().clone(), Vec::new());
    let refused = resolver.documents_for(&jwt, &stranger).await.unwrap_err();
    assert_eq!(refused, Refusal::TokenUntrustedIssuer);
    assert_eq!(asked.load(Ordering::SeqCst), 0, "no name was looked up");
    // A token that the issuer did not sign has the issuer fetched, and nobody else.
    let policy = TokenPolicy::new(operator.did().clone(), vec![did.clone()]);
    let forged = token::issue(
        &key(9, &did),
        &Issue::new(holder, operator.did().clone(), 1, 1_000),
    );
    let refused = resolver.documents_for(&forged, &policy).await.unwrap_err();
    assert_eq!(
        (refused, asked.load(Ordering::SeqCst)),
        (Refusal::TokenSignature, 1)
    );
    let documents = resolver.documents_for(&jwt, &policy).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 2, "now the holder was looked up");
    let refused = token::verify_with(&jwt, &policy, &documents, 1_000).unwrap_err();
    assert!(matches!(refused, Refusal::TokenHolder(DidError::Fetch(_))));
}

#[tokio::test]
async fn what_is_no_did_web_or_switched_off_is_not_fetched() {
    let server = Server::start(&["issuer.example"]).await;
    let did = server.did("");
    server.publish(&key(1, &did));
    let (resolver, asked) = server.resolver_with("[did]\nweb = false\n", &["127.0.0.1"]);
    assert_eq!(resolver.resolve(&did).await.unwrap_err(), DidError::Method);
    let (resolver, _) = server.resolver(&["127.0.0.1"]);
    for text in ["did:ion:abc", "did:web:127.0.0.1", "did:web:localhost"] {
        assert!(
            resolver.resolve(&Did::parse(text).unwrap()).await.is_err(),
            "{text}"
        );
    }
    assert_eq!((asked.load(Ordering::SeqCst), server.connections()), (0, 0));
}

#[tokio::test]
async fn other_methods_are_asked_of_the_universal_resolver_that_the_operator_names_and_of_nobody_else() {
    let server = Server::start(&["issuer.example"]).await;
    let did = Did::parse("did:ion:EiClkZMDxPKqC9c-umQfTkR8vvZ9JPhl_xLDI9Nfk38w5w").unwrap();
    let key = key(1, &did);
    let result = |metadata: serde_json::Value| {
        let document: serde_json::Value = serde_json::from_str(&document(&key)).unwrap();
        json!({"@context": "https://w3id.org/did-resolution/v1", "didDocument": document,
               "didDocumentMetadata": metadata})
    };
    let resolver = |methods: &str| {
        let toml = format!(
            "[did]\nhosts = [\"issuer.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\n\
             universal_methods = [{methods}]\n\
             universal_resolver = \"https://issuer.example:{}/1.0/identifiers/\"\n",
            server.address.port()
        );
        server.resolver_with(&toml, &[]).0
    };
    server.say("200 OK", "", result(json!({})).to_string().as_bytes());
    let fetched = resolver("\"ion\"").resolve(&did).await.unwrap();
    assert_eq!(fetched.key(key.kid()), Some(key.public_key()));
    let heard = server.heard.lock().unwrap()[0].clone();
    assert!(
        heard.starts_with(&format!("GET /1.0/identifiers/{did} HTTP/1.1\r\n")),
        "{heard}"
    );
    server.say("200 OK", "", document(&key).as_bytes());
    assert!(
        resolver("\"ion\"").resolve(&did).await.is_ok(),
        "some answer with the document alone"
    );
    assert_eq!(
        resolver("\"ethr\"").resolve(&did).await.unwrap_err(),
        DidError::Method
    );
    server.say(
        "200 OK",
        "",
        result(json!({"deactivated": true})).to_string().as_bytes(),
    );
    let refused = resolver("\"ion\"").resolve(&did).await.unwrap_err();
    assert_eq!(refused, DidError::Document("its owner has deactivated it"));
    let mut other: serde_json::Value = result(json!({}));
    other["didDocument"]["id"] = json!("did:ion:somebody-else");
    server.say("200 OK", "", other.to_string().as_bytes());
    assert!(matches!(
        resolver("\"ion\"").resolve(&did).await,
        Err(DidError::Document(_))
    ));
}

// Aliases.

/// A DNS server that has this TXT record for every name.
async fn txt_server(text: &'static str) -> SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut query = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut query).await {
            // Header: an answer, recursion available, one question, one answer; then the question as it came.
            let question_end = 12 + query[12..length].iter().position(|byte| *byte == 0).unwrap() + 5;
            let mut answer = query[..2].to_vec();
            answer.extend([0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            answer.extend(&query[12..question_end]);
            let rdata_length = u16::try_from(text.len() + 1).unwrap().to_be_bytes();
            answer.extend([0xc0, 12, 0, 16, 0, 1, 0, 0, 0, 60]);
            answer.extend(rdata_length);
            answer.push(u8::try_from(text.len()).unwrap());
            answer.extend(text.as_bytes());
            let _ = socket.send_to(&answer, from).await;
        }
    });
    address
}

fn asking(resolver: &mut Resolver, dns: SocketAddr, webfinger: u16) {
    use domain::resolv::stub::conf::{ServerConf, Transport};
    resolver.dns = ResolvConf::new();
    resolver.dns.servers = vec![ServerConf::new(dns, Transport::UdpTcp)];
    resolver.webfinger_port = Some(webfinger);
}

fn local_names(server: &Server) -> (Resolver, Arc<AtomicUsize>) {
    server.resolver_with(
        "[did]\nhosts = [\"issuer.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\n",
        &[],
    )
}

#[tokio::test]
async fn webfinger_says_which_did_an_alias_means_and_the_did_confirms_it() {
    let (fingers, documents) = (
        Server::start(&["issuer.example"]).await,
        Server::start(&["issuer.example"]).await,
    );
    let alias = Alias::parse("alice@issuer.example").unwrap();
    let did = Did::parse("did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp").unwrap();
    fingers.say(
        "200 OK",
        "",
        json!({"subject": "acct:alice@issuer.example", "aliases": [did]})
            .to_string()
            .as_bytes(),
    );
    let (mut resolver, _) = local_names(&fingers);
    asking(
        &mut resolver,
        "127.0.0.1:9".parse().unwrap(),
        fingers.address.port(),
    );
    let found = resolver.alias(&alias).await.unwrap();
    assert_eq!(
        (found.did, found.via, found.confirmed),
        (did, "webfinger", false),
        "a did:key cannot confirm"
    );
    let heard = fingers.heard.lock().unwrap()[0].clone();
    assert!(
        heard.starts_with("GET /.well-known/webfinger?resource=acct%3Aalice%40issuer.example HTTP/1.1\r\n"),
        "{heard}"
    );
    // One site for both: the document says who it is also known as.
    let did = documents.did(":users:alice");
    let mut page: serde_json::Value = serde_json::from_str(&document(&key(1, &did))).unwrap();
    page["alsoKnownAs"] = json!(["acct:alice@issuer.example"]);
    page["aliases"] = json!([did]);
    documents.say("200 OK", "", page.to_string().as_bytes());
    let (mut resolver, _) = local_names(&documents);
    asking(
        &mut resolver,
        "127.0.0.1:9".parse().unwrap(),
        documents.address.port(),
    );
    let found = resolver.alias(&alias).await.unwrap();
    assert_eq!((found.did, found.confirmed), (did, true));
}

#[tokio::test]
async fn without_webfinger_the_txt_record_says_it() {
    let server = Server::start(&["issuer.example"]).await;
    server.say("404 Not Found", "", b"");
    let (mut resolver, _) = local_names(&server);
    let alias = Alias::parse("alice@issuer.example").unwrap();
    asking(
        &mut resolver,
        txt_server("did=did:web:voice.example:users:alice").await,
        server.address.port(),
    );
    let found = resolver.alias(&alias).await.unwrap();
    assert_eq!(
        (found.did.as_str(), found.via, found.confirmed),
        ("did:web:voice.example:users:alice", "dns", false)
    );
    for nothing in ["v=spf1 -all", "did=nonsense", "did:web:voice.example"] {
        asking(&mut resolver, txt_server(nothing).await, server.address.port());
        assert!(resolver.alias(&alias).await.is_err(), "{nothing}");
    }
}
