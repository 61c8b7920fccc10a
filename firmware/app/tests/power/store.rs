//! Records, cut at every operation: each reads as it was before or as it is after.

use std::collections::BTreeMap;

use app::store::Store;
use device::{Record, RecordKey};
use embassy_futures::block_on;
use sequential_storage::{
    cache::Cache,
    map::{MapConfig, MapStorage},
};

use crate::flash::{Cut, Flash, PAGE, Part};

const PAGES: usize = 3;
const RANGE: std::ops::Range<u32> = 0..(PAGES * PAGE) as u32;
/// Enough to fill the pages twice over, so that cuts fall into the moving of a page.
const SAVES: usize = 20;

/// What is saved `i`-th: its key in flash, and its bytes.
fn record(i: usize) -> (u8, Record) {
    let (code, key) = match i % 4 {
        0 => (0, RecordKey::Outlet(0)),
        1 => (0xff, RecordKey::Device),
        2 => (0xfe, RecordKey::Instruments),
        _ => (0x80, RecordKey::Redeemed(0)),
    };
    let len = [900, 60, 300, 500][i % 4] + i;
    let bytes = (0..len).map(|at| (at * 3 + i) as u8).collect();
    (code, Record { key, bytes })
}

/// Key in flash, and bytes.
type Item = (u8, Vec<u8>);

/// Saves until the power fails; what was saved before, and what was being saved.
fn save(flash: &Flash, which: std::ops::Range<usize>) -> (BTreeMap<u8, Vec<u8>>, Option<Item>) {
    let mut store = Store::new(flash.part(0..PAGES), RANGE);
    let mut saved = BTreeMap::new();
    for i in which {
        let (code, record) = record(i);
        if block_on(store.save(&record)).is_err() {
            assert!(flash.is_dead(), "an error under power");
            return (saved, Some((code, record.bytes.to_vec())));
        }
        saved.insert(code, record.bytes.to_vec());
    }
    (saved, None)
}

/// What somebody else reads, who knows nothing of our code.
fn found(flash: &Flash, code: u8) -> Option<Vec<u8>> {
    let part: Part = flash.part(0..PAGES);
    let mut map = MapStorage::<u8, _, _>::new(part, MapConfig::new(RANGE), Cache::new_uncached());
    let mut buffer = [0; 2048];
    let found = block_on(map.fetch_item::<&[u8]>(&mut buffer, &code));
    found.unwrap().map(<[u8]>::to_vec)
}

#[test]
fn every_record_reads_as_before_or_after() {
    let whole = Flash::erased(PAGES);
    let (saved, none) = save(&whole, 0..SAVES);
    assert!(none.is_none() && saved.len() == 4);
    let total = whole.done();
    let (mut before, mut after) = (0, 0);
    for (at, cut) in (0..total).flat_map(|at| Cut::ALL.map(|cut| (at, cut))) {
        let flash = Flash::erased(PAGES);
        flash.cut_at(at, cut);
        let (saved, cut_short) = save(&flash, 0..SAVES);
        flash.power_on();
        let (code, new) = cut_short.expect("the cut is among the operations");
        for (key, bytes) in &saved {
            let found = found(&flash, *key);
            let is_new = *key == code && found.as_ref() == Some(&new);
            assert!(
                is_new || found.as_ref() == Some(bytes),
                "key {key:#x}, {cut:?} at {at} of {total}"
            );
        }
        match found(&flash, code) {
            Some(found) if found == new => after += 1,
            other => {
                assert_eq!(other.as_ref(), saved.get(&code), "{cut:?} at {at}");
                before += 1;
            }
        }
        // And it goes on: everything can be saved again.
        let (saved, none) = save(&flash, 0..4);
        assert!(none.is_none(), "{cut:?} at {at}");
        for (key, bytes) in saved {
            assert_eq!(found(&flash, key), Some(bytes), "key {key:#x} after {cut:?} at {at}");
        }
    }
    println!("{total} operations, each cut before and in its middle: {before} read as before, {after} as after");
    assert!(total > 1_000 && before > 0 && after > 0);
}
