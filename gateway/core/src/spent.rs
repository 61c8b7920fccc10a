//! What customers spent since a list was made. Each list that is kept has a count of its own, so that going back to an
//! older one, or taking one that lay aside, does not bring back what was spent meanwhile.

use alloc::{collections::BTreeMap, vec::Vec};

use proto::{id::AccountId, money::Money};

use crate::event::KeptListSlot;

type Sums = BTreeMap<AccountId, Money>;

/// The counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Spent {
    active: Sums,
    previous: Option<Sums>,
    aside: Option<Sums>,
}

impl Spent {
    /// Holds and charges of an account since the active list was made.
    pub(crate) fn of(&self, account: AccountId) -> Money {
        self.active.get(&account).copied().unwrap_or_default()
    }

    /// As well, since the list that lies aside was made.
    pub(crate) fn of_aside(&self, account: AccountId) -> Money {
        let sums = self.aside.as_ref();
        sums.and_then(|sums| sums.get(&account)).copied().unwrap_or_default()
    }

    /// More was spent, or, if negative, less than was held.
    pub(crate) fn add(&mut self, account: AccountId, amount: Money) {
        let kept = [Some(&mut self.active), self.previous.as_mut(), self.aside.as_mut()];
        for sums in kept.into_iter().flatten() {
            let sum = sums.entry(account).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// A new list is active. `fresh`: what is not yet in its balances.
    pub(crate) fn adopted(&mut self, fresh: Sums, has_previous: bool, has_aside: bool) {
        let before = core::mem::replace(&mut self.active, fresh);
        self.previous = has_previous.then_some(before);
        self.aside = self.aside.take().filter(|_| has_aside);
    }

    /// A new list is set aside. `fresh`: what is not yet in its balances.
    pub(crate) fn set_aside(&mut self, fresh: Sums) {
        self.aside = Some(fresh);
    }

    /// The list that was set aside is the active one now.
    pub(crate) fn adopted_aside(&mut self, has_previous: bool) {
        let aside = self.aside.take().unwrap_or_default();
        let before = core::mem::replace(&mut self.active, aside);
        self.previous = has_previous.then_some(before);
    }

    /// The list before is active again; the one that was is set aside.
    pub(crate) fn rolled_back(&mut self) {
        let previous = self.previous.take().unwrap_or_default();
        self.aside = Some(core::mem::replace(&mut self.active, previous));
    }

    /// Every sum, for a snapshot.
    pub(crate) fn rows(&self) -> Vec<(KeptListSlot, AccountId, Money)> {
        let all = [
            (KeptListSlot::Active, Some(&self.active)),
            (KeptListSlot::Previous, self.previous.as_ref()),
            (KeptListSlot::Aside, self.aside.as_ref()),
        ];
        let rows = all.into_iter().flat_map(|(slot, sums)| {
            let sums = sums.into_iter().flatten();
            sums.map(move |(account, amount)| (slot, *account, *amount))
        });
        rows.collect()
    }

    /// There is such a list, so it is counted for.
    pub(crate) fn keep_list(&mut self, slot: KeptListSlot) {
        match slot {
            KeptListSlot::Active => {}
            KeptListSlot::Previous => self.previous = Some(Sums::new()),
            KeptListSlot::Aside => self.aside = Some(Sums::new()),
        }
    }

    pub(crate) fn keep(&mut self, slot: KeptListSlot, account: AccountId, amount: Money) {
        let sums = match slot {
            KeptListSlot::Active => &mut self.active,
            KeptListSlot::Previous => self.previous.get_or_insert_default(),
            KeptListSlot::Aside => self.aside.get_or_insert_default(),
        };
        sums.insert(account, amount);
    }
}
