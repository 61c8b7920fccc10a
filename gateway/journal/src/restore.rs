//! Restore mode: reading what is left of a journal that `open` refuses, and, by an operator's decision, going on from it.

use std::ops::Deref;
use std::path::Path;

use crate::chain::Head;
use crate::error::{OpenError, ReadError};
use crate::format::{HEADER_KEY, Header, chunk_key, group_key, trailer_key};
use crate::journal::Journal;
use crate::open::{Base, Options, floor, io_error, new_header, write_failed};
use crate::reader::{Extent, Reader, verify_group};
use crate::store::Batch;
use crate::witness::{self, Found, Sighting, Witness};

/// A read-only view over the intact part of a journal, up to its last complete batch before any damage. Dereferences to
/// [`Reader`].
#[derive(Debug)]
pub struct Restore {
    reader: Reader,
    witness: Option<Head>,
    damage: Option<ReadError>,
    format_version: u32,
}

impl Deref for Restore {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

/// Opens what is left in `dir`, verifying all of it; changes no record. `options.create` is ignored.
///
/// # Errors
/// As [`Journal::open`], except that a store that is behind, forked, damaged or without a witness opens, as far as its
/// first damage. `Damaged` only if not even the start is intact.
pub fn open_for_restore(dir: impl AsRef<Path>, options: &Options) -> Result<Restore, OpenError> {
    let dir = dir.as_ref();
    let base = Base::open(
        dir,
        &Options {
            create: false,
            ..options.clone()
        },
    )?;
    let header = match base.header(options)? {
        Some(header) => header,
        None => new_header(options, dir)?,
    };
    let reader = base.into_reader(header);
    let witness = match Witness::load(dir).map_err(io_error("read", &witness::path(dir)))? {
        Found::Absent | Found::Damaged => None,
        Found::Intact(witness) => Some(witness.seen().head),
    };
    let (extent, damage) = intact_part(&reader)?;
    *reader.shared.extent() = extent;
    tracing::warn!(dir = %dir.display(), head = extent.head.sequence, ?witness, ?damage, "journal opened for restore");
    Ok(Restore {
        reader,
        witness,
        damage,
        format_version: options.identity.format_version,
    })
}

impl Restore {
    /// The newest durable head that the witness remembers, if it is readable. Records after `head()` up to here existed.
    #[must_use]
    pub fn witness(&self) -> Option<Head> {
        self.witness
    }

    /// The damage that ends the readable part, if it does not simply end.
    #[must_use]
    pub fn damage(&self) -> Option<&ReadError> {
        self.damage.as_ref()
    }

    /// Gives up what is not readable and goes on from `head()`: removes damaged and later groups, renews the witness.
    /// Sequences that were lost will be used again with other hashes, so whoever holds a later head will see a fork;
    /// an emptied store becomes a new one with a new id.
    ///
    /// # Errors
    /// A failed write.
    pub fn accept(self) -> Result<Journal, OpenError> {
        let Restore {
            reader,
            witness,
            damage,
            format_version,
        } = self;
        let shared = &reader.shared;
        let head = reader.head();
        tracing::warn!(
            head = head.sequence,
            ?witness,
            ?damage,
            "going on without the lost records"
        );
        let mut batch = Batch::default();
        batch.insert(
            HEADER_KEY,
            Header {
                format_version,
                ..shared.header.clone()
            }
            .encode(),
        );
        for entry in shared
            .store
            .scan(&group_key(head.sequence + 1), &group_key(u64::MAX), head.sequence)
        {
            batch.remove(&*entry?.0);
        }
        // A snapshot of lost records would revive them; ids stay unique because those of kept ones are smaller.
        for (id, at_sequence) in reader.snapshot_positions()? {
            if at_sequence > head.sequence {
                batch.remove(&trailer_key(id));
                for entry in shared
                    .store
                    .scan(&chunk_key(id, 0), &chunk_key(id, u32::MAX), head.sequence)
                {
                    batch.remove(&*entry?.0);
                }
            }
        }
        shared.store.commit(batch).map_err(write_failed(&shared.dir))?;
        let path = witness::path(&shared.dir);
        let sighting = Sighting {
            store_id: reader.store_id(),
            head,
        };
        let witness = Witness::create(&shared.dir, sighting).map_err(io_error("create", &path))?;
        Ok(Journal {
            reader,
            witness,
            staged_meta: Vec::new(),
        })
    }
}

/// Verifies from the oldest record on; the extent of complete batches before the first damage, and that damage.
fn intact_part(reader: &Reader) -> Result<(Extent, Option<ReadError>), ReadError> {
    let (extent, damage) = intact_below(reader, u64::MAX)?;
    match damage {
        // A group that begins inside the one before it: neither can be kept, for going on removes by key.
        Some(ReadError::Misplaced { found, .. }) if found <= extent.head.sequence => intact_below(reader, found),
        other => Ok((extent, other)),
    }
}

/// As `intact_part`, keeping only batches that end before `below`.
fn intact_below(reader: &Reader, below: u64) -> Result<(Extent, Option<ReadError>), ReadError> {
    let store = &reader.shared.store;
    let oldest = floor(reader)?;
    let genesis = Head {
        sequence: 0,
        hash: reader.shared.genesis,
    };
    let mut at = (oldest == 1).then_some(genesis);
    let mut complete = at;
    let mut damage = None;
    for entry in store.scan(&group_key(0), &group_key(u64::MAX), oldest) {
        let expected = at.map_or(oldest, |at| at.sequence + 1);
        let checked = entry.and_then(|(key, value)| verify_group(&key, &value, expected, at));
        let (head, batch_last) = match checked {
            Ok(verified) => verified,
            Err(error) => {
                damage = Some(error);
                break;
            }
        };
        at = Some(head);
        damage = (batch_last != head.sequence).then_some(ReadError::TornBatch {
            expected: batch_last,
            found: head.sequence,
        });
        if damage.is_none() && head.sequence < below {
            complete = at;
        }
    }
    match complete {
        Some(head) => Ok((Extent { oldest, head }, damage)),
        None => Err(damage.unwrap_or(ReadError::Truncated {
            missing: oldest,
            head: oldest,
        })),
    }
}
