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

impl Allocation {
    /// Asks without credentials, is told the realm, asks again.
    pub fn make(
        mut link: Link,
        client: u32,
        credentials: &Credentials,
        inbox: &mut Inbox,
    ) -> Result<Allocation, Error> {
        let mut transactions = Transactions { client, count: 0 };
        let mut buffer = [0; REQUEST_MAX];
        let length = Builder::new(&mut buffer, Class::Request, Method::ALLOCATE, transactions.next())
            .requested_transport(UDP)
            .finish()
            .map_err(|error| format!("{error:?}"))?;
        let answer = link.exchange(&buffer[..length], inbox)?;
        let mut challenge = Challenge::read(&answer, credentials)?;
        // A nonce may have gone stale in between.
        for _ in 0..2 {
            let length = authenticated(
                &mut buffer,
                Method::ALLOCATE,
                transactions.next(),
                credentials,
                &challenge,
                |builder| builder.requested_transport(UDP),
            )?;
            let answer = link.exchange(&buffer[..length], inbox)?;
            let message = Message::parse(&answer).map_err(|error| format!("{error:?}"))?;
            if message.class() == Class::Success {
                let relayed = message
                    .xor_relayed_address()
                    .ok_or("an allocation without XOR-RELAYED-ADDRESS")?;
                return Ok(Allocation {
                    link,
                    relayed,
                    credentials: credentials.clone(),
                    challenge,
                    transactions,
                });
            }
            match message.error_code() {
                Some(error) if error.code == 438 => challenge = Challenge::read(&answer, credentials)?,
                other => return Err(format!("Allocate was refused: {other:?}").into()),
            }
        }
        Err("every nonce is stale".into())
    }

    /// Binds the first channel to a peer.
    pub fn bind(&mut self, peer: SocketAddr, inbox: &mut Inbox) -> Result<ChannelNumber, Error> {
        self.request(Method::CHANNEL_BIND, inbox, |builder| {
            builder.channel_number(ChannelNumber::MIN).xor_peer_address(peer)
        })?;
        Ok(ChannelNumber::MIN)
    }

    /// Ends it.
    pub fn end(&mut self, inbox: &mut Inbox) -> Result<(), Error> {
        self.request(Method::REFRESH, inbox, |builder| builder.lifetime(0))
    }

    fn request(
        &mut self,
        method: Method,
        inbox: &mut Inbox,
        attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
    ) -> Result<(), Error> {
        let mut buffer = [0; REQUEST_MAX];
        let id = self.transactions.next();
        let length = authenticated(
            &mut buffer,
            method,
            id,
            &self.credentials,
            &self.challenge,
            attributes,
        )?;
        let answer = self.link.exchange(&buffer[..length], inbox)?;
        let message = Message::parse(&answer).map_err(|error| format!("{error:?}"))?;
        match message.class() {
            Class::Success => Ok(()),
            _ => Err(format!(
                "method {:#x} was refused: {:?}",
                method.get(),
                message.error_code()
            )
            .into()),
        }
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

fn authenticated(
    buffer: &mut [u8],
    method: Method,
    id: TransactionId,
    credentials: &Credentials,
    challenge: &Challenge,
    attributes: impl FnOnce(Builder<'_>) -> Builder<'_>,
) -> Result<usize, Error> {
    attributes(Builder::new(buffer, Class::Request, method, id))
        .username(&credentials.username)
        .realm(&challenge.realm)
        .nonce(&challenge.nonce)
        .integrity_key(&challenge.key)
        .finish()
        .map_err(|error| format!("a request that does not fit: {error:?}").into())
}
