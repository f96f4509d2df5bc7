//! The relay's side of one connection: every envelope is for this relay, of this minute, new, and by the key that
//! said hello.

use std::sync::Arc;

use identity::proof::{Challenge, HolderProof};
use identity::{Did, Documents};

use crate::envelope::Envelope;
use crate::fault::Fault;
use crate::memory::Memory;
use crate::message::ClientMessage;

/// How far `ts` may be from now, seconds.
pub const TS_WINDOW: u64 = 60;

/// Checks the envelopes of one connection.
pub struct Receiver {
    relay: Did,
    memory: Arc<Memory>,
    speaker: Option<Speaker>,
}

/// Who said hello. Later envelopes by another key or in another name are refused.
struct Speaker {
    from: Did,
    kid: String,
}

/// An accepted envelope and what it says.
#[derive(Debug)]
pub struct Received {
    /// The envelope.
    pub envelope: Envelope,
    /// Its typed body.
    pub message: ClientMessage,
}

impl Receiver {
    /// For a new connection to `relay`; `memory` is shared by the node's connections.
    pub fn new(relay: Did, memory: Arc<Memory>) -> Receiver {
        Receiver {
            relay,
            memory,
            speaker: None,
        }
    }

    /// Who said hello on this connection, as claimed and signed; proven by the invite.
    pub fn speaker(&self) -> Option<&Did> {
        self.speaker.as_ref().map(|speaker| &speaker.from)
    }

    /// The DID URL of the key that it was said with.
    pub fn speaker_key(&self) -> Option<&str> {
        self.speaker.as_ref().map(|speaker| &speaker.kid[..])
    }

    /// Accepts one envelope in JSON at `now` (unix seconds), or says why not.
    pub fn receive(&mut self, text: &str, now: u64) -> Result<Received, Fault> {
        self.receive_with(text, &Documents::none(), now)
    }

    /// As [`Receiver::receive`], with the document of [`crate::signer_named`] where its DID needs a network.
    pub fn receive_with(&mut self, text: &str, documents: &Documents, now: u64) -> Result<Received, Fault> {
        self.accept(Envelope::open_with(text, documents)?, now)
    }

    /// The same for one in CBOR.
    pub fn receive_cbor(&mut self, bytes: &[u8], now: u64) -> Result<Received, Fault> {
        self.receive_cbor_with(bytes, &Documents::none(), now)
    }

    /// As [`Receiver::receive_cbor`], with the document of [`crate::signer_named_cbor`].
    pub fn receive_cbor_with(
        &mut self,
        bytes: &[u8],
        documents: &Documents,
        now: u64,
    ) -> Result<Received, Fault> {
        self.accept(Envelope::open_cbor_with(bytes, documents)?, now)
    }

    fn accept(&mut self, envelope: Envelope, now: u64) -> Result<Received, Fault> {
        let message = self
            .check(&envelope, now)
            .map_err(|fault| fault.about(envelope.id()))?;
        Ok(Received { envelope, message })
    }

    fn check(&mut self, envelope: &Envelope, now: u64) -> Result<ClientMessage, Fault> {
        if envelope.ts().abs_diff(now) > TS_WINDOW {
            return Err(Fault::new(
                408,
                "ts",
                "`ts` is more than 60 seconds from this relay's time; set the clock right and send a new envelope",
            ));
        }
        let is_hello = envelope.kind() == "dsip.hello";
        match envelope.to() {
            Some(to) if *to == self.relay => {}
            // A client may say hello before it knows whom it talks to.
            None if is_hello => {}
            _ => {
                return Err(Fault::new(
                    401,
                    "to",
                    "`to` must be this relay's DID, the one in `dsip.challenge`",
                ));
            }
        }
        match &self.speaker {
            Some(speaker) if speaker.from != *envelope.from() || speaker.kid != envelope.kid() => {
                return Err(Fault::new(
                    401,
                    "speaker",
                    "a connection has one speaker; use the `from` and key of its `dsip.hello`, or connect again",
                ));
            }
            None if !is_hello => {
                return Err(Fault::new(
                    401,
                    "hello-first",
                    "send `dsip.hello` before anything else",
                ));
            }
            _ => {}
        }
        if !self.memory.is_new(envelope.kid(), envelope.id(), now) {
            return Err(Fault::new(
                409,
                "replay",
                "this `id` was used before; send a new envelope with a new `id`",
            ));
        }
        let message = ClientMessage::read(envelope)?;
        if self.speaker.is_none() {
            self.speaker = Some(Speaker {
                from: envelope.from().clone(),
                kid: envelope.kid().to_owned(),
            });
        }
        Ok(message)
    }
}

impl Received {
    /// The proof that an invite's signer holds the key, for [`identity::Permit::from_holder_proof`]. Uses the
    /// connection's challenge up.
    pub fn holder_proof(
        &self,
        challenge: Challenge,
        documents: &Documents,
        now: u64,
    ) -> Result<HolderProof, Fault> {
        HolderProof::verify(
            challenge,
            self.envelope.canonical().as_bytes(),
            &self.envelope.detached()?,
            documents,
            now,
        )
        .map_err(|refusal| Fault::from(refusal).about(self.envelope.id()))
    }
}
