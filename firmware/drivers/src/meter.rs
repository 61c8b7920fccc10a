//! Energy meter chips, all of them giving the same [`Reading`].
//!
//! A chip counts pulses, each worth a fixed amount of energy that the parts around the chip decide. What is less than a
//! micro watt hour is carried to the next reading, so increments add up to the counter's total. Two things must never
//! become energy: a counter that began again because the chip lost its supply, and a value that was disturbed on the
//! wire in a way that its checksum does not show. Both look like a leap, and a leap is never believed.
//!
//! An application adds `energy_uwh_delta` to a register of its own, which it keeps over power losses.

pub mod bl0942;
pub mod hlw8032;
#[cfg(any(test, feature = "encode"))]
pub mod sim;

use core::num::NonZeroU32;

use crate::inbox::Missing;

/// What a meter measured, and the energy since its last reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// Voltage, in mV.
    pub voltage_mv: u32,
    /// Current, in mA.
    pub current_ma: u32,
    /// Active power, in mW. Without a sign: which way a shunt is connected is up to the installer.
    pub power_mw: u32,
    /// Energy since the reading before, in µWh; zero in the first.
    pub energy_uwh_delta: u64,
}

/// The parts around a chip. A calibrated meter has the values here that make it show what a reference shows, not those
/// printed on the parts; they are fine enough for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    upper_ohm: NonZeroU32,
    lower_mohm: NonZeroU32,
    shunt_nohm: NonZeroU32,
}

impl Parts {
    /// The voltage divider's resistors from line to pin (in Ω) and from pin to ground (in mΩ), and the shunt (in nΩ);
    /// `None` if one is zero.
    #[must_use]
    pub const fn new(upper_ohm: u32, lower_mohm: u32, shunt_nohm: u32) -> Option<Self> {
        match (
            NonZeroU32::new(upper_ohm),
            NonZeroU32::new(lower_mohm),
            NonZeroU32::new(shunt_nohm),
        ) {
            (Some(upper_ohm), Some(lower_mohm), Some(shunt_nohm)) => Some(Self {
                upper_ohm,
                lower_mohm,
                shunt_nohm,
            }),
            _ => None,
        }
    }

    fn upper_ohm(&self) -> u128 {
        u128::from(self.upper_ohm.get())
    }

    fn lower_mohm(&self) -> u128 {
        u128::from(self.lower_mohm.get())
    }

    fn shunt_nohm(&self) -> u128 {
        u128::from(self.shunt_nohm.get())
    }

    /// Both resistors of the divider, in mΩ.
    fn divider_mohm(&self) -> u128 {
        self.upper_ohm() * 1_000 + self.lower_mohm()
    }
}

/// Why there is no reading.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeterError<E> {
    /// The UART reports an error. The bytes around it are dropped; the next reading is good.
    #[error("the UART: {0}")]
    Io(E),
    /// The stream of bytes has ended.
    #[error("the UART gives no more bytes")]
    Ended,
    /// The chip says that its own parameters are damaged; no value can be computed.
    #[error("the chip cannot trust its parameters")]
    Parameters,
}

impl<E> From<Missing<E>> for MeterError<E> {
    fn from(missing: Missing<E>) -> Self {
        match missing {
            Missing::Io(error) => Self::Io(error),
            Missing::Ended => Self::Ended,
        }
    }
}

/// A counter of pulses that wraps, and that is not believed when it leaps.
///
/// A value more than `leap_max` ahead of the last is put aside. If the next value follows it, the counter is there now
/// (the chip restarted, or nobody looked for too long), and counting goes on from there without what lies between. If
/// the next value follows the old one, it was a disturbance.
#[derive(Clone, Copy, Debug)]
struct Counter {
    mask: u32,
    leap_max: u32,
    base: Option<u32>,
    aside: Option<u32>,
    leaps: u32,
}

impl Counter {
    /// A leap must be smaller than half the counter's range, or backwards would look like forwards.
    const fn new(bits: u32, leap_max: u32) -> Self {
        let mask = (1 << bits) - 1;
        Self {
            mask,
            leap_max: if leap_max > mask / 2 { mask / 2 } else { leap_max },
            base: None,
            aside: None,
            leaps: 0,
        }
    }

    /// Pulses since the value before.
    fn advance(&mut self, value: u32) -> u32 {
        let value = value & self.mask;
        let Some(base) = self.base else {
            self.base = Some(value);
            return 0;
        };
        let after = |from: u32| {
            let pulses = value.wrapping_sub(from) & self.mask;
            (pulses <= self.leap_max).then_some(pulses)
        };
        if let Some(pulses) = after(base) {
            self.base = Some(value);
            self.aside = None;
            pulses
        } else if let Some(pulses) = self.aside.and_then(after) {
            self.base = Some(value);
            self.aside = None;
            self.leaps = self.leaps.saturating_add(1);
            pulses
        } else {
            self.aside = Some(value);
            0
        }
    }
}

/// A division whose remainder is carried to the next one.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carried(u128);

impl Carried {
    /// The denominator must be the same every time, and not zero.
    pub(crate) fn divide(&mut self, numerator: u128, denominator: u128) -> u64 {
        let sum = self.0.saturating_add(numerator);
        self.0 = sum.checked_rem(denominator).unwrap_or(0);
        sum.checked_div(denominator)
            .map_or(0, |quotient| u64::try_from(quotient).unwrap_or(u64::MAX))
    }
}

/// A quotient, zero where there is none.
fn quotient(numerator: u128, denominator: u128) -> u32 {
    numerator
        .checked_div(denominator)
        .map_or(0, |quotient| u32::try_from(quotient).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_not_zero() {
        for (parts, is_some) in [
            ((1, 1, 1), true),
            ((0, 1, 1), false),
            ((1, 0, 1), false),
            ((1, 1, 0), false),
            ((u32::MAX, u32::MAX, u32::MAX), true),
        ] {
            assert_eq!(Parts::new(parts.0, parts.1, parts.2).is_some(), is_some, "{parts:?}");
        }
    }

    #[test]
    fn counter() {
        // Bits, leap, values, pulses, leaps.
        type Case = (&'static str, u32, u32, &'static [u32], &'static [u32], u32);
        let cases: &[Case] = &[
            ("the first value is where counting begins", 16, 100, &[500], &[0], 0),
            ("advance", 16, 100, &[500, 500, 501, 601], &[0, 0, 1, 100], 0),
            ("wrap", 16, 100, &[65_530, 65_535, 0, 5], &[0, 5, 1, 5], 0),
            (
                "wrap of 17 bits",
                17,
                100,
                &[65_535, 65_536, 131_071, 131_072],
                &[0, 1, 0, 1],
                1,
            ),
            ("wrap of 24 bits", 24, 100, &[0xFF_FFFF, 2], &[0, 3], 0),
            (
                "a disturbance",
                16,
                100,
                &[1_000, 9_000, 1_010, 1_020],
                &[0, 0, 10, 10],
                0,
            ),
            (
                "two disturbances",
                16,
                100,
                &[1_000, 9_000, 30_000, 1_010],
                &[0, 0, 0, 10],
                0,
            ),
            ("a restart", 16, 100, &[1_000, 0, 7, 8], &[0, 0, 7, 1], 1),
            (
                "a restart that shows once is seen at the next value",
                16,
                100,
                &[1_000, 3, 3],
                &[0, 0, 0],
                1,
            ),
            ("a long silence", 16, 100, &[1_000, 1_101, 1_102], &[0, 0, 1], 1),
            ("backwards by one", 16, 100, &[1_000, 999, 1_000], &[0, 0, 0], 0),
            (
                "a leap of half the range at most",
                16,
                u32::MAX,
                &[0, 32_767, 65_535],
                &[0, 32_767, 0],
                0,
            ),
        ];
        for (what, bits, leap_max, values, expected, leaps) in cases {
            let mut counter = Counter::new(*bits, *leap_max);
            let pulses: std::vec::Vec<_> = values.iter().map(|value| counter.advance(*value)).collect();
            assert_eq!((&pulses[..], counter.leaps), (*expected, *leaps), "{what}");
        }
    }

    #[test]
    fn remainders_are_carried() {
        let mut carried = Carried::default();
        let thirds: u64 = (0..9).map(|_| carried.divide(1, 3)).sum();
        assert_eq!(thirds, 3);
        assert_eq!(carried.divide(u128::MAX, 0), 0);
        assert_eq!(Carried::default().divide(u128::MAX, 1), u64::MAX);
    }
}
