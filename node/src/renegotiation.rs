//! How a session changes its media while it runs: the client's further offers, the relay's own offers and their
//! answers, ICE restarts (RFC 8829 section 4.1.10, RFC 9725 section 4.3.3).
//!
//! The negotiation's lock is held over the whole change, so that shard and room see changes in the order in which
//! they were agreed.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metering::SessionId;
use sfu::media::{IceCredentials, Media, Transport};
use sfu::sdp::Negotiation;

use crate::http::problem::Problem;
use crate::join::etag;
use crate::relay::Relay;
use crate::session::Restarted;
use crate::shard::Command;

fn lock(negotiation: &Arc<Mutex<Negotiation>>) -> MutexGuard<'_, Negotiation> {
    negotiation.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Relay {
    fn negotiation(&self, session: SessionId) -> Result<Arc<Mutex<Negotiation>>, Problem> {
        let gone = || Problem::new("not-found", "This session is over; start a new one.");
        self.registry()
            .session(session)
            .map(|known| known.negotiation.clone())
            .ok_or_else(gone)
    }

    /// Answers a further offer of the client. `Ok(None)` means glare: an offer of ours is out, and the client is to
    /// roll back and answer it (DSIP: the relay ignores the loser).
    pub(crate) fn reoffer(
        &self,
        session: SessionId,
        offer: &str,
    ) -> Result<Option<(String, Vec<String>)>, Problem> {
        let negotiation = self.negotiation(session)?;
        let mut negotiation = lock(&negotiation);
        let answer = match negotiation.answer(offer) {
            Ok(answer) => answer,
            Err(error) if error.is_glare() => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        self.agreed(session, &negotiation, answer.media, answer.transport);
        Ok(Some((
            answer.sdp,
            answer.notes.iter().map(ToString::to_string).collect(),
        )))
    }

    /// What of `name`'s media the session cannot decode, in sentences.
    pub(crate) fn lacks(&self, session: SessionId, name: &str) -> Vec<String> {
        let publisher = self
            .registry()
            .named(session, name)
            .map(|known| known.negotiation.clone());
        let (Some(publisher), Ok(subscriber)) = (publisher, self.negotiation(session)) else {
            return Vec::new();
        };
        // One lock after the other, never both.
        let media = lock(&publisher).media();
        let notes = lock(&subscriber).lacks(&media);
        notes.iter().map(ToString::to_string).collect()
    }

    /// An offer of ours for the lines that the session lacks, if it lacks any and no other one is out.
    pub(crate) fn offer_more(&self, session: SessionId) -> Option<(String, u64)> {
        let negotiation = self.negotiation(session).ok()?;
        let mut negotiation = lock(&negotiation);
        let (audio, video) = self.registry().lines_needed(session);
        if audio == 0 && video == 0 {
            return None;
        }
        negotiation.offer_more(audio, video).ok()
    }

    /// The client's answer to our offer `seq`.
    pub(crate) fn answered(&self, session: SessionId, seq: u64, answer: &str) -> Result<(), Problem> {
        let negotiation = self.negotiation(session)?;
        let mut negotiation = lock(&negotiation);
        let (media, transport) = negotiation.accept_answer(seq, answer)?;
        self.agreed(session, &negotiation, media, transport);
        Ok(())
    }

    /// Our offer was never answered: the session goes on as it was.
    pub(crate) fn unanswered(&self, session: SessionId) {
        if let Ok(negotiation) = self.negotiation(session) {
            lock(&negotiation).abandon_offer();
        }
    }

    /// ICE credentials that the client sent without SDP: new ones restart ICE on both sides; with those of the
    /// session, or none, there is nothing to do for a relay that needs no candidates.
    pub(crate) fn patch_ice(
        &self,
        session: SessionId,
        client: Option<&IceCredentials>,
    ) -> Result<Option<Restarted>, Problem> {
        let negotiation = self.negotiation(session)?;
        let mut negotiation = lock(&negotiation);
        let Some(client) = client.filter(|client| negotiation.remote_ice() != Some(client)) else {
            return Ok(None);
        };
        let transport = negotiation.restart_ice(&client.ufrag, &client.pwd)?;
        let restarted = Restarted {
            fragment: negotiation.fragment(),
            etag: etag(&transport.local),
        };
        let mut registry = self.registry();
        registry.set_etag(session, restarted.etag.clone());
        registry.at_shard(
            session,
            Command::SetTransport {
                session,
                transport: Box::new(transport),
            },
        );
        Ok(Some(restarted))
    }

    /// What was agreed reaches the shard first, then the room, whose routes name the lines just agreed.
    fn agreed(&self, session: SessionId, negotiation: &Negotiation, media: Media, transport: Transport) {
        let (slots, published) = (negotiation.slots(), negotiation.published());
        let mut registry = self.registry();
        registry.set_etag(session, etag(&transport.local));
        registry.at_shard(
            session,
            Command::SetTransport {
                session,
                transport: Box::new(transport),
            },
        );
        registry.at_shard(
            session,
            Command::SetMedia {
                session,
                media: Box::new(media),
            },
        );
        registry.in_room(session, |room| {
            let mut changes = room.set_slots(session, slots);
            changes.extend(room.set_published(session, published));
            changes
        });
    }
}
