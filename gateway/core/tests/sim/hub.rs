//! The operator's hub, truthful, and the cloud in front of it, which may lie, hang, or be dark. The hub keeps its own
//! accounts; it shares nothing with the gateway but the contract.

use std::collections::BTreeMap;

use gateway_core::config::Limits;
use proto::{
    artifact::{ListEntry, Reason, Revocations, Revoked, RevokedScope, Subject, TariffOf, TariffTable, Whitelist},
    book::Book,
    codec,
    id::{Hash, Kind, SessionId, TokenHash},
    link::{Answer, Ask, LedgerReceipt, LedgerRecord, Mark as Judgement, NOTES_MAX, Note, Verdict, Welcome, chain},
    money::{Money, Units},
    policy::{Class, ClassLimits, FreeVend, Policy, UnsignedDisable},
    tariff::{Dimension, PriceElement, Tariff},
};

use crate::{
    issuer::{Content, Office},
    random::Random,
};

/// The group of the master tokens, once a policy names it.
pub(crate) const MASTERS: u64 = 9;

/// What the operator's backend finds about a record: it does not matter here why.
pub(crate) const fn remark(sequence: u64) -> Option<Judgement> {
    match sequence % 97 {
        17 => Some(Judgement::Quarantined),
        34 => Some(Judgement::Disputed),
        51 => Some(Judgement::Adjusted),
        _ => None,
    }
}

/// How the cloud behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    Healthy,
    /// Nothing comes back.
    Dark,
    /// The answer comes, too late.
    Hangs,
    /// "key does not exist", and other errors in its own words.
    NotFound,
    /// A sealed denial that no newer credential backs.
    Denies,
    /// A sealed denial, that nothing backs, of a stable part of the tokens: an incomplete whitelist.
    DeniesPart(u8),
    /// Yes, whoever it is.
    AcceptsAll,
    /// Questions are answered; the operator's backend behind is not there.
    HalfDead,
    Throttles,
    /// Answers to other questions, about other tokens.
    Confused,
    /// Any of these, each time.
    Mixed,
}

impl Mood {
    pub(crate) const ALL: [Self; 12] = [
        Self::Healthy,
        Self::Dark,
        Self::Hangs,
        Self::NotFound,
        Self::Denies,
        Self::DeniesPart(20),
        Self::DeniesPart(60),
        Self::AcceptsAll,
        Self::HalfDead,
        Self::Throttles,
        Self::Confused,
        Self::Mixed,
    ];

    /// Whether an incomplete whitelist leaves this token out.
    pub(crate) fn leaves_out(self, token: &TokenHash) -> bool {
        let Self::DeniesPart(percent) = self else { return false };
        u16::from_be_bytes([token.0[0], token.0[1]]) % 100 < u16::from(percent)
    }
}

/// What is wrong with a list that is signed all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    Nothing,
    /// Half of it is missing.
    CutShort,
    Empty,
    /// Every balance is zero.
    Zeroed,
}

/// A token as the operator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) hash: TokenHash,
    pub(crate) account: u64,
    pub(crate) group: u64,
    /// Unknown to everybody.
    pub(crate) is_stranger: bool,
    pub(crate) is_listed: bool,
    pub(crate) is_valid: bool,
    pub(crate) is_revoked: bool,
    pub(crate) whitelist: Whitelist,
    pub(crate) revision: u64,
}

/// What a backup holds.
#[derive(Clone, Default)]
struct Ledger {
    book: Book,
    records: Vec<Vec<u8>>,
    hash: Hash,
}

pub(crate) struct Hub {
    pub(crate) tokens: Vec<Token>,
    balances: BTreeMap<u64, i64>,
    ledger: Ledger,
    backup: Ledger,
    pub(crate) office: Office,
    pub(crate) list: Option<Content>,
    pub(crate) revocations: Option<Content>,
    pub(crate) tariffs: Option<Content>,
    pub(crate) keys: Option<Content>,
    pub(crate) policy: Option<Content>,
    scopes: Vec<RevokedScope>,
    pub(crate) revision: u64,
}

impl Hub {
    pub(crate) fn new(tokens: Vec<Token>, random: &mut Random) -> Self {
        let balances = tokens
            .iter()
            .map(|token| (token.account, random.range(50, 6_000) as i64));
        Self {
            balances: balances.collect(),
            tokens,
            ledger: Ledger::default(),
            backup: Ledger::default(),
            office: Office::new(),
            list: None,
            revocations: None,
            tariffs: None,
            keys: None,
            scopes: Vec::new(),
            policy: None,
            revision: 0,
        }
    }

    /// How many people are not in the list.
    pub(crate) fn unlisted(&self) -> usize {
        self.tokens
            .iter()
            .filter(|token| !token.is_listed && !token.is_stranger)
            .count()
    }

    pub(crate) const fn book(&self) -> &Book {
        &self.ledger.book
    }

    pub(crate) fn records(&self) -> &[Vec<u8>] {
        &self.ledger.records
    }

    pub(crate) const fn upto(&self) -> u64 {
        self.ledger.records.len() as u64
    }

    fn balance(&self, account: u64) -> i64 {
        let spent = self.ledger.book.balance(&proto::book::Account::Customer(account));
        self.balances.get(&account).copied().unwrap_or(0) - spent.debits_posted.0 - spent.debits_pending.0
    }

    fn is_revoked(&self, token: &Token) -> bool {
        let account = Some(Subject::Account(token.account));
        token.is_revoked || self.scopes.iter().any(|scope| scope.read() == account)
    }

    /// The truth about a token, now.
    pub(crate) fn answer(&self, ask: &Ask) -> Answer {
        let token = self
            .tokens
            .iter()
            .find(|token| token.hash == ask.token && !token.is_stranger);
        let is_probe = ask.session == SessionId::ZERO;
        let can_pay = |token: &Token| is_probe || self.balance(token.account) > 0;
        let verdict = match token {
            Some(token) if token.is_valid && !self.is_revoked(token) && can_pay(token) => Verdict::Accept,
            Some(_) | None => Verdict::Deny,
        };
        Answer {
            ask: ask.ask,
            session: ask.session,
            token: ask.token,
            verdict,
            credential_revision: token.map_or(0, |token| token.revision),
            account: token.map_or(0, |token| token.account),
            money_max: Money(token.map_or(0, |token| self.balance(token.account))),
            lease: proto::artifact::Lease::default(),
        }
    }

    /// Commits records, each once. `None`: they do not follow what is known; the gateway begins again after a hello.
    pub(crate) fn commit(&mut self, first: u64, records: &[Vec<u8>]) -> (LedgerReceipt, bool) {
        let mut repeated = false;
        if first <= self.upto() + 1 {
            for (i, bytes) in records.iter().enumerate() {
                let sequence = first + i as u64;
                if let Some(known) = self.ledger.records.get(sequence as usize - 1) {
                    assert!(
                        known == bytes,
                        "record {sequence} was another one when it was first uploaded"
                    );
                    repeated = true;
                    continue;
                }
                let record: LedgerRecord = codec::decode(bytes).expect("what the gateway uploads can be read");
                assert_eq!(record.sequence, sequence, "a record is where its number says");
                self.ledger
                    .book
                    .book(&record)
                    .expect("the gateway's records fit the hub's book");
                self.ledger.hash = chain(&self.ledger.hash, bytes);
                self.ledger.records.push(bytes.clone());
            }
        }
        (self.receipt(), repeated)
    }

    fn receipt(&self) -> LedgerReceipt {
        LedgerReceipt {
            epoch: 1,
            upto: self.upto(),
            hash: self.ledger.hash,
            quarantined: 1,
            notes: self.remarks(),
        }
    }

    /// What it has to say about the newest records.
    fn remarks(&self) -> Vec<Note> {
        let newest = self.upto().saturating_sub(NOTES_MAX as u64)..=self.upto();
        let said = newest.filter_map(|sequence| remark(sequence).map(|mark| Note { sequence, mark }));
        said.collect()
    }

    pub(crate) fn welcome(&self) -> Welcome {
        Welcome {
            version: 1,
            epoch: 1,
            upto: self.upto(),
            hash: self.ledger.hash,
            wall_s: 0,
            ..Welcome::default()
        }
    }

    pub(crate) fn back_up(&mut self) {
        self.backup = self.ledger.clone();
    }

    /// Returns whether anything was lost.
    pub(crate) fn put_back(&mut self) -> bool {
        let lost = self.backup.records.len() < self.ledger.records.len();
        self.ledger = self.backup.clone();
        lost
    }

    /// A new list; something is wrong with its content if it is to be set aside by the gate.
    pub(crate) fn publish_list(&mut self, wall_s: u64, wrong: Wrong) {
        self.revision += 1;
        let listed = self.tokens.iter().filter(|token| token.is_listed && !token.is_stranger);
        let entry = |token: &Token| ListEntry {
            token: token.hash,
            account: token.account,
            group: token.group,
            valid: token.is_valid && !self.is_revoked(token),
            whitelist: token.whitelist,
            credential_revision: token.revision,
            balance: Money(self.balance(token.account)),
            not_after_s: 0,
            lease_only: false,
        };
        let mut entries: Vec<ListEntry> = listed.map(entry).collect();
        match wrong {
            Wrong::Nothing => {}
            Wrong::CutShort => entries.truncate(entries.len() / 2),
            Wrong::Empty => entries.clear(),
            Wrong::Zeroed => entries.iter_mut().for_each(|entry| entry.balance = Money::ZERO),
        }
        entries.sort_by_key(|entry| entry.token);
        self.office.publish_list(self.revision, &entries);
        self.list = Some(Content::List(self.revision, wall_s, entries));
    }

    /// Everything of an account, a device or a key is revoked, too.
    pub(crate) fn revoke(&mut self, subject: Subject) {
        self.scopes.push(RevokedScope::new(subject, Reason::Compromised));
        self.publish_revocations();
    }

    /// Another key signs from now on.
    pub(crate) fn rotate_keys(&mut self) {
        self.keys = Some(Content::Keys(self.office.rotate()));
    }

    pub(crate) fn publish_revocations(&mut self) {
        self.revision += 1;
        let revoked = self.tokens.iter().filter(|token| token.is_revoked);
        let entries = revoked.map(|token| Revoked {
            token: token.hash,
            credential_revision: token.revision,
            reason: Reason::Lost,
        });
        let set = Revocations {
            revision: self.revision,
            entries: entries.collect(),
            scopes: self.scopes.clone(),
        };
        self.revocations = Some(Content::Revocations(set));
    }

    /// New limits; sometimes such that the gate must set them aside.
    pub(crate) fn publish_policy(&mut self, wall_s: u64, active: &Limits, random: &mut Random) {
        self.revision += 1;
        let mut policy = policy_of(active, self.revision, wall_s);
        policy.site_budget = Money(active.site_budget.0 * random.range(60, 300) as i64 / 100);
        policy.classes.retain(|_| random.chance(8_000));
        for limits in &mut policy.classes {
            limits.outage_count_lower = random.below(u64::from(limits.outage_count_upper) + 1) as u32;
        }
        if random.chance(4_000) {
            policy.free_vend.push(FreeVend {
                class: random.pick(&[Class::Dispenser, Class::Charger, Class::Washer]),
                from_s: wall_s.saturating_sub(60),
                until_s: wall_s.saturating_add(random.range(600, 7_200)),
                units_max: Units(1_500),
            });
        }
        if random.chance(2_000) {
            policy.site_budget = Money::ZERO;
        }
        (policy.unsigned_disable, policy.unsigned_disable_s) = random.pick(&[
            (UnsignedDisable::Alert, 0),
            (UnsignedDisable::Alert, 0),
            (UnsignedDisable::SuspendAfter, 120),
            (UnsignedDisable::Immediate, 0),
        ]);
        policy.check().expect("the operator's form is sound");
        self.policy = Some(Content::Policy(policy));
    }

    /// New prices for some kinds.
    pub(crate) fn publish_tariffs(&mut self, kinds: &[Kind], random: &mut Random) {
        self.revision += 1;
        let entries = kinds.iter().map(|&kind| TariffOf {
            kind,
            tariff: tariff(kind, self.revision, random),
        });
        let table = TariffTable {
            revision: self.revision,
            entries: entries.collect(),
        };
        self.tariffs = Some(Content::Tariffs(table));
    }
}

fn policy_of(limits: &Limits, revision: u64, issued_s: u64) -> Policy {
    let column = |class: Class| {
        let own = limits.of(class).expect("the served classes have limits");
        ClassLimits {
            class,
            units_max: own.units_max,
            money_max: own.money_max,
            duration_max_s: own.duration_max_s,
            outage_count_lower: own.outage_count_lower,
            outage_count_upper: own.outage_count_max,
            outage_money_max: own.outage_money_max,
            emergency_units: own.emergency_units,
            invalidation_units: own.invalidation_units,
        }
    };
    Policy {
        revision,
        issued_s,
        classes: Class::SERVED.into_iter().map(column).collect(),
        site_budget: limits.site_budget,
        list_full_s: limits.list_full_s,
        list_half_s: limits.list_half_s,
        confirmation_s: limits.confirmation_s,
        attempts_a_minute_max: limits.attempts_a_minute_max,
        starts_an_hour_max: limits.starts_an_hour_max,
        device_change_ms: limits.device_change_ms,
        master_group: MASTERS,
        unsigned_disable: UnsignedDisable::Alert,
        unsigned_disable_s: 0,
        free_vend: Vec::new(),
    }
}

fn tariff(kind: Kind, revision: u64, random: &mut Random) -> Tariff {
    let (dimension, price) = match kind {
        Kind::Charger => (Dimension::Energy, random.range(20_000, 120_000) as i64),
        Kind::Washer => (Dimension::Cycle, random.range(100_000, 500_000) as i64),
        Kind::Dispenser | Kind::Unknown => (Dimension::Volume, random.range(10_000, 40_000) as i64),
    };
    let mut tariff = Tariff::flat(revision as u32, &[(dimension, price)]);
    match random.below(6) {
        0 => tariff.start_fee = Money(random.below(30) as i64),
        1 => tariff.minimum = Money(random.below(40) as i64),
        2 => tariff.cap = Money(random.range(60, 200) as i64),
        3 if kind == Kind::Charger => {
            let night = PriceElement {
                minute_from: 22 * 60,
                minute_to: 7 * 60,
                ..PriceElement::flat(dimension, price / 2)
            };
            tariff.elements.insert(0, night).expect("two of eight elements");
        }
        _ => {}
    }
    tariff
}
