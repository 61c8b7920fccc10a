//! Questions on their way to a cloud, and which of them it left without an answer.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

/// A question that is not answered for so long is a failure of its cloud.
const ANSWER_WAIT: Duration = Duration::from_secs(2);
/// Questions without an answer that are watched.
const ASKED_MAX: usize = 256;

/// Questions on their way, and since when.
#[derive(Debug, Default)]
pub(super) struct Asked(BTreeMap<u64, Instant>);

impl Asked {
    /// One leaves.
    pub(super) fn asked(&mut self, ask: u64, at: Instant) {
        if self.0.len() < ASKED_MAX {
            self.0.insert(ask, at);
        }
    }

    /// One was answered, or there is trouble with it.
    pub(super) fn over(&mut self, ask: u64) {
        self.0.remove(&ask);
    }

    /// Forgets those that were not answered in time; how many. Only to be asked when everything that came was heard.
    pub(super) fn give_up(&mut self, now: Instant) -> usize {
        let before = self.0.len();
        self.0.retain(|_, since| now.duration_since(*since) < ANSWER_WAIT);
        before - self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_counted_once_for_each_question() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut asked = Asked::default();
        (1..=3).for_each(|ask| asked.asked(ask, at(ask * 100)));
        asked.over(2);
        // When it is looked at -> how many have been silent for too long.
        for (ms, expected) in [(2_099, 0), (2_100, 1), (2_100, 0), (2_299, 0), (9_000, 1), (9_000, 0)] {
            assert_eq!(asked.give_up(at(ms)), expected, "after {ms} ms");
        }
        (0..1_000).for_each(|ask| asked.asked(ask, at(0)));
        assert_eq!(asked.give_up(at(9_000)), ASKED_MAX, "no more than are watched");
    }
}
