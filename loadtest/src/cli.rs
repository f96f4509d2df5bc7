//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::Error;
use loadtest::page::page;
use loadtest::process;
use loadtest::publisher::Arrival;
use loadtest::scenario::{self, Plan, Shape};
use loadtest::stage::{LossOn, Lossy, Stage};
use loadtest::target::{self, Kind, Target, Wanted};
use serde::Serialize;

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
    let Service::Sfu { scenario } = arguments.service;
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
    let progress = ProgressBar::with_draw_target(Some(common.seconds), ProgressDrawTarget::stderr());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} s  {msg}")?);
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
        eprintln!("{}", target.log());
    }
    let report = report?;
    if let Some(path) = &common.html {
        std::fs::write(path, page(&serde_json::to_value(&report)?))?;
    }
    let text = serde_json::to_string_pretty(&report)?;
    match &common.report {
        Some(path) => std::fs::write(path, text + "\n")?,
        None => println!("{text}"),
    }
    Ok(())
}
