//! Bodies of every message between gateway and hub; records that decode are booked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use proto::{
    book::Book,
    codec,
    link::{
        Answer, ArtifactPart, Ask, CounterSeen, Echo, LedgerReceipt, LedgerRecord, LinkHello, RecordKind, Telemetry,
        Trouble, Upload, Welcome,
    },
};
use proto_fuzz::same_again;

fuzz_target!(|body: &[u8]| {
    same_again::<LinkHello>(body);
    same_again::<Welcome>(body);
    same_again::<Ask>(body);
    same_again::<Answer>(body);
    same_again::<LedgerReceipt>(body);
    same_again::<Echo>(body);
    same_again::<CounterSeen>(body);
    same_again::<ArtifactPart>(body);
    same_again::<Trouble>(body);
    same_again::<Telemetry>(body);
    let mut records: Vec<LedgerRecord> = same_again::<LedgerRecord>(body).into_iter().collect();
    if let Some(upload) = same_again::<Upload>(body) {
        records.extend(upload.records.iter().filter_map(|bytes| codec::decode(bytes).ok()));
    }
    let mut book = Book::default();
    for record in &records {
        for kind in RecordKind::ALL {
            let record = LedgerRecord {
                kind: *kind,
                ..record.clone()
            };
            let _ = book.book(&record);
            assert!(book.is_balanced());
        }
    }
});
