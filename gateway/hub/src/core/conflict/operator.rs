//! What the operator decides: credits, corrections, write-offs, and the end of a session whose gateway is gone.

use proto::{
    book::{Account, Loss, Phase},
    id::{AccountId, GatewayId, Kind, SessionId},
    money::Money,
};

use super::{About, Act, Adjustment, AdjustmentLine, Class};
use crate::core::{Decision, Effect, Event, Hub, Now, RECORD_AMOUNT_MAX, Settling, release::lease_of};

/// Longest reason, in bytes: a line or two, and an entry fits a record of the store with a wide margin.
pub const REASON_BYTES_MAX: usize = 256;

/// What the operator wants booked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Money moves from one account to another.
    Move {
        /// Whose money.
        debit: Account,
        /// Who gets it.
        credit: Account,
        /// How much; above zero.
        amount: Money,
        /// For which session; zero: none.
        session: SessionId,
        /// Why.
        reason: String,
    },
    /// A session whose gateway is silent is closed here. If the gateway speaks after all, its own record replaces this.
    Close {
        /// Which session.
        session: SessionId,
        /// What it costs; zero to the hold.
        amount: Money,
        /// Why.
        reason: String,
    },
    /// Records that cannot be booked were looked at.
    Settle(Settling),
}

/// Why the operator's wish changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrderRefusal {
    /// No amount, or too much.
    #[error("the amount {0} is not above zero and at most {RECORD_AMOUNT_MAX}")]
    Amount(Money),
    /// An entry without a reason helps nobody.
    #[error("a reason of 1 to {REASON_BYTES_MAX} bytes is needed, this one has {0}")]
    Reason(usize),
    /// Not an account to move money by hand from or to.
    #[error("{0} cannot be adjusted by hand")]
    Account(Account),
    /// Nothing known of the session, or nothing held for it.
    #[error("session {0} holds no money")]
    NotHeld(SessionId),
    /// Nothing to settle.
    #[error("no record of gateway {0} in that range is quarantined")]
    NotQuarantined(GatewayId),
    /// What a lease pays its gateway alone may end, until the lease is released: it would be spent twice.
    #[error(
        "session {0} is paid by a lease of gateway {1}; release it first: holdfast-hub release --gateway {1}, with --gone if the gateway never comes back"
    )]
    Leased(SessionId, GatewayId),
    /// More than is held.
    #[error("{amount} is more than the {hold} that is held")]
    AboveHold {
        /// What was asked.
        amount: Money,
        /// What is held.
        hold: Money,
    },
    /// The book cannot hold it.
    #[error(transparent)]
    Book(#[from] proto::book::BookError),
}

/// The account of a text such as `customer:7`, `revenue:charger`, `loss:overdraft`, `prepaid` or `dispute`.
#[must_use]
pub fn account_of(text: &str) -> Option<Account> {
    let (class, rest) = text.split_once(':').unwrap_or((text, ""));
    match (class, rest) {
        ("customer", number) => number.parse::<AccountId>().ok().map(Account::Customer),
        ("revenue", word) => Kind::SERVED
            .into_iter()
            .find(|kind| kind.word() == word)
            .map(Account::Revenue),
        ("loss", word) => Loss::ALL
            .into_iter()
            .find(|loss| loss.word() == word)
            .map(Account::Loss),
        ("prepaid", "") => Some(Account::Prepaid),
        ("dispute", "") => Some(Account::Dispute),
        _ => None,
    }
}

fn check_account(account: Account) -> Result<(), OrderRefusal> {
    match account {
        Account::Customer(_) | Account::Revenue(_) | Account::Prepaid | Account::Loss(_) | Account::Dispute => Ok(()),
        // Open sessions and leases own these; a line by hand would break what the gateways rely on.
        Account::Clearing | Account::Lease(..) => Err(OrderRefusal::Account(account)),
    }
}

pub(in crate::core) fn check_reason(reason: &str) -> Result<(), OrderRefusal> {
    match reason.len() {
        1..=REASON_BYTES_MAX => Ok(()),
        bytes => Err(OrderRefusal::Reason(bytes)),
    }
}

const fn line(phase: Phase, debit: Account, credit: Account, amount: Money) -> AdjustmentLine {
    AdjustmentLine {
        phase,
        debit,
        credit,
        amount,
    }
}

impl Hub {
    pub(in crate::core) fn decide_order(&self, now: Now, order: &Order) -> Decision {
        let mut decision = Decision::default();
        let entry = match order {
            Order::Settle(settling) => return self.decide_settle(settling),
            Order::Move {
                debit,
                credit,
                amount,
                session,
                reason,
            } => self.move_entry(now, (*debit, *credit, *amount), *session, reason),
            Order::Close {
                session,
                amount,
                reason,
            } => self.close_entry(now, *session, *amount, reason),
        };
        match entry {
            Ok(adjustment) => {
                decision.effects.push(Effect::Ordered(adjustment.number));
                decision.events.push(Event::Adjusted(adjustment));
            }
            Err(refusal) => decision.effects.push(Effect::OrderRefused(refusal)),
        }
        decision
    }

    fn move_entry(
        &self,
        now: Now,
        (debit, credit, amount): (Account, Account, Money),
        session: SessionId,
        reason: &str,
    ) -> Result<Adjustment, OrderRefusal> {
        check_reason(reason)?;
        check_account(debit)?;
        check_account(credit)?;
        if debit == credit {
            return Err(OrderRefusal::Account(debit));
        }
        if amount <= Money::ZERO || amount > RECORD_AMOUNT_MAX {
            return Err(OrderRefusal::Amount(amount));
        }
        let adjustment = Adjustment {
            number: self.conflicts.number + 1,
            class: Class::Operator,
            act: Act::Move,
            about: About::session(session),
            debit,
            credit,
            total: amount,
            lines: vec![line(Phase::Direct, debit, credit, amount)],
            reason: reason.to_owned(),
            wall_s: now.wall_s,
        };
        self.check_fit(&adjustment)?;
        Ok(adjustment)
    }

    fn close_entry(
        &self,
        now: Now,
        session: SessionId,
        amount: Money,
        reason: &str,
    ) -> Result<Adjustment, OrderRefusal> {
        check_reason(reason)?;
        let facts = self.conflicts.facts.get(&session).filter(|facts| facts.is_open());
        let facts = facts.ok_or(OrderRefusal::NotHeld(session))?;
        if lease_of(&facts.payer).is_some_and(|lease| self.leases.contains_key(&lease)) {
            return Err(OrderRefusal::Leased(session, facts.gateway));
        }
        if amount < Money::ZERO {
            return Err(OrderRefusal::Amount(amount));
        }
        if amount > facts.hold {
            let hold = facts.hold;
            return Err(OrderRefusal::AboveHold { amount, hold });
        }
        let (payer, revenue) = (facts.payer, Account::Revenue(facts.kind));
        let mut lines = vec![line(Phase::Void, payer, Account::Clearing, facts.hold)];
        if amount > Money::ZERO {
            lines.push(line(Phase::Direct, payer, revenue, amount));
        }
        Ok(Adjustment {
            number: self.conflicts.number + 1,
            class: Class::Spanned,
            act: Act::Close,
            about: About::session(session),
            debit: payer,
            credit: revenue,
            total: amount,
            lines,
            reason: reason.to_owned(),
            wall_s: now.wall_s,
        })
    }

    /// Whether the book can hold the entry: sums have an end.
    fn check_fit(&self, adjustment: &Adjustment) -> Result<(), OrderRefusal> {
        let mut trial = proto::book::Book::default();
        for account in [adjustment.debit, adjustment.credit] {
            trial.restore_balance(account, self.book.balance(&account));
        }
        adjustment.transfers().try_for_each(|line| trial.transfer(&line))?;
        Ok(())
    }
}
