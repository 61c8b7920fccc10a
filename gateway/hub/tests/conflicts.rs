//! The golden vectors of the conflicts in `tests/conflicts`: facts, and what the books must show after them. They are
//! plain JSON, so that an operator's own backend can be held to them; `docs/conflicts.md` says how to read them.
//!
//! Every vector is also played with restarts between its facts, and in other orders of what different sources said.
#![allow(clippy::unwrap_used)]

mod support;

use std::{collections::BTreeMap, fs, path::PathBuf, str::FromStr};

use hub::{
    core::{Effect, Event, Hub, Input, Now, RevocationSpec, TokenSpec, conflict::Class},
    export, judgements,
};
use proto::{
    artifact::{Reason, Subject, Whitelist},
    book::Book,
    codec,
    id::{Hash, Kind, Name, SessionId, TokenHash},
    link::{Evidence, Gift, LedgerRecord, RecordKind, Upload},
    message::{ClockQuality, Stamp, StopReason},
    money::{Money, Units},
    tariff::{Bill, Dimension, Tariff},
};
use serde_bytes::ByteBuf;
use serde_json::Value;
use support::*;

fn vectors() -> Vec<(String, Value)> {
    let dir = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/conflicts");
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, serde_json::from_str(&text).unwrap())
        })
        .collect()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is not a text"))
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// The tariffs of a vector, by their keys.
fn tariffs(vector: &Value) -> BTreeMap<String, Tariff> {
    let rows = vector["tariffs"].as_object().unwrap().iter();
    rows.map(|(key, row)| {
        let price = row["energy_price_milli"].as_i64().unwrap();
        let tariff = Tariff::flat(number(&row["id"]) as u32, &[(Dimension::Energy, price)]);
        (key.clone(), tariff)
    })
    .collect()
}

fn record_of(row: &Value, tariffs: &BTreeMap<String, Tariff>) -> LedgerRecord {
    let kind = match text(&row["kind"]) {
        "hold" => RecordKind::Hold,
        "started" => RecordKind::Started,
        "capture" => RecordKind::Capture,
        "void" => RecordKind::Void,
        "indeterminate" => RecordKind::Indeterminate,
        other => panic!("kind {other}"),
    };
    let stop_reason = match text(&row["stop_reason"]) {
        "other" => StopReason::Other,
        "user" => StopReason::User,
        "finished" => StopReason::Finished,
        "power_loss" => StopReason::PowerLoss,
        "not_started" => StopReason::NotStarted,
        other => panic!("stop reason {other}"),
    };
    let quality = match text(&row["at"]["quality"]) {
        "synchronised" => ClockQuality::Synchronised,
        "informative" => ClockQuality::Informative,
        "relative" => ClockQuality::Relative,
        other => panic!("quality {other}"),
    };
    let mut bill = Bill::default();
    for (i, quantity) in row["quantities"].as_array().unwrap().iter().enumerate() {
        bill.quantities[i] = number(quantity);
    }
    let evidence = &row["evidence"];
    LedgerRecord {
        sequence: number(&row["sequence"]),
        kind,
        session: SessionId::from_str(text(&row["session"])).unwrap(),
        device: Name::new(text(&row["device"])).unwrap(),
        outlet: number(&row["outlet"]) as u8,
        device_kind: Kind::Charger,
        token: TokenHash::from_str(text(&row["token"])).unwrap(),
        account: number(&row["account"]),
        amount: Money(row["amount"].as_i64().unwrap()),
        register_start: Units(number(&row["register_start"])),
        register_end: Units(number(&row["register_end"])),
        bill,
        tariff_hash: tariffs[&row["tariff"].to_string()].hash(),
        stop_reason,
        rule: number(&row["rule"]) as u8,
        online: row["online"].as_bool().unwrap(),
        at: Stamp {
            mono_ms: number(&row["at"]["mono_ms"]),
            wall_s: number(&row["at"]["wall_s"]),
            quality,
        },
        boot: number(&row["boot"]) as u32,
        evidence: Evidence {
            mode: number(&evidence["mode"]) as u8,
            credential_revision: number(&evidence["credential_revision"]),
            list_revision: number(&evidence["list_revision"]),
            revocations_revision: number(&evidence["revocations_revision"]),
            lease: number(&evidence["lease"]),
            instrument: number(&evidence["instrument"]),
            gift: Gift::None,
        },
    }
}

/// A fact as the hub's input, and the time at which the hub hears of it.
fn input_of(fact: &Value, tariffs: &BTreeMap<String, Tariff>, counter: u64) -> (Input, Option<u64>) {
    if let Some(operator) = fact.get("operator") {
        let input = Input::Import(catalogue_of(operator, tariffs));
        return (input, Some(number(&operator["at_s"])));
    }
    if let Some(words) = fact.get("hello") {
        let input = Input::Hello {
            gateway: Name::new(text(&words["gateway"])).unwrap(),
            counter,
            hello: hello(number(&words["epoch"]) as u32, number(&words["head"])),
        };
        return (input, None);
    }
    if let Some(upload) = fact.get("records") {
        let rows = upload["records"].as_array().unwrap().iter();
        let records = rows.map(|row| ByteBuf::from(codec::to_vec(&record_of(row, tariffs))));
        let upload_of = Upload {
            epoch: number(&upload["epoch"]) as u32,
            first: number(&upload["first"]),
            records: records.collect(),
        };
        let gateway = Name::new(text(&upload["gateway"])).unwrap();
        return (
            Input::Upload {
                gateway,
                upload: upload_of,
            },
            None,
        );
    }
    if let Some(order) = fact.get("order") {
        let request: hub::control::OrderRequest = serde_json::from_value(order.clone()).unwrap();
        return (Input::Order(request.order().unwrap()), None);
    }
    (Input::Tick, Some(number(&fact["tick"])))
}

fn catalogue_of(operator: &Value, tariffs: &BTreeMap<String, Tariff>) -> hub::core::Catalogue {
    let mut wanted = hub::core::Catalogue::default();
    if let Some(rows) = operator.get("accounts") {
        for (account, deposit) in rows.as_object().unwrap() {
            let deposit = Money(deposit.as_i64().unwrap());
            wanted.accounts.insert(account.parse().unwrap(), deposit);
        }
    }
    if let Some(rows) = operator.get("tokens") {
        let rows = rows.as_object().unwrap().iter();
        let tokens = rows.map(|(token, row)| {
            let account = number(&row["account"]);
            (TokenHash::from_str(token).unwrap(), TokenSpec { account, ..spec() })
        });
        wanted.tokens = Some(tokens.collect());
    }
    for token in operator
        .get("revocations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let credential_revision = 0;
        let token = TokenHash::from_str(text(token)).unwrap();
        let reason = Reason::Lost;
        let spec = RevocationSpec {
            credential_revision,
            reason,
        };
        wanted.revocations.insert(token, spec);
    }
    let scopes = |word: &str| operator.get("scopes").and_then(|scopes| scopes.get(word)?.as_array());
    for account in scopes("accounts").into_iter().flatten() {
        wanted.scopes.insert(Subject::Account(number(account)), Reason::Fraud);
    }
    for device in scopes("devices").into_iter().flatten() {
        let device = Name::new(text(device)).unwrap();
        wanted.scopes.insert(Subject::Device(device), Reason::Stolen);
    }
    if let Some(tariff) = operator.get("tariffs") {
        let tariff = tariffs[&tariff["charger"].to_string()].clone();
        wanted.tariffs.insert(Kind::Charger, tariff);
    }
    wanted
}

/// A hub with its history and its clock.
#[derive(Clone, Default)]
struct Played {
    hub: Hub,
    events: Vec<Event>,
    wall_s: u64,
    counter: u64,
    welcome: u64,
    backup: Option<(Hub, Vec<Event>)>,
}

impl Played {
    fn step(&mut self, fact: &Value, tariffs: &BTreeMap<String, Tariff>) {
        match fact.as_str() {
            Some("backup") => return self.backup = Some((self.hub.clone(), self.events.clone())),
            Some("restore") => {
                (self.hub, self.events) = self.backup.clone().expect("a backup before the restore");
                return;
            }
            Some(other) => panic!("fact {other}"),
            None => {}
        }
        self.counter += 1;
        let (input, at_s) = input_of(fact, tariffs, self.counter);
        self.wall_s = self.wall_s.max(at_s.unwrap_or(NOW.wall_s + 2700));
        self.put(&input);
        if at_s.is_some() {
            self.put(&Input::Tick);
        }
    }

    fn put(&mut self, input: &Input) {
        let now = Now { wall_s: self.wall_s };
        let decision = self.hub.step(now, &SETTINGS, input);
        assert!(
            !decision
                .effects
                .iter()
                .any(|effect| matches!(effect, Effect::OrderRefused(_))),
            "{decision:?}"
        );
        for effect in &decision.effects {
            if let Effect::Welcome { welcome, .. } = effect {
                self.welcome = welcome.upto;
            }
        }
        self.events.extend(decision.events);
        assert!(self.hub.book().is_balanced());
    }

    /// Lines as the hub exports them, from the events alone.
    fn lines(&self) -> Vec<String> {
        let mut book = Book::default();
        let mut lines = Vec::new();
        for event in &self.events {
            if let Event::Booked { at, record, .. } = event {
                for line in book.book(record).unwrap() {
                    lines.push(line_of(&export::LedgerLine::new(at, &line)));
                }
            }
            if let Event::Adjusted(adjustment) = event {
                for line in adjustment.transfers() {
                    book.transfer(&line).unwrap();
                    lines.push(line_of(&export::LedgerLine::of_hub(adjustment, &line)));
                }
            }
        }
        assert_eq!(book, *self.hub.book(), "the lines are the book");
        lines
    }

    /// Credits less debits, pending ones included, of every account that ever moved.
    fn net(&self) -> BTreeMap<String, i64> {
        let sums = self.hub.book().balances().map(|(account, sums)| {
            let net = sums.credits_posted.0 - sums.debits_posted.0;
            (account.to_string(), net)
        });
        sums.filter(|(account, _)| account != "clearing").collect()
    }

    fn disputes(&self) -> Vec<String> {
        let rows = export::disputes(&self.hub).into_iter().map(|row| {
            let computed = row.computed.map_or_else(String::new, |money| format!(" {money}"));
            format!(
                "{} {} {} {}{computed}",
                row.gateway, row.sequence, row.about, row.charged
            )
        });
        rows.collect()
    }

    fn cases(&self) -> Vec<String> {
        let rows = judgements::cases(&self.hub).into_iter().map(|row| {
            let about = match row.account {
                0 => row.session,
                account => account.to_string(),
            };
            format!("{} {about}", row.conflict)
        });
        let mut rows: Vec<_> = rows.collect();
        rows.sort();
        rows
    }

    fn whitelist(&self, token: &str) -> String {
        let token = TokenHash::from_str(token).unwrap();
        let list = self.hub.list().unwrap();
        let entry = list.entries.iter().find(|entry| entry.token == token).unwrap();
        match entry.whitelist {
            Whitelist::Never => "never".to_owned(),
            Whitelist::Allowed => "allowed".to_owned(),
            other => format!("{other:?}"),
        }
    }
}

fn line_of(line: &export::LedgerLine) -> String {
    format!(
        "{} {} {} {} {} {}",
        line.gateway, line.sequence, line.phase, line.debit, line.credit, line.amount
    )
}

fn texts(value: &Value) -> Vec<String> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|value| text(value).to_owned())
        .collect()
}

fn check(name: &str, played: &Played, expected: &Value) {
    for (what, value) in expected.as_object().unwrap() {
        let accounts = || {
            let rows = value.as_object().unwrap().iter();
            rows.map(|(account, money)| (account.parse::<u64>().unwrap(), Money(money.as_i64().unwrap())))
        };
        match what.as_str() {
            "lines" => assert_eq!(played.lines(), texts(value), "{name}"),
            "lines_hub" => {
                let mut own = played.lines();
                own.retain(|line| line.starts_with(export::HUB));
                assert_eq!(own, texts(value), "{name}");
            }
            "net" => {
                let expected: BTreeMap<String, i64> = serde_json::from_value(value.clone()).unwrap();
                assert_eq!(played.net(), expected, "{name}");
            }
            "arrears" => accounts()
                .for_each(|(account, owed)| assert_eq!(played.hub.arrears(account), owed, "{name}: {account}")),
            "available" => accounts()
                .for_each(|(account, left)| assert_eq!(played.hub.available(account), left, "{name}: {account}")),
            "list" => {
                for (token, policy) in value.as_object().unwrap() {
                    assert_eq!(played.whitelist(token), text(policy), "{name}: {token}");
                }
            }
            "sessions" => {
                let rows = judgements::sessions(&played.hub);
                let states: BTreeMap<String, String> = rows.into_iter().map(|row| (row.session, row.state)).collect();
                for (session, state) in value.as_object().unwrap() {
                    assert_eq!(states[session], text(state), "{name}: {session}");
                }
            }
            "disputes" => assert_eq!(played.disputes(), texts(value), "{name}"),
            "cases" => assert_eq!(played.cases(), texts(value), "{name}"),
            "welcome" => assert_eq!(played.welcome, number(value), "{name}"),
            "gateways" => {
                for (gateway, expected) in value.as_object().unwrap() {
                    let row = &played.hub.gateways()[&Name::new(gateway).unwrap()];
                    for (field, expected) in expected.as_object().unwrap() {
                        let found = match field.as_str() {
                            "upto" => row.upto,
                            "booked" => row.booked,
                            "quarantined" => row.quarantined,
                            "aside" => row.aside,
                            other => panic!("{name}: field {other}"),
                        };
                        assert_eq!(found, number(expected), "{name}: {gateway} {field}");
                    }
                }
            }
            other => panic!("{name}: expectation {other}"),
        }
    }
}

#[test]
fn every_conflict_has_its_one_outcome() {
    let mut seen = Vec::new();
    for (name, vector) in vectors() {
        let tariffs = tariffs(&vector);
        let (mut played, mut checks) = (Played::default(), 0);
        for fact in vector["facts"].as_array().unwrap() {
            if let Some(expected) = fact.get("expect") {
                check(&name, &played, expected);
                checks += 1;
            } else {
                played.step(fact, &tariffs);
            }
            assert_eq!(replayed(&played.events), played.hub, "{name}: a restart from events");
            assert_eq!(restored(&played.hub), played.hub, "{name}: a restart from a snapshot");
        }
        assert!(checks > 0, "{name} expects nothing");
        seen.push(number(&vector["conflict"]) as u8);
    }
    for class in Class::ALL.iter().filter(|class| **class != Class::Operator) {
        assert!(seen.contains(&class.code()), "no vector for {}", class.word());
    }
}

#[test]
fn a_case_of_a_breach_names_what_was_revoked() {
    let table = [
        (
            "01-revoked-and-known",
            "gateway gw-1 granted to a token, revoked by revision 1; it knew revision 1",
        ),
        (
            "01-account-revoked-and-known",
            "gateway gw-1 granted on account 7, revoked by revision 1; it knew revision 1",
        ),
    ];
    for (wanted, words) in table {
        let (_, vector) = vectors().into_iter().find(|(name, _)| name == wanted).unwrap();
        let tariffs = tariffs(&vector);
        let mut played = Played::default();
        let facts = vector["facts"].as_array().unwrap().iter();
        facts
            .filter(|fact| fact.get("expect").is_none())
            .for_each(|fact| played.step(fact, &tariffs));
        let cases: Vec<String> = judgements::cases(&played.hub).into_iter().map(|row| row.what).collect();
        assert_eq!(cases, [words], "{wanted}");
    }
}

#[test]
fn the_tariffs_of_the_vectors_have_the_hashes_that_gateways_write() {
    for (name, vector) in vectors() {
        for (key, row) in vector["tariffs"].as_object().unwrap() {
            let hash = Hash::from_str(text(&row["hash"])).unwrap();
            assert_eq!(tariffs(&vector)[key].hash(), hash, "{name}: tariff {key}");
        }
    }
}
