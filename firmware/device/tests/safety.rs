//! Faults and power losses.

mod bench;

use bench::{Bench, WALL_S, config, grant};
use device::{Input, Sense};
use proto::{
    id::Kind,
    message::*,
    money::{Money, Units},
    topic::Down,
};

#[test]
fn a_fault_switches_off_first_and_clears_by_itself_or_not() {
    type Change = fn(&mut Sense);
    let cases: [(&str, Kind, Change, Fault, bool); 9] = [
        (
            "current",
            Kind::Charger,
            |s| s.current_ma = 20_001,
            Fault::OverCurrent,
            true,
        ),
        (
            "heat",
            Kind::Charger,
            |s| s.temperature_c = 86,
            Fault::OverTemperature,
            true,
        ),
        (
            "residual current",
            Kind::Charger,
            |s| s.leaking = true,
            Fault::Leakage,
            true,
        ),
        ("meter", Kind::Charger, |s| s.register.0 -= 1, Fault::Meter, false),
        (
            "heat",
            Kind::Washer,
            |s| s.temperature_c = 120,
            Fault::OverTemperature,
            true,
        ),
        ("water under it", Kind::Washer, |s| s.leaking = true, Fault::Leak, true),
        ("door", Kind::Washer, |s| s.door_locked = false, Fault::Door, true),
        (
            "water under it",
            Kind::Dispenser,
            |s| s.leaking = true,
            Fault::Leak,
            true,
        ),
        ("meter", Kind::Dispenser, |s| s.register.0 -= 5, Fault::Meter, false),
    ];
    for (name, kind, change, fault, clears) in cases {
        let mut b = Bench::new(kind);
        b.sense(0, |s| s.register.0 = 100);
        b.running(0, 1);
        let sound = b.senses[&0];
        b.order.clear();
        b.sense(0, change);
        assert_eq!(b.order, ["off 0", "store", "stop", "status"], "{kind:?} {name}");
        assert_eq!(b.last_stop().reason, StopReason::Fault, "{kind:?} {name}");
        assert!(b.last_stop().register_end >= b.last_stop().register_start);
        let status = b.said.iter().rev().find_map(|s| match s {
            bench::Said::Status(s) => Some((s.state, s.fault)),
            _ => None,
        });
        assert_eq!(status, Some((OutletState::Faulted, fault)), "{kind:?} {name}");
        b.present(0, 2);
        assert_eq!(b.device.session(0), None, "{kind:?} {name}");

        b.sense(0, |s| {
            *s = Sense {
                running: false,
                relay_closed: false,
                ..sound
            };
        });
        b.wait(10_100);
        let state = b.device.state(0).unwrap();
        assert_eq!(state == OutletState::Free, clears, "{kind:?} {name}: {state:?}");
    }
}

#[test]
fn a_hot_socket_must_cool_down_before_it_is_used_again() {
    let mut b = Bench::new(Kind::Charger);
    b.sense(0, |s| s.temperature_c = 90);
    b.pass(30, 0, |s| s.temperature_c = 80);
    assert_eq!(b.device.state(0), Some(OutletState::Faulted));
    b.pass(11, 0, |s| s.temperature_c = 75);
    assert_eq!(b.device.state(0), Some(OutletState::Free));
}

#[test]
fn a_welded_contactor_is_found() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.input(Input::Button { outlet: 0 });
    b.pass(1, 0, |s| s.relay_closed = true);
    assert_eq!(b.device.state(0), Some(OutletState::Free), "it may take its time");
    b.pass(2, 0, |s| s.relay_closed = true);
    assert_eq!(b.device.state(0), Some(OutletState::Faulted));
}

#[test]
fn water_behind_a_closed_valve_is_a_leak_but_dripping_is_not() {
    for (ml_a_minute, leaks) in [(10, false), (60, true)] {
        let mut b = Bench::new(Kind::Dispenser);
        b.wait(3_000);
        for _ in 0..120 {
            b.wait(60_000);
            b.sense(0, |s| s.register.0 += ml_a_minute);
            if b.device.state(0) == Some(OutletState::Faulted) {
                break;
            }
        }
        assert_eq!(
            b.device.state(0) == Some(OutletState::Faulted),
            leaks,
            "{ml_a_minute} ml a minute"
        );
    }
}

#[test]
fn a_meter_that_stands_still_under_load_is_found() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.pass(299, 0, |_| {});
    assert!(b.on(0));
    b.pass(2, 0, |_| {});
    assert_eq!((b.on(0), b.last_stop().reason), (false, StopReason::Fault));
}

#[test]
fn an_outlet_without_readings_is_switched_off() {
    for kind in [Kind::Charger, Kind::Dispenser] {
        let mut b = Bench::new(kind);
        b.running(0, 1);
        b.wait(9_900);
        b.input(Input::Tick);
        let early = b.on(0);
        b.wait(200);
        assert_eq!(
            (b.on(0), b.last_stop().reason),
            (false, if early { StopReason::Fault } else { StopReason::Finished })
        );
    }
    let mut b = Bench::new(Kind::Charger);
    b.granted(0, 1);
    b.wait(10_000);
    assert!(!b.on(0), "granted, on and unobserved");
}

#[test]
fn a_contactor_that_does_not_follow_three_times_takes_a_rest() {
    let mut b = Bench::new(Kind::Charger);
    for n in 0..3 {
        let session = b.granted(0, n);
        b.pass(61, 0, |_| {});
        assert_eq!(b.last_stop().reason, StopReason::NotStarted);
        b.receipt(session);
    }
    assert_eq!(b.device.state(0), Some(OutletState::Faulted));
    b.wait(600_000);
    assert_eq!(b.device.state(0), Some(OutletState::Free));
}

#[test]
fn outputs_are_off_before_anything_else_at_boot() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    let next = Bench::dark(b.config.clone(), b.flash.clone());
    assert_eq!(next.order[..3], ["off 0", "off 1", "store"]);
    b.reboot();
    assert!(!b.on(0));
}

#[test]
fn a_power_loss_ends_water_and_continues_a_wash() {
    let mut b = Bench::new(Kind::Dispenser);
    let session = b.running(0, 1);
    b.pass(3, 0, |s| s.register.0 += 100);
    b.reboot();
    b.link();
    assert!(b.stops().is_empty(), "first the register is read");
    b.sense(0, |s| s.flowing = false);
    let stop = b.last_stop();
    assert_eq!(
        (stop.session, stop.reason, stop.started),
        (session, StopReason::PowerLoss, true)
    );
    assert_eq!(
        (stop.register_end, stop.shown),
        (Units(320), Money(13)),
        "320 ml at 0.40 a litre"
    );
    assert!(!b.on(0));

    let mut b = Bench::new(Kind::Washer);
    let session = b.running(0, 1);
    b.reboot();
    assert!(!b.on(0));
    b.sense(0, |_| {});
    assert!(b.on(0), "the machine reports running");
    b.link();
    assert_eq!(b.device.session(0), Some(session));
    b.sense(0, |s| s.running = false);
    b.pass(6, 0, |_| {});
    let stop = b.last_stop();
    assert_eq!((stop.reason, stop.shown), (StopReason::Finished, Money(500)));

    let mut b = Bench::new(Kind::Washer);
    b.running(0, 1);
    b.reboot();
    b.sense(0, |s| s.running = false);
    b.link();
    assert_eq!(b.last_stop().reason, StopReason::PowerLoss);
}

#[test]
fn a_charger_resumes_only_the_same_plug_after_a_short_loss_that_a_clock_can_tell() {
    let s = ClockQuality::Synchronised;
    let cases = [
        ("short", true, s, 599, true),
        ("too long", true, s, 601, false),
        ("unplugged", false, s, 10, false),
        ("clock not trusted", true, ClockQuality::Informative, 10, false),
        ("clock runs backwards", true, s, -10, false),
    ];
    for (name, plugged, quality, gap_s, resumes) in cases {
        let mut b = Bench::new(Kind::Charger);
        let session = b.running(0, 1);
        b.pass(60, 0, |s| s.register.0 += 10);
        b.reboot();
        b.sense(0, |s| s.plugged = plugged);
        assert!(!b.on(0), "{name}: nothing before the clock");
        b.input(Input::LinkUp);
        let wall_s = (WALL_S + 60).checked_add_signed(gap_s).unwrap();
        b.clock(2, quality, wall_s);
        b.wait(100);
        b.sense(0, |_| {});
        b.pass(31, 0, |_| {});
        assert_eq!(b.on(0), resumes, "{name}");
        if resumes {
            b.input(Input::Button { outlet: 0 });
        }
        let stop = b.last_stop();
        let reason = if resumes {
            StopReason::User
        } else {
            StopReason::PowerLoss
        };
        assert_eq!(
            (stop.session, stop.reason, stop.started),
            (session, reason, true),
            "{name}"
        );
        assert_eq!((stop.register_end, stop.shown), (Units(600), Money(60)), "{name}");
    }
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.reboot();
    b.sense(0, |_| {});
    b.pass(31, 0, |_| {});
    assert!(
        b.device.session(0).is_none(),
        "without a clock: the end is the safe default"
    );
}

#[test]
fn without_readings_an_interrupted_session_ends_by_its_checkpoint() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.pass(61, 0, |s| s.register.0 += 10);
    b.reboot();
    b.wait(10_000);
    b.link();
    let stop = b.last_stop();
    assert_eq!(
        (stop.reason, stop.register_end, stop.elapsed_s),
        (StopReason::PowerLoss, Units(590), 60)
    );
}

#[test]
fn the_power_may_fail_between_any_two_effects() {
    for kind in Kind::SERVED {
        for cut in 0.. {
            let mut b = Bench::new(kind);
            b.effects_left = Some(cut);
            b.present(0, 1);
            let Some(session) = b.device.session(0) else { panic!() };
            b.tell(Down::Grant, &grant(kind, session));
            b.begin(0);
            b.wait(3_000);
            b.input(Input::Button { outlet: 0 });
            let complete = b.effects_left != Some(0);
            let known = b.said.iter().any(|s| matches!(s, bench::Said::Authorize(_)));
            b.reboot();
            b.sense(0, |s| s.running = false);
            b.wait(60_000);
            b.link();
            assert!(!b.on(0) && b.device.session(0).is_none());
            let closed = b.stops().iter().any(|stop| stop.session == session);
            assert!(
                closed || !known,
                "{kind:?} after {cut} effects: the gateway heard of it, and never hears its end"
            );
            b.receipt(session);
            let next = b.granted(0, 1);
            assert_ne!(
                next, session,
                "{kind:?} after {cut} effects: a session id was used twice"
            );
            if complete {
                break;
            }
        }
    }
}

#[test]
fn storage_of_a_newer_firmware_or_damaged_storage_is_refused() {
    use device::{RecordKey, Stored, StoredError};
    let mut b = Bench::with(config(Kind::Charger));
    b.running(0, 1);
    for (key, bytes) in &b.flash {
        let mut newer = bytes.clone();
        assert_eq!(newer[..3], [newer[0], 0, 1], "a map whose first field is the version");
        newer[2] = 9;
        assert_eq!(
            <Stored>::new().load(*key, &newer),
            Err(StoredError::Version { key: *key, found: 9 })
        );
        for len in 0..bytes.len() {
            assert!(matches!(
                <Stored>::new().load(*key, &bytes[..len]),
                Err(StoredError::Malformed { .. })
            ));
        }
    }
    let bytes = &b.flash[&RecordKey::Outlet(0)];
    assert_eq!(
        <Stored>::new().load(RecordKey::Outlet(20), bytes),
        Err(StoredError::Outlet(20))
    );
}

#[test]
fn no_time_and_no_reading_is_too_large() {
    for kind in Kind::SERVED {
        for jump_ms in [86_400_000, 3_000_000_000_000, u64::MAX / 2, u64::MAX - 1_000_000] {
            let mut b = Bench::new(kind);
            b.running(0, 1);
            b.now_ms += jump_ms;
            b.sense(0, |s| s.register.0 = u64::MAX);
            b.sense(1, |s| s.register.0 = u64::MAX);
            b.now_ms = u64::MAX;
            b.input(Input::Tick);
            b.present(1, 2);
            b.input(Input::Button { outlet: 0 });
            let stop = b.last_stop();
            assert!(stop.shown <= Money(600), "{stop:?}");
            b.now_ms = 5;
            b.input(Input::Tick);
        }
    }
}

#[test]
fn a_stop_bills_to_the_moment_and_a_recovering_session_can_be_stopped() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.now_ms += 4_000;
    b.input(Input::Button { outlet: 0 });
    assert_eq!(b.last_stop().elapsed_s, 4);

    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.reboot();
    b.sense(0, |s| s.register.0 += 300);
    b.present(0, 1);
    b.link();
    let stop = b.last_stop();
    assert_eq!((stop.reason, stop.started), (StopReason::User, true));
    assert_eq!((stop.register_end, stop.shown), (Units(300), Money(30)));
}
