//! Limits of one shard's core. Every number has a default and a reason.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::Duration;

use crate::access_token::AccessTokens;
use crate::address_policy::AddressPolicy;
use crate::allocation::Family;
use crate::binding::Discovery;

/// Relayed ports: the dynamic range (RFC 8656 section 7.2).
pub const RELAYED_PORTS: RangeInclusive<u16> = 49_152..=65_535;

/// An allocation that is not refreshed (RFC 8656 section 7.2: default).
pub(crate) const LIFETIME_DEFAULT: Duration = Duration::from_secs(600);

/// The longest lifetime a client may ask for.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(3600);

/// How long a permission lasts (RFC 8656 section 9).
pub(crate) const PERMISSION_LIFETIME: Duration = Duration::from_secs(300);

/// How long a channel lasts (RFC 8656 section 12).
pub(crate) const CHANNEL_LIFETIME: Duration = Duration::from_secs(600);

/// After a channel has expired its number and its peer stay tied for so long, so that late packets cannot reach a
/// new peer (RFC 8656 section 12).
pub(crate) const CHANNEL_QUARANTINE: Duration = Duration::from_secs(300);

/// How long money and a port may take; a client gives up after 39.5 s of retransmissions.
pub(crate) const PENDING_MAX: Duration = Duration::from_secs(10);

/// The rhythm of expiry and reports.
pub(crate) const SWEEP_INTERVAL: Duration = Duration::from_millis(100);

const _: () = assert!(
    LIFETIME_MAX.as_secs() >= LIFETIME_DEFAULT.as_secs(),
    "the default is within the limit"
);
const _: () = assert!(
    CHANNEL_LIFETIME.as_secs() > PERMISSION_LIFETIME.as_secs(),
    "RFC 8656 section 12"
);

/// What an operator may tune.
#[derive(Clone)]
pub struct Config {
    /// Which peers may be reached, and which addresses are our own.
    pub policy: AddressPolicy,
    /// Which of the node's shards this is: numbers that a client shows again name it.
    pub shard: u8,
    /// How many shards the node has: a number that names a further one is nobody's.
    pub shards: usize,
    /// What nonces and mobility tickets are made with: the same on all shards of a node, so that each believes the others.
    /// None where there is one shard: its seed then serves.
    pub secret: Option<[u8; 32]>,
    /// Families that relayed addresses can have.
    pub families: Vec<Family>,
    /// TCP allocations are made (RFC 6062).
    pub tcp_relay: bool,
    /// Allocations move with their clients (RFC 8016).
    pub mobility: bool,
    /// Other servers, for who comes while this one drains or is full (RFC 8489 section 10).
    pub alternate_servers: Vec<SocketAddr>,
    /// From so many allocations of the node on it is full in that sense.
    pub redirect_above: usize,
    /// The pairs of addresses that NAT behaviour is discovered with (RFC 5780), one of each family at most.
    pub discovery: Vec<Discovery>,
    /// Access tokens are taken in place of passwords (RFC 7635).
    pub access_tokens: Option<AccessTokens>,
    /// How long a held allocation is kept if nobody ends it: a little longer than the ledger holds an account.
    pub held_max: Duration,
    /// Relayed ports can set the DF bit for each datagram (DONT-FRAGMENT).
    pub dont_fragment: bool,
    /// Allocations of the node, on all shards together. A relayed port each: there are 16,384.
    pub allocations_max: usize,
    /// Allocations of one account. A browser makes one for each interface, server and peer connection.
    pub allocations_per_account_max: usize,
    /// Permissions of one allocation. A browser makes one for each candidate address of its peer.
    pub permissions_per_allocation_max: usize,
    /// Channels of one allocation.
    pub channels_per_allocation_max: usize,
    /// TCP connections between peers and one allocation (RFC 6062).
    pub data_connections_per_allocation_max: usize,
    /// Usernames known at one time.
    pub credentials_max: usize,
    /// Unauthenticated answers a second to one IPv4 /24 or IPv6 /56.
    pub challenges_per_second: u32,
    /// Unauthenticated answers to one such prefix at once.
    pub challenges_burst: u32,
    /// Rate each way on the reduced rung, bits a second.
    pub reduced_bits_per_second: u64,
    /// Rate each way on the audio-only rung, bits a second.
    pub audio_only_bits_per_second: u64,
    /// The largest burst on both rungs, bytes.
    pub burst_bytes: u64,
}

impl Config {
    /// The defaults under this policy.
    pub fn new(policy: AddressPolicy) -> Self {
        Self {
            policy,
            shard: 0,
            shards: usize::from(u8::MAX) + 1,
            secret: None,
            families: vec![Family::V4],
            tcp_relay: false,
            mobility: false,
            alternate_servers: Vec::new(),
            redirect_above: usize::MAX,
            discovery: Vec::new(),
            access_tokens: None,
            held_max: Duration::from_secs(75),
            dont_fragment: false,
            allocations_max: 10_000,
            allocations_per_account_max: 32,
            permissions_per_allocation_max: 64,
            channels_per_allocation_max: 64,
            data_connections_per_allocation_max: 32,
            credentials_max: 100_000,
            challenges_per_second: 20,
            challenges_burst: 100,
            reduced_bits_per_second: 400_000,
            audio_only_bits_per_second: 128_000,
            burst_bytes: 16_000,
        }
    }
}

/// The secret does not print.
impl std::fmt::Debug for Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Config(shard {})", self.shard)
    }
}
