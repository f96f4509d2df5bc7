use super::super::command::Command;
use super::super::mailbox::{self, Mailbox};
use super::*;
use wire::stun::{Builder, TransactionId};

fn message(class: Class, username: Option<&str>) -> Vec<u8> {
    let mut buffer = vec![0; 256];
    let builder = Builder::new(&mut buffer, class, Method::BINDING, TransactionId([1; 12]));
    let builder = match username {
        Some(username) => builder.username(username),
        None => builder,
    };
    let len = builder.finish().unwrap();
    buffer.truncate(len);
    buffer
}

fn shards(count: usize) -> (Vec<Mailbox>, Vec<Peers>) {
    let mailboxes: Vec<Mailbox> = (0..count).map(|_| mailbox::new().unwrap()).collect();
    let handles: Vec<ShardHandle> = mailboxes.iter().map(Mailbox::handle).collect();
    (mailboxes, Peers::among(&handles))
}

fn client() -> SocketAddr {
    "192.0.2.1:4000".parse().unwrap()
}

#[test]
fn a_check_goes_to_the_shard_that_its_ufrag_names() {
    let (mailboxes, mut peers) = shards(3);
    let check = message(Class::Request, Some("02abcdefghijkl:theirs"));
    assert!(peers[0].hand_over(client(), None, &check));
    match mailboxes[2].next_parcel() {
        Some(Parcel::Datagram(mut datagram)) => assert_eq!(
            (datagram.source, datagram.bytes()),
            (client(), &mut check.clone()[..])
        ),
        _ => panic!("the datagram is in the third shard's mailbox"),
    }
    assert!(
        !peers[2].hand_over(client(), None, &check),
        "it stays where it belongs"
    );
    for odd in ["ffabcdefghijkl:theirs", "zz", "", "02short:theirs"] {
        assert!(
            !peers[0].hand_over(client(), None, &message(Class::Request, Some(odd))),
            "{odd}"
        );
    }
}

#[test]
fn media_follows_once_its_address_has_been_proved_to_its_owner() {
    let (mailboxes, mut peers) = shards(2);
    let (media, now) = ([0x80, 96, 0, 1], Instant::now());
    assert!(
        !peers[0].hand_over(client(), None, &media),
        "nobody has claimed the address"
    );
    peers[1].sent(client(), &media, now);
    peers[1].sent(client(), &message(Class::Error, None), now);
    assert!(
        mailboxes[0].next_parcel().is_none(),
        "only a Binding success proves anything"
    );
    peers[1].sent(client(), &message(Class::Success, None), now);
    match mailboxes[0].next_parcel() {
        Some(Parcel::Owner { address, shard }) => peers[0].learn(address, shard, now),
        _ => panic!("the owner announces itself"),
    }
    assert!(peers[0].hand_over(client(), None, &media));
    assert!(matches!(mailboxes[1].next_parcel(), Some(Parcel::Datagram(_))));
    peers[1].sent(
        client(),
        &message(Class::Success, None),
        now + Duration::from_secs(1),
    );
    assert!(mailboxes[0].next_parcel().is_none(), "not for every check");
}

#[test]
fn a_check_from_a_forged_address_diverts_nobody_who_is_there() {
    // The victim's session is on shard 1, its datagrams land on shard 0, and the attacker has a session on shard 2.
    let (mailboxes, mut peers) = shards(3);
    let (media, now) = ([0x80, 96, 0, 1], Instant::now());
    let success = |peers: &mut Vec<Peers>, shard: usize, at: Instant| {
        peers[shard].sent(client(), &message(Class::Success, None), at);
        for (index, mailbox) in mailboxes.iter().enumerate() {
            while let Some(parcel) = mailbox.next_parcel() {
                if let Parcel::Owner { address, shard } = parcel {
                    peers[index].learn(address, shard, at);
                }
            }
        }
    };
    let lands = |peers: &mut Vec<Peers>, at: usize| {
        peers[at].hand_over(client(), None, &media);
        (0..3).find(|shard| matches!(mailboxes[*shard].next_parcel(), Some(Parcel::Datagram(_))))
    };
    success(&mut peers, 1, now);
    for second in 0..60 {
        let at = now + Duration::from_secs(second);
        success(&mut peers, 2, at);
        if second % 5 == 0 {
            success(&mut peers, 1, at);
        }
        assert_eq!(lands(&mut peers, 0), Some(1), "after {second} s");
        assert_eq!(lands(&mut peers, 1), None, "what lands at its shard stays there");
        assert_eq!(lands(&mut peers, 2), Some(1), "after {second} s");
    }
    let later = now + Duration::from_secs(60) + YIELD_AFTER;
    success(&mut peers, 2, later);
    assert_eq!(lands(&mut peers, 0), Some(2), "an address that was left is free");
}

#[test]
fn a_single_shard_hands_nothing_over_and_what_is_too_large_is_counted() {
    let (_mailboxes, mut peers) = shards(1);
    assert!(!peers[0].hand_over(
        client(),
        None,
        &message(Class::Request, Some("01abcdefghijkl:theirs"))
    ));
    let (_mailboxes, mut peers) = shards(2);
    peers[0].learn(client(), 1, Instant::now());
    assert!(peers[0].hand_over(client(), None, &[0x80; PARCEL_MAX + 1]));
    assert_eq!(peers[0].lost, 1);
}

#[test]
fn a_full_mailbox_refuses_and_does_not_wait() {
    let (mailboxes, mut peers) = shards(2);
    peers[0].learn(client(), 1, Instant::now());
    for _ in 0..5_000 {
        assert!(peers[0].hand_over(client(), None, &[0x80, 96]));
    }
    let delivered = std::iter::from_fn(|| mailboxes[1].next_parcel()).count() as u64;
    assert_eq!(delivered + peers[0].lost, 5_000);
    assert!(peers[0].lost > 0);
    let handle = mailboxes[0].handle();
    let accepted = (0..100_000)
        .take_while(|_| handle.send(Command::Drain).is_ok())
        .count();
    assert!((1..100_000).contains(&accepted));
    assert!(mailboxes[0].next_command().is_some());
}
