//! Velocity, gifts, policy, disk, limits of revoked sessions, and how long a verdict takes.

use std::collections::{BTreeMap, BTreeSet};

use gateway_core::{config::UnsignedDisable, event::Limited};
use proto::{
    id::{DeviceId, Kind, SessionId, TokenHash},
    link::Gift,
    policy::{self, Class, Policy},
    trust::ArtifactKind,
};

use super::{Auditor, Waiting};
use crate::{
    marks::{Mark, Marks},
    world::{DAY_MS, HOUR_MS},
};

/// Nobody waits longer for a verdict, in ms.
const VERDICT_MS_MAX: u64 = 2_000;
/// A device must be told of a revocation within so long, in ms.
const TOLD_MS_MAX: u64 = 1_000;

/// What a token drew on emergency credit.
#[derive(Clone, Copy, Debug)]
struct Drawn {
    since_ms: u64,
    units: u64,
    /// Number of the boot in which it began: over a boot nobody knows how much of the day has passed.
    boots: u32,
}

#[derive(Default)]
pub(super) struct Law {
    pub(super) is_disk_scarce: bool,
    /// Every token that ever stood in a list.
    pub(super) listed: BTreeSet<TokenHash>,
    starts: BTreeMap<TokenHash, Vec<(u64, DeviceId)>>,
    drawn: BTreeMap<TokenHash, Drawn>,
    gifts: BTreeSet<SessionId>,
    /// Sessions whose device must be told, and since when.
    must_end: BTreeMap<SessionId, u64>,
    told: BTreeMap<SessionId, u64>,
    boots: u32,
    /// The highest budget of an earlier policy.
    pub(super) budget_max: i64,
    /// It cannot tell anybody anything while it is down.
    booted_ms: u64,
}

impl Law {
    pub(super) fn booted(&mut self, t_ms: u64) {
        self.booted_ms = t_ms;
        self.starts.clear();
        self.boots += 1;
    }

    pub(super) fn ended(&mut self, session: &SessionId, token: TokenHash, unused: u64, asked_ms: u64) {
        self.must_end.remove(session);
        if self.gifts.remove(session)
            && let Some(drawn) = self.drawn.get_mut(&token).filter(|drawn| drawn.since_ms <= asked_ms)
        {
            drawn.units = drawn.units.saturating_sub(unused);
        }
    }
}

impl Auditor {
    pub(super) fn class_of(&self, device: &DeviceId) -> Class {
        self.classes[device]
    }

    /// A verdict is out.
    pub(super) fn in_time(&self, t_ms: u64, waited: Option<Waiting>) {
        let waited_ms = waited.map_or(0, |waited| t_ms - waited.since_ms);
        assert!(waited_ms <= VERDICT_MS_MAX, "a verdict after {waited_ms} ms");
        if let Some((session, since_ms)) = self.law.must_end.first_key_value() {
            let untold_ms = t_ms.saturating_sub(*since_ms.max(&self.law.booted_ms));
            assert!(
                untold_ms <= TOLD_MS_MAX,
                "{session} is not told of a revocation for {untold_ms} ms"
            );
        }
    }

    pub(super) fn policy_adopted(&mut self, policy: &Policy, marks: &mut Marks) {
        marks.hit(Mark::PolicyAdopted);
        assert!(
            policy.site_budget.0 * 2 >= self.limits.site_budget.0,
            "the budget falls from {} to {}",
            self.limits.site_budget,
            policy.site_budget
        );
        self.was_published(ArtifactKind::Policy, policy.revision);
        let known = self.policy.as_ref().map_or(0, |policy| policy.revision);
        assert!(policy.revision > known, "policy {} after {known}", policy.revision);
        let mut limits = self.configured.clone();
        for column in &policy.classes {
            let own = match column.class {
                Class::Charger => &mut limits.charger,
                Class::Washer => &mut limits.washer,
                Class::Dispenser => &mut limits.dispenser,
                Class::Car => &mut limits.car,
                Class::Unknown => continue,
            };
            own.units_max = column.units_max;
            own.money_max = column.money_max;
            own.duration_max_s = column.duration_max_s;
            (own.outage_count_lower, own.outage_count_max) = (column.outage_count_lower, column.outage_count_upper);
            own.outage_money_max = column.outage_money_max;
            own.emergency_units = column.emergency_units;
            own.invalidation_units = column.invalidation_units;
        }
        limits.site_budget = policy.site_budget;
        (limits.list_full_s, limits.list_half_s) = (policy.list_full_s, policy.list_half_s);
        limits.confirmation_s = policy.confirmation_s;
        limits.attempts_a_minute_max = policy.attempts_a_minute_max;
        limits.starts_an_hour_max = policy.starts_an_hour_max;
        limits.device_change_ms = policy.device_change_ms;
        limits.unsigned_disable = match policy.unsigned_disable {
            policy::UnsignedDisable::Alert => UnsignedDisable::Alert,
            policy::UnsignedDisable::SuspendAfter => UnsignedDisable::SuspendAfter {
                s: policy.unsigned_disable_s,
            },
            policy::UnsignedDisable::Immediate => UnsignedDisable::Immediate,
        };
        self.law.budget_max = self.law.budget_max.max(self.limits.site_budget.0);
        self.limits = limits;
        self.policy = Some(policy.clone());
    }

    /// Whether a start now, there, is one too many or too soon.
    pub(super) fn is_fast(&self, t_ms: u64, token: &TokenHash, device: &DeviceId) -> bool {
        let starts = self.law.starts.get(token).map_or(&[][..], Vec::as_slice);
        let elsewhere =
            |(at_ms, other): &&(u64, DeviceId)| at_ms + self.limits.device_change_ms > t_ms && other != device;
        let lately = starts.iter().filter(|(at_ms, _)| at_ms + HOUR_MS > t_ms).count();
        starts.iter().any(|start| elsewhere(&start)) || lately >= self.limits.starts_an_hour_max as usize
    }

    pub(super) fn velocity_of_grant(&mut self, t_ms: u64, token: TokenHash, device: DeviceId, alone: bool) {
        assert!(
            alone || !self.is_fast(t_ms, &token, &device),
            "{token} begins too often"
        );
        self.law.starts.entry(token).or_default().push((t_ms, device));
    }

    fn is_stranger(&self, token: &TokenHash) -> bool {
        !self.law.listed.contains(token)
            && !self.confirmed.contains_key(token)
            && !self.denied.contains_key(token)
            && !self.revoked.contains_key(token)
    }

    /// A grant to somebody whom nobody knows.
    pub(super) fn gift_of_grant(
        &mut self,
        t_ms: u64,
        token: TokenHash,
        class: Class,
        gift: Gift,
        units: u64,
        marks: &mut Marks,
    ) {
        assert!(
            self.is_stranger(&token),
            "{token} was seen before, and is served as a stranger"
        );
        match gift {
            Gift::Emergency => {
                marks.hit(Mark::GrantOnEmergencyCredit);
                let boots = self.law.boots;
                let fresh = Drawn {
                    since_ms: t_ms,
                    units: 0,
                    boots,
                };
                let drawn = self.law.drawn.entry(token).or_insert(fresh);
                if t_ms - drawn.since_ms >= DAY_MS {
                    *drawn = fresh;
                }
                drawn.units += units;
                let day = self.limits.of(class).expect("a class that is served").emergency_units.0;
                assert!(
                    drawn.units <= day || drawn.boots != boots,
                    "{} of {day} a day",
                    drawn.units
                );
            }
            Gift::FreeVend => {
                marks.hit(Mark::GrantByFreeVend);
                let windows = self.policy.iter().flat_map(|policy| &policy.free_vend);
                let open = windows.filter(|window| window.class == class && units <= window.units_max.0);
                assert!(open.count() > 0, "no free-vend window for {class:?}");
            }
            Gift::None | Gift::Other => panic!("a stranger is served for {gift:?}"),
        }
    }

    pub(super) fn note_gift(&mut self, session: SessionId, gift: Gift) {
        if gift == Gift::Emergency {
            self.law.gifts.insert(session);
        }
    }

    /// Whether a stranger's day is used up, as far as it is known, and nothing is free.
    pub(super) fn gets_no_gift(&self, t_ms: u64, token: &TokenHash, class: Class) -> bool {
        if !self.is_stranger(token) {
            return true;
        }
        let day = self.limits.of(class).map_or(0, |limits| limits.emergency_units.0);
        let drawn = self.law.drawn.get(token);
        let used_up = drawn.is_some_and(|drawn| {
            drawn.boots != self.law.boots || (t_ms - drawn.since_ms < DAY_MS && drawn.units >= day)
        });
        day == 0 || used_up
    }

    /// Something made tokens invalid: their open sessions must end, but for washers.
    pub(super) fn must_end(&mut self, t_ms: u64) {
        for id in &self.open {
            let hold = &self.holds[id];
            let revoked = self.is_revoked(&hold.token) || self.is_account_revoked(hold.account);
            let invalid = revoked || self.is_denied(&hold.token);
            if invalid && hold.kind != Kind::Washer && !self.law.told.contains_key(id) {
                self.law.must_end.entry(*id).or_insert(t_ms);
            }
        }
    }

    pub(super) fn limited(&mut self, t_ms: u64, e: &Limited, marks: &mut Marks) {
        let hold = &self.holds[&e.session];
        let more = self
            .limits
            .of(hold.class)
            .expect("a class that is served")
            .invalidation_units
            .0;
        assert!(hold.kind != Kind::Washer, "a wash cycle finishes");
        let read = self.read.get(&e.session).copied().unwrap_or(0);
        assert!(e.units.0 <= hold.units_max, "a limit above the grant");
        match self.law.told.insert(e.session, e.units.0) {
            None => {
                marks.hit(Mark::LimitedAfterRevocation);
                assert!(
                    e.units.0 <= read + more,
                    "{} more after a revocation at {read}",
                    e.units.0
                );
                let since_ms = self.law.must_end.remove(&e.session);
                assert!(
                    since_ms.is_some_and(|since_ms| since_ms <= t_ms),
                    "a sound session is limited"
                );
            }
            Some(before) => {
                marks.hit(Mark::LimitedAgain);
                assert_eq!(before, e.units.0, "the limit is what it was");
            }
        }
    }

    /// The cloud is asked in the background, at or above the lower count and nowhere else.
    pub(super) fn asked_again(&mut self, session: &SessionId, marks: &mut Marks) {
        marks.hit(Mark::AskedAgainAtLowerCount);
        let hold = &self.holds[session];
        let before = self
            .tallies
            .get(&(hold.token, hold.class))
            .map_or(0, |tally| tally.0 - 1);
        let lower = self
            .limits
            .of(hold.class)
            .expect("a class that is served")
            .outage_count_lower;
        assert!(hold.counted && before >= lower, "asked again after {before} of {lower}");
    }
}
