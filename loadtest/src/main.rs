//! The load generator: `loadtest sfu broadcast --subscribers 50 --seconds 20`. The report is one JSON object on
//! standard output; progress goes to standard error.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use loadtest::broadcast::{self, Plan};
use loadtest::relay::Relay;

#[derive(Parser)]
#[command(about = "Simulated clients on real sockets against a relay")]
struct Arguments {
    #[command(subcommand)]
    core: Core,
}

#[derive(Subcommand)]
enum Core {
    /// The SFU, through WHIP and WHEP.
    Sfu {
        #[command(subcommand)]
        scenario: Scenario,
    },
}

#[derive(Subcommand)]
enum Scenario {
    /// One publisher at 1.5 Mbit/s of video and 50 packets/s of audio to many subscribers.
    Broadcast {
        /// How many watch.
        #[arg(long, default_value_t = 50)]
        subscribers: usize,
        /// For how long it is measured, after all are connected.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// A relay that already runs, "http://host:port"; without it one is started on free ports.
        #[arg(long)]
        relay_http: Option<String>,
        /// That relay's process, to report what it used.
        #[arg(long, requires = "relay_http")]
        relay_pid: Option<u32>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loadtest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), loadtest::Error> {
    let Core::Sfu {
        scenario:
            Scenario::Broadcast {
                subscribers,
                seconds,
                relay_http,
                relay_pid,
            },
    } = arguments.core;
    let progress = ProgressBar::with_draw_target(Some(seconds), ProgressDrawTarget::stderr());
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} s  {msg}")?);
    let own = if relay_http.is_none() {
        Some(Relay::start()?)
    } else {
        None
    };
    let (base, pid) = match (&own, relay_http) {
        (Some(relay), _) => (relay.ready.http.clone(), Some(relay.ready.pid)),
        (None, base) => (base.unwrap_or_default(), relay_pid),
    };
    let plan = Plan {
        base,
        pid,
        subscribers,
        duration: Duration::from_secs(seconds),
    };
    let report = broadcast::run(&plan, &progress);
    progress.finish_and_clear();
    if let (Err(_), Some(relay)) = (&report, &own) {
        eprintln!("{}", relay.log());
    }
    println!("{}", serde_json::to_string_pretty(&report?)?);
    Ok(())
}
