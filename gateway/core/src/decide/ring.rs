//! What is adopted by rings: how it begins, what is seen of it, when it goes on and when it goes back.

use alloc::vec::Vec;

use proto::{id::Kind, trust::ArtifactKind};

use super::Draft;
use crate::{
    Alarm, Gateway, Ignored,
    authorize::{Outcome, Word},
    config::Limits,
    event::{
        Adopted, Event, LimitsAdopted, LimitsStaged, PolicySetAside, Quarantined, RingBegan, RingEnded, RingHeld,
        RingSeen, RingWidened, TariffsStaged,
    },
    ring::{Ring, Staged, Verdict, Why, sight::InRings},
    session::Request,
    trust::{Findings, Stale},
};

/// What an operator wants of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RingOrder {
    /// The whole site takes it now.
    Adopt,
    /// It stays where it is.
    Hold,
    /// It goes on.
    Release,
    /// It goes back.
    RollBack,
}

/// Whether an outcome is worse than another for whoever asked: refused, or less than half of the units or of the money.
fn is_worse(new: &Outcome, active: &Outcome) -> bool {
    match (new, active) {
        (Outcome::Refuse { .. }, Outcome::Grant { .. }) => true,
        (Outcome::Grant { terms: new, .. }, Outcome::Grant { terms: active, .. }) => {
            new.units_max.0 < active.units_max.0.div_ceil(2) || new.money_max.0 < active.money_max.0.div_euclid(2)
        }
        (Outcome::Grant { .. } | Outcome::Ask { .. }, _) | (Outcome::Refuse { .. }, _) => false,
    }
}

impl Draft<'_> {
    /// The outcome for a request. In a ring it is judged with and without what is tried: nobody fares worse for it, but
    /// it is remembered.
    pub(super) fn judge(&mut self, request: &Request, word: Word) -> Outcome {
        let (gateway, now) = (self.gateway, self.now);
        let rings = gateway.rings_of(&request.device);
        self.rings = rings;
        let outcome = gateway.evaluate_in(now, request, word, rings);
        if rings == InRings::NONE {
            return outcome;
        }
        let active = gateway.evaluate_in(now, request, word, InRings::NONE);
        // Whoever of them wants the cloud asked gets it asked; the answer is judged by both again.
        for asks in [&outcome, &active] {
            if let Outcome::Ask { amount } = asks {
                return Outcome::Ask { amount: *amount };
            }
        }
        for what in rings.iter() {
            let others = rings.without(what);
            // Nearly always it is the only one, and what is without it was judged above.
            let is_worse = if others == InRings::NONE {
                is_worse(&outcome, &active)
            } else {
                is_worse(&outcome, &gateway.evaluate_in(now, request, word, others))
            };
            self.seen(what, request, is_worse);
        }
        if is_worse(&outcome, &active) {
            self.rings = InRings::NONE;
            return active;
        }
        outcome
    }

    fn seen(&mut self, what: Staged, request: &Request, is_worse: bool) {
        let Some(ring) = self.gateway.rings.get(what) else {
            return;
        };
        let token = request.token;
        let seen = RingSeen { what, token, is_worse };
        let mut ring = ring.clone();
        ring.see(&seen);
        self.after.push(Event::RingSeen(seen));
        if let Some(verdict) = self.gateway.against(&ring, false) {
            let end = self.ring_back(what, ring.revision, verdict);
            self.after.push(end);
        }
    }

    fn ring_back(&mut self, what: Staged, revision: u64, verdict: Verdict) -> Event {
        self.alarm(Alarm::RingBack {
            what,
            revision,
            verdict,
        });
        Event::RingEnded(RingEnded {
            what,
            revision,
            verdict,
        })
    }

    /// A ring has seen enough, or waited long enough.
    pub(super) fn ring_due(&mut self) -> bool {
        let gateway = self.gateway;
        let Some((what, ring)) = gateway.rings.due(self.at, &gateway.config.ring) else {
            return false;
        };
        if let Some(verdict) = gateway.against(ring, true) {
            let end = self.ring_back(what, ring.revision, verdict);
            self.event(end);
            return true;
        }
        let event = match ring.reach.next() {
            Some(reach) => Some(Event::RingWidened(RingWidened { what, reach })),
            None => gateway.ring_adopted(what, ring),
        };
        self.out.events.extend(event);
        true
    }

    /// An operator has a say.
    pub(super) fn ring_order(&mut self, what: Staged, order: RingOrder) -> Result<(), Ignored> {
        let gateway = self.gateway;
        let ring = gateway.rings.get(what);
        if (what, order, ring) == (Staged::Limits, RingOrder::Adopt, None) {
            // What came back may be taken all the same.
            let aside = gateway
                .policies
                .configured_aside
                .as_ref()
                .ok_or(Ignored::NoRing(what))?;
            let (revision, limits) = (aside.0, aside.1.clone());
            self.event(Event::LimitsAdopted(LimitsAdopted { revision, limits }));
            return Ok(());
        }
        let ring = ring.ok_or(Ignored::NoRing(what))?;
        let event = match order {
            RingOrder::Adopt => gateway.ring_adopted(what, ring).ok_or(Ignored::NoRing(what))?,
            RingOrder::Hold | RingOrder::Release => {
                let is_held = order == RingOrder::Hold;
                Event::RingHeld(RingHeld { what, is_held })
            }
            RingOrder::RollBack => Event::RingEnded(RingEnded {
                what,
                revision: ring.revision,
                verdict: gateway.verdict(ring, Why::Operator),
            }),
        };
        self.event(event);
        Ok(())
    }

    /// Of what is in a ring the ring ends; otherwise the list, or the policy, before is active again.
    pub(super) fn roll_back(&mut self, kind: ArtifactKind) -> Result<(), Ignored> {
        let gateway = self.gateway;
        match Staged::of(kind).filter(|what| gateway.rings.get(*what).is_some()) {
            Some(what) => self.ring_order(what, RingOrder::RollBack),
            None if kind == ArtifactKind::Policy => self.adopt(gateway.decide_roll_back_policy()),
            None => self.adopt(gateway.trust.decide_roll_back(kind)),
        }
    }

    /// The file's limits, at the start and whenever it is read again.
    pub(super) fn configured(&mut self, limits: &Limits) -> Result<(), Ignored> {
        let gateway = self.gateway;
        let (policies, is_on) = (&gateway.policies, gateway.config.ring.is_on);
        let revision = policies.configured_revision;
        let adopted = |revision, limits: &Limits| {
            let limits = limits.clone();
            Event::LimitsAdopted(LimitsAdopted { revision, limits })
        };
        if is_on && revision == 0 {
            // From now on the file alone does not say what is in force.
            self.event(adopted(1, &policies.configured));
        }
        if *limits == policies.configured {
            if let Some(ring) = gateway.rings.get(Staged::Limits) {
                let verdict = gateway.verdict(ring, Why::Operator);
                let (what, revision) = (Staged::Limits, ring.revision);
                self.event(Event::RingEnded(RingEnded {
                    what,
                    revision,
                    verdict,
                }));
            }
            return Ok(());
        }
        if policies
            .configured_aside
            .as_ref()
            .is_some_and(|aside| aside.1 == *limits)
            && is_on
        {
            // It is tried already, or came back: reading the file again does not make it better.
            return Ok(());
        }
        let next = revision
            .max(gateway.aside_revision(Staged::Limits))
            .max(u64::from(is_on))
            + 1;
        let Some((device, kind)) = gateway.first_device(&[]).filter(|_| is_on) else {
            self.event(adopted(next, limits));
            return Ok(());
        };
        let limits = limits.clone();
        self.event(Event::LimitsStaged(LimitsStaged { revision: next, limits }));
        self.began(Staged::Limits, next, (device, kind));
        Ok(())
    }

    fn began(&mut self, what: Staged, revision: u64, (device, kind): (proto::id::DeviceId, Kind)) {
        self.event(Event::RingBegan(RingBegan {
            what,
            revision,
            device,
            kind,
        }));
    }

    /// What would be adopted is tried first, where rings are on and there is something active that it can be compared
    /// with. An older one does not take the place of what is on its way.
    pub(super) fn staged(&mut self, event: Event) -> Result<(), Ignored> {
        let gateway = self.gateway;
        let (list, _, tariffs) = gateway.trust.revisions();
        let (kind, revision, active) = match &event {
            Event::ListAdopted(e) => (ArtifactKind::List, e.revision, list),
            Event::TariffsAdopted(e) => (ArtifactKind::Tariffs, e.revision, tariffs),
            Event::PolicyAdopted(e) => (ArtifactKind::Policy, e.policy.revision, gateway.policy_revision()),
            _ => {
                self.event(event);
                return Ok(());
            }
        };
        let what = Staged::of(kind).expect("these three are adopted by rings");
        if let Some(ring) = gateway.rings.get(what).filter(|ring| ring.revision > revision) {
            let active = ring.revision;
            return Err(Ignored::Stale(Stale {
                kind,
                found: revision,
                active,
            }));
        }
        let kinds: Vec<Kind> = match &event {
            Event::TariffsAdopted(e) => e.entries.iter().map(|entry| entry.kind).collect(),
            _ => Vec::new(),
        };
        let first = gateway.first_device(&kinds);
        let Some(first) = first.filter(|_| gateway.config.ring.is_on && active > 0) else {
            self.event(event);
            return Ok(());
        };
        let aside = |base, issued_s, digest| {
            Event::Quarantined(Quarantined {
                kind,
                revision,
                base,
                issued_s,
                digest,
                findings: Findings::default(),
            })
        };
        match event {
            Event::ListAdopted(e) => self.event(aside(e.base, e.issued_s, e.digest)),
            Event::TariffsAdopted(e) => {
                let entries = e.entries;
                self.event(Event::TariffsStaged(TariffsStaged { revision, entries }));
                self.event(aside(0, 0, proto::id::Hash::ZERO));
            }
            Event::PolicyAdopted(e) => self.event(Event::PolicySetAside(PolicySetAside { policy: e.policy })),
            _ => unreachable!("looked at above"),
        }
        self.began(what, revision, first);
        Ok(())
    }
}

impl Gateway {
    /// The whole site takes it.
    fn ring_adopted(&self, what: Staged, ring: &Ring) -> Option<Event> {
        let revision = ring.revision;
        match what.artifact() {
            Some(kind) => Some(Event::Adopted(Adopted { kind, revision })),
            None => {
                let limits = self.policies.configured_aside.as_ref()?.1.clone();
                Some(Event::LimitsAdopted(LimitsAdopted { revision, limits }))
            }
        }
    }
}
