//! The other end of a meter's wire: a load goes in, the frames come out that a chip behind the same parts would send.

use core::num::NonZeroU16;

use super::{
    Parts,
    bl0942::{Address, PACKET_BYTES, Packet},
    hlw8032::{FRAME_BYTES, Frame},
};

/// Registers have 24 bits.
const REGISTER_MAX: u32 = 0xFF_FFFF;

/// What is drawn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Voltage, in mV.
    pub voltage_mv: u32,
    /// Current, in mA.
    pub current_ma: u32,
    /// Active power, in mW.
    pub power_mw: u32,
}

/// An HLW8032 chip.
#[derive(Clone, Debug)]
pub struct Hlw8032 {
    parts: Parts,
    pulses: u32,
    /// Energy that is no whole pulse yet, in µJ times what the parts divide by.
    begun: u128,
}

impl Hlw8032 {
    /// Parameters as the factory writes them into a chip, within a few percent.
    pub const VOLTAGE_PARAMETER: u32 = 0x02_DCD0;
    /// See [`Self::VOLTAGE_PARAMETER`].
    pub const CURRENT_PARAMETER: u32 = 0x00_3CD7;
    /// See [`Self::VOLTAGE_PARAMETER`].
    pub const POWER_PARAMETER: u32 = 0x4D_E568;

    /// A chip that has just got its supply. `pulses`: where its counter begins, 17 bits.
    #[must_use]
    pub const fn new(parts: Parts, pulses: u32) -> Self {
        Self {
            parts,
            pulses,
            begun: 0,
        }
    }

    /// Draws for some time, and the frame at its end.
    pub fn draw(&mut self, load: &Load, elapsed_ms: u32) -> [u8; FRAME_BYTES] {
        let (upper, lower, shunt) = (self.parts.upper_ohm(), self.parts.lower_mohm(), self.parts.shunt_nohm());
        let energy_uj = u128::from(load.power_mw) * u128::from(elapsed_ms);
        self.begun = self.begun.saturating_add(energy_uj.saturating_mul(lower * shunt));
        let pulse = u128::from(Self::POWER_PARAMETER) * upper * 1_000_000;
        self.pulses = self.pulses.wrapping_add((self.begun / pulse) as u32);
        self.begun %= pulse;
        let (voltage, voltage_flag) = period(
            u128::from(Self::VOLTAGE_PARAMETER) * upper * 1_000,
            u128::from(load.voltage_mv) * lower,
            1 << 3,
        );
        let (current, current_flag) = period(
            u128::from(Self::CURRENT_PARAMETER) * 1_000_000_000,
            u128::from(load.current_ma) * shunt,
            1 << 2,
        );
        let (power, power_flag) = period(
            u128::from(Self::POWER_PARAMETER) * upper * 1_000_000_000,
            u128::from(load.power_mw) * lower * shunt,
            1 << 1,
        );
        let flags = voltage_flag | current_flag | power_flag;
        Frame {
            state: if flags == 0 { 0x55 } else { 0xF0 | flags },
            voltage_parameter: Self::VOLTAGE_PARAMETER,
            voltage,
            current_parameter: Self::CURRENT_PARAMETER,
            current,
            power_parameter: Self::POWER_PARAMETER,
            power,
            update: 0x71 | ((self.pulses >> 16 & 1) as u8) << 7,
            pf: self.pulses as u16,
        }
        .encode()
    }

    /// Loses its supply for a moment: the counter begins again.
    pub const fn restart(&mut self) {
        (self.pulses, self.begun) = (0, 0);
    }
}

/// A period register, and its flag if the value is too small to be measured.
fn period(numerator: u128, denominator: u128, flag: u8) -> (u32, u8) {
    let rounded = (numerator + denominator / 2).checked_div(denominator);
    match rounded.and_then(|period| u32::try_from(period).ok()) {
        Some(period) if period <= REGISTER_MAX => (period, 0),
        Some(_) | None => (REGISTER_MAX, flag),
    }
}

/// A BL0942 chip.
#[derive(Clone, Debug)]
pub struct Bl0942 {
    parts: Parts,
    reference_mv: u128,
    pulses: u32,
    /// Energy that is no whole pulse yet, in µJ times what the parts divide by.
    begun: u128,
}

impl Bl0942 {
    /// A chip that has just got its supply. `pulses`: where its counter begins, 24 bits.
    #[must_use]
    pub fn new(parts: Parts, reference_mv: NonZeroU16, pulses: u32) -> Self {
        Self {
            parts,
            reference_mv: u128::from(reference_mv.get()),
            pulses,
            begun: 0,
        }
    }

    /// Draws for some time, and the packet that answers a request at its end. The line has 50 Hz.
    pub fn draw(&mut self, load: &Load, elapsed_ms: u32, address: Address) -> [u8; PACKET_BYTES] {
        let (divider, lower, shunt) = (
            self.parts.divider_mohm(),
            self.parts.lower_mohm(),
            self.parts.shunt_nohm(),
        );
        let square = self.reference_mv * self.reference_mv;
        let energy_uj = u128::from(load.power_mw) * u128::from(elapsed_ms);
        self.begun = self
            .begun
            .saturating_add(energy_uj.saturating_mul(3_537 * shunt * lower));
        let pulse = 100 * 4_194_304 * square * divider;
        self.pulses = self.pulses.wrapping_add((self.begun / pulse) as u32);
        self.begun %= pulse;
        let i_rms = register(
            u128::from(load.current_ma) * 305_978 * shunt,
            self.reference_mv * 1_000_000,
        );
        Packet {
            i_rms,
            v_rms: register(
                u128::from(load.voltage_mv) * 73_989 * 1_000 * lower,
                self.reference_mv * divider,
            ),
            i_fast_rms: i_rms,
            watt: register(u128::from(load.power_mw) * 3_537 * shunt * lower, square * divider).min(REGISTER_MAX / 2)
                as i32,
            cf_cnt: self.pulses & REGISTER_MAX,
            freq: 20_000,
            status: 0,
        }
        .encode(address)
    }

    /// Loses its supply for a moment: the counter begins again.
    pub const fn restart(&mut self) {
        (self.pulses, self.begun) = (0, 0);
    }
}

fn register(numerator: u128, denominator: u128) -> u32 {
    (numerator + denominator / 2)
        .checked_div(denominator)
        .map_or(REGISTER_MAX, |value| u32::try_from(value).unwrap_or(REGISTER_MAX))
        .min(REGISTER_MAX)
}
