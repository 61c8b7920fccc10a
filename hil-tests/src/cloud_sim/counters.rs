//! What passed a cloud, counted.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

/// The time in which attempts are counted (I4: at most five a minute, never two a second), in ms: a minute, less what a busy
/// machine may delay the first of them.
pub(crate) const MINUTE_MS: u64 = 59_000;
/// Attempts that are remembered: of 10,000 gateways a hundred each.
const ATTEMPTS_MAX: usize = 1_000_000;

/// A number that grows.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// One more.
    pub fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// How many.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $words:literal,)+) => {
        /// What passed so far.
        #[derive(Debug, Default)]
        pub struct Counters {
            $($(#[$doc])* pub $name: Count,)+
            attempts: Mutex<Vec<(String, u64)>>,
        }

        impl Counters {
            /// Every number, with what it counts.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($words, self.$name.get()),)+]
            }
        }
    };
}

counters! {
    /// Connections.
    opened = "connections",
    /// Logins let in.
    logins = "logins let in",
    /// Logins refused.
    refused = "logins refused",
    /// Connections closed by the cloud, or never answered.
    closed = "connections closed by the cloud",
    /// Sessions taken over by a second login.
    taken_over = "sessions taken over",
    /// Messages or requests taken.
    messages = "messages of gateways",
    /// Frames passed on to the operator.
    carried_up = "frames carried up",
    /// Frames passed on from the operator.
    carried_down = "frames carried down",
    /// False denials told.
    denied = "denials told",
    /// Messages swallowed in silence.
    swallowed = "messages swallowed",
    /// Requests told to slow down, or dropped for being too many.
    throttled = "messages throttled",
    /// What the real cloud would not have taken.
    breaches = "rules of the cloud broken",
    /// Sub-devices logged in.
    sub_logins = "logins of sub-devices",
    /// Order events for the operator's people, each counted once.
    orders = "orders shown to the operator",
    /// The same again.
    orders_again = "orders shown again",
}

impl Counters {
    /// Somebody tried to connect, or to log in.
    pub(crate) fn attempt(&self, who: &str, now_ms: u64) {
        let mut attempts = self.attempts.lock().expect("nothing panics under this lock");
        if attempts.len() < ATTEMPTS_MAX {
            attempts.push((who.to_owned(), now_ms));
        }
    }

    /// How often each identity tried: the most in any minute, and the shortest time between two attempts, in ms.
    #[must_use]
    pub fn pace(&self) -> BTreeMap<String, (usize, Option<u64>)> {
        let attempts = self.attempts.lock().expect("nothing panics under this lock");
        let mut times: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for (who, at_ms) in attempts.iter() {
            times.entry(who).or_default().push(*at_ms);
        }
        let paces = times.into_iter().map(|(who, times)| (who.to_owned(), pace(&times)));
        paces.collect()
    }
}

fn pace(times: &[u64]) -> (usize, Option<u64>) {
    let in_a_minute = |from: usize| {
        times[from..]
            .iter()
            .take_while(|at| **at < times[from] + MINUTE_MS)
            .count()
    };
    let most = (0..times.len()).map(in_a_minute).max().unwrap_or(0);
    (most, times.windows(2).map(|pair| pair[1] - pair[0]).min())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paces() {
        let counters = Counters::default();
        for at_ms in [0, 1_000, 59_999, 60_000, 61_500] {
            counters.attempt("gw", at_ms);
        }
        counters.attempt("other", 7);
        let paces = counters.pace();
        assert_eq!(paces["gw"], (3, Some(1)));
        assert_eq!(paces["other"], (1, None));
    }
}
