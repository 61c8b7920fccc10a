//! Waits between attempts.

use std::time::Duration;

/// First ceiling of a wait, in ms.
const BACKOFF_FIRST_MS: u64 = 500;
/// No attempt follows another faster than this, in ms: a refused port must not be hammered.
const BACKOFF_LEAST_MS: u64 = 100;
/// A connection that lasted so long was good, in s.
pub const STABLE_S: u64 = 10;

/// Waits between attempts: full jitter, doubling, and back to the start only after a connection that lasted.
#[derive(Debug)]
pub struct Backoff {
    max_ms: u64,
    ceiling_ms: u64,
}

impl Backoff {
    /// Waits of at most `max_s` seconds.
    #[must_use]
    pub const fn new(max_s: u64) -> Self {
        Self {
            max_ms: max_s * 1000,
            ceiling_ms: BACKOFF_FIRST_MS,
        }
    }

    /// The next wait.
    pub fn next_wait(&mut self) -> Duration {
        let ceiling = self.ceiling_ms.min(self.max_ms).max(BACKOFF_LEAST_MS + 1);
        self.ceiling_ms = ceiling.saturating_mul(2);
        Duration::from_millis(fastrand::u64(BACKOFF_LEAST_MS..ceiling))
    }

    /// The last connection was good.
    pub const fn reset(&mut self) {
        self.ceiling_ms = BACKOFF_FIRST_MS;
    }
}
