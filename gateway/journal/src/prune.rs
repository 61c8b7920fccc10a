//! Retention: old segments are removed whole, and never before a base stands for what they led to.

use std::sync::Arc;

use crate::base;
use crate::error::{AppendError, ReadError};
use crate::journal::{FLOOR_CELL, Journal};
use crate::segment::Segment;

/// Most segments one [`Journal::prune`] removes, which keeps it to a few milliseconds, the base aside.
pub const PRUNE_SEGMENTS_MAX: usize = 8;

/// What [`Journal::prune`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// Oldest record now held.
    pub oldest_sequence: u64,
    /// Whether another call would remove more.
    pub is_more: bool,
}

/// Why nothing was pruned.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// Damage met on the way.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The base or the removal could not be written.
    #[error(transparent)]
    Write(#[from] AppendError),
}

impl Journal {
    /// Removes whole segments of records below `below_sequence`, oldest first, at most [`PRUNE_SEGMENTS_MAX`] a call. Never
    /// touches what the oldest retained snapshot needs for its replay, nor the last segment; without a snapshot it
    /// removes nothing. Where the base does not reach, the newest snapshot is written into a new one first.
    ///
    /// Order: base durable, floor durable, witness synced, segments removed. A cut anywhere leaves more than is needed.
    ///
    /// # Errors
    /// Damage met, or a failed write (poisoned).
    pub fn prune(&mut self, below_sequence: u64) -> Result<Pruned, PruneError> {
        let start = self.reader.oldest_sequence();
        let nothing = Pruned {
            oldest_sequence: start,
            is_more: false,
        };
        let Some(snapshot) = self.reader.oldest_snapshot_sequence() else {
            return Ok(nothing);
        };
        let limit = below_sequence.min(snapshot + 1);
        let (oldest, removed, is_more) = {
            let segments = self.reader.shared.segments();
            let removable = segments.windows(2).take_while(|pair| pair[1].first <= limit).count();
            let removed: Vec<Arc<Segment>> = segments
                .iter()
                .take(removable.min(PRUNE_SEGMENTS_MAX))
                .cloned()
                .collect();
            let oldest = segments.get(removed.len()).map_or(start, |segment| segment.first);
            (oldest, removed, removable > PRUNE_SEGMENTS_MAX)
        };
        if removed.is_empty() || oldest <= start || !self.have_base(oldest)? {
            return Ok(nothing);
        }
        // The witness's record must stay comparable after any crash, so it moves first.
        if self.witness.synced_sequence() + 1 < oldest {
            self.sync_witness()?;
        }
        self.stage(FLOOR_CELL, &oldest.to_le_bytes())?;
        self.append(&[])?;
        // Readers are told first: what they then miss, they know to be pruned.
        self.reader.shared.extent().oldest = oldest;
        self.reader.shared.segments().drain(..removed.len());
        self.remove(&removed)?;
        Ok(Pruned {
            oldest_sequence: oldest,
            is_more,
        })
    }

    fn remove(&mut self, removed: &[Arc<Segment>]) -> Result<(), AppendError> {
        let shared = Arc::clone(&self.reader.shared);
        shared.gate.pass(|| {
            for segment in removed {
                self.log.retire(segment).map_err(log_failed)?;
            }
            let log_dir = shared.dir.join(crate::open::LOG_DIR);
            shared.disk.sync_directory(&log_dir).map_err(log_failed)
        })
    }

    /// Where the second-oldest segment begins: [`Journal::prune`] below it removes exactly the oldest one. `None`: there is
    /// but one.
    #[must_use]
    pub fn second_segment(&self) -> Option<u64> {
        self.reader.shared.segments().get(1).map(|segment| segment.first)
    }

    /// Sees to it that the base stands at or behind the record before `oldest`. Returns whether it does: without a storage
    /// engine there is nothing to make it from.
    fn have_base(&mut self, oldest: u64) -> Result<bool, PruneError> {
        let shared = Arc::clone(&self.reader.shared);
        let (disk, dir, store_id) = (&*shared.disk, &shared.dir, &shared.owner.store_id);
        if self.base_at.is_none() {
            let base = self.reader.base_snapshot();
            self.base_at = base.ok().flatten().map(|base| base.at_sequence());
        }
        if self.base_at.is_some_and(|at| at + 1 >= oldest) {
            return Ok(true);
        }
        let _engine = match shared.engine.hold() {
            Ok(engine) => engine,
            Err(why) => {
                tracing::error!(%why, "ALARM the storage engine does not open; nothing is pruned");
                return Ok(false);
            }
        };
        let Some(snapshot) = self.reader.latest_snapshot()? else {
            return Err(ReadError::BaseDamaged {
                what: "no snapshot is left to make it from",
            }
            .into());
        };
        let written = base::write(disk, dir, store_id, snapshot.head(), snapshot.chunks())?;
        let bytes = shared
            .gate
            .pass(|| written.map_err(|source| AppendError::Write { what: "base", source }))?;
        self.base_at = Some(snapshot.at_sequence());
        tracing::info!(at = snapshot.at_sequence(), bytes, "the base was written");
        Ok(true)
    }

    /// Removes the segments that an interrupted pruning left.
    pub(crate) fn tidy(&mut self) {
        let shared = Arc::clone(&self.reader.shared);
        let oldest = self.reader.oldest_sequence();
        let left: Vec<Arc<Segment>> = {
            let mut segments = shared.segments();
            let count = segments.windows(2).take_while(|pair| pair[1].first <= oldest).count();
            segments.drain(..count).collect()
        };
        for segment in left {
            if let Err(error) = shared.disk.remove(segment.path()) {
                tracing::warn!(segment = %segment.name, %error, "a pruned segment could not be removed");
            }
        }
    }
}

fn log_failed(source: std::io::Error) -> AppendError {
    AppendError::Write { what: "log", source }
}
