//! Snapshots and pruning: complete or absent, the previous one in reserve, nothing pruned that a replay needs.

#![allow(clippy::unwrap_used)]

mod support;

use journal::{
    Haste, Journal, PRUNE_SEGMENTS_MAX, ReadError, Reader, SNAPSHOT_CHUNK_BYTES_MAX, SnapshotError, open_for_restore,
};
use sha2::{Digest, Sha256};
use support::{change, frames, open, open_small, options, pairs, replayed, rewrite, segments, tamper};

/// A chunk stands under its hash.
fn chunk_key(name: &str, index: u32) -> Vec<u8> {
    let hash = Sha256::digest(format!("{name} {index}"));
    [&b"c"[..], &hash[..16]].concat()
}

fn names_key(id: u64, index: u32) -> Vec<u8> {
    [&b"n"[..], &id.to_be_bytes(), &index.to_be_bytes()].concat()
}

fn trailer_key(id: u64) -> Vec<u8> {
    [&b"u"[..], &id.to_be_bytes()].concat()
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
    tamper(dir, |db| count = db.scan_prefix(b"c").count());
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

/// What it keeps of the rows that went through it would stay in memory for good.
#[test]
fn the_storage_engine_is_open_only_while_a_snapshot_is_written_or_read() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    assert!(latest(&journal).is_none());
    // Nobody else can open it as long as the journal has it open.
    tamper(dir.path(), |_| {});
    journal.write_snapshot(5, state("slice", 3)).unwrap();
    tamper(dir.path(), |_| {});
    let snapshot = journal.latest_snapshot().unwrap().unwrap();
    let others = sled::open(dir.path().join("store"));
    assert!(others.is_err(), "whoever reads a snapshot has it open");
    drop(snapshot);
    tamper(dir.path(), |_| {});
    journal.append(&[b"and on it goes"]).unwrap();
    let writer = journal.begin_snapshot(journal.head().sequence).unwrap();
    let written = writer.write_behind(Haste::Full, state("behind", 3).into_iter());
    let head = journal.head().sequence;
    assert_eq!(written.unwrap().finish().unwrap().at_sequence, head);
    assert_eq!(latest(&journal), Some((head, state("behind", 3), 0)));
}

#[test]
fn a_storage_engine_that_does_not_open_costs_that_snapshot_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    assert!(latest(&journal).is_none());
    tamper(dir.path(), |_| {
        let refused = journal.write_snapshot(4, state("refused", 3));
        assert!(matches!(refused, Err(SnapshotError::Engine(_))), "{refused:?}");
    });
    journal.write_snapshot(5, state("taken", 3)).unwrap();
    assert_eq!(latest(&journal), Some((5, state("taken", 3), 0)));
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

    let writer = journal.begin_snapshot(51).unwrap();
    let other = writer
        .write_behind(Haste::Gentle, state("thread", 200).into_iter())
        .unwrap();
    for _ in 0..50 {
        journal.append(&[b"meanwhile"]).unwrap();
    }
    let written = other.finish().unwrap();
    let bytes = state("thread", 200).iter().map(Vec::len).sum::<usize>() as u64;
    assert_eq!((written.at_sequence, written.bytes), (51, bytes));
    assert_eq!(latest(&journal), Some((51, state("thread", 200), 0)));
    assert_eq!(
        replayed(&journal, 52).unwrap().len() as u64,
        journal.head().sequence - 51
    );
}

#[test]
fn a_snapshot_that_is_given_up_on_another_thread_leaves_none_and_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 1);
    let mut journal = open(dir.path());
    let (begun, has_begun) = std::sync::mpsc::channel();
    let endless = std::iter::repeat_with(move || {
        // Nobody listens any more once it is given up.
        let _ = begun.send(());
        b"more and more".to_vec()
    });
    let endless = journal
        .begin_snapshot(2)
        .unwrap()
        .write_behind(Haste::Gentle, endless)
        .unwrap();
    has_begun.recv().unwrap();
    assert!(!endless.is_finished());
    drop(endless);
    assert!(latest(&journal).is_none());

    let too_large = vec![vec![0; SNAPSHOT_CHUNK_BYTES_MAX + 1]];
    let failed = journal
        .begin_snapshot(2)
        .unwrap()
        .write_behind(Haste::Gentle, too_large.into_iter());
    assert!(matches!(
        failed.unwrap().finish(),
        Err(SnapshotError::ChunkTooLarge { .. })
    ));
    let panics = std::iter::once_with(|| panic!("this is what the test is about"));
    let panicked = journal.begin_snapshot(2).unwrap().write_behind(Haste::Gentle, panics);
    assert!(matches!(panicked.unwrap().finish(), Err(SnapshotError::Engine(_))));
    journal.write_snapshot(2, state("after", 3)).unwrap();
    assert_eq!(latest(&journal), Some((2, state("after", 3), 0)));
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
    for chunk in state("abandoned", 400) {
        abandoned.push(&chunk).unwrap();
    }
    drop(abandoned);
    journal.close().unwrap();
    assert!(chunk_count(dir.path()) > 300, "they are written a few at a time");
    assert!(open(dir.path()).latest_snapshot().unwrap().is_none());
    // What an older layout left.
    tamper(dir.path(), |db| drop(db.insert(b"s an old row", b"old").unwrap()));
    let mut journal = open(dir.path());
    for at_sequence in 1..=6 {
        let own = state(&format!("only {at_sequence}"), 20);
        journal
            .write_snapshot(at_sequence, [state("all", 300), own].concat())
            .unwrap();
        assert_eq!(latest(&journal).unwrap().0, at_sequence);
        if at_sequence == 3 {
            drop(journal.begin_snapshot(4).unwrap());
            journal.close().unwrap();
            assert_eq!(chunk_count(dir.path()), 300 + 2 * 20);
            journal = open(dir.path());
        }
    }
    journal.close().unwrap();
    assert_eq!(chunk_count(dir.path()), 300 + 2 * 20);
    tamper(dir.path(), |db| {
        // The owner's, and of each of the two: a trailer, and two rows of names.
        assert_eq!(db.len(), 300 + 2 * 20 + 1 + 2 * 3);
    });
}

#[test]
fn what_did_not_change_is_not_written_again_and_what_was_damaged_is() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    let write = |journal: &mut Journal, at_sequence, chunks: Vec<Vec<u8>>| {
        let mut writer = journal.begin_snapshot(at_sequence).unwrap();
        chunks.iter().for_each(|chunk| writer.push(chunk).unwrap());
        let written = writer.written_bytes();
        writer.finish().unwrap();
        written
    };
    assert_eq!(write(&mut journal, 2, state("same", 10)), 60);
    let more = [state("same", 10), state("more", 1), state("same", 10)].concat();
    assert_eq!(write(&mut journal, 3, more.clone()), 6);
    assert_eq!(latest(&journal), Some((3, more, 0)));
    journal.close().unwrap();
    tamper(dir.path(), |db| {
        rewrite(db, &chunk_key("same", 4), |value| value[5] ^= 1)
    });
    let mut journal = open(dir.path());
    assert!(latest(&journal).is_none(), "both name it");
    assert_eq!(write(&mut journal, 4, state("same", 10)), 6);
    assert_eq!(latest(&journal), Some((4, state("same", 10), 0)));
}

#[test]
fn a_damaged_snapshot_falls_back_to_the_one_before() {
    type Case = (&'static str, fn(&sled::Db), u64, &'static str);
    let cases: [Case; 8] = [
        (
            "a flipped byte",
            |db| rewrite(db, &chunk_key("second", 1), |value| value[5] ^= 1),
            4,
            "a chunk fails its checksum",
        ),
        (
            "a missing chunk",
            |db| drop(db.remove(chunk_key("second", 2)).unwrap()),
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
                let (from, to) = (chunk_key("first", 0), chunk_key("second", 0));
                let content = db.get(from).unwrap().unwrap()[4..].to_vec();
                let crc = crc32fast::hash(&[to.clone(), content.clone()].concat());
                db.insert(to, [&crc.to_le_bytes()[..], &content].concat()).unwrap();
            },
            4,
            "a chunk is another one",
        ),
        (
            "names that are missing",
            |db| drop(db.remove(names_key(2, 0)).unwrap()),
            4,
            "names of its chunks are missing",
        ),
        (
            "a flipped name",
            |db| rewrite(db, &names_key(2, 0), |value| value[5] ^= 1),
            4,
            "names of its chunks fail their checksum",
        ),
        (
            "names of another snapshot",
            |db| {
                let content = db.get(names_key(1, 0)).unwrap().unwrap()[4..].to_vec();
                let crc = crc32fast::hash(&[names_key(2, 0), content.clone()].concat());
                db.insert(names_key(2, 0), [&crc.to_le_bytes()[..], &content].concat())
                    .unwrap();
            },
            4,
            "the names of its chunks do not add up to its hash",
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
        tamper(dir.path(), |db| drop(db.remove(chunk_key("first", 0)).unwrap()));
        assert!(
            open(dir.path()).latest_snapshot().unwrap().is_none(),
            "{what}, and the first is gone: the state comes from the first record on"
        );
        assert_eq!(replayed(&open(dir.path()), 1).unwrap().len(), 6, "{what}");
    }
}

/// Appends records of a kilobyte until so many segments lie there.
fn fill(journal: &mut Journal, dir: &std::path::Path, count: usize) {
    while segments(dir).len() < count {
        let sequence = journal.head().sequence + 1;
        journal.append(&[&vec![sequence as u8; 1000]]).unwrap();
    }
}

fn firsts(dir: &std::path::Path) -> Vec<u64> {
    let names = segments(dir).into_iter();
    names
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            name.split('-').next().unwrap().parse().unwrap()
        })
        .collect()
}

#[test]
fn pruning_stops_at_the_oldest_retained_snapshot_and_leaves_a_base() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_small(dir.path());
    fill(&mut journal, dir.path(), 8);
    let firsts = firsts(dir.path());
    let head = journal.head();
    let before = journal.chain_hash_at(firsts[4] - 1).unwrap();
    assert_eq!(
        journal.prune(u64::MAX).unwrap().oldest_sequence,
        1,
        "there is no snapshot yet"
    );
    journal.write_snapshot(firsts[4] + 3, state("older", 2)).unwrap();
    journal.write_snapshot(head.sequence, state("newer", 2)).unwrap();
    // Cut at segments, stopped by the snapshot whose replay begins in the fifth.
    for (below_sequence, oldest) in [
        (0, 0),
        (firsts[1] - 1, 0),
        (firsts[1], 1),
        (firsts[3] + 1, 3),
        (u64::MAX, 4),
    ] {
        let pruned = journal.prune(below_sequence).unwrap();
        assert_eq!(
            (pruned.oldest_sequence, pruned.is_more),
            (firsts[oldest], false),
            "below {below_sequence}"
        );
        assert_eq!(journal.oldest_sequence(), firsts[oldest]);
    }
    let oldest = firsts[4];
    let check = |journal: &Journal| {
        assert_eq!(replayed(journal, 1), Err(ReadError::Pruned { requested: 1, oldest }));
        assert_eq!(
            journal.chain_hash_at(oldest - 2),
            Err(ReadError::Pruned {
                requested: oldest - 2,
                oldest
            })
        );
        assert_eq!(journal.chain_hash_at(oldest - 1).unwrap(), before);
        assert_eq!(
            replayed(journal, oldest).unwrap().len() as u64,
            head.sequence + 1 - oldest
        );
        assert_eq!(journal.head(), head);
    };
    check(&journal);
    journal.close().unwrap();
    let journal = open_small(dir.path());
    check(&journal);
    assert_eq!(latest(&journal), Some((head.sequence, state("newer", 2), 0)));
    drop(journal);
    // Without the storage engine the base stands in.
    std::fs::remove_dir_all(dir.path().join("store")).unwrap();
    let mut journal = open_small(dir.path());
    check(&journal);
    assert_eq!(latest(&journal), Some((head.sequence, state("newer", 2), 0)));
    assert!(journal.latest_snapshot().unwrap().unwrap().is_base());
    assert_eq!(journal.append(&[b"next"]).unwrap().start, head.sequence + 1);
}

#[test]
fn pruning_goes_in_slices_and_uses_segments_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_small(dir.path());
    fill(&mut journal, dir.path(), PRUNE_SEGMENTS_MAX + 4);
    let firsts = firsts(dir.path());
    let head = journal.head().sequence;
    journal.write_snapshot(head, []).unwrap();
    let first = journal.prune(u64::MAX).unwrap();
    assert_eq!(
        (first.oldest_sequence, first.is_more),
        (firsts[PRUNE_SEGMENTS_MAX], true)
    );
    let second = journal.prune(u64::MAX).unwrap();
    assert_eq!(
        (second.oldest_sequence, second.is_more),
        (*firsts.last().unwrap(), false)
    );
    assert_eq!(segments(dir.path()).len(), 1);
    assert!(dir.path().join("log/spare").exists());
    // What the used segment held before never counts.
    for _ in 0..3 {
        let count = segments(dir.path()).len();
        fill(&mut journal, dir.path(), count + 1);
        journal.append(&[b"one more"]).unwrap();
        let head = journal.head();
        journal.close().unwrap();
        journal = open_small(dir.path());
        assert_eq!(journal.head(), head);
        assert!(journal.damage_at_open().is_empty());
        assert!(replayed(&journal, journal.oldest_sequence()).is_ok());
    }
}

#[test]
fn a_lost_beginning_of_a_pruned_journal_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_small(dir.path());
    fill(&mut journal, dir.path(), 6);
    let firsts = firsts(dir.path());
    journal.write_snapshot(firsts[4], []).unwrap();
    journal.prune(firsts[2]).unwrap();
    journal.close().unwrap();
    std::fs::remove_file(&segments(dir.path())[0]).unwrap();
    let gap = ReadError::Gap {
        missing: firsts[2],
        found: firsts[3],
    };
    let journal = open_small(dir.path());
    assert_eq!(journal.damage_at_open(), std::slice::from_ref(&gap));
    assert_eq!(replayed(&journal, firsts[2]), Err(gap.clone()));
    assert!(replayed(&journal, firsts[3]).is_ok(), "what lies after is intact");
    drop(journal);
    assert!(journal::verify(dir.path(), &options()).unwrap().contains(&gap));
}

#[test]
fn a_pruning_that_was_cut_short_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open_small(dir.path());
    fill(&mut journal, dir.path(), 5);
    let kept = tempfile::tempdir().unwrap();
    let first = segments(dir.path()).remove(0);
    let name = first.file_name().unwrap().to_owned();
    std::fs::copy(&first, kept.path().join(&name)).unwrap();
    let head = journal.head().sequence;
    journal.write_snapshot(head, state("state", 1)).unwrap();
    let oldest = journal.prune(u64::MAX).unwrap().oldest_sequence;
    journal.close().unwrap();
    std::fs::copy(kept.path().join(&name), &first).unwrap();
    let journal = open_small(dir.path());
    assert_eq!(journal.oldest_sequence(), oldest);
    assert!(!first.exists());
    assert!(replayed(&journal, oldest).is_ok());
}

#[test]
fn a_snapshot_of_lost_records_is_not_offered() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let mut journal = open(dir.path());
    journal.write_snapshot(4, state("sound", 1)).unwrap();
    journal.write_snapshot(6, state("ahead", 1)).unwrap();
    journal.close().unwrap();
    let path = segments(dir.path()).remove(0);
    change(&path, |bytes| {
        let last = frames(bytes).pop().unwrap();
        bytes[last.bytes.end - 1] ^= 1;
    });
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!(latest(&restore), Some((4, state("sound", 1), 1)));
    let salvaged = tempfile::tempdir().unwrap();
    restore.salvage(salvaged.path(), &options()).unwrap();
    let mut journal = open(salvaged.path());
    assert_eq!(latest(&journal), Some((4, state("sound", 1), 0)));
    journal.append(&[b"five", b"six"]).unwrap();
    journal.write_snapshot(6, state("true", 1)).unwrap();
    assert_eq!(latest(&journal), Some((6, state("true", 1), 0)));
}
