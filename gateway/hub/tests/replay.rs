//! Whatever the order, the gaps, the repeats and the restarts: the same records make the same book.
#![allow(clippy::unwrap_used)]

mod support;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proto::{
    book::Book,
    codec,
    link::{LedgerRecord, RecordKind, UPLOAD_RECORDS_MAX},
    money::Money,
};
use support::*;

/// What a gateway's journal could hold: sessions that begin, go on and end, with bytes in between that are no record.
fn journal_of(steps: &[(u8, u8, u16)]) -> Vec<Vec<u8>> {
    let mut open: BTreeMap<u64, i64> = BTreeMap::new();
    let mut records = Vec::new();
    let mut next_session = 0;
    for (i, &(act, pick, amount)) in steps.iter().enumerate() {
        let sequence = i as u64 + 1;
        let picked = open
            .iter()
            .nth(usize::from(pick) % open.len().max(1))
            .map(|(s, h)| (*s, *h));
        let amount = i64::from(amount / 12) * 12;
        let made = match (act % 8, picked) {
            (0..=2, _) | (_, None) => {
                next_session += 1;
                open.insert(next_session, amount);
                record(sequence, RecordKind::Hold, next_session, amount)
            }
            (3, Some((session, _))) => record(sequence, RecordKind::Started, session, 0),
            (4, Some((session, hold))) => {
                open.remove(&session);
                record(sequence, RecordKind::Capture, session, amount.min(hold))
            }
            (5, Some((session, hold))) => {
                open.remove(&session);
                record(sequence, RecordKind::Void, session, hold)
            }
            (6, Some((session, hold))) => record(sequence, RecordKind::Hold, session, hold),
            (_, Some(_)) => {
                records.push(vec![pick; usize::from(pick) * 20]);
                continue;
            }
        };
        records.push(bytes(&made));
    }
    records
}

/// The book, by the simplest program that could make it.
fn expected_book(records: &[Vec<u8>]) -> (Book, usize) {
    let mut book = Book::default();
    let mut refused = 0;
    for (bytes, sequence) in records.iter().zip(1..) {
        let booked = codec::decode::<LedgerRecord>(bytes)
            .ok()
            .filter(|record| record.sequence == sequence && record.amount >= Money::ZERO)
            .is_some_and(|record| book.book(&record).is_ok());
        refused += usize::from(!booked);
    }
    (book, refused)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn any_delivery_gives_the_same_book(
        steps in prop::collection::vec((any::<u8>(), any::<u8>(), any::<u16>()), 1..60),
        sends in prop::collection::vec((0usize..70, 0usize..20, 0u8..5), 0..60),
        crash_after in prop::collection::vec(0usize..40, 0..6),
    ) {
        let records = journal_of(&steps);
        let mut kept = Kept::open();
        let mut crashes = crash_after.into_iter();
        for (first, len, restart) in sends {
            let from = first.min(records.len());
            let to = (from + len).min(records.len());
            let input = upload(1, from as u64 + 1, records[from..to].to_vec());
            let decision = kept.hub.decide(NOW, &SETTINGS, &input);
            // A crash may leave any prefix of the events; nothing was said then.
            let durable = match (restart, crashes.next()) {
                (0, Some(cut)) => cut.min(decision.events.len()),
                _ => decision.events.len(),
            };
            for event in &decision.events[..durable] {
                kept.hub.apply(event);
                kept.events.push(event.clone());
            }
            match restart {
                0 => kept.hub = replayed(&kept.events),
                1 => kept.hub = restored(&kept.hub),
                _ => {}
            }
        }
        // The gateway goes on from the watermark until all is receipted.
        loop {
            let upto = kept.hub.gateways()[&gateway()].upto as usize;
            if upto == records.len() {
                break;
            }
            let to = (upto + UPLOAD_RECORDS_MAX).min(records.len());
            kept.step(&upload(1, upto as u64 + 1, records[upto..to].to_vec()));
        }
        let (book, refused) = expected_book(&records);
        prop_assert_eq!(kept.hub.book(), &book);
        prop_assert!(book.is_balanced());
        let row = &kept.hub.gateways()[&gateway()];
        prop_assert_eq!(row.hash, chain_of(&records));
        prop_assert_eq!(row.quarantined as usize, refused);
        prop_assert_eq!(kept.hub.quarantine().len(), refused);
        for (at, row) in kept.hub.quarantine() {
            prop_assert_eq!(&row.bytes, &records[at.sequence as usize - 1]);
        }
        prop_assert_eq!(&replayed(&kept.events), &kept.hub);
        prop_assert_eq!(&restored(&kept.hub), &kept.hub);
    }

    #[test]
    fn no_bytes_of_a_store_lead_to_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = hub::record::decode(&bytes);
        let _ = hub::snapshot::restore(&mut hub::core::Hub::default(), &bytes);
    }
}

#[test]
fn a_cut_or_newer_record_is_an_error() {
    let kept = {
        let mut kept = Kept::open();
        kept.step(&upload(
            1,
            1,
            [bytes(&record(1, RecordKind::Hold, 1, 12)), vec![1, 2, 3]],
        ));
        kept
    };
    for event in &kept.events {
        let bytes = hub::record::encode(event);
        for end in 0..bytes.len() {
            assert!(hub::record::decode(&bytes[..end]).is_err(), "{event:?} cut at {end}");
        }
        let mut newer = bytes.clone();
        newer[1] = 2;
        assert_eq!(
            hub::record::decode(&newer),
            Err(hub::record::RecordError::Version { found: 2 })
        );
    }
}
