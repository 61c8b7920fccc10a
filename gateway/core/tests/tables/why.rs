//! What `why` tells a person, word for word. `HOLDFAST_STORIES=write` writes the texts anew; read them before they are
//! kept.

use crate::site::*;
use gateway_core::{
    Input, Said,
    why::{Search, Wanted, Why, WhyError},
};
use proto::{
    id::{Hash, SessionId},
    link::{LedgerReceipt, Mark, Note},
    money::Money,
};

/// Local time of the site.
const OFFSET_MIN: i16 = 480;

fn search(site: &Site, wanted: &Wanted) -> Result<Why, WhyError> {
    let mut search = Search::new(wanted, OFFSET_MIN)?;
    for (i, (now, event)) in site.journal.iter().enumerate() {
        search.take(i as u64 + 1, now, event);
    }
    search.finish()
}

fn of(site: &Site, session: SessionId) -> Why {
    search(site, &Wanted::Session(session.to_string())).unwrap()
}

/// Compares with the text that is kept.
fn check(site: &Site, session: SessionId, name: &str) {
    let text = of(site, session).to_string();
    let path = format!("{}/tests/tables/stories/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("HOLDFAST_STORIES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(text, kept, "{name}: the text differs from {path}");
    site.check();
}

/// The hub acknowledges every record.
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

/// Starts, meters and stops a session of 20 minutes; the display shows `shown`.
fn serve(site: &mut Site, device: &str, session: SessionId, upto: u64, shown: i64) {
    site.pass(4_000);
    site.say(device, started(session, 0));
    site.pass(600_000);
    site.say(device, meter(session, 0, upto / 2, 600));
    site.pass(600_000);
    let mut stop = stop(session, 0, upto, 1_200);
    stop.shown = Money(shown);
    site.say(device, Said::Stop(stop));
}

#[test]
fn granted_by_the_list_while_local() {
    let mut site = Site::new();
    site.pass(3 * HOUR_MS);
    site.go_local();
    let session = site.open("c1", 3);
    serve(&mut site, "c1", session, 1_234, 74);
    site.wait(60_000);
    check(&site, session, "granted_by_list");
}

#[test]
fn granted_by_the_list_after_silence() {
    let mut site = Site::new();
    let (session, _) = site.ask("w1", 3);
    site.wait(1_200);
    serve(&mut site, "w1", session, 1, 400);
    receipt(&mut site);
    check(&site, session, "granted_after_silence");
}

#[test]
fn granted_by_the_cloud() {
    let mut site = Site::new();
    let (session, decision) = site.ask("c1", 3);
    site.pass(310);
    site.answer(&decision, ACCEPT);
    serve(&mut site, "c1", session, 2_000, 120);
    site.pass(2_000);
    receipt(&mut site);
    check(&site, session, "granted_by_cloud");
}

#[test]
fn granted_against_a_false_denial() {
    let mut site = Site::new();
    let (session, decision) = site.ask("c1", 3);
    site.pass(150);
    site.answer(&decision, DENY);
    check(&site, session, "false_denial");
}

#[test]
fn refused_revoked() {
    let mut site = Site::new();
    site.put(&revocations(7, &[(1, 5)]));
    site.pass(60_000);
    let (session, _) = site.ask("d1", 1);
    check(&site, session, "refused_revoked");
}

#[test]
fn refused_unknown() {
    let mut site = Site::new();
    site.go_local();
    let (session, _) = site.ask("w1", 99);
    check(&site, session, "refused_unknown");
}

#[test]
fn refused_by_an_error_and_policy_never() {
    let mut site = Site::new();
    let (session, decision) = site.ask("c1", 4);
    site.pass(80);
    let Input::Answer(answer) = answer_to(&decision, ACCEPT) else {
        unreachable!("answer_to makes an answer")
    };
    site.put(&Input::Trouble {
        ask: answer.ask,
        code: 404,
    });
    // Nobody answers the canaries either.
    site.wait(2_000);
    check(&site, session, "refused_never");
}

#[test]
fn silent_device() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    site.pass(2_000);
    site.say("c1", started(session, 0));
    site.pass(60_000);
    site.say("c1", meter(session, 0, 100, 60));
    site.wait(HOUR_MS);
    site.put(&revocations(2, &[(1, 5)]));
    check(&site, session, "silent");
    site.reboot(HOUR_MS);
    site.wait(8 * DAY_MS);
    check(&site, session, "silent_to_the_end");
}

#[test]
fn voided() {
    let mut site = Site::new();
    let session = site.open("w1", 1);
    site.pass(120_000);
    let mut stop = stop(session, 0, 0, 120);
    stop.reason = proto::message::StopReason::NotStarted;
    site.say("w1", Said::Stop(stop));
    receipt(&mut site);
    check(&site, session, "voided");
}

#[test]
fn the_display_showed_less() {
    let mut site = Site::new();
    let session = site.open("c1", 2);
    serve(&mut site, "c1", session, 1_500, 85);
    check(&site, session, "disputed");
}

#[test]
fn budget_spent() {
    let mut config = config();
    config.limits.site_budget = Money(250);
    let mut site = Site::with(config);
    site.open("d1", 1);
    let (session, _) = site.ask("c1", 2);
    check(&site, session, "budget_spent");
}

#[test]
fn secured_late_and_never_decided() {
    let mut site = Site::new();
    let (session, decision) = site.ask("c1", 3);
    site.wait(1_200);
    site.answer(&decision, ACCEPT);
    let why = of(&site, session);
    assert!(why.course.iter().any(|line| line.text.contains("accepts it late")));
    assert!(!why.money.unwrap().unsecured);

    let (session, _) = site.ask("c2", 99);
    assert_eq!(of(&site, session).state, "asking");
    site.reboot(1_000);
    assert_eq!(of(&site, session).state, "forgotten");
}

#[test]
fn sessions_are_found_by_their_ends() {
    let mut site = Site::new();
    let (first, _) = site.ask("c1", 1);
    let (second, _) = site.ask("c1", 2);
    let (third, _) = site.ask("d1", 1);
    let id = first.to_string();
    let check = |wanted: &str, expected: Result<SessionId, &str>| {
        let found = search(&site, &Wanted::Session(wanted.to_owned()));
        match (found, expected) {
            (Ok(why), Ok(session)) => assert_eq!(why.session, session.to_string(), "{wanted}"),
            (Err(error), Err(text)) => assert!(error.to_string().contains(text), "{wanted}: {error}"),
            (found, expected) => panic!("{wanted}: {found:?} instead of {expected:?}"),
        }
    };
    check(&id, Ok(first));
    check(&third.to_string()[..6], Ok(third));
    check(&id[..6], Err("several sessions fit"));
    check(&id[..6], Err(&second.to_string()));
    check(&format!("{}..{}", &id[..6], &id[30..]), Ok(first));
    check(&format!("..{}", &id[20..]), Ok(first));
    check("000000000", Err("no session 000000000"));
    check(&id[..5], Err("first 6 or more"));
    check("hello!", Err("not a session"));
    check(&format!("{id}0"), Err("not a session"));
    let last = search(&site, &Wanted::LastOf(crate::site::id("c1"))).unwrap();
    assert_eq!(last.session, second.to_string());
    let none = search(&site, &Wanted::LastOf(crate::site::id("w2"))).unwrap_err();
    assert_eq!(none.to_string(), "no session of device w2 in this journal");
}

#[test]
fn the_backend_s_remarks_are_told() {
    let mut site = Site::new();
    let session = site.open("c1", 1);
    let other = site.open("c2", 2);
    let outbox = site.gateway.outbox();
    let (upto, hash) = (outbox.head(), outbox.chain());
    let note = |sequence, mark| Note { sequence, mark };
    let receipt = LedgerReceipt {
        epoch: 1,
        upto,
        hash,
        quarantined: 1,
        notes: vec![note(1, Mark::Quarantined), note(2, Mark::Other)],
    };
    site.put(&Input::Receipt {
        receipt,
        own_hash: hash,
    });
    let told = |session| of(&site, session).to_string();
    let remark = "record 1: the backend cannot book it and keeps it aside";
    assert!(told(session).contains(remark), "{}", told(session));
    assert!(!told(other).contains("the backend"), "{}", told(other));
}

#[test]
fn the_record_alone_is_enough() {
    let mut site = Site::new();
    site.go_local();
    let session = site.open("c1", 3);
    let whole = of(&site, session);
    // As if everything before were pruned.
    let first = site
        .journal
        .iter()
        .position(|(_, event)| matches!(event, gateway_core::Event::Granted(e) if e.request.session == session));
    let mut search = Search::new(&Wanted::Session(session.to_string()), OFFSET_MIN).unwrap();
    for (i, (now, event)) in site.journal.iter().enumerate().skip(first.unwrap()) {
        search.take(i as u64 + 1, now, event);
    }
    assert_eq!(search.finish().unwrap(), whole);
    assert_ne!(whole.decision.unwrap().ledger_previous, Hash::ZERO.to_string()[..4]);
}
