//! When the link may try again. A cloud that comes back meets every gateway at once; one that closes each connection as
//! soon as it stands must not be hammered either.

use std::{collections::VecDeque, time::Duration};

use carrier::{Class, Symptom};
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

/// How long a cloud is left alone after a connection ended so, whatever the backoff says. `has_worked`: it took us
/// before, so that a denial is an outage that ends by itself.
#[must_use]
pub fn floor(why: &Symptom, has_worked: bool) -> Duration {
    let floor = match why.class {
        Class::Denied if has_worked => DENIED,
        Class::Duplicate => DUPLICATE,
        Class::Intercepted | Class::Billing => INTERCEPTED,
        Class::Clock | Class::Denied => DENIED,
        Class::Partition
        | Class::Claimed
        | Class::Throttled
        | Class::Broken
        | Class::HalfDead
        | Class::Protocol
        | Class::SessionLost => Duration::ZERO,
    };
    floor.max(why.retry_after.unwrap_or_default().min(RETRY_AFTER_MAX))
}

/// A cloud that denies us heals by itself or not at all.
const DENIED: Duration = Duration::from_secs(20);
/// Two who use one identity must not race.
const DUPLICATE: Duration = Duration::from_secs(60);
/// Whoever answers in the cloud's place does so for a while; so does an unpaid bill.
const INTERCEPTED: Duration = Duration::from_secs(60);
/// Longest time that a cloud may ask for: a word of its own must not keep us away for a day.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(900);

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

    /// When to try next, random between a second and a ceiling that doubles, and not before `floor`; counted as an attempt.
    pub fn next(&mut self, now: Instant, floor: Duration) -> Instant {
        let ceiling = self.ceiling.min(self.ceiling_max).max(LEAST);
        self.ceiling = self.ceiling_max.min(ceiling * 2);
        let least_ms = LEAST.as_millis() as u64;
        let wait_ms = self.random.u64(least_ms..=ceiling.as_millis() as u64);
        let mut at = now + Duration::from_millis(wait_ms) + self.spread(floor);
        if self.recent.len() >= ATTEMPTS_MAX
            && let Some(first) = self.recent.pop_front()
        {
            at = at.max(first + WINDOW);
        }
        self.recent.push_back(at);
        at
    }

    /// The floor, and up to half of it more: whoever saw the same does not come back in the same second.
    fn spread(&mut self, floor: Duration) -> Duration {
        let floor_ms = floor.as_millis() as u64;
        Duration::from_millis(floor_ms + self.random.u64(0..=floor_ms / 2))
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
                now = reconnect.next(now, Duration::from_secs([0, 0, 60][fastrand::usize(..3)]));
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
