//! One line of time across boots and wrong clocks.
//!
//! Inside the core every moment is an [`Instant`]: milliseconds accumulated over all boots. The shell hands in its
//! monotonic clock, which restarts at zero with every boot, and its wall clock with a quality; what passed while the
//! gateway was off is added at boot if the wall clock says so and has never been seen later. A wrong wall clock can
//! therefore neither revive nor kill anything by more than the time it claims to have slept.

use proto::message::{ClockQuality, Stamp};
use serde::{Deserialize, Serialize};

pub(crate) const SECONDS_A_DAY: u32 = 86_400;

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

    /// Local second of the day, if the clock is fit to tell.
    #[must_use]
    pub fn second_of_day(&self, offset_min: i16) -> Option<u32> {
        let local_s = i64::try_from(self.wall_s).ok()? + i64::from(offset_min) * 60;
        self.has_wall()
            .then(|| local_s.rem_euclid(i64::from(SECONDS_A_DAY)) as u32)
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

/// Where we are on the line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    pub(crate) fn see(&mut self, now: &Now) {
        self.last = self.last.max(self.at(now));
        if let Some(wall_s) = now.wall() {
            self.wall_high_s = self.wall_high_s.max(wall_s);
        }
    }

    pub(crate) fn boot(&mut self, boot: u32, epoch: u32, now: &Now) {
        let slept_s = match now.wall() {
            Some(wall_s) if self.wall_high_s > 0 => wall_s.saturating_sub(self.wall_high_s),
            Some(_) | None => 0,
        };
        let resumed_ms = self.last.0.saturating_add(slept_s.saturating_mul(1000));
        self.base_ms = resumed_ms.saturating_sub(now.mono_ms);
        self.boot = boot;
        self.epoch = epoch;
        self.see(now);
    }
}
