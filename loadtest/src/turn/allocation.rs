//! One allocation: Allocate with the long-term credential mechanism (RFC 8489 section 9.2), a channel to one peer, and
//! its end.

use std::net::SocketAddr;

use aws_lc_rs::hmac;
use datagram::Inbox;
use wire::channel_data::ChannelNumber;
use wire::stun::{Builder, Class, Message, Method, TransactionId, integrity_key, long_term_key};

use super::link::Link;
use crate::Error;

/// The protocol number of UDP, which is relayed.
const UDP: u8 = 17;

/// Room for a request: a username of up to 512 bytes and the rest.
const REQUEST_MAX: usize = 1_500;

/// A username and its password.
#[derive(Clone)]
pub struct Credentials {
    /// The username.
    pub username: String,
    /// The password.
    pub password: String,
}

/// An allocation that is there.
pub struct Allocation {
    /// The way to the server.
    pub link: Link,
    /// The relayed address.
    pub relayed: SocketAddr,
    credentials: Credentials,
    challenge: Challenge,
    transactions: Transactions,
    /// What was asked for last.
    request: Vec<u8>,
}

/// What a server's 401 said.
struct Challenge {
    realm: String,
    nonce: String,
    key: hmac::Key,
}

/// Transaction ids of one client.
struct Transactions {
    client: u32,
    count: u64,
}

impl Transactions {
    fn next(&mut self) -> TransactionId {
        self.count += 1;
        let mut id = [0x6C; 12];
        id[..4].copy_from_slice(&self.client.to_be_bytes());
        id[4..].copy_from_slice(&self.count.to_be_bytes());
        TransactionId(id)
    }
}

/// An allocation that is being made: each step sends, the next one waits for its answer, so that many can be under way.
pub struct Opening {
    link: Link,
    credentials: Credentials,
    transactions: Transactions,
    request: Vec<u8>,
}

impl Opening {
    /// Asks without credentials.
    pub fn begin(mut link: Link, client: u32, credentials: &Credentials) -> Result<Opening, Error> {
        let mut transactions = Transactions { client, count: 0 };
        let mut buffer = [0; REQUEST_MAX];
        let length = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, transactions.next())
            .requested_transport(UDP)
            .finish()
            .map_err(|error| format!("{error:?}"))?;
        link.ask(&buffer[..length])?;
        Ok(Opening {
            link,
            credentials: credentials.clone(),
            transactions,
            request: buffer[..length].to_vec(),
        })
    }

    /// Is told the realm and asks again.
    pub fn authenticate(mut self, inbox: &mut Inbox) -> Result<Allocation, Error> {
        let answer = self.link.answer(&self.request, inbox)?;
        let challenge = Challenge::read(&answer, &self.credentials)?;
        let mut allocation = Allocation {
            link: self.link,
            relayed: SocketAddr::from(([0, 0, 0, 0], 0)),
            credentials: self.credentials,
            challenge,
            transactions: self.transactions,
            request: self.request,
        };
        allocation.ask(Method::ALLOCATE, |builder| builder.requested_transport(UDP))?;
        Ok(allocation)
    }
}

impl Allocation {
    /// Waits until it is there.
    pub fn finish(&mut self, inbox: &mut Inbox) -> Result<(), Error> {
        let answer = self.link.answer(&self.request, inbox)?;
        let message = Message::parse(&answer).map_err(|error| format!("{error:?}"))?;
        if message.class() != Class::Success {
            return Err(format!("Allocate was refused: {:?}", message.error_code()).into());
        }
        self.relayed = message
            .xor_relayed_address()
            .ok_or("an allocation without XOR-RELAYED-ADDRESS")?;
        Ok(())
    }

    /// Asks for the first channel to be bound to a peer; [`Allocation::done`] waits for it.
    pub fn bind(&mut self, peer: SocketAddr) -> Result<(), Error> {
        self.ask(Method::CHANNEL_BIND, |builder| {
            builder.channel_number(ChannelNumber::MIN).xor_peer_address(peer)
        })
    }

    /// Asks for its end; [`Allocation::done`] waits for it.
    pub fn end(&mut self) -> Result<(), Error> {
        self.ask(Method::REFRESH, |builder| builder.lifetime(0))
    }

    /// Waits until what was asked for last is done.
    pub fn done(&mut self, inbox: &mut Inbox) -> Result<(), Error> {
        let answer = self.link.answer(&self.request, inbox)?;
        let message = Message::parse(&answer).map_err(|error| format!("{error:?}"))?;
        match message.class() {
            Class::Success => Ok(()),
            _ => {
                let method = message.method().get();
                Err(format!("method {method:#x} was refused: {:?}", message.error_code()).into())
            }
        }
    }

    fn ask(
        &mut self,
        method: Method,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<(), Error> {
        let mut buffer = [0; REQUEST_MAX];
        let id = self.transactions.next();
        let length = attributes(Builder::new(&mut buffer, Class::Request, method, id))
            .username(&self.credentials.username)
            .realm(&self.challenge.realm)
            .nonce(&self.challenge.nonce)
            .integrity_key(&self.challenge.key)
            .finish()
            .map_err(|error| format!("a request that does not fit: {error:?}"))?;
        self.request.clear();
        self.request.extend_from_slice(&buffer[..length]);
        self.link.ask(&buffer[..length])
    }
}

impl Challenge {
    fn read(answer: &[u8], credentials: &Credentials) -> Result<Challenge, Error> {
        let message = Message::parse(answer).map_err(|error| format!("{error:?}"))?;
        let (realm, nonce) = message
            .realm()
            .zip(message.nonce())
            .ok_or_else(|| format!("no challenge, but {:?}", message.error_code()))?;
        let key = long_term_key(&credentials.username, realm, &credentials.password);
        Ok(Challenge {
            realm: realm.to_owned(),
            nonce: nonce.to_owned(),
            key: integrity_key(&key),
        })
    }
}
