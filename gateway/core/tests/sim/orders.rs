//! The operator's orders in the world: numbered by the hub, lost, doubled, late, overtaken and played again on their way,
//! said again after each hello until they are answered, and withdrawn when their time is over.

use std::collections::BTreeMap;

use gateway_core::Input;
use proto::{
    id::{SessionId, TokenHash},
    link::{Order, OrderDone, OrderVerb},
};

use crate::{
    hub::Mood,
    marks::Mark,
    world::{Next, SECOND_MS, World},
};

/// Most orders from the oldest that is not answered, as the hub has it.
const AHEAD_MAX: usize = 32;

/// The hub's desk for orders.
#[derive(Default)]
pub(crate) struct Desk {
    given: BTreeMap<u64, (Order, Option<OrderDone>)>,
}

impl Desk {
    pub(crate) fn is_answered(&self) -> bool {
        self.given.values().all(|(_, answer)| answer.is_some())
    }

    fn last(&self) -> u64 {
        self.given.last_key_value().map_or(0, |(id, _)| *id)
    }

    fn has_room(&self) -> bool {
        let oldest = self.given.iter().find(|(_, (_, answer))| answer.is_none());
        oldest.is_none_or(|(oldest, _)| self.given.range(oldest..).count() <= AHEAD_MAX)
    }
}

impl World {
    /// The operator wants something done.
    pub(crate) fn give_order(&mut self) {
        if !self.desk.has_room() {
            return;
        }
        let at = self.random.below(self.twins.len() as u64) as usize;
        let outlet = self.random.below(self.twins[at].places.len() as u64) as usize;
        let card = self.random.below(self.cards.len() as u64) as usize;
        let session = self.twins[at].places[outlet].session;
        let verb = match session {
            Some(_) => self.random.pick(&[
                OrderVerb::Stop,
                OrderVerb::Stop,
                OrderVerb::Reserve,
                OrderVerb::Start,
                OrderVerb::Report,
            ]),
            None => self.random.pick(&[
                OrderVerb::Start,
                OrderVerb::Reserve,
                OrderVerb::Reserve,
                OrderVerb::Release,
                OrderVerb::Stop,
                OrderVerb::Report,
                OrderVerb::TelemetryEvery,
            ]),
        };
        let wall_s = self.true_wall_s();
        let begins = matches!(verb, OrderVerb::Start | OrderVerb::Reserve);
        let by_outlet = self.random.chance(5_000);
        let order = Order {
            // Numbers grow, and leave some out.
            id: self.desk.last() + self.random.range(1, 1_000),
            not_after_s: wall_s + if begins { 30 } else { self.random.range(5, 600) },
            verb,
            device: (verb != OrderVerb::TelemetryEvery).then_some(self.twins[at].config.id),
            outlet: outlet as u8,
            session: session.filter(|_| !by_outlet).unwrap_or(SessionId::ZERO),
            token: (verb == OrderVerb::Start).then(|| self.cards[card].clone()),
            until_s: if verb == OrderVerb::Reserve {
                wall_s + self.random.range(40, 1_800)
            } else {
                0
            },
            value: self.random.below(100),
            whose: match begins {
                true => self.hub.tokens[card].hash,
                false => TokenHash::ZERO,
            },
        };
        let id = order.id;
        self.auditor.order_given(&order);
        self.desk.given.insert(id, (order.clone(), None));
        let over_ms = (order.not_after_s - wall_s + 1) * SECOND_MS;
        self.after(over_ms, Next::OrderOver { id });
        self.send_order(&order);
    }

    fn carries_orders(&self) -> bool {
        self.cloud_link && !matches!(self.mood, Mood::Dark | Mood::HalfDead)
    }

    fn send_order(&mut self, order: &Order) {
        if !self.carries_orders() {
            return;
        }
        for ms in self.weather(true) {
            // Clouds keep no order among orders.
            let ms = ms + self.random.below(self.climate.delay_ms * 4 + 1);
            let order = Box::new(order.clone());
            self.after(ms, Next::CloudSays(Box::new(Input::CloudOrder(order))));
        }
    }

    /// The time of an order is over.
    pub(crate) fn order_over(&mut self, id: u64) {
        if self.desk.given[&id].1.is_none() {
            let order = self.withdrawn(id);
            self.send_order(&order);
        }
    }

    fn withdrawn(&mut self, id: u64) -> Order {
        self.hit(Mark::OrderWithdrawn);
        let order = self.desk.given[&id].0.clone();
        Order {
            verb: OrderVerb::Withdraw,
            token: None,
            ..order
        }
    }

    /// A hello: what is not answered is said again.
    pub(crate) fn orders_again(&mut self) {
        let wall_s = self.true_wall_s();
        let open = self.desk.given.values().filter(|(_, answer)| answer.is_none());
        let open: Vec<Order> = open.map(|(order, _)| order.clone()).collect();
        for order in open {
            let order = match wall_s <= order.not_after_s {
                true => order,
                false => self.withdrawn(order.id),
            };
            self.send_order(&order);
        }
    }

    /// The gateway says what became of an order; durable already.
    pub(crate) fn answer_order(&mut self, done: OrderDone) {
        self.auditor.order_told(&done);
        if !self.carries_orders() {
            return;
        }
        for ms in self.weather(true) {
            self.after(ms, Next::DoneArrives(done.clone()));
        }
    }

    pub(crate) fn done_arrives(&mut self, done: OrderDone) {
        let (_, answer) = self.desk.given.get_mut(&done.id).expect("nobody invents orders");
        let first = answer.get_or_insert_with(|| done.clone());
        assert_eq!(*first, done, "an order is answered the same way every time");
    }
}
