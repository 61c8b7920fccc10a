//! Round trips and limits of the open journal.

#![allow(clippy::unwrap_used)]

use std::ops::ControlFlow;

use journal::{AppendError, BATCH_RECORDS_MAX, Head, Journal, Options, RECORD_BYTES_MAX, ReadError, chain_hash};

fn options() -> Options {
    Options::new("test", 1).create()
}

fn replayed(journal: &Journal, from: u64) -> Vec<(u64, Vec<u8>)> {
    let mut seen = Vec::new();
    journal
        .replay(from, &mut |sequence, bytes| {
            seen.push((sequence, bytes.to_vec()));
            ControlFlow::Continue(())
        })
        .unwrap();
    seen
}

#[test]
fn records_come_back_in_order_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), &options()).unwrap();
    assert_eq!(journal.head().sequence, 0);
    assert_eq!(journal.append(&[b"one", b"two"]).unwrap(), 1..3);
    assert_eq!(journal.append(&[]).unwrap(), 3..3);
    assert_eq!(journal.append(&[b""]).unwrap(), 3..4);
    let head = journal.head();
    journal.close().unwrap();

    let journal = Journal::open(dir.path(), &options()).unwrap();
    assert_eq!(journal.head(), head);
    let expected = vec![(1, b"one".to_vec()), (2, b"two".to_vec()), (3, b"".to_vec())];
    assert_eq!(replayed(&journal, 0), expected);
    assert_eq!(replayed(&journal, 2), expected[1..]);
    assert_eq!(replayed(&journal, 4), []);
    assert_eq!(journal.read(5, 1), Err(ReadError::BeyondHead { requested: 5, head: 3 }));
    let records = journal.read(1, 2).unwrap();
    assert_eq!(records[1].hash, chain_hash(&records[0].hash, 2, b"two"));
    assert_eq!(journal.chain_hash_at(2).unwrap(), records[1].hash);
    assert_eq!(
        Head {
            sequence: 2,
            hash: records[1].hash
        }
        .next(b""),
        head
    );
}

#[test]
fn limits_refuse_the_whole_batch_and_leave_the_journal_usable() {
    let dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(dir.path(), &options()).unwrap();
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
        Err(AppendError::TooManyRecords { count: 1025, .. })
    ));
    assert_eq!(journal.append(&[&largest, &largest]).unwrap(), 1..3);
    assert_eq!(journal.append(&too_many[1..]).unwrap(), 3..1027);
    assert_eq!(replayed(&journal, 2)[0].1, largest);
}
