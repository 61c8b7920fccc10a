//! By what a request is judged: what is active, or what is tried in the rings that its device is in.

use alloc::borrow::Cow;

use proto::{
    artifact::{ListEntry, TariffTable},
    id::{AccountId, DeviceId, Hash, Kind, TokenHash},
    money::Money,
    policy::Class,
    tariff::Tariff,
};

use super::Staged;
use crate::{
    Gateway, List,
    config::{KindLimits, Limits},
    time::Instant,
    trust::{Age, Trust},
};

/// Which of the things that lie aside count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct InRings([bool; Staged::ALL.len()]);

impl InRings {
    /// None of them: what is active counts.
    pub(crate) const NONE: Self = Self([false; Staged::ALL.len()]);

    pub(crate) fn iter(self) -> impl Iterator<Item = Staged> {
        Staged::ALL.into_iter().filter(move |&what| self.has(what))
    }

    pub(crate) fn has(self, what: Staged) -> bool {
        self.0[usize::from(u8::from(what))]
    }

    pub(crate) fn without(mut self, what: Staged) -> Self {
        self.0[usize::from(u8::from(what))] = false;
        self
    }
}

/// What is looked at for one request.
pub(crate) struct Sight<'a> {
    trust: &'a Trust,
    pub(crate) list: &'a List,
    /// It is the one that lies aside.
    is_aside: bool,
    tariffs: Option<&'a TariffTable>,
    pub(crate) limits: Cow<'a, Limits>,
    pub(crate) policy_revision: u64,
    class: Class,
}

impl<'a> Sight<'a> {
    pub(crate) fn entry(&self, token: &TokenHash) -> Option<ListEntry> {
        self.list.get(token)
    }

    /// The price of a kind.
    pub(crate) fn tariff(&self, kind: Kind) -> Option<&'a Tariff> {
        self.new_tariff(kind).or_else(|| self.trust.tariff(kind))
    }

    /// [`Tariff::hash`] of it; zero: there is none.
    pub(crate) fn tariff_hash(&self, kind: Kind) -> Hash {
        let new = self.new_tariff(kind).map(Tariff::hash);
        new.unwrap_or_else(|| self.trust.tariff_hash(kind))
    }

    fn new_tariff(&self, kind: Kind) -> Option<&'a Tariff> {
        let mut entries = self.tariffs?.entries.iter();
        entries.find(|entry| entry.kind == kind).map(|entry| &entry.tariff)
    }

    /// The limits of the device's class; none for a class this version cannot serve.
    pub(crate) fn of_kind(&self) -> Option<&KindLimits> {
        self.limits.of(self.class)
    }

    pub(crate) fn list_age(&self, at: Instant) -> Age {
        self.list.age(at, self.limits.list_full_s, self.limits.list_half_s)
    }

    /// Revisions of list, revocations and tariffs.
    pub(crate) fn revisions(&self) -> (u64, u64, u64) {
        let (_, revocations, tariffs) = self.trust.revisions();
        let tariffs = self.tariffs.map_or(tariffs, |table| table.revision);
        (self.list.head().revision, revocations, tariffs)
    }
}

impl Gateway {
    /// In which rings a device is.
    pub(crate) fn rings_of(&self, device: &DeviceId) -> InRings {
        let mut rings = InRings::NONE;
        if let Some(known) = self.config.devices.get(device) {
            for (what, ring) in self.rings.iter() {
                rings.0[usize::from(u8::from(what))] = ring.has(device, known.kind);
            }
        }
        rings
    }

    /// By what a request of a device is judged, if these count.
    pub(crate) fn sight(&self, device: &DeviceId, rings: InRings) -> Sight<'_> {
        let aside = self.trust.aside.as_ref().filter(|_| rings.has(Staged::List));
        let tariffs = self.trust.tariffs_aside.as_ref();
        let (policy, configured) = (rings.has(Staged::Policy), rings.has(Staged::Limits));
        let new_policy = self.policies.aside.as_ref().filter(|_| policy);
        Sight {
            trust: &self.trust,
            list: aside.map_or(&self.trust.list, |aside| &aside.list),
            is_aside: aside.is_some(),
            tariffs: tariffs.filter(|_| rings.has(Staged::Tariffs)),
            limits: match policy || configured {
                true => Cow::Owned(self.limits_tried(policy, configured)),
                false => Cow::Borrowed(&self.config.limits),
            },
            policy_revision: new_policy.map_or_else(|| self.policies.revision(), |policy| policy.revision),
            class: self.class_of(device),
        }
    }

    /// The limits under what lies aside. What all devices share is the smaller of both: a ring does not spend what the
    /// others may not.
    fn limits_tried(&self, policy: bool, configured: bool) -> Limits {
        let mut limits = self.policies.limits_with(policy, configured);
        limits.site_budget = limits.site_budget.min(self.config.limits.site_budget);
        limits
    }

    /// Holds and charges of an account since the list that is looked at was made.
    pub(crate) fn spent_in(&self, sight: &Sight<'_>, account: AccountId) -> Money {
        match sight.is_aside {
            true => self.risk.spent.of_aside(account),
            false => self.risk.spent(account),
        }
    }
}
