//! A record that cannot be booked leaves the book as it was.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used)]

use proto::{
    book::{Account, Balance, Book, BookError},
    id::{Hash, Kind, Name, SessionId, TokenHash},
    link::{LedgerRecord, RecordKind},
    message::{Stamp, StopReason},
    money::{Money, Units},
    tariff::Bill,
};

#[test]
fn a_capture_that_overflows_its_second_line_books_nothing() {
    let record = |sequence, kind| LedgerRecord {
        sequence,
        kind,
        session: SessionId([1; 16]),
        device: Name::new("charger-1").unwrap(),
        outlet: 0,
        device_kind: Kind::Charger,
        token: TokenHash([1; 16]),
        account: 7,
        amount: Money(10),
        register_start: Units(0),
        register_end: Units(0),
        bill: Bill::default(),
        tariff_hash: Hash::ZERO,
        stop_reason: StopReason::Other,
        rule: 7,
        online: false,
        at: Stamp::relative(0),
        boot: 1,
        evidence: proto::link::Evidence::default(),
    };
    let mut book = Book::default();
    book.book(&record(1, RecordKind::Hold)).unwrap();
    let full = Balance {
        credits_posted: Money(i64::MAX),
        ..Balance::default()
    };
    book.restore_balance(Account::Revenue(Kind::Charger), full);
    let before = book.clone();
    let refused = book.book(&record(2, RecordKind::Capture));
    assert_eq!((refused, &book), (Err(BookError::Amount(Money(10))), &before));
    assert_eq!(book.holds().count(), 1, "the hold stands");
}
