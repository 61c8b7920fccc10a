//! The invariants of the classifier, each with its proof or the place of it:
//!
//! I1 no unsigned input shrinks trust: `unsigned_words_shrink_nothing`; the simulation's auditor for every run.
//! I2 a wrong clock neither revives nor kills: `time::*`, `authorize::a_list_ages_and_a_cached_accept_stands_in`.
//! I3 the modes are a fold over the evidence: `evidence_alone_gives_the_modes`; the auditor computes them a second time.
//! I4 at most five reconnects a minute and one a second: the daemon's `cloud::reconnect`.
//! I5 a record leaves the outbox by a receipt only: `link::only_a_receipt_retires_records`.
//! I6 revoked is sticky and only grows: `revoked_stays_revoked_whatever_the_cloud_says`.
//! I7 exposure stays within its limits: `authorize::the_site_budget_holds_to_the_fen`; the auditor at every commit.

use crate::site::*;
use gateway_core::{Capability, Config, Effect, Event, Input, config::Limits, health::Health};
use proto::{
    artifact::Whitelist,
    link::{Ask, Verdict},
    money::Money,
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

/// A cloud that says anything to anything, and a site that lives with it.
struct Walk {
    site: Site,
    random: Random,
    questions: Vec<Ask>,
    echoes: Vec<u64>,
    /// Whether anything that it says carries a newer credential.
    signs: bool,
}

impl Walk {
    fn new(seed: u64, signs: bool) -> Self {
        let config = Config {
            limits: Limits {
                jitter_seed: seed,
                ..Limits::default()
            },
            ..config()
        };
        let mut site = Site::with(config);
        let policies = [Whitelist::AllowedOffline, Whitelist::Never, Whitelist::Always];
        let entries = (1..=60).map(|n| entry(n, policies[usize::from(n % 3)]));
        site.put(&list(2, entries.collect()));
        Self {
            site,
            random: Random(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed)),
            questions: Vec::new(),
            echoes: Vec::new(),
            signs,
        }
    }

    fn put(&mut self, input: &Input) {
        let decision = self.site.put(input);
        self.questions.extend(questions(&decision));
        self.echoes
            .extend(decision.effects.iter().filter_map(|effect| match effect {
                Effect::Echo(echo) => Some(echo.nonce),
                _ => None,
            }));
    }

    fn step(&mut self) {
        match self.random.below(100) {
            0..30 => {
                let n = 1 + self.random.below(70) as u8;
                let device = ["c1", "c2", "c3", "d1"][self.random.below(4) as usize];
                let (session, decision) = self.site.ask(device, n);
                self.questions.extend(questions(&decision));
                if self.random.below(2) == 0 {
                    self.site.say(device, gateway_core::Said::Stop(stop(session, 0, 0, 0)));
                }
            }
            30..65 => self.cloud_says(),
            65..70 => {
                if let Some(nonce) = self.echoes.pop() {
                    self.put(&Input::Echo { nonce });
                }
            }
            70..98 => self.pass(),
            _ => {
                let slept_ms = self.random.below(100) * 1_000;
                self.site.reboot(slept_ms);
                self.questions.clear();
            }
        }
    }

    fn cloud_says(&mut self) {
        let Some(question) = self.questions.pop() else { return };
        let code = [401, 403, 404, 429, 500, 503][self.random.below(6) as usize];
        let reply = Reply {
            verdict: [Verdict::Accept, Verdict::Accept, Verdict::Deny, Verdict::Other][self.random.below(4) as usize],
            credential_revision: if self.signs {
                self.random.below(8)
            } else {
                self.random.below(6)
            },
            money_max: Money([0, 10_000][self.random.below(2) as usize]),
        };
        let input = match self.random.below(3) {
            0 => Input::Trouble {
                ask: question.ask,
                code,
            },
            _ => answered(&question, reply),
        };
        self.put(&input);
        if self.random.below(10) == 0 {
            self.put(&Input::Trouble { ask: 0, code });
        }
    }

    fn pass(&mut self) {
        let ms = [50, 600, 4_000, 40_000][self.random.below(4) as usize];
        let end_ms = self.site.now.mono_ms + ms;
        while let Some(due_ms) = self.site.gateway.next_deadline().filter(|&due_ms| due_ms <= end_ms) {
            self.site.pass(due_ms.saturating_sub(self.site.now.mono_ms));
            self.put(&Input::Tick);
        }
        self.site.pass(end_ms - self.site.now.mono_ms);
    }
}

#[test]
fn evidence_alone_gives_the_modes() {
    let mut changes = 0;
    for seed in 1..=40 {
        let mut walk = Walk::new(seed, true);
        let mut log: Vec<(gateway_core::Instant, Event)> = Vec::new();
        for _ in 0..500 {
            let from = walk.site.journal.len();
            walk.step();
            let timeline = walk.site.gateway.timeline();
            let rows = walk.site.journal[from..].iter();
            // Everything else that happened is left out: no session, no list, no change of mode is read.
            let evidence = rows.filter(|(_, event)| matches!(event, Event::Evidence(_) | Event::Booted(_)));
            log.extend(evidence.map(|(now, event)| (timeline.at(now), event.clone())));
        }
        let limits = &walk.site.gateway.config().limits;
        let replayed = Health::replay(log.iter().map(|(at, event)| (*at, event)), limits);
        let lived = walk.site.gateway.health();
        for of in Capability::ALL {
            assert_eq!(replayed.of(of), lived.of(of), "{} of seed {seed}", of.word());
        }
        assert_eq!(replayed.breaker, lived.breaker, "seed {seed}");
        changes += walk.site.count(|event| matches!(event, Event::ModeChanged(_)));
        walk.site.check();
    }
    assert!(changes > 200, "{changes}: the walks walk");
}

#[test]
fn unsigned_words_shrink_nothing() {
    let mut served = 0;
    for seed in 1..=40 {
        let mut walk = Walk::new(seed, false);
        for _ in 0..300 {
            walk.step();
        }
        let trust = walk.site.gateway.trust();
        assert_eq!(trust.tokens(), 60, "seed {seed}");
        let denied = walk.site.count(|event| matches!(event, Event::Denied(_)));
        // Of a stranger the cloud may show a credential; of the listed ones it never showed a newer one.
        let listed = walk.site.journal.iter().filter_map(|(_, event)| match event {
            Event::Denied(e) => Some(e.token.0[0]),
            _ => None,
        });
        assert!(
            listed.clone().all(|n| n > 60),
            "seed {seed}: {denied}, {:?}",
            listed.collect::<Vec<_>>()
        );
        for n in 1..=60 {
            assert!(
                !trust.is_revoked(&token(n)) && !trust.is_denied(&token(n)),
                "seed {seed}, token {n}"
            );
        }
        // Nobody whom the signed list vouches for was refused on the cloud's word.
        for (_, event) in &walk.site.journal {
            if let Event::Refused(e) = event {
                let vouched = trust
                    .entry(&e.request.token)
                    .is_some_and(|e| e.whitelist != Whitelist::Never);
                assert!(
                    !vouched || e.reason != proto::message::RefusalReason::Denied,
                    "seed {seed}: {e:?}"
                );
            }
        }
        served += walk.site.count(|event| matches!(event, Event::Granted(_)));
    }
    assert!(served > 500, "{served}: the walks walk");
}

#[test]
fn revoked_stays_revoked_whatever_the_cloud_says() {
    for seed in 1..=20 {
        let mut walk = Walk::new(seed, true);
        let revoked: Vec<(u8, u64)> = (1..=60).step_by(7).map(|n| (n, 9)).collect();
        walk.site.put(&revocations(1, &revoked));
        let from = walk.site.journal.len();
        for _ in 0..300 {
            walk.step();
            let trust = walk.site.gateway.trust();
            assert!(revoked.iter().all(|(n, _)| trust.is_revoked(&token(*n))), "seed {seed}");
        }
        for (_, event) in &walk.site.journal[from..] {
            if let Event::Granted(e) = event {
                let n = e.request.token.0[0];
                assert!(
                    revoked.iter().all(|(revoked, _)| *revoked != n),
                    "seed {seed}: {n} is granted"
                );
            }
        }
        // An older set does not take it back.
        assert!(walk.site.put(&revocations(1, &[])).ignored.is_some());
    }
}
