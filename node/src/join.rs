//! How a client gets into a room: name rules, SDP answer, admission by the ledger, the lobby, its room. In that
//! order, so that a description which cannot work costs nothing and nothing is relayed before it is paid for.

use std::sync::{Arc, Mutex};

use identity::policy;
use metering::ledger::Conditions;
use metering::{Allowance, Service, SessionId, Step, Voucher};
use rand::{Rng, RngExt};
use sfu::media::IceCredentials;
use sfu::room::{self, Member};
use sfu::sdp::{Answer, LocalParameters, Negotiation, SdpError};

use crate::cashier::{self, Admission, Admitted};
use crate::http::problem::Problem;
use crate::policy::Proof;
use crate::registry::{Place, Session};
use crate::relay::Relay;
use crate::session::{EndReason, Join, Joined, Mode};
use crate::shard::{Command, OpenSfu};
use crate::{clock, money, names};

/// The tag of a session's ICE credentials, as an `ETag` value.
pub(crate) fn etag(ice: &IceCredentials) -> String {
    format!("\"{}\"", ice.ufrag)
}

impl From<SdpError> for Problem {
    fn from(error: SdpError) -> Problem {
        Problem::new(error.slug(), error.to_string())
    }
}

impl Relay {
    /// Lets a client into a room. Finishes even if the caller goes away meanwhile, so that nothing is left half
    /// open; a client that never comes is closed when the lobby's patience ends.
    pub(crate) async fn join(self: &Arc<Relay>, join: Join) -> Result<Joined, Problem> {
        let relay = self.clone();
        match tokio::spawn(async move { relay.admit(join).await }).await {
            Ok(joined) => joined,
            Err(error) => Err(Problem::internal(&error)),
        }
    }

    async fn admit(&self, join: Join) -> Result<Joined, Problem> {
        if self.is_draining() {
            return Err(Problem::new(
                "draining",
                "This relay is shutting down; use another one.",
            ));
        }
        names::check("room", &join.room)?;
        names::check("name", &join.name)?;
        join.permit.require_service("sfu")?;
        join.permit.require_room(&join.room)?;
        money::require_tariff(self, &join.permit)?;
        let terms = self.require_policy(&join.permit, policy::Service::Sfu).await?;
        let permit = join.permit.clone();

        let session = SessionId::new(rand::rng().next_u64());
        let name = (join.mode != Mode::Subscribe).then_some(join.name.as_str());
        let place = self.registry().reserve(session, &join.room, name, &join.permit)?;
        let mode = join.mode;
        let joined = match self.emergency(&join, &terms, session) {
            Ok(emergency) => self.open(join, &place, &terms, emergency).await,
            Err(problem) => Err(problem),
        };
        let joined = joined.inspect_err(|_| {
            self.no_emergency(session);
            self.registry().give_back(&place);
        })?;
        // The place is the session's from here on, and goes with it.
        if self.is_denied(&permit) {
            self.leave(session, EndReason::Denied);
            return Err(identity::Refusal::Denied.into());
        }
        tracing::info!(%session, ?mode, "session opened");
        Ok(joined)
    }

    /// From a reserved place to a session. Until it succeeds the place stays reserved.
    async fn open(
        &self,
        join: Join,
        place: &Place,
        terms: &policy::Terms,
        emergency: Option<Proof>,
    ) -> Result<Joined, Problem> {
        let session = place.session;
        let ice = IceCredentials::generate(&mut rand::rng());
        let etag = etag(&ice);
        let local = LocalParameters {
            purpose: join.mode,
            ice,
            fingerprint: self.fingerprint.clone(),
            candidates: self.candidates.clone(),
            video_codecs: self.video_codecs.clone(),
        };
        let mut negotiation = Negotiation::new(local, rand::rng().random());
        let answer = negotiation.answer(&join.offer)?;
        let mut credited = self.at_admission(join.permit.token(), terms);
        credited.1.free_instead_of = emergency.and_then(|_| self.list_rates(Service::Sfu));
        let request = admission(&join, place, credited, self.lobby.place());
        let admitted = self.cashier.admit(request).await?;
        let joined = Joined {
            session,
            answer: answer.sdp.clone(),
            etag: etag.clone(),
            notes: answer.notes.iter().map(ToString::to_string).collect(),
            economics: money::economics(&admitted),
        };

        let name: Arc<str> = join.name.as_str().into();
        let member = Member {
            session,
            holder: join.permit.subject().into(),
            mode: match join.mode {
                Mode::Call => room::Mode::Call { name },
                Mode::Publish => room::Mode::Publish { name },
                Mode::Subscribe => room::Mode::Subscribe { to: name },
            },
            published: negotiation.published(),
            slots: negotiation.slots(),
        };
        let mut open = opening(&join, session, answer, &admitted);
        if emergency.is_some() {
            open.allowance.set_byte_limit(Self::emergency_limit(emergency));
        }
        let known = Session {
            permit: join.permit,
            account: place.account.clone(),
            room: place.room.clone(),
            name: place.name.clone(),
            negotiation: Arc::new(Mutex::new(negotiation)),
            outbox: join.outbox,
            etag,
            opened: clock::now(),
        };
        if let Err(problem) = self.registry().open(place, known, member, open) {
            self.cashier.release(admitted.lease);
            return Err(problem);
        }
        if admitted.step != Step::Full {
            self.registry().at_shard(
                session,
                Command::SetStep {
                    session,
                    step: admitted.step,
                },
            );
        }
        Ok(joined)
    }
}

/// What the ledger has to know to let a session in.
fn admission(
    join: &Join,
    place: &Place,
    (voucher, conditions): (Voucher, Conditions),
    lobby: usize,
) -> Admission {
    Admission {
        account: place.account.clone(),
        voucher: Some(voucher),
        conditions,
        cap: cashier::cap(&join.permit),
        session: place.session,
        service: Service::Sfu,
        shard: lobby,
        max_msat_per_second: join.max_msat_per_second,
    }
}

/// What its shard will have to know.
fn opening(join: &Join, session: SessionId, answer: Answer, admitted: &Admitted) -> OpenSfu {
    let mut allowance = Allowance::new(admitted.lease, session, admitted.rates, admitted.granted);
    allowance.set_rate_limit(join.max_msat_per_second);
    OpenSfu {
        session,
        permit: join.permit.clone(),
        transport: answer.transport,
        media: answer.media,
        allowance,
    }
}
