//! `milliway serve`: a did:web operator whose node speaks HTTPS itself, with an authority and a name of the test's own.
#![allow(clippy::unwrap_used)]

mod relay;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dsip::receipt::{self, Expected};
use dsip::{Client, Encoding, RelayMessage, SUBPROTOCOL, Terms};
use identity::token::{Issue, issue};
use identity::{Did, Document, Documents, SigningKey, proof};
use relay::{MILLIWAY, now, offer};
use serde_json::Value;
use tempfile::TempDir;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

const PATIENCE: Duration = Duration::from_secs(20);
type Secure = StreamOwned<ClientConnection, TcpStream>;

/// What an operator has: a name, a certificate, an issuer that it trusts, a configuration.
struct Operator {
    files: TempDir,
    port: u16,
    did: Did,
    issuer: SigningKey,
    trust: Arc<ClientConfig>,
}

impl Operator {
    fn new() -> Operator {
        let files = tempfile::tempdir().unwrap();
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&authority_key).unwrap();
        std::fs::write(files.path().join("ca.pem"), certificate.pem()).unwrap();
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(certificate.der().to_vec()))
            .unwrap();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["relay.example".to_owned()])
            .unwrap()
            .signed_by(&key, &issuer)
            .unwrap();
        std::fs::write(files.path().join("chain.pem"), leaf.pem()).unwrap();
        std::fs::write(files.path().join("key.pem"), key.serialize_pem()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let trust = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        // The DID names the port, so it has to be known before the relay listens there.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        Operator {
            did: Did::parse(&format!("did:web:relay.example%3A{port}")).unwrap(),
            files,
            port,
            issuer: SigningKey::generate(),
            trust: Arc::new(trust),
        }
    }

    fn path(&self, name: &str) -> String {
        self.files.path().join(name).display().to_string()
    }

    /// The configuration of one node, with changes to it.
    fn config(&self, node: &str, change: impl Fn(String) -> String) -> PathBuf {
        let text = format!(
            "[relay]\noperator = \"{did}\"\nnode = \"{node}\"\ndata = \"{data}\"\ndrain_seconds = 1\n\
             [http]\nlisten = \"127.0.0.1:{port}\"\npublic_url = \"https://relay.example:{port}\"\n\
             tls_certificate = \"{chain}\"\ntls_key = \"{key}\"\n\
             [sfu]\nlisten = \"127.0.0.1:0\"\n[turn]\nlisten = \"127.0.0.1:0\"\n[quic]\nlisten = \"127.0.0.1:0\"\n\
             [auth]\nissuers = [\"{issuer}\"]\n\
             [did]\nca_file = \"{ca}\"\nhosts = [\"relay.example=127.0.0.1\"]\nallow_addresses = [\"127.0.0.1/32\"]\n\
             failure_cache_seconds = 1\n",
            did = self.did,
            data = self.path(&format!("data-{node}")),
            port = self.port,
            chain = self.path("chain.pem"),
            key = self.path("key.pem"),
            issuer = self.issuer.did(),
            ca = self.path("ca.pem"),
        );
        let file = self.files.path().join(format!("{node}.toml"));
        std::fs::write(&file, change(text)).unwrap();
        file
    }

    fn connect(&self) -> Secure {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let name = ServerName::try_from("relay.example").unwrap();
        StreamOwned::new(ClientConnection::new(self.trust.clone(), name).unwrap(), stream)
    }

    fn get(&self, path: &str, headers: &str) -> (String, String) {
        let mut stream = self.connect();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: relay.example\r\nConnection: close\r\n{headers}\r\n"
        )
        .unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    }
}

/// A node that serves.
struct Node {
    child: Child,
    ready: Value,
    log: PathBuf,
}

impl Node {
    fn start(config: &Path) -> Node {
        let log = config.with_extension("log");
        let mut child = Command::new(MILLIWAY)
            .args(["serve", "--config", config.to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready = serde_json::from_str(&line)
            .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(&log).unwrap()));
        Node { child, ready, log }
    }

    fn logs(&self, what: &str) {
        let until = Instant::now() + PATIENCE;
        while !std::fs::read_to_string(&self.log).unwrap().contains(what) {
            assert!(Instant::now() < until, "it never logs: {what}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn stop(mut self) {
        let sent = Command::new("kill")
            .arg(self.child.id().to_string())
            .status()
            .unwrap();
        assert!(sent.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn milliway(arguments: &[&str]) -> Output {
    Command::new(MILLIWAY).args(arguments).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_did_web_operators_node_serves_its_document_and_a_call_with_tokens_for_that_did() {
    let operator = Operator::new();
    let node = Node::start(&operator.config("a", |text| text));
    assert_eq!(node.ready["did"], operator.did.as_str());
    let kid = format!("{}#node-a", operator.did);
    assert_eq!(node.ready["kid"], kid.as_str());
    assert!(node.ready.get("issuer_key").is_none(), "there is no faucet here");
    let (head, text) = operator.get("/.well-known/did.json", "");
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let document = Document::parse(&operator.did, &text).unwrap();
    assert!(document.key(&kid).is_some());
    let services: Value = serde_json::from_str(&text).unwrap();
    let endpoint = &services["service"][0]["serviceEndpoint"];
    assert_eq!(
        endpoint["ws"][0],
        format!("wss://relay.example:{}/v1/dsip", operator.port)
    );
    assert!(
        ["quic", "turn", "sfu"]
            .iter()
            .all(|name| !endpoint[name][0].is_null()),
        "{endpoint}"
    );
    node.logs("the operator's DID document lists this node");
    let (head, _) = operator.get("/v1/dev/faucet", "");
    assert!(head.starts_with("HTTP/1.1 404"), "{head}");

    // A call: the relay proves the did:web, the token is for it, and so is the receipt.
    let mut documents = Documents::none();
    documents.insert(operator.did.clone(), Ok(Arc::new(document)));
    let alice = SigningKey::generate();
    let token = issue(
        &operator.issuer,
        &Issue::new(alice.did().clone(), operator.did.clone(), 1_000_000, now()),
    );
    let url = format!("wss://relay.example:{}/v1/dsip", operator.port);
    let mut request = url.as_str().into_client_request().unwrap();
    request
        .headers_mut()
        .insert("sec-websocket-protocol", SUBPROTOCOL.parse().unwrap());
    let (mut socket, _) = tungstenite::client(request, operator.connect()).unwrap();
    let key = SigningKey::from_jwk(&alice.to_private_jwk()).unwrap();
    let mut client = Client::new(key, operator.did.clone(), &url, Encoding::Json).knowing(documents.clone());
    let say = |envelope: Vec<u8>, socket: &mut tungstenite::WebSocket<Secure>| {
        socket
            .send(Message::text(String::from_utf8(envelope).unwrap()))
            .unwrap();
    };
    let hear = |client: &mut Client, socket: &mut tungstenite::WebSocket<Secure>| loop {
        if let Message::Text(text) = socket.read().unwrap() {
            return client.receive(Encoding::Json, text.as_bytes(), now()).unwrap();
        }
    };
    say(client.hello(now()), &mut socket);
    assert!(matches!(
        hear(&mut client, &mut socket),
        RelayMessage::Challenge(_)
    ));
    let sdp = offer();
    let terms = Terms {
        room: "den",
        name: Some("alice"),
        token: &token,
        sdp: &sdp,
        max_msat_per_second: None,
        credentials: &[],
    };
    say(client.invite(&terms, now()).unwrap(), &mut socket);
    let answer = hear(&mut client, &mut socket);
    assert!(matches!(answer, RelayMessage::Answer(_)), "{answer:?}");
    let session = client.session().unwrap().to_owned();
    say(client.bye("hangup", now()), &mut socket);

    let path = format!("/v1/receipts/{session}");
    let url = format!("https://relay.example:{}{path}", operator.port);
    let until = Instant::now() + PATIENCE;
    let jws = loop {
        let (head, _) = operator.get(&path, "");
        let nonce = head
            .lines()
            .find_map(|line| line.strip_prefix("dpop-nonce: "))
            .unwrap();
        let asked = proof::Request {
            method: "GET",
            url: &url,
            body: b"",
        };
        let dpop = proof::sign_dpop(&alice, &asked, None, nonce, now());
        let (head, body) = operator.get(&path, &format!("DPoP: {dpop}\r\n"));
        if head.starts_with("HTTP/1.1 200") {
            break body;
        }
        assert!(Instant::now() < until, "{head} {body}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let expected = Expected {
        session: &session,
        ..Expected::default()
    };
    let (receipt, warnings) = receipt::verify(&jws, &operator.did, &documents, &expected).unwrap();
    assert_eq!(
        (receipt.account.as_str(), warnings),
        (alice.did().as_str(), vec![])
    );
    node.stop();
}

#[test]
fn a_token_for_another_audience_opens_nothing_here() {
    let operator = Operator::new();
    let node = Node::start(&operator.config("a", |text| text));
    let alice = SigningKey::generate();
    let key = SigningKey::load(&PathBuf::from(operator.path("data-a")).join("relay.jwk")).unwrap();
    // The node's own did:key is not the operator.
    let token = issue(
        &operator.issuer,
        &Issue::new(alice.did().clone(), key.did().clone(), 1_000, now()),
    );
    let (head, _) = operator.get("/v1/account", "");
    let nonce = head
        .lines()
        .find_map(|line| line.strip_prefix("dpop-nonce: "))
        .unwrap();
    let url = format!("https://relay.example:{}/v1/account", operator.port);
    let asked = proof::Request {
        method: "GET",
        url: &url,
        body: b"",
    };
    let dpop = proof::sign_dpop(&alice, &asked, Some(&token), nonce, now());
    let (head, body) = operator.get(
        "/v1/account",
        &format!("DPoP: {dpop}\r\nAuthorization: DPoP {token}\r\n"),
    );
    assert!(
        head.starts_with("HTTP/1.1 401") && body.contains("token-audience"),
        "{head} {body}"
    );
    node.stop();
}

#[test]
fn nodes_of_one_operator_share_a_document_that_lists_each_and_a_node_that_it_lacks_does_not_start() {
    let operator = Operator::new();
    let (a, b) = (
        operator.config("a", |text| text),
        operator.config("b", |text| text),
    );
    let of_a = milliway(&["did", "document", "--config", a.to_str().unwrap()]);
    assert!(of_a.status.success(), "{}", said(&of_a));
    let file = operator.path("did.json");
    std::fs::write(&file, &of_a.stdout).unwrap();
    let shared =
        |text: String| text.replacen("[relay]\n", &format!("[relay]\ndid_document = \"{file}\"\n"), 1);
    let b_shared = operator.config("b", shared);
    let refused = milliway(&["serve", "--config", b_shared.to_str().unwrap()]);
    assert!(
        !refused.status.success() && said(&refused).contains("#node-b"),
        "{}",
        said(&refused)
    );

    let both = milliway(&[
        "did",
        "document",
        "--config",
        b.to_str().unwrap(),
        "--with",
        &file,
    ]);
    assert!(both.status.success(), "{}", said(&both));
    std::fs::write(&file, &both.stdout).unwrap();
    let again = milliway(&[
        "did",
        "document",
        "--config",
        b.to_str().unwrap(),
        "--with",
        &file,
    ]);
    assert_eq!(
        again.stdout, both.stdout,
        "a node that is listed is not listed twice"
    );
    let node = Node::start(&operator.config("b", shared));
    let (_, text) = operator.get("/.well-known/did.json", "");
    let document = Document::parse(&operator.did, &text).unwrap();
    for node in ["a", "b"] {
        assert!(document.key(&format!("{}#node-{node}", operator.did)).is_some());
    }
    node.logs("the operator's DID document lists this node");
    node.stop();
}

#[test]
fn a_published_document_that_lacks_the_node_is_said_in_the_log() {
    let operator = Operator::new();
    // Another host answers for the did:web: here, another node of the same name with another key.
    let node = Node::start(&operator.config("a", |text| text));
    let elsewhere = operator.config("z", |text| {
        let listen = format!("listen = \"127.0.0.1:{}\"", operator.port);
        text.replacen(&listen, "listen = \"127.0.0.1:0\"", 1)
    });
    let stranger = Node::start(&elsewhere);
    stranger.logs("does not list this node's key");
    stranger.stop();
    node.stop();
}

#[test]
fn what_production_lacks_is_said_at_once() {
    let operator = Operator::new();
    let bare = operator.config("a", |text| {
        text.replacen("did:web:", "did:key:", 1)
            .replacen("public_url = \"https", "public_url = \"http", 1)
            .replacen("issuers = [", "issuers = [] #", 1)
            .replacen("node = \"a\"", "node = \"a b\"", 1)
    });
    for command in ["serve", "check"] {
        let refused = milliway(&[command, "--config", bare.to_str().unwrap()]);
        assert!(!refused.status.success());
        for key in ["relay.operator", "relay.node", "http.public_url", "auth.issuers"] {
            assert!(said(&refused).contains(key), "{command}: {}", said(&refused));
        }
    }
    let good = milliway(&[
        "check",
        "--config",
        operator.config("a", |text| text).to_str().unwrap(),
    ]);
    assert!(good.status.success(), "{}", said(&good));
}
