//! How often somebody may guess. Failures are counted and forgiven by time alone: a success does not clear them, or
//! every honest customer would hand the next guesser fresh attempts.

use serde::{Deserialize, Serialize};

/// Failures that cost no wait: people mistype.
pub const FREE_FAILURES: u8 = 4;
/// Wait after the first failure beyond them, in ms; it doubles with each further one.
pub const WAIT_FIRST_MS: u64 = 60_000;
/// Longest wait, in ms: 64 minutes. With it no day has more than 32 guesses, which keeps even one-time codes, of which
/// three in a hundred million are right at any moment, below one in a million a day.
pub const WAIT_MAX_MS: u64 = WAIT_FIRST_MS << WAIT_DOUBLINGS_MAX;
const WAIT_DOUBLINGS_MAX: u8 = 6;
/// One failure is forgiven after so long without another, in ms. Longer than [`WAIT_MAX_MS`], so that whoever goes on
/// guessing is never forgiven anything.
pub const FORGIVE_MS: u64 = 2 * 3_600_000;
/// Failures beyond which the wait no longer grows.
const FAILURES_MAX: u8 = FREE_FAILURES + 1 + WAIT_DOUBLINGS_MAX;

/// Failures so far. `now_ms` of every call is on one line of time; where that line begins anew with a boot,
/// [`Self::restart`] comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lockout {
    failures: u8,
    /// When the last one happened.
    since_ms: u64,
}

impl Lockout {
    /// Failures that count now.
    #[must_use]
    pub const fn failures(&self, now_ms: u64) -> u8 {
        let forgiven = now_ms.saturating_sub(self.since_ms) / FORGIVE_MS;
        if forgiven >= self.failures as u64 {
            0
        } else {
            self.failures - forgiven as u8
        }
    }

    /// How long the next attempt has to wait, in ms; 0: it may come.
    #[must_use]
    pub const fn wait_ms(&self, now_ms: u64) -> u64 {
        (self.since_ms.saturating_add(wait_after(self.failures))).saturating_sub(now_ms)
    }

    /// A wrong one. Store this before anybody learns that it was wrong.
    pub const fn failed(&mut self, now_ms: u64) {
        let failures = self.failures(now_ms) + 1;
        self.failures = if failures > FAILURES_MAX {
            FAILURES_MAX
        } else {
            failures
        };
        self.since_ms = now_ms;
    }

    /// The line of time begins anew: the wait begins anew, too, so that switching the power off shortens nothing.
    pub const fn restart(&mut self, now_ms: u64) {
        self.since_ms = now_ms;
    }
}

const fn wait_after(failures: u8) -> u64 {
    if failures <= FREE_FAILURES {
        return 0;
    }
    let doublings = (failures - FREE_FAILURES - 1) as u32;
    if doublings >= WAIT_DOUBLINGS_MAX as u32 {
        WAIT_MAX_MS
    } else {
        WAIT_FIRST_MS << doublings
    }
}
