//! The part of the journal that has no receipt yet. The records themselves stay in the journal; here are the head, the
//! chain over them and the cursor.

use alloc::collections::BTreeMap;

use proto::{
    id::Hash,
    link::{LedgerRecord, Mark, chain},
};

/// Most remarks of the backend that are remembered; beyond it the oldest are forgotten here, not there.
const MARKS_MAX: usize = 1_000;

/// Where the outbox stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    pub(crate) head: u64,
    pub(crate) chain: Hash,
    pub(crate) cursor: u64,
    /// What became of records that were not simply booked.
    pub(crate) marks: BTreeMap<u64, Mark>,
    /// Records of this epoch that the backend quarantined.
    pub(crate) quarantined: u64,
}

impl Outbox {
    /// Sequence of the newest record; 0: none.
    #[must_use]
    pub const fn head(&self) -> u64 {
        self.head
    }

    /// Sequence of the last record with a receipt; 0: none.
    #[must_use]
    pub const fn cursor(&self) -> u64 {
        self.cursor
    }

    /// Chain hash at the head.
    #[must_use]
    pub const fn chain(&self) -> Hash {
        self.chain
    }

    /// What the backend said of a record beside its receipt.
    #[must_use]
    pub fn mark(&self, sequence: u64) -> Option<Mark> {
        self.marks.get(&sequence).copied()
    }

    /// All remarks of the backend, by record.
    pub fn marks(&self) -> impl Iterator<Item = (u64, Mark)> {
        self.marks.iter().map(|(sequence, mark)| (*sequence, *mark))
    }

    /// Records that the backend keeps aside, because it cannot book them.
    #[must_use]
    pub const fn quarantined(&self) -> u64 {
        self.quarantined
    }

    pub(crate) fn note(&mut self, sequence: u64, mark: Mark, quarantined: u64) {
        self.marks.insert(sequence, mark);
        self.quarantined = quarantined;
        while self.marks.len() > MARKS_MAX {
            self.marks.pop_first();
        }
    }

    /// Receipts count within an epoch: in a new one every record is told again.
    pub(crate) const fn begin_epoch(&mut self) {
        (self.cursor, self.quarantined) = (0, 0);
    }

    /// Records without a receipt.
    #[must_use]
    pub const fn waiting(&self) -> u64 {
        self.head - self.cursor
    }

    pub(crate) fn push(&mut self, record: &LedgerRecord) {
        assert_eq!(
            record.sequence,
            self.head + 1,
            "ledger records are numbered without a gap"
        );
        self.head = record.sequence;
        self.chain = chain(&self.chain, &proto::codec::to_vec(record));
    }
}
