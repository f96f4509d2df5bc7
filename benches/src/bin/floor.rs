//! The floor under forwarding, one JSON object on standard output: `floor batch --packets 6 --subscribers 100`.

use std::process::ExitCode;
use std::time::Duration;

use benches::Error;
use benches::floor::{self, Arrival, LoadPlan, Plan, Scenario, Trips};
use benches::turn_floor::{self, TurnPlan};
use clap::{Args, Parser, Subcommand, ValueEnum};

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
    /// What loadtest's publishers send, in the batches that it gives.
    Load {
        /// Who sends what to whom.
        #[arg(value_enum)]
        who: Who,
        /// How many receive; in a conference, how many there are.
        #[arg(long)]
        subscribers: usize,
        /// How a frame's packets leave a publisher.
        #[arg(long, value_enum, default_value = "burst")]
        arrival: How,
        /// How long the relay waits for more after a first packet, in milliseconds.
        #[arg(long, default_value_t = 0.0)]
        tick: f64,
        /// For how long it is measured.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
    /// A TURN relay: ChannelData from clients to peers, and back.
    Turn {
        /// Several packets in a receive (GRO) and in a send (GSO), with one layout pass.
        #[arg(long)]
        batch: bool,
        /// How many allocations, each with a socket of its own.
        #[arg(long, default_value_t = 2_000)]
        allocations: usize,
        /// Payload of each packet.
        #[arg(long, default_value_t = 160)]
        bytes: usize,
        /// Packets that the client sends in one send.
        #[arg(long, default_value_t = 1)]
        burst: usize,
        /// Packets a second of each allocation.
        #[arg(long, default_value_t = 50.0)]
        rate: f64,
        /// Which way.
        #[arg(long, value_enum, default_value = "up")]
        way: Way,
        /// For how long it is measured.
        #[arg(long, default_value_t = 20)]
        seconds: u64,
    },
}

#[derive(Clone, Copy, ValueEnum)]
enum Way {
    Up,
    Down,
    Both,
}

#[derive(Clone, Copy, ValueEnum)]
enum Who {
    Broadcast,
    Conference,
}

#[derive(Clone, Copy, ValueEnum)]
enum How {
    Burst,
    Paced,
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
        Work::Turn {
            batch,
            allocations,
            bytes,
            burst,
            rate,
            way,
            seconds,
        } => {
            let report = turn_floor::run(&TurnPlan {
                is_batched: batch,
                allocations,
                bytes,
                burst,
                bursts_per_second: rate / burst.max(1) as f64,
                way: match way {
                    Way::Up => turn_floor::Way::Up,
                    Way::Down => turn_floor::Way::Down,
                    Way::Both => turn_floor::Way::Both,
                },
                duration: Duration::from_secs(seconds),
            })?;
            return Ok(serde_json::to_string_pretty(&report)?);
        }
        Work::Load {
            who,
            subscribers,
            arrival,
            tick,
            seconds,
        } => {
            let report = floor::run_load(&LoadPlan {
                scenario: match who {
                    Who::Broadcast => Scenario::Broadcast(subscribers),
                    Who::Conference => Scenario::Conference(subscribers),
                },
                arrival: match arrival {
                    How::Burst => Arrival::Burst,
                    How::Paced => Arrival::Paced,
                },
                tick: Duration::try_from_secs_f64(tick / 1e3)?,
                duration: Duration::from_secs(seconds),
            })?;
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
