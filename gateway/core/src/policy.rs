//! The signed policy: looked at, adopted in one event, and put above the limits of the configuration.
//!
//! A policy that is genuine and looks wrong is set aside and the active one stays: a zeroed limit refuses as many people
//! as a truncated list does, and a limit with two zeros too many gives away what the budget is there to protect.

use alloc::vec::Vec;

use proto::policy::{Class, ClassLimits, FreeVend, Policy};
use proto::trust::ArtifactKind;

use crate::{
    Alarm, Effect, Gateway, Ignored,
    config::{KindLimits, Limits, UnsignedDisable},
    event::{Event, PolicyAdopted},
    trust::Stale,
};

/// A limit that falls below this many hundredths of the active one was not meant.
const SHRINK_PERCENT_MIN: u64 = 50;
/// Nor was one that grows to more than so many times the active one.
const GROWTH_MAX: u64 = 10;

/// The policy in force, and what the gateway falls back to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    /// What the operator's file says.
    pub(crate) configured: Limits,
    pub(crate) active: Option<Policy>,
}

/// Which limit of a new policy looks wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    /// Of which class; `None`: of the site.
    pub class: Option<Class>,
    /// Which.
    pub limit: &'static str,
    /// The active value.
    pub active: u64,
    /// The new one.
    pub found: u64,
}

impl core::fmt::Display for Suspect {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let class = self.class.map_or("site", Class::word);
        let Self {
            limit, active, found, ..
        } = self;
        write!(f, "{limit} of {class} is {found} instead of {active}")
    }
}

impl Policies {
    pub(crate) fn new(configured: Limits) -> Self {
        Self {
            configured,
            active: None,
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.active.as_ref().map_or(0, |policy| policy.revision)
    }

    /// The free-vend window of a class that is open now; none without a clock that is synchronised.
    pub(crate) fn free_vend(&self, class: Class, wall_s: Option<u64>) -> Option<&FreeVend> {
        let wall_s = wall_s?;
        let windows = self.active.iter().flat_map(|policy| &policy.free_vend);
        windows
            .filter(|window| window.class == class)
            .find(|window| (window.from_s..window.until_s).contains(&wall_s))
    }

    pub(crate) fn master_group(&self) -> u64 {
        self.active.as_ref().map_or(0, |policy| policy.master_group)
    }

    /// The limits under a policy.
    fn limits(&self, policy: &Policy) -> Limits {
        let mut limits = self.configured.clone();
        for column in &policy.classes {
            if let Some(own) = limits.of_mut(column.class) {
                put(own, column);
            }
        }
        limits.site_budget = policy.site_budget;
        limits.list_full_s = policy.list_full_s;
        limits.list_half_s = policy.list_half_s;
        limits.confirmation_s = policy.confirmation_s;
        limits.attempts_a_minute_max = policy.attempts_a_minute_max;
        limits.starts_an_hour_max = policy.starts_an_hour_max;
        limits.device_change_ms = policy.device_change_ms;
        limits.unsigned_disable = match policy.unsigned_disable {
            proto::policy::UnsignedDisable::Alert => UnsignedDisable::Alert,
            proto::policy::UnsignedDisable::SuspendAfter => UnsignedDisable::SuspendAfter {
                s: policy.unsigned_disable_s,
            },
            proto::policy::UnsignedDisable::Immediate => UnsignedDisable::Immediate,
        };
        limits
    }
}

fn put(own: &mut KindLimits, column: &ClassLimits) {
    own.units_max = column.units_max;
    own.money_max = column.money_max;
    own.duration_max_s = column.duration_max_s;
    own.outage_count_lower = column.outage_count_lower;
    own.outage_count_max = column.outage_count_upper;
    own.outage_money_max = column.outage_money_max;
    own.emergency_units = column.emergency_units;
    own.invalidation_units = column.invalidation_units;
}

/// The limits whose loss refuses people, or whose excess costs money.
fn watched(limits: &Limits) -> Vec<(Option<Class>, &'static str, u64)> {
    let money = |amount: proto::money::Money| amount.0.max(0) as u64;
    let mut rows = alloc::vec![
        (None, "site_budget", money(limits.site_budget)),
        (None, "list_full_s", limits.list_full_s),
        (None, "list_half_s", limits.list_half_s),
        (None, "attempts_a_minute_max", u64::from(limits.attempts_a_minute_max)),
        (None, "starts_an_hour_max", u64::from(limits.starts_an_hour_max)),
    ];
    for class in Class::SERVED {
        let own = limits.of(class).expect("the served classes have limits");
        rows.extend([
            (Some(class), "units_max", own.units_max.0),
            (Some(class), "money_max", money(own.money_max)),
            (Some(class), "duration_max_s", u64::from(own.duration_max_s)),
            (Some(class), "outage_count_upper", u64::from(own.outage_count_max)),
            (Some(class), "outage_money_max", money(own.outage_money_max)),
        ]);
    }
    rows
}

impl Gateway {
    /// The policy in force; `None`: the configuration's limits apply.
    #[must_use]
    pub const fn policy(&self) -> Option<&Policy> {
        self.policies.active.as_ref()
    }

    /// Revision of the policy in force; 0: none.
    #[must_use]
    pub fn policy_revision(&self) -> u64 {
        self.policies.revision()
    }

    pub(crate) fn decide_policy(&self, policy: &Policy) -> Result<Result<Event, Effect>, Ignored> {
        if policy.revision <= self.policies.revision() {
            return Err(Ignored::Stale(Stale {
                kind: ArtifactKind::Policy,
                found: policy.revision,
                active: self.policies.revision(),
            }));
        }
        let found = watched(&self.policies.limits(policy));
        let wrong = watched(&self.config.limits)
            .into_iter()
            .zip(found)
            .find(|((_, _, active), (_, _, found))| {
                let shrinks = u128::from(*found) * 100 < u128::from(*active) * u128::from(SHRINK_PERCENT_MIN);
                let grows = *active > 0 && *found > active.saturating_mul(GROWTH_MAX);
                shrinks || grows
            });
        Ok(match wrong {
            None => Ok(Event::PolicyAdopted(PolicyAdopted { policy: policy.clone() })),
            Some(((class, limit, active), (_, _, found))) => Err(Effect::Alarm(Alarm::PolicySetAside {
                revision: policy.revision,
                suspect: Suspect {
                    class,
                    limit,
                    active,
                    found,
                },
            })),
        })
    }

    pub(crate) fn apply_policy(&mut self, policy: &Policy) {
        self.config.limits = self.policies.limits(policy);
        self.policies.active = Some(policy.clone());
    }
}
