//! Segments: the files of the log, and how frames are found in them.
//!
//! A segment is `log/<first sequence>-<first ordinal>.seg`. It has its whole length and was written and synced before it
//! is used, so that an append changes no metadata of the file system. Behind the last frame lies whatever was there
//! before: zeros, or the frames of a segment that was pruned and used again, whose ordinals are too low to count.
//!
//! A frame follows the one before it at once or, where a small one would reach into the next page, at that page: one page
//! less to write. Who reads knows the ordinal that comes next, and looks at both places.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::{Disk, DiskFile};
use crate::format::{FRAMES_AT, HEADER_COPIES, HEADER_ROOM_BYTES, HeaderFault, SegmentHeader};
use crate::frame::{Body, FRAME_ALIGN_BYTES, FRAME_HEADER_BYTES, FrameHeader};

/// What the page cache writes at least, on every machine this is built for.
pub(crate) const PAGE_BYTES: u64 = 4096;
/// Read at once while looking for frames.
const READ_BYTES: usize = 128 << 10;
/// A remembered place for every so many bytes of frames: finding a record reads half of that.
const MARK_EVERY_BYTES: u64 = 64 << 10;

/// Where a frame begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) first: u64,
    pub(crate) ordinal: u64,
    pub(crate) at: u64,
}

#[derive(Debug, Default)]
struct Marks {
    rows: Vec<Mark>,
    /// Whether they reach to the segment's end.
    is_whole: bool,
}

/// One file of the log.
pub(crate) struct Segment {
    pub(crate) name: String,
    path: PathBuf,
    /// Sequence of its first record, if it holds one.
    pub(crate) first: u64,
    /// Ordinal of its first frame.
    pub(crate) ordinal: u64,
    /// Open while it is appended to; others are opened by whoever reads them.
    file: Mutex<Option<Arc<dyn DiskFile>>>,
    marks: Mutex<Marks>,
}

impl std::fmt::Debug for Segment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Segment")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Segment {
    pub(crate) fn new(dir: &Path, first: u64, ordinal: u64) -> Segment {
        let name = format!("{first:020}-{ordinal:020}.seg");
        Segment {
            path: dir.join(&name),
            name,
            first,
            ordinal,
            file: Mutex::new(None),
            marks: Mutex::new(Marks::default()),
        }
    }

    /// The segment that a name in the log's directory stands for.
    pub(crate) fn parse(dir: &Path, name: &str) -> Option<Segment> {
        let (first, ordinal) = name.strip_suffix(".seg")?.split_once('-')?;
        let segment = Segment::new(dir, first.parse().ok()?, ordinal.parse().ok()?);
        (segment.name == name && segment.first > 0 && segment.ordinal > 0).then_some(segment)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the file open (it is appended to), or not any longer.
    pub(crate) fn keep_open(&self, file: Option<Arc<dyn DiskFile>>) {
        *held(&self.file) = file;
    }

    pub(crate) fn file(&self, disk: &dyn Disk) -> io::Result<Arc<dyn DiskFile>> {
        match &*held(&self.file) {
            Some(file) => Ok(Arc::clone(file)),
            None => Ok(Arc::from(disk.open(&self.path)?)),
        }
    }

    /// The first copy of its header that is whole.
    pub(crate) fn header(&self, disk: &dyn Disk) -> io::Result<Result<SegmentHeader, HeaderFault>> {
        let file = self.file(disk)?;
        let mut newer = None;
        for copy in 0..HEADER_COPIES {
            let mut bytes = vec![0; HEADER_ROOM_BYTES as usize];
            let count = file.fill_at(&mut bytes, copy * HEADER_ROOM_BYTES)?;
            match SegmentHeader::decode(&bytes[..count]) {
                Ok(header) => return Ok(Ok(header)),
                Err(HeaderFault::Newer(version)) => newer = Some(HeaderFault::Newer(version)),
                Err(HeaderFault::Damaged) => {}
            }
        }
        Ok(Err(newer.unwrap_or(HeaderFault::Damaged)))
    }

    /// Which copies of its header do not check.
    pub(crate) fn damaged_headers(&self, disk: &dyn Disk) -> io::Result<Vec<u64>> {
        let file = self.file(disk)?;
        let mut damaged = Vec::new();
        for copy in 0..HEADER_COPIES {
            let mut bytes = vec![0; HEADER_ROOM_BYTES as usize];
            let count = file.fill_at(&mut bytes, copy * HEADER_ROOM_BYTES)?;
            if SegmentHeader::decode(&bytes[..count]).is_err() {
                damaged.push(copy * HEADER_ROOM_BYTES);
            }
        }
        Ok(damaged)
    }

    fn start(&self) -> Mark {
        Mark {
            first: self.first,
            ordinal: self.ordinal,
            at: FRAMES_AT,
        }
    }

    /// Its frames from the first one on.
    pub(crate) fn frames(&self, disk: &dyn Disk, store_id: [u8; 16]) -> io::Result<Frames> {
        Frames::new(self.file(disk)?, store_id, self.start())
    }

    /// Its frames from a place at or before the one that holds `sequence`.
    pub(crate) fn frames_near(&self, disk: &dyn Disk, store_id: [u8; 16], sequence: u64) -> io::Result<Frames> {
        let file = self.file(disk)?;
        let mut marks = held(&self.marks);
        if !marks.is_whole {
            let mut frames = Frames::new(Arc::clone(&file), store_id, self.start())?;
            while !matches!(frames.next()?, Found::End) {
                if let Some(mark) = frames.mark() {
                    push_mark(&mut marks.rows, mark);
                }
            }
            marks.is_whole = true;
        }
        let after = marks.rows.partition_point(|mark| mark.first <= sequence);
        let mark = after.checked_sub(1).map_or(self.start(), |index| marks.rows[index]);
        drop(marks);
        Frames::new(file, store_id, mark)
    }

    /// Remembers a frame that was written or scanned; they come in order.
    pub(crate) fn note(&self, mark: Mark) {
        push_mark(&mut held(&self.marks).rows, mark);
    }

    /// All frames were noted, and those to come will be.
    pub(crate) fn is_noted(&self) {
        held(&self.marks).is_whole = true;
    }
}

fn push_mark(rows: &mut Vec<Mark>, mark: Mark) {
    if rows.last().is_none_or(|last| mark.at >= last.at + MARK_EVERY_BYTES) {
        rows.push(mark);
    }
}

/// What comes next in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found {
    /// A frame, in its order; its body is not checked yet.
    Frame(FrameHeader),
    /// Bytes from `at` on are no frame although a later frame follows, which comes next.
    Hole {
        /// Where the missing frames were.
        at: u64,
        /// The frame behind them.
        next: FrameHeader,
    },
    /// No further frame: the log ends here, or the segment does.
    End,
}

/// Walks over the frames of one segment.
pub(crate) struct Frames {
    file: Arc<dyn DiskFile>,
    store_id: [u8; 16],
    length: u64,
    buffer: Vec<u8>,
    /// What of it was filled, and from where.
    filled: usize,
    buffer_at: u64,
    /// The frame found last; `None` before the first.
    current: Option<(u64, FrameHeader)>,
    /// Where the next one is looked for, and its ordinal.
    at: u64,
    ordinal: u64,
}

impl Frames {
    fn new(file: Arc<dyn DiskFile>, store_id: [u8; 16], start: Mark) -> io::Result<Frames> {
        Ok(Frames {
            length: file.length()?,
            file,
            store_id,
            buffer: Vec::new(),
            filled: 0,
            buffer_at: 0,
            current: None,
            at: start.at,
            ordinal: start.ordinal,
        })
    }

    /// Where the frame found last begins, or where none was found.
    pub(crate) fn at(&self) -> u64 {
        self.current.map_or(self.at, |(at, _)| at)
    }

    /// Where the next frame may begin.
    pub(crate) fn end(&self) -> u64 {
        self.at
    }

    /// The ordinal that comes next.
    pub(crate) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    fn mark(&self) -> Option<Mark> {
        self.current.map(|(at, header)| Mark {
            first: header.first,
            ordinal: header.ordinal,
            at,
        })
    }

    /// Finds the next frame.
    pub(crate) fn next(&mut self) -> io::Result<Found> {
        for at in [self.at, self.at.next_multiple_of(PAGE_BYTES)] {
            if let Some(header) = self.header_at(at)?
                && header.ordinal == self.ordinal
            {
                self.take(at, header);
                return Ok(Found::Frame(header));
            }
        }
        let hole = self.at;
        Ok(match self.search()? {
            Some((at, next)) => {
                (self.at, self.ordinal, self.current) = (at, next.ordinal, None);
                Found::Hole { at: hole, next }
            }
            None => {
                self.current = None;
                Found::End
            }
        })
    }

    fn take(&mut self, at: u64, header: FrameHeader) {
        self.current = Some((at, header));
        self.at = at + header.frame_bytes() as u64;
        self.ordinal = header.ordinal + 1;
    }

    /// Whether a later frame follows the one found last.
    pub(crate) fn is_followed(&mut self) -> io::Result<bool> {
        let direct = self.header_at(self.at)?;
        if direct.is_some_and(|header| header.ordinal >= self.ordinal) {
            return Ok(true);
        }
        // A damaged length points anywhere; so the search begins behind the header.
        Ok(self.search()?.is_some())
    }

    /// Cells and records of the frame found last; `None` if they are not what was written.
    pub(crate) fn body(&mut self) -> io::Result<Option<Body<'_>>> {
        let Some((at, header)) = self.current else {
            return Ok(None);
        };
        let (at, length) = (at + FRAME_HEADER_BYTES as u64, header.body_bytes as usize);
        if at + length as u64 > self.length {
            return Ok(None);
        }
        Ok(header.open(self.bytes(at, length)?))
    }

    fn header_at(&mut self, at: u64) -> io::Result<Option<FrameHeader>> {
        let store_id = self.store_id;
        Ok(FrameHeader::decode(&store_id, self.bytes(at, FRAME_HEADER_BYTES)?))
    }

    /// The next whole header from `self.at` on whose ordinal is not in the past.
    fn search(&mut self) -> io::Result<Option<(u64, FrameHeader)>> {
        const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        let mut at = self.at.next_multiple_of(FRAME_ALIGN_BYTES as u64);
        while at < self.length {
            let page_end = (at + 1).next_multiple_of(PAGE_BYTES).min(self.length);
            let span = (page_end - at) as usize;
            let (ordinal, store_id) = (self.ordinal, self.store_id);
            let bytes = self.bytes(at, span + FRAME_HEADER_BYTES)?;
            let span = span.min(bytes.len());
            if bytes[..span] != ZEROS[..span] {
                for step in (0..span).step_by(FRAME_ALIGN_BYTES) {
                    let found = FrameHeader::decode(&store_id, &bytes[step..]);
                    if let Some(header) = found.filter(|header| header.ordinal >= ordinal) {
                        return Ok(Some((at + step as u64, header)));
                    }
                }
            }
            at = page_end;
        }
        Ok(None)
    }

    /// Up to `count` bytes from `at` on; fewer at the end of the file.
    fn bytes(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let end = self.buffer_at + self.filled as u64;
        let is_there = at >= self.buffer_at && at + count as u64 <= end;
        // A file's last bytes are not read again for more that is not there.
        let is_last = at >= self.buffer_at && end >= self.length;
        if !is_there && !is_last {
            let wanted = count.max(READ_BYTES.min((self.length.saturating_sub(at)) as usize));
            if self.buffer.len() < wanted {
                self.buffer = vec![0; wanted];
            }
            self.buffer_at = at;
            self.filled = self.file.fill_at(&mut self.buffer[..wanted], at)?;
        }
        let from = ((at - self.buffer_at) as usize).min(self.filled);
        let to = (from + count).min(self.filled);
        Ok(&self.buffer[from..to])
    }
}
