//! Orders a second time: each number once, none too late, each outcome for a reason that is true, the same answer every
//! time; and outlets that are kept free.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{
    Now,
    event::{Commanded, Granted, Ordered, Unreserved},
};
use proto::{
    id::{DeviceId, SessionId, TokenHash},
    link::{AHEAD_S_MAX, MODE_ALONE, Order, OrderDone, OrderOutcome, OrderVerb},
    message::{OutletState, Stamp, Verb},
};

use super::Auditor;
use crate::marks::{Mark, Marks};

/// An outlet that is kept free.
#[derive(Clone, Copy, Debug)]
struct Reserved {
    token: TokenHash,
    /// On the gateway's line of time.
    until_ms: u64,
    order: u64,
}

#[derive(Default)]
pub(super) struct Orders {
    /// What the operator gave.
    given: BTreeMap<u64, Order>,
    /// What became of it, as the journal has it.
    fates: BTreeMap<u64, (OrderOutcome, Stamp)>,
    commanded: BTreeSet<u64>,
    reserved: BTreeMap<(DeviceId, u8), Reserved>,
    /// The last start at each outlet: for whom, and not after which time.
    starts: BTreeMap<(DeviceId, u8), (TokenHash, u64)>,
}

impl Auditor {
    pub(crate) fn order_given(&mut self, order: &Order) {
        self.orders.given.insert(order.id, order.clone());
    }

    /// The gateway tells the hub what became of an order.
    pub(crate) fn order_told(&self, done: &OrderDone) {
        let fate = self.orders.fates.get(&done.id);
        let (outcome, at) = fate.expect("an order is answered before its record is durable");
        if done.outcome == OrderOutcome::Repeated {
            let newer = self.orders.fates.range(done.id + 1..).count();
            assert!(newer >= 64, "order {} is forgotten, and {newer} came since", done.id);
        } else {
            assert_eq!((done.outcome, done.at), (*outcome, *at), "the answer is the record's");
        }
    }

    /// An order came to its end.
    pub(super) fn ordered(&mut self, e: &Ordered, marks: &mut Marks) {
        let now = self.now();
        let order = self.orders.given.get(&e.id).cloned();
        let order = order.expect("an order that nobody gave");
        let withdrawn = e.verb == OrderVerb::Withdraw;
        assert!(withdrawn || e.verb == order.verb, "{e:?} of {order:?}");
        assert!(
            withdrawn
                || (e.device, e.outlet, e.session, e.whose) == (order.device, order.outlet, order.session, order.whose),
            "{e:?} of {order:?}"
        );
        let known = self.orders.fates.insert(e.id, (e.outcome, now.stamp()));
        assert!(known.is_none(), "order {} comes to its end twice", e.id);
        let expected = match withdrawn {
            true => OrderOutcome::Stale,
            false => self.outcome(&order, &now),
        };
        assert_eq!(e.outcome, expected, "{order:?} at {now:?}");
        marks.hit(match (e.verb, e.outcome) {
            (OrderVerb::Start, OrderOutcome::Done) => Mark::OrderedStart,
            (OrderVerb::Stop, OrderOutcome::Done) => Mark::OrderedStop,
            (OrderVerb::Release, OrderOutcome::Done) => Mark::OrderedRelease,
            (OrderVerb::Reserve, OrderOutcome::Done) => Mark::OutletReserved,
            (OrderVerb::Withdraw, _) => Mark::OrderNeverRan,
            (_, OrderOutcome::Stale) if now.wall().is_none() => Mark::OrderWithoutClock,
            (_, OrderOutcome::Stale) => Mark::OrderStale,
            (_, OrderOutcome::Busy) => Mark::OrderBusy,
            (_, OrderOutcome::Unknown) => Mark::OrderUnknown,
            (_, OrderOutcome::Malformed) => Mark::OrderTooFar,
            _ => Mark::OrderDone,
        });
        if e.outcome == OrderOutcome::Done {
            self.order_done(e, &order, &now);
        }
    }

    fn order_done(&mut self, e: &Ordered, order: &Order, now: &Now) {
        let Some(device) = e.device else { return };
        let place = (device, e.outlet);
        match e.verb {
            OrderVerb::Reserve => {
                let left_s = order.until_s - now.wall().expect("nobody reserves without a clock");
                let until_ms = self.line_ms() + left_s * 1_000;
                assert_eq!(e.until.0, until_ms, "the end of a reservation on the gateway's line");
                let (token, order) = (e.whose, e.id);
                let reserved = Reserved { token, until_ms, order };
                self.orders.reserved.insert(place, reserved);
            }
            OrderVerb::Release => drop(self.orders.reserved.remove(&place)),
            OrderVerb::Start => drop(self.orders.starts.insert(place, (e.whose, e.not_after_s))),
            OrderVerb::Stop
            | OrderVerb::Report
            | OrderVerb::TelemetryEvery
            | OrderVerb::Withdraw
            | OrderVerb::Other => {}
        }
    }

    /// What an order must come to.
    fn outcome(&self, order: &Order, now: &Now) -> OrderOutcome {
        let begins = matches!(order.verb, OrderVerb::Start | OrderVerb::Reserve);
        let late = match now.wall() {
            None => begins,
            Some(wall_s) => {
                let over = order.verb == OrderVerb::Reserve && wall_s >= order.until_s;
                wall_s > order.not_after_s || over
            }
        };
        if late {
            return OrderOutcome::Stale;
        }
        let end_s = match order.verb {
            OrderVerb::Reserve => order.until_s,
            _ => order.not_after_s,
        };
        let far = now.wall().is_some_and(|wall_s| end_s > wall_s + AHEAD_S_MAX);
        if begins && far {
            return OrderOutcome::Malformed;
        }
        let Some(device) = order.device else {
            return OrderOutcome::Done;
        };
        let place = (device, order.outlet);
        let is = |good, otherwise| if good { OrderOutcome::Done } else { otherwise };
        match order.verb {
            OrderVerb::Start | OrderVerb::Reserve => is(self.is_free_for(place, &order.whose), OrderOutcome::Busy),
            OrderVerb::Stop if order.session == SessionId::ZERO => {
                is(self.is_in_use(place, true), OrderOutcome::Unknown)
            }
            OrderVerb::Stop => {
                let open = self.open.contains(&order.session) && self.holds[&order.session].device == device;
                let waits = self.waiting.get(&order.session);
                let waits = waits.is_some_and(|waiting| waiting.place.0 == device);
                is(open || waits, OrderOutcome::Unknown)
            }
            OrderVerb::Release => is(self.orders.reserved.contains_key(&place), OrderOutcome::Unknown),
            OrderVerb::Report | OrderVerb::TelemetryEvery => OrderOutcome::Done,
            OrderVerb::Withdraw | OrderVerb::Other => OrderOutcome::Stale,
        }
    }

    /// Whether a session is open or asked for at an outlet.
    fn is_in_use(&self, place: (DeviceId, u8), or_silent: bool) -> bool {
        let open = self.open.iter().any(|id| {
            let hold = &self.holds[id];
            (hold.device, hold.outlet) == place && (or_silent || !hold.silent)
        });
        open || self.waiting.values().any(|waiting| waiting.place == place)
    }

    fn is_free_for(&self, place: (DeviceId, u8), token: &TokenHash) -> bool {
        let state = self.reported.get(&place).copied().unwrap_or(OutletState::Free);
        let sound = matches!(state, OutletState::Free | OutletState::Preparing);
        sound && !self.is_in_use(place, false) && !self.is_reserved_for_another(place, token)
    }

    /// Whether an outlet is kept free for somebody else, now.
    pub(super) fn is_reserved_for_another(&self, place: (DeviceId, u8), token: &TokenHash) -> bool {
        let reserved = self.orders.reserved.get(&place);
        reserved.is_some_and(|reserved| reserved.token != *token && self.line_ms() < reserved.until_ms)
    }

    /// A device is told something.
    pub(super) fn commanded(&mut self, e: &Commanded) {
        let Some(order) = self.orders.given.get(&e.order) else {
            panic!("a command that nobody ordered: {e:?}");
        };
        let verb = match order.verb {
            OrderVerb::Start => Verb::Start,
            OrderVerb::Stop => Verb::Stop,
            OrderVerb::Report => Verb::Report,
            OrderVerb::Reserve
            | OrderVerb::Release
            | OrderVerb::TelemetryEvery
            | OrderVerb::Withdraw
            | OrderVerb::Other => panic!("an order of the gateway alone is told to a device: {e:?}"),
        };
        let fate = self.orders.fates.get(&e.order).map(|(outcome, _)| *outcome);
        assert_eq!((e.verb, Some(e.device)), (verb, order.device), "{order:?}");
        assert_eq!(
            fate,
            Some(OrderOutcome::Done),
            "a command of an order that is not done: {e:?}"
        );
        assert!(self.orders.commanded.insert(e.order), "order {} runs twice", e.order);
    }

    /// The time of a reservation is over.
    pub(super) fn unreserved(&mut self, e: &Unreserved, marks: &mut Marks) {
        marks.hit(Mark::ReservationOver);
        let reserved = self.orders.reserved.remove(&(e.device, e.outlet));
        let reserved = reserved.expect("what was not reserved does not end");
        assert_eq!(reserved.order, e.order);
        assert!(
            self.line_ms() >= reserved.until_ms,
            "a reservation ends too early: {reserved:?}"
        );
    }

    /// Somebody is served at an outlet.
    pub(super) fn served_at(&mut self, e: &Granted, marks: &mut Marks) {
        let (place, token) = ((e.request.device, e.request.outlet), e.request.token);
        let alone = e.terms.evidence.mode == MODE_ALONE;
        assert!(
            alone || !self.is_reserved_for_another(place, &token),
            "an outlet that is kept free for somebody else is given away: {e:?}"
        );
        if self
            .orders
            .reserved
            .get(&place)
            .is_some_and(|reserved| reserved.token == token)
        {
            marks.hit(Mark::ReservationUsed);
            self.orders.reserved.remove(&place);
        }
        let wall_s = self.now().wall();
        let start = self.orders.starts.get(&place);
        if start.is_some_and(|(whose, until_s)| *whose == token && wall_s.is_some_and(|wall_s| wall_s <= *until_s)) {
            marks.hit(Mark::StartedFromAfar);
        }
    }
}
