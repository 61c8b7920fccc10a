//! Everything that can go wrong, by the act that met it. Every error names the place: a sequence, a file, a cell.

use std::io;
use std::path::PathBuf;

use crate::chain::Head;

/// Why a journal was not opened. No record was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file or directory operation failed.
    #[error("{action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The directory is in use; `holder` is the process that wrote its id into the lock file.
    #[error("another process holds {path}{}", holder.map(|pid| format!(" (process {pid})")).unwrap_or_default())]
    Locked {
        /// The lock file.
        path: PathBuf,
        /// The process that holds it, if the file names one.
        holder: Option<u32>,
    },
    /// There is no journal here and `create` was not asked for.
    #[error("no journal in {0}, and none was to be created")]
    Missing(PathBuf),
    /// The store holds something, but no header of ours.
    #[error("{0} is not a journal: its header is missing or foreign")]
    NotAJournal(PathBuf),
    /// The store belongs to another kind of program.
    #[error("this is a {found:?} journal, not a {expected:?} one")]
    WrongKind {
        /// Kind in the header.
        found: String,
        /// Kind the caller asked for.
        expected: String,
    },
    /// The store was written by a newer program.
    #[error("{what} format {found} is newer than {supported}, the newest this program supports")]
    NewerFormat {
        /// `"journal"` for this crate's layout, else the kind.
        what: String,
        /// Version in the header.
        found: u32,
        /// Newest version understood here.
        supported: u32,
    },
    /// sled refused or panicked while opening.
    #[error("the storage engine could not open {path}: {message}")]
    Engine {
        /// sled's directory.
        path: PathBuf,
        /// What it said, or the panic's message.
        message: String,
    },
    /// The store opened, but its newest records are damaged.
    #[error("damaged: {0}")]
    Damaged(#[from] ReadError),
    /// The store lost its end, or everything: it stops before a record that the witness saw made durable. A single
    /// flipped bit does this: sled takes it for the end of its log, and opening has already made it so. Before any
    /// experiment, copy the directory.
    #[error("the store ends at record {}, but record {} was durable: records were lost", found.sequence, witness.sequence)]
    Behind {
        /// The witnessed head.
        witness: Head,
        /// The store's head; sequence 0 when it is empty.
        found: Head,
    },
    /// The store is not the one the witness watched: other history at the same sequence.
    #[error("record {sequence} is not the one the witness saw: the store was replaced or rewritten")]
    Forked {
        /// The witnessed sequence.
        sequence: u64,
    },
    /// Records exist, but the witness file does not.
    #[error("the witness {0} is missing, so lost records could go unnoticed")]
    WitnessMissing(PathBuf),
    /// Neither slot of the witness is intact.
    #[error("the witness {0} is damaged, so lost records could go unnoticed")]
    WitnessDamaged(PathBuf),
}

/// Why an append, or another write, did not become durable.
///
/// After a limit (`RecordTooLarge`, `TooManyRecords`, `MetaTooLarge`) nothing was written and the journal is usable.
/// After `Sync` and `Engine` the outcome is unknown, for the records may be there at the next open, and the journal is
/// poisoned. Reading may then fail as well, with [`ReadError::Engine`]: sled no longer loads what it does not hold in
/// memory.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// One record is too large; nothing was written.
    #[error("record {index} of the batch has {bytes} bytes; the limit is {bytes_max}")]
    RecordTooLarge {
        /// Index within the batch.
        index: usize,
        /// Its size.
        bytes: usize,
        /// [`crate::RECORD_BYTES_MAX`].
        bytes_max: usize,
    },
    /// The batch is too long; nothing was written.
    #[error("a batch of {count} records; the limit is {count_max}")]
    TooManyRecords {
        /// Records offered.
        count: usize,
        /// [`crate::BATCH_RECORDS_MAX`].
        count_max: usize,
    },
    /// A meta cell's name or content is too large; nothing was staged.
    #[error("meta cell {name:?} exceeds its limits")]
    MetaTooLarge {
        /// The cell.
        name: String,
    },
    /// A sync failed. The journal is poisoned from now on: a failed sync is never retried, for the kernel may already
    /// have dropped the pages it could not write.
    #[error("syncing the {what} failed: {source}")]
    Sync {
        /// `"store"` or `"witness"`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// sled failed. The journal is poisoned from now on.
    #[error("the storage engine failed: {0}")]
    Engine(String),
    /// An earlier write failed; reopen the journal.
    #[error("the journal is closed for writing since an earlier failure: {reason}")]
    Poisoned {
        /// The earlier failure.
        reason: String,
    },
}

/// Why something could not be read. Damage is named by the sequence where it was met.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The records were pruned.
    #[error("record {requested} was pruned; the oldest is {oldest}")]
    Pruned {
        /// Asked for.
        requested: u64,
        /// Oldest record still held.
        oldest: u64,
    },
    /// The sequence is not written yet.
    #[error("record {requested} is beyond the head {head}")]
    BeyondHead {
        /// Asked for.
        requested: u64,
        /// Newest durable record.
        head: u64,
    },
    /// Records are missing between their neighbours.
    #[error("records {missing} to {} are missing", found - 1)]
    Gap {
        /// First missing record.
        missing: u64,
        /// Next record present.
        found: u64,
    },
    /// The end is missing.
    #[error("records {missing} to {head} are missing from the end")]
    Truncated {
        /// First missing record.
        missing: u64,
        /// The head that should be there.
        head: u64,
    },
    /// The last batch is incomplete: it reaches to `expected`, the store to `found`.
    #[error("the last batch is torn: it reaches to record {expected}, the store to {found}")]
    TornBatch {
        /// Last record of the batch.
        expected: u64,
        /// Last record present.
        found: u64,
    },
    /// A record's bytes do not match their checksum.
    #[error("record {sequence} does not match its checksum")]
    RecordChecksum {
        /// The record.
        sequence: u64,
    },
    /// A group's frame is not well formed or does not match its checksum.
    #[error("the group that starts at record {sequence} is damaged: {what}")]
    GroupDamaged {
        /// First record of the group.
        sequence: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A group sits at another group's place.
    #[error("in the place of record {expected} stands record {found}")]
    Misplaced {
        /// What belongs there.
        expected: u64,
        /// What is there.
        found: u64,
    },
    /// A record does not continue the hash chain of the one before it.
    #[error("the hash chain breaks at record {sequence}")]
    ChainBroken {
        /// The first record that does not follow from its predecessor.
        sequence: u64,
    },
    /// A snapshot is damaged.
    #[error("the snapshot at record {at_sequence} is damaged: {what}")]
    SnapshotDamaged {
        /// The record it was taken at; 0 when even that is unreadable.
        at_sequence: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// A cell (header, floor or meta) is damaged.
    #[error("the cell {name:?} is damaged")]
    CellDamaged {
        /// The cell.
        name: String,
    },
    /// sled could not read.
    #[error("the storage engine could not read near record {sequence}: {message}")]
    Engine {
        /// Where it was reading; 0 when outside the records.
        sequence: u64,
        /// What it said, or the panic's message.
        message: String,
    },
}

/// Why a snapshot was not written. The journal and earlier snapshots stand.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Another snapshot is being written.
    #[error("another snapshot is being written")]
    InProgress,
    /// A newer snapshot is kept already; records below it may be pruned, so an older one would be of no use.
    #[error("a snapshot at record {at_sequence} is older than the one at {newest}")]
    Older {
        /// Asked for.
        at_sequence: u64,
        /// Where the newest retained snapshot stands.
        newest: u64,
    },
    /// One chunk is too large; the writer stays usable.
    #[error("a snapshot chunk of {bytes} bytes; the limit is {bytes_max}")]
    ChunkTooLarge {
        /// Its size.
        bytes: usize,
        /// [`crate::SNAPSHOT_CHUNK_BYTES_MAX`].
        bytes_max: usize,
    },
    /// What the snapshot builds on could not be read: the record it is anchored at, or earlier snapshots.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Writing failed.
    #[error(transparent)]
    Write(#[from] AppendError),
}
