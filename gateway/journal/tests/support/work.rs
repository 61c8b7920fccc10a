//! A seeded workload over a journal on a simulated disk, and the judge of what is left of it.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use journal::{AppendError, Journal, OpenError, Options, ReadError, Reader};

use super::Random;
use super::sim::SimDisk;

pub const DIR: &str = "/journal";
/// So short that a workload goes through several.
pub const SEGMENT_BYTES: u64 = 48 << 10;

/// What was promised so far.
#[derive(Debug, Default, Clone)]
pub struct Promised {
    /// Acknowledged records, from 1.
    pub records: Vec<Vec<u8>>,
    /// A batch whose outcome is unknown, behind them.
    pub in_doubt: Vec<Vec<u8>>,
    /// The cell's acknowledged content, and one whose outcome is unknown.
    pub cell: Option<Vec<u8>>,
    pub cell_in_doubt: Option<Vec<u8>>,
    /// Records before this one may be pruned.
    pub pruned_below: u64,
}

pub fn options(disk: &SimDisk) -> Options {
    let mut options = Options::new("test", 1).create();
    options.segment_bytes = SEGMENT_BYTES;
    options.disk = Arc::new(disk.clone());
    options
}

pub fn open(disk: &SimDisk) -> Result<Journal, OpenError> {
    Journal::open(Path::new(DIR), &options(disk))
}

/// The state that a snapshot at `sequence` holds.
fn chunks(sequence: u64) -> Vec<Vec<u8>> {
    (0..3).map(|n| vec![n; (sequence % 900) as usize + 1]).collect()
}

/// Works until done or until something fails; says what was promised.
pub fn work(disk: &SimDisk, seed: u64, steps: u32) -> Promised {
    let mut random = Random::new(seed);
    let mut promised = Promised::default();
    let Ok(mut journal) = open(disk) else {
        return promised;
    };
    for _ in 0..steps {
        let act = random.below(20);
        // Closing and pruning commit a staged cell: then it is promised, too.
        if matches!(act, 0 | 2) && promised.cell_in_doubt.is_some() && !append(&mut journal, &mut promised, Vec::new())
        {
            return promised;
        }
        match act {
            0 => {
                // Killed, and started again.
                drop(journal);
                match open(disk) {
                    Ok(opened) => journal = opened,
                    Err(_) => return promised,
                }
            }
            1 => {
                let at = journal.head().sequence;
                // Snapshots are derived: their failure stops nothing.
                drop(journal.write_snapshot(at, chunks(at)));
            }
            2 => {
                let below = journal.head().sequence;
                promised.pruned_below = promised.pruned_below.max(below);
                if journal.prune(below).is_err() {
                    return promised;
                }
            }
            3 => {
                let content = random.below(u64::MAX).to_le_bytes().to_vec();
                journal.set_meta("cell", &content).unwrap();
                promised.cell_in_doubt = Some(content);
                if random.below(2) == 0 && !append(&mut journal, &mut promised, Vec::new()) {
                    return promised;
                }
            }
            n => {
                let count = if n == 4 { 40 } else { 1 + random.below(4) };
                let first = promised.records.len() as u64 + 1;
                let batch = (first..first + count).map(|sequence| record(&mut random, sequence));
                let batch = batch.collect();
                if !append(&mut journal, &mut promised, batch) {
                    return promised;
                }
            }
        }
    }
    promised
}

fn record(random: &mut Random, sequence: u64) -> Vec<u8> {
    let filler = if random.below(16) == 0 { 3000 } else { random.below(300) };
    let mut bytes = sequence.to_le_bytes().to_vec();
    bytes.extend_from_slice(&sequence.to_le_bytes().repeat(filler as usize / 8));
    bytes
}

/// Whether it went well. Once it did not, it never does again.
fn append(journal: &mut Journal, promised: &mut Promised, batch: Vec<Vec<u8>>) -> bool {
    let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
    let first = promised.records.len() as u64 + 1;
    match journal.append(&slices) {
        Ok(sequences) => {
            assert_eq!(sequences, first..first + batch.len() as u64);
            promised.records.extend(batch);
            if let Some(cell) = promised.cell_in_doubt.take() {
                promised.cell = Some(cell);
            }
            true
        }
        Err(_) => {
            promised.in_doubt = batch;
            assert!(matches!(journal.append(&[b"never"]), Err(AppendError::Poisoned { .. })));
            false
        }
    }
}

/// All records that are served, and all damage that is named.
pub fn served(reader: &Reader) -> (Vec<(u64, Vec<u8>)>, Vec<ReadError>) {
    let (mut records, mut damage) = (Vec::new(), Vec::new());
    let mut from = reader.oldest_sequence();
    while let Err(error) = reader.replay(from, &mut |sequence, bytes| {
        records.push((sequence, bytes.to_vec()));
        ControlFlow::Continue(())
    }) {
        let lost = error
            .lost()
            .unwrap_or_else(|| panic!("not to be read on behind: {error}"));
        assert!(lost.last >= from, "{error}");
        from = lost.last + 1;
        damage.push(error);
    }
    (records, damage)
}

/// Judges a journal on a sound disk: everything promised is there, nothing else but a whole batch in doubt, and it goes on.
pub fn judge(disk: &SimDisk, promised: &Promised, what: &str) {
    let mut journal = open(disk).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        journal.damage_at_open().is_empty(),
        "{what}: {:?}",
        journal.damage_at_open()
    );
    let head = journal.head().sequence as usize;
    let acknowledged = promised.records.len();
    let both = [&promised.records[..], &promised.in_doubt[..]].concat();
    assert!(
        head == acknowledged || head == both.len(),
        "{what}: {acknowledged} acknowledged, {} in doubt, {head} found",
        promised.in_doubt.len()
    );
    let oldest = journal.oldest_sequence();
    assert!(oldest <= promised.pruned_below.max(1), "{what}: {oldest} is the oldest");
    let (records, damage) = served(&journal);
    assert!(damage.is_empty(), "{what}: {damage:?}");
    assert_eq!(records.len(), head + 1 - oldest as usize, "{what}");
    for (sequence, bytes) in records {
        assert!(
            bytes == both[sequence as usize - 1],
            "{what}: record {sequence} is another one"
        );
    }
    let snapshot = journal
        .latest_snapshot()
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    match &snapshot {
        Some(snapshot) => {
            let at = snapshot.at_sequence();
            assert!(at + 1 >= oldest && at <= head as u64, "{what}: the snapshot is at {at}");
            let found: Vec<Vec<u8>> = snapshot.chunks().map(Result::unwrap).collect();
            assert_eq!(found, chunks(at), "{what}");
        }
        None => assert_eq!(oldest, 1, "{what}: there is no state to begin with"),
    }
    drop(snapshot);
    let cell = journal.meta("cell").unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        cell == promised.cell || (promised.cell_in_doubt.is_some() && cell == promised.cell_in_doubt),
        "{what}: the cell is {cell:?}"
    );
    let next = journal
        .append(&[b"on we go"])
        .unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(next.start, head as u64 + 1, "{what}");
    // What was found is as durable as what was acknowledged.
    disk.turn_off();
    drop(journal);
    disk.cut_power();
    let journal = open(disk).unwrap_or_else(|error| panic!("{what}, then a power cut: {error}"));
    assert_eq!(journal.head().sequence, head as u64 + 1, "{what}");
}
