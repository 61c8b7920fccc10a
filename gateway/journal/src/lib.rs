//! Durable, hash-chained record store: append-only segments are the truth, and what can be derived from them lies in sled.
//!
//! Records are opaque bytes, numbered from 1. What is promised:
//! - **Durable**: when [`Journal::append`] returns, its records survive a power cut: one `pwrite` into blocks that were
//!   written before, one `fdatasync`. A failed sync is never retried: the journal is poisoned until it is reopened.
//! - **Atomic**: one append is one frame. After a crash, all records of one append are found, or none.
//! - **Chained and gap-free**: each record's hash covers its predecessor's ([`chain_hash`]).
//! - **Damage is named, never silently dropped**: by segment, byte and sequences; in the newest segment at open
//!   ([`Reader::damage_at_open`]), elsewhere when it is read, everywhere by [`verify`]. What is whole is still served.
//! - **Rebuilt**: whatever happens to sled's files, [`Reader::latest_snapshot`] answers with the base or `None`, and base
//!   and segments make the state again.
//!
//! A directory holds `lock`, `witness`, `log/` with the segments, `store/` (sled: snapshots) and, once records were pruned,
//! `base`. One process at a time; within it one [`Journal`] writes, any number of [`Reader`]s read.
//!
//! What is assumed of the disk: a write that a power cut interrupts leaves each sector of 512 bytes old or new, and leaves
//! sectors that it does not touch alone (powersafe overwrite). The last sector of one append may be the first of the next.
//!
//! The witness catches what the log cannot know about itself: that its end, or all of it, is gone. After a kill it detects
//! the loss of any acknowledged append; after a power cut, any loss reaching back to its last sync, which is at most 256
//! appends or one second of appending old (call [`Journal::sync_witness`] when idle). It cannot detect a log and witness
//! set back together, say from a backup: compare [`Reader::head`] with whoever holds receipts.
//!
//! sled panics over some damaged files. Such a panic becomes an error here, which takes unwinding: in a binary built with
//! `panic = "abort"` a damaged store ends the process instead of being put aside.

mod background;
mod base;
mod cells;
mod chain;
mod check;
mod digest;
mod disk;
mod engine;
mod error;
mod format;
mod frame;
mod journal;
mod log;
mod open;
mod prune;
mod reader;
mod restore;
mod scan;
mod segment;
mod slot;
mod snapshot;
mod space;
mod witness;

pub use background::{Background, Haste, Written};
pub use chain::{Head, chain_hash, genesis_hash};
pub use disk::{Disk, DiskFile, Job, LockFailed, RealDisk};
pub use engine::{Change, Engine, Row};
pub use error::{AppendError, OpenError, ReadError, SnapshotError};
pub use journal::{BATCH_RECORDS_MAX, Journal, META_BYTES_MAX, META_CELLS_MAX, META_NAME_BYTES_MAX, RECORD_BYTES_MAX};
pub use log::{SEGMENT_BYTES_DEFAULT, SyncHook, SyncTarget};
pub use open::{CACHE_BYTES_DEFAULT, Identity, Options, is_held};
pub use prune::{PRUNE_SEGMENTS_MAX, PruneError, Pruned};
pub use reader::{Reader, Record};
pub use restore::{Lost, Restore, Salvaged, discard_derived, open_for_restore, verify};
pub use snapshot::{SNAPSHOT_CHUNK_BYTES_MAX, SnapshotReader, SnapshotWriter};
