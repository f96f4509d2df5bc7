//! The floor under forwarding, one JSON object on standard output: `floor batch --packets 6 --subscribers 100`.

use std::process::ExitCode;
use std::time::Duration;

use benches::Error;
use benches::floor::{self, Plan, Trips};
use clap::{Args, Parser, Subcommand};

#[derive(Parser)]
#[command(about = "What forwarding costs when nothing but the unavoidable is done")]
struct Arguments {
    #[command(subcommand)]
    work: Work,
}

#[derive(Subcommand)]
enum Work {
    /// Receive one, encrypt for each subscriber, send one.
    Single {
        #[command(flatten)]
        load: Load,
        /// Published packets a second.
        #[arg(long, default_value_t = 180.0)]
        rate: f64,
    },
    /// The same with several packets in a receive (GRO) and in a send (GSO).
    Batch {
        /// Packets in one send.
        #[arg(long)]
        packets: usize,
        #[command(flatten)]
        load: Load,
        /// Published packets a second, in bursts of one send.
        #[arg(long, default_value_t = 180.0)]
        rate: f64,
    },
    /// Encryption alone, as fast as it goes.
    Seal {
        #[command(flatten)]
        load: Load,
    },
}

#[derive(Args)]
struct Load {
    /// How many receive, each with its own key and socket.
    #[arg(long, default_value_t = 100)]
    subscribers: usize,
    /// RTP payload of each packet; header and tag add 28.
    #[arg(long, default_value_t = loadtest::media::PAYLOAD_MAX)]
    bytes: usize,
    /// For how long it is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
}

fn main() -> ExitCode {
    match run(Arguments::parse().work) {
        Ok(report) => {
            println!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("floor: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(work: Work) -> Result<String, Error> {
    let (trips, load, rate) = match work {
        Work::Single { load, rate } => (Trips::Single, load, rate),
        Work::Batch { packets, load, rate } => (Trips::Batch(packets), load, rate),
        Work::Seal { load } => {
            let duration = Duration::from_secs(load.seconds);
            let report = floor::run_seal(load.subscribers, load.bytes, duration)?;
            return Ok(serde_json::to_string_pretty(&report)?);
        }
    };
    let report = floor::run(&Plan {
        trips,
        subscribers: load.subscribers,
        bytes: load.bytes,
        rate,
        duration: Duration::from_secs(load.seconds),
    })?;
    Ok(serde_json::to_string_pretty(&report)?)
}
