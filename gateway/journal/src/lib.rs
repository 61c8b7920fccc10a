//! Durable, hash-chained record store: sled with group commit, fdatasync and a witness.
//!
//! Records are opaque bytes, numbered from 1. What is promised:
//! - **Durable**: when [`Journal::append`] returns, its records survive a power cut (sled's flush *and* an fdatasync of
//!   its data file). A failed sync is never retried: the journal is poisoned until it is reopened.
//! - **Atomic**: after a crash, all records of one append are found, or none.
//! - **Chained and gap-free**: each record's hash covers its predecessor's ([`chain_hash`]).
//! - **Damage is named, never silently dropped**: at open for the header, the newest records and the
//!   [witness](OpenError::Behind); for everything else when it is read.
//!
//! A directory holds `lock`, `witness` and sled's own `store/`. One process at a time; within it one [`Journal`] writes,
//! any number of [`Reader`]s read.
//!
//! The witness catches what the store cannot know about itself: that its end, or all of it, is gone. (One flipped bit in
//! its newest 512 KiB is enough: sled takes it for the end of its log and opens without a word.) After a kill the witness
//! detects the loss of any acknowledged append; after a power cut, any loss reaching back to its last sync, which is at
//! most 256 appends or one second of appending old (call [`Journal::sync_witness`] when idle). It cannot detect a store
//! and witness set back together, say from a backup: compare [`Reader::head`] with whoever holds receipts.
//!
//! sled panics over some damaged files. Such a panic becomes an error here, which takes unwinding: in a binary built with
//! `panic = "abort"` a damaged store ends the process instead of being named.

mod chain;
mod error;
mod format;
mod journal;
mod open;
mod reader;
mod restore;
mod snapshot;
mod space;
mod store;
mod witness;

pub use chain::{Head, chain_hash, genesis_hash};
pub use error::{AppendError, OpenError, ReadError, SnapshotError};
pub use journal::{
    BATCH_RECORDS_MAX, Journal, META_BYTES_MAX, META_NAME_BYTES_MAX, PRUNE_GROUPS_MAX, PruneError, Pruned,
    RECORD_BYTES_MAX,
};
pub use open::{CACHE_BYTES_DEFAULT, Identity, Options};
pub use reader::{Reader, Record};
pub use restore::{Restore, open_for_restore};
pub use snapshot::{SNAPSHOT_CHUNK_BYTES_MAX, SnapshotReader, SnapshotWriter};
pub use store::{SyncHook, SyncTarget};
