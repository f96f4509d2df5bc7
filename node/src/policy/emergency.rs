//! Emergency calls (DSIP section 19): free and never slowed down where a service on the operator's list has proved itself,
//! as a peer in the same room or as the issuer of the token. Whoever only says that a call is one gets a minute of it,
//! slowly, until such a peer is there; so few at a time that calling oneself an emergency is no way to relay for nothing.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use identity::policy::Terms;
use identity::{Did, Permit};
use metering::{Rates, Service, SessionId};

use crate::clock;
use crate::http::problem::Problem;
use crate::relay::Relay;
use crate::session::{EndReason, Join};
use crate::shard::Command;

/// An unproved call lasts so long: enough for whoever answers to join.
const UNPROVED_LIFETIME: Duration = Duration::from_secs(60);
/// What an unproved caller is sent at most, data channels included (DESIGN 4.9).
const UNPROVED_BITS_PER_SECOND: u64 = 512_000;
/// Unproved calls from one IPv4 /24 or IPv6 /56 in an hour.
const UNPROVED_PER_PREFIX: usize = 3;
const HOUR: Duration = Duration::from_secs(3_600);
/// Prefixes remembered at once. Past it nobody new calls unproved: that many have called within the hour.
const PREFIXES_MAX: usize = 65_536;
/// How often it is looked who has come and gone.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What makes a session free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// An emergency service issued the token.
    Token,
    /// It is in the room, or is the caller.
    Peer,
    /// Nothing yet.
    None,
}

impl Proof {
    fn as_str(self) -> &'static str {
        match self {
            Proof::Token => "token",
            Proof::Peer => "peer",
            Proof::None => "none",
        }
    }
}

/// A call by its word alone, or in a room with a service.
struct Call {
    holder: String,
    /// Since when no service is in its room.
    alone_since: Option<Instant>,
    /// It is sent only so much.
    limited: bool,
}

/// The calls of this node.
#[derive(Default)]
pub(crate) struct Emergencies(Mutex<Calls>);

#[derive(Default)]
struct Calls {
    live: HashMap<SessionId, Call>,
    /// When unproved calls of a prefix began.
    begun: HashMap<IpAddr, VecDeque<Instant>>,
}

/// Who is counted as one: an IPv4 /24 or IPv6 /56.
fn prefix_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(Ipv4Addr::from(u32::from(address) & (u32::MAX << 8))),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(u128::from(address) & (u128::MAX << 72))),
    }
}

impl Emergencies {
    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call; the reason why not is the caller's to read.
    fn begin(
        &self,
        session: SessionId,
        holder: &str,
        source: IpAddr,
        proof: Proof,
        now: Instant,
    ) -> Result<(), &'static str> {
        let mut calls = self.calls();
        let alone = proof == Proof::None;
        if alone {
            if calls
                .live
                .values()
                .any(|call| call.limited && call.holder == holder)
            {
                return Err("You have an emergency call under way; one at a time until it is answered.");
            }
            if calls.begun.len() >= PREFIXES_MAX {
                calls
                    .begun
                    .retain(|_, begun| begun.back().is_some_and(|last| now.duration_since(*last) < HOUR));
            }
            let full = calls.begun.len() >= PREFIXES_MAX;
            let begun = calls.begun.entry(prefix_of(source)).or_default();
            while begun
                .front()
                .is_some_and(|first| now.duration_since(*first) >= HOUR)
            {
                begun.pop_front();
            }
            if begun.len() >= UNPROVED_PER_PREFIX || (full && begun.is_empty()) {
                return Err(
                    "There were too many unanswered emergency calls from this network; call by telephone.",
                );
            }
            begun.push_back(now);
        }
        calls.live.insert(
            session,
            Call {
                holder: holder.to_owned(),
                alone_since: alone.then_some(now),
                limited: alone,
            },
        );
        Ok(())
    }

    fn forget(&self, session: SessionId) {
        self.calls().live.remove(&session);
    }

    /// Looks at every call: `answered` says of a session whether a service is in its room, or None where it is over.
    /// Those whose limit is to be lifted, and those that nobody answered.
    fn look(
        &self,
        answered: impl Fn(SessionId) -> Option<bool>,
        now: Instant,
    ) -> (Vec<SessionId>, Vec<SessionId>) {
        let (mut lifted, mut unanswered) = (Vec::new(), Vec::new());
        self.calls().live.retain(|session, call| {
            match answered(*session) {
                None => return false,
                Some(true) => {
                    call.alone_since = None;
                    if std::mem::take(&mut call.limited) {
                        lifted.push(*session);
                    }
                }
                Some(false) => {
                    let since = *call.alone_since.get_or_insert(now);
                    if now.duration_since(since) >= UNPROVED_LIFETIME {
                        unanswered.push(*session);
                    }
                }
            }
            true
        });
        (lifted, unanswered)
    }
}

/// Has the holder proved to be one of these services? A bearer token proves nobody.
fn is_service(permit: &Permit, services: &[Did]) -> bool {
    let token = permit.token();
    !token.is_bearer() && services.contains(token.subject())
}

impl Relay {
    /// Is this session free, and on whose word? None: it is billed. What is free is said in the log and counted.
    pub(crate) fn emergency(
        &self,
        join: &Join,
        terms: &Terms,
        session: SessionId,
    ) -> Result<Option<Proof>, Problem> {
        let rules = self.policies.rules();
        let services = &rules.policy.emergency;
        let proof = if terms.emergency {
            Proof::Token
        } else if is_service(&join.permit, services) {
            Proof::Peer
        } else if !join.emergency || services.is_empty() {
            return Ok(None);
        } else if self
            .registry()
            .has_in_room(&join.room, |permit| is_service(permit, services))
        {
            Proof::Peer
        } else {
            Proof::None
        };
        // A token by a service, and a service itself, need nobody else in the room.
        if proof == Proof::None || (proof == Proof::Peer && !is_service(&join.permit, services)) {
            let begun =
                self.emergencies
                    .begin(session, join.permit.subject(), join.source, proof, clock::now());
            begun.map_err(|why| Problem::new("rate-limited", why))?;
        }
        tracing::warn!(%session, proof = proof.as_str(), "an emergency session: free, and in the memo account");
        metrics::counter!("milliway_emergency_sessions_total", "proof" => proof.as_str()).increment(1);
        Ok(Some(proof))
    }

    /// What the service would cost.
    pub(crate) fn list_rates(&self, service: Service) -> Option<Rates> {
        let tariff = self.prices.iter().find(|tariff| tariff.service == service)?;
        tariff.rates().ok()
    }

    /// What a session that is let in on this word is sent at most, in bits a second.
    pub(crate) fn emergency_limit(proof: Option<Proof>) -> Option<u64> {
        (proof == Some(Proof::None)).then_some(UNPROVED_BITS_PER_SECOND)
    }

    /// A call that was counted did not come to be.
    pub(crate) fn no_emergency(&self, session: SessionId) {
        self.emergencies.forget(session);
    }

    /// Follows emergency calls until the door closes: lifts the limit of those that are answered, ends those that are
    /// not.
    pub(crate) async fn follow_emergencies(self: Arc<Relay>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = self.door_closed() => return,
            }
            if self.emergencies.calls().live.is_empty() {
                continue;
            }
            let rules = self.policies.rules();
            let services = &rules.policy.emergency;
            let mut registry = self.registry();
            let answered = |session| {
                let room = &registry.session(session)?.room;
                Some(registry.has_in_room(room, |permit| is_service(permit, services)))
            };
            let (lifted, unanswered) = self.emergencies.look(answered, clock::now());
            for session in lifted {
                tracing::warn!(%session, "an emergency session was answered: its limit is lifted");
                registry.at_shard(
                    session,
                    Command::LimitBytes {
                        session,
                        bits_per_second: None,
                    },
                );
            }
            for session in unanswered {
                tracing::warn!(%session, "an emergency session was not answered in time");
                registry.end(session, EndReason::TimeLimit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOME: &str = "192.0.2.7";

    fn begin(calls: &Emergencies, number: u64, holder: &str, source: &str, now: Instant) -> bool {
        calls
            .begin(
                SessionId::new(number),
                holder,
                source.parse().unwrap(),
                Proof::None,
                now,
            )
            .is_ok()
    }

    #[test]
    fn unproved_calls_are_one_for_a_holder_and_three_an_hour_for_a_prefix() {
        let (calls, now) = (Emergencies::default(), Instant::now());
        assert!(begin(&calls, 1, "anna", HOME, now));
        assert!(
            !begin(&calls, 2, "anna", "198.51.100.1", now),
            "one session for each holder"
        );
        assert!(begin(&calls, 3, "bert", "192.0.2.250", now));
        assert!(begin(&calls, 4, "carl", HOME, now));
        assert!(!begin(&calls, 5, "dora", HOME, now), "the fourth from its /24");
        assert!(begin(&calls, 6, "dora", "192.0.3.7", now), "its neighbour");
        assert!(begin(&calls, 7, "emil", "2001:db8:0:1ff::1", now));
        assert!(
            begin(&calls, 8, "fred", "2001:db8:0:100::1", now)
                && begin(&calls, 9, "gero", "2001:db8:0:1aa::", now)
        );
        assert!(!begin(&calls, 10, "hans", "2001:db8:0:123::9", now), "a /56");
        calls.forget(SessionId::new(1));
        assert!(
            !begin(&calls, 11, "anna", HOME, now + HOUR - Duration::from_secs(1)),
            "hanging up does not help"
        );
        assert!(begin(&calls, 12, "anna", HOME, now + HOUR));
    }

    #[test]
    fn a_call_that_nobody_answers_ends_after_a_minute_and_one_that_is_answered_is_not_limited() {
        let (calls, now) = (Emergencies::default(), Instant::now());
        let (anna, bert) = (SessionId::new(1), SessionId::new(2));
        assert!(begin(&calls, 1, "anna", HOME, now) && begin(&calls, 2, "bert", HOME, now));
        let later = |seconds| now + Duration::from_secs(seconds);
        let answered = |session| Some(session == anna);
        assert_eq!(calls.look(answered, later(59)), (vec![anna], vec![]));
        assert_eq!(calls.look(answered, later(60)), (vec![], vec![bert]));
        // The service hangs up: a minute for it to come back.
        assert_eq!(
            calls.look(|session| (session == anna).then_some(false), later(70)),
            (vec![], vec![])
        );
        assert_eq!(calls.look(|_| Some(false), later(129)), (vec![], vec![]));
        assert_eq!(calls.look(|_| Some(false), later(130)), (vec![], vec![anna]));
        assert_eq!(calls.look(|_| None, later(131)), (vec![], vec![]));
        assert!(calls.calls().live.is_empty());
    }
}
