//! The hub's store: every event in the journal, for good, and snapshots so that a start does not grow with history.
//!
//! Nothing is ever pruned: the journal is the authoritative ledger, and `ledger export` reads it from the first record.

use std::{ops::ControlFlow, path::Path};

use journal::{
    AppendError, BATCH_RECORDS_MAX, Background, Haste, Journal, OpenError, Options, ReadError, Reader, SnapshotError,
};

use crate::{
    core::{Event, Hub},
    record::{self, RECORD_VERSION, RecordError},
    snapshot,
};

/// The word in the store's header: a gateway's journal is refused here, and the reverse.
const KIND: &str = "hub";
/// Directory of the journal in the data directory.
const DIR: &str = "journal";
/// A snapshot is written after so many events: replaying them takes well under a second.
const SNAPSHOT_EVENTS: u64 = 50_000;

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be opened.
    #[error("the store does not open: {0}")]
    Open(#[from] OpenError),
    /// It cannot be read.
    #[error("the store cannot be read: {0}")]
    Read(#[from] ReadError),
    /// It holds something that this hub cannot read.
    #[error("store record {sequence}: {error}")]
    Record {
        /// Which record; 0: a snapshot.
        sequence: u64,
        /// Why.
        error: RecordError,
    },
    /// It cannot be written. Whether the last events are durable shows at the next start.
    #[error("the store cannot be written: {0}")]
    Append(#[from] AppendError),
}

/// The open store.
pub struct Store {
    journal: Journal,
    events_since_snapshot: u64,
    writing: Option<Background>,
}

impl Store {
    /// Opens the store of a data directory, or creates it, and rebuilds the state.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(data_dir: &Path, create: bool) -> Result<(Self, Hub), StoreError> {
        let options = Self::options();
        Self::open_with(data_dir, &if create { options.create() } else { options })
    }

    /// How a hub's journal is opened: an existing one only.
    #[must_use]
    pub fn options() -> Options {
        Options::new(KIND, u32::from(RECORD_VERSION))
    }

    /// [`Self::open`] with other options, for tests that make the disk fail.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open_with(data_dir: &Path, options: &Options) -> Result<(Self, Hub), StoreError> {
        let journal = Journal::open(data_dir.join(DIR), options)?;
        let mut hub = Hub::default();
        let mut from = 1;
        if let Some(kept) = journal.latest_snapshot()? {
            for chunk in kept.chunks() {
                snapshot::restore(&mut hub, &chunk?).map_err(|error| StoreError::Record { sequence: 0, error })?;
            }
            from = kept.at_sequence() + 1;
        }
        let mut events_since_snapshot = 0;
        for_each_event(&journal, from, |event| {
            hub.apply(event);
            events_since_snapshot += 1;
        })?;
        let store = Self {
            journal,
            events_since_snapshot,
            writing: None,
        };
        Ok((store, hub))
    }

    /// Makes events durable. Events of one call may be found in part after a crash, always the first of them.
    ///
    /// # Errors
    /// [`StoreError::Append`]; then the process has to end, for memory is ahead of the disk.
    pub fn append(&mut self, events: &[Event]) -> Result<(), StoreError> {
        for batch in events.chunks(BATCH_RECORDS_MAX) {
            let records: Vec<Vec<u8>> = batch.iter().map(record::encode).collect();
            let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
            self.journal.append(&records)?;
        }
        self.events_since_snapshot += events.len() as u64;
        Ok(())
    }

    /// Begins a snapshot if it is time for one: encoded at once, written by a thread of its own, so that no gateway waits for
    /// the disk. It is derived: a failure is an alarm in the log, and the next one is tried after as many events again.
    pub fn snapshot_when_due(&mut self, hub: &Hub) {
        let done = match self.writing.take_if(|writing| writing.is_finished()) {
            Some(writing) => writing.finish().map(drop),
            None if self.writing.is_none() && self.events_since_snapshot >= SNAPSHOT_EVENTS => {
                let begun = self.begin_snapshot(hub, Haste::Gentle);
                begun.map(|writing| self.writing = Some(writing))
            }
            None => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!(%error, "ALARM no snapshot was written; the next start takes longer");
            self.events_since_snapshot = 0;
        }
    }

    /// Whether a snapshot was begun and is not known to be written yet.
    #[must_use]
    pub const fn is_snapshot_under_way(&self) -> bool {
        self.writing.is_some()
    }

    fn begin_snapshot(&mut self, hub: &Hub, haste: Haste) -> Result<Background, SnapshotError> {
        let writer = self.journal.begin_snapshot(self.journal.head().sequence)?;
        self.events_since_snapshot = 0;
        writer.write_behind(haste, snapshot::encode(hub).into_iter())
    }

    /// Writes a whole snapshot of the state after the last durable event.
    ///
    /// # Errors
    /// The journal is good nevertheless; the next start takes longer.
    pub fn snapshot(&mut self, hub: &Hub) -> Result<(), SnapshotError> {
        self.writing = None;
        self.begin_snapshot(hub, Haste::Full)?.finish().map(drop)
    }

    /// A read-only handle for other threads.
    #[must_use]
    pub fn reader(&self) -> Reader {
        self.journal.reader()
    }

    /// Closes the store; what was appended is durable already.
    ///
    /// # Errors
    /// [`StoreError::Append`].
    pub fn close(mut self) -> Result<(), StoreError> {
        self.writing = None;
        Ok(self.journal.close()?)
    }
}

/// Calls `visit` with every durable event from record `from` on, in order.
///
/// # Errors
/// [`StoreError`] at the first record that cannot be read.
pub fn for_each_event(reader: &Reader, from: u64, mut visit: impl FnMut(&Event)) -> Result<(), StoreError> {
    let mut failed = None;
    reader.replay(from, &mut |sequence, bytes| match record::decode(bytes) {
        Ok(event) => {
            visit(&event);
            ControlFlow::Continue(())
        }
        Err(error) => {
            failed = Some(StoreError::Record { sequence, error });
            ControlFlow::Break(())
        }
    })?;
    failed.map_or(Ok(()), Err)
}
