//! What the books should show, as a pure function of the facts. Nothing here knows in which order they came.

use proto::{
    book::{Account, Loss},
    id::{AccountId, Kind, SessionId},
    money::Money,
    tariff::{Bill, Dimension, Tariff},
};

use super::{Class, Conflicts, Facts, Standing};
use crate::core::Hub;

/// What a correction should amount to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) class: Class,
    pub(super) debit: Account,
    pub(super) credit: Account,
    pub(super) amount: Money,
    pub(super) reason: String,
}

/// What the register of a kind counts.
const fn register_dimension(kind: Kind) -> Dimension {
    match kind {
        Kind::Charger => Dimension::Energy,
        Kind::Washer => Dimension::Cycle,
        Kind::Dispenser => Dimension::Volume,
        Kind::Unknown => Dimension::Other,
    }
}

impl Conflicts {
    pub(super) fn refund(&self, session: &SessionId) -> Money {
        let about = super::About::session(*session);
        self.corrections
            .get(&(Class::Duplicate, about))
            .map_or(Money::ZERO, |correction| correction.amount)
    }

    /// How much of its register interval a session is the first to bill.
    fn units_first(&self, session: &SessionId, facts: &Facts) -> u64 {
        let (from, upto) = facts.interval();
        let mut earlier: Vec<(u64, u64)> = self
            .neighbours(facts)
            .iter()
            .filter(|other| *other != session)
            .filter_map(|other| self.facts.get(other))
            .filter(|other| other.standing == Standing::Captured && other.order() < facts.order())
            .map(Facts::interval)
            .collect();
        earlier.sort_unstable();
        let (mut free, mut at) = (0, from);
        for (other_from, other_upto) in earlier {
            if other_upto <= at || other_from >= upto {
                continue;
            }
            free += other_from.saturating_sub(at);
            at = at.max(other_upto);
        }
        free + upto.saturating_sub(at)
    }

    /// Whether another session paid with the same instrument before.
    fn is_redeemed_again(&self, session: &SessionId, facts: &Facts) -> bool {
        let number = facts.evidence.instrument;
        let group = (number, SessionId([0; 16]))..=(number, SessionId([255; 16]));
        self.index
            .by_instrument
            .range(group)
            .filter(|(_, other)| other != session)
            .filter_map(|(_, other)| self.facts.get(other))
            .any(|other| {
                other.is_captured()
                    && other.payer == Account::Prepaid
                    && other.order_across_sites() < facts.order_across_sites()
            })
    }
}

/// Step 10 of the decision order: emergency credit and free vend.
pub(super) const EMERGENCY_RULE: u8 = 10;

impl Hub {
    /// What every correction of a session should amount to; those not named: nothing.
    pub(super) fn session_targets(&self, session: &SessionId) -> Vec<Target> {
        let Some(facts) = self.conflicts.facts.get(session).filter(|facts| facts.is_captured()) else {
            return Vec::new();
        };
        let revenue = Account::Revenue(facts.kind);
        let mut targets = Vec::new();
        let mut add = |class, debit, credit, amount: Money, reason: String| {
            if amount > Money::ZERO {
                targets.push(Target {
                    class,
                    debit,
                    credit,
                    amount,
                    reason,
                });
            }
        };
        let refund = self.overlap_refund(session, facts);
        add(
            Class::Duplicate,
            revenue,
            facts.refunds_to(),
            refund,
            "register interval billed already; billed once".to_owned(),
        );
        let paid = facts.charged.saturating_sub(refund);
        // A gateway that says that it was a gift has booked it as one.
        if facts.rule == EMERGENCY_RULE && facts.payer != Account::Loss(Loss::Emergency) {
            let loss = Account::Loss(Loss::Emergency);
            let reason = "emergency credit or free vend".to_owned();
            add(Class::Emergency, loss, facts.refunds_to(), paid, reason);
        } else if facts.payer == Account::Prepaid && self.conflicts.is_redeemed_again(session, facts) {
            let reason = format!("instrument {} was redeemed before", facts.evidence.instrument);
            add(
                Class::TwoSites,
                Account::Loss(Loss::Overdraft),
                facts.payer,
                paid,
                reason,
            );
        }
        let lag = self.price_lag(facts);
        let reason = "granted at the old price, a newer one was in force".to_owned();
        add(Class::PriceChanged, Account::Loss(Loss::PriceLag), revenue, lag, reason);
        let (lost, reason) = self.lost_rest(facts);
        add(
            Class::DeviceLost,
            Account::Loss(Loss::DeviceLost),
            revenue,
            lost,
            reason.to_owned(),
        );
        targets
    }

    /// What an account that cannot pay for its sessions of class 1 leaves unpaid. Its other sessions are paid first, so
    /// whatever is paid in later repays arrears before this loss.
    pub(super) fn revoked_target(&self, account: AccountId) -> Target {
        let (class, credit) = (Class::Revoked, Account::Customer(account));
        let loss = self.conflicts.corrections.get(&(class, super::About::account(account)));
        let booked = loss.map_or(Money::ZERO, |correction| correction.amount);
        let unpaid = Money::ZERO.saturating_sub(self.posted(account).saturating_sub(booked));
        let mut amount = Money::ZERO;
        if unpaid > Money::ZERO {
            let range = (account, SessionId([0; 16]))..=(account, SessionId([255; 16]));
            let sessions = self.conflicts.index.by_account.range(range).filter_map(|(_, session)| {
                let facts = self.conflicts.facts.get(session)?;
                self.conflicts.revoked_charge(session, facts)
            });
            let before = self.conflicts.revoked_before.get(&account).copied().unwrap_or_default();
            amount = sessions.fold(before, Money::saturating_add).min(unpaid);
        }
        Target {
            class,
            debit: Account::Loss(Loss::Revoked),
            credit,
            amount,
            reason: "drawn after a revocation that its gateway could not know, and not paid".to_owned(),
        }
    }

    /// Whether a session is among those for which its account cannot pay: class 1.
    #[must_use]
    pub fn is_loss_of_revoked(&self, session: &SessionId) -> bool {
        self.conflicts.facts.get(session).is_some_and(|facts| {
            let about = super::About::account(facts.account);
            let booked = self.conflicts.corrections.contains_key(&(Class::Revoked, about));
            booked && self.conflicts.revoked_charge(session, facts).is_some()
        })
    }

    fn overlap_refund(&self, session: &SessionId, facts: &Facts) -> Money {
        let (from, upto) = facts.interval();
        let length = upto.saturating_sub(from);
        let first = self.conflicts.units_first(session, facts);
        let twice = length.saturating_sub(first);
        if twice == 0 {
            return Money::ZERO;
        }
        if first == 0 {
            return facts.charged;
        }
        let left = match self.tariffs_known.get(&facts.tariff_hash) {
            Some(tariff) => without(&facts.bill, tariff, register_dimension(facts.kind), twice).total(tariff),
            // In proportion, rounded in the customer's favour.
            None => Money((i128::from(facts.charged.0) * i128::from(first) / i128::from(length)) as i64),
        };
        facts.charged.saturating_sub(left.min(facts.charged))
    }

    /// What the price in force would have brought above the price granted.
    fn price_lag(&self, facts: &Facts) -> Money {
        let Some(prices) = self.conflicts.prices.get(&facts.kind).filter(|_| facts.synchronised) else {
            return Money::ZERO;
        };
        // Operators may go back to an old price: the latest begin of the granted one before the grant counts.
        let in_force = prices
            .iter()
            .filter(|(from_s, _)| *from_s <= facts.held_s)
            .max_by_key(|(from_s, _)| *from_s);
        let granted_before = prices
            .iter()
            .any(|(from_s, hash)| *hash == facts.tariff_hash && *from_s <= facts.held_s);
        let Some((_, hash)) = in_force.filter(|(_, hash)| granted_before && *hash != facts.tariff_hash) else {
            return Money::ZERO;
        };
        let (Some(granted), Some(newer)) = (self.tariffs_known.get(&facts.tariff_hash), self.tariffs_known.get(hash))
        else {
            return Money::ZERO;
        };
        if !is_same_shape(granted, newer) {
            return Money::ZERO;
        }
        let lag = facts.bill.total(newer).saturating_sub(facts.bill.total(granted));
        lag.max(Money::ZERO)
    }

    /// What a lost device delivered behind its last checkpoint: what the register shows once it is seen again, and
    /// until then all that the hold allowed.
    fn lost_rest(&self, facts: &Facts) -> (Money, &'static str) {
        if !facts.lost {
            return (Money::ZERO, "");
        }
        let most = facts.hold.saturating_sub(facts.charged);
        let provision = (
            most,
            "the device is lost: at most this was delivered behind its last checkpoint",
        );
        let Some(register) = self.conflicts.next_register(facts) else {
            return provision;
        };
        let Some(tariff) = self.tariffs_known.get(&facts.tariff_hash) else {
            return provision;
        };
        let gap = register.saturating_sub(facts.register_end.0);
        let with_gap = with(&facts.bill, tariff, register_dimension(facts.kind), gap);
        let rest = with_gap.total(tariff).saturating_sub(facts.bill.total(tariff));
        (
            rest.min(most),
            "the register shows what was delivered behind the last checkpoint",
        )
    }
}

/// Whether quantities counted for one tariff count for the other.
fn is_same_shape(one: &Tariff, other: &Tariff) -> bool {
    let shape = |tariff: &Tariff| {
        let mut elements = tariff.elements.clone();
        elements.iter_mut().for_each(|element| element.price_milli = 0);
        elements
    };
    shape(one) == shape(other)
}

/// A bill with so many units less, the dearest first: the customer's favour.
fn without(bill: &Bill, tariff: &Tariff, dimension: Dimension, units: u64) -> Bill {
    let mut elements: Vec<(i64, usize)> = tariff
        .elements
        .iter()
        .enumerate()
        .filter(|(_, element)| element.dimension == dimension)
        .map(|(i, element)| (element.price_milli, i))
        .collect();
    elements.sort_unstable_by(|one, other| other.cmp(one));
    let (mut bill, mut left) = (*bill, units);
    for (_, i) in elements {
        let taken = bill.quantities[i].min(left);
        bill.quantities[i] -= taken;
        left -= taken;
    }
    bill
}

/// A bill with so many units more, at the cheapest price: nobody saw when they flowed.
fn with(bill: &Bill, tariff: &Tariff, dimension: Dimension, units: u64) -> Bill {
    let mut bill = *bill;
    let elements = tariff.elements.iter().enumerate();
    let cheapest = elements
        .filter(|(_, element)| element.dimension == dimension)
        .min_by_key(|(_, element)| element.price_milli);
    if let Some((i, _)) = cheapest {
        bill.quantities[i] = bill.quantities[i].saturating_add(units);
    }
    bill
}
