//! The place of the snapshots' storage engine: one that does not open, or is not ours, is moved aside and begun anew.
//!
//! The engine is open while somebody reads or writes a snapshot and closed otherwise: what it keeps of the rows that went
//! through it is as much as the gateway's own state, and nobody asks for them twice. One that does not open later on costs
//! the snapshot that wanted it, not those behind it: it may be files or memory that are short for a moment.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::disk::Disk;
use crate::engine::Engine;
use crate::format::{self, OWNER_KEY};

/// The engine's directory, and where a bad one is put.
pub(crate) const ENGINE_DIR: &str = "store";
const ASIDE_DIR: &str = "store.damaged";

/// An open engine: it is closed when the last of these is dropped.
pub(crate) type Held = Arc<dyn Engine>;

/// Where the engine lies, and whose it is.
pub(crate) struct EngineSlot {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    cache_bytes: u64,
    store_id: [u8; 16],
    state: Mutex<State>,
}

enum State {
    /// Opened with the journal, for whoever comes first.
    Opened(Held),
    /// Open if somebody holds it.
    Lent(Weak<dyn Engine>),
    /// Why there is none until the journal is opened again.
    Failed(String),
}

impl EngineSlot {
    /// Opens the engine of the store `store_id`. Whatever is wrong with it, the journal goes on: with an empty one, or
    /// with none.
    pub(crate) fn open(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> EngineSlot {
        let open = || open_ours(&**disk, dir, cache_bytes, store_id);
        let engine = open().or_else(|why| {
            tracing::error!(%why, aside = ASIDE_DIR, "ALARM the storage engine is moved aside; snapshots are made anew");
            move_aside(&**disk, dir).map_err(|error| error.to_string())?;
            open()
        });
        if let Err(why) = &engine {
            tracing::error!(%why, "ALARM no storage engine: the journal goes on without snapshots");
        }
        EngineSlot::new(disk, dir, cache_bytes, store_id, engine)
    }

    /// The engine as it is, or none: nothing is moved.
    pub(crate) fn open_if_ours(disk: &Arc<dyn Disk>, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> EngineSlot {
        let engine = open_ours(&**disk, dir, cache_bytes, store_id);
        EngineSlot::new(disk, dir, cache_bytes, store_id, engine)
    }

    fn new(
        disk: &Arc<dyn Disk>,
        dir: &Path,
        cache_bytes: u64,
        store_id: &[u8; 16],
        engine: Result<Held, String>,
    ) -> EngineSlot {
        EngineSlot {
            disk: Arc::clone(disk),
            dir: dir.to_path_buf(),
            cache_bytes,
            store_id: *store_id,
            state: Mutex::new(engine.map_or_else(State::Failed, State::Opened)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The engine, opened if nobody has it open, which takes some ten milliseconds. Whoever has more than one thing to
    /// ask keeps it until then.
    pub(crate) fn hold(&self) -> Result<Held, String> {
        let mut state = self.state();
        let held = match &*state {
            State::Failed(why) => return Err(why.clone()),
            State::Opened(engine) => Some(Arc::clone(engine)),
            State::Lent(engine) => engine.upgrade(),
        };
        let held = match held {
            Some(held) => held,
            None => open_ours(&*self.disk, &self.dir, self.cache_bytes, &self.store_id)?,
        };
        *state = State::Lent(Arc::downgrade(&held));
        Ok(held)
    }

    /// Whether there is one, open or not.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*self.state() {
            State::Failed(why) => Err(why.clone()),
            State::Opened(_) | State::Lent(_) => Ok(()),
        }
    }

    /// Writes. After a failure nothing more is written until the journal is opened again.
    pub(crate) fn write(&self, write: impl FnOnce(&dyn Engine) -> Result<(), String>) -> Result<(), String> {
        let engine = self.hold()?;
        write(&*engine).inspect_err(|why| {
            let mut state = self.state();
            if !matches!(&*state, State::Failed(_)) {
                tracing::error!(%why, "ALARM the storage engine failed; no further snapshots until the next start");
                *state = State::Failed(why.clone());
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

fn open_ours(disk: &dyn Disk, dir: &Path, cache_bytes: u64, store_id: &[u8; 16]) -> Result<Held, String> {
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
