//! When to stop using segmentation offload.
//!
//! Some drivers refuse it (EIO), and so do some single destinations (EINVAL: port 0, a route with a small MTU).
//! quinn-udp gives it up for the whole socket, for good, at the first refusal, so that one client could take it from
//! all others. Here a destination that refuses is served singly, and offload is given up only when several
//! different destinations refused it and none took it in between.

use std::net::IpAddr;

/// Destinations in a row that must refuse before offload is given up.
const REFUSALS_TO_GIVE_UP: usize = 4;

/// Destinations remembered as refusing.
const REFUSING_MAX: usize = 16;

const _: () = assert!(
    REFUSING_MAX >= REFUSALS_TO_GIVE_UP,
    "a row of refusals must fit in what is remembered"
);

/// What is known about offload on one socket.
#[derive(Default)]
pub(crate) struct Segmentation {
    /// None until one did: a relay has thousands of sockets, and hardly any ever meets a refusal.
    refusing: Option<Box<[Option<IpAddr>; REFUSING_MAX]>>,
    next: usize,
    in_a_row: usize,
    given_up: bool,
}

impl Segmentation {
    /// May a batch to this destination be sent in one go?
    pub(crate) fn allowed(&self, destination: IpAddr) -> bool {
        !self.given_up && !self.is_refusing(destination)
    }

    /// A batch was taken.
    pub(crate) fn taken(&mut self) {
        self.in_a_row = 0;
    }

    /// A batch was refused whose datagrams were then taken one by one: it was the offload that was refused.
    pub(crate) fn refused(&mut self, destination: IpAddr) {
        if self.is_refusing(destination) {
            return;
        }
        self.refusing.get_or_insert_default()[self.next] = Some(destination);
        self.next = (self.next + 1) % REFUSING_MAX;
        self.in_a_row += 1;
        self.given_up |= self.in_a_row >= REFUSALS_TO_GIVE_UP;
    }

    fn is_refusing(&self, destination: IpAddr) -> bool {
        let refusing = self.refusing.as_deref();
        refusing.is_some_and(|refusing| refusing.contains(&Some(destination)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([198, 51, 100, last])
    }

    #[test]
    fn a_single_destination_cannot_switch_offload_off_for_the_others() {
        let mut segmentation = Segmentation::default();
        for _ in 0..1000 {
            segmentation.refused(ip(1));
        }
        assert!(!segmentation.allowed(ip(1)));
        assert!(segmentation.allowed(ip(2)));
    }

    #[test]
    fn offload_is_given_up_after_several_destinations_in_a_row() {
        let mut segmentation = Segmentation::default();
        for last in 0..REFUSALS_TO_GIVE_UP as u8 {
            assert!(segmentation.allowed(ip(200)));
            segmentation.refused(ip(last));
        }
        assert!(!segmentation.allowed(ip(200)));
    }

    #[test]
    fn a_destination_that_takes_a_batch_keeps_offload_alive() {
        let mut segmentation = Segmentation::default();
        for last in 0..100 {
            segmentation.refused(ip(last));
            segmentation.taken();
        }
        assert!(segmentation.allowed(ip(200)));
    }
}
