//! How quantity and time become money. The same engine bills in the gateway, audits in the hub and shows the price on
//! the device.
//!
//! A session is a row of [`Usage`] slices. Each slice adds its quantities to the price elements that apply to it; the
//! result is a [`Bill`]: one whole number per element, in base units. Money appears once, in [`Bill::total`], and is
//! rounded there once, half away from zero. Two parties with the same bill and the same tariff get the same amount.
//!
//! As in OCPI 2.2.1 (mod_tariffs, Tariff Restrictions): per dimension, the first element whose conditions hold applies.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    codec,
    id::Hash,
    money::{Money, Units},
    wire::wire_enum,
};

/// Most price elements of one tariff: four times of use with two power bands each.
pub const ELEMENTS_MAX: usize = 8;
/// Largest price, in thousandths of a minor unit: 100,000.00 a unit. Keeps every product far inside `i128`.
pub const PRICE_MILLI_MAX: i64 = 10_000_000_000;
const MINUTES_A_DAY: u16 = 1440;
const SECONDS_A_DAY: u32 = 86_400;

wire_enum! {
    /// What a price element counts.
    Dimension {
        /// A dimension of a newer version: such a tariff is refused.
        Other = 0,
        /// Energy; priced per kWh, counted in Wh.
        Energy = 1,
        /// Time since the start; priced per minute, counted in s.
        Time = 2,
        /// Wash cycles.
        Cycle = 3,
        /// Water; priced per litre, counted in ml.
        Volume = 4,
        /// Time without delivery; priced per minute, counted in s.
        Idle = 5,
    } else Other
}

impl Dimension {
    /// Base units that one price covers.
    const fn base_units(self) -> i128 {
        match self {
            Self::Energy | Self::Volume => 1000,
            Self::Time | Self::Idle => 60,
            Self::Cycle | Self::Other => 1,
        }
    }
}

/// One price and when it applies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceElement {
    /// What it counts.
    pub dimension: Dimension,
    /// Price per kWh, minute, cycle or litre, in thousandths of a minor unit; 0 to [`PRICE_MILLI_MAX`].
    pub price_milli: i64,
    /// First minute of the local day, 0 to 1439.
    pub minute_from: u16,
    /// First minute after it, 1 to 1440; at or below `minute_from`: the time of use spans midnight.
    pub minute_to: u16,
    /// Lowest power it applies to, in W.
    pub power_w_min: u32,
    /// First power above it, in W; 0: none.
    pub power_w_max: u32,
}

impl PriceElement {
    /// An element that always applies.
    #[must_use]
    pub const fn flat(dimension: Dimension, price_milli: i64) -> Self {
        Self {
            dimension,
            price_milli,
            minute_from: 0,
            minute_to: MINUTES_A_DAY,
            power_w_min: 0,
            power_w_max: 0,
        }
    }

    const fn covers_minute(&self, minute: u16) -> bool {
        if self.minute_from < self.minute_to {
            self.minute_from <= minute && minute < self.minute_to
        } else {
            minute >= self.minute_from || minute < self.minute_to
        }
    }

    const fn covers_power(&self, power_w: u32) -> bool {
        self.power_w_min <= power_w && (self.power_w_max == 0 || power_w < self.power_w_max)
    }
}

/// A price table for one kind of outlet.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tariff {
    /// The operator's number for it.
    pub id: u32,
    /// Once per started session.
    pub start_fee: Money,
    /// Least for a started session.
    pub minimum: Money,
    /// Most for a session; zero: no cap.
    pub cap: Money,
    /// Up to eight prices, first match per dimension.
    pub elements: heapless::Vec<PriceElement, ELEMENTS_MAX>,
}

/// Why a tariff cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TariffError {
    /// A fee, minimum or cap below zero.
    #[error("a fee, minimum or cap is negative")]
    Negative,
    /// The cap is below the minimum.
    #[error("the cap is below the minimum")]
    CapBelowMinimum,
    /// A price outside its range.
    #[error("the price of element {0} is outside 0 to 10,000,000,000 thousandths")]
    Price(usize),
    /// A minute outside the day, or an empty power band.
    #[error("the time or power range of element {0} is empty or outside the day")]
    Range(usize),
    /// A dimension this version does not know.
    #[error("element {0} counts something this version does not know")]
    Dimension(usize),
}

/// One slice of a session during which power did not change band.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// What the register advanced, in the kind's base unit.
    pub units: Units,
    /// Length, in s.
    pub duration_s: u32,
    /// Of these, seconds without delivery.
    pub idle_s: u32,
    /// Mean power, in W.
    pub power_w: u32,
    /// Local second of the day at its begin, 0 to 86,399; `None` if no clock is fit to tell, then each dimension takes
    /// its cheapest price, the customer's favour: nothing at all if some minute of the day has no price.
    pub second_of_day: Option<u32>,
}

/// Quantities per price element, in base units. Adding slices never rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bill {
    /// By position of the element in the tariff.
    pub quantities: [u64; ELEMENTS_MAX],
}

impl Tariff {
    /// A tariff of flat prices without fees.
    #[must_use]
    pub fn flat(id: u32, elements: &[(Dimension, i64)]) -> Self {
        let elements = elements
            .iter()
            .map(|&(dimension, price)| PriceElement::flat(dimension, price))
            .collect();
        Self {
            id,
            elements,
            ..Self::default()
        }
    }

    /// Checks every range.
    ///
    /// # Errors
    /// [`TariffError`], with the position of the element.
    pub fn check(&self) -> Result<(), TariffError> {
        if self.start_fee.0 < 0 || self.minimum.0 < 0 || self.cap.0 < 0 {
            return Err(TariffError::Negative);
        }
        if self.cap.0 > 0 && self.cap < self.minimum {
            return Err(TariffError::CapBelowMinimum);
        }
        for (i, element) in self.elements.iter().enumerate() {
            if element.dimension == Dimension::Other {
                return Err(TariffError::Dimension(i));
            }
            if !(0..=PRICE_MILLI_MAX).contains(&element.price_milli) {
                return Err(TariffError::Price(i));
            }
            let power_empty = element.power_w_max != 0 && element.power_w_max <= element.power_w_min;
            let minutes_outside =
                element.minute_from >= MINUTES_A_DAY || !(1..=MINUTES_A_DAY).contains(&element.minute_to);
            if power_empty || minutes_outside || element.minute_to == element.minute_from {
                return Err(TariffError::Range(i));
            }
        }
        Ok(())
    }

    /// SHA-256 over its CBOR encoding.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut buffer = [0; codec::TARIFF_BYTES_MAX];
        let len = codec::encode(self, &mut buffer).expect("TARIFF_BYTES_MAX holds the largest tariff");
        Hash(Sha256::digest(&buffer[..len]).into())
    }

    /// The element that prices `dimension` at this power and local minute.
    fn element(&self, dimension: Dimension, power_w: u32, minute: Option<u16>) -> Option<usize> {
        let fitting = || {
            let elements = self.elements.iter().enumerate();
            elements.filter(|(_, e)| e.dimension == dimension && e.covers_power(power_w))
        };
        let at = |minute: u16| fitting().find(|(_, e)| e.covers_minute(minute)).map(|(i, _)| i);
        match minute {
            Some(minute) => at(minute),
            // A minute without a price is the cheapest of all. Where there is one, one follows the end of an element.
            None if fitting().any(|(_, e)| at(e.minute_to % MINUTES_A_DAY).is_none()) => None,
            None => fitting().min_by_key(|(_, e)| e.price_milli).map(|(i, _)| i),
        }
    }

    /// Seconds from `second_of_day` to the next minute at which some element begins or ends; the whole day if none does.
    fn seconds_to_boundary(&self, second_of_day: u32) -> u32 {
        let edges = self
            .elements
            .iter()
            .flat_map(|e| [u32::from(e.minute_from) * 60, u32::from(e.minute_to) * 60]);
        edges
            .map(|edge| match (edge + SECONDS_A_DAY - second_of_day) % SECONDS_A_DAY {
                0 => SECONDS_A_DAY,
                distance => distance,
            })
            .min()
            .unwrap_or(SECONDS_A_DAY)
    }

    /// The most units whose charge, flat from now on, stays within `money`; `None` if no price of units applies.
    #[must_use]
    pub fn units_within(&self, dimension: Dimension, money: Money) -> Option<Units> {
        let price = self
            .elements
            .iter()
            .filter(|e| e.dimension == dimension)
            .map(|e| e.price_milli)
            .max()?;
        let milli = i128::from(money.saturating_sub(self.start_fee).0.max(0)) * 1000;
        let units = (price > 0).then(|| milli * dimension.base_units() / i128::from(price))?;
        Some(Units(u64::try_from(units).unwrap_or(u64::MAX)))
    }
}

impl Bill {
    /// Adds a slice. `units` names the dimension of the device's register (energy, cycle or volume).
    pub fn add(&mut self, tariff: &Tariff, units: Dimension, usage: &Usage) {
        let Some(start_s) = usage.second_of_day else {
            return self.add_piece(tariff, units, usage, None);
        };
        // Quantities are shared out by cumulative interpolation, so that the pieces add up to the slice exactly.
        let total_s = u64::from(usage.duration_s);
        let share = |quantity: u64, until_s: u32| match total_s {
            0 => quantity,
            _ => (u128::from(quantity) * u128::from(until_s) / u128::from(total_s)) as u64,
        };
        let mut done_s: u32 = 0;
        loop {
            let second = ((u64::from(start_s) + u64::from(done_s)) % u64::from(SECONDS_A_DAY)) as u32;
            let next_s = usage
                .duration_s
                .min(done_s.saturating_add(tariff.seconds_to_boundary(second)));
            let piece = Usage {
                units: Units(share(usage.units.0, next_s) - if done_s == 0 { 0 } else { share(usage.units.0, done_s) }),
                duration_s: next_s - done_s,
                idle_s: (share(u64::from(usage.idle_s), next_s)
                    - if done_s == 0 {
                        0
                    } else {
                        share(u64::from(usage.idle_s), done_s)
                    }) as u32,
                ..*usage
            };
            self.add_piece(tariff, units, &piece, Some((second / 60) as u16));
            if next_s == usage.duration_s {
                return;
            }
            done_s = next_s;
        }
    }

    fn add_piece(&mut self, tariff: &Tariff, units: Dimension, usage: &Usage, minute: Option<u16>) {
        let rows = [
            (units, usage.units.0),
            (Dimension::Time, u64::from(usage.duration_s)),
            (Dimension::Idle, u64::from(usage.idle_s)),
        ];
        for (dimension, quantity) in rows {
            if let Some(i) = tariff.element(dimension, usage.power_w, minute) {
                self.quantities[i] = self.quantities[i].saturating_add(quantity);
            }
        }
    }

    /// The charge of a started session: the one place where fractions of a minor unit are rounded, half away from zero.
    #[must_use]
    pub fn total(&self, tariff: &Tariff) -> Money {
        // Thousandths of a minor unit over the least common multiple of 1000, 60 and 1.
        const COMMON: i128 = 3000;
        const DIVISOR: i128 = COMMON * 1000;
        let scaled: i128 = self
            .quantities
            .iter()
            .zip(&tariff.elements)
            .map(|(&quantity, e)| {
                // Saturates only for prices that `Tariff::check` refuses.
                (i128::from(quantity) * i128::from(e.price_milli)).saturating_mul(COMMON / e.dimension.base_units())
            })
            .fold(0, i128::saturating_add);
        let rounded = (scaled.saturating_add(DIVISOR / 2)) / DIVISOR;
        let charge = Money(i64::try_from(rounded).unwrap_or(i64::MAX)).saturating_add(tariff.start_fee);
        let charge = charge.max(tariff.minimum);
        if tariff.cap.0 > 0 {
            charge.min(tariff.cap)
        } else {
            charge
        }
    }
}
