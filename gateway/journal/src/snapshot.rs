//! Snapshots: the caller's state in chunks, anchored at a record, so that recovery need not replay from the first one.
//!
//! Chunks are written like any other value and become durable with whatever commit comes next; a snapshot counts from
//! the moment its trailer is durable. The two newest are kept: the older one is there in case the newer is damaged.
//! Chunks of dropped or abandoned snapshots are removed a few at a time by the next writer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::chain::Head;
use crate::error::{ReadError, SnapshotError};
use crate::format::{self, Fields, VALUE_BYTES_MAX, chunk_key, key_number, trailer_key};
use crate::journal::Journal;
use crate::reader::{Reader, Shared};
use crate::store::{Batch, IVec};

/// Largest chunk in bytes: a stored value of 4 KiB less its checksum.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = VALUE_BYTES_MAX - 4;
/// Complete snapshots kept.
const SNAPSHOTS_RETAINED: usize = 2;
/// Stale chunks removed for every chunk written: more than one, so that garbage shrinks; few, so that a push stays short.
const STALE_CHUNKS_PER_PUSH: usize = 4;

/// Writes one snapshot in slices; owns its handle, so it may live beside the journal or on another thread. Dropped
/// before `finish`, it leaves no snapshot.
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    id: u64,
    at: Head,
    count: u32,
    bytes: u64,
    digest: Sha256,
}

/// A verified snapshot.
pub struct SnapshotReader {
    shared: Arc<Shared>,
    id: u64,
    trailer: Trailer,
    damaged: Vec<ReadError>,
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("at", &self.at)
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for SnapshotReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotReader")
            .field("at", &self.trailer.at)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Trailer {
    at: Head,
    count: u32,
    bytes: u64,
    digest: [u8; 32],
}

impl Trailer {
    fn encode(&self, id: u64) -> Vec<u8> {
        let mut content = self.at.sequence.to_le_bytes().to_vec();
        content.extend_from_slice(&self.at.hash);
        content.extend_from_slice(&self.count.to_le_bytes());
        content.extend_from_slice(&self.bytes.to_le_bytes());
        content.extend_from_slice(&self.digest);
        format::seal_cell(&trailer_key(id), &content)
    }

    fn decode(id: u64, value: &[u8]) -> Option<Trailer> {
        let mut fields = Fields(format::open_cell(&trailer_key(id), value)?);
        let at = Head {
            sequence: fields.u64()?,
            hash: fields.array()?,
        };
        Some(Trailer {
            at,
            count: fields.u32()?,
            bytes: fields.u64()?,
            digest: fields.array()?,
        })
    }
}

impl Journal {
    /// Begins a snapshot of the caller's state as it is after record `at_sequence`: from the newest snapshot's to the
    /// head's.
    ///
    /// # Errors
    /// Another writer lives, a newer snapshot exists, or the chain hash at `at_sequence` is not available.
    pub fn begin_snapshot(&mut self, at_sequence: u64) -> Result<SnapshotWriter, SnapshotError> {
        let shared = Arc::clone(&self.reader.shared);
        let at = Head {
            sequence: at_sequence,
            hash: self.reader.chain_hash_at(at_sequence)?,
        };
        let newest = self
            .reader
            .snapshot_positions()?
            .into_iter()
            .map(|(_, at_sequence)| at_sequence)
            .max();
        if let Some(newest) = newest.filter(|newest| *newest > at_sequence) {
            return Err(SnapshotError::Older { at_sequence, newest });
        }
        if shared.snapshot_open.swap(true, Ordering::AcqRel) {
            return Err(SnapshotError::InProgress);
        }
        // From here the writer's drop clears the flag.
        let mut writer = SnapshotWriter {
            shared,
            id: 0,
            at,
            count: 0,
            bytes: 0,
            digest: Sha256::new(),
        };
        let newest_trailer = self
            .reader
            .shared
            .store
            .last_in(&trailer_key(0), &trailer_key(u64::MAX))?;
        let newest_chunk = self
            .reader
            .shared
            .store
            .last_in(&chunk_key(0, 0), &chunk_key(u64::MAX, u32::MAX))?;
        let number = |entry: Option<(IVec, IVec)>| entry.and_then(|(key, _)| key_number(&key)).unwrap_or(0);
        writer.id = number(newest_trailer).max(number(newest_chunk)) + 1;
        Ok(writer)
    }

    /// Writes a whole snapshot at once; see [`Journal::begin_snapshot`] for doing it in slices.
    ///
    /// # Errors
    /// As the writer's.
    pub fn write_snapshot(
        &mut self,
        at_sequence: u64,
        chunks: impl IntoIterator<Item = Vec<u8>>,
    ) -> Result<(), SnapshotError> {
        let mut writer = self.begin_snapshot(at_sequence)?;
        for chunk in chunks {
            writer.push(&chunk)?;
        }
        writer.finish()
    }
}

impl SnapshotWriter {
    /// Record the snapshot is anchored at.
    #[must_use]
    pub fn at_sequence(&self) -> u64 {
        self.at.sequence
    }

    /// Adds a chunk; boundaries are kept. Does not sync.
    ///
    /// # Errors
    /// Too large a chunk (the writer stays usable), or a failed write (journal poisoned).
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(SnapshotError::ChunkTooLarge {
                bytes: chunk.len(),
                bytes_max: SNAPSHOT_CHUNK_BYTES_MAX,
            });
        }
        let mut batch = Batch::default();
        self.remove_stale_chunks(&mut batch)?;
        let key = chunk_key(self.id, self.count);
        batch.insert(&key, format::seal_cell(&key, chunk));
        self.shared.store.write(batch)?;
        self.count += 1;
        self.bytes += chunk.len() as u64;
        digest_chunk(&mut self.digest, chunk);
        Ok(())
    }

    /// Makes the snapshot durable and drops all but the newest two. One sync.
    ///
    /// # Errors
    /// A failed write or sync: the journal is poisoned, earlier snapshots stand.
    pub fn finish(self) -> Result<(), SnapshotError> {
        let store = &self.shared.store;
        let digest = self.digest.clone().finalize().into();
        let trailer = Trailer {
            at: self.at,
            count: self.count,
            bytes: self.bytes,
            digest,
        };
        let mut batch = Batch::default();
        batch.insert(&trailer_key(self.id), trailer.encode(self.id));
        store.commit(batch)?;
        let mut outdated = Batch::default();
        for (id, _) in trailers(&self.shared)?.iter().rev().skip(SNAPSHOTS_RETAINED) {
            outdated.remove(&trailer_key(*id));
        }
        Ok(store.write(outdated)?)
    }

    /// Ids only grow, so everything stale lies before the oldest snapshot that is kept, or before this one.
    fn remove_stale_chunks(&self, batch: &mut Batch) -> Result<(), ReadError> {
        let oldest_kept = trailers(&self.shared)?.first().map_or(self.id, |(id, _)| *id);
        let stale = self
            .shared
            .store
            .scan(&chunk_key(0, 0), &chunk_key(oldest_kept - 1, u32::MAX), 0);
        for entry in stale.take(STALE_CHUNKS_PER_PUSH) {
            batch.remove(&*entry?.0);
        }
        Ok(())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        self.shared.snapshot_open.store(false, Ordering::Release);
    }
}

impl Reader {
    /// The newest intact snapshot, `None` if none was ever completed. A damaged one is logged, named in
    /// [`SnapshotReader::damaged`] and passed over for the one before it.
    ///
    /// # Errors
    /// Snapshots exist, but none is intact: the damage of the newest. Replaying from the first record may still work.
    pub fn latest_snapshot(&self) -> Result<Option<SnapshotReader>, ReadError> {
        let mut damaged = Vec::new();
        for (id, value) in trailers(&self.shared)?.into_iter().rev() {
            match self.verified_snapshot(id, &value) {
                Ok(trailer) => {
                    return Ok(Some(SnapshotReader {
                        shared: Arc::clone(&self.shared),
                        id,
                        trailer,
                        damaged,
                    }));
                }
                Err(damage) => {
                    tracing::warn!(%damage, "passing over a damaged snapshot");
                    damaged.push(damage);
                }
            }
        }
        damaged.into_iter().next().map_or(Ok(None), Err)
    }

    fn verified_snapshot(&self, id: u64, value: &[u8]) -> Result<Trailer, ReadError> {
        let damage = |at_sequence, what| ReadError::SnapshotDamaged { at_sequence, what };
        let trailer = Trailer::decode(id, value).ok_or_else(|| damage(0, "its trailer"))?;
        let at = trailer.at;
        match self.chain_hash_at(at.sequence) {
            Ok(hash) if hash == at.hash => {}
            Ok(_) => return Err(damage(at.sequence, "it belongs to another history")),
            Err(ReadError::BeyondHead { .. }) => return Err(damage(at.sequence, "it is ahead of the records")),
            // The record it stands on is gone or damaged; replay will name that. The snapshot itself may be sound.
            Err(_) => {}
        }
        let snapshot = SnapshotReader {
            shared: Arc::clone(&self.shared),
            id,
            trailer,
            damaged: Vec::new(),
        };
        let mut digest = Sha256::new();
        let mut bytes = 0;
        for chunk in snapshot.chunks() {
            let chunk = chunk?;
            bytes += chunk.len() as u64;
            digest_chunk(&mut digest, &chunk);
        }
        let digest: [u8; 32] = digest.finalize().into();
        if bytes != snapshot.trailer.bytes || digest != snapshot.trailer.digest {
            return Err(damage(at.sequence, "its chunks do not add up to its hash"));
        }
        Ok(snapshot.trailer)
    }

    /// Where the oldest retained snapshot stands; a trailer that cannot be read counts as standing at record 0, so that
    /// nothing is pruned on its account.
    pub(crate) fn oldest_snapshot_sequence(&self) -> Result<Option<u64>, ReadError> {
        Ok(self
            .snapshot_positions()?
            .into_iter()
            .map(|(_, at_sequence)| at_sequence)
            .min())
    }

    /// Ids of the retained snapshots and where they stand; 0 if the trailer cannot be read.
    pub(crate) fn snapshot_positions(&self) -> Result<Vec<(u64, u64)>, ReadError> {
        let at = |(id, value): (u64, IVec)| (id, Trailer::decode(id, &value).map_or(0, |trailer| trailer.at.sequence));
        Ok(trailers(&self.shared)?.into_iter().map(at).collect())
    }
}

impl SnapshotReader {
    /// The record the state follows; replay goes on at the next one.
    #[must_use]
    pub fn at_sequence(&self) -> u64 {
        self.trailer.at.sequence
    }

    /// Position and chain hash of that record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.trailer.at
    }

    /// Newer snapshots that were passed over, and why.
    #[must_use]
    pub fn damaged(&self) -> &[ReadError] {
        &self.damaged
    }

    /// The chunks in order, as they were pushed.
    pub fn chunks(&self) -> impl Iterator<Item = Result<Vec<u8>, ReadError>> + use<'_> {
        (0..self.trailer.count).map(|index| {
            let damage = |what| ReadError::SnapshotDamaged {
                at_sequence: self.trailer.at.sequence,
                what,
            };
            let key = chunk_key(self.id, index);
            let value = self
                .shared
                .store
                .get(&key)?
                .ok_or_else(|| damage("a chunk is missing"))?;
            let chunk = format::open_cell(&key, &value).ok_or_else(|| damage("a chunk fails its checksum"))?;
            Ok(chunk.to_vec())
        })
    }
}

/// Trailers in order of their ids, oldest first.
fn trailers(shared: &Shared) -> Result<Vec<(u64, IVec)>, ReadError> {
    shared
        .store
        .scan(&trailer_key(0), &trailer_key(u64::MAX), 0)
        .map(|entry| entry.map(|(key, value)| (key_number(&key).unwrap_or(0), value)))
        .collect()
}

/// Lengths are part of the hash, so that moved chunk boundaries are noticed.
fn digest_chunk(digest: &mut Sha256, chunk: &[u8]) {
    digest.update((chunk.len() as u32).to_le_bytes());
    digest.update(chunk);
}
