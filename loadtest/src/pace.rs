//! Reading in rounds: where packets come faster than a thread can be woken for each, it sleeps a quarter of a
//! millisecond between two looks at its sockets and finds several in each. That halves what a packet costs the
//! generator, and adds at most that to the latency it sees, only under such load.

use std::thread::sleep;
use std::time::Duration;

/// Between two rounds.
pub const ROUND: u64 = 250_000;
/// The rate of packets above which there are rounds, looked at once in this time.
const RATE_WINDOW: u64 = 10_000_000;
const PACKETS_PER_WINDOW: u64 = 300;

/// Says when to sleep.
#[derive(Debug, Default)]
pub struct Pace {
    window_began: u64,
    packets_before: u64,
    is_busy: bool,
}

impl Pace {
    /// Sleeps until the next round where there is one, but not past `due`. `packets` were handled until now, ever.
    pub fn wait(&mut self, now: u64, due: u64, packets: u64) {
        if now >= self.window_began + RATE_WINDOW {
            self.is_busy = packets - self.packets_before > PACKETS_PER_WINDOW;
            self.window_began = now;
            self.packets_before = packets;
        }
        if self.is_busy && due > now {
            sleep(Duration::from_nanos(ROUND.min(due - now)));
        }
    }

    /// Whether there are rounds at the moment.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is_busy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_begin_with_many_packets_and_end_with_few() {
        let mut pace = Pace::default();
        pace.wait(RATE_WINDOW, 0, PACKETS_PER_WINDOW);
        assert!(!pace.is_busy());
        pace.wait(2 * RATE_WINDOW, 0, 2 * PACKETS_PER_WINDOW + 1);
        assert!(pace.is_busy());
        pace.wait(3 * RATE_WINDOW - 1, 0, 2 * PACKETS_PER_WINDOW + 1);
        assert!(pace.is_busy(), "looked at once a window");
        pace.wait(3 * RATE_WINDOW, 0, 2 * PACKETS_PER_WINDOW + 1);
        assert!(!pace.is_busy());
    }
}
