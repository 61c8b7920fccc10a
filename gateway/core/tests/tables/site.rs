//! A site for table tests: a gateway, its journal in memory, and few words to say what happens and what came of it.

use std::collections::BTreeMap;

use gateway_core::{
    Config, Decision, Effect, Event, Gateway, Input, Mode, Now, Said, Told,
    config::{DeviceConfig, Limits},
};
use proto::{
    artifact::{self, ListEntry, Reason, Revocations, Revoked, TariffOf, TariffTable, Whitelist},
    id::{DeviceId, Kind, SessionId, TokenHash},
    link::{Answer, Ask, Order, OrderVerb, Verdict},
    message::{
        ClockQuality, Closing, Fault, Hello, Meter, OutletState, Stamp, StartProof, Started, Status, Stop, StopReason,
        Verb,
    },
    money::{Money, Units},
    tariff::{Dimension, Tariff},
    trust::Issuer,
};

/// 2026-01-15 08:00 UTC.
pub(crate) const WALL_S: u64 = 1_768_464_000;
pub(crate) const HOUR_MS: u64 = 3_600_000;
pub(crate) const DAY_MS: u64 = 24 * HOUR_MS;
pub(crate) const STAMP: Stamp = Stamp::relative(0);

pub(crate) fn id(name: &str) -> DeviceId {
    DeviceId::new(name).unwrap()
}

pub(crate) fn token(n: u8) -> TokenHash {
    TokenHash([n; 16])
}

/// A valid token with 100.00 on its account; the account has the token's number.
pub(crate) fn entry(n: u8, whitelist: Whitelist) -> ListEntry {
    ListEntry {
        token: token(n),
        account: u64::from(n),
        group: 0,
        valid: true,
        whitelist,
        credential_revision: 5,
        balance: Money(10_000),
        not_after_s: 0,
        lease_only: false,
    }
}

pub(crate) fn list(revision: u64, entries: Vec<ListEntry>) -> Input {
    let issuer = Issuer::from_seed(&[7; 32]);
    let (envelope, chunks) = artifact::sign_list(&issuer, revision, WALL_S, entries).unwrap();
    Input::List(artifact::verify_list(&envelope, &chunks, &[issuer.key()]).unwrap())
}

/// A signed list of changes to the list `base`. Both are sorted by token.
pub(crate) fn list_of_changes(base: (u64, &[ListEntry]), revision: u64, after: &[ListEntry]) -> Input {
    let issuer = Issuer::from_seed(&[7; 32]);
    let (base, before) = base;
    let (envelope, chunks) = artifact::sign_list_changes(&issuer, (base, before), (revision, after), WALL_S).unwrap();
    Input::List(artifact::verify_list(&envelope, &chunks, &[issuer.key()]).unwrap())
}

pub(crate) fn revocations(revision: u64, revoked: &[(u8, u64)]) -> Input {
    let entries = revoked.iter().map(|&(n, credential_revision)| Revoked {
        token: token(n),
        credential_revision,
        reason: Reason::Lost,
    });
    Input::Revocations(Revocations {
        revision,
        entries: entries.collect(),
        scopes: Vec::new(),
    })
}

/// 0.60 a kWh, 4.00 a cycle, 0.20 a litre.
pub(crate) fn tariffs(revision: u64) -> Input {
    tariffs_of(
        revision,
        &[
            (Kind::Charger, 60_000),
            (Kind::Washer, 400_000),
            (Kind::Dispenser, 20_000),
        ],
    )
}

pub(crate) fn tariffs_of(revision: u64, prices: &[(Kind, i64)]) -> Input {
    let entries = prices.iter().map(|&(kind, price)| TariffOf {
        kind,
        tariff: Tariff::flat(1, &[(dimension(kind), price)]),
    });
    Input::Tariffs(TariffTable {
        revision,
        entries: entries.collect(),
    })
}

pub(crate) fn dimension(kind: Kind) -> Dimension {
    match kind {
        Kind::Charger => Dimension::Energy,
        Kind::Washer => Dimension::Cycle,
        Kind::Dispenser => Dimension::Volume,
        Kind::Unknown => Dimension::Other,
    }
}

/// What the hub answers, before the question is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) verdict: Verdict,
    pub(crate) credential_revision: u64,
    pub(crate) money_max: Money,
}

pub(crate) const ACCEPT: Reply = Reply {
    verdict: Verdict::Accept,
    credential_revision: 5,
    money_max: Money(1_000_000),
};
/// A denial that nothing backs: the credential is the one that we know.
pub(crate) const DENY: Reply = Reply {
    verdict: Verdict::Deny,
    credential_revision: 5,
    money_max: Money(0),
};
/// A denial of somebody whom the hub does not know.
pub(crate) const STRANGE: Reply = Reply {
    verdict: Verdict::Deny,
    credential_revision: 0,
    money_max: Money(0),
};
/// A denial with a newer credential.
pub(crate) const DENY_NEWER: Reply = Reply {
    verdict: Verdict::Deny,
    credential_revision: 6,
    money_max: Money(0),
};

#[derive(Clone)]
pub(crate) struct Site {
    pub(crate) gateway: Gateway,
    pub(crate) now: Now,
    pub(crate) journal: Vec<(Now, Event)>,
    counters: BTreeMap<DeviceId, u64>,
    sessions: u32,
    pub(crate) boots: u32,
    /// An operator takes whatever the gate sets aside: for tests of other things.
    pub(crate) adopts: bool,
    configured: Config,
}

pub(crate) fn config() -> Config {
    let devices = [
        ("c1", Kind::Charger, 2),
        ("c2", Kind::Charger, 1),
        ("c3", Kind::Charger, 1),
        ("w1", Kind::Washer, 1),
        ("w2", Kind::Washer, 1),
        ("d1", Kind::Dispenser, 1),
        ("k1", Kind::Charger, 1),
        ("x1", Kind::Unknown, 1),
    ];
    let devices = devices.map(|(name, kind, outlets)| {
        let car = name == "k1";
        (id(name), DeviceConfig { kind, outlets, car })
    });
    Config {
        devices: devices.into(),
        // No echoes and hellos of the gateway's own accord: who wants them in a test says so.
        limits: Limits {
            echo_ms: 0,
            hello_ms: 0,
            ..Limits::default()
        },
        offset_min: 480,
        gateway: Some(id("gw-1")),
        instruments: gateway_core::Instruments::default(),
        ring: gateway_core::config::RingLimits::default(),
    }
}

impl Site {
    /// A gateway that has just booted for the first time and has nothing.
    pub(crate) fn empty(config: Config) -> Self {
        let mut site = Self {
            configured: config.clone(),
            gateway: Gateway::new(config),
            now: Now {
                mono_ms: 0,
                wall_s: WALL_S,
                quality: ClockQuality::Synchronised,
            },
            journal: Vec::new(),
            counters: BTreeMap::new(),
            sessions: 0,
            boots: 0,
            adopts: false,
        };
        site.boot();
        site
    }

    /// Prices, a list of the tokens 1 to 4, one for each whitelist policy in OCPI's order, and an operator who takes
    /// whatever the gate sets aside.
    pub(crate) fn new() -> Self {
        Self::with(config())
    }

    pub(crate) fn with(config: Config) -> Self {
        let mut site = Self::empty(config);
        site.adopts = true;
        site.put(&tariffs(1));
        let policies = [
            Whitelist::Always,
            Whitelist::Allowed,
            Whitelist::AllowedOffline,
            Whitelist::Never,
        ];
        site.put(&list(
            1,
            (1..=4).map(|n| entry(n, policies[usize::from(n) - 1])).collect(),
        ));
        site
    }

    pub(crate) fn boot(&mut self) {
        self.boots += 1;
        let boot = self.boots;
        self.put(&Input::Boot { boot, epoch: 1 });
    }

    /// The power was away for so long; the wall clock knows it.
    pub(crate) fn reboot(&mut self, slept_ms: u64) {
        self.now.mono_ms = 0;
        self.now.wall_s += slept_ms / 1000;
        self.boot();
    }

    /// Decides, journals, applies. Deciding twice is the same.
    pub(crate) fn put(&mut self, input: &Input) -> Decision {
        let decision = self.gateway.decide(&self.now, input);
        assert_eq!(
            decision,
            self.gateway.decide(&self.now, input),
            "deciding changes nothing"
        );
        for event in &decision.events {
            self.gateway.apply(&self.now, event);
            self.journal.push((self.now, event.clone()));
        }
        assert!(self.gateway.book().is_balanced(), "debits are credits after {input:?}");
        let set_aside = decision.events.iter().find_map(|event| match event {
            Event::Quarantined(event) => Some(event.kind),
            _ => None,
        });
        if let Some(kind) = set_aside.filter(|_| self.adopts) {
            self.put(&Input::Adopt { kind, revision: 0 });
        }
        decision
    }

    /// Time passes, and nobody looks at deadlines.
    pub(crate) fn pass(&mut self, ms: u64) {
        self.now.mono_ms += ms;
        self.now.wall_s += ms / 1000;
    }

    /// Time passes; what falls due happens on time. Returns what came of it.
    pub(crate) fn wait(&mut self, ms: u64) -> String {
        let end_ms = self.now.mono_ms + ms;
        let mut out = Vec::new();
        while let Some(due_ms) = self.gateway.next_deadline().filter(|&due_ms| due_ms <= end_ms) {
            self.pass(due_ms.saturating_sub(self.now.mono_ms));
            let decision = self.put(&Input::Tick);
            assert_eq!(decision.ignored, None, "a deadline that passed has something due");
            out.push(words(&decision));
        }
        self.pass(end_ms - self.now.mono_ms);
        out.retain(|line| !line.is_empty());
        out.join("; ")
    }

    /// Counter of the last message of a device.
    pub(crate) fn counter(&self, device: &str) -> u64 {
        self.counters[&id(device)]
    }

    pub(crate) fn say(&mut self, device: &str, said: Said) -> Decision {
        let counter = self.counters.entry(id(device)).or_default();
        *counter += 1;
        let input = Input::Device {
            device: id(device),
            counter: *counter,
            said,
        };
        self.put(&input)
    }

    pub(crate) fn mint(&mut self, device: &str) -> SessionId {
        self.sessions += 1;
        SessionId::mint(&id(device), 1, self.sessions)
    }

    /// A new request at outlet 0; the register stands at zero.
    pub(crate) fn ask(&mut self, device: &str, n: u8) -> (SessionId, Decision) {
        let session = self.mint(device);
        let decision = self.say(device, authorize(session, 0, n, 0));
        (session, decision)
    }

    /// A request that is granted, or else the test is wrong.
    pub(crate) fn open(&mut self, device: &str, n: u8) -> SessionId {
        let (session, decision) = self.ask(device, n);
        assert!(words(&decision).starts_with("grant"), "{}", words(&decision));
        session
    }

    /// The hub answers the question in `decision`. Of a pair of canaries, the known-bad one is denied, as it should be, and
    /// the reply is about the known-good one.
    pub(crate) fn answer(&mut self, decision: &Decision, reply: Reply) -> Decision {
        self.answer_bad(decision, STRANGE);
        self.put(&answer_to(decision, reply))
    }

    /// If `decision` asks about a pair of canaries: the known-bad one gets this answer. Returns what came of it.
    pub(crate) fn answer_bad(&mut self, decision: &Decision, bad: Reply) -> Option<Decision> {
        let pair = questions(decision);
        let [_, second] = pair.as_slice() else { return None };
        Some(self.put(&answered(second, bad)))
    }

    /// The cloud is silent until the authorize capability is LOCAL: two unanswered questions of strangers.
    pub(crate) fn go_local(&mut self) {
        for n in [201, 202] {
            self.ask("c3", n);
            self.wait(1_200);
        }
        assert_eq!(self.gateway.health().authorize.mode, Mode::Local);
    }

    pub(crate) fn count(&self, is: fn(&Event) -> bool) -> usize {
        self.journal.iter().filter(|(_, event)| is(event)).count()
    }

    /// What the gateway made of a session: `kind amount units` of its closing.
    pub(crate) fn closing(&self, session: SessionId) -> String {
        let session = self.gateway.sessions().get(&session).unwrap();
        format!(
            "{:?} {} {}",
            session.closing.unwrap(),
            session.amount.0,
            session.units.0
        )
        .to_lowercase()
    }

    /// What must hold whatever happened: the journal alone, and a snapshot, lead to this state.
    pub(crate) fn check(&self) {
        let mut replayed = Gateway::new(self.configured.clone());
        for (now, event) in &self.journal {
            replayed.apply(now, event);
        }
        assert!(replayed == self.gateway, "replaying the journal leads to another state");
    }
}

/// Whom the cloud is asked about; of a pair of canaries the known-good one comes first.
pub(crate) fn questions(decision: &Decision) -> Vec<Ask> {
    let questions = decision.effects.iter().filter_map(|effect| match effect {
        Effect::Ask(question) => Some(question.clone()),
        Effect::Send { .. }
        | Effect::RaiseCounter { .. }
        | Effect::Alarm(_)
        | Effect::Echo(_)
        | Effect::Hello
        | Effect::OrderDone(_) => None,
    });
    questions.collect()
}

pub(crate) fn answer_to(decision: &Decision, reply: Reply) -> Input {
    let questions = questions(decision);
    let question = questions.first();
    answered(
        question.unwrap_or_else(|| panic!("nobody asked: {}", words(decision))),
        reply,
    )
}

pub(crate) fn answered(question: &Ask, reply: Reply) -> Input {
    Input::Answer(Answer {
        ask: question.ask,
        session: question.session,
        token: question.token,
        verdict: reply.verdict,
        credential_revision: reply.credential_revision,
        account: u64::from(question.token.0[0]),
        money_max: reply.money_max,
        lease: proto::artifact::Lease::default(),
    })
}

pub(crate) fn authorize(session: SessionId, outlet: u8, n: u8, register: u64) -> Said {
    wish(session, outlet, n, register, 0)
}

pub(crate) fn wish(session: SessionId, outlet: u8, n: u8, register: u64, units_wished: u64) -> Said {
    Said::Authorize {
        session,
        outlet,
        token: token(n),
        units_wished: Units(units_wished),
        register: Units(register),
        presented: gateway_core::Presented::Token,
    }
}

pub(crate) fn hello(kind: Kind, outlets: u8, boot: u32) -> Said {
    Said::Hello(Hello {
        version_min: 1,
        version_max: 1,
        kind,
        outlets,
        boot,
        down_counter: 77,
        firmware: heapless::String::new(),
        at: STAMP,
    })
}

pub(crate) fn started(session: SessionId, register_start: u64) -> Said {
    Said::Started(Started {
        session,
        outlet: 0,
        register_start: Units(register_start),
        proof: StartProof::RelaySense,
        at: STAMP,
    })
}

pub(crate) fn meter(session: SessionId, register_start: u64, register: u64, elapsed_s: u32) -> Said {
    Said::Meter(Meter {
        session,
        outlet: 0,
        register_start: Units(register_start),
        register: Units(register),
        power_w: 0,
        elapsed_s,
        idle_s: 0,
        at: STAMP,
    })
}

/// A stop after `elapsed_s`; the display showed more than any bill.
pub(crate) fn stop(session: SessionId, register_start: u64, register_end: u64, elapsed_s: u32) -> Stop {
    Stop {
        session,
        outlet: 0,
        reason: StopReason::User,
        started: register_end > register_start,
        register_start: Units(register_start),
        register_end: Units(register_end),
        elapsed_s,
        idle_s: 0,
        shown: Money(1_000_000),
        at: STAMP,
    }
}

pub(crate) fn status(outlet: u8, state: OutletState, fault: Fault) -> Said {
    Said::Status(Status {
        outlet,
        state,
        fault,
        register: Units::ZERO,
        at: STAMP,
    })
}

/// An order about outlet 0 of a device, which names nothing else.
pub(crate) fn order(id: u64, verb: OrderVerb, device: &str) -> Order {
    Order {
        id,
        not_after_s: 0,
        verb,
        device: Some(self::id(device)),
        outlet: 0,
        session: SessionId::ZERO,
        token: None,
        until_s: 0,
        value: 0,
        whose: TokenHash::ZERO,
    }
}

pub(crate) fn ordered(order: Order) -> Input {
    Input::CloudOrder(Box::new(order))
}

/// What came of a decision, in few words. A pair of canaries is one probe; that a mode changed is not said: the tests of
/// the modes look at the modes.
pub(crate) fn words(decision: &Decision) -> String {
    let rule = decision.events.iter().find_map(|event| match event {
        Event::Granted(granted) => Some(granted.rule),
        _ => None,
    });
    let told = |told: &Told| match told {
        Told::Clock(clock) => format!("clock {}", clock.boot),
        Told::Grant(grant) => {
            let rule = rule.map_or("again".to_owned(), |rule| format!("{rule:?}").to_lowercase());
            format!("grant {rule} {} {}", grant.money_max.0, grant.units_max.0)
        }
        Told::Refusal(refusal) => format!("refuse {} {}", refusal.reason.word(), refusal.retry_after_s),
        Told::Receipt(receipt) => {
            let closing = match receipt.closing {
                Closing::Captured => "captured",
                Closing::Voided => "voided",
                Closing::Unknown => "unknown",
                Closing::Other => "other",
            };
            format!("receipt {closing} {} {}", receipt.amount.0, receipt.units.0)
        }
        Told::Command(command) if command.verb == Verb::Limit => format!("limit {} {}", command.id, command.units.0),
        Told::Command(command) => format!("command {} {:?}", command.id, command.verb).to_lowercase(),
    };
    let effects = decision.effects.iter().map(|effect| match effect {
        Effect::Send { message, .. } => told(message),
        Effect::RaiseCounter { last, .. } => format!("raise {last}"),
        Effect::Ask(question) if question.session == SessionId::ZERO => "probe".to_owned(),
        Effect::Ask(_) => "ask".to_owned(),
        Effect::Echo(_) => "echo".to_owned(),
        Effect::Hello => "hello".to_owned(),
        Effect::OrderDone(done) => format!("order {} {}", done.id, done.outcome.word()),
        Effect::Alarm(gateway_core::Alarm::Mode { .. }) => String::new(),
        Effect::Alarm(alarm) => format!("alarm: {alarm}"),
    });
    let ignored = decision.ignored.map(|ignored| format!("ignored: {ignored}"));
    let mut words: Vec<_> = effects.chain(ignored).filter(|word| !word.is_empty()).collect();
    words.dedup();
    words.join(", ")
}
