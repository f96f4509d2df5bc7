//! Why a datagram went no further. Hostile and noisy input is normal: it is dropped and counted, never logged per
//! packet and never a panic.

use metering::Direction;

macro_rules! reasons {
    ($(#[doc = $about:literal])* $enum:ident { $($(#[doc = $doc:literal])* $name:ident => $label:literal,)* }) => {
        $(#[doc = $about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $enum {
            $($(#[doc = $doc])* $name,)*
        }

        impl $enum {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [$enum] = &[$($enum::$name,)*];

            /// The reason as a metric label.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $($enum::$name => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// Reason for a drop.
    Discard {
        /// Source port 0: nothing can answer there.
        SourcePortZero => "source-port-zero",
        /// The first byte is neither STUN's nor a channel's.
        UnknownProtocol => "unknown-protocol",
        /// STUN that does not parse, or whose FINGERPRINT is wrong.
        MalformedStun => "malformed-stun",
        /// ChannelData that does not parse.
        MalformedChannelData => "malformed-channel-data",
        /// A STUN message that a server does not take.
        UnexpectedStun => "unexpected-stun",
        /// Data on a 5-tuple that has no allocation.
        NoAllocation => "no-allocation",
        /// Data on a channel that is not bound.
        NoChannel => "no-channel",
        /// A peer without a permission.
        NoPermission => "no-permission",
        /// An ICMP message of a type that no client is told of.
        UnexpectedIcmp => "unexpected-icmp",
        /// A peer that the address policy denies.
        PeerDenied => "peer-denied",
        /// An answer to a request that was not authenticated would be over its size or rate.
        ChallengeLimit => "challenge-limit",
        /// An Allocate that is being worked on, sent again.
        Pending => "pending",
        /// A peer's connection past as many as an allocation may have.
        ConnectionLimit => "connection-limit",
        /// The session is held.
        Held => "held",
        /// The rate of the ladder's rung.
        Throttled => "throttled",
        /// The allowance does not cover the packet.
        Exhausted => "exhausted",
        /// Larger than a ChannelData message or an indication can carry.
        Oversize => "oversize",
    }
}

reasons! {
    /// Why somebody was not believed.
    AuthFailure {
        /// The nonce is too old, or not ours, or another address's.
        StaleNonce => "turn-stale-nonce",
        /// A choice among password algorithms that we did not offer.
        BidDown => "turn-bid-down",
        /// No such username, or it has expired.
        UnknownUsername => "turn-unknown-username",
        /// The password is wrong.
        WrongPassword => "turn-wrong-password",
        /// An access token that is not for us, or not for now.
        WrongToken => "turn-wrong-token",
        /// The allocation belongs to another username.
        WrongCredentials => "turn-wrong-credentials",
    }
}

/// What passed through the core and what did not. Plain numbers: the shard publishes them.
#[derive(Clone, Debug)]
pub struct Counters {
    /// Packets relayed to clients.
    pub packets_to_client: u64,
    /// Application bytes of those.
    pub bytes_to_client: u64,
    /// Packets relayed from clients to peers.
    pub packets_from_client: u64,
    /// Application bytes of those.
    pub bytes_from_client: u64,
    discards: [u64; Discard::ALL.len()],
    auth_failures: [u64; AuthFailure::ALL.len()],
}

impl Counters {
    pub(crate) fn new() -> Self {
        Self {
            packets_to_client: 0,
            bytes_to_client: 0,
            packets_from_client: 0,
            bytes_from_client: 0,
            discards: [0; Discard::ALL.len()],
            auth_failures: [0; AuthFailure::ALL.len()],
        }
    }

    pub(crate) fn discard(&mut self, reason: Discard) {
        self.discards[reason as usize] += 1;
    }

    pub(crate) fn auth_failure(&mut self, reason: AuthFailure) {
        self.auth_failures[reason as usize] += 1;
    }

    pub(crate) fn relayed(&mut self, direction: Direction, packets: u64, bytes: u64) {
        let (packets_of, bytes_of) = self.of(direction);
        *packets_of += packets;
        *bytes_of += bytes;
    }

    pub(crate) fn unrelayed(&mut self, direction: Direction, packets: u64, bytes: u64) {
        let (packets_of, bytes_of) = self.of(direction);
        *packets_of = packets_of.saturating_sub(packets);
        *bytes_of = bytes_of.saturating_sub(bytes);
    }

    fn of(&mut self, direction: Direction) -> (&mut u64, &mut u64) {
        match direction {
            Direction::ToClient => (&mut self.packets_to_client, &mut self.bytes_to_client),
            Direction::FromClient => (&mut self.packets_from_client, &mut self.bytes_from_client),
        }
    }

    /// How often `reason` dropped something.
    pub fn discarded(&self, reason: Discard) -> u64 {
        self.discards[reason as usize]
    }

    /// Every reason with its count.
    pub fn discards(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL
            .iter()
            .map(|reason| (*reason, self.discarded(*reason)))
    }

    /// Every reason not to believe somebody, with its count.
    pub fn auth_failures(&self) -> impl Iterator<Item = (AuthFailure, u64)> + '_ {
        AuthFailure::ALL
            .iter()
            .map(|reason| (*reason, self.auth_failures[*reason as usize]))
    }
}
