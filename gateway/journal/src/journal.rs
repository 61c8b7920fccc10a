//! Writing: appends and meta cells.

use std::ops::{Deref, Range};
use std::sync::Arc;

use crate::chain::Head;
use crate::error::AppendError;
use crate::format::{Owner, SegmentHeader};
use crate::log::{LogWriter, SyncTarget};
use crate::reader::Reader;
use crate::segment::Segment;
use crate::witness::Witness;

/// Largest record in bytes (3.5 KiB): a record is one event, and a snapshot's chunk of one still fits a stored value.
pub const RECORD_BYTES_MAX: usize = 3584;
/// Most records of one append. Committers drain at most a few hundred waiting decisions; the limit bounds one sync's
/// work and the memory of its batch.
pub const BATCH_RECORDS_MAX: usize = 1024;
/// Longest name of a meta cell in bytes; names are words in the caller's source.
pub const META_NAME_BYTES_MAX: usize = 64;
/// Largest content of a meta cell in bytes; a cell is a cursor or an identity, not a document.
pub const META_BYTES_MAX: usize = 1024;
/// Most meta cells: all of them stand in every segment's header.
pub const META_CELLS_MAX: usize = 14;

/// The cell that holds the oldest record that pruning left.
pub(crate) const FLOOR_CELL: &str = "\0floor";

/// The open journal: the one writer of its directory. Everything that reads is on [`Reader`], to which it dereferences.
pub struct Journal {
    pub(crate) reader: Reader,
    pub(crate) witness: Witness,
    pub(crate) log: LogWriter,
    pub(crate) staged: Vec<(String, Vec<u8>)>,
    /// Where the base stands that was found whole, or written.
    pub(crate) base_at: Option<u64>,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("reader", &self.reader)
            .finish_non_exhaustive()
    }
}

impl Deref for Journal {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl Journal {
    /// A handle for other threads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends `records` and the staged meta cells as one frame; returns their sequences. When this returns `Ok`, all of
    /// them survive a power cut; after a crash either all or none are found. With no records it commits the staged cells
    /// alone, or does nothing if there are none.
    ///
    /// # Errors
    /// Limits (nothing written, journal usable), or a failed write or sync: then the outcome is unknown until the next
    /// open and the journal answers [`AppendError::Poisoned`] from now on.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<Range<u64>, AppendError> {
        let shared = Arc::clone(&self.reader.shared);
        shared.gate.check()?;
        check_limits(records)?;
        let before = self.reader.head();
        let first = before.sequence + 1;
        if records.is_empty() && self.staged.is_empty() {
            return Ok(first..first);
        }
        self.log.frame.begin(before);
        for (name, content) in &self.staged {
            self.log.frame.cell(name, content);
        }
        for record in records {
            self.log.frame.record(record);
        }
        let ordinal = self.log.ordinal();
        let after = shared.gate.pass(|| {
            if self.log.is_full() {
                self.roll(before, &shared.owner)?;
            }
            self.log.commit(&shared.gate)
        })?;
        if !self.staged.is_empty() {
            let mut cells = shared.cells();
            for (name, content) in self.staged.drain(..) {
                cells.set(&name, &content, ordinal);
            }
        }
        shared.extent().head = after;
        self.note_in_witness(after, ordinal)?;
        self.log.look_ahead();
        Ok(first..after.sequence + 1)
    }

    /// Goes on in the next segment.
    pub(crate) fn roll(&mut self, before: Head, owner: &Owner) -> Result<(), AppendError> {
        let header = SegmentHeader {
            owner: owner.clone(),
            before,
            ordinal: self.log.ordinal(),
            cells: self.reader.shared.cells().all(),
        };
        let segment = self.log.roll(&header)?;
        let mut segments = self.reader.shared.segments();
        // One that holds no frame has the same name, and was replaced.
        if segments
            .last()
            .is_some_and(|last: &Arc<Segment>| last.name == segment.name)
        {
            segments.pop();
        }
        segments.push(segment);
        Ok(())
    }

    /// Raises the format from the one `found`, before anything of the new one can be appended: an older program must
    /// refuse what it cannot read.
    pub(crate) fn begin_format(&mut self, found: u32) -> Result<(), AppendError> {
        let shared = Arc::clone(&self.reader.shared);
        let raised = shared.owner.format_version;
        if found >= raised {
            return Ok(());
        }
        tracing::info!(found, raised, "raising the format");
        self.log.frame.begin(self.reader.head());
        shared.gate.pass(|| self.roll(self.reader.head(), &shared.owner))
    }

    /// Stages a named cell (at most [`META_BYTES_MAX`] bytes); durable, and visible to `meta`, with the next append.
    ///
    /// # Errors
    /// Limits; then nothing is staged.
    pub fn set_meta(&mut self, name: &str, bytes: &[u8]) -> Result<(), AppendError> {
        if name.len() > META_NAME_BYTES_MAX || bytes.len() > META_BYTES_MAX || name.starts_with('\0') {
            return Err(AppendError::MetaTooLarge { name: name.to_owned() });
        }
        self.stage(name, bytes)
    }

    pub(crate) fn stage(&mut self, name: &str, bytes: &[u8]) -> Result<(), AppendError> {
        self.staged.retain(|(staged, _)| staged != name);
        let staged = self.staged.iter().map(|(staged, _)| staged.as_str());
        // Two are our own, and always have room.
        let count_max = META_CELLS_MAX + if name.starts_with('\0') { 2 } else { 0 };
        if !self.reader.shared.cells().has_room_for(staged.chain([name]), count_max) {
            let name = name.to_owned();
            let count_max = META_CELLS_MAX;
            return Err(AppendError::TooManyCells { name, count_max });
        }
        self.staged.push((name.to_owned(), bytes.to_vec()));
        Ok(())
    }

    /// Syncs the witness now, if it is not. For idle moments: appends do it only every so often.
    ///
    /// # Errors
    /// A failed sync, which poisons the journal.
    pub fn sync_witness(&mut self) -> Result<(), AppendError> {
        if self.witness.is_synced() {
            return Ok(());
        }
        let witness = &mut self.witness;
        let gate = &self.reader.shared.gate;
        gate.pass(|| gate.sync(SyncTarget::Witness, || witness.sync()))
    }

    /// Commits staged cells, syncs the witness and closes. Dropping the journal does the same, but tells nobody of
    /// failures.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn close(mut self) -> Result<(), AppendError> {
        self.append(&[])?;
        self.reader.shared.gate.check()?;
        self.sync_witness()
    }

    /// Bytes of pages that the log has written since it was opened, the zeros of prepared segments included: what the
    /// disk wears by.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.log.written_bytes()
    }

    fn note_in_witness(&mut self, head: Head, ordinal: u64) -> Result<(), AppendError> {
        let witness = &mut self.witness;
        self.reader.shared.gate.pass(|| {
            let noted = witness.note(head, ordinal);
            noted.map_err(|source| AppendError::Write {
                what: "witness",
                source,
            })
        })?;
        if self.witness.is_sync_due() {
            self.sync_witness()
        } else {
            Ok(())
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.reader.shared.gate.check().is_ok() && !std::thread::panicking() {
            // Failures are logged where they happen.
            let _ = self.append(&[]).and_then(|_| self.sync_witness());
        }
    }
}

fn check_limits(records: &[&[u8]]) -> Result<(), AppendError> {
    if records.len() > BATCH_RECORDS_MAX {
        return Err(AppendError::TooManyRecords {
            count: records.len(),
            count_max: BATCH_RECORDS_MAX,
        });
    }
    match records.iter().position(|record| record.len() > RECORD_BYTES_MAX) {
        None => Ok(()),
        Some(index) => Err(AppendError::RecordTooLarge {
            index,
            bytes: records[index].len(),
            bytes_max: RECORD_BYTES_MAX,
        }),
    }
}
