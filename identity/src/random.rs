//! The system's random source, used for keys, nonces and ids only.

use aws_lc_rs::rand;

pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).expect("the system's random source never fails once the kernel has started");
    bytes
}
