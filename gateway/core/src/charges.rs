//! Charges that no receipt has retired yet: after a long outage hundreds of thousands, which come in order and go in order.
//!
//! They lie in blocks that a snapshot shares with the state: it is taken at once, however many there are.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use proto::{id::AccountId, money::Money};

use crate::event::{Event, Kept, KeptCharge, KeptCharges};

/// Rows of a block: as many as one event of a snapshot holds within the journal's limit for a record.
const BLOCK_ROWS_MAX: usize = 96;

/// A charge that no receipt has retired yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Charge {
    pub(crate) account: AccountId,
    pub(crate) amount: Money,
    pub(crate) unsecured: bool,
}

type Block = Arc<Vec<(u64, Charge)>>;

/// Charges by the sequence of their record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Charges(VecDeque<Block>);

/// Where blocks end is no part of the state.
impl PartialEq for Charges {
    fn eq(&self, other: &Self) -> bool {
        self.rows().eq(other.rows())
    }
}

impl Eq for Charges {}

impl Charges {
    fn rows(&self) -> impl Iterator<Item = &(u64, Charge)> {
        self.0.iter().flat_map(|block| block.iter())
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &Charge> {
        self.rows().map(|(_, charge)| charge)
    }

    /// Adds one. Sequences grow; one that does not replaces what stands there, or goes where it belongs.
    pub(crate) fn insert(&mut self, sequence: u64, charge: Charge) {
        let last = self.0.back().and_then(|block| block.last());
        if last.is_none_or(|(last, _)| *last < sequence) {
            match self.0.back_mut().filter(|block| block.len() < BLOCK_ROWS_MAX) {
                Some(block) => Arc::make_mut(block).push((sequence, charge)),
                None => self.0.push_back(Arc::new(alloc::vec![(sequence, charge)])),
            }
            return;
        }
        let at = self.0.partition_point(|block| ends_below(block, sequence));
        let rows = Arc::make_mut(&mut self.0[at]);
        match rows.binary_search_by_key(&sequence, |(sequence, _)| *sequence) {
            Ok(at) => rows[at].1 = charge,
            Err(at) => rows.insert(at, (sequence, charge)),
        }
    }

    /// Removes all up to a sequence, and hands them over.
    pub(crate) fn retire(&mut self, upto: u64, mut retired: impl FnMut(&Charge)) {
        while let Some(block) = self.0.front_mut() {
            let count = block.partition_point(|(sequence, _)| *sequence <= upto);
            block[..count].iter().for_each(|(_, charge)| retired(charge));
            if count < block.len() {
                if count > 0 {
                    Arc::make_mut(block).drain(..count);
                }
                return;
            }
            self.0.pop_front();
        }
    }

    /// As events of a snapshot, made one by one.
    pub(crate) fn into_events(self) -> impl Iterator<Item = Event> {
        self.0.into_iter().flat_map(|block| {
            let parts = block.chunks(BLOCK_ROWS_MAX).map(event_of);
            parts.collect::<Vec<_>>()
        })
    }
}

fn event_of(rows: &[(u64, Charge)]) -> Event {
    let rows = rows.iter().map(|&(sequence, charge)| KeptCharge {
        sequence,
        account: charge.account,
        amount: charge.amount,
        unsecured: charge.unsecured,
    });
    Event::Kept(Kept::Charges(KeptCharges { rows: rows.collect() }))
}

fn ends_below(block: &Block, sequence: u64) -> bool {
    block.last().is_none_or(|(last, _)| *last < sequence)
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use super::*;

    fn charge(amount: i64) -> Charge {
        Charge {
            account: 7,
            amount: Money(amount),
            unsecured: amount % 2 == 0,
        }
    }

    /// A map that needs no thought.
    fn of_map(map: &BTreeMap<u64, Charge>) -> Vec<(u64, Charge)> {
        map.iter().map(|(sequence, charge)| (*sequence, *charge)).collect()
    }

    fn of_charges(charges: &Charges) -> Vec<(u64, Charge)> {
        charges.rows().copied().collect()
    }

    #[test]
    fn charges_are_a_map_that_grows_at_one_end_and_shrinks_at_the_other() {
        let (mut charges, mut map) = (Charges::default(), BTreeMap::new());
        let (mut sequence, mut seed) = (0, 9_u64);
        for step in 0..5_000 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let random = seed >> 33;
            match random % 50 {
                0 => {
                    let upto = sequence.min(sequence - sequence.min(random % 300));
                    let (mut found, mut expected) = (Vec::new(), Vec::new());
                    charges.retire(upto, |charge| found.push(*charge));
                    let open = map.split_off(&(upto + 1));
                    expected.extend(core::mem::replace(&mut map, open).into_values());
                    assert_eq!(found, expected, "step {step}");
                }
                1 => {
                    let somewhere = 1 + random % (sequence + 1);
                    charges.insert(somewhere, charge(step));
                    map.insert(somewhere, charge(step));
                }
                _ => {
                    sequence += 1 + random % 3;
                    charges.insert(sequence, charge(step));
                    map.insert(sequence, charge(step));
                }
            }
            assert_eq!(of_charges(&charges), of_map(&map), "step {step}");
        }
    }

    #[test]
    fn a_copy_stays_as_it_was_and_its_events_make_it_again() {
        let mut charges = Charges::default();
        (1..=1_000).for_each(|sequence| charges.insert(sequence, charge(sequence as i64)));
        let copy = charges.clone();
        charges.retire(510, |_| {});
        charges.insert(1_001, charge(5));
        let mut made = Charges::default();
        let events: Vec<Event> = copy.clone().into_events().collect();
        assert_eq!(events.len(), 1_000_usize.div_ceil(BLOCK_ROWS_MAX));
        for event in events {
            let Event::Kept(Kept::Charges(kept)) = event else {
                panic!()
            };
            for row in kept.rows {
                let KeptCharge {
                    sequence,
                    account,
                    amount,
                    unsecured,
                } = row;
                let charge = Charge {
                    account,
                    amount,
                    unsecured,
                };
                made.insert(sequence, charge);
            }
        }
        assert_eq!(made, copy);
        assert_eq!(charges.values().count(), 491);
    }
}
