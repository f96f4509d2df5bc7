//! What can be asked of an SFU: one to many, everybody to everybody, many small rooms, and how many it holds.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde::Serialize;

use crate::Error;
use crate::process::Usage;
use crate::publisher::Arrival;
use crate::report::{Report, Setting};
use crate::signalling::{Manner, Wish};
use crate::stage::{LossOn, Lossy, Stage};

/// What a sweep holds on to.
const LOSS_PERCENT_MAX: f64 = 0.5;
const P99_MICROSECONDS_MAX: u32 = 50_000;
/// From one step of a sweep to the next, at least.
const SWEEP_STEP_MIN: usize = 5;

/// Which load.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// One publisher to so many.
    Broadcast {
        /// Receivers.
        subscribers: usize,
    },
    /// So many who publish and receive all others.
    Conference {
        /// People.
        participants: usize,
    },
    /// Several such rooms.
    Rooms {
        /// Rooms.
        rooms: usize,
        /// People in each.
        participants: usize,
    },
}

/// A run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The kind of server, for the report.
    pub target: String,
    /// How frames arrive.
    pub arrival: Arrival,
    /// For how long it is measured.
    pub duration: Duration,
    /// Loss on purpose.
    pub lossy: Option<Lossy>,
    /// The SRTP profile that has to come out of the handshake.
    pub profile: Option<String>,
}

/// A sweep's steps and the largest load that held.
#[derive(Clone, Debug, Serialize)]
pub struct Sweep {
    /// "sfu sweep".
    pub scenario: &'static str,
    /// The kind of server.
    pub target: String,
    /// How frames arrived.
    pub arrival: Arrival,
    /// The largest number of receivers with little loss and a short tail.
    pub held_subscribers: usize,
    /// What ended it: "loss", "latency", "limit" or "generator".
    pub ended_by: &'static str,
    /// At the last step that held: the server's share of one core.
    pub held_relay_cpu_share: Option<f64>,
    /// And the generator's.
    pub held_generator_cpu_share: f64,
    /// Every step.
    pub steps: Vec<Report>,
}

/// A name for rooms of this run, so that runs do not meet.
fn room(number: usize) -> String {
    format!("load-{}-{number}", std::process::id())
}

fn name(publisher: u16) -> String {
    format!("p{publisher}")
}

/// Runs one load and reports.
pub fn run(mut stage: Stage, shape: Shape, plan: &Plan, progress: &ProgressBar) -> Result<Report, Error> {
    match shape {
        Shape::Broadcast { subscribers } => {
            let publisher = open_broadcast(&mut stage, progress)?;
            let before = stage.server_usage();
            let began = Instant::now();
            add_subscribers(&mut stage, publisher, subscribers, progress)?;
            report(
                &mut stage,
                "sfu broadcast",
                (1, 0),
                (before, began),
                plan,
                progress,
            )
        }
        Shape::Conference { participants } => {
            let began = Instant::now();
            let before = stage.server_usage();
            open_room(&mut stage, 0, participants, progress)?;
            stage.gather(true)?;
            report(
                &mut stage,
                "sfu conference",
                (1, participants),
                (before, began),
                plan,
                progress,
            )
        }
        Shape::Rooms { rooms, participants } => {
            let began = Instant::now();
            let before = stage.server_usage();
            for number in 0..rooms {
                open_room(&mut stage, number, participants, progress)?;
            }
            stage.gather(true)?;
            report(
                &mut stage,
                "sfu rooms",
                (rooms, participants),
                (before, began),
                plan,
                progress,
            )
        }
    }
}

/// Adds receivers to a broadcast, from `from` up to `to`, until it no longer holds.
pub fn sweep(
    mut stage: Stage,
    from: usize,
    to: usize,
    plan: &Plan,
    progress: &ProgressBar,
) -> Result<Sweep, Error> {
    let publisher = open_broadcast(&mut stage, progress)?;
    let before = stage.server_usage();
    let mut steps: Vec<Report> = Vec::new();
    let mut there = 0;
    let mut wanted = from.clamp(1, to);
    let ended_by = loop {
        let began = Instant::now();
        if let Err(error) = add_subscribers(&mut stage, publisher, wanted - there, progress) {
            // A server at its limit lets nobody in any more: that is an end, not a failure of the run.
            if steps.is_empty() {
                return Err(error);
            }
            progress.println(format!("at {wanted}: {error}"));
            break "joining";
        }
        there = wanted;
        let step = report(&mut stage, "sfu sweep", (1, 0), (before, began), plan, progress)?;
        let (loss, p99) = (step.loss_percent, step.latency_microseconds.p99);
        let starved = step.generator.generator_starved;
        progress.println(format!(
            "{there} subscribers: loss {loss:.3} %, p99 {:.1} ms, server {:.0} % of a core, generator {:.0} %{}",
            f64::from(p99) / 1e3,
            step.relay.map_or(0.0, |relay| relay.cpu_share * 100.0),
            step.generator.generator_cpu_share * 100.0,
            if starved { " (starved)" } else { "" }
        ));
        steps.push(step);
        if loss > LOSS_PERCENT_MAX || p99 > P99_MICROSECONDS_MAX {
            break match (starved, loss > LOSS_PERCENT_MAX) {
                (true, _) => "generator",
                (false, true) => "loss",
                (false, false) => "latency",
            };
        }
        if there >= to {
            break "limit";
        }
        wanted = (there + (there / 4).max(SWEEP_STEP_MIN)).min(to);
    };
    let holds = |step: &&Report| {
        step.loss_percent <= LOSS_PERCENT_MAX && step.latency_microseconds.p99 <= P99_MICROSECONDS_MAX
    };
    let held = steps.iter().filter(holds).max_by_key(|step| step.subscribers);
    Ok(Sweep {
        scenario: "sfu sweep",
        target: plan.target.clone(),
        arrival: plan.arrival,
        held_subscribers: held.map_or(0, |step| step.subscribers),
        ended_by,
        held_relay_cpu_share: held.and_then(|step| step.relay).map(|relay| relay.cpu_share),
        held_generator_cpu_share: held.map_or(0.0, |step| step.generator.generator_cpu_share),
        steps,
    })
}

fn open_broadcast(stage: &mut Stage, progress: &ProgressBar) -> Result<u16, Error> {
    let publisher = stage.number_publisher();
    let wish = Wish::Publish {
        room: room(0),
        name: name(publisher),
    };
    stage.seat(wish, Some(publisher), Vec::new(), progress)?;
    stage.gather(false)?;
    Ok(publisher)
}

fn add_subscribers(
    stage: &mut Stage,
    publisher: u16,
    count: usize,
    progress: &ProgressBar,
) -> Result<(), Error> {
    for _ in 0..count {
        let wish = Wish::Subscribe {
            room: room(0),
            names: vec![name(publisher)],
        };
        stage.seat(wish, None, vec![publisher], progress)?;
    }
    stage.gather(true)
}

fn open_room(
    stage: &mut Stage,
    number: usize,
    participants: usize,
    progress: &ProgressBar,
) -> Result<(), Error> {
    let people: Vec<u16> = (0..participants).map(|_| stage.number_publisher()).collect();
    let others = |me: u16| {
        people
            .iter()
            .copied()
            .filter(|other| *other != me)
            .collect::<Vec<_>>()
    };
    let room = room(number);
    if stage.manner() == Manner::OneConnection {
        for me in &people {
            let wish = Wish::Call {
                room: room.clone(),
                name: name(*me),
                others: participants - 1,
            };
            stage.seat(wish, Some(*me), others(*me), progress)?;
        }
        return Ok(());
    }
    for me in &people {
        let wish = Wish::Publish {
            room: room.clone(),
            name: name(*me),
        };
        stage.seat(wish, Some(*me), Vec::new(), progress)?;
    }
    // Who subscribes must find everybody there.
    stage.gather(false)?;
    for me in &people {
        let all = others(*me);
        let each: Vec<Vec<u16>> = match stage.manner() {
            Manner::SubscribeEach => all.into_iter().map(|other| vec![other]).collect(),
            _ => vec![all],
        };
        for heard in each {
            let wish = Wish::Subscribe {
                room: room.clone(),
                names: heard.iter().map(|other| name(*other)).collect(),
            };
            stage.seat(wish, None, heard, progress)?;
        }
    }
    Ok(())
}

fn report(
    stage: &mut Stage,
    scenario: &str,
    (rooms, participants): (usize, usize),
    (server_before, began): (Option<Usage>, Instant),
    plan: &Plan,
    progress: &ProgressBar,
) -> Result<Report, Error> {
    let connect_seconds = began.elapsed().as_secs_f64();
    let profile = profile_name(stage.profile()?);
    if let Some(wanted) = plan.profile.as_deref().filter(|wanted| *wanted != profile) {
        return Err(format!(
            "the handshake gave {profile}, not {wanted}: neither side can be told otherwise"
        )
        .into());
    }
    let setting = Setting {
        scenario: scenario.to_owned(),
        target: plan.target.clone(),
        arrival: plan.arrival,
        profile: profile.to_owned(),
        subscribers: stage.receivers(),
        publishers: stage.publishers(),
        rooms,
        participants,
        connect_seconds,
        loss: plan
            .lossy
            .filter(|lossy| lossy.on != LossOn::None)
            .map(|lossy| (lossy.percent, lossy.on)),
        server_before,
    };
    let measured = stage.measure(plan.duration, plan.lossy, progress)?;
    Ok(Report::new(&setting, &measured))
}

fn profile_name(profile: sfu::srtp::Profile) -> &'static str {
    match profile {
        sfu::srtp::Profile::AeadAes128Gcm => "gcm128",
        sfu::srtp::Profile::AeadAes256Gcm => "gcm256",
        sfu::srtp::Profile::Aes128CmSha1_80 => "sha1-80",
    }
}
