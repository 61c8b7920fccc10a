//! Looking into a real journal: by part of an id, of a running and of a stopped gateway, and how large records get.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

#[path = "support/site.rs"]
mod support;

use std::ops::ControlFlow;

use gateway::{
    control, exit,
    look::{self, LookError},
    record,
};
use gateway_core::{
    Caps, CloudWord, Event, Grounds, Input, Listed, Mode, Now, Request, Rule, Tally, Terms,
    event::{Asked, Granted, Refused},
    report::{Report, Span},
    why::Wanted,
};
use journal::Reader;
use proto::{
    artifact::Whitelist,
    book::Book,
    id::{DeviceId, Hash, Kind, SessionId, TokenHash},
    link::{Evidence, Gift, LedgerReceipt, LedgerRecord, RecordKind},
    message::{ClockQuality, RefusalReason, STOP_TOKENS_MAX, Stamp, StopReason},
    money::{Money, Units},
    tariff::{Bill, Dimension, ELEMENTS_MAX, PriceElement, Tariff},
};
use support::{Site, WALL_S, device};

fn wanted(text: &str) -> Wanted {
    Wanted::Session(text.to_owned())
}

#[test]
fn sessions_of_a_running_and_of_a_stopped_gateway() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    let first = site.draw();
    let last = site.draw();
    site.store.commit().unwrap();

    // Beside the engine.
    let running = look::why(&site.store.reader(), &wanted(&first.to_string()), 0).unwrap();
    assert_eq!(
        (running.state.as_str(), running.money.as_ref().unwrap().charged),
        ("captured", Some(10))
    );
    let decided = running.decision.as_ref().unwrap();
    let record = site.store.reader().read(decided.journal, 1).unwrap().remove(0);
    assert_eq!(
        decided.journal_hash,
        Hash(record.hash).to_string(),
        "the hash of the very record"
    );

    // The files are the running gateway's.
    let in_use = look::open(dir.path()).unwrap_err();
    assert!(matches!(in_use, LookError::InUse { .. }), "{in_use}");
    assert_eq!(in_use.exit_code(), exit::UNAVAILABLE);
    assert!(in_use.to_string().contains("a gateway runs on it"), "{in_use}");

    // The same answer from the files alone.
    let gateway = site.gateway.clone();
    site.store.close(&gateway).unwrap();
    let journal = look::open(dir.path()).unwrap();
    let check = |wanted: &Wanted, session: SessionId| {
        let why = look::why(&journal.reader(), wanted, 0).unwrap();
        assert_eq!(why.session, session.to_string(), "{wanted:?}");
        assert_eq!((why.state.as_str(), why.course.len()), ("captured", 3), "{why}");
    };
    assert_eq!(
        look::why(&journal.reader(), &wanted(&first.to_string()), 0).unwrap(),
        running
    );
    let id = first.to_string();
    check(&wanted(&format!("{}..{}", &id[..5], &id[31..])), first);
    check(&wanted(&id[..32]), first);
    check(&Wanted::LastOf(device()), last);

    let code = |wanted: &Wanted| look::why(&journal.reader(), wanted, 0).unwrap_err().exit_code();
    assert_eq!(code(&wanted("00000000")), exit::NOT_FOUND);
    assert_eq!(code(&wanted(&id[..6])), exit::NOT_FOUND, "two sessions of one device");
    assert_eq!(code(&wanted("xyz")), exit::USAGE);
    assert_eq!(code(&Wanted::LastOf(DeviceId::new("d2").unwrap())), exit::NOT_FOUND);
    let missing = look::open(&dir.path().join("elsewhere")).unwrap_err();
    assert_eq!(missing.exit_code(), exit::STORAGE);
}

/// Every line of the book.
fn book(reader: &Reader) -> Vec<control::Line> {
    let (mut book, mut lines) = (Book::default(), Vec::new());
    reader
        .replay(1, &mut |sequence, bytes| {
            let (_, event) = record::decode(sequence, bytes).unwrap();
            let transfers = event.record().map(|record| book.book(record).unwrap());
            lines.extend(transfers.iter().flatten().map(control::Line::from));
            ControlFlow::Continue(())
        })
        .unwrap();
    lines
}

/// The export, added up by somebody who knows nothing of the report.
fn exported(lines: &[control::Line], phase: &str, first: u64, last: u64) -> (u64, i64) {
    let rows = lines
        .iter()
        .filter(|line| line.phase == phase && (first..=last).contains(&line.sequence));
    rows.fold((0, 0), |(count, sum), line| (count + 1, sum + line.amount))
}

#[test]
fn a_report_adds_up_to_the_ledgers_export() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    for _ in 0..20 {
        site.draw();
        site.pass(40_000);
    }
    site.store.commit().unwrap();
    let reader = site.store.reader();
    let lines = book(&reader);
    let check = |since_s: Option<u64>, until_s: Option<u64>, sessions: u64| {
        let report = look::report(&reader, Span::Between { since_s, until_s }, 0).unwrap();
        let of = |phase| exported(&lines, phase, report.ledger.first, report.ledger.last);
        let l = &report.ledger;
        assert_eq!((l.held.sessions, l.held.amount), of("pending"), "{report}");
        assert_eq!((l.captured.sessions, l.captured.amount), of("post"), "{report}");
        assert_eq!(l.revenue.values().sum::<i64>(), of("direct").1, "{report}");
        assert_eq!(
            (l.captured.sessions, l.captured.amount),
            (sessions, 10 * sessions as i64)
        );
        // As it goes over the control socket.
        let line = serde_json::to_string(&report).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&line).unwrap(), report);
    };
    check(None, None, 20);
    check(Some(WALL_S + 60), None, 19);
    check(Some(WALL_S + 60), Some(WALL_S + 5 * 60), 4);
    let none = look::report(&reader, Span::LastOutage, 0).unwrap_err();
    assert_eq!(none.exit_code(), exit::NOT_FOUND, "{none}");
}

/// The largest of everything that a decision may carry.
fn largest() -> (Request, Terms, Grounds, LedgerRecord) {
    let request = Request {
        session: SessionId([255; 16]),
        device: DeviceId::new("a-name-of-20-letters").unwrap(),
        kind: Kind::Dispenser,
        outlet: u8::MAX,
        token: TokenHash([255; 16]),
        units_wished: Units(u64::MAX),
        register: Units(u64::MAX),
        counter: u64::MAX,
    };
    let element = PriceElement {
        dimension: Dimension::Volume,
        price_milli: i64::MAX,
        minute_from: u16::MAX,
        minute_to: u16::MAX,
        power_w_min: u32::MAX,
        power_w_max: u32::MAX,
    };
    let evidence = Evidence {
        mode: u8::MAX,
        credential_revision: u64::MAX,
        list_revision: u64::MAX,
        revocations_revision: u64::MAX,
        lease: u64::MAX,
        instrument: u64::MAX,
        gift: Gift::FreeVend,
    };
    let terms = Terms {
        account: u64::MAX,
        units_max: Units(u64::MAX),
        money_max: Money(i64::MIN),
        duration_max_s: u32::MAX,
        start_within_s: u16::MAX,
        meter_every_s: u16::MAX,
        tariff: Tariff {
            id: u32::MAX,
            start_fee: Money(i64::MIN),
            minimum: Money(i64::MIN),
            cap: Money(i64::MIN),
            elements: [element; ELEMENTS_MAX].into_iter().collect(),
        },
        tariff_hash: Hash([255; 32]),
        unsecured: true,
        evidence,
        stop_tokens: [TokenHash([255; 16]); STOP_TOKENS_MAX].into_iter().collect(),
    };
    let grounds = Grounds {
        decision: u64::MAX,
        boot: u32::MAX,
        cloud: CloudWord::Other,
        code: u16::MAX,
        waited_ms: u64::MAX,
        mode: Mode::Recovering,
        listed: Some(Listed {
            policy: Whitelist::Never,
            valid: true,
            is_over: true,
            credential_revision: u64::MAX,
            balance: Money(i64::MIN),
        }),
        list_revision: u64::MAX,
        list_age_s: u64::MAX,
        revocations_revision: u64::MAX,
        tariffs_revision: u64::MAX,
        tariff_hash: Hash([255; 32]),
        confirmed_age_s: Some(u64::MAX),
        caps: Caps {
            money_max: Money(i64::MIN),
            units_max: Units(u64::MAX),
            outage_count_max: u32::MAX,
            outage_money_max: Money(i64::MIN),
            site_budget: Money(i64::MIN),
            attempts_a_minute_max: u32::MAX,
            list_full_s: u64::MAX,
            list_half_s: u64::MAX,
            confirmation_s: u64::MAX,
            starts_an_hour_max: u32::MAX,
        },
        attempts: u32::MAX,
        tally: Tally {
            count: u32::MAX,
            money: Money(i64::MIN),
        },
        spent: Money(i64::MIN),
        exposure: Money(i64::MIN),
        previous: Hash([255; 32]),
        policy_revision: u64::MAX,
        starts: u32::MAX,
        is_elsewhere: true,
    };
    let record = LedgerRecord {
        sequence: u64::MAX,
        kind: RecordKind::Indeterminate,
        session: request.session,
        device: request.device,
        outlet: u8::MAX,
        device_kind: Kind::Dispenser,
        token: request.token,
        account: u64::MAX,
        amount: Money(i64::MIN),
        register_start: Units(u64::MAX),
        register_end: Units(u64::MAX),
        bill: Bill {
            quantities: [u64::MAX; ELEMENTS_MAX],
        },
        tariff_hash: Hash([255; 32]),
        stop_reason: StopReason::Abandoned,
        rule: u8::MAX,
        online: true,
        at: Stamp {
            mono_ms: u64::MAX,
            wall_s: u64::MAX,
            quality: ClockQuality::Relative,
        },
        boot: u32::MAX,
        evidence,
    };
    (request, terms, grounds, record)
}

#[test]
fn the_largest_decision_fits_a_record() {
    let now = Now {
        mono_ms: u64::MAX,
        wall_s: u64::MAX,
        quality: ClockQuality::Relative,
    };
    let (request, terms, grounds, record) = largest();
    let granted = Event::Granted(Granted {
        request: request.clone(),
        terms,
        rule: Rule::Unknown,
        mode: Mode::Recovering,
        credential_revision: u64::MAX,
        list_revision: u64::MAX,
        tariffs_revision: u64::MAX,
        exposure: Money(i64::MIN),
        record,
        grounds: grounds.clone(),
    });
    let refused = Event::Refused(Refused {
        request: request.clone(),
        reason: RefusalReason::Storage,
        rule: Rule::Unknown,
        mode: Mode::Recovering,
        grounds,
    });
    let asked = Event::Asked(Asked {
        request,
        ask: u64::MAX,
        until: gateway_core::Instant(u64::MAX),
    });
    let check = |event: &Event, bytes_max: usize| {
        let bytes = record::encode(&now, event);
        assert!(bytes.len() <= bytes_max, "{} bytes of at most {bytes_max}", bytes.len());
        let (then, read) = record::decode(1, &bytes).unwrap();
        assert_eq!((then, &read), (now, event), "and is read as it was written");
        println!("{} bytes", bytes.len());
    };
    // Half of the journal's limit, so that the decisions of later versions fit as well.
    check(&granted, journal::RECORD_BYTES_MAX / 2);
    check(&refused, journal::RECORD_BYTES_MAX / 4);
    check(&asked, journal::RECORD_BYTES_MAX / 8);
}

/// `cargo test --release --package gateway --test look -- --ignored --nocapture`
#[test]
#[ignore = "takes a minute and much disk; run by hand, its result stands in docs/architecture.md"]
fn a_million_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    let first = site.draw();
    while site.store.head() < 1_000_000 {
        site.pass(30_000);
        site.draw();
        if site.sessions.is_multiple_of(100) {
            // Without receipts the site's budget would soon be spent, and without new lists the list too old.
            site.list(1 + u64::from(site.sessions));
            let (upto, hash) = (site.gateway.outbox().head(), site.gateway.outbox().chain());
            let receipt = LedgerReceipt {
                epoch: 1,
                upto,
                hash,
                ..LedgerReceipt::default()
            };
            site.put(&Input::Receipt {
                receipt,
                own_hash: hash,
            });
            site.store.commit().unwrap();
        }
    }
    let last = site.draw();
    site.store.commit().unwrap();
    let reader = site.store.reader();
    let processor_ms = || {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields: Vec<u64> = stat
            .split(' ')
            .skip(13)
            .take(2)
            .map(|ticks| ticks.parse().unwrap())
            .collect();
        fields.iter().sum::<u64>() * 10
    };
    let resident = || {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4 / 1024
    };
    for wanted in [
        wanted(&first.to_string()),
        wanted(&last.to_string()),
        Wanted::LastOf(device()),
    ] {
        let (before, begun, used_ms) = (resident(), std::time::Instant::now(), processor_ms());
        let why = look::why(&reader, &wanted, 0).unwrap();
        println!(
            "{} records, {wanted:?}: {} ms, {} ms of processor time, resident {before} -> {} MiB",
            site.store.head(),
            begun.elapsed().as_millis(),
            processor_ms() - used_ms,
            resident()
        );
        assert_eq!(why.state, "captured");
    }
    let all = Span::Between {
        since_s: None,
        until_s: None,
    };
    let (before, begun, used_ms) = (resident(), std::time::Instant::now(), processor_ms());
    let report = look::report(&reader, all, 0).unwrap();
    println!(
        "report of {} sessions: {} ms, {} ms of processor time, resident {before} -> {} MiB",
        report.served.granted.sessions,
        begun.elapsed().as_millis(),
        processor_ms() - used_ms,
        resident()
    );
}
