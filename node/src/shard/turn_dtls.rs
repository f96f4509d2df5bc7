//! TURN over DTLS (RFC 7350), on the UDP port of TURN and told apart by its first byte (RFC 7983): associations, their
//! handshakes, and what is inside their records.
//!
//! A handshake is bounded in time, in datagrams and in number; a ClientHello without the cookie that was sent to its
//! address is answered with one and costs no key exchange.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use dimpl::{Dtls, Output};
use turn_server::{Client, ConnectionId, Transport};

use super::turn_stream::StreamDiscard;
use crate::http::source_limit::source_of;
use crate::turn_keys::TurnKeys;

/// Names of associations have this bit; those of TCP connections do not.
const NAME: u64 = 1 << 63;

/// Associations of one shard. Each takes some 10 KB.
const ASSOCIATIONS_MAX: usize = 4_096;

/// Handshakes that may be under way on one shard: what a flood of forged ClientHellos can hold.
const HANDSHAKES_MAX: usize = 512;

/// Datagrams that one handshake may take.
const HANDSHAKE_DATAGRAMS_MAX: u32 = 100;

/// An association without an allocation may be silent for so long.
const IDLE_MAX: Duration = Duration::from_secs(60);

/// The rhythm of retransmissions and of looking for silent associations.
const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

/// Room for the largest record, or datagram of records.
const BUFFER: usize = 20 * 1024;

/// The largest payload of a record (RFC 9147 section 4.2); what is longer cannot be sent.
const RECORD_MAX: usize = 16 * 1024;

/// The first byte of a handshake record, with which an association begins.
const HANDSHAKE: u8 = 22;

/// Is this datagram a DTLS record (RFC 7983)?
pub(super) fn is_dtls(datagram: &[u8]) -> bool {
    matches!(datagram, [20..=63, ..])
}

/// What a ClientHello of DTLS 1.0, which is no longer spoken (RFC 8996), is answered: a fatal alert, protocol_version.
const TOO_OLD: [u8; 15] = [21, 0xFE, 0xFF, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 70];

/// The alert for a client that can only speak what this server does not.
pub(super) fn refusal(datagram: &[u8]) -> Option<&'static [u8]> {
    // After the record's header and the handshake message's: the highest version before DTLS 1.3.
    const CLIENT_VERSION: std::ops::Range<usize> = 25..27;
    const CLIENT_HELLO: u8 = 1;
    let is_hello = datagram.first() == Some(&HANDSHAKE) && datagram.get(13) == Some(&CLIENT_HELLO);
    (is_hello && datagram.get(CLIENT_VERSION) == Some(&[0xFE, 0xFF])).then_some(&TOO_OLD)
}

struct Association {
    dtls: Dtls,
    client: Client,
    established: bool,
    datagrams: u32,
    due: Instant,
    heard: Instant,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    association: Option<Box<Association>>,
}

/// What comes out of an association.
pub(super) enum Out<'a> {
    /// Send this to the client's address.
    Datagram(&'a [u8]),
    /// The client sent this message.
    Message(&'a [u8]),
}

/// All associations of one shard.
pub(super) struct Associations {
    keys: Option<Arc<TurnKeys>>,
    slots: Vec<Slot>,
    free: Vec<usize>,
    by_addresses: HashMap<(SocketAddr, SocketAddr), ConnectionId>,
    per_source: HashMap<IpAddr, u32>,
    per_source_max: u32,
    handshakes: usize,
    buffer: Box<[u8]>,
    next_sweep: Option<Instant>,
    /// Associations that ended and whose allocations are to end with them.
    ended: Vec<Client>,
    pub(super) discards: Vec<StreamDiscard>,
}

impl Associations {
    pub(super) fn new(keys: Option<Arc<TurnKeys>>, per_source_max: u32) -> Self {
        Self {
            keys,
            slots: Vec::new(),
            free: Vec::new(),
            by_addresses: HashMap::new(),
            per_source: HashMap::new(),
            per_source_max,
            handshakes: 0,
            buffer: vec![0; BUFFER].into_boxed_slice(),
            next_sweep: None,
            ended: Vec::new(),
            discards: Vec::new(),
        }
    }

    /// The name of the client's association, a new one if its datagram begins one.
    pub(super) fn of(
        &mut self,
        source: SocketAddr,
        server: SocketAddr,
        datagram: &[u8],
        now: Instant,
    ) -> Option<ConnectionId> {
        if let Some(known) = self.by_addresses.get(&(source, server)) {
            return Some(*known);
        }
        if datagram.first() != Some(&HANDSHAKE) {
            return None;
        }
        let Some((config, certificate)) = self.keys.as_ref().and_then(|keys| keys.dtls()) else {
            self.discards.push(StreamDiscard::TlsHandshake);
            return None;
        };
        let held = self.per_source.entry(source_of(source.ip())).or_default();
        if *held >= self.per_source_max
            || self.by_addresses.len() >= ASSOCIATIONS_MAX
            || self.handshakes >= HANDSHAKES_MAX
        {
            if *held == 0 {
                self.per_source.remove(&source_of(source.ip()));
            }
            self.discards.push(StreamDiscard::ConnectionLimit);
            return None;
        }
        *held += 1;
        self.handshakes += 1;
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        let place = &mut self.slots[slot];
        place.generation = place.generation.wrapping_add(1) & (u32::MAX >> 1);
        let id = ConnectionId::new(NAME | u64::from(place.generation) << 32 | slot as u64);
        place.association = Some(Box::new(Association {
            dtls: Dtls::new_auto(config, certificate, now),
            client: Client::connected(Transport::Dtls, source, server, id),
            established: false,
            datagrams: 0,
            due: now,
            heard: now,
        }));
        self.by_addresses.insert((source, server), id);
        self.next_sweep.get_or_insert(now + SWEEP_INTERVAL);
        Some(id)
    }

    /// Is this the name of an association?
    pub(super) fn names(id: ConnectionId) -> bool {
        id.get() & NAME != 0
    }

    /// Who is at the other end.
    pub(super) fn client(&self, id: ConnectionId) -> Option<Client> {
        let association = self.slots.get(slot_of(id))?.association.as_ref()?;
        Some(association.client).filter(|client| client.connection == Some(id))
    }

    /// Takes a datagram; [`Associations::poll`] afterwards. False if the association is over.
    pub(super) fn receive(&mut self, id: ConnectionId, datagram: &[u8], now: Instant) -> bool {
        let Some(association) = find(&mut self.slots, id) else {
            return false;
        };
        association.heard = now;
        if !association.established {
            association.datagrams += 1;
        }
        let fine = association.datagrams <= HANDSHAKE_DATAGRAMS_MAX
            && association.dtls.handle_timeout(now).is_ok()
            && association.dtls.handle_packet(datagram).is_ok();
        if !fine {
            self.end(id);
        }
        fine
    }

    /// Encrypts a message; [`Associations::poll`] afterwards. False if it cannot be sent.
    pub(super) fn send(&mut self, id: ConnectionId, message: &[u8]) -> bool {
        let Some(association) = find(&mut self.slots, id).filter(|association| association.established)
        else {
            return false;
        };
        message.len() <= RECORD_MAX && association.dtls.send_application_data(message).is_ok()
    }

    /// What an association has to say, until there is nothing.
    pub(super) fn poll(&mut self, id: ConnectionId) -> Option<Out<'_>> {
        // The borrow of what is returned must not reach into the turns of the loop before it.
        enum Polled {
            Datagram(usize),
            Message(usize),
            Closed,
            Idle,
        }
        let association = find(&mut self.slots, id)?;
        let polled = loop {
            match association.dtls.poll_output(&mut self.buffer) {
                Output::Packet(datagram) => break Polled::Datagram(datagram.len()),
                Output::ApplicationData(message) => break Polled::Message(message.len()),
                Output::Connected => {
                    association.established = true;
                    self.handshakes -= 1;
                }
                Output::CloseNotify => break Polled::Closed,
                Output::Timeout(at) => {
                    association.due = at;
                    break Polled::Idle;
                }
                Output::BufferTooSmall { .. } => break Polled::Closed,
                _ => {}
            }
        };
        match polled {
            Polled::Datagram(len) => Some(Out::Datagram(&self.buffer[..len])),
            Polled::Message(len) => Some(Out::Message(&self.buffer[..len])),
            Polled::Closed => {
                self.end(id);
                None
            }
            Polled::Idle => None,
        }
    }

    /// When [`Associations::handle_timeout`] is due.
    pub(super) fn due(&self) -> Option<Instant> {
        self.next_sweep
    }

    /// Lets time pass: who has something to retransmit, to be polled. Ends who was silent for too long without an
    /// allocation, as `is_used` says.
    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        is_used: impl Fn(&Client) -> bool,
    ) -> Vec<ConnectionId> {
        if self.next_sweep.is_none_or(|due| now < due) {
            return Vec::new();
        }
        let (mut retransmitting, mut over) = (Vec::new(), Vec::new());
        for association in self.slots.iter_mut().filter_map(|slot| slot.association.as_mut()) {
            let Some(id) = association.client.connection else {
                continue;
            };
            if now >= association.due {
                match association.dtls.handle_timeout(now) {
                    Ok(()) => retransmitting.push(id),
                    Err(_) => over.push(id),
                }
            }
            let silent = now.saturating_duration_since(association.heard);
            let patience = if association.established {
                IDLE_MAX
            } else {
                crate::turn_keys::DTLS_HANDSHAKE_MAX
            };
            if silent >= patience && !is_used(&association.client) {
                over.push(id);
            }
        }
        over.into_iter().for_each(|id| self.end(id));
        self.next_sweep = (!self.by_addresses.is_empty()).then(|| now + SWEEP_INTERVAL);
        retransmitting
    }

    /// An association that ended since the last time this was asked.
    pub(super) fn next_ended(&mut self) -> Option<Client> {
        self.ended.pop()
    }

    fn end(&mut self, id: ConnectionId) {
        if find(&mut self.slots, id).is_none() {
            return;
        }
        let slot = slot_of(id);
        let Some(association) = self.slots[slot].association.take() else {
            return;
        };
        self.free.push(slot);
        if !association.established {
            self.handshakes -= 1;
            self.discards.push(StreamDiscard::TlsHandshake);
        }
        let client = association.client;
        self.by_addresses.remove(&(client.source, client.server));
        let source = source_of(client.source.ip());
        if let Some(held) = self.per_source.get_mut(&source) {
            *held -= 1;
            if *held == 0 {
                self.per_source.remove(&source);
            }
        }
        self.ended.push(client);
    }
}

fn find(slots: &mut [Slot], id: ConnectionId) -> Option<&mut Association> {
    let association = slots.get_mut(slot_of(id))?.association.as_deref_mut()?;
    (association.client.connection == Some(id)).then_some(association)
}

fn slot_of(id: ConnectionId) -> usize {
    (id.get() & 0xFFFF_FFFF) as usize
}
