//! Low balance is a ladder (DESIGN 4.8): warned, reduced, audio only, held, ended; and up again after a top-up.

use serde::{Deserialize, Serialize};

/// How an account's sessions are served. Ordered from the best to the worst.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// Everything, at full quality.
    #[default]
    Full,
    /// Full quality, and the client knows that the end is near.
    Warned,
    /// Video at a reduced bit rate.
    Reduced,
    /// No video.
    AudioOnly,
    /// Media paused, leases settled, nothing costs anything: a short time to top up.
    Held,
    /// Over.
    Ended,
}

impl Step {
    /// `full`, `warned`, `reduced`, `audio-only`, `held` or `ended`, as clients are told.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Warned => "warned",
            Self::Reduced => "reduced",
            Self::AudioOnly => "audio-only",
            Self::Held => "held",
            Self::Ended => "ended",
        }
    }
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
