//! Names that people type, `alice@voice.example`, and the DIDs behind them (DSIP 4.3 and 21.D): WebFinger (RFC 7033)
//! first, which https vouches for, then the TXT record `_did.alice.voice.example` with `did=DID`, which nothing does.
//!
//! An alias is for typing: no token, proof or envelope is ever decided by one. Whether the DID knows its alias, its
//! document says (`alsoKnownAs`).

use std::collections::BTreeSet;
use std::time::Duration;

use domain::base::iana::Rtype;
use domain::base::{Name, Question};
use domain::rdata::Txt;
use domain::resolv::StubResolver;
use domain::resolv::stub::conf::ResolvConf;
use identity::Did;
use identity::did_web::Location;
use identity::json::parse_object;
use serde_json::Value;

use super::Resolver;

/// For a question to DNS and its answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// Longest part before the `@`.
const USER_LENGTH_MAX: usize = 63;
/// Records of one name that are looked at.
const RECORDS_MAX: usize = 16;

/// `user@domain`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Alias {
    user: String,
    domain: String,
}

/// What an alias came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    /// The DID.
    pub(crate) did: Did,
    /// Who said so: "webfinger" or "dns".
    pub(crate) via: &'static str,
    /// The DID's own document names the alias.
    pub(crate) confirmed: bool,
}

impl Alias {
    /// Parses `user@domain`, with `acct:` before it or without.
    pub(crate) fn parse(text: &str) -> Option<Alias> {
        let (user, domain) = text.strip_prefix("acct:").unwrap_or(text).split_once('@')?;
        let user_ok = (1..=USER_LENGTH_MAX).contains(&user.len())
            && user
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_.".contains(&byte))
            && user.split('.').all(|part| !part.is_empty());
        let location = Location::of_url(&format!("https://{domain}/")).ok()?;
        (user_ok && location.host == domain).then(|| Alias {
            user: user.to_owned(),
            domain: domain.to_owned(),
        })
    }

    fn account(&self) -> String {
        format!("acct:{}@{}", self.user, self.domain)
    }

    fn webfinger(&self) -> Location {
        Location {
            host: self.domain.clone(),
            port: 443,
            path: format!(
                "/.well-known/webfinger?resource=acct%3A{}%40{}",
                self.user, self.domain
            ),
        }
    }

    fn record(&self) -> String {
        format!("_did.{}.{}", self.user, self.domain)
    }
}

impl Resolver {
    /// The DID behind an alias, and whether it knows that it is.
    pub(crate) async fn alias(&self, alias: &Alias) -> Result<Found, String> {
        let (did, via) = match self.finger(alias).await {
            Ok(did) => (did, "webfinger"),
            Err(by_finger) => match self.record(alias).await {
                Ok(did) => (did, "dns"),
                Err(by_record) => return Err(format!("WebFinger: {by_finger}; DNS: {by_record}")),
            },
        };
        let document = self.resolve(&did).await;
        let known = document.is_ok_and(|document| document.also_known_as.contains(&alias.account()));
        Ok(Found {
            did,
            via,
            confirmed: known,
        })
    }

    async fn finger(&self, alias: &Alias) -> Result<Did, &'static str> {
        let mut location = alias.webfinger();
        if let Some(port) = self.webfinger_port {
            location.port = port;
        }
        let text = self
            .https
            .get(&location, "application/jrd+json, application/json")
            .await?;
        did_of_jrd(&text, &alias.account())
    }

    async fn record(&self, alias: &Alias) -> Result<Did, &'static str> {
        let name: Name<Vec<u8>> = alias
            .record()
            .parse()
            .map_err(|_| "its name is too long for DNS")?;
        let resolver = StubResolver::from_conf(self.dns.clone());
        let question = Question::new_in(name, Rtype::TXT);
        let answer = tokio::time::timeout(PATIENCE, resolver.query(question)).await;
        let answer = answer.ok().and_then(Result::ok).ok_or("no answer")?;
        let records = answer.answer().map_err(|_| "its answer cannot be read")?;
        let texts = records
            .limit_to_in::<Txt<_>>()
            .take(RECORDS_MAX)
            .filter_map(Result::ok);
        let texts = texts.map(|record| record.data().text::<Vec<u8>>());
        one(texts.filter_map(|text| {
            let text = String::from_utf8(text).ok()?;
            Did::parse(text.strip_prefix("did=")?).ok()
        }))
    }
}

/// The one DID among `aliases` and the links `self` and `did` of a JRD.
fn did_of_jrd(text: &str, account: &str) -> Result<Did, &'static str> {
    let jrd = parse_object(text).map_err(|_| "it is no JSON object")?;
    if jrd.get("subject").is_some_and(|subject| subject != account) {
        return Err("its subject is somebody else");
    }
    let list = |name: &str| jrd.get(name).and_then(Value::as_array).into_iter().flatten();
    let is_self = |link: &&Value| link.get("rel").is_some_and(|rel| rel == "self" || rel == "did");
    let links = list("links").filter(is_self).filter_map(|link| link.get("href"));
    let named = list("aliases").chain(links).filter_map(Value::as_str);
    one(named.filter_map(|text| Did::parse(text).ok()))
}

/// Two different DIDs are no answer.
fn one(dids: impl Iterator<Item = Did>) -> Result<Did, &'static str> {
    let mut distinct: BTreeSet<Did> = dids.collect();
    match (distinct.pop_first(), distinct.is_empty()) {
        (Some(did), true) => Ok(did),
        (Some(_), false) => Err("it names more than one DID"),
        (None, _) => Err("it names no DID"),
    }
}

/// Which DNS servers are asked: the system's.
pub(super) fn system_dns() -> ResolvConf {
    ResolvConf::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alias_is_a_user_of_a_domain_and_nothing_that_could_be_more() {
        let alias = Alias::parse("acct:alice.b@voice.example").unwrap();
        assert_eq!(Alias::parse("alice.b@voice.example").as_ref(), Some(&alias));
        assert_eq!(alias.record(), "_did.alice.b.voice.example");
        assert_eq!(
            alias.webfinger().to_string(),
            "https://voice.example/.well-known/webfinger?resource=acct%3Aalice.b%40voice.example"
        );
        for text in [
            "alice",
            "@voice.example",
            "alice@",
            "alice@127.0.0.1",
            "alice@localhost",
            "alice@voice.example:8443",
            "alice@voice.example/x",
            "Alice@voice.example",
            "a&b@voice.example",
            "a..b@voice.example",
            ".a@voice.example",
            "a@b@voice.example",
            "a%40@voice.example",
            "did:web:voice.example",
        ] {
            assert_eq!(Alias::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_jrd_that_names_two_dids_or_none_or_another_subject_is_no_answer() {
        let read = |text: &str| did_of_jrd(text, "acct:alice@voice.example").map(|did| did.to_string());
        let did = || Ok("did:web:voice.example:users:alice".to_owned());
        let subject = r#""subject":"acct:alice@voice.example""#;
        assert_eq!(
            read(&format!(
                r#"{{{subject},"aliases":["https://voice.example/alice","did:web:voice.example:users:alice"]}}"#
            )),
            did()
        );
        assert_eq!(
            read(
                r#"{"links":[{"rel":"self","href":"did:web:voice.example:users:alice"},{"rel":"avatar","href":"did:key:z"}]}"#
            ),
            did()
        );
        for text in [
            r#"{"aliases":["did:web:a.example","did:web:b.example"]}"#,
            r#"{"aliases":["did:web:a.example"],"links":[{"rel":"did","href":"did:web:b.example"}]}"#,
            r#"{"subject":"acct:bob@voice.example","aliases":["did:web:a.example"]}"#,
            r#"{"aliases":"did:web:a.example"}"#,
            r#"{"aliases":["did:web:a.example"],"aliases":[]}"#,
            "{}",
            "<html>",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
