//! Snapshots: the caller's state in chunks, anchored at a record, so that recovery need not replay from the first one.
//!
//! They lie in the storage engine, and one that pruning needed in the base file. They are derived: whatever is lost of
//! them, base and segments make again. A chunk is stored under its hash, so what did not change since the last snapshot is
//! not written again; a snapshot is a row of names, and counts from the moment its trailer is durable. The two newest are
//! kept: the older one is there in case the newer is damaged; damage of a chunk that both name costs both, and then base and
//! segments are left. What no snapshot names any more is removed behind each one. The engine is open as long as a writer or
//! a reader of a snapshot lives.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{Base, digest_chunk};
use crate::chain::Head;
use crate::check;
use crate::digest::Sha256;
use crate::engine::{Change, Engine};
use crate::error::{ReadError, SnapshotError};
use crate::format::{
    self, ChunkName, Fields, NAME_BYTES, OWNER_KEY, VALUE_BYTES_MAX, chunk_key, key_number, names_key, put_head,
    trailer_key,
};
use crate::journal::Journal;
use crate::reader::{Reader, Shared};
use crate::slot::Held;

/// Largest chunk in bytes: a stored value of 4 KiB less its checksum.
pub const SNAPSHOT_CHUNK_BYTES_MAX: usize = VALUE_BYTES_MAX - 4;
/// Complete snapshots kept.
const SNAPSHOTS_RETAINED: usize = 2;
/// Trailers looked at: the retained ones, and what a cut left beside them.
const TRAILERS_MAX: usize = 16;
/// Names in one row.
const NAMES_PER_ROW: usize = SNAPSHOT_CHUNK_BYTES_MAX / NAME_BYTES;
/// Chunks handed to the engine at once, and rows removed or looked at at once: few enough that a reader need not wait.
const ROWS_AT_ONCE: usize = 64;

/// Writes one snapshot in slices; owns its handle, so it may live beside the journal or on another thread. Dropped
/// before `finish`, it leaves no snapshot.
pub struct SnapshotWriter {
    shared: Arc<Shared>,
    /// From the first chunk on: whoever begins a snapshot need not wait until the engine is open.
    engine: Option<Held>,
    id: u64,
    at: Head,
    names: Vec<ChunkName>,
    waiting: Vec<Change>,
    bytes: u64,
    written_bytes: u64,
    is_finished: bool,
}

/// The id of a snapshot, and its trailer as it was found.
type TrailerRow = (u64, Vec<u8>);

/// A verified snapshot.
pub struct SnapshotReader {
    source: Source,
    trailer: Trailer,
    damaged: Vec<ReadError>,
}

enum Source {
    Engine { engine: Held, names: Vec<ChunkName> },
    Base(Base),
}

impl fmt::Debug for SnapshotWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SnapshotWriter")
            .field("at", &self.at)
            .field("count", &self.names.len())
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
        let known = known(&shared).map_err(SnapshotError::Engine)?;
        let newest = known.iter().map(|snapshot| snapshot.at_sequence).max();
        if let Some(newest) = newest.filter(|newest| *newest > at_sequence) {
            return Err(SnapshotError::Older { at_sequence, newest });
        }
        if shared.snapshot_open.swap(true, Ordering::AcqRel) {
            return Err(SnapshotError::InProgress);
        }
        // From here the writer's drop clears the flag.
        Ok(SnapshotWriter {
            shared,
            engine: None,
            id: known.iter().map(|snapshot| snapshot.id).max().unwrap_or(0) + 1,
            at,
            names: Vec::new(),
            waiting: Vec::new(),
            bytes: 0,
            written_bytes: 0,
            is_finished: false,
        })
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

    /// Of these, bytes that were not there yet.
    #[must_use]
    pub fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Adds a chunk; boundaries are kept. One that is there already is not written again. Does not sync.
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
        let name = chunk_name(chunk);
        let key = chunk_key(&name);
        let engine = self.engine().map_err(SnapshotError::Engine)?;
        let found = engine.get(&key).map_err(SnapshotError::Engine)?;
        // A damaged one is made whole again.
        let is_there = found.is_some_and(|value| format::open_row(&key, &value) == Some(chunk));
        if !is_there {
            self.waiting.push((key.to_vec(), Some(format::seal_row(&key, chunk))));
            self.written_bytes += chunk.len() as u64;
            if self.waiting.len() >= ROWS_AT_ONCE {
                self.write_waiting().map_err(SnapshotError::Engine)?;
            }
        }
        self.names.push(name);
        self.bytes += chunk.len() as u64;
        Ok(())
    }

    fn engine(&mut self) -> Result<&Held, String> {
        match &mut self.engine {
            Some(engine) => Ok(engine),
            engine => Ok(engine.insert(self.shared.engine.hold()?)),
        }
    }

    fn write_waiting(&mut self) -> Result<(), String> {
        let waiting = std::mem::take(&mut self.waiting);
        self.shared.engine.write(|engine| engine.write(waiting))
    }

    /// Makes the snapshot durable and drops all but the newest two. Syncs the engine's own file, not the log.
    ///
    /// # Errors
    /// The storage engine failed: earlier snapshots stand, and the journal goes on.
    pub fn finish(mut self) -> Result<(), SnapshotError> {
        self.try_finish().map_err(SnapshotError::Engine)
    }

    fn try_finish(&mut self) -> Result<(), String> {
        let engine = Arc::clone(self.engine()?);
        self.write_waiting()?;
        let rows = self.names.chunks(NAMES_PER_ROW).zip(0..);
        let names = rows.map(|(names, index)| {
            let key = names_key(self.id, index);
            (key.to_vec(), Some(format::seal_row(&key, &names.concat())))
        });
        let names: Vec<Change> = names.collect();
        let trailer = Trailer {
            at: self.at,
            count: u32::try_from(self.names.len()).map_err(|_| "more chunks than can be counted")?,
            bytes: self.bytes,
            digest: digest_names(&self.names),
        };
        let row = (trailer_key(self.id).to_vec(), Some(trailer.encode(self.id)));
        self.shared.engine.write(|engine| {
            engine.write(names)?;
            // The chunks before the trailer, for the engine may keep one without the other.
            engine.sync()?;
            engine.write(vec![row])?;
            engine.sync()
        })?;
        self.is_finished = true;
        // Looked at again, should this fail.
        *self.shared.snapshots() = None;
        let kept = self.remove_stale(&*engine)?;
        *self.shared.snapshots() = Some(kept);
        Ok(())
    }

    /// Removes what the newest two snapshots do not name: of those before them, and, once after each start and each
    /// snapshot that was given up, of whatever else lies there. Those that are left.
    fn remove_stale(&self, engine: &dyn Engine) -> Result<Vec<Known>, String> {
        let shared = &self.shared;
        let rows = trailers(engine)?;
        let (outdated, kept) = rows.split_at(rows.len().saturating_sub(SNAPSHOTS_RETAINED));
        let names = |(id, value): &TrailerRow| {
            // A trailer that cannot be read names nothing; the sweep finds its chunks.
            let trailer = Trailer::decode(*id, value)?;
            names_of(engine, *id, &trailer).ok()
        };
        let kept_names: HashSet<ChunkName> = kept.iter().filter_map(names).flatten().collect();
        let is_sweep = !shared.snapshots_swept.swap(true, Ordering::AcqRel);
        for row in outdated {
            let names = names(row).unwrap_or_default();
            let stale = names.iter().filter(|name| !kept_names.contains(*name));
            let rows_of_names = (0..).take(names.len().div_ceil(NAMES_PER_ROW));
            // The trailer first: a snapshot without one is none.
            let keys = std::iter::once(trailer_key(row.0).to_vec())
                .chain(stale.map(|name| chunk_key(name).to_vec()))
                .chain(rows_of_names.map(|index| names_key(row.0, index).to_vec()));
            remove(shared, keys)?;
        }
        if is_sweep {
            self.sweep(engine, kept, &kept_names)?;
        }
        Ok(kept.iter().map(|(id, value)| Known::of(*id, value)).collect())
    }

    /// Looks at every row, which takes a while for a large state.
    fn sweep(&self, engine: &dyn Engine, kept: &[TrailerRow], kept_names: &HashSet<ChunkName>) -> Result<(), String> {
        let mut keys: HashSet<Vec<u8>> = kept_names.iter().map(|name| chunk_key(name).to_vec()).collect();
        keys.insert(OWNER_KEY.to_vec());
        for (id, value) in kept {
            let count = Trailer::decode(*id, value).map_or(0, |trailer| trailer.count as usize);
            let rows = (0..).take(count.div_ceil(NAMES_PER_ROW));
            keys.extend(rows.map(|index| names_key(*id, index).to_vec()));
            keys.insert(trailer_key(*id).to_vec());
        }
        let mut from = Vec::new();
        loop {
            let rows = engine.rows(&from, &[0xff; 32], ROWS_AT_ONCE, false)?;
            let Some((last, _)) = rows.last() else { return Ok(()) };
            // The next key after it.
            from = [last.as_slice(), &[0]].concat();
            let stale = rows.iter().map(|(key, _)| key).filter(|key| !keys.contains(*key));
            remove(&self.shared, stale.cloned())?;
        }
    }
}

fn remove(shared: &Shared, keys: impl Iterator<Item = Vec<u8>>) -> Result<(), String> {
    let changes: Vec<Change> = keys.map(|key| (key, None)).collect();
    for part in changes.chunks(ROWS_AT_ONCE) {
        shared.engine.write(|engine| engine.write(part.to_vec()))?;
    }
    Ok(())
}

fn chunk_name(chunk: &[u8]) -> ChunkName {
    let hash = Sha256::of(&[chunk]);
    *hash.first_chunk().expect("a hash of 32 bytes")
}

fn digest_names(names: &[ChunkName]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for name in names {
        digest.update(name);
    }
    digest.finish()
}

/// The names of a snapshot's chunks, if they are those that its trailer counts.
fn names_of(engine: &dyn Engine, id: u64, trailer: &Trailer) -> Result<Vec<ChunkName>, &'static str> {
    let count = trailer.count as usize;
    let mut names: Vec<ChunkName> = Vec::new();
    for index in (0..).take(count.div_ceil(NAMES_PER_ROW)) {
        let key = names_key(id, index);
        let value = engine.get(&key).ok().flatten();
        let value = value.ok_or("names of its chunks are missing")?;
        let row = format::open_row(&key, &value).ok_or("names of its chunks fail their checksum")?;
        let (row, rest) = row.as_chunks::<NAME_BYTES>();
        if !rest.is_empty() {
            return Err("a name is cut short");
        }
        names.extend_from_slice(row);
    }
    if names.len() != count || digest_names(&names) != trailer.digest {
        return Err("the names of its chunks do not add up to its hash");
    }
    Ok(names)
}

impl Drop for SnapshotWriter {
    fn drop(&mut self) {
        if !self.is_finished {
            // Its chunks have no name.
            self.shared.snapshots_swept.store(false, Ordering::Release);
        }
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
        match self.engine_and_trailers() {
            Ok((engine, rows)) => {
                for (id, value) in rows.into_iter().rev() {
                    match self.verified_snapshot(&engine, id, &value) {
                        Ok(snapshot) => {
                            found = Some(snapshot);
                            break;
                        }
                        Err(damage) => damaged.push(damage),
                    }
                }
            }
            Err(message) => damaged.push(ReadError::Engine { message }),
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

    fn engine_and_trailers(&self) -> Result<(Held, Vec<TrailerRow>), String> {
        let shared = &self.shared;
        let engine = shared.engine.hold()?;
        let rows = trailers(&*engine)?;
        *shared.snapshots() = Some(rows.iter().map(|(id, value)| Known::of(*id, value)).collect());
        Ok((engine, rows))
    }

    fn verified_snapshot(&self, engine: &Held, id: u64, value: &[u8]) -> Result<SnapshotReader, ReadError> {
        let damage = |at_sequence, what| ReadError::SnapshotDamaged { at_sequence, what };
        let trailer = Trailer::decode(id, value).ok_or_else(|| damage(0, "its trailer"))?;
        let names = names_of(&**engine, id, &trailer).map_err(|what| damage(trailer.at.sequence, what))?;
        let source = Source::Engine {
            engine: Arc::clone(engine),
            names,
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
        let is_whole = match &snapshot.source {
            // Each chunk stands under its own hash, and the names have theirs.
            Source::Engine { engine, names } => {
                let bytes = check::bytes(names, |name| {
                    let chunk = chunk_of(&**engine, name, at.sequence)?;
                    if chunk_name(&chunk) != *name {
                        return Err(damage("a chunk is another one"));
                    }
                    Ok(chunk.len() as u64)
                });
                bytes? == snapshot.trailer.bytes
            }
            Source::Base(_) => {
                let (mut digest, mut bytes) = (Sha256::new(), 0);
                for chunk in snapshot.chunks() {
                    let chunk = chunk?;
                    bytes += chunk.len() as u64;
                    digest_chunk(&mut digest, &chunk);
                }
                bytes == snapshot.trailer.bytes && snapshot.trailer.digest == digest.finish()
            }
        };
        if !is_whole {
            return Err(damage("its chunks do not add up to its hash"));
        }
        Ok(snapshot)
    }

    /// Where the oldest retained snapshot stands, the base aside; a trailer that cannot be read counts as standing at
    /// record 0, so that nothing is pruned on its account. `None`: there is none.
    pub(crate) fn oldest_snapshot_sequence(&self) -> Option<u64> {
        let known = known(&self.shared).unwrap_or_default();
        known.iter().map(|snapshot| snapshot.at_sequence).min()
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

    /// The chunks in order, as they were pushed. Their hashes were compared before; their checksums are once more.
    pub fn chunks(&self) -> Box<dyn Iterator<Item = Result<Vec<u8>, ReadError>> + Send + '_> {
        let at_sequence = self.trailer.at.sequence;
        match &self.source {
            Source::Base(base) => Box::new(
                base.chunks()
                    .map(|chunk| chunk.map_err(|what| ReadError::BaseDamaged { what })),
            ),
            Source::Engine { engine, names } => {
                Box::new(names.iter().map(move |name| chunk_of(&**engine, name, at_sequence)))
            }
        }
    }
}

/// What stands under the name of a chunk of the snapshot at `at_sequence`, if its checksum says that it was put there.
fn chunk_of(engine: &dyn Engine, name: &ChunkName, at_sequence: u64) -> Result<Vec<u8>, ReadError> {
    let damage = |what| ReadError::SnapshotDamaged { at_sequence, what };
    let key = chunk_key(name);
    let value = engine.get(&key).map_err(|message| ReadError::Engine { message })?;
    let value = value.ok_or_else(|| damage("a chunk is missing"))?;
    let chunk = format::open_row(&key, &value).ok_or_else(|| damage("a chunk fails its checksum"))?;
    Ok(chunk.to_vec())
}

/// Trailers in order of their ids, oldest first.
fn trailers(engine: &dyn Engine) -> Result<Vec<TrailerRow>, String> {
    let (from, to) = (trailer_key(0), trailer_key(u64::MAX));
    let mut rows = engine.rows(&from, &to, TRAILERS_MAX, true)?;
    rows.reverse();
    let rows = rows.into_iter();
    Ok(rows
        .map(|(key, value)| (key_number(&key).unwrap_or(0), value))
        .collect())
}

/// A snapshot in the engine, by its trailer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Known {
    id: u64,
    /// 0: its trailer cannot be read.
    at_sequence: u64,
}

impl Known {
    fn of(id: u64, value: &[u8]) -> Known {
        let at_sequence = Trailer::decode(id, value).map_or(0, |trailer| trailer.at.sequence);
        Known { id, at_sequence }
    }
}

/// The snapshots in the engine, oldest first, which is opened only if they are not known.
fn known(shared: &Shared) -> Result<Vec<Known>, String> {
    shared.engine.check()?;
    if let Some(known) = &*shared.snapshots() {
        return Ok(known.clone());
    }
    let rows = trailers(&*shared.engine.hold()?)?;
    let known: Vec<Known> = rows.iter().map(|(id, value)| Known::of(*id, value)).collect();
    *shared.snapshots() = Some(known.clone());
    Ok(known)
}
