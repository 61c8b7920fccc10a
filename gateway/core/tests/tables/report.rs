//! What a report tells of an outage, word for word, and where an outage begins and ends.

use crate::site::*;
use gateway_core::{
    Event, Input, Mode, Said,
    report::{Report, ReportError, Reporter, Span},
    words,
};
use proto::{
    artifact::Whitelist,
    id::SessionId,
    link::LedgerReceipt,
    message::{Fault, OutletState},
    money::Money,
};

const OFFSET_MIN: i16 = 480;

fn report(site: &Site, span: Span) -> Result<Report, ReportError> {
    let mut reporter = Reporter::new(span, OFFSET_MIN);
    for (i, (now, event)) in site.journal.iter().enumerate() {
        reporter.take(i as u64 + 1, now, event);
    }
    reporter.finish()
}

fn between(since: &str, until: &str) -> Span {
    let time = |text: &str| (!text.is_empty()).then(|| words::parse_time(text, OFFSET_MIN).unwrap());
    Span::Between {
        since_s: time(since),
        until_s: time(until),
    }
}

fn check(site: &Site, span: Span, name: &str) {
    let text = report(site, span).unwrap().to_string();
    let path = format!("{}/tests/tables/stories/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HOLDFAST_STORIES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name}: the text differs from {path}");
    site.check();
}

fn receipt(site: &mut Site) {
    let outbox = site.gateway.outbox();
    let (upto, hash) = (outbox.head(), outbox.chain());
    let receipt = LedgerReceipt {
        epoch: 1,
        upto,
        hash,
        notes: Vec::new(),
        quarantined: 0,
    };
    site.put(&Input::Receipt {
        receipt,
        own_hash: hash,
    });
}

/// Two minutes at a device, from one reading of its register to another.
fn serve(site: &mut Site, device: &str, n: u8, from: u64, upto: u64) -> SessionId {
    let session = site.open(device, n);
    site.say(device, started(session, from));
    site.pass(120_000);
    site.say(device, Said::Stop(stop(session, from, upto, 120)));
    session
}

/// The cloud answers every probe until it is trusted again.
fn recover(site: &mut Site) {
    while site.gateway.health().authorize.mode != Mode::Online {
        let due_ms = site.gateway.next_deadline().unwrap();
        site.pass(due_ms.saturating_sub(site.now.mono_ms));
        let decision = site.put(&Input::Tick);
        if words(&decision) == "probe" {
            site.pass(100);
            site.answer(&decision, ACCEPT);
        }
    }
}

fn words(decision: &gateway_core::Decision) -> String {
    crate::site::words(decision)
}

/// An evening without the cloud, with all kinds of guests.
fn evening() -> Site {
    let mut site = Site::with(config());
    let mut entries: Vec<_> = [
        Whitelist::Always,
        Whitelist::Allowed,
        Whitelist::AllowedOffline,
        Whitelist::Never,
        Whitelist::AllowedOffline,
    ]
    .into_iter()
    .zip(1..)
    .map(|(policy, n)| entry(n, policy))
    .collect();
    entries.push(proto::artifact::ListEntry {
        valid: false,
        ..entry(6, Whitelist::Always)
    });
    site.put(&list(2, entries));
    site.put(&revocations(1, &[(2, 5)]));
    // Before the outage.
    let (session, decision) = site.ask("w2", 3);
    site.answer(&decision, ACCEPT);
    site.say("w2", started(session, 0));
    receipt(&mut site);
    site.pass(HOUR_MS);
    // One false denial, then silence: strangers make the cloud SUSPECT, then LOCAL.
    let (denied, decision) = site.ask("c1", 5);
    site.answer(&decision, DENY);
    site.say("c1", Said::Stop(stop(denied, 0, 600, 60)));
    site.go_local();
    // Guests of the night.
    serve(&mut site, "d1", 3, 0, 1_500);
    serve(&mut site, "d1", 3, 1_500, 3_500);
    serve(&mut site, "c1", 5, 600, 1_500);
    for (device, n) in [("d1", 2), ("d1", 6), ("d1", 4), ("w1", 99), ("w1", 99), ("c2", 98)] {
        site.ask(device, n);
    }
    let silent = site.open("c2", 1);
    site.say("c2", started(silent, 0));
    site.wait(HOUR_MS / 2);
    site.say("w1", status(0, OutletState::Faulted, Fault::Door));
    site.say("w2", Said::Stop(stop(session, 0, 1, 3_000)));
    site.put(&revocations(2, &[(5, 5)]));
    recover(&mut site);
    site.pass(30_000);
    receipt(&mut site);
    site
}

#[test]
fn an_evening_without_the_cloud() {
    check(&evening(), Span::LastOutage, "outage");
}

#[test]
fn an_outage_that_goes_on() {
    let mut site = Site::new();
    site.go_local();
    serve(&mut site, "d1", 3, 0, 1_500);
    check(&site, Span::LastOutage, "outage_goes_on");
}

#[test]
fn any_span_of_time() {
    let site = evening();
    let check_sessions = |since: &str, until: &str, expected: Result<(u64, u64, bool), ReportError>| {
        let found = report(&site, between(since, until));
        let found = found.map(|r| (r.served.granted.sessions, r.ledger.captured.sessions, r.ended.is_some()));
        assert_eq!(found, expected, "{since} to {until}");
    };
    // (sessions granted, charges written, over)
    check_sessions("", "", Ok((6, 5, false)));
    check_sessions("2026-01-15", "2026-01-15 16:30", Ok((1, 0, true)));
    check_sessions("2026-01-15 16:30", "", Ok((5, 5, false)));
    check_sessions("2026-01-15 17:03", "2026-01-15 17:05", Ok((1, 1, true)));
    check_sessions("2026-01-16", "", Err(ReportError::Empty));
    check_sessions("", "2026-01-14", Err(ReportError::Empty));
    check(&site, between("2026-01-15 17:00", "2026-01-15 18:00"), "span");
}

#[test]
fn no_outage() {
    let mut site = Site::new();
    site.ask("c1", 99);
    site.wait(1_200);
    assert_eq!(site.gateway.health().authorize.mode, Mode::Suspect);
    assert_eq!(
        report(&site, Span::LastOutage),
        Err(ReportError::NoOutage),
        "SUSPECT is no outage"
    );
    site.ask("c1", 98);
    site.wait(1_200);
    assert!(report(&site, Span::LastOutage).is_ok());
}

#[test]
fn the_newest_outage_counts() {
    let mut site = Site::new();
    site.go_local();
    serve(&mut site, "d1", 3, 0, 1_000);
    recover(&mut site);
    site.pass(HOUR_MS);
    site.go_local();
    let before = report(&site, Span::LastOutage).unwrap();
    assert_eq!(
        (before.served.granted.sessions, before.ended),
        (0, None),
        "nobody came yet"
    );
    serve(&mut site, "c1", 3, 0, 500);
    // A reboot does not end it.
    site.reboot(60_000);
    serve(&mut site, "c1", 3, 500, 1_000);
    let report = report(&site, Span::LastOutage).unwrap();
    assert_eq!(report.served.granted.sessions, 2);
    assert_eq!(report.served.captured.amount, Money(60).0);
    assert_eq!(
        report.duration_ms,
        Some(60_000 + 2 * 120_000),
        "by the wall clock, across the boot"
    );
    let changes = site.count(|event| matches!(event, Event::ModeChanged(_)));
    assert!(report.mode_changes < changes as u64, "the first outage is not in it");
}
