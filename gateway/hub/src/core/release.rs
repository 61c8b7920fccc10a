//! The operator frees leases that nobody will spend any more: those of a gateway that was put back from a backup, or
//! that is gone for good (semantics, section 5).
//!
//! What is free of a released lease is the account's again, by an entry of the hub's own. What open sessions hold stays
//! set aside until they are closed, by the gateway's record or by the operator; whatever that frees follows. So the
//! invariant of leases stands throughout: a lease without a row has nothing in the book but holds.

use proto::{
    book::{Account, Phase},
    id::GatewayId,
    money::Money,
};

use super::{
    Alarm, Decision, Effect, Event, Hub, Now,
    conflict::{About, Act, Adjustment, AdjustmentLine, Class},
    lease::LeaseKey,
};

/// What the operator freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Released {
    /// Whose leases.
    pub gateway: GatewayId,
    /// How many.
    pub leases: usize,
    /// What of them is the accounts' again at once.
    pub amount: Money,
}

/// Why nothing was freed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReleaseRefusal {
    /// It never said hello, so it has no leases either.
    #[error("gateway {0} is unknown here: it never said hello")]
    Unknown(GatewayId),
    /// It could spend what would be released.
    #[error(
        "gateway {0} is connected, or was heard through a broker within the last 15 min, so it is not gone; stop it first"
    )]
    Connected(GatewayId),
}

impl Hub {
    /// The operator has looked: what a gateway could spend in epochs that are over is the accounts' again. An epoch is
    /// over when the gateway has spoken in a later one: a fence alone does not keep it from spending. `gone`: the epoch
    /// in which it spoke last is over as well.
    pub(super) fn decide_release(&self, gateway: GatewayId, gone: bool) -> Decision {
        let mut decision = Decision::default();
        let Some(row) = self.gateways.get(&gateway) else {
            let refusal = ReleaseRefusal::Unknown(gateway);
            decision.effects.push(Effect::ReleaseRefused(refusal));
            return decision;
        };
        let own = || self.leases.iter().filter(|(_, lease)| lease.gateway == gateway);
        let mut epoch = row.counter_epoch;
        if gone {
            // Said twice, it asks no second new epoch of a gateway that has not been heard since.
            let is_lived_in =
                row.counter_epoch >= row.epoch || own().any(|(_, lease)| lease.journal_epoch >= row.epoch);
            epoch = row.epoch.saturating_add(u32::from(is_lived_in));
            if is_lived_in {
                decision.events.push(Event::GatewayFenced {
                    gateway,
                    epoch_from: row.counter_epoch,
                    epoch,
                    counter: row.counter,
                });
            }
        }
        let (mut leases, mut amount) = (0, Money::ZERO);
        for (key, lease) in own().filter(|(_, lease)| lease.journal_epoch < epoch) {
            leases += 1;
            amount = amount.saturating_add(match lease.is_taken {
                true => self.lease_rest(*key),
                false => lease.amount,
            });
            let (account, epoch) = *key;
            decision.events.push(Event::LeaseReleased { account, epoch });
        }
        decision.effects.push(Effect::Released(Released {
            gateway,
            leases,
            amount,
        }));
        decision
    }

    pub(super) fn apply_lease_released(&mut self, key: LeaseKey) {
        self.leases.remove(&key);
        self.list_stale = true;
    }

    /// What the book has of a lease, less what open sessions hold.
    fn lease_rest(&self, (account, epoch): LeaseKey) -> Money {
        let sums = self.book.balance(&Account::Lease(account, epoch));
        sums.credits_posted
            .saturating_sub(sums.debits_posted)
            .saturating_sub(sums.debits_pending)
    }

    /// Leases that are in the book only: used up, or released.
    pub(super) fn leases_over(&self) -> impl Iterator<Item = LeaseKey> + '_ {
        let keys = self.book.balances().filter_map(|(account, _)| lease_of(account));
        keys.filter(|key| !self.leases.contains_key(key))
    }

    /// The entry that leaves a released lease with nothing but its holds; `None`: so it is already, or the lease is its
    /// gateway's. A gateway that speaks after all may charge a session that the operator had closed: the account pays.
    pub(super) fn lease_settlement(&self, now: Now, key: LeaseKey) -> Option<(Adjustment, Effect)> {
        if self.leases.contains_key(&key) {
            return None;
        }
        let rest = self.lease_rest(key);
        let (lease, customer) = (Account::Lease(key.0, key.1), Account::Customer(key.0));
        let (debit, credit, amount, reason) = match rest.cmp(&Money::ZERO) {
            std::cmp::Ordering::Equal => return None,
            std::cmp::Ordering::Greater => (
                lease,
                customer,
                rest,
                "released by the operator: what is left of a lease",
            ),
            std::cmp::Ordering::Less => (
                customer,
                lease,
                Money::ZERO.saturating_sub(rest),
                "a session of a released lease came back",
            ),
        };
        let about = About::account(key.0);
        let number = self.conflicts.number() + 1;
        let line = AdjustmentLine {
            phase: Phase::Direct,
            debit,
            credit,
            amount,
        };
        let class = Class::Operator;
        let alarm = Alarm::Adjusted {
            number,
            class,
            about,
            total: amount,
        };
        let entry = Adjustment {
            number,
            class,
            act: Act::Move,
            about,
            debit,
            credit,
            total: amount,
            lines: vec![line],
            reason: reason.to_owned(),
            wall_s: now.wall_s,
        };
        Some((entry, Effect::Alarm(alarm)))
    }
}

/// The lease of an account of the book, if it is one.
pub(super) const fn lease_of(account: &Account) -> Option<LeaseKey> {
    match *account {
        Account::Lease(account, epoch) => Some((account, epoch)),
        Account::Customer(_)
        | Account::Clearing
        | Account::Revenue(_)
        | Account::Prepaid
        | Account::Loss(_)
        | Account::Dispute => None,
    }
}
