//! Allocations, tickets, reservations and connections that are somebody else's.

use super::peers::tcp_world;
use super::*;

#[test]
fn another_user_on_the_same_5_tuple_has_the_wrong_credentials() {
    let mut world = World::new();
    let (user, thief) = (world.user(), world.user());
    let client = address(CLIENT);
    world.allocate(&user, client);
    assert_eq!(
        world.code(&thief, client, Method::REFRESH, |b| b.lifetime(0)),
        441
    );
    assert_eq!(world.permit_peer(&thief, client, address(PEER)), 441);
    assert_eq!(world.bind(&thief, client, 0x4000, address(PEER)), 441);
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn another_5_tuple_cannot_use_an_allocation() {
    let mut world = World::new();
    let user = world.user();
    let (client, thief) = (address(CLIENT), address("8.8.4.4:4001"));
    world.allocate(&user, client);
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    assert!(
        world
            .client_sends(thief, &channel_message(0x4000, b"x"))
            .is_empty()
    );
    assert!(
        world
            .client_sends(thief, &send_indication(address(PEER), b"x"))
            .is_empty()
    );
    assert_eq!(world.code(&user, thief, Method::REFRESH, |b| b.lifetime(0)), 437);
    let elsewhere = Client::udp(client, address("9.9.9.10:3478"));
    assert!(
        world
            .turn
            .handle_client(world.now, elsewhere, &channel_message(0x4000, b"x"))
            .is_none()
    );
    assert_eq!(world.turn.allocations(), 1);
}

#[test]
fn a_stolen_mobility_ticket_moves_nothing() {
    let mut world = World::with(Config {
        mobility: true,
        ..config()
    });
    let (user, thief) = (world.user(), world.user());
    let (client, elsewhere) = (address(CLIENT), address("8.8.5.5:4000"));
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    let ticket = answers[0].message().mobility_ticket().unwrap().to_vec();
    assert_eq!(world.bind(&user, client, 0x4000, address(PEER)), 0);
    let mut code = |user: &world::User, from, ticket: &[u8]| {
        world.code(user, from, Method::REFRESH, |b| b.mobility_ticket(ticket))
    };
    assert_eq!(code(&thief, elsewhere, &ticket), 441);
    let mut forged = ticket.clone();
    forged[20] ^= 1;
    assert_eq!(code(&user, elsewhere, &forged), 437);
    assert_eq!(code(&user, elsewhere, &ticket[..40]), 437);
    assert_eq!(code(&user, elsewhere, &[]), 400);
    // Used once, by its owner: whoever recorded it comes too late.
    assert_eq!(code(&user, elsewhere, &ticket), 0);
    assert_eq!(code(&user, address("8.8.6.6:4000"), &ticket), 437);
    let key = world.admissions[0];
    assert_eq!(
        world.peer_sends(key, address(PEER), b"x")[0].to,
        client,
        "and a refresh alone moves no data to an address that has sent none"
    );
}

#[test]
fn a_recorded_refresh_from_another_address_is_stale() {
    let mut world = World::with(Config {
        mobility: true,
        ..config()
    });
    let user = world.user();
    let client = address(CLIENT);
    let answers = world.request(&user, client, Method::ALLOCATE, |b| {
        b.requested_transport(17).mobility_ticket(&[])
    });
    let ticket = answers[0].message().mobility_ticket().unwrap().to_vec();
    let (nonce, id) = (world.nonce(address("8.8.5.5:4000")), world.id());
    let refresh = user.sign(Method::REFRESH, id, &nonce, |b| b.mobility_ticket(&ticket));
    assert_eq!(
        world.client_sends(address("8.8.6.6:4000"), &refresh)[0].code(),
        438,
        "the whole request, sent from the thief's own address"
    );
}

#[test]
fn a_reservation_token_cannot_be_guessed_stolen_or_hoarded() {
    let mut world = World::with(Config {
        allocations_per_account_max: 4,
        ..config()
    });
    let (user, thief) = (world.user(), world.user());
    let mut tokens = HashSet::new();
    for n in 0..8 {
        let client = address(&format!("8.8.4.4:{}", 4000 + n));
        let answers = world.request(&user, client, Method::ALLOCATE, |b| {
            b.requested_transport(17).even_port(true)
        });
        if n < 4 {
            assert_eq!(answers[0].code(), 0);
            tokens.insert(answers[0].message().reservation_token().unwrap());
        } else {
            assert_eq!(answers[0].code(), 508, "as many as allocations");
        }
        assert_eq!(
            world.code(&user, client, Method::REFRESH, |b| b.lifetime(0)),
            if n < 4 { 0 } else { 437 }
        );
    }
    assert_eq!(tokens.len(), 4, "no two are equal");
    for token in &tokens {
        assert_eq!(
            world.code(&thief, address("8.8.4.4:5000"), Method::ALLOCATE, |b| b
                .requested_transport(17)
                .reservation_token(*token)),
            508
        );
    }
    world.pass(Duration::from_secs(31));
    world.allocate(&user, address(CLIENT));
    assert_eq!(
        (49_152..=65_535u16)
            .filter(|port| world.census.is_relayed(Protocol::Udp, *port))
            .count(),
        1,
        "every reserved port came back"
    );
}

#[test]
fn another_users_connection_cannot_be_fetched() {
    let (mut world, user, client, _) = tcp_world();
    let thief = world.user();
    world.ask(&user, client, Method::CONNECT, |b| {
        b.xor_peer_address(address(PEER))
    });
    let Some(Event::Connect { data, .. }) = world.data.pop() else {
        panic!("it is on its way");
    };
    let now = world.now;
    world.turn.connected(data, now);
    let third = connected(Transport::Tcp, address("8.8.4.4:4002"), 3);
    let answers = world.ask(&thief, third, Method::CONNECTION_BIND, |b| {
        b.connection_id(data.get())
    });
    assert_eq!(answers[0].code(), 441);
    assert!(world.data.is_empty(), "nothing is joined");
}
