//! The book: tables of records, and what holds after any of them.

use proptest::prelude::*;
use proto::{
    book::{Account, Balance, Book, BookError, Phase, Transfer},
    id::{Kind, SessionId},
    link::{LedgerRecord, RecordKind},
    money::Money,
};

use crate::{samples::content::record, tariff_props::config};

fn session(number: u8) -> SessionId {
    SessionId([number; 16])
}

fn fact(kind: RecordKind, number: u8, account: u64, amount: i64) -> LedgerRecord {
    LedgerRecord {
        kind,
        session: session(number),
        account,
        amount: Money(amount),
        device_kind: Kind::Washer,
        ..record()
    }
}

use RecordKind::{Capture, Hold, Indeterminate, Other, Started, Void};

const fn balance(debits_pending: i64, debits_posted: i64, credits_pending: i64, credits_posted: i64) -> Balance {
    Balance {
        debits_pending: Money(debits_pending),
        debits_posted: Money(debits_posted),
        credits_pending: Money(credits_pending),
        credits_posted: Money(credits_posted),
    }
}

/// Sums after the records: customer 1, clearing, revenue.
#[test]
fn records_move_money_as_the_table_says() {
    let zero = Balance::default();
    let rows: Vec<(&str, Vec<LedgerRecord>, [Balance; 3])> = vec![
        ("nothing", vec![], [zero; 3]),
        (
            "hold",
            vec![fact(Hold, 1, 1, 600)],
            [balance(600, 0, 0, 0), balance(0, 0, 600, 0), zero],
        ),
        (
            "capture of a part",
            vec![fact(Hold, 1, 1, 600), fact(Started, 1, 1, 0), fact(Capture, 1, 1, 400)],
            [balance(0, 400, 0, 0), balance(0, 400, 0, 400), balance(0, 0, 0, 400)],
        ),
        (
            "capture of all",
            vec![fact(Hold, 1, 1, 600), fact(Capture, 1, 1, 600)],
            [balance(0, 600, 0, 0), balance(0, 600, 0, 600), balance(0, 0, 0, 600)],
        ),
        (
            "capture of nothing",
            vec![fact(Hold, 1, 1, 600), fact(Capture, 1, 1, 0)],
            [zero; 3],
        ),
        ("void", vec![fact(Hold, 1, 1, 600), fact(Void, 1, 1, 600)], [zero; 3]),
        (
            "indeterminate keeps the hold",
            vec![
                fact(Hold, 1, 1, 600),
                fact(Indeterminate, 1, 1, 0),
                fact(Other, 1, 1, 9),
            ],
            [balance(600, 0, 0, 0), balance(0, 0, 600, 0), zero],
        ),
        (
            "two sessions of one account",
            vec![fact(Hold, 1, 1, 600), fact(Hold, 2, 1, 50), fact(Capture, 1, 1, 100)],
            [balance(50, 100, 0, 0), balance(0, 100, 50, 100), balance(0, 0, 0, 100)],
        ),
        (
            "the account is the hold's",
            vec![fact(Hold, 1, 1, 600), fact(Capture, 1, 2, 100)],
            [balance(0, 100, 0, 0), balance(0, 100, 0, 100), balance(0, 0, 0, 100)],
        ),
    ];
    for (name, records, expected) in rows {
        let mut book = Book::default();
        for record in &records {
            book.book(record).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(book.is_balanced(), "{name}");
        }
        let accounts = [Account::Customer(1), Account::Clearing, Account::Revenue(Kind::Washer)];
        assert_eq!(accounts.map(|account| book.balance(&account)), expected, "{name}");
    }
}

#[test]
fn lines_say_who_paid_whom_in_which_phase() {
    let mut book = Book::default();
    let line = |phase, debit, credit, amount| Transfer {
        sequence: record().sequence,
        session: session(1),
        phase,
        debit,
        credit,
        amount: Money(amount),
    };
    let (customer, clearing, revenue) = (Account::Customer(1), Account::Clearing, Account::Revenue(Kind::Washer));
    let held = book.book(&fact(Hold, 1, 1, 600));
    assert_eq!(held, Ok(vec![line(Phase::Pending, customer, clearing, 600)]));
    assert_eq!(
        book.holds().collect::<Vec<_>>(),
        [(&session(1), Account::Customer(1), Money(600))]
    );
    let void = book.lines(&fact(Void, 1, 1, 1));
    assert_eq!(
        void,
        Ok(vec![line(Phase::Void, customer, clearing, 600)]),
        "a void frees all"
    );
    let captured = book.book(&fact(Capture, 1, 1, 400));
    let expected = vec![
        line(Phase::Post, customer, clearing, 400),
        line(Phase::Direct, clearing, revenue, 400),
    ];
    assert_eq!(captured, Ok(expected));
    assert_eq!(book.holds().count(), 0);
    assert_eq!(book.book(&fact(Started, 1, 1, 0)), Ok(vec![]));
    let texts: Vec<String> = book.balances().map(|(account, _)| account.to_string()).collect();
    assert_eq!(texts, ["customer:1", "clearing", "revenue:washer"]);
}

#[test]
fn a_record_that_does_not_fit_changes_nothing_and_says_why() {
    let mut start = Book::default();
    start.book(&fact(Hold, 1, 1, 600)).expect("a hold");
    let rows = [
        (
            "held twice",
            fact(Hold, 1, 1, 600),
            BookError::HeldTwice(session(1)),
            "has a hold already",
        ),
        (
            "never held",
            fact(Capture, 2, 1, 1),
            BookError::NotHeld(session(2)),
            "has no hold",
        ),
        (
            "void without hold",
            fact(Void, 2, 1, 1),
            BookError::NotHeld(session(2)),
            "has no hold",
        ),
        (
            "above the hold",
            fact(Capture, 1, 1, 601),
            BookError::AboveHold {
                session: session(1),
                charge: Money(601),
                hold: Money(600),
            },
            "6.01 captured for session 01010101010101010101010101010101, which holds 6.00",
        ),
        (
            "negative",
            fact(Hold, 2, 1, -1),
            BookError::Amount(Money(-1)),
            "the amount -0.01 cannot be booked",
        ),
        (
            "negative and void",
            fact(Void, 1, 1, -1),
            BookError::Amount(Money(-1)),
            "cannot be booked",
        ),
        (
            "beyond the range",
            fact(Hold, 2, 1, i64::MAX),
            BookError::Amount(Money(i64::MAX)),
            "cannot be booked",
        ),
        (
            "of others too",
            fact(Hold, 2, 2, i64::MAX),
            BookError::Amount(Money(i64::MAX)),
            "cannot be booked",
        ),
    ];
    for (name, record, expected, text) in rows {
        let mut book = start.clone();
        assert!(expected.to_string().contains(text), "{name}: {expected}");
        assert_eq!(book.book(&record), Err(expected), "{name}");
        assert_eq!(book, start, "{name}");
    }
}

/// A capture has two lines; where the second does not fit, the first must not stand.
#[test]
fn a_capture_is_booked_whole_or_not_at_all() {
    let full = balance(0, 0, 0, i64::MAX);
    for account in [Account::Revenue(Kind::Washer), Account::Clearing] {
        let mut book = Book::default();
        book.book(&fact(Hold, 1, 1, 600)).expect("a hold");
        let mut sums = book.balance(&account);
        sums.credits_posted = full.credits_posted;
        book.restore_balance(account, sums);
        let before = book.clone();
        assert_eq!(
            book.book(&fact(Capture, 1, 1, 400)),
            Err(BookError::Amount(Money(400))),
            "{account}"
        );
        assert_eq!(book, before, "{account}");
    }
}

#[test]
fn a_book_put_back_from_a_snapshot_is_the_same() {
    let mut book = Book::default();
    for record in [fact(Hold, 1, 1, 600), fact(Hold, 2, 2, 50), fact(Capture, 1, 1, 100)] {
        book.book(&record).expect("fits");
    }
    let mut again = Book::default();
    for (account, balance) in book.balances() {
        again.restore_balance(*account, *balance);
    }
    for (session, account, amount) in book.holds() {
        again.restore_hold(*session, account, amount);
    }
    assert_eq!(again, book);
    assert!(again.is_balanced());
}

/// A check that always says yes proves nothing.
#[test]
fn a_book_that_does_not_balance_is_noticed() {
    let mut book = Book::default();
    book.restore_balance(Account::Clearing, balance(0, 1, 0, 0));
    assert!(!book.is_balanced(), "posted");
    let mut book = Book::default();
    book.restore_balance(Account::Clearing, balance(1, 0, 0, 0));
    assert!(!book.is_balanced(), "pending");
    let mut book = Book::default();
    book.restore_hold(session(1), Account::Customer(1), Money(5));
    assert!(!book.is_balanced(), "a hold without money");
}

fn records() -> impl Strategy<Value = LedgerRecord> {
    let kind = prop::sample::select(RecordKind::ALL);
    let device_kind = prop::sample::select(Kind::ALL);
    let amount = prop_oneof![8 => 0..1_000i64, 1 => any::<i64>(), 1 => (i64::MAX - 1_000)..=i64::MAX];
    (kind, 0..6u8, 0..3u64, amount, device_kind).prop_map(|(kind, number, account, amount, device_kind)| LedgerRecord {
        device_kind,
        ..fact(kind, number, account, amount)
    })
}

proptest! {
    #![proptest_config(config(500))]

    /// Right or wrong, in any order: the book balances, and a record that fails changes nothing.
    #[test]
    fn any_records_leave_the_book_balanced(records in prop::collection::vec(records(), 0..80)) {
        let mut book = Book::default();
        for record in &records {
            let before = book.clone();
            let announced = book.lines(record);
            match book.book(record) {
                Ok(lines) => prop_assert_eq!(Ok(lines), announced),
                Err(_) => prop_assert_eq!(&book, &before),
            }
            prop_assert!(book.is_balanced());
        }
        let held: i128 = book.holds().map(|(_, _, amount)| i128::from(amount.0)).sum();
        prop_assert_eq!(i128::from(book.balance(&Account::Clearing).credits_pending.0), held);
    }

    /// What customers paid is what was sold; clearing keeps nothing.
    #[test]
    fn what_was_paid_was_sold(records in prop::collection::vec(records(), 0..80)) {
        let mut book = Book::default();
        for record in &records {
            let _ = book.book(record);
        }
        let (mut paid, mut sold) = (0, 0);
        for (account, sums) in book.balances() {
            match account {
                // What a lease gives back is the customer's again.
                Account::Customer(_) | Account::Lease(..) | Account::Prepaid => {
                    paid += i128::from(sums.debits_posted.0) - i128::from(sums.credits_posted.0);
                }
                Account::Revenue(_) => sold += i128::from(sums.credits_posted.0),
                Account::Clearing => prop_assert_eq!(sums.debits_posted, sums.credits_posted),
                Account::Loss(_) | Account::Dispute => unreachable!("no record moves it"),
            }
        }
        prop_assert_eq!(paid, sold);
    }
}
