//! Who writes the journal: the thread that decides, or, while that goes on deciding, one of its own. The journal is in one
//! place or the other, so nobody else can use it meanwhile; what is read goes through a reader.

use std::{
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use gateway_core::{Event, Now};
use journal::{AppendError, Journal, Reader};

use super::StoreError;
use crate::record;

/// Events of decisions that share a sync, in order.
pub(super) type Batch = Vec<(Now, Event)>;

/// The journal, wherever it is.
pub(super) struct Pen {
    reader: Reader,
    /// `None`: the helper has it.
    journal: Option<Journal>,
    helper: Option<Helper>,
    room: Batch,
    written_bytes: u64,
}

/// The thread that writes beside the engine's. It ends when nobody can give it anything any more.
struct Helper {
    lent: SyncSender<(Journal, Batch)>,
    /// With the room of the batch, for the one after the next.
    returned: Receiver<(Journal, Batch, Result<(), AppendError>)>,
}

impl Pen {
    pub(super) fn new(journal: Journal) -> Self {
        Self {
            reader: journal.reader(),
            written_bytes: journal.written_bytes(),
            journal: Some(journal),
            helper: None,
            room: Batch::new(),
        }
    }

    /// For whoever reads.
    pub(super) const fn reader(&self) -> &Reader {
        &self.reader
    }

    /// Bytes written since the journal was opened, as of the last batch that is done.
    pub(super) const fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// The journal, as soon as it is here.
    pub(super) fn journal(&mut self) -> Result<&mut Journal, StoreError> {
        self.settle()?;
        self.journal.as_mut().ok_or(StoreError::Writer)
    }

    /// Makes a batch durable.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let journal = self.journal()?;
        append(journal, batch)?;
        self.written_bytes = journal.written_bytes();
        Ok(())
    }

    /// Has a batch made durable, and leaves an empty one; it is durable when [`Self::settle`] returns.
    pub(super) fn lend(&mut self, batch: &mut Batch) -> Result<(), StoreError> {
        self.settle()?;
        let batch = mem::replace(batch, mem::take(&mut self.room));
        let journal = self.journal.take().ok_or(StoreError::Writer)?;
        let helper = match &mut self.helper {
            Some(helper) => helper,
            helper => helper.insert(Helper::start()?),
        };
        helper.lent.send((journal, batch)).map_err(|_| StoreError::Writer)
    }

    /// Waits for the batch that is under way.
    pub(super) fn settle(&mut self) -> Result<(), StoreError> {
        if self.journal.is_some() {
            return Ok(());
        }
        let helper = self.helper.as_ref().ok_or(StoreError::Writer)?;
        let (journal, room, result) = helper.returned.recv().map_err(|_| StoreError::Writer)?;
        self.room = room;
        self.written_bytes = journal.written_bytes();
        self.journal = Some(journal);
        result.map_err(StoreError::Append)
    }

    /// Closes the journal.
    pub(super) fn close(mut self) -> Result<(), StoreError> {
        self.settle()?;
        self.helper = None;
        let journal = self.journal.take().ok_or(StoreError::Writer)?;
        Ok(journal.close()?)
    }
}

impl Drop for Pen {
    /// Whoever opens the journal next shall not find it still in use.
    fn drop(&mut self) {
        if self.helper.is_some()
            && let Err(error) = self.settle()
        {
            tracing::error!(%error, "the last batch was not written");
        }
    }
}

impl Helper {
    fn start() -> Result<Self, StoreError> {
        let (lent, to_write) = sync_channel::<(Journal, Batch)>(1);
        let (written, returned) = sync_channel(1);
        let work = move || {
            while let Ok((mut journal, mut batch)) = to_write.recv() {
                let result = append(&mut journal, &batch);
                batch.clear();
                if written.send((journal, batch, result)).is_err() {
                    break;
                }
            }
        };
        let started = thread::Builder::new().name("journal".to_owned()).spawn(work);
        started.map_err(|_| StoreError::Writer)?;
        Ok(Self { lent, returned })
    }
}

fn append(journal: &mut Journal, batch: &Batch) -> Result<(), AppendError> {
    for part in batch.chunks(journal::BATCH_RECORDS_MAX) {
        let records: Vec<Vec<u8>> = part.iter().map(|(now, event)| record::encode(now, event)).collect();
        let records: Vec<&[u8]> = records.iter().map(Vec::as_slice).collect();
        journal.append(&records)?;
    }
    Ok(())
}
