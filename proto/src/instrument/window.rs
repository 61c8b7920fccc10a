//! Which counters were accepted: the highest, and a bitmap of those below it.

use serde::{Deserialize, Serialize};

use super::Fault;

/// Width of the window: so many counters below and above the highest accepted are told apart.
pub const WINDOW: u32 = 64;

/// The memory of one sequence of counters. Counter 0 is never issued.
///
/// Counters more than [`WINDOW`] - 1 below the highest are taken for used; an issuer that never has more than [`WINDOW`]
/// outstanding loses none to it, in whatever order they come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayWindow {
    /// Highest counter accepted.
    high: u32,
    /// Bit i: `high - i` was accepted.
    seen: u64,
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { high: 0, seen: 1 }
    }
}

impl ReplayWindow {
    /// Highest counter accepted.
    #[must_use]
    pub const fn high(&self) -> u32 {
        self.high
    }

    /// The one counter in reach whose low bits are `low`, if there is one: above `high - WINDOW`, at most
    /// `high + WINDOW`. `low` is below `2 * WINDOW`.
    #[must_use]
    pub const fn candidate(&self, low: u32) -> Option<u32> {
        const SPAN: u64 = 2 * WINDOW as u64;
        // One SPAN is added so that the lowest value in reach is not negative.
        let lowest = self.high as u64 + SPAN - WINDOW as u64 + 1;
        let behind = (low as u64 + 2 * SPAN - lowest % SPAN) % SPAN;
        let shifted = lowest + behind;
        if shifted <= SPAN || shifted - SPAN > u32::MAX as u64 {
            None
        } else {
            Some((shifted - SPAN) as u32)
        }
    }

    /// Whether a counter was accepted, or is so old that nobody knows.
    #[must_use]
    pub const fn is_used(&self, counter: u32) -> bool {
        if counter > self.high {
            return false;
        }
        let behind = self.high - counter;
        behind >= WINDOW || self.seen >> behind & 1 == 1
    }

    /// Marks a counter as accepted.
    ///
    /// # Errors
    /// [`Fault::Spent`] if it is used, [`Fault::Forged`] if it is out of reach: no issuer is so far ahead.
    pub const fn accept(&mut self, counter: u32) -> Result<(), Fault> {
        if self.is_used(counter) {
            return Err(Fault::Spent);
        }
        if counter > self.high {
            let ahead = counter - self.high;
            if ahead > WINDOW {
                return Err(Fault::Forged);
            }
            self.seen = if ahead == WINDOW { 0 } else { self.seen << ahead };
            self.seen |= 1;
            self.high = counter;
        } else {
            self.seen |= 1 << (self.high - counter);
        }
        Ok(())
    }

    /// Marks a counter that another verifier has accepted, however far ahead.
    pub const fn force(&mut self, counter: u32) {
        let ahead = counter.saturating_sub(self.high);
        if ahead > WINDOW {
            self.high = counter;
            self.seen = 1;
        } else {
            // Used already is as good.
            let _ = self.accept(counter);
        }
    }
}
