//! Where received datagrams are: a few 64 KiB buffers, each filled by the kernel with one datagram or with several
//! that it coalesced (UDP_GRO), and reused at once.

use std::io::IoSliceMut;
use std::net::{IpAddr, SocketAddr};

use quinn_udp::RecvMeta;

use crate::Ecn;

/// Buffers filled by one receive call. mio is edge-triggered: with at least two, a short count says that the socket
/// is drained, without another call that fails.
pub const BUFFERS: usize = 4;

/// The largest coalesced receive: a UDP payload's length fits in 16 bits.
const BUFFER_LEN: usize = 1 << 16;

/// Room before each datagram in which a relay can write a header and then send both as they lie. Before the second
/// and later ones of a buffer it is the end of the previous one, which has been dealt with by then.
pub const HEADROOM: usize = 4;

const _: () = assert!(
    BUFFERS >= 2 && BUFFERS <= quinn_udp::BATCH_SIZE,
    "drained must be told apart from full"
);

/// The receive buffers of one shard, shared by all its sockets.
pub struct Inbox {
    memory: [Box<[u8]>; BUFFERS],
    meta: [RecvMeta; BUFFERS],
    filled: usize,
}

/// What is known of every datagram of one buffer.
#[derive(Clone, Copy)]
pub struct Meta {
    /// Who sent them. IPv4 is never written as IPv6.
    pub source: SocketAddr,
    /// The local address that was hit.
    pub local_ip: Option<IpAddr>,
    /// Congestion marks.
    pub ecn: Option<Ecn>,
}

impl Inbox {
    /// Empty buffers.
    pub fn new() -> Self {
        Self {
            memory: std::array::from_fn(|_| vec![0; HEADROOM + BUFFER_LEN].into_boxed_slice()),
            meta: [RecvMeta::default(); BUFFERS],
            filled: 0,
        }
    }

    /// How many buffers the last receive filled.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// True if the last receive left nothing behind in its socket.
    pub fn drained(&self) -> bool {
        self.filled < BUFFERS
    }

    /// The datagrams of buffer `index`, below [`Inbox::filled`]. None for one whose sender cannot be answered: a
    /// source port of 0 makes every send to it fail.
    pub fn datagrams(&mut self, index: usize) -> Option<(Meta, Datagrams<'_>)> {
        let meta = self.meta[..self.filled].get(index)?;
        if meta.addr.port() == 0 {
            return None;
        }
        let facts = Meta {
            source: SocketAddr::new(meta.addr.ip().to_canonical(), meta.addr.port()),
            local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
            ecn: meta.ecn,
        };
        let end = HEADROOM + meta.len.min(BUFFER_LEN);
        let datagrams = Datagrams {
            buffer: &mut self.memory[index][..end],
            at: HEADROOM,
            // An empty datagram has a stride of 0 and is still one datagram.
            stride: meta.stride.max(1),
            first: true,
        };
        Some((facts, datagrams))
    }

    pub(crate) fn fill(
        &mut self,
        receive: impl FnOnce(&mut [IoSliceMut<'_>], &mut [RecvMeta]) -> std::io::Result<usize>,
    ) -> std::io::Result<usize> {
        self.filled = 0;
        let mut slices = self
            .memory
            .each_mut()
            .map(|buffer| IoSliceMut::new(&mut buffer[HEADROOM..]));
        self.filled = receive(&mut slices, &mut self.meta)?;
        Ok(self.filled)
    }
}

impl Default for Inbox {
    fn default() -> Self {
        Self::new()
    }
}

/// Walks the datagrams of one buffer.
pub struct Datagrams<'a> {
    buffer: &'a mut [u8],
    at: usize,
    stride: usize,
    first: bool,
}

impl Datagrams<'_> {
    /// How many are left.
    pub fn remaining(&self) -> usize {
        let left = self.buffer.len() - self.at;
        if self.first {
            left.div_ceil(self.stride).max(1)
        } else {
            left.div_ceil(self.stride)
        }
    }

    /// The next datagram, after [`HEADROOM`] bytes that may be overwritten.
    pub fn next_with_headroom(&mut self) -> Option<&mut [u8]> {
        if self.at >= self.buffer.len() && !self.first {
            return None;
        }
        self.first = false;
        let start = self.at;
        let end = self.buffer.len().min(start + self.stride);
        self.at = end;
        Some(&mut self.buffer[start - HEADROOM..end])
    }

    /// The next datagram.
    pub fn next_datagram(&mut self) -> Option<&mut [u8]> {
        self.next_with_headroom()
            .map(|datagram| &mut datagram[HEADROOM..])
    }
}
