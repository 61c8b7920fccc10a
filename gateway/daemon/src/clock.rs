//! The clocks of this machine, with an honest word on what they are worth.

use std::{
    cell::Cell,
    path::Path,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use gateway_core::Now;
use proto::message::ClockQuality;

/// A wall clock before this (2025-01-01) was never set: no release of this software is older.
const PLAUSIBLE_S: u64 = 1_735_689_600;
/// systemd-timesyncd and chrony's wait unit leave this behind once the clock was set from the network.
const SYNCHRONISED_MARK: &str = "/run/systemd/timesync/synchronized";

/// A clock that was not set yet is looked at again after so long, in ms: a site without a link at boot gets one later.
const LOOK_EVERY_MS: u64 = 10_000;

/// Monotonic time since its creation, and the wall clock.
#[derive(Debug)]
pub struct Clock {
    started: Instant,
    /// Whether the network had set the clock at the last look, and when that was, in ms. Once set it counts as set.
    synchronised: Cell<(bool, u64)>,
}

impl Clock {
    /// Starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self {
            started: Instant::now(),
            synchronised: Cell::new((Path::new(SYNCHRONISED_MARK).exists(), 0)),
        }
    }

    /// Milliseconds since start, and the wall clock.
    #[must_use]
    pub fn now(&self) -> Now {
        let mono_ms = self.started.elapsed().as_millis() as u64;
        let wall_s = wall_s();
        let quality = match wall_s {
            0 => ClockQuality::Unknown,
            _ if self.is_synchronised(mono_ms) => ClockQuality::Synchronised,
            _ => ClockQuality::Informative,
        };
        Now {
            mono_ms,
            wall_s,
            quality,
        }
    }

    fn is_synchronised(&self, mono_ms: u64) -> bool {
        let (was, looked_ms) = self.synchronised.get();
        if was || mono_ms.saturating_sub(looked_ms) < LOOK_EVERY_MS {
            return was;
        }
        let is = Path::new(SYNCHRONISED_MARK).exists();
        self.synchronised.set((is, mono_ms));
        is
    }

    /// The instant at which `mono_ms` is reached.
    #[must_use]
    pub fn instant(&self, mono_ms: u64) -> Instant {
        self.started + std::time::Duration::from_millis(mono_ms)
    }
}

/// Seconds since 1970 UTC by a clock that the network has set; 0: it has not.
#[must_use]
pub fn synchronised_wall_s() -> u64 {
    if Path::new(SYNCHRONISED_MARK).exists() {
        wall_s()
    } else {
        0
    }
}

/// Seconds since 1970 UTC; 0: the clock was never set.
fn wall_s() -> u64 {
    plausible(SystemTime::now())
}

fn plausible(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH);
    since
        .map(|since| since.as_secs())
        .ok()
        .filter(|wall_s| *wall_s >= PLAUSIBLE_S)
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_clock_that_was_never_set_says_nothing() {
        let at = |s: u64| plausible(UNIX_EPOCH + Duration::from_secs(s));
        assert_eq!(plausible(UNIX_EPOCH - Duration::from_secs(1)), 0);
        assert_eq!(at(86_400), 0);
        assert_eq!(at(PLAUSIBLE_S - 1), 0);
        assert_eq!(at(PLAUSIBLE_S), PLAUSIBLE_S);
    }
}
