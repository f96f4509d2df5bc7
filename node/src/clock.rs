//! The node's clocks. Everything that is billed or expires runs on CLOCK_BOOTTIME, so that time spent
//! suspended counts; dates on receipts and in tokens are wall time.

use std::sync::OnceLock;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

/// The moment the program first asked, by both clocks.
static BASE: OnceLock<(Instant, Duration)> = OnceLock::new();

fn boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

/// Now on CLOCK_BOOTTIME, as an `Instant` that the cores understand.
pub(crate) fn now() -> Instant {
    let (instant, at) = *BASE.get_or_init(|| (Instant::now(), boot()));
    instant + boot().saturating_sub(at)
}

/// Wall time in nanoseconds since the Unix epoch; 0 on a machine whose clock is set before it.
pub(crate) fn unix_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Wall time in seconds since the Unix epoch.
pub(crate) fn unix() -> u64 {
    unix_ns() / 1_000_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_never_runs_backwards() {
        let mut last = now();
        for _ in 0..1000 {
            let next = now();
            assert!(next >= last);
            last = next;
        }
    }
}
