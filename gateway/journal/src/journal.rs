//! Writing: appends, meta cells, pruning.

use std::ops::{Deref, Range};

use crate::chain::Head;
use crate::error::{AppendError, ReadError};
use crate::format::{self, FLOOR_KEY, Group, GroupWriter, group_key, key_number};
use crate::reader::Reader;
use crate::store::{Batch, SyncTarget};
use crate::witness::Witness;

/// Largest record in bytes (3.5 KiB): one record, its framing and room to grow fit a stored value of 4 KiB, beyond
/// which sled would spill it to a file that it never syncs.
pub const RECORD_BYTES_MAX: usize = 3584;
/// Most records of one append. Committers drain at most a few hundred waiting decisions; the limit bounds one sync's
/// work and the memory of its batch.
pub const BATCH_RECORDS_MAX: usize = 1024;
/// Longest name of a meta cell in bytes; names are words in the caller's source.
pub const META_NAME_BYTES_MAX: usize = 64;
/// Largest content of a meta cell in bytes; a cell is a cursor or an identity, not a document.
pub const META_BYTES_MAX: usize = 1024;
/// Most groups one [`Journal::prune`] removes, which keeps it to a few milliseconds.
pub const PRUNE_GROUPS_MAX: usize = 256;

/// The open journal: the one writer of its directory. Everything that reads is on [`Reader`], to which it dereferences.
#[derive(Debug)]
pub struct Journal {
    pub(crate) reader: Reader,
    pub(crate) witness: Witness,
    pub(crate) staged_meta: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Deref for Journal {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

/// What [`Journal::prune`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Oldest record now held.
    pub oldest_sequence: u64,
    /// Whether another call would remove more.
    pub is_more: bool,
}

impl Journal {
    /// A handle for other threads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Appends `records` and the staged meta cells as one group commit; returns their sequences. When this returns `Ok`,
    /// all of them survive a power cut; after a crash either all or none are found. With no records it commits the
    /// staged cells alone, or does nothing if there are none.
    ///
    /// # Errors
    /// Limits (nothing written, journal usable), or a failed write or sync: then the outcome is unknown until the next
    /// open and the journal answers [`AppendError::Poisoned`] from now on.
    pub fn append(&mut self, records: &[&[u8]]) -> Result<Range<u64>, AppendError> {
        let shared = &self.reader.shared;
        shared.store.check_poison()?;
        check_limits(records)?;
        let before = self.reader.head();
        let first = before.sequence + 1;
        if records.is_empty() && self.staged_meta.is_empty() {
            return Ok(first..first);
        }
        let mut batch = Batch::default();
        let after = pack(&mut batch, before, records);
        for (key, value) in self.staged_meta.drain(..) {
            batch.insert(key, value);
        }
        shared.store.commit(batch)?;
        shared.extent().head = after;
        if !records.is_empty() {
            self.note_in_witness(after)?;
        }
        Ok(first..after.sequence + 1)
    }

    /// Stages a named cell (at most [`META_BYTES_MAX`] bytes); durable, and visible to `meta`, with the next append.
    ///
    /// # Errors
    /// Limits; then nothing is staged.
    pub fn set_meta(&mut self, name: &str, bytes: &[u8]) -> Result<(), AppendError> {
        if name.len() > META_NAME_BYTES_MAX || bytes.len() > META_BYTES_MAX {
            return Err(AppendError::MetaTooLarge { name: name.to_owned() });
        }
        let key = format::meta_key(name);
        let value = format::seal_cell(&key, bytes);
        self.staged_meta.retain(|(staged, _)| *staged != key);
        self.staged_meta.push((key, value));
        Ok(())
    }

    /// Removes whole groups of records below `below_sequence`, oldest first, at most [`PRUNE_GROUPS_MAX`] a call. Never
    /// touches what the oldest retained snapshot needs for its replay, nor the last group; without a snapshot it
    /// removes nothing. Durable with the next append.
    ///
    /// # Errors
    /// Damage met, or a failed write (poisoned).
    pub fn prune(&mut self, below_sequence: u64) -> Result<Pruned, PruneError> {
        let head = self.reader.head();
        let snapshot_floor = self.reader.oldest_snapshot_sequence()?.map_or(1, |at| at + 1);
        let limit = below_sequence.min(snapshot_floor).min(head.sequence);
        let start = self.reader.oldest_sequence();
        let mut batch = Batch::default();
        let (mut oldest, mut removed, mut is_more) = (start, 0, false);
        for entry in self
            .reader
            .shared
            .store
            .scan(&group_key(start), &group_key(limit), start)
        {
            let (key, value) = entry?;
            let first = key_number(&key).unwrap_or(start);
            let next = Group::decode(first, &value)?.last_sequence() + 1;
            if next > limit {
                break;
            }
            if removed == PRUNE_GROUPS_MAX {
                is_more = true;
                break;
            }
            batch.remove(&*key);
            oldest = next;
            removed += 1;
        }
        if removed > 0 {
            // The witness's record must stay comparable after any crash, so it moves first.
            if self.witness.synced_sequence() + 1 < oldest {
                self.sync_witness()?;
            }
            batch.insert(FLOOR_KEY, format::seal_cell(FLOOR_KEY, &oldest.to_le_bytes()));
            // Readers are told first: what they then miss, they know to be pruned.
            self.reader.shared.extent().oldest = oldest;
            self.reader.shared.store.write(batch)?;
        }
        Ok(Pruned {
            oldest_sequence: oldest,
            is_more,
        })
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
        self.reader
            .shared
            .store
            .sync_other(SyncTarget::Witness, || witness.sync())
    }

    /// Commits staged cells, syncs the witness and closes. Dropping the journal does the same, but tells nobody of
    /// failures.
    ///
    /// # Errors
    /// As [`Journal::append`].
    pub fn close(mut self) -> Result<(), AppendError> {
        self.append(&[])?;
        self.sync_witness()
    }

    fn note_in_witness(&mut self, head: Head) -> Result<(), AppendError> {
        let store = &self.reader.shared.store;
        let witness = &mut self.witness;
        if let Err(source) = witness.note(head) {
            return store.sync_other(SyncTarget::Witness, || Err(source));
        }
        if self.witness.is_sync_due() {
            self.sync_witness()
        } else {
            Ok(())
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        if self.reader.shared.store.check_poison().is_ok() && !std::thread::panicking() {
            // Failures are logged where they happen.
            let _ = self.append(&[]).and_then(|_| self.sync_witness());
        }
    }
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Damage met on the way.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The removal could not be written.
    #[error(transparent)]
    Write(#[from] AppendError),
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

/// Packs `records` into as few values as fit; returns the head after them.
fn pack(batch: &mut Batch, before: Head, records: &[&[u8]]) -> Head {
    let batch_last = before.sequence + records.len() as u64;
    let mut at = before;
    let mut group: Option<GroupWriter> = None;
    for record in records {
        let mut current = match group.take() {
            Some(open) if open.has_room_for(record) => open,
            full_or_none => {
                flush_group(batch, full_or_none);
                GroupWriter::new(at.sequence + 1, batch_last, &at.hash)
            }
        };
        current.push(record);
        at = at.next(record);
        group = Some(current);
    }
    flush_group(batch, group);
    at
}

fn flush_group(batch: &mut Batch, group: Option<GroupWriter>) {
    if let Some(group) = group {
        let (key, value) = group.finish();
        batch.insert(&key, value);
    }
}
