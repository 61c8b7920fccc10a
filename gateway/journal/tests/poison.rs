//! A failed sync ends writing for good: nothing is acknowledged, nothing is retried, everything durable stays readable.

#![allow(clippy::unwrap_used)]

mod support;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use journal::{AppendError, Journal, Options, SyncTarget};
use support::{open, options, replayed};

/// Options whose syncs of `target` fail from the `failing`-th on (from 0), and the count of syncs tried.
fn failing(target: SyncTarget, failing: u64) -> (Options, Arc<AtomicU64>) {
    let tried = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&tried);
    let mut options = options();
    options.sync_hook = Some(Arc::new(move |synced| {
        if synced == target && counter.fetch_add(1, Ordering::SeqCst) >= failing {
            return Err(io::Error::other("the disk is gone"));
        }
        Ok(())
    }));
    (options, tried)
}

#[test]
fn a_failed_sync_poisons_and_is_never_retried() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    // Opening syncs once, the first append a second time.
    let (options, tried) = failing(SyncTarget::Store, 2);
    let mut journal = Journal::open(dir.path(), &options).unwrap();
    assert_eq!(journal.append(&[b"durable"]).unwrap(), 1..2);
    let error = journal.append(&[b"lost or not, nobody knows"]).unwrap_err();
    assert_eq!(error.to_string(), "syncing the log failed: the disk is gone");
    assert!(matches!(error, AppendError::Sync { what: "log", .. }));
    for _ in 0..3 {
        let error = journal.append(&[b"never"]).unwrap_err();
        assert!(
            matches!(error, AppendError::Poisoned { reason } if reason == "syncing the log failed: the disk is gone")
        );
    }
    assert!(matches!(journal.append(&[]), Err(AppendError::Poisoned { .. })));
    journal.write_snapshot(1, [vec![1]]).unwrap();
    assert_eq!(journal.head().sequence, 1, "what failed is not visible");
    assert_eq!(replayed(&journal, 1).unwrap().len(), 1);
    assert!(matches!(journal.close(), Err(AppendError::Poisoned { .. })));
    assert_eq!(tried.load(Ordering::SeqCst), 3, "a sync was retried");

    let mut journal = open(dir.path());
    let found = journal.head().sequence;
    assert!(
        (1..=2).contains(&found),
        "the failed append is there or not, but nothing else: {found}"
    );
    assert_eq!(journal.append(&[b"again"]).unwrap().start, found + 1);
}

#[test]
fn a_failed_witness_sync_poisons_too() {
    let dir = tempfile::tempdir().unwrap();
    let (options, tried) = failing(SyncTarget::Witness, 0);
    let mut journal = Journal::open(dir.path(), &options).unwrap();
    let error = (0..1000)
        .find_map(|_| journal.append(&[b"record"]).err())
        .expect("the witness is synced now and then");
    assert!(matches!(error, AppendError::Sync { what: "witness", .. }));
    assert!(matches!(journal.append(&[b"never"]), Err(AppendError::Poisoned { .. })));
    drop(journal);
    assert_eq!(tried.load(Ordering::SeqCst), 1, "a sync was retried");
    open(dir.path());
}

#[test]
fn a_sync_that_fails_while_opening_refuses_to_open() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path()).close().unwrap();
    let (options, _) = failing(SyncTarget::Store, 0);
    let error = Journal::open(dir.path(), &options).expect_err("what is not durable must not be acted upon");
    assert!(
        error.to_string().ends_with("syncing the log failed: the disk is gone"),
        "{error}"
    );
}

#[test]
fn the_witness_is_synced_now_and_then_rather_than_at_every_append() {
    let dir = tempfile::tempdir().unwrap();
    let (options, witness_syncs) = failing(SyncTarget::Witness, u64::MAX);
    let mut journal = Journal::open(dir.path(), &options).unwrap();
    let appends = 2000;
    for _ in 0..appends {
        journal.append(&[b"record"]).unwrap();
    }
    let synced = witness_syncs.load(Ordering::SeqCst);
    // At least every 256 appends; a slow disk adds one a second.
    assert!(synced >= appends / 256, "{synced} witness syncs");
    assert!(synced <= appends / 10, "{synced} witness syncs for {appends} appends");
    journal.sync_witness().unwrap();
    let synced = witness_syncs.load(Ordering::SeqCst);
    journal.sync_witness().unwrap();
    assert_eq!(
        witness_syncs.load(Ordering::SeqCst),
        synced,
        "a synced witness needs no sync"
    );
}
