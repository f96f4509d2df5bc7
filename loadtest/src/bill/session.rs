//! One paid session: a token, a username, an allocation with a channel, packets both ways for a while, and its end.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::Duration;

use datagram::{Inbox, Socket};
use wire::channel_data::{self, ChannelNumber, HEADER_LEN};

use super::capture::{LABEL, label};
use crate::Error;
use crate::holder::bearer_token;
use crate::publisher::single;
use crate::turn::allocation::{Allocation, Credentials, Opening};
use crate::turn::link::{Link, Transport, bind_peer};
use crate::turn::server::{Bought, bought};

/// A round: everybody sends once each way.
const ROUND: Duration = Duration::from_millis(20);
/// The most rounds of a session.
const ROUNDS_MAX: u64 = 40;
/// A payload.
const BYTES_MAX: u64 = 1_200;

/// What a session has to spend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purse {
    /// More than it needs.
    Full,
    /// Just enough to be let in, and far less than it sends, so that it is slowed down, held and ended.
    Scant,
}

impl Purse {
    /// Every eighth is scant.
    pub fn of(number: u32) -> Purse {
        match number % 8 {
            7 => Purse::Scant,
            _ => Purse::Full,
        }
    }

    /// Its voucher. A scant one pays at the default tariff for half a megabyte or ten seconds.
    pub fn msat(self, number: u32) -> u64 {
        match self {
            Purse::Full => 50_000,
            Purse::Scant => 25 + u64::from(number % 16),
        }
    }
}

/// A session, before and after it was played.
#[derive(Clone)]
pub struct Session {
    /// Which of the run.
    pub number: u32,
    /// The relay's front door.
    pub base: String,
    /// A bearer token.
    pub token: String,
    /// What the token added, in msat.
    pub voucher: u64,
    /// The relay's name for it.
    pub session: String,
    /// Whether its end was asked for and granted.
    pub in_order: bool,
    purse: Purse,
    credentials: Credentials,
    server: SocketAddr,
}

/// Buys a session at a relay.
pub fn sell(base: &str, number: u32, purse: Purse) -> Result<Session, Error> {
    let voucher = purse.msat(number);
    let token = bearer_token(base, voucher)?;
    let Bought {
        credentials,
        server,
        session,
    } = bought(base, &token, Transport::Udp)?;
    Ok(Session {
        number,
        base: base.to_owned(),
        token,
        voucher,
        session,
        in_order: false,
        purse,
        credentials,
        server,
    })
}

/// SplitMix64 of a session's number: how long it lasts and what it sends is the same in every run.
fn luck(number: u32, round: u64) -> u64 {
    let mut word = (u64::from(number) << 20 | round).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word ^ (word >> 31)
}

struct Live {
    session: Session,
    allocation: Allocation,
    peer: Socket,
    rounds: u64,
}

/// Plays sessions beside each other. One whose relay goes away, or ends it, is not in order.
pub fn play(sold: Vec<Session>, run: u32) -> Result<Vec<Session>, Error> {
    let mut inbox = Inbox::new();
    let (mut done, mut live) = (Vec::new(), Vec::new());
    for session in sold {
        match open(&session, &mut inbox) {
            Ok((allocation, peer)) => {
                let rounds = 1 + luck(session.number, 0) % ROUNDS_MAX;
                live.push(Live {
                    session,
                    allocation,
                    peer,
                    rounds,
                });
            }
            Err(_) => done.push(session),
        }
    }
    let mut packet = [0; HEADER_LEN + BYTES_MAX as usize];
    for round in 1.. {
        if live.is_empty() {
            return Ok(done);
        }
        for one in &mut live {
            let packets = match one.session.purse {
                Purse::Full => 1,
                Purse::Scant => 12,
            };
            for _ in 0..packets {
                one.talk(run, round, &mut packet)?;
            }
        }
        sleep(ROUND);
        for one in &mut live {
            one.listen(&mut inbox)?;
        }
        let (over, going): (Vec<Live>, Vec<Live>) = live.into_iter().partition(|one| one.rounds <= round);
        live = going;
        for mut one in over {
            // A scant one is left for the relay to end.
            one.session.in_order = one.session.purse == Purse::Full
                && one
                    .allocation
                    .end()
                    .and_then(|()| one.allocation.done(&mut inbox))
                    .is_ok();
            done.push(one.session);
        }
    }
    Ok(done)
}

fn open(session: &Session, inbox: &mut Inbox) -> Result<(Allocation, Socket), Error> {
    let link = Link::open(Transport::Udp, session.server, session.number)?;
    let mut allocation = Opening::begin(link, session.number, &session.credentials)?.authenticate(inbox)?;
    allocation.finish(inbox)?;
    let peer = bind_peer(session.server, session.number)?;
    allocation.bind(peer.local_addr())?;
    allocation.done(inbox)?;
    Ok((allocation, peer))
}

impl Live {
    fn talk(&mut self, run: u32, round: u64, packet: &mut [u8]) -> Result<(), Error> {
        let number = self.session.number;
        let draw = luck(number, round);
        let size = |draw: u64| LABEL + (draw % (BYTES_MAX - LABEL as u64)) as usize;
        let up = HEADER_LEN + size(draw);
        if let Some((header, _)) = packet.split_first_chunk_mut() {
            channel_data::write_header(header, ChannelNumber::MIN, (up - HEADER_LEN) as u16);
        }
        label(&mut packet[HEADER_LEN..up], run, number);
        self.allocation.link.send(&packet[..up], up)?;
        let down = size(draw >> 32);
        label(&mut packet[..down], run, number);
        // What the kernel does not take was not sent.
        let _ = self.peer.send(&single(self.allocation.relayed, &packet[..down]));
        Ok(())
    }

    /// Empties both sockets, so that nothing is lost for want of room.
    fn listen(&mut self, inbox: &mut Inbox) -> Result<(), Error> {
        self.allocation.link.receive(inbox, |_| {})?;
        loop {
            // Errors are those of an earlier send.
            let _ = self.peer.receive(inbox);
            if inbox.drained() {
                return Ok(());
            }
        }
    }
}
