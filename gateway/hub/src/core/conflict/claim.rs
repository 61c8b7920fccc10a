//! Two claims on one session id: both are kept, one is booked, and which one does not depend on who came first.
//!
//! Among gateways the smaller name is booked; a gateway that tells again, under a new epoch, what it told before is
//! set aside. A claim that gives way is taken back by lines of the hub's own, never by deleting one.

use proto::{
    book::{Account, Phase},
    id::SessionId,
    link::{LedgerRecord, RecordKind},
    money::Money,
};

use super::{About, Act, Adjustment, AdjustmentLine, Aside, Class, Conflicts, Facts, RecordKey, Standing};

/// What a record is to the claim that holds its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Claimed {
    /// The same claim, or the first one: book it.
    Own,
    /// Another claim: keep it, do not book it. Whether it says the same.
    Aside {
        /// The same words again.
        exists: bool,
    },
    /// A claim before which the present one gives way.
    Displaces,
    /// The gateway speaks after the operator had closed the session here.
    Reopens,
    /// In the middle of a session that is another gateway's.
    Foreign,
}

/// Judges a record by the claim that stands.
pub(crate) fn claimed(standing: Option<&Facts>, at: &RecordKey, record: &LedgerRecord) -> Claimed {
    let Some(facts) = standing else {
        return Claimed::Own;
    };
    let begins = record.kind == RecordKind::Hold;
    if facts.gateway != at.gateway {
        return match (facts.gateway < at.gateway, begins) {
            (true, _) => Claimed::Aside { exists: false },
            (false, true) => Claimed::Displaces,
            (false, false) => Claimed::Foreign,
        };
    }
    let aside = Claimed::Aside {
        exists: says_the_same(facts, record),
    };
    let retold = at.epoch != facts.epoch;
    match facts.standing {
        Standing::Held | Standing::Indeterminate if begins && retold => aside,
        Standing::Held | Standing::Indeterminate => Claimed::Own,
        Standing::ClosedHere => match record.kind {
            RecordKind::Capture | RecordKind::Void => Claimed::Reopens,
            RecordKind::Hold if retold => aside,
            RecordKind::Hold
            | RecordKind::Started
            | RecordKind::Indeterminate
            | RecordKind::LeaseReturn
            | RecordKind::LeaseTaken
            | RecordKind::Other => Claimed::Own,
        },
        Standing::Captured | Standing::Voided if retold || record.kind == RecordKind::Capture => aside,
        Standing::Captured | Standing::Voided => Claimed::Own,
    }
}

fn says_the_same(facts: &Facts, record: &LedgerRecord) -> bool {
    let who = (facts.token, facts.account, facts.device, facts.outlet);
    let same = who == (record.token, record.account, record.device, record.outlet);
    same && match record.kind {
        RecordKind::Hold => record.amount == facts.hold,
        RecordKind::Capture => {
            let charge = (facts.charged, facts.register_start, facts.register_end, facts.bill);
            facts.is_captured() && charge == (record.amount, record.register_start, record.register_end, record.bill)
        }
        RecordKind::Void => facts.standing == Standing::Voided,
        RecordKind::Started
        | RecordKind::Indeterminate
        | RecordKind::LeaseReturn
        | RecordKind::LeaseTaken
        | RecordKind::Other => true,
    }
}

impl Conflicts {
    /// Takes back all that a claim booked.
    pub(crate) fn displacement(&self, number: u64, session: SessionId, facts: &Facts, wall_s: u64) -> Adjustment {
        let (payer, revenue) = (facts.payer, Account::Revenue(facts.kind));
        let direct = |debit, credit, amount| AdjustmentLine {
            phase: Phase::Direct,
            debit,
            credit,
            amount,
        };
        let mut lines = Vec::new();
        if facts.is_open() {
            lines.push(AdjustmentLine {
                phase: Phase::Void,
                ..direct(payer, Account::Clearing, facts.hold)
            });
        } else if facts.charged > Money::ZERO {
            lines.push(direct(revenue, facts.refunds_to(), facts.charged));
        }
        let own = self
            .corrections
            .iter()
            .filter(|((_, about), _)| about.session == session);
        lines.extend(own.map(|(_, correction)| direct(correction.credit, correction.debit, correction.amount)));
        let reason = format!("session claimed by gateway {}, too; both are kept", facts.gateway);
        Adjustment {
            number,
            class: Class::Duplicate,
            act: Act::Displace,
            about: About::session(session),
            debit: revenue,
            credit: payer,
            total: facts.charged,
            lines,
            reason,
            wall_s,
        }
    }

    /// Takes back what the operator closed, so that the gateway's own record can be booked.
    pub(crate) fn reopening(&self, number: u64, session: SessionId, facts: &Facts, wall_s: u64) -> Adjustment {
        let (payer, revenue) = (facts.payer, Account::Revenue(facts.kind));
        let line = |phase, debit, credit, amount| AdjustmentLine {
            phase,
            debit,
            credit,
            amount,
        };
        let mut lines = Vec::new();
        if facts.charged > Money::ZERO {
            lines.push(line(Phase::Direct, revenue, payer, facts.charged));
        }
        lines.push(line(Phase::Pending, payer, Account::Clearing, facts.hold));
        Adjustment {
            number,
            class: Class::Spanned,
            act: Act::Reopen,
            about: About::session(session),
            debit: revenue,
            credit: payer,
            total: Money::ZERO,
            lines,
            reason: "late-final amendment: the gateway spoke after the session was closed here".to_owned(),
            wall_s,
        }
    }

    /// A record of a second claim is kept. Returns whether the claim is new.
    pub(crate) fn set_aside(&mut self, at: &RecordKey, record: &LedgerRecord, exists: bool) -> bool {
        let key = (record.session, at.gateway, at.epoch);
        let is_new = !self.asides.contains_key(&key);
        let aside = self.asides.entry(key).or_insert(Aside {
            first: *at,
            charged: None,
            exists: true,
        });
        aside.exists &= exists;
        if record.kind == RecordKind::Capture {
            aside.charged.get_or_insert(record.amount); // As with a claim that is booked, the first charge counts.
        }
        is_new
    }

    /// The claim that was booked gives way.
    pub(crate) fn displace(&mut self, session: &SessionId) {
        let Some(facts) = self.take(session) else { return };
        let key = (*session, facts.gateway, facts.epoch);
        let (gateway, epoch, sequence) = facts.order();
        // It may have contradicted itself before.
        let told_again = self.asides.get(&key).and_then(|aside| aside.charged);
        let aside = Aside {
            first: RecordKey {
                gateway,
                epoch,
                sequence,
            },
            charged: facts.is_captured().then_some(facts.charged).or(told_again),
            exists: false,
        };
        self.asides.insert(key, aside);
        self.corrections.retain(|(_, about), _| about.session != *session);
    }
}
