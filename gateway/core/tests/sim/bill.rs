//! What units cost, computed from the price list as a person reads it: for the auditor, apart from the tariff engine.

use proto::tariff::{Dimension, Tariff};

/// Base units that one price covers.
fn per_price(dimension: Dimension) -> i128 {
    match dimension {
        Dimension::Energy | Dimension::Volume => 1000,
        Dimension::Cycle => 1,
        Dimension::Time | Dimension::Idle | Dimension::Other => panic!("the simulation has no such price"),
    }
}

/// Whether there is one price only.
pub(crate) fn is_flat(tariff: &Tariff) -> bool {
    tariff.elements.len() == 1
}

/// The most that a started session of so many units may cost: at the dearest price, rounded half up.
pub(crate) fn most(tariff: &Tariff, units: u64) -> i64 {
    let cost = |price_milli: i64, per: i128| {
        let thousandths = i128::from(units) * i128::from(price_milli);
        (thousandths + per * 500) / (per * 1000)
    };
    let dearest = tariff
        .elements
        .iter()
        .map(|e| cost(e.price_milli, per_price(e.dimension)))
        .max();
    let sum = dearest.unwrap_or(0) as i64 + tariff.start_fee.0;
    let sum = sum.max(tariff.minimum.0);
    if tariff.cap.0 > 0 { sum.min(tariff.cap.0) } else { sum }
}

/// The least with which anything can be sold: the fees, and one unit that fits in what is left.
pub(crate) fn least(tariff: &Tariff) -> i64 {
    let unit = |price_milli: i64, per: i128| (i128::from(price_milli) + per * 1000 - 1) / (per * 1000);
    let dearest = tariff
        .elements
        .iter()
        .map(|e| unit(e.price_milli, per_price(e.dimension)))
        .max();
    let unit = dearest.unwrap_or(0) as i64;
    (tariff.start_fee.0 + unit).max(tariff.minimum.0).max(1)
}
