//! Bills against the table, each row of which is a frozen vector too; and tariffs that cannot be used.

use proto::{
    codec,
    money::{Money, Units},
    tariff::{Bill, Dimension::*, ELEMENTS_MAX, PRICE_MILLI_MAX, PriceElement, Tariff, TariffError, Usage},
};

use crate::{
    samples::content::evening_tariff,
    tariff_cases::{Case, cases, tariff},
    vector::{Vector, hex, read},
};

fn bill(case: &Case) -> Bill {
    let mut bill = Bill::default();
    for usage in &case.slices {
        bill.add(&case.tariff, case.register, usage);
    }
    bill
}

/// Every bill as a vector.
pub(crate) fn vectors() -> Vec<Vector> {
    let vector = |case: &Case| {
        let bill = bill(case);
        let mut vector = Vector::new(case.name, "bill", case.comment)
            .with_bytes("tariff", &codec::to_vec(&case.tariff))
            .with("tariff-hash", case.tariff.hash())
            .with("register", case.register.code());
        for usage in &case.slices {
            let second = usage.second_of_day.map_or("-".to_string(), |second| second.to_string());
            let Usage {
                units,
                duration_s,
                idle_s,
                power_w,
                ..
            } = usage;
            vector = vector.with("slice", format!("{} {duration_s} {idle_s} {power_w} {second}", units.0));
        }
        let quantities: Vec<String> = bill.quantities.iter().map(u64::to_string).collect();
        vector
            .with("quantities", quantities.join(" "))
            .with("total", bill.total(&case.tariff).0)
    };
    cases().iter().map(vector).collect()
}

#[test]
fn bills_are_what_a_person_computes() {
    for case in cases() {
        case.tariff
            .check()
            .unwrap_or_else(|error| panic!("{}: {error}", case.name));
        let bill = bill(&case);
        let mut quantities = case.quantities.clone();
        quantities.resize(ELEMENTS_MAX, 0);
        assert_eq!(bill.quantities, quantities[..], "{}", case.name);
        assert_eq!(bill.total(&case.tariff), Money(case.total), "{}", case.name);
    }
}

#[test]
fn the_hash_of_a_tariff_is_that_of_its_bytes_in_a_grant() {
    let grant = hex(&read("grant-typical").bytes("body"));
    let tariff = evening_tariff();
    assert!(grant.contains(&hex(&codec::to_vec(&tariff))));
    assert!(grant.contains(&tariff.hash().to_string()));
}

#[test]
fn a_tariff_that_cannot_be_used_is_refused() {
    let flat = PriceElement::flat(Energy, 1);
    let with = |element| tariff(&[flat, element]);
    let rows: Vec<(&str, Tariff, Result<(), TariffError>)> = vec![
        ("empty", Tariff::default(), Ok(())),
        (
            "start fee",
            Tariff {
                start_fee: Money(-1),
                ..Tariff::default()
            },
            Err(TariffError::Negative),
        ),
        (
            "minimum",
            Tariff {
                minimum: Money(-1),
                ..Tariff::default()
            },
            Err(TariffError::Negative),
        ),
        (
            "cap",
            Tariff {
                cap: Money(-1),
                ..Tariff::default()
            },
            Err(TariffError::Negative),
        ),
        (
            "cap below",
            Tariff {
                minimum: Money(2),
                cap: Money(1),
                ..Tariff::default()
            },
            Err(TariffError::CapBelowMinimum),
        ),
        (
            "no cap",
            Tariff {
                minimum: Money(2),
                ..Tariff::default()
            },
            Ok(()),
        ),
        ("free", with(PriceElement { price_milli: 0, ..flat }), Ok(())),
        (
            "dearest",
            with(PriceElement {
                price_milli: PRICE_MILLI_MAX,
                ..flat
            }),
            Ok(()),
        ),
        (
            "too dear",
            with(PriceElement {
                price_milli: PRICE_MILLI_MAX + 1,
                ..flat
            }),
            Err(TariffError::Price(1)),
        ),
        (
            "negative",
            with(PriceElement {
                price_milli: -1,
                ..flat
            }),
            Err(TariffError::Price(1)),
        ),
        (
            "dimension",
            with(PriceElement {
                dimension: Other,
                ..flat
            }),
            Err(TariffError::Dimension(1)),
        ),
        (
            "last minute",
            with(PriceElement {
                minute_from: 1439,
                ..flat
            }),
            Ok(()),
        ),
        (
            "from outside",
            with(PriceElement {
                minute_from: 1440,
                ..flat
            }),
            Err(TariffError::Range(1)),
        ),
        (
            "to outside",
            with(PriceElement {
                minute_to: 1441,
                ..flat
            }),
            Err(TariffError::Range(1)),
        ),
        (
            "to zero",
            with(PriceElement {
                minute_from: 5,
                minute_to: 0,
                ..flat
            }),
            Err(TariffError::Range(1)),
        ),
        (
            "no minute",
            with(PriceElement {
                minute_from: 5,
                minute_to: 5,
                ..flat
            }),
            Err(TariffError::Range(1)),
        ),
        (
            "no power",
            with(PriceElement {
                power_w_min: 5,
                power_w_max: 5,
                ..flat
            }),
            Err(TariffError::Range(1)),
        ),
        (
            "one watt",
            with(PriceElement {
                power_w_min: 5,
                power_w_max: 6,
                ..flat
            }),
            Ok(()),
        ),
    ];
    for (name, tariff, expected) in rows {
        assert_eq!(tariff.check(), expected, "{name}");
    }
}

#[test]
fn money_buys_units_at_the_dearest_price() {
    let check = |tariff: &Tariff, dimension, money, expected: Option<u64>| {
        assert_eq!(
            tariff.units_within(dimension, Money(money)),
            expected.map(Units),
            "{tariff:?} {money}"
        );
    };
    let evening = evening_tariff();
    check(&evening, Energy, 1_250, Some(10_000));
    check(&evening, Energy, 50, Some(0));
    check(&evening, Energy, i64::MIN, Some(0));
    check(&evening, Volume, 1_250, None);
    check(&tariff(&[PriceElement::flat(Energy, 0)]), Energy, 1_250, None);
    check(
        &tariff(&[PriceElement::flat(Energy, 1)]),
        Energy,
        i64::MAX,
        Some(u64::MAX),
    );
}
