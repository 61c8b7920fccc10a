//! The hub's store: every event in the journal, for good, and snapshots so that a start does not grow with history.
//!
//! Nothing is ever pruned: the journal is the authoritative ledger, and `ledger export` reads it from the first record.

use std::{ops::ControlFlow, path::Path};

use journal::{
    AppendError, BATCH_RECORDS_MAX, Journal, OpenError, Options, ReadError, Reader, SnapshotError, SnapshotWriter,
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

/// Chunks of a snapshot written between two batches, so that no gateway waits long for a snapshot.
const SNAPSHOT_SLICE: usize = 16;

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
    /// A snapshot under way, and the chunks that it lacks.
    writing: Option<(SnapshotWriter, std::vec::IntoIter<Vec<u8>>)>,
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

    /// Begins a snapshot if it is time for one, or writes the next slice of it. It is derived: a failure is an alarm in the
    /// log, and the next one is tried after as many events again.
    pub fn snapshot_when_due(&mut self, hub: &Hub) {
        let done = match self.writing.is_some() {
            true => self.write_slice(),
            false if self.events_since_snapshot >= SNAPSHOT_EVENTS => self.begin_snapshot(hub),
            false => Ok(()),
        };
        if let Err(error) = done {
            tracing::error!(%error, "ALARM no snapshot was written; the next start takes longer");
            self.events_since_snapshot = 0;
        }
    }

    /// Chunks that a snapshot under way lacks; none: no snapshot is under way.
    #[must_use]
    pub fn snapshot_lacks(&self) -> Option<usize> {
        self.writing.as_ref().map(|(_, chunks)| chunks.len())
    }

    fn begin_snapshot(&mut self, hub: &Hub) -> Result<(), SnapshotError> {
        let writer = self.journal.begin_snapshot(self.journal.head().sequence)?;
        self.writing = Some((writer, snapshot::encode(hub).into_iter()));
        self.events_since_snapshot = 0;
        Ok(())
    }

    fn write_slice(&mut self) -> Result<(), SnapshotError> {
        let Some((mut writer, mut chunks)) = self.writing.take() else {
            return Ok(());
        };
        for chunk in chunks.by_ref().take(SNAPSHOT_SLICE) {
            writer.push(&chunk)?;
        }
        match chunks.len() {
            0 => writer.finish()?,
            _ => self.writing = Some((writer, chunks)),
        }
        Ok(())
    }

    /// Writes a whole snapshot of the state after the last durable event.
    ///
    /// # Errors
    /// The journal is good nevertheless; the next start takes longer.
    pub fn snapshot(&mut self, hub: &Hub) -> Result<(), SnapshotError> {
        self.writing = None;
        self.begin_snapshot(hub)?;
        while self.writing.is_some() {
            self.write_slice()?;
        }
        Ok(())
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
    pub fn close(self) -> Result<(), StoreError> {
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
