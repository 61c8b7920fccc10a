//! The part of the journal that has no receipt yet. The records themselves stay in the journal; here are the head, the
//! chain over them and the cursor.

use proto::{
    id::Hash,
    link::{LedgerRecord, chain},
};

/// Where the outbox stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbox {
    pub(crate) head: u64,
    pub(crate) chain: Hash,
    pub(crate) cursor: u64,
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
