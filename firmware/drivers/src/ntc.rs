//! Temperature by a thermistor (NTC) in a voltage divider, read by a 12-bit converter that has the divider's supply as
//! its reference, so that the supply does not matter.
//!
//! ```text
//! R / series = count / (full - count)          thermistor to ground; the inverse with the thermistor to the supply
//! 1 / T = 1 / T25 + ln(R / R25) / beta         T in kelvin
//! ```
//!
//! The logarithm is interpolated in a table of 33 entries, in integers; together with the rounding that is less than
//! 0.1 degrees off in the range that a thermistor is good for.

/// Largest count of the converter.
pub const FULL: u16 = 4_095;
/// A count so near to an end is a wire that is broken or touches another: even a small thermistor at 150 degrees, or
/// a large one at -40, leaves more.
pub const MARGIN: u16 = 16;
const KELVIN_DECI: i64 = 2_732;
const REFERENCE_KELVIN_DECI: i64 = KELVIN_DECI + 250;
/// log2(1 + i / 32) in units of 1 / 65536.
const LOG2: [u32; 33] = [
    0, 2_909, 5_732, 8_473, 11_136, 13_727, 16_248, 18_704, 21_098, 23_433, 25_711, 27_936, 30_109, 32_234, 34_312,
    36_346, 38_336, 40_286, 42_196, 44_068, 45_904, 47_705, 49_472, 51_207, 52_911, 54_584, 56_229, 57_845, 59_434,
    60_997, 62_534, 64_047, 65_536,
];
/// ln(2) in units of 1 / 65536.
const LN_2: i64 = 45_426;

/// Where the thermistor stands in the divider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Between pin and ground, the fixed resistor to the supply.
    Ground,
    /// Between pin and supply, the fixed resistor to ground.
    Supply,
}

/// A thermistor and its divider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ntc {
    /// Resistance at 25 degrees Celsius, in Ω.
    pub r25_ohm: u32,
    /// Beta, in K.
    pub beta_k: u16,
    /// The fixed resistor, in Ω.
    pub series_ohm: u32,
    /// Where the thermistor stands.
    pub side: Side,
}

/// A thermistor that cannot be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NtcFault {
    /// No current flows through the thermistor.
    #[error("the thermistor is not connected")]
    Open,
    /// The thermistor is bridged.
    #[error("the thermistor is bridged")]
    Short,
    /// No temperature gives this count with these parts.
    #[error("these parts cannot give this count")]
    Parts,
}

impl Ntc {
    /// The usual 10 kΩ thermistor with a beta of 3950 K under 10 kΩ.
    pub const USUAL: Self = Self {
        r25_ohm: 10_000,
        beta_k: 3_950,
        series_ohm: 10_000,
        side: Side::Ground,
    };

    /// Temperature in degrees Celsius, rounded.
    ///
    /// # Errors
    /// [`NtcFault`]; a temperature that is not known is none.
    pub fn celsius(&self, count: u16) -> Result<i16, NtcFault> {
        let deci = self.deci_celsius(count)?;
        Ok(deci.saturating_add(5).div_euclid(10))
    }

    /// Temperature in tenths of a degree Celsius.
    ///
    /// # Errors
    /// [`NtcFault`]; a temperature that is not known is none.
    pub fn deci_celsius(&self, count: u16) -> Result<i16, NtcFault> {
        let (near_ground, near_supply) = match self.side {
            Side::Ground => (NtcFault::Short, NtcFault::Open),
            Side::Supply => (NtcFault::Open, NtcFault::Short),
        };
        if count < MARGIN {
            return Err(near_ground);
        }
        if count > FULL - MARGIN {
            return Err(near_supply);
        }
        let (over, under) = match self.side {
            Side::Ground => (count, FULL - count),
            Side::Supply => (FULL - count, count),
        };
        let ln = ln_ratio(
            u64::from(self.series_ohm) * u64::from(over),
            u64::from(self.r25_ohm) * u64::from(under),
        )
        .ok_or(NtcFault::Parts)?;
        // T = beta * T25 / (beta + T25 * ln), all of it times 65536 and ten.
        let beta = i64::from(self.beta_k) << 16;
        let divisor = beta.saturating_mul(10) + REFERENCE_KELVIN_DECI * ln;
        if beta == 0 || divisor <= 0 {
            return Err(NtcFault::Parts);
        }
        let kelvin_deci = (beta * 10 * REFERENCE_KELVIN_DECI + divisor / 2) / divisor;
        i16::try_from(kelvin_deci - KELVIN_DECI).map_err(|_| NtcFault::Parts)
    }
}

/// ln(a / b) in units of 1 / 65536; `None` if one is zero.
fn ln_ratio(a: u64, b: u64) -> Option<i64> {
    Some(((log2(a)? - log2(b)?) * LN_2) >> 16)
}

/// log2 in units of 1 / 65536.
fn log2(x: u64) -> Option<i64> {
    let whole = x.checked_ilog2()?;
    // The bits below the topmost one, as a fraction of 32 bits: five choose the entry, sixteen lie between two.
    let fraction = (u128::from(x) << 32 >> whole) as u32;
    let entry = (fraction >> 27) as usize;
    let between = i64::from(fraction >> 11 & 0xFFFF);
    let (low, high) = (i64::from(*LOG2.get(entry)?), i64::from(*LOG2.get(entry + 1)?));
    Some((i64::from(whole) << 16) + low + (((high - low) * between) >> 16))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::config;

    /// The same in floating point.
    fn exact(ntc: &Ntc, count: u16) -> f64 {
        let (over, under) = match ntc.side {
            Side::Ground => (count, FULL - count),
            Side::Supply => (FULL - count, count),
        };
        let r = f64::from(ntc.series_ohm) * f64::from(over) / f64::from(under);
        1.0 / (1.0 / 298.15 + (r / f64::from(ntc.r25_ohm)).ln() / f64::from(ntc.beta_k)) - 273.15
    }

    #[test]
    fn temperatures() {
        let at_supply = Ntc {
            side: Side::Supply,
            ..Ntc::USUAL
        };
        let hundred_k = Ntc {
            r25_ohm: 100_000,
            beta_k: 4_250,
            series_ohm: 4_700,
            side: Side::Ground,
        };
        for (ntc, count, expected) in [
            (Ntc::USUAL, 2_047, Ok(25)),
            (Ntc::USUAL, 2_048, Ok(25)),
            (at_supply, 2_048, Ok(25)),
            (Ntc::USUAL, 3_146, Ok(0)),
            (at_supply, 949, Ok(0)),
            (Ntc::USUAL, 258, Ok(101)),
            (Ntc::USUAL, 3_900, Ok(-30)),
            (hundred_k, 2_400, Ok(95)),
            (Ntc::USUAL, 0, Err(NtcFault::Short)),
            (Ntc::USUAL, MARGIN - 1, Err(NtcFault::Short)),
            (Ntc::USUAL, FULL - MARGIN + 1, Err(NtcFault::Open)),
            (Ntc::USUAL, FULL, Err(NtcFault::Open)),
            (Ntc::USUAL, u16::MAX, Err(NtcFault::Open)),
            (at_supply, 0, Err(NtcFault::Open)),
            (at_supply, FULL, Err(NtcFault::Short)),
            (
                Ntc {
                    beta_k: 0,
                    ..Ntc::USUAL
                },
                2_048,
                Err(NtcFault::Parts),
            ),
            (
                Ntc {
                    beta_k: 1,
                    ..Ntc::USUAL
                },
                100,
                Err(NtcFault::Parts),
            ),
            (
                Ntc {
                    r25_ohm: 0,
                    ..Ntc::USUAL
                },
                2_048,
                Err(NtcFault::Parts),
            ),
            (
                Ntc {
                    series_ohm: 0,
                    ..Ntc::USUAL
                },
                2_048,
                Err(NtcFault::Parts),
            ),
        ] {
            assert_eq!(ntc.celsius(count), expected, "{ntc:?} {count}");
        }
    }

    #[test]
    fn rounding() {
        // 24.9 to 25.4 degrees are 25, and -0.4 is 0.
        for (deci, celsius) in [
            (244, 24),
            (245, 25),
            (254, 25),
            (255, 26),
            (-4, 0),
            (-5, 0),
            (-6, -1),
            (-14, -1),
        ] {
            assert_eq!((deci + 5i16).div_euclid(10), celsius, "{deci}");
        }
    }

    #[test]
    fn every_count_is_near_to_the_formula() {
        for side in [Side::Ground, Side::Supply] {
            for (r25_ohm, beta_k, series_ohm) in [
                (10_000, 3_950, 10_000),
                (100_000, 3_950, 4_700),
                (10_000, 3_380, 2_000),
                (47_000, 4_050, 47_000),
            ] {
                let ntc = Ntc {
                    r25_ohm,
                    beta_k,
                    series_ohm,
                    side,
                };
                for count in MARGIN..=FULL - MARGIN {
                    let exact = exact(&ntc, count);
                    if !(-50.0..=200.0).contains(&exact) {
                        continue;
                    }
                    let shown = f64::from(ntc.deci_celsius(count).unwrap()) / 10.0;
                    assert!((shown - exact).abs() < 0.15, "{ntc:?} {count}: {shown} {exact}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(config("ntc", 2_048))]

        #[test]
        fn no_parts_panic(r25_ohm in any::<u32>(), beta_k in any::<u16>(), series_ohm in any::<u32>(), ground in any::<bool>(), count in any::<u16>()) {
            let side = if ground { Side::Ground } else { Side::Supply };
            let _ = Ntc { r25_ohm, beta_k, series_ohm, side }.celsius(count);
        }

        #[test]
        fn warmer_is_never_colder(count in MARGIN..FULL - MARGIN) {
            let warmer = Ntc::USUAL.deci_celsius(count).unwrap();
            let colder = Ntc::USUAL.deci_celsius(count + 1).unwrap();
            prop_assert!(warmer >= colder);
        }
    }
}
