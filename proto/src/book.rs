//! The double-entry book, in two phases as TigerBeetle has them: a pending transfer reserves, a later one posts part of
//! it or voids it. Gateway and hub run the same code over the same records, so their books can be compared line by line.
//!
//! Invariant: after every record the sum of debits equals the sum of credits, pending and posted.

use alloc::{collections::BTreeMap, vec::Vec};
use core::fmt;

use crate::{
    id::{AccountId, Kind, SessionId},
    link::{Evidence, Gift, LedgerRecord, RecordKind},
    money::Money,
};

/// An account of the book.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Account {
    /// What a customer has paid in and spent.
    Customer(AccountId),
    /// Money on its way at this site; zero when no session is open.
    Clearing,
    /// What was sold.
    Revenue(Kind),
    /// A slice of a customer's balance that one gateway alone may spend: account and epoch of the lease.
    Lease(AccountId, u64),
    /// What vouchers and keypad tokens were sold for and have not bought yet.
    Prepaid,
    /// What was delivered and nobody pays for.
    Loss(Loss),
    /// Money on whose owner two parties disagree.
    Dispute,
}

/// Why nobody pays (semantics, section 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Loss {
    /// The token was revoked when it drew, and the gateway could not know.
    Revoked,
    /// The account had less than was drawn.
    Overdraft,
    /// The price had changed, and the gateway could not know.
    PriceLag,
    /// The device is lost with its last readings.
    DeviceLost,
    /// Emergency credit and free vend.
    Emergency,
}

impl Loss {
    /// All of them, in order.
    pub const ALL: [Self; 5] = [
        Self::Revoked,
        Self::Overdraft,
        Self::PriceLag,
        Self::DeviceLost,
        Self::Emergency,
    ];

    /// The word in an export.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Overdraft => "overdraft",
            Self::PriceLag => "price_lag",
            Self::DeviceLost => "device_lost",
            Self::Emergency => "emergency",
        }
    }

    /// Its frozen number in snapshots.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Revoked => 0,
            Self::Overdraft => 1,
            Self::PriceLag => 2,
            Self::DeviceLost => 3,
            Self::Emergency => 4,
        }
    }
}

impl Account {
    /// Who pays for a session, by what was relied on when it was granted.
    #[must_use]
    pub const fn payer(account: AccountId, evidence: &Evidence) -> Self {
        match (evidence.gift, evidence.lease, evidence.instrument) {
            (Gift::Emergency | Gift::FreeVend | Gift::Other, _, _) => Self::Loss(Loss::Emergency),
            (Gift::None, 0, 0) => Self::Customer(account),
            (Gift::None, 0, _) => Self::Prepaid,
            (Gift::None, lease, _) => Self::Lease(account, lease),
        }
    }

    /// Its frozen numbers in snapshots: class, number and part.
    #[must_use]
    pub const fn parts(self) -> (u8, u64, u64) {
        match self {
            Self::Customer(account) => (0, account, 0),
            Self::Clearing => (1, 0, 0),
            Self::Revenue(kind) => (2, kind.code() as u64, 0),
            Self::Lease(account, epoch) => (3, account, epoch),
            Self::Prepaid => (4, 0, 0),
            Self::Loss(loss) => (5, loss.code() as u64, 0),
            Self::Dispute => (6, 0, 0),
        }
    }

    /// The account of such numbers; `None` for a class of a newer version.
    #[must_use]
    pub fn from_parts(class: u8, number: u64, part: u64) -> Option<Self> {
        match class {
            0 => Some(Self::Customer(number)),
            1 => Some(Self::Clearing),
            2 => Some(Self::Revenue(Kind::from_code(u8::try_from(number).ok()?))),
            3 => Some(Self::Lease(number, part)),
            4 => Some(Self::Prepaid),
            5 => Loss::ALL
                .into_iter()
                .find(|loss| u64::from(loss.code()) == number)
                .map(Self::Loss),
            6 => Some(Self::Dispute),
            _ => None,
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Customer(account) => write!(f, "customer:{account}"),
            Self::Clearing => f.write_str("clearing"),
            Self::Revenue(kind) => write!(f, "revenue:{}", kind.word()),
            Self::Lease(account, epoch) => write!(f, "lease:{account}:{epoch}"),
            Self::Prepaid => f.write_str("prepaid"),
            Self::Loss(loss) => write!(f, "loss:{}", loss.word()),
            Self::Dispute => f.write_str("dispute"),
        }
    }
}

/// What a transfer does to the money.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Sets aside.
    Pending,
    /// Moves what was set aside, or part of it; the remainder is free again.
    Post,
    /// Frees all that was set aside.
    Void,
    /// Moves at once.
    Direct,
}

impl Phase {
    /// The word in an export.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Post => "post",
            Self::Void => "void",
            Self::Direct => "direct",
        }
    }
}

/// One line of the book.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    /// The record it comes from.
    pub sequence: u64,
    /// For which session.
    pub session: SessionId,
    /// What it does.
    pub phase: Phase,
    /// Whose money.
    pub debit: Account,
    /// Who gets it.
    pub credit: Account,
    /// How much; never negative.
    pub amount: Money,
}

/// Sums of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Set aside to leave.
    pub debits_pending: Money,
    /// Left.
    pub debits_posted: Money,
    /// Set aside to come.
    pub credits_pending: Money,
    /// Came.
    pub credits_posted: Money,
}

/// Why a record does not fit the book. A gateway that reads this about its own record has a bug; a hub quarantines it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// A second hold for one session.
    #[error("session {0} has a hold already")]
    HeldTwice(SessionId),
    /// A capture or void without a hold.
    #[error("session {0} has no hold")]
    NotHeld(SessionId),
    /// More captured than held.
    #[error("{charge} captured for session {session}, which holds {hold}")]
    AboveHold {
        /// Which session.
        session: SessionId,
        /// What was to be captured.
        charge: Money,
        /// What is held.
        hold: Money,
    },
    /// A negative amount, or a sum beyond the range of the book.
    #[error("the amount {0} cannot be booked")]
    Amount(Money),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    payer: Account,
    amount: Money,
}

/// The book.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Book {
    balances: BTreeMap<Account, Balance>,
    held: BTreeMap<SessionId, Held>,
}

impl Book {
    /// The lines a record makes, without making them.
    ///
    /// # Errors
    /// [`BookError`] if the record does not fit.
    pub fn lines(&self, record: &LedgerRecord) -> Result<Vec<Transfer>, BookError> {
        let session = record.session;
        let line = |phase, debit, credit, amount| Transfer {
            sequence: record.sequence,
            session,
            phase,
            debit,
            credit,
            amount,
        };
        if record.amount.0 < 0 {
            return Err(BookError::Amount(record.amount));
        }
        let held = self.held.get(&session);
        match record.kind {
            RecordKind::Hold => match held {
                Some(_) => Err(BookError::HeldTwice(session)),
                None => Ok(alloc::vec![line(
                    Phase::Pending,
                    Account::payer(record.account, &record.evidence),
                    Account::Clearing,
                    record.amount
                )]),
            },
            RecordKind::Capture => {
                let held = held.ok_or(BookError::NotHeld(session))?;
                if record.amount > held.amount {
                    return Err(BookError::AboveHold {
                        session,
                        charge: record.amount,
                        hold: held.amount,
                    });
                }
                let revenue = Account::Revenue(record.device_kind);
                Ok(alloc::vec![
                    line(Phase::Post, held.payer, Account::Clearing, record.amount),
                    line(Phase::Direct, Account::Clearing, revenue, record.amount),
                ])
            }
            RecordKind::Void => {
                let held = held.ok_or(BookError::NotHeld(session))?;
                Ok(alloc::vec![line(
                    Phase::Void,
                    held.payer,
                    Account::Clearing,
                    held.amount
                )])
            }
            RecordKind::LeaseTaken => Ok(alloc::vec![line(
                Phase::Direct,
                Account::Customer(record.account),
                Account::Lease(record.account, record.evidence.lease),
                record.amount
            )]),
            RecordKind::LeaseReturn => Ok(alloc::vec![line(
                Phase::Direct,
                Account::Lease(record.account, record.evidence.lease),
                Account::Customer(record.account),
                record.amount
            )]),
            RecordKind::Started | RecordKind::Indeterminate | RecordKind::Other => Ok(Vec::new()),
        }
    }

    /// Moves money at once, outside any session: a deposit that becomes a lease, a loss that is written off.
    ///
    /// # Errors
    /// [`BookError::Amount`] if the amount is negative or a sum would overflow; then nothing was booked.
    pub fn transfer(&mut self, line: &Transfer) -> Result<(), BookError> {
        debug_assert_ne!(line.phase, Phase::Post, "what was set aside is charged by records only");
        if line.amount.0 < 0 {
            return Err(BookError::Amount(line.amount));
        }
        self.make(line)
    }

    /// Books a record; returns its lines.
    ///
    /// # Errors
    /// [`BookError`]; then nothing was booked.
    pub fn book(&mut self, record: &LedgerRecord) -> Result<Vec<Transfer>, BookError> {
        let lines = self.lines(record)?;
        // Each sum is in one line only, so a record whose lines all fit alone fits as a whole.
        for line in &lines {
            self.moved(line)?;
        }
        for line in &lines {
            self.make(line)?;
        }
        Ok(lines)
    }

    /// The sums of both accounts after a line.
    fn moved(&self, line: &Transfer) -> Result<(Balance, Balance), BookError> {
        let mut debit = self.balance(&line.debit);
        let mut credit = self.balance(&line.credit);
        let amount = line.amount;
        let grow = |sum: &mut Money| {
            *sum = sum.checked_add(amount).ok_or(BookError::Amount(amount))?;
            Ok(())
        };
        match line.phase {
            Phase::Pending => {
                grow(&mut debit.debits_pending)?;
                grow(&mut credit.credits_pending)?;
            }
            Phase::Post | Phase::Void => {
                if line.phase == Phase::Post {
                    grow(&mut debit.debits_posted)?;
                    grow(&mut credit.credits_posted)?;
                }
                let held = self.held.get(&line.session).ok_or(BookError::NotHeld(line.session))?;
                debit.debits_pending = debit.debits_pending.saturating_sub(held.amount);
                credit.credits_pending = credit.credits_pending.saturating_sub(held.amount);
            }
            Phase::Direct => {
                grow(&mut debit.debits_posted)?;
                grow(&mut credit.credits_posted)?;
            }
        }
        Ok((debit, credit))
    }

    fn make(&mut self, line: &Transfer) -> Result<(), BookError> {
        let (debit, credit) = self.moved(line)?;
        match line.phase {
            Phase::Pending => {
                let (payer, amount) = (line.debit, line.amount);
                self.held.insert(line.session, Held { payer, amount });
            }
            Phase::Post | Phase::Void => {
                self.held.remove(&line.session);
            }
            Phase::Direct => {}
        }
        self.balances.insert(line.debit, debit);
        self.balances.insert(line.credit, credit);
        Ok(())
    }

    /// The sums of an account.
    #[must_use]
    pub fn balance(&self, account: &Account) -> Balance {
        self.balances.get(account).copied().unwrap_or_default()
    }

    /// Every account with its sums, in order.
    pub fn balances(&self) -> impl Iterator<Item = (&Account, &Balance)> {
        self.balances.iter()
    }

    /// Open holds: session, who pays and the amount.
    pub fn holds(&self) -> impl Iterator<Item = (&SessionId, Account, Money)> {
        self.held
            .iter()
            .map(|(session, held)| (session, held.payer, held.amount))
    }

    /// Puts an account back as a snapshot kept it.
    pub fn restore_balance(&mut self, account: Account, balance: Balance) {
        self.balances.insert(account, balance);
    }

    /// Puts a hold back as a snapshot kept it.
    pub fn restore_hold(&mut self, session: SessionId, payer: Account, amount: Money) {
        self.held.insert(session, Held { payer, amount });
    }

    /// Whether the sum of debits equals the sum of credits, pending and posted, and the holds add up to what is pending.
    #[must_use]
    pub fn is_balanced(&self) -> bool {
        let sum = |of: fn(&Balance) -> Money| {
            self.balances
                .values()
                .map(|balance| i128::from(of(balance).0))
                .sum::<i128>()
        };
        let held: i128 = self.held.values().map(|held| i128::from(held.amount.0)).sum();
        sum(|b| b.debits_posted) == sum(|b| b.credits_posted)
            && sum(|b| b.debits_pending) == sum(|b| b.credits_pending)
            && sum(|b| b.debits_pending) == held
    }
}
