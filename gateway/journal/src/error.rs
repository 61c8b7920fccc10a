//! Everything that can go wrong, by the act that met it. Every error names the place: a sequence, a file, a cell.

use std::io;
use std::path::PathBuf;

use crate::chain::Head;
use crate::restore::Lost;

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
    /// The store was written by a program whose layout this one does not read.
    #[error(
        "{0} was written by an earlier version, with all records in its storage engine: back it up with that version \
         (`holdfast backup`), move the directory away, and restore it with this one"
    )]
    OldLayout(PathBuf),
    /// Making durable what was found failed.
    #[error(transparent)]
    Write(#[from] AppendError),
    /// What the journal cannot go on without is damaged: the headers of all segments, or the link between records.
    #[error("damaged: {0}")]
    Damaged(#[from] ReadError),
    /// The log lost its end, or everything: it stops before a record that the witness saw made durable. A flipped bit in
    /// the last frame does this, for nothing behind it tells it from one that was never finished.
    #[error("the log ends at record {}, but record {} was durable: records were lost", found.sequence, witness.sequence)]
    Behind {
        /// The witnessed head.
        witness: Head,
        /// The log's head; sequence 0 when it is empty.
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
/// After a limit (`RecordTooLarge`, `TooManyRecords`, `MetaTooLarge`, `TooManyCells`) nothing was written and the journal
/// is usable. After `Write` and `Sync` the outcome is unknown, for the records may be there at the next open, and the
/// journal is poisoned. Reading goes on.
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
    /// The cell would be one too many; nothing was staged.
    #[error("meta cell {name:?} is one too many: a journal has {count_max} at most")]
    TooManyCells {
        /// The cell.
        name: String,
        /// [`crate::META_CELLS_MAX`].
        count_max: usize,
    },
    /// A write failed, or the next segment could not be made: the disk is full, or broken. The journal is poisoned.
    #[error("writing the {what} failed: {source}")]
    Write {
        /// `"log"` or `"new segment"` or `"witness"`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A sync failed. The journal is poisoned from now on: a failed sync is never retried, for the kernel may already
    /// have dropped the pages it could not write.
    #[error("syncing the {what} failed: {source}")]
    Sync {
        /// `"log"` or `"witness"`.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
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
    /// What was written there does not check any more. The records of its append are lost together.
    #[error("{}, in segment {segment} at byte {at}", lost(*first, *last))]
    Damaged {
        /// The segment's file.
        segment: String,
        /// Where in it.
        at: u64,
        /// First record lost.
        first: u64,
        /// Last record lost; below `first` if only meta cells are.
        last: u64,
    },
    /// A copy of a segment's header does not check. The other copy, and the segments before, stand in for it.
    #[error("the header of segment {segment} at byte {at} is damaged")]
    HeaderDamaged {
        /// The segment's file.
        segment: String,
        /// Where in it.
        at: u64,
    },
    /// The disk cannot read a segment.
    #[error("segment {segment} cannot be read near record {sequence}: {message}")]
    Io {
        /// The segment's file.
        segment: String,
        /// Where it was reading.
        sequence: u64,
        /// What the system said.
        message: String,
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
    /// A cell's newest content may have been in a frame that is damaged.
    #[error("the cell {name:?} is damaged")]
    CellDamaged {
        /// The cell.
        name: String,
    },
    /// The witness's file does not check, or there is none.
    #[error("the witness is damaged or missing, so lost records could go unnoticed")]
    WitnessDamaged,
    /// The base does not check, and the records it stands for were pruned.
    #[error("the base is damaged: {what}")]
    BaseDamaged {
        /// What is wrong.
        what: &'static str,
    },
    /// The snapshots' storage engine could not read.
    #[error("the storage engine could not read: {message}")]
    Engine {
        /// What it said, or the panic's message.
        message: String,
    },
}

impl ReadError {
    /// The records that this damage costs, if it costs any.
    #[must_use]
    pub fn lost(&self) -> Option<Lost> {
        let (first, last) = match *self {
            ReadError::Damaged { first, last, .. } => (first, last),
            ReadError::Gap { missing, found } => (missing, found - 1),
            ReadError::Truncated { missing, head } => (missing, head),
            _ => return None,
        };
        (first <= last).then_some(Lost { first, last })
    }
}

fn lost(first: u64, last: u64) -> String {
    match last.cmp(&first) {
        std::cmp::Ordering::Less => format!("meta cells set before record {first} are damaged"),
        std::cmp::Ordering::Equal => format!("record {first} is damaged"),
        std::cmp::Ordering::Greater => format!("records {first} to {last} are damaged"),
    }
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
    /// The storage engine failed. The journal goes on without snapshots.
    #[error("the storage engine failed: {0}")]
    Engine(String),
}
