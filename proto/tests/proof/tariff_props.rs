//! What holds for every bill.

use proptest::{prelude::*, test_runner::RngSeed};
use proto::{
    money::{Money, Units},
    tariff::{Bill, Dimension, PRICE_MILLI_MAX, PriceElement, Tariff, Usage},
};

const DAY_S: u32 = 86_400;

/// The same cases in every run, so that a red test is red for everybody; a failure prints its smallest case.
pub(crate) fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        rng_seed: RngSeed::Fixed(20_231_112),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

fn element(flat: bool) -> impl Strategy<Value = PriceElement> {
    let dimension = prop_oneof![Just(Dimension::Energy), Just(Dimension::Time), Just(Dimension::Idle)];
    let minutes = if flat { 0..=0u16 } else { 0..=1439u16 };
    (dimension, 0..=1_000_000i64, minutes, 1..=1440u16, 0..3u32).prop_map(move |(dimension, price, from, to, band)| {
        let range = if flat || from == to { (0, 1440) } else { (from, to) };
        PriceElement {
            minute_from: range.0,
            minute_to: range.1,
            power_w_min: band * 1_000,
            power_w_max: if band == 2 { 0 } else { (band + 1) * 1_000 },
            ..PriceElement::flat(dimension, price)
        }
    })
}

fn tariffs(flat: bool) -> impl Strategy<Value = Tariff> {
    let fees = (0..500i64, 0..500i64, prop_oneof![Just(0), 500..5_000i64]);
    (prop::collection::vec(element(flat), 0..=8), fees).prop_map(|(elements, (start_fee, minimum, cap))| {
        let tariff = Tariff {
            id: 1,
            start_fee: Money(start_fee),
            minimum: Money(minimum),
            cap: Money(cap),
            elements: elements.into_iter().collect(),
        };
        tariff.check().expect("the strategy makes good tariffs");
        tariff
    })
}

fn usages() -> impl Strategy<Value = Usage> {
    let second = prop_oneof![4 => (0..DAY_S).prop_map(Some), 1 => Just(None)];
    (0..100_000u64, 0..200_000u32, 0..=100u32, 0..4_000u32, second).prop_map(
        |(units, duration_s, idle, power_w, at)| Usage {
            units: Units(units),
            duration_s,
            idle_s: (u64::from(duration_s) * u64::from(idle) / 100) as u32,
            power_w,
            second_of_day: at,
        },
    )
}

fn bill(tariff: &Tariff, slices: &[Usage]) -> Bill {
    let mut bill = Bill::default();
    for usage in slices {
        bill.add(tariff, Dimension::Energy, usage);
    }
    bill
}

/// The slice until `at_s` and from there.
fn split(usage: Usage, at_s: u32) -> [Usage; 2] {
    let share = |quantity: u64| match usage.duration_s {
        0 => 0,
        duration_s => (u128::from(quantity) * u128::from(at_s) / u128::from(duration_s)) as u64,
    };
    let first = Usage {
        units: Units(share(usage.units.0)),
        duration_s: at_s,
        idle_s: share(u64::from(usage.idle_s)) as u32,
        ..usage
    };
    let second = Usage {
        units: Units(usage.units.0 - first.units.0),
        duration_s: usage.duration_s - at_s,
        idle_s: usage.idle_s - first.idle_s,
        second_of_day: usage.second_of_day.map(|second| (second + at_s) % DAY_S),
        ..usage
    };
    [first, second]
}

/// Whether a dimension has a price at every minute for this power.
fn covers(tariff: &Tariff, dimension: Dimension, power_w: u32) -> bool {
    (0..1440).all(|minute| {
        tariff.elements.iter().any(|e| {
            let in_power = e.power_w_min <= power_w && (e.power_w_max == 0 || power_w < e.power_w_max);
            let in_time = if e.minute_from < e.minute_to {
                (e.minute_from..e.minute_to).contains(&minute)
            } else {
                minute >= e.minute_from || minute < e.minute_to
            };
            e.dimension == dimension && in_power && in_time
        })
    })
}

fn counted(tariff: &Tariff, bill: &Bill, dimension: Dimension) -> u64 {
    let pairs = tariff.elements.iter().zip(bill.quantities);
    pairs
        .filter(|(e, _)| e.dimension == dimension)
        .map(|(_, quantity)| quantity)
        .sum()
}

proptest! {
    #![proptest_config(config(1_000))]

    /// Where a gateway cuts a session into slices must not change what it costs.
    #[test]
    fn splitting_a_slice_at_any_second_changes_no_flat_bill(
        tariff in tariffs(true), usage in usages(), at in 0..=1_000u32,
    ) {
        let at_s = (u64::from(usage.duration_s) * u64::from(at) / 1_000) as u32;
        let (whole, parts) = (bill(&tariff, &[usage]), bill(&tariff, &split(usage, at_s)));
        prop_assert_eq!(whole, parts);
        prop_assert_eq!(whole.total(&tariff), parts.total(&tariff));
    }

    /// With times of use the seconds are exact; units may move by the fractions that every boundary leaves.
    #[test]
    fn splitting_a_slice_moves_at_most_fractions_between_times_of_use(
        tariff in tariffs(false), usage in usages(), at in 0..=1_000u32,
    ) {
        let at_s = (u64::from(usage.duration_s) * u64::from(at) / 1_000) as u32;
        let (whole, parts) = (bill(&tariff, &[usage]), bill(&tariff, &split(usage, at_s)));
        for (i, element) in tariff.elements.iter().enumerate() {
            let (a, b) = (whole.quantities[i], parts.quantities[i]);
            let pieces = 2 * (u64::from(usage.duration_s / DAY_S) + 2) * 16;
            let slack = if element.dimension == Dimension::Time { 0 } else { pieces };
            prop_assert!(a.abs_diff(b) <= slack, "element {}: {} and {}", i, a, b);
        }
    }

    #[test]
    fn quantities_add_up_exactly(tariff in tariffs(false), usage in usages()) {
        let bill = bill(&tariff, &[usage]);
        let rows = [
            (Dimension::Energy, usage.units.0),
            (Dimension::Time, u64::from(usage.duration_s)),
            (Dimension::Idle, u64::from(usage.idle_s)),
        ];
        for (dimension, quantity) in rows {
            let counted = counted(&tariff, &bill, dimension);
            prop_assert!(counted <= quantity);
            if covers(&tariff, dimension, usage.power_w) {
                prop_assert_eq!(counted, quantity);
            }
        }
    }

    /// Without a clock nobody pays more than with any clock.
    #[test]
    fn an_unknown_clock_is_never_dearer(tariff in tariffs(false), usage in usages(), second in 0..DAY_S) {
        let total = |second_of_day| bill(&tariff, &[Usage { second_of_day, ..usage }]).total(&tariff);
        prop_assert!(total(None) <= total(Some(second)));
    }

    #[test]
    fn more_slices_never_cost_less(tariff in tariffs(false), slices in prop::collection::vec(usages(), 0..6)) {
        let mut last = bill(&tariff, &[]).total(&tariff);
        for len in 1..=slices.len() {
            let next = bill(&tariff, &slices[..len]).total(&tariff);
            prop_assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn more_of_anything_never_costs_less_when_flat(tariff in tariffs(true), a in usages(), more in usages()) {
        let b = Usage {
            units: Units(a.units.0 + more.units.0),
            duration_s: a.duration_s + more.duration_s,
            idle_s: a.idle_s + more.idle_s,
            ..a
        };
        prop_assert!(bill(&tariff, &[b]).total(&tariff) >= bill(&tariff, &[a]).total(&tariff));
    }

    #[test]
    fn a_total_stays_between_minimum_and_cap(tariff in tariffs(false), slices in prop::collection::vec(usages(), 0..6)) {
        let total = bill(&tariff, &slices).total(&tariff);
        prop_assert!(total >= tariff.minimum);
        prop_assert!(tariff.cap == Money::ZERO || total <= tariff.cap);
    }

    /// The device switches off at `units_within`: what it delivered by then fits the hold.
    #[test]
    fn units_within_never_cost_more_than_the_money(tariff in tariffs(false), money in 0..100_000i64) {
        let tariff = Tariff { minimum: Money::ZERO, ..tariff };
        if let Some(units) = tariff.units_within(Dimension::Energy, Money(money)) {
            let usage = Usage { units, power_w: 500, second_of_day: Some(0), ..Usage::default() };
            let total = bill(&tariff, &[usage]).total(&tariff);
            prop_assert!(total <= Money(money).max(tariff.start_fee), "{} Wh cost {}", units.0, total);
        }
    }

    /// Not even a tariff that nobody checked makes the engine panic.
    #[test]
    fn no_numbers_reach_a_panic(
        raw in prop::collection::vec(any::<(u8, i64, u16, u16, u32, u32)>(), 0..=8),
        fees in any::<[i64; 3]>(),
        quantities in any::<[u64; 8]>(),
        (units, idle_s, power_w, second) in any::<(u64, u32, u32, Option<u32>)>(),
        duration_s in 0..2 * DAY_S,
    ) {
        let element = |(dimension, price_milli, minute_from, minute_to, power_w_min, power_w_max)| PriceElement {
            dimension: Dimension::from_code(dimension), price_milli, minute_from, minute_to, power_w_min, power_w_max,
        };
        let tariff = Tariff {
            id: 0,
            start_fee: Money(fees[0]),
            minimum: Money(fees[1]),
            cap: Money(fees[2]),
            elements: raw.into_iter().map(element).collect(),
        };
        let mut bill = Bill { quantities };
        let usage = Usage { units: Units(units), duration_s, idle_s, power_w, second_of_day: second };
        bill.add(&tariff, Dimension::Energy, &usage);
        let _ = (bill.total(&tariff), tariff.check(), tariff.hash());
        for dimension in Dimension::ALL {
            let _ = tariff.units_within(*dimension, Money(fees[0]));
        }
    }
}

/// The corners that random numbers do not hit.
#[test]
fn the_ends_of_the_range_do_not_panic() {
    for price in [i64::MIN, -1, 0, 1, PRICE_MILLI_MAX, i64::MAX] {
        for fee in [i64::MIN, 0, i64::MAX] {
            for dimension in Dimension::ALL {
                let mut tariff = Tariff::flat(1, &[(*dimension, price); 8]);
                (tariff.start_fee, tariff.minimum, tariff.cap) = (Money(fee), Money(fee), Money(fee));
                let mut bill = Bill {
                    quantities: [u64::MAX; 8],
                };
                let usage = Usage {
                    units: Units(u64::MAX),
                    second_of_day: Some(u32::MAX),
                    ..Usage::default()
                };
                bill.add(&tariff, *dimension, &usage);
                let _ = (
                    bill.total(&tariff),
                    tariff.hash(),
                    tariff.units_within(*dimension, Money(fee)),
                );
            }
        }
    }
}
