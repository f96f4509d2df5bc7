//! Binding (RFC 8489 section 3): the address that the client is seen at, for who gathers candidates. With a second
//! address it is also the server of NAT behaviour discovery (RFC 5780): the answer comes from where it is asked to come
//! from, goes to another port if asked to, and says where else to ask.
//!
//! Whoever forges a source address has its victim answered, so that an answer never outgrows its request (see
//! `challenge`): what is good to know comes in the order of its use, as far as there is room.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use wire::stun::{AttributeType, Message};

use crate::answer::Head;
use crate::challenge::Challenges;
use crate::client::{Client, Transport};
use crate::server::TurnServer;

/// What a server of NAT behaviour discovery must know (RFC 5780 section 7).
pub(crate) const DISCOVERY: [AttributeType; 3] = [
    AttributeType::CHANGE_REQUEST,
    AttributeType::RESPONSE_PORT,
    AttributeType::PADDING,
];

/// Two addresses and two ports, each of which is listened on with each: four UDP sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discovery {
    primary: SocketAddr,
    alternate: SocketAddr,
}

impl Discovery {
    /// `None` unless both addresses and both ports differ, and the family does not.
    pub fn new(primary: SocketAddr, alternate: SocketAddr) -> Option<Self> {
        let usable = primary.is_ipv4() == alternate.is_ipv4()
            && primary.ip() != alternate.ip()
            && primary.port() != alternate.port()
            && ![primary, alternate]
                .iter()
                .any(|address| address.ip().is_unspecified());
        usable.then_some(Self { primary, alternate })
    }

    /// All four, the first of which every client knows.
    pub fn addresses(&self) -> [SocketAddr; 4] {
        let (ips, ports) = (
            [self.primary.ip(), self.alternate.ip()],
            [self.primary.port(), self.alternate.port()],
        );
        [(0, 0), (0, 1), (1, 0), (1, 1)].map(|(ip, port)| SocketAddr::new(ips[ip], ports[port]))
    }

    fn other_ip(&self, ip: IpAddr) -> IpAddr {
        match ip == self.primary.ip() {
            true => self.alternate.ip(),
            false => self.primary.ip(),
        }
    }

    fn other_port(&self, port: u16) -> u16 {
        match port == self.primary.port() {
            true => self.alternate.port(),
            false => self.primary.port(),
        }
    }
}

impl TurnServer {
    /// The discovery that a client's 5-tuple takes part in. Over connections there is nothing to discover.
    pub(crate) fn discovery(&self, client: &Client) -> Option<Discovery> {
        let found = self.config.discovery.iter().copied();
        found
            .filter(|_| client.transport == Transport::Udp)
            .find(|discovery| discovery.addresses().contains(&client.server))
    }

    /// The answer's length, and the 5-tuple that it goes out on.
    pub(crate) fn binding(
        &mut self,
        now: Instant,
        client: Client,
        message: &Message<'_>,
    ) -> Option<(Client, usize)> {
        let head = Head::of(message);
        let discovery = self.discovery(&client);
        let unknown = self.unknown_required(message, discovery.is_some());
        if unknown.clone().next().is_some() {
            let len = head.bare_error(&mut self.reply, 420, |answer| answer.unknown_attributes(unknown));
            return Some((client, self.within_limits(now, client, message, len)?));
        }
        let response_port = message.response_port();
        let port_is_wrong = message.has(AttributeType::RESPONSE_PORT) && response_port.unwrap_or(0) == 0;
        // Padding to a port that did not ask would be a flood (RFC 5780 section 6.1).
        if port_is_wrong || response_port.is_some() && message.has(AttributeType::PADDING) {
            let len = head.bare_error(&mut self.reply, 400, |answer| answer);
            return Some((client, self.within_limits(now, client, message, len)?));
        }
        let mut route = client;
        if let Some(port) = response_port {
            route.source.set_port(port);
        }
        if let Some(discovery) = discovery {
            let change = message.change_request().unwrap_or_default();
            if change.ip {
                route.server.set_ip(discovery.other_ip(client.server.ip()));
            }
            if change.port {
                route.server.set_port(discovery.other_port(client.server.port()));
            }
        }
        let other = discovery.map(|discovery| {
            let server = client.server;
            SocketAddr::new(
                discovery.other_ip(server.ip()),
                discovery.other_port(server.port()),
            )
        });
        let padding = message.attribute(AttributeType::PADDING);
        // Everything, and then less of it: MAPPED-ADDRESS tells of NATs that rewrite payloads, RESPONSE-ORIGIN is what the
        // datagram's source says anyway, and without OTHER-ADDRESS there is no discovery.
        let len = (0..4).find_map(|less| {
            head.bare_success(&mut self.reply, |mut answer| {
                answer = answer.xor_mapped_address(client.source);
                let Some(other) = other else { return answer };
                if less < 3 {
                    answer = answer.other_address(other);
                }
                if less < 2 {
                    answer = answer.response_origin(route.server);
                }
                if less < 1 {
                    answer = answer.mapped_address(client.source);
                }
                padding.into_iter().fold(answer, |answer, padding| {
                    answer.attribute(AttributeType::PADDING, padding)
                })
            })
            .filter(|len| Challenges::fits(&client, message.as_bytes().len(), *len))
        });
        Some((route, self.within_limits(now, client, message, len)?))
    }
}
