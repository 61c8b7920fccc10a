//! What is kept for how long, and how the state comes back: with the storage engine, without it, after pruning, and out of a
//! journal that is damaged.
#![allow(clippy::unwrap_used, reason = "a test that unwraps nothing has failed")]

#[path = "support/site.rs"]
mod support;

use std::{fs, path::Path};

use gateway::{
    exit, record,
    store::{Rebuilt, Store, StoreError},
    stream,
};
use gateway_core::{Gateway, Input};
use proto::link::LedgerReceipt;
use support::{Site, config};

const DAY_MS: u64 = 86_400_000;

/// All that the state is made of.
fn state(gateway: &Gateway, now: &gateway_core::Now) -> Vec<Vec<u8>> {
    gateway
        .snapshot()
        .into_iter()
        .map(|event| record::encode(now, &event))
        .collect()
}

fn receipt(site: &mut Site) {
    let (upto, hash) = (site.gateway.outbox().head(), site.gateway.outbox().chain());
    let receipt = LedgerReceipt {
        epoch: 1,
        upto,
        hash,
        ..LedgerReceipt::default()
    };
    let own_hash = hash;
    site.put(&Input::Receipt { receipt, own_hash });
}

/// Draws until the log has its third segment: about three megabytes.
fn fill(site: &mut Site, dir: &Path) {
    let segments = |dir: &Path| {
        let entries = fs::read_dir(dir.join("journal/log")).unwrap();
        entries
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some())
            .count()
    };
    while segments(dir) < 3 {
        for _ in 0..20 {
            site.pass(30_000);
            site.draw();
        }
        site.list(1 + u64::from(site.sessions));
        receipt(site);
        site.store.commit().unwrap();
    }
}

#[test]
fn old_records_go_once_they_have_their_receipt_and_the_state_outlives_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    fill(&mut site, dir.path());
    let Site {
        store, gateway, now, ..
    } = site;
    store.close(&gateway).unwrap();
    let before = state(&gateway, &now);

    let (mut store, mut gateway) = Store::open(dir.path(), config(), 1_000).unwrap();
    let mut later = now;
    later.wall_s += 60 * DAY_MS / 1000;
    store.retain(&gateway, &later, 90).unwrap();
    assert_eq!(store.oldest(), 1, "nothing is old enough");
    later.wall_s += 31 * DAY_MS / 1000;
    let mut unclear = later;
    unclear.quality = proto::message::ClockQuality::Unknown;
    store.retain(&gateway, &unclear, 90).unwrap();
    assert_eq!(store.oldest(), 1, "nobody knows how old it is");
    store.retain(&gateway, &later, 90).unwrap();
    let oldest = store.oldest();
    assert!(oldest > 1, "the first segment is old enough, and receipted");
    // Something follows, and everything comes back.
    for event in gateway.decide(&later, &Input::Boot { boot: 2, epoch: 1 }).events {
        store.stage(&mut gateway, &later, event);
    }
    store.commit().unwrap();
    let head = store.head();
    let after = state(&gateway, &later);
    assert_ne!(before, after);
    drop(store);

    // As it is, and without the storage engine, of which nothing but the base is left.
    for is_bare in [false, true] {
        if is_bare {
            fs::remove_dir_all(dir.path().join("journal/store")).unwrap();
        }
        let (store, found) = Store::open(dir.path(), config(), 1_000).unwrap();
        assert_eq!((store.oldest(), store.head()), (oldest, head));
        assert!(state(&found, &later) == after, "without the engine: {is_bare}");
    }

    // Who copies or checks the journal gets the state first, and has the same in the end.
    let copy = tempfile::tempdir().unwrap();
    let mut records = Vec::new();
    let start = stream::each(dir.path(), &mut |_, _, bytes| {
        records.push(bytes.to_vec());
        Ok(())
    })
    .unwrap();
    assert!(start.kept > 0 && start.first > oldest);
    Store::restore(copy.path(), 2, &mut records.into_iter()).unwrap();
    let (store, copied) = Store::open(copy.path(), config(), 1_000).unwrap();
    assert_eq!(store.epoch_due().unwrap(), 2);
    assert!(state(&copied, &later) == after, "the copy has another state");
    let cursor = copied.outbox().cursor();
    assert_eq!(
        store.mark(cursor).chain,
        copied.outbox().chain(),
        "the uploader goes on where it was"
    );
}

#[test]
fn what_waits_for_its_receipt_is_kept_however_old_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    site.draw();
    site.store.commit().unwrap();
    // From here on nothing is receipted that came before.
    let waiting = site.gateway.outbox().cursor();
    fill(&mut site, dir.path());
    assert!(site.gateway.outbox().cursor() > waiting);
    let Site {
        store, gateway, now, ..
    } = site;
    store.close(&gateway).unwrap();
    let (mut store, mut gateway) = Store::open(dir.path(), config(), 1_000).unwrap();
    // The hub was put back: it asks again from the start.
    let mut later = now;
    later.wall_s += 200 * DAY_MS / 1000;
    let rewound = gateway_core::event::Rewound { upto: waiting };
    store.stage(&mut gateway, &later, gateway_core::Event::Rewound(rewound));
    store.commit().unwrap();
    assert_eq!(gateway.outbox().cursor(), waiting);
    store.retain(&gateway, &later, 90).unwrap();
    assert_eq!(store.oldest(), 1, "money that waits is never dropped for its age");
}

#[test]
fn a_damaged_log_is_salvaged_beside_and_what_is_lost_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let mut site = Site::new(dir.path());
    for _ in 0..20 {
        site.pass(30_000);
        site.draw();
        site.store.commit().unwrap();
    }
    let Site {
        store, gateway, now, ..
    } = site;
    let head = store.head();
    store.close(&gateway).unwrap();
    assert!(Store::damage(dir.path()).unwrap().is_empty());
    assert!(matches!(Store::rebuild(dir.path(), None).unwrap(), Rebuilt::Derived));
    let (store, found) = Store::open(dir.path(), config(), u64::MAX).unwrap();
    assert!(
        state(&found, &now) == state(&gateway, &now),
        "the derived part comes again"
    );
    drop(store);

    let log = dir.path().join("journal/log");
    let segment = fs::read_dir(&log).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&segment).unwrap();
    let middle = 40 * 1024 + (bytes.iter().rposition(|byte| *byte != 0).unwrap() - 40 * 1024) / 2;
    bytes[middle] ^= 0x10;
    fs::write(&segment, bytes).unwrap();
    let damage = Store::damage(dir.path()).unwrap();
    assert_eq!(damage.len(), 1, "{damage:?}");
    // The state can no longer be made of the records alone.
    let Err(StoreError::Read(error)) = Store::open(dir.path(), config(), u64::MAX).map(drop) else {
        panic!("the gateway starts over a hole in its books");
    };
    assert_eq!(error, damage[0]);
    let Rebuilt::Salvaged { to, salvaged, epoch } = Store::rebuild(dir.path(), None).unwrap() else {
        panic!("the damage was not seen");
    };
    let lost = damage[0].lost().unwrap();
    assert_eq!((salvaged.lost, epoch), (vec![lost], 2));
    assert_eq!((salvaged.records.first, salvaged.records.last), (1, lost.first - 1));
    assert_eq!(salvaged.left_behind.len(), 1);
    assert_eq!(salvaged.left_behind[0].last, head);
    assert!(Store::rebuild(dir.path(), None).is_err(), "nothing is overwritten");

    fs::rename(dir.path().join("journal"), dir.path().join("damaged")).unwrap();
    fs::rename(to, dir.path().join("journal")).unwrap();
    let (store, gateway) = Store::open(dir.path(), config(), u64::MAX).unwrap();
    assert_eq!((store.head(), store.epoch_due().unwrap()), (lost.first - 1, 2));
    assert!(gateway.book().is_balanced());
    assert_eq!(exit::STORAGE, 74, "what ledger verify ends with");
}
