//! The running relay: everything that the calls of the front door can reach. What happens to sessions stands in
//! `join`, `renegotiation` and `registry`; this file holds them together.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use identity::{Permit, SigningKey, proof, statement};
use metering::{SessionId, Tariff};
use serde_json::{Value, json};
use sfu::media::Fingerprint;
use sfu::sdp::VideoCodecs;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::cashier::CashierHandle;
use crate::clock;
use crate::config::Config;
use crate::http::dsip_socket::Away;
use crate::http::keys::FrontKeys;
use crate::http::metrics::Metrics;
use crate::http::source_limit::SourceLimit;
use crate::policy::{Emergencies, Policies, Rates};
use crate::registry::Registry;
use crate::resolver::Resolver;
use crate::session::EndReason;
use crate::shard::{Lobby, ShardEvent, ShardHandle};
use crate::top_ups::TopUps;
use crate::turn_access::TurnAccess;
use crate::turn_keys::TurnKeys;

/// The relay, shared by every task of the control plane.
pub(crate) struct Relay {
    /// What the operator set.
    pub(crate) config: Config,
    /// The address that clients know the relay by.
    pub(crate) public_url: String,
    /// The relay's own key: its DID, its receipts, its envelopes.
    pub(crate) key: Arc<SigningKey>,
    /// `dev` only: the key that the faucet issues with.
    pub(crate) issuer: Option<SigningKey>,
    /// Which tokens are accepted, and on which terms.
    pub(crate) policies: Policies,
    /// How often accounts were admitted in this minute.
    pub(crate) rates: Rates,
    /// Calls that are free.
    pub(crate) emergencies: Emergencies,
    /// Told when the communities' lists are to be looked at at once.
    pub(crate) lists_due: Notify,
    /// DID documents from the network.
    pub(crate) resolver: Resolver,
    /// Which proofs are accepted.
    pub(crate) proofs: proof::Verifier,
    /// Envelope ids seen by any DSIP connection.
    pub(crate) dsip_memory: Arc<dsip::Memory>,
    /// Sessions whose client may come back.
    pub(crate) away: Away,
    /// Who brings money from outside.
    pub(crate) top_ups: TopUps,
    /// The ledger's side.
    pub(crate) cashier: CashierHandle,
    /// The threads that relay.
    pub(crate) shards: Vec<ShardHandle>,
    /// Where SFU sessions are opened and found.
    pub(crate) lobby: Arc<Lobby>,
    /// Connections of the front door that may be open, upgraded ones among them.
    pub(crate) connections: Arc<Semaphore>,
    /// How much each source may ask for.
    pub(crate) sources: SourceLimit,
    /// What the front door is shown with, where it speaks HTTPS itself.
    pub(crate) front_keys: Option<FrontKeys>,
    /// The relay's DID document, as JSON.
    pub(crate) did_document: String,
    /// Counters of the front door, and what renders `/metrics`.
    pub(crate) metrics: Metrics,
    /// Where ICE can reach the SFU, best first.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Where clients reach the TURN server.
    pub(crate) turn_addresses: Vec<SocketAddr>,
    /// Where clients reach DSIP over QUIC.
    pub(crate) quic_addresses: Vec<SocketAddr>,
    /// Where they reach it over TCP and TLS besides.
    pub(crate) turn_tls_addresses: Vec<SocketAddr>,
    /// What they are shown over TLS and DTLS.
    pub(crate) turn_keys: Option<Arc<TurnKeys>>,
    /// Usernames for the TURN server.
    pub(crate) turn: TurnAccess,
    /// Digest of the certificate that every shard shows.
    pub(crate) fingerprint: Fingerprint,
    /// What a publisher may send.
    pub(crate) video_codecs: VideoCodecs,
    /// The prices in force.
    pub(crate) prices: Vec<Tariff>,
    /// Sessions and rooms.
    pub(crate) registry: Mutex<Registry>,
    /// Set once no new sessions are admitted.
    pub(crate) draining: AtomicBool,
    /// True once the front door closes.
    pub(crate) door: watch::Sender<bool>,
}

impl Relay {
    /// Sessions and rooms, for a moment.
    pub(crate) fn registry(&self) -> MutexGuard<'_, Registry> {
        // Should one room ever break an invariant, the others go on.
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Are no new sessions admitted any more?
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Waits until the front door closes.
    pub(crate) async fn door_closed(&self) {
        // An error would mean that the relay itself is gone, which closes the door as well.
        let _ = self.door.subscribe().wait_for(|closed| *closed).await;
    }

    /// The absolute URL of a path, as proofs name it.
    pub(crate) fn url_of(&self, path: &str) -> String {
        format!("{}{path}", self.public_url)
    }

    /// Where DSIP is spoken.
    pub(crate) fn dsip_url(&self) -> String {
        // http becomes ws and https wss.
        self.url_of("/v1/dsip").replacen("http", "ws", 1)
    }

    /// Where DSIP is spoken over QUIC.
    pub(crate) fn quic_url(&self) -> String {
        format!(
            "quic://{}",
            self.quic_addresses.first().unwrap_or(&self.config.quic.listen)
        )
    }

    /// The prices as clients see them: each quote holds from now on for the configured time.
    pub(crate) fn tariffs(&self) -> Vec<Value> {
        let valid_until = clock::unix() + self.config.tariff.valid_seconds;
        let quote = |tariff: &Tariff| {
            json!(Tariff {
                valid_until,
                ..tariff.clone()
            })
        };
        self.prices.iter().map(quote).collect()
    }

    /// Who opened a session.
    pub(crate) fn owner(&self, session: SessionId) -> Option<Arc<Permit>> {
        self.registry().session(session).map(|known| known.permit.clone())
    }

    /// The tag of a session's ICE credentials, quoted.
    pub(crate) fn etag(&self, session: SessionId) -> Option<String> {
        self.registry().session(session).map(|known| known.etag.clone())
    }

    /// Ends a session.
    pub(crate) fn leave(&self, session: SessionId, reason: EndReason) {
        self.registry().end(session, reason);
    }

    /// The relay's signature over an offer and its answer, for the `Milliway-Relay` header.
    pub(crate) fn signed_digest(&self, offer: &[u8], answer: &[u8]) -> String {
        statement::sign(&self.key, offer, answer)
    }

    /// Ends the sessions that have lasted as long as one may.
    pub(crate) fn end_overdue(&self) {
        self.registry().end_overdue(clock::now());
    }

    /// Carries what shards tell into rooms and sockets, until the shards are gone.
    pub(crate) async fn follow_shards(self: Arc<Relay>, mut events: mpsc::Receiver<ShardEvent>) {
        while let Some(event) = events.recv().await {
            match event {
                ShardEvent::Connected { session } => tracing::debug!(%session, "connected"),
                ShardEvent::Publishing { session, mid, kind } => {
                    tracing::debug!(%session, %mid, kind = kind.as_str(), "publishing");
                }
                ShardEvent::Closed { session, reason } => self.registry().closed(session, reason.into()),
            }
        }
    }
}
