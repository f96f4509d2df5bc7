//! Transport-wide congestion control feedback (draft-holmer-rmcat-transport-wide-cc-extensions-01): which of a
//! publisher's packets arrived, and when, on all its streams together.

use std::time::{Duration, Instant};

use wire::WriteError;
use wire::rtcp::Writer;

use crate::replay::estimate_index;

/// Packets between two feedback messages that are remembered: 2,048 in 50 ms are 390 Mbit/s.
const REMEMBERED: usize = 2048;
/// Packets one feedback message reports at most: deltas and chunks stay far below a datagram.
const REPORTED_MAX: usize = 400;
/// Unit of an arrival delta.
const DELTA_MICROS: i64 = 250;
/// Unit of the reference time.
const REFERENCE_MICROS: i64 = 64_000;

/// The arrivals of one session.
#[derive(Debug)]
pub(crate) struct Arrivals {
    /// By transport-wide number; the arrival in microseconds since `epoch`.
    /// Made with the first arrival: who only subscribes needs none.
    arrivals: Option<Box<[Option<i64>; REMEMBERED]>>,
    /// The first number not reported yet.
    next: Option<u64>,
    highest: Option<u64>,
    count: u8,
    epoch: Instant,
    media_ssrc: u32,
}

impl Arrivals {
    pub(crate) fn new(now: Instant) -> Arrivals {
        Arrivals {
            arrivals: None,
            next: None,
            highest: None,
            count: 0,
            epoch: now,
            media_ssrc: 0,
        }
    }

    /// A packet with this transport-wide number arrived.
    pub(crate) fn arrived(&mut self, number: u16, ssrc: u32, now: Instant) {
        let Some(index) = estimate_index(self.highest, number) else {
            return;
        };
        let next = *self.next.get_or_insert(index);
        let arrivals = self.arrivals.get_or_insert_with(|| Box::new([None; REMEMBERED]));
        if index < next {
            // Already reported as lost; at most one interval late, which is rare.
            return;
        }
        if index - next >= REMEMBERED as u64 {
            // A jump: the sender restarted its count, or nothing was heard for long.
            arrivals.fill(None);
            self.next = Some(index);
        }
        self.highest = Some(self.highest.map_or(index, |highest| highest.max(index)));
        let micros = now.saturating_duration_since(self.epoch).as_micros() as i64;
        arrivals[index as usize % REMEMBERED] = Some(micros);
        self.media_ssrc = ssrc;
    }

    /// Whether there is anything to report.
    pub(crate) fn pending(&self) -> bool {
        matches!((self.next, self.highest), (Some(next), Some(highest)) if next <= highest)
    }

    /// Writes one feedback message for what was not reported yet; call again while [`Arrivals::pending`].
    pub(crate) fn write(&mut self, sender_ssrc: u32, writer: &mut Writer<'_>) -> Result<(), WriteError> {
        let (Some(next), Some(highest), Some(arrivals)) = (self.next, self.highest, &mut self.arrivals)
        else {
            return Ok(());
        };
        let arrived = |index: u64| arrivals[index as usize % REMEMBERED];
        // The highest number arrived, so there is a first one.
        let Some((base, first)) = (next..=highest).find_map(|index| Some((index, arrived(index)?))) else {
            return Ok(());
        };
        let reference = first.div_euclid(REFERENCE_MICROS);
        let mut at = reference * REFERENCE_MICROS;
        let mut deltas = [None; REPORTED_MAX];
        let (mut count, mut last_arrived) = (0, 0);
        for index in base..=highest.min(base + REPORTED_MAX as u64 - 1) {
            if let Some(micros) = arrived(index) {
                // Rounded against the running sum, so that errors do not add up.
                let delta = (micros - at).div_euclid(DELTA_MICROS);
                let Ok(delta) = i16::try_from(delta) else {
                    break;
                };
                at += i64::from(delta) * DELTA_MICROS;
                deltas[count] = Some(delta);
                last_arrived = count;
            }
            count += 1;
        }
        let deltas = &deltas[..=last_arrived];
        writer.transport_wide_feedback(
            sender_ssrc,
            self.media_ssrc,
            base as u16,
            reference as i32,
            self.count,
            deltas.iter().copied(),
        )?;
        self.count = self.count.wrapping_add(1);
        let end = base + deltas.len() as u64;
        for index in next..end {
            arrivals[index as usize % REMEMBERED] = None;
        }
        self.next = Some(end);
        Ok(())
    }
}

/// The 24-bit abs-send-time of an instant: seconds in 6.18 fixed point.
pub(crate) fn abs_send_time(since_epoch: Duration) -> [u8; 3] {
    let fixed = (since_epoch.as_micros() << 18) / 1_000_000;
    let bytes = (fixed as u32).to_be_bytes();
    [bytes[1], bytes[2], bytes[3]]
}

#[cfg(test)]
mod tests {
    use wire::rtcp::{Packet, compound};

    use super::*;

    /// Number and arrival in 250 us units of every packet that a written message calls received.
    fn told(arrivals: &mut Arrivals) -> Vec<(u16, i64)> {
        let mut buffer = [0; 1400];
        let mut told = Vec::new();
        while arrivals.pending() {
            let mut writer = Writer::new(&mut buffer);
            arrivals.write(1, &mut writer).unwrap();
            let length = writer.finish();
            for packet in compound(&buffer[..length]) {
                let Packet::TransportWideFeedback(feedback) = packet.unwrap() else {
                    panic!("not feedback")
                };
                let mut at = i64::from(feedback.reference_time) * 256;
                for (number, delta) in feedback.statuses() {
                    if let Some(delta) = delta {
                        at += i64::from(delta);
                        told.push((number, at));
                    }
                }
            }
        }
        told
    }

    #[test]
    fn every_arrival_is_told_once_with_its_time() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        let mut expected = Vec::new();
        for step in 0..1_500u64 {
            if step % 7 == 3 {
                continue;
            }
            let number = 65_000u16.wrapping_add(step as u16);
            let at = start + Duration::from_micros(10_000 + step * 1_250);
            arrivals.arrived(number, 9, at);
            expected.push((number, 40 + step as i64 * 5));
        }
        assert_eq!(told(&mut arrivals), expected);
        assert!(told(&mut arrivals).is_empty());
    }

    #[test]
    fn a_pause_longer_than_a_delta_can_say_starts_a_new_message() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.arrived(1, 9, start);
        arrivals.arrived(2, 9, start + Duration::from_secs(20));
        assert_eq!(told(&mut arrivals), [(1, 0), (2, 80_000)]);
    }

    #[test]
    fn a_jump_of_the_numbers_is_survived() {
        let start = Instant::now();
        let mut arrivals = Arrivals::new(start);
        arrivals.arrived(10, 9, start);
        arrivals.arrived(30_000, 9, start);
        arrivals.arrived(5, 9, start);
        assert_eq!(told(&mut arrivals), [(30_000, 0)]);
    }
}
