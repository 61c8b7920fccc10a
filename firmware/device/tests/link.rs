//! The link: hello first, seals, replays, commands once each.

mod bench;

use bench::{Bench, Said, WALL_S, config, grant, token};
use device::{Config, Input, Screen};
use proto::{
    id::{Kind, Name, SessionId},
    message::*,
    money::Units,
    topic::{self, Down},
};

#[test]
fn nothing_is_said_before_the_hello_is_answered() {
    let mut b = Bench::dark(config(Kind::Charger), std::collections::BTreeMap::new());
    b.sense(0, |_| {});
    b.input(Input::LinkUp);
    b.present(0, 1);
    b.wait(4_000);
    assert!(b.said.iter().all(|s| matches!(s, Said::Hello(_))), "{:?}", b.said);
    assert_eq!(b.said.len(), 3, "repeated at 1 and 3 s and a spread");
    let Said::Hello(hello) = &b.said[0] else { panic!() };
    assert_eq!(
        (hello.boot, hello.kind, hello.outlets, hello.down_counter),
        (1, Kind::Charger, 2, 0)
    );

    b.clock(7, ClockQuality::Synchronised, WALL_S);
    assert!(!b.device.is_linked(), "the clock of another boot is no answer");
    b.clock(1, ClockQuality::Synchronised, WALL_S);
    assert!(b.device.is_linked());
    let authorize = b.said.iter().find_map(|s| match s {
        Said::Authorize(a) => Some(a.clone()),
        _ => None,
    });
    let authorize = authorize.expect("what waited is said now");
    assert_eq!((authorize.token, authorize.at.wall_s), (token(1), WALL_S));
}

#[test]
fn a_new_link_says_everything_again() {
    let mut b = Bench::new(Kind::Charger);
    let running = b.running(0, 1);
    b.present(1, 2);
    b.input(Input::Button { outlet: 1 });
    b.input(Input::LinkDown);
    b.pass(100, 0, |s| s.register.0 += 1);
    b.said.clear();
    b.pass(100, 0, |s| s.register.0 += 1);
    assert!(b.said.is_empty(), "nothing is said into the void");
    b.link();
    let words: Vec<&str> = b.order.iter().rev().take(5).rev().map(String::as_str).collect();
    assert_eq!(words, ["hello", "meter", "status", "stop", "status"]);
    let Said::Meter(meter) = &b.said[1] else { panic!() };
    assert_eq!(
        (meter.session, meter.register, meter.elapsed_s),
        (running, Units(200), 200)
    );
    let Said::Hello(hello) = &b.said[0] else { panic!() };
    assert!(hello.down_counter > 0, "the gateway learns where to go on");
}

#[test]
fn a_session_does_not_need_the_link() {
    let mut b = Bench::new(Kind::Charger);
    b.running(0, 1);
    b.input(Input::LinkDown);
    b.pass(300, 0, |s| s.register.0 += 10);
    assert!(!b.on(0), "the units of the grant are used up");
    b.link();
    assert_eq!(b.last_stop().reason, StopReason::Limit);
}

#[test]
fn a_refused_hello_is_repeated_later() {
    let mut b = Bench::new(Kind::Washer);
    b.input(Input::LinkUp);
    let refusal = Refusal {
        session: SessionId::ZERO,
        reason: RefusalReason::Version,
        retry_after_s: 0,
    };
    b.tell(Down::Refusal, &refusal);
    b.said.clear();
    b.wait(59_000);
    assert!(b.said.is_empty());
    b.wait(1_000);
    assert!(matches!(b.said[..], [Said::Hello(_)]));
    b.clock(1, ClockQuality::Synchronised, WALL_S);
    b.tell(Down::Refusal, &refusal);
    assert!(
        b.device.is_linked(),
        "an answered hello is not refused by a late or repeated word"
    );
}

#[test]
fn what_is_not_for_this_device_is_counted_and_ignored() {
    let mut b = Bench::new(Kind::Charger);
    b.present(0, 1);
    let session = b.device.session(0).unwrap();
    let (topic, frame) = b.frame(Down::Grant, &grant(Kind::Charger, session));
    let other_device = topic::down(&Name::new("bench-2").unwrap(), Down::Grant);
    let other_word = topic::down(&b.id(), Down::Refusal);
    let mut changed = frame.clone();
    changed[20] ^= 1;
    let attempts: [(&str, &[u8]); 7] = [
        (&other_device, &frame),
        (&other_word, &frame),
        ("dev/1/bench-1/up/hello", &frame),
        ("", &frame),
        (&topic, &changed),
        (&topic, &[]),
        (&topic, &[1; 4000]),
    ];
    for (topic, frame) in attempts {
        b.input(Input::Message { topic, frame });
        assert!(!b.on(0), "{topic}");
    }
    let rejected = b.device.rejected();
    assert_eq!((rejected.topic, rejected.seal), (3, 4));
    b.input(Input::Message {
        topic: &topic,
        frame: &frame,
    });
    assert!(b.on(0), "the true one still counts");
    b.input(Input::Message {
        topic: &topic,
        frame: &frame,
    });
    assert_eq!(b.device.rejected().replay, 1);
    let (topic, frame) = b.frame(Down::Grant, &7u8);
    b.input(Input::Message {
        topic: &topic,
        frame: &frame,
    });
    assert_eq!(b.device.rejected().body, 1);
}

fn command(id: u64, verb: Verb, session: SessionId, not_after_s: u64) -> Command {
    Command {
        id,
        verb,
        outlet: 0,
        session,
        not_after_s,
        token: (verb == Verb::Start).then(|| token(5)),
        units: Units::ZERO,
    }
}

fn outcome(b: &Bench) -> CommandOutcome {
    let answer = b.said.iter().rev().find_map(|s| match s {
        Said::Answer(a) => Some(a.outcome),
        _ => None,
    });
    answer.expect("every command is answered")
}

#[test]
fn a_command_is_executed_once_and_never_too_late() {
    use CommandOutcome::{Done, NotApplicable, Repeated, Stale, Unsupported};
    let none = SessionId::ZERO;
    let cases = [
        (command(1, Verb::Report, none, 0), Done),
        (command(1, Verb::Report, none, 0), Repeated),
        (command(2, Verb::Start, none, WALL_S - 1), Stale),
        (command(2, Verb::Start, none, WALL_S + 9), Repeated),
        (command(3, Verb::Start, none, WALL_S + 9), Done),
        (command(4, Verb::Start, none, WALL_S + 9), NotApplicable),
        (command(5, Verb::Stop, none, 0), NotApplicable),
        (command(6, Verb::Other, none, 0), Unsupported),
        (command(7, Verb::Hello, none, 0), Done),
        (command(8, Verb::Limit, none, 0), NotApplicable),
    ];
    let mut b = Bench::new(Kind::Charger);
    for (command, expected) in cases {
        b.tell(Down::Command, &command);
        if command.verb == Verb::Hello {
            b.clock(1, ClockQuality::Synchronised, WALL_S);
        }
        assert_eq!(outcome(&b), expected, "{command:?}");
    }
    let outlet_9 = Command {
        outlet: 9,
        ..command(9, Verb::Report, none, 0)
    };
    b.tell(Down::Command, &outlet_9);
    assert_eq!(outcome(&b), NotApplicable);
}

#[test]
fn without_a_clock_a_limited_start_is_refused_and_a_limited_stop_is_done() {
    let mut b = Bench::new(Kind::Charger);
    b.clock(1, ClockQuality::Unknown, 0);
    b.tell(Down::Command, &command(1, Verb::Start, SessionId::ZERO, WALL_S));
    assert_eq!(outcome(&b), CommandOutcome::Stale);
    let session = b.running(0, 1);
    b.order.clear();
    b.tell(Down::Command, &command(2, Verb::Stop, session, WALL_S));
    assert_eq!(outcome(&b), CommandOutcome::Done);
    assert_eq!(b.order[..3], ["off 0", "store", "store"]);
    assert_eq!(b.last_stop().reason, StopReason::Remote);
}

#[test]
fn a_command_of_the_last_boot_is_not_executed_again() {
    let mut b = Bench::new(Kind::Charger);
    let (topic, frame) = b.frame(Down::Command, &command(41, Verb::Start, SessionId::ZERO, 0));
    let start = Input::Message {
        topic: &topic,
        frame: &frame,
    };
    b.input(start.clone());
    assert!(b.device.session(0).is_some());
    b.reboot();
    b.sense(0, |_| {});
    // Before the first message of the gateway the window of this boot is still open to replays.
    b.input(start);
    assert_eq!(b.device.rejected().replay, 0);
    b.link();
    assert_eq!(outcome(&b), CommandOutcome::Repeated);
    assert_eq!(b.device.session(0), None);
}

#[test]
fn the_grant_of_the_last_boot_opens_nothing() {
    let mut b = Bench::new(Kind::Charger);
    b.present(0, 1);
    let session = b.device.session(0).unwrap();
    let (topic, frame) = b.frame(Down::Grant, &grant(Kind::Charger, session));
    b.reboot();
    b.sense(0, |_| {});
    b.present(0, 1);
    assert_ne!(b.device.session(0), Some(session));
    b.input(Input::Message {
        topic: &topic,
        frame: &frame,
    });
    assert_eq!((b.on(0), b.device.rejected().replay), (false, 0));
    b.link();
    assert_eq!(b.stops()[0].session, session, "the session of the last boot is closed");
}

#[test]
fn a_configuration_that_cannot_be_served_is_refused() {
    use device::{ConfigError, Device, Now, Stored};
    let boot = |config: Config, stored: Stored| Device::boot(config, stored, Now::default()).map(|d| d.boot_number());
    let with = |kind, outlets| Config {
        outlets,
        ..config(kind)
    };
    assert_eq!(boot(with(Kind::Unknown, 1), Stored::new()), Err(ConfigError::Kind));
    assert_eq!(
        boot(with(Kind::Charger, 0), Stored::new()),
        Err(ConfigError::Outlets(0, 20))
    );
    assert_eq!(
        boot(with(Kind::Charger, 21), Stored::new()),
        Err(ConfigError::Outlets(21, 20))
    );
    assert_eq!(boot(with(Kind::Charger, 20), Stored::new()), Ok(1));

    let mut b = Bench::new(Kind::Charger);
    b.granted(1, 1);
    let mut stored = Stored::new();
    for (key, bytes) in &b.flash {
        stored.load(*key, bytes).unwrap();
    }
    assert_eq!(boot(with(Kind::Charger, 1), stored), Err(ConfigError::OutletLost(1)));
}

#[test]
fn a_full_display_story_of_a_drink() {
    let mut b = Bench::new(Kind::Dispenser);
    b.screens.clear();
    let session = b.running(0, 1);
    b.pass(3, 0, |s| s.register.0 += 100);
    b.input(Input::Button { outlet: 0 });
    b.receipt(session);
    b.wait(11_000);
    let names: Vec<String> = b
        .screens
        .iter()
        .map(|(_, screen)| format!("{screen:?}").split(' ').next().unwrap().to_string())
        .collect();
    assert_eq!(
        names,
        [
            "Asking",
            "Begin",
            "Delivering",
            "Delivering",
            "Delivering",
            "Delivering",
            "Ended",
            "Receipt",
            "Free"
        ]
    );
    assert_eq!(b.screens.last(), Some(&(0, Screen::Free)));
}
