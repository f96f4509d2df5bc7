//! The client's side of one connection, without sockets and clocks: envelopes to send come out, envelopes that came go in.
//!
//! Checks what a client has to check: that every envelope is the relay's own, for us, of this minute and new; that the
//! challenge answers our hello, names the relay that we came for and the URL that we connected to (so that nobody sits
//! in between), and that the answer is to our invite. Media, and what a call means, are the caller's.

use std::collections::VecDeque;

use identity::{Did, Documents, SigningKey};
use serde::Serialize;

use crate::credentials::{Introduction, Present, Request};
use crate::envelope::Envelope;
use crate::fault::Fault;
use crate::message::{
    Bye, Challenge, ClientChanges, Hello, Invite, Media, NAME_LENGTH_MAX, RelayMessage, Resume, Update,
};
use crate::receiver::TS_WINDOW;
use crate::seal::{Encoding, random_uuid, seal_cbor_for, seal_for};

/// Ids of the relay that are remembered: more than it says in the two minutes in which one could be replayed.
const IDS_MAX: usize = 4_096;

/// What a client wants of a call.
pub struct Terms<'a> {
    /// Which room.
    pub room: &'a str,
    /// Display name.
    pub name: Option<&'a str>,
    /// The relay token.
    pub token: &'a str,
    /// The offer.
    pub sdp: &'a str,
    /// What the session may cost at most.
    pub max_msat_per_second: Option<u64>,
    /// Credentials besides those in the token, where the service asks for them.
    pub credentials: &'a [String],
}

/// Why an envelope of the relay is not believed, or why the client cannot say something now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// It is no envelope, or its signature does not hold.
    #[error(transparent)]
    Envelope(#[from] Fault),
    /// Another DID than the relay's speaks, or a key that is not the relay's.
    #[error("the envelope is not signed by the relay that this client came for")]
    Sender,
    /// It is for somebody else.
    #[error("the envelope is for another client")]
    Receiver,
    /// Its time is more than a minute from ours.
    #[error("the envelope's time is more than {TS_WINDOW} seconds from this client's; set the clock right")]
    Time,
    /// Its `id` came before.
    #[error("the envelope was heard before")]
    Replay,
    /// The challenge is for another hello, names another relay or another URL.
    #[error("the challenge does not fit: {0}")]
    Challenge(&'static str),
    /// Nothing may be said before the relay's challenge, or before its answer.
    #[error("too early: wait for the relay's {0}")]
    Early(&'static str),
}

/// One connection of a client.
pub struct Client {
    key: SigningKey,
    /// In whose name: the key's own, or the holder's who delegated to it.
    from: Did,
    relay: Did,
    documents: Documents,
    url: String,
    encoding: Encoding,
    hello_nonce: String,
    hello_id: Option<String>,
    challenge: Option<String>,
    invite_id: Option<String>,
    session: Option<String>,
    request: Option<Request>,
    ids: VecDeque<String>,
}

impl Client {
    /// For a new connection to `url`, where `relay` is expected: the `aud` of the token that will be shown.
    pub fn new(key: SigningKey, relay: Did, url: &str, encoding: Encoding) -> Client {
        Client {
            from: key.did().clone(),
            key,
            relay,
            documents: Documents::none(),
            url: url.to_owned(),
            encoding,
            hello_nonce: random_uuid(),
            hello_id: None,
            challenge: None,
            invite_id: None,
            session: None,
            request: None,
            ids: VecDeque::new(),
        }
    }

    /// With the document of a relay whose DID needs a network (did:web), fetched and checked by the caller.
    #[must_use]
    pub fn knowing(mut self, documents: Documents) -> Client {
        self.documents = documents;
        self
    }

    /// With a key that is not one of the holder's, but named by `cnf` in the token, with the holder's delegation: envelopes are
    /// in the holder's name, the token's `sub`.
    #[must_use]
    pub fn speaking_for(mut self, holder: Did) -> Client {
        self.from = holder;
        self
    }

    /// The session, once the relay has answered.
    pub fn session(&self) -> Option<&str> {
        self.session.as_deref()
    }

    /// `dsip.hello`: asks for a challenge. Also for another one, when the first was not used in time.
    pub fn hello(&mut self, now: u64) -> Vec<u8> {
        self.challenge = None;
        self.hello_nonce = random_uuid();
        let nonce = self.hello_nonce.clone();
        let (id, envelope) = self.say("dsip.hello", &Hello { nonce }, now);
        self.hello_id = Some(id);
        envelope
    }

    /// `dsip.invite`: the answer to the challenge, which it uses up.
    ///
    /// # Errors
    /// [`ClientError::Early`] before the challenge.
    pub fn invite(&mut self, terms: &Terms<'_>, now: u64) -> Result<Vec<u8>, ClientError> {
        let nonce = self.challenge.take().ok_or(ClientError::Early("challenge"))?;
        let body = Invite {
            room: terms.room.to_owned(),
            name: terms.name.map(str::to_owned),
            token: terms.token.to_owned(),
            nonce,
            media: Media {
                sdp: terms.sdp.to_owned(),
            },
            max_msat_per_second: terms.max_msat_per_second,
            identity: (!terms.credentials.is_empty()).then(|| Introduction::of(terms.credentials)),
            priority: None,
        };
        let (id, envelope) = self.say("dsip.invite", &body, now);
        self.invite_id = Some(id);
        Ok(envelope)
    }

    /// `dsip.resume`: the session goes on over this connection, after the one that it was on broke. It uses the challenge
    /// up; the relay's update tells where the session stands.
    ///
    /// # Errors
    /// [`ClientError::Early`] before the challenge.
    pub fn resume(&mut self, session: &str, now: u64) -> Result<Vec<u8>, ClientError> {
        let nonce = self.challenge.take().ok_or(ClientError::Early("challenge"))?;
        self.session = Some(session.to_owned());
        let session = session.to_owned();
        Ok(self.say("dsip.resume", &Resume { session, nonce }, now).1)
    }

    /// `dsip.update`.
    ///
    /// # Errors
    /// [`ClientError::Early`] before the answer.
    pub fn update(&mut self, changes: ClientChanges, now: u64) -> Result<Vec<u8>, ClientError> {
        let session = self.session.clone().ok_or(ClientError::Early("answer"))?;
        let body = Update {
            correlates: None,
            session,
            changes,
        };
        Ok(self.say("dsip.update", &body, now).1)
    }

    /// What the relay asked for last, and was not given yet.
    pub fn request(&self) -> Option<&Request> {
        self.request.as_ref()
    }

    /// `dsip.update` with credentials, in answer to the relay's request, which it uses up. The relay's update in
    /// answer says what came of them (`verify`).
    ///
    /// # Errors
    /// [`ClientError::Early`] before a request, or when its time is over.
    pub fn present(&mut self, credentials: Vec<String>, now: u64) -> Result<Vec<u8>, ClientError> {
        let request = self.request.take().filter(|request| now < request.expires);
        let nonce = request.ok_or(ClientError::Early("request"))?.nonce;
        let present = Some(Present { nonce, credentials });
        self.update(
            ClientChanges {
                present,
                ..ClientChanges::default()
            },
            now,
        )
    }

    /// `dsip.bye`.
    pub fn bye(&mut self, reason: &str, now: u64) -> Vec<u8> {
        let end = (0..=reason.len().min(NAME_LENGTH_MAX))
            .rev()
            .find(|end| reason.is_char_boundary(*end))
            .unwrap_or(0);
        let body = Bye {
            reason: reason[..end].to_owned(),
            session: self.session.clone(),
        };
        self.say("dsip.bye", &body, now).1
    }

    /// Takes what came, in the encoding of its message type (or of its first byte, over QUIC).
    ///
    /// # Errors
    /// As [`ClientError`] says; the envelope is to be ignored, the connection may go on.
    pub fn receive(
        &mut self,
        encoding: Encoding,
        envelope: &[u8],
        now: u64,
    ) -> Result<RelayMessage, ClientError> {
        let envelope = match encoding {
            Encoding::Cbor => Envelope::open_cbor_with(envelope, &self.documents)?,
            Encoding::Json => {
                let text = str::from_utf8(envelope).map_err(|_| Fault::malformed("JSON is UTF-8"))?;
                Envelope::open_with(text, &self.documents)?
            }
        };
        if *envelope.from() != self.relay || !envelope.is_signed_by_sender() {
            return Err(ClientError::Sender);
        }
        if envelope.to().is_some_and(|to| *to != self.from) {
            return Err(ClientError::Receiver);
        }
        if envelope.ts().abs_diff(now) > TS_WINDOW {
            return Err(ClientError::Time);
        }
        if self.ids.iter().any(|id| id == envelope.id()) {
            return Err(ClientError::Replay);
        }
        let message = RelayMessage::read(&envelope)?;
        match &message {
            RelayMessage::Challenge(challenge) => self.challenged(challenge)?,
            RelayMessage::Answer(answer) if Some(&answer.correlates) == self.invite_id.as_ref() => {
                self.session = Some(answer.session.clone());
            }
            RelayMessage::Answer(_) => return Err(ClientError::Early("answer to this client's own invite")),
            RelayMessage::Update(update) => {
                if let Some(request) = &update.changes.request {
                    self.request = Some(request.clone());
                }
            }
            RelayMessage::Bye(_) | RelayMessage::Error(_) => {}
        }
        if self.ids.len() == IDS_MAX {
            self.ids.pop_front();
        }
        self.ids.push_back(envelope.id().to_owned());
        Ok(message)
    }

    fn challenged(&mut self, challenge: &Challenge) -> Result<(), ClientError> {
        if challenge.hello_nonce != self.hello_nonce || Some(&challenge.correlates) != self.hello_id.as_ref()
        {
            return Err(ClientError::Challenge("it answers another hello"));
        }
        if challenge.relay != self.relay {
            return Err(ClientError::Challenge("it names another relay"));
        }
        if challenge.url != self.url {
            return Err(ClientError::Challenge(
                "it names another URL than this client connected to",
            ));
        }
        self.challenge = Some(challenge.nonce.clone());
        Ok(())
    }

    fn say(&self, kind: &str, body: &impl Serialize, now: u64) -> (String, Vec<u8>) {
        let (key, ways, id) = (&self.key, (&self.from, Some(&self.relay)), random_uuid());
        let envelope = match self.encoding {
            Encoding::Json => seal_for(key, ways, kind, body, now, &id).into_bytes(),
            Encoding::Cbor => seal_cbor_for(key, ways, kind, body, now, &id),
        };
        (id, envelope)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::seal::seal_with_id;

    const NOW: u64 = 1_760_000_000;
    const URL: &str = "quic://192.0.2.1:4433";

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&[seed; 32])
    }

    fn client() -> Client {
        Client::new(key(1), key(2).did().clone(), URL, Encoding::Cbor)
    }

    fn challenge(client: &Client, url: &str, relay: &Did) -> serde_json::Value {
        json!({"correlates": client.hello_id, "nonce": "n", "hello_nonce": client.hello_nonce, "url": url,
               "relay": relay, "tariff": []})
    }

    fn from_relay(kind: &str, body: &serde_json::Value) -> Vec<u8> {
        seal_with_id(&key(2), Some(key(1).did()), kind, body, NOW, &random_uuid()).into_bytes()
    }

    fn terms() -> Terms<'static> {
        Terms {
            room: "tea",
            name: None,
            token: "a.b.c",
            sdp: "v=0\r\n",
            max_msat_per_second: None,
            credentials: &[],
        }
    }

    #[test]
    fn a_conversation_goes_hello_challenge_invite_answer() {
        let mut client = client();
        assert_eq!(client.invite(&terms(), NOW), Err(ClientError::Early("challenge")));
        let hello = Envelope::open_cbor(&client.hello(NOW)).unwrap();
        assert_eq!((hello.kind(), hello.to()), ("dsip.hello", Some(key(2).did())));
        let said = from_relay("dsip.challenge", &challenge(&client, URL, key(2).did()));
        client.receive(Encoding::Json, &said, NOW).unwrap();
        assert_eq!(
            client.receive(Encoding::Json, &said, NOW),
            Err(ClientError::Replay)
        );
        let changes = ClientChanges::default;
        assert_eq!(client.update(changes(), NOW), Err(ClientError::Early("answer")));
        let invite = Envelope::open_cbor(&client.invite(&terms(), NOW).unwrap()).unwrap();
        let answer = json!({"correlates": invite.id(), "session": "ff", "media": {"sdp": "v=0\r\n"},
            "economics": {"tariff": "t", "available_msat": 1, "runway_seconds": null, "step": "full"}});
        client
            .receive(Encoding::Json, &from_relay("dsip.answer", &answer), NOW)
            .unwrap();
        assert_eq!(client.session(), Some("ff"));
        assert!(client.update(changes(), NOW).is_ok());
        let other = json!({"correlates": "x", "session": "ee", "media": {"sdp": ""},
            "economics": {"tariff": "t", "available_msat": 1, "runway_seconds": null, "step": "full"}});
        assert!(
            client
                .receive(Encoding::Json, &from_relay("dsip.answer", &other), NOW)
                .is_err()
        );
        assert_eq!(client.session(), Some("ff"));
    }

    #[test]
    fn a_relay_in_between_is_found_out() {
        let mut client = client();
        client.hello(NOW);
        for (url, relay) in [(URL, key(3)), ("quic://192.0.2.66:4433", key(2))] {
            let said = from_relay("dsip.challenge", &challenge(&client, url, relay.did()));
            assert!(matches!(
                client.receive(Encoding::Json, &said, NOW),
                Err(ClientError::Challenge(_))
            ));
        }
        let old = from_relay("dsip.challenge", &challenge(&client, URL, key(2).did()));
        client.hello(NOW);
        assert!(matches!(
            client.receive(Encoding::Json, &old, NOW),
            Err(ClientError::Challenge(_))
        ));
        assert_eq!(client.invite(&terms(), NOW), Err(ClientError::Early("challenge")));
    }

    #[test]
    fn what_is_not_the_relays_for_us_and_of_now_is_not_believed() {
        let mut client = client();
        let bye = json!({"reason": "draining"});
        let sealed = |by: u8, to: u8, ts: u64| {
            seal_with_id(
                &key(by),
                Some(key(to).did()),
                "dsip.bye",
                &bye,
                ts,
                &random_uuid(),
            )
            .into_bytes()
        };
        for (envelope, error) in [
            (sealed(3, 1, NOW), ClientError::Sender),
            (sealed(2, 3, NOW), ClientError::Receiver),
            (sealed(2, 1, NOW - 61), ClientError::Time),
            (sealed(2, 1, NOW + 61), ClientError::Time),
        ] {
            assert_eq!(client.receive(Encoding::Json, &envelope, NOW), Err(error));
        }
        let good = sealed(2, 1, NOW - 60);
        assert!(client.receive(Encoding::Cbor, &good, NOW).is_err());
        assert!(client.receive(Encoding::Json, &good, NOW).is_ok());
        assert!(matches!(
            client.receive(Encoding::Json, b"\xff", NOW),
            Err(ClientError::Envelope(_))
        ));
    }

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        let bye = Envelope::open_cbor(&client().bye(&"ö".repeat(300), NOW)).unwrap();
        assert_eq!(bye.kind(), "dsip.bye");
    }
}
