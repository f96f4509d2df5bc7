//! What an admission costs the relay in CPU time: a call with token and proof, its permit and its voucher, and then the
//! requests and the lease of an allocation. Every admission is a new holder's, on a relay with books of its own.

use std::thread::sleep;
use std::time::{Duration, Instant};

use datagram::Inbox;
use identity::SigningKey;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::Error;
use crate::holder::{nonce, token};
use crate::process;
use crate::relay::Relay;
use crate::turn::allocation::Opening;
use crate::turn::link::{Link, Transport};
use crate::turn::server::credentials;

/// For so long the relay is looked at while nobody asks anything.
const IDLE: Duration = Duration::from_secs(4);

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// How many were weighed, after as many that warmed up.
    pub admissions: u32,
    /// CPU time of `POST /v1/turn/credentials`: HTTP, proof, token, permit, voucher and its commit.
    pub credentials_cpu_us: f64,
    /// CPU time of an allocation with that username: its challenge, itself, its lease with its commit, and its end.
    pub allocation_cpu_us: f64,
    /// What the relay uses while nobody asks, in microseconds a second. It is taken off the figures above.
    pub idle_cpu_us_per_second: f64,
    /// One signature of a proof or token checked on this machine, for comparison.
    pub signature_check_us: f64,
}

/// Weighs so many.
pub fn run(count: u32, progress: &ProgressBar) -> Result<Report, Error> {
    let relay = Relay::start_with(&[
        ("MILLIWAY_HTTP__REQUESTS_PER_SECOND", "100000".to_owned()),
        ("MILLIWAY_HTTP__REQUESTS_BURST", "100000".to_owned()),
    ])?;
    progress.set_length(2 * u64::from(count));
    let used = || process::usage(relay.ready.pid).ok_or("no /proc");
    let mut inbox = Inbox::new();
    let mut report = None;
    for round in 0..2 {
        let holders = (0..count)
            .map(|_| {
                let key = SigningKey::generate();
                let token = token(&relay.ready.http, &key, 10_000_000)?;
                Ok((key, token))
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let before = used()?.cpu_seconds;
        sleep(IDLE);
        let idle = (used()?.cpu_seconds - before) / IDLE.as_secs_f64();
        let nonce = nonce(&relay.ready.http)?;
        let (before, began) = (used()?.cpu_seconds, Instant::now());
        let mut sold = Vec::new();
        for (key, token) in &holders {
            sold.push(credentials(&relay.ready.http, &nonce, key, token)?);
            progress.inc(1);
        }
        let net = |before: f64, began: Instant, now: f64| {
            (now - before - idle * began.elapsed().as_secs_f64()) * 1e6 / f64::from(count)
        };
        let credentials_cpu_us = net(before, began, used()?.cpu_seconds);
        let (before, began) = (used()?.cpu_seconds, Instant::now());
        for (number, (credentials, server)) in (0..count).zip(&sold) {
            let number = round * count + number;
            let link = Link::open(Transport::Udp, *server, number)?;
            let mut allocation = Opening::begin(link, number, credentials)?.authenticate(&mut inbox)?;
            allocation.finish(&mut inbox)?;
            allocation.end()?;
            allocation.done(&mut inbox)?;
        }
        report = Some(Report {
            admissions: count,
            credentials_cpu_us,
            allocation_cpu_us: net(before, began, used()?.cpu_seconds),
            idle_cpu_us_per_second: idle * 1e6,
            signature_check_us: signature_check()?,
        });
    }
    report.ok_or_else(|| "nothing was weighed".into())
}

fn signature_check() -> Result<f64, Error> {
    const CHECKS: u32 = 2_000;
    let key = SigningKey::generate();
    let signature = key.sign(b"a proof");
    let began = Instant::now();
    for _ in 0..CHECKS {
        if !key.public_key().verify(b"a proof", &signature) {
            return Err("a signature that does not hold".into());
        }
    }
    Ok(began.elapsed().as_secs_f64() * 1e6 / f64::from(CHECKS))
}
