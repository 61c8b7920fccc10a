//! What a start has to replay: bounded by what the run before it, or the start itself, has put into a snapshot.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

#[path = "support/site.rs"]
mod support;

use std::path::Path;

use gateway::store::Store;
use gateway_core::Gateway;
use support::{Site, config, state};

/// Records between two snapshots, in these tests.
const EVERY: u64 = 40;

/// A site that was killed with at least so many records behind its snapshot.
fn killed(dir: &Path, records: u64) -> (Vec<Vec<u8>>, u64) {
    let mut site = Site::new(dir);
    while site.store.head() < records {
        site.pass(30_000);
        site.draw();
        site.store.commit().unwrap();
    }
    (state(&site.gateway), site.store.head())
}

fn open(dir: &Path) -> (Store, Gateway) {
    Store::open(dir, config(), EVERY).unwrap()
}

#[test]
fn a_start_with_little_to_replay_leaves_it_there() {
    let dir = tempfile::tempdir().unwrap();
    let site = Site::new(dir.path());
    let head = site.store.head();
    assert!(head < EVERY / 4, "{head} records of a first boot");
    drop(site);
    let (mut store, gateway) = open(dir.path());
    assert_eq!(store.opened().replayed, head);
    store.catch_up(&gateway);
    assert_eq!(store.snapshot(), (0, false), "nothing is due");
}

#[test]
fn a_start_with_some_to_replay_begins_a_snapshot_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (before, head) = killed(dir.path(), EVERY / 4);
    assert!(
        head < EVERY,
        "{head} records, which a gateway that runs on would not put into a snapshot yet"
    );
    let (mut store, gateway) = open(dir.path());
    assert_eq!(store.opened().replayed, head);
    assert!(state(&gateway) == before, "of records alone");
    store.catch_up(&gateway);
    assert_eq!(store.snapshot(), (0, true), "nobody waits for it");
    while store.snapshot().1 {
        std::thread::yield_now();
        store.tend(&gateway);
    }
    assert_eq!(store.snapshot(), (head, false));
    drop((store, gateway));

    let (mut store, gateway) = open(dir.path());
    assert_eq!(store.opened().replayed, 0);
    store.catch_up(&gateway);
    assert_eq!(store.snapshot(), (head, false), "once is enough");
    assert!(state(&gateway) == before, "of a snapshot alone");
}

#[test]
fn a_start_with_very_much_to_replay_writes_its_snapshot_first() {
    let dir = tempfile::tempdir().unwrap();
    let (_, head) = killed(dir.path(), EVERY * 10);
    for replayed in [head, 0] {
        let (mut store, gateway) = open(dir.path());
        assert_eq!(store.opened().replayed, replayed);
        store.catch_up(&gateway);
        assert_eq!(store.snapshot(), (head, false), "it is there before anybody is served");
        // And is killed at once.
        drop((store, gateway));
    }
}
