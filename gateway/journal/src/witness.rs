//! The witness: a small file beside the log that remembers a recent durable head.
//!
//! A log that lost its last frame looks like one that ends there. So after every durable append the new head is written
//! here, into one of two slots, and compared with the log at open.
//!
//! - It is never ahead of the log: a head is written only after its records are durable.
//! - It costs a `pwrite` an append. Its own fdatasync runs once every [`WITNESS_SYNC_APPENDS`] appends or
//!   [`WITNESS_SYNC_INTERVAL`], whichever comes first, and when the journal is closed or pruned.
//! - Only one slot is rewritten between two syncs; the other holds a synced head and is not touched. A power cut that
//!   tears the slot being written therefore leaves the other one.
//!
//! What it detects: after a kill, any lost acknowledged append, for the page cache survives. After a power cut, any
//! loss that reaches back to the last synced head. What it does not: a power cut in which the log loses only appends
//! younger than that (a disk that loses what it said was durable), and a log and witness set back together.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::chain::Head;
use crate::disk::{Disk, DiskFile};
use crate::format::Fields;

/// At 5,000 single appends a second this is 20 witness syncs a second, under half a percent of the appends' own.
pub(crate) const WITNESS_SYNC_APPENDS: u32 = 256;
/// Bounds how old the synced head may be while appends arrive slowly; one sync a second is nothing, even to an SD card.
pub(crate) const WITNESS_SYNC_INTERVAL: Duration = Duration::from_secs(1);

const MAGIC: &[u8; 8] = b"HFWITNS2";
/// Slots lie in pages of their own, so that writing one cannot tear the other.
const SLOT_STRIDE_BYTES: u64 = 4096;
const SLOT_COUNT: usize = 2;
const SLOT_BYTES: usize = 8 + 8 + 16 + 8 + 32 + 8 + 4;

/// What one slot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sighting {
    pub(crate) store_id: [u8; 16],
    pub(crate) head: Head,
    /// Ordinal of the newest frame; 0: none.
    pub(crate) ordinal: u64,
}

/// The open witness file.
pub(crate) struct Witness {
    file: Box<dyn DiskFile>,
    seen: Sighting,
    /// Grows with every sync; the higher of two intact slots is the newer.
    generation: u64,
    /// Slot rewritten until the next sync.
    slot: usize,
    appends_unsynced: u32,
    synced_at: Instant,
    synced_sequence: u64,
}

/// What is found at the witness's place.
pub(crate) enum Found {
    /// No file.
    Absent,
    /// A file without an intact slot.
    Damaged,
    /// An intact witness.
    Intact(Witness),
}

pub(crate) fn path(dir: &Path) -> PathBuf {
    dir.join("witness")
}

impl Witness {
    /// Reads the witness of `dir` and syncs it, so that what is compared now cannot vanish later.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Found> {
        let file = match disk.open(&path(dir)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Absent),
            Err(error) => return Err(error),
        };
        let mut newest: Option<(u64, usize, Sighting)> = None;
        for slot in 0..SLOT_COUNT {
            let mut bytes = [0; SLOT_BYTES];
            if file.fill_at(&mut bytes, slot_offset(slot))? < SLOT_BYTES {
                continue;
            }
            let Some((generation, seen)) = decode(&bytes) else {
                continue;
            };
            if newest.is_none_or(|(best, ..)| generation > best) {
                newest = Some((generation, slot, seen));
            }
        }
        let Some((generation, slot, seen)) = newest else {
            return Ok(Found::Damaged);
        };
        file.sync()?;
        Ok(Found::Intact(Witness::over(
            file,
            seen,
            generation + 1,
            (slot + 1) % SLOT_COUNT,
        )))
    }

    /// Writes a new witness file, replacing any, durable when this returns.
    pub(crate) fn create(disk: &dyn Disk, dir: &Path, seen: Sighting) -> io::Result<Witness> {
        let staged = dir.join("witness.new");
        let file = disk.create(&staged)?;
        file.write_all_at(&vec![0; SLOT_COUNT * SLOT_STRIDE_BYTES as usize], 0)?;
        file.write_all_at(&encode(1, &seen), slot_offset(0))?;
        file.sync()?;
        disk.rename(&staged, &path(dir))?;
        disk.sync_directory(dir)?;
        Ok(Witness::over(file, seen, 2, 1))
    }

    fn over(file: Box<dyn DiskFile>, seen: Sighting, generation: u64, slot: usize) -> Witness {
        let synced_sequence = seen.head.sequence;
        Witness {
            file,
            seen,
            generation,
            slot,
            appends_unsynced: 0,
            synced_at: Instant::now(),
            synced_sequence,
        }
    }

    pub(crate) fn seen(&self) -> Sighting {
        self.seen
    }

    /// The newest head whose sighting would survive a power cut.
    pub(crate) fn synced_sequence(&self) -> u64 {
        self.synced_sequence
    }

    /// Notes a head that has just become durable; not yet synced itself.
    pub(crate) fn note(&mut self, head: Head, ordinal: u64) -> io::Result<()> {
        (self.seen.head, self.seen.ordinal) = (head, ordinal);
        self.file
            .write_all_at(&encode(self.generation, &self.seen), slot_offset(self.slot))?;
        self.appends_unsynced += 1;
        Ok(())
    }

    pub(crate) fn is_sync_due(&self) -> bool {
        self.appends_unsynced >= WITNESS_SYNC_APPENDS
            || (self.appends_unsynced > 0 && self.synced_at.elapsed() >= WITNESS_SYNC_INTERVAL)
    }

    pub(crate) fn is_synced(&self) -> bool {
        self.appends_unsynced == 0
    }

    /// Makes the noted head durable and turns to the other slot.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.file.sync()?;
        self.generation += 1;
        self.slot = (self.slot + 1) % SLOT_COUNT;
        self.appends_unsynced = 0;
        self.synced_at = Instant::now();
        self.synced_sequence = self.seen.head.sequence;
        Ok(())
    }
}

fn slot_offset(slot: usize) -> u64 {
    slot as u64 * SLOT_STRIDE_BYTES
}

fn encode(generation: u64, seen: &Sighting) -> [u8; SLOT_BYTES] {
    let mut bytes = [0; SLOT_BYTES];
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&generation.to_le_bytes());
    bytes[16..32].copy_from_slice(&seen.store_id);
    bytes[32..40].copy_from_slice(&seen.head.sequence.to_le_bytes());
    bytes[40..72].copy_from_slice(&seen.head.hash);
    bytes[72..80].copy_from_slice(&seen.ordinal.to_le_bytes());
    let crc = crc32fast::hash(&bytes[..SLOT_BYTES - 4]);
    bytes[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn decode(bytes: &[u8; SLOT_BYTES]) -> Option<(u64, Sighting)> {
    let (content, crc) = bytes.split_at(SLOT_BYTES - 4);
    if crc32fast::hash(content).to_le_bytes() != crc || !content.starts_with(MAGIC) {
        return None;
    }
    let mut fields = Fields(&content[MAGIC.len()..]);
    let generation = fields.u64()?;
    let seen = Sighting {
        store_id: fields.array()?,
        head: fields.head()?,
        ordinal: fields.u64()?,
    };
    Some((generation, seen))
}
