//! The hash chain: each record's hash covers its predecessor's, its sequence and its bytes.
//!
//! Public, so that whoever receives records can recompute the chain and compare heads.

use std::fmt;

use crate::digest::Sha256;

/// Domain separation: a chain hash can never be mistaken for another SHA-256 of this product.
const GENESIS_DOMAIN: &[u8] = b"holdfast journal genesis 1";
const RECORD_DOMAIN: &[u8] = b"holdfast journal record 1";

/// A position in the journal: the last record's sequence and the chain hash over everything up to it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// Sequence of the last record; records count from 1, 0 means none.
    pub sequence: u64,
    /// Chain hash after that record; for sequence 0 the genesis hash of the store.
    pub hash: [u8; 32],
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.hash;
        write!(f, "Head({} {a:02x}{b:02x}{c:02x}{d:02x}..)", self.sequence)
    }
}

impl Head {
    /// The head after `bytes` is appended to this one.
    #[must_use]
    pub fn next(self, bytes: &[u8]) -> Head {
        let sequence = self.sequence + 1;
        Head {
            sequence,
            hash: chain_hash(&self.hash, sequence, bytes),
        }
    }
}

/// Chain hash of a store before its first record: distinct for every store ever created.
#[must_use]
pub fn genesis_hash(store_id: &[u8; 16]) -> [u8; 32] {
    Sha256::of(&[GENESIS_DOMAIN, store_id])
}

/// Chain hash after the record `sequence` with content `bytes`, given the hash before it.
#[must_use]
pub fn chain_hash(previous: &[u8; 32], sequence: u64, bytes: &[u8]) -> [u8; 32] {
    // The length is implied: everything before `bytes` has a fixed size.
    Sha256::of(&[RECORD_DOMAIN, previous, &sequence.to_be_bytes(), bytes])
}
