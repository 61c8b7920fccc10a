//! The life of a session: every way to begin, to end, to be silent, to say things twice.

use crate::site::*;
use gateway_core::{Event, Said, Tally};
use proto::{
    id::Kind,
    link::RecordKind,
    message::{Fault, OutletState, Stop, StopReason},
    money::Money,
};

/// Records of a session, in order.
fn records(site: &Site) -> Vec<RecordKind> {
    site.journal
        .iter()
        .filter_map(|(_, event)| event.record())
        .map(|record| record.kind)
        .collect()
}

#[test]
fn from_the_token_to_the_receipt() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.say("c1", status(0, OutletState::Busy, Fault::None));
    site.say("c1", started(session, 0));
    for minute in 1..=30 {
        site.wait(60_000);
        site.say("c1", meter(session, 0, u64::from(minute) * 50, minute * 60));
    }
    let end = site.say("c1", Said::Stop(stop(session, 0, 1_510, 1_810)));
    assert_eq!(words(&end), "receipt captured 91 1510", "1.51 kWh at 0.60");
    use RecordKind::*;
    assert_eq!(records(&site), [Hold, Started, Capture]);
    assert_eq!(site.gateway.sessions().open().count(), 0);
    assert_eq!(site.gateway.next_deadline(), None, "nobody waits for anything");
    let balance = |account| site.gateway.book().balance(&account);
    assert_eq!(balance(proto::book::Account::Customer(1)).debits_posted, Money(91));
    assert_eq!(
        balance(proto::book::Account::Revenue(Kind::Charger)).credits_posted,
        Money(91)
    );
    assert_eq!(balance(proto::book::Account::Clearing).debits_pending, Money(0));
    site.check();
}

#[test]
fn each_message_may_come_twice_and_gets_the_same_answer() {
    // The same fact in a new frame, as a device repeats it.
    let check = |name: &str, prepare: fn(&mut Site) -> Said, expected: &str, events: usize| {
        let mut site = Site::new();
        let said = prepare(&mut site);
        let first = words(&site.say("c1", said.clone()));
        let records_before = records(&site).len();
        let again = site.say("c1", said);
        assert_eq!(
            first.replace("list ", "again ").replace("cloud ", "again "),
            expected,
            "{name}, first"
        );
        assert_eq!(words(&again), expected, "{name}, again");
        assert_eq!(again.events.len(), events, "{name}: nothing but the counter is new");
        assert_eq!(records(&site).len(), records_before, "{name}: no second record");
        site.check();
    };
    let granted = |site: &mut Site| authorize(site.mint("c1"), 0, 1, 0);
    check("a grant", granted, "grant again 300 3000", 1);
    check(
        "a refusal",
        |site| {
            site.go_local();
            authorize(site.mint("c1"), 0, 9, 0)
        },
        "refuse unknown 0",
        1,
    );
    check(
        "a refusal that is worth a retry",
        |site| {
            site.open("c2", 1);
            authorize(site.mint("c1"), 0, 1, 0)
        },
        "refuse concurrent 5",
        1,
    );
    check("the start", |site| started(site.open("c1", 1), 0), "", 1);
    check(
        "a stop after delivery",
        |site| Said::Stop(stop(site.open("c1", 1), 0, 500, 60)),
        "receipt captured 30 500",
        1,
    );
    check(
        "a stop without delivery",
        |site| Said::Stop(stop(site.open("c1", 1), 0, 0, 0)),
        "receipt voided 0 0",
        1,
    );
    check(
        "a stop of nothing known",
        |site| Said::Stop(stop(site.mint("c1"), 0, 0, 0)),
        "receipt unknown 0 0",
        1,
    );
    check(
        "a reading after the end",
        |site| {
            let session = site.open("c1", 1);
            site.say("c1", Said::Stop(stop(session, 0, 500, 60)));
            meter(session, 0, 400, 50)
        },
        "receipt captured 30 500",
        1,
    );
}

#[test]
fn a_request_after_the_end_gets_the_receipt() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.say("c1", Said::Stop(stop(session, 0, 500, 60)));
    assert_eq!(
        words(&site.say("c1", authorize(session, 0, 1, 0))),
        "receipt captured 30 500"
    );
}

#[test]
fn a_frame_that_was_accepted_is_never_accepted_again() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    let (_, event) = site
        .journal
        .iter()
        .rev()
        .find(|(_, e)| matches!(e, Event::Granted(_)))
        .unwrap();
    let Event::Granted(granted) = event.clone() else {
        unreachable!("found as such")
    };
    let heard = granted.request;
    let replay = |site: &mut Site, counter| {
        let said = authorize(session, 0, 1, 0);
        let device = id("c1");
        site.put(&gateway_core::Input::Device { device, counter, said })
    };
    let decision = replay(&mut site, heard.counter);
    assert_eq!(
        words(&decision),
        format!(
            "ignored: c1 repeats counter {0}, {0} was accepted: a replay, or a late duplicate",
            heard.counter
        )
    );
    assert!(decision.events.is_empty(), "a replay is not even written down");
    let gap = replay(&mut site, heard.counter + 1_000);
    assert_eq!(words(&gap), "grant again 300 3000", "lost frames leave gaps");
    assert!(
        replay(&mut site, heard.counter + 999).events.is_empty(),
        "what was overtaken is late for ever"
    );
    site.reboot(0);
    assert!(
        replay(&mut site, heard.counter + 1_000).events.is_empty(),
        "also after a boot"
    );
    site.check();
}

#[test]
fn each_message_of_a_session_is_one_record_and_never_accepted_again() {
    let mut site = Site::new();
    site.go_local();
    let session = proto::id::SessionId::mint(&id("c1"), 1, 1);
    let status = || status(0, proto::message::OutletState::Free, proto::message::Fault::None);
    let course = [
        (authorize(session, 0, 1, 0), 1),
        (started(session, 0), 1),
        (meter(session, 0, 250, 60), 1),
        (Said::Stop(stop(session, 0, 500, 120)), 1),
        // Nothing of these remembers the message, so it has a record of its own.
        (meter(session, 0, 500, 120), 1),
        (status(), 2),
    ];
    for (said, records) in course {
        let decision = site.say("c1", said.clone());
        assert_eq!(decision.events.len(), records, "{said:?}: {:?}", decision.events);
        let counter = site.counter("c1");
        site.reboot(0);
        let device = id("c1");
        let again = site.put(&gateway_core::Input::Device { device, counter, said });
        let replayed = gateway_core::Ignored::Replayed {
            device,
            found: counter,
            last: counter,
        };
        assert_eq!((again.events.len(), again.ignored), (0, Some(replayed)));
    }
    site.check();
}

#[test]
fn asking_and_stopping() {
    // The user walks away while the cloud thinks.
    let mut site = Site::new();
    let (session, question) = site.ask("c1", 3);
    assert_eq!(
        words(&site.say("c1", authorize(session, 0, 3, 0))),
        "",
        "still thinking"
    );
    let mut abandoned = stop(session, 0, 0, 0);
    abandoned.reason = StopReason::Abandoned;
    let first = site.say("c1", Said::Stop(abandoned.clone()));
    assert_eq!(words(&first), "refuse other 0, receipt unknown 0 0");
    assert_eq!(words(&site.say("c1", Said::Stop(abandoned))), "receipt unknown 0 0");
    assert_eq!(
        words(&site.answer(&question, ACCEPT)),
        "ignored: question 1 is not open"
    );
    assert_eq!(records(&site), []);
    assert_eq!(site.gateway.next_deadline(), None);
    site.check();

    // The stop overtakes the request: whoever was never granted cannot be charged.
    let session = site.mint("c1");
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(session, 0, 0, 0)))),
        "receipt unknown 0 0"
    );

    // The refusal was lost, the device gave up.
    site.go_local();
    let (session, decision) = site.ask("c1", 9);
    assert_eq!(words(&decision), "refuse unknown 0");
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(session, 0, 0, 0)))),
        "receipt unknown 0 0"
    );
    site.check();
}

#[test]
fn void_or_capture() {
    // (the stop's started, start and end, whether the start was proven before) -> closing
    let check = |started_said: bool, start: u64, end: u64, proven: bool, expected: &str| {
        let mut site = Site::new();
        let session = site.mint("c1");
        site.say("c1", authorize(session, 0, 1, 100));
        if proven {
            site.say("c1", started(session, start));
        }
        let said = Stop {
            started: started_said,
            ..stop(session, start, end, 60)
        };
        site.say("c1", Said::Stop(said));
        assert_eq!(
            site.closing(session),
            expected,
            "{started_said} {start}..{end}, proven {proven}"
        );
        site.check();
    };
    check(false, 100, 100, false, "voided 0 0");
    check(true, 100, 600, false, "captured 30 500");
    check(true, 100, 600, true, "captured 30 500");
    // The device says that it never started, but its register moved: what flowed is evidence.
    check(false, 100, 600, false, "captured 30 500");
    // It was proven, whatever the stop says; nothing flowed, so nothing is charged.
    check(false, 100, 100, true, "captured 0 0");
    check(true, 100, 100, false, "captured 0 0");
    // The register at the start may be above the one at the request, not the user's water.
    check(true, 150, 650, false, "captured 30 500");
}

#[test]
fn nobody_else_can_speak_for_a_session() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    let not_open = format!("ignored: session {session} is not open");
    assert_eq!(words(&site.say("c2", started(session, 0))), not_open);
    assert_eq!(words(&site.say("c2", meter(session, 0, 900, 60))), not_open);
    assert_eq!(
        words(&site.say("c2", Said::Stop(stop(session, 0, 900, 60)))),
        "receipt unknown 0 0"
    );
    let open = site.gateway.sessions().get(&session).unwrap();
    assert!(open.is_open() && !open.started);
    site.check();
}

#[test]
fn a_silent_device_keeps_its_hold() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    let is_indeterminate = |site: &Site| site.gateway.sessions().get(&session).unwrap().indeterminate;
    // 60 s for the start, 30 s for the retries of a stop.
    site.wait(89_999);
    assert!(!is_indeterminate(&site));
    site.wait(1);
    assert!(is_indeterminate(&site));
    assert_eq!(records(&site), [RecordKind::Hold, RecordKind::Indeterminate]);
    assert_eq!(site.gateway.risk().exposure(), Money(300), "the hold stays");
    // It returns with a reading.
    site.wait(DAY_MS);
    site.say("c1", meter(session, 0, 500, 600));
    assert!(!is_indeterminate(&site));
    // It falls silent again after three missed readings and the grace.
    site.wait(3 * 60_000 + 30_000);
    assert!(is_indeterminate(&site));
    // It returns with its stop.
    site.wait(6 * DAY_MS);
    let end = site.say("c1", Said::Stop(stop(session, 0, 800, 900)));
    assert_eq!(words(&end), "receipt captured 48 800");
    assert_eq!(site.gateway.next_deadline(), None);
    site.check();
}

#[test]
fn after_seven_days_the_evidence_is_captured() {
    let check = |metered: &[(u64, u32)], expected: &str| {
        let mut site = Site::new();
        let session = site.open("c1", 1);
        for &(register, elapsed_s) in metered {
            site.say("c1", meter(session, 0, register, elapsed_s));
        }
        site.wait(7 * DAY_MS);
        assert!(
            site.gateway.sessions().get(&session).unwrap().is_open(),
            "a timeout alone ends nothing"
        );
        site.wait(HOUR_MS);
        assert_eq!(site.closing(session), expected, "{metered:?}");
        assert_eq!(records(&site).last(), Some(&RecordKind::Capture), "never a void");
        // Too late: the books of this session are closed.
        let late = site.say("c1", Said::Stop(stop(session, 0, 2_000, 900)));
        assert!(
            words(&late).starts_with(&format!("receipt {}", expected)),
            "{}",
            words(&late)
        );
        site.check();
    };
    check(&[], "captured 0 0");
    check(&[(0, 0)], "captured 0 0");
    check(&[(500, 600), (1_000, 1_200)], "captured 60 1000");
}

#[test]
fn a_silent_session_with_fees_that_never_started_costs_nothing() {
    let mut site = Site::new();
    let mut tariff = proto::tariff::Tariff::flat(2, &[(proto::tariff::Dimension::Energy, 60_000)]);
    tariff.start_fee = Money(50);
    let entries = vec![proto::artifact::TariffOf {
        kind: Kind::Charger,
        tariff,
    }];
    site.put(&gateway_core::Input::Tariffs(proto::artifact::TariffTable {
        revision: 2,
        entries,
    }));
    let session = site.open("c1", 1);
    site.wait(8 * DAY_MS);
    assert_eq!(site.closing(session), "captured 0 0");
    site.check();
}

#[test]
fn a_late_accept_secures() {
    let mut site = Site::new();
    let (session, question) = site.ask("c1", 3);
    assert_eq!(site.wait(1_200), "grant list 300 3000");
    assert_eq!(site.gateway.risk().exposure(), Money(300));
    let late = site.answer(&question, ACCEPT);
    assert_eq!(words(&late), "", "the device knows already");
    assert_eq!(site.gateway.risk().exposure(), Money(0));
    assert_eq!(
        words(&site.answer(&question, ACCEPT)),
        "ignored: question 1 is not open",
        "secured once"
    );
    site.say("c1", Said::Stop(stop(session, 0, 500, 60)));
    assert_eq!(
        site.gateway.risk().exposure(),
        Money(0),
        "the charge is not at risk either"
    );
    let capture = site
        .journal
        .iter()
        .filter_map(|(_, event)| event.record())
        .next_back()
        .unwrap();
    assert!(capture.online);
    site.check();
}

#[test]
fn a_late_accept_takes_the_session_out_of_the_outage() {
    let mut site = Site::new();
    // Two questions fail first; the third waits while the capability becomes LOCAL, and is decided there.
    site.ask("c2", 201);
    site.pass(100);
    site.ask("c3", 202);
    site.pass(100);
    let (_, question) = site.ask("c1", 3);
    assert_eq!(
        site.wait(1_200),
        "refuse unknown 0; refuse unknown 0; grant list 300 3000"
    );
    assert_eq!(
        site.gateway
            .risk()
            .tally(&token(3), proto::policy::Class::Charger)
            .count,
        1,
        "decided in LOCAL"
    );
    site.answer(&question, ACCEPT);
    assert_eq!(
        site.gateway.risk().tally(&token(3), proto::policy::Class::Charger),
        Tally::default()
    );
    assert_eq!(site.gateway.risk().exposure(), Money(0));
    site.check();
}

#[test]
fn a_late_denial_is_kept_if_it_is_backed() {
    for (reply, expected) in [(DENY, "grant list 300 3000"), (DENY_NEWER, "refuse denied 0")] {
        let mut site = Site::new();
        let (session, question) = site.ask("c1", 3);
        site.wait(1_200);
        site.answer(&question, reply);
        assert!(
            site.gateway.sessions().get(&session).unwrap().is_open(),
            "what was granted stands"
        );
        site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
        site.go_local();
        assert_eq!(words(&site.ask("c1", 3).1), expected, "{reply:?}");
        site.check();
    }
}

#[test]
fn a_boot_forgets_questions_and_keeps_sessions() {
    let mut site = Site::new();
    let open = site.open("c1", 1);
    let (asking, question) = site.ask("c2", 3);
    site.reboot(5_000);
    assert!(site.gateway.sessions().get(&open).unwrap().is_open());
    assert!(site.gateway.sessions().get(&asking).is_none());
    assert!(words(&site.answer(&question, ACCEPT)).starts_with("ignored"));
    let again = site.say("c2", authorize(asking, 0, 3, 0));
    assert_eq!(words(&again), "ask", "the device repeats itself");
    assert_eq!(words(&site.answer(&again, ACCEPT)), "grant cloud 300 3000");
    site.wait(60_000 + 30_000);
    assert!(
        site.gateway.sessions().get(&open).unwrap().indeterminate,
        "timers go on across a boot"
    );
    site.check();
}

#[test]
fn revoked_while_the_cloud_thinks() {
    let mut site = Site::new();
    let (_, question) = site.ask("c1", 3);
    site.put(&revocations(1, &[(3, 5)]));
    assert_eq!(words(&site.answer(&question, ACCEPT)), "refuse revoked 0");
    // A newer credential is another matter.
    let (_, question) = site.ask("c1", 9);
    site.put(&revocations(2, &[(9, 5)]));
    let reply = Reply {
        credential_revision: 6,
        ..ACCEPT
    };
    assert_eq!(
        words(&site.answer(&question, reply)),
        "refuse revoked 0",
        "the accept came for the old request"
    );
    let (_, question) = site.ask("c1", 9);
    assert_eq!(words(&site.answer(&question, reply)), "grant cloud 300 3000");
    site.check();
}

#[test]
fn revoked_while_delivering_the_session_stands() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.say("c1", started(session, 0));
    site.put(&revocations(1, &[(1, 5)]));
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(session, 0, 500, 60)))),
        "receipt captured 30 500"
    );
}

#[test]
fn ended_sessions_are_remembered_32_per_device() {
    let mut site = Site::new();
    let mut sessions = Vec::new();
    for _ in 0..40 {
        let session = site.open("c1", 1);
        site.say("c1", Said::Stop(stop(session, 0, 0, 0)));
        sessions.push(session);
        site.pass(150_000); // Within the limit of starts in an hour.
    }
    let known = sessions
        .iter()
        .filter(|id| site.gateway.sessions().get(id).is_some())
        .count();
    assert_eq!(known, 32);
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(sessions[39], 0, 0, 0)))),
        "receipt voided 0 0"
    );
    assert_eq!(
        words(&site.say("c1", Said::Stop(stop(sessions[0], 0, 0, 0)))),
        "receipt unknown 0 0"
    );
    site.check();
}
