//! Slices in, quantities and money out, computed by hand.

use proto::{
    money::{Money, Units},
    tariff::{Dimension, Dimension::*, PRICE_MILLI_MAX, PriceElement, Tariff, Usage},
};

use crate::samples::content::evening_tariff;

/// A row of the table.
pub(crate) struct Case {
    /// Name of the vector.
    pub(crate) name: &'static str,
    /// What it shows.
    pub(crate) comment: &'static str,
    /// The price.
    pub(crate) tariff: Tariff,
    /// What the register counts.
    pub(crate) register: Dimension,
    /// What was used.
    pub(crate) slices: Vec<Usage>,
    /// Of the first elements; the others are zero.
    pub(crate) quantities: Vec<u64>,
    /// In minor units.
    pub(crate) total: i64,
}

/// The table.
pub(crate) fn cases() -> Vec<Case> {
    let groups = [dimensions, fees, times_of_use, extremes];
    groups.iter().flat_map(|group| group()).collect()
}

const fn clock(hour: u32, minute: u32, second: u32) -> Option<u32> {
    Some(hour * 3600 + minute * 60 + second)
}

/// Units, duration, of it idle, begin.
const fn slice(units: u64, duration_s: u32, idle_s: u32, second_of_day: Option<u32>) -> Usage {
    Usage {
        units: Units(units),
        duration_s,
        idle_s,
        power_w: 0,
        second_of_day,
    }
}

/// A tariff of these elements, without fees.
pub(crate) fn tariff(elements: &[PriceElement]) -> Tariff {
    Tariff {
        elements: elements.iter().copied().collect(),
        ..Tariff::default()
    }
}

const fn between(dimension: Dimension, price_milli: i64, hour_from: u16, hour_to: u16) -> PriceElement {
    PriceElement {
        minute_from: hour_from * 60,
        minute_to: hour_to * 60,
        ..PriceElement::flat(dimension, price_milli)
    }
}

const NOON: Option<u32> = clock(12, 0, 0);

fn dimensions() -> Vec<Case> {
    let case = |name, comment, elements: &[PriceElement], register, slices: &[Usage], quantities: &[u64], total| Case {
        name,
        comment,
        tariff: tariff(elements),
        register,
        slices: slices.to_vec(),
        quantities: quantities.to_vec(),
        total,
    };
    let flat = PriceElement::flat;
    vec![
        case(
            "bill-energy",
            "1.5 kWh at 1.20",
            &[flat(Energy, 120_000)],
            Energy,
            &[slice(1_500, 600, 0, NOON)],
            &[1_500],
            180,
        ),
        case(
            "bill-time",
            "61 s at 0.05 a minute",
            &[flat(Time, 5_000)],
            Energy,
            &[slice(9, 61, 0, NOON)],
            &[61],
            5,
        ),
        case(
            "bill-cycle",
            "one wash at 6.00",
            &[flat(Cycle, 600_000)],
            Cycle,
            &[slice(1, 2_700, 0, NOON)],
            &[1],
            600,
        ),
        case(
            "bill-volume",
            "330 ml at 0.40 a litre",
            &[flat(Volume, 40_000)],
            Volume,
            &[slice(330, 20, 2, NOON)],
            &[330],
            13,
        ),
        case(
            "bill-idle",
            "1 kWh at 1.00 and 10 idle minutes at 0.20",
            &[flat(Energy, 100_000), flat(Idle, 20_000)],
            Energy,
            &[slice(1_000, 3_600, 600, NOON)],
            &[1_000, 600],
            300,
        ),
        case(
            "bill-half-up",
            "5 Wh at 1.00: exactly half a fen",
            &[flat(Energy, 100_000)],
            Energy,
            &[slice(5, 60, 0, NOON)],
            &[5],
            1,
        ),
        case(
            "bill-below-half",
            "4 Wh at 1.00: below half a fen",
            &[flat(Energy, 100_000)],
            Energy,
            &[slice(4, 60, 0, NOON)],
            &[4],
            0,
        ),
        case(
            "bill-half-odd",
            "15 Wh: one fen and a half",
            &[flat(Energy, 100_000)],
            Energy,
            &[slice(15, 60, 0, NOON)],
            &[15],
            2,
        ),
        case(
            "bill-half-time",
            "30 s at 0.01 a minute",
            &[flat(Time, 1_000)],
            Energy,
            &[slice(0, 30, 0, NOON)],
            &[30],
            1,
        ),
        case(
            "bill-below-half-time",
            "29 s at 0.01 a minute",
            &[flat(Time, 1_000)],
            Energy,
            &[slice(0, 29, 0, NOON)],
            &[29],
            0,
        ),
        case(
            "bill-one-rounding",
            "0.3 of energy and 0.2 of time are half a fen together; rounded apart they would be nothing",
            &[flat(Energy, 100_000), flat(Time, 1_000)],
            Energy,
            &[slice(3, 12, 0, NOON)],
            &[3, 12],
            1,
        ),
        case(
            "bill-slices-do-not-round",
            "three slices of 0.4 are 1.2",
            &[flat(Energy, 100_000)],
            Energy,
            &[slice(4, 60, 0, NOON), slice(4, 60, 0, NOON), slice(4, 60, 0, NOON)],
            &[12],
            1,
        ),
    ]
}

fn fees() -> Vec<Case> {
    let case = |name, comment, start_fee, minimum, cap, units, total| Case {
        name,
        comment,
        tariff: Tariff {
            start_fee: Money(start_fee),
            minimum: Money(minimum),
            cap: Money(cap),
            ..tariff(&[PriceElement::flat(Energy, 100_000)])
        },
        register: Energy,
        slices: vec![slice(units, 60, 0, NOON)],
        quantities: vec![units],
        total,
    };
    vec![
        case("bill-start-fee", "the start fee alone", 50, 0, 0, 0, 50),
        case("bill-start-fee-added", "and with 1 kWh", 50, 0, 0, 1_000, 150),
        case("bill-minimum", "1 kWh is below the minimum", 0, 300, 0, 1_000, 300),
        case("bill-above-minimum", "the minimum is no fee", 0, 300, 0, 3_010, 301),
        case("bill-cap", "10 kWh are above the cap", 50, 0, 700, 10_000, 700),
        case(
            "bill-cap-below",
            "6.49 kWh are not, fee included",
            50,
            0,
            700,
            6_490,
            699,
        ),
        case("bill-minimum-is-cap", "a fixed price", 50, 700, 700, 6_490, 700),
    ]
}

fn times_of_use() -> Vec<Case> {
    let case = |name, comment, tariff, slices: &[Usage], quantities: &[u64], total| Case {
        name,
        comment,
        tariff,
        register: Energy,
        slices: slices.to_vec(),
        quantities: quantities.to_vec(),
        total,
    };
    let evening = evening_tariff;
    let bounded = |price, power_w_min, power_w_max| PriceElement {
        power_w_min,
        power_w_max,
        ..PriceElement::flat(Energy, price)
    };
    let bands = [bounded(100_000, 0, 7_000), bounded(150_000, 7_000, 0)];
    let at_power = |units, power_w| Usage {
        power_w,
        ..slice(units, 600, 0, NOON)
    };
    let overlap = [between(Energy, 90_000, 10, 14), PriceElement::flat(Energy, 60_000)];
    let day_idle = [PriceElement::flat(Energy, 100_000), between(Idle, 20_000, 8, 20)];
    let whole = [between(Energy, 30_000, 22, 8), between(Energy, 20_000, 8, 22)];
    vec![
        case(
            "bill-midnight",
            "21:00 to 09:00: one hour of day, ten of night, one of day",
            evening(),
            &[slice(12_000, 43_200, 0, clock(21, 0, 0))],
            &[2_000, 10_000, 0],
            745,
        ),
        case(
            "bill-days",
            "two days and a half from midnight",
            evening(),
            &[slice(21_600, 216_000, 600, clock(0, 0, 0))],
            &[11_520, 10_080, 600],
            1_991,
        ),
        case(
            "bill-odd-split",
            "7 Wh in 3 s, of which one second is day",
            evening(),
            &[slice(7, 3, 2, clock(21, 59, 59))],
            &[2, 5, 2],
            100,
        ),
        case(
            "bill-edge",
            "22:00:00 is night, 08:00:00 is day",
            evening(),
            &[
                slice(1_000, 60, 0, clock(22, 0, 0)),
                slice(2_000, 60, 0, clock(8, 0, 0)),
                slice(4_000, 1, 0, clock(7, 59, 59)),
            ],
            &[2_000, 5_000, 0],
            518,
        ),
        case(
            "bill-no-duration",
            "a reading without time falls where it stands",
            evening(),
            &[slice(1_000, 0, 0, clock(22, 0, 0))],
            &[0, 1_000, 0],
            100,
        ),
        case(
            "bill-first-match",
            "of two that fit the first applies",
            tariff(&overlap),
            &[slice(1_000, 60, 0, NOON), slice(2_000, 60, 0, clock(14, 0, 0))],
            &[1_000, 2_000],
            210,
        ),
        case(
            "bill-unpriced-hour",
            "no price at night: free",
            tariff(&[between(Energy, 100_000, 8, 22)]),
            &[slice(6_000, 7_200, 0, clock(21, 0, 0))],
            &[3_000],
            300,
        ),
        case(
            "bill-power-bands",
            "below and from 7 kW",
            tariff(&bands),
            &[at_power(1_000, 6_999), at_power(2_000, 7_000)],
            &[1_000, 2_000],
            400,
        ),
        case(
            "bill-unknown-clock",
            "no clock: the night price",
            evening(),
            &[slice(10_000, 3_600, 60, None)],
            &[0, 10_000, 60],
            515,
        ),
        case(
            "bill-unknown-clock-unpriced",
            "no clock, and idle costs nothing at night: nothing",
            tariff(&day_idle),
            &[slice(1_000, 3_600, 600, None)],
            &[1_000, 0],
            100,
        ),
        case(
            "bill-unknown-clock-covered",
            "no clock, two elements cover the day: the cheaper",
            tariff(&whole),
            &[slice(1_000, 3_600, 0, None)],
            &[0, 1_000],
            20,
        ),
    ]
}

fn extremes() -> Vec<Case> {
    let most = Usage {
        power_w: u32::MAX,
        ..slice(u64::MAX, u32::MAX, u32::MAX, Some(86_399))
    };
    let elements = [Energy, Time, Idle].map(|dimension| PriceElement::flat(dimension, PRICE_MILLI_MAX));
    vec![Case {
        name: "bill-extreme",
        comment: "everything at its end, twice: quantities and money stop at theirs",
        tariff: Tariff {
            start_fee: Money(i64::MAX),
            ..tariff(&elements)
        },
        register: Energy,
        slices: vec![most, most],
        quantities: vec![u64::MAX, 2 * u64::from(u32::MAX), 2 * u64::from(u32::MAX)],
        total: i64::MAX,
    }]
}
