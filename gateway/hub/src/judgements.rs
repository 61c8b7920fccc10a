//! What operators read about sessions and conflicts: one JSON object each. A token appears nowhere.

use std::collections::{BTreeMap, BTreeSet};

use proto::{
    book::{Account, Loss},
    id::SessionId,
    money::Money,
};
use serde::{Deserialize, Serialize};

use crate::core::{
    Class, Hub,
    conflict::{Facts, Standing},
};

/// One session's money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// Session, 32 hexadecimal digits.
    pub session: String,
    /// Whose record holds it.
    pub gateway: String,
    /// At which device.
    pub device: String,
    /// At which outlet.
    pub outlet: u8,
    /// `charger`, `washer` or `dispenser`.
    pub kind: String,
    /// Whose money: an account of the book.
    pub payer: String,
    /// `held`, `indeterminate`, `settled`, `adjusted`, `disputed`, `voided` or `closed_here`.
    pub state: String,
    /// The rule that granted.
    pub rule: u8,
    /// What was set aside; minor units.
    pub hold: i64,
    /// What the gateway charged, or the operator when he closed it; minor units.
    pub charged: i64,
    /// What the payer gets back by corrections; minor units.
    pub refunded: i64,
    /// The conflicts that touch it, by their words.
    pub conflicts: Vec<String>,
}

/// Every session that is remembered, by id.
#[must_use]
pub fn sessions(hub: &Hub) -> Vec<SessionRow> {
    let conflicts = hub.conflicts();
    let disputed = disputed_sessions(hub);
    let rows = conflicts.sessions().iter().map(|(session, facts)| {
        let corrections: Vec<_> = conflicts
            .corrections()
            .iter()
            .filter(|((_, about), _)| about.session == *session)
            .collect();
        let refunded = corrections
            .iter()
            .filter(|(_, correction)| correction.credit == facts.refunds_to())
            .fold(Money::ZERO, |sum, (_, correction)| {
                sum.saturating_add(correction.amount)
            });
        let mut words: Vec<String> = corrections
            .iter()
            .map(|((class, _), _)| class.word().to_owned())
            .collect();
        if hub.is_loss_of_revoked(session) {
            words.push(Class::Revoked.word().to_owned());
        }
        SessionRow {
            session: session.to_string(),
            gateway: facts.gateway.to_string(),
            device: facts.device.to_string(),
            outlet: facts.outlet,
            kind: facts.kind.word().to_owned(),
            payer: facts.payer.to_string(),
            state: state(facts, disputed.contains(session), !words.is_empty()).to_owned(),
            rule: facts.rule,
            hold: facts.hold.0,
            charged: facts.charged.0,
            refunded: refunded.0,
            conflicts: words,
        }
    });
    rows.collect()
}

fn disputed_sessions(hub: &Hub) -> BTreeSet<SessionId> {
    let charges = hub.disputes().values().map(|dispute| dispute.session);
    let asides = hub.conflicts().asides().iter();
    let claims = asides
        .filter(|(_, aside)| !aside.exists)
        .map(|((session, ..), _)| *session);
    charges.chain(claims).collect()
}

const fn state(facts: &Facts, disputed: bool, adjusted: bool) -> &'static str {
    match facts.standing {
        Standing::Held => "held",
        Standing::Indeterminate => "indeterminate",
        Standing::Voided => "voided",
        Standing::ClosedHere => "closed_here",
        Standing::Captured if disputed => "disputed",
        Standing::Captured if adjusted => "adjusted",
        Standing::Captured => "settled",
    }
}

/// What one loss account bears.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LossRow {
    /// The loss account, as `loss:revoked`; one row in all for each.
    pub account: String,
    /// The session it comes from, 32 hexadecimal digits; empty in the row of a sum and for an account as a whole.
    pub session: String,
    /// The customer's account concerned; 0: none.
    pub customer: u64,
    /// Minor units.
    pub amount: i64,
}

/// The sum of each loss account, each followed by the corrections it is made of. What the operator wrote off is in the
/// sum, and in the ledger with its reason.
#[must_use]
pub fn losses(hub: &Hub) -> Vec<LossRow> {
    let mut parts: BTreeMap<Loss, Vec<LossRow>> = BTreeMap::new();
    for ((_, about), correction) in hub.conflicts().corrections() {
        if let Account::Loss(loss) = correction.debit {
            let of_session = about.session != SessionId::ZERO;
            parts.entry(loss).or_default().push(LossRow {
                account: Account::Loss(loss).to_string(),
                session: if of_session {
                    about.session.to_string()
                } else {
                    String::new()
                },
                customer: about.account,
                amount: correction.amount.0,
            });
        }
    }
    let mut rows = Vec::new();
    for loss in Loss::ALL {
        let sums = hub.book().balance(&Account::Loss(loss));
        rows.push(LossRow {
            account: Account::Loss(loss).to_string(),
            session: String::new(),
            customer: 0,
            amount: sums.debits_posted.saturating_sub(sums.credits_posted).0,
        });
        rows.extend(parts.remove(&loss).unwrap_or_default());
    }
    rows
}

/// Something a person should look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRow {
    /// Number of the conflict in semantics, section 8.
    pub class: u8,
    /// Its word.
    pub conflict: String,
    /// Session, 32 hexadecimal digits; zeros: none.
    pub session: String,
    /// The customer's account; 0: none.
    pub account: u64,
    /// In words.
    pub what: String,
}

/// Every case, and every account that draws nothing unsecured.
#[must_use]
pub fn cases(hub: &Hub) -> Vec<CaseRow> {
    let opened = hub.conflicts().cases().values().map(|case| CaseRow {
        class: case.class.code(),
        conflict: case.class.word().to_owned(),
        session: case.about.session.to_string(),
        account: case.about.account,
        what: case.what.clone(),
    });
    let owing = hub.accounts().filter_map(|(account, _)| {
        let owed = hub.arrears(account);
        (owed > Money::ZERO).then(|| CaseRow {
            class: Class::Overdraft.code(),
            conflict: Class::Overdraft.word().to_owned(),
            session: SessionId::ZERO.to_string(),
            account,
            what: format!("owes {owed}; its tokens are NEVER until that is repaid"),
        })
    });
    opened.chain(owing).collect()
}
