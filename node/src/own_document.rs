//! The operator's DID document, as `serve` needs it: this node's key has to be listed there as `#node-ID`, or nobody can
//! check what the node signs. The node serves the document itself; whether what the world gets for its did:web is that one
//! is looked at for as long as it runs, since a proxy or another host may stand in between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use identity::{Did, Document, SigningKey};
use metrics::gauge;
use serde_json::{Value, json};

use crate::relay::Relay;

/// Longest document: what `did:web` resolvers take, ours among them.
const LENGTH_MAX: u64 = 64 * 1024;
/// Until the document was found good it is looked at so often, and then more seldom.
const LOOK_EVERY: Duration = Duration::from_secs(5);
const LOOK_AGAIN_EVERY: Duration = Duration::from_secs(300);

/// Is the key listed in the document, for what a relay signs: envelopes and statements, and receipts?
fn lists(document: &Document, key: &SigningKey) -> bool {
    document.key(key.kid()) == Some(key.public_key())
}

/// The operator's document from a file, if it is one that lists this node.
pub(crate) fn read(file: &Path, key: &SigningKey) -> Result<String, String> {
    let named = |what: &dyn std::fmt::Display| format!("relay.did_document {}: {what}", file.display());
    let length = std::fs::metadata(file).map_err(|error| named(&error))?.len();
    if length > LENGTH_MAX {
        return Err(named(&"a DID document has at most 64 KiB"));
    }
    let text = std::fs::read_to_string(file).map_err(|error| named(&error))?;
    let document = Document::parse(key.did(), &text).map_err(|error| named(&error))?;
    if !lists(&document, key) {
        let what = format!(
            "it does not list this node's key as {} under `authentication`; \
             `milliway did document --config FILE --with {}` prints one that does",
            key.kid(),
            file.display()
        );
        return Err(named(&what));
    }
    Ok(text)
}

/// A document with this node's key in it, beside what `with` has already.
pub(crate) fn merged(with: Value, own: &Value) -> Result<Value, String> {
    let mut document = with;
    if document["id"] != own["id"] {
        return Err("the document is another DID's".to_owned());
    }
    let kid = own["verificationMethod"][0]["id"].clone();
    let members = document.as_object_mut().ok_or("the document is no JSON object")?;
    let mut list = |name: &str, entry: &Value, same: &dyn Fn(&Value) -> bool| {
        let list = members.entry(name).or_insert_with(|| json!([]));
        if let Some(list) = list.as_array_mut() {
            list.retain(|old| !same(old));
            list.push(entry.clone());
        }
    };
    list("verificationMethod", &own["verificationMethod"][0], &|old| {
        old["id"] == kid
    });
    list("authentication", &kid, &|old| *old == kid);
    list("assertionMethod", &kid, &|old| *old == kid);
    let service = document["service"]
        .as_array_mut()
        .and_then(|services| services.iter_mut().find(|one| one["type"] == "DSIPService"));
    match service {
        None => document["service"] = own["service"].clone(),
        Some(service) => {
            for (name, urls) in own["service"][0]["serviceEndpoint"]
                .as_object()
                .into_iter()
                .flatten()
            {
                let known = &mut service["serviceEndpoint"][name];
                let mut all = known.as_array().cloned().unwrap_or_default();
                for url in urls.as_array().into_iter().flatten() {
                    if !all.contains(url) {
                        all.push(url.clone());
                    }
                }
                *known = all.into();
            }
        }
    }
    Ok(document)
}

/// Looks at what the world gets for the operator's did:web until the door closes; a did:key has nothing to look at.
pub(crate) async fn follow(relay: Arc<Relay>) {
    if relay.key.did().method() != "web" {
        return;
    }
    loop {
        let good = look(&relay, relay.key.did()).await;
        gauge!("milliway_did_document_good").set(if good { 1.0 } else { 0.0 });
        let pause = if good {
            LOOK_AGAIN_EVERY
        } else {
            LOOK_EVERY.max(failure_pause(&relay))
        };
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = relay.door_closed() => return,
        }
    }
}

/// A failure is remembered for so long, and asking again sooner is of no use.
fn failure_pause(relay: &Relay) -> Duration {
    Duration::from_secs(relay.config.did.failure_cache_seconds + 1)
}

async fn look(relay: &Relay, operator: &Did) -> bool {
    match relay.resolver.resolve(operator).await {
        Ok(document) if lists(&document, &relay.key) => {
            tracing::info!("the operator's DID document lists this node");
            true
        }
        Ok(_) => {
            tracing::error!(
                kid = relay.key.kid(),
                "the operator's DID document, as it is published, does not list this node's key: clients cannot check what it signs; publish what /.well-known/did.json of this node says"
            );
            false
        }
        Err(error) => {
            tracing::error!(%error, "the operator's DID document cannot be fetched: clients cannot check what this node signs");
            false
        }
    }
}
