//! Usage records on their way out of the house: what the journal says is carried to the sinks that the operator named, as
//! CloudEvents. The journal is the outbox and a sink is a cursor over it (`metering::ledger::Cursor`), moved after the sink
//! acknowledged. So a record is delivered at least once, under the same id each time, in the order of its account's entries;
//! and a sink that is down for a month costs one row.
//!
//! Each sink has one task, which holds one batch and no more. Of a shared ledger one node at a time delivers to a sink:
//! which, the ledger says.

mod event;
mod file;
#[cfg(feature = "nats")]
mod nats;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use metering::ledger::{LedgerError, Unsent};
use metrics::{counter, gauge};
use rand::RngExt;

use crate::cashier::CashierHandle;
use crate::clock;
use crate::config::Config;
use crate::relay::Relay;
pub(crate) use event::Event;
use file::FileSink;
use webhook::Webhook;

/// Entries that are read at once, of each node's journal: a second of a busy relay, and soon read.
const ENTRIES_MAX: usize = 500;
/// How often a sink that has everything looks for more.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How often a node asks whether a sink that another one delivers to has become free.
const ASK_INTERVAL: Duration = Duration::from_secs(5);
/// The first pause after a failure. It doubles, and a part of it is left to chance, so that relays which lost the same
/// sink do not come back in step.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause: a sink that is back waits no longer than this, and the lag that is shown is not older.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Where records go.
pub(crate) enum Sink {
    /// Lines of a file.
    File(FileSink),
    /// Somebody's HTTPS server.
    Webhook(Box<Webhook>),
    /// A JetStream.
    #[cfg(feature = "nats")]
    Nats(Box<nats::Nats>),
}

impl Sink {
    /// The sinks of a configuration. Opens nothing yet.
    pub(crate) fn of(config: &Config, key: &Arc<identity::SigningKey>) -> Result<Vec<Sink>, String> {
        let records = &config.records;
        let mut sinks = Vec::new();
        if !records.file.is_empty() {
            sinks.push(Sink::File(FileSink::new(&records.file)));
        }
        if !records.webhook.is_empty() {
            sinks.push(Sink::Webhook(Box::new(Webhook::new(records, key.clone())?)));
        }
        #[cfg(feature = "nats")]
        if !records.nats.is_empty() {
            sinks.push(Sink::Nats(Box::new(nats::Nats::new(records))));
        }
        #[cfg(not(feature = "nats"))]
        if !records.nats.is_empty() {
            return Err("records.nats: this program was built without the feature `nats`".to_owned());
        }
        Ok(sinks)
    }

    /// Its name: in the ledger, in metrics, in logs.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Sink::File(_) => "file",
            Sink::Webhook(_) => "webhook",
            #[cfg(feature = "nats")]
            Sink::Nats(_) => "nats",
        }
    }

    /// What it takes at once.
    fn records_max(&self) -> usize {
        match self {
            Sink::File(_) => ENTRIES_MAX,
            Sink::Webhook(webhook) => webhook.records_max(),
            #[cfg(feature = "nats")]
            Sink::Nats(_) => ENTRIES_MAX,
        }
    }

    /// Hands records over. Returns once they are safe there.
    async fn put(&mut self, records: &[Event]) -> Result<(), String> {
        match self {
            Sink::File(file) => file.put(records).await,
            Sink::Webhook(webhook) => webhook.put(records).await,
            #[cfg(feature = "nats")]
            Sink::Nats(nats) => nats.put(records).await,
        }
    }
}

/// One sink's delivery.
struct Delivery {
    sink: Sink,
    cashier: CashierHandle,
    source: Arc<str>,
    /// Failures in a row.
    failures: u32,
    /// Whether this node delivers.
    holds: bool,
}

/// Delivers until the relay closes.
pub(crate) async fn deliver(relay: Arc<Relay>, sink: Sink) {
    let source = match relay.config.records.source.as_str() {
        "" => relay.key.did().as_str().into(),
        source => source.into(),
    };
    let mut delivery = Delivery {
        sink,
        cashier: relay.cashier.clone(),
        source,
        failures: 0,
        holds: false,
    };
    loop {
        let pause = delivery.step().await;
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = relay.door_closed() => return,
        }
    }
}

impl Delivery {
    /// Delivers what there is, and says how long to wait.
    async fn step(&mut self) -> Duration {
        let name = self.sink.name();
        let read = self
            .cashier
            .outbox(move |ledger, _| ledger.unsent(name, ENTRIES_MAX))
            .await;
        match read {
            Ok(Ok(Some(unsent))) => {
                if !std::mem::replace(&mut self.holds, true) {
                    tracing::info!(
                        sink = name,
                        behind = unsent.behind,
                        "this node delivers usage records"
                    );
                }
                self.show(&unsent);
                self.hand_over(unsent).await
            }
            Ok(Ok(None)) => {
                if std::mem::replace(&mut self.holds, false) {
                    tracing::warn!(sink = name, "another node delivers usage records now");
                }
                // What is behind is the other node's to show.
                gauge!("milliway_records_behind_entries", "sink" => name).set(0.0);
                gauge!("milliway_records_behind_seconds", "sink" => name).set(0.0);
                ASK_INTERVAL
            }
            // The cashier says what is wrong with its ledger; nothing is lost meanwhile.
            Ok(Err(error)) => self.failed("the ledger", &error.to_string()),
            Err(refused) => self.failed("the ledger", &refused.to_string()),
        }
    }

    async fn hand_over(&mut self, unsent: Unsent) -> Duration {
        let Unsent {
            mut cursor,
            entries,
            behind,
        } = unsent;
        if entries.is_empty() {
            self.delivered();
            return LOOK_INTERVAL;
        }
        let more = behind > entries.len() as u64;
        let most = self.sink.records_max();
        let mut entries = entries.into_iter().peekable();
        while entries.peek().is_some() {
            let (mut after, mut records) = (cursor.clone(), Vec::new());
            while let Some(leaving) = entries.next_if(|_| records.len() < most) {
                after.pass(leaving.id);
                if Event::tells(leaving.entry.kind) {
                    after.records += 1;
                    records.push(Event::of(leaving, &self.source, after.records));
                }
            }
            if !records.is_empty()
                && let Err(why) = self.sink.put(&records).await
            {
                let pause = self.failed("the sink", &why);
                // What went before this is not to be repeated.
                self.move_to(cursor).await;
                return pause;
            }
            counter!("milliway_records_delivered_total", "sink" => self.sink.name())
                .increment(records.len() as u64);
            cursor = after;
        }
        if !self.move_to(cursor).await {
            return LOOK_INTERVAL;
        }
        self.delivered();
        if more { Duration::ZERO } else { LOOK_INTERVAL }
    }

    /// Moves the cursor. False where that was not possible: what was delivered is delivered again.
    async fn move_to(&mut self, cursor: metering::ledger::Cursor) -> bool {
        let name = self.sink.name();
        let moved = self
            .cashier
            .outbox(move |ledger, _| ledger.sent(name, &cursor))
            .await;
        matches!(moved, Ok(Ok::<bool, LedgerError>(true)))
    }

    fn show(&self, unsent: &Unsent) {
        let name = self.sink.name();
        let oldest = unsent.entries.first().map_or(0, |leaving| {
            clock::unix_ns().saturating_sub(leaving.entry.at) / 1_000_000_000
        });
        gauge!("milliway_records_behind_entries", "sink" => name).set(unsent.behind as f64);
        gauge!("milliway_records_behind_seconds", "sink" => name).set(oldest as f64);
    }

    fn delivered(&mut self) {
        let name = self.sink.name();
        if std::mem::take(&mut self.failures) > 0 {
            tracing::info!(sink = name, "usage records are delivered again");
        }
        gauge!("milliway_records_behind_entries", "sink" => name).set(0.0);
        gauge!("milliway_records_behind_seconds", "sink" => name).set(0.0);
    }

    /// Says so at the 1st, 2nd, 4th, 8th ... failure in a row, and how long to wait.
    fn failed(&mut self, whose: &'static str, why: &str) -> Duration {
        let sink = self.sink.name();
        self.failures = self.failures.saturating_add(1);
        counter!("milliway_records_failures_total", "sink" => sink).increment(1);
        if self.failures.is_power_of_two() {
            let failures = self.failures;
            tracing::warn!(
                sink,
                whose,
                why,
                failures,
                "usage records were not delivered; they are kept and tried again"
            );
        }
        let doubled = PAUSE_MIN.saturating_mul(1 << (self.failures - 1).min(16));
        let longest = doubled.min(PAUSE_MAX);
        longest / 2 + longest.mul_f64(rand::rng().random_range(0.0..0.5))
    }
}
