//! Every kind of damage is named, by its place and its records; what is whole is still served; sled's part may go.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

use journal::{Journal, Lost, OpenError, ReadError, open_for_restore, verify};
use support::{change, copy_tree, frames, open, open_small, options, pair_record, pairs, replayed, segments};

const GROUPS: u64 = 100;
const RECORDS: u64 = 2 * GROUPS;

/// The frame that begins with record `first` in a journal of one segment.
fn frame_of(dir: &Path, first: u64) -> support::Frame {
    let bytes = fs::read(&segments(dir)[0]).unwrap();
    frames(&bytes).into_iter().find(|frame| frame.first == first).unwrap()
}

#[test]
fn a_flip_anywhere_in_a_frame_costs_its_records_and_no_others() {
    let whole = tempfile::tempdir().unwrap();
    pairs(whole.path(), GROUPS);
    let frame = frame_of(whole.path(), 11);
    for at in frame.bytes.clone() {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(whole.path(), dir.path());
        change(&segments(dir.path())[0], |bytes| bytes[at] ^= 0x40);
        let journal = open(dir.path());
        let damage = match replayed(&journal, 1) {
            Err(damage) => damage,
            Ok(_) => panic!("byte {at}: not noticed"),
        };
        let ReadError::Damaged {
            first, last, at: from, ..
        } = damage.clone()
        else {
            panic!("byte {at}: {damage}");
        };
        assert_eq!((first, last, from), (11, 12, frame.bytes.start as u64), "byte {at}");
        assert_eq!(journal.damage_at_open(), [damage], "byte {at}");
        assert_eq!(journal.read(1, 10).unwrap().len(), 10, "what lies before is intact");
        assert_eq!(
            replayed(&journal, 13).unwrap().len() as u64,
            RECORDS - 12,
            "and what lies after"
        );
    }
}

#[test]
fn a_journal_goes_on_behind_damage_and_names_it_ever_after() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), GROUPS);
    let frame = frame_of(dir.path(), 11);
    change(&segments(dir.path())[0], |bytes| bytes[frame.bytes.start] ^= 1);
    let mut journal = open(dir.path());
    assert_eq!(journal.append(&[b"on we go"]).unwrap().start, RECORDS + 1);
    journal.close().unwrap();
    let journal = open(dir.path());
    assert_eq!(journal.damage_at_open().len(), 1);
    assert_eq!(replayed(&journal, 13).unwrap().len() as u64, RECORDS + 1 - 12);
    drop(journal);
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!(restore.lost(), [Lost { first: 11, last: 12 }]);
    assert_eq!(
        restore.whole(),
        [
            Lost { first: 1, last: 10 },
            Lost {
                first: 13,
                last: RECORDS + 1
            }
        ]
    );
    assert_eq!(restore.damage().len(), 1, "{:?}", restore.damage());
}

#[test]
fn what_is_whole_is_salvaged_into_a_new_journal() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), GROUPS);
    let mut journal = open(dir.path());
    journal.set_meta("cursor", b"seven").unwrap();
    journal.append(&[b"the last"]).unwrap();
    let head = journal.head();
    journal.close().unwrap();
    let frame = frame_of(dir.path(), 11);
    change(&segments(dir.path())[0], |bytes| bytes[frame.bytes.start + 70] ^= 1);
    let lost = vec![Lost { first: 11, last: 12 }];

    // Nothing leads to the later records: the first ones are what one can go on from.
    let salvaged = tempfile::tempdir().unwrap();
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    let report = restore.salvage(salvaged.path(), &options()).unwrap();
    assert_eq!(report.records, Lost { first: 1, last: 10 });
    assert_eq!((report.base, &report.lost), (0, &lost));
    let (first, last) = (13, head.sequence);
    assert_eq!(report.left_behind, [Lost { first, last }]);
    let journal = open(salvaged.path());
    assert_eq!(replayed(&journal, 1).unwrap(), restore_records(&restore, 1, 10));
    assert_eq!(journal.meta("cursor").unwrap(), Some(b"seven".to_vec()));
    drop((journal, restore));

    // A snapshot leads to them.
    let mut journal = open(dir.path());
    journal.write_snapshot(20, [b"state".to_vec()]).unwrap();
    journal.close().unwrap();
    let salvaged = tempfile::tempdir().unwrap();
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    let report = restore.salvage(salvaged.path(), &options()).unwrap();
    assert_eq!(report.records, Lost { first, last });
    assert_eq!((report.base, &report.lost), (20, &lost));
    let journal = open(salvaged.path());
    assert_eq!((journal.head(), journal.oldest_sequence()), (head, 13));
    assert_eq!(journal.latest_snapshot().unwrap().unwrap().at_sequence(), 20);
    assert_eq!(replayed(&journal, 13).unwrap(), restore_records(&restore, 13, last));
    drop(journal);
    assert_eq!(verify(salvaged.path(), &options()).unwrap(), []);
    assert!(
        restore.salvage(salvaged.path(), &options()).is_err(),
        "nothing is overwritten"
    );
}

fn restore_records(restore: &journal::Restore, first: u64, last: u64) -> Vec<(u64, Vec<u8>)> {
    let records = restore.read(first, (last + 1 - first) as usize).unwrap();
    records
        .into_iter()
        .map(|record| (record.sequence, record.bytes))
        .collect()
}

#[test]
fn a_lost_end_is_noticed_by_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), GROUPS);
    let whole = open(dir.path()).head();
    let frame = frame_of(dir.path(), RECORDS - 1);
    let ways: [fn(&mut [u8]); 2] = [|bytes| bytes.fill(0), |bytes| bytes[80] ^= 1];
    for way in ways {
        let copy = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), copy.path());
        change(&segments(copy.path())[0], |bytes| way(&mut bytes[frame.bytes.clone()]));
        let Err(OpenError::Behind { witness, found }) = Journal::open(copy.path(), &options()) else {
            panic!("the loss went unnoticed");
        };
        assert_eq!((witness, found.sequence), (whole, RECORDS - 2));
        let restore = open_for_restore(copy.path(), &options()).unwrap();
        let lost = Lost {
            first: RECORDS - 1,
            last: RECORDS,
        };
        assert_eq!((restore.head(), restore.lost()), (found, &[lost][..]));
        let salvaged = tempfile::tempdir().unwrap();
        let report = restore.salvage(salvaged.path(), &options()).unwrap();
        assert_eq!((report.records.last, report.left_behind.len()), (RECORDS - 2, 0));
        assert_eq!(open(salvaged.path()).append(&[b"anew"]).unwrap().start, RECORDS - 1);
    }
}

#[test]
fn a_lost_cell_at_the_end_is_noticed_too() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 2);
    let mut journal = open(dir.path());
    journal.set_meta("cursor", b"new").unwrap();
    journal.close().unwrap();
    change(&segments(dir.path())[0], |bytes| {
        let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[last] ^= 1;
    });
    assert!(matches!(
        Journal::open(dir.path(), &options()),
        Err(OpenError::Behind { .. })
    ));
}

#[test]
fn an_emptied_log_is_noticed_by_the_witness() {
    type Emptying = fn(&Path);
    let ways: [(&str, Emptying); 2] = [
        ("the directory is gone", |dir| {
            fs::remove_dir_all(dir.join("log")).unwrap()
        }),
        ("its files are gone", |dir| {
            segments(dir).iter().for_each(|path| fs::remove_file(path).unwrap());
        }),
    ];
    for (what, empty) in ways {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), 3);
        let old_head = open(dir.path()).head();
        empty(dir.path());
        for attempt in 0..2 {
            let Err(OpenError::Behind { witness, found }) = Journal::open(dir.path(), &options()) else {
                panic!("{what}: the loss went unnoticed at attempt {attempt}");
            };
            assert_eq!((witness, found.sequence), (old_head, 0), "{what}");
        }
    }
}

#[test]
fn a_lost_segment_is_named_wherever_it_was() {
    let whole = tempfile::tempdir().unwrap();
    let mut journal = open_small(whole.path());
    while segments(whole.path()).len() < 6 {
        journal.append(&[&[7; 900], &[8; 900]]).unwrap();
    }
    let head = journal.head();
    journal.close().unwrap();
    let count = segments(whole.path()).len();
    for index in 0..count {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(whole.path(), dir.path());
        fs::remove_file(&segments(dir.path())[index]).unwrap();
        match Journal::open(dir.path(), &options()) {
            Ok(journal) => {
                assert!(index + 1 < count, "the newest one is not missed");
                let damage = replayed(&journal, 1).unwrap_err();
                let lost = damage.lost().unwrap();
                assert_eq!(
                    replayed(&journal, lost.last + 1).unwrap().last().unwrap().0,
                    head.sequence
                );
                drop(journal);
                let restore = open_for_restore(dir.path(), &options()).unwrap();
                assert_eq!(restore.lost(), [lost]);
            }
            Err(error) => {
                assert_eq!(index + 1, count, "{error}");
                assert!(matches!(error, OpenError::Behind { .. }), "{error}");
            }
        }
    }
}

#[test]
fn headers_stand_in_for_one_another() {
    let whole = tempfile::tempdir().unwrap();
    let mut journal = open_small(whole.path());
    journal.set_meta("cursor", b"early").unwrap();
    while segments(whole.path()).len() < 3 {
        journal.append(&[&[7; 900], &[8; 900]]).unwrap();
    }
    let head = journal.head();
    journal.close().unwrap();
    for (copies, is_served) in [(vec![0], true), (vec![20 << 10], true), (vec![0, 20 << 10], true)] {
        let dir = tempfile::tempdir().unwrap();
        copy_tree(whole.path(), dir.path());
        for copy in &copies {
            change(segments(dir.path()).last().unwrap(), |bytes| bytes[copy + 20] ^= 1);
        }
        let named = verify(dir.path(), &options()).unwrap();
        assert_eq!(named.len(), copies.len(), "{named:?}");
        assert!(
            named
                .iter()
                .all(|damage| matches!(damage, ReadError::HeaderDamaged { .. }))
        );
        let journal = open(dir.path());
        assert_eq!(
            (journal.head() == head, replayed(&journal, 1).is_ok()),
            (is_served, is_served)
        );
        assert_eq!(journal.meta("cursor").unwrap(), Some(b"early".to_vec()));
    }
    // With none left nobody knows whose it is.
    for segment in segments(whole.path()) {
        change(&segment, |bytes| {
            bytes[20] ^= 1;
            bytes[(20 << 10) + 20] ^= 1;
        });
    }
    assert!(matches!(
        Journal::open(whole.path(), &options()),
        Err(OpenError::Damaged(ReadError::HeaderDamaged { .. }))
    ));
}

#[test]
fn another_log_in_its_place_is_a_fork() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pairs(dir.path(), 3);
    pairs(other.path(), 5);
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::rename(other.path().join("log"), dir.path().join("log")).unwrap();
    assert!(matches!(
        Journal::open(dir.path(), &options()),
        Err(OpenError::Forked { sequence: 6 })
    ));
}

#[test]
fn an_older_copy_that_went_its_own_way_is_a_fork() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pairs(dir.path(), 2);
    copy_tree(dir.path(), copy.path());
    let mut journal = open(dir.path());
    journal.append(&[b"seen"]).unwrap();
    journal.close().unwrap();
    let mut journal = open(copy.path());
    journal.append(&[b"other"]).unwrap();
    journal.append(&[b"and more"]).unwrap();
    journal.close().unwrap();
    fs::copy(dir.path().join("witness"), copy.path().join("witness")).unwrap();
    assert!(matches!(
        Journal::open(copy.path(), &options()),
        Err(OpenError::Forked { sequence: 5 })
    ));
}

#[test]
fn a_missing_or_damaged_witness_is_not_shrugged_off() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let witness = dir.path().join("witness");
    let intact = fs::read(&witness).unwrap();

    let file = fs::File::options().write(true).open(&witness).unwrap();
    file.write_all_at(&[0xFF; 4], 20).unwrap();
    drop(open(dir.path()));
    file.write_all_at(&[0xFF; 4], 20).unwrap();
    file.write_all_at(&[0xFF; 4], 4096 + 20).unwrap();
    assert!(matches!(Journal::open(dir.path(), &options()), Err(OpenError::WitnessDamaged(path)) if path == witness));

    fs::remove_file(&witness).unwrap();
    assert!(matches!(Journal::open(dir.path(), &options()), Err(OpenError::WitnessMissing(path)) if path == witness));

    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!((restore.witness(), restore.head().sequence), (None, 6));
    assert_eq!(restore.damage(), [ReadError::WitnessDamaged]);
    let salvaged = tempfile::tempdir().unwrap();
    restore.salvage(salvaged.path(), &options()).unwrap();
    assert_eq!(open(salvaged.path()).head(), restore.head());
    drop(restore);
    fs::write(&witness, intact).unwrap();
    assert_eq!(open(dir.path()).head().sequence, 6);
}

#[test]
fn a_cell_that_a_damaged_frame_may_have_set_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.set_meta("cursor", b"7").unwrap();
    journal.append(&[b"one"]).unwrap();
    journal.set_meta("cursor", b"8").unwrap();
    journal.append(&[b"two"]).unwrap();
    journal.set_meta("fresh", b"9").unwrap();
    journal.append(&[b"three"]).unwrap();
    journal.close().unwrap();
    let frame = frame_of(dir.path(), 2);
    change(&segments(dir.path())[0], |bytes| bytes[frame.bytes.end - 1] ^= 1);
    let mut journal = open(dir.path());
    let damaged = Err(ReadError::CellDamaged { name: "cursor".into() });
    assert_eq!(journal.meta("cursor"), damaged);
    assert_eq!(journal.meta("fresh"), Ok(Some(b"9".to_vec())));
    journal.set_meta("cursor", b"10").unwrap();
    journal.append(&[b"four"]).unwrap();
    assert_eq!(journal.meta("cursor"), Ok(Some(b"10".to_vec())));
}

/// One thing that can happen to sled's files.
type Blow = (&'static str, fn(&Path));

#[test]
fn whatever_happens_to_the_storage_engine_the_journal_opens_whole() {
    let blows: [Blow; 8] = [
        ("it is gone", |store| fs::remove_dir_all(store).unwrap()),
        ("it is empty", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::create_dir(store).unwrap();
        }),
        ("its file is cut", |store| {
            let file = fs::File::options().write(true).open(store.join("db")).unwrap();
            file.set_len(1000).unwrap();
        }),
        ("its file is noise", |store| {
            change(&store.join("db"), |bytes| bytes.fill(0xA5))
        }),
        ("its configuration is noise", |store| {
            fs::write(store.join("conf"), b"noise").unwrap()
        }),
        ("it is another's", |store| {
            let other = tempfile::tempdir().unwrap();
            pairs(other.path(), 1);
            fs::remove_dir_all(store).unwrap();
            copy_tree(&other.path().join("store"), store);
        }),
        ("it is a file", |store| {
            fs::remove_dir_all(store).unwrap();
            fs::write(store, b"").unwrap();
        }),
        ("it holds rows of somebody else", |store| {
            support::tamper(store.parent().unwrap(), |db| {
                db.clear().unwrap();
                db.insert(b"x", b"y").unwrap();
            });
        }),
    ];
    for (what, blow) in blows {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), GROUPS);
        let mut journal = open(dir.path());
        journal.write_snapshot(50, [b"state".to_vec()]).unwrap();
        journal.close().unwrap();
        blow(&dir.path().join("store"));
        let mut journal = open(dir.path());
        // What is offered nevertheless is whole.
        if let Some(snapshot) = journal.latest_snapshot().unwrap() {
            let chunks: Vec<_> = snapshot.chunks().collect();
            assert_eq!(
                (snapshot.at_sequence(), chunks),
                (50, vec![Ok(b"state".to_vec())]),
                "{what}"
            );
        }
        let expected: Vec<_> = (1..=RECORDS).map(|n| (n, pair_record(n))).collect();
        assert_eq!(replayed(&journal, 1).unwrap(), expected, "{what}");
        journal.append(&[b"on we go"]).unwrap();
        journal.write_snapshot(RECORDS + 1, [b"anew".to_vec()]).unwrap();
        journal.close().unwrap();
        let journal = open(dir.path());
        let snapshot = journal.latest_snapshot().unwrap().unwrap();
        assert_eq!(snapshot.at_sequence(), RECORDS + 1, "{what}");
    }
}

#[test]
fn an_older_storage_engine_only_means_a_longer_replay() {
    let (dir, kept) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pairs(dir.path(), 5);
    let mut journal = open(dir.path());
    journal.write_snapshot(4, [b"older".to_vec()]).unwrap();
    journal.close().unwrap();
    copy_tree(&dir.path().join("store"), &kept.path().join("store"));
    let mut journal = open(dir.path());
    journal.append(&[b"more"]).unwrap();
    journal.write_snapshot(11, [b"newer".to_vec()]).unwrap();
    journal.close().unwrap();
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    copy_tree(&kept.path().join("store"), &dir.path().join("store"));
    let journal = open(dir.path());
    assert_eq!(journal.latest_snapshot().unwrap().unwrap().at_sequence(), 4);
    assert_eq!(replayed(&journal, 5).unwrap().len(), 7);
}
