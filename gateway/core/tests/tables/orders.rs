//! Orders of the operator: which run, which do not and why, what is answered when they come again; and reserved outlets.

use crate::site::*;
use gateway_core::{
    Effect, Event, Gateway, Said,
    report::{Reporter, Span},
    why::{Search, Wanted},
};
use proto::{
    id::{IdToken, SessionId, TokenHash, TokenKind},
    link::{AHEAD_S_MAX, Order, OrderDone, OrderVerb, TELEMETRY_EVERY_S_MAX},
    message::{ClockQuality, Fault, OutletState},
};

fn card() -> IdToken {
    IdToken::new(TokenKind::Card, &[4, 0xa1, 0xb2, 0xc3]).unwrap()
}

/// A start for token `n` that may be begun for half a minute.
fn start(id: u64, device: &str, n: u8) -> Order {
    Order {
        not_after_s: WALL_S + 30,
        token: Some(card()),
        whose: token(n),
        ..order(id, OrderVerb::Start, device)
    }
}

/// For token `n`, for ten minutes.
fn reserve(id: u64, device: &str, n: u8) -> Order {
    Order {
        until_s: WALL_S + 600,
        whose: token(n),
        ..order(id, OrderVerb::Reserve, device)
    }
}

/// What comes of each order in turn.
fn check(site: &mut Site, rows: &[(Order, &str)]) {
    for (order, expected) in rows {
        let found = words(&site.put(&ordered(order.clone())));
        assert_eq!(found, *expected, "{order:?}");
    }
    site.check();
}

#[test]
fn an_order_runs_once_and_is_answered_the_same_way_every_time() {
    let mut site = Site::new();
    let first = site.put(&ordered(start(7, "c1", 1)));
    assert_eq!(words(&first), "command 1 start, order 7 done");
    let done = |decision: &gateway_core::Decision| -> Vec<OrderDone> {
        let done = |effect: &Effect| match effect {
            Effect::OrderDone(done) => Some(done.clone()),
            _ => None,
        };
        decision.effects.iter().filter_map(done).collect()
    };
    site.pass(5_000);
    let again = "order 7 done, ignored: order 7 has come before, or is older than any that is remembered";
    check(&mut site, &[(start(7, "c1", 1), again), (start(7, "c2", 2), again)]);
    site.reboot(3_600_000);
    let later = site.put(&ordered(start(7, "c1", 1)));
    assert_eq!(done(&later), done(&first), "with the time of the first answer");
    assert!(later.events.is_empty(), "nothing is written again");
    // In whatever order they come.
    check(
        &mut site,
        &[
            (order(5, OrderVerb::Report, "c1"), "command 2 report, order 5 done"),
            (order(9, OrderVerb::Report, "c1"), "command 3 report, order 9 done"),
            (order(8, OrderVerb::Report, "nobody"), "order 8 unknown"),
            (
                order(8, OrderVerb::Report, "c1"),
                "order 8 unknown, ignored: order 8 has come before, or is older than any that is remembered",
            ),
            (
                order(0, OrderVerb::Report, "c1"),
                "order 0 malformed, ignored: order 0 has come before, or is older than any that is remembered",
            ),
        ],
    );
}

#[test]
fn an_order_so_old_that_nobody_remembers_it_does_not_run() {
    let mut site = Site::new();
    for id in 10..=80 {
        site.put(&ordered(order(id, OrderVerb::Report, "c1")));
    }
    let old = "order 9 repeated, ignored: order 9 has come before, or is older than any that is remembered";
    let before = site.journal.len();
    check(&mut site, &[(order(9, OrderVerb::Report, "c1"), old)]);
    assert_eq!(site.journal.len(), before);
}

#[test]
fn an_order_that_comes_too_late_does_not_run() {
    let at = |quality, wall_s, order: Order, expected: &str| {
        let mut site = Site::new();
        let session = site.open("c2", 2);
        (site.now.quality, site.now.wall_s) = (quality, wall_s);
        // The clock was set; that is told first.
        site.put(&gateway_core::Input::Tick);
        let session = if order.verb == OrderVerb::Stop {
            session
        } else {
            SessionId::ZERO
        };
        check(&mut site, &[(Order { session, ..order }, expected)]);
    };
    let (synchronised, unknown, relative) = (
        ClockQuality::Synchronised,
        ClockQuality::Unknown,
        ClockQuality::Relative,
    );
    let go = "command 1 start, order 1 done";
    at(synchronised, WALL_S, start(1, "c1", 1), go);
    at(synchronised, WALL_S + 30, start(1, "c1", 1), go);
    at(synchronised, WALL_S + 31, start(1, "c1", 1), "order 1 stale");
    at(
        ClockQuality::Informative,
        WALL_S + 31,
        start(1, "c1", 1),
        "order 1 stale",
    );
    at(unknown, 0, start(1, "c1", 1), "order 1 stale");
    at(relative, WALL_S, start(1, "c1", 1), "order 1 stale");
    at(unknown, 0, reserve(1, "c1", 1), "order 1 stale");
    at(synchronised, WALL_S + 600, reserve(1, "c1", 1), "order 1 stale");
    // A stop too many does less harm than a start too many.
    let stop = |not_after_s| Order {
        not_after_s,
        ..order(1, OrderVerb::Stop, "c2")
    };
    at(synchronised, WALL_S, stop(0), "command 1 stop, order 1 done");
    at(synchronised, WALL_S + 31, stop(WALL_S + 30), "order 1 stale");
    at(unknown, 0, stop(WALL_S + 30), "command 1 stop, order 1 done");
    // Withdrawn before it came: it never runs.
    let mut site = Site::new();
    check(
        &mut site,
        &[
            (order(1, OrderVerb::Withdraw, "c1"), "order 1 stale"),
            (
                start(1, "c1", 1),
                "order 1 stale, ignored: order 1 has come before, or is older than any that is remembered",
            ),
            (start(2, "c1", 1), "command 1 start, order 2 done"),
            (
                order(2, OrderVerb::Withdraw, "c1"),
                "order 2 done, ignored: order 2 has come before, or is older than any that is remembered",
            ),
        ],
    );
}

#[test]
fn an_order_that_is_not_whole_does_not_run() {
    let malformed = |verb, change: fn(&mut Order)| {
        let mut site = Site::new();
        let whole = Order {
            not_after_s: WALL_S + 30,
            token: Some(card()),
            until_s: WALL_S + 600,
            whose: token(1),
            value: 30,
            ..order(1, verb, "c1")
        };
        let mut broken = whole;
        change(&mut broken);
        check(&mut site, &[(broken, "order 1 malformed")]);
    };
    malformed(OrderVerb::Start, |o| o.device = None);
    malformed(OrderVerb::Start, |o| o.token = None);
    malformed(OrderVerb::Start, |o| o.whose = TokenHash::ZERO);
    malformed(OrderVerb::Start, |o| o.not_after_s = 0);
    malformed(OrderVerb::Start, |o| o.not_after_s = WALL_S + AHEAD_S_MAX + 1);
    malformed(OrderVerb::Stop, |o| o.device = None);
    malformed(OrderVerb::Reserve, |o| o.device = None);
    malformed(OrderVerb::Reserve, |o| o.whose = TokenHash::ZERO);
    malformed(OrderVerb::Reserve, |o| o.until_s = 0);
    malformed(OrderVerb::Reserve, |o| o.until_s = WALL_S + AHEAD_S_MAX + 1);
    malformed(OrderVerb::Release, |o| o.device = None);
    malformed(OrderVerb::Report, |o| o.device = None);
    malformed(OrderVerb::TelemetryEvery, |_| {});
    malformed(OrderVerb::TelemetryEvery, |o| {
        (o.device, o.value) = (None, TELEMETRY_EVERY_S_MAX + 1);
    });
    let mut site = Site::new();
    check(&mut site, &[(order(1, OrderVerb::Other, "c1"), "order 1 unsupported")]);
}

#[test]
fn a_start_goes_to_an_outlet_that_is_free() {
    let start_at = |outlet, device: &str| Order {
        outlet,
        ..start(9, device, 1)
    };
    let after = |prepare: fn(&mut Site), order: Order, expected: &str| {
        let mut site = Site::new();
        prepare(&mut site);
        check(&mut site, &[(order, expected)]);
    };
    let (busy, go) = ("order 9 busy", "command 1 start, order 9 done");
    after(|_| {}, start_at(0, "c1"), go);
    after(|_| {}, start_at(1, "c1"), go);
    after(|_| {}, start_at(2, "c1"), "order 9 unknown");
    after(|_| {}, start_at(0, "nobody"), "order 9 unknown");
    after(|site| _ = site.open("c1", 2), start_at(0, "c1"), busy);
    after(|site| _ = site.open("c1", 2), start_at(1, "c1"), go);
    after(|site| drop(site.ask("c1", 3)), start_at(0, "c1"), busy);
    let states = [
        (OutletState::Free, go),
        (OutletState::Preparing, go),
        (OutletState::Busy, busy),
        (OutletState::Faulted, busy),
        (OutletState::Updating, busy),
    ];
    for (state, expected) in states {
        let mut site = Site::new();
        site.say("c1", status(0, state, Fault::None));
        check(&mut site, &[(start_at(0, "c1"), expected)]);
    }
    // The device is silent: it says itself whether it can begin.
    let mut site = Site::new();
    site.open("c1", 2);
    site.wait(HOUR_MS);
    let order = Order {
        not_after_s: site.now.wall_s + 30,
        ..start_at(0, "c1")
    };
    check(&mut site, &[(order, go)]);
}

#[test]
fn a_stop_finds_the_session() {
    let mut site = Site::new();
    let (open, ended) = (site.open("c1", 1), site.open("c2", 2));
    site.say("c2", Said::Stop(stop(ended, 0, 500, 60)));
    let stop = |id, session, device: Option<&str>| Order {
        session,
        device: device.map(crate::site::id),
        ..order(id, OrderVerb::Stop, "c1")
    };
    let none = SessionId::ZERO;
    check(
        &mut site,
        &[
            (stop(1, open, None), "command 1 stop, order 1 done"),
            (stop(2, none, Some("c1")), "command 2 stop, order 2 done"),
            (stop(3, open, Some("c1")), "command 3 stop, order 3 done"),
            (stop(4, open, Some("c2")), "order 4 unknown"),
            (stop(5, ended, None), "order 5 unknown"),
            (stop(6, none, Some("c2")), "order 6 unknown"),
            (stop(7, SessionId([9; 16]), None), "order 7 unknown"),
            (stop(8, none, Some("nobody")), "order 8 unknown"),
        ],
    );
    let told = site.journal.iter().filter_map(|(_, event)| match event {
        Event::Commanded(e) => Some((e.device, e.session, e.order)),
        _ => None,
    });
    let expected = [1, 2, 3].map(|order| (id("c1"), open, order));
    assert_eq!(told.collect::<Vec<_>>(), expected, "the device is told which session");
}

#[test]
fn a_reserved_outlet_serves_its_own_token_only() {
    let mut site = Site::new();
    check(&mut site, &[(reserve(1, "c1", 2), "order 1 done")]);
    assert_eq!(words(&site.ask("c1", 1).1), "refuse reserved 300");
    // Whoever he is: nothing else is looked at.
    assert_eq!(words(&site.ask("c1", 99).1), "refuse reserved 300");
    assert_eq!(words(&site.ask("c2", 1).1), "grant list 300 3000", "any other outlet");
    let session = site.mint("c1");
    let beside = site.say("c1", authorize(session, 1, 3, 0));
    assert_eq!(words(&beside), "ask", "the outlet beside it");
    check(
        &mut site,
        &[
            (start(2, "c1", 4), "order 2 busy"),
            (reserve(3, "c1", 4), "order 3 busy"),
            (start(4, "c1", 2), "command 1 start, order 4 done"),
        ],
    );
    let (session, granted) = site.ask("c1", 2);
    assert_eq!(words(&granted), "grant list 300 3000", "by the ordinary rules");
    assert_eq!(site.gateway.reservations().iter().count(), 0, "and that ends it");
    check(&mut site, &[(reserve(5, "c1", 1), "order 5 busy")]);
    site.say("c1", Said::Stop(stop(session, 0, 0, 60)));
    assert_eq!(
        words(&site.ask("c1", 1).1).split(' ').next(),
        Some("refuse"),
        "one at a time"
    );
}

#[test]
fn a_reservation_ends_by_time_by_release_or_by_use() {
    let mut site = Site::new();
    check(&mut site, &[(reserve(1, "c1", 4), "order 1 done")]);
    // Its own token is refused like anybody: it has no credit without the cloud. The outlet stays reserved.
    let (_, asked) = site.ask("c1", 4);
    assert_eq!(words(&asked), "ask");
    site.wait(2_000);
    assert_eq!(site.gateway.reservations().iter().count(), 1);
    // Over a boot.
    site.reboot(300_000);
    site.wait(295_000);
    assert_eq!(words(&site.ask("c1", 1).1), "refuse reserved 300");
    site.wait(5_000);
    assert_eq!(site.count(|event| matches!(event, Event::Unreserved(_))), 1);
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 300 3000");
    site.check();

    let mut site = Site::new();
    check(
        &mut site,
        &[
            (order(1, OrderVerb::Release, "c1"), "order 1 unknown"),
            (reserve(2, "c1", 4), "order 2 done"),
            (
                Order {
                    until_s: WALL_S + 1_200,
                    ..reserve(3, "c1", 4)
                },
                "order 3 done",
            ),
            (order(4, OrderVerb::Release, "c2"), "order 4 unknown"),
        ],
    );
    let reservations: Vec<_> = site.gateway.reservations().iter().collect();
    assert_eq!(reservations.len(), 1);
    assert_eq!(
        (reservations[0].2.order, reservations[0].2.token),
        (3, token(4)),
        "extended"
    );
    check(
        &mut site,
        &[
            (order(5, OrderVerb::Release, "c1"), "order 5 done"),
            (order(6, OrderVerb::Release, "c1"), "order 6 unknown"),
        ],
    );
    assert_eq!(words(&site.ask("c1", 1).1), "grant list 300 3000");
}

#[test]
fn a_reservation_touches_no_session_that_runs() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    let (_, asking) = site.ask("c2", 3);
    check(
        &mut site,
        &[
            (reserve(1, "c1", 2), "order 1 busy"),
            (reserve(2, "c2", 2), "order 2 busy"),
        ],
    );
    assert_eq!(words(&site.answer(&asking, ACCEPT)), "grant cloud 300 3000");
    site.say("c1", meter(session, 0, 300, 60));
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(session, 0, 500, 120)))),
        "receipt captured 30 500"
    );
    // Who asks again is answered as before, whatever is reserved since.
    check(&mut site, &[(reserve(3, "c1", 2), "order 3 done")]);
    let again = site.say("c1", authorize(session, 0, 1, 0));
    assert_eq!(words(&again), "receipt captured 30 500");
}

#[test]
fn orders_and_what_they_set_survive_a_boot_and_a_snapshot() {
    let mut site = Site::new();
    let telemetry = |id, value| Order {
        device: None,
        value,
        ..order(id, OrderVerb::TelemetryEvery, "c1")
    };
    assert_eq!(site.gateway.orders().telemetry_every_s(), None);
    check(
        &mut site,
        &[
            (telemetry(1, 15), "order 1 done"),
            (reserve(2, "c1", 2), "order 2 done"),
            (start(3, "c2", 1), "command 1 start, order 3 done"),
            (telemetry(4, 0), "order 4 done"),
        ],
    );
    site.reboot(60_000);
    site.check();
    let mut made = Gateway::new(site.gateway.config().clone());
    for event in site.gateway.snapshot() {
        made.apply(&site.now, &event);
    }
    assert!(made == site.gateway);
    assert_eq!(made.orders().telemetry_every_s(), Some(0), "none at all");
    assert_eq!(made.orders().fates().len(), 4);
    assert_eq!(made.reservations().iter().count(), 1);
}

#[test]
fn the_raw_token_of_a_start_is_in_no_event() {
    let mut site = Site::new();
    site.put(&ordered(start(1, "c1", 1)));
    let raw = card().bytes.as_slice().to_vec();
    for (_, event) in &site.journal {
        let bytes = match event {
            Event::Ordered(e) => proto::codec::to_vec(e),
            Event::Commanded(e) => proto::codec::to_vec(e),
            _ => continue,
        };
        assert!(!bytes.windows(raw.len()).any(|window| window == raw), "{event:?}");
    }
}

#[test]
fn neither_the_mode_of_the_cloud_nor_a_breaker_stands_in_the_way() {
    let mut site = Site::new();
    site.go_local();
    let not_after_s = site.now.wall_s + 30;
    check(
        &mut site,
        &[
            (
                Order {
                    not_after_s,
                    ..start(1, "c1", 1)
                },
                "command 1 start, order 1 done",
            ),
            (order(2, OrderVerb::Report, "c1"), "command 2 report, order 2 done"),
        ],
    );
}

/// What the journal tells of the newest session of a device, and how often orders came to what.
fn told(site: &Site, device: &str) -> (Vec<String>, String) {
    let mut search = Search::new(&Wanted::LastOf(id(device)), 480).unwrap();
    let (since_s, until_s) = (None, None);
    let mut reporter = Reporter::new(Span::Between { since_s, until_s }, 480);
    for ((now, event), sequence) in site.journal.iter().zip(1..) {
        search.take(sequence, now, event);
        reporter.take(sequence, now, event);
    }
    let course = search.finish().unwrap().course.into_iter().map(|line| line.text);
    let report = reporter.finish().unwrap();
    let orders = report.orders.iter().map(|(what, count)| format!("{what} {count}"));
    let orders = orders.collect::<Vec<_>>().join(", ");
    assert!(report.to_string().contains("Orders of the operator"));
    (course.collect(), orders)
}

#[test]
fn a_person_is_told_which_order_began_and_ended_a_session() {
    let mut site = Site::new();
    site.put(&ordered(start(7, "c1", 1)));
    site.pass(2_000);
    let session = site.open("c1", 1);
    let stop_it = Order {
        session,
        ..order(8, OrderVerb::Stop, "c1")
    };
    site.put(&ordered(stop_it));
    site.put(&ordered(order(9, OrderVerb::Withdraw, "c1")));
    let (course, orders) = told(&site, "c1");
    assert_eq!(
        course,
        [
            "the operator orders a start for this token (order 7)",
            "granted: at most 3.000 kWh and 3.00; 3.00 is held",
            "the device is told: stop this session, by order 8 of the operator",
        ]
    );
    assert_eq!(orders, "start done 1, stop done 1, withdraw stale 1");
    // Another token, or much later: nobody ordered that.
    for (n, passed_ms) in [(2, 2_000), (1, 120_000)] {
        let mut site = Site::new();
        site.put(&ordered(start(7, "c1", 1)));
        site.pass(passed_ms);
        site.open("c1", n);
        let (course, _) = told(&site, "c1");
        assert!(course[0].starts_with("granted"), "{course:?}");
    }
}
