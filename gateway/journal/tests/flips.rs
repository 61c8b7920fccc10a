//! Flipped bits in the files of a journal of one mebibyte: no record that is served is another one, all damage is named,
//! and what is whole is served.
//!
//! Every byte takes hours: `cargo test --release -p journal --test flips -- --ignored --nocapture many_bytes`, with
//! `JOURNAL_FLIP_STRIDE=7` every seventh.

#![allow(clippy::unwrap_used)]

mod support;

use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::thread;

use journal::{Journal, OpenError, Options, Restore, open_for_restore};
use support::sim::SimDisk;
use support::work::{self, DIR, served};
use support::{Random, frames};

/// Every so many bytes in the test command.
const STRIDE: usize = 2_039;
/// Bytes of the records of the store.
const STORE_BYTES: u64 = 1 << 20;
/// So long that the room for the headers is a small part of it.
const SEGMENT_BYTES: u64 = 256 << 10;

fn options(disk: &SimDisk) -> Options {
    let mut options = work::options(disk);
    options.segment_bytes = SEGMENT_BYTES;
    options
}

fn open(disk: &SimDisk) -> Result<Journal, OpenError> {
    Journal::open(DIR, &options(disk))
}

fn content(sequence: u64) -> Vec<u8> {
    vec![sequence as u8; 40 + (sequence * 31 % 3_000) as usize]
}

/// A journal of the size that the law names, closed well.
fn store() -> (SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut journal: Journal = open(&disk).unwrap();
    let mut bytes = 0;
    while bytes < STORE_BYTES {
        let first = journal.head().sequence + 1;
        let batch: Vec<Vec<u8>> = (first..first + 1 + first % 4).map(content).collect();
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        if first.is_multiple_of(50) {
            journal.set_meta("cell", &first.to_le_bytes()).unwrap();
        }
        journal.append(&slices).unwrap();
        bytes += slices.iter().map(|record| record.len() as u64).sum::<u64>();
    }
    let head = journal.head().sequence;
    journal.close().unwrap();
    (disk, head)
}

/// Records whose bytes a flip at this place touches; none if it is no record's.
fn touched(path: &Path, bytes: &[u8], at: usize) -> u64 {
    if path.extension().is_none_or(|extension| extension != "seg") {
        return 0;
    }
    let hit = frames(bytes).into_iter().find(|frame| frame.bytes.contains(&at));
    hit.map_or(0, |frame| frame.last + 1 - frame.first)
}

/// What came of the flips.
#[derive(Default)]
struct Counts {
    flips: u64,
    /// Flips whose damage was named.
    named: u64,
    /// Records served, and records that no flip touched.
    served: u64,
    whole: u64,
}

impl Counts {
    fn add(&mut self, other: &Counts) {
        self.flips += other.flips;
        self.named += other.named;
        self.served += other.served;
        self.whole += other.whole;
    }
}

/// Flips one bit of every `stride`th byte of every file, from byte `start` on, each in a store of its own.
fn sweep(start: usize, stride: usize) {
    let (disk, head) = store();
    let threads = thread::available_parallelism().map_or(1, NonZero::get);
    let mut counts = Counts::default();
    thread::scope(|scope| {
        // Each has every so manieth of these places.
        let parts = (0..threads).map(|part| {
            let disk = disk.fork();
            scope.spawn(move || sweep_part(&disk, head, start + part * stride, stride * threads))
        });
        let parts: Vec<_> = parts.collect();
        for part in parts {
            counts.add(&part.join().unwrap());
        }
    });
    let Counts {
        flips,
        named,
        served,
        whole,
    } = counts;
    println!("{flips} flips, {named} of them damage that was named; {served} of {whole} whole records served");
    assert!(served as f64 >= whole as f64 * 0.999);
    // Most of the store are frames; the rest are the room for headers, and what is not used yet.
    assert!(named * 2 > flips && named < flips, "some flips hit, others do not");
}

fn sweep_part(disk: &SimDisk, head: u64, start: usize, stride: usize) -> Counts {
    let mut counts = Counts::default();
    for path in disk.paths() {
        let original = disk.bytes(&path);
        for at in (start..original.len()).step_by(stride) {
            let disk = disk.fork();
            disk.flip(&path, at, 1 << (at % 8));
            let lost = touched(&path, &original, at);
            let what = format!("byte {at} of {}", path.display());
            let (is_named, served) = look(&disk, head, &what);
            assert!(lost == 0 || is_named, "{what}: it is not named");
            counts.add(&Counts {
                flips: 1,
                named: u64::from(is_named),
                served,
                whole: head - lost,
            });
        }
    }
    counts
}

/// Whether damage is named, and how many records are served as they were written.
fn look(disk: &SimDisk, head: u64, what: &str) -> (bool, u64) {
    let check = |records: Vec<(u64, Vec<u8>)>| {
        for (sequence, bytes) in &records {
            assert!(
                *sequence <= head && *bytes == content(*sequence),
                "{what}: record {sequence}"
            );
        }
        records.len() as u64
    };
    match open(disk) {
        Ok(journal) => {
            let (records, damage) = served(&journal);
            (
                !damage.is_empty() || !journal.damage_at_open().is_empty(),
                check(records),
            )
        }
        Err(OpenError::Behind { .. } | OpenError::Damaged(_) | OpenError::WitnessDamaged(_)) => {
            let restore: Restore = open_for_restore(DIR, &options(disk)).unwrap();
            assert!(!restore.damage().is_empty(), "{what}: nothing is named");
            (true, check(served(&restore).0))
        }
        Err(error) => panic!("{what}: {error}"),
    }
}

#[test]
fn flips_all_over_the_files_never_change_what_is_served() {
    let mut random = Random::from_env();
    let start = random.below(STRIDE as u64) as usize;
    sweep(start, STRIDE);
}

#[test]
#[ignore = "hours: every byte"]
fn many_bytes_of_the_files() {
    let stride = std::env::var("JOURNAL_FLIP_STRIDE").map_or(1, |stride| stride.parse().unwrap());
    sweep(0, stride);
}

#[test]
fn a_flip_in_each_file_of_the_log_is_found_by_the_search_for_damage() {
    let (disk, _) = store();
    assert_eq!(journal::verify(DIR, &options(&disk)).unwrap(), []);
    let segments: Vec<PathBuf> = disk
        .paths()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|extension| extension == "seg"))
        .collect();
    for path in segments {
        let bytes = disk.bytes(&path);
        let Some(frame) = frames(&bytes).into_iter().next() else {
            continue;
        };
        disk.flip(&path, frame.bytes.end - 1, 4);
        let damage = journal::verify(DIR, &options(&disk)).unwrap();
        assert_eq!(damage.len(), 1, "{}: {damage:?}", path.display());
        disk.flip(&path, frame.bytes.end - 1, 4);
    }
}
