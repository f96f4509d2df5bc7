//! From a configuration to a running relay, and back: ledger, shards, front door, in that order, and closed in the
//! other.

use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use identity::document::{Endpoints, relay_document};
use identity::token::TokenPolicy;
use identity::{Did, SigningKey, proof};
use metering::{LadderConfig, Msat, Service, Tariff};
use sfu::sdp::VideoCodecs;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc, watch};

use crate::addresses::advertised;
use crate::cashier::place::Place;
use crate::cashier::{self, CashierConfig};
use crate::config::{Config, Mistake};
use crate::data::Data;
use crate::http::dsip_socket::Away;
use crate::http::keys::FrontKeys;
use crate::http::metrics::Metrics;
use crate::http::source_limit::SourceLimit;
use crate::policy::{Emergencies, Policies, Rates, deny_list};
use crate::records::{self, Sink};
use crate::registry::Registry;
use crate::relay::Relay;
use crate::resolver::Resolver;
use crate::session::{EndReason, Told};
use crate::shard::{self, Command, ShardConfig, Shards};
use crate::top_ups::TopUps;
use crate::turn_access::TurnAccess;
use crate::turn_keys::TurnKeys;
use crate::{admin_socket, clock, descriptors, http, own_document, quic};

/// Events of shards that may wait for the control plane. A shard that finds it full counts and drops: a session's end
/// is then noticed by its own silence.
const SHARD_EVENTS_MAX: usize = 65_536;
/// Of the time to drain, this much is kept for settling.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// For goodbyes to leave, once everything is settled.
const GOODBYE_TIME: Duration = Duration::from_secs(1);
/// How often histograms are tidied and overdue sessions looked for.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// A relay that is open for business.
pub(crate) struct Running {
    /// What it is.
    pub(crate) relay: Arc<Relay>,
    /// Where its front door listens.
    pub(crate) http: SocketAddr,
    /// Where its SFU listens.
    pub(crate) sfu: SocketAddr,
    /// Where its TURN server listens.
    pub(crate) turn: SocketAddr,
    /// Where DSIP over QUIC listens.
    pub(crate) quic: SocketAddr,
    shards: Shards,
}

/// The prices of a configuration.
fn prices(config: &Config) -> Vec<Tariff> {
    let tariff = &config.tariff;
    let valid_until = clock::unix() + tariff.valid_seconds;
    vec![
        Tariff {
            id: tariff.sfu_id.clone(),
            service: Service::Sfu,
            msat_per_megabyte_out: tariff.sfu_msat_per_megabyte_out,
            msat_per_megabyte_in: tariff.sfu_msat_per_megabyte_in,
            msat_per_second: tariff.sfu_msat_per_second,
            valid_until,
        },
        Tariff {
            id: tariff.turn_id.clone(),
            service: Service::Turn,
            msat_per_megabyte_out: tariff.turn_msat_per_megabyte_out,
            msat_per_megabyte_in: tariff.turn_msat_per_megabyte_in,
            msat_per_second: tariff.turn_msat_per_second,
            valid_until,
        },
    ]
}

/// The ladder of a configuration. Every value has passed its range, so none is cut.
fn ladder(config: &Config) -> LadderConfig {
    let ladder = &config.ladder;
    let whole = |number: u64| u32::try_from(number).unwrap_or(u32::MAX);
    LadderConfig {
        warned_seconds: whole(ladder.warned_below_seconds),
        reduced_seconds: whole(ladder.reduced_below_seconds),
        audio_only_seconds: whole(ladder.audio_only_below_seconds),
        rise_percent: whole(ladder.rise_percent),
        rise_seconds: whole(ladder.rise_seconds),
        hold_seconds: whole(ladder.held_seconds),
        hold_again_seconds: whole(ladder.held_interval_seconds),
        ..LadderConfig::default()
    }
}

/// Which tokens a configuration accepts.
///
/// `restored_at`: vouchers issued before the ledger was restored may have been credited already (unix seconds).
pub(crate) fn token_policy(config: &Config, operator: &Did, restored_at: u64) -> TokenPolicy {
    let mut policy = TokenPolicy::new(operator.clone(), config.auth.issuers.clone());
    policy.lifetime_max = config.auth.token_lifetime_max_seconds;
    policy.leeway = config.auth.leeway_seconds;
    policy.allow_bearer = config.auth.allow_bearer;
    policy.issued_after = restored_at;
    policy
}

/// All of them, one a line.
pub(crate) fn said(mistakes: &[Mistake]) -> String {
    let lines: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    lines.join("\nmilliway: ")
}

/// Opens the ledger, starts the shards, opens the front door.
pub(crate) async fn start(
    config: Config,
    data: &Data,
    key: SigningKey,
    issuer: Option<SigningKey>,
) -> Result<Running, String> {
    tracing::info!(limit = descriptors::raise(), "open files");
    let key = Arc::new(key);
    let metrics = Metrics::install()?;
    let listen = config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .map_err(|error| format!("http {listen}: {error}"))?;
    let http = listener
        .local_addr()
        .map_err(|error| format!("http {listen}: {error}"))?;
    let listen = config.quic.listen;
    let endpoint = quic::bind(listen).map_err(|error| format!("quic {listen}: {error}"))?;
    let quic_at = endpoint
        .local_addr()
        .map_err(|error| format!("quic {listen}: {error}"))?;
    let sinks = Sink::of(&config, &key)?;
    let prices = prices(&config);
    let node = match config.ledger.node.as_str() {
        // Nodes of one operator differ in their keys alone.
        "" if key.did().method() == "web" => key.kid(),
        "" => key.did().as_str(),
        name => name,
    };
    let cashier_config = CashierConfig {
        ledger: Place::parse(&config.ledger.url, node, &data.ledger())?,
        issuer_limit: Some(config.ledger.issuer_outstanding_max_msat)
            .filter(|most| *most > 0)
            .map(Msat::new),
        ladder: ladder(&config),
        tariffs: prices.clone(),
        key: key.clone(),
    };
    let (cashier, ledger) = tokio::task::spawn_blocking(|| cashier::open(cashier_config, clock::unix_ns()))
        .await
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    let (events, events_of_shards) = mpsc::channel(SHARD_EVENTS_MAX);
    let told: Vec<IpAddr> = advertised(config.turn.listen, &config.turn.advertise)
        .iter()
        .map(SocketAddr::ip)
        .collect();
    let turn_keys = TurnKeys::from_config(&config.turn, &told)?;
    let dtls = turn_keys.as_ref().is_some_and(|keys| keys.has_dtls());
    tracing::info!(
        tcp = config.turn.tcp,
        tls = turn_keys.is_some(),
        dtls,
        "TURN besides UDP"
    );
    let shards = shard::spawn(
        ShardConfig::new(&config, http, quic_at, turn_keys.clone()),
        cashier.clone(),
        events,
    )
    .map_err(|error| {
        format!(
            "sfu {} or turn {}: {error}",
            config.sfu.listen, config.turn.listen
        )
    })?;
    ledger
        .start(shards.handles(), shards.lobby())
        .map_err(|error| format!("the cashier's thread: {error}"))?;

    let front_keys = FrontKeys::from_config(&config.http)?;
    if data.path("deny.list").exists() {
        tracing::error!(
            "deny.list in the data folder is no longer read: give its lines to `milliway deny add`"
        );
    }
    let public_url = match config.http.public_url.as_str() {
        // A wildcard is nowhere to connect to. What is advertised for media says nothing about the front door.
        "" => format!(
            "{}://{}",
            if front_keys.is_some() { "https" } else { "http" },
            advertised(http, &[]).first().copied().unwrap_or(http)
        ),
        url => url.to_owned(),
    };
    let connections_max = usize::try_from(config.http.connections_max).unwrap_or(Semaphore::MAX_PERMITS);
    let (sfu, turn) = (shards.sfu_address(), shards.turn_address());
    let mut relay = Relay {
        video_codecs: VideoCodecs::from_names(config.room.video_codecs.iter().map(String::as_str))
            .map_err(|error| format!("room.video_codecs: {error}"))?,
        policies: Policies::open(
            &config,
            token_policy(&config, key.did(), cashier.restored_at()),
            deny_list(&cashier.denied().borrow()),
        )
        .map_err(|mistakes| said(&mistakes))?,
        top_ups: TopUps::open(&config.topup, data)?,
        rates: Rates::default(),
        emergencies: Emergencies::default(),
        lists_due: Notify::new(),
        resolver: Resolver::new(&config.did)?,
        proofs: proof::Verifier::new(key.kid(), config.auth.require_body_hash),
        dsip_memory: Arc::new(dsip::Memory::new()),
        away: Away::default(),
        connections: Arc::new(Semaphore::new(connections_max)),
        sources: SourceLimit::new(
            config.http.requests_per_second,
            config.http.requests_burst,
            config.http.connections_per_source_max,
        ),
        candidates: advertised(sfu, &config.sfu.advertise),
        turn_addresses: advertised(turn, &config.turn.advertise),
        quic_addresses: advertised(quic_at, &[]),
        turn_tls_addresses: shards
            .turn_tls_addresses()
            .iter()
            .flat_map(|at| advertised(*at, &config.turn.advertise))
            .collect(),
        turn_keys,
        turn: TurnAccess::new(config.turn.credentials_per_account_max),
        fingerprint: shards.fingerprint(),
        registry: Mutex::new(Registry::new(&config, shards.lobby())),
        shards: shards.handles(),
        lobby: shards.lobby(),
        did_document: String::new(),
        front_keys,
        draining: AtomicBool::new(false),
        door: watch::Sender::new(false),
        public_url,
        config,
        key,
        issuer,
        cashier,
        metrics,
        prices,
    };
    relay.did_document = did_document(&relay)?;
    let relay = Arc::new(relay);
    let admin = admin_socket::open(&data.path(admin_socket::NAME))?;
    tokio::spawn(admin_socket::serve(relay.clone(), admin));
    tokio::spawn(relay.clone().follow_shards(events_of_shards));
    tokio::spawn(http::serve(relay.clone(), listener));
    tokio::spawn(quic::serve(relay.clone(), endpoint));
    tokio::spawn(tidy(relay.clone()));
    tokio::spawn(relay.clone().follow_denials());
    tokio::spawn(relay.clone().follow_lists());
    for sink in sinks {
        tokio::spawn(records::deliver(relay.clone(), sink));
    }
    tokio::spawn(own_document::follow(relay.clone()));
    tokio::spawn(relay.clone().follow_top_ups());
    tokio::spawn(relay.clone().follow_emergencies());
    Ok(Running {
        relay,
        http,
        sfu,
        turn,
        quic: quic_at,
        shards,
    })
}

/// The relay's DID document: the operator's, where there is one, or its own, which names only listeners that are open.
fn did_document(relay: &Relay) -> Result<String, String> {
    let file = &relay.config.relay.did_document;
    if !file.is_empty() && relay.key.did().method() == "web" {
        return own_document::read(file.as_ref(), &relay.key);
    }
    let endpoints = Endpoints {
        http: vec![relay.public_url.clone()],
        ws: vec![relay.dsip_url()],
        quic: relay
            .quic_addresses
            .iter()
            .map(|at| format!("quic://{at}"))
            .collect(),
        turn: relay.turn_urls(),
        sfu: relay.candidates.iter().map(ToString::to_string).collect(),
    };
    let keys = [(relay.key.kid().to_owned(), relay.key.public_key().clone())];
    Ok(relay_document(relay.key.did(), &keys, &endpoints).to_string())
}

async fn tidy(relay: Arc<Relay>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(UPKEEP_EVERY) => {
                relay.metrics.upkeep();
                relay.end_overdue();
            }
            () = relay.door_closed() => return,
        }
    }
}

impl Running {
    /// The front door's address as this machine reaches it, also where a proxy gives it another name outside.
    pub(crate) fn http_url(&self) -> String {
        match self.relay.config.http.public_url.as_str() {
            "" => self.relay.public_url.clone(),
            _ if self.relay.front_keys.is_some() => format!("https://{}", self.http),
            _ => format!("http://{}", self.http),
        }
    }

    /// No new sessions from now on; returns when the last one has left, or when the time for it is over.
    pub(crate) async fn drain(&self) {
        self.relay.draining.store(true, Ordering::Relaxed);
        let patience = Duration::from_secs(self.relay.config.relay.drain_seconds).saturating_sub(SETTLE_TIME);
        self.relay.lobby.drain();
        for shard in &self.relay.shards {
            // A shard that cannot be told now is stopped later all the same.
            let _ = shard.send(Command::Drain);
        }
        self.relay
            .registry()
            .tell_all(&Told::Draining(patience.as_secs()));
        let empty = async {
            while self.relay.registry().live().0 > 0 || self.shards.allocations() > 0 {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let _ = tokio::time::timeout(patience, empty).await;
    }

    /// Ends every session, settles every lease, closes the door.
    pub(crate) async fn close(self) {
        self.relay.draining.store(true, Ordering::Relaxed);
        self.relay.registry().end_all(EndReason::Draining);
        self.relay.door.send_replace(true);
        let shards = self.shards;
        // Their threads end with the last report of every session, which the cashier then settles.
        let _ = tokio::task::spawn_blocking(move || shards.stop()).await;
        self.relay.cashier.drain().await;
        // Goodbyes are on their way; who does not read them is not waited for.
        let all = u32::try_from(self.relay.config.http.connections_max).unwrap_or(u32::MAX);
        let _ = tokio::time::timeout(GOODBYE_TIME, self.relay.connections.acquire_many(all)).await;
        tracing::info!("settled; goodbye");
    }
}
