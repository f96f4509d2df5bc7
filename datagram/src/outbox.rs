//! Where datagrams for one destination are laid out before one send: segments must be contiguous and equal.

use std::net::{IpAddr, SocketAddr};

use crate::{Ecn, Transmit};

/// Room for the largest batch.
const CAPACITY: usize = 65_507;

/// Segments in one send (UDP_MAX_SEGMENTS of older kernels).
const SEGMENTS_MAX: usize = 64;

/// One batch being laid out.
pub struct Outbox {
    bytes: Box<[u8]>,
    len: usize,
    segments: usize,
    segment_size: usize,
    /// A shorter datagram ends the batch.
    complete: bool,
    route: Option<Route>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Route {
    destination: SocketAddr,
    source: Option<IpAddr>,
    ecn: Option<Ecn>,
}

impl Outbox {
    /// An empty batch.
    pub fn new() -> Self {
        let bytes = vec![0; CAPACITY].into_boxed_slice();
        Self {
            bytes,
            len: 0,
            segments: 0,
            segment_size: 0,
            complete: false,
            route: None,
        }
    }

    /// Adds one datagram. False if it does not fit this batch, which must be sent first.
    pub fn push(&mut self, datagram: &Transmit<'_>) -> bool {
        let route = Route {
            destination: datagram.destination,
            source: datagram.source,
            ecn: datagram.ecn,
        };
        let size = datagram.contents.len();
        let joins = match self.route {
            None => true,
            Some(open) => {
                open == route
                    && !self.complete
                    && size <= self.segment_size
                    && size > 0
                    && self.segments < SEGMENTS_MAX
            }
        };
        let Some(room) = self.bytes.get_mut(self.len..self.len + size).filter(|_| joins) else {
            return false;
        };
        room.copy_from_slice(datagram.contents);
        if self.route.is_none() {
            self.route = Some(route);
            self.segment_size = size;
        }
        self.complete = size < self.segment_size || size == 0;
        self.len += size;
        self.segments += 1;
        true
    }

    /// The batch, if there is one.
    pub fn transmit(&self) -> Option<Transmit<'_>> {
        let route = self.route?;
        Some(Transmit {
            destination: route.destination,
            source: route.source,
            ecn: route.ecn,
            segment_size: (self.segments > 1).then_some(self.segment_size),
            contents: &self.bytes[..self.len],
        })
    }

    /// How many datagrams are in it.
    pub fn segments(&self) -> usize {
        self.segments
    }

    /// Empties it.
    pub fn clear(&mut self) {
        (
            self.len,
            self.segments,
            self.segment_size,
            self.complete,
            self.route,
        ) = (0, 0, 0, false, None);
    }
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn datagram(port: u16, contents: &[u8]) -> Transmit<'_> {
        let destination = SocketAddr::from(([192, 0, 2, 1], port));
        Transmit {
            destination,
            source: None,
            segment_size: None,
            ecn: None,
            contents,
        }
    }

    #[test]
    fn equal_datagrams_to_one_destination_become_one_batch_and_a_shorter_one_ends_it() {
        let mut outbox = Outbox::new();
        assert!(outbox.push(&datagram(1, &[1; 100])));
        assert!(outbox.push(&datagram(1, &[2; 100])));
        assert!(outbox.push(&datagram(1, &[3; 40])));
        assert!(
            !outbox.push(&datagram(1, &[4; 40])),
            "nothing follows the shorter one"
        );
        let batch = outbox.transmit().unwrap();
        assert_eq!((batch.contents.len(), batch.segment_size), (240, Some(100)));
        outbox.clear();
        assert!(outbox.transmit().is_none());
    }

    #[test]
    fn a_longer_datagram_or_another_destination_starts_another_batch() {
        let mut outbox = Outbox::new();
        assert!(outbox.push(&datagram(1, &[1; 100])));
        assert!(!outbox.push(&datagram(1, &[2; 101])));
        assert!(!outbox.push(&datagram(2, &[2; 100])));
        assert_eq!(outbox.transmit().unwrap().segment_size, None);
    }

    #[test]
    fn a_batch_has_a_limit_in_segments_and_in_bytes() {
        let mut outbox = Outbox::new();
        let small = (0..).take_while(|_| outbox.push(&datagram(1, &[0; 10]))).count();
        assert_eq!(small, SEGMENTS_MAX);
        outbox.clear();
        let large = (0..)
            .take_while(|_| outbox.push(&datagram(1, &[0; 9000])))
            .count();
        assert_eq!(large, CAPACITY / 9000);
    }
}
