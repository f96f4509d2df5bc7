//! Control packets on their way out: STUN, DTLS, RTCP. A ring of fixed buffers, allocated once; when it is
//! full the packet is dropped, as the network might have done.

use crate::dtls::DATAGRAM_BYTES_MAX;
use crate::egress::Charged;
use crate::ice::Path;

/// Control packets between two polls for output: some for each of a hundred sessions.
const PACKETS_MAX: usize = 512;

struct Entry {
    path: Path,
    length: usize,
    charged: Option<Charged>,
}

/// The ring.
pub(crate) struct Outbox {
    bytes: Box<[u8]>,
    entries: std::collections::VecDeque<Entry>,
    /// Slot of the next entry to write.
    next: usize,
}

impl Outbox {
    pub(crate) fn new() -> Outbox {
        Outbox {
            bytes: vec![0; PACKETS_MAX * DATAGRAM_BYTES_MAX].into_boxed_slice(),
            entries: std::collections::VecDeque::with_capacity(PACKETS_MAX),
            next: 0,
        }
    }

    /// Queues what `write` puts into the buffer it is given; false when there is no room or nothing to send.
    pub(crate) fn push(
        &mut self,
        path: Path,
        charged: Option<Charged>,
        write: impl FnOnce(&mut [u8]) -> Option<usize>,
    ) -> bool {
        if self.entries.len() == PACKETS_MAX {
            return false;
        }
        let at = self.next * DATAGRAM_BYTES_MAX;
        let Some(length) = write(&mut self.bytes[at..at + DATAGRAM_BYTES_MAX]) else {
            return false;
        };
        self.entries.push_back(Entry {
            path,
            length,
            charged,
        });
        self.next = (self.next + 1) % PACKETS_MAX;
        true
    }

    /// Moves the oldest packet into `buffer`: where it goes, how long it is, what was charged.
    pub(crate) fn pop(&mut self, buffer: &mut [u8]) -> Option<(Path, usize, Option<Charged>)> {
        let slot = (self.next + PACKETS_MAX - self.entries.len()) % PACKETS_MAX;
        let entry = self.entries.pop_front()?;
        let at = slot * DATAGRAM_BYTES_MAX;
        buffer[..entry.length].copy_from_slice(&self.bytes[at..at + entry.length]);
        Some((entry.path, entry.length, entry.charged))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    #[test]
    fn packets_leave_in_order_and_a_full_ring_drops() {
        let path = Path {
            remote: SocketAddr::from(([127, 0, 0, 1], 1)),
            local: None,
        };
        let mut outbox = Outbox::new();
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let byte = |value: u8| {
            move |slot: &mut [u8]| {
                slot[0] = value;
                Some(1)
            }
        };
        for round in 0..3 {
            for packet in 0..PACKETS_MAX {
                assert!(outbox.push(path, None, byte((packet + round) as u8)));
            }
            assert!(!outbox.push(path, None, byte(0)));
            for packet in 0..PACKETS_MAX {
                assert!(outbox.pop(&mut buffer).is_some());
                assert_eq!(buffer[0], (packet + round) as u8);
            }
            assert!(outbox.pop(&mut buffer).is_none());
        }
    }
}
