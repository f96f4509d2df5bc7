//! What a relay asks for: msat a megabyte in each direction and msat a second.

use crate::{Msat, meter};
use serde::{Deserialize, Serialize};

/// The largest rate. With it, u64 counters of bytes and nanoseconds are rated inside u128:
/// 2 * 1000 * 2^64 * 2^40 + 2^64 * 2^40 is below 2^116.
pub const RATE_MAX: u64 = 1 << 40;

/// Bytes a second of audio in one direction, for an admission's estimate: Opus at 48 kbit/s with RTP, SRTP and gaps.
pub const AUDIO_BYTES_PER_SECOND: u64 = 8_000;

/// Seconds of audio-only burn that an account must have to be admitted (DESIGN 4.5).
pub const ADMISSION_SECONDS: u64 = 5;

/// Which of the two relays a meter belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Service {
    /// The selective forwarding unit: group calls.
    Sfu,
    /// The TURN server (RFC 8656).
    Turn,
}

impl Service {
    /// `sfu` or `turn`, as in tokens, tariffs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Sfu => "sfu",
            Self::Turn => "turn",
        }
    }
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The three prices of a tariff, as a meter uses them. Each is at most [`RATE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Rates {
    /// msat for 1,000,000 bytes to the client.
    #[serde(rename = "msat_per_megabyte_out")]
    pub out: u64,
    /// msat for 1,000,000 bytes from the client (TURN: to the peer).
    #[serde(rename = "msat_per_megabyte_in")]
    pub in_: u64,
    /// msat for a second.
    #[serde(rename = "msat_per_second")]
    pub second: u64,
}

impl Rates {
    /// Rates no higher than [`RATE_MAX`].
    pub const fn new(out: u64, in_: u64, second: u64) -> Result<Self, RateTooHigh> {
        if out > RATE_MAX || in_ > RATE_MAX || second > RATE_MAX {
            return Err(RateTooHigh);
        }
        Ok(Self { out, in_, second })
    }

    /// The same rates, none of them above [`RATE_MAX`].
    pub fn capped(self) -> Self {
        Self {
            out: self.out.min(RATE_MAX),
            in_: self.in_.min(RATE_MAX),
            second: self.second.min(RATE_MAX),
        }
    }

    /// What `seconds` of audio and no video cost, in both directions, rounded up.
    pub fn audio_only(&self, seconds: u64) -> Msat {
        let bytes = AUDIO_BYTES_PER_SECOND.saturating_mul(seconds);
        meter::closing(meter::owed(
            self,
            bytes,
            bytes,
            seconds.saturating_mul(1_000_000_000),
        ))
    }

    /// What an account must have available to be admitted: five seconds of audio, and the msat of rounding.
    pub fn admission_minimum(&self) -> Msat {
        self.audio_only(ADMISSION_SECONDS)
    }
}

/// A rate above [`RATE_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a rate is at most 2^40 msat")]
pub struct RateTooHigh;

/// A published tariff, as `GET /v1/tariff` shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// The name a token may quote.
    pub id: String,
    /// Which relay it prices.
    pub service: Service,
    /// msat for 1,000,000 bytes to the client.
    pub msat_per_megabyte_out: u64,
    /// msat for 1,000,000 bytes from the client (TURN: to the peer).
    pub msat_per_megabyte_in: u64,
    /// msat for a second.
    pub msat_per_second: u64,
    /// Unix seconds after which it is no longer sold.
    pub valid_until: u64,
}

impl Tariff {
    /// The default of the SFU: 50 msat a MB out, nothing in, 8 msat a second.
    pub fn sfu(valid_until: u64) -> Self {
        Self::priced("sfu-default", Service::Sfu, (50, 0, 8), valid_until)
    }

    /// The default of the TURN server: 50 msat a MB each way, 2 msat a second.
    pub fn turn(valid_until: u64) -> Self {
        Self::priced("turn-default", Service::Turn, (50, 50, 2), valid_until)
    }

    /// What a meter needs of it.
    pub fn rates(&self) -> Result<Rates, RateTooHigh> {
        Rates::new(
            self.msat_per_megabyte_out,
            self.msat_per_megabyte_in,
            self.msat_per_second,
        )
    }

    fn priced(id: &str, service: Service, (out, in_, second): (u64, u64, u64), valid_until: u64) -> Self {
        Self {
            id: id.to_owned(),
            service,
            msat_per_megabyte_out: out,
            msat_per_megabyte_in: in_,
            msat_per_second: second,
            valid_until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_beyond_the_limit_is_refused() {
        assert_eq!(
            Rates::new(RATE_MAX, RATE_MAX, RATE_MAX).map(|rates| rates.out),
            Ok(RATE_MAX)
        );
        assert_eq!(Rates::new(0, RATE_MAX + 1, 0), Err(RateTooHigh));
    }

    #[test]
    fn admission_to_the_default_sfu_needs_five_seconds_of_audio() {
        // 5 s * 8 msat + 40,000 bytes * 50 msat a MB = 42 msat.
        let rates = Tariff::sfu(0).rates().unwrap();
        assert_eq!(rates.admission_minimum(), Msat::new(42));
    }

    #[test]
    fn a_tariff_has_the_field_names_of_the_contract() {
        let json = serde_json::to_value(Tariff::turn(9)).unwrap();
        assert_eq!(json["service"], "turn");
        assert_eq!(json["msat_per_megabyte_in"], 50);
        assert_eq!(json["valid_until"], 9);
    }
}
