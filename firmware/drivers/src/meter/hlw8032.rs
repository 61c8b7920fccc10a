//! HLW8032: sends 24 bytes at 4800 baud, 8 data bits, even parity, unasked and for ever, with 50 ms between frames.
//!
//! ```text
//! byte  0       state: 55 good, AA parameters damaged, Fx see below
//!       1       5A
//!       2..5    voltage parameter     5..8    voltage
//!       8..11   current parameter     11..14  current
//!       14..17  power parameter       17..20  power
//!       20      update: bit 7 toggles when PF overflows, bits 6, 5, 4: voltage, current, power were measured
//!       21..23  PF, pulses since the chip started
//!       23      sum of bytes 2 to 22
//! ```
//!
//! Registers are 24 bits and everything is most significant byte first. A measured register is the length of a period,
//! so the smaller the value, the longer it takes and the larger the register. In state `Fx`, bits 3, 2 and 1 say that
//! voltage, current or power was too small to end its period, which is a value of zero; bit 0 says that the parameters
//! are damaged.

use embedded_io_async::Read;

use super::{Carried, Counter, MeterError, Parts, Reading, quotient};
use crate::{inbox::Inbox, window::Window};

/// Bytes of a frame.
pub const FRAME_BYTES: usize = 24;
/// The second byte of every frame.
const CHECK: u8 = 0x5A;
const STATE_GOOD: u8 = 0x55;
const STATE_DAMAGED: u8 = 0xAA;
const STATE_FLAGS: u8 = 0xF0;
/// Bits of an `Fx` state.
const SMALL_VOLTAGE: u8 = 1 << 3;
const SMALL_CURRENT: u8 = 1 << 2;
const SMALL_POWER: u8 = 1 << 1;
const DAMAGED: u8 = 1;
/// Bits of the update register.
const CARRY: u8 = 1 << 7;
const VOLTAGE_MEASURED: u8 = 1 << 6;
const CURRENT_MEASURED: u8 = 1 << 5;
const POWER_MEASURED: u8 = 1 << 4;
/// PF and its carry.
const COUNTER_BITS: u32 = 17;
/// Pulses that may come between two readings: with a shunt of 1 mΩ 22 Wh, ten seconds of 7.4 kW. A device stops after
/// ten seconds without a reading.
pub const LEAP_PULSES_MAX: u32 = 8_192;

/// The registers of one frame. Those of 24 bits are kept in 32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frame {
    /// Good, damaged, or flags.
    pub state: u8,
    /// Constant of this chip.
    pub voltage_parameter: u32,
    /// Period of the voltage.
    pub voltage: u32,
    /// Constant of this chip.
    pub current_parameter: u32,
    /// Period of the current.
    pub current: u32,
    /// Constant of this chip.
    pub power_parameter: u32,
    /// Period of a pulse, in µs.
    pub power: u32,
    /// What was measured, and the carry of [`Self::pf`].
    pub update: u8,
    /// Pulses.
    pub pf: u16,
}

impl Frame {
    /// The frame in 24 bytes, if they are one.
    #[must_use]
    pub fn parse(bytes: &[u8; FRAME_BYTES]) -> Option<Self> {
        let [
            state,
            check,
            v2,
            v1,
            v0,
            v5,
            v4,
            v3,
            i2,
            i1,
            i0,
            i5,
            i4,
            i3,
            p2,
            p1,
            p0,
            p5,
            p4,
            p3,
            update,
            pf1,
            pf0,
            sum,
        ] = *bytes;
        let registers = [
            v2, v1, v0, v5, v4, v3, i2, i1, i0, i5, i4, i3, p2, p1, p0, p5, p4, p3, update, pf1, pf0,
        ];
        let wide = |high, mid, low| u32::from_be_bytes([0, high, mid, low]);
        (is_state(state) && check == CHECK && sum == total(&registers)).then_some(Self {
            state,
            voltage_parameter: wide(v2, v1, v0),
            voltage: wide(v5, v4, v3),
            current_parameter: wide(i2, i1, i0),
            current: wide(i5, i4, i3),
            power_parameter: wide(p2, p1, p0),
            power: wide(p5, p4, p3),
            update,
            pf: u16::from_be_bytes([pf1, pf0]),
        })
    }

    /// The bytes of this frame.
    #[cfg(any(test, feature = "encode"))]
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_BYTES] {
        let mut bytes = [0; FRAME_BYTES];
        let registers = [
            self.voltage_parameter,
            self.voltage,
            self.current_parameter,
            self.current,
            self.power_parameter,
            self.power,
        ];
        let registers = registers.iter().flat_map(|register| {
            let [_, high, mid, low] = register.to_be_bytes();
            [high, mid, low]
        });
        let tail = [self.update].into_iter().chain(self.pf.to_be_bytes());
        let all = [self.state, CHECK].into_iter().chain(registers).chain(tail);
        let mut sum = 0u8;
        for (i, (slot, byte)) in bytes.iter_mut().zip(all).enumerate() {
            *slot = byte;
            sum = if i < 2 { 0 } else { sum.wrapping_add(byte) };
        }
        let [.., last] = &mut bytes;
        *last = sum;
        bytes
    }

    const fn has_flag(&self, flag: u8) -> bool {
        self.state & STATE_FLAGS == STATE_FLAGS && self.state & flag != 0
    }

    const fn is_damaged(&self) -> bool {
        self.state == STATE_DAMAGED || self.has_flag(DAMAGED)
    }

    /// PF with its carry as one counter.
    fn pulses(&self) -> u32 {
        u32::from(self.update & CARRY != 0) << 16 | u32::from(self.pf)
    }
}

const fn is_state(byte: u8) -> bool {
    matches!(byte, STATE_GOOD | STATE_DAMAGED | STATE_FLAGS..)
}

fn total(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// Finds frames in a stream of bytes, wherever they begin.
#[derive(Clone, Debug, Default)]
pub struct Parser(Window<FRAME_BYTES>);

impl Parser {
    /// A parser that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self(Window::new())
    }

    /// Takes the next byte in; the frame that it completes.
    pub fn push(&mut self, byte: u8) -> Option<Frame> {
        self.0.push(byte, may_begin, Frame::parse)
    }

    /// Bytes that belonged to no frame.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.0.dropped()
    }
}

/// Whether a frame can begin like this.
fn may_begin(window: &[u8]) -> bool {
    match window {
        [] => true,
        [state] => is_state(*state),
        [state, check, ..] => is_state(*state) && *check == CHECK,
    }
}

/// Readings from frames.
///
/// From the datasheet, with `Kv = upper / (lower * 1000)` and `Ki = 1 / (shunt in mΩ)`:
///
/// ```text
/// U = voltage parameter / voltage * Kv             in V
/// I = current parameter / current * Ki             in A
/// P = power parameter / power * Kv * Ki            in W
/// pulses of one kWh = 10^9 * 3600 / (power parameter * Kv * Ki)
/// ```
///
/// Hence a pulse is worth `power parameter * Kv * Ki` µJ.
#[derive(Clone, Debug)]
pub struct Meter {
    parts: Parts,
    counter: Counter,
    energy: Carried,
    shown: Reading,
}

impl Meter {
    /// A meter with these parts. `leap_pulses_max`: more pulses than this between two readings were never drawn
    /// ([`LEAP_PULSES_MAX`] if nothing is known).
    #[must_use]
    pub fn new(parts: Parts, leap_pulses_max: u32) -> Self {
        Self {
            parts,
            counter: Counter::new(COUNTER_BITS, leap_pulses_max),
            energy: Carried::default(),
            shown: Reading::default(),
        }
    }

    /// What a frame says; `None` if the chip cannot trust its parameters. Pulses that come meanwhile are counted with
    /// the next good frame.
    pub fn read(&mut self, frame: &Frame) -> Option<Reading> {
        if frame.is_damaged() {
            return None;
        }
        let (upper, lower, shunt) = (self.parts.upper_ohm(), self.parts.lower_mohm(), self.parts.shunt_nohm());
        let value = |flag, measured, shown, numerator: u128, denominator: u128| {
            if frame.has_flag(flag) {
                0
            } else if frame.update & measured == 0 {
                shown
            } else {
                quotient(numerator, denominator)
            }
        };
        self.shown.voltage_mv = value(
            SMALL_VOLTAGE,
            VOLTAGE_MEASURED,
            self.shown.voltage_mv,
            u128::from(frame.voltage_parameter) * upper * 1_000,
            u128::from(frame.voltage) * lower,
        );
        self.shown.current_ma = value(
            SMALL_CURRENT,
            CURRENT_MEASURED,
            self.shown.current_ma,
            u128::from(frame.current_parameter) * 1_000_000_000,
            u128::from(frame.current) * shunt,
        );
        self.shown.power_mw = value(
            SMALL_POWER,
            POWER_MEASURED,
            self.shown.power_mw,
            u128::from(frame.power_parameter) * upper * 1_000_000_000,
            u128::from(frame.power) * lower * shunt,
        );
        let pulses = self.counter.advance(frame.pulses());
        let energy = u128::from(pulses) * u128::from(frame.power_parameter) * upper * 1_000_000;
        self.shown.energy_uwh_delta = self.energy.divide(energy, lower * shunt * 3_600);
        Some(self.shown)
    }

    /// How often the counter was found elsewhere than expected: restarts of the chip and silences.
    #[must_use]
    pub const fn leaps(&self) -> u32 {
        self.counter.leaps
    }
}

/// An HLW8032 on a UART.
#[derive(Debug)]
pub struct Hlw8032<U> {
    inbox: Inbox<U>,
    parser: Parser,
    meter: Meter,
}

impl<U: Read> Hlw8032<U> {
    /// The UART must have 4800 baud, 8 data bits, even parity.
    pub const fn new(uart: U, meter: Meter) -> Self {
        Self {
            inbox: Inbox::new(uart),
            parser: Parser::new(),
            meter,
        }
    }

    /// Waits for the next reading, about every 105 ms. A dropped future loses nothing.
    ///
    /// # Errors
    /// [`MeterError`]; the next call goes on.
    pub async fn next(&mut self) -> Result<Reading, MeterError<U::Error>> {
        loop {
            let byte = self.inbox.byte().await?;
            if let Some(frame) = self.parser.push(byte) {
                return self.meter.read(&frame).ok_or(MeterError::Parameters);
            }
        }
    }

    /// Bytes that belonged to no frame: a measure of the wiring.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.parser.dropped()
    }

    /// See [`Meter::leaps`].
    #[must_use]
    pub const fn leaps(&self) -> u32 {
        self.meter.leaps()
    }
}

#[cfg(test)]
mod tests;
