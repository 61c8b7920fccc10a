//! What is added up over one span. Memory: one row for each token and sixteen bytes for each charge of the span.

use alloc::{
    collections::{BTreeMap, BTreeSet},
    format,
    string::{String, ToString},
    vec::Vec,
};

use proto::{
    artifact::Revoked,
    id::{Kind, SessionId, TokenHash},
    link::{LedgerRecord, OrderOutcome, OrderVerb, RecordKind},
    message::{Closing, RefusalReason},
};

use super::{Alarm, Change, Ledger, Otherwise, Risk, Served, Sum};
use crate::{
    authorize::Rule,
    event::{Closed, Granted, Refused},
    grounds::CloudWord,
    time::Now,
    words::Moment,
};

/// Most changes of mode that are told one by one: a cloud that flaps for a day must not fill the report.
const CHANGES_MAX: usize = 100;
/// Most different alarms that are told.
const ALARMS_MAX: usize = 100;
/// Most refused tokens that are told apart: who tries out numbers for three days must not fill the memory.
const REFUSED_TOKENS_MAX: usize = 100_000;

/// A moment in all its parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) journal: u64,
    pub(super) now: Now,
    pub(super) boot: u32,
    /// The wall clock, or what it must be, in s.
    pub(super) wall_s: Option<u64>,
}

impl At {
    pub(super) fn moment(&self, offset_min: i16) -> Moment {
        Moment::new(&self.now, self.boot, offset_min)
    }

    /// Milliseconds from here to a later moment.
    pub(super) fn until_ms(&self, later: &Self) -> Option<u64> {
        if self.boot == later.boot {
            return Some(later.now.mono_ms.saturating_sub(self.now.mono_ms));
        }
        let (from_s, to_s) = (self.wall_s?, later.wall_s?);
        Some(to_s.saturating_sub(from_s) * 1000)
    }
}

/// A session that was granted in the span and is open.
#[derive(Clone, Copy, Debug)]
struct Open {
    token: TokenHash,
    kind: Kind,
    rule: Rule,
    cloud: CloudWord,
    hold: i64,
    unsecured: bool,
    silent: bool,
}

/// What one token did in the span.
#[derive(Clone, Copy, Debug, Default)]
struct User {
    charged: Sum,
    credential_revision: u64,
    without_cloud: bool,
    revoked: bool,
}

/// The sums of one span.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub(super) began: At,
    pub(super) ended: Option<At>,
    pub(super) last: At,
    pub(super) changes: Vec<(At, &'static str, &'static str, String)>,
    pub(super) change_count: u64,
    pub(super) first_good: Option<At>,
    pub(super) receipted: Option<At>,
    served: Served,
    pub(super) ledger: Ledger,
    risk: Risk,
    exposure_max_at: Option<At>,
    otherwise: Otherwise,
    alarms: Vec<(At, String, u64)>,
    open: BTreeMap<SessionId, Open>,
    users: BTreeMap<TokenHash, User>,
    refused: BTreeSet<(TokenHash, Kind)>,
    /// Sequence and amount of every charge of a session of the span, ascending.
    charges: Vec<(u64, i64)>,
    /// How often each verb of an order had each outcome.
    pub(super) orders: BTreeMap<String, u64>,
}

impl Window {
    pub(super) fn new(began: At) -> Self {
        Self {
            began,
            ended: None,
            last: began,
            changes: Vec::new(),
            change_count: 0,
            first_good: None,
            receipted: None,
            served: Served::default(),
            ledger: Ledger::default(),
            risk: Risk::default(),
            exposure_max_at: None,
            otherwise: Otherwise::default(),
            alarms: Vec::new(),
            open: BTreeMap::new(),
            users: BTreeMap::new(),
            refused: BTreeSet::new(),
            charges: Vec::new(),
            orders: BTreeMap::new(),
        }
    }

    pub(super) fn ordered(&mut self, verb: OrderVerb, outcome: OrderOutcome) {
        let key = format!("{} {}", verb.word(), outcome.word());
        *self.orders.entry(key).or_default() += 1;
    }

    pub(super) fn change(&mut self, at: At, capability: &'static str, mode: &'static str, because: String) {
        self.change_count += 1;
        if self.changes.len() < CHANGES_MAX {
            self.changes.push((at, capability, mode, because));
        }
    }

    pub(super) fn alarm(&mut self, at: At, text: String) {
        if let Some((_, _, count)) = self.alarms.iter_mut().find(|(_, known, _)| *known == text) {
            *count += 1;
        } else if self.alarms.len() < ALARMS_MAX {
            self.alarms.push((at, text, 1));
        }
    }

    /// A ledger record was written in the span. `hold`: what the session held.
    pub(super) fn record(&mut self, record: &LedgerRecord, hold: Option<i64>) {
        let ledger = &mut self.ledger;
        if ledger.first == 0 {
            ledger.first = record.sequence;
        }
        ledger.last = record.sequence;
        match record.kind {
            RecordKind::Hold => ledger.held.add(record.amount.0),
            RecordKind::Capture => {
                ledger.captured.add(record.amount.0);
                let revenue = ledger.revenue.entry(record.device_kind.word().to_string()).or_default();
                *revenue += record.amount.0;
            }
            RecordKind::Void => ledger.voided.add(hold.unwrap_or(record.amount.0)),
            RecordKind::LeaseReturn => ledger.returned.add(record.amount.0),
            RecordKind::LeaseTaken | RecordKind::Started | RecordKind::Indeterminate | RecordKind::Other => {}
        }
    }

    pub(super) fn granted(&mut self, at: At, e: &Granted) {
        let (request, terms) = (&e.request, &e.terms);
        let hold = terms.money_max.0;
        self.served.granted.add(hold);
        if terms.unsecured {
            self.served.unsecured.add(hold);
        }
        self.risk.site_budget = e.grounds.caps.site_budget.0;
        if e.exposure.0 > self.risk.exposure_max {
            self.risk.exposure_max = e.exposure.0;
            self.exposure_max_at = Some(at);
        }
        let user = self.users.entry(request.token).or_default();
        user.credential_revision = user.credential_revision.max(terms.evidence.credential_revision);
        user.without_cloud |= e.rule != Rule::Cloud;
        let open = Open {
            token: request.token,
            kind: request.kind,
            rule: e.rule,
            cloud: e.grounds.cloud,
            hold,
            unsecured: terms.unsecured,
            silent: false,
        };
        self.open.insert(request.session, open);
    }

    pub(super) fn refused(&mut self, e: &Refused) {
        *self.served.refused.entry(e.reason.word().to_string()).or_default() += 1;
        let sum = match e.reason {
            RefusalReason::Revoked | RefusalReason::Invalid | RefusalReason::Denied | RefusalReason::Replay => {
                &mut self.otherwise.accepted_bad
            }
            RefusalReason::Unknown => &mut self.otherwise.accepted_unknown,
            RefusalReason::OnlineRequired => &mut self.otherwise.accepted_never,
            RefusalReason::Other
            | RefusalReason::DeviceState
            | RefusalReason::Rate
            | RefusalReason::Concurrent
            | RefusalReason::NoCredit
            | RefusalReason::ListExpired
            | RefusalReason::NoTariff
            | RefusalReason::Version
            | RefusalReason::Storage
            | RefusalReason::Reserved
            // An instrument that proves nothing is refused whatever one believes of the cloud.
            | RefusalReason::Forged
            | RefusalReason::Elsewhere
            | RefusalReason::Expired
            | RefusalReason::LockedOut
            | RefusalReason::Clock => return,
        };
        let key = (e.request.token, e.request.kind);
        if self.refused.len() < REFUSED_TOKENS_MAX && self.refused.insert(key) {
            sum.add(e.grounds.caps.money_max.0);
        }
    }

    pub(super) fn silent(&mut self, session: &SessionId, silent: bool) {
        if let Some(open) = self.open.get_mut(session) {
            open.silent = silent;
        }
    }

    pub(super) fn secured(&mut self, session: &SessionId) {
        if let Some(open) = self.open.get_mut(session) {
            open.unsecured = false;
            self.served.secured_later.add(open.hold);
        }
    }

    pub(super) fn closed(&mut self, e: &Closed) {
        let Some(open) = self.open.remove(&e.session) else {
            return;
        };
        match e.closing {
            Closing::Captured => {
                self.charge(&open, e.amount.0);
                self.served.captured.add(e.amount.0);
                if open.unsecured {
                    self.served.captured_unsecured.add(e.amount.0);
                }
                if e.amount.0 > 0 {
                    self.charges.push((e.record.sequence, e.amount.0));
                }
            }
            Closing::Voided | Closing::Other | Closing::Unknown => {
                self.charge(&open, 0);
                self.served.voided.add(open.hold);
            }
        }
    }

    /// Adds a session to what it belongs to, with what it came to.
    fn charge(&mut self, open: &Open, amount: i64) {
        self.served
            .by_kind
            .entry(open.kind.word().to_string())
            .or_default()
            .add(amount);
        self.served.by_rule.entry(open.rule.step()).or_default().add(amount);
        if let Some(user) = self
            .users
            .get_mut(&open.token)
            .filter(|_| open.unsecured && open.rule != Rule::Unknown)
        {
            user.charged.add(amount);
        }
        if open.rule == Rule::Unknown {
            self.risk.lost_emergency.add(amount);
        }
        if open.rule == Rule::Cloud {
            return;
        }
        let otherwise = &mut self.otherwise;
        otherwise.refused_without_cloud.add(amount);
        if open.cloud.is_unbacked_no() {
            let said = otherwise.believed.entry(open.cloud.word().to_string()).or_default();
            said.add(amount);
        } else {
            otherwise.not_asked.add(amount);
        }
    }

    /// Tokens are revoked that were granted before in the span.
    pub(super) fn revoked(&mut self, entries: &[Revoked]) {
        for entry in entries {
            if let Some(user) = self.users.get_mut(&entry.token) {
                user.revoked |= user.credential_revision <= entry.credential_revision;
            }
        }
    }

    /// The hub has committed everything up to here.
    pub(super) fn receipt(&mut self, at: At, upto: u64) {
        self.ledger.receipted = upto;
        if self.ended.is_some() && self.receipted.is_none() && upto >= self.ledger.last {
            self.receipted = Some(at);
        }
    }

    /// The sums, as a report has them.
    pub(super) fn sums(mut self, offset_min: i16) -> (Served, Ledger, Risk, Otherwise, Vec<Alarm>, Vec<Change>) {
        for open in core::mem::take(&mut self.open).into_values() {
            self.charge(&open, 0);
            self.served.open.add(open.hold);
            if open.silent {
                self.served.silent.add(open.hold);
            }
        }
        let receipted = self.ledger.receipted;
        for &(_, amount) in self.charges.iter().filter(|(sequence, _)| *sequence > receipted) {
            self.served.unreceipted.add(amount);
        }
        self.served.users = self.users.len() as u64;
        self.otherwise.refused_users = self.users.values().filter(|user| user.without_cloud).count() as u64;
        for user in self.users.values().filter(|user| user.revoked) {
            self.risk.lost_revoked.sessions += user.charged.sessions;
            self.risk.lost_revoked.amount += user.charged.amount;
        }
        self.risk.silent = self.served.silent;
        self.risk.exposure_max_at = self.exposure_max_at.map(|at| at.moment(offset_min));
        let alarms = self.alarms.into_iter().map(|(at, text, count)| Alarm {
            at: at.moment(offset_min),
            text,
            count,
        });
        let changes = self.changes.into_iter().map(|(at, capability, mode, because)| Change {
            at: at.moment(offset_min),
            capability: capability.to_string(),
            mode: mode.to_string(),
            because,
        });
        let (alarms, changes) = (alarms.collect(), changes.collect());
        (self.served, self.ledger, self.risk, self.otherwise, alarms, changes)
    }
}
