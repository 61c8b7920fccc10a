//! The disk, as far as the journal needs one: the only way to the files of log, witness and base.
//!
//! One small trait, so that a test can put a disk beneath that fails, tears and forgets. The snapshots' storage engine is
//! reached through it as well, because it is a library with files of its own.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::path::Path;

use crate::engine::{Engine, Sled};

/// A job for another thread, and the same once it is to be waited for.
pub type Job = Box<dyn FnOnce() -> io::Result<()> + Send>;

/// Why a directory's lock was not taken.
#[derive(Debug)]
pub enum LockFailed {
    /// Another process has it; the number is the process id that the lock file names.
    Held(Option<u32>),
    /// The file cannot be opened, locked or written.
    Io(io::Error),
}

/// One open file. Reads and writes say where; there is no position.
pub trait DiskFile: Send + Sync {
    /// Reads up to `buffer.len()` bytes at `offset`; 0 at the end of the file.
    ///
    /// # Errors
    /// As `pread`.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes some of `bytes` at `offset`, at least one; says how many.
    ///
    /// # Errors
    /// As `pwrite`.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Makes everything written to this file survive a power cut, its length included: fdatasync.
    ///
    /// # Errors
    /// As `fdatasync`. What was not durable before may be lost then, whatever a second try says.
    fn sync(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As `fstat`.
    fn length(&self) -> io::Result<u64>;
}

impl dyn DiskFile {
    /// Writes all of `bytes`, in as many writes as the disk wants.
    pub(crate) fn write_all_at(&self, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
        while !bytes.is_empty() {
            match self.write_at(bytes, offset) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    bytes = &bytes[count..];
                    offset += count as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Fills `buffer` from `offset` on as far as the file goes; says how much that was.
    pub(crate) fn fill_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.read_at(&mut buffer[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// Directories and files by their paths. A name that is made, changed or removed survives a power cut from the next
/// [`Disk::sync_directory`] of its directory on.
pub trait Disk: Send + Sync {
    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// As `open`; `NotFound` if there is none.
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Makes a file, or empties the one that is there.
    ///
    /// # Errors
    /// As `open`.
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>>;

    /// Gives a file another name in the same directory, in place of one that has it.
    ///
    /// # Errors
    /// As `rename`.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As `unlink`.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory; none if it does not exist.
    ///
    /// # Errors
    /// As `readdir`.
    fn list(&self, directory: &Path) -> io::Result<Vec<String>>;

    /// Makes a directory and those above it; durable when this returns. One that exists is fine.
    ///
    /// # Errors
    /// As `mkdir` and `fsync`.
    fn create_directory(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// As `fsync`.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;

    /// Takes the lock file at `path`, which is held as long as the answer lives.
    ///
    /// # Errors
    /// [`LockFailed`].
    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>, LockFailed>;

    /// Begins a job that the hot path must not wait for; what is returned waits for its end.
    fn spawn(&self, job: Job) -> Job;

    /// Opens, or makes, the snapshots' storage engine in a directory of its own.
    ///
    /// # Errors
    /// What it said, or its panic's message.
    fn engine(&self, directory: &Path, cache_bytes: u64) -> Result<Box<dyn Engine>, String>;

    /// Moves the engine's directory out of the way, in place of what was moved there before.
    ///
    /// # Errors
    /// As `rename`.
    fn move_engine_aside(&self, directory: &Path, aside: &Path) -> io::Result<()>;
}

/// The file system of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl DiskFile for File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::read_at(self, buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        std::os::unix::fs::FileExt::write_at(self, bytes, offset)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }
}

impl Disk for RealDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(OpenOptions::new().read(true).write(true).open(path)?))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        Ok(Box::new(options.open(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        entries
            .map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    fn create_directory(&self, path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::create_dir_all(path)?;
        let above = path.parent().filter(|above| !above.as_os_str().is_empty());
        self.sync_directory(above.unwrap_or(Path::new(".")))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn lock(&self, path: &Path) -> Result<Box<dyn Send + Sync>, LockFailed> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false);
        let mut file = options.open(path).map_err(LockFailed::Io)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let text = fs::read_to_string(path).ok();
                return Err(LockFailed::Held(text.and_then(|text| text.trim().parse().ok())));
            }
            Err(TryLockError::Error(error)) => return Err(LockFailed::Io(error)),
        }
        // The id only makes the refusal readable; the lock itself is the kernel's.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(LockFailed::Io)?;
        Ok(Box::new(file))
    }

    fn spawn(&self, job: Job) -> Job {
        let spawned = std::thread::Builder::new().name("journal-spare".to_owned()).spawn(job);
        Box::new(move || match spawned?.join() {
            Ok(done) => done,
            Err(_) => Err(io::Error::other("the thread that prepares segments panicked")),
        })
    }

    fn engine(&self, directory: &Path, cache_bytes: u64) -> Result<Box<dyn Engine>, String> {
        Ok(Box::new(Sled::open(directory, cache_bytes)?))
    }

    fn move_engine_aside(&self, directory: &Path, aside: &Path) -> io::Result<()> {
        match fs::remove_dir_all(aside) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        fs::rename(directory, aside)
    }
}
