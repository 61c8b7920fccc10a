//! Money at risk, and how often whom.

use alloc::collections::BTreeMap;

use proto::{
    id::{AccountId, TokenHash},
    money::Money,
    policy::Class,
};
use serde::{Deserialize, Serialize};

use crate::{
    charges::{Charge, Charges},
    spent::Spent,
    time::Instant,
};

/// Length of the window in which attempts are counted, in ms.
const ATTEMPTS_WINDOW_MS: u64 = 60_000;
/// Most tokens whose attempts are counted; beyond it the oldest windows are forgotten.
const ATTEMPTS_TOKENS_MAX: usize = 10_000;

/// What one token drew unsecured in this outage, per class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Sessions.
    pub count: u32,
    /// Money: holds while open, then charges.
    pub money: Money,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Attempts {
    since: Instant,
    count: u32,
}

/// All counters.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Risk {
    pub(crate) outage: BTreeMap<(TokenHash, Class), Tally>,
    pub(crate) charges: Charges,
    pub(crate) spent: Spent,
    attempts: BTreeMap<TokenHash, Attempts>,
    held_unsecured: Money,
    charged_unsecured: Money,
}

impl Risk {
    /// Money at risk now: unsecured holds, and unsecured charges without a receipt.
    #[must_use]
    pub fn exposure(&self) -> Money {
        self.held_unsecured.saturating_add(self.charged_unsecured)
    }

    /// What a token drew unsecured in this outage.
    #[must_use]
    pub fn tally(&self, token: &TokenHash, class: Class) -> Tally {
        self.outage.get(&(*token, class)).copied().unwrap_or_default()
    }

    /// What a customer spent and holds since the list was made.
    #[must_use]
    pub fn spent(&self, account: AccountId) -> Money {
        self.spent.of(account)
    }

    pub(crate) fn attempts(&self, token: &TokenHash, at: Instant) -> u32 {
        self.attempts
            .get(token)
            .filter(|a| at.since_ms(a.since) < ATTEMPTS_WINDOW_MS)
            .map_or(0, |a| a.count)
    }

    pub(crate) fn attempt(&mut self, token: TokenHash, at: Instant) {
        if self.attempts.len() >= ATTEMPTS_TOKENS_MAX && !self.attempts.contains_key(&token) {
            self.attempts.retain(|_, a| at.since_ms(a.since) < ATTEMPTS_WINDOW_MS);
            if self.attempts.len() >= ATTEMPTS_TOKENS_MAX {
                self.attempts.clear();
            }
        }
        let attempts = self.attempts.entry(token).or_default();
        if at.since_ms(attempts.since) >= ATTEMPTS_WINDOW_MS {
            *attempts = Attempts { since: at, count: 0 };
        }
        attempts.count += 1;
    }

    pub(crate) fn forget_attempts(&mut self) {
        self.attempts.clear();
    }

    pub(crate) fn hold(&mut self, account: AccountId, amount: Money, unsecured: bool) {
        self.spent.add(account, amount);
        if unsecured {
            add(&mut self.held_unsecured, amount);
        }
    }

    pub(crate) fn count(&mut self, token: TokenHash, class: Class, amount: Money) {
        let tally = self.outage.entry((token, class)).or_default();
        tally.count += 1;
        add(&mut tally.money, amount);
    }

    /// Takes back what [`Self::count`] did in this outage.
    pub(crate) fn uncount(&mut self, token: TokenHash, class: Class, amount: Money) {
        if let Some(tally) = self.outage.get_mut(&(token, class)) {
            tally.count = tally.count.saturating_sub(1);
            tally.money = tally.money.saturating_sub(amount);
        }
    }

    /// The hold became a charge, or nothing.
    pub(crate) fn close(&mut self, hold: Money, charge: Charge, sequence: u64) {
        self.spent.add(charge.account, charge.amount.saturating_sub(hold));
        if charge.unsecured {
            self.held_unsecured = self.held_unsecured.saturating_sub(hold);
        }
        if charge.amount.0 > 0 {
            self.put_charge(sequence, charge);
        }
    }

    pub(crate) fn put_charge(&mut self, sequence: u64, charge: Charge) {
        if charge.unsecured {
            add(&mut self.charged_unsecured, charge.amount);
        }
        self.charges.insert(sequence, charge);
    }

    /// The cloud accepted an open session after the fact: its hold is no longer at risk.
    pub(crate) fn secure(&mut self, hold: Money) {
        self.held_unsecured = self.held_unsecured.saturating_sub(hold);
    }

    /// The hub has committed every record up to here.
    pub(crate) fn receipted(&mut self, upto: u64) {
        let charged_unsecured = &mut self.charged_unsecured;
        self.charges.retire(upto, |charge| {
            if charge.unsecured {
                *charged_unsecured = charged_unsecured.saturating_sub(charge.amount);
            }
        });
    }

    /// What is not in the balances of a list that is made now: what was receipted before is.
    pub(crate) fn not_in_balances(
        &self,
        open_holds: impl Iterator<Item = (AccountId, Money)>,
    ) -> BTreeMap<AccountId, Money> {
        let mut sums = BTreeMap::new();
        let charged = self.charges.values().map(|charge| (charge.account, charge.amount));
        for (account, amount) in open_holds.chain(charged) {
            add(sums.entry(account).or_default(), amount);
        }
        sums
    }

    /// The outage is over.
    pub(crate) fn outage_over(&mut self) {
        self.outage.clear();
    }

    pub(crate) fn keep_hold(&mut self, amount: Money) {
        add(&mut self.held_unsecured, amount);
    }
}

fn add(sum: &mut Money, amount: Money) {
    *sum = sum.saturating_add(amount);
}
