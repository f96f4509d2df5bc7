//! Key frame requests towards one publisher's stream: whoever asks, PLI (RFC 4585 section 6.3.1) or FIR
//! (RFC 5104 section 3.5.1), the publisher hears at most one in an interval, and hears again until one comes.

use std::time::{Duration, Instant};

/// The requests of one video stream.
#[derive(Debug, Clone, Default)]
pub(crate) struct KeyframeRequests {
    wanted: bool,
    sent: Option<Instant>,
    /// FIR command number (RFC 5104 section 4.3.1.1).
    fir_sequence: u8,
}

impl KeyframeRequests {
    /// Somebody needs a key frame.
    pub(crate) fn want(&mut self) {
        self.wanted = true;
    }

    /// One arrived.
    pub(crate) fn arrived(&mut self) {
        self.wanted = false;
    }

    /// When the next request is due, if one is wanted.
    pub(crate) fn due(&self, interval: Duration, now: Instant) -> Option<Instant> {
        self.wanted.then(|| self.sent.map_or(now, |sent| sent + interval))
    }

    /// Whether to send a request now; if so, it counts as sent.
    pub(crate) fn poll(&mut self, interval: Duration, now: Instant) -> bool {
        let due = self.due(interval, now).is_some_and(|due| due <= now);
        if due {
            self.sent = Some(now);
        }
        due
    }

    /// The number of the next FIR command.
    pub(crate) fn next_fir_sequence(&mut self) -> u8 {
        self.fir_sequence = self.fir_sequence.wrapping_add(1);
        self.fir_sequence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_of_requests_becomes_one_in_an_interval_until_the_key_frame_comes() {
        let (start, interval) = (Instant::now(), Duration::from_millis(500));
        let mut requests = KeyframeRequests::default();
        let mut sent = 0;
        for ms in 0..2_000 {
            requests.want();
            sent += u32::from(requests.poll(interval, start + Duration::from_millis(ms)));
        }
        assert_eq!(sent, 4);
        requests.arrived();
        assert!(!requests.poll(interval, start + Duration::from_secs(9)));
    }
}
