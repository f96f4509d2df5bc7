//! The thread whose CPU time is the floor: in, sealed for each subscriber, out.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use datagram::{Fragmentation, Inbox, Socket, Transmit};
use mio::{Events, Interest, Poll, Token};

use super::generator::{is_end, is_measured};
use super::{HEADER_LEN, PACKETS_MAX, Sealer, TAG_LEN, Trips, thread_cpu};
use crate::Error;

/// How often a thread that nobody sends to looks whether it should stop.
pub(crate) const IDLE: Duration = Duration::from_secs(1);

/// One that receives.
struct Subscriber {
    destination: SocketAddr,
    sealer: Sealer,
    ssrc: u32,
}

/// The relay before it runs.
pub(super) struct Relay {
    sockets: Sockets,
    address: SocketAddr,
    forwarder: Forwarder,
}

enum Sockets {
    /// Plain calls.
    Single(UdpSocket),
    /// GRO and GSO.
    Batch(Box<Socket>),
}

struct Forwarder {
    subscribers: Vec<Subscriber>,
    packet_len: usize,
    /// One batch for one subscriber.
    out: Vec<u8>,
    /// Packets received until now: their SRTP index.
    index: u64,
    measuring: bool,
    cpu_before: Duration,
    sent: u64,
    sends: u64,
}

/// What it used.
pub(crate) struct Cost {
    /// For what was measured.
    pub(crate) cpu: Duration,
    /// Warm-up included.
    pub(crate) cpu_ever: Duration,
    /// Measured packets that the kernel took.
    pub(crate) sent: u64,
    /// In so many sends.
    pub(crate) sends: u64,
}

impl Relay {
    pub(super) fn bind(trips: Trips, packet_len: usize, destinations: &[SocketAddr]) -> Result<Relay, Error> {
        let (sockets, address) = match trips {
            Trips::Single => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
                socket.set_read_timeout(Some(IDLE))?;
                let address = socket.local_addr()?;
                (Sockets::Single(socket), address)
            }
            Trips::Batch(_) => {
                let socket = Socket::bind((Ipv4Addr::LOCALHOST, 0).into(), Fragmentation::Forbidden)?;
                let address = socket.local_addr();
                (Sockets::Batch(Box::new(socket)), address)
            }
        };
        Ok(Relay {
            sockets,
            address,
            forwarder: Forwarder::new(packet_len, destinations),
        })
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Until the generator says that it is over, or `stop` does.
    pub(super) fn run(self, stop: &AtomicBool) -> Result<Cost, Error> {
        let mut forwarder = self.forwarder;
        match self.sockets {
            Sockets::Single(socket) => single(&mut forwarder, &socket, stop)?,
            Sockets::Batch(socket) => batch(&mut forwarder, *socket, stop)?,
        }
        let cpu_ever = thread_cpu();
        Ok(Cost {
            cpu: cpu_ever - forwarder.cpu_before,
            cpu_ever,
            sent: forwarder.sent,
            sends: forwarder.sends,
        })
    }
}

fn single(forwarder: &mut Forwarder, socket: &UdpSocket, stop: &AtomicBool) -> Result<(), Error> {
    let mut buffer = vec![0; 1 << 16];
    while !stop.load(Ordering::Relaxed) {
        let packet = match socket.recv(&mut buffer) {
            Ok(len) => &buffer[..len],
            Err(error) if is_nothing_yet(error.kind()) => continue,
            Err(error) => return Err(error.into()),
        };
        if is_end(packet) {
            return Ok(());
        }
        if packet.len() == forwarder.packet_len {
            forwarder.forward_packet(packet, socket);
        }
    }
    Ok(())
}

fn batch(forwarder: &mut Forwarder, mut socket: Socket, stop: &AtomicBool) -> Result<(), Error> {
    let mut poll = Poll::new()?;
    let mut events = Events::with_capacity(1);
    poll.registry()
        .register(&mut socket, Token(0), Interest::READABLE)?;
    let mut inbox = Inbox::new();
    while !stop.load(Ordering::Relaxed) {
        match poll.poll(&mut events, Some(IDLE)) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        loop {
            let filled = socket.receive(&mut inbox)?;
            for buffer in 0..filled {
                let first = inbox.datagrams(buffer).and_then(|(_, mut datagrams)| {
                    datagrams
                        .next_datagram()
                        .map(|first| (is_end(first), is_measured(first)))
                });
                match first {
                    Some((true, _)) => return Ok(()),
                    Some((_, measured)) => forwarder.forward_batch(&mut inbox, buffer, measured, &mut socket),
                    None => {}
                }
            }
            if inbox.drained() {
                break;
            }
        }
    }
    Ok(())
}

fn is_nothing_yet(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted
    )
}

impl Forwarder {
    fn new(packet_len: usize, destinations: &[SocketAddr]) -> Forwarder {
        let subscriber = |(number, &destination): (usize, &SocketAddr)| Subscriber {
            destination,
            sealer: Sealer::of_subscriber(number),
            ssrc: 1_000 + number as u32,
        };
        Forwarder {
            subscribers: destinations.iter().enumerate().map(subscriber).collect(),
            packet_len,
            out: vec![0; (packet_len + TAG_LEN) * PACKETS_MAX],
            index: 0,
            measuring: false,
            cpu_before: Duration::ZERO,
            sent: 0,
            sends: 0,
        }
    }

    fn forward_packet(&mut self, packet: &[u8], socket: &UdpSocket) {
        self.measuring |= is_measured(packet);
        let out = &mut self.out[..packet.len() + TAG_LEN];
        for subscriber in &self.subscribers {
            subscriber.protect(packet, self.index, out);
            let taken = socket.send_to(out, subscriber.destination).is_ok();
            self.sent += u64::from(taken && self.measuring);
            self.sends += u64::from(self.measuring);
        }
        self.index += 1;
        self.end_of_warm_up();
    }

    fn forward_batch(&mut self, inbox: &mut Inbox, buffer: usize, measured: bool, socket: &mut Socket) {
        self.measuring |= measured;
        let mut packets = 0;
        for subscriber in &self.subscribers {
            let Some((_, mut datagrams)) = inbox.datagrams(buffer) else {
                return;
            };
            let size = self.packet_len + TAG_LEN;
            packets = 0;
            for out in self.out.chunks_exact_mut(size) {
                match datagrams.next_datagram() {
                    Some(packet) if packet.len() == self.packet_len => {
                        subscriber.protect(packet, self.index + packets as u64, out);
                    }
                    _ => break,
                }
                packets += 1;
            }
            if packets == 0 {
                return;
            }
            let sent = socket.send(&Transmit {
                destination: subscriber.destination,
                source: None,
                segment_size: Some(size),
                ecn: None,
                contents: &self.out[..size * packets],
            });
            if self.measuring {
                self.sends += 1;
                self.sent += packets as u64 - sent.map_or_else(|refused| refused.datagrams, |()| 0);
            }
        }
        self.index += packets as u64;
        self.end_of_warm_up();
    }

    /// The clock counts from the end of the last packet that is not measured; looking at it costs a system call.
    fn end_of_warm_up(&mut self) {
        if !self.measuring {
            self.cpu_before = thread_cpu();
        }
    }
}

impl Subscriber {
    /// The publisher's packet as this subscriber gets it: own SSRC, own sequence number, own key.
    fn protect(&self, packet: &[u8], index: u64, out: &mut [u8]) {
        let (header, payload) = packet.split_at(HEADER_LEN);
        out[..HEADER_LEN].copy_from_slice(header);
        out[2..4].copy_from_slice(&(index as u16).to_be_bytes());
        out[8..12].copy_from_slice(&self.ssrc.to_be_bytes());
        self.sealer.seal(out, index, payload);
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

    use super::*;

    /// With key and nonce spelled out, by aws-lc's other call.
    fn open(subscriber: u8, ssrc: u32, index: u64, packet: &[u8]) -> Option<Vec<u8>> {
        let mut key = [0x4B; 16];
        key[..8].copy_from_slice(&[0, 0, 0, 0, 0, 0, 0, subscriber]);
        let key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).unwrap());
        let place = (u128::from(ssrc) << 48) | u128::from(index);
        let salted = place ^ u128::from_be_bytes([0x53; 16]);
        let nonce = Nonce::try_assume_unique_for_key(&salted.to_be_bytes()[4..]).unwrap();
        let (header, sealed) = packet.split_at(HEADER_LEN);
        let mut sealed = sealed.to_vec();
        let plain = key.open_in_place(nonce, Aad::from(header), &mut sealed).ok()?;
        Some(plain.to_vec())
    }

    #[test]
    fn each_subscriber_can_open_its_own_packet_and_nobody_elses() {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
        let forwarder = Forwarder::new(HEADER_LEN + 100, &[nobody; 3]);
        let mut packet = vec![7; HEADER_LEN + 100];
        packet[..2].copy_from_slice(&[0x80, 96]);
        let mut out = vec![0; packet.len() + TAG_LEN];
        for number in 0..3 {
            forwarder.subscribers[number].protect(&packet, 0x1_0002, &mut out);
            assert_eq!(out[..8], [0x80, 96, 0, 2, 7, 7, 7, 7]);
            for reader in 0..3 {
                let plain = open(reader, 1_000 + number as u32, 0x1_0002, &out);
                let expected = (usize::from(reader) == number).then(|| vec![7; 100]);
                assert_eq!(plain, expected, "subscriber {reader} reads what {number} gets");
            }
        }
    }
}
