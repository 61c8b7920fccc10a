//! Snapshots and pruning: complete or absent, the previous one in reserve, nothing pruned that a replay needs.

#![allow(clippy::unwrap_used)]

mod support;

use journal::{
    Journal, OpenError, PRUNE_GROUPS_MAX, ReadError, Reader, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotError, open_for_restore,
};
use support::{group_key, open, options, pairs, replayed, rewrite, tamper};

fn chunk_key(id: u64, index: u32) -> Vec<u8> {
    [&b"s"[..], &id.to_be_bytes(), &index.to_be_bytes()].concat()
}

fn trailer_key(id: u64) -> Vec<u8> {
    [&b"t"[..], &id.to_be_bytes()].concat()
}

fn state(name: &str, chunks: u32) -> Vec<Vec<u8>> {
    (0..chunks)
        .map(|index| format!("{name} {index}").into_bytes())
        .collect()
}

/// Where the newest intact snapshot stands, its chunks, and how many were passed over.
fn latest(reader: &Reader) -> Option<(u64, Vec<Vec<u8>>, usize)> {
    let snapshot = reader.latest_snapshot().unwrap()?;
    assert_eq!(snapshot.head().sequence, snapshot.at_sequence());
    let chunks = snapshot.chunks().collect::<Result<_, _>>().unwrap();
    Some((snapshot.at_sequence(), chunks, snapshot.damaged().len()))
}

fn chunk_count(dir: &std::path::Path) -> usize {
    let mut count = 0;
    tamper(dir, |db| count = db.scan_prefix(b"s").count());
    count
}

#[test]
fn a_snapshot_comes_back_chunk_by_chunk() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let chunks = vec![vec![], vec![7; SNAPSHOT_CHUNK_BYTES_MAX], b"end".to_vec()];
    let mut journal = open(dir.path());
    assert!(journal.latest_snapshot().unwrap().is_none());
    journal.write_snapshot(5, chunks.clone()).unwrap();
    assert_eq!(latest(&journal), Some((5, chunks.clone(), 0)));
    assert_eq!(
        journal.latest_snapshot().unwrap().unwrap().head().hash,
        journal.chain_hash_at(5).unwrap()
    );
    journal.close().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(latest(&journal), Some((5, chunks, 0)));
    journal.write_snapshot(6, []).unwrap();
    assert_eq!(latest(&journal), Some((6, vec![], 0)));
}

#[test]
fn a_snapshot_is_written_in_slices_between_appends_and_on_another_thread() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.append(&[b"before"]).unwrap();
    let mut writer = journal.begin_snapshot(1).unwrap();
    for chunk in state("slice", 50) {
        writer.push(&chunk).unwrap();
        journal.append(&[b"meanwhile"]).unwrap();
        assert!(latest(&journal).is_none(), "an unfinished snapshot was offered");
    }
    writer.finish().unwrap();
    assert_eq!(latest(&journal), Some((1, state("slice", 50), 0)));

    let mut writer = journal.begin_snapshot(51).unwrap();
    let other = std::thread::spawn(move || {
        for chunk in state("thread", 200) {
            writer.push(&chunk).unwrap();
        }
        writer.finish().unwrap();
    });
    for _ in 0..50 {
        journal.append(&[b"meanwhile"]).unwrap();
    }
    other.join().unwrap();
    assert_eq!(latest(&journal), Some((51, state("thread", 200), 0)));
    assert_eq!(
        replayed(&journal, 52).unwrap().len() as u64,
        journal.head().sequence - 51
    );
}

#[test]
fn only_one_writer_at_a_time_and_limits_leave_it_usable() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 1);
    let mut journal = open(dir.path());
    let beyond = ReadError::BeyondHead { requested: 3, head: 2 };
    assert!(matches!(journal.begin_snapshot(3), Err(SnapshotError::Read(error)) if error == beyond));
    let mut writer = journal.begin_snapshot(2).unwrap();
    assert!(matches!(journal.begin_snapshot(2), Err(SnapshotError::InProgress)));
    let too_large = vec![0; SNAPSHOT_CHUNK_BYTES_MAX + 1];
    assert!(matches!(
        writer.push(&too_large),
        Err(SnapshotError::ChunkTooLarge {
            bytes: 4093,
            bytes_max: 4092
        })
    ));
    writer.push(b"fits").unwrap();
    writer.finish().unwrap();
    drop(journal.begin_snapshot(2).unwrap());
    drop(journal.begin_snapshot(2).unwrap());
    assert_eq!(latest(&journal), Some((2, vec![b"fits".to_vec()], 0)));
    assert!(matches!(
        journal.begin_snapshot(1),
        Err(SnapshotError::Older {
            at_sequence: 1,
            newest: 2
        })
    ));
}

#[test]
fn abandoned_and_outdated_chunks_are_removed_by_later_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    let mut abandoned = journal.begin_snapshot(1).unwrap();
    for chunk in state("abandoned", 40) {
        abandoned.push(&chunk).unwrap();
    }
    drop(abandoned);
    journal.close().unwrap();
    assert_eq!(chunk_count(dir.path()), 40);
    assert!(open(dir.path()).latest_snapshot().unwrap().is_none());
    for at_sequence in 1..=6 {
        let mut journal = open(dir.path());
        journal.write_snapshot(at_sequence, state("kept", 20)).unwrap();
        journal.close().unwrap();
        assert_eq!(latest(&open(dir.path())).unwrap().0, at_sequence);
        // Two kept, and one more whose chunks the next writer removes.
        assert!(chunk_count(dir.path()) <= 3 * 20, "after the snapshot at {at_sequence}");
    }
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before() {
    type Case = (&'static str, fn(&sled::Db), u64, &'static str);
    let cases: [Case; 5] = [
        (
            "a flipped byte",
            |db| rewrite(db, &chunk_key(2, 1), |value| value[5] ^= 1),
            4,
            "a chunk fails its checksum",
        ),
        (
            "a missing chunk",
            |db| drop(db.remove(chunk_key(2, 2)).unwrap()),
            4,
            "a chunk is missing",
        ),
        (
            "a damaged trailer",
            |db| rewrite(db, &trailer_key(2), |value| value[5] ^= 1),
            0,
            "its trailer",
        ),
        (
            "an older chunk in its place",
            |db| {
                let content = db.get(chunk_key(1, 0)).unwrap().unwrap()[4..].to_vec();
                let crc = crc32fast::hash(&[chunk_key(2, 0), content.clone()].concat());
                db.insert(chunk_key(2, 0), [&crc.to_le_bytes()[..], &content].concat())
                    .unwrap();
            },
            4,
            "its chunks do not add up to its hash",
        ),
        (
            "a snapshot of another history",
            |db| {
                rewrite(db, &trailer_key(2), |value| {
                    value[12] ^= 1;
                    let crc = crc32fast::hash(&[&trailer_key(2), &value[4..]].concat());
                    value[..4].copy_from_slice(&crc.to_le_bytes());
                });
            },
            4,
            "it belongs to another history",
        ),
    ];
    for (what, change, at_sequence, complaint) in cases {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), 3);
        let mut journal = open(dir.path());
        journal.write_snapshot(2, state("first", 3)).unwrap();
        journal.write_snapshot(4, state("second", 3)).unwrap();
        journal.close().unwrap();
        tamper(dir.path(), change);
        let damage = ReadError::SnapshotDamaged {
            at_sequence,
            what: complaint,
        };
        let journal = open(dir.path());
        assert_eq!(latest(&journal), Some((2, state("first", 3), 1)), "{what}");
        assert_eq!(
            journal.latest_snapshot().unwrap().unwrap().damaged(),
            std::slice::from_ref(&damage),
            "{what}"
        );
        drop(journal);
        tamper(dir.path(), |db| drop(db.remove(chunk_key(1, 0)).unwrap()));
        assert_eq!(
            open(dir.path()).latest_snapshot().err(),
            Some(damage),
            "{what}, and the first is gone"
        );
        assert_eq!(replayed(&open(dir.path()), 1).unwrap().len(), 6, "{what}");
    }
}

#[test]
fn pruning_stops_at_the_oldest_retained_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 10);
    let mut journal = open(dir.path());
    let hashes: Vec<_> = (0..=20)
        .map(|sequence| journal.chain_hash_at(sequence).unwrap())
        .collect();
    assert_eq!(
        journal.prune(u64::MAX).unwrap().oldest_sequence,
        1,
        "there is no snapshot yet"
    );
    journal.write_snapshot(7, state("seven", 2)).unwrap();
    journal.write_snapshot(12, state("twelve", 2)).unwrap();
    // Asked for below, cut at group boundaries, stopped by the snapshot at 7, whose replay begins inside group 7-8.
    for (below_sequence, oldest_sequence) in [(0, 1), (2, 1), (3, 3), (6, 5), (u64::MAX, 7)] {
        let pruned = journal.prune(below_sequence).unwrap();
        assert_eq!(
            (pruned.oldest_sequence, pruned.is_more),
            (oldest_sequence, false),
            "below {below_sequence}"
        );
        assert_eq!(journal.oldest_sequence(), oldest_sequence);
    }
    let check = |journal: &Journal| {
        assert_eq!(
            replayed(journal, 1),
            Err(ReadError::Pruned {
                requested: 1,
                oldest: 7
            })
        );
        assert_eq!(replayed(journal, 8).unwrap().len(), 13);
        assert_eq!(
            journal.chain_hash_at(5),
            Err(ReadError::Pruned {
                requested: 5,
                oldest: 7
            })
        );
        for sequence in 6..=20 {
            assert_eq!(journal.chain_hash_at(sequence).unwrap(), hashes[sequence as usize]);
        }
        assert_eq!(latest(journal), Some((12, state("twelve", 2), 0)));
    };
    check(&journal);
    journal.close().unwrap();
    let mut journal = open(dir.path());
    check(&journal);
    journal.write_snapshot(20, []).unwrap();
    journal.write_snapshot(20, []).unwrap();
    // The last group always stays: the head is read from it.
    assert_eq!(journal.prune(u64::MAX).unwrap().oldest_sequence, 19);
    let head = journal.head();
    journal.close().unwrap();
    let mut journal = open(dir.path());
    assert_eq!((journal.head(), journal.oldest_sequence()), (head, 19));
    assert_eq!(journal.append(&[b"next"]).unwrap(), 21..22);
}

#[test]
fn pruning_goes_in_slices() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let record = vec![1; 3000];
    let groups = PRUNE_GROUPS_MAX + 10;
    journal.append(&vec![&record[..]; groups]).unwrap();
    journal.write_snapshot(groups as u64, []).unwrap();
    let first = journal.prune(u64::MAX).unwrap();
    assert_eq!(
        (first.oldest_sequence, first.is_more),
        (PRUNE_GROUPS_MAX as u64 + 1, true)
    );
    let second = journal.prune(u64::MAX).unwrap();
    assert_eq!((second.oldest_sequence, second.is_more), (groups as u64, false));
}

#[test]
fn a_lost_beginning_of_a_pruned_journal_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 5);
    let mut journal = open(dir.path());
    journal.write_snapshot(4, []).unwrap();
    journal.prune(5).unwrap();
    journal.close().unwrap();
    tamper(dir.path(), |db| drop(db.remove(group_key(5)).unwrap()));
    let error = Journal::open(dir.path(), &options()).err().unwrap();
    assert!(
        matches!(error, OpenError::Damaged(ReadError::Gap { missing: 5, found: 7 })),
        "{error}"
    );
    assert!(matches!(
        open_for_restore(dir.path(), &options()),
        Err(OpenError::Damaged(ReadError::Gap { missing: 5, found: 7 }))
    ));
}

#[test]
fn a_snapshot_of_lost_records_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    journal.write_snapshot(4, state("sound", 1)).unwrap();
    journal.write_snapshot(6, state("ahead", 1)).unwrap();
    journal.close().unwrap();
    tamper(dir.path(), |db| drop(db.remove(group_key(5)).unwrap()));
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!(latest(&restore), Some((4, state("sound", 1), 1)));
    let mut journal = restore.accept().unwrap();
    assert_eq!(latest(&journal), Some((4, state("sound", 1), 0)));
    journal.append(&[b"five", b"six"]).unwrap();
    journal.write_snapshot(6, state("true", 1)).unwrap();
    assert_eq!(latest(&journal), Some((6, state("true", 1), 0)));
}
