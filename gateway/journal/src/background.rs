//! A snapshot that is written on a thread of its own: whoever appends does not wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::error::SnapshotError;
use crate::snapshot::SnapshotWriter;

/// A snapshot that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The record it is anchored at.
    pub at_sequence: u64,
    /// Bytes of its chunks.
    pub bytes: u64,
    /// Of these, bytes that were not there yet.
    pub written_bytes: u64,
    /// How long it took.
    pub took: Duration,
}

/// How a snapshot is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Haste {
    /// Beside whoever appends: of the processor it is on, it takes a quarter at most.
    Gentle,
    /// Somebody waits for it.
    Full,
}

/// Chunks between two rests of a gentle writer.
const GENTLE_CHUNKS: usize = 16;
/// It rests for so many times as long as it worked.
const GENTLE_REST: u32 = 3;

/// A snapshot under way. Dropped, it is given up, and leaves no snapshot.
#[derive(Debug)]
pub struct Background {
    is_given_up: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<Option<Written>, SnapshotError>>>,
}

impl SnapshotWriter {
    /// Writes these chunks and finishes, on a thread of its own.
    ///
    /// # Errors
    /// [`SnapshotError::Engine`]: the thread cannot be started; then there is no snapshot.
    pub fn write_behind(
        self,
        haste: Haste,
        chunks: impl Iterator<Item = Vec<u8>> + Send + 'static,
    ) -> Result<Background, SnapshotError> {
        let is_given_up = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&is_given_up);
        let work = move || write(self, haste, chunks, &given_up);
        let started = std::thread::Builder::new().name("snapshot".to_owned()).spawn(work);
        let thread = started.map_err(|error| SnapshotError::Engine(format!("no thread for it: {error}")))?;
        Ok(Background {
            is_given_up,
            thread: Some(thread),
        })
    }
}

fn write(
    mut writer: SnapshotWriter,
    haste: Haste,
    chunks: impl Iterator<Item = Vec<u8>>,
    is_given_up: &AtomicBool,
) -> Result<Option<Written>, SnapshotError> {
    let since = Instant::now();
    let mut working_since = since;
    for (number, chunk) in chunks.enumerate() {
        if is_given_up.load(Ordering::Relaxed) {
            return Ok(None);
        }
        writer.push(&chunk)?;
        if haste == Haste::Gentle && (number + 1).is_multiple_of(GENTLE_CHUNKS) {
            // The priority of a thread is not always ours to lower.
            std::thread::sleep(working_since.elapsed() * GENTLE_REST);
            working_since = Instant::now();
        }
    }
    let (at_sequence, bytes, written_bytes) = (writer.at_sequence(), writer.bytes(), writer.written_bytes());
    writer.finish()?;
    Ok(Some(Written {
        at_sequence,
        bytes,
        written_bytes,
        took: since.elapsed(),
    }))
}

impl Background {
    /// Whether [`Background::finish`] has nothing to wait for.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// As [`SnapshotWriter::push`] and [`SnapshotWriter::finish`], or its thread panicked.
    pub fn finish(mut self) -> Result<Written, SnapshotError> {
        self.join().map(|written| written.expect("only a drop gives it up"))
    }

    fn join(&mut self) -> Result<Option<Written>, SnapshotError> {
        let thread = self.thread.take().expect("joined once, by value or by drop");
        let panicked = |_| Err(SnapshotError::Engine("the thread that wrote it panicked".to_owned()));
        thread.join().unwrap_or_else(panicked)
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.is_given_up.store(true, Ordering::Relaxed);
            if let Err(error) = self.join() {
                tracing::warn!(%error, "a snapshot that nobody waits for was not written");
            }
        }
    }
}
