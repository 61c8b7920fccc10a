//! Every kind of damage is named, by its exact error, whether it is met at open or at replay.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;

use journal::{Journal, OpenError, ReadError, open_for_restore};
use support::{group_key, open, options, pair_record, pairs, replayed, rewrite, tamper};

/// Enough groups that the first lies outside the end that every open checks.
const GROUPS: u64 = 100;
const RECORDS: u64 = 2 * GROUPS;
/// Bytes of a group before its first record, and of a record before its content.
const FRAME: usize = 54;
const RECORD_HEADER: usize = 6;

fn damaged_at_open(dir: &std::path::Path) -> ReadError {
    match Journal::open(dir, &options()) {
        Err(OpenError::Damaged(damage)) => damage,
        Err(other) => panic!("refused for another reason: {other}"),
        Ok(_) => panic!("damage went unnoticed"),
    }
}

/// Recomputes a group's checksums, as somebody would who rewrites history.
fn reseal(first: u64, value: &mut [u8]) {
    let frame = crc32fast::hash(&value[4..FRAME]);
    value[..4].copy_from_slice(&frame.to_le_bytes());
    let (mut sequence, mut at) = (first, FRAME);
    while at < value.len() {
        let length = usize::from(u16::from_le_bytes([value[at], value[at + 1]]));
        let content = at + RECORD_HEADER..at + RECORD_HEADER + length;
        let crc = crc32fast::hash(&[&sequence.to_le_bytes()[..], &value[content.clone()]].concat());
        value[at + 2..at + RECORD_HEADER].copy_from_slice(&crc.to_le_bytes());
        (sequence, at) = (sequence + 1, content.end);
    }
}

/// One change behind the journal's back, made to the group that starts at a given record, and the error it must give.
type Case = (&'static str, fn(&sled::Db, u64), fn(u64) -> ReadError);

const CASES: &[Case] = &[
    (
        "a flipped byte in a record",
        |db, first| rewrite(db, &group_key(first), |value| value[FRAME + RECORD_HEADER] ^= 0x40),
        |first| ReadError::RecordChecksum { sequence: first },
    ),
    (
        "a flipped byte in the group's second record",
        |db, first| rewrite(db, &group_key(first), |value| *value.last_mut().unwrap() ^= 1),
        |first| ReadError::RecordChecksum { sequence: first + 1 },
    ),
    (
        "a flipped length",
        |db, first| rewrite(db, &group_key(first), |value| value[FRAME] ^= 1),
        |first| ReadError::RecordChecksum { sequence: first },
    ),
    (
        "a flipped byte in the frame",
        |db, first| rewrite(db, &group_key(first), |value| value[30] ^= 0x40),
        |first| ReadError::GroupDamaged {
            sequence: first,
            what: "its frame does not match its checksum",
        },
    ),
    (
        "a value cut inside its frame",
        |db, first| rewrite(db, &group_key(first), |value| value.truncate(20)),
        |first| ReadError::GroupDamaged {
            sequence: first,
            what: "shorter than its frame",
        },
    ),
    (
        "a value cut between its records",
        |db, first| {
            rewrite(db, &group_key(first), |value| {
                value.truncate(FRAME + RECORD_HEADER + pair_record(first).len())
            })
        },
        |first| ReadError::GroupDamaged {
            sequence: first,
            what: "it ends inside a record",
        },
    ),
    (
        "bytes after the last record",
        |db, first| rewrite(db, &group_key(first), |value| value.push(0)),
        |first| ReadError::GroupDamaged {
            sequence: first,
            what: "bytes follow its last record",
        },
    ),
    (
        "a missing group",
        |db, first| assert!(db.remove(group_key(first)).unwrap().is_some()),
        |first| ReadError::Gap {
            missing: first,
            found: first + 2,
        },
    ),
    (
        "two swapped groups",
        |db, first| {
            let (one, other) = (group_key(first), group_key(first + 2));
            let (value, other_value) = (db.get(&one).unwrap().unwrap(), db.get(&other).unwrap().unwrap());
            db.insert(one, other_value).unwrap();
            db.insert(other, value).unwrap();
        },
        |first| ReadError::Misplaced {
            expected: first,
            found: first + 2,
        },
    ),
    (
        "a rewritten record with fresh checksums",
        |db, first| {
            rewrite(db, &group_key(first), |value| {
                *value.last_mut().unwrap() ^= 1;
                reseal(first, value);
            });
        },
        |first| ReadError::ChainBroken { sequence: first + 2 },
    ),
    (
        "a group of another history",
        |db, first| {
            rewrite(db, &group_key(first), |value| {
                value[20] ^= 1;
                reseal(first, value);
            });
        },
        |first| ReadError::ChainBroken { sequence: first },
    ),
    (
        "an extra group between two others",
        |db, first| {
            let mut value = db.get(group_key(first)).unwrap().unwrap().to_vec();
            value[4..12].copy_from_slice(&(first + 1).to_le_bytes());
            reseal(first + 1, &mut value);
            db.insert(group_key(first + 1), value).unwrap();
        },
        |first| ReadError::Misplaced {
            expected: first + 2,
            found: first + 1,
        },
    ),
];

#[test]
fn damage_among_old_records_is_named_by_replay() {
    for (what, change, expected) in CASES {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), GROUPS);
        tamper(dir.path(), |db| change(db, 11));
        let journal = open(dir.path());
        assert_eq!(replayed(&journal, 1), Err(expected(11)), "{what}");
        assert_eq!(
            journal.read(1, 10).unwrap().len(),
            10,
            "{what}: what lies before is intact"
        );
        assert_eq!(
            replayed(&journal, 15).unwrap().len() as u64,
            RECORDS - 14,
            "{what}: what lies after is intact"
        );
    }
}

#[test]
fn damage_among_the_newest_records_is_named_by_open() {
    for (what, change, expected) in CASES {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), GROUPS);
        let first = RECORDS - 5;
        tamper(dir.path(), |db| change(db, first));
        assert_eq!(damaged_at_open(dir.path()), expected(first), "{what}");

        let restore = open_for_restore(dir.path(), &options()).unwrap();
        assert_eq!(restore.damage(), Some(&expected(first)), "{what}");
        assert_eq!(restore.witness().unwrap().sequence, RECORDS, "{what}");
        let kept = restore.head().sequence;
        assert_eq!(replayed(&restore, 1).unwrap().len() as u64, kept, "{what}");
        assert!((first - 1..first + 2).contains(&kept), "{what}: kept {kept}");

        let mut journal = restore.accept().unwrap();
        assert_eq!(journal.append(&[b"on we go"]).unwrap().start, kept + 1, "{what}");
        journal.close().unwrap();
        assert_eq!(replayed(&open(dir.path()), 1).unwrap().len() as u64, kept + 1, "{what}");
    }
}

#[test]
fn a_lost_beginning_is_a_gap() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    tamper(dir.path(), |db| drop(db.remove(group_key(1)).unwrap()));
    assert_eq!(damaged_at_open(dir.path()), ReadError::Gap { missing: 1, found: 3 });
}

#[test]
fn a_torn_last_batch_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let record = vec![1; 3000];
    journal.append(&[&record]).unwrap();
    journal.close().unwrap();
    let witness = fs::read(dir.path().join("witness")).unwrap();
    let mut journal = open(dir.path());
    journal.append(&[&record[..]; 3]).unwrap();
    journal.close().unwrap();
    // The last value of the batch and the witness's newer sight of it are gone.
    tamper(dir.path(), |db| drop(db.remove(group_key(4)).unwrap()));
    fs::write(dir.path().join("witness"), witness).unwrap();
    let torn = ReadError::TornBatch { expected: 4, found: 3 };
    assert_eq!(damaged_at_open(dir.path()), torn);
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!((restore.head().sequence, restore.damage()), (1, Some(&torn)));
    restore.accept().unwrap().close().unwrap();
    assert_eq!(open(dir.path()).head().sequence, 1);
}

#[test]
fn a_lost_end_is_noticed_by_the_witness() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), GROUPS);
    let whole = open(dir.path()).head();
    tamper(dir.path(), |db| drop(db.remove(group_key(RECORDS - 1)).unwrap()));
    let Err(OpenError::Behind { witness, found }) = Journal::open(dir.path(), &options()) else {
        panic!("the loss went unnoticed");
    };
    assert_eq!((witness, found.sequence), (whole, RECORDS - 2));
    let restore = open_for_restore(dir.path(), &options()).unwrap();
    assert_eq!(
        (restore.head(), restore.witness(), restore.damage()),
        (found, Some(whole), None)
    );
}

#[test]
fn an_emptied_store_is_noticed_by_the_witness() {
    type Emptying = fn(&std::path::Path);
    let ways: [(&str, Emptying); 3] = [
        ("the directory is gone", |store| fs::remove_dir_all(store).unwrap()),
        ("its files are gone", |store| {
            fs::remove_file(store.join("db")).unwrap();
            for entry in fs::read_dir(store).unwrap().map(Result::unwrap) {
                if entry.file_name().to_string_lossy().starts_with("snap.") {
                    fs::remove_file(entry.path()).unwrap();
                }
            }
        }),
        ("every key is gone", |store| {
            tamper(store.parent().unwrap(), |db| db.clear().unwrap())
        }),
    ];
    for (what, empty) in ways {
        let dir = tempfile::tempdir().unwrap();
        pairs(dir.path(), 3);
        let old_head = open(dir.path()).head();
        empty(&dir.path().join("store"));
        for attempt in 0..2 {
            let Err(OpenError::Behind { witness, found }) = Journal::open(dir.path(), &options()) else {
                panic!("{what}: the loss went unnoticed at attempt {attempt}");
            };
            assert_eq!((witness, found.sequence), (old_head, 0), "{what}");
        }
        // Going on makes another journal of it, so that nobody mistakes its record 1 for the old one.
        let mut journal = open_for_restore(dir.path(), &options()).unwrap().accept().unwrap();
        journal.append(&[b"anew"]).unwrap();
        let id = journal.store_id();
        journal.close().unwrap();
        assert_eq!(open(dir.path()).store_id(), id, "{what}");
        assert_eq!(open(dir.path()).head().sequence, 1, "{what}");
    }
}

#[test]
fn another_journal_in_its_place_is_a_fork() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    pairs(dir.path(), 3);
    pairs(other.path(), 5);
    fs::remove_dir_all(dir.path().join("store")).unwrap();
    fs::rename(other.path().join("store"), dir.path().join("store")).unwrap();
    assert!(matches!(
        Journal::open(dir.path(), &options()),
        Err(OpenError::Forked { sequence: 6 })
    ));
}

#[test]
fn an_older_copy_that_went_its_own_way_is_a_fork() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 2);
    let witness = fs::read(dir.path().join("witness")).unwrap();
    let mut journal = open(dir.path());
    journal.append(&[b"seen"]).unwrap();
    journal.close().unwrap();
    let seen = fs::read(dir.path().join("witness")).unwrap();
    tamper(dir.path(), |db| drop(db.remove(group_key(5)).unwrap()));
    fs::write(dir.path().join("witness"), witness).unwrap();
    let mut journal = open(dir.path());
    journal.append(&[b"other"]).unwrap();
    journal.append(&[b"and more"]).unwrap();
    journal.close().unwrap();
    fs::write(dir.path().join("witness"), seen).unwrap();
    assert!(matches!(
        Journal::open(dir.path(), &options()),
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
    restore.accept().unwrap().close().unwrap();
    assert_eq!(open(dir.path()).head().sequence, 6);
    fs::write(&witness, intact).unwrap();
    assert_eq!(open(dir.path()).head().sequence, 6);
}

#[test]
fn damaged_cells_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.set_meta("cursor", b"7").unwrap();
    journal.close().unwrap();
    tamper(dir.path(), |db| {
        rewrite(db, b"mcursor", |value| *value.last_mut().unwrap() ^= 1)
    });
    assert_eq!(
        open(dir.path()).meta("cursor"),
        Err(ReadError::CellDamaged { name: "cursor".into() })
    );
}

/// Flips single bits all over sled's own file. Whatever happens must be an error or the very records that were written.
/// In its newest segment sled takes a flip for the end of its log and drops everything after it without a word; in older
/// segments it reports corruption, or does not care because the page was written anew since.
#[test]
fn flips_in_the_engines_file_never_change_what_is_read() {
    let mut random = support::Random::from_env();
    // Within one segment of 512 KiB, and over several.
    for (record_bytes, flips) in [(20, 30), (3000, 60)] {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let intact: Vec<_> = (1..=400u64)
            .map(|sequence| (sequence, vec![sequence as u8; record_bytes]))
            .collect();
        for pair in intact.chunks(2) {
            journal.append(&[&pair[0].1, &pair[1].1]).unwrap();
        }
        journal.close().unwrap();
        let untouched = tempfile::tempdir().unwrap();
        copy_tree(dir.path(), untouched.path());
        assert_eq!(
            replayed(&open(untouched.path()), 1).unwrap(),
            intact,
            "a copy alone must not be refused"
        );

        let original = fs::read(dir.path().join("store/db")).unwrap();
        let used = original.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
        let mut outcomes = BTreeMap::<&str, u32>::new();
        for _ in 0..flips {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), copy.path());
            let (at, bit) = (random.below(used), random.below(8));
            let file = fs::File::options()
                .write(true)
                .open(copy.path().join("store/db"))
                .unwrap();
            file.write_all_at(&[original[at as usize] ^ (1 << bit)], at).unwrap();
            let outcome = match Journal::open(copy.path(), &options()).map(|journal| replayed(&journal, 1)) {
                Err(OpenError::Behind { .. }) => "behind the witness",
                Err(_) => "otherwise refused",
                Ok(Err(_)) => "named by replay",
                Ok(Ok(records)) => {
                    assert_eq!(records, intact, "bit {bit} of byte {at} changed what is read");
                    "no effect"
                }
            };
            *outcomes.entry(outcome).or_default() += 1;
        }
        println!("records of {record_bytes} bytes, {used} bytes of file: {outcomes:?}");
        assert!(
            outcomes.len() > 1 || !outcomes.contains_key("no effect"),
            "no flip was noticed"
        );
    }
}

#[test]
fn a_data_file_cut_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), GROUPS);
    for share in [0, 1, 2, 3] {
        for is_index_removed in [false, true] {
            let copy = tempfile::tempdir().unwrap();
            copy_tree(dir.path(), copy.path());
            let data = fs::File::options()
                .write(true)
                .open(copy.path().join("store/db"))
                .unwrap();
            let used = fs::read(copy.path().join("store/db"))
                .unwrap()
                .iter()
                .rposition(|byte| *byte != 0)
                .unwrap() as u64;
            data.set_len(used * share / 4).unwrap();
            if is_index_removed {
                for entry in fs::read_dir(copy.path().join("store")).unwrap().map(Result::unwrap) {
                    if entry.file_name().to_string_lossy().starts_with("snap.") {
                        fs::remove_file(entry.path()).unwrap();
                    }
                }
            }
            let result = Journal::open(copy.path(), &options());
            let error = result.err().unwrap_or_else(|| panic!("{share}/4 of the file opened"));
            println!("{share}/4 of the file, index removed: {is_index_removed}: {error}");
        }
    }
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}
