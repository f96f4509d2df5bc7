//! Sessions whose connection broke, waiting for their client to come back: media flows on, and is paid for, meanwhile.
//!
//! The conversation that a session began with stays in charge of it. The connection that the client comes back over is
//! handed to it, so that nothing that was queued for the client is lost.

use std::collections::HashMap;
use std::sync::Mutex;

use dsip::{Encoding, Receiver};
use metering::SessionId;
use tokio::sync::oneshot;

use super::carrier::Carrier;

/// Sessions that wait at once; past it a broken connection ends its session.
const AWAY_MAX: usize = 10_000;

/// A client that came back.
pub(super) struct Return {
    /// Over what.
    pub(super) carrier: Carrier,
    /// How it speaks.
    pub(super) encoding: Encoding,
    /// Who speaks.
    pub(super) receiver: Receiver,
    /// The `id` of its `dsip.resume`.
    pub(super) correlates: String,
}

struct Waiting {
    /// The key that said hello when the session began.
    key: String,
    come_back: oneshot::Sender<Return>,
}

/// Who waits.
#[derive(Default)]
pub(crate) struct Away {
    sessions: Mutex<HashMap<SessionId, Waiting>>,
}

/// Why nobody was waiting: the connection goes back to who tried.
pub(super) struct NotAway(pub(super) Box<Return>);

impl Away {
    /// The session waits for its client, who has to speak with `key` again; none if too many wait already.
    pub(super) fn wait(&self, session: SessionId, key: &str) -> Option<oneshot::Receiver<Return>> {
        let mut sessions = self.sessions();
        if sessions.len() >= AWAY_MAX {
            return None;
        }
        let (come_back, returned) = oneshot::channel();
        let key = key.to_owned();
        sessions.insert(session, Waiting { key, come_back });
        Some(returned)
    }

    /// It waits no longer.
    pub(super) fn give_up(&self, session: SessionId) {
        self.sessions().remove(&session);
    }

    /// Hands a connection to the session that waits for it.
    pub(super) fn come_back(&self, session: SessionId, client: Return) -> Result<(), NotAway> {
        let waiting = {
            let mut sessions = self.sessions();
            let same_key = sessions
                .get(&session)
                .is_some_and(|waiting| client.receiver.speaker_key() == Some(&waiting.key));
            same_key.then(|| sessions.remove(&session)).flatten()
        };
        match waiting {
            Some(waiting) => waiting
                .come_back
                .send(client)
                .map_err(|client| NotAway(Box::new(client))),
            None => Err(NotAway(Box::new(client))),
        }
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<SessionId, Waiting>> {
        self.sessions
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
