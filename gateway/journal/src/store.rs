//! sled, made durable: the only file that names it.
//!
//! On Linux sled's `flush` is `sync_file_range`, which orders nothing and survives no power cut. So every commit is
//! flush, then an fdatasync of sled's data file through a descriptor of our own. That descriptor is opened once and
//! kept: the kernel reports a failed write-back once to each descriptor that was open when it happened, so a failure
//! that sled's background thread swallows still reaches ours.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{AppendError, OpenError, ReadError};

pub(crate) use sled::{Batch, IVec};

/// Which file is about to be synced, for [`SyncHook`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncTarget {
    /// sled's data file: once a commit.
    Store,
    /// The witness: now and then.
    Witness,
}

impl SyncTarget {
    pub(crate) fn name(self) -> &'static str {
        match self {
            SyncTarget::Store => "store",
            SyncTarget::Witness => "witness",
        }
    }
}

/// Called right before every sync of the store, and of the witness once the journal is open. An error takes the sync's
/// place, as if the disk had reported it; a delay makes the disk slow. For tests and benches.
pub type SyncHook = Arc<dyn Fn(SyncTarget) -> io::Result<()> + Send + Sync>;

/// sled writes out and tidies its file this often in the background; without it, freed segments are never reused.
const BACKGROUND_FLUSH_MS: u64 = 500;
/// A store just closed in this process may keep sled's own lock for moments; ours, held first, keeps others out.
const ENGINE_LOCK_TRIES: u32 = 200;
const ENGINE_LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The exclusive lock over a journal's directory, held while the value lives.
#[derive(Debug)]
pub(crate) struct DirLock {
    _file: File,
}

impl DirLock {
    pub(crate) fn take(dir: &Path) -> Result<DirLock, OpenError> {
        let path = dir.join("lock");
        let io_error = |action| {
            let path = path.clone();
            move |source| OpenError::Io { action, path, source }
        };
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(io_error("open"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let holder = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse().ok());
                return Err(OpenError::Locked { path, holder });
            }
            Err(TryLockError::Error(source)) => return Err(io_error("lock")(source)),
        }
        // The id only makes the refusal readable; the lock itself is the kernel's.
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(io_error("write"))?;
        Ok(DirLock { _file: file })
    }
}

/// An open sled tree with its own sync descriptor and its poison.
pub(crate) struct Store {
    db: sled::Db,
    data: File,
    blobs: PathBuf,
    poison: OnceLock<String>,
    hook: Option<SyncHook>,
    /// Last, so that it is released after sled.
    _lock: DirLock,
}

impl Store {
    /// Opens, or creates, sled's directory `path`. The caller holds the lock of the directory around it.
    pub(crate) fn open(
        path: &Path,
        cache_bytes: u64,
        hook: Option<SyncHook>,
        lock: DirLock,
    ) -> Result<Store, OpenError> {
        let io_error = |action, path: &Path| {
            let path = path.to_path_buf();
            move |source| OpenError::Io { action, path, source }
        };
        fs::create_dir_all(path).map_err(io_error("create", path))?;
        remove_torn_snapshots(path).map_err(io_error("tidy", path))?;
        let data_path = path.join("db");
        await_engine_lock(&data_path).map_err(io_error("lock", &data_path))?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(BACKGROUND_FLUSH_MS));
        let engine_error = |message| OpenError::Engine {
            path: path.to_path_buf(),
            message,
        };
        let db = panic::catch_unwind(AssertUnwindSafe(|| config.open()))
            .map_err(|panic| engine_error(panic_message(&*panic)))?
            .map_err(|error| engine_error(error.to_string()))?;
        let data = File::options()
            .read(true)
            .write(true)
            .open(&data_path)
            .map_err(io_error("open", &data_path))?;
        // sled syncs neither its configuration nor the directory entries of what it creates.
        let conf = path.join("conf");
        File::open(&conf)
            .and_then(|file| file.sync_all())
            .map_err(io_error("sync", &conf))?;
        sync_dir(path).map_err(io_error("sync", path))?;
        let blobs = path.join("blobs");
        let store = Store {
            db,
            data,
            blobs: blobs.clone(),
            poison: OnceLock::new(),
            hook,
            _lock: lock,
        };
        if store.has_blobs().map_err(io_error("read", &blobs))? {
            return Err(engine_error("values lie in blobs/, where they are not durable".into()));
        }
        Ok(store)
    }

    /// Makes `batch` durable: when this returns, a power cut cannot undo it. Atomic: all or nothing is found later.
    /// Any failure, a panic of sled included, poisons the store.
    pub(crate) fn commit(&self, batch: Batch) -> Result<(), AppendError> {
        self.poisoning(|| {
            self.db.apply_batch(batch).map_err(engine_failed)?;
            self.flush_and_sync()
        })
    }

    /// Makes everything written so far durable.
    pub(crate) fn sync(&self) -> Result<(), AppendError> {
        self.poisoning(|| self.flush_and_sync())
    }

    /// Writes without syncing: durable with the next commit.
    pub(crate) fn write(&self, batch: Batch) -> Result<(), AppendError> {
        self.poisoning(|| self.db.apply_batch(batch).map_err(engine_failed))
    }

    fn flush_and_sync(&self) -> Result<(), AppendError> {
        self.db.flush().map_err(engine_failed)?;
        self.run_hook(SyncTarget::Store)
            .and_then(|()| self.data.sync_data())
            .map_err(sync_failed(SyncTarget::Store))?;
        // Values are small enough that sled keeps them in its log; if one ever were not, it must not be acknowledged.
        match self.has_blobs() {
            Ok(false) => Ok(()),
            Ok(true) => Err(AppendError::Engine(
                "a value was spilled to blobs/, where it is not durable".into(),
            )),
            Err(error) => Err(AppendError::Engine(format!("reading blobs/: {error}"))),
        }
    }

    /// Runs a sync of another file under this store's hook and poison.
    pub(crate) fn sync_other(
        &self,
        target: SyncTarget,
        sync: impl FnOnce() -> io::Result<()>,
    ) -> Result<(), AppendError> {
        self.poisoning(|| self.run_hook(target).and_then(|()| sync()).map_err(sync_failed(target)))
    }

    fn run_hook(&self, target: SyncTarget) -> io::Result<()> {
        self.hook.as_ref().map_or(Ok(()), |hook| hook(target))
    }

    fn poisoning<T>(&self, act: impl FnOnce() -> Result<T, AppendError>) -> Result<T, AppendError> {
        self.check_poison()?;
        let result = panic::catch_unwind(AssertUnwindSafe(act))
            .unwrap_or_else(|panic| Err(AppendError::Engine(panic_message(&*panic))));
        if let Err(error) = &result {
            // The first reason stays; losing the race to set it loses nothing.
            let _ = self.poison.set(error.to_string());
            tracing::error!(%error, "journal write failed; no further writes until it is reopened");
        }
        result
    }

    pub(crate) fn check_poison(&self) -> Result<(), AppendError> {
        match self.poison.get() {
            None => Ok(()),
            Some(reason) => Err(AppendError::Poisoned { reason: reason.clone() }),
        }
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<IVec>, ReadError> {
        reading(0, || self.db.get(key))
    }

    /// Whether the tree holds anything at all.
    pub(crate) fn is_empty(&self) -> Result<bool, ReadError> {
        Ok(self.scan(&[], &[0xff; 16], 0).next().transpose()?.is_none())
    }

    /// Entries with `from <= key <= to` in key order; errors are labelled with `near`, a sequence.
    pub(crate) fn scan(&self, from: &[u8], to: &[u8], near: u64) -> Scan {
        Scan {
            iter: self.db.range(from.to_vec()..=to.to_vec()),
            near,
            failed: false,
        }
    }

    /// The last entry with `from <= key <= to`.
    pub(crate) fn last_in(&self, from: &[u8], to: &[u8]) -> Result<Option<(IVec, IVec)>, ReadError> {
        self.nth_last_in(from, to, 1)
    }

    /// The `nth` entry from the end (1: the last) with `from <= key <= to`, or the first if there are fewer.
    pub(crate) fn nth_last_in(&self, from: &[u8], to: &[u8], nth: usize) -> Result<Option<(IVec, IVec)>, ReadError> {
        reading(0, || {
            self.db
                .range(from.to_vec()..=to.to_vec())
                .rev()
                .take(nth)
                .last()
                .transpose()
        })
    }

    fn has_blobs(&self) -> io::Result<bool> {
        Ok(fs::read_dir(&self.blobs)?.next().is_some())
    }
}

/// Forward scan that stops after its first error.
pub(crate) struct Scan {
    iter: sled::Iter,
    near: u64,
    failed: bool,
}

impl Iterator for Scan {
    type Item = Result<(IVec, IVec), ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let entry = reading(self.near, || self.iter.next().transpose()).transpose();
        self.failed = matches!(entry, Some(Err(_)));
        entry
    }
}

/// Runs one read of sled; its errors and panics (damaged files cause both) become ours.
fn reading<T>(sequence: u64, read: impl FnOnce() -> sled::Result<T>) -> Result<T, ReadError> {
    panic::catch_unwind(AssertUnwindSafe(read))
        .unwrap_or_else(|panic| Err(sled::Error::ReportableBug(panic_message(&*panic))))
        .map_err(|error| ReadError::Engine {
            sequence,
            message: error.to_string(),
        })
}

fn engine_failed(error: sled::Error) -> AppendError {
    AppendError::Engine(error.to_string())
}

fn sync_failed(target: SyncTarget) -> impl FnOnce(io::Error) -> AppendError {
    move |source| AppendError::Sync {
        what: target.name(),
        source,
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panicked: {}", text.unwrap_or("no message"))
}

/// A full disk leaves `snap.*.generating` or empty `snap.*` files behind, over which sled refuses to open for ever.
/// They are only an index that sled rebuilds from its log.
fn remove_torn_snapshots(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let torn = name.ends_with(".generating") || entry.metadata()?.len() == 0;
        if name.starts_with("snap.") && torn {
            tracing::warn!(file = %name, "removing an unfinished index snapshot of the storage engine");
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

fn await_engine_lock(data_path: &Path) -> io::Result<()> {
    for _ in 0..ENGINE_LOCK_TRIES {
        let probe = match File::open(data_path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        match probe.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => std::thread::sleep(ENGINE_LOCK_PAUSE),
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    // Let sled try, and say in its own words who is in the way.
    Ok(())
}

pub(crate) fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
