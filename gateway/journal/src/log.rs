//! The writing side of the log: where the next frame goes, the segment after this one, and the poison.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use crate::chain::Head;
use crate::disk::{Disk, DiskFile, Job};
use crate::error::AppendError;
use crate::format::{FRAMES_AT, HEADER_COPIES, HEADER_ROOM_BYTES, SegmentHeader};
use crate::frame::{FRAME_HEADER_BYTES, FrameWriter};
use crate::segment::{Mark, PAGE_BYTES, Segment};

/// The first segment is this long and each following one twice as long as the one before, up to
/// [`SEGMENT_BYTES_DEFAULT`]: a journal that hardly grows costs the disk little.
const FIRST_SEGMENT_BYTES: u64 = 1 << 20;
/// Longest segment by default. Boot reads one whole; a campus fills a few a day.
pub const SEGMENT_BYTES_DEFAULT: u64 = 8 << 20;
/// Frames up to this size are not laid across two pages: that would write both. What is skipped is little.
const UNDIVIDED_BYTES_MAX: u64 = 1024;
/// The next segment is prepared when so many hundredths of this one are full.
const PREPARE_AT_PERCENT: u64 = 50;

/// Name of the prepared segment.
const SPARE: &str = "spare";

/// Which file is about to be synced, for [`SyncHook`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncTarget {
    /// The log: once a commit.
    Store,
    /// The witness: now and then.
    Witness,
}

impl SyncTarget {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SyncTarget::Store => "log",
            SyncTarget::Witness => "witness",
        }
    }
}

/// Called right before every commit's sync of the log, and before the witness's once the journal is open. An error takes
/// the sync's place, as if the disk had reported it; a delay makes the disk slow. For tests and benches.
pub type SyncHook = Arc<dyn Fn(SyncTarget) -> io::Result<()> + Send + Sync>;

/// Closed for good by the first failed write or sync.
pub(crate) struct Gate {
    pub(crate) hook: Option<SyncHook>,
    poison: OnceLock<String>,
}

impl Gate {
    pub(crate) fn new(hook: Option<SyncHook>) -> Gate {
        let poison = OnceLock::new();
        Gate { hook, poison }
    }

    pub(crate) fn check(&self) -> Result<(), AppendError> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(AppendError::Poisoned { reason: reason.clone() }),
        }
    }

    /// Runs one write; its failure closes the gate.
    pub(crate) fn pass<T>(&self, act: impl FnOnce() -> Result<T, AppendError>) -> Result<T, AppendError> {
        self.check()?;
        act().inspect_err(|error| {
            // The first reason stays; losing the race to set it loses nothing.
            let _ = self.poison.set(error.to_string());
            tracing::error!(%error, "journal write failed; no further writes until it is reopened");
        })
    }

    /// A sync under the hook.
    pub(crate) fn sync(&self, target: SyncTarget, sync: impl FnOnce() -> io::Result<()>) -> Result<(), AppendError> {
        self.hook
            .as_ref()
            .map_or(Ok(()), |hook| hook(target))
            .and_then(|()| sync())
            .map_err(|source| AppendError::Sync {
                what: target.name(),
                source,
            })
    }
}

fn write_failed(what: &'static str) -> impl FnOnce(io::Error) -> AppendError {
    move |source| AppendError::Write { what, source }
}

/// The prepared segment: none, on its way, or there.
enum Spare {
    None,
    Coming { bytes: u64, job: Job },
    Ready { bytes: u64 },
}

/// The one writer of the log.
pub(crate) struct LogWriter {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    store_id: [u8; 16],
    segment: Arc<Segment>,
    file: Arc<dyn DiskFile>,
    length: u64,
    /// Where the next frame may begin.
    at: u64,
    /// Of the next frame.
    ordinal: u64,
    segment_bytes: u64,
    spare: Spare,
    pub(crate) frame: FrameWriter,
    /// Bytes of pages written since opening, by reckoning: headers, frames, the zeros of new segments.
    written_bytes: u64,
    /// The last frame that was found at opening.
    last: Option<(u64, usize)>,
    is_torn: bool,
}

/// Where the writer goes on.
pub(crate) struct Tail {
    pub(crate) segment: Arc<Segment>,
    pub(crate) at: u64,
    pub(crate) ordinal: u64,
    /// Where the last frame lies, and its bytes.
    pub(crate) last: Option<(u64, usize)>,
    /// Whether an unfinished frame lies at `at`.
    pub(crate) is_torn: bool,
}

impl LogWriter {
    /// Goes on at `tail`, whose file is kept open.
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        store_id: [u8; 16],
        tail: Tail,
        segment_bytes: u64,
    ) -> io::Result<LogWriter> {
        let Tail {
            segment,
            at,
            ordinal,
            last,
            is_torn,
        } = tail;
        let file = segment.file(&*disk)?;
        segment.keep_open(Some(Arc::clone(&file)));
        let spare = found_spare(&*disk, &dir)?;
        Ok(LogWriter {
            length: file.length()?,
            disk,
            dir,
            store_id,
            segment,
            file,
            at,
            ordinal,
            segment_bytes,
            spare,
            frame: FrameWriter::default(),
            written_bytes: 0,
            last,
            is_torn,
        })
    }

    /// Ordinal of the next frame.
    pub(crate) fn ordinal(&self) -> u64 {
        self.ordinal
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.written_bytes
    }

    /// Makes the log as it was found durable. Its last frame is written again: an earlier process may have failed to sync
    /// it, and the kernel then takes for clean what the disk does not hold.
    pub(crate) fn sync(&self, gate: &Gate) -> Result<(), AppendError> {
        if let Some((at, length)) = self.last {
            let mut bytes = vec![0; length];
            let filled = self.file.fill_at(&mut bytes, at);
            filled
                .and_then(|filled| self.file.write_all_at(&bytes[..filled], at))
                .map_err(write_failed("log"))?;
        }
        if self.is_torn {
            // Or its header would still stand before a next frame that begins at the page behind it.
            let erased = self.file.write_all_at(&[0; FRAME_HEADER_BYTES], self.at);
            erased.map_err(write_failed("log"))?;
        }
        gate.sync(SyncTarget::Store, || self.file.sync())
    }

    /// Whether the frame that was packed needs the next segment.
    pub(crate) fn is_full(&self) -> bool {
        let bytes = self.frame.frame_bytes() as u64;
        place(self.at, bytes) + bytes > self.length
    }

    /// Goes on in a new segment that begins with `header`; the segment, for the list.
    pub(crate) fn roll(&mut self, header: &SegmentHeader) -> Result<Arc<Segment>, AppendError> {
        let wanted = (self.length * 2).clamp(FIRST_SEGMENT_BYTES.min(self.segment_bytes), self.segment_bytes);
        let needed = FRAMES_AT + self.frame.frame_bytes() as u64;
        self.take_spare(wanted.max(needed.next_multiple_of(PAGE_BYTES)))?;
        let (segment, file) = begin_segment(&*self.disk, &self.dir, header).map_err(write_failed("new segment"))?;
        self.length = file.length().map_err(write_failed("new segment"))?;
        self.segment.keep_open(None);
        self.segment = Arc::new(segment);
        self.segment.keep_open(Some(Arc::clone(&file)));
        self.segment.is_noted();
        (self.file, self.at) = (file, FRAMES_AT);
        self.written_bytes += HEADER_COPIES * PAGE_BYTES + self.length;
        Ok(Arc::clone(&self.segment))
    }

    /// Sees to it that there is a spare of at least `bytes`.
    fn take_spare(&mut self, bytes: u64) -> Result<(), AppendError> {
        let ready = match std::mem::replace(&mut self.spare, Spare::None) {
            Spare::None => 0,
            Spare::Ready { bytes } => bytes,
            Spare::Coming { bytes, job } => match job() {
                Ok(()) => bytes,
                Err(error) => {
                    tracing::warn!(%error, "the next segment could not be prepared; trying again");
                    0
                }
            },
        };
        if ready >= bytes {
            return Ok(());
        }
        prepare(&*self.disk, &self.dir, bytes).map_err(write_failed("new segment"))
    }

    /// Prepares the next segment in the background when it will soon be needed.
    pub(crate) fn look_ahead(&mut self) {
        if matches!(self.spare, Spare::None) && self.at * 100 >= self.length * PREPARE_AT_PERCENT {
            let bytes = (self.length * 2).min(self.segment_bytes).max(FRAMES_AT + PAGE_BYTES);
            let (disk, dir) = (Arc::clone(&self.disk), self.dir.clone());
            let job = self.disk.spawn(Box::new(move || prepare(&*disk, &dir, bytes)));
            self.spare = Spare::Coming { bytes, job };
        }
    }

    /// Uses a pruned segment again instead of removing it, if there is no spare.
    pub(crate) fn retire(&mut self, segment: &Segment) -> io::Result<()> {
        if matches!(self.spare, Spare::None) {
            let bytes = segment.file(&*self.disk)?.length()?;
            if bytes == self.segment_bytes {
                self.disk.rename(segment.path(), &self.dir.join(SPARE))?;
                self.spare = Spare::Ready { bytes };
                return Ok(());
            }
        }
        self.disk.remove(segment.path())
    }

    /// Writes the packed frame and makes it durable; the head after it.
    pub(crate) fn commit(&mut self, gate: &Gate) -> Result<Head, AppendError> {
        let (bytes, head) = self.frame.finish(&self.store_id, self.ordinal);
        let at = place(self.at, bytes.len() as u64);
        self.file.write_all_at(bytes, at).map_err(write_failed("log"))?;
        gate.sync(SyncTarget::Store, || self.file.sync())?;
        let end = at + bytes.len() as u64;
        self.segment.note(Mark {
            first: self.frame.first(),
            ordinal: self.ordinal,
            at,
        });
        self.written_bytes += end.next_multiple_of(PAGE_BYTES) - at / PAGE_BYTES * PAGE_BYTES;
        (self.at, self.ordinal) = (end, self.ordinal + 1);
        Ok(head)
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        if let Spare::Coming { job, .. } = std::mem::replace(&mut self.spare, Spare::None)
            && let Err(error) = job()
        {
            tracing::warn!(%error, "the next segment could not be prepared");
        }
    }
}

/// Where a frame of `bytes` begins at or after `at`.
fn place(at: u64, bytes: u64) -> u64 {
    let room = at.next_multiple_of(PAGE_BYTES) - at;
    if bytes <= UNDIVIDED_BYTES_MAX && room < bytes {
        at + room
    } else {
        at
    }
}

/// A spare that an earlier run left; one that was cut short is made anew.
fn found_spare(disk: &dyn Disk, dir: &Path) -> io::Result<Spare> {
    let path = dir.join(SPARE);
    let file = match disk.open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Spare::None),
        Err(error) => return Err(error),
    };
    file.sync()?;
    Ok(Spare::Ready { bytes: file.length()? })
}

/// Makes the spare: its whole length written and synced, so that appends to it change no metadata.
fn prepare(disk: &dyn Disk, dir: &Path, bytes: u64) -> io::Result<()> {
    // Page by page, or the page cache would hold it in larger pieces, and count a small append as one of those.
    const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
    let file = disk.create(&dir.join(SPARE))?;
    for at in (0..bytes).step_by(ZEROS.len()) {
        file.write_all_at(&ZEROS, at)?;
    }
    file.sync()
}

/// Gives the spare its header and its name: durable, and part of the log, when this returns.
fn begin_segment(disk: &dyn Disk, dir: &Path, header: &SegmentHeader) -> io::Result<(Segment, Arc<dyn DiskFile>)> {
    let spare = dir.join(SPARE);
    let file: Arc<dyn DiskFile> = Arc::from(disk.open(&spare)?);
    let bytes = header.encode();
    for copy in 0..HEADER_COPIES {
        file.write_all_at(&bytes, copy * HEADER_ROOM_BYTES)?;
    }
    file.sync()?;
    let segment = Segment::new(dir, header.before.sequence + 1, header.ordinal);
    disk.rename(&spare, segment.path())?;
    disk.sync_directory(dir)?;
    Ok((segment, file))
}

/// Makes the first segment of a log.
pub(crate) fn begin_log(disk: &dyn Disk, dir: &Path, header: &SegmentHeader, bytes_max: u64) -> io::Result<Segment> {
    prepare(
        disk,
        dir,
        FIRST_SEGMENT_BYTES.min(bytes_max).max(FRAMES_AT + PAGE_BYTES),
    )?;
    Ok(begin_segment(disk, dir, header)?.0)
}
