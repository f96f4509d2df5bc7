//! One allocation with a permission or a channel to one peer, in a TURN core that nothing surrounds.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metering::{Allowance, LeaseId, Msat, Rates, SessionId, Step};
use turn_server::{
    AddressPolicy, AllocationKey, Census, Client, Config, Credential, Event, REALM, TurnServer,
};
use wire::channel_data::ChannelNumber;
use wire::stun::{Builder, Class, Message, Method, TransactionId, long_term_key};

use crate::call::permit;

const RATES: Rates = Rates {
    out: 50,
    in_: 50,
    second: 2,
};
const UDP: u8 = 17;

/// The allocation, and where its packets come from.
pub struct Relayed {
    /// The core.
    pub server: TurnServer,
    /// The allocation's key there.
    pub allocation: AllocationKey,
    /// Whose it is.
    pub client: Client,
    /// Whom it may talk to.
    pub peer: SocketAddr,
    /// The time, which stands still.
    pub now: Instant,
}

/// Allocates, is admitted with all the money there is, and binds a channel or makes a permission.
pub fn relayed(with_channel: bool) -> Relayed {
    let now = Instant::now();
    let client = Client::udp(
        SocketAddr::from(([198, 18, 0, 2], 40_000)),
        SocketAddr::from(([192, 0, 3, 1], 3478)),
    );
    let peer = SocketAddr::from(([8, 8, 8, 8], 9_000));
    let census = Arc::new(Census::new());
    let mut server = TurnServer::new(Config::new(AddressPolicy::default()), census, [7; 32], now);
    let credential = Credential::new(
        "name",
        "password",
        SessionId::new(1),
        Arc::new(permit()),
        now + Duration::from_secs(600),
    );
    assert!(server.add_credential(Arc::new(credential), now));
    let key = long_term_key("name", REALM, "password");
    let mut nonce = String::new();
    let mut call = |server: &mut TurnServer, method: Method| {
        let mut request = [0; 512];
        let builder = Builder::new(
            &mut request,
            Class::Request,
            method,
            TransactionId(*b"transaction!"),
        );
        let builder = match method {
            Method::ALLOCATE => builder.requested_transport(UDP),
            Method::CHANNEL_BIND => builder.channel_number(ChannelNumber::MIN).xor_peer_address(peer),
            _ => builder.xor_peer_address(peer),
        };
        let builder = if nonce.is_empty() {
            builder
        } else {
            builder
                .username("name")
                .realm(REALM)
                .nonce(&nonce)
                .integrity(&key)
        };
        let len = builder.finish().expect("512 bytes are enough");
        let answer = server.handle_client(now, client, &request[..len])?;
        let answer = Message::parse(answer.contents).expect("a STUN answer");
        nonce = answer.nonce().map_or(nonce.clone(), str::to_owned);
        Some(answer.class())
    };
    assert_eq!(
        call(&mut server, Method::ALLOCATE),
        Some(Class::Error),
        "a nonce first"
    );
    assert_eq!(call(&mut server, Method::ALLOCATE), None, "money first");
    let Some(Event::Admit {
        allocation, session, ..
    }) = server.poll_event()
    else {
        panic!("nobody to admit")
    };
    let allowance = Allowance::new(LeaseId::new(1), session, RATES, Msat::MAX_BALANCE);
    assert!(server.admitted(allocation, allowance, Step::Full, now).is_none());
    let port = std::iter::from_fn(|| server.poll_event()).find_map(|event| match event {
        Event::OpenRelay { port, .. } => Some(port),
        _ => None,
    });
    let relay = SocketAddr::from(([192, 0, 3, 1], port.expect("a port to open")));
    assert!(server.relay_opened(allocation, relay, now).is_some());
    let bound = match with_channel {
        true => call(&mut server, Method::CHANNEL_BIND),
        false => call(&mut server, Method::CREATE_PERMISSION),
    };
    assert_eq!(bound, Some(Class::Success));
    Relayed {
        server,
        allocation,
        client,
        peer,
        now,
    }
}
