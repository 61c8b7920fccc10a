//! One fault at every operation of whole workloads, and a power cut at every sync: no acknowledged record is lost, none is
//! altered, no batch is half there, no open panics, and what a lying disk destroyed is named.

#![allow(clippy::unwrap_used)]

mod support;

use journal::{Journal, OpenError, verify};
use support::Random;
use support::sim::{Fault, SimDisk};
use support::work::{DIR, Promised, judge, open, options, served, work};

const STEPS: u32 = 45;
const CUT_STEPS: u32 = 12;
const CUT_WORKLOADS: u64 = 1000;
/// Faults after which everything acknowledged must still be there.
const HONEST: [Fault; 6] = [
    Fault::Error,
    Fault::ShortWrite,
    Fault::PartWrite,
    Fault::FullDisk,
    Fault::Slow,
    Fault::PowerCut,
];
/// Faults of a disk that lies: what they destroy is named.
const LIES: [Fault; 3] = [Fault::LostFlush, Fault::FlippedWrite, Fault::FlippedRead];

/// Runs one workload with one fault; the disk after it.
fn run(seed: u64, at: u64, fault: Fault, steps: u32) -> (SimDisk, Promised) {
    let disk = SimDisk::new(seed ^ at);
    disk.fail_at(at, fault);
    let promised = work(&disk, seed, steps);
    (disk, promised)
}

/// Operations of a workload that nothing happens to.
fn operations(seed: u64, steps: u32) -> (u64, u64) {
    let disk = SimDisk::new(seed);
    let promised = work(&disk, seed, steps);
    assert!(promised.in_doubt.is_empty());
    let counted = (disk.operations(), disk.syncs());
    judge(&disk, &promised, "without a fault");
    counted
}

#[test]
fn a_fault_at_every_operation_loses_nothing_that_was_acknowledged() {
    let mut random = Random::from_env();
    let (mut points, mut records) = (0, 0);
    while points < 10_000 {
        let seed = random.below(u64::MAX);
        let (count, _) = operations(seed, STEPS);
        for at in 1..=count {
            for fault in HONEST {
                let (disk, promised) = run(seed, at, fault, STEPS);
                // Killed and started again, or the power goes as well.
                if disk.is_off() || (at ^ seed).is_multiple_of(2) {
                    disk.cut_power();
                }
                disk.repair();
                judge(&disk, &promised, &format!("seed {seed}, {fault:?} at operation {at}"));
                points += 1;
                records += promised.records.len();
            }
        }
    }
    println!("{points} faults, {records} acknowledged records, none lost");
}

#[test]
fn what_a_lying_disk_destroys_is_named() {
    let mut random = Random::from_env();
    let (mut points, mut named, mut unseen) = (0, 0, 0);
    while points < 3_000 {
        let seed = random.below(u64::MAX);
        let (count, _) = operations(seed, STEPS);
        for at in 1..=count {
            for fault in LIES {
                let what = format!("seed {seed}, {fault:?} at operation {at}");
                let (disk, promised) = run(seed, at, fault, STEPS);
                if fault == Fault::LostFlush {
                    disk.cut_power();
                }
                disk.repair();
                points += 1;
                match lies_named(&disk, &promised, fault, &what) {
                    0 => unseen += 1,
                    count => named += count,
                }
            }
        }
    }
    println!("{points} lies: {named} damages named, {unseen} without consequence");
}

/// How much damage is named. Nothing that is served is wrong, and whatever is missing is named.
fn lies_named(disk: &SimDisk, promised: &Promised, fault: Fault, what: &str) -> usize {
    let both = [&promised.records[..], &promised.in_doubt[..]].concat();
    let journal = match open(disk) {
        Ok(journal) => journal,
        Err(OpenError::Locked { .. } | OpenError::Missing(_) | OpenError::NotAJournal(_)) => panic!("{what}"),
        Err(error) => {
            // It names itself, and so does the search for all of it, unless not even an owner is left.
            let text = error.to_string();
            return match verify(DIR, &options(disk)) {
                Ok(damage) => {
                    assert!(!damage.is_empty(), "{what}: {text}, but nothing is named");
                    damage.len()
                }
                Err(_) => 1,
            };
        }
    };
    let (records, damage) = served(&journal);
    for (sequence, bytes) in &records {
        let expected = both.get(*sequence as usize - 1);
        assert!(
            expected.is_some_and(|expected| expected == bytes),
            "{what}: record {sequence}"
        );
    }
    let lost: u64 = damage
        .iter()
        .filter_map(|damage| damage.lost())
        .map(|lost| lost.last + 1 - lost.first)
        .sum();
    let held = records.len() as u64 + lost + journal.oldest_sequence() - 1;
    assert_eq!(held, journal.head().sequence, "{what}: a hole is not named");
    if fault != Fault::LostFlush {
        // A flush that was a lie loses what came since the witness's last sync, if the power goes: nobody can know.
        assert!(held >= promised.records.len() as u64, "{what}: the end is gone");
    }
    damage.len()
}

#[test]
fn a_power_cut_at_every_sync_of_a_thousand_workloads_loses_nothing() {
    let mut random = Random::from_env();
    let (mut cuts, mut records, mut doubtful) = (0, 0, 0);
    for _ in 0..CUT_WORKLOADS {
        let seed = random.below(u64::MAX);
        let disk = SimDisk::new(seed);
        work(&disk, seed, CUT_STEPS);
        for sync in 1..=disk.syncs() {
            let disk = SimDisk::new(seed ^ sync);
            disk.cut_at_sync(sync);
            let promised = work(&disk, seed, CUT_STEPS);
            disk.cut_power();
            disk.repair();
            judge(&disk, &promised, &format!("seed {seed}, power cut at sync {sync}"));
            cuts += 1;
            records += promised.records.len();
            doubtful += promised.in_doubt.len();
        }
    }
    println!("{cuts} power cuts, {records} acknowledged records, none lost; {doubtful} records were in doubt");
}

/// A judge that cannot say no proves nothing: behind a flush that was a lie, the power cut loses what was promised.
#[test]
fn the_judge_notices_a_lost_record() {
    let mut random = Random::from_env();
    let is_noticed = (0..20).any(|_| {
        let seed = random.below(u64::MAX);
        let disk = SimDisk::new(seed);
        let mut journal = open(&disk).unwrap();
        journal.append(&[b"kept"]).unwrap();
        // Write, then sync.
        disk.fail_at(disk.operations() + 2, Fault::LostFlush);
        journal.append(&[&[7; 2000]]).unwrap();
        disk.turn_off();
        drop(journal);
        disk.cut_power();
        disk.repair();
        let promised = Promised {
            records: vec![b"kept".to_vec(), vec![7; 2000]],
            ..Promised::default()
        };
        std::panic::catch_unwind(|| judge(&disk, &promised, "a lie")).is_err()
    });
    assert!(is_noticed);
}

#[test]
fn a_disk_without_room_is_an_error_and_the_journal_goes_on_once_there_is_some() {
    let disk = SimDisk::new(1);
    let mut journal = open(&disk).unwrap();
    disk.fail_at(disk.operations() + 1, Fault::FullDisk);
    let mut count = 0;
    while journal.append(&[&[7; 1000]]).is_ok() {
        count += 1;
    }
    assert!(count > 5, "the segment that is there is used up first");
    drop(journal);
    // Full as it is, all of it is read, and the next start says what is wrong.
    let journal = open(&disk).unwrap();
    assert_eq!(journal.head().sequence, count);
    drop(journal);
    disk.repair();
    let mut journal: Journal = open(&disk).unwrap();
    assert_eq!(journal.append(&[b"on we go"]).unwrap().start, count + 1);
}
