//! From journal to state and back: replay at boot, group commit while running, snapshots so that boot does not grow
//! with history, and the index that finds ledger records for the uploader.
//!
//! Snapshots are derived. Whatever becomes of them, the journal's base and its records make the state again; so a storage
//! engine that fails costs an alarm and a longer boot, never a decision.

mod load;
mod pen;

use std::{
    collections::BTreeMap,
    ops::ControlFlow,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use gateway_core::{Config as CoreConfig, Event, Gateway, Now, event::Kept};
use journal::{Background, Haste, Journal, Options, Reader, SnapshotError};
use proto::id::Hash;

use self::pen::{Batch, Pen};
use crate::record::{self, IndexRow, Piece, RecordError};

/// A snapshot rests for so many times as long as the one before took: under a load that never ends, snapshots take a tenth
/// of one processor at most.
const SNAPSHOT_REST: u32 = 10;
/// But no start shall have more to replay than so many times `snapshot_every`, some two seconds: by then the rest is over,
/// and a start that finds more writes its snapshot before it serves anybody.
const TAIL_TIMES_MAX: u64 = 10;
/// A start that had to replay this part of `snapshot_every` begins a snapshot at once and in haste: whatever ended the last
/// run too soon may end this one.
const BEHIND_PART: u64 = 4;
/// What the store is, so that no other program's directory is taken for it.
const KIND: &str = "holdfast gateway";
/// Directory of the journal, and of a new one that is salvaged beside it.
const DIR: &str = "journal";
const SALVAGED_DIR: &str = "journal.salvaged";
/// Version of the record format; a newer one is refused at open.
const FORMAT_VERSION: u32 = 1;
/// An index row for every so many ledger records: 1,000,000 records cost 16,000 rows.
const INDEX_EVERY: u64 = 64;
/// Events for which a batch keeps room: more than a full one of the engine mostly has.
const BATCH_ROOM: usize = 512;
/// Where a restored journal keeps the epoch that it has to begin.
const EPOCH_CELL: &str = "epoch due";

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal does not open.
    #[error("the journal cannot be opened: {0}")]
    Open(#[from] journal::OpenError),
    /// The journal cannot be read.
    #[error("the journal cannot be read: {0}; what is whole is salvaged by: holdfast ledger rebuild")]
    Read(#[from] journal::ReadError),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Writing failed; nothing may be decided any more.
    #[error("the journal cannot be written, nothing more is granted: {0}")]
    Append(#[from] journal::AppendError),
    /// The thread that writes the journal cannot be started, or ended.
    #[error("the thread that writes the journal cannot be started, or has ended; nothing more is granted")]
    Writer,
    /// Old records could not be removed.
    #[error("the journal cannot be pruned: {0}")]
    Prune(#[from] journal::PruneError),
}

/// What became of a journal that was rebuilt.
#[derive(Debug)]
pub enum Rebuilt {
    /// The log was whole.
    Derived,
    /// The log is damaged.
    Salvaged {
        /// The new journal's directory.
        to: PathBuf,
        /// What is in it, and what is lost.
        salvaged: journal::Salvaged,
        /// The epoch that it begins.
        epoch: u32,
    },
}

/// Where a ledger record is found: the chain up to it, and where in the journal to look for what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// A ledger sequence.
    pub ledger: u64,
    /// Chain hash there.
    pub chain: Hash,
    /// Records after it stand at or behind this journal sequence.
    pub journal: u64,
}

/// The durable side of one gateway.
pub struct Store {
    pen: Pen,
    index: BTreeMap<u64, Mark>,
    /// The record before the next one that is staged.
    staged: u64,
    batch: Batch,
    writing: Option<Background>,
    snapshot_at: u64,
    snapshot_every: u64,
    /// Bytes that the newest snapshot wrote, and what the log had written when it was taken.
    snapshot_bytes: u64,
    written_bytes: u64,
    /// Before it, none begins.
    snapshot_from: Option<Instant>,
    /// See [`BEHIND_PART`], until the snapshot is begun.
    is_behind: bool,
    opened: Opened,
}

/// What a start had to do, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Records behind the snapshot.
    pub replayed: u64,
    /// Opening the journal: what is in its newest segment, and the storage engine.
    pub opening: Duration,
    /// Making the state of the snapshot.
    pub loading: Duration,
    /// Replaying the records behind it.
    pub replaying: Duration,
}

impl Store {
    /// Opens the journal under `dir` and replays it.
    ///
    /// # Errors
    /// [`StoreError`]; nothing was changed.
    pub fn open(dir: &Path, core: CoreConfig, snapshot_every: u64) -> Result<(Self, Gateway), StoreError> {
        let since = Instant::now();
        let journal = Journal::open(dir.join(DIR), &Options::new(KIND, FORMAT_VERSION).create())?;
        let opening = since.elapsed();
        let mut store = Self {
            staged: journal.head().sequence,
            pen: Pen::new(journal),
            index: BTreeMap::new(),
            batch: Vec::new(),
            writing: None,
            snapshot_at: 0,
            snapshot_every,
            snapshot_bytes: 0,
            written_bytes: 0,
            snapshot_from: None,
            is_behind: false,
            opened: Opened::default(),
        };
        let mut gateway = Gateway::new(core);
        store.load_snapshot(&mut gateway)?;
        let loaded = since.elapsed();
        store.replay(&mut gateway)?;
        let replayed = store.head() - store.snapshot_at;
        store.is_behind = replayed >= store.snapshot_every.div_ceil(BEHIND_PART);
        store.opened = Opened {
            replayed,
            opening,
            loading: loaded - opening,
            replaying: since.elapsed() - loaded,
        };
        Ok((store, gateway))
    }

    /// What its start had to do.
    #[must_use]
    pub const fn opened(&self) -> Opened {
        self.opened
    }

    /// The record at which the newest snapshot stands, and whether another one is being written, or will be as soon as that
    /// one has rested.
    #[must_use]
    pub fn snapshot(&self) -> (u64, bool) {
        (self.snapshot_at, self.writing.is_some() || self.is_snapshot_wanted())
    }

    /// The journal alone, for reading, while no gateway runs on it.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_reader(dir: &Path) -> Result<Journal, StoreError> {
        Ok(Journal::open(dir.join(DIR), &Options::new(KIND, FORMAT_VERSION))?)
    }

    /// A new journal in `dir` out of the records of a backup, in whose epoch nothing more may be said: the next start begins
    /// `epoch`, or a higher one.
    ///
    /// # Errors
    /// [`StoreError`]; what is in the directory then is of no use.
    pub fn restore(dir: &Path, epoch: u32, records: &mut dyn Iterator<Item = Vec<u8>>) -> Result<u64, StoreError> {
        let mut journal = Journal::open(dir.join(DIR), &Options::new(KIND, FORMAT_VERSION).create())?;
        journal.set_meta(EPOCH_CELL, &epoch.to_be_bytes())?;
        loop {
            let batch: Vec<Vec<u8>> = records.take(journal::BATCH_RECORDS_MAX).collect();
            if batch.is_empty() {
                break;
            }
            let batch: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            journal.append(&batch)?;
        }
        let restored = journal.head().sequence;
        journal.close()?;
        Ok(restored)
    }

    /// Whether a gateway runs on this store: it has the journal open, whatever became of its socket.
    #[must_use]
    pub fn is_in_use(dir: &Path) -> bool {
        journal::is_held(&dir.join(DIR))
    }

    /// Every damage of the journal of a stopped gateway.
    ///
    /// # Errors
    /// It cannot be looked at.
    pub fn damage(dir: &Path) -> Result<Vec<journal::ReadError>, StoreError> {
        Ok(journal::verify(dir.join(DIR), &Options::new(KIND, FORMAT_VERSION))?)
    }

    /// Makes a stopped gateway's journal usable again. A whole log only loses what is derived from it. Of a damaged one,
    /// what is whole goes into a new journal beside it, in which `epoch` has to be begun, or the one after the newest found;
    /// the damaged one stays as it is.
    ///
    /// # Errors
    /// Nothing can be read, or the new journal cannot be written.
    pub fn rebuild(dir: &Path, epoch: Option<u32>) -> Result<Rebuilt, StoreError> {
        let (from, to) = (dir.join(DIR), dir.join(SALVAGED_DIR));
        let options = Options::new(KIND, FORMAT_VERSION);
        let found = journal::open_for_restore(&from, &options)?;
        if found.damage().is_empty() {
            drop(found);
            journal::discard_derived(&from, &options)?;
            return Ok(Rebuilt::Derived);
        }
        let salvaged = found.salvage(&to, &options)?;
        drop(found);
        let mut journal = Journal::open(&to, &options)?;
        let epoch = epoch.map_or_else(|| newest_epoch(&journal).map(|newest| newest + 1), Ok)?;
        journal.set_meta(EPOCH_CELL, &epoch.to_be_bytes())?;
        journal.close()?;
        Ok(Rebuilt::Salvaged { to, salvaged, epoch })
    }

    /// The epoch that has to be begun, because this journal is a restored one; 0: it is not.
    ///
    /// # Errors
    /// If the cell cannot be read.
    pub fn epoch_due(&self) -> Result<u32, StoreError> {
        let cell = self.pen.reader().meta(EPOCH_CELL)?;
        let bytes: Option<[u8; 4]> = cell.and_then(|cell| cell.try_into().ok());
        Ok(bytes.map_or(0, u32::from_be_bytes))
    }

    fn load_snapshot(&mut self, gateway: &mut Gateway) -> Result<(), StoreError> {
        let Some(snapshot) = self.pen.reader().latest_snapshot()? else {
            return Ok(());
        };
        for damage in snapshot.damaged() {
            tracing::error!(%damage, "a snapshot is damaged; an older one is used");
        }
        let at = snapshot.at_sequence();
        if snapshot.is_base() {
            tracing::warn!(
                at,
                "no snapshot is as new as the base: the state is rebuilt from it and the records behind it"
            );
        }
        load::pieces(&snapshot, |piece| match piece {
            Piece::Event(now, event) => gateway.apply(&now, &event),
            Piece::Index(row) => {
                let IndexRow { ledger, chain, journal } = row;
                self.index.insert(ledger, Mark { ledger, chain, journal });
            }
        })?;
        self.snapshot_at = at;
        Ok(())
    }

    fn replay(&mut self, gateway: &mut Gateway) -> Result<(), StoreError> {
        let reader = self.pen.reader().clone();
        load::records(&reader, self.snapshot_at + 1, |sequence, now, event| {
            self.note(gateway, sequence, event);
            gateway.apply(now, event);
        })
    }

    fn note(&mut self, gateway: &Gateway, journal: u64, event: &Event) {
        // The state of a backup, instead of the records that led to it: the ledger goes on from there.
        if let Event::Kept(Kept::Outbox(kept)) = event {
            let (ledger, chain) = (kept.head, kept.chain);
            self.index.insert(ledger, Mark { ledger, chain, journal });
        }
        if let Some(record) = event.record() {
            let ledger = record.sequence - 1;
            if ledger % INDEX_EVERY == 0 {
                self.index.insert(
                    ledger,
                    Mark {
                        ledger,
                        chain: gateway.outbox().chain(),
                        journal,
                    },
                );
            }
        }
    }

    /// Applies an event and puts it into the batch. Nothing may leave before [`Self::commit`], or [`Self::lend`] and
    /// [`Self::settle`].
    pub fn stage(&mut self, gateway: &mut Gateway, now: &Now, event: Event) {
        self.staged += 1;
        self.note(gateway, self.staged, &event);
        gateway.apply(now, &event);
        self.batch.push((*now, event));
    }

    /// Whether there is anything to commit.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.batch.is_empty()
    }

    /// Makes the batch durable: flushed and fdatasynced when this returns.
    ///
    /// # Errors
    /// The state in memory is ahead of the disk now: stop, and start again from the journal.
    pub fn commit(&mut self) -> Result<(), StoreError> {
        self.pen.write(&self.batch)?;
        self.batch.clear();
        // A list that came in made thousands of events at once; the next one comes in days.
        self.batch.shrink_to(BATCH_ROOM);
        Ok(())
    }

    /// As [`Self::commit`], on another thread: the batch is durable when [`Self::settle`] returns, and the next one can be
    /// staged meanwhile.
    ///
    /// # Errors
    /// As [`Self::commit`], of the batch before, too.
    pub fn lend(&mut self) -> Result<(), StoreError> {
        self.pen.lend(&mut self.batch)
    }

    /// Waits for the batch that was lent, if any.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn settle(&mut self) -> Result<(), StoreError> {
        self.pen.settle()
    }

    /// Whether [`Self::tend`] has something to do, for which nothing may be staged or under way.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.writing.as_ref().is_some_and(Background::is_finished) || self.writing.is_none() && self.is_snapshot_due()
    }

    /// Begins a snapshot when one is due, on a thread of its own; no verdict waits for it. Call after a commit. A failure is
    /// an alarm in the log and nothing else.
    pub fn tend(&mut self, gateway: &Gateway) {
        if let Err(error) = self.try_tend(gateway) {
            self.give_up_snapshot(&error);
        }
    }

    fn give_up_snapshot(&mut self, error: &SnapshotError) {
        tracing::error!(%error, "ALARM no snapshot was taken; the next one is tried after as many records again");
        self.writing = None;
        self.mark_snapshot(self.head());
    }

    fn mark_snapshot(&mut self, at: u64) {
        self.snapshot_at = at;
        self.written_bytes = self.pen.written_bytes();
    }

    fn tail_max(&self) -> u64 {
        self.snapshot_every.saturating_mul(TAIL_TIMES_MAX)
    }

    fn is_snapshot_due(&self) -> bool {
        let is_rested =
            self.unsnapped() >= self.tail_max() || self.snapshot_from.is_none_or(|from| Instant::now() >= from);
        self.is_behind || is_rested && self.is_snapshot_wanted()
    }

    /// After so many records, and never more bytes than the log itself has written since the last one: a large state must
    /// not wear the disk more than what happens does.
    fn is_snapshot_wanted(&self) -> bool {
        let written = self.pen.written_bytes() - self.written_bytes;
        self.unsnapped() >= self.snapshot_every && written >= self.snapshot_bytes
    }

    /// Records behind the newest snapshot.
    fn unsnapped(&self) -> u64 {
        self.head().saturating_sub(self.snapshot_at)
    }

    /// What a start owes to the next one: after one that had to replay much it begins a snapshot, and after one that had to
    /// replay very much it waits for it. Once, before anybody is served.
    pub fn catch_up(&mut self, gateway: &Gateway) {
        self.tend(gateway);
        if self.opened.replayed >= self.tail_max()
            && let Some(writing) = self.writing.take()
            && let Err(error) = self.finish_snapshot(writing)
        {
            self.give_up_snapshot(&error);
        }
    }

    fn finish_snapshot(&mut self, writing: Background) -> Result<(), SnapshotError> {
        let written = writing.finish()?;
        self.mark_snapshot(written.at_sequence);
        self.snapshot_bytes = written.written_bytes;
        self.snapshot_from = Some(Instant::now() + written.took * SNAPSHOT_REST);
        Ok(())
    }

    fn try_tend(&mut self, gateway: &Gateway) -> Result<(), SnapshotError> {
        if let Some(writing) = self.writing.take_if(|writing| writing.is_finished()) {
            self.finish_snapshot(writing)?;
        } else if self.writing.is_none() && self.is_snapshot_due() {
            let haste = if self.is_behind { Haste::Full } else { Haste::Gentle };
            self.is_behind = false;
            self.writing = Some(self.begin(gateway, haste)?);
        }
        Ok(())
    }

    fn begin(&mut self, gateway: &Gateway, haste: Haste) -> Result<Background, SnapshotError> {
        let events = gateway.snapshot().into_iter();
        let events = events.map(|event| record::encode_kept(&event));
        // Marks behind the cursor are kept for a hub that is restored from a backup.
        let marks: Vec<Mark> = self.index.values().copied().collect();
        let marks = marks.into_iter().map(|mark| {
            let Mark { ledger, chain, journal } = mark;
            record::encode_index(&IndexRow { ledger, chain, journal })
        });
        let journal = self
            .pen
            .journal()
            .map_err(|error| SnapshotError::Engine(error.to_string()))?;
        let writer = journal.begin_snapshot(journal.head().sequence)?;
        writer.write_behind(haste, record::pack(events.chain(marks)))
    }

    /// Writes a whole snapshot now and closes the journal: the next boot is quick.
    ///
    /// # Errors
    /// The journal is good nevertheless; the next boot replays more.
    pub fn close(mut self, gateway: &Gateway) -> Result<(), StoreError> {
        self.writing = None;
        if self.head() > self.snapshot_at
            && let Err(error) = self.begin(gateway, Haste::Full).and_then(Background::finish)
        {
            self.give_up_snapshot(&error);
        }
        self.pen.close()
    }

    /// Removes what nobody may ask for any more: whole segments whose records are older than `keep_d` days, have their
    /// receipt, and lie below a snapshot. Nothing while the clock is not known. A segment a call, so that no verdict waits
    /// for it long.
    ///
    /// # Errors
    /// As [`Self::commit`], or damage met.
    pub fn retain(&mut self, gateway: &Gateway, now: &Now, keep_d: u32) -> Result<(), StoreError> {
        let Some(now_s) = now.wall() else {
            return Ok(());
        };
        let receipted = self.mark(gateway.outbox().cursor()).journal;
        let second = self
            .pen
            .journal()?
            .second_segment()
            .filter(|second| *second <= receipted);
        let Some(second) = second else {
            return Ok(());
        };
        // Its newest record is the last one before the segment behind it.
        let Some(newest) = self.pen.reader().read(second - 1, 1)?.pop() else {
            return Ok(());
        };
        let written_s = record::decode(newest.sequence, &newest.bytes)?.0.wall();
        let keep_s = u64::from(keep_d) * 86_400;
        if written_s.is_none_or(|written_s| written_s.saturating_add(keep_s) > now_s) {
            return Ok(());
        }
        let pruned = self.pen.journal()?.prune(second)?;
        if pruned.oldest_sequence == second {
            self.index.retain(|_, mark| mark.journal >= second);
            tracing::info!(
                oldest = second,
                keep_d,
                "records that were kept long enough were removed"
            );
        }
        Ok(())
    }

    /// The oldest record that is kept.
    #[must_use]
    pub fn oldest(&self) -> u64 {
        self.pen.reader().oldest_sequence()
    }

    /// The nearest mark at or before a ledger sequence.
    #[must_use]
    pub fn mark(&self, ledger: u64) -> Mark {
        let nearest = self.index.range(..=ledger).next_back().map(|(_, mark)| *mark);
        nearest.unwrap_or(Mark {
            ledger: 0,
            chain: Hash::ZERO,
            journal: 1,
        })
    }

    /// A handle for the uploader.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.pen.reader().clone()
    }

    /// Sequence of the newest journal record.
    #[must_use]
    pub fn head(&self) -> u64 {
        self.pen.reader().head().sequence
    }
}

/// The newest epoch that the journal tells of.
fn newest_epoch(journal: &Reader) -> Result<u32, StoreError> {
    let (mut newest, mut failed) = (0, None);
    let mut take = |sequence, bytes: &[u8]| match record::decode_piece(sequence, bytes) {
        Ok(Piece::Event(_, event)) => newest = newest.max(record::epoch(&event)),
        Ok(Piece::Index(_)) => {}
        Err(error) => failed = Some(error),
    };
    if let Some(snapshot) = journal.latest_snapshot()? {
        for chunk in snapshot.chunks() {
            let at = snapshot.at_sequence();
            record::pieces(at, &chunk?)?
                .into_iter()
                .for_each(|piece| take(at, piece));
        }
    }
    journal.replay(journal.oldest_sequence(), &mut |sequence, bytes| {
        take(sequence, bytes);
        ControlFlow::Continue(())
    })?;
    failed.map_or(Ok(newest), |error| Err(error.into()))
}
