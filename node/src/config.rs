//! What an operator may set: TOML, one table of keys, each with its type, default and meaning in one place
//! (`settings!` below). `deploy/milliway.example.toml` is that table written out, and a test holds the two
//! together. Every key can be overridden by `MILLIWAY_SECTION__KEY`. Unknown keys, wrong types and values out
//! of range are all reported at once, each with its line.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

use crate::cashier::place::Place;
use crate::top_ups::Base;
use identity::Did;
use identity::did_web::Location;
use toml::de::{DeTable, DeValue};

/// A mistake in a configuration, with the place an operator has to look at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mistake {
    /// `FILE:LINE` or the name of the environment variable.
    pub(crate) place: String,
    /// What is wrong and what would be right.
    pub(crate) what: String,
}

impl std::fmt::Display for Mistake {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// A type that a configuration value can have.
trait Setting: Sized {
    fn read(value: &DeValue<'_>) -> Result<Self, String>;
    /// The value as TOML.
    #[cfg(test)]
    fn write(&self) -> String;
}

impl Setting for bool {
    fn read(value: &DeValue<'_>) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| "must be true or false".into())
    }
    #[cfg(test)]
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for u64 {
    fn read(value: &DeValue<'_>) -> Result<u64, String> {
        let wrong = || "must be an integer of 0 or more, like 42 or 1_000".to_owned();
        let integer = value.as_integer().ok_or_else(wrong)?;
        u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| wrong())
    }
    #[cfg(test)]
    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for String {
    fn read(value: &DeValue<'_>) -> Result<String, String> {
        Ok(value.as_str().ok_or("must be a text in quotes")?.to_owned())
    }
    #[cfg(test)]
    fn write(&self) -> String {
        toml::Value::from(self.as_str()).to_string()
    }
}

/// Settings that are written as a text in quotes.
macro_rules! text_setting {
    ($($type:ty: $wanted:literal, $read:expr, $write:expr;)*) => {$(
        impl Setting for $type {
            fn read(value: &DeValue<'_>) -> Result<$type, String> {
                let read: fn(&str) -> Option<$type> = $read;
                value.as_str().and_then(read).ok_or_else(|| format!("must be {}", $wanted))
            }
            #[cfg(test)]
            fn write(&self) -> String {
                let write: fn(&$type) -> String = $write;
                write(self).write()
            }
        }
    )*};
}

text_setting! {
    SocketAddr: "an address and port in quotes, like \"127.0.0.1:8080\" or \"[::]:8080\"",
        |text| text.parse().ok(), ToString::to_string;
    IpAddr: "an IP address in quotes, like \"203.0.113.5\"", |text| text.parse().ok(), ToString::to_string;
    PathBuf: "a path in quotes", |text| (!text.is_empty()).then(|| text.into()), |path| path.display().to_string();
    Did: "a DID in quotes, like \"did:key:z6Mk...\"", |text| text.parse().ok(), |did| did.as_str().to_owned();
}

/// Addresses that are fetched from although they are not public, as they were written.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    #[cfg_attr(
        not(test),
        expect(dead_code, reason = "for the example file, which a test writes")
    )]
    text: String,
    /// The addresses.
    pub(crate) prefix: turn_server::Prefix,
}

impl Network {
    fn parse(text: &str) -> Option<Network> {
        let prefix = text.parse().ok()?;
        let text = text.to_owned();
        Some(Network { text, prefix })
    }
}

/// A host's address that DNS is not asked for.
#[derive(Clone, Debug)]
pub(crate) struct HostAddress {
    /// The host's name.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) address: IpAddr,
}

impl HostAddress {
    fn parse(text: &str) -> Option<HostAddress> {
        let (name, address) = text.split_once('=')?;
        Location::of_url(&format!("https://{name}/")).ok()?;
        Some(HostAddress {
            name: name.to_owned(),
            address: address.parse().ok()?,
        })
    }
}

text_setting! {
    Network: "addresses in quotes, like \"10.1.0.0/16\"", Network::parse, |network| network.text.clone();
    HostAddress: "a host and its address in quotes, like \"issuer.example=10.1.0.7\"",
        HostAddress::parse, |host| format!("{}={}", host.name, host.address);
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &DeValue<'_>) -> Result<Vec<T>, String> {
        let list = value.as_array().ok_or("must be a list in brackets")?;
        list.iter()
            .map(|item| T::read(item.get_ref()).map_err(|wrong| format!("each entry {wrong}")))
            .collect()
    }
    #[cfg(test)]
    fn write(&self) -> String {
        format!(
            "[{}]",
            self.iter().map(Setting::write).collect::<Vec<_>>().join(", ")
        )
    }
}

/// One key of the table.
struct Key {
    section: &'static str,
    name: &'static str,
    #[cfg(test)]
    meaning: &'static str,
    #[cfg(test)]
    default: String,
}

macro_rules! settings {
    ($($(#[doc = $about:literal])+ $section:ident: $struct:ident {
        $($(#[doc = $meaning:literal])+ $key:ident: $type:ty = $default:expr $(, in $range:expr)?;)*
    })*) => {
        /// Everything an operator may set.
        #[derive(Debug, Clone, Default)]
        pub(crate) struct Config {
            $($(#[doc = $about])+ pub(crate) $section: $struct,)*
        }
        $(
            $(#[doc = $about])+
            #[derive(Debug, Clone)]
            pub(crate) struct $struct {
                $($(#[doc = $meaning])+ pub(crate) $key: $type,)*
            }
            impl Default for $struct {
                fn default() -> $struct {
                    $struct { $($key: $default,)* }
                }
            }
        )*
        impl Config {
            /// Sets one key. The error says what the value must be.
            fn set(&mut self, section: &str, key: &str, value: &DeValue<'_>) -> Result<(), String> {
                match (section, key) {
                    $($((stringify!($section), stringify!($key)) => {
                        let value = <$type as Setting>::read(value)?;
                        $(if !($range).contains(&value) {
                            return Err(format!("must be within {:?}", $range));
                        })?
                        self.$section.$key = value;
                        Ok(())
                    })*)*
                    _ if Config::sections().contains(&section) => Err(format!(
                        "no such key in [{section}]; it has {}",
                        Config::keys().iter().filter(|k| k.section == section).map(|k| k.name)
                            .collect::<Vec<_>>().join(", ")
                    )),
                    _ => Err(format!("no such section; there are {}", Config::sections().join(", "))),
                }
            }
            /// The sections, in the order of the example file.
            fn sections() -> &'static [&'static str] {
                &[$(stringify!($section)),*]
            }
            /// What each section is about.
            #[cfg(test)]
            fn about(section: &str) -> &'static str {
                match section {
                    $(stringify!($section) => concat!($($about),+).trim(),)*
                    _ => "",
                }
            }
            /// Every key.
            fn keys() -> Vec<Key> {
                vec![$($(Key {
                    section: stringify!($section),
                    name: stringify!($key),
                    #[cfg(test)]
                    meaning: concat!($($meaning),+).trim(),
                    #[cfg(test)]
                    default: Setting::write(&Config::default().$section.$key),
                },)*)*]
            }
        }
    };
}

/// A port on this machine only, as `dev` has them.
fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Rates stay below this so that rating never overflows u128 (money rule 1).
const RATE_MAX: u64 = 1 << 40;
/// Balances stay below this so that every JSON reader can hold them exactly (money rule 1).
const BALANCE_MAX: u64 = (1 << 53) - 1;

settings! {
    /// The process as a whole.
    relay: Relay {
        /// Folder of everything that must survive a restart: keys, ledger, admin token. Made with mode 0700.
        data: PathBuf = "./milliway-data".into();
        /// Threads that relay media, each with its own sockets. 0 means one for each processor.
        shards: u64 = 0, in 0..=64;
        /// `serve` only: the operator's did:web, which tokens name as their audience. Its document has to list this node's
        /// key as `#node-ID`; the relay serves it where http.public_url is the DID's own host.
        operator: String = String::new();
        /// `serve` only: this node's ID among the operator's, the same after every restart.
        node: String = "1".into();
        /// `serve` only: the operator's whole DID document, where several nodes share it (`milliway did document`).
        /// Empty means one that lists this node alone.
        did_document: String = String::new();
        /// After SIGTERM, sessions have this long to end by themselves. A second SIGTERM ends them at once.
        drain_seconds: u64 = 30, in 0..=3600;
    }
    /// The front door: pages, API, WHIP, WHEP and the DSIP WebSocket.
    http: Http {
        /// Where it listens. Port 0 means any free port.
        listen: SocketAddr = local(8080);
        /// The address clients know this relay by, without a final slash; proofs are checked against it.
        /// Empty means http:// and the address it listens on.
        public_url: String = String::new();
        /// PEM file with the certificate chain for HTTPS, the server's own first, and the one with its key. Read again on
        /// SIGHUP. Empty means plain HTTP, behind a proxy that ends TLS.
        tls_certificate: String = String::new();
        /// PEM file with the key of that certificate.
        tls_key: String = String::new();
        /// Connections open at the same time; further ones wait in the kernel's queue.
        connections_max: u64 = 4096, in 1..=1_000_000;
        /// Connections open at the same time from one IPv4 address or IPv6 /56.
        connections_per_source_max: u64 = 256, in 1..=1_000_000;
        /// A client has this long to send its request head, and again for its body.
        request_timeout_seconds: u64 = 10, in 1..=300;
        /// Calls a second that one IPv4 address or IPv6 /56 may make, in the long run. Pages and /healthz are
        /// not counted.
        requests_per_second: u64 = 50, in 1..=1_000_000;
        /// Calls that one source may make at once before the rate above applies.
        requests_burst: u64 = 200, in 1..=1_000_000;
    }
    /// Group calls.
    sfu: Sfu {
        /// The UDP port of all calls. Port 0 means any free port.
        listen: SocketAddr = local(5004);
        /// Addresses put into ICE candidates. Empty means the address it listens on, and for a wildcard every
        /// usable address of this machine.
        advertise: Vec<IpAddr> = Vec::new();
        /// Sessions at the same time on this node.
        sessions_max: u64 = 10_000, in 1..=10_000_000;
        /// Sessions at the same time of one account.
        sessions_per_account_max: u64 = 32, in 1..=10_000;
        /// Packets, 2 KiB each, that one shard remembers for retransmission, of all its streams together. A
        /// stream of 1.5 Mbit/s takes 340 of them, its audio 100. Memory is used as traffic first needs it.
        slots: u64 = 65_536, in 1_024..=16_777_216;
    }
    /// Relaying for clients that a NAT blocks.
    turn: Turn {
        /// The port of the TURN server, UDP and TCP. Port 0 means any free port.
        listen: SocketAddr = local(3478);
        /// Addresses put into XOR-RELAYED-ADDRESS and iceServers. Empty means the address it listens on, and
        /// for a wildcard every usable address of this machine.
        advertise: Vec<IpAddr> = Vec::new();
        /// How long a username from /v1/turn/credentials can make new allocations.
        credential_ttl_seconds: u64 = 600, in 30..=86_400;
        /// Usernames valid at the same time for one account.
        credentials_per_account_max: u64 = 32, in 1..=10_000;
        /// Let clients reach peers on this machine's loopback addresses. `dev` turns it on, so that
        /// everything works on one machine; never do so in production.
        allow_loopback_peers: bool = false;
        /// Peers that clients may reach although their addresses are not public, like "10.1.0.0/16".
        allow_peers: Vec<Network> = Vec::new();
        /// Take clients over TCP on the same port, and TLS too where there is a certificate.
        tcp: bool = true;
        /// Clients over TCP and TLS at the same time on this node.
        connections_max: u64 = 10_000, in 1..=1_000_000;
        /// Clients over TCP and TLS, and over DTLS, at the same time from one IPv4 address or IPv6 /56.
        connections_per_source_max: u64 = 256, in 1..=1_000_000;
        /// PEM file with the certificate chain for TLS and DTLS, the server's own first. TLS and plain TCP share
        /// their ports, DTLS and UDP theirs. Read again on SIGHUP. Empty means neither TLS nor DTLS.
        tls_certificate: String = String::new();
        /// PEM file with the key of that certificate. DTLS needs an ECDSA key.
        tls_key: String = String::new();
        /// The name in the certificate, which clients are told in turns: addresses. Empty means the addresses
        /// themselves.
        tls_name: String = String::new();
        /// Further addresses for TCP and TLS, such as "0.0.0.0:443" for networks that let nothing else through.
        tls_listen: Vec<SocketAddr> = Vec::new();
        /// A second address and port for NAT behaviour discovery (RFC 5780), such as "203.0.113.6:3479": both must
        /// differ from those of `listen`. Opens three more UDP sockets. Empty means that nothing can be discovered.
        discovery_alternate: Vec<SocketAddr> = Vec::new();
        /// Clients may take their allocations along to another address (RFC 8016).
        mobility: bool = true;
        /// Other TURN servers, such as "203.0.113.7:3478", to which clients are sent (300, ALTERNATE-SERVER) while this
        /// one drains or is loaded; each gets one of its own address family.
        alternate_servers: Vec<SocketAddr> = Vec::new();
        /// From so many allocations of this node on it is loaded in that sense.
        redirect_above: u64 = 8_000, in 0..=1_000_000;
        /// Without files, make a certificate that nobody can check, for trying out. `dev` turns it on; browsers
        /// refuse it, so they are not told of it.
        tls_self_signed: bool = false;
    }
    /// DSIP over QUIC, for clients that are no browsers.
    quic: Quic {
        /// The UDP port. Port 0 means any free port.
        listen: SocketAddr = local(4433);
    }
    /// Who may come in.
    auth: Auth {
        /// DIDs of the issuers whose relay tokens are accepted. `dev` adds its own issuer.
        issuers: Vec<Did> = Vec::new();
        /// Accept tokens marked `bearer`, which work without a proof of possession. `dev` turns it on.
        allow_bearer: bool = false;
        /// Calls with a body must prove the body as well (claim `bdh`), so that no proxy can change it.
        require_body_hash: bool = true;
        /// The longest `exp - iat` of a relay token.
        token_lifetime_max_seconds: u64 = 86_400, in 60..=31_536_000;
        /// How far clocks may be apart.
        leeway_seconds: u64 = 30, in 0..=300;
    }
    /// On which terms holders are served: issuers and their caps, reputation, deny lists. See docs/identity.md.
    policy: PolicySettings {
        /// The policy's own TOML file, read again on SIGHUP. Empty means no file: every token of a listed issuer is
        /// served.
        file: String = String::new();
    }
    /// DID documents that come from a network (did:web), aliases and signed lists: https only, public addresses only, no
    /// redirects, 64 KiB and 3 seconds at most.
    did: DidWeb {
        /// Fetch the documents of did:web issuers and holders.
        web: bool = true;
        /// A universal resolver (DIF), to which the DID is appended, like
        /// `https://resolver.example/1.0/identifiers/`. Empty means none.
        universal_resolver: String = String::new();
        /// DID methods that the universal resolver is asked for, like "ion" and "ethr". It is trusted for all their
        /// keys.
        universal_methods: Vec<String> = Vec::new();
        /// A document is fetched again after this time: a key that was taken out of it is honoured no longer.
        cache_seconds: u64 = 300, in 1..=300;
        /// Who could not be fetched is not tried again for this long.
        failure_cache_seconds: u64 = 30, in 1..=300;
        /// A PEM file with the certificate authorities to trust, in place of the system's.
        ca_file: String = String::new();
        /// Hosts that are not looked up in DNS, like "issuer.example=10.1.0.7".
        hosts: Vec<HostAddress> = Vec::new();
        /// Addresses to fetch from although they are not public, like "10.1.0.0/16".
        allow_addresses: Vec<Network> = Vec::new();
    }
    /// Prices, in msat. 1 MB is 1,000,000 bytes; out is to the client, in is from the client (TURN: to the
    /// peer).
    tariff: Tariff {
        /// Name of the SFU's tariff.
        sfu_id: String = "sfu-1".into();
        /// SFU, each megabyte to the client.
        sfu_msat_per_megabyte_out: u64 = 50, in 0..=RATE_MAX;
        /// SFU, each megabyte from the client.
        sfu_msat_per_megabyte_in: u64 = 0, in 0..=RATE_MAX;
        /// SFU, each second.
        sfu_msat_per_second: u64 = 8, in 0..=RATE_MAX;
        /// Name of TURN's tariff.
        turn_id: String = "turn-1".into();
        /// TURN, each megabyte to the client.
        turn_msat_per_megabyte_out: u64 = 50, in 0..=RATE_MAX;
        /// TURN, each megabyte to the peer.
        turn_msat_per_megabyte_in: u64 = 50, in 0..=RATE_MAX;
        /// TURN, each second.
        turn_msat_per_second: u64 = 2, in 0..=RATE_MAX;
        /// Announced prices hold this long.
        valid_seconds: u64 = 86_400, in 660..=31_536_000;
    }
    /// Where the money is kept.
    ledger: LedgerSettings {
        /// `redb:PATH`, a file of this relay's own, or `postgres://USER:PASSWORD@HOST/DATABASE`, which several share.
        /// Empty means ledger.redb in the data folder.
        url: String = String::new();
        /// This node's name among those that share a ledger, the same after every restart. Empty means its DID.
        node: String = String::new();
        /// What one issuer's vouchers may be worth at the same time, not counting what was spent or paid back; past it
        /// its tokens are refused. 0 means no limit.
        issuer_outstanding_max_msat: u64 = 0, in 0..=BALANCE_MAX;
    }
    /// Usage records, which leave the relay as CloudEvents, at least once and in the order of each account. A sink that is
    /// down loses nothing. See docs/billing.md.
    records: Records {
        /// A file that records are appended to, one JSON object a line. It may be moved away at any time: the next record
        /// begins a new one. Empty means none.
        file: String = String::new();
        /// An https URL that records are posted to. Empty means none.
        webhook: String = String::new();
        /// Records in one request at most. 1 sends each by itself (application/cloudevents+json), more send a list
        /// (application/cloudevents-batch+json).
        webhook_records_max: u64 = 100, in 1..=500;
        /// The receiver has this long to answer.
        webhook_timeout_seconds: u64 = 20, in 1..=60;
        /// File with a shared secret (`whsec_...`, Standard Webhooks), for a `v1` signature beside that of the relay's own
        /// key. Empty means none.
        webhook_secret_file: String = String::new();
        /// A PEM file with the certificate authorities to trust for the webhook, in place of the system's.
        webhook_ca_file: String = String::new();
        /// Hosts that are not looked up in DNS, like "records.example=10.1.0.7".
        webhook_hosts: Vec<HostAddress> = Vec::new();
        /// Addresses that records may be posted to although they are not public, like "10.1.0.0/16".
        webhook_allow_addresses: Vec<Network> = Vec::new();
        /// A NATS server with JetStream, like "nats://nats.example:4222", for a program built with the feature `nats`.
        /// Empty means none.
        nats: String = String::new();
        /// The subject that records are published under; a stream must have it.
        nats_subject: String = "milliway.records".into();
        /// Who records are from (`source`); the same on all nodes that share a ledger. Empty means the relay's DID.
        source: String = String::new();
    }

    /// Top-ups with money from outside, all of them off by default. See docs/topups.md.
    topup: TopUpSettings {
        /// The least that one top-up may bring.
        minimum_msat: u64 = 1_000, in 1..=BALANCE_MAX;
        /// The most.
        maximum_msat: u64 = 100_000_000, in 1..=BALANCE_MAX;
        /// Top-ups that one account may wait for.
        open_per_account_max: u64 = 4, in 1..=100;
        /// Top-ups that this node follows at a time.
        open_max: u64 = 1_000, in 1..=100_000;
        /// The Lightning node that makes invoices: "lnd" (its REST interface) or "core-lightning" (clnrest).
        lightning: String = String::new();
        /// Where its interface is, like "https://127.0.0.1:8080"; http:// only on this machine.
        lightning_url: String = String::new();
        /// PEM file with its certificate (LND: tls.cert) or with the authority that signed it. Empty means the system's
        /// authorities.
        lightning_certificate: String = String::new();
        /// The file with what it asks for: LND a macaroon, Core Lightning a rune. Invoices are all that it must allow.
        lightning_secret_file: String = String::new();
        /// The node's public key, 66 hexadecimal digits: invoices of any other are refused. Empty means any.
        lightning_payee: String = String::new();
        /// Its network: "bitcoin", "testnet", "signet" or "regtest".
        lightning_network: String = "bitcoin".into();
        /// How long an invoice can be paid.
        invoice_seconds: u64 = 600, in 60..=86_400;
        /// Cashu mints whose coins are taken, as tokens name them. Who takes a mint's coins trusts it with their worth.
        mints: Vec<String> = Vec::new();
        /// PEM file with the mints' certificate or its authority. Empty means the system's authorities.
        mint_certificate: String = String::new();
        /// The file with the seed of the relay's own coins, made on first use: 64 hexadecimal digits. Nodes that share a
        /// ledger share it. Empty means cashu.seed in the data folder.
        cashu_seed_file: String = String::new();
        /// Answer 402 in the form of L402 to clients that ask for it (Accept-Authenticate: L402). Needs a Lightning node.
        l402: bool = false;
        /// What the invoice of an L402 challenge is over.
        l402_msat: u64 = 100_000, in 1..=BALANCE_MAX;
    }
    /// What happens as a balance runs low, by how many seconds it would last at full quality.
    ladder: Ladder {
        /// Below this the client is warned.
        warned_below_seconds: u64 = 120, in 1..=86_400;
        /// Below this video is reduced.
        reduced_below_seconds: u64 = 60, in 1..=86_400;
        /// Below this only audio is relayed.
        audio_only_below_seconds: u64 = 20, in 1..=86_400;
        /// A step is left upwards above this many percent of its threshold ...
        rise_percent: u64 = 150, in 100..=1_000;
        /// ... held for this long. After a top-up at once.
        rise_seconds: u64 = 5, in 0..=600;
        /// At zero, media is paused this long for a top-up to arrive before the session ends.
        held_seconds: u64 = 60, in 0..=600;
        /// An account is held at most once in this time; the next time it ends at once.
        held_interval_seconds: u64 = 600, in 0..=86_400;
        /// SFU video while reduced, bits a second for each subscriber.
        sfu_reduced_bits_per_second: u64 = 300_000, in 50_000..=100_000_000;
        /// TURN while reduced, bits a second each way.
        turn_reduced_bits_per_second: u64 = 400_000, in 50_000..=100_000_000;
        /// TURN while audio only, bits a second each way.
        turn_audio_only_bits_per_second: u64 = 128_000, in 16_000..=100_000_000;
        /// TURN while limited, the largest burst in bytes.
        turn_burst_bytes: u64 = 16_000, in 1_500..=10_000_000;
    }
    /// Rooms.
    room: Room {
        /// Video codecs a publisher is answered with, the first that it offers; `*` is whatever it offers
        /// first.
        video_codecs: Vec<String> = vec!["VP8".into(), "H264".into(), "*".into()];
        /// Members of one room, publishers and subscribers together. At most 64 of them can take part under a name;
        /// the others watch.
        members_max: u64 = 64, in 2..=10_000;
        /// Rooms at the same time on this node.
        rooms_max: u64 = 10_000, in 1..=1_000_000;
        /// How long a session whose DSIP connection broke waits for its client to come back (`dsip.resume`). 0 ends it
        /// at once.
        resume_seconds: u64 = 20, in 0..=30;
    }
    /// Only for `milliway dev`.
    dev: Dev {
        /// The largest balance that the faucet gives in one token.
        faucet_balance_max_msat: u64 = 1_000_000_000, in 0..=BALANCE_MAX;
        /// How long a token from the faucet is valid.
        faucet_ttl_seconds: u64 = 3600, in 60..=86_400;
    }
}

impl Config {
    /// Reads a file and the environment over the defaults, and says every mistake at once.
    ///
    /// # Errors
    /// All mistakes found, in the order of the file, then of the environment.
    pub(crate) fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Vec<Mistake>> {
        Config::default().with(file, environment)
    }

    /// The defaults of `milliway dev`: what makes trying out easy. File and environment can take it back.
    pub(crate) fn for_dev() -> Config {
        let mut config = Config::default();
        config.auth.allow_bearer = true;
        config.turn.allow_loopback_peers = true;
        config.turn.tls_self_signed = true;
        config
    }

    /// Reads a file and the environment over these settings, and says every mistake at once.
    ///
    /// # Errors
    /// All mistakes found, in the order of the file, then of the environment.
    pub(crate) fn with(
        self,
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Config, Vec<Mistake>> {
        let mut config = self;
        let mut mistakes = Vec::new();
        if let Some(path) = file {
            let name = path.display().to_string();
            match std::fs::read_to_string(path) {
                Ok(text) => config.read(&name, &text, &mut mistakes),
                Err(error) => mistakes.push(Mistake {
                    place: name,
                    what: format!("cannot be read: {error}"),
                }),
            }
        }
        config.read_environment(environment, &mut mistakes);
        config.check(
            file.map_or("configuration".into(), |path| path.display().to_string()),
            &mut mistakes,
        );
        if mistakes.is_empty() {
            Ok(config)
        } else {
            Err(mistakes)
        }
    }

    fn read(&mut self, name: &str, text: &str, mistakes: &mut Vec<Mistake>) {
        let line = |at: usize| {
            1 + text
                .as_bytes()
                .iter()
                .take(at)
                .filter(|byte| **byte == b'\n')
                .count()
        };
        let (document, errors) = DeTable::parse_recoverable(text);
        for error in errors {
            let place = format!("{name}:{}", error.span().map_or(1, |span| line(span.start)));
            mistakes.push(Mistake {
                place,
                what: error.message().to_owned(),
            });
        }
        let mut found = Vec::new();
        for (section, content) in document.get_ref() {
            let Some(table) = content.get_ref().as_table() else {
                let what = format!("`{}` stands outside a section", section.get_ref());
                found.push((line(section.span().start), what));
                continue;
            };
            let section_name = section.get_ref().as_ref();
            if !Config::sections().contains(&section_name) {
                let wrong = self.set(section_name, "", &DeValue::Boolean(true));
                let what = format!("[{section_name}]: {}", wrong.err().unwrap_or_default());
                found.push((line(section.span().start), what));
                continue;
            }
            for (key, value) in table {
                if let Err(wrong) = self.set(section_name, key.get_ref(), value.get_ref()) {
                    found.push((
                        line(key.span().start),
                        format!("{section_name}.{}: {wrong}", key.get_ref()),
                    ));
                }
            }
        }
        found.sort();
        let placed = found.into_iter().map(|(line, what)| Mistake {
            place: format!("{name}:{line}"),
            what,
        });
        mistakes.extend(placed);
    }

    fn read_environment(
        &mut self,
        environment: impl IntoIterator<Item = (String, String)>,
        mistakes: &mut Vec<Mistake>,
    ) {
        for (variable, text) in environment {
            let Some((section, key)) = variable
                .strip_prefix("MILLIWAY_")
                .and_then(|rest| rest.split_once("__"))
            else {
                continue;
            };
            let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
            // A value is TOML where it can be, and else a text that need not be quoted.
            let quoted = format!("v = {}", toml::Value::from(text.as_str()));
            let literal = format!("v = {text}");
            let set = |config: &mut Config, line: &str| match DeTable::parse(line) {
                Ok(table) => match table.get_ref().iter().next() {
                    Some((_, value)) => config.set(&section, &key, value.get_ref()),
                    None => Err("must have a value".into()),
                },
                Err(_) => Err("must have a value".to_owned()),
            };
            let Err(of_literal) = set(self, &literal) else {
                continue;
            };
            if let Err(of_text) = set(self, &quoted) {
                // A number out of range is told its range, not that it should have been a number.
                let what = if DeTable::parse(&literal).is_ok() {
                    of_literal
                } else {
                    of_text
                };
                mistakes.push(Mistake {
                    place: variable,
                    what,
                });
            }
        }
    }

    /// What one key alone cannot know.
    fn check(&self, place: String, mistakes: &mut Vec<Mistake>) {
        let mut wrong = |what: &str| {
            mistakes.push(Mistake {
                place: place.clone(),
                what: what.to_owned(),
            })
        };
        let ladder = &self.ladder;
        if !(ladder.audio_only_below_seconds < ladder.reduced_below_seconds
            && ladder.reduced_below_seconds < ladder.warned_below_seconds)
        {
            wrong(
                "ladder: audio_only_below_seconds, reduced_below_seconds and warned_below_seconds must rise in this order",
            );
        }
        let resolver = &self.did.universal_resolver;
        if !resolver.is_empty() && Location::of_url(resolver).is_err() {
            wrong("did.universal_resolver must be like https://resolver.example/1.0/identifiers/");
        }
        if !self.did.universal_methods.is_empty() && resolver.is_empty() {
            wrong("did.universal_methods needs a did.universal_resolver");
        }
        if self
            .did
            .universal_methods
            .iter()
            .any(|method| matches!(method.as_str(), "key" | "jwk" | "web"))
        {
            wrong("did.universal_methods: key, jwk and web are resolved by the relay itself");
        }
        let url = &self.http.public_url;
        let host = url
            .strip_prefix("https://")
            .or_else(|| url.strip_prefix("http://"));
        if !url.is_empty() && host.is_none_or(|host| host.is_empty() || host.contains(['?', '#', ' '])) {
            wrong("http.public_url must be like https://relay.example, without query or fragment");
        }
        if url.ends_with('/') {
            wrong("http.public_url must not end in a slash");
        }
        if let Err(what) = Place::parse(&self.ledger.url, "", Path::new("ledger.redb")) {
            wrong(&what);
        }
        let topup = &self.topup;
        if !matches!(topup.lightning.as_str(), "" | "lnd" | "core-lightning") {
            wrong("topup.lightning must be \"lnd\", \"core-lightning\" or empty");
        }
        if !topup.lightning.is_empty() && Base::parse(&topup.lightning_url).is_none() {
            wrong("topup.lightning_url must be like https://127.0.0.1:8080; http:// only on this machine");
        }
        if !topup.lightning.is_empty() && topup.lightning_secret_file.is_empty() {
            wrong("topup.lightning needs a topup.lightning_secret_file");
        }
        if !topup::lightning::Terms::NETWORKS.contains(&topup.lightning_network.as_str()) {
            wrong("topup.lightning_network must be bitcoin, testnet, signet or regtest");
        }
        if topup.mints.iter().any(|mint| Base::parse(mint).is_none()) {
            wrong("topup.mints must be addresses like https://mint.example; http:// only on this machine");
        }
        if topup.minimum_msat > topup.maximum_msat {
            wrong("topup.minimum_msat must not be above topup.maximum_msat");
        }
        if topup.l402 && topup.lightning.is_empty() {
            wrong("topup.l402 needs a topup.lightning");
        }
        if topup.l402 && !(topup.minimum_msat..=topup.maximum_msat).contains(&topup.l402_msat) {
            wrong("topup.l402_msat must lie between topup.minimum_msat and topup.maximum_msat");
        }
        if self.room.video_codecs.is_empty() {
            wrong("room.video_codecs must name at least one codec, or \"*\"");
        }
        if self.turn.tls_certificate.is_empty() != self.turn.tls_key.is_empty() {
            wrong("turn.tls_certificate and turn.tls_key go together");
        }
        if self.http.tls_certificate.is_empty() != self.http.tls_key.is_empty() {
            wrong("http.tls_certificate and http.tls_key go together");
        }
        if self.tariff.sfu_id.is_empty() || self.tariff.turn_id.is_empty() {
            wrong("tariff.sfu_id and tariff.turn_id must not be empty");
        }
    }
}

#[cfg(test)]
mod tests;
