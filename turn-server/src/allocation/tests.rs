use identity::token::{Issue, TokenPolicy, issue, verify};
use identity::{Permit, SigningKey};
use rand::SeedableRng;
use wire::stun::{Builder, Class, Message, Method, TransactionId};

use super::*;

fn permit() -> Arc<Permit> {
    let [operator, issuer, holder] = std::array::from_fn(|_| SigningKey::generate());
    let mut claims = Issue::new(holder.did().clone(), operator.did().clone(), 1_000_000, 1_000);
    claims.bearer = true;
    let mut policy = TokenPolicy::new(operator.did().clone(), vec![issuer.did().clone()]);
    policy.allow_bearer = true;
    let verified = verify(&issue(&issuer, &claims), &policy, 1_000).unwrap();
    Arc::new(Permit::from_bearer(verified).unwrap())
}

/// One that waits for its money, of a session of its own.
fn allocation(number: u8, now: Instant) -> Allocation {
    let mut request = [0; 64];
    let id = TransactionId([number; 12]);
    let len = Builder::new(&mut request, Class::Request, Method::ALLOCATE, id)
        .finish()
        .unwrap();
    let name = format!("user {number}");
    let session = SessionId::new(u64::from(number) + 1);
    Allocation {
        client: Client::udp(
            SocketAddr::from(([8, 8, 4, 4], 4000 + u16::from(number))),
            SocketAddr::from(([9, 9, 9, 9], 3478)),
        ),
        credential: Arc::new(Credential::new(name, "secret", session, permit(), now)),
        stage: Stage::Admitting,
        head: Head::of(&Message::parse(&request[..len]).unwrap()),
        lifetime: Duration::from_secs(600),
        protocol: Protocol::Udp,
        ports: [Port::Wanted, Port::None],
        even_port: None,
        reservation: None,
        mobility: None,
        expires: now,
        look: None,
        allowance: None,
        permissions: Permissions::new(1),
        channels: Channels::new(1),
        step: Step::Full,
        held: None,
        has_call: false,
        to_client: Bucket::default(),
        to_peer: Bucket::default(),
    }
}

#[test]
fn each_is_looked_at_once_and_as_early_as_it_was_planned() {
    let start = Instant::now();
    let mut allocations = Allocations::new(&mut StdRng::from_seed([1; 32]));
    let at = |milliseconds| start + Duration::from_millis(milliseconds);
    let keys: Vec<_> = (0..3).map(|n| allocations.insert(allocation(n, start))).collect();
    allocations.plan(keys[0], at(300));
    allocations.plan(keys[1], at(200));
    // Later than planned changes nothing, earlier does.
    allocations.plan(keys[1], at(400));
    allocations.plan(keys[0], at(100));
    allocations.plan(keys[2], at(100));
    allocations.remove(keys[2]);
    assert_eq!(allocations.next_look(at(99)), None);
    assert_eq!(allocations.next_look(at(100)), Some(keys[0]));
    assert_eq!(allocations.next_look(at(100)), None, "one is gone");
    assert_eq!(allocations.next_look(at(1_000)), Some(keys[1]));
    assert_eq!(allocations.next_look(at(1_000)), None, "each once");
    // Whoever got a place that was in use before is not looked at for its predecessor.
    allocations.plan(keys[0], at(2_000));
    allocations.remove(keys[0]);
    let next = allocations.insert(allocation(0, start));
    assert_eq!(next.slot(), keys[0].slot());
    assert_eq!(allocations.next_look(at(3_000)), None);
}

#[test]
fn a_session_knows_its_allocations_until_they_end() {
    let start = Instant::now();
    let mut allocations = Allocations::new(&mut StdRng::from_seed([1; 32]));
    let (one, other) = (allocation(0, start), allocation(1, start));
    let session = one.credential.session();
    let shared = Allocation {
        credential: one.credential.clone(),
        ..allocation(2, start)
    };
    let keys = [one, other, shared].map(|allocation| allocations.insert(allocation));
    assert_eq!(allocations.of_session(session), [keys[0], keys[2]]);
    allocations.remove(keys[0]);
    assert_eq!(allocations.of_session(session), [keys[2]]);
    allocations.remove(keys[2]);
    assert!(allocations.of_session(session).is_empty() && allocations.by_session.len() == 1);
}
