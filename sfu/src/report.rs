//! Reception statistics of a published stream (RFC 3550 section 6.4.1, appendix A.3 and A.8) and the sender
//! report it gave, from which subscribers' sender reports are made.

use std::time::{Duration, Instant};

use wire::rtcp::ReportBlock;

/// A publisher's sender report: one instant on its wall clock and on its RTP clock.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderClock {
    /// NTP time as sent.
    pub(crate) ntp: u64,
    /// The RTP timestamp of the same instant.
    pub(crate) rtp_timestamp: u32,
    /// When the report arrived.
    pub(crate) arrival: Instant,
}

/// The middle 32 bits of an NTP time, as LSR carries them.
pub(crate) fn middle_of_ntp(ntp: u64) -> u32 {
    (ntp >> 16) as u32
}

/// A duration in 65,536ths of a second, as DLSR carries it.
pub(crate) fn in_65536ths(duration: Duration) -> u32 {
    ((duration.as_micros().min(u128::from(u32::MAX)) as u64) * 65_536 / 1_000_000).min(u64::from(u32::MAX))
        as u32
}

/// Counts of one source.
#[derive(Debug, Clone)]
pub(crate) struct Reception {
    clock_rate: u32,
    base: Option<u64>,
    highest: u64,
    received: u64,
    expected_prior: u64,
    received_prior: u64,
    /// Scaled by 16, as in RFC 3550 appendix A.8.
    jitter: u64,
    /// Arrival on the RTP clock less the timestamp, of the packet before.
    transit: Option<i64>,
    epoch: Instant,
}

impl Reception {
    pub(crate) fn new(clock_rate: u32, now: Instant) -> Reception {
        Reception {
            clock_rate,
            base: None,
            highest: 0,
            received: 0,
            expected_prior: 0,
            received_prior: 0,
            jitter: 0,
            transit: None,
            epoch: now,
        }
    }

    /// An original packet arrived (retransmissions are another source's).
    pub(crate) fn arrived(&mut self, index: u64, timestamp: u32, now: Instant) {
        // A packet before the first one received was expected too.
        self.base = Some(self.base.map_or(index, |base| base.min(index)));
        self.highest = self.highest.max(index);
        self.received += 1;
        let elapsed = now.saturating_duration_since(self.epoch).as_micros() as u64;
        let arrival = elapsed.wrapping_mul(u64::from(self.clock_rate)) / 1_000_000;
        let transit = arrival as i64 - i64::from(timestamp);
        if let Some(previous) = self.transit {
            // Only 32 bits mean anything: timestamps wrap.
            let difference = (transit.wrapping_sub(previous) as i32).unsigned_abs();
            self.jitter = (self.jitter + u64::from(difference)).saturating_sub((self.jitter + 8) >> 4);
        }
        self.transit = Some(transit);
    }

    /// The report block for this source; starts the next interval.
    pub(crate) fn report(
        &mut self,
        ssrc: u32,
        clock: Option<SenderClock>,
        now: Instant,
    ) -> Option<ReportBlock> {
        let base = self.base?;
        let expected = self.highest - base + 1;
        let expected_now = expected - self.expected_prior.min(expected);
        let received_now = self.received - self.received_prior;
        self.expected_prior = expected;
        self.received_prior = self.received;
        let lost_now = expected_now.saturating_sub(received_now);
        let fraction = (lost_now << 8).checked_div(expected_now).unwrap_or(0).min(255);
        Some(ReportBlock {
            ssrc,
            fraction_lost: fraction as u8,
            cumulative_lost: (expected as i64 - self.received as i64).clamp(-0x80_0000, 0x7f_ffff) as i32,
            extended_highest_sequence: self.highest as u32,
            jitter: (self.jitter >> 4) as u32,
            last_sender_report: clock.map_or(0, |clock| middle_of_ntp(clock.ntp)),
            delay_since_last_sender_report: clock.map_or(0, |clock| {
                in_65536ths(now.saturating_duration_since(clock.arrival))
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_is_reported_by_interval_and_in_total() {
        let start = Instant::now();
        let mut reception = Reception::new(90_000, start);
        for index in (100..200).filter(|index| index % 4 != 0) {
            reception.arrived(index, 0, start);
        }
        let first = reception.report(7, None, start).unwrap();
        assert_eq!(
            first.fraction_lost,
            (24 * 256 / 99) as u8,
            "24 of the 99 from 101 on"
        );
        assert_eq!(first.cumulative_lost, 24);
        assert_eq!(first.extended_highest_sequence, 199);
        for index in 200..300 {
            reception.arrived(index, 0, start);
        }
        let second = reception.report(7, None, start).unwrap();
        assert_eq!((second.fraction_lost, second.cumulative_lost), (0, 24));
    }

    #[test]
    fn a_steady_stream_has_no_jitter_and_an_unsteady_one_has() {
        let start = Instant::now();
        let mut reception = Reception::new(48_000, start);
        for packet in 0..200u32 {
            let at = start + Duration::from_millis(20 * u64::from(packet));
            reception.arrived(u64::from(packet), u32::MAX.wrapping_add(960 * packet), at);
        }
        assert_eq!(reception.report(1, None, start).unwrap().jitter, 0);
        for packet in 200..1_000u32 {
            let late = if packet % 2 == 0 { 10 } else { 0 };
            let at = start + Duration::from_millis(20 * u64::from(packet) + late);
            reception.arrived(u64::from(packet), u32::MAX.wrapping_add(960 * packet), at);
        }
        let jitter = reception.report(1, None, start).unwrap().jitter;
        assert!((460..=485).contains(&jitter), "10 ms are 480 units, not {jitter}");
    }

    #[test]
    fn the_delay_since_the_sender_report_is_told() {
        let start = Instant::now();
        let mut reception = Reception::new(48_000, start);
        reception.arrived(0, 0, start);
        let clock = SenderClock {
            ntp: 0x1111_2222_3333_4444,
            rtp_timestamp: 0,
            arrival: start,
        };
        let block = reception
            .report(1, Some(clock), start + Duration::from_millis(1_500))
            .unwrap();
        assert_eq!(block.last_sender_report, 0x2222_3333);
        assert_eq!(block.delay_since_last_sender_report, 98_304);
    }
}
