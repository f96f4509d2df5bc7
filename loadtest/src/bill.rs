//! Is the bill right? Many short paid sessions of TURN, each with a receipt, beside a capture of the wire that knows
//! nothing of the relay: what was captured, rated anew, has to be what was paid.
//!
//! The payload of every packet says whose it is and how long, so that the capture needs no knowledge of ports; times
//! are those of the Allocate and Refresh answers on the wire.

mod audit;
mod capture;
mod session;

pub use audit::{Audit, audit, bytes, receipt};
pub use capture::{Capture, Seen};
pub use session::{Purse, Session, play, sell};

use std::collections::BTreeMap;

use identity::Did;
use indicatif::ProgressBar;

use crate::Error;

/// Sessions that are live at the same time: each has a client and a peer of its own.
const WAVE: usize = 64;

/// The most sessions of a run: each client has a network of its own on loopback.
pub const SESSIONS_MAX: u32 = 16_000;

/// Plays so many sessions at a relay and compares its receipts with the wire.
pub fn run(base: &str, relay: &Did, sessions: u32, progress: &ProgressBar) -> Result<Audit, Error> {
    if sessions > SESSIONS_MAX {
        return Err(format!("at most {SESSIONS_MAX} sessions").into());
    }
    let capture = Capture::start()?;
    let run = capture.run();
    let mut played: BTreeMap<u32, Session> = BTreeMap::new();
    progress.set_length(u64::from(sessions));
    let numbers: Vec<u32> = (0..sessions).collect();
    for wave in numbers.chunks(WAVE) {
        let sold = wave
            .iter()
            .map(|number| sell(base, *number, Purse::of(*number)))
            .collect::<Result<Vec<_>, _>>()?;
        for session in play(sold, run)? {
            played.insert(session.number, session);
        }
        progress.set_position(played.len() as u64);
    }
    let seen = capture.stop()?;
    let bills = played
        .values()
        .map(|session| Ok((session, receipt(session, relay)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    Ok(audit(&bills, &seen))
}
