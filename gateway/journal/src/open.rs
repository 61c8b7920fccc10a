//! Opening: lock, list the segments, scan the newest one, then judge what was found against the witness.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::chain::{Head, genesis_hash};
use crate::disk::{Disk, LockFailed, RealDisk};
use crate::error::{OpenError, ReadError};
use crate::format::{HeaderFault, KIND_BYTES_MAX, LAYOUT_VERSION, Owner, SegmentHeader};
use crate::journal::{FLOOR_CELL, Journal};
use crate::log::{Gate, LogWriter, SEGMENT_BYTES_DEFAULT, SyncHook, begin_log};
use crate::reader::{Extent, Reader, Shared, io_damage};
use crate::scan::{Scan, scan};
use crate::segment::Segment;
use crate::slot::{ENGINE_DIR, EngineSlot};
use crate::witness::{self, Found, Sighting, Witness};

/// The file whose lock says that somebody has the journal open.
const LOCK_FILE: &str = "lock";

/// sled's page cache by default. Small: a snapshot is written once and read at the next start, so what is cached of it
/// only takes memory.
pub const CACHE_BYTES_DEFAULT: u64 = 1 << 20;

/// Whether somebody has the journal in this directory open. Who may not look is told that somebody has.
#[must_use]
pub fn is_held(dir: &Path) -> bool {
    match std::fs::File::open(dir.join(LOCK_FILE)) {
        Ok(lock) => lock.try_lock_shared().is_err(),
        Err(error) => error.kind() != std::io::ErrorKind::NotFound,
    }
}

/// Which program a journal belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// A short word (at most 32 bytes), e.g. `gateway`.
    pub kind: String,
    /// Newest version of the caller's record format; a store written by a newer one is refused.
    pub format_version: u32,
}

/// How to open a journal.
#[derive(Clone)]
pub struct Options {
    /// Checked against the header, or written to a new one.
    pub identity: Identity,
    /// sled's page cache.
    pub cache_bytes: u64,
    /// Whether to create a journal where there is none. Never replaces one that was lost: the witness tells.
    pub create: bool,
    /// See [`SyncHook`].
    pub sync_hook: Option<SyncHook>,
    /// Longest segment of the log in bytes; an append that needs more gets a longer one.
    pub segment_bytes: u64,
    /// Beneath the log, the witness and the base. For tests.
    pub disk: Arc<dyn Disk>,
}

impl Options {
    /// Options for an existing journal.
    ///
    /// # Panics
    /// If `kind` is longer than 32 bytes.
    #[must_use]
    pub fn new(kind: &str, format_version: u32) -> Options {
        assert!(kind.len() <= KIND_BYTES_MAX, "a journal kind is a short word");
        let identity = Identity {
            kind: kind.to_owned(),
            format_version,
        };
        Options {
            identity,
            cache_bytes: CACHE_BYTES_DEFAULT,
            create: false,
            sync_hook: None,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            disk: Arc::new(RealDisk),
        }
    }

    /// The same, creating the journal if there is none.
    #[must_use]
    pub fn create(mut self) -> Options {
        self.create = true;
        self
    }
}

impl Journal {
    /// Opens the journal in `dir`, creating it only if asked to and only where there is no trace of one.
    ///
    /// What is found is synced before it is returned: records recovered from a killed process's page cache are acted
    /// upon, so they must be as durable as any other. Damage in the middle of the newest segment is logged and kept in
    /// [`Reader::damage_at_open`]: whether one can go on without those records, the caller's replay tells.
    ///
    /// # Errors
    /// See [`OpenError`]. After `Behind`, `Forked`, `Damaged` or a witness error, [`crate::open_for_restore`] may help.
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Journal, OpenError> {
        let dir = dir.as_ref();
        let mut place = Place::open(dir, options)?;
        if place.segments.is_empty() {
            place.create(options)?;
        }
        let mut found = place.scan(Some(options))?;
        for damage in &found.scan.damage {
            tracing::error!(%damage, "ALARM the journal is damaged");
        }
        let format_found = found.owner.format_version;
        found.owner.format_version = options.identity.format_version;
        let owner = found.owner.clone();
        let (reader, tail) = place.into_reader(found, options, |place, owner| {
            EngineSlot::open(&place.disk, &place.dir, options.cache_bytes, &owner.store_id)
        });
        let shared = Arc::clone(&reader.shared);
        let witness = judge(&reader, tail.ordinal - 1)?;
        let log_dir = shared.dir.join(LOG_DIR);
        let log = LogWriter::new(
            Arc::clone(&shared.disk),
            log_dir,
            owner.store_id,
            tail,
            options.segment_bytes,
        )
        .map_err(io_error("open the log in", dir))?;
        // Names, too, may be known to the kernel alone: an earlier process failed to sync them, or was killed before.
        let sync_names = |path: &Path| shared.disk.sync_directory(path).map_err(io_error("sync", path));
        sync_names(&shared.dir.join(LOG_DIR))?;
        sync_names(dir)?;
        shared.gate.pass(|| log.sync(&shared.gate))?;
        let mut journal = Journal {
            reader,
            witness,
            log,
            staged: Vec::new(),
            base_at: None,
        };
        journal.begin_format(format_found)?;
        journal.tidy();
        let extent = *shared.extent();
        let is_noted = {
            let seen = journal.witness.seen();
            (seen.head, seen.ordinal) == (extent.head, journal.log.ordinal() - 1)
        };
        if !is_noted {
            let ordinal = journal.log.ordinal() - 1;
            let witness = &mut journal.witness;
            witness
                .note(extent.head, ordinal)
                .and_then(|()| witness.sync())
                .map_err(io_error("write", &witness::path(dir)))?;
        }
        tracing::info!(dir = %dir.display(), head = extent.head.sequence, oldest = extent.oldest, "journal opened");
        Ok(journal)
    }
}

/// Directory of the segments.
pub(crate) const LOG_DIR: &str = "log";

/// A locked directory and what lies in it, nothing judged yet.
pub(crate) struct Place {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    lock: Box<dyn Send + Sync>,
    pub(crate) segments: Vec<Arc<Segment>>,
}

/// What a scan says about a place.
pub(crate) struct Scanned {
    pub(crate) owner: Owner,
    pub(crate) oldest: u64,
    pub(crate) scan: Scan,
}

impl Place {
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Place, OpenError> {
        let disk = Arc::clone(&options.disk);
        let failed = |error| io_error("read", dir)(error);
        let names = disk.list(dir).map_err(failed)?;
        let has = |name: &str| names.iter().any(|found| found == name);
        let is_trace = has(LOG_DIR) || has("witness") || has(ENGINE_DIR);
        if !is_trace && !options.create {
            return Err(OpenError::Missing(dir.to_path_buf()));
        }
        let log_dir = dir.join(LOG_DIR);
        disk.create_directory(dir).map_err(io_error("create", dir))?;
        let lock_path = dir.join(LOCK_FILE);
        let lock = disk.lock(&lock_path).map_err(|failed| match failed {
            LockFailed::Held(holder) => OpenError::Locked {
                path: lock_path,
                holder,
            },
            LockFailed::Io(source) => io_error("lock", &lock_path)(source),
        })?;
        let names = disk.list(&log_dir).map_err(io_error("read", &log_dir))?;
        let mut segments: Vec<Segment> = names.iter().filter_map(|name| Segment::parse(&log_dir, name)).collect();
        segments.sort_by_key(|segment| (segment.first, segment.ordinal));
        Ok(Place {
            disk,
            dir: dir.to_path_buf(),
            lock,
            segments: segments.into_iter().map(Arc::new).collect(),
        })
    }

    /// Begins a new log, unless there was one before.
    fn create(&mut self, options: &Options) -> Result<(), OpenError> {
        let dir = &self.dir;
        let is_old = !self.disk.list(&dir.join(ENGINE_DIR)).unwrap_or_default().is_empty();
        let path = witness::path(dir);
        match Witness::load(&*self.disk, dir).map_err(io_error("read", &path))? {
            Found::Absent | Found::Damaged if is_old => return Err(OpenError::OldLayout(dir.clone())),
            Found::Absent if options.create => {}
            Found::Absent => return Err(OpenError::Missing(dir.clone())),
            Found::Damaged => return Err(OpenError::WitnessDamaged(path)),
            Found::Intact(witness) => {
                let found = Head {
                    sequence: 0,
                    hash: [0; 32],
                };
                return Err(OpenError::Behind {
                    witness: witness.seen().head,
                    found,
                });
            }
        }
        let owner = new_owner(options, dir)?;
        let before = Head {
            sequence: 0,
            hash: genesis_hash(&owner.store_id),
        };
        let header = SegmentHeader {
            owner,
            before,
            ordinal: 1,
            cells: Default::default(),
        };
        let log_dir = dir.join(LOG_DIR);
        let segment = self
            .disk
            .create_directory(&log_dir)
            .and_then(|()| begin_log(&*self.disk, &log_dir, &header, options.segment_bytes))
            .map_err(io_error("create", &log_dir))?;
        self.segments.push(Arc::new(segment));
        Ok(())
    }

    /// Scans from the newest segment whose header is whole. The owner is checked if the caller expects one.
    pub(crate) fn scan(&self, expected: Option<&Options>) -> Result<Scanned, OpenError> {
        let mut damage = Vec::new();
        let mut begin = None;
        for (index, segment) in self.segments.iter().enumerate().rev() {
            let header = segment.header(&*self.disk);
            match header.map_err(io_error("read", segment.path()))? {
                Ok(header) => {
                    begin = Some((index, header));
                    break;
                }
                Err(HeaderFault::Newer(found)) => {
                    return Err(OpenError::NewerFormat {
                        what: "journal".to_owned(),
                        found,
                        supported: LAYOUT_VERSION,
                    });
                }
                Err(HeaderFault::Damaged) => damage.push(ReadError::HeaderDamaged {
                    segment: segment.name.clone(),
                    at: 0,
                }),
            }
        }
        let Some((index, header)) = begin else {
            return Err(damage
                .into_iter()
                .next()
                .map_or(OpenError::NotAJournal(self.dir.clone()), OpenError::Damaged));
        };
        if let Some(options) = expected {
            check_owner(&header.owner, &options.identity)?;
        }
        let mut scan = scan(&*self.disk, &self.segments[index..], &header)
            .map_err(|(segment, error)| OpenError::Damaged(io_damage(&segment, segment.first, &error)))?;
        damage.append(&mut scan.damage);
        let first = self.segments.first().map_or(1, |segment| segment.first);
        let floor = match scan.cells.get(FLOOR_CELL) {
            Ok(None) => 1,
            Ok(Some(cell)) => cell.try_into().map_or(first, u64::from_le_bytes),
            Err(_) => first,
        };
        if first > floor {
            let (missing, found) = (floor, first);
            damage.push(ReadError::Gap { missing, found });
        }
        scan.damage = damage;
        Ok(Scanned {
            owner: header.owner,
            oldest: floor,
            scan,
        })
    }

    pub(crate) fn into_reader(
        self,
        found: Scanned,
        options: &Options,
        engine: impl FnOnce(&Place, &Owner) -> EngineSlot,
    ) -> (Reader, crate::log::Tail) {
        let engine = engine(&self, &found.owner);
        let Scanned { owner, oldest, scan } = found;
        let shared = Shared {
            disk: self.disk,
            dir: self.dir,
            owner,
            gate: Gate::new(options.sync_hook.clone()),
            extent: Mutex::new(Extent {
                oldest,
                head: scan.head,
            }),
            segments: Mutex::new(self.segments),
            cells: Mutex::new(scan.cells),
            engine,
            snapshots: Mutex::new(None),
            snapshot_open: AtomicBool::new(false),
            snapshots_swept: AtomicBool::new(false),
            damage: scan.damage,
            _lock: self.lock,
        };
        let shared = Arc::new(shared);
        (Reader { shared }, scan.tail)
    }
}

fn check_owner(owner: &Owner, identity: &Identity) -> Result<(), OpenError> {
    if owner.kind != identity.kind {
        return Err(OpenError::WrongKind {
            found: owner.kind.clone(),
            expected: identity.kind.clone(),
        });
    }
    if owner.format_version > identity.format_version {
        return Err(OpenError::NewerFormat {
            what: owner.kind.clone(),
            found: owner.format_version,
            supported: identity.format_version,
        });
    }
    Ok(())
}

/// An owner with a fresh random id, so that two stores never share a history.
fn new_owner(options: &Options, dir: &Path) -> Result<Owner, OpenError> {
    let mut store_id = [0; 16];
    rustix::rand::getrandom(&mut store_id[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| io_error("draw an id for", dir)(error.into()))?;
    let Identity { kind, format_version } = options.identity.clone();
    Ok(Owner {
        format_version,
        store_id,
        kind,
    })
}

/// Compares the log with the witness; a journal that never held a frame may still lack one.
fn judge(reader: &Reader, ordinal: u64) -> Result<Witness, OpenError> {
    let shared = &reader.shared;
    let (disk, dir) = (&*shared.disk, &shared.dir);
    let path = witness::path(dir);
    let head = reader.head();
    let store_id = reader.store_id();
    let witness = match Witness::load(disk, dir).map_err(io_error("read", &path))? {
        Found::Absent if ordinal == 0 => {
            let sighting = Sighting {
                store_id,
                head,
                ordinal,
            };
            return Witness::create(disk, dir, sighting).map_err(io_error("create", &path));
        }
        Found::Absent => return Err(OpenError::WitnessMissing(path)),
        Found::Damaged => return Err(OpenError::WitnessDamaged(path)),
        Found::Intact(witness) => witness,
    };
    let seen = witness.seen();
    let sequence = seen.head.sequence;
    if seen.store_id != store_id {
        return Err(OpenError::Forked { sequence });
    }
    if sequence > head.sequence || seen.ordinal > ordinal {
        return Err(OpenError::Behind {
            witness: seen.head,
            found: head,
        });
    }
    match reader.chain_hash_at(sequence) {
        Ok(hash) if hash == seen.head.hash => {}
        Ok(_) => return Err(OpenError::Forked { sequence }),
        // That record is damaged, which whoever reads it will be told; that it is there, the ones behind it say.
        Err(ReadError::Damaged { .. }) => {}
        Err(error) => return Err(error.into()),
    }
    Ok(witness)
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { action, path, source }
}
