//! Drivers for what surrounds a device.
//!
//! | module | what it drives |
//! |---|---|
//! | [`meter`] | energy meter chips on a UART: HLW8032, BL0942 |
//! | [`flow`] | the pulses of a flow sensor |
//! | [`coin`] | the coin line of a washer, by pulses that a coin acceptor would send |
//! | [`pilot`] | the control pilot of a car charger |
//! | [`ntc`] | temperature by a thermistor |
//! | [`reader`] | card readers: PN532 on a UART |
//! | [`debounce`] | contacts: door, plug, leak, relay sense, button |
//! | [`keypad`] | a key matrix, up to entered digits |
//!
//! What understands is sans-I/O: bytes, levels or counts go in with the time, readings come out. Around it are thin
//! adapters over the traits of embedded-hal and embedded-io, so that the same code runs on a microcontroller, and on the
//! host against a bench that plays the other end (feature `encode`).
//!
//! Invariants: no clock, no allocation, no float, no panic on any input. Time is milliseconds since boot; a clock that
//! runs backwards stands still. What comes from a wire proves itself (checksum, length, plausibility) before it is
//! a reading; nothing is guessed from what does not.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

pub mod coin;
pub mod debounce;
pub mod flow;
mod inbox;
pub mod keypad;
pub mod meter;
pub mod ntc;
pub mod pilot;
pub mod reader;
#[cfg(test)]
mod testing;
mod window;
