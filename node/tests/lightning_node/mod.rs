//! A Lightning node as its payers and the relay see it: LND's REST interface and Core Lightning's clnrest, as their
//! documentation describes them, with real invoices signed by a key of its own. No Lightning node can be had from the
//! package registries, so that this one is ours: it has no channels, and it is paid when the test says so.
#![allow(dead_code, reason = "each test uses its part")]
#![allow(clippy::unwrap_used)]

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};
use serde_json::{Value, json};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ServerConfig, ServerConnection, StreamOwned};

/// Which interface it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Lnd,
    CoreLightning,
}

/// How an invoice stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stands {
    Unpaid,
    Paid(u64),
    Expired,
    /// It says paid, with a preimage that is another's.
    PaidSheSays,
}

struct Made {
    preimage: [u8; 32],
    label: String,
    stands: Stands,
}

#[derive(Default)]
struct Book {
    invoices: HashMap<String, Made>,
    /// Added to every amount that is asked for.
    cheat_msat: u64,
    /// Answers to nothing.
    down: bool,
    made: u8,
}

/// The node. It goes with the process.
pub(crate) struct Node {
    kind: Kind,
    /// Where its interface is.
    pub(crate) url: String,
    book: Arc<Mutex<Book>>,
    certificate: String,
}

const MACAROON: &[u8] = b"\x02\x01\x03lnd";
const RUNE: &str = "cmVzdHJpY3RlZA==";

fn key() -> SecretKey {
    SecretKey::from_slice(&[0x4d; 32]).unwrap()
}

impl Node {
    pub(crate) fn start(kind: Kind) -> Node {
        let own = rcgen::KeyPair::generate().unwrap();
        // As LND makes it for itself: its own authority, which no web client would take for a server.
        let mut certificate =
            rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        certificate.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let certificate = certificate.self_signed(&own).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(own.serialize_der()).unwrap(),
            )
            .unwrap();
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("https://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let book = Arc::new(Mutex::new(Book::default()));
        let served = book.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (book, config) = (served.clone(), config.clone());
                std::thread::spawn(move || {
                    let connection = ServerConnection::new(config).unwrap();
                    serve(StreamOwned::new(connection, stream), kind, &book);
                });
            }
        });
        Node {
            kind,
            url,
            book,
            certificate: certificate.pem(),
        }
    }

    /// A configuration that takes its invoices, with what it needs beside it.
    pub(crate) fn configuration(&self, folder: &Path, more: &str) -> String {
        let path = |name: &str| folder.join(name).display().to_string();
        std::fs::write(path("node.pem"), &self.certificate).unwrap();
        let (name, secret) = match self.kind {
            Kind::Lnd => ("lnd", MACAROON),
            Kind::CoreLightning => ("core-lightning", RUNE.as_bytes()),
        };
        std::fs::write(path("node.macaroon"), secret).unwrap();
        let payee = PublicKey::from_secret_key(&Secp256k1::new(), &key());
        let text = format!(
            "[topup]\nlightning = \"{name}\"\nlightning_url = \"{}\"\nlightning_certificate = \"{}\"\n\
             lightning_secret_file = \"{}\"\nlightning_payee = \"{payee}\"\nlightning_network = \"regtest\"\n{more}",
            self.url,
            path("node.pem"),
            path("node.macaroon"),
        );
        std::fs::write(path("relay.toml"), text).unwrap();
        path("relay.toml")
    }

    /// The environment in which Nutshell's own client finds it.
    pub(crate) fn for_nutshell(&self, folder: &Path) -> Vec<(&'static str, String)> {
        self.configuration(folder, "");
        let path = |name: &str| folder.join(name).display().to_string();
        match self.kind {
            Kind::Lnd => vec![
                ("MINT_LND_REST_ENDPOINT", self.url.clone()),
                ("MINT_LND_REST_CERT", path("node.pem")),
                ("MINT_LND_REST_MACAROON", path("node.macaroon")),
            ],
            Kind::CoreLightning => vec![
                ("MINT_CLNREST_URL", self.url.clone()),
                ("MINT_CLNREST_CERT", path("node.pem")),
                ("MINT_CLNREST_RUNE", path("node.macaroon")),
            ],
        }
    }

    /// Says how an invoice stands from now on.
    pub(crate) fn set(&self, payment_hash: &str, stands: Stands) {
        let mut book = self.book.lock().unwrap();
        book.invoices.get_mut(payment_hash).unwrap().stands = stands;
    }

    /// What the payer of an invoice learns.
    pub(crate) fn preimage(&self, payment_hash: &str) -> String {
        hex(&self.book.lock().unwrap().invoices[payment_hash].preimage)
    }

    pub(crate) fn cheat(&self, msat: u64) {
        self.book.lock().unwrap().cheat_msat = msat;
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.book.lock().unwrap().down = down;
    }

    pub(crate) fn invoices(&self) -> usize {
        self.book.lock().unwrap().invoices.len()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn serve(mut stream: impl Read + Write, kind: Kind, book: &Mutex<Book>) {
    let mut bytes = Vec::new();
    let mut chunk = [0; 8 * 1024];
    loop {
        let head = bytes.windows(4).position(|window: &[u8]| window == b"\r\n\r\n");
        let whole = head.and_then(|head| {
            let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let length = text.lines().find_map(|line| {
                let (name, value) = line.split_once(": ")?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.parse().unwrap())
            });
            let end = head + 4 + length.unwrap_or(0_usize);
            (bytes.len() >= end).then(|| (text, bytes[head + 4..end].to_vec(), end))
        });
        let Some((head, body, end)) = whole else {
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return,
                Ok(read) => bytes.extend_from_slice(&chunk[..read]),
            }
            continue;
        };
        bytes.drain(..end);
        if book.lock().unwrap().down {
            return;
        }
        let (status, answer) = answer(kind, &head, &body, &mut book.lock().unwrap());
        let text = answer.to_string();
        let answer = format!(
            "HTTP/1.1 {status} .\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        if stream
            .write_all(answer.as_bytes())
            .and_then(|()| stream.flush())
            .is_err()
        {
            return;
        }
    }
}

fn answer(kind: Kind, head: &str, body: &[u8], book: &mut Book) -> (u16, Value) {
    let request = head.lines().next().unwrap();
    let header = |wanted: &str| {
        head.lines()
            .filter_map(|line| line.split_once(": "))
            .find_map(|(name, value)| name.eq_ignore_ascii_case(wanted).then(|| value.to_owned()))
    };
    let allowed = match kind {
        Kind::Lnd => header("grpc-metadata-macaroon")
            .is_some_and(|macaroon| macaroon.eq_ignore_ascii_case(&hex(MACAROON))),
        Kind::CoreLightning => header("rune").as_deref() == Some(RUNE),
    };
    if !allowed {
        return (401, json!({"code": 16, "message": "not allowed"}));
    }
    // clnrest takes forms as well as JSON, and LND whole sat.
    let mut body: Value = serde_json::from_slice(body).unwrap_or_else(|_| form(body));
    if let Some(sat) = body["value"].as_u64() {
        body["value_msat"] = (sat * 1_000).into();
    }
    let number = |value: &Value| {
        value
            .as_str()
            .map_or_else(|| value.as_u64(), |text| text.parse().ok())
    };
    let looked_for = match kind {
        Kind::Lnd => request
            .strip_prefix("GET /v1/invoice/")
            .and_then(|rest| rest.split(' ').next())
            .map(str::to_owned),
        Kind::CoreLightning => request
            .starts_with("POST /v1/listinvoices ")
            .then(|| body["payment_hash"].as_str().unwrap().to_owned()),
    };
    if let Some(hash) = looked_for {
        let Some(made) = book.invoices.get(&hash) else {
            return match kind {
                Kind::Lnd => (404, json!({"code": 5, "message": "unable to locate invoice"})),
                Kind::CoreLightning => (201, json!({"invoices": []})),
            };
        };
        return (
            if kind == Kind::Lnd { 200 } else { 201 },
            shown(kind, &hash, made),
        );
    }
    let (path, msat, expiry, label) = match kind {
        Kind::Lnd => (
            "POST /v1/invoices ",
            number(&body["value_msat"]),
            number(&body["expiry"]),
            String::new(),
        ),
        Kind::CoreLightning => (
            "POST /v1/invoice ",
            number(&body["amount_msat"]),
            number(&body["expiry"]),
            body["label"].as_str().unwrap_or_default().to_owned(),
        ),
    };
    if !request.starts_with(path) {
        return (404, json!({"code": 12, "message": "Not Found"}));
    }
    book.made += 1;
    let preimage: [u8; 32] = sha256::Hash::hash(&[book.made, 0x77]).to_byte_array();
    let hash = sha256::Hash::hash(&preimage);
    let bolt11 = InvoiceBuilder::new(Currency::Regtest)
        .description("Relay top-up".into())
        .payment_hash(hash)
        .payment_secret(PaymentSecret([3; 32]))
        .duration_since_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())
        .min_final_cltv_expiry_delta(18)
        .expiry_time(std::time::Duration::from_secs(expiry.unwrap()))
        .amount_milli_satoshis(msat.unwrap() + book.cheat_msat)
        .build_signed(|hash| Secp256k1::new().sign_ecdsa_recoverable(hash, &key()))
        .unwrap()
        .to_string();
    let name = hex(hash.as_byte_array());
    book.invoices.insert(
        name.clone(),
        Made {
            preimage,
            label,
            stands: Stands::Unpaid,
        },
    );
    match kind {
        Kind::Lnd => (
            200,
            json!({"r_hash": STANDARD.encode(hash.as_byte_array()), "payment_request": bolt11,
                "add_index": book.made.to_string(), "payment_addr": STANDARD.encode([3; 32])}),
        ),
        Kind::CoreLightning => (
            201,
            json!({"payment_hash": name, "bolt11": bolt11, "payment_secret": hex(&[3; 32]), "created_index": book.made}),
        ),
    }
}

/// A form without anything that would have to be decoded.
fn form(body: &[u8]) -> Value {
    let text = String::from_utf8_lossy(body);
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (name.to_owned(), Value::from(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn shown(kind: Kind, hash: &str, made: &Made) -> Value {
    let preimage = if made.stands == Stands::PaidSheSays {
        [1; 32]
    } else {
        made.preimage
    };
    let paid = match made.stands {
        Stands::Paid(msat) => Some(msat),
        Stands::PaidSheSays => Some(1 << 40),
        Stands::Unpaid | Stands::Expired => None,
    };
    let bytes: Vec<u8> = (0..32)
        .map(|at| u8::from_str_radix(&hash[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    match kind {
        Kind::Lnd => json!({
            "r_hash": STANDARD.encode(bytes),
            // A node knows the preimage of its own invoices from the beginning, and LND shows it.
            "r_preimage": STANDARD.encode(preimage),
            "state": match made.stands {
                Stands::Unpaid => "OPEN",
                Stands::Expired => "CANCELED",
                Stands::Paid(_) | Stands::PaidSheSays => "SETTLED",
            },
            "amt_paid_msat": paid.unwrap_or_default().to_string(),
        }),
        Kind::CoreLightning => {
            let mut invoice = json!({
                "label": made.label,
                "payment_hash": hash,
                "status": match made.stands {
                    Stands::Unpaid => "unpaid",
                    Stands::Expired => "expired",
                    Stands::Paid(_) | Stands::PaidSheSays => "paid",
                },
            });
            if let Some(paid) = paid {
                invoice["amount_received_msat"] = paid.into();
                invoice["payment_preimage"] = hex(&preimage).into();
            }
            json!({ "invoices": [invoice] })
        }
    }
}
