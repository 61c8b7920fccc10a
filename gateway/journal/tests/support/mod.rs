//! What the tests share: opening, replaying, and laying hands on the engine's tree behind the journal's back.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod sim;
pub mod work;
pub mod writer;

use std::fs;
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use journal::{Journal, Options, ReadError, Reader};

pub fn options() -> Options {
    Options::new("test", 1).create()
}

pub fn open(dir: &Path) -> Journal {
    Journal::open(dir, &options()).unwrap()
}

/// With segments so short that many follow one another.
pub fn open_small(dir: &Path) -> Journal {
    let mut options = options();
    options.segment_bytes = 128 << 10;
    Journal::open(dir, &options).unwrap()
}

/// Everything from `from` on, or the damage met.
pub fn replayed(reader: &Reader, from: u64) -> Result<Vec<(u64, Vec<u8>)>, ReadError> {
    let mut seen = Vec::new();
    reader.replay(from, &mut |sequence, bytes| {
        seen.push((sequence, bytes.to_vec()));
        ControlFlow::Continue(())
    })?;
    Ok(seen)
}

/// A journal of `groups` appends of two records each: group `n` (from 0) holds records `2n + 1` and `2n + 2`.
pub fn pairs(dir: &Path, groups: u64) {
    let mut journal = open(dir);
    for group in 0..groups {
        let (odd, even) = (pair_record(2 * group + 1), pair_record(2 * group + 2));
        journal.append(&[&odd, &even]).unwrap();
    }
    journal.close().unwrap();
}

pub fn pair_record(sequence: u64) -> Vec<u8> {
    format!("the record {sequence}").into_bytes()
}

/// The log's segments, oldest first.
pub fn segments(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("log")).unwrap();
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "seg"));
    paths.sort();
    paths
}

/// A frame as its bytes say: where it lies, and which records it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub bytes: Range<usize>,
    pub first: u64,
    pub last: u64,
}

/// Finds the frames of a segment, by their magic.
pub fn frames(segment: &[u8]) -> Vec<Frame> {
    let field = |at: usize| u64::from_le_bytes(segment[at..at + 8].try_into().unwrap());
    let mut found = Vec::new();
    let mut at = 40 << 10;
    while at + 68 <= segment.len() {
        if !segment[at..].starts_with(b"HFf2") {
            at += 4;
            continue;
        }
        let body = u32::from_le_bytes(segment[at + 12..at + 16].try_into().unwrap()) as usize;
        let records = u64::from(u16::from_le_bytes([segment[at + 32], segment[at + 33]]));
        let first = field(at + 24);
        found.push(Frame {
            bytes: at..at + 68 + body,
            first,
            last: first + records - 1,
        });
        at += (68 + body).next_multiple_of(4);
    }
    found
}

/// Changes one file's bytes.
pub fn change(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    change(&mut bytes);
    fs::write(path, bytes).unwrap();
}

/// A copy of a journal's directory, that a test may damage.
pub fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Changes the engine's tree while the journal is closed.
pub fn tamper(dir: &Path, change: impl FnOnce(&sled::Db)) {
    let db = open_engine(&dir.join("store"));
    change(&db);
    db.flush().unwrap();
}

/// Opens sled itself; a journal closed a moment ago may hold its lock a little longer.
fn open_engine(path: &Path) -> sled::Db {
    let give_up = Instant::now() + Duration::from_secs(10);
    loop {
        match sled::Config::new().path(path).flush_every_ms(Some(500)).open() {
            Ok(db) => return db,
            Err(error) if Instant::now() > give_up => panic!("sled does not open: {error}"),
            Err(_) => std::thread::yield_now(),
        }
    }
}

/// Replaces the value at `key`.
pub fn rewrite(db: &sled::Db, key: &[u8], change: impl FnOnce(&mut Vec<u8>)) {
    let mut value = db.get(key).unwrap().expect("the key exists").to_vec();
    change(&mut value);
    db.insert(key, value).unwrap();
}

/// Small and seeded; prints its seed so that a failure can be repeated with `JOURNAL_TEST_SEED`.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub fn from_env() -> Random {
        use std::hash::{BuildHasher, RandomState};
        let seed = std::env::var("JOURNAL_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| RandomState::new().hash_one("seed"));
        println!("JOURNAL_TEST_SEED={seed}");
        Random(seed)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}
