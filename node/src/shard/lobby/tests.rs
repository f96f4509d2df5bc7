use std::sync::mpsc::{Receiver, channel};

use identity::token::{Issue, TokenPolicy, issue, verify};
use identity::{Permit, SigningKey};
use metering::{Allowance, LeaseId, Msat, Rates, Step};
use sfu::media::{Fingerprint, FingerprintAlgorithm, IceCredentials, Media, Mid, Transport};
use wire::stun::{Builder, Class, Method, TransactionId};

use super::super::mailbox::{self, Mailbox};
use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A permit as the front door makes one.
fn permit() -> Arc<Permit> {
    let (operator, issuer) = (SigningKey::generate(), SigningKey::generate());
    let holder = SigningKey::generate();
    let mut claims = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, 1_000);
    claims.bearer = true;
    let jwt = issue(&issuer, &claims);
    let mut policy = TokenPolicy::new(operator.did().clone(), vec![issuer.did().clone()]);
    policy.allow_bearer = true;
    let token = verify(&jwt, &policy, 1_000).unwrap();
    Arc::new(Permit::from_bearer(token).unwrap())
}

fn credentials(name: &str, number: u64) -> IceCredentials {
    IceCredentials {
        ufrag: format!("{name}{number}"),
        pwd: format!("{name}-password-of-22-chars-{number}"),
    }
}

pub(in super::super) fn opening(number: u64, role: DtlsRole) -> OpenSfu {
    let rates = Rates {
        out: 50,
        in_: 0,
        second: 8,
    };
    let session = SessionId::new(number);
    OpenSfu {
        session,
        permit: permit(),
        transport: Transport {
            local: credentials("relay", number),
            remote: credentials("client", number),
            fingerprint: Fingerprint {
                algorithm: FingerprintAlgorithm::Sha256,
                value: vec![0; 32],
            },
            role,
        },
        media: Media::default(),
        allowance: Allowance::new(LeaseId::new(number), session, rates, Msat::new(10_000)),
    }
}

/// A nominating check as the client of session `number` sends it.
pub(in super::super) fn check(number: u64) -> Vec<u8> {
    let (local, remote) = (credentials("relay", number), credentials("client", number));
    let mut buffer = vec![0; 300];
    let username = format!("{}:{}", local.ufrag, remote.ufrag);
    let length = Builder::new(
        &mut buffer,
        Class::Request,
        Method::BINDING,
        TransactionId([3; 12]),
    )
    .username(&username)
    .ice_controlling(1)
    .use_candidate()
    .integrity(local.pwd.as_bytes())
    .fingerprint()
    .finish()
    .unwrap();
    buffer.truncate(length);
    buffer
}

pub(in super::super) fn shards(count: usize) -> (Vec<Mailbox>, Arc<Lobby>, Receiver<Farewell>) {
    let mailboxes: Vec<Mailbox> = (0..count).map(|_| mailbox::new().unwrap()).collect();
    let handles = mailboxes.iter().map(Mailbox::handle).collect();
    let (tell, told) = channel();
    let lobby = Lobby::new(handles, 4, PATIENCE, move |farewell| drop(tell.send(farewell)));
    (mailboxes, Arc::new(lobby), told)
}

fn client(port: u16) -> (SocketAddr, Option<IpAddr>) {
    (SocketAddr::from(([192, 0, 2, 1], port)), None)
}

fn knock(guest: &Guest, shard: usize, port: u16, number: u64, now: Instant) -> Knock {
    let mut answer = [0; ANSWER_BYTES_MAX];
    guest.knock(shard, &check(number), client(port), true, true, now, &mut answer)
}

fn route(mid: &str, session: u64) -> Command {
    Command::Route {
        subscriber: SessionId::new(1),
        mid: Mid::new(mid).unwrap(),
        source: Some(sfu::Source {
            session: SessionId::new(session),
            kind: sfu::media::Kind::Audio,
        }),
    }
}

#[test]
fn of_two_shards_that_get_a_first_dtls_packet_at_once_one_adopts() {
    let (_mailboxes, lobby, _told) = shards(2);
    let now = Instant::now();
    for number in 0..200 {
        lobby.open(opening(number, DtlsRole::Passive), now).unwrap();
        let guest = lobby.find(&credentials("relay", number).ufrag).unwrap();
        let start = Arc::new(std::sync::Barrier::new(2));
        let claims: Vec<_> = (0..2)
            .map(|shard| {
                let (guest, start) = (guest.clone(), start.clone());
                std::thread::spawn(move || {
                    start.wait();
                    guest.claim(shard)
                })
            })
            .collect();
        let claims: Vec<Claim> = claims.into_iter().map(|claim| claim.join().unwrap()).collect();
        let winner = claims.iter().position(|claim| matches!(claim, Claim::Taken(_)));
        let winner = winner.expect("one of them has it");
        assert!(matches!(claims[1 - winner], Claim::With(shard) if shard == winner));
        assert_eq!(guest.shard(), Some(winner));
        lobby.forget(SessionId::new(number));
        assert!(matches!(guest.claim(0), Claim::Gone));
    }
}

#[test]
fn any_shard_answers_checks_and_what_they_proved_goes_along() {
    let (_mailboxes, lobby, _told) = shards(3);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Passive), now).unwrap();
    let guest = lobby.find("relay1").unwrap();
    for (shard, port) in [(2, 1), (0, 2), (2, 1)] {
        let answered = knock(&guest, shard, port, 1, now);
        assert!(matches!(answered, Knock::Answered { proved: true, .. }));
    }
    assert!(matches!(
        knock(&guest, 0, 3, 2, now),
        Knock::Refused(Discard::UnknownUfrag)
    ));
    let mut answer = [0; ANSWER_BYTES_MAX];
    let neighbour = guest.knock(0, &check(1), client(4), false, true, now, &mut answer);
    assert!(matches!(neighbour, Knock::Answered { proved: false, .. }));
    let Claim::Taken(waiting) = guest.claim(1) else {
        panic!("nobody has adopted it");
    };
    let ports: Vec<u16> = waiting.paths.iter().map(|path| path.source.port()).collect();
    assert_eq!(ports, [2, 1], "the latest comes last");
    assert!(matches!(knock(&guest, 0, 5, 1, now), Knock::With(1)));
}

#[test]
fn one_session_proves_a_bounded_number_of_addresses() {
    let (_mailboxes, lobby, _told) = shards(1);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Passive), now).unwrap();
    let guest = lobby.find("relay1").unwrap();
    for port in 0..ADDRESSES_MAX as u16 {
        assert!(matches!(
            knock(&guest, 0, port + 1, 1, now),
            Knock::Answered { proved: true, .. }
        ));
    }
    let one_more = knock(&guest, 0, 999, 1, now);
    assert!(matches!(one_more, Knock::Refused(Discard::TooManyAddresses)));
}

#[test]
fn where_the_relay_starts_dtls_the_first_valid_check_decides() {
    let (_mailboxes, lobby, _told) = shards(2);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Active), now).unwrap();
    let guest = lobby.find("relay1").unwrap();
    let mut answer = [0; ANSWER_BYTES_MAX];
    let full = guest.knock(0, &check(1), client(1), true, false, now, &mut answer);
    assert!(
        matches!(full, Knock::Answered { .. }),
        "a shard without room adopts nobody"
    );
    assert!(
        matches!(knock(&guest, 0, 1, 2, now), Knock::Refused(_)),
        "nor does a forged one"
    );
    assert!(matches!(knock(&guest, 1, 1, 1, now), Knock::Claimed(_)));
    assert_eq!(guest.shard(), Some(1));
}

#[test]
fn a_session_that_never_connects_expires_and_gives_its_lease_back() {
    let (_mailboxes, lobby, told) = shards(2);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Passive), now).unwrap();
    lobby
        .open(opening(2, DtlsRole::Passive), now + Duration::from_secs(1))
        .unwrap();
    lobby.expire(now + PATIENCE - Duration::from_millis(1));
    assert!(told.try_recv().is_err());
    lobby.expire(now + PATIENCE);
    let farewell = told.try_recv().expect("the first one's");
    assert_eq!(
        (farewell.session, farewell.reason),
        (SessionId::new(1), CloseReason::Setup)
    );
    assert!(farewell.report.closed && farewell.report.last);
    assert_eq!(farewell.report.usage.debit, Msat::ZERO);
    assert!(lobby.find("relay1").is_none() && lobby.find("relay2").is_some());
    // One that was adopted meanwhile is its shard's to close.
    let guest = lobby.find("relay2").unwrap();
    assert!(matches!(guest.claim(0), Claim::Taken(_)));
    lobby.expire(now + PATIENCE * 2);
    assert!(told.try_recv().is_err() && lobby.find("relay2").is_some());
}

#[test]
fn a_lease_that_waited_is_reported_as_soon_as_its_session_is_adopted() {
    let (_mailboxes, lobby, _told) = shards(1);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Passive), now).unwrap();
    let Claim::Taken(mut waiting) = lobby.find("relay1").unwrap().claim(0) else {
        panic!("nobody has adopted it");
    };
    let adopted = now + Duration::from_secs(25);
    assert!(waiting.open.allowance.poll_report(adopted).is_some());
}

#[test]
fn commands_before_adoption_are_kept_in_order_and_those_after_reach_the_shard() {
    let (mailboxes, lobby, _told) = shards(2);
    let session = SessionId::new(1);
    lobby.open(opening(1, DtlsRole::Passive), Instant::now()).unwrap();
    let send = |command| lobby.send(session, command).unwrap();
    let grant = |total| Command::Grant {
        session,
        lease: LeaseId::new(1),
        granted_total: Msat::new(total),
    };
    send(route("a", 7));
    send(route("b", 7));
    send(route("a", 8));
    send(grant(5));
    send(Command::SetMedia {
        session,
        media: Box::default(),
    });
    send(route("a", 9));
    send(grant(6));
    let step = Step::Reduced;
    send(Command::SetStep { session, step });
    let Claim::Taken(waiting) = lobby.find("relay1").unwrap().claim(1) else {
        panic!("nobody has adopted it");
    };
    let said: Vec<String> = waiting
        .kept
        .iter()
        .map(|command| match command {
            Command::Route { mid, source, .. } => format!("{mid}{}", source.unwrap().session),
            Command::SetMedia { .. } => "media".to_owned(),
            Command::Grant { granted_total, .. } => format!("grant {}", granted_total.get()),
            Command::SetStep { .. } => "step".to_owned(),
            _ => "?".to_owned(),
        })
        .collect();
    let id = |number| SessionId::new(number).to_string();
    let wanted = [
        format!("b{}", id(7)),
        format!("a{}", id(8)),
        "media".to_owned(),
        format!("a{}", id(9)),
        "grant 6".to_owned(),
        "step".to_owned(),
    ];
    assert_eq!(said, wanted);
    send(grant(7));
    assert!(mailboxes[0].next_command().is_none());
    assert!(matches!(mailboxes[1].next_command(), Some(Command::Grant { .. })));
    lobby.forget(session);
    send(grant(8));
    assert!(
        mailboxes[1].next_command().is_none(),
        "nobody is there to hear it"
    );
}

#[test]
fn what_is_kept_for_a_session_is_bounded() {
    let (_mailboxes, lobby, _told) = shards(1);
    lobby.open(opening(1, DtlsRole::Passive), Instant::now()).unwrap();
    let kept = (0..10_000)
        .take_while(|number| {
            lobby
                .send(SessionId::new(1), route(&format!("m{number}"), 7))
                .is_ok()
        })
        .count();
    assert_eq!(kept, KEPT_MAX);
}

#[test]
fn a_session_that_is_ended_while_it_waits_is_settled_at_once() {
    let (mailboxes, lobby, told) = shards(1);
    lobby.open(opening(1, DtlsRole::Passive), Instant::now()).unwrap();
    lobby.open(opening(2, DtlsRole::Passive), Instant::now()).unwrap();
    let reason = CloseReason::Bye;
    let close = |number| Command::CloseSfu {
        session: SessionId::new(number),
        reason,
    };
    lobby.send(SessionId::new(1), close(1)).unwrap();
    assert!(told.try_recv().is_ok_and(|farewell| farewell.reason == reason));
    assert!(lobby.find("relay1").is_none());
    let guest = lobby.find("relay2").unwrap();
    assert!(matches!(guest.claim(0), Claim::Taken(_)));
    lobby.send(SessionId::new(2), close(2)).unwrap();
    assert!(told.try_recv().is_err(), "its shard settles it");
    assert!(matches!(
        mailboxes[0].next_command(),
        Some(Command::CloseSfu { .. })
    ));
}

#[test]
fn an_ice_restart_changes_the_ufrag_of_whoever_waits_and_of_whoever_was_adopted() {
    let (mailboxes, lobby, _told) = shards(2);
    let now = Instant::now();
    lobby.open(opening(1, DtlsRole::Passive), now).unwrap();
    let restart = |number| {
        let mut transport = opening(number, DtlsRole::Passive).transport;
        transport.fingerprint.value[0] = 9;
        let session = SessionId::new(1);
        let transport = Box::new(transport);
        lobby
            .send(session, Command::SetTransport { session, transport })
            .unwrap();
    };
    restart(5);
    assert!(lobby.find("relay1").is_none());
    let guest = lobby.find("relay5").unwrap();
    assert!(
        matches!(knock(&guest, 0, 1, 1, now), Knock::Refused(_)),
        "the old credentials"
    );
    assert!(matches!(
        knock(&guest, 0, 1, 5, now),
        Knock::Answered { proved: true, .. }
    ));
    let Claim::Taken(waiting) = guest.claim(1) else {
        panic!("nobody has adopted it");
    };
    assert_eq!(waiting.open.transport.fingerprint.value[0], 9);
    restart(6);
    assert!(lobby.find("relay5").is_none());
    assert_eq!(lobby.find("relay6").and_then(|guest| guest.shard()), Some(1));
    assert!(matches!(
        mailboxes[1].next_command(),
        Some(Command::SetTransport { .. })
    ));
}

#[test]
fn the_lobby_is_bounded_and_takes_nobody_in_once_the_relay_drains() {
    let (_mailboxes, lobby, told) = shards(1);
    let now = Instant::now();
    for number in 0..4 {
        lobby.open(opening(number, DtlsRole::Passive), now).unwrap();
    }
    assert_eq!(
        lobby.open(opening(3, DtlsRole::Passive), now),
        Err(Refused::Duplicate)
    );
    assert_eq!(
        lobby.open(opening(4, DtlsRole::Passive), now),
        Err(Refused::Capacity)
    );
    lobby.forget(SessionId::new(0));
    lobby.drain();
    assert_eq!(
        lobby.open(opening(5, DtlsRole::Passive), now),
        Err(Refused::Capacity)
    );
    let guest = lobby.find("relay1").unwrap();
    assert!(
        matches!(guest.claim(0), Claim::Taken(_)),
        "who waits may still connect"
    );
    lobby.close(now);
    assert_eq!(told.try_iter().count(), 2, "the other two are settled");
}
