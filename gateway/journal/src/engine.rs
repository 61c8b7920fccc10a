//! sled, for what is derived: the only file that names it.
//!
//! It holds snapshots, which the log can always make again, so nothing that is true depends on its promises. A snapshot
//! counts from its own flush and our fdatasync on: on Linux sled's `flush` is `sync_file_range`, which orders nothing and
//! survives no power cut. sled panics over some damaged files; such a panic becomes an error here.

use std::fmt;
use std::fs::{self, File, TryLockError};
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// sled writes out and tidies its file this often in the background; without it, freed segments are never reused.
const BACKGROUND_FLUSH_MS: u64 = 500;
/// A store just closed in this process may keep sled's own lock for moments; ours, held first, keeps others out.
const ENGINE_LOCK_TRIES: u32 = 200;
const ENGINE_LOCK_PAUSE: Duration = Duration::from_millis(10);

/// A key with its value; `None` removes it.
pub type Change = (Vec<u8>, Option<Vec<u8>>);
/// A key with its value, as it was found.
pub type Row = (Vec<u8>, Vec<u8>);

/// An ordered map of bytes on disk that may fail, forget or lie: whatever comes out of it is checked. Errors are texts.
pub trait Engine: Send + Sync {
    /// The value of a key.
    ///
    /// # Errors
    /// What it said, or its panic's message.
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String>;

    /// Rows with `from <= key <= to`: the first `rows_max` in order, or the last ones, last first.
    ///
    /// # Errors
    /// As [`Engine::get`].
    fn rows(&self, from: &[u8], to: &[u8], rows_max: usize, is_reverse: bool) -> Result<Vec<Row>, String>;

    /// Makes all changes, durable with the next sync.
    ///
    /// # Errors
    /// As [`Engine::get`].
    fn write(&self, changes: Vec<Change>) -> Result<(), String>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// As [`Engine::get`].
    fn sync(&self) -> Result<(), String>;
}

/// An open sled tree with a sync descriptor of its own. That is opened once and kept: the kernel reports a failed
/// write-back once to each descriptor that was open when it happened, so a failure that sled's background thread swallows
/// still reaches ours.
pub(crate) struct Sled {
    db: sled::Db,
    data: File,
    blobs: PathBuf,
}

impl fmt::Debug for Sled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sled").finish_non_exhaustive()
    }
}

impl Sled {
    pub(crate) fn open(path: &Path, cache_bytes: u64) -> Result<Sled, String> {
        let io_error = |error: io::Error| error.to_string();
        fs::create_dir_all(path).map_err(io_error)?;
        remove_torn_snapshots(path).map_err(io_error)?;
        await_engine_lock(&path.join("db")).map_err(io_error)?;
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(cache_bytes)
            .flush_every_ms(Some(BACKGROUND_FLUSH_MS));
        let db = guarded(|| config.open())?;
        let data = File::open(path.join("db")).map_err(io_error)?;
        let conf = path.join("conf");
        File::open(&conf).and_then(|file| file.sync_all()).map_err(io_error)?;
        File::open(path).and_then(|file| file.sync_all()).map_err(io_error)?;
        Ok(Sled {
            db,
            data,
            blobs: path.join("blobs"),
        })
    }
}

impl Engine for Sled {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        Ok(guarded(|| self.db.get(key))?.map(|value| value.to_vec()))
    }

    fn rows(&self, from: &[u8], to: &[u8], rows_max: usize, is_reverse: bool) -> Result<Vec<Row>, String> {
        guarded(|| {
            let range = self.db.range(from.to_vec()..=to.to_vec());
            let row =
                |row: sled::Result<(sled::IVec, sled::IVec)>| row.map(|(key, value)| (key.to_vec(), value.to_vec()));
            if is_reverse {
                range.rev().take(rows_max).map(row).collect()
            } else {
                range.take(rows_max).map(row).collect()
            }
        })
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), String> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key, value),
                None => batch.remove(key),
            }
        }
        guarded(|| self.db.apply_batch(batch))
    }

    fn sync(&self) -> Result<(), String> {
        guarded(|| self.db.flush())?;
        self.data.sync_data().map_err(|error| error.to_string())?;
        // Values are small enough that sled keeps them in its log; if one ever were not, it would not be durable.
        match fs::read_dir(&self.blobs).map(|mut entries| entries.next().is_some()) {
            Ok(false) => Ok(()),
            Ok(true) => Err("a value was spilled to blobs/, where it is not durable".to_owned()),
            Err(error) => Err(format!("reading blobs/: {error}")),
        }
    }
}

fn guarded<T>(act: impl FnOnce() -> sled::Result<T>) -> Result<T, String> {
    match panic::catch_unwind(AssertUnwindSafe(act)) {
        Ok(done) => done.map_err(|error| error.to_string()),
        Err(panic) => Err(panic_message(&*panic)),
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
