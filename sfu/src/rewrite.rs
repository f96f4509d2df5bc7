//! From a publisher's numbering to a subscriber's: sequence numbers without the gaps of what was dropped on
//! purpose, timestamps without the jumps of a new source.
//!
//! A run of forwarded packets is a [`Segment`]: one constant between the two numberings. A new segment starts
//! where a subscriber joins, resumes or switches, always at a key frame for video, and continues right behind
//! the highest number sent, so the receiver sees no gap it would ask to be filled. Gaps inside a segment are
//! the publisher's losses: they stay visible, and a NACK for them finds its way back through the segment.

use std::time::Instant;

use crate::discard::Discard;
use crate::slot::Stored;

/// Segments remembered for NACKs: switches within the history's few seconds.
const SEGMENTS_MAX: usize = 8;

/// A run of packets that share one mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Serial of the published stream.
    pub(crate) stream: u64,
    base_in: u64,
    base_out: u64,
    timestamp_offset: u32,
}

impl Segment {
    fn index_out(&self, index_in: u64) -> Option<u64> {
        Some(self.base_out + index_in.checked_sub(self.base_in)?)
    }

    fn index_in(&self, index_out: u64) -> Option<u64> {
        Some(self.base_in + index_out.checked_sub(self.base_out)?)
    }

    /// The subscriber's timestamp for a publisher's.
    pub(crate) fn timestamp_out(&self, timestamp_in: u32) -> u32 {
        timestamp_in.wrapping_add(self.timestamp_offset)
    }
}

/// Where a packet goes in the subscriber's numbering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Placed {
    /// Packet index, ROC and sequence number.
    pub(crate) index: u64,
    /// RTP timestamp.
    pub(crate) timestamp: u32,
    segment: Segment,
    starts_segment: bool,
}

/// The numbering of one subscriber's stream.
#[derive(Debug)]
pub(crate) struct Rewrite {
    segments: [Option<Segment>; SEGMENTS_MAX],
    /// How many segments were ever started; the latest is at `(started - 1) % SEGMENTS_MAX`.
    started: usize,
    waiting: bool,
    first_index: u64,
    highest: Option<u64>,
    /// The latest timestamp sent, and when.
    latest: Option<(u32, Instant)>,
    clock_rate: u32,
}

impl Rewrite {
    /// A numbering that starts at `first_sequence`.
    pub(crate) fn new(first_sequence: u16, clock_rate: u32) -> Rewrite {
        Rewrite {
            segments: [None; SEGMENTS_MAX],
            started: 0,
            waiting: true,
            // Below 2^15, so that a receiver that misses the first packets still guesses ROC 0 right.
            first_index: u64::from(first_sequence >> 1),
            highest: None,
            latest: None,
            clock_rate,
        }
    }

    /// The clock of the RTP timestamps, known once the source is.
    pub(crate) fn set_clock_rate(&mut self, clock_rate: u32) {
        self.clock_rate = clock_rate;
    }

    /// Waits for the next packet that can be joined at.
    pub(crate) fn wait(&mut self) {
        self.waiting = true;
    }

    /// Whether nothing is forwarded until one comes.
    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting
    }

    /// The segment that is being sent.
    pub(crate) fn current(&self) -> Option<&Segment> {
        self.segments[self.started.checked_sub(1)? % SEGMENTS_MAX].as_ref()
    }

    /// Where `stored` of stream `stream` would go. Nothing changes until [`Rewrite::commit`], so that a
    /// packet that is not paid for leaves no gap.
    pub(crate) fn place(&self, stored: &Stored, stream: u64, now: Instant) -> Result<Placed, Discard> {
        let current = self.current().filter(|segment| segment.stream == stream);
        if let Some(segment) = current.filter(|_| !self.waiting) {
            let index = segment.index_out(stored.index).ok_or(Discard::BeforeJoin)?;
            let timestamp = segment.timestamp_out(stored.timestamp);
            return Ok(Placed {
                index,
                timestamp,
                segment: *segment,
                starts_segment: false,
            });
        }
        if !stored.starts_key_frame {
            return Err(Discard::AwaitingKeyFrame);
        }
        let timestamp_offset = match (current, self.latest) {
            // The same source resumes: its clock kept running.
            (Some(segment), _) => segment.timestamp_offset,
            (None, None) => 0,
            (None, Some((timestamp, at))) => {
                let elapsed = now.saturating_duration_since(at).as_micros() as u64;
                let ticks = (elapsed.saturating_mul(u64::from(self.clock_rate)) / 1_000_000).max(1);
                timestamp
                    .wrapping_add(ticks as u32)
                    .wrapping_sub(stored.timestamp)
            }
        };
        let index = self.highest.map_or(self.first_index, |highest| highest + 1);
        let segment = Segment {
            stream,
            base_in: stored.index,
            base_out: index,
            timestamp_offset,
        };
        let timestamp = segment.timestamp_out(stored.timestamp);
        Ok(Placed {
            index,
            timestamp,
            segment,
            starts_segment: true,
        })
    }

    /// The packet was paid for and is being sent.
    pub(crate) fn commit(&mut self, placed: &Placed, now: Instant) {
        if placed.starts_segment {
            self.segments[self.started % SEGMENTS_MAX] = Some(placed.segment);
            self.started += 1;
            self.waiting = false;
        }
        if self.highest.is_none_or(|highest| placed.index > highest) {
            self.highest = Some(placed.index);
            self.latest = Some((placed.timestamp, now));
        }
    }

    /// The publisher's packet behind a sequence number that the subscriber misses: its index, the
    /// subscriber's index, and the segment.
    pub(crate) fn trace(&self, sequence: u16) -> Option<(u64, u64, Segment)> {
        let highest = self.highest?;
        let index_out =
            crate::replay::estimate_index(Some(highest), sequence).filter(|index| *index <= highest)?;
        let oldest = self.started.saturating_sub(SEGMENTS_MAX);
        (oldest..self.started).rev().find_map(|number| {
            let segment = self.segments[number % SEGMENTS_MAX]?;
            Some((segment.index_in(index_out)?, index_out, segment))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn packet(index: u64, timestamp: u32, starts_key_frame: bool, now: Instant) -> Stored {
        Stored {
            index,
            timestamp,
            starts_key_frame,
            ..Stored::empty(now)
        }
    }

    fn send(
        rewrite: &mut Rewrite,
        stored: &Stored,
        stream: u64,
        now: Instant,
    ) -> Result<(u64, u32), Discard> {
        let placed = rewrite.place(stored, stream, now)?;
        rewrite.commit(&placed, now);
        Ok((placed.index, placed.timestamp))
    }

    #[test]
    fn nothing_goes_before_a_key_frame_and_nothing_old_after_it() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(200, 90_000);
        assert_eq!(
            send(&mut rewrite, &packet(9, 0, false, now), 1, now),
            Err(Discard::AwaitingKeyFrame)
        );
        assert_eq!(
            send(&mut rewrite, &packet(10, 5, true, now), 1, now),
            Ok((100, 5))
        );
        assert_eq!(
            send(&mut rewrite, &packet(9, 0, false, now), 1, now),
            Err(Discard::BeforeJoin)
        );
        assert_eq!(
            send(&mut rewrite, &packet(12, 5, false, now), 1, now),
            Ok((102, 5))
        );
        assert_eq!(
            send(&mut rewrite, &packet(11, 5, false, now), 1, now),
            Ok((101, 5))
        );
    }

    #[test]
    fn a_pause_leaves_no_gap_and_keeps_the_clock() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(0, 90_000);
        send(&mut rewrite, &packet(10, 1_000, true, now), 1, now).unwrap();
        rewrite.wait();
        assert!(send(&mut rewrite, &packet(11, 4_000, false, now), 1, now).is_err());
        assert_eq!(
            send(&mut rewrite, &packet(50, 91_000, true, now), 1, now),
            Ok((1, 91_000))
        );
    }

    #[test]
    fn a_new_source_continues_numbers_and_timestamps() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(0, 90_000);
        send(&mut rewrite, &packet(10, 4_000_000_000, true, now), 1, now).unwrap();
        let later = now + Duration::from_millis(100);
        let (index, timestamp) = send(&mut rewrite, &packet(60_000, 77, true, later), 2, later).unwrap();
        assert_eq!((index, timestamp), (1, 4_000_009_000));
        let (_, timestamp) = send(&mut rewrite, &packet(60_001, 3_077, false, later), 2, later).unwrap();
        assert_eq!(timestamp, 4_000_012_000);
    }

    #[test]
    fn a_nack_finds_the_packet_across_segments() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(0, 90_000);
        for index in 65_530..65_540 {
            send(&mut rewrite, &packet(index, 0, index == 65_530, now), 1, now).unwrap();
        }
        rewrite.wait();
        for index in 70_000..70_010 {
            send(&mut rewrite, &packet(index, 0, index == 70_000, now), 2, now).unwrap();
        }
        let (index_in, index_out, segment) = rewrite.trace(3).unwrap();
        assert_eq!((index_in, index_out, segment.stream), (65_533, 3, 1));
        let (index_in, _, segment) = rewrite.trace(12).unwrap();
        assert_eq!((index_in, segment.stream), (70_002, 2));
        assert!(rewrite.trace(20).is_none(), "not sent yet");
        assert!(rewrite.trace(40_000).is_none());
    }

    #[test]
    fn an_unpaid_packet_leaves_no_gap() {
        let now = Instant::now();
        let mut rewrite = Rewrite::new(0, 48_000);
        send(&mut rewrite, &packet(1, 0, true, now), 1, now).unwrap();
        rewrite.place(&packet(2, 960, true, now), 1, now).unwrap();
        rewrite.wait();
        assert_eq!(
            send(&mut rewrite, &packet(3, 1_920, true, now), 1, now),
            Ok((1, 1_920))
        );
    }
}
