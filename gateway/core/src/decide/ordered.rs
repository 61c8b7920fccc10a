//! What the operator orders through his hub. An order is sealed by the hub, so what the cloud in between is worth plays no
//! part; and it names a number and a time, so that it runs once and never too late.

use proto::{
    id::{DeviceId, OutletId, SessionId, TokenHash},
    link::{AHEAD_S_MAX, Order, OrderDone, OrderOutcome, OrderVerb, TELEMETRY_EVERY_S_MAX},
    message::{Command, OutletState, Stamp, Verb},
    money::Units,
};

use super::Draft;
use crate::{
    Effect, Ignored, Told,
    event::{Commanded, Event, Ordered, Unreserved},
    session::Session,
    time::Instant,
};

/// What an order comes to.
enum Plan {
    /// A device is told.
    Tell(DeviceId, Command),
    /// An outlet is kept free until then.
    Reserve(Instant),
    /// What the event says is all.
    Note,
}

impl Draft<'_> {
    pub(super) fn order(&mut self, order: &Order) -> Result<(), Ignored> {
        let id = order.id;
        if let Some(fate) = self.gateway.orders.fate(id).copied() {
            self.order_done(id, fate.outcome, fate.at);
            return Err(Ignored::OrderRepeated(id));
        }
        let now = self.now.stamp();
        if self.gateway.orders.is_forgotten(id) {
            // Without a number it cannot be told from another one.
            let outcome = match id {
                0 => OrderOutcome::Malformed,
                _ => OrderOutcome::Repeated,
            };
            self.order_done(id, outcome, now);
            return Err(Ignored::OrderRepeated(id));
        }
        let plan = self.plan(order);
        let outcome = plan.as_ref().err().copied().unwrap_or(OrderOutcome::Done);
        let until = match &plan {
            Ok(Plan::Reserve(until)) => *until,
            Ok(Plan::Tell(..) | Plan::Note) | Err(_) => Instant::default(),
        };
        self.event(Event::Ordered(Ordered {
            id,
            verb: order.verb,
            outcome,
            device: order.device,
            outlet: order.outlet,
            session: order.session,
            whose: order.whose,
            not_after_s: order.not_after_s,
            until,
            value: order.value,
        }));
        if let Ok(Plan::Tell(device, command)) = plan {
            self.tell(&device, id, command);
        }
        self.order_done(id, outcome, now);
        Ok(())
    }

    fn order_done(&mut self, id: u64, outcome: OrderOutcome, at: Stamp) {
        let done = OrderDone { id, outcome, at };
        self.out.effects.push(Effect::OrderDone(done));
    }

    fn tell(&mut self, device: &DeviceId, order: u64, command: Command) {
        let id = self.next_command(device);
        self.event(Event::Commanded(Commanded {
            device: *device,
            id,
            verb: command.verb,
            session: command.session,
            order,
        }));
        self.send(device, Told::Command(Command { id, ..command }));
    }

    pub(super) fn next_command(&self, device: &DeviceId) -> u64 {
        self.gateway.devices.get(device).map_or(0, |known| known.command) + 1
    }

    /// The time of a reservation is over. Returns whether one was.
    pub(super) fn reservation_ends(&mut self) -> bool {
        let Some((device, outlet, reservation)) = self.gateway.reservations.over(self.at) else {
            return false;
        };
        let order = reservation.order;
        self.event(Event::Unreserved(Unreserved { device, outlet, order }));
        true
    }

    /// What is to be done, or why it is not.
    fn plan(&self, order: &Order) -> Result<Plan, OrderOutcome> {
        match order.verb {
            OrderVerb::Other => return Err(OrderOutcome::Unsupported),
            OrderVerb::Withdraw => return Err(OrderOutcome::Stale),
            OrderVerb::Start
            | OrderVerb::Stop
            | OrderVerb::Reserve
            | OrderVerb::Release
            | OrderVerb::TelemetryEvery
            | OrderVerb::Report => {}
        }
        if !is_whole(order) {
            return Err(OrderOutcome::Malformed);
        }
        if self.is_late(order) {
            return Err(OrderOutcome::Stale);
        }
        match (order.verb, order.device) {
            (OrderVerb::Start, Some(device)) => self.start(order, device),
            (OrderVerb::Stop, device) => self.stop_plan(order, device),
            (OrderVerb::Reserve, Some(device)) => self.reserve(order, device),
            (OrderVerb::Release, Some(device)) => {
                let place = (device, order.outlet);
                let known = self.gateway.reservations.0.contains_key(&place);
                if known {
                    Ok(Plan::Note)
                } else {
                    Err(OrderOutcome::Unknown)
                }
            }
            (OrderVerb::Report, Some(device)) => {
                self.known_outlet(&device, order.outlet)?;
                Ok(Plan::Tell(device, command(order, Verb::Report)))
            }
            (OrderVerb::TelemetryEvery, _) => Ok(Plan::Note),
            (
                OrderVerb::Other
                | OrderVerb::Withdraw
                | OrderVerb::Start
                | OrderVerb::Reserve
                | OrderVerb::Release
                | OrderVerb::Report,
                _,
            ) => Err(OrderOutcome::Malformed),
        }
    }

    /// Whether it must not be begun any more. A start or a reservation of which nobody can tell is too late; a stop too
    /// many does less harm than a start too many.
    fn is_late(&self, order: &Order) -> bool {
        let Some(wall_s) = self.now.wall() else {
            return begins(order.verb);
        };
        let until_s = if order.verb == OrderVerb::Reserve {
            order.until_s
        } else {
            u64::MAX
        };
        (order.not_after_s != 0 && wall_s > order.not_after_s) || wall_s >= until_s
    }

    /// The device asks for a session as if the token had been presented, so it is judged as any other is.
    fn start(&self, order: &Order, device: DeviceId) -> Result<Plan, OrderOutcome> {
        self.not_too_far(order.not_after_s)?;
        self.free_outlet(&device, order.outlet, &order.whose)?;
        let command = Command {
            token: order.token.clone(),
            ..command(order, Verb::Start)
        };
        Ok(Plan::Tell(device, command))
    }

    fn stop_plan(&self, order: &Order, device: Option<DeviceId>) -> Result<Plan, OrderOutcome> {
        let sessions = &self.gateway.sessions;
        let found = match (order.session, device) {
            // Of several the one that was asked for last: the others are over, and their stops are on the way.
            (SessionId::ZERO, Some(device)) => self
                .sessions_at(&device, order.outlet)
                .max_by_key(|session| (session.requested_at, session.request.counter)),
            (session, _) => sessions.get(&session).filter(|session| !session.has_ended()),
        };
        let found = found.filter(|session| device.is_none_or(|device| device == session.request.device));
        let request = &found.ok_or(OrderOutcome::Unknown)?.request;
        let command = Command {
            outlet: request.outlet,
            session: request.session,
            ..command(order, Verb::Stop)
        };
        Ok(Plan::Tell(request.device, command))
    }

    fn reserve(&self, order: &Order, device: DeviceId) -> Result<Plan, OrderOutcome> {
        self.not_too_far(order.until_s)?;
        self.free_outlet(&device, order.outlet, &order.whose)?;
        // Nobody can tell without a wall clock, and then it is too late already.
        let wall_s = self.now.wall().unwrap_or(order.until_s);
        let left_ms = order.until_s.saturating_sub(wall_s).saturating_mul(1_000);
        Ok(Plan::Reserve(self.at.plus_ms(left_ms)))
    }

    fn not_too_far(&self, until_s: u64) -> Result<(), OrderOutcome> {
        let far = self
            .now
            .wall()
            .is_some_and(|wall_s| until_s > wall_s.saturating_add(AHEAD_S_MAX));
        if far { Err(OrderOutcome::Malformed) } else { Ok(()) }
    }

    fn known_outlet(&self, device: &DeviceId, outlet: OutletId) -> Result<(), OrderOutcome> {
        let device = self.gateway.config.devices.get(device);
        let is_known = device.is_some_and(|device| outlet < device.outlets);
        if is_known { Ok(()) } else { Err(OrderOutcome::Unknown) }
    }

    /// Whether a session of `token` may begin at an outlet, as far as the outlet goes.
    fn free_outlet(&self, device: &DeviceId, outlet: OutletId, token: &TokenHash) -> Result<(), OrderOutcome> {
        self.known_outlet(device, outlet)?;
        let known = self.gateway.devices.get(device);
        let reported = known.and_then(|known| known.outlets.get(&outlet));
        let serves = reported.is_none_or(|outlet| match outlet.state {
            OutletState::Free | OutletState::Preparing => true,
            OutletState::Busy | OutletState::Faulted | OutletState::Updating | OutletState::Other => false,
        });
        // Of a device that is silent for days nobody knows what it does: it says itself whether it can begin.
        let in_use = self.sessions_at(device, outlet).any(|session| !session.indeterminate);
        let reservations = &self.gateway.reservations;
        let reserved = reservations.is_for_another(device, outlet, token, self.at);
        if serves && !in_use && !reserved {
            Ok(())
        } else {
            Err(OrderOutcome::Busy)
        }
    }

    /// The sessions that are open or asked for at an outlet.
    fn sessions_at(&self, device: &DeviceId, outlet: OutletId) -> impl Iterator<Item = &Session> {
        let device = *device;
        self.gateway.sessions.iter().filter(move |session| {
            let request = &session.request;
            (request.device, request.outlet) == (device, outlet) && !session.has_ended()
        })
    }
}

/// Whether something begins by it that may cost somebody something.
const fn begins(verb: OrderVerb) -> bool {
    match verb {
        OrderVerb::Start | OrderVerb::Reserve => true,
        OrderVerb::Stop
        | OrderVerb::Release
        | OrderVerb::TelemetryEvery
        | OrderVerb::Report
        | OrderVerb::Withdraw
        | OrderVerb::Other => false,
    }
}

/// Whether everything is there that its verb needs, and nothing that contradicts it.
fn is_whole(order: &Order) -> bool {
    let (has_device, has_owner) = (order.device.is_some(), order.whose != TokenHash::ZERO);
    match order.verb {
        OrderVerb::Start => has_device && has_owner && order.token.is_some() && order.not_after_s != 0,
        OrderVerb::Stop => has_device || order.session != SessionId::ZERO,
        OrderVerb::Reserve => has_device && has_owner && order.until_s != 0,
        OrderVerb::Release | OrderVerb::Report => has_device,
        OrderVerb::TelemetryEvery => !has_device && order.value <= TELEMETRY_EVERY_S_MAX,
        OrderVerb::Withdraw | OrderVerb::Other => true,
    }
}

fn command(order: &Order, verb: Verb) -> Command {
    Command {
        id: 0, // Counted per device, see `tell`.
        verb,
        outlet: order.outlet,
        session: order.session,
        not_after_s: order.not_after_s,
        token: None,
        units: Units::ZERO,
    }
}
