//! Records to somebody's HTTPS server: POST, in CloudEvents' structured content mode, or batched where more than one goes
//! into a request. Signed as Standard Webhooks says: `v1`, HMAC-SHA256 under a shared secret, where there is one, and
//! `v1a`, Ed25519 by the relay's own key, always, over `webhook-id.webhook-timestamp.body`.
//!
//! Only a 2xx acknowledges. Connections go to public addresses alone, and to others that the operator named.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use identity::SigningKey;
use identity::did_web::Location;

use super::event::Event;
use crate::clock;
use crate::config::Records;
use crate::resolver::https::Https;
use crate::resolver::names::{self, Names};

/// What a shared secret begins with.
const SECRET_PREFIX: &str = "whsec_";
/// The shortest and the longest secret that Standard Webhooks allows.
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;

/// Somebody's server.
pub(crate) struct Webhook {
    location: Location,
    https: Https,
    key: Arc<SigningKey>,
    secret: Option<hmac::Key>,
    records_max: usize,
    patience: Duration,
}

impl Webhook {
    pub(crate) fn new(config: &Records, key: Arc<SigningKey>) -> Result<Webhook, String> {
        let location =
            Location::of_url(&config.webhook).map_err(|error| format!("records.webhook: {error}"))?;
        let exceptions = config
            .webhook_allow_addresses
            .iter()
            .map(|network| network.prefix)
            .collect();
        let names = Names::new(&config.webhook_hosts, exceptions, names::system());
        let secret = match config.webhook_secret_file.as_str() {
            "" => None,
            file => Some(secret(file).map_err(|why| format!("records.webhook_secret_file {file}: {why}"))?),
        };
        Ok(Webhook {
            location,
            https: Https::new(names, &config.webhook_ca_file)
                .map_err(|why| format!("records.webhook_ca_file {why}"))?,
            key,
            secret,
            records_max: usize::try_from(config.webhook_records_max).unwrap_or(1),
            // Standard Webhooks recommends 15 to 30 seconds.
            patience: Duration::from_secs(config.webhook_timeout_seconds),
        })
    }

    /// Records in one request.
    pub(crate) fn records_max(&self) -> usize {
        self.records_max
    }

    /// One request.
    pub(crate) async fn put(&self, records: &[Event]) -> Result<(), String> {
        let (Some(first), Some(last)) = (records.first(), records.last()) else {
            return Ok(());
        };
        let (id, content_type, body) = if self.records_max == 1 {
            (first.id.clone(), "application/cloudevents+json", first.line())
        } else {
            let lines: Vec<String> = records.iter().map(Event::line).collect();
            let body = format!("[{}]", lines.join(","));
            let id = format!("{}_{}", first.id, last.id);
            (id, "application/cloudevents-batch+json", body)
        };
        let timestamp = clock::unix().to_string();
        let signed = format!("{id}.{timestamp}.{body}");
        let headers = [
            ("content-type", content_type.to_owned()),
            ("webhook-id", id),
            ("webhook-timestamp", timestamp),
            ("webhook-signature", self.signatures(signed.as_bytes())),
        ];
        let status = self
            .https
            .post(&self.location, &headers, body.into_bytes(), self.patience)
            .await?;
        match status {
            200..=299 => Ok(()),
            status => Err(format!("it answered {status}")),
        }
    }

    fn signatures(&self, signed: &[u8]) -> String {
        let own = format!("v1a,{}", STANDARD.encode(self.key.sign(signed)));
        match &self.secret {
            Some(secret) => format!("v1,{} {own}", STANDARD.encode(hmac::sign(secret, signed))),
            None => own,
        }
    }
}

fn secret(file: &str) -> Result<hmac::Key, String> {
    let text = std::fs::read_to_string(Path::new(file)).map_err(|error| error.to_string())?;
    let bytes = text
        .trim()
        .strip_prefix(SECRET_PREFIX)
        .and_then(|encoded| STANDARD.decode(encoded).ok())
        .filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    let bytes = bytes.ok_or("it must hold whsec_ and the base64 of 24 to 64 bytes")?;
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
}
