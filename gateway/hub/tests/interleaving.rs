//! Any interleaving of the same facts gives the same balances, losses and disputes (semantics, section 9).
//!
//! A seed makes a small world: what three gateways recorded, each in its order, some of it contradicting the others,
//! and what the operator said. The facts are delivered in many orders, in uploads of any size, some twice, with
//! restarts between; whatever the order, the books must end up the same.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use hub::{
    core::{Catalogue, Hub, Input, Now, Order, RevocationSpec, TokenSpec},
    export, judgements,
};
use proto::{
    artifact::Subject,
    book::{Account, Loss},
    codec,
    id::{GatewayId, Kind, Name, SessionId, TokenHash},
    link::{LedgerRecord, RecordKind, Upload},
    message::{ClockQuality, Stamp, StopReason},
    money::{Money, Units},
    tariff::{Bill, Dimension, Tariff},
    trust::{KEY_ID_BYTES, KeyId},
};
use serde_bytes::ByteBuf;
use support::*;

/// Worlds, unless `HOLDFAST_INTERLEAVINGS` says how many: ten seconds without optimisation.
const WORLDS: u64 = 50;
/// Orders in which each world is told.
const ORDERS: u64 = 6;
/// When everything is uploaded: later than any record, so that no clock is ahead.
const END: Now = Now {
    wall_s: NOW.wall_s + 1_000_000,
};

/// One at each gateway, and one that stands now here, now there.
const DEVICES: [&str; 4] = ["charger-a", "charger-b", "charger-c", "charger-shared"];

/// SplitMix64: small, well spread, the same everywhere.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

fn price(number: u32) -> Tariff {
    Tariff::flat(number, &[(Dimension::Energy, i64::from(number) * 60_000)])
}

/// What the world is made of: the operator's words with their dates, and each gateway's records.
struct World {
    operator: Vec<(Now, Input)>,
    gateways: Vec<(GatewayId, Vec<Vec<u8>>)>,
}

fn world(dice: &mut Dice) -> World {
    let gateways = (0..3).map(|n| {
        let name = Name::new(["gw-1", "gw-2", "gw-3"][n]).unwrap();
        (name, journal(dice, n as u64))
    });
    let gateways = gateways.collect();
    World {
        operator: operator(dice),
        gateways,
    }
}

fn operator(dice: &mut Dice) -> Vec<(Now, Input)> {
    let mut deposits: BTreeMap<u64, Money> = (1..=3)
        .map(|account| (account, Money(dice.below(600) as i64)))
        .collect();
    let tokens = (1..=5).map(|n| {
        let account = u64::from(n) % 3 + 1;
        (token(n), TokenSpec { account, ..spec() })
    });
    let first = Catalogue {
        accounts: deposits.clone(),
        tokens: Some(tokens.collect()),
        tariffs: BTreeMap::from([(Kind::Charger, price(1))]),
        ..Catalogue::default()
    };
    let mut said = vec![(NOW, Input::Import(first))];
    for i in 1..=dice.below(12) {
        let now = Now {
            wall_s: NOW.wall_s + i * 10_000,
        };
        let mut wanted = Catalogue::default();
        match dice.below(9) {
            0 => {
                let account = 1 + dice.below(3);
                let deposit = deposits.get_mut(&account).unwrap();
                *deposit = deposit.saturating_add(Money(dice.below(1_500) as i64));
                wanted.accounts = deposits.clone();
            }
            1..=3 => {
                let credential_revision = 0;
                let revoked = token(1 + dice.below(5) as u8);
                wanted.revocations.insert(
                    revoked,
                    RevocationSpec {
                        credential_revision,
                        reason: proto::artifact::Reason::Lost,
                    },
                );
            }
            4 | 5 => {
                let (subject, reason) = (scope(dice), proto::artifact::Reason::Fraud);
                wanted.scopes.insert(subject, reason);
            }
            6 => {
                wanted.tariffs.insert(Kind::Charger, price(1 + dice.below(3) as u32));
            }
            _ => {
                let order = Order::Move {
                    debit: Account::Loss(Loss::Overdraft),
                    credit: Account::Customer(1 + dice.below(3)),
                    amount: Money(1 + dice.below(300) as i64),
                    session: SessionId::ZERO,
                    reason: "written off".to_owned(),
                };
                said.push((now, Input::Order(order)));
                continue;
            }
        }
        said.push((now, Input::Import(wanted)));
    }
    said
}

/// An account or a device, and now and then a key, which concerns no session.
fn scope(dice: &mut Dice) -> Subject {
    let device = DEVICES[dice.below(4) as usize];
    match dice.below(5) {
        0 | 1 => Subject::Account(1 + dice.below(3)),
        2 | 3 => Subject::Device(Name::new(device).unwrap()),
        _ => Subject::Key(KeyId([7; KEY_ID_BYTES])),
    }
}

/// What one gateway wrote: sessions, some of which are open, silent, doubled, contested or wrong.
fn journal(dice: &mut Dice, gateway: u64) -> Vec<Vec<u8>> {
    let mut records: Vec<LedgerRecord> = Vec::new();
    let mut register = dice.below(3_000);
    for i in 0..dice.below(12) {
        // Some ids are minted at two sites, never twice at one; some devices stand at two.
        let shared = 100 + dice.below(4);
        let id = if dice.one_in(4) && !records.iter().any(|record| record.session == session(shared)) {
            shared
        } else {
            1_000 * (gateway + 1) + i
        };
        let wh = dice.below(4) * 500;
        let start = if dice.one_in(4) {
            register.saturating_sub(dice.below(1_500))
        } else {
            register
        };
        register = start + wh + dice.below(2) * 200;
        let tariff = price(1 + dice.below(3) as u32 + u32::from(dice.one_in(20)) * 5);
        let mut bill = Bill::default();
        bill.quantities[0] = wh;
        let charge = bill.total(&tariff).0 + i64::from(dice.one_in(10)) * 7;
        let hold = charge + dice.below(200) as i64;
        let who = 1 + dice.below(5) as u8;
        let quality = [
            ClockQuality::Synchronised,
            ClockQuality::Synchronised,
            ClockQuality::Relative,
        ][dice.below(3) as usize];
        let mut base = record(0, RecordKind::Hold, id, hold);
        let device = if dice.one_in(4) { 3 } else { gateway };
        base.device = Name::new(DEVICES[device as usize]).unwrap();
        base.token = token(who);
        base.account = u64::from(who) % 3 + 1;
        base.register_start = Units(start);
        base.register_end = Units(start);
        base.bill = Bill::default();
        base.tariff_hash = tariff.hash();
        base.rule = if dice.one_in(10) { 10 } else { 7 };
        base.online = dice.one_in(4);
        base.at = Stamp {
            mono_ms: 1_000 * i,
            wall_s: NOW.wall_s + dice.below(90_000),
            quality,
        };
        base.evidence.credential_revision = 1;
        base.evidence.list_revision = dice.below(3);
        base.evidence.revocations_revision = dice.below(3);
        if dice.one_in(8) {
            base.evidence.instrument = 1 + dice.below(2);
            base.rule = 4;
        }
        let with = |kind, amount| LedgerRecord {
            kind,
            amount: Money(amount),
            ..base.clone()
        };
        records.push(with(RecordKind::Hold, hold));
        let capture = |reason| LedgerRecord {
            register_end: Units(start + wh),
            bill,
            stop_reason: reason,
            ..with(RecordKind::Capture, charge)
        };
        match dice.below(8) {
            0 => {}
            1 => records.push(with(RecordKind::Void, hold)),
            2 => records.push(with(RecordKind::Indeterminate, hold)),
            3 => records.extend([with(RecordKind::Indeterminate, hold), capture(StopReason::Other)]),
            4 => records.extend([
                with(RecordKind::Started, 0),
                capture(StopReason::User),
                capture(StopReason::User),
            ]),
            _ => records.extend([with(RecordKind::Started, 0), capture(StopReason::User)]),
        }
    }
    let numbered = records
        .into_iter()
        .zip(1..)
        .map(|(record, sequence)| LedgerRecord { sequence, ..record });
    numbered.map(|record| codec::to_vec(&record)).collect()
}

/// What must not depend on the order.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    net: BTreeMap<Account, i64>,
    held: Vec<(SessionId, Account, Money)>,
    losses: Vec<judgements::LossRow>,
    disputes: Vec<export::DisputeRow>,
    asides: Vec<(SessionId, GatewayId, Option<Money>, bool)>,
    sessions: Vec<judgements::SessionRow>,
    available: Vec<(u64, Money, Money)>,
}

/// Part by part, so that a failure shows the smallest part that differs.
fn compare(found: &Outcome, expected: &Outcome, what: &str) {
    for (one, other) in found.sessions.iter().zip(&expected.sessions) {
        assert_eq!(one, other, "{what}");
    }
    assert_eq!(found.losses, expected.losses, "{what}");
    assert_eq!(found.disputes, expected.disputes, "{what}");
    assert_eq!(found.asides, expected.asides, "{what}");
    assert_eq!(found.held, expected.held, "{what}");
    assert_eq!(found.net, expected.net, "{what}");
    assert_eq!(found, expected, "{what}");
}

fn outcome(hub: &Hub) -> Outcome {
    let net = hub.book().balances().map(|(account, sums)| {
        let net = sums.credits_posted.0 - sums.debits_posted.0;
        (*account, net)
    });
    let asides = hub.conflicts().asides().iter();
    Outcome {
        net: net.filter(|(_, net)| *net != 0).collect(),
        held: hub
            .book()
            .holds()
            .map(|(session, payer, amount)| (*session, payer, amount))
            .collect(),
        losses: judgements::losses(hub),
        disputes: export::disputes(hub),
        asides: asides
            .map(|((session, gateway, _), aside)| (*session, *gateway, aside.charged, aside.exists))
            .collect(),
        sessions: judgements::sessions(hub),
        available: (1..=3)
            .map(|account| (account, hub.available(account), hub.arrears(account)))
            .collect(),
    }
}

/// Whose revocation brought losses, if it was not the token's.
fn scopes_of_losses(world: &World, hub: &Hub) -> Vec<&'static str> {
    let is_revoked = |token: &TokenHash| {
        let mut said = world.operator.iter();
        said.any(|(_, input)| matches!(input, Input::Import(wanted) if wanted.revocations.contains_key(token)))
    };
    let scopes = hub.revoked_scopes();
    let sessions = hub.conflicts().sessions().iter();
    let lost = sessions.filter(|(session, facts)| hub.is_loss_of_revoked(session) && !is_revoked(&facts.token));
    lost.map(
        |(_, facts)| match scopes.contains_key(&Subject::Account(facts.account)) {
            true => "account_revoked",
            false => "device_revoked",
        },
    )
    .collect()
}

/// Tells a world to a hub, in an order of its own.
fn tell(world: &World, dice: &mut Dice) -> Hub {
    let mut kept = Kept::default();
    kept.step(&Input::Start);
    let mut operator = world.operator.iter();
    let mut sent: Vec<usize> = vec![0; world.gateways.len()];
    for (gateway, _) in &world.gateways {
        let (gateway, counter) = (*gateway, 1);
        let hello = hello(1, 0);
        kept.step(&Input::Hello {
            gateway,
            counter,
            hello,
        });
    }
    let mut operator_done = false;
    loop {
        let done = |i: usize| sent[i] == world.gateways[i].1.len();
        if operator_done && (0..sent.len()).all(done) {
            break;
        }
        let turn = dice.below(4) as usize;
        if turn == 3 {
            match operator.next() {
                Some((now, input)) => put(&mut kept, *now, input),
                None => operator_done = true,
            }
        } else {
            let (gateway, records) = &world.gateways[turn];
            // Some of it was sent before; its receipt was lost.
            let from = sent[turn].saturating_sub(dice.below(3) as usize);
            let to = (from + 1 + dice.below(6) as usize).min(records.len());
            if from < to {
                let upload = Upload {
                    epoch: 1,
                    first: from as u64 + 1,
                    records: records[from..to].iter().cloned().map(ByteBuf::from).collect(),
                };
                let gateway = *gateway;
                put(&mut kept, END, &Input::Upload { gateway, upload });
                sent[turn] = sent[turn].max(to);
            }
        }
        match dice.below(24) {
            0 => kept.hub = replayed(&kept.events),
            1 => kept.hub = restored(&kept.hub),
            2 => put(&mut kept, END, &Input::Tick),
            _ => {}
        }
    }
    assert!(kept.hub.book().is_balanced());
    assert_eq!(replayed(&kept.events), kept.hub, "a restart from events");
    assert_eq!(restored(&kept.hub), kept.hub, "a restart from a snapshot");
    kept.hub
}

/// A step at a time of its own. Now and then only the first events become durable, and the process starts again.
fn put(kept: &mut Kept, now: Now, input: &Input) {
    let decision = kept.hub.step(now, &SETTINGS, input);
    kept.events.extend(decision.events);
}

#[test]
fn any_interleaving_of_the_same_facts_gives_the_same_balances() {
    let worlds = std::env::var("HOLDFAST_INTERLEAVINGS").map_or(WORLDS, |n| n.parse().unwrap());
    let mut marks: BTreeMap<&str, u64> = BTreeMap::new();
    for seed in 0..worlds {
        let mut dice = Dice(seed);
        let world = world(&mut dice);
        let first = tell(&world, &mut dice);
        let expected = outcome(&first);
        for order in 1..ORDERS {
            let found = outcome(&tell(&world, &mut dice));
            compare(&found, &expected, &format!("world {seed}, order {order}"));
        }
        for (class, _) in first.conflicts().corrections().keys() {
            *marks.entry(class.word()).or_default() += 1;
        }
        let arrears = expected.available.iter().any(|(_, _, owed)| *owed > Money::ZERO);
        *marks.entry("arrears").or_default() += u64::from(arrears);
        for scope in scopes_of_losses(&world, &first) {
            *marks.entry(scope).or_default() += 1;
        }
        *marks.entry("claims").or_default() += u64::from(expected.asides.iter().any(|aside| !aside.3));
        *marks.entry("exists").or_default() += u64::from(expected.asides.iter().any(|aside| aside.3));
        *marks.entry("amount").or_default() += u64::from(expected.disputes.iter().any(|row| row.about == "amount"));
    }
    println!("{worlds} worlds in {ORDERS} orders each: {marks:?}");
    for mark in [
        "revoked",
        "two_sites",
        "price_changed",
        "duplicate",
        "device_lost",
        "emergency",
        "arrears",
        "account_revoked",
        "device_revoked",
        "claims",
        "exists",
        "amount",
    ] {
        assert!(
            marks.get(mark).is_some_and(|hits| *hits > 0),
            "no world had {mark}: {marks:?}"
        );
    }
}

/// A crash between any two events of one decision leaves nothing undone for good.
#[test]
fn what_a_crash_cut_off_is_done_at_the_next_start() {
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let world = world(&mut dice);
        let whole = outcome(&tell(&world, &mut dice));
        let mut kept = Kept::default();
        kept.step(&Input::Start);
        let mut told: Vec<(Now, Input)> = world.operator.clone();
        for (gateway, records) in &world.gateways {
            let (gateway, counter, hello) = (*gateway, 1, hello(1, 0));
            told.push((
                END,
                Input::Hello {
                    gateway,
                    counter,
                    hello,
                },
            ));
            let upload = Upload {
                epoch: 1,
                first: 1,
                records: records.iter().cloned().map(ByteBuf::from).collect(),
            };
            if !records.is_empty() {
                told.push((END, Input::Upload { gateway, upload }));
            }
        }
        for (now, input) in &told {
            let before = kept.events.clone();
            let decision = kept.hub.step(*now, &SETTINGS, input);
            if !matches!(input, Input::Upload { .. } | Input::Import(_)) {
                kept.events.extend(decision.events);
                continue;
            }
            let cut = dice.below(decision.events.len() as u64 + 1) as usize;
            kept.events = before;
            kept.events.extend(decision.events.into_iter().take(cut));
            kept.hub = replayed(&kept.events);
            put(&mut kept, END, &Input::Start);
            put(&mut kept, *now, input);
        }
        compare(&outcome(&kept.hub), &whole, &format!("world {seed}"));
    }
}
