//! The life of a session, rule by rule.

mod bench;

use bench::{Bench, Said, WALL_S, config, grant, tariff, token};
use device::{Input, Screen, Sense};
use proto::{
    id::{Kind, SessionId},
    message::*,
    money::{Money, Units},
    tariff::{Dimension, PriceElement, Tariff},
    topic::Down,
};

#[test]
fn every_kind_runs_from_token_to_receipt() {
    for kind in Kind::SERVED {
        let mut b = Bench::new(kind);
        b.order.clear();
        let session = b.granted(0, 1);
        assert_eq!(
            b.order,
            ["store", "authorize", "status", "store", "on 0"],
            "{kind:?}: the session is stored before it is said, the grant before the output is on"
        );
        b.order.clear();
        b.begin(0);
        assert_eq!(b.order, ["store", "started", "meter", "status"], "{kind:?}");
        b.order.clear();
        b.present(0, 2);
        assert!(b.order.is_empty(), "{kind:?}: a stranger's token does nothing");
        b.wait(3_000);
        b.present(0, 1);
        assert_eq!(b.order, ["off 0", "store", "stop", "status"], "{kind:?}");
        let stop = b.last_stop();
        assert_eq!(
            (stop.session, stop.reason, stop.started),
            (session, StopReason::User, true)
        );
        assert_eq!(stop.elapsed_s, 3);
        b.receipt(session);
        assert_eq!(b.device.unreceipted(), 0);
        b.order.clear();
        b.wait(600_000);
        assert_eq!(b.count("stop"), 0, "{kind:?}: a receipt ends the repetition");
    }
}

#[test]
fn an_authorize_is_repeated_with_its_id_until_the_device_gives_up() {
    let mut b = Bench::new(Kind::Charger);
    b.said.clear();
    b.present(0, 1);
    b.wait(29_000);
    let sessions: Vec<SessionId> = b
        .said
        .iter()
        .filter_map(|s| match s {
            Said::Authorize(a) => Some(a.session),
            _ => None,
        })
        .collect();
    assert_eq!(sessions.len(), 5, "at 0, 2, 6, 14 and 22 s and a spread");
    assert!(sessions.windows(2).all(|w| w[0] == w[1]));
    assert!(b.stops().is_empty());
    b.wait(2_000);
    let stop = b.last_stop();
    assert_eq!(
        (stop.reason, stop.started, stop.shown),
        (StopReason::Abandoned, false, Money::ZERO)
    );
    // The grant was on its way: the stop is said again at once, and nothing is switched on.
    let before = b.stops().len();
    b.tell(Down::Grant, &grant(Kind::Charger, stop.session));
    assert_eq!(b.stops().len(), before + 1);
    assert!(!b.on(0));
    b.wait(3_600_000);
    let stops = b.stops();
    assert!(stops.len() > 50, "repeated until its receipt: {}", stops.len());
    assert!(stops.iter().all(|s| *s == stop), "word for word the same");
}

#[test]
fn the_user_may_give_up_and_a_request_nobody_heard_leaves_no_trace() {
    let mut b = Bench::new(Kind::Dispenser);
    b.present(0, 1);
    b.input(Input::Button { outlet: 0 });
    assert_eq!(b.last_stop().reason, StopReason::Abandoned);
    assert_eq!(b.device.unreceipted(), 1);

    b.input(Input::LinkDown);
    b.present(1, 1);
    b.input(Input::Button { outlet: 1 });
    assert_eq!(b.device.unreceipted(), 1, "no authorize left: no stop");
    assert_eq!(b.screens.last(), Some(&(1, Screen::Unavailable)));
}

#[test]
fn a_refusal_ends_the_request_and_late_answers_change_nothing() {
    let mut b = Bench::new(Kind::Charger);
    b.present(0, 1);
    let session = b.device.session(0).unwrap();
    let refusal = Refusal {
        session,
        reason: RefusalReason::Revoked,
        retry_after_s: 0,
    };
    b.tell(Down::Refusal, &refusal);
    let refused = Screen::Refused {
        reason: RefusalReason::Revoked,
        retry_after_s: 0,
    };
    assert_eq!(b.screens.last(), Some(&(0, refused)));
    b.tell(Down::Grant, &grant(Kind::Charger, session));
    assert_eq!((b.device.state(0), b.on(0)), (Some(OutletState::Free), false));
    assert!(b.stops().is_empty());

    let other = b.granted(0, 2);
    let grants_before = b.order.len();
    b.tell(Down::Grant, &grant(Kind::Charger, other));
    b.tell(
        Down::Refusal,
        &Refusal {
            session: other,
            ..refusal
        },
    );
    assert_eq!(
        b.order.len(),
        grants_before,
        "a second answer to a granted session is ignored"
    );
    assert!(b.on(0));
}

#[test]
fn a_grant_that_cannot_be_kept_is_never_switched_on() {
    type Change = fn(&mut Grant);
    let cases: [(&str, Kind, Change); 6] = [
        ("no units", Kind::Charger, |g| g.units_max = Units::ZERO),
        ("no time", Kind::Charger, |g| g.duration_max_s = 0),
        ("another tariff than agreed", Kind::Charger, |g| {
            g.tariff.start_fee = Money(1)
        }),
        ("a hold below the start fee", Kind::Dispenser, |g| {
            g.tariff.start_fee = Money(601);
            g.tariff_hash = g.tariff.hash();
        }),
        ("a hold below one cycle", Kind::Washer, |g| g.money_max = Money(499)),
        ("a price that cannot be computed", Kind::Charger, |g| {
            g.tariff.elements[0].dimension = Dimension::Other;
            g.tariff_hash = g.tariff.hash();
        }),
    ];
    for (name, kind, change) in cases {
        let mut b = Bench::new(kind);
        b.present(0, 1);
        let mut grant = grant(kind, b.device.session(0).unwrap());
        change(&mut grant);
        b.tell(Down::Grant, &grant);
        assert!(!b.order.contains(&"on 0".to_string()), "{name}");
        let stop = b.last_stop();
        assert_eq!((stop.reason, stop.started), (StopReason::NotStarted, false), "{name}");
    }
}

#[test]
fn a_start_must_be_proven_in_time() {
    type Change = fn(&mut Sense);
    let cases: [(&str, Kind, Change, bool); 8] = [
        (
            "contactor and current",
            Kind::Charger,
            |s| (s.relay_closed, s.power_w) = (true, 50),
            true,
        ),
        (
            "contactor and energy",
            Kind::Charger,
            |s| (s.relay_closed, s.register.0) = (true, 1),
            true,
        ),
        ("contactor only", Kind::Charger, |s| s.relay_closed = true, false),
        ("current only", Kind::Charger, |s| s.power_w = 50, false),
        (
            "door and programme",
            Kind::Washer,
            |s| (s.door_locked, s.running) = (true, true),
            true,
        ),
        ("door only", Kind::Washer, |s| s.door_locked = true, false),
        ("water", Kind::Dispenser, |s| s.register.0 += 1, true),
        ("no water", Kind::Dispenser, |_| {}, false),
    ];
    for (name, kind, change, proven) in cases {
        let mut b = Bench::new(kind);
        let session = b.granted(0, 1);
        b.sense(0, change);
        b.pass(59, 0, |_| {});
        let started = b
            .said
            .iter()
            .any(|s| matches!(s, Said::Started(s) if s.session == session));
        assert_eq!(started, proven, "{name}");
        b.pass(2, 0, |_| {});
        let not_started = b
            .stops()
            .iter()
            .any(|s| (s.reason, s.started, s.shown) == (StopReason::NotStarted, false, Money::ZERO));
        assert_eq!(not_started, !proven, "{name}");
    }
}

#[test]
fn an_empty_socket_is_never_live() {
    let mut b = Bench::new(Kind::Charger);
    b.sense(0, |s| s.plugged = false);
    b.granted(0, 1);
    assert!(!b.on(0));
    b.pass(5, 0, |_| {});
    b.sense(0, |s| s.plugged = true);
    assert!(b.on(0));
    b.sense(0, |s| s.plugged = false);
    assert!(!b.on(0), "pulled again before it began");
    b.sense(0, |s| s.plugged = true);
    b.begin(0);
    b.sense(0, |s| s.plugged = false);
    assert_eq!((b.on(0), b.last_stop().reason), (false, StopReason::Unplugged));
}

#[test]
fn whichever_limit_is_reached_first_switches_off() {
    // A charger at 2 kW that counts 10 Wh a second at 1.00 a kWh: 1 fen a second.
    type Change = fn(&mut Grant);
    let cases: [(&str, Change, Units, Money); 5] = [
        ("units", |g| g.units_max = Units(95), Units(100), Money(10)),
        ("money", |g| g.money_max = Money(7), Units(70), Money(7)),
        ("time", |g| g.duration_max_s = 5, Units(40), Money(4)),
        (
            "money with a start fee",
            |g| {
                g.tariff.start_fee = Money(5);
                g.tariff_hash = g.tariff.hash();
                g.money_max = Money(9);
            },
            Units(40),
            Money(9),
        ),
        (
            "a minimum that fills the hold is no reason to stop before it is used up",
            |g| {
                g.tariff.minimum = Money(12);
                g.tariff_hash = g.tariff.hash();
                g.money_max = Money(12);
            },
            Units(120),
            Money(12),
        ),
    ];
    for (name, change, units, money) in cases {
        let mut b = Bench::new(Kind::Charger);
        b.present(0, 1);
        let mut grant = grant(Kind::Charger, b.device.session(0).unwrap());
        change(&mut grant);
        b.tell(Down::Grant, &grant);
        b.begin(0);
        b.pass(30, 0, |s| s.register.0 += 10);
        assert!(!b.on(0), "{name}");
        let stop = b.last_stop();
        assert_eq!(stop.reason, StopReason::Limit, "{name}");
        assert_eq!(stop.register_end.since(stop.register_start), units, "{name}");
        assert_eq!(stop.shown, money, "{name}");
        assert!(stop.shown <= grant.money_max);
    }
}

#[test]
fn a_user_gets_no_more_than_asked_for() {
    let mut b = Bench::new(Kind::Dispenser);
    b.input(Input::Token {
        outlet: 0,
        token: token(1),
        units_wished: Units(500),
    });
    let session = b.device.session(0).unwrap();
    b.tell(Down::Grant, &grant(Kind::Dispenser, session));
    b.begin(0);
    b.pass(30, 0, |s| s.register.0 += 100);
    let stop = b.last_stop();
    assert_eq!((stop.reason, stop.register_end), (StopReason::Limit, Units(520)));
    assert_eq!(stop.shown, Money(20), "500 ml at 0.40 a litre");
}

#[test]
fn a_wash_cycle_is_never_cut_but_by_its_user_or_a_fault() {
    let mut b = Bench::new(Kind::Washer);
    b.present(0, 1);
    let session = b.device.session(0).unwrap();
    let mut g = grant(Kind::Washer, session);
    (g.duration_max_s, g.money_max) = (10, Money(500));
    b.tell(Down::Grant, &g);
    b.begin(0);
    b.pass(20, 0, |_| {});
    assert!(b.on(0), "the time is up, the programme is not");
    let command = Command {
        id: 1,
        verb: Verb::Stop,
        outlet: 0,
        session,
        not_after_s: 0,
        token: None,
        units: Units::ZERO,
    };
    b.tell(Down::Command, &command);
    assert!(matches!(
        b.said.last(),
        Some(Said::Answer(CommandAnswer {
            outcome: CommandOutcome::NotApplicable,
            ..
        }))
    ));
    b.wait(120_000);
    assert!(b.on(0), "not even without readings");
    b.sense(0, |s| s.running = false);
    b.pass(6, 0, |_| {});
    let stop = b.last_stop();
    assert_eq!((stop.reason, stop.shown), (StopReason::Finished, Money(500)));
    assert_eq!(stop.register_end.since(stop.register_start), Units(1));
    b.receipt(session);

    b.sense(0, |s| (s.running, s.door_locked) = (false, false));
    b.running(0, 1);
    b.sense(0, |s| s.door_locked = false);
    assert_eq!((b.last_stop().reason, b.on(0)), (StopReason::Fault, false));
}

#[test]
fn a_session_ends_when_nothing_more_is_drawn() {
    type Change = fn(&mut Sense);
    let cases: [(Kind, u64, Change, Change); 3] = [
        (Kind::Charger, 180, |s| s.power_w = 3, |s| s.power_w = 60),
        (Kind::Washer, 5, |s| s.running = false, |s| s.running = true),
        (
            Kind::Dispenser,
            5,
            |s| s.flowing = false,
            |s| {
                s.flowing = true;
                s.register.0 += 10;
            },
        ),
    ];
    for (kind, after_s, rest, go_on) in cases {
        let mut b = Bench::new(kind);
        b.running(0, 1);
        b.sense(0, rest);
        b.pass(after_s - 1, 0, rest);
        b.sense(0, go_on);
        assert!(b.on(0), "{kind:?}: a pause is no end");
        b.sense(0, rest);
        b.pass(after_s - 1, 0, rest);
        assert!(b.on(0), "{kind:?}");
        b.pass(1, 0, rest);
        let stop = b.last_stop();
        assert_eq!((b.on(0), stop.reason), (false, StopReason::Finished), "{kind:?}");
        assert_eq!(u64::from(stop.idle_s), 2 * after_s - 1, "{kind:?}");
    }
}

#[test]
fn a_card_that_rests_on_the_reader_is_one_gesture() {
    let mut b = Bench::new(Kind::Charger);
    b.granted(0, 1);
    for _ in 0..15 {
        b.wait(500);
        b.present(0, 1);
    }
    assert!(b.on(0));
    b.wait(2_100);
    b.present(0, 1);
    assert!(!b.on(0));
}

#[test]
fn an_outlet_takes_no_session_that_it_could_not_close() {
    let mut b = Bench::new(Kind::Charger);
    for n in 0..4 {
        b.present(0, n);
        b.input(Input::Button { outlet: 0 });
    }
    b.present(0, 9);
    assert_eq!((b.device.session(0), b.device.unreceipted()), (None, 4));
    assert_eq!(b.screens.last(), Some(&(0, Screen::Unavailable)));
    b.granted(1, 9);
    assert!(b.on(1), "the other outlet is not concerned");
    let first = b.stops()[0].session;
    b.receipt(first);
    b.wait(3_000);
    b.present(0, 9);
    assert!(b.device.session(0).is_some());
}

#[test]
fn meters_come_at_their_interval_and_are_cumulative() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.said.clear();
    b.pass(180, 0, |s| s.register.0 += 1);
    let meters: Vec<(u64, u32)> = b
        .said
        .iter()
        .filter_map(|s| match s {
            Said::Meter(m) => Some((m.register.since(m.register_start).0, m.elapsed_s)),
            _ => None,
        })
        .collect();
    assert_eq!(meters, [(59, 60), (119, 120), (179, 180)]);
}

#[test]
fn the_price_of_the_hour_applies_only_with_a_trusted_clock() {
    // WALL_S + 8 h is 06:13:20 local; dear from 06:00 to 07:00.
    let mut dear = PriceElement::flat(Dimension::Energy, 200_000);
    (dear.minute_from, dear.minute_to) = (360, 420);
    let tariff = Tariff {
        elements: [dear, PriceElement::flat(Dimension::Energy, 100_000)]
            .into_iter()
            .collect(),
        ..tariff(Kind::Charger)
    };
    for (quality, shown) in [
        (ClockQuality::Synchronised, Money(20)),
        (ClockQuality::Informative, Money(10)),
        (ClockQuality::Unknown, Money(10)),
    ] {
        let mut b = Bench::with(config(Kind::Charger));
        b.clock(1, quality, WALL_S);
        b.present(0, 1);
        let mut grant = grant(Kind::Charger, b.device.session(0).unwrap());
        (grant.tariff_hash, grant.tariff) = (tariff.hash(), tariff.clone());
        b.tell(Down::Grant, &grant);
        b.begin(0);
        b.pass(10, 0, |s| s.register.0 += 10);
        b.input(Input::Button { outlet: 0 });
        assert_eq!(b.last_stop().shown, shown, "{quality:?}");
    }
}
