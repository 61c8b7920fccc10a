//! The shell around the state machines of [`device`]: whatever a board has to be, told in a few traits, and the tasks
//! that bring them together. Runs on a microcontroller under embassy's executor and on the host under any other.
//!
//! ```text
//! link::run     MQTT over any byte stream  <-- frames up ---   control::run     owns the Device: reads the machine,
//!               (UART module, TCP socket)  --- events down ->  switches outputs, stores records, shows screens
//! ```
//! The two tasks share nothing but two bounded channels, so that no connection trouble ever delays a switch-off.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(test)]
extern crate std;

pub mod control;
pub mod gesture;
pub mod link;
pub mod machine;
pub mod store;
pub mod tcp;
pub mod transport;
pub mod update;
