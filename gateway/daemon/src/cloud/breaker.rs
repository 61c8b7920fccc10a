//! Whether a cloud is to be relied on, one breaker each. It opens after failures in a row and closes slowly, on proofs of
//! the operator's backend alone. An open breaker takes no trust away: it only lets the next cloud go first.

use fastrand::Rng;

/// Failures in a row that open it.
const FAILURES_MAX: u32 = 3;
/// Failures further apart than this are not in a row, in ms.
const ROW_MS: u64 = 30_000;
/// Proofs in a row that close it.
const PROOFS_MIN: u32 = 3;
/// First wait between two probes of an open one, in ms.
const PROBE_FIRST_MS: u64 = 5_000;
/// Longest wait between two probes, in ms.
const PROBE_MAX_MS: u64 = 300_000;
/// Shortest wait between two probes, in ms.
const PROBE_LEAST_MS: u64 = 500;

/// One cloud's breaker. Its clock is any that never goes back, in ms.
#[derive(Debug)]
pub struct Breaker {
    heal_ms: u64,
    random: Rng,
    failures: u32,
    failed_ms: u64,
    /// Since when it is open.
    open: Option<u64>,
    proofs: u32,
    proved_ms: u64,
    /// Whether nothing good came since the last probe.
    is_probed: bool,
    probe_at_ms: u64,
    probe_wait_ms: u64,
}

impl Breaker {
    /// A closed one. `heal_ms`: for how long proofs must come before it closes again.
    #[must_use]
    pub const fn new(heal_ms: u64, random: Rng) -> Self {
        Self {
            heal_ms,
            random,
            failures: 0,
            failed_ms: 0,
            open: None,
            proofs: 0,
            proved_ms: 0,
            is_probed: false,
            probe_at_ms: 0,
            probe_wait_ms: PROBE_FIRST_MS,
        }
    }

    /// Whether the next cloud goes first.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// Since when it is open, in ms.
    #[must_use]
    pub const fn open_since_ms(&self) -> Option<u64> {
        self.open
    }

    /// The backend answered, receipted or echoed through this cloud.
    pub fn good(&mut self, now_ms: u64) {
        self.failures = 0;
        self.is_probed = false;
        if self.open.is_none() {
            return;
        }
        if self.proofs == 0 {
            self.proved_ms = now_ms;
        }
        self.proofs += 1;
        self.probe_wait_ms = PROBE_FIRST_MS;
        self.plan(now_ms, (self.heal_ms / u64::from(PROOFS_MIN)).max(PROBE_LEAST_MS));
        if self.proofs > PROOFS_MIN && now_ms.saturating_sub(self.proved_ms) >= self.heal_ms {
            self.open = None;
        }
    }

    /// Something failed that should not have.
    pub fn failed(&mut self, now_ms: u64) {
        if now_ms.saturating_sub(self.failed_ms) > ROW_MS {
            self.failures = 0;
        }
        self.failures = self.failures.saturating_add(1);
        self.failed_ms = now_ms;
        self.proofs = 0;
        if self.failures >= FAILURES_MAX {
            self.broke(now_ms);
        }
    }

    /// What failed leaves no doubt.
    pub fn broke(&mut self, now_ms: u64) {
        self.proofs = 0;
        if self.open.is_none() {
            self.open = Some(now_ms);
            self.probe_wait_ms = PROBE_FIRST_MS;
        }
        let ceiling = self.probe_wait_ms;
        self.probe_wait_ms = (ceiling * 2).min(PROBE_MAX_MS);
        self.plan(now_ms, ceiling);
    }

    /// When an open one is probed next, in ms.
    #[must_use]
    pub fn probe_at_ms(&self) -> Option<u64> {
        self.open.map(|_| self.probe_at_ms)
    }

    /// A probe leaves; if nothing comes of it, the next one waits longer, and the proofs begin again.
    pub fn probed(&mut self, now_ms: u64) {
        if self.is_probed {
            self.proofs = 0;
        }
        self.is_probed = true;
        let ceiling = self.probe_wait_ms;
        self.probe_wait_ms = (ceiling * 2).min(PROBE_MAX_MS);
        self.plan(now_ms, ceiling);
    }

    fn plan(&mut self, now_ms: u64, ceiling_ms: u64) {
        let ceiling_ms = ceiling_ms.max(PROBE_LEAST_MS + 1);
        self.probe_at_ms = now_ms + self.random.u64(ceiling_ms / 2..ceiling_ms).max(PROBE_LEAST_MS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn breaker(seed: u64) -> Breaker {
        Breaker::new(60_000, Rng::with_seed(seed))
    }

    #[test]
    fn three_failures_in_a_row_open_it() {
        // When what failed (true) or went well (false) -> whether it is open after the last.
        let check = |story: &[(u64, bool)], expected: bool| {
            let mut breaker = breaker(1);
            for &(at_ms, fails) in story {
                if fails {
                    breaker.failed(at_ms);
                } else {
                    breaker.good(at_ms);
                }
            }
            assert_eq!(breaker.is_open(), expected, "{story:?}");
        };
        check(&[(0, true), (1, true)], false);
        check(&[(0, true), (1, true), (2, true)], true);
        check(&[(0, true), (1, true), (2, false), (3, true), (4, true)], false);
        check(&[(0, true), (31_000, true), (62_000, true)], false);
        check(&[(0, true), (29_000, true), (58_000, true)], true);
    }

    #[test]
    fn it_closes_on_proofs_that_last() {
        for seed in 1..=100 {
            let mut breaker = breaker(seed);
            breaker.broke(0);
            let mut now_ms = 0;
            let mut closed_ms = None;
            for _ in 0..20 {
                now_ms = breaker.probe_at_ms().map_or(now_ms, |at| at.max(now_ms));
                breaker.probed(now_ms);
                breaker.good(now_ms + 50);
                if !breaker.is_open() {
                    closed_ms = Some(now_ms);
                    break;
                }
            }
            let closed_ms = closed_ms.expect("proofs close it");
            assert!((60_000..240_000).contains(&closed_ms), "seed {seed}: {closed_ms}");
        }
    }

    /// Two of three probes come back: never so many in a row as it takes.
    #[test]
    fn a_lost_probe_begins_the_proofs_again() {
        for seed in 1..=100 {
            let mut breaker = breaker(seed);
            breaker.broke(0);
            let mut now_ms = 0;
            for probe in 0..60 {
                now_ms = breaker.probe_at_ms().expect("it stays open").max(now_ms);
                breaker.probed(now_ms);
                if probe % 3 != 2 {
                    breaker.good(now_ms + 50);
                }
            }
            assert!(breaker.is_open(), "seed {seed}");
        }
    }

    #[test]
    fn one_failure_begins_the_proofs_again() {
        let mut breaker = breaker(7);
        breaker.broke(0);
        for at_ms in [1_000, 30_000, 55_000] {
            breaker.good(at_ms);
        }
        breaker.failed(59_000);
        breaker.good(61_000);
        breaker.good(90_000);
        assert!(breaker.is_open());
        breaker.good(110_000);
        breaker.good(121_000);
        assert!(!breaker.is_open());
    }

    #[test]
    fn probes_of_a_dead_cloud_become_rare() {
        let mut breaker = breaker(3);
        breaker.broke(0);
        let (mut now_ms, mut probes) = (0, 0);
        while now_ms < 24 * 3_600_000 {
            now_ms = breaker.probe_at_ms().unwrap();
            breaker.probed(now_ms);
            probes += 1;
        }
        assert!((280..600).contains(&probes), "{probes} a day");
    }
}
