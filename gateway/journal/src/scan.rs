//! The scan at opening: where the log ends, what its cells hold, and what is damaged before its end.
//!
//! Bytes that do not check are the log's torn end if no later frame follows them, and damage if one does. Whether a torn
//! end had been durable the log cannot know; the witness can.

use std::io;
use std::sync::Arc;

use crate::cells::Cells;
use crate::chain::Head;
use crate::disk::Disk;
use crate::error::ReadError;
use crate::format::SegmentHeader;
use crate::log::Tail;
use crate::reader::damaged;
use crate::segment::{Found, Mark, Segment};

/// What was found.
pub(crate) struct Scan {
    pub(crate) head: Head,
    pub(crate) tail: Tail,
    pub(crate) cells: Cells,
    pub(crate) damage: Vec<ReadError>,
}

/// Scans `segments`, of which the first begins with `header` and the last is the newest.
pub(crate) fn scan(
    disk: &dyn Disk,
    segments: &[Arc<Segment>],
    header: &SegmentHeader,
) -> Result<Scan, (Arc<Segment>, io::Error)> {
    let mut walk = Walk {
        head: header.before,
        is_linked: true,
        cells: Cells::of_header(&header.cells),
        damage: Vec::new(),
        last: None,
        is_torn: false,
    };
    let mut tail = None;
    for (index, segment) in segments.iter().enumerate() {
        let following = segments.get(index + 1);
        let walked = walk.segment(disk, segment, header.owner.store_id, following);
        tail = Some(walked.map_err(|error| (Arc::clone(segment), error))?);
    }
    let (at, ordinal) = tail.expect("the caller names at least one segment");
    let segment = Arc::clone(segments.last().expect("at least one"));
    Ok(Scan {
        head: walk.head,
        tail: Tail {
            segment,
            at,
            ordinal,
            last: walk.last,
            is_torn: walk.is_torn,
        },
        cells: walk.cells,
        damage: walk.damage,
    })
}

/// Scans all segments of a log for what is damaged in them.
pub(crate) fn scan_all(disk: &dyn Disk, segments: &[Arc<Segment>], store_id: [u8; 16]) -> io::Result<Vec<ReadError>> {
    let mut walk = Walk {
        head: Head {
            sequence: segments.first().map_or(0, |segment| segment.first - 1),
            hash: [0; 32],
        },
        is_linked: false,
        cells: Cells::default(),
        damage: Vec::new(),
        last: None,
        is_torn: false,
    };
    for (index, segment) in segments.iter().enumerate() {
        walk.segment(disk, segment, store_id, segments.get(index + 1))?;
    }
    Ok(walk.damage)
}

struct Walk {
    head: Head,
    /// Whether the next frame has to follow `head`: not behind damage.
    is_linked: bool,
    cells: Cells,
    damage: Vec<ReadError>,
    /// Place and bytes of the segment's last whole frame.
    last: Option<(u64, usize)>,
    is_torn: bool,
}

impl Walk {
    /// Where the segment's frames end, and the ordinal that comes next.
    fn segment(
        &mut self,
        disk: &dyn Disk,
        segment: &Segment,
        store_id: [u8; 16],
        following: Option<&Arc<Segment>>,
    ) -> io::Result<(u64, u64)> {
        let mut frames = segment.frames(disk, store_id)?;
        self.last = None;
        loop {
            match frames.next()? {
                Found::Frame(header) => {
                    let (at, before) = (frames.at(), header.before());
                    if self.is_linked && before != self.head {
                        let sequence = header.first;
                        self.damage.push(ReadError::ChainBroken { sequence });
                    }
                    self.head = before;
                    if let Some(body) = frames.body()? {
                        for (name, content) in &body.cells {
                            self.cells.set(name, content, header.ordinal);
                        }
                        for record in body.records() {
                            self.head = self.head.next(record);
                        }
                        self.is_linked = true;
                        let (first, ordinal) = (header.first, header.ordinal);
                        segment.note(Mark { first, ordinal, at });
                        self.last = Some((at, header.frame_bytes()));
                    } else if following.is_some() || frames.is_followed()? {
                        self.damage.push(damaged(segment, at, header.first, header.end() - 1));
                        if header.cells > 0 {
                            self.cells.doubt(header.ordinal);
                        }
                        self.head.sequence = header.end() - 1;
                        self.is_linked = false;
                    } else {
                        // Torn: it was never acknowledged, or the witness knows better.
                        tracing::info!(segment = %segment.name, at, "the last append was not finished, and is dropped");
                        segment.is_noted();
                        self.is_torn = true;
                        return Ok((at, header.ordinal));
                    }
                }
                Found::Hole { at, next } => {
                    let first = self.head.sequence + 1;
                    self.damage.push(damaged(segment, at, first, next.first - 1));
                    self.cells.doubt(next.ordinal - 1);
                    self.is_linked = false;
                }
                Found::End => {
                    segment.is_noted();
                    self.cut_short(segment, frames.end(), frames.ordinal(), following);
                    return Ok((frames.end(), frames.ordinal()));
                }
            }
        }
    }

    /// Another segment follows: what is missing before it is damage of this one.
    fn cut_short(&mut self, segment: &Segment, at: u64, ordinal: u64, following: Option<&Arc<Segment>>) {
        let Some(following) = following.filter(|following| following.ordinal != ordinal) else {
            return;
        };
        let first = self.head.sequence + 1;
        self.damage.push(damaged(segment, at, first, following.first - 1));
        self.cells.doubt(following.ordinal - 1);
        self.head.sequence = following.first - 1;
        self.is_linked = false;
    }
}
