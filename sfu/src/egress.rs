//! The last stage: what leaves, sealed into the caller's send buffer, ready for one system call.

use std::net::{IpAddr, SocketAddr};

use metering::SessionId;

/// The caller's send buffer: room for the largest GSO batch.
pub struct SendBuffer {
    bytes: Box<[u8]>,
}

/// What one UDP send can carry with segmentation offload: 65,507 bytes of UDP payload over IPv4.
const BATCH_BYTES_MAX: usize = 65_507;

impl SendBuffer {
    /// An empty buffer, allocated once.
    #[must_use]
    pub fn new() -> SendBuffer {
        SendBuffer {
            bytes: vec![0; BATCH_BYTES_MAX].into_boxed_slice(),
        }
    }
}

impl Default for SendBuffer {
    fn default() -> Self {
        SendBuffer::new()
    }
}

/// One send: one datagram, or several equal ones of which the last may be shorter.
#[derive(Debug)]
pub struct Transmit<'a> {
    /// Where to.
    pub destination: SocketAddr,
    /// The local address to leave from: the one the client hit.
    pub source: Option<IpAddr>,
    /// Length of each datagram but the last, when there are several.
    pub segment_size: Option<usize>,
    /// The datagrams, end to end.
    pub contents: &'a [u8],
    /// What was charged for it, to give back when the kernel refuses.
    pub charged: Option<Charged>,
}

/// A charge that [`crate::Sfu::give_back`] can undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charged {
    /// Who paid.
    pub session: SessionId,
    /// UDP payload bytes.
    pub bytes: u64,
}
