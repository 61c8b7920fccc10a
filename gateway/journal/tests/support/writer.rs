//! A writer process to be stopped at any moment, and the judge of what it left behind.

#![allow(clippy::unwrap_used, dead_code, unreachable_pub)]

use std::io::{BufRead, BufReader, Lines, Write};
use std::ops::Range;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use journal::{Journal, SnapshotWriter};

use super::{Random, open_small, replayed};

const SNAPSHOT_CHUNKS: u32 = 12;

/// What record `sequence` of a batch must hold, so that any record can be judged by itself.
fn record(sequence: u64, batch: &Range<u64>) -> Vec<u8> {
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

/// The writer: appends batches, prints the last acknowledged sequence after each, writes snapshots in slices between
/// them and prunes. Never returns.
pub fn append_until_stopped() -> ! {
    let dir = std::env::var_os("JOURNAL_TEST_DIR").unwrap();
    let mut random = Random::from_env();
    let mut journal = open_small(dir.as_ref());
    let mut out = std::io::stdout();
    out.write_all(b"\nopen\n").unwrap();
    let mut snapshot = None;
    loop {
        // Now and then a batch larger than a segment.
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
        // One write of one short line: the reader sees all of it or nothing.
        out.write_all(format!("{}\n", appended.end - 1).as_bytes()).unwrap();
        snapshot = write_slice(&mut journal, snapshot);
    }
}

fn write_slice(journal: &mut Journal, started: Option<(SnapshotWriter, u32)>) -> Option<(SnapshotWriter, u32)> {
    let head = journal.head().sequence;
    let (mut writer, next) = started.unwrap_or_else(|| (journal.begin_snapshot(head).unwrap(), 0));
    if next == SNAPSHOT_CHUNKS {
        writer.finish().unwrap();
        journal.prune(head.saturating_sub(500)).unwrap();
        return None;
    }
    writer.push(&snapshot_chunk(writer.at_sequence(), next)).unwrap();
    Some((writer, next + 1))
}

/// A running writer and the acknowledgements it prints.
pub struct Writer {
    pub process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    acknowledged: Option<u64>,
}

impl Writer {
    /// Starts this test binary's `test`, which must call `append_until_stopped`.
    pub fn start(test: &str, dir: &Path, random: &mut Random) -> Writer {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", test])
            .env("JOURNAL_TEST_DIR", dir)
            .env("JOURNAL_TEST_SEED", random.below(u64::MAX).to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Writer {
            process,
            lines,
            acknowledged: None,
        }
    }

    /// Waits for `lines` lines of output, then a random little while longer.
    pub fn work(&mut self, lines: u64, random: &mut Random) {
        for line in self.lines.by_ref().take(lines as usize) {
            self.acknowledged = line.unwrap().parse().ok().or(self.acknowledged);
        }
        for _ in 0..random.below(3_000_000) {
            std::hint::spin_loop();
        }
    }

    /// Kills the writer; the last sequence it had acknowledged.
    pub fn kill(mut self) -> Option<u64> {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        for line in self.lines {
            self.acknowledged = line.unwrap().parse().ok().or(self.acknowledged);
        }
        self.acknowledged
    }
}

/// Judges every record and snapshot the writer left; returns the head's sequence.
pub fn check(journal: &Journal) -> u64 {
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
        let at_sequence = snapshot.at_sequence();
        assert_eq!(
            chunks,
            (0..SNAPSHOT_CHUNKS)
                .map(|index| snapshot_chunk(at_sequence, index))
                .collect::<Vec<_>>()
        );
        assert!(journal.oldest_sequence() <= at_sequence + 1);
    }
    head
}
