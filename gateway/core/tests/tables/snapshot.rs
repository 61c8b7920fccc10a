//! A snapshot is the state: walks of random events are cut by snapshots and boots, and must go on equal. On the way the
//! gauges are compared with a second computation.

use crate::site::*;
use gateway_core::{Event, Gateway, Input, Now, Said, event::Kept};
use proto::{
    artifact::{ListEntry, Whitelist},
    id::{Hash, SessionId},
    link::{LedgerReceipt, ORDERS_REMEMBERED, Order, OrderOutcome, OrderVerb, RecordKind, Welcome},
    message::{ClockQuality, Fault, OutletState, RefusalReason},
    money::Money,
    trust::ArtifactKind,
};

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n
    }
}

const DEVICES: [&str; 5] = ["c1", "c2", "w1", "w2", "d1"];
const NO_TIME: Now = Now {
    mono_ms: 0,
    wall_s: 0,
    quality: ClockQuality::Unknown,
};

struct Walk {
    site: Site,
    random: Random,
    /// Device, session, register of its outlet.
    sessions: Vec<(&'static str, SessionId)>,
    registers: [u64; 5],
    questions: Vec<gateway_core::Decision>,
    lists: u64,
    operator: [usize; 3],
    orders: u64,
}

impl Walk {
    fn step(&mut self) {
        let pick = self.random.below(100);
        let which = self.random.below(5) as usize;
        let device = DEVICES[which];
        match pick {
            0..30 => {
                let n = 1 + self.random.below(6) as u8;
                let session = self.site.mint(device);
                let said = authorize(session, 0, n, self.registers[which]);
                let decision = self.site.say(device, said);
                self.sessions.push((device, session));
                if words(&decision) == "ask" {
                    self.questions.push(decision);
                }
            }
            30..70 => self.speak(),
            70..80 => {
                if let Some(question) = self.questions.pop() {
                    let reply = [ACCEPT, DENY, DENY_NEWER][self.random.below(3) as usize];
                    self.site.answer(&question, reply);
                }
            }
            80..85 => drop(self.site.wait(self.random.below(100_000))),
            85..88 => self.order(device),
            88..90 => drop(self.site.wait(self.random.below(3 * HOUR_MS))),
            _ => self.rare(device),
        }
    }

    /// A device says something about one of its sessions.
    fn speak(&mut self) {
        if self.sessions.is_empty() {
            return;
        }
        let i = self.random.below(self.sessions.len() as u64) as usize;
        let (device, session) = self.sessions[i];
        let which = DEVICES.iter().position(|d| *d == device).unwrap();
        let before = self.registers[which];
        self.registers[which] += self.random.below(400);
        let register = self.registers[which];
        match self.random.below(3) {
            0 => drop(self.site.say(device, started(session, before))),
            1 => drop(self.site.say(device, meter(session, before, register, 60))),
            _ => drop(self.site.say(device, Said::Stop(stop(session, before, register, 60)))),
        }
    }

    fn rare(&mut self, device: &'static str) {
        let head = self.site.gateway.outbox().head();
        let upto = self.random.below(head + 1);
        let hash = Hash::ZERO;
        match self.random.below(12) {
            0 => {
                self.lists += 1;
                let kept = 60 - self.random.below(4) as u8;
                let entries =
                    (1..kept).map(|n| entry(n, [Whitelist::Always, Whitelist::AllowedOffline][usize::from(n % 2)]));
                self.site.put(&list(self.lists + 1, entries.collect()));
            }
            1 => drop(self.site.put(&revocations(
                self.lists,
                &[(self.random.below(8) as u8, self.lists % 8)],
            ))),
            2 => drop(self.site.put(&tariffs(self.lists))),
            3 => {
                let receipt = LedgerReceipt {
                    epoch: 1,
                    upto,
                    hash,
                    ..LedgerReceipt::default()
                };
                self.site.put(&Input::Receipt {
                    receipt,
                    own_hash: hash,
                });
            }
            4 => {
                let welcome = Welcome {
                    version: 1,
                    epoch: 1,
                    upto,
                    hash,
                    wall_s: 0,
                    ..Welcome::default()
                };
                self.site.put(&Input::Welcome(welcome));
            }
            5 => drop(self.site.say(device, status(0, OutletState::Faulted, Fault::Leak))),
            6 => drop(self.site.say(device, status(0, OutletState::Free, Fault::None))),
            7 => {
                // Changes to the active list; some of them go too far.
                let active = self.site.gateway.trust().list().clone();
                let (base, mut entries) = (active.head().revision, active.entries().to_vec());
                entries.truncate(entries.len().saturating_sub(self.random.below(5) as usize));
                entries.iter_mut().step_by(7).for_each(|entry| entry.balance.0 -= 100);
                self.lists += 1;
                self.site
                    .put(&list_of_changes((base, &active.entries()), self.lists + 1, &entries));
            }
            8 => {
                let kind = [ArtifactKind::List, ArtifactKind::Tariffs][self.random.below(2) as usize];
                let adopted = self.site.put(&Input::Adopt { kind, revision: 0 });
                self.operator[0] += adopted.events.len();
            }
            9 => {
                let rolled_back = self.site.put(&Input::RollBack(ArtifactKind::List));
                self.operator[1] += rolled_back.events.len();
            }
            10 => {
                let price = 20_000 + self.random.below(100_000) as i64;
                self.site
                    .put(&tariffs_of(self.lists, &[(proto::id::Kind::Charger, price)]));
                let key = proto::artifact::PublicKey([self.random.below(200) as u8; 32]);
                let (epoch, keys) = (self.lists, vec![key]);
                self.site.put(&Input::Keys(proto::artifact::IssuerKeys { epoch, keys }));
                let subject = proto::artifact::Subject::Account(self.random.below(400));
                let scope = proto::artifact::RevokedScope::new(subject, proto::artifact::Reason::Lost);
                let set = proto::artifact::Revocations {
                    revision: self.lists,
                    entries: vec![],
                    scopes: vec![scope],
                };
                self.operator[2] += self.site.put(&Input::Revocations(set)).events.len();
            }
            _ => self.order(device),
        }
    }

    /// The operator wants something; now and then for the second time.
    fn order(&mut self, device: &'static str) {
        self.orders += self.random.below(4).min(1);
        let verbs = [
            OrderVerb::Report,
            OrderVerb::Reserve,
            OrderVerb::Release,
            OrderVerb::TelemetryEvery,
        ];
        let verb = verbs[self.random.below(4) as usize];
        let order = Order {
            device: (verb != OrderVerb::TelemetryEvery).then_some(id(device)),
            whose: token(1 + self.random.below(6) as u8),
            until_s: self.site.now.wall_s + 60 + self.random.below(600),
            value: self.random.below(100),
            ..order(self.orders, verb, device)
        };
        self.site.put(&ordered(order));
    }

    /// The power goes; half of the time the journal begins with a snapshot. Both ways lead to the same state.
    fn reboot(&mut self) {
        let restored = restore(&self.site.gateway, &self.site.now);
        let slept_ms = self.random.below(3_600) * 1_000;
        let now = Now {
            mono_ms: 300,
            wall_s: self.site.now.wall_s + slept_ms / 1000,
            ..self.site.now
        };
        self.site.boots += 1;
        let booted = Event::Booted(gateway_core::event::Booted {
            boot: self.site.boots,
            epoch: 1,
        });
        let mut states = [self.site.gateway.clone(), restored];
        for state in &mut states {
            state.apply(&now, &booted);
        }
        let [lived, restored] = states;
        assert!(lived == restored, "a boot from a snapshot is a boot from the journal");
        self.questions.clear();
        self.site.journal.push((now, booted));
        self.site.now = now;
        self.site.gateway = if self.random.below(2) == 0 { restored } else { lived };
    }
}

/// A gateway made from a snapshot. `now` is what the clocks of the next boot might say: it must not matter.
fn restore(gateway: &Gateway, now: &Now) -> Gateway {
    let later = Now {
        mono_ms: now.mono_ms + DAY_MS,
        wall_s: now.wall_s + 86_400,
        ..*now
    };
    let make = |now: &Now| {
        let mut made = Gateway::new(gateway.config().clone());
        for event in gateway.snapshot() {
            made.apply(now, &event);
        }
        made
    };
    let made = make(&NO_TIME);
    assert!(
        made == make(&later),
        "the time with which a snapshot is applied does not matter"
    );
    made
}

/// Exposure and holds from the journal alone.
fn recompute(site: &Site) {
    let mut cursor = 0;
    let mut unsecured: Vec<(SessionId, u64, Money)> = Vec::new();
    for (_, event) in &site.journal {
        if let Some(record) = event.record() {
            let position = unsecured.iter().position(|(session, _, _)| *session == record.session);
            match (record.kind, position) {
                (RecordKind::Hold, _) if !record.online => unsecured.push((record.session, u64::MAX, record.amount)),
                (RecordKind::Capture, Some(i)) => unsecured[i] = (record.session, record.sequence, record.amount),
                (RecordKind::Void, Some(i)) => drop(unsecured.remove(i)),
                _ => {}
            }
        }
        match event {
            Event::Confirmed(confirmed) => unsecured.retain(|(session, _, _)| *session != confirmed.session),
            Event::Receipted(receipted) => {
                cursor = receipted.upto;
                unsecured.retain(|(_, sequence, _)| *sequence > cursor);
            }
            _ => {}
        }
    }
    let exposure: i64 = unsecured.iter().map(|(_, _, amount)| amount.0).sum();
    assert_eq!(
        site.gateway.risk().exposure(),
        Money(exposure),
        "the gauge, cursor {cursor}"
    );
    let open: Vec<_> = site.gateway.sessions().open().collect();
    assert_eq!(
        site.gateway.book().holds().count(),
        open.len(),
        "a hold for each open session"
    );
    let held: i64 = open.iter().map(|s| s.terms.as_ref().unwrap().money_max.0).sum();
    assert_eq!(
        site.gateway.book().holds().map(|(_, _, amount)| amount.0).sum::<i64>(),
        held
    );
}

#[test]
fn walks_with_snapshots_and_boots_go_on_equal() {
    let (mut granted, mut closed, mut silent, mut operator) = (0, 0, 0, [0; 3]);
    let mut reserved = [0; 3];
    for seed in 1..=60 {
        let mut walk = Walk {
            site: Site::new(),
            random: Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
            sessions: Vec::new(),
            registers: [0; 5],
            questions: Vec::new(),
            lists: 1,
            operator: [0; 3],
            orders: 0,
        };
        walk.site.adopts = false;
        for i in 1..=300 {
            walk.step();
            if i % 50 == 0 {
                recompute(&walk.site);
                walk.reboot();
            }
        }
        recompute(&walk.site);
        walk.site.check();
        granted += walk.site.count(|e| matches!(e, Event::Granted(_)));
        closed += walk.site.count(|e| matches!(e, Event::Closed(_)));
        silent += walk.site.count(|e| matches!(e, Event::Silent(_)));
        operator
            .iter_mut()
            .zip(walk.operator)
            .for_each(|(sum, count)| *sum += count);
        reserved[0] += walk.site.count(|e| matches!(e, Event::Unreserved(_)));
        reserved[1] += walk
            .site
            .count(|e| matches!(e, Event::Refused(e) if e.reason == RefusalReason::Reserved));
        reserved[2] += walk
            .site
            .count(|e| matches!(e, Event::Ordered(e) if e.outcome == OrderOutcome::Busy));
        let budget = walk.site.gateway.config().limits.site_budget;
        assert!(walk.site.gateway.risk().exposure() <= budget, "seed {seed}");
    }
    assert!(
        granted > 1_000 && closed > 500 && silent > 50,
        "{granted} {closed} {silent}: the walks walk"
    );
    assert!(
        reserved.iter().all(|&count| count > 20),
        "{reserved:?}: outlets are reserved"
    );
    println!("adopted, rolled back, keys and scopes: {operator:?}");
    assert!(
        operator.iter().all(|&count| count > 20),
        "{operator:?}: the operators operate"
    );
}

#[test]
fn a_snapshot_of_nothing_is_nothing() {
    let gateway = Gateway::new(config());
    let mut made = Gateway::new(config());
    for event in gateway.snapshot() {
        made.apply(&NO_TIME, &event);
    }
    assert!(made == gateway);
}

#[test]
fn every_event_of_a_snapshot_is_small() {
    let mut site = Site::new();
    site.adopts = false;
    let most = ListEntry {
        account: u64::MAX,
        group: u64::MAX,
        credential_revision: u64::MAX,
        balance: Money(i64::MAX),
        not_after_s: u64::MAX,
        ..entry(1, Whitelist::Always)
    };
    let token = |n| token(n);
    let all = |most: &ListEntry| {
        (0..=255)
            .map(|n| ListEntry {
                token: token(n),
                ..most.clone()
            })
            .collect::<Vec<_>>()
    };
    site.put(&list(2, all(&most)));
    site.put(&list(3, all(&most)));
    site.put(&list(4, vec![most]));
    assert!(site.gateway.trust().previous().is_some() && site.gateway.trust().aside().is_some());
    let all: Vec<(u8, u64)> = (0..=255).map(|n| (n, 1)).collect();
    site.put(&revocations(1, &all));
    site.open("c1", 1);
    site.now.mono_ms = u64::MAX / 2;
    for n in 0..=ORDERS_REMEMBERED as u64 {
        site.put(&ordered(order(u64::MAX - n, OrderVerb::Report, "c1")));
    }
    // The journal's records have 3,584 bytes at most.
    for event in site.gateway.snapshot() {
        let bytes = match &event {
            Event::ListStaged(staged) => proto::codec::to_vec(staged).len(),
            Event::RevocationsAdopted(revoked) => proto::codec::to_vec(revoked).len(),
            Event::Kept(Kept::Activity(kept)) => proto::codec::to_vec(kept).len(),
            Event::TariffsAdopted(adopted) => proto::codec::to_vec(adopted).len(),
            Event::Kept(Kept::Orders(orders)) => {
                assert_eq!(orders.fates().len(), ORDERS_REMEMBERED);
                proto::codec::to_vec(orders).len()
            }
            Event::Kept(Kept::Session(session)) => proto::codec::to_vec(&**session).len(),
            _ => 0,
        };
        assert!(bytes <= 3_500, "{bytes} bytes: {event:?}");
    }
}
