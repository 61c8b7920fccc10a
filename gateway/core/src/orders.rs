//! Commands that the cloud gave an id: each runs once, in whatever order and how often it comes.

use serde::{Deserialize, Serialize};

/// Commands that may come out of order: below the highest by more than this, one counts as run.
const WINDOW: u64 = 64;

/// Which commands have run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The highest id that has run; 0: none.
    pub high: u64,
    /// Bit n: the command with the id `high - n` has run.
    pub seen: u64,
}

impl Orders {
    /// Whether a command has run, or is too old to tell.
    #[must_use]
    pub const fn has(&self, id: u64) -> bool {
        match self.high.checked_sub(id) {
            None => false,
            Some(behind) => behind >= WINDOW || self.seen & (1 << behind) != 0,
        }
    }

    /// A command runs.
    pub(crate) const fn take(&mut self, id: u64) {
        match self.high.checked_sub(id) {
            None => {
                let ahead = id - self.high;
                self.seen = if ahead >= WINDOW { 0 } else { self.seen << ahead };
                self.seen |= 1;
                self.high = id;
            }
            Some(behind) if behind < WINDOW => self.seen |= 1 << behind,
            Some(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_id_once_in_any_order() {
        // Ids in turn -> whether each had run before.
        let check = |ids: &[u64], expected: &[bool]| {
            let mut orders = Orders::default();
            for (&id, &expected) in ids.iter().zip(expected) {
                assert_eq!(orders.has(id), expected, "{ids:?} at {id}");
                orders.take(id);
                assert!(orders.has(id), "{ids:?} at {id}, taken");
            }
        };
        check(&[1, 2, 3, 2, 1], &[false, false, false, true, true]);
        check(&[5, 3, 4, 3, 5], &[false, false, false, true, true]);
        check(&[1, 65, 1, 2], &[false, false, true, false]);
        check(&[1, 66, 1, 2, 3], &[false, false, true, true, false]);
        check(
            &[1, u64::MAX, 1, u64::MAX - 63, u64::MAX - 64],
            &[false, false, true, false, true],
        );
    }
}
