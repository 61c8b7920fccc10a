//! The place of the snapshots' storage engine: one that does not open, or is not ours, is moved aside and begun anew.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::disk::Disk;
use crate::engine::Engine;
use crate::format::{self, OWNER_KEY};

/// The engine's directory, and where a bad one is put.
pub(crate) const ENGINE_DIR: &str = "store";
const ASIDE_DIR: &str = "store.damaged";

/// The engine, or why there is none.
pub(crate) struct EngineSlot {
    state: Mutex<Result<Arc<dyn Engine>, String>>,
}

impl EngineSlot {
    /// Opens the engine of the store `store_id`. Whatever is wrong with it, the journal goes on: with an empty one, or
    /// with none.
    pub(crate) fn open(disk: &dyn Disk, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> EngineSlot {
        let state = open_ours(disk, dir, cache_bytes, store_id).or_else(|why| {
            tracing::error!(%why, aside = ASIDE_DIR, "ALARM the storage engine is moved aside; snapshots are made anew");
            move_aside(disk, dir).map_err(|error| error.to_string())?;
            open_ours(disk, dir, cache_bytes, store_id)
        });
        if let Err(why) = &state {
            tracing::error!(%why, "ALARM no storage engine: the journal goes on without snapshots");
        }
        EngineSlot {
            state: Mutex::new(state),
        }
    }

    /// The engine as it is, or none: nothing is moved.
    pub(crate) fn open_if_ours(disk: &dyn Disk, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> EngineSlot {
        let state = open_ours(disk, dir, cache_bytes, store_id);
        EngineSlot {
            state: Mutex::new(state),
        }
    }

    fn state(&self) -> MutexGuard<'_, Result<Arc<dyn Engine>, String>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads.
    pub(crate) fn read<T>(&self, read: impl FnOnce(&dyn Engine) -> Result<T, String>) -> Result<T, String> {
        let engine = self.state().clone()?;
        read(&*engine)
    }

    /// Writes. After a failure nothing more is written until the journal is opened again.
    pub(crate) fn write(&self, write: impl FnOnce(&dyn Engine) -> Result<(), String>) -> Result<(), String> {
        self.read(write).inspect_err(|why| {
            let mut state = self.state();
            if state.is_ok() {
                tracing::error!(%why, "ALARM the storage engine failed; no further snapshots until the next start");
                *state = Err(why.clone());
            }
        })
    }
}

/// Moves the engine out of the way; one that was there before is given up.
pub(crate) fn move_aside(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    if disk.list(dir)?.iter().all(|name| name != ENGINE_DIR) {
        return Ok(());
    }
    disk.move_engine_aside(&dir.join(ENGINE_DIR), &dir.join(ASIDE_DIR))
}

fn open_ours(disk: &dyn Disk, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> Result<Arc<dyn Engine>, String> {
    let engine = disk.engine(&dir.join(ENGINE_DIR), cache_bytes)?;
    match engine.get(OWNER_KEY)? {
        Some(row) if format::open_row(OWNER_KEY, &row) == Some(store_id) => {}
        Some(_) => return Err("it belongs to another journal, or its owner's row is damaged".to_owned()),
        None if engine.rows(&[], &[0xff; 16], 1, false)?.is_empty() => {
            engine.write(vec![(OWNER_KEY.to_vec(), Some(format::seal_row(OWNER_KEY, store_id)))])?;
            engine.sync()?;
        }
        None => return Err("it holds something, but not whose".to_owned()),
    }
    Ok(Arc::from(engine))
}
