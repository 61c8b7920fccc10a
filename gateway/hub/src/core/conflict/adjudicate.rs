//! Books the difference between what the books should show and what they do. Sessions come first, then accounts, for
//! what an account leaves unpaid follows from its sessions.

use std::collections::BTreeSet;

use proto::{
    book::{Account, Phase},
    id::{AccountId, SessionId},
    link::LedgerRecord,
    message::ClockQuality,
    money::Money,
};

use super::{About, Act, Adjustment, AdjustmentLine, Case, Class, Correction, Facts, target::Target};
use crate::core::{Alarm, Decision, Effect, Event, Hub, Now, RecordKey, lease::LeaseKey, release::lease_of};

/// A clock that is off by more than this, in s, alarms.
pub(crate) const CLOCK_SKEW_S_MAX: i64 = 300;
/// How long an account that spent one balance at two sites draws nothing unsecured, in s: 30 days.
const BARRED_S: u64 = 30 * 24 * 3600;
/// Corrections that only sessions have.
const SESSION_CLASSES: [Class; 5] = [
    Class::TwoSites,
    Class::PriceChanged,
    Class::Duplicate,
    Class::DeviceLost,
    Class::Emergency,
];

/// What may have changed.
#[derive(Default)]
pub(in crate::core) struct Touched {
    sessions: BTreeSet<SessionId>,
    accounts: BTreeSet<AccountId>,
    leases: BTreeSet<LeaseKey>,
}

impl Hub {
    /// Decides and applies what follows from events that were applied: corrections, cases, withdrawn disputes. The
    /// shell calls it through [`Hub::step`], so that it shares the commit of the events it follows from; what a crash
    /// left undone is done at the next start.
    pub(in crate::core) fn adjudicate(&mut self, now: Now, touched: Touched, events: &[Event]) -> Decision {
        let mut decision = Decision::default();
        let mut touched = self.touched(touched, events, &mut decision);
        for session in &touched.sessions {
            let payer = self.conflicts.facts.get(session).map(|facts| facts.payer);
            if let Some(Account::Customer(account)) = payer {
                touched.accounts.insert(account);
            }
            touched.leases.extend(payer.as_ref().and_then(lease_of));
            self.judge_session(now, session, &mut decision);
        }
        for lease in &touched.leases {
            if let Some((entry, alarm)) = self.lease_settlement(now, *lease) {
                touched.accounts.insert(lease.0);
                decision.effects.push(alarm);
                self.take_event(Event::Adjusted(entry), &mut decision);
            }
        }
        for account in &touched.accounts {
            self.judge_account(now, *account, &mut decision);
        }
        decision
    }

    /// What stands beside the sessions of these events before they are applied: a session that gives way, or whose
    /// interval moves, leaves its neighbours with another bill.
    pub(in crate::core) fn touched_before(&self, events: &[Event]) -> Touched {
        let mut touched = Touched::default();
        for event in events {
            let session = if let Event::Booked { record, .. } = event {
                record.session
            } else if let Event::Adjusted(adjustment) = event {
                adjustment.about.session
            } else {
                continue;
            };
            if let Some(facts) = self.conflicts.facts.get(&session) {
                self.touch_beside(facts, &mut touched);
            }
        }
        touched
    }

    fn touch_beside(&self, facts: &Facts, touched: &mut Touched) {
        touched.sessions.extend(self.conflicts.neighbours(facts));
        let number = facts.evidence.instrument;
        if number != 0 {
            let group = (number, SessionId([0; 16]))..=(number, SessionId([255; 16]));
            let others = self.conflicts.index.by_instrument.range(group);
            touched.sessions.extend(others.map(|(_, session)| *session));
        }
    }

    fn take_event(&mut self, event: Event, decision: &mut Decision) {
        self.apply(&event);
        decision.events.push(event);
    }

    fn touched(&mut self, mut touched: Touched, events: &[Event], decision: &mut Decision) -> Touched {
        for event in events {
            match event {
                Event::Booted { .. } => {
                    touched.sessions.extend(self.conflicts.facts.keys());
                    touched.accounts.extend(self.accounts.keys());
                    touched.leases.extend(self.leases_over());
                }
                Event::Booked { at, record, .. } => self.touched_by_record(at, record, &mut touched),
                Event::Adjusted(adjustment) => {
                    touched.sessions.insert(adjustment.about.session);
                    touched.accounts.extend(customers(adjustment));
                    touched
                        .leases
                        .extend(accounts_of(adjustment).filter_map(|account| lease_of(&account)));
                }
                Event::AccountSet { account, .. } => {
                    touched.accounts.insert(*account);
                }
                Event::RevocationsPublished { revision } => self.touched_by_revocations(*revision, &mut touched),
                Event::TariffSet { kind, tariff } => {
                    let of_kind = self.conflicts.facts.iter().filter(|(_, facts)| facts.kind == *kind);
                    touched.sessions.extend(of_kind.map(|(session, _)| *session));
                    self.judge_disputes(&tariff.hash(), decision);
                }
                Event::TokenSet { .. }
                | Event::Revoked { .. }
                | Event::ScopeRevoked { .. }
                | Event::KeysPublished { .. }
                | Event::PolicyPublished { .. }
                | Event::ListPublished { .. }
                | Event::TariffsPublished { .. }
                | Event::GatewaySeen { .. }
                | Event::GatewayFenced { .. }
                | Event::QuarantinePart { .. }
                | Event::Quarantined { .. }
                | Event::QuarantineSettled(_)
                | Event::Disputed { .. }
                | Event::Dated { .. }
                | Event::Aside { .. }
                | Event::CaseOpened(_)
                | Event::Barred { .. }
                | Event::DisputeWithdrawn { .. }
                | Event::Dispatched { .. }
                | Event::DispatchOverdue { .. }
                | Event::DispatchAnswered { .. }
                | Event::LeaseOnlySet { .. }
                | Event::LeaseGiven { .. }
                | Event::LeaseRecalled { .. } => {}
                Event::LeaseReleased { account, epoch } => {
                    touched.accounts.insert(*account);
                    touched.leases.insert((*account, *epoch));
                }
            }
        }
        touched
    }

    fn touched_by_record(&self, at: &RecordKey, record: &LedgerRecord, touched: &mut Touched) {
        let Some(facts) = self.conflicts.facts.get(&record.session) else {
            if let Account::Customer(account) = Account::payer(record.account, &record.evidence) {
                touched.accounts.insert(account);
            }
            return;
        };
        debug_assert_eq!(facts.gateway, at.gateway, "a booked record is of the claim that stands");
        touched.sessions.insert(record.session);
        self.touch_beside(facts, touched);
    }

    /// What is revoked has an outcome from its publication on.
    fn touched_by_revocations(&self, revision: u64, touched: &mut Touched) {
        for (session, facts) in self.conflicts.hit_by(self.revocations_first_in(revision)) {
            touched.sessions.insert(*session);
            touched.accounts.insert(facts.account);
        }
    }

    /// A price that was unknown when a charge was judged is known now.
    fn judge_disputes(&mut self, tariff_hash: &proto::id::Hash, decision: &mut Decision) {
        let open: Vec<(RecordKey, super::super::Dispute)> = self
            .disputes
            .iter()
            .filter(|(_, dispute)| dispute.computed.is_none())
            .map(|(at, dispute)| (*at, dispute.clone()))
            .collect();
        for (at, dispute) in open {
            let facts = self.conflicts.facts.get(&dispute.session);
            let Some(facts) = facts.filter(|facts| facts.tariff_hash == *tariff_hash && facts.closed_by == at.sequence)
            else {
                continue;
            };
            let computed = self
                .tariffs_known
                .get(tariff_hash)
                .map(|tariff| facts.bill.total(tariff).min(facts.hold));
            let event = if computed == Some(facts.charged) {
                Event::DisputeWithdrawn { at }
            } else {
                Event::Disputed {
                    at,
                    session: dispute.session,
                    charged: facts.charged,
                    computed,
                }
            };
            self.take_event(event, decision);
        }
    }

    fn judge_session(&mut self, now: Now, session: &SessionId, decision: &mut Decision) {
        let mut targets = self.session_targets(session);
        let about = About::session(*session);
        for class in SESSION_CLASSES {
            let target = targets
                .iter()
                .position(|target| target.class == class)
                .map(|i| targets.swap_remove(i));
            self.correct(now, class, about, target, decision);
        }
        let Some(facts) = self
            .conflicts
            .facts
            .get(session)
            .filter(|facts| facts.is_captured())
            .cloned()
        else {
            return;
        };
        if let Some(what) = self.conflicts.breach_of(&facts) {
            self.open_case(Class::Revoked, about, what, decision);
        }
        if self.conflicts.corrections.contains_key(&(Class::TwoSites, about)) {
            let what = format!("instrument {} was redeemed more than once", facts.evidence.instrument);
            self.open_case(Class::TwoSites, about, what, decision);
        }
    }

    fn judge_account(&mut self, now: Now, account: AccountId, decision: &mut Decision) {
        let target = self.revoked_target(account);
        let about = About::account(account);
        self.correct(now, Class::Revoked, about, Some(target), decision);
        if self.arrears(account) == Money::ZERO || self.conflicts.is_barred(account, now.wall_s) {
            return;
        }
        if let Some((one, other)) = self.spent_twice(account) {
            let what = format!(
                "one balance was spent at {} and {}, neither knew of the other",
                one.gateway, other.gateway
            );
            self.open_case(Class::TwoSites, about, what, decision);
            let until_s = now.wall_s.saturating_add(BARRED_S);
            self.take_event(Event::Barred { account, until_s }, decision);
        }
    }

    /// Two unsecured sessions of an account at different sites, each granted on a list that did not know the other's
    /// charge.
    fn spent_twice(&self, account: AccountId) -> Option<(&Facts, &Facts)> {
        let range = (account, SessionId([0; 16]))..=(account, SessionId([255; 16]));
        let mut drawn: Vec<&Facts> = self
            .conflicts
            .index
            .by_account
            .range(range)
            .filter_map(|(_, session)| self.conflicts.facts.get(session))
            .filter(|facts| facts.is_captured() && facts.is_unsecured())
            .collect();
        // Only the newest matter: what older lists did not know, the present ones do.
        drawn.sort_unstable_by_key(|facts| std::cmp::Reverse(facts.known_from));
        drawn.truncate(SPENT_TWICE_SESSIONS_MAX);
        let unknown = |one: &Facts, other: &Facts| one.evidence.list_revision < other.known_from;
        drawn.iter().enumerate().find_map(|(i, one)| {
            let twin = drawn[i + 1..]
                .iter()
                .find(|other| other.gateway != one.gateway && unknown(one, other) && unknown(other, one))?;
            Some((*one, *twin))
        })
    }

    fn open_case(&mut self, class: Class, about: About, what: String, decision: &mut Decision) {
        if self.conflicts.cases.contains_key(&(class, about)) {
            return;
        }
        let case = Case { class, about, what };
        decision.effects.push(Effect::Alarm(Alarm::Case(case.clone())));
        self.take_event(Event::CaseOpened(case), decision);
    }

    /// Brings one correction to its target.
    fn correct(&mut self, now: Now, class: Class, about: About, target: Option<Target>, decision: &mut Decision) {
        let booked = self.conflicts.corrections.get(&(class, about)).copied();
        let wanted = target.as_ref().filter(|target| target.amount > Money::ZERO);
        let lines = lines_between(booked, wanted);
        if lines.is_empty() {
            return;
        }
        let pair = wanted.map(|target| (target.debit, target.credit));
        let (debit, credit) = pair
            .or_else(|| booked.map(|correction| (correction.debit, correction.credit)))
            .expect("there are lines only if something is booked or wanted");
        let reason = wanted.map_or_else(
            || "no longer so, by later facts".to_owned(),
            |target| target.reason.clone(),
        );
        let adjustment = Adjustment {
            number: self.conflicts.number + 1,
            class,
            act: Act::Correct,
            about,
            debit,
            credit,
            total: wanted.map_or(Money::ZERO, |target| target.amount),
            lines,
            reason,
            wall_s: now.wall_s,
        };
        decision.effects.push(Effect::Alarm(Alarm::Adjusted {
            number: adjustment.number,
            class,
            about,
            total: adjustment.total,
        }));
        self.take_event(Event::Adjusted(adjustment), decision);
    }
}

/// Most sessions compared for one balance spent twice: as many as one outage brings.
const SPENT_TWICE_SESSIONS_MAX: usize = 64;

/// The lines from what is booked to what is wanted.
fn lines_between(booked: Option<Correction>, wanted: Option<&Target>) -> Vec<AdjustmentLine> {
    let line = |debit, credit, amount| AdjustmentLine {
        phase: Phase::Direct,
        debit,
        credit,
        amount,
    };
    match (booked, wanted) {
        (None, None) => Vec::new(),
        (None, Some(to)) => vec![line(to.debit, to.credit, to.amount)],
        (Some(from), None) => vec![line(from.credit, from.debit, from.amount)],
        (Some(from), Some(to)) if (from.debit, from.credit) == (to.debit, to.credit) => {
            let more = to.amount.saturating_sub(from.amount);
            match more.cmp(&Money::ZERO) {
                std::cmp::Ordering::Equal => Vec::new(),
                std::cmp::Ordering::Greater => vec![line(to.debit, to.credit, more)],
                std::cmp::Ordering::Less => vec![line(to.credit, to.debit, Money::ZERO.saturating_sub(more))],
            }
        }
        (Some(from), Some(to)) => vec![
            line(from.credit, from.debit, from.amount),
            line(to.debit, to.credit, to.amount),
        ],
    }
}

fn accounts_of(adjustment: &Adjustment) -> impl Iterator<Item = Account> + '_ {
    adjustment.lines.iter().flat_map(|line| [line.debit, line.credit])
}

fn customers(adjustment: &Adjustment) -> impl Iterator<Item = AccountId> + '_ {
    accounts_of(adjustment).filter_map(|account| match account {
        Account::Customer(account) => Some(account),
        Account::Clearing
        | Account::Revenue(_)
        | Account::Lease(..)
        | Account::Prepaid
        | Account::Loss(_)
        | Account::Dispute => None,
    })
}

/// What a gateway's clock shows against the hub's and against its own monotonic clock: an offset in s to alarm about.
pub(crate) fn clock_skew(known: Option<&(u32, i64)>, record: &LedgerRecord, now: Now) -> Option<i64> {
    if record.at.quality != ClockQuality::Synchronised {
        return None;
    }
    // Records are of the past; one of the future shows a clock that is ahead.
    let ahead_s = record.at.wall_s as i64 - now.wall_s as i64;
    if ahead_s > CLOCK_SKEW_S_MAX {
        return Some(ahead_s);
    }
    let stepped_s = known
        .filter(|(boot, _)| *boot == record.boot)
        .map(|(_, offset_s)| clock_offset_s(record) - offset_s)?;
    (stepped_s.abs() > CLOCK_SKEW_S_MAX).then_some(stepped_s)
}

/// Wall clock less monotonic clock, in s: constant within a boot unless somebody set the clock.
pub(crate) fn clock_offset_s(record: &LedgerRecord) -> i64 {
    (record.at.wall_s as i64).saturating_sub((record.at.mono_ms / 1000) as i64)
}
