//! Flipped bits in the files of a journal of one mebibyte: no record that is served is another one, all damage is named,
//! and what is whole is served.
//!
//! Every byte takes more than an hour: `cargo test -p journal --test flips -- --ignored --nocapture every_byte`.

#![allow(clippy::unwrap_used)]

mod support;

use std::path::{Path, PathBuf};

use journal::{Journal, OpenError, Restore, open_for_restore};
use support::sim::SimDisk;
use support::work::{DIR, SEGMENT_BYTES, open, options, served};
use support::{Random, frames};

/// Every so many bytes in the test command.
const STRIDE: usize = 509;
const STORE_BYTES: u64 = 1 << 20;

fn content(sequence: u64) -> Vec<u8> {
    vec![sequence as u8; 40 + (sequence * 31 % 300) as usize]
}

/// A journal of the size that the law names, closed well.
fn store() -> (SimDisk, u64) {
    let disk = SimDisk::new(1);
    let mut journal: Journal = open(&disk).unwrap();
    let size = |disk: &SimDisk| disk.paths().len() as u64 * SEGMENT_BYTES;
    while size(&disk) < STORE_BYTES {
        let first = journal.head().sequence + 1;
        let batch: Vec<Vec<u8>> = (first..first + 1 + first % 4).map(content).collect();
        let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
        if first.is_multiple_of(50) {
            journal.set_meta("cell", &first.to_le_bytes()).unwrap();
        }
        journal.append(&slices).unwrap();
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

/// Whether whatever lies at this place is used at all: frames, headers, the witness.
fn sweep(places: impl Iterator<Item = usize> + Clone) {
    let (disk, head) = store();
    let (mut flips, mut named, mut served_count, mut whole_count) = (0u64, 0u64, 0u64, 0u64);
    for path in disk.paths() {
        let original = disk.bytes(&path);
        for at in places.clone().take_while(|at| *at < original.len()) {
            let mask = 1 << (at % 8);
            let disk = disk.fork();
            disk.flip(&path, at, mask);
            let lost = touched(&path, &original, at);
            let what = format!("byte {at} of {}", path.display());
            let (is_named, served) = look(&disk, head, &what);
            assert!(lost == 0 || is_named, "{what}: it is not named");
            flips += 1;
            named += u64::from(is_named);
            served_count += served;
            whole_count += head - lost;
        }
    }
    println!(
        "{flips} flips, {named} of them damage that was named; {served_count} of {whole_count} whole records served"
    );
    assert!(served_count as f64 >= whole_count as f64 * 0.999);
    assert!(named > 0 && named < flips, "some flips hit, others do not");
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
    sweep((start..).step_by(STRIDE));
}

#[test]
#[ignore = "more than an hour: every byte"]
fn every_byte_of_the_files() {
    sweep(0..);
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
