//! How long the engine waits for more before it syncs.
//!
//! Devices that were answered together ask again together. Whoever commits the first of them alone makes the others wait for
//! a whole sync: with a slow flash that is most of what they wait for. So if the two batches before were large together, the
//! engine waits for as many again, as long as they keep coming, and never longer than a part of a sync.

use std::time::Duration;

/// The least number of jobs that is waited for: few devices are better served at once.
const WAITED_FOR_MIN: usize = 4;
/// Of a sync, the part that is waited for the next job, and for all of them: as long as they keep coming, they belong
/// together.
const GAP_PART: u32 = 8;
const ALL_PART: u32 = 2;
/// Longest wait, however slow the disk is.
const WAIT_MAX: Duration = Duration::from_millis(5);
/// A shorter gap is not worth a sleep, which takes 50 us and more.
const SLEPT_MIN: Duration = Duration::from_micros(200);
/// A gap is slept through in so many parts.
const PAUSES: u32 = 4;

/// What the batches before were like.
#[derive(Debug, Default)]
pub(super) struct Gather {
    /// Jobs of the last one, and of the one before: two halves of a crowd that take turns are one crowd.
    jobs: [usize; 2],
    sync: Duration,
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// So many jobs.
    pub(super) jobs: usize,
    /// Longest wait behind each.
    pub(super) gap: Duration,
    /// Longest wait in all.
    pub(super) all: Duration,
}

impl Gather {
    /// A batch has so many jobs.
    pub(super) fn took(&mut self, jobs: usize) {
        self.jobs = [jobs, self.jobs[0]];
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
    pub(super) fn wanted(&self) -> Option<Wanted> {
        let jobs = self.jobs.iter().sum();
        (jobs >= WAITED_FOR_MIN).then(|| Wanted {
            jobs,
            gap: (self.sync / GAP_PART).min(WAIT_MAX),
            all: (self.sync / ALL_PART).min(WAIT_MAX),
        })
    }
}

impl Wanted {
    /// Lets others go on for a moment.
    pub(super) fn pause(&self) {
        if self.gap < SLEPT_MIN {
            std::thread::yield_now();
        } else {
            std::thread::sleep(self.gap / PAUSES);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(4);

    fn after(jobs: [usize; 2], sync: Duration) -> Option<Wanted> {
        let mut gather = Gather::default();
        jobs.into_iter().for_each(|jobs| gather.took(jobs));
        gather.synced(sync);
        gather.wanted()
    }

    #[test]
    fn as_many_are_waited_for_as_came_in_two_batches_for_a_part_of_a_sync() {
        let wanted = Wanted {
            jobs: 20,
            gap: Duration::from_micros(500),
            all: Duration::from_millis(2),
        };
        assert_eq!(after([1, 19], SLOW), Some(wanted));
        assert_eq!(after([10, 10], SLOW), Some(wanted));
        assert_eq!(Gather::default().wanted(), None);
    }

    #[test]
    fn a_few_are_not_waited_for() {
        assert_eq!(after([1, 1], SLOW), None);
        assert_eq!(after([2, 1], SLOW), None);
        assert!(after([2, 2], SLOW).is_some());
    }

    #[test]
    fn a_slow_disk_or_one_slow_sync_does_not_make_everybody_wait_long() {
        let wanted = after([20, 20], Duration::from_secs(1)).unwrap();
        assert_eq!((wanted.gap, wanted.all), (WAIT_MAX, WAIT_MAX));
        let mut gather = Gather::default();
        (0..2).for_each(|_| gather.took(20));
        (0..9).for_each(|_| gather.synced(Duration::from_micros(100)));
        gather.synced(SLOW);
        let wanted = gather.wanted().unwrap();
        assert!(wanted.gap < Duration::from_micros(200), "{wanted:?}");
    }
}
