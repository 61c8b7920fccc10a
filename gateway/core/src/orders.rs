//! Orders that the operator gave through his hub: each runs once, in whatever order and how often it comes, and is answered
//! the same way every time; and the outlets that are kept free by one.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{
    id::{DeviceId, OutletId, TokenHash},
    link::{ORDERS_REMEMBERED, OrderOutcome},
    message::Stamp,
};
use serde::{Deserialize, Serialize};

use crate::time::Instant;

/// What became of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fate {
    /// Which.
    pub id: u64,
    /// What became of it.
    pub outcome: OrderOutcome,
    /// When that was decided.
    pub at: Stamp,
}

/// Which orders have come, and what they set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Orders {
    /// The newest, ascending by number; at most [`ORDERS_REMEMBERED`].
    fates: Vec<Fate>,
    /// Up to this number nobody remembers what became of an order.
    floor: u64,
    /// Seconds between two reports of telemetry; `None`: as configured.
    pub(crate) telemetry_every_s: Option<u64>,
}

impl Orders {
    /// What became of those that are remembered, ascending by number.
    #[must_use]
    pub fn fates(&self) -> &[Fate] {
        &self.fates
    }

    /// What became of an order; `None`: it has not come, or nobody remembers.
    #[must_use]
    pub fn fate(&self, id: u64) -> Option<&Fate> {
        let at = self.fates.binary_search_by_key(&id, |fate| fate.id).ok()?;
        self.fates.get(at)
    }

    /// Whether an order is so old that it may have run without anybody remembering.
    #[must_use]
    pub const fn is_forgotten(&self, id: u64) -> bool {
        id <= self.floor
    }

    /// Seconds between two reports of telemetry, 0: none; `None`: the operator never gave an order about it.
    #[must_use]
    pub const fn telemetry_every_s(&self) -> Option<u64> {
        self.telemetry_every_s
    }

    /// An order has come to its end.
    pub(crate) fn take(&mut self, fate: Fate) {
        if let Err(at) = self.fates.binary_search_by_key(&fate.id, |known| known.id) {
            self.fates.insert(at, fate);
        }
        if self.fates.len() > ORDERS_REMEMBERED {
            self.floor = self.fates.remove(0).id;
        }
    }
}

/// An outlet that is kept free for somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reservation {
    /// For whom.
    pub token: TokenHash,
    /// Until when, on the gateway's own line of time.
    pub until: Instant,
    /// By which order.
    pub order: u64,
}

/// All outlets that are kept free for somebody; one of each is, at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reservations(pub(crate) BTreeMap<(DeviceId, OutletId), Reservation>);

impl Reservations {
    /// Which outlets, and for whom.
    pub fn iter(&self) -> impl Iterator<Item = (&DeviceId, OutletId, &Reservation)> {
        self.0
            .iter()
            .map(|((device, outlet), reservation)| (device, *outlet, reservation))
    }

    /// Whoever an outlet is kept free for at this moment.
    #[must_use]
    pub fn of(&self, device: &DeviceId, outlet: OutletId, at: Instant) -> Option<&Reservation> {
        self.0
            .get(&(*device, outlet))
            .filter(|reservation| at < reservation.until)
    }

    /// Whether an outlet is kept free for somebody else at this moment.
    pub(crate) fn is_for_another(&self, device: &DeviceId, outlet: OutletId, token: &TokenHash, at: Instant) -> bool {
        self.of(device, outlet, at)
            .is_some_and(|reservation| reservation.token != *token)
    }

    /// When the next one is over.
    pub(crate) fn next_end(&self) -> Option<Instant> {
        self.0.values().map(|reservation| reservation.until).min()
    }

    /// One that is over.
    pub(crate) fn over(&self, at: Instant) -> Option<(DeviceId, OutletId, &Reservation)> {
        self.iter()
            .find(|(_, _, reservation)| reservation.until <= at)
            .map(|(device, outlet, reservation)| (*device, outlet, reservation))
    }

    /// The one who had it reserved begins a session there.
    pub(crate) fn used(&mut self, device: &DeviceId, outlet: OutletId, token: &TokenHash) {
        let place = (*device, outlet);
        if self
            .0
            .get(&place)
            .is_some_and(|reservation| reservation.token == *token)
        {
            self.0.remove(&place);
        }
    }
}

#[cfg(test)]
mod tests {
    use proto::message::ClockQuality;

    use super::*;

    fn fate(id: u64) -> Fate {
        let at = Stamp {
            mono_ms: id,
            wall_s: 0,
            quality: ClockQuality::Unknown,
        };
        let outcome = OrderOutcome::Done;
        Fate { id, outcome, at }
    }

    #[test]
    fn each_number_once_in_any_order() {
        // Numbers in turn -> whether each had come before, or may have.
        let check = |ids: &[u64], expected: &[bool]| {
            let mut orders = Orders::default();
            for (&id, &expected) in ids.iter().zip(expected) {
                let has = |orders: &Orders| orders.is_forgotten(id) || orders.fate(id).is_some();
                assert_eq!(has(&orders), expected, "{ids:?} at {id}");
                if !expected {
                    orders.take(fate(id));
                }
                assert!(has(&orders), "{ids:?} at {id}, taken");
            }
        };
        check(&[1, 2, 3, 2, 1], &[false, false, false, true, true]);
        check(&[5, 3, 4, 3, 5], &[false, false, false, true, true]);
        // Numbers may lie far apart: what counts is how many came, not how far.
        check(&[7, 1_700_000_000, u64::MAX, 9, 7], &[false, false, false, false, true]);
    }

    #[test]
    fn the_newest_are_remembered_and_older_ones_count_as_run() {
        let remembered = ORDERS_REMEMBERED as u64;
        let mut orders = Orders::default();
        for id in 1..=remembered {
            orders.take(fate(id * 10));
        }
        assert!(!orders.is_forgotten(10), "all are remembered");
        assert!(!orders.is_forgotten(5), "one that was overtaken by all may still come");
        orders.take(fate(5));
        assert!(orders.is_forgotten(5), "the least is given up");
        orders.take(fate(u64::MAX));
        assert!(orders.is_forgotten(7) && orders.is_forgotten(10) && !orders.is_forgotten(11));
        assert_eq!(orders.fates().len() as u64, remembered);
        assert_eq!(orders.fate(20), Some(&fate(20)));
    }
}
