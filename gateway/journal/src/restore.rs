//! Restore mode: reading what is left of a journal that `open` refuses, naming all that is lost, and salvaging what is
//! whole into a new journal beside it. The damaged one is never changed.

use std::ops::{ControlFlow, Deref};
use std::path::Path;

use crate::base;
use crate::chain::Head;
use crate::error::{AppendError, OpenError, ReadError};
use crate::format::SegmentHeader;
use crate::journal::{BATCH_RECORDS_MAX, FLOOR_CELL, Journal};
use crate::log::begin_log;
use crate::open::{LOG_DIR, Options, Place, io_error};
use crate::reader::{Reader, damaged};
use crate::scan::scan_all;
use crate::slot::{self, EngineSlot};
use crate::snapshot::SnapshotReader;
use crate::witness::{self, Found, Sighting, Witness};

/// Records that cannot be read any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    /// The first of them.
    pub first: u64,
    /// The last of them.
    pub last: u64,
}

/// A read-only view over all that is whole of a journal. Dereferences to [`Reader`]: a replay ends at the first damage, and
/// can go on behind it.
#[derive(Debug)]
pub struct Restore {
    reader: Reader,
    witness: Option<Head>,
    damage: Vec<ReadError>,
    lost: Vec<Lost>,
}

/// What [`Restore::salvage`] carried over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Salvaged {
    /// First and last record of the new journal; the last is below the first if it has a base alone.
    pub records: Lost,
    /// Where the state stands that it begins with; 0: it begins with the first record.
    pub base: u64,
    /// Lost for good.
    pub lost: Vec<Lost>,
    /// Whole, but on the other side of what is lost: they stay in the damaged journal.
    pub left_behind: Vec<Lost>,
}

impl Deref for Restore {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

/// Opens what is left in `dir` and checks every byte that counts; changes nothing. `options.create` is ignored.
///
/// # Errors
/// As [`Journal::open`], except that a journal that is behind, damaged or without a witness opens. `Damaged` only if no
/// segment's header is whole.
pub fn open_for_restore(dir: impl AsRef<Path>, options: &Options) -> Result<Restore, OpenError> {
    let dir = dir.as_ref();
    let options = Options {
        create: false,
        ..options.clone()
    };
    let place = Place::open(dir, &options)?;
    if place.segments.is_empty() {
        return Err(OpenError::NotAJournal(dir.to_path_buf()));
    }
    let found = place.scan(Some(&options))?;
    let head = found.scan.head;
    let (end, newest) = (found.scan.tail.at, found.scan.tail.ordinal - 1);
    let all = scan_all(&*place.disk, &place.segments, found.owner.store_id);
    let mut damage = all.map_err(io_error("read", &dir.join(LOG_DIR)))?;
    for segment in &place.segments {
        let headers = segment.damaged_headers(&*place.disk);
        for at in headers.map_err(io_error("read", segment.path()))? {
            let segment = segment.name.clone();
            damage.push(ReadError::HeaderDamaged { segment, at });
        }
    }
    let gaps = found.scan.damage.iter();
    damage.extend(gaps.filter(|gap| matches!(gap, ReadError::Gap { .. })).cloned());
    let witness = match Witness::load(&*place.disk, dir).map_err(io_error("read", &witness::path(dir)))? {
        Found::Intact(witness) => Some(witness.seen()),
        Found::Absent | Found::Damaged => {
            damage.push(ReadError::WitnessDamaged);
            None
        }
    };
    if let Some(seen) = witness.filter(|seen| seen.ordinal > newest) {
        let (missing, head) = (head.sequence + 1, seen.head.sequence);
        damage.push(match place.segments.last() {
            // Frames of cells alone are missing from the end.
            Some(segment) if head < missing => damaged(segment, end, missing, head),
            Some(_) | None => ReadError::Truncated { missing, head },
        });
    }
    let witness = witness.map(|seen| seen.head);
    let (reader, _) = place.into_reader(found, &options, |place, owner| {
        EngineSlot::open_if_ours(&place.disk, &place.dir, options.cache_bytes, &owner.store_id)
    });
    if let Err(error) = reader.base_snapshot() {
        damage.push(error);
    }
    let mut lost: Vec<Lost> = damage.iter().filter_map(ReadError::lost).collect();
    lost.sort_by_key(|lost| lost.first);
    Ok(Restore {
        reader,
        witness,
        damage,
        lost,
    })
}

/// Names every damage of a journal that nobody has open; none: it is whole. Snapshots in the storage engine are derived and
/// not looked at.
///
/// # Errors
/// As [`open_for_restore`].
pub fn verify(dir: impl AsRef<Path>, options: &Options) -> Result<Vec<ReadError>, OpenError> {
    Ok(open_for_restore(dir, options)?.damage)
}

/// Puts the storage engine of a journal that nobody has open aside: the next opening begins it anew.
///
/// # Errors
/// It is open, or cannot be moved.
pub fn discard_derived(dir: impl AsRef<Path>, options: &Options) -> Result<(), OpenError> {
    let dir = dir.as_ref();
    let place = Place::open(
        dir,
        &Options {
            create: false,
            ..options.clone()
        },
    )?;
    slot::move_aside(&*place.disk, dir).map_err(io_error("move aside the storage engine of", dir))
}

impl Restore {
    /// The newest durable head that the witness remembers, if it is readable. Records after `head()` up to here existed.
    #[must_use]
    pub fn witness(&self) -> Option<Head> {
        self.witness
    }

    /// Every damage met.
    #[must_use]
    pub fn damage(&self) -> &[ReadError] {
        &self.damage
    }

    /// The records that are lost, in order.
    #[must_use]
    pub fn lost(&self) -> &[Lost] {
        &self.lost
    }

    /// Runs of records without a hole, in order.
    #[must_use]
    pub fn whole(&self) -> Vec<Lost> {
        let mut whole = Vec::new();
        let mut first = self.reader.oldest_sequence();
        let head = self.reader.head().sequence;
        for lost in &self.lost {
            if first < lost.first && first <= head {
                let last = (lost.first - 1).min(head);
                whole.push(Lost { first, last });
            }
            first = first.max(lost.last + 1);
        }
        if first <= head {
            whole.push(Lost { first, last: head });
        }
        whole
    }

    /// Writes what one can go on from into a new journal in `to`: the newest run of records that a snapshot or the base
    /// leads to, or else the oldest run. Sequences and hashes stay as they were; those behind the last record carried over
    /// will be used again, so whoever holds receipts must be told (a new epoch).
    ///
    /// # Errors
    /// `to` holds a journal already, nothing leads to a state, or writing failed.
    pub fn salvage(&self, to: &Path, options: &Options) -> Result<Salvaged, OpenError> {
        let snapshot = self.reader.latest_snapshot()?;
        let at = snapshot.as_ref().map_or(0, SnapshotReader::at_sequence);
        let whole = self.whole();
        // The run that the state can be replayed over; records below the snapshot may come along without a gap.
        let run = whole.iter().rev().find(|run| run.first <= at + 1 && run.last >= at);
        let empty = Lost {
            first: at + 1,
            last: at,
        };
        let run = *run.unwrap_or(&empty);
        let before = Head {
            sequence: run.first - 1,
            hash: match snapshot.as_ref().map(SnapshotReader::head) {
                Some(head) if head.sequence + 1 == run.first => head.hash,
                Some(_) | None => self.reader.chain_hash_at(run.first - 1)?,
            },
        };
        begin_at(to, options, &self.reader, before, snapshot.as_ref())?;
        let mut journal = Journal::open(to, options)?;
        self.copy(&mut journal, run)?;
        journal.close()?;
        let left_behind = whole.into_iter().filter(|other| *other != run).collect();
        Ok(Salvaged {
            records: run,
            base: at,
            lost: self.lost.clone(),
            left_behind,
        })
    }

    fn copy(&self, journal: &mut Journal, run: Lost) -> Result<(), OpenError> {
        let mut batch: Vec<Vec<u8>> = Vec::new();
        let mut failed: Option<AppendError> = None;
        let mut flush = |batch: &mut Vec<Vec<u8>>| {
            let records: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            let appended = journal.append(&records);
            batch.clear();
            appended.map(drop)
        };
        if run.last >= run.first {
            let walked = self.reader.replay(run.first, &mut |sequence, bytes| {
                if sequence > run.last {
                    return ControlFlow::Break(());
                }
                batch.push(bytes.to_vec());
                if batch.len() < BATCH_RECORDS_MAX {
                    return ControlFlow::Continue(());
                }
                match flush(&mut batch) {
                    Ok(()) => ControlFlow::Continue(()),
                    Err(error) => {
                        failed = Some(error);
                        ControlFlow::Break(())
                    }
                }
            });
            match walked {
                // The run ends where the damage begins.
                Ok(()) | Err(ReadError::Damaged { .. } | ReadError::Gap { .. } | ReadError::ChainBroken { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        match failed {
            Some(error) => Err(error.into()),
            None => Ok(flush(&mut batch)?),
        }
    }
}

/// Makes a journal that begins behind `before`, with the cells and the id of another.
fn begin_at(
    dir: &Path,
    options: &Options,
    of: &Reader,
    before: Head,
    snapshot: Option<&SnapshotReader>,
) -> Result<(), OpenError> {
    let disk = &*options.disk;
    if !disk.list(dir).map_err(io_error("read", dir))?.is_empty() {
        return Err(OpenError::NotAJournal(dir.to_path_buf()));
    }
    let log_dir = dir.join(LOG_DIR);
    let mut cells = of.shared.cells().all();
    cells.insert(FLOOR_CELL.to_owned(), (before.sequence + 1).to_le_bytes().to_vec());
    let owner = of.shared.owner.clone();
    let store_id = owner.store_id;
    let header = SegmentHeader {
        owner,
        before,
        ordinal: 1,
        cells,
    };
    disk.create_directory(dir)
        .and_then(|()| disk.create_directory(&log_dir))
        .map_err(io_error("create", dir))?;
    if let Some(snapshot) = snapshot {
        base::write(disk, dir, &store_id, snapshot.head(), snapshot.chunks())?.map_err(io_error("write", dir))?;
    }
    begin_log(disk, &log_dir, &header, options.segment_bytes).map_err(io_error("create", &log_dir))?;
    let sighting = Sighting {
        store_id,
        head: before,
        ordinal: 0,
    };
    Witness::create(disk, dir, sighting).map_err(io_error("create", &witness::path(dir)))?;
    Ok(())
}
