//! BL0942: answers a request of two bytes with a packet of 23, at 4800 to 38400 baud (two pins of the chip decide), 8
//! data bits, no parity.
//!
//! ```text
//! request: 58 + address (0 to 3), AA
//! byte  0       55
//!       1..4    I_RMS       4..7    V_RMS       7..10   I_FAST_RMS
//!       10..13  WATT, signed            13..16  CF_CNT, pulses
//!       16..18  FREQ        18  -       19  STATUS      20..22  -
//!       22      inverted sum of the request's first byte and bytes 0 to 21
//! ```
//!
//! Registers are least significant byte first. The chip must be left as it starts: CF_CNT is not cleared by reading.
//! The address is part of the checksum, so the packet of another chip on the same wire is no packet.

use core::num::NonZeroU16;

use embedded_io_async::{Read, ReadReady, Write};

use super::{Carried, Counter, MeterError, Parts, Reading, quotient};
use crate::{inbox::Inbox, window::Window};

/// Bytes of a packet.
pub const PACKET_BYTES: usize = 23;
/// Voltage of the internal reference, in mV.
pub const REFERENCE_MV: NonZeroU16 = NonZeroU16::new(1_218).expect("1218 is not zero");
/// Pulses that may come between two readings: about 190 Wh with a shunt of 1 mΩ. One chip may be asked every minute.
pub const LEAP_PULSES_MAX: u32 = 1_024;
const READ: u8 = 0x58;
const PACKET: u8 = 0xAA;
const HEAD: u8 = 0x55;
const COUNTER_BITS: u32 = 24;
/// FREQ counts a clock of 1 MHz through one period of the line.
const FREQUENCY_CLOCK_MILLIHZ: u64 = 1_000_000_000;
/// Pieces that are thrown away before a request at most, so that a line that babbles cannot hold the caller there.
const FORGET_PIECES_MAX: u32 = 64;

/// Which of the four chips on one wire, as its pins say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Address {
    /// Both pins low, and what the packages without these pins have.
    #[default]
    A0,
    /// 1
    A1,
    /// 2
    A2,
    /// 3
    A3,
}

impl Address {
    const fn command(self) -> u8 {
        match self {
            Self::A0 => READ,
            Self::A1 => READ + 1,
            Self::A2 => READ + 2,
            Self::A3 => READ + 3,
        }
    }

    /// What asks this chip for a packet.
    #[must_use]
    pub const fn request(self) -> [u8; 2] {
        [self.command(), PACKET]
    }
}

/// The registers of one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Current.
    pub i_rms: u32,
    /// Voltage.
    pub v_rms: u32,
    /// Current, measured faster.
    pub i_fast_rms: u32,
    /// Active power, 24 bits with sign.
    pub watt: i32,
    /// Pulses, 24 bits.
    pub cf_cnt: u32,
    /// Length of a period of the line, in µs.
    pub freq: u16,
    /// Flags.
    pub status: u8,
}

impl Packet {
    /// The packet in 23 bytes, if they are one from the chip with this address.
    #[must_use]
    pub fn parse(address: Address, bytes: &[u8; PACKET_BYTES]) -> Option<Self> {
        let [
            head,
            i0,
            i1,
            i2,
            v0,
            v1,
            v2,
            f0,
            f1,
            f2,
            w0,
            w1,
            w2,
            c0,
            c1,
            c2,
            q0,
            q1,
            _,
            status,
            _,
            _,
            sum,
        ] = *bytes;
        let wide = |low, mid, high| u32::from_le_bytes([low, mid, high, 0]);
        (head == HEAD && sum == checksum(address, bytes)).then_some(Self {
            i_rms: wide(i0, i1, i2),
            v_rms: wide(v0, v1, v2),
            i_fast_rms: wide(f0, f1, f2),
            // The sign is in the topmost byte now, and comes back down with the value.
            watt: i32::from_le_bytes([0, w0, w1, w2]) >> 8,
            cf_cnt: wide(c0, c1, c2),
            freq: u16::from_le_bytes([q0, q1]),
            status,
        })
    }

    /// The bytes of this packet, from the chip with this address.
    #[cfg(any(test, feature = "encode"))]
    #[must_use]
    pub fn encode(&self, address: Address) -> [u8; PACKET_BYTES] {
        let [i0, i1, i2, _] = self.i_rms.to_le_bytes();
        let [v0, v1, v2, _] = self.v_rms.to_le_bytes();
        let [f0, f1, f2, _] = self.i_fast_rms.to_le_bytes();
        let [w0, w1, w2, _] = self.watt.to_le_bytes();
        let [c0, c1, c2, _] = self.cf_cnt.to_le_bytes();
        let [q0, q1] = self.freq.to_le_bytes();
        let mut bytes = [
            HEAD,
            i0,
            i1,
            i2,
            v0,
            v1,
            v2,
            f0,
            f1,
            f2,
            w0,
            w1,
            w2,
            c0,
            c1,
            c2,
            q0,
            q1,
            0,
            self.status,
            0,
            0,
            0,
        ];
        let sum = checksum(address, &bytes);
        let [.., last] = &mut bytes;
        *last = sum;
        bytes
    }

    /// Frequency of the line, in mHz; zero if there is none.
    #[must_use]
    pub fn frequency_mhz(&self) -> u32 {
        FREQUENCY_CLOCK_MILLIHZ
            .checked_div(u64::from(self.freq))
            .map_or(0, |mhz| u32::try_from(mhz).unwrap_or(u32::MAX))
    }
}

fn checksum(address: Address, bytes: &[u8; PACKET_BYTES]) -> u8 {
    let [summed @ .., _] = bytes;
    !summed
        .iter()
        .fold(address.command(), |sum, byte| sum.wrapping_add(*byte))
}

/// Finds packets in a stream of bytes, wherever they begin.
#[derive(Clone, Debug, Default)]
pub struct Parser {
    address: Address,
    window: Window<PACKET_BYTES>,
}

impl Parser {
    /// A parser for the packets of this chip.
    #[must_use]
    pub const fn new(address: Address) -> Self {
        Self {
            address,
            window: Window::new(),
        }
    }

    /// Takes the next byte in; the packet that it completes.
    pub fn push(&mut self, byte: u8) -> Option<Packet> {
        let may_begin = |bytes: &[u8]| bytes.first().is_none_or(|head| *head == HEAD);
        self.window
            .push(byte, may_begin, |bytes| Packet::parse(self.address, bytes))
    }

    /// Forgets a packet that has begun: what follows answers another request.
    pub fn reset(&mut self) {
        self.window.reset();
    }

    /// Bytes that belonged to no packet.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.window.dropped()
    }
}

/// Readings from packets.
///
/// From the datasheet, with `ratio = (upper + lower) / lower` of the divider, Vref in V and the shunt in mΩ:
///
/// ```text
/// I = I_RMS * Vref / (305978 * shunt)                                  in A
/// U = V_RMS * Vref * ratio / (73989 * 1000)                            in V
/// P = WATT * Vref^2 * ratio / (3537 * shunt * 1000)                    in W
/// E = CF_CNT * 1638.4 * 256 * Vref^2 * ratio / (3600000 * 3537 * shunt * 1000)   in kWh
/// ```
#[derive(Clone, Debug)]
pub struct Meter {
    parts: Parts,
    reference_mv: u128,
    counter: Counter,
    energy: Carried,
}

impl Meter {
    /// A meter with these parts and this reference (usually [`REFERENCE_MV`]). `leap_pulses_max`: more pulses than this
    /// between two readings were never drawn ([`LEAP_PULSES_MAX`] if nothing is known).
    #[must_use]
    pub fn new(parts: Parts, reference_mv: NonZeroU16, leap_pulses_max: u32) -> Self {
        Self {
            parts,
            reference_mv: u128::from(reference_mv.get()),
            counter: Counter::new(COUNTER_BITS, leap_pulses_max),
            energy: Carried::default(),
        }
    }

    /// What a packet says.
    pub fn read(&mut self, packet: &Packet) -> Reading {
        let (divider, lower, shunt) = (
            self.parts.divider_mohm(),
            self.parts.lower_mohm(),
            self.parts.shunt_nohm(),
        );
        let square = self.reference_mv * self.reference_mv;
        let pulses = u128::from(self.counter.advance(packet.cf_cnt));
        Reading {
            voltage_mv: quotient(
                u128::from(packet.v_rms) * self.reference_mv * divider,
                73_989 * 1_000 * lower,
            ),
            current_ma: quotient(
                u128::from(packet.i_rms) * self.reference_mv * 1_000_000,
                305_978 * shunt,
            ),
            power_mw: quotient(
                u128::from(packet.watt.unsigned_abs()) * square * divider,
                3_537 * shunt * lower,
            ),
            energy_uwh_delta: self
                .energy
                .divide(pulses * 4_194_304 * square * divider, 36 * 3_537 * shunt * lower),
        }
    }

    /// How often the counter was found elsewhere than expected: restarts of the chip and silences.
    #[must_use]
    pub const fn leaps(&self) -> u32 {
        self.counter.leaps
    }
}

/// A BL0942 on a UART.
#[derive(Debug)]
pub struct Bl0942<U> {
    inbox: Inbox<U>,
    address: Address,
    parser: Parser,
    meter: Meter,
}

impl<U: Read + ReadReady + Write> Bl0942<U> {
    /// The UART must have the speed that the chip's pins say, 8 data bits and no parity.
    pub const fn new(uart: U, address: Address, meter: Meter) -> Self {
        Self {
            inbox: Inbox::new(uart),
            address,
            parser: Parser::new(address),
            meter,
        }
    }

    /// Asks the chip and waits for its packet. A chip that is silent lets this wait for ever: the caller drops the
    /// future after some time (a packet takes 55 ms at 4800 baud) and asks again. No energy is lost by that.
    ///
    /// # Errors
    /// [`MeterError`]; the next call begins afresh.
    pub async fn read(&mut self) -> Result<Reading, MeterError<U::Error>> {
        self.forget().await?;
        let request = self.address.request();
        self.inbox.uart.write_all(&request).await.map_err(MeterError::Io)?;
        self.inbox.uart.flush().await.map_err(MeterError::Io)?;
        loop {
            let byte = self.inbox.byte().await?;
            if let Some(packet) = self.parser.push(byte) {
                return Ok(self.meter.read(&packet));
            }
        }
    }

    /// Bytes that belonged to no packet: a measure of the wiring.
    #[must_use]
    pub const fn dropped(&self) -> u32 {
        self.parser.dropped()
    }

    /// See [`Meter::leaps`].
    #[must_use]
    pub const fn leaps(&self) -> u32 {
        self.meter.leaps()
    }

    /// Throws away what answers a request that nobody waits for any more, or every answer would be one request late.
    async fn forget(&mut self) -> Result<(), MeterError<U::Error>> {
        self.parser.reset();
        self.inbox.clear();
        let mut left = FORGET_PIECES_MAX;
        while left > 0 && self.inbox.uart.read_ready().map_err(MeterError::Io)? {
            self.inbox.byte().await?;
            self.inbox.clear();
            left -= 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
