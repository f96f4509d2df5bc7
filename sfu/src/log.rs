//! What arrived on a stream, in order of arrival: the queue that all its subscribers share. A subscriber's place
//! in it is a number, so that a packet waits for a thousand of them without being written down a thousand times.

/// Packets that a subscriber can be behind: a key frame of 500 kB. Further behind, it is shown the next key frame.
pub(crate) const LOG_PACKETS: usize = 512;

/// Packet indices by position. Positions only grow.
pub(crate) struct Log {
    ring: Box<[u64; LOG_PACKETS]>,
    end: u64,
}

impl Log {
    pub(crate) fn new() -> Log {
        Log {
            ring: Box::new([0; LOG_PACKETS]),
            end: 0,
        }
    }

    /// Writes down a packet's index.
    pub(crate) fn push(&mut self, index: u64) {
        self.ring[self.end as usize % LOG_PACKETS] = index;
        self.end += 1;
    }

    /// The position that the next packet will have.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// The first position that is still known.
    pub(crate) fn start(&self) -> u64 {
        self.end.saturating_sub(LOG_PACKETS as u64)
    }

    /// The index at a position that is known.
    pub(crate) fn get(&self, position: u64) -> Option<u64> {
        let known = position >= self.start() && position < self.end;
        known.then(|| self.ring[position as usize % LOG_PACKETS])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_stay_valid_until_the_ring_comes_round() {
        let mut log = Log::new();
        assert_eq!((log.start(), log.end(), log.get(0)), (0, 0, None));
        for index in 0..LOG_PACKETS as u64 + 3 {
            log.push(index * 7);
        }
        assert_eq!((log.start(), log.get(2), log.get(3)), (3, None, Some(21)));
        assert_eq!(log.get(log.end() - 1), Some((LOG_PACKETS as u64 + 2) * 7));
        assert_eq!(log.get(log.end()), None);
    }
}
