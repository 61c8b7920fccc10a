//! The hub's state and its only mutator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proto::{
    artifact::{
        IssuerKeys, REVOCATIONS_MAX, Reason, Revocations, Revoked, RevokedScope, Subject, TariffTable, Whitelist,
    },
    book::{Account, Book},
    id::{AccountId, GatewayId, Hash, Kind, SessionId, TokenHash},
    link::{LedgerRecord, RecordKind},
    money::Money,
    policy::Policy,
    tariff::Tariff,
};

use super::{
    changes::ListStep,
    conflict::{Act, Adjustment, Conflicts, Correction, Facts, Standing},
    dispatch::Dispatches,
    event::{Event, RecordKey},
    lease::{LeaseKey, LeaseRow},
    publish::PublishedList,
    revocation::LogEntry,
};

/// Most closed sessions remembered, so that a restored gateway cannot have one booked again under a new epoch. Two
/// days of a campus at the test target of 100,000 sessions a day; about 10 MB.
pub const SESSIONS_CLOSED_MAX: usize = 200_000;
/// Most entries of one published window of revocations.
pub const REVOCATION_WINDOW: usize = REVOCATIONS_MAX;

/// What the operator says about a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRow {
    /// Whose account.
    pub account: AccountId,
    /// Tokens of one group may stop each other's sessions; 0: none.
    pub group: u64,
    /// Whether it may be used at all.
    pub valid: bool,
    /// When gateways ask.
    pub whitelist: Whitelist,
    /// Grows whenever the operator changes this token.
    pub credential_revision: u64,
    /// Not to be used after (seconds since 1970 UTC); 0: no end.
    pub not_after_s: u64,
    /// Whether the operator still has it. A token that is gone is unknown, but its revision is remembered.
    pub listed: bool,
}

/// Where a gateway stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GatewayRow {
    /// The epoch expected of it.
    pub epoch: u32,
    /// Number of its last known boot.
    pub boot: u32,
    /// Last committed record of the epoch.
    pub upto: u64,
    /// Chain hash at `upto`.
    pub hash: Hash,
    /// Epoch in which `counter` was seen.
    pub counter_epoch: u32,
    /// Counter of its last accepted hello.
    pub counter: u64,
    /// Records booked, in all epochs.
    pub booked: u64,
    /// Records quarantined, in all epochs.
    pub quarantined: u64,
    /// Records disputed, in all epochs.
    pub disputed: u64,
    /// Records of second claims on sessions, in all epochs.
    pub aside: u64,
}

/// Where a session's money stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionPhase {
    /// Set aside.
    Held,
    /// Captured or released.
    Closed,
}

/// A session that had a hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionRow {
    /// Whose.
    pub gateway: GatewayId,
    /// Who pays.
    pub payer: Account,
    /// What was held.
    pub hold: Money,
    /// Where it stands.
    pub phase: SessionPhase,
}

/// A record that was kept, but not booked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quarantined {
    /// As received.
    pub bytes: Vec<u8>,
    /// Why; empty while its bytes are still coming in.
    pub reason: String,
}

/// Two opinions on a charge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dispute {
    /// Which session.
    pub session: SessionId,
    /// What the gateway charged, and what is booked.
    pub charged: Money,
    /// What the hub computes; `None`: it has no tariff with that hash.
    pub computed: Option<Money>,
}

/// The hub.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hub {
    pub(crate) boot: u32,
    pub(crate) accounts: BTreeMap<AccountId, Money>,
    pub(crate) tokens: BTreeMap<TokenHash, TokenRow>,
    /// Credential revision up to which a token is revoked.
    pub(crate) revoked: BTreeMap<TokenHash, u64>,
    /// Every revocation, in the order in which it came.
    pub(crate) revocation_log: Vec<LogEntry>,
    /// Accounts, devices and keys that are revoked.
    pub(crate) revoked_scopes: BTreeMap<Subject, Reason>,
    /// Revision of a published window and the length of the log at its end, ascending.
    pub(crate) revocation_ends: Vec<(u64, usize)>,
    pub(crate) tariffs: BTreeMap<Kind, Tariff>,
    /// Every tariff that was ever in force, for the audit of captures.
    pub(crate) tariffs_known: BTreeMap<Hash, Tariff>,
    pub(crate) list: Option<PublishedList>,
    pub(crate) list_stale: bool,
    /// What the last lists changed, oldest first.
    pub(crate) list_steps: VecDeque<ListStep>,
    /// The set of keys in force; none: the root signs.
    pub(crate) keys: Option<IssuerKeys>,
    pub(crate) tariff_table: Option<TariffTable>,
    pub(crate) tariffs_stale: bool,
    pub(crate) policy: Option<Policy>,
    pub(crate) gateways: BTreeMap<GatewayId, GatewayRow>,
    pub(crate) book: Book,
    pub(crate) sessions: BTreeMap<SessionId, SessionRow>,
    /// Closed sessions, oldest first.
    pub(crate) sessions_closed: VecDeque<SessionId>,
    pub(crate) quarantine: BTreeMap<RecordKey, Quarantined>,
    pub(crate) disputes: BTreeMap<RecordKey, Dispute>,
    pub(crate) conflicts: Conflicts,
    /// Accounts that are never served on credit.
    pub(crate) lease_only: BTreeSet<AccountId>,
    pub(crate) leases: BTreeMap<LeaseKey, LeaseRow>,
    /// Number of the newest lease.
    pub(crate) lease_last: u64,
    pub(crate) lease_revisions: BTreeMap<GatewayId, u64>,
    pub(crate) dispatches: Dispatches,
}

impl Hub {
    /// Number of this start of the process.
    #[must_use]
    pub const fn boot(&self) -> u32 {
        self.boot
    }

    /// All that was paid in to an account.
    #[must_use]
    pub fn deposit(&self, account: AccountId) -> Money {
        self.accounts.get(&account).copied().unwrap_or_default()
    }

    /// Accounts with the sum of their deposits.
    pub fn accounts(&self) -> impl Iterator<Item = (AccountId, Money)> {
        self.accounts.iter().map(|(account, deposit)| (*account, *deposit))
    }

    /// Tokens, those that are gone included.
    #[must_use]
    pub const fn tokens(&self) -> &BTreeMap<TokenHash, TokenRow> {
        &self.tokens
    }

    /// Whether a token is revoked in its present credential revision, or its account.
    #[must_use]
    pub fn is_revoked(&self, token: &TokenHash) -> bool {
        let row = self.tokens.get(token);
        let current = row.map_or(0, |row| row.credential_revision);
        let account = row.map(|row| Subject::Account(row.account));
        self.revoked.get(token).is_some_and(|revoked| *revoked >= current)
            || account.is_some_and(|account| self.revoked_scopes.contains_key(&account))
    }

    /// Accounts, devices and keys that are revoked, and why.
    #[must_use]
    pub const fn revoked_scopes(&self) -> &BTreeMap<Subject, Reason> {
        &self.revoked_scopes
    }

    /// The set of keys in force; none: the root signs.
    #[must_use]
    pub const fn keys(&self) -> Option<&IssuerKeys> {
        self.keys.as_ref()
    }

    /// The tariff in force for a kind.
    #[must_use]
    pub fn tariff(&self, kind: Kind) -> Option<&Tariff> {
        self.tariffs.get(&kind)
    }

    /// The list in force.
    #[must_use]
    pub const fn list(&self) -> Option<&PublishedList> {
        self.list.as_ref()
    }

    /// The price table in force.
    #[must_use]
    pub const fn tariff_table(&self) -> Option<&TariffTable> {
        self.tariff_table.as_ref()
    }

    /// Revision of the newest revocations; 0: none.
    #[must_use]
    pub fn revocations_revision(&self) -> u64 {
        self.revocation_ends.last().map_or(0, |(revision, _)| *revision)
    }

    /// The revocations of one published revision: the newest of them and those before it, up to
    /// [`REVOCATION_WINDOW`] in all.
    #[must_use]
    pub fn revocations(&self, revision: u64) -> Option<Revocations> {
        let (_, end) = self.revocation_ends.iter().find(|(r, _)| *r == revision)?;
        let mut set = Revocations {
            revision,
            ..Revocations::default()
        };
        for entry in &self.revocation_log[end.saturating_sub(REVOCATION_WINDOW)..*end] {
            match entry {
                LogEntry::Token(revoked) => set.entries.push(revoked.clone()),
                LogEntry::Scope(revoked) => set.scopes.push(revoked.clone()),
            }
        }
        Some(set)
    }

    /// Gateways that ever said hello.
    #[must_use]
    pub const fn gateways(&self) -> &BTreeMap<GatewayId, GatewayRow> {
        &self.gateways
    }

    /// The book of all gateways' records.
    #[must_use]
    pub const fn book(&self) -> &Book {
        &self.book
    }

    /// What is known of a session's money.
    #[must_use]
    pub fn session(&self, session: &SessionId) -> Option<&SessionRow> {
        self.sessions.get(session)
    }

    /// Records that are kept, but not booked, and wait for the operator.
    #[must_use]
    pub const fn quarantine(&self) -> &BTreeMap<RecordKey, Quarantined> {
        &self.quarantine
    }

    /// Charges on which gateway and hub disagree.
    #[must_use]
    pub const fn disputes(&self) -> &BTreeMap<RecordKey, Dispute> {
        &self.disputes
    }

    /// What outcomes of conflicts depend on, and the outcomes.
    #[must_use]
    pub const fn conflicts(&self) -> &Conflicts {
        &self.conflicts
    }

    /// Makes one change. Recovery is calling this for every event again, in order.
    pub fn apply(&mut self, event: &Event) {
        match event {
            Event::Booted { boot } => self.boot = *boot,
            Event::AccountSet { account, deposit } => {
                self.accounts.insert(*account, *deposit);
                self.list_stale = true;
            }
            Event::Dated { wall_s } => self.conflicts.wall_s = *wall_s,
            Event::TokenSet { token, row } => {
                self.tokens.insert(*token, row.clone());
                self.list_stale = true;
            }
            Event::Revoked {
                token,
                credential_revision,
                reason,
            } => self.apply_revoked(*token, *credential_revision, *reason),
            Event::ScopeRevoked { subject, reason } => self.apply_scope_revoked(*subject, *reason),
            Event::KeysPublished { epoch, keys } => {
                let (epoch, keys) = (*epoch, keys.clone());
                self.keys = Some(IssuerKeys { epoch, keys });
            }
            Event::TariffSet { kind, tariff } => {
                self.tariffs_known.insert(tariff.hash(), tariff.clone());
                self.tariffs.insert(*kind, tariff.clone());
                self.conflicts.price_set(*kind, tariff.hash());
                self.tariffs_stale = true;
            }
            Event::ListPublished { revision, issued_s } => {
                let list = self.freeze_list(*revision, *issued_s);
                self.step_list(&list);
                self.list = Some(list);
                self.list_stale = false;
            }
            Event::RevocationsPublished { revision } => {
                let from = self.revocations_published();
                let end = self.revocation_log.len().min(from + REVOCATION_WINDOW);
                self.conflicts.revoked(*revision, &self.revocation_log[from..end]);
                self.revocation_ends.push((*revision, end));
            }
            Event::TariffsPublished { revision } => {
                self.tariff_table = Some(self.freeze_tariffs(*revision));
                self.tariffs_stale = false;
            }
            Event::PolicyPublished { policy } => self.policy = Some(policy.clone()),
            Event::GatewaySeen {
                gateway,
                epoch,
                boot,
                counter,
            } => self.apply_seen(*gateway, *epoch, *boot, *counter),
            Event::GatewayFenced {
                gateway,
                epoch_from,
                epoch,
                counter,
            } => {
                let row = self.gateways.entry(*gateway).or_default();
                row.epoch = *epoch;
                row.upto = 0;
                row.hash = Hash::ZERO;
                row.counter_epoch = *epoch_from;
                row.counter = *counter;
            }
            Event::Booked { at, hash, record, .. } => self.apply_booked(at, *hash, record),
            Event::QuarantinePart { at, offset, bytes } => {
                let kept = &mut self.quarantine.entry(*at).or_default().bytes;
                kept.truncate(*offset as usize);
                kept.extend_from_slice(bytes);
            }
            Event::Quarantined { at, hash, reason } => {
                self.quarantine.entry(*at).or_default().reason.clone_from(reason);
                self.commit(at, *hash).quarantined += 1;
            }
            Event::QuarantineSettled(settling) => self.apply_settled(settling),
            Event::LeaseOnlySet { account, lease_only } => {
                match lease_only {
                    true => self.lease_only.insert(*account),
                    false => self.lease_only.remove(account),
                };
                self.list_stale = true;
            }
            Event::LeaseGiven {
                gateway,
                journal_epoch,
                revision,
                lease,
            } => self.apply_lease_given(*gateway, *journal_epoch, *revision, lease),
            Event::LeaseRecalled {
                account,
                epoch,
                revision,
            } => self.apply_lease_recalled((*account, *epoch), *revision),
            Event::LeaseReleased { account, epoch } => self.apply_lease_released((*account, *epoch)),
            Event::Disputed {
                at,
                session,
                charged,
                computed,
            } => {
                let dispute = Dispute {
                    session: *session,
                    charged: *charged,
                    computed: *computed,
                };
                if self.disputes.insert(*at, dispute).is_none() {
                    self.gateways.entry(at.gateway).or_default().disputed += 1;
                }
            }
            Event::Adjusted(adjustment) => self.apply_adjusted(adjustment),
            Event::Aside {
                at,
                hash,
                record,
                exists,
                ..
            } => {
                let row = self.commit(at, *hash);
                row.aside += 1;
                self.conflicts.set_aside(at, record, *exists);
            }
            Event::CaseOpened(case) => {
                self.conflicts.cases.insert((case.class, case.about), case.clone());
            }
            Event::Barred { account, until_s } => {
                self.conflicts.barred.insert(*account, *until_s);
                self.list_stale = true;
            }
            Event::DisputeWithdrawn { at } => drop(self.disputes.remove(at)),
            Event::Dispatched {
                gateway,
                order,
                issued_s,
            } => self.dispatches.given(*gateway, order, *issued_s),
            Event::DispatchOverdue { gateway, id } => self.dispatches.overdue(*gateway, *id),
            Event::DispatchAnswered { gateway, done } => self.dispatches.answered(*gateway, done),
        }
    }

    /// How many entries of the log were published.
    pub(crate) fn revocations_published(&self) -> usize {
        self.revocation_ends.last().map_or(0, |(_, end)| *end)
    }

    fn apply_scope_revoked(&mut self, subject: Subject, reason: Reason) {
        self.revoked_scopes.insert(subject, reason);
        let revoked = RevokedScope::new(subject, reason);
        self.revocation_log.push(LogEntry::Scope(revoked));
        self.list_stale = true;
    }

    fn apply_revoked(&mut self, token: TokenHash, credential_revision: u64, reason: Reason) {
        self.revoked.insert(token, credential_revision);
        self.revocation_log.push(LogEntry::Token(Revoked {
            token,
            credential_revision,
            reason,
        }));
        if let Some(row) = self.tokens.get_mut(&token) {
            row.credential_revision = row.credential_revision.max(credential_revision);
        }
        self.list_stale = true;
    }

    fn apply_seen(&mut self, gateway: GatewayId, epoch: u32, boot: u32, counter: u64) {
        let row = self.gateways.entry(gateway).or_default();
        if epoch > row.epoch {
            row.epoch = epoch;
            row.upto = 0;
            row.hash = Hash::ZERO;
        }
        // On a slow lane a hello comes after newer ones.
        if epoch > row.counter_epoch || counter > row.counter {
            (row.boot, row.counter_epoch, row.counter) = (boot, epoch, counter);
        }
    }

    fn commit(&mut self, at: &RecordKey, hash: Hash) -> &mut GatewayRow {
        let row = self.gateways.entry(at.gateway).or_default();
        debug_assert_eq!(
            (row.epoch, row.upto + 1),
            (at.epoch, at.sequence),
            "records are committed in order"
        );
        row.upto = at.sequence;
        row.hash = hash;
        row
    }

    fn apply_booked(&mut self, at: &RecordKey, hash: Hash, record: &LedgerRecord) {
        self.commit(at, hash).booked += 1;
        let lines = self
            .book
            .book(record)
            .expect("a record is judged by the same book before it becomes an event");
        for line in &lines {
            self.watch_arrears(line.debit);
        }
        self.note_facts(at, record);
        let session = record.session;
        let held = self.sessions.get(&session).map(|row| (row.payer, row.hold));
        self.follow_leases(at.gateway, at.epoch, record, held);
        match record.kind {
            RecordKind::Hold => {
                let row = SessionRow {
                    gateway: at.gateway,
                    payer: Account::payer(record.account, &record.evidence),
                    hold: record.amount,
                    phase: SessionPhase::Held,
                };
                self.sessions.insert(session, row);
            }
            RecordKind::Capture | RecordKind::Void => {
                if let Some(row) = self.sessions.get_mut(&session) {
                    row.phase = SessionPhase::Closed;
                }
                self.sessions_closed.push_back(session);
                while self.sessions_closed.len() > SESSIONS_CLOSED_MAX {
                    if let Some(oldest) = self.sessions_closed.pop_front() {
                        self.sessions.remove(&oldest);
                        self.conflicts.forget(&oldest);
                    }
                }
            }
            RecordKind::Started
            | RecordKind::Indeterminate
            | RecordKind::LeaseReturn
            | RecordKind::LeaseTaken
            | RecordKind::Other => {}
        }
    }

    fn note_facts(&mut self, at: &RecordKey, record: &LedgerRecord) {
        let known_from = self.list.as_ref().map_or(0, |list| list.revision) + 1;
        self.conflicts.see_clock(at, record);
        if record.kind == RecordKind::Hold {
            self.conflicts.put(record.session, Facts::held(at, record));
        } else if let Some(mut facts) = self.conflicts.take(&record.session) {
            facts.hear(at, record);
            facts.known_from = known_from;
            self.conflicts.put(record.session, facts);
        }
    }

    /// An account that owes is published as NEVER; so is one that no longer does.
    fn watch_arrears(&mut self, account: Account) {
        if let Account::Customer(account) = account {
            self.list_stale |= self.arrears(account) > Money::ZERO;
        }
    }

    fn apply_adjusted(&mut self, adjustment: &Adjustment) {
        let session = adjustment.about.session;
        for line in adjustment.transfers() {
            self.book
                .transfer(&line)
                .expect("an entry of the hub's own is made for this very book");
            self.list_stale |=
                matches!(line.debit, Account::Customer(_)) || matches!(line.credit, Account::Customer(_));
        }
        self.conflicts.number = adjustment.number;
        match adjustment.act {
            Act::Move => {}
            Act::Correct => {
                let key = (adjustment.class, adjustment.about);
                let correction = Correction {
                    debit: adjustment.debit,
                    credit: adjustment.credit,
                    amount: adjustment.total,
                };
                if adjustment.total > Money::ZERO {
                    self.conflicts.corrections.insert(key, correction);
                } else {
                    self.conflicts.corrections.remove(&key);
                }
            }
            Act::Displace => {
                let gateway = self.conflicts.session(&session).map(|facts| facts.gateway);
                self.disputes
                    .retain(|at, dispute| dispute.session != session || Some(at.gateway) != gateway);
                if let Some(facts) = self.conflicts.session(&session).filter(|facts| facts.is_open())
                    && let Account::Lease(account, lease) = facts.payer
                    && let Some(row) = self.leases.get_mut(&(account, lease))
                {
                    row.held = row.held.saturating_sub(facts.hold);
                }
                self.conflicts.displace(&session);
                self.sessions.remove(&session);
                self.sessions_closed.retain(|closed| *closed != session);
            }
            Act::Close => {
                self.stand(&session, SessionPhase::Closed, Standing::ClosedHere, adjustment.total);
                self.sessions_closed.push_back(session);
            }
            Act::Reopen => {
                self.stand(&session, SessionPhase::Held, Standing::Held, Money::ZERO);
                self.sessions_closed.retain(|closed| *closed != session);
            }
        }
    }

    fn stand(&mut self, session: &SessionId, phase: SessionPhase, standing: Standing, charged: Money) {
        if let Some(row) = self.sessions.get_mut(session) {
            row.phase = phase;
        }
        if let Some(mut facts) = self.conflicts.take(session) {
            facts.standing = standing;
            facts.charged = charged;
            self.conflicts.put(*session, facts);
        }
    }
}
