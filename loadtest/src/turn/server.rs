//! The TURN server under test: Milliway or Debian's coturn, started for the run, or one that runs already.

use std::fs;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use identity::SigningKey;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use super::allocation::Credentials;
use super::link::{Link, Transport};
use crate::Error;
use crate::holder::{bearer_token, signed};
use crate::http;
use crate::process;
use crate::relay::Relay;

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Ours: usernames from `POST /v1/turn/credentials`.
    Milliway,
    /// Debian's coturn with one long-term user.
    Coturn,
}

impl Kind {
    /// As it is written on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Milliway => "milliway",
            Kind::Coturn => "coturn",
        }
    }
}

/// What a Milliway account may spend.
const BALANCE_MSAT: u64 = 1_000_000_000;

/// Allocations of one account and username; Milliway's limit is 32.
const ALLOCATIONS_PER_ACCOUNT: usize = 30;

const START_MAX: Duration = Duration::from_secs(10);
const STOP_MAX: Duration = Duration::from_secs(5);

const USER: &str = "load";
const PASSWORD: &str = "test-of-load";

/// How to reach or start it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which kind.
    pub kind: Kind,
    /// Milliway's front door, or coturn's "host:port", of one that runs already.
    pub address: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// For a coturn that runs already.
    pub user: Option<(String, String)>,
    /// Threads that relay.
    pub threads: Option<u32>,
}

/// A server that runs.
pub struct Server {
    own: Own,
    base: Option<String>,
    address: Option<SocketAddr>,
    user: Credentials,
    /// Its process.
    pub pid: Option<u32>,
}

enum Own {
    Milliway {
        relay: Box<Relay>,
        /// The folder that its certificate is in.
        _certificate: TempDir,
    },
    Coturn(Coturn),
    Nothing,
}

struct Coturn {
    child: Child,
    folder: TempDir,
}

impl Server {
    /// Starts it where none was named, on the cores that are not the generator's.
    pub fn open(wanted: &Wanted) -> Result<Server, Error> {
        let (user, password) = wanted
            .user
            .clone()
            .unwrap_or((USER.to_owned(), PASSWORD.to_owned()));
        let user = Credentials {
            username: user,
            password,
        };
        if let Some(address) = &wanted.address {
            let (base, address) = match wanted.kind {
                Kind::Milliway => (Some(address.clone()), None),
                Kind::Coturn => (None, address.to_socket_addrs()?.next()),
            };
            return Ok(Server {
                own: Own::Nothing,
                base,
                address,
                user,
                pid: wanted.pid,
            });
        }
        let all = process::cpus()?;
        let others = &all[..all.len().saturating_sub(1).max(1)];
        let threads = wanted.threads.unwrap_or(others.len() as u32);
        if threads as usize <= others.len() {
            process::pin(others.iter().copied())?;
        }
        let server = match wanted.kind {
            Kind::Milliway => {
                let certificate = tempfile::tempdir()?;
                let at = |name: &str| certificate.path().join(name).to_string_lossy().into_owned();
                write_certificate(certificate.path())?;
                let relay = Relay::start_with(&[
                    ("MILLIWAY_TURN__TLS_CERTIFICATE", at("certificate.pem")),
                    ("MILLIWAY_TURN__TLS_KEY", at("key.pem")),
                    ("MILLIWAY_RELAY__SHARDS", threads.to_string()),
                    ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "100000".to_owned()),
                    ("MILLIWAY_HTTP__REQUESTS_BURST", "100000".to_owned()),
                    ("MILLIWAY_HTTP__CONNECTIONS_PER_SOURCE_MAX", "4096".to_owned()),
                ])?;
                Server {
                    base: Some(relay.ready.http.clone()),
                    address: Some(relay.ready.turn.parse()?),
                    pid: Some(relay.ready.pid),
                    own: Own::Milliway {
                        relay: Box::new(relay),
                        _certificate: certificate,
                    },
                    user,
                }
            }
            Kind::Coturn => {
                let (coturn, address) = Coturn::start(&user, threads)?;
                Server {
                    base: None,
                    address: Some(address),
                    pid: Some(coturn.child.id()),
                    own: Own::Coturn(coturn),
                    user,
                }
            }
        };
        process::pin(all)?;
        Ok(server)
    }

    /// Usernames for so many allocations, in order: each with where the server listens.
    pub fn credentials(
        &self,
        transport: Transport,
        allocations: usize,
    ) -> Result<Vec<(Credentials, SocketAddr)>, Error> {
        let Some(base) = &self.base else {
            let address = self.address.ok_or("the server's name has no address")?;
            return Ok(vec![(self.user.clone(), address); allocations]);
        };
        let mut all = Vec::with_capacity(allocations);
        while all.len() < allocations {
            let one = sold(base, transport)?;
            let count = ALLOCATIONS_PER_ACCOUNT.min(allocations - all.len());
            all.extend(std::iter::repeat_n(one, count));
        }
        Ok(all)
    }

    /// What it logged, where it is ours.
    #[must_use]
    pub fn log(&self) -> String {
        match &self.own {
            Own::Milliway { relay, .. } => relay.log(),
            Own::Coturn(coturn) => {
                fs::read_to_string(coturn.folder.path().join("coturn.log")).unwrap_or_default()
            }
            Own::Nothing => String::new(),
        }
    }
}

/// A username of Milliway's, and its listener for this transport.
fn sold(base: &str, transport: Transport) -> Result<(Credentials, SocketAddr), Error> {
    let bought = bought(base, &bearer_token(base, BALANCE_MSAT)?, transport)?;
    Ok((bought.credentials, bought.server))
}

/// A username, where it is good, and what the bill will be under.
pub struct Bought {
    /// The username.
    pub credentials: Credentials,
    /// The listener.
    pub server: SocketAddr,
    /// The session, which a receipt is issued for.
    pub session: String,
}

/// A username of Milliway's for who holds this bearer token.
pub fn bought(base: &str, token: &str, transport: Transport) -> Result<Bought, Error> {
    let authorization = format!("Bearer {token}");
    let headers = [("authorization", &authorization[..])];
    let answer = http::call(base, "POST", "/v1/turn/credentials", &headers, "")?;
    let answer = answer.expect(200, "TURN credentials")?.json()?;
    let (credentials, server) = listener(&answer, transport)?;
    Ok(Bought {
        credentials,
        server,
        session: answer["session"].as_str().unwrap_or_default().to_owned(),
    })
}

/// A username for who holds this token and its key, and the listener over UDP.
pub fn credentials(
    base: &str,
    nonce: &str,
    key: &SigningKey,
    token: &str,
) -> Result<(Credentials, SocketAddr), Error> {
    let answer = signed(base, nonce, key, Some(token), "POST", "/v1/turn/credentials", "")?;
    listener(&answer.expect(200, "TURN credentials")?.json()?, Transport::Udp)
}

/// The username in an answer with `iceServers`, and the listener for this transport.
fn listener(answer: &Value, transport: Transport) -> Result<(Credentials, SocketAddr), Error> {
    let (scheme, suffix) = match transport {
        Transport::Udp => ("turn:", "transport=udp"),
        Transport::Tcp => ("turn:", "transport=tcp"),
        Transport::Tls => ("turns:", "transport=tcp"),
    };
    for server in answer["iceServers"].as_array().into_iter().flatten() {
        let url = server["urls"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|url| url.as_str())
            .find(|url| url.starts_with(scheme) && url.ends_with(suffix));
        let text = |name: &str| server[name].as_str().map(str::to_owned);
        if let (Some(url), Some(username), Some(password)) = (url, text("username"), text("credential")) {
            let host = url
                .trim_start_matches(scheme)
                .split('?')
                .next()
                .unwrap_or_default();
            let address = host
                .to_socket_addrs()?
                .next()
                .ok_or("the listener's name has no address")?;
            return Ok((Credentials { username, password }, address));
        }
    }
    Err(format!(
        "the server names no listener of TURN over {transport:?}: {}",
        answer["iceServers"]
    )
    .into())
}

impl Coturn {
    fn start(user: &Credentials, threads: u32) -> Result<(Coturn, SocketAddr), Error> {
        let folder = tempfile::tempdir()?;
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        write_certificate(folder.path())?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new("turnserver")
            .args(["-n", "--no-cli", "--allow-loopback-peers", "--lt-cred-mech"])
            .args(["--no-rfc5780", "--no-multicast-peers", "--no-software-attribute"])
            .args(["--listening-ip", "127.0.0.1", "--relay-ip", "127.0.0.1"])
            .args(["--listening-port", &port.to_string(), "--tls-listening-port", "0"])
            .args(["--min-port", "20000", "--max-port", "65535"])
            .args(["--relay-threads", &threads.to_string()])
            .args(["--realm", "loadtest", "--user"])
            .arg(format!("{}:{}", user.username, user.password))
            .args(["--cert", &at("certificate.pem"), "--pkey", &at("key.pem")])
            .args(["--pidfile", &at("coturn.pid"), "--userdb", &at("turndb")])
            .args(["--log-file", &at("coturn.log"), "--simple-log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("no turnserver (`apt-get install coturn` brings it): {error}"))?;
        let mut coturn = Coturn { child, folder };
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let end = Instant::now() + START_MAX;
        // coturn tells plain from TLS on every port; when its TCP listener is there, so are the others.
        while Link::open(Transport::Tcp, address, 0).is_err() {
            let ended = coturn.child.try_wait()?;
            if ended.is_some() || Instant::now() > end {
                let log = fs::read_to_string(coturn.folder.path().join("coturn.log")).unwrap_or_default();
                return Err(format!("coturn did not start: {ended:?}\n{log}").into());
            }
            sleep(Duration::from_millis(20));
        }
        sleep(Duration::from_millis(300));
        Ok((coturn, address))
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let end = Instant::now() + STOP_MAX;
        while Instant::now() < end {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_certificate(folder: &Path) -> Result<(), Error> {
    let made = dimpl::certificate::generate_self_signed_certificate()
        .map_err(|error| format!("no certificate: {error}"))?;
    let pem = |label: &str, der: &[u8]| {
        let text = STANDARD.encode(der);
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(64)
            .filter_map(|line| str::from_utf8(line).ok())
            .collect();
        format!(
            "-----BEGIN {label}-----\n{}\n-----END {label}-----\n",
            lines.join("\n")
        )
    };
    fs::write(
        folder.join("certificate.pem"),
        pem("CERTIFICATE", &made.certificate),
    )?;
    fs::write(folder.join("key.pem"), pem("PRIVATE KEY", &made.private_key))?;
    Ok(())
}
