//! Reading: everything returned has passed its checksums, the gap check and the hash chain.

use std::fmt;
use std::io;
use std::ops::ControlFlow;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::cells::Cells;
use crate::chain::Head;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::Owner;
use crate::frame::FrameHeader;
use crate::log::Gate;
use crate::segment::{Found, Segment};
use crate::slot::EngineSlot;
use crate::snapshot::Known;

/// Takes a frame and its records.
type Visit<'a> = dyn FnMut(&FrameHeader, &mut dyn Iterator<Item = &[u8]>) -> ControlFlow<()> + 'a;

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
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: std::path::PathBuf,
    pub(crate) owner: Owner,
    pub(crate) gate: Gate,
    pub(crate) extent: Mutex<Extent>,
    pub(crate) segments: Mutex<Vec<Arc<Segment>>>,
    pub(crate) cells: Mutex<Cells>,
    pub(crate) engine: EngineSlot,
    /// Snapshots in the engine, once somebody looked.
    pub(crate) snapshots: Mutex<Option<Vec<Known>>>,
    /// Set while a snapshot writer lives.
    pub(crate) snapshot_open: AtomicBool,
    /// Whether nothing lies in the engine that no snapshot names.
    pub(crate) snapshots_swept: AtomicBool,
    /// What the scan at opening met in the newest segment.
    pub(crate) damage: Vec<ReadError>,
    /// Last, so that it is released after everything else.
    pub(crate) _lock: Box<dyn Send + Sync>,
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(crate) fn extent(&self) -> MutexGuard<'_, Extent> {
        held(&self.extent)
    }

    pub(crate) fn segments(&self) -> MutexGuard<'_, Vec<Arc<Segment>>> {
        held(&self.segments)
    }

    pub(crate) fn snapshots(&self) -> MutexGuard<'_, Option<Vec<Known>>> {
        held(&self.snapshots)
    }

    pub(crate) fn cells(&self) -> MutexGuard<'_, Cells> {
        held(&self.cells)
    }

    /// The segments from the one on that holds `sequence`, or would.
    fn segments_from(&self, sequence: u64) -> Vec<Arc<Segment>> {
        let segments = self.segments();
        let after = segments.partition_point(|segment| segment.first <= sequence);
        segments[after.saturating_sub(1)..].to_vec()
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
        self.shared.owner.store_id
    }

    /// What opening found damaged in the newest segment. Records elsewhere are checked when they are read.
    #[must_use]
    pub fn damage_at_open(&self) -> &[ReadError] {
        &self.shared.damage
    }

    /// Chain hash after record `sequence` (0: genesis). Available from the record before the oldest up to the head.
    ///
    /// # Errors
    /// Pruned, beyond the head, or damage in the frame read.
    pub fn chain_hash_at(&self, sequence: u64) -> Result<[u8; 32], ReadError> {
        let Extent { oldest, head } = *self.shared.extent();
        if sequence == head.sequence {
            return Ok(head.hash);
        }
        if sequence > head.sequence {
            let (requested, head) = (sequence, head.sequence);
            return Err(ReadError::BeyondHead { requested, head });
        }
        if sequence + 1 < oldest {
            let requested = sequence;
            return Err(ReadError::Pruned { requested, oldest });
        }
        let mut hash = None;
        self.walk_frames(sequence + 1, &mut |header, records| {
            let mut at = header.before();
            for record in records.take((sequence + 1 - header.first) as usize) {
                at = at.next(record);
            }
            hash = Some(at.hash);
            ControlFlow::Break(())
        })?;
        let head = head.sequence;
        hash.ok_or(ReadError::Truncated {
            missing: sequence + 1,
            head,
        })
    }

    /// Calls `visit(sequence, bytes)` for every record from `from_sequence` (at least 1) to the head, in order, until
    /// it breaks. `head + 1` visits nothing. Each record was verified before it is visited; damage ends the replay, and
    /// names the last record lost: reading can go on behind it.
    ///
    /// # Errors
    /// The first damage met, named by its place and its sequences.
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
    /// Its newest content may have been lost with a damaged frame.
    pub fn meta(&self, name: &str) -> Result<Option<Vec<u8>>, ReadError> {
        self.shared.cells().get(name)
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
            let requested = from;
            return Err(ReadError::Pruned { requested, oldest });
        }
        if from > head.sequence {
            let (requested, head) = (from, head.sequence);
            let at_end = from == head + 1;
            return if at_end {
                Ok(())
            } else {
                Err(ReadError::BeyondHead { requested, head })
            };
        }
        let mut at: Option<Head> = None;
        let mut is_stopped = false;
        let walked = self.walk_frames(from, &mut |header, records| {
            if at.is_some_and(|at| at != header.before()) {
                return ControlFlow::Break(());
            }
            let mut chain = header.before();
            for record in records {
                chain = chain.next(record);
                if chain.sequence >= from && visit(chain, record).is_break() {
                    is_stopped = true;
                    return ControlFlow::Break(());
                }
            }
            at = Some(chain);
            if chain.sequence >= head.sequence {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        match walked {
            // Pruning may overtake a reader; what it then misses is not damage.
            Err(_) if self.oldest_sequence() > from => Err(ReadError::Pruned {
                requested: from,
                oldest: self.oldest_sequence(),
            }),
            Err(error) => Err(error),
            Ok(()) if is_stopped || at == Some(head) => Ok(()),
            Ok(()) => Err(ReadError::ChainBroken {
                sequence: at.map_or(from, |at| (at.sequence + 1).min(head.sequence)),
            }),
        }
    }

    /// Calls `visit` with every whole frame from the one on that holds record `from`, over all segments up to the head.
    /// The caller has checked that the record is held.
    fn walk_frames(&self, from: u64, visit: &mut Visit<'_>) -> Result<(), ReadError> {
        let shared = &self.shared;
        let head = shared.extent().head.sequence;
        let segments = shared.segments_from(from);
        // The first record not seen yet.
        let mut next = from;
        for (index, segment) in segments.iter().enumerate() {
            let failed = |next: u64| move |error: io::Error| io_damage(segment, next, &error);
            if next < segment.first {
                let (missing, found) = (next, segment.first);
                return Err(ReadError::Gap { missing, found });
            }
            let store_id = shared.owner.store_id;
            let frames = segment.frames_near(&*shared.disk, store_id, next);
            let mut frames = frames.map_err(failed(next))?;
            loop {
                let (at, found) = (frames.end(), frames.next().map_err(failed(next))?);
                match found {
                    Found::Frame(header) if header.end() <= next => {}
                    // Nothing is read beyond the head: an append may be at it.
                    Found::Frame(header) if header.first > head => return Ok(()),
                    Found::Frame(header) if header.first > next => {
                        return Err(damaged(segment, at, next, header.first - 1));
                    }
                    Found::Frame(header) => {
                        let at = frames.at();
                        let Some(body) = frames.body().map_err(failed(next))? else {
                            return Err(damaged(segment, at, header.first, header.end() - 1));
                        };
                        if visit(&header, &mut body.records()).is_break() {
                            return Ok(());
                        }
                        next = header.end();
                    }
                    Found::Hole { at, next: later } if later.first > next => {
                        return Err(damaged(segment, at, next, later.first - 1));
                    }
                    Found::Hole { .. } => {}
                    Found::End => {
                        let begins = segments.get(index + 1).map_or(head + 1, |following| following.first);
                        if next < begins {
                            return Err(damaged(segment, at, next, begins - 1));
                        }
                        break;
                    }
                }
            }
            if next > head {
                break;
            }
        }
        Ok(())
    }
}

pub(crate) fn damaged(segment: &Segment, at: u64, first: u64, last: u64) -> ReadError {
    let segment = segment.name.clone();
    ReadError::Damaged {
        segment,
        at,
        first,
        last,
    }
}

pub(crate) fn io_damage(segment: &Segment, sequence: u64, error: &io::Error) -> ReadError {
    ReadError::Io {
        segment: segment.name.clone(),
        sequence,
        message: error.to_string(),
    }
}
