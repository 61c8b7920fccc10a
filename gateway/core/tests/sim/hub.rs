//! The operator's hub, truthful, and the cloud in front of it, which may lie, hang, or be dark. The hub keeps its own
//! accounts; it shares nothing with the gateway but the contract.

use std::collections::BTreeMap;

use gateway_core::Input;
use proto::{
    artifact::{self, ListEntry, Revocations, Revoked, TariffOf, TariffTable, Whitelist},
    book::Book,
    codec,
    id::{Hash, Kind, SessionId, TokenHash},
    link::{Answer, Ask, LedgerReceipt, LedgerRecord, Mark as Judgement, NOTES_MAX, Note, Verdict, Welcome, chain},
    money::Money,
    tariff::{Dimension, PriceElement, Tariff},
    trust::Issuer,
};

use crate::random::Random;

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
    Throttles,
    /// Answers to other questions, about other tokens.
    Confused,
    /// Any of these, each time.
    Mixed,
}

impl Mood {
    pub(crate) const ALL: [Self; 8] = [
        Self::Healthy,
        Self::Dark,
        Self::Hangs,
        Self::NotFound,
        Self::Denies,
        Self::Throttles,
        Self::Confused,
        Self::Mixed,
    ];
}

/// A token as the operator knows it.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) hash: TokenHash,
    pub(crate) account: u64,
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
    issuer: Issuer,
    pub(crate) list: Option<(u64, Input)>,
    pub(crate) revocations: Option<(u64, Input)>,
    pub(crate) tariffs: Option<(u64, Input)>,
    revision: u64,
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
            issuer: Issuer::from_seed(&[5; 32]),
            list: None,
            revocations: None,
            tariffs: None,
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

    /// The truth about a token, now.
    pub(crate) fn answer(&self, ask: &Ask) -> Answer {
        let token = self
            .tokens
            .iter()
            .find(|token| token.hash == ask.token && !token.is_stranger);
        let is_probe = ask.session == SessionId::ZERO;
        let can_pay = |token: &Token| is_probe || self.balance(token.account) > 0;
        let verdict = match token {
            Some(token) if token.is_valid && !token.is_revoked && can_pay(token) => Verdict::Accept,
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

    /// A new list; cut short if it is to be set aside by the gate.
    pub(crate) fn publish_list(&mut self, wall_s: u64, cut_short: bool) {
        self.revision += 1;
        let listed = self.tokens.iter().filter(|token| token.is_listed && !token.is_stranger);
        let entry = |token: &Token| ListEntry {
            token: token.hash,
            account: token.account,
            group: 0,
            valid: token.is_valid && !token.is_revoked,
            whitelist: token.whitelist,
            credential_revision: token.revision,
            balance: Money(self.balance(token.account)),
            not_after_s: 0,
            lease_only: false,
        };
        let mut entries: Vec<ListEntry> = listed.map(entry).collect();
        if cut_short {
            entries.truncate(entries.len() / 2);
        }
        let (envelope, chunks) =
            artifact::sign_list(&self.issuer, self.revision, wall_s, entries).expect("a short list can be signed");
        let list = artifact::verify_list(&envelope, &chunks, &[self.issuer.key()]).expect("signed just now");
        self.list = Some((self.revision, Input::List(list)));
    }

    pub(crate) fn publish_revocations(&mut self) {
        self.revision += 1;
        let revoked = self.tokens.iter().filter(|token| token.is_revoked);
        let entries = revoked.map(|token| Revoked {
            token: token.hash,
            credential_revision: token.revision,
        });
        let set = Revocations {
            revision: self.revision,
            entries: entries.collect(),
        };
        self.revocations = Some((self.revision, Input::Revocations(set)));
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
        self.tariffs = Some((self.revision, Input::Tariffs(table)));
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
