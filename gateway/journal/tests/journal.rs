//! Round trips and limits of the open journal.

#![allow(clippy::unwrap_used)]

mod support;

use journal::{
    AppendError, BATCH_RECORDS_MAX, Head, Journal, META_BYTES_MAX, META_CELLS_MAX, META_NAME_BYTES_MAX,
    RECORD_BYTES_MAX, ReadError, chain_hash, genesis_hash,
};
use proptest::prelude::*;
use support::{open, options, replayed};

#[test]
fn records_come_back_in_order_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(
        journal.head(),
        Head {
            sequence: 0,
            hash: genesis_hash(&journal.store_id())
        }
    );
    assert_eq!(journal.append(&[b"one", b"two"]).unwrap(), 1..3);
    assert_eq!(journal.append(&[]).unwrap(), 3..3);
    assert_eq!(journal.append(&[b""]).unwrap(), 3..4);
    let head = journal.head();
    journal.close().unwrap();

    let journal = open(dir.path());
    assert_eq!(journal.head(), head);
    let expected = vec![(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"".to_vec())];
    assert_eq!(replayed(&journal, 0).unwrap(), expected);
    assert_eq!(replayed(&journal, 2).unwrap(), expected[1..]);
    assert_eq!(replayed(&journal, 4).unwrap(), []);
    assert_eq!(journal.read(5, 1), Err(ReadError::BeyondHead { requested: 5, head: 3 }));
    assert_eq!(journal.read(1, 0).unwrap(), []);
}

#[test]
fn the_chain_can_be_recomputed_by_whoever_receives_records() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let batch: Vec<Vec<u8>> = (0u8..200).map(|n| vec![n; 100]).collect();
    journal
        .append(&batch.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .unwrap();
    let mut at = Head {
        sequence: 0,
        hash: genesis_hash(&journal.store_id()),
    };
    assert_eq!(journal.chain_hash_at(0).unwrap(), at.hash);
    for record in journal.read(1, 1000).unwrap() {
        assert_eq!(record.hash, chain_hash(&at.hash, at.sequence + 1, &record.bytes));
        at = at.next(&record.bytes);
        assert_eq!(
            journal.chain_hash_at(record.sequence).unwrap(),
            at.hash,
            "record {}",
            record.sequence
        );
    }
    assert_eq!(journal.head(), at);
    assert_eq!(
        journal.chain_hash_at(201),
        Err(ReadError::BeyondHead {
            requested: 201,
            head: 200
        })
    );
}

#[test]
fn handles_may_move_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Journal>();
    is_send::<journal::SnapshotWriter>();
    is_shared::<journal::Reader>();
}

#[test]
fn two_journals_never_share_a_history() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    assert_ne!(open(one.path()).head(), open(other.path()).head());
}

#[test]
fn limits_refuse_the_whole_batch_and_leave_the_journal_usable() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let (largest, too_large) = (vec![7; RECORD_BYTES_MAX], vec![7; RECORD_BYTES_MAX + 1]);
    assert!(matches!(
        journal.append(&[b"fine", &too_large]),
        Err(AppendError::RecordTooLarge {
            index: 1,
            bytes: 3585,
            bytes_max: 3584
        })
    ));
    let too_many = vec![&b"x"[..]; BATCH_RECORDS_MAX + 1];
    assert!(matches!(
        journal.append(&too_many),
        Err(AppendError::TooManyRecords {
            count: 1025,
            count_max: BATCH_RECORDS_MAX
        })
    ));
    assert_eq!(journal.head().sequence, 0);
    assert_eq!(journal.append(&[&largest, &largest]).unwrap(), 1..3);
    assert_eq!(journal.append(&too_many[1..]).unwrap(), 3..1027);
    assert_eq!(replayed(&journal, 2).unwrap()[0].1, largest);
}

#[test]
fn meta_cells_become_durable_with_the_next_append() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    journal.set_meta("cursor", b"first").unwrap();
    journal.set_meta("cursor", b"second").unwrap();
    assert_eq!(journal.meta("cursor").unwrap(), None);
    journal.append(&[b"record"]).unwrap();
    assert_eq!(journal.meta("cursor").unwrap(), Some(b"second".to_vec()));
    journal.set_meta("cursor", b"third").unwrap();
    journal.close().unwrap();
    let mut journal = open(dir.path());
    assert_eq!(journal.meta("cursor").unwrap(), Some(b"third".to_vec()));
    assert_eq!(journal.meta("other").unwrap(), None);
    assert_eq!(journal.head().sequence, 1);
    let too_large = vec![0; META_BYTES_MAX + 1];
    let too_long = "x".repeat(META_NAME_BYTES_MAX + 1);
    assert!(matches!(
        journal.set_meta("cursor", &too_large),
        Err(AppendError::MetaTooLarge { .. })
    ));
    assert!(matches!(
        journal.set_meta(&too_long, b""),
        Err(AppendError::MetaTooLarge { .. })
    ));
    for cell in 1..META_CELLS_MAX {
        journal.set_meta(&format!("cell {cell}"), b"").unwrap();
    }
    assert!(matches!(
        journal.set_meta("one too many", b""),
        Err(AppendError::TooManyCells { .. })
    ));
    journal.set_meta("cursor", b"fourth").unwrap();
    journal.append(&[b"record"]).unwrap();
    assert_eq!(journal.meta("cell 3").unwrap(), Some(Vec::new()));
}

#[test]
fn segments_follow_one_another_and_cells_go_along() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.segment_bytes = 64 << 10;
    let mut journal = Journal::open(dir.path(), &options).unwrap();
    journal.set_meta("early", b"cell").unwrap();
    let largest = vec![3; RECORD_BYTES_MAX];
    for n in 0..200u64 {
        let record = vec![n as u8; (n * 131 % 3000) as usize];
        journal.append(&[&record, b"", &record]).unwrap();
        if n % 50 == 49 {
            journal.close().unwrap();
            journal = Journal::open(dir.path(), &options).unwrap();
        }
    }
    // Longer than a segment: one is made for it.
    journal.append(&vec![&largest[..]; BATCH_RECORDS_MAX]).unwrap();
    journal.append(&[b"after"]).unwrap();
    let check = |journal: &Journal| {
        let records = replayed(journal, 1).unwrap();
        assert_eq!(records.len() as u64, journal.head().sequence);
        for (n, three) in records[..600].chunks(3).enumerate() {
            assert_eq!(three[0].1, vec![n as u8; n * 131 % 3000]);
            assert_eq!((&three[1].1[..], &three[2].1), (&b""[..], &three[0].1));
        }
        assert!(
            records[600..600 + BATCH_RECORDS_MAX]
                .iter()
                .all(|(_, bytes)| *bytes == largest)
        );
        assert_eq!(journal.meta("early").unwrap(), Some(b"cell".to_vec()));
        for from in (1..records.len() as u64).step_by(97) {
            assert_eq!(replayed(journal, from).unwrap(), records[from as usize - 1..]);
            let hash = journal.chain_hash_at(from).unwrap();
            assert_eq!(journal.read(from, 1).unwrap()[0].hash, hash);
        }
    };
    check(&journal);
    journal.close().unwrap();
    let journal = Journal::open(dir.path(), &options).unwrap();
    check(&journal);
    let segments = std::fs::read_dir(dir.path().join("log")).unwrap().count();
    assert!(segments > 8, "{segments} segments");
}

#[test]
fn readers_on_other_threads_see_only_whole_durable_batches() {
    const BATCHES: u64 = 200;
    const BATCH: u64 = 3;
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let reader = journal.reader();
    let watcher = std::thread::spawn(move || {
        let mut seen = 0;
        while seen < BATCHES * BATCH {
            let records = reader.read(seen + 1, 1000).unwrap();
            assert_eq!(records.len() as u64 % BATCH, 0, "a batch was seen in part");
            for record in records {
                seen += 1;
                assert_eq!((record.sequence, record.bytes), (seen, seen.to_be_bytes().to_vec()));
            }
        }
        seen
    });
    for batch in 0..BATCHES {
        let records: Vec<[u8; 8]> = (1..=BATCH).map(|n| (batch * BATCH + n).to_be_bytes()).collect();
        journal
            .append(&records.iter().map(|record| &record[..]).collect::<Vec<_>>())
            .unwrap();
    }
    assert_eq!(watcher.join().unwrap(), BATCHES * BATCH);
}

#[test]
fn space_is_measured_on_the_journals_own_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = open(dir.path());
    let before = journal.size_on_disk().unwrap();
    let record = vec![0xA5; RECORD_BYTES_MAX];
    for _ in 0..20 {
        journal.append(&[&record[..]; 16]).unwrap();
    }
    let grown = journal.size_on_disk().unwrap() - before;
    assert!(
        grown >= 20 * 16 * RECORD_BYTES_MAX as u64,
        "{grown} bytes for a megabyte of records"
    );
    assert!(journal.free_disk().unwrap() > 0);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Whatever is appended in whatever batches, across reopenings, replays as the same records from any point.
    #[test]
    fn replay_equals_what_was_appended(
        batches in prop::collection::vec(
            (prop::collection::vec(prop_oneof![
                4 => prop::collection::vec(any::<u8>(), 0..300),
                1 => prop::collection::vec(any::<u8>(), 1500..=RECORD_BYTES_MAX),
            ], 0..12), prop::bool::weighted(0.2)),
            1..10,
        ),
        from_share in 0.0..1.0f64,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut journal = open(dir.path());
        let mut expected = Vec::new();
        for (batch, is_reopened) in &batches {
            let first = expected.len() as u64 + 1;
            let slices: Vec<&[u8]> = batch.iter().map(Vec::as_slice).collect();
            prop_assert_eq!(journal.append(&slices).unwrap(), first..first + batch.len() as u64);
            for record in batch {
                expected.push((expected.len() as u64 + 1, record.clone()));
            }
            if *is_reopened {
                let head = journal.head();
                drop(journal);
                journal = Journal::open(dir.path(), &options()).unwrap();
                prop_assert_eq!(journal.head(), head);
            }
        }
        prop_assert_eq!(&replayed(&journal, 1).unwrap(), &expected);
        let from = (expected.len() as f64 * from_share) as usize;
        prop_assert_eq!(&replayed(&journal, from as u64 + 1).unwrap(), &expected[from..]);
        let read: Vec<_> = journal.read(from as u64 + 1, 7).unwrap().into_iter().map(|r| (r.sequence, r.bytes)).collect();
        prop_assert_eq!(&read[..], &expected[from..(from + 7).min(expected.len())]);
    }
}
