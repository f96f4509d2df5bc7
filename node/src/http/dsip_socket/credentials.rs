//! Credentials in mid-session: the relay asks, the client presents, the relay verifies and says what came of it.
//!
//! It asks when the client wants a service whose threshold it does not meet, and when a service that was open to it is
//! open no longer, because a credential expired or because the operator changed the policy. What is presented counts from then on,
//! for this session and for whatever else its holder asks for while it lasts, and takes the place of what was presented
//! before. A session is ended for the lack of it only where the operator says so (`[present]` in the policy).

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use dsip::Fault;
use dsip::credentials::{
    Introduction, LISTED_MAX, Outcome, Present, Request, Scorer, Standing, Verified, Want, Wanted, WantedBy,
};
use dsip::message::{Invite, RelayChanges};
use identity::policy::Service;
use identity::{Documents, Permit, Presentation, Refusal};
use rand::RngExt;
use tokio::time::Instant;

use super::{Conversation, Over, Trouble, speech};
use crate::clock;
use crate::http::problem::Problem;
use crate::policy::Rules;
use crate::relay::Relay;
use crate::session::EndReason;

/// What was asked for may be presented for this long: a person may have to get it first.
const REQUEST_SECONDS: u64 = 300;
/// Every service that a threshold can be set for.
const SERVICES: [Service; 2] = [Service::Sfu, Service::Turn];

/// Which services are open to a session, and what it was asked for.
pub(super) struct Standings {
    /// Of each service why it is not open.
    closed: [Option<Refusal>; SERVICES.len()],
    /// When the next of its credentials expires.
    expires: Option<Instant>,
    asked: Option<Asked>,
    /// When the session ends for the lack of what it was asked for.
    ends: Option<Instant>,
}

struct Asked {
    nonce: String,
    until: u64,
    reason: &'static str,
}

impl Standings {
    /// As the rules have it now.
    pub(super) fn of(rules: &Rules, permit: &Permit, now: u64) -> Standings {
        let token = permit.token();
        let ends = token
            .credentials()
            .iter()
            .filter_map(identity::credential::Credential::counts_until);
        let next = ends.filter(|until| *until > now).min();
        Standings {
            closed: SERVICES.map(|service| rules.decide(token, service, now).refusal),
            expires: next.map(|until| Instant::now() + Duration::from_secs(until - now)),
            asked: None,
            ends: None,
        }
    }

    /// When they have to be looked at again.
    pub(super) fn due(&self) -> Option<Instant> {
        [self.expires, self.ends].into_iter().flatten().min()
    }

    /// Those that credentials would open.
    fn lacking(&self) -> impl Iterator<Item = Service> {
        let closed = SERVICES.into_iter().zip(&self.closed);
        closed
            .filter(|(_, why)| **why == Some(Refusal::ReputationTooLow))
            .map(|(service, _)| service)
    }

    fn lacks(&self, service: Service) -> bool {
        self.lacking().any(|lacking| lacking == service)
    }

    fn said(&self) -> Vec<Standing> {
        let each = SERVICES.into_iter().zip(&self.closed);
        let open = each.filter(|(_, why)| **why != Some(Refusal::ServiceForbidden));
        open.map(|(service, why)| Standing {
            service: service.name().to_owned(),
            open: why.is_none(),
            reason: why
                .as_ref()
                .map(|why| speech::fault(&Problem::from(why)).reason.into_owned()),
        })
        .collect()
    }
}

impl Conversation {
    /// Looks at the session's standing again, asks for what it has come to lack, and ends it where its time for that is over.
    pub(super) async fn review(&mut self, reason: &'static str) -> Result<(), Over> {
        let (rules, now) = (self.relay.policies.rules(), clock::unix());
        let Some(live) = &mut self.live else { return Ok(()) };
        let before = std::mem::replace(&mut live.standings, Standings::of(&rules, &live.permit, now));
        let lost: Vec<Service> = live
            .standings
            .lacking()
            .filter(|service| !before.lacks(*service))
            .collect();
        live.standings.asked = before.asked;
        if live.standings.lacks(Service::Sfu) {
            live.standings.ends = before.ends;
        }
        if live.standings.ends.is_some_and(|ends| ends <= Instant::now()) {
            // Its end comes back as what everybody is told who is ended.
            live.standings.ends = None;
            self.relay.leave(live.session, EndReason::CredentialsMissing);
            return Ok(());
        }
        if lost.is_empty() {
            return Ok(());
        }
        let ends = rules.ends_after_seconds;
        if lost.contains(&Service::Sfu) && ends > 0 {
            live.standings.ends = Some(Instant::now() + Duration::from_secs(ends));
        }
        self.ask(&rules, reason, None).await
    }

    /// The client came back over another connection, and may not have heard what it was asked for.
    pub(super) async fn ask_again(&mut self) -> Result<(), Over> {
        let asked = self.live.as_ref().and_then(|live| live.standings.asked.as_ref());
        let reason = asked.map(|asked| asked.reason);
        self.review("credential-expired").await?;
        match reason {
            Some(reason) => self.ask(&self.relay.policies.rules(), reason, None).await,
            None => Ok(()),
        }
    }

    /// Asks for everything that would open what is not open.
    async fn ask(
        &mut self,
        rules: &Rules,
        reason: &'static str,
        correlates: Option<&str>,
    ) -> Result<(), Over> {
        let Some(live) = &mut self.live else { return Ok(()) };
        let (now, standings) = (clock::unix(), &mut live.standings);
        let lasts = match standings.ends {
            Some(ends) => ends.saturating_duration_since(Instant::now()).as_secs(),
            None => REQUEST_SECONDS,
        };
        let nonce = URL_SAFE_NO_PAD.encode(rand::rng().random::<[u8; 18]>());
        let request = Request {
            nonce: nonce.clone(),
            expires: now + lasts,
            reason: reason.to_owned(),
            ends: standings.ends.is_some(),
            wanted: described(rules, standings.lacking()),
        };
        standings.asked = Some(Asked {
            nonce,
            until: request.expires,
            reason,
        });
        let changes = RelayChanges {
            request: Some(request),
            ..RelayChanges::default()
        };
        self.update(correlates, changes).await
    }

    /// The client wants a service: it hears that it may, or is asked for what that takes.
    pub(super) async fn wanted(&mut self, want: &Want, id: &str) -> Result<(), Trouble> {
        let service = SERVICES
            .into_iter()
            .find(|service| service.name() == want.service);
        let Some(service) = service else {
            let detail = "`want.service` is \"sfu\" or \"turn\".";
            return Err(Fault::new(400, "envelope-malformed", detail).into());
        };
        let (rules, now) = (self.relay.policies.rules(), clock::unix());
        self.review("policy-changed").await?;
        let Some(live) = &self.live else { return Ok(()) };
        match rules.decide(live.permit.token(), service, now).refusal {
            None => self.say_verified(Vec::new(), id).await,
            Some(Refusal::ReputationTooLow) => Ok(self
                .ask(&rules, Refusal::ReputationTooLow.slug(), Some(id))
                .await?),
            Some(refusal) => Err(Problem::from(&refusal).into()),
        }
    }

    /// The client presents what it was asked for.
    pub(super) async fn presented(&mut self, present: &Present, id: &str) -> Result<(), Trouble> {
        let now = clock::unix();
        let Some(live) = &mut self.live else { return Ok(()) };
        let fits = |asked: &mut Asked| asked.nonce == present.nonce && now < asked.until;
        if live.standings.asked.take_if(fits).is_none() {
            let detail = "The presentation's `nonce` is not that of the relay's last request on this session, or its \
                          time is over; say what you want (`want`) to be asked again.";
            return Err(Fault::new(401, "presentation-stale", detail).into());
        }
        let (session, permit) = (live.session, live.permit.clone());
        let presentation = verified(&self.relay, &permit, &present.credentials).await?;
        let rules = self.relay.policies.rules();
        let outcomes: Vec<Outcome> = presentation
            .results()
            .iter()
            .map(|result| match result {
                Ok(credential) if rules.denies(credential) => Outcome {
                    accepted: false,
                    reason: Some(Refusal::Denied.slug().to_owned()),
                    detail: Some(Refusal::Denied.to_string()),
                },
                Ok(_) => Outcome::accepted(),
                Err(fault) => Outcome::refused(fault),
            })
            .collect();
        if !outcomes.iter().any(|outcome| outcome.accepted) {
            self.relay.metrics.auth_failure("presentation");
            let first = presentation.results().first();
            return Err(match first {
                Some(Err(fault)) => Fault::from(fault),
                Some(Ok(_)) => speech::fault(&Problem::from(&Refusal::Denied)),
                None => Fault::reputation_too_low(),
            }
            .into());
        }
        let permit = Arc::new(permit.presenting(&presentation).map_err(Problem::from)?);
        self.relay.registry().set_permit(session, permit.clone());
        if let Some(live) = &mut self.live {
            let ends = live.standings.ends;
            live.permit = permit;
            live.standings = Standings::of(&rules, &live.permit, clock::unix());
            live.standings.ends = ends.filter(|_| live.standings.lacks(Service::Sfu));
        }
        self.say_verified(outcomes, id).await
    }

    async fn say_verified(&mut self, credentials: Vec<Outcome>, id: &str) -> Result<(), Trouble> {
        let services = self.live.as_ref().map(|live| live.standings.said());
        let changes = RelayChanges {
            verify: Some(Verified {
                credentials,
                services: services.unwrap_or_default(),
            }),
            ..RelayChanges::default()
        };
        Ok(self.update(Some(id), changes).await?)
    }
}

/// The permit of an invite, with the credentials that it brings along, or with what its holder presented in another session.
/// Those that do not count are as if they were not there.
pub(super) async fn introduced(relay: &Relay, invite: &Invite, permit: Permit) -> Result<Permit, Problem> {
    let texts = invite.identity.as_ref().map(Introduction::texts);
    let Some(texts) = texts.filter(|texts| !texts.is_empty()) else {
        return Ok(relay.shared(&permit).unwrap_or(permit));
    };
    let presentation = verified(relay, &permit, &texts).await?;
    Ok(permit.presenting(&presentation)?)
}

async fn verified(relay: &Relay, permit: &Permit, texts: &[String]) -> Result<Presentation, Problem> {
    let rules = relay.policies.rules();
    let mut documents = Documents::none();
    let issuers = Presentation::issuers_named(texts, &rules.token);
    relay.resolver.add(&mut documents, &issuers).await;
    let presentation = Presentation::verify(texts, permit, &rules.token, &documents, clock::unix());
    presentation.map_err(|refusal| Problem::from(&refusal))
}

/// A refused invite, with the credentials that would have done.
pub(super) fn wanting(relay: &Relay, problem: &Problem) -> Fault {
    let fault = speech::fault(problem);
    match problem.slug() == Refusal::ReputationTooLow.slug() {
        true => fault.wanting(described(&relay.policies.rules(), [Service::Sfu].into_iter())),
        false => fault,
    }
}

/// What the services ask for, and whose word counts.
fn described(rules: &Rules, services: impl Iterator<Item = Service>) -> Wanted {
    let few = |names: &[String]| names.iter().take(LISTED_MAX).cloned().collect();
    let services = services.map(|service| {
        let rule = rules.policy.rule(service);
        WantedBy {
            service: service.name().to_owned(),
            score_min: rule.score_min,
            roles: few(&rule.roles),
            organizations: few(&rule.organizations),
        }
    });
    let issuers = rules.policy.credentials.iter().take(LISTED_MAX);
    let issuers = issuers.map(|(did, rule)| {
        let types = [
            (rule.score, "ReputationScore"),
            (rule.role, "Role"),
            (rule.organization, "Organization"),
        ];
        let types = types.into_iter().filter(|(counts, _)| *counts);
        Scorer {
            did: did.clone(),
            types: types.map(|(_, name)| name.to_owned()).collect(),
        }
    });
    Wanted {
        services: services.collect(),
        issuers: issuers.collect(),
    }
}
