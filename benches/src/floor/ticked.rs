//! The thread whose CPU time is the floor of a load: what came in within a tick, sealed for each subscriber, out in as
//! few sends as the kernel allows.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use datagram::{Fragmentation, Inbox, Socket, Transmit};
use mio::{Events, Interest, Poll, Token};

use super::departures::Kind;
use super::generator::{MARKER, is_end, is_measured};
use super::load::Scenario;
use super::relay::{Cost, IDLE};
use super::{HEADER_LEN, PACKETS_MAX, SEND_MAX, Sealer, TAG_LEN, thread_cpu};
use crate::Error;

/// Packets that wait for their tick: a relay that falls this far behind sends what it has.
const QUEUE_MAX: usize = 512;

/// A packet that waits.
struct Queued {
    kind: Kind,
    publisher: usize,
    index: u64,
    bytes: Range<usize>,
}

/// One that receives.
struct Subscriber {
    destination: SocketAddr,
    sealer: Sealer,
}

/// The relay before it runs.
pub(super) struct Relay {
    socket: Socket,
    scenario: Scenario,
    tick: Duration,
    subscribers: Vec<Subscriber>,
    /// Of each publisher and kind: the SRTP index of its next packet.
    next_index: Vec<[u64; 3]>,
    queue: Vec<Queued>,
    memory: Vec<u8>,
    out: Batch,
    measuring: bool,
    cpu_before: Duration,
}

/// Sealed packets for one subscriber, laid out for one send.
struct Batch {
    bytes: Vec<u8>,
    len: usize,
    segment: usize,
    packets: usize,
    /// A shorter packet is the last.
    complete: bool,
    sent: u64,
    sends: u64,
}

impl Relay {
    pub(super) fn bind(
        scenario: Scenario,
        tick: Duration,
        destinations: &[SocketAddr],
    ) -> Result<Relay, Error> {
        let subscriber = |(number, &destination)| Subscriber {
            destination,
            sealer: Sealer::of_subscriber(number),
        };
        Ok(Relay {
            socket: Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Forbidden)?,
            scenario,
            tick,
            subscribers: destinations.iter().enumerate().map(subscriber).collect(),
            next_index: vec![[0; 3]; scenario.publishers()],
            queue: Vec::with_capacity(QUEUE_MAX),
            memory: Vec::with_capacity(QUEUE_MAX * 2_048),
            out: Batch::new(),
            measuring: false,
            cpu_before: Duration::ZERO,
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Until the generator says that it is over, or `stop` does.
    pub(super) fn run(mut self, stop: &AtomicBool) -> Result<Cost, Error> {
        let mut poll = Poll::new()?;
        let mut events = Events::with_capacity(1);
        poll.registry()
            .register(&mut self.socket, Token(0), Interest::READABLE)?;
        let mut inbox = Inbox::new();
        let mut over = false;
        while !over && !stop.load(Ordering::Relaxed) {
            match poll.poll(&mut events, Some(IDLE)) {
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
                _ => {}
            }
            // What arrives within the tick wakes nobody: it is found when the tick is over.
            if !events.is_empty() && !self.tick.is_zero() {
                thread::sleep(self.tick);
            }
            if !events.is_empty() {
                over = self.receive(&mut inbox)?;
                self.flush();
            }
        }
        let cpu_ever = thread_cpu();
        Ok(Cost {
            cpu: cpu_ever - self.cpu_before,
            cpu_ever,
            sent: self.out.sent,
            sends: self.out.sends,
        })
    }

    /// Takes in all that has arrived. True once nothing follows.
    fn receive(&mut self, inbox: &mut Inbox) -> Result<bool, Error> {
        let mut over = false;
        loop {
            let filled = self.socket.receive(inbox)?;
            for buffer in 0..filled {
                let Some((_, mut datagrams)) = inbox.datagrams(buffer) else {
                    continue;
                };
                while let Some(packet) = datagrams.next_datagram() {
                    over |= is_end(packet);
                    self.enqueue(packet);
                }
            }
            if inbox.drained() {
                return Ok(over);
            }
        }
    }

    /// The copy stands for the decryption into a slot that a relay has here: one pass a packet, whoever receives it.
    fn enqueue(&mut self, packet: &[u8]) {
        let Some((header, _)) = packet.split_first_chunk::<HEADER_LEN>() else {
            return;
        };
        let publisher = u32::from_be_bytes([header[8], header[9], header[10], header[11]]) as usize;
        let Some(kind) = Kind::of(header[1] & !MARKER) else {
            return;
        };
        if publisher >= self.next_index.len() {
            return;
        }
        if !self.measuring && is_measured(packet) {
            self.end_of_warm_up();
        }
        if self.queue.len() == QUEUE_MAX {
            self.flush();
        }
        let start = self.memory.len();
        self.memory.extend_from_slice(packet);
        self.queue.push(Queued {
            kind,
            publisher,
            index: self.next_index[publisher][kind as usize],
            bytes: start..self.memory.len(),
        });
        self.next_index[publisher][kind as usize] += 1;
    }

    /// What is still queued belongs to the warm-up.
    fn end_of_warm_up(&mut self) {
        self.flush();
        self.measuring = true;
        (self.out.sent, self.out.sends) = (0, 0);
        self.cpu_before = thread_cpu();
    }

    /// Video first, so that a packet of audio can ride at the end of its batch.
    fn flush(&mut self) {
        let (queue, out) = (&self.queue, &mut self.out);
        for (number, subscriber) in self.subscribers.iter().enumerate() {
            for audio in [false, true] {
                let mine = queue.iter().filter(|packet| {
                    (packet.kind == Kind::Audio) == audio && self.scenario.receives(number, packet.publisher)
                });
                for packet in mine {
                    let plain = &self.memory[packet.bytes.clone()];
                    if !out.takes(plain.len() + TAG_LEN) {
                        out.send(&mut self.socket, subscriber.destination);
                    }
                    subscriber.protect(plain, packet, out.next(plain.len() + TAG_LEN));
                }
            }
            out.send(&mut self.socket, subscriber.destination);
        }
        self.queue.clear();
        self.memory.clear();
    }
}

impl Subscriber {
    /// Own SSRC for each stream, own sequence number, own key.
    fn protect(&self, plain: &[u8], packet: &Queued, out: &mut [u8]) {
        let (header, payload) = plain.split_at(HEADER_LEN);
        let ssrc = (packet.publisher * Kind::ALL.len() + packet.kind as usize) as u32;
        out[..HEADER_LEN].copy_from_slice(header);
        out[2..4].copy_from_slice(&(packet.index as u16).to_be_bytes());
        out[8..12].copy_from_slice(&ssrc.to_be_bytes());
        self.sealer.seal(out, packet.index, payload);
    }
}

impl Batch {
    fn new() -> Batch {
        Batch {
            bytes: vec![0; SEND_MAX],
            len: 0,
            segment: 0,
            packets: 0,
            complete: false,
            sent: 0,
            sends: 0,
        }
    }

    /// Segments are equal, the last may be shorter.
    fn takes(&self, size: usize) -> bool {
        self.packets == 0
            || !self.complete
                && size <= self.segment
                && self.packets < PACKETS_MAX
                && self.len + size <= SEND_MAX
    }

    /// Room for a packet that [`Batch::takes`] said yes to.
    fn next(&mut self, size: usize) -> &mut [u8] {
        if self.packets == 0 {
            self.segment = size;
        }
        self.complete = size < self.segment;
        self.packets += 1;
        let start = self.len;
        self.len += size;
        &mut self.bytes[start..start + size]
    }

    fn send(&mut self, socket: &mut Socket, destination: SocketAddr) {
        if self.packets == 0 {
            return;
        }
        let sent = socket.send(&Transmit {
            destination,
            source: None,
            segment_size: (self.packets > 1).then_some(self.segment),
            ecn: None,
            contents: &self.bytes[..self.len],
        });
        self.sends += 1;
        self.sent += self.packets as u64 - sent.map_or_else(|refused| refused.datagrams, |()| 0);
        (self.len, self.packets, self.complete) = (0, 0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_takes_equal_packets_and_one_shorter_at_its_end() {
        let mut batch = Batch::new();
        assert!(batch.takes(1_000));
        batch.next(1_000);
        assert!(batch.takes(1_000) && batch.takes(100) && !batch.takes(1_001));
        batch.next(1_000);
        batch.next(100);
        assert!(!batch.takes(100), "nothing follows the shorter one");
        assert_eq!((batch.len, batch.packets), (2_100, 3));
    }
}
