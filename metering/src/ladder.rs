//! Low balance is a ladder (DESIGN 4.8): warned, reduced, audio only, held, ended; and up again after a top-up.
//!
//! One ladder for each account, whatever the number of its sessions and services. It knows how fast each lease
//! burns and how much is left, and says which step that means; the cashier carries the steps out. Pure: `now` is an
//! argument.
//!
//! Steps down are taken at once, steps up only well above the threshold that was crossed and after some seconds, or
//! at once when somebody paid. The burn that the runway is reckoned with is the burn *at full quality*: from the
//! moment quality is cut it is kept, for otherwise cutting would lengthen the runway and undo itself.

use crate::{LeaseId, Msat, meter::UNITS_PER_MSAT};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

/// Samples of one lease's use. Ten seconds of reports, a second apart, with room for early ones.
const SAMPLES_MAX: usize = 32;

/// The shortest time that a burn is averaged over: the first video frames are not the rate of what follows.
const AVERAGE_MIN: Duration = Duration::from_secs(3);

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

/// When steps are taken. The defaults are the design's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LadderConfig {
    /// Seconds of runway below which the client is warned.
    pub warned_seconds: u32,
    /// Seconds of runway below which video is reduced.
    pub reduced_seconds: u32,
    /// Seconds of runway below which there is no video.
    pub audio_only_seconds: u32,
    /// A rung is left upwards above this many percent of its threshold.
    pub rise_percent: u32,
    /// For how long it must be above, in seconds.
    pub rise_seconds: u32,
    /// Over how many seconds the burn is averaged.
    pub average_seconds: u32,
    /// How long a session is held before it ends.
    pub hold_seconds: u32,
    /// An account is held at most once in this many seconds; the second time it ends.
    pub hold_again_seconds: u32,
}

impl Default for LadderConfig {
    fn default() -> Self {
        Self {
            warned_seconds: 120,
            reduced_seconds: 60,
            audio_only_seconds: 20,
            rise_percent: 150,
            rise_seconds: 5,
            average_seconds: 10,
            hold_seconds: 60,
            hold_again_seconds: 600,
        }
    }
}

/// What an account can still spend, as the ladder looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spendable {
    /// Available, and granted in leases but not spent.
    pub msat: Msat,
    /// A lease is spent and the account could not give it what the next second costs.
    pub exhausted: bool,
    /// A voucher was credited just now.
    pub topped_up: bool,
}

/// One account's ladder.
#[derive(Clone, Debug)]
pub struct Ladder {
    config: LadderConfig,
    step: Step,
    burns: BTreeMap<LeaseId, Burn>,
    rising_since: Option<Instant>,
    held_at: Option<Instant>,
}

impl Ladder {
    /// A ladder at its top, with no leases.
    pub fn new(config: LadderConfig) -> Self {
        Self {
            config,
            step: Step::Full,
            burns: BTreeMap::new(),
            rising_since: None,
            held_at: None,
        }
    }

    /// The step that the account's sessions are at.
    pub const fn step(&self) -> Step {
        self.step
    }

    /// True while no lease is on it.
    pub fn is_idle(&self) -> bool {
        self.burns.is_empty()
    }

    /// True when nothing of it needs to be remembered any more: no lease, and a hold would be allowed again.
    pub fn is_forgettable(&self, now: Instant) -> bool {
        self.is_idle() && !self.held_recently(now)
    }

    /// A lease joins; until it has reported, `estimate` (msat a second) stands for its burn.
    pub fn join(&mut self, lease: LeaseId, estimate: Msat) {
        if self.burns.is_empty() {
            // Whatever was decided for sessions that are gone does not bind new ones; a recent hold does.
            self.step = Step::Full;
            self.rising_since = None;
        }
        let estimate = u128::from(estimate.get()) * UNITS_PER_MSAT;
        let kept = (self.step >= Step::Reduced).then_some(Kept {
            units: estimate,
            until: None,
        });
        self.burns.insert(
            lease,
            Burn {
                estimate,
                samples: VecDeque::with_capacity(SAMPLES_MAX),
                kept,
            },
        );
    }

    /// A lease leaves.
    pub fn leave(&mut self, lease: LeaseId) {
        self.burns.remove(&lease);
    }

    /// A report: the lease has used `used` (in 10^-9 msat) over its life, `segment_age` of it the running segment's.
    pub fn observe(&mut self, lease: LeaseId, used: u128, segment_age: Duration, now: Instant) {
        let window = Duration::from_secs(u64::from(self.config.average_seconds));
        if let Some(burn) = self.burns.get_mut(&lease) {
            burn.observe(used, segment_age, window, now);
        }
    }

    /// What a lease burns at full quality, in 10^-9 msat a second.
    pub fn lease_burn(&self, lease: LeaseId, now: Instant) -> u128 {
        self.burns.get(&lease).map_or(0, |burn| burn.full(now))
    }

    /// What all of the account's sessions burn at full quality, in 10^-9 msat a second.
    pub fn full_burn(&self, now: Instant) -> u128 {
        self.burns.values().map(|burn| burn.full(now)).sum()
    }

    /// How long `spendable` lasts at full quality. None while nothing burns.
    pub fn runway(&self, spendable: Msat, now: Instant) -> Option<Duration> {
        let burn = self.full_burn(now);
        let milliseconds = (u128::from(spendable.get()) * UNITS_PER_MSAT * 1_000).checked_div(burn)?;
        Some(Duration::from_millis(
            u64::try_from(milliseconds).unwrap_or(u64::MAX),
        ))
    }

    /// Looks at what is left and takes a step where one is due. Returns it if it is another than before.
    pub fn decide(&mut self, spendable: Spendable, now: Instant) -> Option<Step> {
        if self.burns.is_empty() || self.step == Step::Ended {
            return None;
        }
        let before = self.step;
        let runway = self.runway(spendable.msat, now);
        if self.step == Step::Held {
            self.decide_held(spendable, runway, now);
        } else if spendable.exhausted || (spendable.msat.is_zero() && runway.is_some()) {
            let step = if self.held_recently(now) {
                Step::Ended
            } else {
                Step::Held
            };
            self.take(step, now);
        } else {
            self.decide_running(spendable, runway, now);
        }
        (self.step != before).then_some(self.step)
    }

    /// When `decide` should be called although nothing was reported.
    pub fn next_decision(&self) -> Option<Instant> {
        match self.step {
            Step::Held => self.held_at.map(|held| held + self.hold()),
            _ => self.rising_since.map(|since| since + self.rise()),
        }
    }

    fn decide_held(&mut self, spendable: Spendable, runway: Option<Duration>, now: Instant) {
        // What the settled leases gave back is too little to go on with, so only a top-up resumes.
        let enough =
            !spendable.msat.is_zero() && runway.is_none_or(|runway| runway >= Duration::from_secs(1));
        if spendable.topped_up && enough {
            let step = self
                .step_at(runway, self.config.rise_percent)
                .min(Step::AudioOnly);
            self.take(step, now);
        } else if self
            .held_at
            .is_none_or(|held| now.duration_since(held) >= self.hold())
        {
            self.take(Step::Ended, now);
        }
    }

    fn decide_running(&mut self, spendable: Spendable, runway: Option<Duration>, now: Instant) {
        let down = self.step_at(runway, 100);
        let up = self.step_at(runway, self.config.rise_percent);
        if down > self.step {
            self.take(down, now);
        } else if up < self.step {
            let since = *self.rising_since.get_or_insert(now);
            if spendable.topped_up || now.duration_since(since) >= self.rise() {
                self.take(up, now);
            }
        } else {
            self.rising_since = None;
        }
    }

    fn take(&mut self, step: Step, now: Instant) {
        self.rising_since = None;
        let (was_cut, is_cut) = (self.step >= Step::Reduced, step >= Step::Reduced);
        if was_cut != is_cut {
            // Back at full quality, what was kept stands in until the average has forgotten the cut.
            let until = now + Duration::from_secs(u64::from(self.config.average_seconds));
            for burn in self.burns.values_mut() {
                let kept = Kept {
                    units: burn.full(now),
                    until: (!is_cut).then_some(until),
                };
                burn.kept = Some(kept);
            }
        }
        if step == Step::Held {
            self.held_at = Some(now);
        }
        self.step = step;
    }

    /// The step that a runway means, with every threshold scaled.
    fn step_at(&self, runway: Option<Duration>, percent: u32) -> Step {
        let Some(runway) = runway else { return Step::Full };
        let scaled = |seconds: u32| Duration::from_millis(u64::from(seconds) * u64::from(percent) * 10);
        if runway < scaled(self.config.audio_only_seconds) {
            Step::AudioOnly
        } else if runway < scaled(self.config.reduced_seconds) {
            Step::Reduced
        } else if runway < scaled(self.config.warned_seconds) {
            Step::Warned
        } else {
            Step::Full
        }
    }

    fn held_recently(&self, now: Instant) -> bool {
        let again = Duration::from_secs(u64::from(self.config.hold_again_seconds));
        self.held_at
            .is_some_and(|held| now.saturating_duration_since(held) < again)
    }

    fn hold(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.hold_seconds))
    }

    fn rise(&self) -> Duration {
        Duration::from_secs(u64::from(self.config.rise_seconds))
    }
}

/// How fast one lease is spent.
#[derive(Clone, Debug)]
struct Burn {
    /// Units a second, until there is something to average.
    estimate: u128,
    /// When, and how much was used by then.
    samples: VecDeque<(Instant, u128)>,
    kept: Option<Kept>,
}

/// A burn from before quality was cut.
#[derive(Clone, Copy, Debug)]
struct Kept {
    units: u128,
    /// None while quality is cut.
    until: Option<Instant>,
}

impl Burn {
    fn observe(&mut self, used: u128, segment_age: Duration, window: Duration, now: Instant) {
        if self.samples.is_empty() {
            if used == 0 {
                return;
            }
            let start = now.checked_sub(segment_age.min(window)).unwrap_or(now);
            self.samples.push_back((start, 0));
        }
        if self
            .samples
            .back()
            .is_some_and(|(at, _)| now.duration_since(*at) < Duration::from_millis(400))
        {
            // Several leases' worth of early reports must not push the window's start out.
            if self.samples.len() > 1 {
                self.samples.pop_back();
            }
        }
        self.samples.push_back((now, used));
        // One sample at or before the window's start stays, so that the average covers all of it.
        while self.samples.len() > 2
            && (self.samples.len() > SAMPLES_MAX || now.duration_since(self.samples[1].0) >= window)
        {
            self.samples.pop_front();
        }
        let live = self.live();
        if let Some(kept) = self.kept.as_mut().filter(|kept| kept.until.is_none()) {
            // Cut before it was known: what is kept may grow, and never shrinks.
            kept.units = kept.units.max(live);
        }
    }

    fn live(&self) -> u128 {
        let (Some(first), Some(last)) = (self.samples.front(), self.samples.back()) else {
            return self.estimate;
        };
        let elapsed = last.0.duration_since(first.0);
        let nanoseconds = elapsed.max(AVERAGE_MIN).as_nanos();
        let used = last.1.saturating_sub(first.1).min(u128::MAX / UNITS_PER_MSAT);
        let average = used * UNITS_PER_MSAT / nanoseconds;
        if elapsed < AVERAGE_MIN {
            average.max(self.estimate)
        } else {
            average
        }
    }

    fn full(&self, now: Instant) -> u128 {
        match self.kept {
            Some(kept) if kept.until.is_none_or(|until| now < until) => kept.units.max(self.live()),
            _ => self.live(),
        }
    }
}

#[cfg(test)]
mod tests;
