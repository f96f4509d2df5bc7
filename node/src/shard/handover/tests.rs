use sfu::media::DtlsRole;
use wire::stun::{Builder, TransactionId};

use super::super::command::Command;
use super::super::lobby::tests::{check, opening, shards as lobby_of};
use super::super::mailbox::Mailbox;
use super::*;

const MEDIA: [u8; 4] = [0x80, 96, 0, 1];
const HELLO: [u8; 14] = [22, 254, 253, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1];

fn success() -> Vec<u8> {
    let mut buffer = vec![0; 256];
    let length = Builder::new(
        &mut buffer,
        Class::Success,
        Method::BINDING,
        TransactionId([1; 12]),
    )
    .finish()
    .unwrap();
    buffer.truncate(length);
    buffer
}

fn client() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

/// Shards without sockets.
struct Node {
    mailboxes: Vec<Mailbox>,
    peers: Vec<Peers>,
    cores: Vec<Sfu>,
    lobby: Arc<Lobby>,
    now: Instant,
}

impl Node {
    fn new(count: usize) -> Node {
        let (mailboxes, lobby, _) = lobby_of(count);
        let handles: Vec<ShardHandle> = mailboxes.iter().map(Mailbox::handle).collect();
        let certificate = sfu::dtls::Certificate::generate();
        let core = |seed| Sfu::new(sfu::Config::default(), certificate.clone(), [seed as u8; 32]);
        Node {
            peers: Peers::among(&handles, &lobby),
            cores: (0..count).map(core).collect(),
            mailboxes,
            lobby,
            now: Instant::now(),
        }
    }

    fn open(&self, number: u64) {
        self.lobby
            .open(opening(number, DtlsRole::Passive), self.now)
            .unwrap();
    }

    /// A datagram lands on `shard`; an adoption is carried out.
    fn lands(&mut self, shard: usize, source: SocketAddr, datagram: &[u8]) -> Sorted {
        let sorted = self.peers[shard].sort(&mut self.cores[shard], source, None, datagram, self.now);
        if let Sorted::Adopt(waiting) = &sorted {
            let fresh = opening(waiting.open.session.get(), DtlsRole::Passive);
            let core = &mut self.cores[shard];
            core.open(
                fresh.session,
                fresh.permit,
                fresh.transport,
                fresh.allowance,
                self.now,
            )
            .unwrap();
            for path in &waiting.paths {
                core.prove(fresh.session, path.source, path.local_ip, path.nominated, path.at);
            }
        }
        sorted
    }

    /// Carries parcels until there are none: each core answers the checks that reach it. Says which shards got media.
    fn carry(&mut self) -> Vec<usize> {
        let mut media = Vec::new();
        for _ in 0..3 {
            for shard in 0..self.mailboxes.len() {
                while let Some(parcel) = self.mailboxes[shard].next_parcel() {
                    match parcel {
                        Parcel::Relayed { .. } => unreachable!("nobody relays here"),
                        Parcel::Owner {
                            address,
                            shard: owner,
                        } => {
                            self.peers[shard].learn(address, owner, self.now);
                        }
                        Parcel::Turn(..) => unreachable!("nobody here speaks TURN"),
                        Parcel::Datagram(mut datagram) => {
                            let (source, from) = (datagram.source, datagram.from);
                            self.peers[shard].received(source, from, datagram.bytes(), self.now);
                            if demux::classify(datagram.bytes()) == Kind::Stun {
                                self.peers[shard].sent(source, &success(), self.now);
                            } else {
                                media.push(shard);
                            }
                        }
                    }
                }
            }
        }
        media
    }
}

#[test]
fn a_session_is_adopted_where_its_first_dtls_packet_lands_and_media_stays_there() {
    let mut node = Node::new(3);
    node.open(1);
    assert!(
        matches!(node.lands(1, client(), &HELLO), Sorted::Here),
        "no check came from there yet"
    );
    assert!(matches!(node.lands(1, client(), &check(1)), Sorted::Answer(_)));
    assert!(
        matches!(node.lands(1, client(), &MEDIA), Sorted::Here),
        "media adopts nobody"
    );
    assert!(matches!(node.lands(1, client(), &HELLO), Sorted::Adopt(_)));
    assert!(
        node.cores[1].has_address(client()),
        "the path that was proved in the lobby"
    );
    assert!(matches!(node.lands(1, client(), &HELLO), Sorted::Here));
    assert!(matches!(node.lands(1, client(), &MEDIA), Sorted::Here));
    assert!(
        matches!(node.lands(1, client(), &check(1)), Sorted::Here),
        "its core answers from now on"
    );
}

#[test]
fn another_address_of_an_adopted_session_is_handed_over_wherever_it_lands() {
    let mut node = Node::new(3);
    let second: SocketAddr = "192.0.2.1:4001".parse().unwrap();
    let third: SocketAddr = "198.51.100.7:9".parse().unwrap();
    node.open(1);
    node.lands(0, client(), &check(1));
    node.lands(2, second, &check(1));
    assert!(matches!(node.lands(0, client(), &HELLO), Sorted::Adopt(_)));
    assert!(
        node.cores[0].has_address(second),
        "proved on another shard before"
    );
    assert!(
        matches!(node.lands(2, second, &MEDIA), Sorted::Done),
        "and known there to be shard 0's"
    );
    assert_eq!(node.carry(), [0]);
    // An address that comes up later: unknown until a check from there is answered.
    assert!(matches!(node.lands(1, third, &MEDIA), Sorted::Here));
    assert!(matches!(node.lands(1, third, &check(1)), Sorted::Done));
    assert!(node.carry().is_empty());
    assert!(matches!(node.lands(1, third, &MEDIA), Sorted::Done));
    assert_eq!(node.carry(), [0]);
}

#[test]
fn checks_from_a_forged_address_divert_nobody_who_is_there() {
    let mut node = Node::new(3);
    // The victim lives on shard 0, where its datagrams land; another of its addresses lands on shard 1.
    let roaming: SocketAddr = "192.0.2.1:4001".parse().unwrap();
    node.open(1);
    node.lands(0, client(), &check(1));
    assert!(matches!(node.lands(0, client(), &HELLO), Sorted::Adopt(_)));
    node.lands(1, roaming, &check(1));
    node.carry();
    // The attacker has one session on shard 2 and one that waits.
    let own: SocketAddr = "203.0.113.66:6".parse().unwrap();
    node.open(2);
    node.lands(2, own, &check(2));
    assert!(matches!(node.lands(2, own, &HELLO), Sorted::Adopt(_)));
    node.open(3);
    for second in 0..60 {
        if second % 5 == 0 {
            node.peers[0].sent(client(), &success(), node.now);
            node.lands(1, roaming, &check(1));
            node.carry();
        }
        for (shard, address) in [(0, client()), (1, roaming)] {
            node.lands(shard, address, &check(2));
            node.carry();
            node.lands(shard, address, &check(3));
        }
        assert!(
            matches!(node.lands(0, client(), &MEDIA), Sorted::Here),
            "after {second} s"
        );
        assert!(
            matches!(node.lands(0, client(), &HELLO), Sorted::Here),
            "after {second} s"
        );
        assert!(matches!(node.lands(1, roaming, &MEDIA), Sorted::Done));
        assert_eq!(node.carry(), [0], "after {second} s");
        node.now += Duration::from_secs(1);
    }
    node.now += YIELD_AFTER;
    node.lands(1, roaming, &check(2));
    node.carry();
    assert!(matches!(node.lands(1, roaming, &MEDIA), Sorted::Done));
    assert_eq!(node.carry(), [2], "an address that was left is free");
}

#[test]
fn a_forged_check_takes_no_address_from_a_session_that_waits() {
    let mut node = Node::new(2);
    node.open(1);
    node.open(2);
    node.lands(0, client(), &check(1));
    assert!(matches!(node.lands(0, client(), &check(2)), Sorted::Answer(_)));
    let Sorted::Adopt(waiting) = node.lands(0, client(), &HELLO) else {
        panic!("the handshake makes the shard adopt");
    };
    assert_eq!(waiting.open.session.get(), 1);
}

#[test]
fn who_closed_its_session_may_open_the_next_one_from_the_same_address() {
    let mut node = Node::new(2);
    for number in 1..4 {
        node.open(number);
        node.lands(0, client(), &check(number));
        node.peers[0].sent(client(), &success(), node.now);
        assert!(
            matches!(node.lands(0, client(), &HELLO), Sorted::Adopt(_)),
            "session {number}"
        );
        let session = metering::SessionId::new(number);
        node.cores[0].close(session, sfu::CloseReason::Bye, node.now);
        node.lobby.forget(session);
        node.now += Duration::from_secs(1);
    }
}

#[test]
fn guessed_ufrags_get_no_answer_and_leave_no_state() {
    let mut node = Node::new(2);
    node.open(1);
    for number in 2..1_000 {
        let source = SocketAddr::from(([203, 0, 113, 9], number as u16));
        assert!(matches!(node.lands(0, source, &check(number)), Sorted::Here));
    }
    let mut forged = check(1);
    let last = forged.len() - 12;
    forged[last] ^= 1;
    assert!(matches!(node.lands(0, client(), &forged), Sorted::Done));
    assert!(node.peers[0].held.is_empty());
    assert_eq!(node.cores[0].counters().discarded(Discard::StunUnauthentic), 1);
}

#[test]
fn a_shard_without_room_for_a_handshake_adopts_nobody() {
    let mut node = Node::new(2);
    let config = sfu::Config {
        handshakes_max: 0,
        ..sfu::Config::default()
    };
    node.cores[0] = Sfu::new(config, sfu::dtls::Certificate::generate(), [9; 32]);
    node.open(1);
    node.lands(0, client(), &check(1));
    assert!(matches!(node.lands(0, client(), &HELLO), Sorted::Done));
    assert_eq!(node.cores[0].counters().discarded(Discard::TooManyHandshakes), 1);
    assert!(node.lobby.find("relay1").is_some_and(|guest| guest.is_waiting()));
}

#[test]
fn what_is_too_large_to_hand_over_is_counted() {
    let mut node = Node::new(2);
    node.peers[0].learn(client(), 1, node.now);
    assert!(matches!(
        node.lands(0, client(), &[0x80; PARCEL_MAX + 1]),
        Sorted::Lost
    ));
    assert_eq!(node.peers[0].lost, 1);
}

#[test]
fn a_full_mailbox_refuses_and_does_not_wait() {
    let mut node = Node::new(2);
    node.peers[0].learn(client(), 1, node.now);
    let mut lost = 0;
    for _ in 0..5_000 {
        match node.lands(0, client(), &MEDIA) {
            Sorted::Lost => lost += 1,
            Sorted::Done => {}
            _ => panic!("it is another shard's"),
        }
    }
    let delivered = std::iter::from_fn(|| node.mailboxes[1].next_parcel()).count() as u64;
    assert_eq!(delivered + node.peers[0].lost, 5_000);
    assert_eq!(node.peers[0].lost, lost, "each that was lost is said to be");
    assert!(node.peers[0].lost > 0);
    let handle = node.mailboxes[0].handle();
    let accepted = (0..100_000)
        .take_while(|_| handle.send(Command::Drain).is_ok())
        .count();
    assert!((1..100_000).contains(&accepted));
    assert!(node.mailboxes[0].next_command().is_some());
}

#[test]
fn what_the_sfu_sends_to_a_relayed_port_of_another_shard_waits_in_a_bounded_queue() {
    let mut node = Node::new(2);
    let (sfu, bytes) = ("192.0.2.9:5004".parse().unwrap(), [0x80; 1_200]);
    let posted = (0..5_000)
        .filter(|_| node.peers[0].hand_to_relay(1, 50_000, sfu, &bytes))
        .count();
    assert!(posted > 0 && posted < 5_000);
    assert_eq!(
        node.peers[0].lost,
        5_000 - posted as u64,
        "each that was lost is said to be"
    );
    let mut delivered = 0;
    while let Some(parcel) = node.mailboxes[1].next_parcel() {
        let Parcel::Relayed { port, mut datagram } = parcel else {
            panic!("something else was posted");
        };
        assert_eq!((port, datagram.source), (50_000, sfu));
        assert_eq!(datagram.bytes(), &bytes);
        delivered += 1;
    }
    assert_eq!(delivered, posted);
    assert!(
        !node.peers[0].hand_to_relay(1, 50_000, sfu, &[0x80; 2_001]),
        "what fits no parcel is lost too"
    );
}
