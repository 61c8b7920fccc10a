//! Orders to gateways: durable before they leave, said again until they are answered, withdrawn when their time is over;
//! and the token of a start, which is in no record.
#![allow(clippy::unwrap_used)]

#[path = "support/process.rs"]
mod process_support;
mod support;

use std::fs;

use hub::{
    control::{CallError, Request},
    core::{DISPATCHES_AHEAD_MAX, DISPATCHES_KEPT_MAX, Decision, DispatchState, Effect, Event, Input, Now},
    orders::{OrderGiven, OrderLine, OrderWish},
};
use process_support::{Gateway, Site};
use proto::{
    id::{IdToken, Name, SessionId, TokenHash, TokenKey, TokenKind},
    link::{AHEAD_S_MAX, Echo, Order, OrderDone, OrderOutcome, OrderVerb},
    message::Stamp,
    topic::{LinkDown, LinkUp},
};
use support::*;

fn start() -> Order {
    Order {
        id: 0,
        not_after_s: NOW.wall_s + 30,
        verb: OrderVerb::Start,
        device: Some(Name::new("charger-1").unwrap()),
        outlet: 0,
        session: SessionId::ZERO,
        token: None,
        until_s: 0,
        value: 0,
        whose: token(1),
    }
}

fn dispatch(order: Order) -> Input {
    let (gateway, order) = (gateway(), Box::new(order));
    Input::Dispatch { gateway, order }
}

fn done(id: u64, outcome: OrderOutcome) -> Input {
    let (gateway, at) = (gateway(), Stamp::relative(7));
    Input::Done {
        gateway,
        done: OrderDone { id, outcome, at },
    }
}

fn later(s: u64) -> Now {
    Now { wall_s: NOW.wall_s + s }
}

/// What is sent to the gateway: verb and number of each order; or the refusal.
fn sent(decision: &Decision) -> String {
    let words = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Order(to, order) => {
            assert_eq!(*to, gateway());
            assert_eq!(order.token, None, "the core has no token");
            Some(format!("{} {}", order.verb.word(), order.id - NOW.wall_s))
        }
        Effect::DispatchRefused(refusal) => Some(refusal.to_string()),
        _ => None,
    });
    words.collect::<Vec<_>>().join(", ")
}

/// The hub, told what in turn, each with what it sends.
fn check(kept: &mut Kept, rows: &[(u64, Input, &str)]) {
    for (at_s, input, expected) in rows {
        let decision = kept.hub.step(later(*at_s), &SETTINGS, input);
        assert_eq!(sent(&decision), *expected, "at {at_s}: {input:?}");
        kept.events.extend(decision.events);
    }
    assert_eq!(replayed(&kept.events), kept.hub, "after a restart");
    assert_eq!(restored(&kept.hub), kept.hub, "after a restart from a snapshot");
}

#[test]
fn an_order_is_said_again_after_each_hello_until_it_is_answered() {
    let mut kept = Kept::open();
    let stop = Order {
        verb: OrderVerb::Stop,
        ..start()
    };
    check(
        &mut kept,
        &[
            (0, dispatch(start()), "start 0"),
            (0, dispatch(stop), "stop 1"),
            (1, greet(hello(1, 0), 2), "start 0, stop 1"),
            (2, done(NOW.wall_s, OrderOutcome::Done), ""),
            (3, greet(hello(1, 0), 3), "stop 1"),
            // Of a gateway that has to begin a new epoch nothing can be told what it does.
            (3, greet(hello(0, 0), 4), ""),
            (4, done(NOW.wall_s + 1, OrderOutcome::Unknown), ""),
            (4, done(NOW.wall_s + 1, OrderOutcome::Done), ""),
            (4, done(77, OrderOutcome::Done), ""),
            (5, greet(hello(1, 0), 5), ""),
        ],
    );
    let state = |id| kept.hub.dispatches().get(gateway(), NOW.wall_s + id).unwrap().state;
    assert_eq!(
        [state(0), state(1)],
        [OrderOutcome::Done, OrderOutcome::Unknown].map(|is| DispatchState::Answered(is, Stamp::relative(7))),
        "the first answer counts"
    );
}

#[test]
fn an_order_whose_time_is_over_is_withdrawn() {
    let mut kept = Kept::open();
    check(
        &mut kept,
        &[
            (0, dispatch(start()), "start 0"),
            (30, Input::Tick, ""),
            (31, Input::Tick, "withdraw 0"),
            (32, Input::Tick, ""),
            (33, greet(hello(1, 0), 2), "withdraw 0"),
            // It had run in time; only the answer was lost.
            (34, done(NOW.wall_s, OrderOutcome::Done), ""),
            (35, greet(hello(1, 0), 3), ""),
        ],
    );
    let row = kept.hub.dispatches().get(gateway(), NOW.wall_s).unwrap();
    assert!(matches!(row.state, DispatchState::Answered(OrderOutcome::Done, _)));
    assert_eq!(row.order.verb, OrderVerb::Start, "what was wanted is remembered");
}

#[test]
fn numbers_grow_and_none_comes_twice() {
    let mut kept = Kept::open();
    let at = |s| Order {
        not_after_s: NOW.wall_s + s + 30,
        ..start()
    };
    check(
        &mut kept,
        &[
            (0, dispatch(at(0)), "start 0"),
            (0, dispatch(at(0)), "start 1"),
            (0, dispatch(at(0)), "start 2"),
            (60, dispatch(at(60)), "start 60"),
            // The clock of the hub was set back.
            (10, dispatch(at(10)), "start 61"),
        ],
    );
    // A hub that was put back from a backup that knows none of them.
    let mut back = Kept::open();
    check(&mut back, &[(90, dispatch(at(90)), "start 90")]);
}

#[test]
fn an_order_that_cannot_be_told_in_time_is_refused() {
    let far = AHEAD_S_MAX + 1;
    let refused = |change: fn(&mut Order, u64), expected: &str| {
        let mut kept = Kept::open();
        let mut order = start();
        change(&mut order, AHEAD_S_MAX + 1);
        check(&mut kept, &[(0, dispatch(order), expected)]);
        assert_eq!(kept.hub.dispatches().iter().count(), 0);
    };
    let not_after = "not-after has to be 1 to 7200 s from now";
    refused(|o, _| o.not_after_s = 0, not_after);
    refused(|o, _| o.not_after_s = NOW.wall_s, not_after);
    refused(|o, far| o.not_after_s = NOW.wall_s + far, not_after);
    let until = "the end of a reservation has to be 1 to 7200 s from now";
    let reserve: [fn(&mut Order, u64); 2] = [
        |o, _| (o.verb, o.until_s) = (OrderVerb::Reserve, NOW.wall_s),
        |o, far| (o.verb, o.until_s) = (OrderVerb::Reserve, NOW.wall_s + far),
    ];
    reserve.into_iter().for_each(|change| refused(change, until));
    assert_eq!(far, 7_201);
}

/// A gateway remembers the fate of its newest orders. One that it has not heard of must never look forgotten.
#[test]
fn few_orders_are_given_beyond_one_that_is_not_answered() {
    let mut kept = Kept::open();
    for n in 0..=DISPATCHES_AHEAD_MAX as u64 {
        let decision = kept.step(&dispatch(start()));
        assert_eq!(sent(&decision), format!("start {n}"));
        // All but the first are answered.
        if n > 0 {
            kept.step(&done(NOW.wall_s + n, OrderOutcome::Done));
        }
    }
    let oldest = NOW.wall_s;
    let refusal = format!("gateway gw-1 has not answered order {oldest} and 32 were given since: wait for it");
    check(
        &mut kept,
        &[
            (1, dispatch(start()), refusal.as_str()),
            (1, done(oldest, OrderOutcome::Stale), ""),
            (1, dispatch(start()), "start 33"),
        ],
    );
    // What is answered is forgotten in time; what waits is not.
    for n in 34..34 + DISPATCHES_KEPT_MAX as u64 + 5 {
        kept.step(&dispatch(start()));
        kept.step(&done(NOW.wall_s + n, OrderOutcome::Done));
        if n % 20 == 0 {
            kept.step(&done(NOW.wall_s + 33, OrderOutcome::Done));
        }
    }
    assert_eq!(kept.hub.dispatches().iter().count(), DISPATCHES_KEPT_MAX);
    check(&mut kept, &[]);
}

#[test]
fn what_the_operator_types_becomes_an_order() {
    let key = TokenKey([0x22; 32]);
    let card = IdToken::new(TokenKind::Card, &[0x04, 0xa1, 0xb2, 0xc3]).unwrap();
    let wish = |verb: &str, change: fn(&mut OrderWish)| {
        let mut wish = OrderWish {
            verb: verb.to_owned(),
            device: Some("charger-1".to_owned()),
            not_after_s: 30,
            for_s: 600,
            ..OrderWish::default()
        };
        change(&mut wish);
        wish.order(NOW.wall_s, &key)
    };
    let card_text = |w: &mut OrderWish| w.token = Some("card:04a1b2c3".to_owned());
    let (order, raw) = wish("start", card_text).unwrap();
    assert_eq!(raw.as_ref(), Some(&card));
    assert_eq!(
        (order.not_after_s, order.whose, order.token),
        (NOW.wall_s + 30, card.hash(&key), None)
    );
    let (order, raw) = wish("reserve", card_text).unwrap();
    assert_eq!(
        (order.until_s, order.whose, raw),
        (NOW.wall_s + 600, card.hash(&key), None)
    );
    let by_hash = wish("reserve", |w| w.token = Some(format!("hash:{}", TokenHash([5; 16]))));
    assert_eq!(by_hash.unwrap().0.whose, TokenHash([5; 16]));
    let (order, _) = wish("stop", |w| w.device = None).map_or_else(
        |error| {
            assert_eq!(error, "stop needs a device");
            wish("stop", |w| (w.device, w.session) = (None, Some("aa".repeat(16)))).unwrap()
        },
        |_| panic!("a stop of nothing"),
    );
    assert_eq!(order.session, SessionId([0xaa; 16]));
    let (order, _) = wish("telemetry", |w| (w.device, w.every_s) = (None, 15)).unwrap();
    assert_eq!(
        (order.verb, order.device, order.value),
        (OrderVerb::TelemetryEvery, None, 15)
    );
    let refused = |verb: &str, change: fn(&mut OrderWish), expected: &str| {
        let error = wish(verb, change).unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains("a1b2"), "no token in {error}");
    };
    refused("begin", |_| {}, "none of start, stop");
    refused("start", |_| {}, "start needs a token");
    refused(
        "start",
        |w| w.token = Some("hash:".to_owned() + &"05".repeat(16)),
        "not its hash",
    );
    refused("start", |w| w.token = Some("04a1b2c3".to_owned()), "card:");
    refused("start", |w| w.token = Some("card:04a1b2c".to_owned()), "odd number");
    refused("start", |w| w.token = Some("badge:04a1b2c3".to_owned()), "none of card");
    refused("stop", |w| w.token = Some("card:04a1b2c3".to_owned()), "about no token");
    refused("stop", |w| w.session = Some("xyz".to_owned()), "session:");
    refused("report", |w| w.device = Some("Upper".to_owned()), "device:");
    refused("telemetry", |_| {}, "not about a device");
    let wish = OrderWish {
        token: Some("card:04a1b2c3".to_owned()),
        ..OrderWish::default()
    };
    assert!(!format!("{wish:?}").contains("a1b2"));
}

/// The real hub: the token travels, and lies in no file when the order is answered or over.
#[test]
fn a_start_over_a_restart_of_the_hub() {
    let site = Site::new();
    let hub = site.start();
    let give = |arguments: &[&str]| {
        let output = site.command(&[&["order"], arguments, &["--data", "data", "--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice::<OrderGiven>(&output.stdout).unwrap().order
    };
    let at = ["--gateway", "gw-1", "--device", "charger-1", "--outlet", "1"];
    let card = ["--token", "card:04a1b2c3"];
    let first = give(&[&["start"], &at[..], &card, &["--not-after", "2m"]].concat());
    hub.kill();
    let holds_token = || {
        let has = |path: &std::path::Path| {
            let bytes = fs::read(path).unwrap_or_default();
            bytes.windows(4).any(|window| window == [0x04, 0xa1, 0xb2, 0xc3])
        };
        let mut folders = vec![site.path("data")];
        let mut found = Vec::new();
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else if has(&entry) {
                    found.push(entry.file_name().unwrap().to_string_lossy().into_owned());
                }
            }
        }
        found
    };
    assert_eq!(holds_token(), ["order-tokens"], "in its own file, and in no record");
    let hub = site.start();
    let mut gateway = Gateway::connect(&hub, "gw-1", 1);
    gateway.hello(&hello(1, 0));
    let order: Order = gateway.hear(LinkDown::Order);
    let token = order.token.expect("the token of the start");
    assert_eq!((order.id, order.verb, order.outlet), (first, OrderVerb::Start, 1));
    assert_eq!(token.bytes.as_slice(), [0x04, 0xa1, 0xb2, 0xc3]);
    assert_eq!(token.hash(&TokenKey([0x22; 32])), order.whose);
    // At once on a connection that stands; and again after another hello.
    let second = give(&["stop", "--gateway", "gw-1", "--session", &"ab".repeat(16)]);
    assert!(second > first);
    assert_eq!(gateway.hear::<Order>(LinkDown::Order).id, second);
    gateway.hello(&hello(1, 0));
    let again: [Order; 2] = [gateway.hear(LinkDown::Order), gateway.hear(LinkDown::Order)];
    assert_eq!(again.map(|order| order.id), [first, second]);
    for (id, outcome) in [(first, OrderOutcome::Done), (second, OrderOutcome::Unknown)] {
        let at = Stamp::relative(5);
        gateway.say(LinkUp::Done, &OrderDone { id, outcome, at });
    }
    // What came before it is done when it comes back.
    gateway.say(LinkUp::Echo, &Echo { nonce: 1 });
    gateway.hear::<Echo>(LinkDown::Echo);
    let states = || -> Vec<(u64, String)> {
        let rows: Vec<OrderLine> = site.call(&Request::new("orders")).unwrap();
        rows.into_iter().map(|row| (row.order, row.state)).collect()
    };
    let expected = [(first, "done".to_owned()), (second, "unknown".to_owned())];
    assert_eq!(states(), expected);
    assert!(holds_token().is_empty(), "{:?}", holds_token());
    gateway.hello(&hello(1, 0));
    // An order with less than a second to live is over before the gateway hears of it.
    let third = give(&[&["start"], &at[..], &card, &["--not-after", "1s"]].concat());
    assert_eq!(gateway.hear::<Order>(LinkDown::Order).verb, OrderVerb::Start);
    let over: Order = gateway.hear(LinkDown::Order);
    assert_eq!((over.id, over.verb, over.token), (third, OrderVerb::Withdraw, None));
    assert!(holds_token().is_empty(), "{:?}", holds_token());
    assert_eq!(states()[2], (third, "overdue".to_owned()));
    let refused = site.call::<OrderGiven>(&Request {
        gateway: Some("gw-9".to_owned()),
        wish: Some(OrderWish {
            verb: "report".to_owned(),
            device: Some("charger-1".to_owned()),
            not_after_s: 30,
            ..OrderWish::default()
        }),
        ..Request::new("order")
    });
    assert!(
        matches!(&refused, Err(CallError::Refused(text)) if text == "gateway gw-9 is not configured"),
        "{refused:?}"
    );
    assert_eq!(hub.stop(), Some(0));
    // A stopped hub's store says the same.
    let output = site.command(&["orders", "--data", "data", "--json"]);
    let lines = String::from_utf8(output.stdout).unwrap();
    assert_eq!(lines.lines().count(), 3, "{lines}");
}

#[test]
fn an_event_of_an_order_has_no_token() {
    let mut kept = Kept::open();
    let card = IdToken::new(TokenKind::Card, &[0x04, 0xa1, 0xb2, 0xc3]).unwrap();
    let decision = kept.step(&dispatch(Order {
        token: Some(card),
        ..start()
    }));
    let order = decision.events.iter().find_map(|event| match event {
        Event::Dispatched { order, .. } => Some(order),
        _ => None,
    });
    assert_eq!(order.unwrap().token, None);
}
