//! Shards: one thread a core, each with its own sockets and both cores. Nothing on a shard waits, locks or allocates
//! for a packet; the control plane and the cashier reach it through bounded queues.
//!
//! All shards share one public port for the SFU and one for TURN (SO_REUSEPORT), in groups whose size never changes:
//! the kernel keeps a client's datagrams on one shard. A TURN client lives where its datagrams land. An SFU session waits
//! in the [`lobby`] until its handshake begins, and lives where that lands; what of it lands elsewhere later is handed
//! over ([`handover`]). A room's sessions live on any shards: what one publishes crosses once to each other shard that
//! has a subscriber (`sfu::span`).

mod batch;
mod command;
mod gauges;
mod hairpin;
mod handover;
mod icmp;
mod lobby;
mod mailbox;
mod sfu_port;
mod turn;
mod turn_data;
mod turn_dtls;
mod turn_listen;
mod turn_port;
mod turn_stream;
mod worker;

use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use datagram::{Fragmentation, Group, bind_group};
use metering::SessionId;
use rand::RngExt;
use sfu::media::{Fingerprint, Kind, Mid};
use tokio::sync::mpsc;
use turn_server::{AddressPolicy, Census, Family};

pub(crate) use command::{Command, EndReason, OpenSfu};
pub(crate) use lobby::Lobby;
pub(crate) use mailbox::ShardHandle;

use crate::addresses::{advertised, of_this_machine};
use crate::cashier::CashierHandle;
use crate::config::Config;
use crate::turn_keys::TurnKeys;
use hairpin::{Directory, Hairpin};
use handover::Peers;
use turn::TurnPort;
use turn_dtls::Associations;
use turn_listen::TurnListeners;
use turn_port::{RelayAddresses, TurnSockets};
use turn_stream::{StreamLimits, Streams};
use worker::Worker;

/// More cores than any machine that relays: a queue for each pair of shards is memory.
const SHARDS_MAX: usize = 256;

/// DTLS handshakes under way on all shards together: each may hold 30 buffered datagrams, so 512 are 20 MB at worst.
const HANDSHAKES_MAX: usize = 512;
/// And on each at least, where there are many: enough for a burst that the kernel spreads unevenly.
const HANDSHAKES_MIN: usize = 64;

/// What shards tell the control plane.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ShardEvent {
    /// DTLS is up.
    Connected { session: SessionId },
    /// The first authentic packet of a published m-line arrived.
    Publishing {
        session: SessionId,
        mid: Mid,
        kind: Kind,
    },
    /// The session is over.
    Closed {
        session: SessionId,
        reason: sfu::CloseReason,
    },
}

/// How much longer than the ledger a TURN allocation is held where nobody ends it: the ledger's word counts.
const HELD_GRACE: Duration = Duration::from_secs(15);

/// What shards are made from.
pub(crate) struct ShardConfig {
    shards: usize,
    sfu_listen: SocketAddr,
    sfu_advertise: Vec<IpAddr>,
    turn_listen: SocketAddr,
    turn_advertise: Vec<IpAddr>,
    /// Ports of our other listeners, which no TURN client may reach.
    other_ports: Vec<u16>,
    turn_tcp: bool,
    turn_tls_listen: Vec<SocketAddr>,
    turn_discovery: Vec<SocketAddr>,
    turn_mobility: bool,
    turn_alternates: Vec<SocketAddr>,
    turn_redirect_above: usize,
    turn_held_max: Duration,
    turn_exceptions: Vec<turn_server::Prefix>,
    turn_keys: Option<Arc<TurnKeys>>,
    turn_streams: Arc<StreamLimits>,
    allow_loopback_peers: bool,
    reduced_bits_per_second: u64,
    audio_only_bits_per_second: u64,
    burst_bytes: u64,
    sfu: sfu::Config,
}

impl ShardConfig {
    /// From what the operator set. `http` and `quic` are where the front door listens.
    pub(crate) fn new(
        config: &Config,
        http: SocketAddr,
        quic: SocketAddr,
        keys: Option<Arc<TurnKeys>>,
    ) -> Self {
        let wished = usize::try_from(config.relay.shards).unwrap_or(SHARDS_MAX);
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let shards = if wished == 0 { cores } else { wished }.min(SHARDS_MAX);
        let sessions_max = usize::try_from(config.sfu.sessions_max).unwrap_or(usize::MAX);
        Self {
            shards,
            sfu_listen: config.sfu.listen,
            sfu_advertise: config.sfu.advertise.clone(),
            turn_listen: config.turn.listen,
            turn_advertise: config.turn.advertise.clone(),
            other_ports: vec![http.port(), quic.port()],
            turn_tcp: config.turn.tcp,
            turn_tls_listen: config.turn.tls_listen.clone(),
            turn_discovery: config.turn.discovery_alternate.clone(),
            turn_mobility: config.turn.mobility,
            turn_alternates: config.turn.alternate_servers.clone(),
            turn_redirect_above: usize::try_from(config.turn.redirect_above).unwrap_or(usize::MAX),
            turn_held_max: Duration::from_secs(config.ladder.held_seconds) + HELD_GRACE,
            turn_exceptions: config
                .turn
                .allow_peers
                .iter()
                .map(|network| network.prefix)
                .collect(),
            turn_keys: keys,
            turn_streams: Arc::new(StreamLimits::new(
                usize::try_from(config.turn.connections_max).unwrap_or(usize::MAX),
                u32::try_from(config.turn.connections_per_source_max).unwrap_or(u32::MAX),
            )),
            allow_loopback_peers: config.turn.allow_loopback_peers,
            reduced_bits_per_second: config.ladder.turn_reduced_bits_per_second,
            audio_only_bits_per_second: config.ladder.turn_audio_only_bits_per_second,
            burst_bytes: config.ladder.turn_burst_bytes,
            sfu: sfu::Config {
                sessions_max,
                slots: usize::try_from(config.sfu.slots).unwrap_or(usize::MAX),
                handshakes_max: (HANDSHAKES_MAX / shards).max(HANDSHAKES_MIN),
                reduced_video_bits_per_second: config.ladder.sfu_reduced_bits_per_second,
                ..sfu::Config::default()
            },
        }
    }

    /// The TURN core's part, once the ports are known.
    fn turn(
        &self,
        sfu: SocketAddr,
        listeners: &TurnListeners,
        relays: &RelayAddresses,
    ) -> turn_server::Config {
        let turn = listeners.address;
        let mut own_addresses = of_this_machine();
        own_addresses.extend(self.sfu_advertise.iter().chain(&self.turn_advertise));
        own_addresses.extend(
            [sfu.ip(), turn.ip()]
                .into_iter()
                .chain(self.turn_discovery.iter().map(SocketAddr::ip))
                .filter(|ip| !ip.is_unspecified()),
        );
        // Where the SFU is known under another address than it is bound to, clients name that one.
        let sfu_addresses = advertised(sfu, &self.sfu_advertise).into_iter().chain([sfu]);
        let mut own_listeners = self.other_ports.clone();
        own_listeners.push(turn.port());
        own_listeners.extend(listeners.tls.iter().map(SocketAddr::port));
        own_listeners.extend(self.turn_discovery.iter().map(SocketAddr::port));
        let policy = AddressPolicy {
            own_addresses,
            sfu: sfu_addresses.collect(),
            sfu_tcp: Vec::new(),
            relays: relays.bound(),
            own_listeners,
            allow_loopback: self.allow_loopback_peers,
            exceptions: self.turn_exceptions.clone(),
        };
        turn_server::Config {
            families: relays.families(),
            tcp_relay: self.turn_tcp,
            mobility: self.turn_mobility,
            alternate_servers: self.turn_alternates.clone(),
            redirect_above: self.turn_redirect_above,
            held_max: self.turn_held_max,
            discovery: listeners.discovery.clone(),
            dont_fragment: true,
            reduced_bits_per_second: self.reduced_bits_per_second,
            audio_only_bits_per_second: self.audio_only_bits_per_second,
            burst_bytes: self.burst_bytes,
            ..turn_server::Config::new(policy)
        }
    }

    /// Where relayed addresses are, for each family that there is.
    fn relays(&self, turn: SocketAddr) -> RelayAddresses {
        let mut told: Vec<IpAddr> = advertised(turn, &self.turn_advertise)
            .iter()
            .map(SocketAddr::ip)
            .collect();
        let one_machine = self.allow_loopback_peers && told.iter().all(IpAddr::is_loopback);
        if one_machine && told.iter().all(IpAddr::is_ipv4) {
            // For trying out IPv6 allocations on a machine that may have no other IPv6.
            told.push(Ipv6Addr::LOCALHOST.into());
        }
        RelayAddresses::new(&told, &of_this_machine())
    }
}

/// All shards of a node.
pub(crate) struct Shards {
    handles: Vec<ShardHandle>,
    threads: Vec<JoinHandle<()>>,
    lobby: Arc<Lobby>,
    sfu: SocketAddr,
    turn: SocketAddr,
    turn_tls: Vec<SocketAddr>,
    census: Arc<Census>,
    fingerprint: Fingerprint,
}

impl Shards {
    /// One a shard, in their order.
    pub(crate) fn handles(&self) -> Vec<ShardHandle> {
        self.handles.clone()
    }

    /// Where SFU sessions are opened and found.
    pub(crate) fn lobby(&self) -> Arc<Lobby> {
        self.lobby.clone()
    }

    /// Where the SFU listens.
    pub(crate) fn sfu_address(&self) -> SocketAddr {
        self.sfu
    }

    /// Where the TURN server listens.
    pub(crate) fn turn_address(&self) -> SocketAddr {
        self.turn
    }

    /// Where it listens for TCP and TLS besides.
    pub(crate) fn turn_tls_addresses(&self) -> &[SocketAddr] {
        &self.turn_tls
    }

    /// How many TURN allocations there are on all of them.
    pub(crate) fn allocations(&self) -> usize {
        self.census.allocations()
    }

    /// Of the certificate that every shard shows.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint.clone()
    }

    /// Ends every session and waits for the threads: their last reports are then with the cashier.
    pub(crate) fn stop(self) {
        for (handle, thread) in self.handles.into_iter().zip(self.threads) {
            while handle.send(Command::Stop).is_err() && !thread.is_finished() {
                std::thread::sleep(Duration::from_millis(1));
            }
            if thread.join().is_err() {
                tracing::error!("a shard had panicked");
            }
        }
    }
}

/// Opens the ports and starts the threads.
pub(crate) fn spawn(
    config: ShardConfig,
    cashier: CashierHandle,
    events: mpsc::Sender<ShardEvent>,
) -> io::Result<Shards> {
    let size = config.shards;
    let Group {
        address: sfu,
        sockets: sfu_sockets,
    } = bind_group(config.sfu_listen, size, Fragmentation::Forbidden)?;
    let mut turn_listeners = turn_listen::open(
        &turn_listen::Wanted {
            listen: config.turn_listen,
            tcp: config.turn_tcp,
            tls: &config.turn_tls_listen,
            discovery: &config.turn_discovery,
        },
        size,
    )?;
    let turn = turn_listeners.address;
    let certificate = sfu::dtls::Certificate::generate();
    let fingerprint = certificate.fingerprint();
    let relays = config.relays(turn);
    let turn_config = config.turn(sfu, &turn_listeners, &relays);
    let turn_secret: [u8; 32] = rand::rng().random();
    let census = Arc::new(Census::new());
    let directory = Arc::new(Directory::new(
        &relays,
        &[&config.sfu_advertise[..], &config.turn_advertise].concat(),
        &of_this_machine(),
    ));
    let mut mailboxes = Vec::with_capacity(size);
    for _ in 0..size {
        mailboxes.push(mailbox::new()?);
    }
    let handles: Vec<ShardHandle> = mailboxes.iter().map(|mailbox| mailbox.handle()).collect();
    let lobby = Arc::new(Lobby::new(
        handles.clone(),
        config.sfu.sessions_max,
        config.sfu.setup_timeout,
        farewell(size, cashier.clone(), events.clone()),
    ));
    let mut peers = Peers::among(&handles, &lobby);
    let mut threads = Vec::with_capacity(size);
    let mut spans = sfu::Span::among(size);
    let sockets = sfu_sockets
        .into_iter()
        .zip(std::mem::take(&mut turn_listeners.shards));
    for (index, (mailbox, (sfu_socket, listeners))) in mailboxes.into_iter().zip(sockets).enumerate() {
        let now = crate::clock::now();
        let (sfu_seed, turn_seed): ([u8; 32], [u8; 32]) = (rand::rng().random(), rand::rng().random());
        let keys = || config.turn_keys.clone();
        let core_config = turn_server::Config {
            // Where a node has more shards than the number can name, the last ones share one.
            shard: u8::try_from(index).unwrap_or(u8::MAX),
            shards: size,
            secret: Some(turn_secret),
            ..turn_config.clone()
        };
        let turn = TurnPort::new(
            index,
            turn_server::TurnServer::new(core_config, census.clone(), turn_seed, now),
            TurnSockets::new(listeners.udp, relays.clone()),
            Streams::new(
                index,
                handles.clone(),
                listeners.tcp,
                keys(),
                config.turn_streams.clone(),
            ),
            Associations::new(keys(), config.turn_streams.per_source_max),
            Hairpin::new(index, directory.clone()),
            handles.clone(),
            cashier.clone(),
        );
        let worker = Worker::new(worker::Parts {
            index,
            mailbox,
            sfu_socket,
            turn,
            sfu: sfu::Sfu::new(config.sfu.clone(), certificate.clone(), sfu_seed).spanning(spans.remove(0)),
            census: census.clone(),
            peers: peers.remove(0),
            lobby: lobby.clone(),
            cashier: cashier.clone(),
            events: events.clone(),
        })?;
        let thread = std::thread::Builder::new().name(format!("shard-{index}"));
        threads.push(thread.spawn(move || worker.run())?);
    }
    if config.allow_loopback_peers {
        tracing::warn!("TURN clients may reach loopback addresses of this machine");
    }
    Ok(Shards {
        census,
        handles,
        threads,
        lobby,
        sfu,
        turn,
        turn_tls: turn_listeners.tls,
        fingerprint,
    })
}

/// What follows when a session ends in the lobby: its lease goes back, and the control plane hears of it.
fn farewell(
    place: usize,
    cashier: CashierHandle,
    events: mpsc::Sender<ShardEvent>,
) -> impl Fn(lobby::Farewell) + Send + Sync + 'static {
    move |farewell| {
        let lobby::Farewell {
            session,
            reason,
            report,
        } = farewell;
        cashier.try_report(place, report);
        if events.try_send(ShardEvent::Closed { session, reason }).is_err() {
            tracing::warn!(%session, "the control plane is behind; it was not told of an event");
        }
    }
}

/// The family of an address that is bound or told.
fn family(ip: IpAddr) -> Family {
    Family::of(ip)
}
