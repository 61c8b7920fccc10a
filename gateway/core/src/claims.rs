//! Which part of an outlet's register belongs to a bill already, so that no interval is billed twice, in whatever order
//! the readings of its sessions come.

use alloc::vec::Vec;

use proto::money::Units;
use serde::{Deserialize, Serialize};

/// Most intervals remembered that nobody claimed below the highest claim. One is left open by each session that begins
/// before the stop of the last one is heard, or by water that flowed for nobody; beyond so many the oldest is never
/// billed.
pub(crate) const GAPS_MAX: usize = 4;

/// An interval of a register: above `from`, up to and with `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interval {
    /// Above this reading.
    pub from: Units,
    /// Up to this one.
    pub upto: Units,
}

impl Interval {
    fn shared(&self, other: &Self) -> u64 {
        self.upto.min(other.upto).since(self.from.max(other.from)).0
    }
}

/// What is claimed of one register.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Claims {
    /// The highest reading claimed.
    pub(crate) upto: Units,
    /// Below it, what nobody claimed; ascending, apart, none empty.
    pub(crate) gaps: Vec<Interval>,
}

impl Claims {
    /// How much of an interval nobody claimed yet.
    pub(crate) fn free(&self, interval: &Interval) -> Units {
        let above = interval.upto.since(interval.from.max(self.upto)).0;
        Units(above + self.gaps.iter().map(|gap| gap.shared(interval)).sum::<u64>())
    }

    /// Whether what follows this reading is claimed.
    pub(crate) fn covers(&self, register: Units) -> bool {
        register < self.upto && !self.gaps.iter().any(|gap| gap.from <= register && register < gap.upto)
    }

    /// Whether a session that started here shows a register that was set back: what it delivers is claimed by others. Of
    /// one that is over, what it delivered counts: told late, it may have ended where the next one began.
    pub(crate) fn clashes(&self, start: Units, end: Option<Units>) -> bool {
        match end {
            Some(end) => {
                let own = Interval { from: start, upto: end };
                self.free(&own) < end.since(start)
            }
            None => self.covers(start),
        }
    }

    /// Claims what is free of an interval.
    pub(crate) fn claim(&mut self, interval: &Interval) {
        let Interval { from, upto } = *interval;
        let gaps = core::mem::take(&mut self.gaps);
        for gap in gaps {
            let (below, above) = (gap.upto.min(from), gap.from.max(upto));
            self.gap(gap.from, if gap.from < from { below } else { gap.from });
            self.gap(if upto < gap.upto { above } else { gap.upto }, gap.upto);
        }
        if upto > self.upto {
            self.gap(self.upto, from);
            self.upto = upto;
        }
        let over = self.gaps.len().saturating_sub(GAPS_MAX);
        self.gaps.drain(..over);
    }

    fn gap(&mut self, from: Units, upto: Units) {
        if from < upto {
            self.gaps.push(Interval { from, upto });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval((from, upto): (u64, u64)) -> Interval {
        Interval {
            from: Units(from),
            upto: Units(upto),
        }
    }

    #[test]
    fn every_reading_is_claimed_once() {
        // Claims in turn -> what each of them got.
        let check = |claimed: &[(u64, u64)], expected: &[u64]| {
            let mut claims = Claims::default();
            let mut units = [false; 100];
            for (&ends, &expected) in claimed.iter().zip(expected) {
                let own = &mut units[ends.0 as usize..ends.1 as usize];
                assert_eq!(
                    own.iter().filter(|&&taken| !taken).count() as u64,
                    expected,
                    "{claimed:?}, by counting"
                );
                own.fill(true);
                assert_eq!(claims.free(&interval(ends)).0, expected, "{claimed:?}, {ends:?}");
                claims.claim(&interval(ends));
                assert_eq!(claims.free(&interval(ends)).0, 0, "{claimed:?}, {ends:?} again");
            }
            for (register, &taken) in units.iter().enumerate() {
                assert_eq!(
                    claims.covers(Units(register as u64)),
                    taken,
                    "{claimed:?} at {register}"
                );
            }
        };
        check(&[(0, 10), (10, 20)], &[10, 10]);
        check(&[(10, 20), (0, 10)], &[10, 10]);
        check(&[(10, 20), (10, 20)], &[10, 0]);
        check(&[(10, 20), (15, 30)], &[10, 10]);
        check(&[(10, 20), (30, 40), (15, 35)], &[10, 10, 10]);
        check(&[(10, 20), (30, 40), (22, 25), (20, 30)], &[10, 10, 3, 7]);
        check(&[(20, 30), (40, 50), (0, 60)], &[10, 10, 40]);
        check(&[(50, 60), (0, 50)], &[10, 50]);
        check(&[(5, 5), (7, 7), (0, 9)], &[0, 0, 9]);
    }

    #[test]
    fn a_register_set_back_is_no_session_told_late() {
        let mut claims = Claims::default();
        claims.claim(&interval((50, 60)));
        let check = |start, end: Option<u64>, expected| {
            assert_eq!(
                claims.clashes(Units(start), end.map(Units)),
                expected,
                "{start} {end:?}"
            );
        };
        check(60, None, false);
        check(55, None, true);
        check(50, None, true);
        check(40, None, false);
        check(40, Some(50), false);
        check(50, Some(50), false);
        check(55, Some(55), false);
        check(40, Some(51), true);
        check(55, Some(58), true);
    }

    #[test]
    fn the_oldest_gap_is_given_up() {
        let mut claims = Claims::default();
        for i in 0..10 {
            claims.claim(&interval((i * 10 + 5, i * 10 + 10)));
        }
        assert_eq!(claims.gaps.len(), GAPS_MAX);
        assert_eq!(claims.free(&interval((0, 100))), Units(20));
    }
}
