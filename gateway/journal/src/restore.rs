//! Restore mode: reading what is left of a journal that `open` refuses, and, by an operator's decision, going on from it.

use std::ops::Deref;
use std::path::Path;

use crate::chain::Head;
use crate::error::{OpenError, ReadError};
use crate::format::{HEADER_KEY, Header, chunk_key, group_key, trailer_key};
use crate::journal::Journal;
use crate::open::{Base, Options, floor, io_error, new_header, write_failed};
use crate::reader::{Extent, Reader, check_group_start};
use crate::store::Batch;
use crate::witness::{self, Found, Sighting, Witness};

/// A read-only view over the intact part of a journal, up to its last complete batch before any damage. Dereferences to
/// [`Reader`].
pub struct Restore {
    reader: Reader,
    witness: Option<Head>,
    damage: Option<ReadError>,
    is_empty: bool,
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
    let (header, is_empty): (Header, bool) = match base.header(options)? {
        Some(header) => (header, false),
        None => (new_header(options, dir)?, true),
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
        is_empty,
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
            is_empty,
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
        if is_empty {
            batch.insert(HEADER_KEY, shared.header.encode());
        }
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
        let checked = entry.and_then(|(key, value)| {
            let expected = at.map_or(oldest, |at| at.sequence + 1);
            let (group, mut chain) = check_group_start(&key, &value, expected, at)?;
            let batch_last = group.batch_last;
            for record in group {
                chain = chain.next(record?.1);
            }
            Ok((chain, batch_last))
        });
        match checked {
            Ok((chain, batch_last)) => {
                at = Some(chain);
                if batch_last == chain.sequence {
                    complete = at;
                }
            }
            Err(error) => {
                damage = Some(error);
                break;
            }
        }
    }
    let reached = at.map_or(oldest - 1, |at| at.sequence);
    match complete {
        Some(head) => {
            if damage.is_none() && head.sequence < reached {
                damage = Some(ReadError::TornBatch {
                    expected: reached + 1,
                    found: reached,
                });
            }
            Ok((Extent { oldest, head }, damage))
        }
        None => Err(damage.unwrap_or(ReadError::Truncated {
            missing: oldest,
            head: oldest,
        })),
    }
}
