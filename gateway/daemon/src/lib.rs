//! The gateway daemon: the shell around `gateway-core`. It may fail; it may not decide.
//!
//! One session: a device publishes `authorize` ([`devices`] checks the seal), the [`engine`] lets the core decide, the
//! [`store`] makes the events durable, and only then the grant leaves and the device's message is acknowledged. The
//! [`cloud`] link asks, uploads and fetches; it never stands in a user's way for longer than the core's deadline.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod artifacts;
pub mod backup;
pub mod cli;
pub mod clock;
pub mod cloud;
pub mod config;
pub mod control;
pub mod devices;
mod disk;
pub mod door;
pub mod engine;
pub mod files;
pub mod firmware;
pub mod look;
pub mod outbox;
pub mod page;
pub mod pki;
pub mod provision;
pub mod record;
pub mod reload;
pub mod run;
pub mod store;
pub mod stream;
mod telemetry;
pub mod trust;
mod users;

/// Exit codes, as in sysexits.h where it has one.
pub mod exit {
    /// Wrong usage.
    pub const USAGE: u8 = 64;
    /// Something in a file is not believed.
    pub const DATA: u8 = 65;
    /// What was asked for is not there, or not told from others.
    pub const NOT_FOUND: u8 = 66;
    /// A port or socket cannot be had, or no daemon answers.
    pub const UNAVAILABLE: u8 = 69;
    /// An invariant is broken.
    pub const SOFTWARE: u8 = 70;
    /// A file that would be written is there already.
    pub const EXISTS: u8 = 73;
    /// The journal cannot be opened, read or written.
    pub const STORAGE: u8 = 74;
    /// The configuration is wrong.
    pub const CONFIG: u8 = 78;
}
