//! One line of time across boots and wrong clocks.
//!
//! Inside the core every moment is an [`Instant`]: milliseconds accumulated over all boots. The shell hands in its
//! monotonic clock, which restarts at zero with every boot, and its wall clock with a quality; what passed while the
//! gateway was off is added at boot if the wall clock says so and has never been seen later; a clock that nobody set is
//! believed a day at most. So a wrong wall clock can neither revive nor kill: 1970 or none adds nothing, a year ahead
//! adds a day.
//!
//! Between two readings the wall clock must advance as the monotonic one does. Where it does not, it was set: an event
//! says so, devices are told, and what was billed by the time of day goes on in the customer's favour.

use proto::message::{ClockQuality, Stamp};
use serde::{Deserialize, Serialize};

pub(crate) const SECONDS_A_DAY: u32 = 86_400;
/// Longest sleep that a clock is believed that nothing confirmed, in s: a list may lose a day to a wrong one, not its life.
const SLEEP_DOUBTFUL_S_MAX: u64 = SECONDS_A_DAY as u64;
/// Clocks that differ by more than this do not tell the same time, in s (semantics, section 8: an alarm).
pub(crate) const SKEW_S_MAX: u64 = 300;

/// What the shell's clocks say.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Now {
    /// Milliseconds since this boot of the gateway.
    pub mono_ms: u64,
    /// Seconds since 1970 UTC.
    pub wall_s: u64,
    /// What `wall_s` is worth.
    pub quality: ClockQuality,
}

impl Now {
    /// As it travels.
    #[must_use]
    pub const fn stamp(&self) -> Stamp {
        Stamp {
            mono_ms: self.mono_ms,
            wall_s: self.wall_s,
            quality: self.quality,
        }
    }

    /// Whether the wall clock may be used at all.
    const fn has_wall(&self) -> bool {
        match self.quality {
            ClockQuality::Informative | ClockQuality::Synchronised => true,
            ClockQuality::Unknown | ClockQuality::Relative => false,
        }
    }

    /// Local second of the day, if the clock is fit to tell: it is synchronised. Devices hold it the same way.
    #[must_use]
    pub fn second_of_day(&self, offset_min: i16) -> Option<u32> {
        let local_s = i64::try_from(self.synchronised_s()?)
            .ok()?
            .checked_add(i64::from(offset_min) * 60)?;
        Some(local_s.rem_euclid(i64::from(SECONDS_A_DAY)) as u32)
    }

    /// The wall clock, if it is synchronised.
    pub(crate) fn synchronised_s(&self) -> Option<u64> {
        (self.quality == ClockQuality::Synchronised).then_some(self.wall_s)
    }

    /// The wall clock, if it may be used.
    #[must_use]
    pub const fn wall(&self) -> Option<u64> {
        if self.has_wall() { Some(self.wall_s) } else { None }
    }
}

/// A moment: milliseconds of accumulated running time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Instant(pub u64);

impl Instant {
    /// So many milliseconds later.
    #[must_use]
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds since `earlier`; zero if it is later.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// Bits of a question's number within a boot: at 25 questions a second they last for four months. One beyond is worth a
/// little less: no lease comes with an answer to it that is late.
const ASK_BITS: u32 = 28;

/// Where we are on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeline {
    /// Number of this boot.
    pub boot: u32,
    /// Epoch of the journal.
    pub epoch: u32,
    /// The moment at which this boot's monotonic clock stood at zero.
    pub base_ms: u64,
    /// The latest moment seen.
    pub last: Instant,
    /// The latest wall time seen, in s.
    pub wall_high_s: u64,
    /// The last moment at which the wall clock could be read ...
    #[serde(default)]
    pub(crate) read: Instant,
    /// ... and what it said, in s; 0: it was never read in this boot.
    #[serde(default)]
    pub(crate) read_s: u64,
    /// What the wall clock is worth.
    #[serde(default = "unknown")]
    pub(crate) quality: ClockQuality,
}

const fn unknown() -> ClockQuality {
    ClockQuality::Unknown
}

impl Default for Timeline {
    fn default() -> Self {
        Self {
            boot: 0,
            epoch: 0,
            base_ms: 0,
            last: Instant::default(),
            wall_high_s: 0,
            read: Instant::default(),
            read_s: 0,
            quality: unknown(),
        }
    }
}

impl Timeline {
    /// The moment of a reading of this boot's clocks.
    #[must_use]
    pub const fn at(&self, now: &Now) -> Instant {
        Instant(self.base_ms.saturating_add(now.mono_ms))
    }

    /// The reading of this boot's monotonic clock at a moment.
    #[must_use]
    pub const fn mono_ms(&self, at: Instant) -> u64 {
        at.0.saturating_sub(self.base_ms)
    }

    /// Questions to the cloud are numbered from here on in this boot. No other boot uses these numbers, nor does one of the
    /// journal's other epochs, so that a recorded answer is known for what it is. Below 2^53, for whoever reads JSON.
    pub(crate) const fn asks_from(&self) -> u64 {
        const EPOCHS: u64 = 1 << 10;
        const BOOTS: u64 = 1 << 15;
        let (epoch, boot) = (self.epoch.wrapping_sub(1) as u64, self.boot.wrapping_sub(1) as u64);
        ((epoch % EPOCHS) * BOOTS + boot % BOOTS) << ASK_BITS
    }

    /// The number of a question within its boot, for people.
    pub(crate) const fn short_ask(ask: u64) -> u64 {
        ask % (1 << ASK_BITS)
    }

    /// Whether a question of this number was asked in this boot.
    pub(crate) const fn is_own_ask(&self, ask: u64) -> bool {
        ask >> ASK_BITS == self.asks_from() >> ASK_BITS
    }

    pub(crate) fn see(&mut self, now: &Now) {
        self.last = self.last.max(self.at(now));
        if let Some(wall_s) = now.wall() {
            self.wall_high_s = self.wall_high_s.max(wall_s);
            (self.read, self.read_s) = (self.at(now), wall_s);
        }
    }

    /// By how much the wall clock was set since it was last read, in s; zero within what clocks drift.
    pub(crate) fn step_s(&self, now: &Now) -> i64 {
        let Some(wall_s) = now.wall().filter(|_| self.read_s > 0) else {
            return 0;
        };
        let expected_s = self.read_s.saturating_add(self.at(now).since_ms(self.read) / 1000);
        skew_s(expected_s, wall_s)
    }

    /// By how much the wall clock is behind the latest time ever seen, in s; zero if it is not.
    pub(crate) fn behind_s(&self, now: &Now) -> i64 {
        now.wall().map_or(0, |wall_s| skew_s(self.wall_high_s, wall_s).min(0))
    }

    pub(crate) fn boot(&mut self, boot: u32, epoch: u32, now: &Now) {
        let slept_s = match now.wall() {
            Some(wall_s) if self.wall_high_s > 0 => wall_s.saturating_sub(self.wall_high_s),
            Some(_) | None => 0,
        };
        let slept_s = match now.synchronised_s() {
            Some(_) => slept_s,
            None => slept_s.min(SLEEP_DOUBTFUL_S_MAX),
        };
        self.read_s = 0;
        self.quality = now.quality;
        let resumed_ms = self.last.0.saturating_add(slept_s.saturating_mul(1000));
        self.base_ms = resumed_ms.saturating_sub(now.mono_ms);
        self.boot = boot;
        self.epoch = epoch;
        self.see(now);
    }
}

/// How far a clock is ahead of what is expected of it, in s; zero within [`SKEW_S_MAX`].
pub(crate) fn skew_s(expected_s: u64, found_s: u64) -> i64 {
    if expected_s.abs_diff(found_s) <= SKEW_S_MAX {
        return 0;
    }
    let skew = i128::from(found_s) - i128::from(expected_s);
    i64::try_from(skew).unwrap_or(if skew < 0 { i64::MIN } else { i64::MAX })
}

/// The second of the day so many seconds before `second`.
pub(crate) const fn earlier(second: u32, seconds: u32) -> u32 {
    (second + SECONDS_A_DAY - seconds % SECONDS_A_DAY) % SECONDS_A_DAY
}
