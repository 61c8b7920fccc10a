//! Opening: lock, tidy, let sled recover, then judge what it found against the header, the chain and the witness.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use crate::chain::{Head, genesis_hash};
use crate::error::{AppendError, OpenError, ReadError};
use crate::format::{self, FLOOR_KEY, HEADER_KEY, Header, KIND_BYTES_MAX, LAYOUT_VERSION, group_key, key_number};
use crate::journal::Journal;
use crate::reader::{Extent, Reader, Shared, verify_group};
use crate::store::{Batch, DirLock, Store, SyncHook, sync_dir};
use crate::witness::{self, Found, Sighting, Witness};

/// Groups at the end whose chain is checked at every open: a power cut damages the end first, and this many values are
/// read in about a millisecond.
const TAIL_GROUPS_CHECKED: u64 = 64;
/// sled's page cache by default: holds the working set of a gateway with room, small beside its memory limit.
pub const CACHE_BYTES_DEFAULT: u64 = 32 << 20;

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
    /// upon, so they must be as durable as any other.
    ///
    /// # Errors
    /// See [`OpenError`]. After `Behind`, `Forked`, `Damaged` or a witness error, [`crate::open_for_restore`] may help.
    pub fn open(dir: impl AsRef<Path>, options: &Options) -> Result<Journal, OpenError> {
        let dir = dir.as_ref();
        let base = Base::open(dir, options)?;
        let header = match base.header(options)? {
            Some(header) => header,
            None => base.create_header(options)?,
        };
        let reader = base.into_reader(header);
        let extent = tail(&reader)?;
        *reader.shared.extent() = extent;
        let found = Witness::load(dir).map_err(io_error("read", &witness::path(dir)))?;
        let mut witness = judge(&reader, found, extent.head)?;
        reader.shared.store.sync().map_err(write_failed(dir))?;
        if reader.shared.header.format_version < options.identity.format_version {
            // Before anything of the new format can be appended, so that an older program refuses what it cannot read.
            let raised = Header {
                format_version: options.identity.format_version,
                ..reader.shared.header.clone()
            };
            tracing::info!(
                from = reader.shared.header.format_version,
                to = raised.format_version,
                "raising the format"
            );
            write_header(&reader.shared.store, &raised).map_err(write_failed(dir))?;
        }
        if witness.seen().head != extent.head {
            let path = witness::path(dir);
            witness
                .note(extent.head)
                .and_then(|()| witness.sync())
                .map_err(io_error("write", &path))?;
        }
        tracing::info!(dir = %dir.display(), head = extent.head.sequence, oldest = extent.oldest, "journal opened");
        Ok(Journal {
            reader,
            witness,
            staged_meta: Vec::new(),
        })
    }
}

/// A locked directory with its sled open, nothing judged yet.
pub(crate) struct Base {
    dir: PathBuf,
    store: Store,
}

impl Base {
    pub(crate) fn open(dir: &Path, options: &Options) -> Result<Base, OpenError> {
        let store_dir = dir.join("store");
        let is_trace = store_dir.join("db").exists() || witness::path(dir).exists();
        if !is_trace && !options.create {
            return Err(OpenError::Missing(dir.to_path_buf()));
        }
        if !dir.exists() {
            fs::create_dir_all(dir).map_err(io_error("create", dir))?;
            let parent = dir
                .parent()
                .filter(|parent| !parent.as_os_str().is_empty())
                .unwrap_or(Path::new("."));
            sync_dir(parent).map_err(io_error("sync", parent))?;
        }
        let lock = DirLock::take(dir)?;
        let store = Store::open(&store_dir, options.cache_bytes, options.sync_hook.clone(), lock)?;
        sync_dir(dir).map_err(io_error("sync", dir))?;
        Ok(Base {
            dir: dir.to_path_buf(),
            store,
        })
    }

    /// The header, checked against what the caller expects; `None` if the store is empty.
    pub(crate) fn header(&self, options: &Options) -> Result<Option<Header>, OpenError> {
        let Some(value) = self.store.get(HEADER_KEY)? else {
            return if self.store.is_empty()? {
                Ok(None)
            } else {
                Err(OpenError::NotAJournal(self.dir.clone()))
            };
        };
        let header = Header::decode(&value).ok_or_else(|| OpenError::NotAJournal(self.dir.clone()))?;
        let Identity { kind, format_version } = &options.identity;
        if header.layout_version > LAYOUT_VERSION {
            let what = "journal".to_owned();
            return Err(OpenError::NewerFormat {
                what,
                found: header.layout_version,
                supported: LAYOUT_VERSION,
            });
        }
        if header.kind != *kind {
            return Err(OpenError::WrongKind {
                found: header.kind,
                expected: kind.clone(),
            });
        }
        if header.format_version > *format_version {
            let (what, found) = (kind.clone(), header.format_version);
            return Err(OpenError::NewerFormat {
                what,
                found,
                supported: *format_version,
            });
        }
        Ok(Some(header))
    }

    /// Writes the header of a new journal, unless the witness remembers an old one.
    fn create_header(&self, options: &Options) -> Result<Header, OpenError> {
        let path = witness::path(&self.dir);
        match Witness::load(&self.dir).map_err(io_error("read", &path))? {
            Found::Absent if options.create => {}
            Found::Absent => return Err(OpenError::Missing(self.dir.clone())),
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
        let header = new_header(options, &self.dir)?;
        write_header(&self.store, &header).map_err(write_failed(&self.dir))?;
        Ok(header)
    }

    pub(crate) fn into_reader(self, header: Header) -> Reader {
        let genesis = genesis_hash(&header.store_id);
        let extent = Mutex::new(Extent {
            oldest: 1,
            head: Head {
                sequence: 0,
                hash: genesis,
            },
        });
        let Base { dir, store } = self;
        Reader {
            shared: Arc::new(Shared {
                store,
                header,
                genesis,
                extent,
                snapshot_open: AtomicBool::new(false),
                dir,
            }),
        }
    }
}

fn write_header(store: &Store, header: &Header) -> Result<(), AppendError> {
    let mut batch = Batch::default();
    batch.insert(HEADER_KEY, header.encode());
    store.commit(batch)
}

/// A header with a fresh random id, so that two stores never share a history.
pub(crate) fn new_header(options: &Options, dir: &Path) -> Result<Header, OpenError> {
    let mut store_id = [0; 16];
    rustix::rand::getrandom(&mut store_id[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| io_error("draw an id for", dir)(error.into()))?;
    let Identity { kind, format_version } = options.identity.clone();
    Ok(Header {
        layout_version: LAYOUT_VERSION,
        format_version,
        store_id,
        kind,
    })
}

/// Compares the store with the witness; a journal that never held a record may still lack one.
fn judge(reader: &Reader, found: Found, head: Head) -> Result<Witness, OpenError> {
    let dir = &reader.shared.dir;
    let path = witness::path(dir);
    let store_id = reader.store_id();
    let witness = match found {
        Found::Absent if head.sequence == 0 => {
            return Witness::create(dir, Sighting { store_id, head }).map_err(io_error("create", &path));
        }
        Found::Absent => return Err(OpenError::WitnessMissing(path)),
        Found::Damaged => return Err(OpenError::WitnessDamaged(path)),
        Found::Intact(witness) => witness,
    };
    let seen = witness.seen();
    if seen.store_id != store_id {
        return Err(OpenError::Forked {
            sequence: seen.head.sequence,
        });
    }
    if seen.head.sequence > head.sequence {
        return Err(OpenError::Behind {
            witness: seen.head,
            found: head,
        });
    }
    if reader.chain_hash_at(seen.head.sequence)? != seen.head.hash {
        return Err(OpenError::Forked {
            sequence: seen.head.sequence,
        });
    }
    Ok(witness)
}

/// Finds the oldest record and the head; checks the last groups.
fn tail(reader: &Reader) -> Result<Extent, ReadError> {
    let store = &reader.shared.store;
    let oldest = floor(reader)?;
    let all = (group_key(0), group_key(u64::MAX));
    let genesis = Head {
        sequence: 0,
        hash: reader.shared.genesis,
    };
    let Some((first_key, _)) = store.scan(&all.0, &all.1, oldest).next().transpose()? else {
        let extent = Extent { oldest, head: genesis };
        return if oldest == 1 {
            Ok(extent)
        } else {
            Err(ReadError::Truncated {
                missing: oldest,
                head: oldest,
            })
        };
    };
    match key_number(&first_key) {
        Some(first) if first > oldest => {
            return Err(ReadError::Gap {
                missing: oldest,
                found: first,
            });
        }
        Some(first) if first < oldest => {
            return Err(ReadError::Misplaced {
                expected: oldest,
                found: first,
            });
        }
        Some(_) | None => {}
    }
    let start = store.nth_last_in(&all.0, &all.1, TAIL_GROUPS_CHECKED as usize)?;
    let start = start.and_then(|(key, _)| key_number(&key)).unwrap_or(oldest);
    let mut at = (start == 1).then_some(genesis);
    let mut batch_last = 0;
    for entry in store.scan(&group_key(start), &all.1, start) {
        let (key, value) = entry?;
        let (head, last) = verify_group(&key, &value, at.map_or(start, |at| at.sequence + 1), at)?;
        (at, batch_last) = (Some(head), last);
    }
    let head = at.unwrap_or(genesis);
    if batch_last != head.sequence {
        return Err(ReadError::TornBatch {
            expected: batch_last,
            found: head.sequence,
        });
    }
    Ok(Extent { oldest, head })
}

/// First record that pruning left.
pub(crate) fn floor(reader: &Reader) -> Result<u64, ReadError> {
    let Some(value) = reader.shared.store.get(FLOOR_KEY)? else {
        return Ok(1);
    };
    format::open_cell(FLOOR_KEY, &value)
        .and_then(|content| content.try_into().ok())
        .map(u64::from_le_bytes)
        .ok_or_else(|| ReadError::CellDamaged {
            name: "floor".to_owned(),
        })
}

pub(crate) fn io_error(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |source| OpenError::Io { action, path, source }
}

pub(crate) fn write_failed(dir: &Path) -> impl FnOnce(AppendError) -> OpenError + use<> {
    let path = dir.to_path_buf();
    move |error| OpenError::Engine {
        path,
        message: error.to_string(),
    }
}
