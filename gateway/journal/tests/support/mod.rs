//! What the tests share: opening, replaying, and laying hands on the engine's tree behind the journal's back.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

pub mod writer;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use journal::{Journal, Options, ReadError, Reader};

pub fn options() -> Options {
    Options::new("test", 1).create()
}

pub fn open(dir: &Path) -> Journal {
    Journal::open(dir, &options()).unwrap()
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

pub fn group_key(first_sequence: u64) -> Vec<u8> {
    [&b"r"[..], &first_sequence.to_be_bytes()].concat()
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
pub struct Random(u64);

impl Random {
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
