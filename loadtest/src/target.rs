//! The server under test: one that runs already, or one that is started for the run and ended with it.

use std::net::{IpAddr, Ipv4Addr, ToSocketAddrs, UdpSocket};

use crate::Error;
use crate::janus;
use crate::namespace;
use crate::process;
use crate::relay::Relay;
use crate::signalling::{Desk, Janus, Signalling, Tokens, Whip};

/// A kind of server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Ours: WHIP and WHEP with tokens of its faucet, calls over DSIP.
    Milliway,
    /// Any server that speaks WHIP and WHEP; it must be running.
    Whip,
    /// Janus with its videoroom plugin.
    Janus,
}

impl Kind {
    /// As it is written on the command line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Milliway => "milliway",
            Kind::Whip => "whip",
            Kind::Janus => "janus",
        }
    }
}

/// How to reach or start it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which kind.
    pub kind: Kind,
    /// One that runs already.
    pub base: Option<String>,
    /// Its process.
    pub pid: Option<u32>,
    /// Threads that carry media, of one that is started.
    pub threads: Option<u32>,
    /// The most members that a room will have.
    pub members: usize,
    /// For a generic server: the same bearer token for all.
    pub token: Option<String>,
    /// For a generic server: its paths, with `{room}` and `{name}` in them.
    pub whip_path: String,
    /// The same to receive.
    pub whep_path: String,
}

/// A server that runs.
pub struct Target {
    own: Own,
    base: String,
    /// Its process.
    pub pid: Option<u32>,
    /// What clients bind to.
    pub ip: IpAddr,
}

enum Own {
    Milliway(Box<Relay>),
    Janus(Box<janus::Server>),
    Nothing,
}

/// Members of a room that Milliway allows without being told.
const MEMBERS_DEFAULT: usize = 64;

/// The last core is the generator's. What is started for the run gets the others, unless it wants all of them.
pub fn pin_generator() -> Result<(), Error> {
    let cpus = process::cpus()?;
    match cpus.last() {
        Some(last) if cpus.len() > 1 => process::pin([*last]),
        _ => Ok(()),
    }
}

impl Target {
    /// Starts it where none was named. To be called before [`pin_generator`].
    pub fn open(wanted: &Wanted) -> Result<Target, Error> {
        if let Some(base) = &wanted.base {
            return Ok(Target {
                own: Own::Nothing,
                ip: address_towards(base)?,
                base: base.clone(),
                pid: wanted.pid,
            });
        }
        let inside = match wanted.kind {
            Kind::Whip => return Err("--target whip needs --relay-http".into()),
            Kind::Janus => namespace::enter()?,
            Kind::Milliway => IpAddr::V4(Ipv4Addr::LOCALHOST),
        };
        let all = process::cpus()?;
        let others = &all[..all.len().saturating_sub(1).max(1)];
        let threads = wanted.threads.unwrap_or(match wanted.kind {
            Kind::Janus => janus::EVENT_LOOPS,
            _ => others.len() as u32,
        });
        // Janus' event loops are threads that the kernel moves; Milliway's shards want a core each.
        if wanted.kind == Kind::Janus || threads as usize <= others.len() {
            process::pin(others.iter().copied())?;
        }
        let target = if wanted.kind == Kind::Janus {
            let server = janus::Server::start(inside, threads)?;
            Target {
                base: server.base.clone(),
                pid: Some(server.pid()),
                ip: inside,
                own: Own::Janus(Box::new(server)),
            }
        } else {
            let relay = start_milliway(threads, wanted.members)?;
            Target {
                base: relay.ready.http.clone(),
                pid: Some(relay.ready.pid),
                ip: inside,
                own: Own::Milliway(Box::new(relay)),
            }
        };
        process::pin(all)?;
        Ok(target)
    }

    /// Opens its door.
    #[must_use]
    pub fn desk(&self, wanted: &Wanted) -> Desk {
        let signalling: Box<dyn Signalling> = match wanted.kind {
            Kind::Milliway => Box::new(Whip::milliway(&self.base)),
            Kind::Whip => {
                let tokens = wanted.token.clone().map_or(Tokens::None, Tokens::Fixed);
                Box::new(Whip::generic(
                    &self.base,
                    tokens,
                    &wanted.whip_path,
                    &wanted.whep_path,
                ))
            }
            Kind::Janus => Box::new(Janus::new(&self.base)),
        };
        // What is ended with the run needs no goodbyes.
        Desk::open(signalling, matches!(self.own, Own::Nothing))
    }

    /// What it logged, where it is ours.
    #[must_use]
    pub fn log(&self) -> String {
        match &self.own {
            Own::Milliway(relay) => relay.log(),
            Own::Janus(server) => server.log(),
            Own::Nothing => String::new(),
        }
    }
}

fn start_milliway(shards: u32, members: usize) -> Result<Relay, Error> {
    let mut settings = vec![
        ("MILLIWAY_RELAY__SHARDS", shards.to_string()),
        // All clients share an address here.
        ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "100000".to_owned()),
        ("MILLIWAY_HTTP__REQUESTS_BURST", "100000".to_owned()),
        ("MILLIWAY_HTTP__CONNECTIONS_PER_SOURCE_MAX", "4096".to_owned()),
    ];
    if members > MEMBERS_DEFAULT {
        settings.push(("MILLIWAY_ROOM__MEMBERS_MAX", members.to_string()));
    }
    Relay::start_with(&settings)
}

/// The address of this machine that reaches the server.
fn address_towards(base: &str) -> Result<IpAddr, Error> {
    let authority = base
        .strip_prefix("http://")
        .ok_or("only http:// is spoken here")?
        .split('/')
        .next()
        .unwrap_or_default();
    let server = authority
        .to_socket_addrs()?
        .next()
        .ok_or("the server's name has no address")?;
    let any: IpAddr = if server.is_ipv4() {
        Ipv4Addr::UNSPECIFIED.into()
    } else {
        std::net::Ipv6Addr::UNSPECIFIED.into()
    };
    let probe = UdpSocket::bind((any, 0))?;
    probe.connect(server)?;
    Ok(probe.local_addr()?.ip())
}
