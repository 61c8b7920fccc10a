//! The signed policy: looked at, adopted in one event, and put above the limits of the configuration.
//!
//! A policy that is genuine and looks wrong is set aside and the active one stays: a zeroed limit refuses as many people
//! as a truncated list does, and a limit with two zeros too many gives away what the budget is there to protect. It is
//! kept until an operator adopts it or a newer one is adopted; the policy before the active one is kept to go back to.

use alloc::vec::Vec;

use proto::policy::{Class, ClassLimits, FreeVend, Policy};
use proto::trust::ArtifactKind;

use crate::{
    Alarm, Effect, Gateway, Ignored,
    config::{KindLimits, Limits, UnsignedDisable},
    event::{Adopted, Event, LimitsAdopted, LimitsStaged, PolicyAdopted, PolicyRolledBack, PolicySetAside},
    trust::Stale,
};

/// A limit that falls below this many hundredths of the active one was not meant.
const SHRINK_PERCENT_MIN: u64 = 50;
/// Nor was one that grows to more than so many times the active one.
const GROWTH_MAX: u64 = 10;

/// The policy in force, and what the gateway falls back to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Policies {
    /// What the operator's file says, once it was adopted.
    pub(crate) configured: Limits,
    /// Grows with each of them that stands in the journal; 0: none does, and the file alone counts.
    pub(crate) configured_revision: u64,
    /// What the file says and is tried, or came back; with its revision.
    pub(crate) configured_aside: Option<(u64, Limits)>,
    pub(crate) active: Option<Policy>,
    /// The one before.
    pub(crate) previous: Option<Policy>,
    /// A genuine one that looks wrong, newer than both.
    pub(crate) aside: Option<Policy>,
}

/// A limit of a new policy that is another than the active one, or that looks wrong.
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
            ..Self::default()
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.active.as_ref().map_or(0, |policy| policy.revision)
    }

    /// Highest revision that was ever adopted: of two policies that an operator goes to and fro between, one has it.
    fn newest(&self) -> u64 {
        let previous = self.previous.as_ref().map_or(0, |policy| policy.revision);
        self.revision().max(previous)
    }

    fn activate(&mut self, policy: Policy) {
        let newer = |aside: &Policy| aside.revision > policy.revision;
        self.aside = self.aside.take().filter(newer);
        self.previous = self.active.replace(policy);
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
        under(&self.configured, policy)
    }

    /// The limits in force; with what is tried of the policy, or of the configuration.
    pub(crate) fn limits_with(&self, policy: bool, configured: bool) -> Limits {
        let tried = self.configured_aside.as_ref().filter(|_| configured);
        let base = tried.map_or(&self.configured, |(_, limits)| limits);
        let tried = self.aside.as_ref().filter(|_| policy);
        match tried.or(self.active.as_ref()) {
            Some(policy) => under(base, policy),
            None => base.clone(),
        }
    }
}

/// The limits of a configuration under a policy.
fn under(configured: &Limits, policy: &Policy) -> Limits {
    let mut limits = configured.clone();
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

/// Of which class, `None` for the site; its name and its value.
type Row = (Option<Class>, &'static str, u64);

/// The other limits, which may be what the operator likes.
fn beside(limits: &Limits) -> Vec<Row> {
    let mut rows = alloc::vec![
        (None, "confirmation_s", limits.confirmation_s),
        (None, "device_change_ms", limits.device_change_ms),
    ];
    for class in Class::SERVED {
        let own = limits.of(class).expect("the served classes have limits");
        rows.extend([
            (Some(class), "outage_count_lower", u64::from(own.outage_count_lower)),
            (Some(class), "emergency_units", own.emergency_units.0),
            (Some(class), "invalidation_units", own.invalidation_units.0),
        ]);
    }
    rows
}

/// The rows that are not the same in both.
fn differing(before: Vec<Row>, after: Vec<Row>) -> Vec<Suspect> {
    let pairs = before.into_iter().zip(after);
    let changed = pairs.filter(|((_, _, active), (_, _, found))| active != found);
    let row = |((class, limit, active), (_, _, found))| Suspect {
        class,
        limit,
        active,
        found,
    };
    changed.map(row).collect()
}

/// The limits whose loss refuses people, or whose excess costs money.
fn watched(limits: &Limits) -> Vec<Row> {
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

    /// What is set aside; `None`: nothing is.
    #[must_use]
    pub const fn policy_aside(&self) -> Option<&Policy> {
        self.policies.aside.as_ref()
    }

    /// The limits that would change if that which is set aside were adopted.
    #[must_use]
    pub fn policy_changes(&self) -> Vec<Suspect> {
        let Some(aside) = self.policy_aside() else {
            return Vec::new();
        };
        let site = |policy: Option<&Policy>| {
            let disable = |policy: &Policy| u64::from(policy.unsigned_disable.code());
            [
                (None, "unsigned_disable", policy.map_or(0, disable)),
                (None, "master_group", policy.map_or(0, |policy| policy.master_group)),
                (
                    None,
                    "free_vend",
                    policy.map_or(0, |policy| policy.free_vend.len() as u64),
                ),
            ]
        };
        let all = |limits: &Limits, policy| [watched(limits), beside(limits), site(policy).to_vec()].concat();
        let before = all(&self.config.limits, self.policy());
        let after = all(&self.policies.limits(aside), Some(aside));
        differing(before, after)
    }

    /// The limits that would change if the configuration that lies aside were adopted.
    #[must_use]
    pub fn limits_changes(&self) -> Vec<Suspect> {
        let all = |limits: &Limits| [watched(limits), beside(limits)].concat();
        let after = all(&self.policies.limits_with(false, true));
        differing(all(&self.config.limits), after)
    }

    pub(crate) fn decide_policy(&self, policy: &Policy) -> Result<(Event, Option<Effect>), Ignored> {
        let (kind, revision) = (ArtifactKind::Policy, policy.revision);
        if revision <= self.policies.newest() {
            return Err(Ignored::Stale(Stale {
                kind,
                found: revision,
                active: self.policies.newest(),
            }));
        }
        if self.policies.aside.as_ref() == Some(policy) {
            return Err(Ignored::Aside { kind, revision });
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
            None => (Event::PolicyAdopted(PolicyAdopted { policy: policy.clone() }), None),
            Some(((class, limit, active), (_, _, found))) => {
                let suspect = Suspect {
                    class,
                    limit,
                    active,
                    found,
                };
                let alarm = Alarm::PolicySetAside { revision, suspect };
                let policy = policy.clone();
                (
                    Event::PolicySetAside(PolicySetAside { policy }),
                    Some(Effect::Alarm(alarm)),
                )
            }
        })
    }

    /// An operator takes the policy that was set aside. `revision` 0: whichever it is.
    pub(crate) fn decide_adopt_policy(&self, revision: u64) -> Result<Vec<Event>, Ignored> {
        let kind = ArtifactKind::Policy;
        let aside = self.policies.aside.as_ref().map(|aside| aside.revision);
        match aside.filter(|aside| revision == 0 || revision == *aside) {
            Some(revision) => Ok(alloc::vec![Event::Adopted(Adopted { kind, revision })]),
            None => Err(Ignored::NothingAside(kind)),
        }
    }

    /// An operator goes back to the policy before the active one.
    pub(crate) fn decide_roll_back_policy(&self) -> Result<Vec<Event>, Ignored> {
        let previous = self.policies.previous.as_ref();
        let previous = previous.ok_or(Ignored::NothingBefore(ArtifactKind::Policy))?;
        Ok(alloc::vec![Event::PolicyRolledBack(PolicyRolledBack {
            revision: previous.revision,
            from: self.policies.revision(),
        })])
    }

    pub(crate) fn apply_policy(&mut self, policy: &Policy) {
        self.config.limits = self.policies.limits(policy);
        self.policies.activate(policy.clone());
    }

    /// What the configuration says is tried.
    pub(crate) fn apply_limits_staged(&mut self, event: &LimitsStaged) {
        self.policies.configured_aside = Some((event.revision, event.limits.clone()));
    }

    /// What the configuration says is in force, under the policy.
    pub(crate) fn apply_limits_adopted(&mut self, event: &LimitsAdopted) {
        let policies = &mut self.policies;
        policies.configured = event.limits.clone();
        policies.configured_revision = event.revision;
        let newer = |aside: &(u64, Limits)| aside.0 > event.revision;
        policies.configured_aside = policies.configured_aside.take().filter(newer);
        self.config.limits = policies.limits_with(false, false);
    }

    /// The configuration was read again. Devices and whatever is not adopted by rings are taken over; limits are, if no
    /// journal says which are in force ([`crate::Input::Configured`] does the rest). The state is then that of a gateway
    /// that was started with this configuration.
    pub fn reconfigure(&mut self, config: crate::Config) {
        if self.policies.configured_revision == 0 && !config.ring.is_on {
            self.policies.configured = config.limits.clone();
        }
        self.config = config;
        self.config.limits = self.policies.limits_with(false, false);
    }

    pub(crate) fn apply_policy_adopted_aside(&mut self) {
        if let Some(policy) = self.policies.aside.take() {
            self.apply_policy(&policy);
        }
    }

    /// The one that was left is kept as the one before, so that going back can be taken back, too.
    pub(crate) fn apply_policy_rolled_back(&mut self) {
        if let Some(previous) = self.policies.previous.take() {
            self.apply_policy(&previous);
        }
    }
}
