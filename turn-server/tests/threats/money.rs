//! Credentials that outlive their money, and what a limited session still has.

use super::peers::tcp_world;
use super::*;

#[test]
fn a_held_session_cannot_refresh_permit_or_bind_and_relays_nothing() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    world.turn.set_step(user.session, Step::Held, world.now);
    world.events();
    assert!(world.reports.last().unwrap().closed, "the segment is settled");
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 486);
    assert_eq!(world.permit_peer(&user, client, address(PEER)), 486);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 486);
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, address(PEER), b"x").is_empty());
    world.turn.set_step(user.session, Step::Full, world.now);
    world.events();
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 0);
    assert_eq!(
        world.client_sends(client, &channel_message(0x4000, b"x")).len(),
        1,
        "a top-up resumes"
    );
}

#[test]
fn an_allocation_is_deleted_at_the_end_of_its_hold_even_if_nobody_says_so() {
    let mut world = World::new();
    let user = world.user();
    let (key, relayed) = world.allocate(&user, address(CLIENT));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(74));
    assert_eq!(world.turn.allocations(), 1);
    // Told again meanwhile: the hold is as old as it is.
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(2));
    assert_eq!(world.closed, [(key, user.session, CloseReason::Ended)]);
    assert!(!world.census.is_relayed(Protocol::Udp, relayed.port()));
    assert!(world.reports.last().unwrap().last);
    let user = world.user();
    world.allocate(&user, address("8.8.4.4:4001"));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(50));
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(50));
    assert_eq!(world.turn.allocations(), 1, "a top-up keeps it");
}

#[test]
fn a_refusal_for_want_of_money_says_so() {
    let (mut world, user, client, _) = tcp_world();
    world.turn.set_step(user.session, Step::Held, world.now);
    for method in [Method::REFRESH, Method::CREATE_PERMISSION, Method::CONNECT] {
        let answers = world.ask(&user, client, method, |b| b.xor_peer_address(address(PEER)));
        let message = answers[0].message();
        let error = message.error_code().unwrap();
        assert_eq!(error.code, 486, "{method:?}");
        assert!(error.reason.contains("top up"), "{method:?}");
    }
    let answers = world.ask(&user, client, Method::REFRESH, |b| b.lifetime(0));
    assert_eq!(answers[0].code(), 0, "to leave costs nothing");
}

#[test]
fn a_revoked_session_relays_not_one_packet_more() {
    let mut world = World::new();
    let user = world.user();
    let (client, other) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, _) = world.allocate(&user, client);
    let (other_key, _) = world.allocate(&user, other);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert_eq!(world.permit_peer(&user, other, address(PEER)), 0);
    world.turn.end(user.session, world.now);
    assert!(
        world
            .client_sends(client, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(world.peer_sends(key, address(PEER), b"x").is_empty());
    assert!(world.peer_sends(other_key, address(PEER), b"x").is_empty());
    assert_eq!(world.turn.allocations(), 0);
    assert!(world.opened.is_empty());
}

#[test]
fn held_time_is_free() {
    let mut world = World::new();
    let user = world.user();
    world.allocate(&user, address(CLIENT));
    world.pass(Duration::from_secs(10));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.pass(Duration::from_secs(50));
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(10));
    assert_eq!(
        world.code(&user, address(CLIENT), Method::REFRESH, |b| b.lifetime(0)),
        0
    );
    let nanoseconds: u64 = world
        .reports
        .iter()
        .filter(|report| report.closed)
        .map(|r| r.usage.nanoseconds)
        .sum();
    assert_eq!(nanoseconds, 20_000_000_000);
}

#[test]
fn an_allocation_that_opens_on_a_held_account_is_paused_from_its_first_moment_and_resumes() {
    let mut world = World::new();
    let (user, client) = (world.user(), address(CLIENT));
    world.step = Step::Held;
    world.allocate(&user, client);
    let first = world.reports.first().expect("its pause is reported");
    assert!(first.held && first.closed && first.usage.nanoseconds == 0);
    world.pass(Duration::from_secs(20));
    world.turn.set_step(user.session, Step::Held, world.now);
    world.turn.set_step(user.session, Step::Full, world.now);
    world.pass(Duration::from_secs(2));
    world.request(&user, client, Method::REFRESH, |b| b.lifetime(0));
    let nanoseconds: u64 = world
        .reports
        .iter()
        .filter(|report| report.closed)
        .map(|report| report.usage.nanoseconds)
        .sum();
    assert_eq!(nanoseconds, 2_000_000_000, "only what came after the hold");
}

#[test]
fn an_ended_session_loses_its_allocations_and_its_username() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    let (key, _) = world.allocate(&user, client);
    world.turn.end(user.session, world.now);
    world.events();
    assert_eq!(world.closed, [(key, user.session, CloseReason::Ended)]);
    assert!(world.reports.last().unwrap().last);
    assert_eq!(
        world.code(&user, client, Method::ALLOCATE, |b| b.requested_transport(17)),
        401
    );
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b), 401);
}

#[test]
fn who_is_denied_loses_allocations_and_usernames_and_nobody_else_does() {
    let mut world = World::new();
    let (denied, other) = (world.user(), world.user());
    let (client, neighbour) = (address(CLIENT), address("8.8.4.4:4001"));
    let (key, _) = world.allocate(&denied, client);
    world.allocate(&other, neighbour);
    let theirs = denied.permit.clone();
    world
        .turn
        .revoke(&|permit| std::ptr::eq(permit, &*theirs), world.now);
    world.events();
    assert_eq!(world.closed, [(key, denied.session, CloseReason::Ended)]);
    let allocate =
        |world: &mut World| world.code(&denied, client, Method::ALLOCATE, |b| b.requested_transport(17));
    assert_eq!(allocate(&mut world), 401);
    assert_eq!(world.code(&other, neighbour, Method::REFRESH, |b| b), 0);
}

#[test]
fn nothing_is_relayed_that_the_lease_does_not_cover() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    // 2 msat a second ahead and 1 for the bytes: 20 kB at 50 msat a megabyte.
    world.grant = Ok(Msat::new(3));
    let (key, _) = world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    let mut relayed = 0;
    for _ in 0..100 {
        relayed += world
            .client_sends(client, &channel_message(0x4000, &[0; 1000]))
            .len();
        relayed += world.peer_sends(key, address(PEER), &[0; 1000]).len();
    }
    assert_eq!(relayed, 20);
    assert_eq!(world.turn.counters().discarded(Discard::Exhausted), 180);
    assert!(
        world.reports.iter().any(|report| report.exhausted),
        "the cashier hears of it at once"
    );
    assert_eq!(world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)), 0);
    let last = world.reports.last().unwrap();
    assert_eq!(
        (last.usage.bytes_in, last.usage.bytes_out, last.usage.debit),
        (10_000, 10_000, Msat::new(1))
    );
}

#[test]
fn a_refused_account_is_asked_about_again_only_when_its_client_asks_again() {
    let mut world = World::new();
    let user = world.user();
    world.grant = Err(Refusal::BalanceExhausted);
    assert_eq!(
        world.code(&user, address(CLIENT), Method::ALLOCATE, |b| b
            .requested_transport(17)),
        486
    );
    world.pass(Duration::from_secs(5));
    assert_eq!(world.admissions.len(), 1);
}

#[test]
fn a_reduced_session_has_400_kbit_each_way_and_audio_only_128() {
    for (step, bits) in [(Step::Reduced, 400_000), (Step::AudioOnly, 128_000)] {
        let mut world = World::new();
        let user = world.user();
        let client = address(CLIENT);
        let (key, _) = world.allocate(&user, client);
        assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
        world.turn.set_step(user.session, step, world.now);
        let (mut up, mut down) = (0, 0);
        for _ in 0..1000 {
            world.pass(Duration::from_millis(10));
            up += 1000
                * world
                    .client_sends(client, &channel_message(0x4000, &[0; 1000]))
                    .len();
            down += 1000 * world.peer_sends(key, address(PEER), &[0; 1000]).len();
        }
        let rate = bits / 8 * 10;
        assert!(
            (rate..=rate + 16_000).contains(&up) && (rate..=rate + 16_000).contains(&down),
            "{step:?} {up} {down}"
        );
    }
}

#[test]
fn towards_our_own_sfu_on_the_same_account_no_bucket_holds() {
    let mut world = World::new();
    let user = world.user();
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address("9.9.9.9:5004")), 0);
    let burst = |world: &mut World| {
        (0..100)
            .map(|_| {
                world
                    .client_sends(client, &channel_message(0x4000, &[0; 1000]))
                    .len()
            })
            .sum::<usize>()
    };
    world.turn.set_step(user.session, Step::AudioOnly, world.now);
    assert_eq!(burst(&mut world), 16, "the account has no call here");
    world.census.call_opened(user.permit.account());
    world.turn.set_step(user.session, Step::Reduced, world.now);
    assert_eq!(burst(&mut world), 100);
}
