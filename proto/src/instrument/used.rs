//! The numbers of vouchers that a device has accepted by itself.

use serde::{Deserialize, Serialize};

use super::Fault;

/// Most numbers kept: as many vouchers as a device may accept by itself before one of them expires. With it the record
/// that holds them stays below 1 KiB.
pub const USED_MAX: usize = 32;

/// A voucher that was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UsedUp(
    /// Its number.
    pub u64,
    /// Its last second (seconds since 1970 UTC).
    pub u64,
);

/// Numbers that were accepted. A number is forgotten only when its voucher has expired and the room is needed, and no
/// voucher that expires no later is accepted from then on: a clock that is set back revives nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    numbers: heapless::Vec<UsedUp, USED_MAX>,
    /// The latest expiry that was forgotten.
    forgotten_s: u64,
}

impl Used {
    /// Whether a voucher may be accepted.
    ///
    /// # Errors
    /// [`Fault::Spent`], [`Fault::Expired`] if nobody knows any more, [`Fault::Full`] if it could not be remembered.
    pub fn check(&self, number: u64, not_after_s: u64, wall_s: Option<u64>) -> Result<(), Fault> {
        if self.numbers.iter().any(|used| used.0 == number) {
            return Err(Fault::Spent);
        }
        if not_after_s <= self.forgotten_s {
            return Err(Fault::Expired);
        }
        if self.numbers.is_full() && self.expired(wall_s).is_none() {
            return Err(Fault::Full);
        }
        Ok(())
    }

    /// Remembers a voucher; one that is known already stays.
    ///
    /// # Errors
    /// [`Fault::Full`]; nothing was changed.
    pub fn mark(&mut self, number: u64, not_after_s: u64, wall_s: Option<u64>) -> Result<(), Fault> {
        if self.numbers.iter().any(|used| used.0 == number) {
            return Ok(());
        }
        if self.numbers.is_full() {
            let i = self.expired(wall_s).ok_or(Fault::Full)?;
            let UsedUp(_, expired_s) = self.numbers.swap_remove(i);
            self.forgotten_s = self.forgotten_s.max(expired_s);
        }
        self.numbers.push(UsedUp(number, not_after_s)).map_err(|_| Fault::Full)
    }

    /// Takes a voucher back: nothing was drawn.
    pub fn unmark(&mut self, number: u64) {
        if let Some(i) = self.numbers.iter().position(|used| used.0 == number) {
            self.numbers.swap_remove(i);
        }
    }

    /// The one that expired first, if any has.
    fn expired(&self, wall_s: Option<u64>) -> Option<usize> {
        let wall_s = wall_s?;
        let (i, first) = self.numbers.iter().enumerate().min_by_key(|(_, used)| used.1)?;
        (first.1 < wall_s).then_some(i)
    }
}
