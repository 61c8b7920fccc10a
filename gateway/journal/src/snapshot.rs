//! Snapshots: the caller's state in chunks, anchored at a record, so that recovery need not replay from the first one.
//!
//! They lie in the storage engine, and one that pruning needed in the base file. They are derived: whatever is lost of
//! them, base and segments make again. Chunks are written like any other row and become durable with the writer's end; a
//! snapshot counts from the moment its trailer is durable. The two newest are kept: the older one is there in case the
//! newer is damaged. Chunks of dropped or abandoned snapshots are removed a few at a time by the next writer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sha2::{Digest, Sha256};

use crate::base::{Base, digest_chunk};
use crate::chain::Head;
use crate::engine::{Change, Row};
use crate::error::{ReadError, SnapshotError};
use crate::format::{self, Fields, VALUE_BYTES_MAX, chunk_key, key_number, put_head, trailer_key};
use crate::journal::Journal;
use crate::reader::{Reader, Shared};

/// Largest chunk in bytes: a stored value of 4 KiB less its checksum.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = VALUE_BYTES_MAX - 4;
/// Complete snapshots kept.
const SNAPSHOTS_RETAINED: usize = 2;
/// Trailers looked at: the retained ones, and what a cut left beside them.
const TRAILERS_MAX: usize = 16;
/// Stale chunks removed for every chunk written: more than one, so that garbage shrinks; few, so that a push stays short.
const STALE_CHUNKS_PER_PUSH: usize = 4;

/// Writes one snapshot in slices; owns its handle, so it may live beside the journal or on another thread. Dropped
/// before `finish`, it leaves no snapshot.
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    id: u64,
    /// Ids only grow, so what lies before this one is stale.
    oldest_kept: u64,
    at: Head,
    count: u32,
    bytes: u64,
    digest: Sha256,
}

/// A verified snapshot.
pub struct SnapshotReader {
    source: Source,
    trailer: Trailer,
    damaged: Vec<ReadError>,
}

enum Source {
    Engine { shared: Arc<Shared>, id: u64 },
    Base(Base),
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
        let mut content = Vec::new();
        put_head(&mut content, self.at);
        content.extend_from_slice(&self.count.to_le_bytes());
        content.extend_from_slice(&self.bytes.to_le_bytes());
        content.extend_from_slice(&self.digest);
        format::seal_row(&trailer_key(id), &content)
    }

    fn decode(id: u64, value: &[u8]) -> Option<Trailer> {
        let mut fields = Fields(format::open_row(&trailer_key(id), value)?);
        Some(Trailer {
            at: fields.head()?,
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
    /// Another writer lives, a newer snapshot exists, the chain hash at `at_sequence` is not available, or there is no
    /// storage engine.
    pub fn begin_snapshot(&mut self, at_sequence: u64) -> Result<SnapshotWriter, SnapshotError> {
        let shared = Arc::clone(&self.reader.shared);
        let at = Head {
            sequence: at_sequence,
            hash: self.reader.chain_hash_at(at_sequence)?,
        };
        let rows = trailers(&shared).map_err(SnapshotError::Engine)?;
        let newest = rows.iter().map(|(id, value)| position(*id, value)).max();
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
            oldest_kept: 0,
            at,
            count: 0,
            bytes: 0,
            digest: Sha256::new(),
        };
        let (all, last) = (chunk_key(0, 0), chunk_key(u64::MAX, u32::MAX));
        let newest_chunk = writer.shared.engine.read(|engine| engine.rows(&all, &last, 1, true));
        let newest_chunk: Vec<Row> = newest_chunk.map_err(SnapshotError::Engine)?;
        let newest_chunk = newest_chunk.first().and_then(|(key, _)| key_number(key)).unwrap_or(0);
        let newest_trailer = rows.iter().map(|(id, _)| *id).max().unwrap_or(0);
        writer.id = newest_trailer.max(newest_chunk) + 1;
        writer.oldest_kept = rows.first().map_or(writer.id, |(id, _)| *id);
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

    /// Bytes of the chunks so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a chunk; boundaries are kept. Does not sync.
    ///
    /// # Errors
    /// Too large a chunk (the writer stays usable), or the storage engine failed.
    pub fn push(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        if chunk.len() > SNAPSHOT_CHUNK_BYTES_MAX {
            return Err(SnapshotError::ChunkTooLarge {
                bytes: chunk.len(),
                bytes_max: SNAPSHOT_CHUNK_BYTES_MAX,
            });
        }
        let mut changes = self.stale_chunks().map_err(SnapshotError::Engine)?;
        let key = chunk_key(self.id, self.count);
        changes.push((key.to_vec(), Some(format::seal_row(&key, chunk))));
        let engine = &self.shared.engine;
        engine
            .write(|engine| engine.write(changes))
            .map_err(SnapshotError::Engine)?;
        self.count += 1;
        self.bytes += chunk.len() as u64;
        digest_chunk(&mut self.digest, chunk);
        Ok(())
    }

    /// Makes the snapshot durable and drops all but the newest two. One sync, of the engine's own file.
    ///
    /// # Errors
    /// The storage engine failed: earlier snapshots stand, and the journal goes on.
    pub fn finish(self) -> Result<(), SnapshotError> {
        let digest = self.digest.clone().finalize().into();
        let trailer = Trailer {
            at: self.at,
            count: self.count,
            bytes: self.bytes,
            digest,
        };
        let row = (trailer_key(self.id).to_vec(), Some(trailer.encode(self.id)));
        let written = self.shared.engine.write(|engine| {
            // The chunks before the trailer, for the engine may keep one without the other.
            engine.sync()?;
            engine.write(vec![row])?;
            engine.sync()
        });
        written.map_err(SnapshotError::Engine)?;
        let rows = trailers(&self.shared).map_err(SnapshotError::Engine)?;
        let outdated: Vec<Change> = rows
            .iter()
            .rev()
            .skip(SNAPSHOTS_RETAINED)
            .map(|(id, _)| (trailer_key(*id).to_vec(), None))
            .collect();
        let engine = &self.shared.engine;
        engine
            .write(|engine| engine.write(outdated))
            .map_err(SnapshotError::Engine)
    }

    fn stale_chunks(&self) -> Result<Vec<Change>, String> {
        let (from, to) = (chunk_key(0, 0), chunk_key(self.oldest_kept - 1, u32::MAX));
        let stale = self
            .shared
            .engine
            .read(|engine| engine.rows(&from, &to, STALE_CHUNKS_PER_PUSH, false))?;
        Ok(stale.into_iter().map(|(key, _)| (key, None)).collect())
    }
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        self.shared.snapshot_open.store(false, Ordering::Release);
    }
}

impl Reader {
    /// The newest intact snapshot, the base included; `None` if there is none and all records are held, so that a replay
    /// from the first one makes the state. A damaged one is logged, named in [`SnapshotReader::damaged`] and passed over
    /// for the one before it.
    ///
    /// # Errors
    /// No snapshot is intact and records were pruned: the damage of the newest.
    pub fn latest_snapshot(&self) -> Result<Option<SnapshotReader>, ReadError> {
        let mut damaged = Vec::new();
        let mut found = None;
        let rows = trailers(&self.shared).unwrap_or_else(|message| {
            damaged.push(ReadError::Engine { message });
            Vec::new()
        });
        for (id, value) in rows.into_iter().rev() {
            match self.verified_snapshot(id, &value) {
                Ok(snapshot) => {
                    found = Some(snapshot);
                    break;
                }
                Err(damage) => damaged.push(damage),
            }
        }
        match self.base_snapshot() {
            Ok(Some(base))
                if found
                    .as_ref()
                    .is_none_or(|found| found.at_sequence() < base.at_sequence()) =>
            {
                found = Some(base);
            }
            Ok(_) => {}
            Err(damage) => damaged.push(damage),
        }
        for damage in &damaged {
            tracing::warn!(%damage, "passing over a damaged snapshot");
        }
        match found {
            Some(found) => Ok(Some(SnapshotReader { damaged, ..found })),
            None if self.oldest_sequence() == 1 => Ok(None),
            None => Err(damaged
                .into_iter()
                .next()
                .unwrap_or(ReadError::BaseDamaged { what: "it is missing" })),
        }
    }

    fn verified_snapshot(&self, id: u64, value: &[u8]) -> Result<SnapshotReader, ReadError> {
        let damage = |at_sequence, what| ReadError::SnapshotDamaged { at_sequence, what };
        let trailer = Trailer::decode(id, value).ok_or_else(|| damage(0, "its trailer"))?;
        let source = Source::Engine {
            shared: Arc::clone(&self.shared),
            id,
        };
        self.verified(source, trailer)
    }

    /// The base, if it is whole.
    pub(crate) fn base_snapshot(&self) -> Result<Option<SnapshotReader>, ReadError> {
        let shared = &self.shared;
        let opened = Base::open(&*shared.disk, &shared.dir, &shared.owner.store_id);
        let base = match opened {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(base))) => base,
            Ok(Some(Err(what))) => return Err(ReadError::BaseDamaged { what }),
            Err(_) => {
                return Err(ReadError::BaseDamaged {
                    what: "it cannot be read",
                });
            }
        };
        let trailer = Trailer {
            at: base.at,
            count: base.count,
            bytes: base.bytes,
            digest: base.digest,
        };
        self.verified(Source::Base(base), trailer).map(Some)
    }

    fn verified(&self, source: Source, trailer: Trailer) -> Result<SnapshotReader, ReadError> {
        let at = trailer.at;
        let damage = |what| ReadError::SnapshotDamaged {
            at_sequence: at.sequence,
            what,
        };
        match self.chain_hash_at(at.sequence) {
            Ok(hash) if hash == at.hash => {}
            Ok(_) => return Err(damage("it belongs to another history")),
            Err(ReadError::BeyondHead { .. }) => return Err(damage("it is ahead of the records")),
            // The record it stands on is gone or damaged; replay will name that. The snapshot itself may be sound.
            Err(_) => {}
        }
        let snapshot = SnapshotReader {
            source,
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
            return Err(damage("its chunks do not add up to its hash"));
        }
        Ok(snapshot)
    }

    /// Where the oldest retained snapshot stands, the base aside; a trailer that cannot be read counts as standing at
    /// record 0, so that nothing is pruned on its account. `None`: there is none.
    pub(crate) fn oldest_snapshot_sequence(&self) -> Option<u64> {
        let rows = trailers(&self.shared).unwrap_or_default();
        rows.iter().map(|(id, value)| position(*id, value)).min()
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

    /// Bytes of its chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.trailer.bytes
    }

    /// Whether it comes from the base file, because the storage engine had none as new.
    #[must_use]
    pub fn is_base(&self) -> bool {
        matches!(self.source, Source::Base(_))
    }

    /// Newer snapshots that were passed over, and why.
    #[must_use]
    pub fn damaged(&self) -> &[ReadError] {
        &self.damaged
    }

    /// The chunks in order, as they were pushed.
    pub fn chunks(&self) -> Box<dyn Iterator<Item = Result<Vec<u8>, ReadError>> + '_> {
        let at_sequence = self.trailer.at.sequence;
        let damage = move |what| ReadError::SnapshotDamaged { at_sequence, what };
        match &self.source {
            Source::Base(base) => Box::new(
                base.chunks()
                    .map(|chunk| chunk.map_err(|what| ReadError::BaseDamaged { what })),
            ),
            Source::Engine { shared, id } => Box::new((0..self.trailer.count).map(move |index| {
                let key = chunk_key(*id, index);
                let value = shared.engine.read(|engine| engine.get(&key));
                let value = value.map_err(|message| ReadError::Engine { message })?;
                let value = value.ok_or_else(|| damage("a chunk is missing"))?;
                let chunk = format::open_row(&key, &value).ok_or_else(|| damage("a chunk fails its checksum"))?;
                Ok(chunk.to_vec())
            })),
        }
    }
}

/// Trailers in order of their ids, oldest first.
fn trailers(shared: &Shared) -> Result<Vec<(u64, Vec<u8>)>, String> {
    let (from, to) = (trailer_key(0), trailer_key(u64::MAX));
    let mut rows = shared
        .engine
        .read(|engine| engine.rows(&from, &to, TRAILERS_MAX, true))?;
    rows.reverse();
    let rows = rows.into_iter();
    Ok(rows
        .map(|(key, value)| (key_number(&key).unwrap_or(0), value))
        .collect())
}

/// Where a snapshot stands; 0 if its trailer cannot be read.
fn position(id: u64, value: &[u8]) -> u64 {
    Trailer::decode(id, value).map_or(0, |trailer| trailer.at.sequence)
}
