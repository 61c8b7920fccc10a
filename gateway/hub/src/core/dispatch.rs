//! Orders to gateways: numbered, kept until their gateway says what became of them, and given up when their time is over.
//!
//! An order is sent when it is given and after every hello, until it is answered. Past its not-after it is withdrawn
//! instead: the gateway then says what became of it, or that it will never run. So no start is sent too late, whatever
//! clock the gateway has, and its outcome is known all the same. Raw tokens are not here: see [`crate::tokens`].

use std::collections::BTreeMap;

use proto::{
    id::{GatewayId, SessionId},
    link::{AHEAD_S_MAX, ORDERS_REMEMBERED, Order, OrderDone, OrderOutcome, OrderVerb},
    message::Stamp,
};

use super::{Decision, Effect, Event, Hub, Now};

/// Most answered orders that are remembered of one gateway.
pub const DISPATCHES_KEPT_MAX: usize = 256;
/// Most orders to one gateway from the oldest that is not answered: well below what a gateway remembers, so that it never
/// takes one that has not come for one that it forgot.
pub const DISPATCHES_AHEAD_MAX: usize = ORDERS_REMEMBERED / 2;

/// Where an order stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DispatchState {
    /// It waits for its gateway.
    Waits,
    /// Its time is over, and nobody knows yet whether it has run.
    Overdue,
    /// Its gateway said what became of it, and when that was.
    Answered(OrderOutcome, Stamp),
}

/// An order that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DispatchRow {
    /// As it was given, without the raw token.
    pub order: Order,
    /// When (seconds since 1970 UTC).
    pub issued_s: u64,
    /// Where it stands.
    pub state: DispatchState,
}

/// Why an order is not given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DispatchRefusal {
    /// It is not configured here.
    #[error("gateway {0} is not configured")]
    Unknown(GatewayId),
    /// It does not answer.
    #[error(
        "gateway {gateway} has not answered order {oldest} and {DISPATCHES_AHEAD_MAX} were given since: wait for it"
    )]
    TooMany {
        /// Who.
        gateway: GatewayId,
        /// The oldest that it has not answered.
        oldest: u64,
    },
    /// Its time is over before it begins, or too far away.
    #[error("{what} has to be 1 to {max_s} s from now")]
    Time {
        /// Which.
        what: &'static str,
        /// Furthest.
        max_s: u64,
    },
}

/// The orders of all gateways.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dispatches {
    pub(crate) rows: BTreeMap<(GatewayId, u64), DispatchRow>,
    /// Number of the last order to each gateway.
    pub(crate) last: BTreeMap<GatewayId, u64>,
}

impl Dispatches {
    /// Every order that is remembered, by gateway and number.
    pub fn iter(&self) -> impl Iterator<Item = (&GatewayId, &DispatchRow)> {
        self.rows.iter().map(|((gateway, _), row)| (gateway, row))
    }

    /// One order.
    #[must_use]
    pub fn get(&self, gateway: GatewayId, id: u64) -> Option<&DispatchRow> {
        self.rows.get(&(gateway, id))
    }

    fn of(&self, gateway: GatewayId) -> impl DoubleEndedIterator<Item = (u64, &DispatchRow)> {
        let all = self.rows.range((gateway, 0)..=(gateway, u64::MAX));
        all.map(|((_, id), row)| (*id, row))
    }

    /// Those that their gateway has not answered, in order.
    fn open(&self, gateway: GatewayId) -> impl Iterator<Item = (u64, &DispatchRow)> {
        self.of(gateway)
            .filter(|(_, row)| !matches!(row.state, DispatchState::Answered(..)))
    }

    pub(super) fn given(&mut self, gateway: GatewayId, order: &Order, issued_s: u64) {
        self.last.insert(gateway, order.id);
        let row = DispatchRow {
            order: order.clone(),
            issued_s,
            state: DispatchState::Waits,
        };
        self.rows.insert((gateway, order.id), row);
    }

    pub(super) fn overdue(&mut self, gateway: GatewayId, id: u64) {
        self.stand(gateway, id, DispatchState::Overdue);
    }

    pub(super) fn answered(&mut self, gateway: GatewayId, done: &OrderDone) {
        self.stand(gateway, done.id, DispatchState::Answered(done.outcome, done.at));
        self.forget(gateway);
    }

    fn stand(&mut self, gateway: GatewayId, id: u64, state: DispatchState) {
        if let Some(row) = self.rows.get_mut(&(gateway, id)) {
            row.state = state;
        }
    }

    /// The oldest answered ones go when there are too many.
    fn forget(&mut self, gateway: GatewayId) {
        let answered = |row: &DispatchRow| matches!(row.state, DispatchState::Answered(..));
        let all = self.of(gateway).filter(|(_, row)| answered(row)).count();
        if all <= DISPATCHES_KEPT_MAX {
            return;
        }
        let oldest = self.of(gateway).find(|(_, row)| answered(row)).map(|(id, _)| id);
        if let Some(id) = oldest {
            self.rows.remove(&(gateway, id));
        }
    }
}

impl DispatchRow {
    /// As it is sent now.
    fn told(&self) -> Order {
        match self.state {
            DispatchState::Waits => self.order.clone(),
            DispatchState::Overdue | DispatchState::Answered(..) => withdrawn(&self.order),
        }
    }
}

/// An order without what it wanted.
#[must_use]
pub fn withdrawn(order: &Order) -> Order {
    Order {
        verb: OrderVerb::Withdraw,
        session: SessionId::ZERO,
        token: None,
        until_s: 0,
        value: 0,
        ..order.clone()
    }
}

impl Hub {
    /// The operator orders something; its number is given here.
    pub(super) fn decide_dispatch(&self, now: Now, gateway: GatewayId, order: &Order) -> Decision {
        let mut decision = Decision::default();
        if let Some(refusal) = self.refuse_dispatch(now, gateway, order) {
            decision.effects.push(Effect::DispatchRefused(refusal));
            return decision;
        }
        let last = self.dispatches.last.get(&gateway).copied().unwrap_or(0);
        // From the clock, so that a hub that was put back from a backup gives no number twice.
        let id = last.saturating_add(1).max(now.wall_s);
        let order = Box::new(Order {
            id,
            token: None,
            ..order.clone()
        });
        decision.effects.push(Effect::Dispatched { gateway, id });
        decision.effects.push(Effect::Order(gateway, order.clone()));
        decision.events.push(Event::Dispatched {
            gateway,
            order,
            issued_s: now.wall_s,
        });
        decision
    }

    fn refuse_dispatch(&self, now: Now, gateway: GatewayId, order: &Order) -> Option<DispatchRefusal> {
        let max_s = AHEAD_S_MAX;
        let is_wrong = |at_s: u64| at_s <= now.wall_s || at_s > now.wall_s.saturating_add(max_s);
        if is_wrong(order.not_after_s) {
            let what = "not-after";
            return Some(DispatchRefusal::Time { what, max_s });
        }
        if order.verb == OrderVerb::Reserve && is_wrong(order.until_s) {
            let what = "the end of a reservation";
            return Some(DispatchRefusal::Time { what, max_s });
        }
        let (oldest, _) = self.dispatches.open(gateway).next()?;
        let ahead = self.dispatches.of(gateway).filter(|(id, _)| *id > oldest).count();
        (ahead >= DISPATCHES_AHEAD_MAX).then_some(DispatchRefusal::TooMany { gateway, oldest })
    }

    /// A gateway says what became of an order.
    pub(super) fn decide_done(&self, gateway: GatewayId, done: &OrderDone) -> Decision {
        let mut decision = Decision::default();
        let row = self.dispatches.get(gateway, done.id);
        if row.is_some_and(|row| !matches!(row.state, DispatchState::Answered(..))) {
            let done = done.clone();
            decision.events.push(Event::DispatchAnswered { gateway, done });
        }
        decision
    }

    /// Orders whose time is over.
    pub(super) fn decide_overdue(&self, now: Now, decision: &mut Decision) {
        let is_over = |row: &DispatchRow| row.state == DispatchState::Waits && now.wall_s > row.order.not_after_s;
        let over = self.dispatches.rows.iter().filter(|(_, row)| is_over(row));
        for ((gateway, id), row) in over {
            let (gateway, id) = (*gateway, *id);
            decision.events.push(Event::DispatchOverdue { gateway, id });
            let order = Box::new(withdrawn(&row.order));
            decision.effects.push(Effect::Order(gateway, order));
        }
    }

    /// After its hello a gateway is told again what it has not answered.
    pub(super) fn dispatch_again(&self, gateway: GatewayId, decision: &mut Decision) {
        let open = self.dispatches.open(gateway).map(|(_, row)| Box::new(row.told()));
        decision.effects.extend(open.map(|order| Effect::Order(gateway, order)));
    }

    /// The operator's orders.
    #[must_use]
    pub const fn dispatches(&self) -> &Dispatches {
        &self.dispatches
    }
}
