//! One send to one subscriber: datagrams of equal size, of which the last may be shorter, because that is what
//! the kernel's segmentation offload takes.
//!
//! libwebrtc makes the last packets of a frame a byte longer than the first, so segments are equalised with RTP
//! padding (RFC 3550 section 5.1) of a few bytes where the packet allows it.

/// Segments of one send: what every kernel with segmentation offload takes.
pub(crate) const SEGMENTS_MAX: usize = 64;
/// Padding that a segment is worth: a datagram of its own costs more than a hundred bytes would.
pub(crate) const PADDING_MAX: usize = 16;

/// A batch in the making.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Batch {
    /// Size of every segment but the last.
    pub(crate) segment: usize,
    pub(crate) segments: usize,
    /// The smallest so far, if each of them can be padded.
    shortest: Option<usize>,
    last: usize,
    /// The last one is shorter and stays so: nothing can follow it.
    closed: bool,
}

impl Batch {
    /// Adds a datagram of `size` bytes to what is to fit in `room`; false, and no change, when it cannot be.
    /// `paddable` says whether up to [`PADDING_MAX`] bytes may be added to it.
    pub(crate) fn add(&mut self, size: usize, paddable: bool, room: usize) -> bool {
        if self.segments == 0 {
            let fits = size <= room;
            if fits {
                *self = Batch {
                    segment: size,
                    segments: 1,
                    shortest: paddable.then_some(size),
                    last: size,
                    closed: false,
                };
            }
            return fits;
        }
        let segment = self.segment.max(size);
        let grows = size > self.segment;
        let can_grow = !grows
            || self
                .shortest
                .is_some_and(|shortest| size - shortest <= PADDING_MAX);
        let fits = segment * (self.segments + 1) <= room;
        if self.closed || self.segments == SEGMENTS_MAX || !can_grow || !fits {
            return false;
        }
        let close = size == segment || (paddable && segment - size <= PADDING_MAX);
        self.shortest = self
            .shortest
            .filter(|_| paddable)
            .map(|shortest| shortest.min(size));
        self.segment = segment;
        self.segments += 1;
        self.last = size;
        self.closed = !close;
        true
    }

    /// Bytes of the whole, padding included.
    pub(crate) fn length(&self) -> usize {
        self.segments.saturating_sub(1) * self.segment + self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(sizes: &[(usize, bool)]) -> (usize, usize, usize) {
        let mut batch = Batch::default();
        let taken = sizes
            .iter()
            .take_while(|(size, paddable)| batch.add(*size, *paddable, 65_507))
            .count();
        (taken, batch.segment, batch.length())
    }

    #[test]
    fn segments_are_equal_and_the_last_may_be_shorter() {
        let (video, audio) = ((1_200, false), (100, false));
        assert_eq!(batch(&[video, video, audio, audio]), (3, 1_200, 2_500));
        assert_eq!(batch(&[audio, video]), (1, 100, 100));
        assert_eq!(batch(&[video; 100]).0, 54, "65,507 bytes");
        assert_eq!(batch(&[audio; 100]).0, SEGMENTS_MAX);
    }

    #[test]
    fn a_frame_whose_last_packets_are_longer_is_padded_up_to_them() {
        let frame = [
            (1_100, true),
            (1_100, true),
            (1_101, true),
            (1_116, true),
            (90, false),
        ];
        assert_eq!(batch(&frame), (5, 1_116, 4 * 1_116 + 90));
        let too_long = [(1_100, true), (1_117, true)];
        assert_eq!(batch(&too_long), (1, 1_100, 1_100));
        let padded_already = [(1_100, true), (1_100, false), (1_101, true)];
        assert_eq!(batch(&padded_already), (2, 1_100, 2_200));
        let falling = [(1_100, true), (1_090, true), (1_080, true), (1_101, true)];
        assert_eq!(batch(&falling), (3, 1_100, 3_280), "the last may stay shorter");
        let short_then_more = [(1_100, true), (1_099, true), (1_100, true)];
        assert_eq!(batch(&short_then_more), (3, 1_100, 3_300));
    }
}
