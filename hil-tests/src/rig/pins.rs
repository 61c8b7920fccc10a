//! Where the board's wires are: the table at the head of `firmware/boards/b-l475e-iot01a/src/lib.rs`, from the other side.
//! Contacts pull to ground.

use super::qtest::Port;

/// A pin: its port and its number.
pub type Pin = (Port, u8);

/// Contactor, start permit or valve.
pub const OUTPUT: Pin = (Port::A, 5);
/// Coin line of the washer.
pub const COINS: Pin = (Port::A, 7);
/// Sense contact of the contactor, or the washer runs.
pub const CLOSED_OR_RUNNING: Pin = (Port::A, 15);
/// Flow pulses of the dispenser.
pub const FLOW: Pin = (Port::B, 0);
/// Residual current, or water on the floor.
pub const LEAK: Pin = (Port::B, 1);
/// Plug in the socket, or door locked.
pub const PLUG_OR_DOOR: Pin = (Port::B, 4);
/// The stop button.
pub const STOP: Pin = (Port::C, 13);
/// The thermistor's channel of the ADC.
pub const THERMISTOR_CHANNEL: u64 = 4;
