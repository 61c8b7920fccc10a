//! Money: what a session costs, and that no register interval is billed twice.

use crate::site::*;
use gateway_core::{Event, Input, Said};
use proto::{
    artifact::{TariffOf, TariffTable},
    id::Kind,
    message::{ClockQuality, Stop},
    money::{Money, Units},
    tariff::{Dimension, PriceElement, Tariff},
};

fn price(site: &mut Site, revision: u64, kind: Kind, tariff: Tariff) {
    let entries = vec![TariffOf { kind, tariff }];
    site.put(&Input::Tariffs(TariffTable { revision, entries }));
}

#[test]
fn the_least_of_bill_hold_and_shown() {
    let check = |units: u64, shown: i64, expected: &str| {
        let mut site = Site::new();
        let session = site.open("c1", 1);
        let said = Stop {
            shown: Money(shown),
            ..stop(session, 0, units, 60)
        };
        site.say("c1", Said::Stop(said));
        assert_eq!(site.closing(session), expected, "{units} Wh, shown {shown}");
        site.check();
    };
    check(1_000, 1_000, "captured 60 1000");
    check(1_000, 60, "captured 60 1000");
    check(1_000, 59, "captured 59 1000");
    check(1_000, 0, "captured 0 1000");
    check(1_000, -1, "captured 0 1000");
    // What the device delivered beyond the grant is its own fault.
    check(50_000, 1_000_000, "captured 180 3000");
    // Half a fen rounds up, less does not.
    check(1_008, 1_000, "captured 60 1008");
    check(1_009, 1_000, "captured 61 1009");
}

#[test]
fn the_hold_is_never_exceeded() {
    let mut site = Site::new();
    let tariff = Tariff::flat(2, &[(Dimension::Energy, 60_000), (Dimension::Time, 100_000)]);
    price(&mut site, 2, Kind::Charger, tariff);
    let session = site.open("c1", 1);
    site.say("c1", Said::Stop(stop(session, 0, 1_000, 36_000)));
    assert_eq!(
        site.closing(session),
        "captured 300 1000",
        "ten hours at 1.00 a minute, 3.00 held"
    );
}

#[test]
fn readings_in_between_change_nothing() {
    // Any readings on the way to the same end give the same bill.
    let check = |readings: &[(u64, u32)]| {
        let mut site = Site::new();
        let session = site.open("c1", 1);
        for &(register, elapsed_s) in readings {
            site.say("c1", meter(session, 0, register, elapsed_s));
        }
        site.say("c1", Said::Stop(stop(session, 0, 1_111, 1_800)));
        assert_eq!(site.closing(session), "captured 67 1111", "{readings:?}");
        assert_eq!(billed_quantity(&site), 1_111, "{readings:?}");
        site.check();
    };
    check(&[]);
    check(&[(0, 0)]);
    check(&[(100, 60), (200, 120), (1_111, 1_800)]);
    check(&[(100, 60), (100, 60), (100, 60)]);
    // Late ones, older than what is known.
    check(&[(500, 600), (100, 60), (499, 599), (600, 700)]);
    // The clock of the device lost time in a power cut.
    check(&[(500, 600), (550, 30), (600, 700)]);
}

/// Quantity of the first price element over all captures.
fn billed_quantity(site: &Site) -> u64 {
    let captures = site.journal.iter().filter_map(|(_, event)| match event {
        Event::Closed(closed) => Some(closed.record.bill.quantities[0]),
        _ => None,
    });
    captures.sum()
}

/// What two sessions at one outlet report, in turn. The register never moved beyond 300.
#[derive(Clone, Copy, Debug)]
enum Word {
    Reads(usize, u64, u64),
    Stops(usize, u64, u64),
}
use Word::*;

#[test]
fn overlapping_registers_are_billed_once() {
    let check = |told: &[Word], expected: [u64; 2]| {
        let mut site = Site::new();
        let sessions = [site.open("c1", 1), site.open("c1", 2)];
        for (nth, &word) in told.iter().enumerate() {
            let elapsed_s = nth as u32 * 60;
            match word {
                Reads(i, start, now) => site.say("c1", meter(sessions[i], start, now, elapsed_s)),
                Stops(i, start, end) => site.say("c1", Said::Stop(stop(sessions[i], start, end, elapsed_s))),
            };
        }
        let units = sessions.map(|session| site.gateway.sessions().get(&session).unwrap().units.0);
        assert_eq!(units, expected, "{told:?}");
        assert_eq!(billed_quantity(&site), expected.iter().sum::<u64>(), "{told:?}");
        site.check();
    };
    // No overlap, in order; the second begins where the first ended.
    check(&[Stops(0, 100, 200), Stops(1, 200, 300)], [100, 100]);
    // The first one's stop comes after the second began: nothing overlaps.
    check(
        &[
            Reads(0, 100, 200),
            Reads(1, 200, 250),
            Stops(0, 100, 200),
            Stops(1, 200, 300),
        ],
        [100, 100],
    );
    // The second begins inside the first.
    check(&[Stops(0, 100, 200), Stops(1, 150, 300)], [100, 100]);
    check(
        &[Reads(1, 100, 100), Stops(0, 100, 200), Stops(1, 100, 300)],
        [100, 100],
    );
    check(
        &[
            Reads(0, 100, 150),
            Reads(1, 100, 180),
            Stops(0, 100, 200),
            Stops(1, 100, 300),
        ],
        [70, 130],
    );
    // The second says all that the first has said.
    check(&[Stops(0, 100, 200), Stops(1, 100, 200)], [100, 0]);
    check(
        &[
            Reads(0, 100, 200),
            Reads(1, 100, 200),
            Stops(1, 100, 200),
            Stops(0, 100, 200),
        ],
        [100, 0],
    );
    check(&[Stops(1, 100, 300), Stops(0, 150, 200)], [0, 200]);
}

#[test]
fn a_register_that_runs_back_alarms_once() {
    let mut site = Site::new();
    let first = site.open("c1", 1);
    site.say("c1", Said::Stop(stop(first, 0, 500, 60)));
    let second = site.open("c1", 1);
    let end = site.say("c1", Said::Stop(stop(second, 400, 600, 60)));
    assert_eq!(
        words(&end),
        "alarm: c1 outlet 0: the register stands at 400, 500 is billed already, receipt captured 6 100"
    );
}

/// 1.00 a kWh from 16:00 to 17:00 local time, 0.10 otherwise. At the site it is 16:00 at the start.
fn by_time() -> Tariff {
    let element = |from, to, price| PriceElement {
        minute_from: from,
        minute_to: to,
        ..PriceElement::flat(Dimension::Energy, price)
    };
    let mut tariff = Tariff::flat(2, &[]);
    tariff.elements.push(element(16 * 60, 17 * 60, 100_000)).unwrap();
    tariff.elements.push(element(17 * 60, 16 * 60, 10_000)).unwrap();
    tariff
}

#[test]
fn time_of_use() {
    // (minutes past 16:00 at the grant, readings (minute of the session, Wh), minute at which the stop is heard,
    // minutes it lasted, Wh) -> amount
    let check = |name: &str, at_min: u64, readings: &[(u64, u64)], heard: u64, lasted: u64, wh: u64, amount: i64| {
        let mut site = Site::new();
        assert_eq!(site.now.second_of_day(480), Some(16 * 3600));
        price(&mut site, 2, Kind::Charger, by_time());
        site.pass(at_min * 60_000);
        let session = site.open("c1", 1);
        let begun_ms = site.now.mono_ms;
        for &(minute, register) in readings {
            site.pass(begun_ms + minute * 60_000 - site.now.mono_ms);
            site.say("c1", meter(session, 0, register, minute as u32 * 60));
        }
        site.pass(begun_ms + heard * 60_000 - site.now.mono_ms);
        site.say("c1", Said::Stop(stop(session, 0, wh, lasted as u32 * 60)));
        assert_eq!(
            site.gateway.sessions().get(&session).unwrap().amount,
            Money(amount),
            "{name}"
        );
        site.check();
    };
    check("all dear", 0, &[(0, 0)], 30, 30, 1_000, 100);
    check("all cheap", 60, &[(0, 0)], 30, 30, 1_000, 10);
    check("half and half", 30, &[(0, 0)], 60, 60, 1_000, 55);
    check(
        "half and half, checkpoints",
        30,
        &[(0, 0), (20, 333), (40, 667)],
        60,
        60,
        1_000,
        55,
    );
    // The link was down: the first reading tells of half an hour.
    check(
        "the first reading is late",
        0,
        &[(30, 500), (59, 983)],
        60,
        60,
        1_000,
        100,
    );
    check(
        "the first reading is late and the hour is over",
        30,
        &[(60, 1_000)],
        90,
        60,
        1_000,
        55,
    );
    // The stop comes days later; the last checkpoint says when it was.
    check("the stop is late", 0, &[(0, 0)], 3_000, 30, 1_000, 100);
    // Nobody knows when it was: the customer's favour.
    check("only a late stop", 0, &[], 3_000, 30, 1_000, 10);
}

#[test]
fn without_a_clock_the_customers_favour_decides() {
    for (quality, amount) in [
        (ClockQuality::Synchronised, 100),
        (ClockQuality::Informative, 10),
        (ClockQuality::Unknown, 10),
        (ClockQuality::Relative, 10),
    ] {
        let mut site = Site::new();
        price(&mut site, 2, Kind::Charger, by_time());
        site.now.quality = quality;
        let session = site.open("c1", 1);
        site.say("c1", meter(session, 0, 0, 0));
        site.pass(60_000);
        site.say("c1", Said::Stop(stop(session, 0, 1_000, 60)));
        assert_eq!(
            site.gateway.sessions().get(&session).unwrap().amount,
            Money(amount),
            "{quality:?}"
        );
    }
}

#[test]
fn the_granted_price_is_billed() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.say("c1", started(session, 0));
    site.put(&tariffs_of(2, &[(Kind::Charger, 90_000)]));
    site.say("c1", Said::Stop(stop(session, 0, 1_000, 60)));
    assert_eq!(site.closing(session), "captured 60 1000", "the price when it began");
    let next = site.mint("c1");
    site.say("c1", authorize(next, 0, 1, 1_000));
    site.say("c1", Said::Stop(stop(next, 1_000, 2_000, 60)));
    assert_eq!(site.closing(next), "captured 90 1000", "the price now");
    assert_eq!(
        site.gateway.sessions().get(&next).unwrap().request.register,
        Units(1_000)
    );
    site.check();
}

#[test]
fn kinds_have_their_own_units() {
    let check = |device: &str, units: u64, expected: &str| {
        let mut site = Site::new();
        let session = site.open(device, 1);
        site.say(device, Said::Stop(stop(session, 0, units, 60)));
        assert_eq!(site.closing(session), expected, "{device}");
    };
    check("c1", 1_000, "captured 60 1000");
    check("w1", 1, "captured 400 1");
    check("d1", 1_500, "captured 30 1500");
}
