//! Reading: everything returned has passed its checksums, the gap check and the hash chain.

use std::fmt;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chain::Head;
use crate::error::ReadError;
use crate::format::{self, Group, Header, group_key, key_number};
use crate::store::{IVec, Store};

/// One durable record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its place, from 1.
    pub sequence: u64,
    /// Chain hash after it.
    pub hash: [u8; 32],
    /// What was appended.
    pub bytes: Vec<u8>,
}

/// What readers may see; moved forward only once it is durable.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Extent {
    /// Oldest record held; head + 1 when there is none.
    pub(crate) oldest: u64,
    pub(crate) head: Head,
}

/// What a journal and its readers share.
pub(crate) struct Shared {
    pub(crate) store: Store,
    pub(crate) header: Header,
    pub(crate) genesis: [u8; 32],
    pub(crate) extent: Mutex<Extent>,
    /// Set while a snapshot writer lives.
    pub(crate) snapshot_open: std::sync::atomic::AtomicBool,
    pub(crate) dir: std::path::PathBuf,
}

impl Shared {
    pub(crate) fn extent(&self) -> MutexGuard<'_, Extent> {
        self.extent.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// A read-only handle; cheap to clone, usable from any thread while the journal is appended to. It keeps the directory
/// locked as long as it lives.
#[derive(Clone)]
pub struct Reader {
    pub(crate) shared: Arc<Shared>,
}

impl fmt::Debug for Reader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader")
            .field("dir", &self.shared.dir)
            .field("extent", &*self.shared.extent())
            .finish()
    }
}

impl Reader {
    /// The newest durable record's position; sequence 0 and the genesis hash when there is none yet.
    #[must_use]
    pub fn head(&self) -> Head {
        self.shared.extent().head
    }

    /// Sequence of the oldest record still held; `head().sequence + 1` when there is none.
    #[must_use]
    pub fn oldest_sequence(&self) -> u64 {
        self.shared.extent().oldest
    }

    /// Random id given to the store when it was created; the genesis hash follows from it.
    #[must_use]
    pub fn store_id(&self) -> [u8; 16] {
        self.shared.header.store_id
    }

    /// Chain hash after record `sequence` (0: genesis). Available from the record before the oldest up to the head.
    ///
    /// # Errors
    /// Pruned, beyond the head, or damage in the group read.
    pub fn chain_hash_at(&self, sequence: u64) -> Result<[u8; 32], ReadError> {
        let Extent { oldest, head } = *self.shared.extent();
        if sequence == head.sequence {
            return Ok(head.hash);
        }
        if sequence > head.sequence {
            return Err(ReadError::BeyondHead {
                requested: sequence,
                head: head.sequence,
            });
        }
        if sequence + 1 < oldest {
            return Err(ReadError::Pruned {
                requested: sequence,
                oldest,
            });
        }
        let (first, value) = self.group_with(sequence + 1)?;
        let group = Group::decode(first, &value)?;
        let mut at = Head {
            sequence: first - 1,
            hash: group.previous,
        };
        for record in group.take((sequence + 1 - first) as usize) {
            at = at.next(record?.1);
        }
        if at.sequence < sequence {
            return Err(self.missing(at.sequence + 1));
        }
        Ok(at.hash)
    }

    /// Calls `visit(sequence, bytes)` for every record from `from_sequence` (at least 1) to the head, in order, until
    /// it breaks. `head + 1` visits nothing. Each record was verified before it is visited; damage ends the replay.
    ///
    /// # Errors
    /// The first damage met, named by its sequence.
    pub fn replay(
        &self,
        from_sequence: u64,
        visit: &mut dyn FnMut(u64, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.walk(from_sequence, &mut |at, bytes| visit(at.sequence, bytes))
    }

    /// Up to `records_max` records from `from_sequence` on; empty at `head + 1`.
    ///
    /// # Errors
    /// As [`Reader::replay`].
    pub fn read(&self, from_sequence: u64, records_max: usize) -> Result<Vec<Record>, ReadError> {
        let mut records = Vec::new();
        if records_max == 0 {
            return Ok(records);
        }
        self.walk(from_sequence, &mut |at, bytes| {
            records.push(Record {
                sequence: at.sequence,
                hash: at.hash,
                bytes: bytes.to_vec(),
            });
            if records.len() < records_max {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        })?;
        Ok(records)
    }

    /// A named cell's durable content.
    ///
    /// # Errors
    /// Damage of the cell, or sled's.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        let key = format::meta_key(name);
        match self.shared.store.get(&key)? {
            None => Ok(None),
            Some(value) => match format::open_cell(&key, &value) {
                Some(content) => Ok(Some(content.to_vec())),
                None => Err(ReadError::CellDamaged { name: name.to_owned() }),
            },
        }
    }

    /// As `replay`, with the head after each record.
    pub(crate) fn walk(
        &self,
        from_sequence: u64,
        visit: &mut dyn FnMut(Head, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let Extent { oldest, head } = *self.shared.extent();
        let from = from_sequence.max(1);
        if from < oldest {
            return Err(ReadError::Pruned {
                requested: from,
                oldest,
            });
        }
        if from > head.sequence {
            let at_end = from == head.sequence + 1;
            return if at_end {
                Ok(())
            } else {
                Err(ReadError::BeyondHead {
                    requested: from,
                    head: head.sequence,
                })
            };
        }
        let result = self.walk_groups(from, head, visit);
        match result {
            // Pruning may overtake a reader; what it then misses is not damage.
            Err(ReadError::Gap { missing, .. }) if missing < self.oldest_sequence() => Err(ReadError::Pruned {
                requested: missing,
                oldest: self.oldest_sequence(),
            }),
            other => other,
        }
    }

    fn walk_groups(
        &self,
        from: u64,
        head: Head,
        visit: &mut dyn FnMut(Head, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        let (first, _) = self.group_with(from)?;
        let mut at: Option<Head> = (first == 1).then_some(Head {
            sequence: 0,
            hash: self.shared.genesis,
        });
        for entry in self
            .shared
            .store
            .scan(&group_key(first), &group_key(head.sequence), from)
        {
            let (key, value) = entry?;
            let expected = at.map_or(first, |at| at.sequence + 1);
            let (start, mut chain) = check_group_start(&key, &value, expected, at)?;
            for record in start {
                let (sequence, bytes) = record?;
                chain = chain.next(bytes);
                if sequence >= from && visit(chain, bytes).is_break() {
                    return Ok(());
                }
            }
            at = Some(chain);
        }
        let reached = at.map_or(first - 1, |at| at.sequence);
        if reached < head.sequence {
            return Err(ReadError::Truncated {
                missing: reached + 1,
                head: head.sequence,
            });
        }
        if at != Some(head) {
            return Err(ReadError::ChainBroken {
                sequence: head.sequence,
            });
        }
        Ok(())
    }

    /// The group whose key is the greatest at or below `sequence`.
    fn group_with(&self, sequence: u64) -> Result<(u64, IVec), ReadError> {
        let found = self.shared.store.last_in(&group_key(0), &group_key(sequence))?;
        let (key, value) = found.ok_or_else(|| self.missing(sequence))?;
        let first = key_number(&key).ok_or(ReadError::GroupDamaged {
            sequence,
            what: "its key is malformed",
        })?;
        Ok((first, value))
    }
}

impl Reader {
    /// Names a hole that begins at `missing` by what follows it.
    fn missing(&self, missing: u64) -> ReadError {
        let next = self
            .shared
            .store
            .scan(&group_key(missing), &group_key(u64::MAX), missing)
            .next();
        match next
            .transpose()
            .map(|entry| entry.and_then(|(key, _)| key_number(&key)))
        {
            Ok(Some(found)) => ReadError::Gap { missing, found },
            Ok(None) => ReadError::Truncated {
                missing,
                head: self.head().sequence,
            },
            Err(error) => error,
        }
    }
}

/// Checks that the group continues at `expected`, after `at` if that is known; returns it with the head before it.
fn check_group_start<'a>(
    key: &[u8],
    value: &'a [u8],
    expected: u64,
    at: Option<Head>,
) -> Result<(Group<'a>, Head), ReadError> {
    let first = key_number(key).ok_or(ReadError::GroupDamaged {
        sequence: expected,
        what: "its key is malformed",
    })?;
    if first > expected {
        return Err(ReadError::Gap {
            missing: expected,
            found: first,
        });
    }
    let group = Group::decode(first, value)?;
    if first < expected {
        return Err(ReadError::Misplaced { expected, found: first });
    }
    if at.is_some_and(|at| at.hash != group.previous) {
        return Err(ReadError::ChainBroken { sequence: first });
    }
    let before = Head {
        sequence: first - 1,
        hash: group.previous,
    };
    Ok((group, before))
}

/// Verifies a whole group as `check_group_start` and record by record; returns the head after it and the last sequence
/// of the append it belongs to.
pub(crate) fn verify_group(
    key: &[u8],
    value: &[u8],
    expected: u64,
    at: Option<Head>,
) -> Result<(Head, u64), ReadError> {
    let (group, mut chain) = check_group_start(key, value, expected, at)?;
    let batch_last = group.batch_last;
    for record in group {
        chain = chain.next(record?.1);
    }
    Ok((chain, batch_last))
}
