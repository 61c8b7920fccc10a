//! Boots and wrong clocks: one line of time that never runs backwards.

use crate::site::*;
use gateway_core::Instant;
use proto::message::ClockQuality;

use ClockQuality::{Informative, Relative, Synchronised, Unknown};

/// Seconds that the line of time advanced over a boot.
fn slept_s(before: (u64, ClockQuality), after: (u64, ClockQuality)) -> u64 {
    let mut site = Site::new();
    site.pass(HOUR_MS);
    (site.now.wall_s, site.now.quality) = before;
    site.put(&revocations(1, &[]));
    let last = site.gateway.timeline().last;
    site.now.mono_ms = 700; // The clock of a boot runs before the gateway does.
    (site.now.wall_s, site.now.quality) = after;
    site.boot();
    let here = site.gateway.timeline().at(&site.now);
    assert!(here >= last, "time ran backwards");
    site.check();
    here.since_ms(last) / 1000
}

#[test]
fn what_passed_while_the_power_was_away() {
    const T: u64 = WALL_S + 3_600;
    const DAY: u64 = 86_400;
    let check = |before, after, expected| assert_eq!(slept_s(before, after), expected, "{before:?} -> {after:?}");
    check((T, Synchronised), (T + 60, Synchronised), 60);
    check((T, Synchronised), (T + 60, Informative), 60);
    // No clock that survives: nothing is known to have passed.
    check((T, Synchronised), (T + 60, Unknown), 0);
    check((T, Synchronised), (T + 60, Relative), 0);
    check((T, Synchronised), (0, Unknown), 0);
    // 1970, and a day back: never negative.
    check((T, Synchronised), (0, Informative), 0);
    check((T, Synchronised), (T - DAY, Synchronised), 0);
    // A day ahead is believed as a day, no more.
    check((T, Synchronised), (T + DAY, Informative), DAY);
    check((T, Synchronised), (T + 9 * DAY, Informative), DAY);
    check((T, Synchronised), (T + 9 * DAY, Synchronised), 9 * DAY);
    // A jump ahead within the boot was no sleep; what comes after it counts from the highest time seen.
    check((T + DAY, Informative), (T + 60, Synchronised), 0);
    check((T + DAY, Informative), (T + DAY + 60, Synchronised), 60);
    // A jump back within the boot does not make the sleep longer.
    check((T - DAY, Informative), (T + 60, Synchronised), 3_660);
}

#[test]
fn a_gateway_that_never_had_a_clock_counts_what_it_ran() {
    let mut site = Site::empty(config());
    (site.now.wall_s, site.now.quality) = (0, Unknown);
    // The first boot of `Site` had a clock; a journal whose every boot had none:
    let mut gateway = gateway_core::Gateway::new(config());
    let booted = |boot| gateway_core::Event::Booted(gateway_core::event::Booted { boot, epoch: 1 });
    site.now.mono_ms = 500;
    gateway.apply(&site.now, &booted(1));
    site.now.mono_ms = 10_500;
    gateway.apply(&site.now, &booted_heard());
    site.now.mono_ms = 200;
    gateway.apply(&site.now, &booted(2));
    assert_eq!(
        gateway.timeline().at(&site.now),
        Instant(10_000 + 500),
        "500 ms before, 10 s running"
    );
    // The first good clock adds no fifty years.
    (site.now.wall_s, site.now.quality) = (WALL_S, Synchronised);
    gateway.apply(&site.now, &booted(3));
    assert_eq!(gateway.timeline().at(&site.now), Instant(10_500));
}

fn booted_heard() -> gateway_core::Event {
    gateway_core::Event::Heard(gateway_core::event::Heard {
        device: id("c1"),
        counter: 1,
    })
}

#[test]
fn a_wall_clock_that_jumps_within_a_boot_ages_nothing() {
    for jump_s in [-86_400_i64, 86_400, 365 * 86_400, -(WALL_S as i64)] {
        let mut site = Site::new();
        site.go_local();
        site.now.wall_s = site.now.wall_s.saturating_add_signed(jump_s);
        assert_eq!(
            words(&site.ask("c1", 1).1),
            format!("alarm: this gateway's clock is {jump_s} s ahead of what was expected, grant list 300 3000"),
            "a jump of {jump_s} s"
        );
        site.pass(71 * HOUR_MS);
        assert_eq!(
            words(&site.ask("c2", 2).1),
            "grant list 300 3000",
            "71 h and a jump of {jump_s} s"
        );
        site.pass(2 * HOUR_MS);
        assert_eq!(
            words(&site.ask("d1", 2).1),
            "grant list 100 2500",
            "73 h and a jump of {jump_s} s"
        );
        site.check();
    }
}

#[test]
fn a_list_ages_over_boots() {
    let check = |slept_ms: u64, quality: ClockQuality, expected: &str| {
        let mut site = Site::new();
        site.now.quality = quality;
        site.reboot(slept_ms);
        assert_eq!(words(&site.ask("c1", 1).1), expected, "{slept_ms} ms, {quality:?}");
        site.check();
    };
    check(71 * HOUR_MS, Synchronised, "grant list 300 3000");
    check(73 * HOUR_MS, Synchronised, "grant list 150 1500");
    check(8 * DAY_MS, Synchronised, "refuse list_expired 0");
    check(8 * DAY_MS, Unknown, "grant list 300 3000");
    // A clock that nothing confirms is believed a day: it kills no list.
    check(8 * DAY_MS, Informative, "grant list 300 3000");
    check(20 * 365 * DAY_MS, Informative, "grant list 300 3000");
}

#[test]
fn deadlines_move_with_the_boot() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    assert_eq!(site.gateway.next_deadline(), Some(90_000));
    site.wait(30_000);
    site.say(
        "c1",
        status(0, proto::message::OutletState::Busy, proto::message::Fault::None),
    );
    site.reboot(20_000);
    assert_eq!(site.gateway.next_deadline(), Some(40_000), "30 s before, 20 s asleep");
    site.reboot(HOUR_MS);
    assert_eq!(site.gateway.next_deadline(), Some(0), "overdue is due at once");
    assert_eq!(site.wait(0), "");
    assert!(site.gateway.sessions().get(&session).unwrap().indeterminate);
    site.check();
}

#[test]
fn nothing_due_is_said_so() {
    let mut site = Site::new();
    assert_eq!(site.gateway.next_deadline(), None);
    assert_eq!(words(&site.put(&gateway_core::Input::Tick)), "ignored: nothing is due");
    site.ask("c1", 3);
    assert_eq!(site.gateway.next_deadline(), Some(1_200));
    site.pass(1_199);
    assert_eq!(words(&site.put(&gateway_core::Input::Tick)), "ignored: nothing is due");
    site.pass(1);
    assert_eq!(words(&site.put(&gateway_core::Input::Tick)), "grant list 300 3000");
}
