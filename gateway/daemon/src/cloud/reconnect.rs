//! When the link may try again. A cloud that comes back meets every gateway at once; one that closes each connection as
//! soon as it stands must not be hammered either.

use std::{collections::VecDeque, time::Duration};

use tokio::time::Instant;

/// Attempts within [`WINDOW`].
const ATTEMPTS_MAX: usize = 5;
/// The time in which attempts are counted.
const WINDOW: Duration = Duration::from_secs(60);
/// No attempt follows another faster than this.
const LEAST: Duration = Duration::from_secs(1);
/// First ceiling of a wait: five attempts with doubling ceilings fill about half a minute, so that the limit of a minute
/// is rarely what one waits for.
const CEILING_FIRST: Duration = Duration::from_secs(3);

/// The attempts of one identity.
#[derive(Debug)]
pub struct Reconnect {
    ceiling_max: Duration,
    ceiling: Duration,
    recent: VecDeque<Instant>,
    random: fastrand::Rng,
}

impl Reconnect {
    /// Waits of at most `max_s` seconds, or as long as the limit of attempts makes it.
    #[must_use]
    pub fn new(max_s: u64) -> Self {
        Self::with_seed(max_s, fastrand::u64(..))
    }

    /// As well, with waits that the seed alone decides.
    #[must_use]
    pub fn with_seed(max_s: u64, seed: u64) -> Self {
        Self {
            ceiling_max: Duration::from_secs(max_s),
            ceiling: CEILING_FIRST,
            recent: VecDeque::new(),
            random: fastrand::Rng::with_seed(seed),
        }
    }

    /// When to try next, random between a second and a ceiling that doubles; counted as an attempt.
    pub fn next(&mut self, now: Instant) -> Instant {
        let ceiling = self.ceiling.min(self.ceiling_max).max(LEAST);
        self.ceiling = self.ceiling_max.min(ceiling * 2);
        let least_ms = LEAST.as_millis() as u64;
        let wait_ms = self.random.u64(least_ms..=ceiling.as_millis() as u64);
        let mut at = now + Duration::from_millis(wait_ms);
        if self.recent.len() >= ATTEMPTS_MAX
            && let Some(first) = self.recent.pop_front()
        {
            at = at.max(first + WINDOW);
        }
        self.recent.push_back(at);
        at
    }

    /// The first attempt of all needs no wait; it counts.
    pub fn first(&mut self, now: Instant) {
        self.recent.push_back(now);
    }

    /// The last connection was good for a while.
    pub const fn reset(&mut self) {
        self.ceiling = CEILING_FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// I4: whatever the connections do - refused at once, closed after the login, good for a while - one identity makes
    /// at most five attempts in any minute, and never two in a second.
    #[test]
    fn at_most_five_attempts_a_minute_and_one_a_second() {
        for seed in 1..=200 {
            fastrand::seed(seed);
            let mut now = Instant::now();
            let mut reconnect = Reconnect::new([1, 5, 30][seed as usize % 3]);
            let mut attempts = vec![now];
            reconnect.first(now);
            for _ in 0..300 {
                let lasted_s = [0, 0, 0, 1, 9, 11, 70][fastrand::usize(..7)];
                now += Duration::from_secs(lasted_s);
                if lasted_s >= 10 {
                    reconnect.reset();
                }
                now = reconnect.next(now);
                attempts.push(now);
            }
            for pair in attempts.windows(2) {
                assert!(pair[1] - pair[0] >= LEAST, "seed {seed}");
            }
            for six in attempts.windows(ATTEMPTS_MAX + 1) {
                assert!(six[ATTEMPTS_MAX] - six[0] >= WINDOW, "seed {seed}");
            }
        }
    }
}
