//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use identity::Did;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::Error;
use loadtest::page::page;
use loadtest::process;
use loadtest::publisher::Arrival;
use loadtest::relay::Relay;
use loadtest::scenario::{self, Plan, Shape};
use loadtest::stage::{LossOn, Lossy, Stage};
use loadtest::target::{self, Kind, Target, Wanted};
use loadtest::turn;
use loadtest::turn::link::Transport;
use loadtest::turn::load::{Load, Way};
use serde::Serialize;

/// Of a server's log, when a run fails.
const LOG_LINES: usize = 20;

/// Simulated clients on real sockets against a media server. The report is one JSON object on standard output (or in
/// --report), progress goes to standard error. The generator runs on the last core and tells what it used itself; a
/// report with generator_starved says nothing about the server.
#[derive(Parser)]
#[command(version)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    service: Service,
}

#[derive(Subcommand)]
enum Service {
    /// An SFU: publishers of 1.5 Mbit/s of video in 30 frames a second and 50 packets of audio a second.
    Sfu {
        #[command(subcommand)]
        scenario: Scenario,
    },
    /// A TURN server: clients and peers on loopback, channels, packets that say when they left.
    Turn {
        #[command(subcommand)]
        scenario: TurnScenario,
    },
    /// Is the bill right? Short paid sessions of TURN, and their receipts beside a capture of the wire (tcpdump, which
    /// needs root). Every eighth session has too little money and is ended by the relay, a minute after the others.
    Bill {
        /// How many, at most 16,000.
        #[arg(long, default_value_t = 10_000)]
        sessions: u32,
        /// Writes the JSON there, not to standard output.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// What an admission costs the relay in CPU time.
    Admission {
        /// How many are weighed, after as many that warm up.
        #[arg(long, default_value_t = 1_000)]
        admissions: u32,
        /// Writes the JSON there, not to standard output.
        #[arg(long)]
        report: Option<PathBuf>,
    },
    /// How fast clients hear that their money is gone, and how fast a top-up brings them back, at their own node or at
    /// another. Starts two nodes on a PostgreSQL.
    Notices {
        /// An empty database, "postgres://...".
        #[arg(long)]
        ledger_url: String,
        /// How often, half of them with a top-up at the other node.
        #[arg(long, default_value_t = 200)]
        rounds: u32,
        /// Writes the JSON there, not to standard output.
        #[arg(long)]
        report: Option<PathBuf>,
    },
}

#[derive(Subcommand)]
enum TurnScenario {
    /// Many allocations, each with a packet now and then: 50 a second.
    Sparse {
        /// How many allocations.
        #[arg(long, default_value_t = 2_000)]
        allocations: usize,
        /// Application bytes of a packet.
        #[arg(long, default_value_t = 160)]
        bytes: usize,
        #[command(flatten)]
        common: TurnCommon,
    },
    /// Video: bursts of 6 packets of 1,000 bytes, 30 a second, each sent in one GSO send.
    Bursts {
        /// How many allocations.
        #[arg(long, default_value_t = 100)]
        allocations: usize,
        /// Packets of a burst.
        #[arg(long, default_value_t = 6)]
        packets: usize,
        /// Application bytes of a packet.
        #[arg(long, default_value_t = 1_000)]
        bytes: usize,
        #[command(flatten)]
        common: TurnCommon,
    },
    /// One allocation with a fat flow, in bursts a millisecond apart.
    Flow {
        /// Megabits of application bytes a second.
        #[arg(long, default_value_t = 200.0)]
        megabits: f64,
        /// Application bytes of a packet.
        #[arg(long, default_value_t = 1_000)]
        bytes: usize,
        #[command(flatten)]
        common: TurnCommon,
    },
    /// Bursts as above, from clients that are connected over TCP, or TLS with --transport tls.
    Tcp {
        /// How many allocations.
        #[arg(long, default_value_t = 100)]
        allocations: usize,
        /// Packets of a burst.
        #[arg(long, default_value_t = 6)]
        packets: usize,
        /// Application bytes of a packet.
        #[arg(long, default_value_t = 1_000)]
        bytes: usize,
        #[command(flatten)]
        common: TurnCommon,
    },
    /// Allocations as such, 64 at a time, and what each costs in CPU time and memory.
    Allocations {
        /// How many.
        #[arg(long, default_value_t = 2_000)]
        allocations: usize,
        #[command(flatten)]
        common: TurnCommon,
    },
}

#[derive(Args, Clone)]
struct TurnCommon {
    /// The kind of server.
    #[arg(long, value_enum, default_value_t = turn::server::Kind::Milliway)]
    target: turn::server::Kind,
    /// A Milliway that already runs, "http://host:port".
    #[arg(long, conflicts_with = "server")]
    relay_http: Option<String>,
    /// A coturn that already runs, "host:port".
    #[arg(long, requires = "user")]
    server: Option<String>,
    /// Its process.
    #[arg(long)]
    relay_pid: Option<u32>,
    /// A long-term user of that coturn, "name:password".
    #[arg(long)]
    user: Option<String>,
    /// For how long it is measured, after all are open.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How clients reach the server.
    #[arg(long, value_enum)]
    transport: Option<Transport>,
    /// Which way packets go.
    #[arg(long, value_enum, default_value_t = Way::Both)]
    way: Way,
    /// Threads that relay, of a server that is started; one for each core but the generator's if left out.
    #[arg(long)]
    shards: Option<u32>,
    /// Writes the JSON there, not to standard output.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Writes a page with plots there.
    #[arg(long)]
    html: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Scenario {
    /// One publisher to many subscribers.
    Broadcast {
        /// How many watch.
        #[arg(long, default_value_t = 50)]
        subscribers: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Everybody to everybody: one connection each over DSIP at Milliway, two at Janus, one for each pair over WHIP.
    Conference {
        /// How many take part.
        #[arg(long, default_value_t = 8)]
        participants: usize,
        #[command(flatten)]
        common: Common,
    },
    /// Many small conferences.
    Rooms {
        /// How many.
        #[arg(long, default_value_t = 10)]
        rooms: usize,
        /// How many take part in each.
        #[arg(long, default_value_t = 3)]
        participants: usize,
        #[command(flatten)]
        common: Common,
    },
    /// A broadcast to more and more subscribers, until loss exceeds 0.5 % or p99 50 ms.
    Sweep {
        /// Where it begins.
        #[arg(long, default_value_t = 50)]
        from: usize,
        /// The most that is tried.
        #[arg(long, default_value_t = 2_000)]
        subscribers: usize,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Args, Clone)]
struct Common {
    /// The kind of server.
    #[arg(long, value_enum, default_value_t = Kind::Milliway)]
    target: Kind,
    /// A server that already runs, "http://host:port"; without it one is started for the run (Janus in a network
    /// namespace of its own).
    #[arg(long)]
    relay_http: Option<String>,
    /// That server's process, to report what it used.
    #[arg(long, requires = "relay_http")]
    relay_pid: Option<u32>,
    /// For how long each load is measured, after all are connected.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// How frames leave their publisher: all packets at once, or paced at 2.5 times the video's rate.
    #[arg(long, value_enum, default_value_t = Arrival::Burst)]
    arrival: Arrival,
    /// Threads that carry media, of a server that is started (Milliway: shards, one for each core but the generator's;
    /// Janus: event loops, 2).
    #[arg(long)]
    shards: Option<u32>,
    /// Loses so many of a hundred packets on purpose, the same ones in every run.
    #[arg(long, default_value_t = 0.0)]
    loss_percent: f64,
    /// Whose link loses them.
    #[arg(long, value_enum, default_value_t = LossOn::Subscribers)]
    loss_on: LossOn,
    /// Fails unless the handshake gives this SRTP profile. The DTLS library offers all three, GCM with 256 bits first.
    #[arg(long, value_enum)]
    profile: Option<Profile>,
    /// A bearer token for a WHIP server.
    #[arg(long)]
    token: Option<String>,
    /// Where a WHIP server takes publishers.
    #[arg(long, default_value = "/whip/{room}/{name}")]
    whip_path: String,
    /// Where it takes subscribers.
    #[arg(long, default_value = "/whep/{room}/{name}")]
    whep_path: String,
    /// Writes the JSON there, not to standard output.
    #[arg(long)]
    report: Option<PathBuf>,
    /// Writes a page with plots there.
    #[arg(long)]
    html: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Profile {
    /// AEAD_AES_128_GCM.
    Gcm128,
    /// AEAD_AES_256_GCM.
    Gcm256,
    /// AES128_CM_HMAC_SHA1_80.
    #[value(name = "sha1-80")]
    Sha1,
}

/// Does what was asked for.
pub(crate) fn run(arguments: Arguments) -> Result<(), Error> {
    process::raise_file_limit()?;
    match arguments.service {
        Service::Sfu { scenario } => sfu(scenario),
        Service::Turn { scenario } => turn_scenario(scenario),
        Service::Admission { admissions, report } => {
            let progress = progress_bar(u64::from(admissions))?;
            let weighed = loadtest::admission::run(admissions, &progress)?;
            progress.finish_and_clear();
            write(&weighed, report.as_ref(), None)
        }
        Service::Notices {
            ledger_url,
            rounds,
            report,
        } => {
            let progress = progress_bar(u64::from(rounds))?;
            let times = loadtest::notices::run(&ledger_url, rounds, &progress)?;
            progress.finish_and_clear();
            write(&times, report.as_ref(), None)
        }
        Service::Bill { sessions, report } => {
            let relay = Relay::start()?;
            let progress = progress_bar(u64::from(sessions))?;
            let audit = loadtest::bill::run(
                &relay.ready.http,
                &Did::parse(&relay.ready.did)?,
                sessions,
                &progress,
            );
            progress.finish_and_clear();
            if audit.is_err() {
                print_end(&relay.log());
            }
            write(&audit?, report.as_ref(), None)
        }
    }
}

fn sfu(scenario: Scenario) -> Result<(), Error> {
    match scenario {
        Scenario::Broadcast { subscribers, common } => {
            load(Shape::Broadcast { subscribers }, subscribers + 1, &common)
        }
        Scenario::Conference { participants, common } => {
            load(Shape::Conference { participants }, participants, &common)
        }
        Scenario::Rooms {
            rooms,
            participants,
            common,
        } => load(Shape::Rooms { rooms, participants }, participants, &common),
        Scenario::Sweep {
            from,
            subscribers,
            common,
        } => with_stage(&common, subscribers + 1, |stage, plan, progress| {
            scenario::sweep(stage, from, subscribers, plan, progress)
        }),
    }
}

fn load(shape: Shape, members: usize, common: &Common) -> Result<(), Error> {
    with_stage(common, members, |stage, plan, progress| {
        scenario::run(stage, shape, plan, progress)
    })
}

fn with_stage<R: Serialize>(
    common: &Common,
    members: usize,
    work: impl FnOnce(Stage, &Plan, &ProgressBar) -> Result<R, Error>,
) -> Result<(), Error> {
    let wanted = Wanted {
        kind: common.target,
        base: common.relay_http.clone(),
        pid: common.relay_pid,
        threads: common.shards,
        members,
        token: common.token.clone(),
        whip_path: common.whip_path.clone(),
        whep_path: common.whep_path.clone(),
    };
    let target = Target::open(&wanted)?;
    // The signalling thread begins before, so that it has the other cores.
    let desk = target.desk(&wanted);
    target::pin_generator()?;
    let progress = progress_bar(common.seconds)?;
    let plan = Plan {
        target: common.target.as_str().to_owned(),
        arrival: common.arrival,
        duration: Duration::from_secs(common.seconds.max(1)),
        lossy: (common.loss_percent > 0.0).then_some(Lossy {
            percent: common.loss_percent,
            on: common.loss_on,
        }),
        profile: common
            .profile
            .and_then(|profile| Some(profile.to_possible_value()?.get_name().to_owned())),
    };
    let stage = Stage::new(target.ip, desk, common.arrival, target.pid)?;
    let report = work(stage, &plan, &progress);
    progress.finish_and_clear();
    if report.is_err() {
        print_end(&target.log());
    }
    let report = report?;
    write(&report, common.report.as_ref(), common.html.as_ref())
}

fn write(report: &impl Serialize, json: Option<&PathBuf>, html: Option<&PathBuf>) -> Result<(), Error> {
    if let Some(path) = html {
        std::fs::write(path, page(&serde_json::to_value(report)?))?;
    }
    let text = serde_json::to_string_pretty(report)?;
    match json {
        Some(path) => std::fs::write(path, text + "\n")?,
        None => println!("{text}"),
    }
    Ok(())
}

fn progress_bar(length: u64) -> Result<ProgressBar, Error> {
    let progress = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len}  {msg}")?);
    Ok(progress)
}

fn print_end(log: &str) {
    let lines: Vec<&str> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LOG_LINES)..] {
        eprintln!("{line}");
    }
}

/// Shape of a TURN load: name, allocations, packets a burst, bytes, bursts a second.
type TurnShape = (&'static str, usize, usize, usize, f64);

fn turn_scenario(scenario: TurnScenario) -> Result<(), Error> {
    const FRAMES_PER_SECOND: f64 = 30.0;
    const BURSTS_PER_SECOND: f64 = 1_000.0;
    match scenario {
        TurnScenario::Sparse {
            allocations,
            bytes,
            common,
        } => turn_load(
            ("turn sparse", allocations, 1, bytes, 50.0),
            Transport::Udp,
            &common,
        ),
        TurnScenario::Bursts {
            allocations,
            packets,
            bytes,
            common,
        } => turn_load(
            ("turn bursts", allocations, packets, bytes, FRAMES_PER_SECOND),
            Transport::Udp,
            &common,
        ),
        TurnScenario::Flow {
            megabits,
            bytes,
            common,
        } => {
            let packets = megabits * 1e6 / 8.0 / bytes.max(1) as f64 / BURSTS_PER_SECOND;
            let burst = (packets.round() as usize).max(1);
            let rate = BURSTS_PER_SECOND * packets / burst as f64;
            turn_load(("turn flow", 1, burst, bytes, rate), Transport::Udp, &common)
        }
        TurnScenario::Tcp {
            allocations,
            packets,
            bytes,
            common,
        } => turn_load(
            ("turn tcp", allocations, packets, bytes, FRAMES_PER_SECOND),
            Transport::Tcp,
            &common,
        ),
        TurnScenario::Allocations { allocations, common } => {
            let transport = common.transport.unwrap_or(Transport::Udp);
            with_turn_server(&common, |server, progress| {
                let target = common.target.as_str();
                turn::load::allocations(target, transport, allocations, server, progress)
            })
        }
    }
}

fn turn_load(shape: TurnShape, transport: Transport, common: &TurnCommon) -> Result<(), Error> {
    let (scenario, allocations, burst, bytes, bursts_per_second) = shape;
    let load = Load {
        scenario: scenario.to_owned(),
        target: common.target.as_str().to_owned(),
        transport: common.transport.unwrap_or(transport),
        allocations,
        burst,
        bytes,
        bursts_per_second,
        way: common.way,
        duration: Duration::from_secs(common.seconds.max(1)),
    };
    with_turn_server(common, |server, progress| {
        turn::load::run(&load, server, progress)
    })
}

fn with_turn_server<R: Serialize>(
    common: &TurnCommon,
    work: impl FnOnce(&turn::server::Server, &ProgressBar) -> Result<R, Error>,
) -> Result<(), Error> {
    let user = common.user.as_deref().and_then(|user| user.split_once(':'));
    let wanted = turn::server::Wanted {
        kind: common.target,
        address: common.relay_http.clone().or(common.server.clone()),
        pid: common.relay_pid,
        user: user.map(|(name, password)| (name.to_owned(), password.to_owned())),
        threads: common.shards,
    };
    let server = turn::server::Server::open(&wanted)?;
    target::pin_generator()?;
    let progress = progress_bar(common.seconds)?;
    let report = work(&server, &progress);
    progress.finish_and_clear();
    if report.is_err() {
        print_end(&server.log());
    }
    write(&report?, common.report.as_ref(), common.html.as_ref())
}
