//! A disk in memory that fails as disks do: at one operation of many, or by losing power.
//!
//! Of what was not synced, a power cut keeps any sectors of 512 bytes, and any first part of the changes of names. A sync
//! that fails may have written nothing, and a second one does not try again. The storage engine keeps what it synced, or
//! loses everything, or no longer opens: nobody may rely on more.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use journal::{Change, Disk, DiskFile, Engine, Job, LockFailed, Row};

use super::Random;

const SECTOR: usize = 512;

/// What goes wrong at one operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It fails, and does nothing.
    Error,
    /// A write writes a part and then fails; anything else just fails.
    ShortWrite,
    /// A write writes a part, and says so.
    PartWrite,
    /// A sync says that it did, and did not.
    LostFlush,
    /// One bit of what is written is another one.
    FlippedWrite,
    /// One bit of what is read is another one.
    FlippedRead,
    /// From here on nothing new finds room.
    FullDisk,
    /// It takes its time.
    Slow,
    /// The power goes, in the middle of it.
    PowerCut,
}

#[derive(Debug, Clone, Default)]
struct Content {
    now: Vec<u8>,
    durable: Vec<u8>,
    dirty: BTreeSet<usize>,
}

#[derive(Debug, Clone)]
enum NameChange {
    Set(PathBuf, u64),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

#[derive(Clone)]
struct World {
    contents: BTreeMap<u64, Content>,
    names: BTreeMap<PathBuf, u64>,
    durable_names: BTreeMap<PathBuf, u64>,
    unsynced: Vec<NameChange>,
    engine: Option<BTreeMap<Vec<u8>, Vec<u8>>>,
    engine_durable: BTreeMap<Vec<u8>, Vec<u8>>,
    operations: u64,
    syncs: u64,
    fault: Option<(u64, Fault)>,
    /// The power goes right before or after the sync of this number.
    cut_at_sync: Option<u64>,
    is_full: bool,
    is_off: bool,
    random: Random,
}

/// The disk; clones share it.
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<World>>);

enum Act {
    Do,
    Part,
    Flip,
    Skip,
}

/// As `resize` with zeros, which an unoptimised build does byte by byte.
fn grow(bytes: &mut Vec<u8>, length: usize) {
    bytes.extend_from_slice(&vec![0; length.saturating_sub(bytes.len())]);
}

fn off() -> io::Error {
    io::Error::other("the power is off")
}

fn apply(names: &mut BTreeMap<PathBuf, u64>, change: &NameChange) {
    match change {
        NameChange::Set(path, id) => drop(names.insert(path.clone(), *id)),
        NameChange::Remove(path) => drop(names.remove(path)),
        NameChange::Rename(from, to) => {
            if let Some(id) = names.remove(from) {
                names.insert(to.clone(), id);
            }
        }
    }
}

impl World {
    /// Counts one operation; what becomes of it.
    fn step(&mut self, is_write: bool, is_sync: bool, is_read: bool) -> io::Result<Act> {
        if self.is_off {
            return Err(off());
        }
        self.operations += 1;
        if is_sync {
            self.syncs += 1;
            if self.cut_at_sync == Some(self.syncs) {
                self.is_off = true;
                return Err(off());
            }
        }
        let Some((_, fault)) = self.fault.filter(|(at, _)| *at == self.operations) else {
            return Ok(Act::Do);
        };
        let eio = || Err(io::Error::from_raw_os_error(5));
        match fault {
            Fault::Error => eio(),
            Fault::ShortWrite if is_write => Ok(Act::Skip),
            Fault::ShortWrite => eio(),
            Fault::PartWrite if is_write => Ok(Act::Part),
            Fault::LostFlush if is_sync => Ok(Act::Skip),
            Fault::FlippedWrite if is_write => Ok(Act::Flip),
            Fault::FlippedRead if is_read => Ok(Act::Flip),
            Fault::PartWrite | Fault::LostFlush | Fault::FlippedWrite | Fault::FlippedRead => Ok(Act::Do),
            Fault::FullDisk => {
                self.is_full = true;
                Ok(Act::Do)
            }
            Fault::Slow => {
                std::thread::sleep(std::time::Duration::from_micros(200));
                Ok(Act::Do)
            }
            Fault::PowerCut => {
                self.is_off = true;
                if is_write { Ok(Act::Part) } else { Err(off()) }
            }
        }
    }
}

impl SimDisk {
    pub fn new(seed: u64) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(World {
            contents: BTreeMap::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            unsynced: Vec::new(),
            engine: Some(BTreeMap::new()),
            engine_durable: BTreeMap::new(),
            operations: 0,
            syncs: 0,
            fault: None,
            cut_at_sync: None,
            is_full: false,
            is_off: false,
            random: Random::new(seed),
        })))
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.0.lock().unwrap()
    }

    /// A disk of its own with the same content.
    pub fn fork(&self) -> SimDisk {
        SimDisk(Arc::new(Mutex::new(self.world().clone())))
    }

    /// `fault` happens at operation `at`, counted from 1.
    pub fn fail_at(&self, at: u64, fault: Fault) {
        self.world().fault = Some((at, fault));
    }

    /// The power goes instead of sync `at`, counted from 1.
    pub fn cut_at_sync(&self, at: u64) {
        self.world().cut_at_sync = Some(at);
    }

    pub fn operations(&self) -> u64 {
        self.world().operations
    }

    pub fn syncs(&self) -> u64 {
        self.world().syncs
    }

    pub fn is_off(&self) -> bool {
        self.world().is_off
    }

    /// The disk is sound from now on.
    pub fn repair(&self) {
        let mut world = self.world();
        (world.fault, world.cut_at_sync, world.is_full) = (None, None, false);
    }

    /// The power goes: nothing is done from here on until [`SimDisk::cut_power`] brings it back. A journal dropped in
    /// between writes nothing, and frees its memory; one that is only forgotten keeps the whole disk.
    pub fn turn_off(&self) {
        self.world().is_off = true;
    }

    /// The power goes and comes back.
    pub fn cut_power(&self) {
        let world = &mut *self.world();
        let kept = world.random.below(world.unsynced.len() as u64 + 1) as usize;
        for change in world.unsynced.drain(..).take(kept) {
            apply(&mut world.durable_names, &change);
        }
        world.names.clone_from(&world.durable_names);
        for content in world.contents.values_mut() {
            let length = content.now.len().max(content.durable.len());
            let is_longer = content.now.len() > content.durable.len() && world.random.below(2) == 0;
            let kept_length = if is_longer { length } else { content.durable.len() };
            for sector in std::mem::take(&mut content.dirty) {
                let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.now.len()));
                if from < to && to <= kept_length.max(content.durable.len()) && world.random.below(2) == 0 {
                    if content.durable.len() < to {
                        grow(&mut content.durable, to);
                    }
                    content.durable[from..to].copy_from_slice(&content.now[from..to]);
                }
            }
            content.now.clone_from(&content.durable);
        }
        world.engine = match world.random.below(8) {
            0 => Some(BTreeMap::new()),
            1 => None,
            _ => Some(world.engine_durable.clone()),
        };
        world.engine_durable = world.engine.clone().unwrap_or_default();
        world.is_off = false;
    }

    /// Changes the bytes of every file, as they lie there.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.world();
        world.contents[&world.names[path]].now.clone()
    }

    /// Flips bits of one byte.
    pub fn flip(&self, path: &Path, at: usize, mask: u8) {
        let world = &mut *self.world();
        let id = world.names[path];
        let content = world.contents.get_mut(&id).unwrap();
        content.now[at] ^= mask;
        content.durable.clone_from(&content.now);
    }

    /// All files by their paths.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.world().names.keys().cloned().collect()
    }
}

struct SimFile {
    disk: SimDisk,
    id: u64,
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let world = &mut *self.disk.world();
        let act = world.step(false, false, true)?;
        let bytes = &world.contents[&self.id].now;
        let from = (offset as usize).min(bytes.len());
        let count = buffer.len().min(bytes.len() - from);
        buffer[..count].copy_from_slice(&bytes[from..from + count]);
        if matches!(act, Act::Flip) && count > 0 {
            let bit = world.random.below(count as u64 * 8);
            buffer[(bit / 8) as usize] ^= 1 << (bit % 8);
        }
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let world = &mut *self.disk.world();
        let act = world.step(true, false, false)?;
        let mut bytes = bytes.to_vec();
        let whole = bytes.len();
        match act {
            Act::Part | Act::Skip => bytes.truncate((world.random.below(whole as u64) as usize).max(1)),
            Act::Flip => {
                let bit = world.random.below(whole as u64 * 8);
                bytes[(bit / 8) as usize] ^= 1 << (bit % 8);
            }
            Act::Do => {}
        }
        let (from, to) = (offset as usize, offset as usize + bytes.len());
        let is_full = world.is_full;
        let content = world.contents.get_mut(&self.id).unwrap();
        if to > content.now.len() {
            if is_full {
                return Err(io::Error::from_raw_os_error(28));
            }
            grow(&mut content.now, to);
        }
        content.now[from..to].copy_from_slice(&bytes);
        content.dirty.extend(from / SECTOR..to.div_ceil(SECTOR));
        if world.is_off {
            return Err(off());
        }
        match act {
            Act::Skip => Err(io::Error::from_raw_os_error(28)),
            Act::Part | Act::Flip | Act::Do => Ok(bytes.len()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let world = &mut *self.disk.world();
        let act = world.step(false, true, false);
        let content = world.contents.get_mut(&self.id).unwrap();
        match act {
            Ok(Act::Do | Act::Part | Act::Flip) => {
                if !content.dirty.is_empty() || content.durable.len() != content.now.len() {
                    let dirty = std::mem::take(&mut content.dirty);
                    grow(&mut content.durable, content.now.len());
                    for sector in dirty {
                        let (from, to) = (sector * SECTOR, ((sector + 1) * SECTOR).min(content.now.len()));
                        content.durable[from..to].copy_from_slice(&content.now[from..to]);
                    }
                }
                Ok(())
            }
            Ok(Act::Skip) => Ok(()),
            Err(error) => {
                if !world.is_off {
                    // The kernel now takes the pages for clean, whatever the disk holds.
                    world.contents.get_mut(&self.id).unwrap().dirty.clear();
                }
                Err(error)
            }
        }
    }

    fn length(&self) -> io::Result<u64> {
        let mut world = self.disk.world();
        world.step(false, false, false)?;
        Ok(world.contents[&self.id].now.len() as u64)
    }
}

struct SimEngine(SimDisk);

impl SimEngine {
    fn step(&self, is_write: bool, is_sync: bool) -> Result<MutexGuard<'_, World>, String> {
        let mut world = self.0.world();
        match world.step(is_write, is_sync, !is_write && !is_sync) {
            Ok(Act::Do | Act::Part) => Ok(world),
            Ok(Act::Flip | Act::Skip) => Err("it panicked".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl Engine for SimEngine {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, String> {
        let world = self.step(false, false)?;
        Ok(world.engine.as_ref().ok_or("it is damaged")?.get(key).cloned())
    }

    fn rows(&self, from: &[u8], to: &[u8], rows_max: usize, is_reverse: bool) -> Result<Vec<Row>, String> {
        let world = self.step(false, false)?;
        let map = world.engine.as_ref().ok_or("it is damaged")?;
        let range = map.range(from.to_vec()..=to.to_vec());
        let row = |(key, value): (&Vec<u8>, &Vec<u8>)| (key.clone(), value.clone());
        Ok(if is_reverse {
            range.rev().take(rows_max).map(row).collect()
        } else {
            range.take(rows_max).map(row).collect()
        })
    }

    fn write(&self, changes: Vec<Change>) -> Result<(), String> {
        let mut world = self.step(true, false)?;
        let map = world.engine.as_mut().ok_or("it is damaged")?;
        for (key, value) in changes {
            match value {
                Some(value) => drop(map.insert(key, value)),
                None => drop(map.remove(&key)),
            }
        }
        Ok(())
    }

    fn sync(&self) -> Result<(), String> {
        let mut world = self.step(false, true)?;
        let engine = world.engine.clone();
        world.engine_durable = engine.ok_or("it is damaged")?;
        Ok(())
    }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.step(false, false, false)?;
        let id = *world.names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let mut world = self.world();
        world.step(false, false, false)?;
        if world.is_full {
            return Err(io::Error::from_raw_os_error(28));
        }
        // An emptied file is another one: what the old one held is not what is asked for afterwards.
        let id = world.contents.len() as u64 + 1;
        world.contents.insert(id, Content::default());
        world.names.insert(path.to_path_buf(), id);
        world.unsynced.push(NameChange::Set(path.to_path_buf(), id));
        Ok(Box::new(SimFile { disk: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(false, false, false)?;
        if !world.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Rename(from.to_path_buf(), to.to_path_buf());
        apply(&mut world.names, &change);
        world.unsynced.push(change);
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(false, false, false)?;
        if !world.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let change = NameChange::Remove(path.to_path_buf());
        apply(&mut world.names, &change);
        world.unsynced.push(change);
        Ok(())
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        let mut world = self.world();
        world.step(false, false, false)?;
        let mut names: Vec<String> = world
            .names
            .keys()
            .filter_map(|path| path.strip_prefix(directory).ok()?.iter().next())
            .map(|name| name.to_string_lossy().into_owned())
            .collect();
        names.dedup();
        Ok(names)
    }

    fn create_directory(&self, _path: &Path) -> io::Result<()> {
        self.world().step(false, false, false).map(drop)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        let world = &mut *self.world();
        if matches!(world.step(false, true, false)?, Act::Skip) {
            return Ok(());
        }
        // Its own names; a journalling file system writes those before them as well.
        let is_ours = |change: &NameChange| match change {
            NameChange::Set(name, _) | NameChange::Rename(_, name) | NameChange::Remove(name) => {
                name.parent() == Some(path)
            }
        };
        let count = world.unsynced.iter().rposition(is_ours).map_or(0, |last| last + 1);
        for change in world.unsynced.drain(..count) {
            apply(&mut world.durable_names, &change);
        }
        Ok(())
    }

    fn lock(&self, _path: &Path) -> Result<Box<dyn Send + Sync>, LockFailed> {
        self.world().step(false, false, false).map_err(LockFailed::Io)?;
        Ok(Box::new(()))
    }

    fn spawn(&self, job: Job) -> Job {
        // At once, so that every run counts the same operations.
        let done = job();
        Box::new(move || done)
    }

    fn engine(&self, _directory: &Path, _cache_bytes: u64) -> Result<Box<dyn Engine>, String> {
        let mut world = self.world();
        world.step(false, false, false).map_err(|error| error.to_string())?;
        if world.engine.is_none() {
            return Err("it is damaged".to_owned());
        }
        drop(world);
        Ok(Box::new(SimEngine(self.clone())))
    }

    fn move_engine_aside(&self, _directory: &Path, _aside: &Path) -> io::Result<()> {
        let mut world = self.world();
        world.step(false, false, false)?;
        world.engine = Some(BTreeMap::new());
        world.engine_durable = BTreeMap::new();
        Ok(())
    }
}
