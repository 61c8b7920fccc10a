//! Clocks that disagree: who is told, what alarms, and what is billed by a time of day that nobody is sure of.

use crate::site::*;
use gateway_core::{Config, Decision, Effect, Event, Input, Now, Said};
use proto::{
    id::{Hash, Kind},
    link::Welcome,
    message::{ClockQuality, Hello, Stamp},
    money::Money,
    tariff::{Dimension, PriceElement, Tariff},
};

fn alarms(decision: &Decision) -> Vec<String> {
    let alarms = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Alarm(alarm) => Some(alarm.to_string()),
        _ => None,
    });
    alarms.collect()
}

#[test]
fn a_clock_that_is_set_alarms_and_devices_are_told() {
    for (jump_s, quality, expected) in [
        (0, ClockQuality::Synchronised, ""),
        (300, ClockQuality::Synchronised, ""),
        (-300, ClockQuality::Synchronised, ""),
        (
            301,
            ClockQuality::Synchronised,
            "alarm: this gateway's clock is 301 s ahead of what was expected, clock 3",
        ),
        (
            -86_400,
            ClockQuality::Synchronised,
            "alarm: this gateway's clock is -86400 s ahead of what was expected, clock 3",
        ),
        // Worth less or more than before: devices learn it, nobody is woken.
        (0, ClockQuality::Informative, "clock 3"),
        (0, ClockQuality::Unknown, "clock 3"),
    ] {
        let mut site = Site::new();
        site.say("c1", hello(Kind::Charger, 2, 3));
        site.pass(60_000);
        site.now.wall_s = site.now.wall_s.saturating_add_signed(jump_s);
        site.now.quality = quality;
        assert_eq!(
            words(&site.put(&revocations(1, &[]))),
            expected,
            "{jump_s} s, {quality:?}"
        );
        assert_eq!(words(&site.put(&revocations(2, &[]))), "", "once");
        site.check();
    }
}

#[test]
fn clocks_of_others_are_compared() {
    let greeted = |its_s: u64, quality: ClockQuality| {
        let mut site = Site::new();
        let at = Stamp {
            wall_s: its_s,
            quality,
            ..STAMP
        };
        let Said::Hello(greeting) = hello(Kind::Charger, 2, 3) else {
            unreachable!("it makes a hello")
        };
        alarms(&site.say("c1", Said::Hello(Hello { at, ..greeting })))
    };
    use ClockQuality::{Informative, Relative, Synchronised, Unknown};
    assert_eq!(greeted(WALL_S + 300, Synchronised), [""; 0]);
    assert_eq!(
        greeted(WALL_S + 301, Synchronised),
        ["c1's clock is 301 s ahead of what was expected"]
    );
    assert_eq!(
        greeted(WALL_S - 301, Informative),
        ["c1's clock is -301 s ahead of what was expected"]
    );
    assert_eq!(greeted(1, Unknown), [""; 0]);
    assert_eq!(greeted(1, Relative), [""; 0]);
    let welcomed = |wall_s: u64| {
        let welcome = Welcome {
            version: 1,
            epoch: 1,
            upto: 0,
            hash: Hash::ZERO,
            wall_s,
            ..Welcome::default()
        };
        alarms(&Site::new().put(&Input::Welcome(welcome)))
    };
    assert_eq!(welcomed(WALL_S + 60), [""; 0]);
    assert_eq!(welcomed(0), [""; 0]);
    assert_eq!(
        welcomed(WALL_S + 3_600),
        ["the hub's clock is 3600 s ahead of what was expected"]
    );
}

#[test]
fn a_clock_without_a_battery_is_noticed_at_boot() {
    for (wall_s, quality, expected) in [
        (WALL_S + 60, ClockQuality::Synchronised, ""),
        (0, ClockQuality::Unknown, ""),
        (
            WALL_S - 86_400,
            ClockQuality::Informative,
            "alarm: this gateway's clock is -86400 s ahead of what was expected",
        ),
        (
            1,
            ClockQuality::Informative,
            "alarm: this gateway's clock is -1768463999 s ahead of what was expected",
        ),
    ] {
        let mut site = Site::new();
        site.now = Now {
            mono_ms: 0,
            wall_s,
            quality,
        };
        assert_eq!(
            words(&site.put(&Input::Boot { boot: 2, epoch: 1 })),
            expected,
            "{wall_s} {quality:?}"
        );
    }
}

/// 2.00 a kWh from 16:00 to 24:00, 1.00 before; it is 16:00 at the site.
fn dear_evening() -> Tariff {
    let element = |minute_from, minute_to, price_milli| PriceElement {
        dimension: Dimension::Energy,
        price_milli,
        minute_from,
        minute_to,
        power_w_min: 0,
        power_w_max: 0,
    };
    let elements = [element(960, 1440, 200_000), element(0, 960, 100_000)];
    Tariff {
        id: 1,
        elements: elements.into_iter().collect(),
        ..Tariff::default()
    }
}

#[test]
fn a_clock_set_during_a_session_bills_the_cheaper_time() {
    // The slice in which it was set is cheap; the slices after it go by the new time.
    for (jump_s, expected) in [
        (0, "captured 300 1500"),
        (-36_000, "captured 150 1500"),
        (3_600, "captured 200 1500"),
    ] {
        let mut config: Config = config();
        config.limits.charger.money_max = Money(2_000);
        let mut site = Site::with(config);
        let entry = proto::artifact::TariffOf {
            kind: Kind::Charger,
            tariff: dear_evening(),
        };
        site.put(&Input::Tariffs(proto::artifact::TariffTable {
            revision: 2,
            entries: vec![entry],
        }));
        let session = site.open("c1", 1);
        site.say("c1", started(session, 0));
        site.pass(600_000);
        site.now.wall_s = site.now.wall_s.saturating_add_signed(jump_s);
        site.say("c1", meter(session, 0, 1_000, 600));
        site.pass(600_000);
        site.say("c1", Said::Stop(stop(session, 0, 1_500, 1_200)));
        assert_eq!(site.closing(session), expected, "a jump of {jump_s} s");
        assert_eq!(
            site.count(|event| matches!(event, Event::ClockChanged(_))),
            usize::from(jump_s != 0)
        );
        site.check();
    }
}
