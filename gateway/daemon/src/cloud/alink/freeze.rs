//! Too many good sub-devices denied at once: the mark of a cloud that has lost part of its books (2023-11-12). Then no
//! denial is worth naming, and those denied are asked for one at a time, slowly, until it knows them again.

use std::collections::VecDeque;

/// The time within which denials are counted together.
pub(super) const WINDOW_MS: u64 = 600_000;
/// Fewer denials than that are no pattern.
const DENIED_MIN: usize = 3;
/// One in so many of the good ones is too many.
const GOOD_PER_DENIED: usize = 100;
/// First wait between two questions while frozen; doubles with each that fails.
const PROBE_FIRST_MS: u64 = 60_000;
/// Longest wait between two questions while frozen.
const PROBE_MAX_MS: u64 = 300_000;
/// So many questions in a row that go well end it.
const WELL_MIN: u32 = 3;
/// Sub-devices named to people within [`WINDOW_MS`]; beyond it, nobody reads them.
const NAMED_MAX: usize = 10;

/// How many denials are too many.
pub(super) fn threshold(good: usize) -> usize {
    DENIED_MIN.max(good.div_ceil(GOOD_PER_DENIED))
}

/// While denials count for nothing.
#[derive(Debug)]
pub(super) struct Freeze {
    wait_ms: u64,
    /// When to ask for one of the denied again.
    pub(super) probe_ms: u64,
    well: u32,
}

impl Freeze {
    pub(super) fn begin(now_ms: u64, random: &mut fastrand::Rng) -> Self {
        let mut freeze = Self {
            wait_ms: PROBE_FIRST_MS,
            probe_ms: 0,
            well: 0,
        };
        freeze.schedule(now_ms, random);
        freeze
    }

    /// Between half of the wait and the whole of it from now.
    pub(super) fn schedule(&mut self, now_ms: u64, random: &mut fastrand::Rng) {
        self.probe_ms = now_ms + random.u64(self.wait_ms / 2..=self.wait_ms);
    }

    /// One of the denied was denied again, or not answered.
    pub(super) fn failed(&mut self) {
        self.well = 0;
        self.wait_ms = (self.wait_ms * 2).min(PROBE_MAX_MS);
    }

    /// One of the denied was let in. True: it is over.
    pub(super) const fn went_well(&mut self) -> bool {
        self.well += 1;
        self.wait_ms = PROBE_FIRST_MS;
        self.well >= WELL_MIN
    }
}

/// Whether people may still be told of one more sub-device.
#[derive(Debug, Default)]
pub(super) struct Naming(VecDeque<u64>);

impl Naming {
    pub(super) fn may_name(&mut self, now_ms: u64) -> bool {
        while self.0.front().is_some_and(|first| first + WINDOW_MS <= now_ms) {
            self.0.pop_front();
        }
        if self.0.len() >= NAMED_MAX {
            return false;
        }
        self.0.push_back(now_ms);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_of_a_few_and_one_in_a_hundred_of_many() {
        for (good, expected) in [(0, 3), (3, 3), (300, 3), (301, 4), (2000, 20)] {
            assert_eq!(threshold(good), expected, "{good}");
        }
    }

    #[test]
    fn questions_get_rarer_while_they_fail_and_three_good_ones_end_it() {
        let mut random = fastrand::Rng::with_seed(7);
        let mut freeze = Freeze::begin(0, &mut random);
        let mut now_ms = 0;
        for ceiling_ms in [60_000, 120_000, 240_000, 300_000, 300_000] {
            let wait_ms = freeze.probe_ms - now_ms;
            assert!((ceiling_ms / 2..=ceiling_ms).contains(&wait_ms), "{wait_ms}");
            now_ms = freeze.probe_ms;
            freeze.failed();
            freeze.schedule(now_ms, &mut random);
        }
        assert!(!freeze.went_well() && !freeze.went_well());
        freeze.failed();
        assert!(!freeze.went_well() && !freeze.went_well() && freeze.went_well());
    }

    #[test]
    fn ten_are_named_in_ten_minutes() {
        let mut naming = Naming::default();
        let named = (0..50).filter(|second| naming.may_name(second * 1000)).count();
        assert_eq!(named, 10);
        assert!(!naming.may_name(WINDOW_MS - 1));
        assert!(naming.may_name(WINDOW_MS));
    }
}
