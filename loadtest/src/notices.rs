//! How fast a client hears that its money is gone, and how fast a top-up brings its media back, at this node or another.
//!
//! A round is one account: a DSIP connection to one node that hears notices, a TURN allocation there that spends, and a
//! peer that sees when packets stop and come again. Two nodes share a PostgreSQL; the top-up is shown to the one or the
//! other in turn.

use std::fs;
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use datagram::{Inbox, Socket};
use dsip::message::RelayMessage;
use dsip::{Client, Terms};
use dsip::{Encoding, SUBPROTOCOL};
use identity::{Did, SigningKey};
use indicatif::ProgressBar;
use serde::Serialize;
use serde_json::json;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, WebSocket};
use wire::channel_data::{self, ChannelNumber, HEADER_LEN};

use crate::Error;
use crate::holder::{nonce, now, signed, token};
use crate::relay::Relay;
use crate::turn::allocation::{Allocation, Opening};
use crate::turn::link::{Link, Transport, bind_peer};
use crate::turn::server::credentials;

/// What a round begins with: enough to be let in twice, for the session and for the allocation.
const PURSE_MSAT: u64 = 50;
/// What brings it back.
const TOP_UP_MSAT: u64 = 2_000;
/// A packet now and then, small enough to pass the narrowest rung of the ladder at this rate.
const BYTES: usize = 70;
const EVERY: Duration = Duration::from_millis(5);
/// Beside it, what burns the money while nothing limits it yet.
const BURST: usize = 2;
const BURST_BYTES: usize = 1_200;
/// No packet for so long: it is held.
const SILENCE: Duration = Duration::from_millis(400);
/// Longer than any answer takes.
const PATIENCE: Duration = Duration::from_secs(40);
/// Rounds beside each other: each lasts for some seconds, most of which it waits.
const WAVE: usize = 16;

/// Times of the rounds, in milliseconds.
#[derive(Clone, Debug, Serialize)]
pub struct Times {
    /// How many.
    pub count: usize,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// From the last packet that the peer got to the notice that says "held" at the client.
    pub held_told_ms: Times,
    /// From sending a top-up to this node to the notice that says that it is over.
    pub resumed_told_here_ms: Times,
    /// The same, to the first packet at the peer.
    pub resumed_media_here_ms: Times,
    /// From sending a top-up to the other node to the notice.
    pub resumed_told_elsewhere_ms: Times,
    /// The same, to the first packet at the peer.
    pub resumed_media_elsewhere_ms: Times,
}

impl Times {
    fn of(mut seconds: Vec<f64>) -> Times {
        seconds.sort_by(f64::total_cmp);
        let at = |of: f64| {
            let index = ((seconds.len().max(1) - 1) as f64 * of).round() as usize;
            seconds.get(index).map_or(f64::NAN, |seconds| seconds * 1_000.0)
        };
        Times {
            count: seconds.len(),
            p50: at(0.5),
            p99: at(0.99),
            max: at(1.0),
        }
    }
}

/// Two nodes of one operator.
struct Nodes {
    here: Relay,
    elsewhere: Relay,
    _folders: [tempfile::TempDir; 2],
}

impl Nodes {
    fn start(database: &str) -> Result<Nodes, Error> {
        let folders = [tempfile::tempdir()?, tempfile::tempdir()?];
        let settings = |name: &str| {
            [
                ("MILLIWAY_LEDGER__URL", database.to_owned()),
                ("MILLIWAY_LEDGER__NODE", name.to_owned()),
                // The call is only there to be told things, and shall not need the money.
                ("MILLIWAY_TARIFF__SFU_MSAT_PER_SECOND", "1".to_owned()),
                // One generator is many clients.
                ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "100000".to_owned()),
                ("MILLIWAY_HTTP__REQUESTS_BURST", "100000".to_owned()),
            ]
        };
        let here = Relay::start_node(folders[0].path(), &settings("here"))?;
        for key in ["relay.jwk", "issuer.jwk"] {
            fs::copy(folders[0].path().join(key), folders[1].path().join(key))?;
        }
        let elsewhere = Relay::start_node(folders[1].path(), &settings("elsewhere"))?;
        Ok(Nodes {
            here,
            elsewhere,
            _folders: folders,
        })
    }
}

/// Plays so many rounds on two nodes that share this database.
pub fn run(database: &str, rounds: u32, progress: &ProgressBar) -> Result<Report, Error> {
    let nodes = Nodes::start(database)?;
    let (mut held, mut here, mut elsewhere) =
        (Vec::new(), (Vec::new(), Vec::new()), (Vec::new(), Vec::new()));
    progress.set_length(u64::from(rounds));
    let numbers: Vec<u32> = (0..rounds).collect();
    for wave in numbers.chunks(WAVE) {
        let nodes = &nodes;
        let played: Vec<_> = thread::scope(|threads| {
            let rounds: Vec<_> = wave
                .iter()
                .map(|number| threads.spawn(move || play(nodes, *number)))
                .collect();
            rounds
                .into_iter()
                .map(|round| round.join().unwrap_or_else(|_| Err("a round broke".into())))
                .collect()
        });
        for (number, round) in wave.iter().zip(played) {
            let round = round?;
            held.push(round.held);
            let resumed = if is_here(*number) {
                &mut here
            } else {
                &mut elsewhere
            };
            resumed.0.push(round.told);
            resumed.1.push(round.media);
            progress.inc(1);
        }
    }
    Ok(Report {
        held_told_ms: Times::of(held),
        resumed_told_here_ms: Times::of(here.0),
        resumed_media_here_ms: Times::of(here.1),
        resumed_told_elsewhere_ms: Times::of(elsewhere.0),
        resumed_media_elsewhere_ms: Times::of(elsewhere.1),
    })
}

/// One account's end and return, in seconds.
struct Round {
    held: f64,
    told: f64,
    media: f64,
}

/// Whether a round's top-up is shown to its own node.
fn is_here(number: u32) -> bool {
    number.is_multiple_of(2)
}

fn play(nodes: &Nodes, number: u32) -> Result<Round, Error> {
    let mut spender = Spender::open(&nodes.here, number, PURSE_MSAT)?;
    let notices = listen(&nodes.here, &spender.key, &spender.token, number)?;
    let top_up = token(&nodes.here.ready.http, &spender.key, TOP_UP_MSAT)?;
    // Burns until the peer hears nothing more.
    let begin = Instant::now();
    let mut last = Instant::now();
    while last.elapsed() < SILENCE {
        spender.send(true)?;
        if spender.heard() {
            last = Instant::now();
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("round {number} does not run out of money").into());
        }
        thread::sleep(EVERY);
    }
    let held = await_step(&notices, |step| step == "held")?;
    let node = if is_here(number) {
        &nodes.here
    } else {
        &nodes.elsewhere
    };
    let body = json!({ "token": top_up }).to_string();
    let base = &node.ready.http;
    let nonce = nonce(base)?;
    let sent = Instant::now();
    let answer = signed(base, &nonce, &spender.key, None, "POST", "/v1/topup", &body)?;
    let answer = answer.expect(200, "a top-up")?.json()?;
    if answer["credited_msat"] != TOP_UP_MSAT {
        return Err(format!("a top-up was answered with {answer}").into());
    }
    let media = loop {
        spender.send(false)?;
        if spender.heard() {
            break sent.elapsed();
        }
        if sent.elapsed() > PATIENCE {
            return Err(format!("round {number} does not come back").into());
        }
        thread::sleep(Duration::from_millis(1));
    };
    let told = await_step(&notices, |step| step != "held")?;
    spender.allocation.end()?;
    Ok(Round {
        held: held.saturating_duration_since(last).as_secs_f64(),
        told: told.saturating_duration_since(sent).as_secs_f64(),
        media: media.as_secs_f64(),
    })
}

/// When a notice with such a step came.
fn await_step(notices: &Receiver<(Instant, String)>, fits: impl Fn(&str) -> bool) -> Result<Instant, Error> {
    loop {
        let (at, step) = notices.recv_timeout(PATIENCE)?;
        if fits(&step) {
            return Ok(at);
        }
    }
}

/// An allocation that spends.
struct Spender {
    key: SigningKey,
    token: String,
    allocation: Allocation,
    peer: Socket,
    inbox: Inbox,
}

impl Spender {
    fn open(node: &Relay, number: u32, msat: u64) -> Result<Spender, Error> {
        let key = SigningKey::generate();
        let base = &node.ready.http;
        let token = token(base, &key, msat)?;
        let (credentials, server) = credentials(base, &nonce(base)?, &key, &token)?;
        let mut inbox = Inbox::new();
        let link = Link::open(Transport::Udp, server, number)?;
        let mut allocation = Opening::begin(link, number, &credentials)?.authenticate(&mut inbox)?;
        allocation.finish(&mut inbox)?;
        let peer = bind_peer(server, number)?;
        allocation.bind(peer.local_addr())?;
        allocation.done(&mut inbox)?;
        Ok(Spender {
            key,
            token,
            allocation,
            peer,
            inbox,
        })
    }

    /// A small packet, and before it a burst.
    fn send(&mut self, burst: bool) -> Result<(), Error> {
        let mut packet = [0; HEADER_LEN + BURST_BYTES];
        let mut send = |bytes: usize| {
            if let Some((header, _)) = packet.split_first_chunk_mut() {
                channel_data::write_header(header, ChannelNumber::MIN, bytes as u16);
            }
            let end = HEADER_LEN + bytes;
            self.allocation.link.send(&packet[..end], end)
        };
        for _ in 0..if burst { BURST } else { 0 } {
            send(BURST_BYTES)?;
        }
        send(BYTES)?;
        Ok(())
    }

    /// Whether the peer got anything since the last look.
    fn heard(&mut self) -> bool {
        let mut any = false;
        loop {
            any |= self.peer.receive(&mut self.inbox).unwrap_or(0) > 0;
            if self.inbox.drained() {
                return any;
            }
        }
    }
}

/// A DSIP session of the same account; when each notice came and what step it names.
fn listen(
    node: &Relay,
    key: &SigningKey,
    token: &str,
    number: u32,
) -> Result<Receiver<(Instant, String)>, Error> {
    let host = node
        .ready
        .http
        .strip_prefix("http://")
        .ok_or("only http:// is spoken here")?;
    let stream = TcpStream::connect(host)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let url = format!("ws://{host}/v1/dsip");
    let mut request = url.clone().into_client_request()?;
    request
        .headers_mut()
        .insert("sec-websocket-protocol", SUBPROTOCOL.parse()?);
    let (mut socket, _) =
        tungstenite::client(request, stream).map_err(|error| format!("no WebSocket: {error}"))?;
    let mut client = Client::new(
        SigningKey::from_jwk(&key.to_private_jwk())?,
        Did::parse(&node.ready.did)?,
        &url,
        Encoding::Json,
    );
    say(&mut socket, client.hello(now()?))?;
    hear(&mut socket, &mut client)?;
    let room = format!("notices-{number}");
    let terms = Terms {
        room: &room,
        name: Some("spender"),
        token,
        sdp: &sdp(),
        max_msat_per_second: None,
        credentials: &[],
    };
    say(&mut socket, client.invite(&terms, now()?)?)?;
    while client.session().is_none() {
        hear(&mut socket, &mut client)?;
    }
    let (sender, notices) = mpsc::channel();
    thread::spawn(move || {
        while let Ok(message) = hear(&mut socket, &mut client) {
            if let RelayMessage::Update(update) = message
                && let Some(balance) = update.changes.balance
                && sender.send((Instant::now(), balance.step)).is_err()
            {
                return;
            }
        }
    });
    Ok(notices)
}

fn say(socket: &mut WebSocket<TcpStream>, envelope: Vec<u8>) -> Result<(), Error> {
    Ok(socket.send(Message::text(String::from_utf8(envelope)?))?)
}

fn hear(socket: &mut WebSocket<TcpStream>, client: &mut Client) -> Result<RelayMessage, Error> {
    loop {
        match socket.read()? {
            Message::Text(text) => match client.receive(Encoding::Json, text.as_bytes(), now()?)? {
                RelayMessage::Error(error) => {
                    return Err(format!("{} {}: {}", error.code, error.reason, error.detail).into());
                }
                message => return Ok(message),
            },
            Message::Close(_) => return Err("the relay closed a WebSocket".into()),
            _ => {}
        }
    }
}

/// An offer of audio that nobody will ever send: the session is there to be told things.
fn sdp() -> String {
    let fingerprint = ["AB"; 32].join(":");
    [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0",
        "a=msid-semantic: WMS s",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:F7gI",
        "a=ice-pwd:x9cml/YzichV2+XlhiMu8g5T",
        &format!("a=fingerprint:sha-256 {fingerprint}"),
        "a=setup:actpass",
        "a=mid:0",
        "a=sendonly",
        "a=msid:s a",
        "a=rtcp-mux",
        "a=rtpmap:111 opus/48000/2",
        "a=ssrc:1000 cname:c",
        "",
    ]
    .join("\r\n")
}
