//! Records to NATS JetStream (ADR-8, ADR-22 of NATS): one message a record, with its id as `Nats-Msg-Id`, so that the stream
//! itself drops what is delivered twice within its `duplicate_window`. Acknowledged by the stream, in order.

use std::time::Duration;

use async_nats::jetstream::{self, Context};
use async_nats::{HeaderMap, header};

use super::event::Event;
use crate::config::Records;

/// To connect, and for each batch to be acknowledged.
const PATIENCE: Duration = Duration::from_secs(20);

/// A JetStream.
pub(crate) struct Nats {
    url: String,
    subject: String,
    context: Option<Context>,
}

impl Nats {
    pub(crate) fn new(config: &Records) -> Nats {
        Nats {
            url: config.nats.clone(),
            subject: config.nats_subject.clone(),
            context: None,
        }
    }

    /// Publishes, and waits until the stream has all of it.
    pub(crate) async fn put(&mut self, records: &[Event]) -> Result<(), String> {
        let put = tokio::time::timeout(PATIENCE, self.publish(records)).await;
        let put = put.unwrap_or_else(|_| Err("it did not answer in time".to_owned()));
        if put.is_err() {
            // What is half acknowledged is published again, over a connection that is known to be good.
            self.context = None;
        }
        put
    }

    async fn publish(&mut self, records: &[Event]) -> Result<(), String> {
        let context = match &self.context {
            Some(context) => context.clone(),
            None => {
                let client = async_nats::connect(&self.url)
                    .await
                    .map_err(|error| error.to_string())?;
                self.context.insert(jetstream::new(client)).clone()
            }
        };
        let mut waiting = Vec::with_capacity(records.len());
        for record in records {
            let mut headers = HeaderMap::new();
            headers.insert(header::NATS_MESSAGE_ID, record.id.as_str());
            headers.insert("content-type", "application/cloudevents+json");
            let published = context
                .publish_with_headers(self.subject.clone(), headers, record.line().into())
                .await;
            waiting.push(published.map_err(|error| error.to_string())?);
        }
        for acknowledged in waiting {
            acknowledged.await.map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}
