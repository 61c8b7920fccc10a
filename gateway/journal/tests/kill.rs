//! kill -9 at random moments: no acknowledged record is lost, no batch is torn, no snapshot is half there.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use journal::Journal;
use support::{Random, open, replayed};

const KILLS: u32 = 40;
const SNAPSHOT_CHUNKS: u32 = 12;

/// What record `sequence` of a batch must hold, so that any record can be judged by itself.
fn record(sequence: u64, batch: &std::ops::Range<u64>) -> Vec<u8> {
    let filler = if sequence.is_multiple_of(17) {
        3000
    } else {
        (sequence * 7919 % 700) as usize
    };
    let mut bytes = [batch.start.to_be_bytes(), batch.end.to_be_bytes()].concat();
    bytes.resize(16 + filler, sequence as u8);
    bytes
}

fn snapshot_chunk(at_sequence: u64, index: u32) -> Vec<u8> {
    vec![at_sequence as u8; 100 + index as usize]
}

#[test]
#[ignore = "the writer that the test below kills"]
fn appends_until_it_is_killed() {
    let dir = std::env::var_os("JOURNAL_TEST_DIR").unwrap();
    let mut random = Random::from_env();
    let mut journal = open(dir.as_ref());
    let mut out = std::io::stdout();
    writeln!(out, "\nopen").unwrap();
    let mut snapshot = None;
    loop {
        // Now and then a batch larger than one of sled's segments of 512 KiB.
        let count = if random.below(40) == 0 {
            1000
        } else {
            1 + random.below(24)
        };
        let first = journal.head().sequence + 1;
        let batch = first..first + count;
        let records: Vec<_> = batch.clone().map(|sequence| record(sequence, &batch)).collect();
        let appended = journal
            .append(&records.iter().map(Vec::as_slice).collect::<Vec<_>>())
            .unwrap();
        assert_eq!(appended, batch);
        // One write of one short line: the parent sees all of it or nothing.
        out.write_all(format!("{}\n", appended.end - 1).as_bytes()).unwrap();
        let (mut writer, next) = match snapshot.take() {
            Some(started) => started,
            None => (journal.begin_snapshot(appended.end - 1).unwrap(), 0),
        };
        if next == SNAPSHOT_CHUNKS {
            writer.finish().unwrap();
            journal.prune(appended.start.saturating_sub(500)).unwrap();
        } else {
            writer.push(&snapshot_chunk(writer.at_sequence(), next)).unwrap();
            snapshot = Some((writer, next + 1));
        }
    }
}

fn spawn_writer(dir: &Path, seed: u64) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "appends_until_it_is_killed"])
        .env("JOURNAL_TEST_DIR", dir)
        .env("JOURNAL_TEST_SEED", seed.to_string())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Lets the writer work for a random while, kills it, and returns the last acknowledged sequence it printed.
fn run_and_kill(dir: &Path, random: &mut Random) -> Option<u64> {
    let mut writer = spawn_writer(dir, random.below(u64::MAX));
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut acknowledged = None;
    // One in eight dies while starting or opening; the others after some acknowledgements and a little more.
    if random.below(8) > 0 {
        for line in lines.by_ref().take(4 + random.below(60) as usize) {
            acknowledged = line.unwrap().parse().ok().or(acknowledged);
        }
    }
    for _ in 0..random.below(3_000_000) {
        std::hint::spin_loop();
    }
    writer.kill().unwrap();
    writer.wait().unwrap();
    for line in lines {
        acknowledged = line.unwrap().parse().ok().or(acknowledged);
    }
    acknowledged
}

/// Opens what the writer left and judges every record; returns the head's sequence.
fn check(journal: &Journal) -> u64 {
    let head = journal.head().sequence;
    let mut batch_end = None;
    for (sequence, bytes) in replayed(journal, journal.oldest_sequence()).unwrap() {
        let number = |at: usize| u64::from_be_bytes(bytes[at..at + 8].try_into().unwrap());
        let batch = number(0)..number(8);
        assert!(
            batch.contains(&sequence),
            "record {sequence} belongs to batch {batch:?}"
        );
        assert_eq!(bytes, record(sequence, &batch), "record {sequence}");
        batch_end = Some(batch.end);
    }
    assert_eq!(batch_end, (head > 0).then_some(head + 1), "the last batch is torn");
    if let Some(snapshot) = journal.latest_snapshot().unwrap() {
        assert!(snapshot.damaged().is_empty());
        let chunks: Vec<_> = snapshot.chunks().map(Result::unwrap).collect();
        let expected: Vec<_> = (0..SNAPSHOT_CHUNKS)
            .map(|index| snapshot_chunk(snapshot.at_sequence(), index))
            .collect();
        assert_eq!(chunks, expected);
        assert!(journal.oldest_sequence() <= snapshot.at_sequence() + 1);
    }
    head
}

#[test]
fn kill_nine_loses_no_acknowledged_record_and_tears_no_batch() {
    let mut random = Random::from_env();
    let dir = tempfile::tempdir().unwrap();
    let (mut total, mut unacknowledged, mut early) = (0, 0, 0);
    for round in 0..KILLS {
        let acknowledged = run_and_kill(dir.path(), &mut random);
        let journal = open(dir.path());
        let head = check(&journal);
        assert!(
            head >= acknowledged.unwrap_or(0).max(total),
            "round {round}: {acknowledged:?} acknowledged, {head} found"
        );
        early += u32::from(acknowledged.is_none());
        unacknowledged += head - acknowledged.unwrap_or(total);
        total = head;
    }
    let oldest = open(dir.path()).oldest_sequence();
    println!(
        "{KILLS} kills ({early} before the first acknowledgement), {total} records, {unacknowledged} of them found \
         though not acknowledged, pruned below {oldest}"
    );
    assert!(total > 1000 && early < KILLS / 2, "the writer hardly ran");
    assert!(oldest > 1, "no snapshot was completed, so nothing was pruned");
}
