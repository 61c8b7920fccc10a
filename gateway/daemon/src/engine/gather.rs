//! How long the engine waits for more before it syncs.
//!
//! Devices that were answered together ask again together. Whoever commits the first of them alone makes the others wait for
//! a whole sync: with a slow flash that is most of what they wait for. So if the batch before was large, and its sync slow,
//! the engine waits a little for as many again.

use std::time::Duration;

/// The least batch that is waited for: few devices are better served at once.
const WAITED_FOR_MIN: usize = 4;
/// Of the last sync, the part that is waited at most.
const SYNC_PART: u32 = 4;
/// Longest wait, however slow the disk is.
const WAIT_MAX: Duration = Duration::from_millis(3);

/// A shorter wait is not worth a sleep, which takes 50 us and more.
const SLEPT_MIN: Duration = Duration::from_micros(500);
/// A wait is slept through in so many parts.
const PAUSES: u32 = 8;

/// What the batch before was like.
#[derive(Debug, Default)]
pub(super) struct Gather {
    jobs: usize,
    sync: Duration,
}

impl Gather {
    /// A batch has so many jobs.
    pub(super) fn took(&mut self, jobs: usize) {
        self.jobs = jobs;
    }

    /// A sync took so long.
    pub(super) fn synced(&mut self, took: Duration) {
        // A single slow sync among quick ones is not what the next one will be like.
        self.sync = if self.sync.is_zero() {
            took
        } else {
            (self.sync * 3 + took) / 4
        };
    }

    /// How many jobs to wait for, and how long at most.
    pub(super) fn wanted(&self) -> Option<(usize, Duration)> {
        (self.jobs >= WAITED_FOR_MIN).then(|| (self.jobs, (self.sync / SYNC_PART).min(WAIT_MAX)))
    }
}

/// Lets others go on for a moment, of a wait that is this long in all.
pub(super) fn pause(wait: Duration) {
    if wait < SLEPT_MIN {
        std::thread::yield_now();
    } else {
        std::thread::sleep(wait / PAUSES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(4);

    #[test]
    fn as_many_are_waited_for_as_came_before_for_a_part_of_a_sync() {
        let mut gather = Gather::default();
        assert_eq!(gather.wanted(), None);
        gather.took(20);
        gather.synced(SLOW);
        assert_eq!(gather.wanted(), Some((20, Duration::from_millis(1))));
        gather.took(7);
        assert_eq!(gather.wanted(), Some((7, Duration::from_millis(1))));
    }

    #[test]
    fn a_few_are_not_waited_for() {
        let mut gather = Gather::default();
        gather.took(3);
        gather.synced(SLOW);
        assert_eq!(gather.wanted(), None);
    }

    #[test]
    fn a_slow_disk_or_one_slow_sync_does_not_make_everybody_wait_long() {
        let mut gather = Gather::default();
        gather.took(20);
        gather.synced(Duration::from_secs(1));
        assert_eq!(gather.wanted(), Some((20, WAIT_MAX)));
        let mut gather = Gather::default();
        gather.took(20);
        for _ in 0..9 {
            gather.synced(Duration::from_micros(100));
        }
        gather.synced(SLOW);
        let (_, wait) = gather.wanted().unwrap();
        assert!(wait < Duration::from_micros(300), "{wait:?}");
    }
}
