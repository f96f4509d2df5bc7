//! Why a datagram or a packet went no further. Hostile and noisy input is normal: it is dropped and counted,
//! never logged per packet and never a panic.

macro_rules! discards {
    ($($(#[doc = $doc:literal])* $name:ident => $label:literal,)*) => {
        /// Reason for a drop.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Discard {
            $($(#[doc = $doc])* $name,)*
        }

        impl Discard {
            /// Every reason, in the order of the counters.
            pub const ALL: &'static [Discard] = &[$(Discard::$name,)*];

            /// The reason as a metric label.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Discard::$name => $label,)*
                }
            }
        }
    };
}

discards! {
    /// Source port 0: nothing can answer there.
    SourcePortZero => "source-port-zero",
    /// The first byte belongs to no protocol spoken here (RFC 7983).
    UnknownProtocol => "unknown-protocol",
    /// From an address that no authenticated connectivity check came from.
    UnknownAddress => "unknown-address",
    /// STUN that does not parse, or is not a Binding.
    MalformedStun => "malformed-stun",
    /// A check for a ufrag that no session has.
    UnknownUfrag => "unknown-ufrag",
    /// A check or an answer whose MESSAGE-INTEGRITY or FINGERPRINT is wrong.
    StunUnauthentic => "stun-unauthentic",
    /// A STUN response to nothing that was asked.
    UnexpectedResponse => "unexpected-response",
    /// The session already knows as many remote addresses as it may.
    TooManyAddresses => "too-many-addresses",
    /// DTLS that breaks a limit or comes when none is expected.
    UnexpectedDtls => "unexpected-dtls",
    /// A ClientHello larger than any honest one.
    OversizeClientHello => "oversize-client-hello",
    /// More handshakes under way than the shard allows.
    TooManyHandshakes => "too-many-handshakes",
    /// RTP or RTCP before the keys are there.
    NoKeys => "no-keys",
    /// RTP that does not parse.
    MalformedRtp => "malformed-rtp",
    /// An SSRC that neither signalling, MID nor payload type explains.
    UnknownSsrc => "unknown-ssrc",
    /// An SSRC that belongs to another m-line or stream.
    SsrcCollision => "ssrc-collision",
    /// More streams than a session may publish.
    TooManyStreams => "too-many-streams",
    /// A payload type that was not negotiated for the stream.
    UnknownPayloadType => "unknown-payload-type",
    /// The SRTP tag does not match.
    Unauthentic => "unauthentic",
    /// Seen before, or too old to tell.
    Replayed => "replayed",
    /// A retransmission of what was never missing.
    Duplicate => "duplicate",
    /// Every packet slot of the shard is in use.
    NoSlot => "no-slot",
    /// Larger than a packet slot.
    Oversize => "oversize",
    /// RTCP that does not parse.
    MalformedRtcp => "malformed-rtcp",
    /// RTCP about SSRCs that are not the sender's business.
    ForeignRtcp => "foreign-rtcp",
    /// The session is held or has ended.
    Held => "held",
    /// A publisher above the shard's ingress limit.
    PublisherTooFast => "publisher-too-fast",
    /// The batch of one stream grew past its limit before it was sent.
    Backlog => "backlog",
    /// The session's allowance does not cover the packet.
    Exhausted => "exhausted",
    /// Video that the reduced rung has no room for.
    Reduced => "reduced",
    /// Video on the audio-only rung.
    AudioOnly => "audio-only",
    /// Video before the key frame a subscriber waits for.
    AwaitingKeyFrame => "awaiting-key-frame",
    /// A packet older than the point where its subscriber joined, resumed or switched.
    BeforeJoin => "before-join",
    /// The index was already sealed under this key.
    SealedBefore => "sealed-before",
    /// No payload type of the subscriber fits the publisher's codec.
    NoPayloadType => "no-payload-type",
    /// A NACK for what is no longer, or never was, in the history.
    NotInHistory => "not-in-history",
    /// A NACK beyond the subscriber's retransmission budget.
    RetransmissionBudget => "retransmission-budget",
    /// A frame that found the queue to another shard full.
    ShardQueueFull => "shard-queue-full",
    /// A control packet that found its queue full.
    ControlBacklog => "control-backlog",
}

impl From<crate::srtp::Rejected> for Discard {
    fn from(rejected: crate::srtp::Rejected) -> Discard {
        use crate::srtp::Rejected;
        match rejected {
            Rejected::Short => Discard::MalformedRtp,
            Rejected::Unauthentic => Discard::Unauthentic,
            Rejected::Replayed => Discard::Replayed,
            Rejected::Oversize => Discard::Oversize,
        }
    }
}

/// What passed through the core and what did not. Plain numbers: the shard publishes them.
#[derive(Debug, Clone)]
pub struct Counters {
    /// RTP packets accepted from clients.
    pub packets_in: u64,
    /// UDP payload bytes of those.
    pub bytes_in: u64,
    /// RTP packets sent to clients, retransmissions included.
    pub packets_out: u64,
    /// UDP payload bytes of those.
    pub bytes_out: u64,
    /// Packets sent again over RTX.
    pub retransmissions: u64,
    /// Key frames asked of publishers.
    pub keyframe_requests: u64,
    /// Key frames asked of other shards' publishers.
    pub keyframe_requests_crossed: u64,
    /// Packets asked of other shards, since a subscriber missed them and they never came.
    pub packets_asked: u64,
    /// Packets that crossed to other shards, once a shard.
    pub crossings_out: u64,
    /// Packets that crossed from other shards.
    pub crossings_in: u64,
    discards: [u64; Discard::ALL.len()],
}

impl Counters {
    pub(crate) fn new() -> Counters {
        Counters {
            packets_in: 0,
            bytes_in: 0,
            packets_out: 0,
            bytes_out: 0,
            retransmissions: 0,
            keyframe_requests: 0,
            keyframe_requests_crossed: 0,
            packets_asked: 0,
            crossings_out: 0,
            crossings_in: 0,
            discards: [0; Discard::ALL.len()],
        }
    }

    pub(crate) fn discard(&mut self, reason: Discard) {
        self.discards[reason as usize] += 1;
    }

    pub(crate) fn discard_many(&mut self, reason: Discard, packets: u64) {
        self.discards[reason as usize] += packets;
    }

    /// How often `reason` dropped something.
    #[must_use]
    pub fn discarded(&self, reason: Discard) -> u64 {
        self.discards[reason as usize]
    }

    /// Every reason with its count.
    pub fn discards(&self) -> impl Iterator<Item = (Discard, u64)> + '_ {
        Discard::ALL
            .iter()
            .map(|reason| (*reason, self.discarded(*reason)))
    }
}
