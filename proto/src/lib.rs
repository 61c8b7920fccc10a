//! The contract between devices, gateway and hub.
//!
//! Everything that crosses a wire is defined here and nowhere else: topics, messages, seals, signed envelopes, and the
//! two computations that every party must get equal to the last minor unit, the tariff and the double-entry book.
//!
//! Invariants: `no_std`, no clock, no I/O, no allocation without the feature `host`; no bytes lead to a panic.
#![no_std]
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "host")]
extern crate alloc;

pub mod address;
pub mod codec;
pub mod id;
pub mod identity;
pub mod instrument;
pub mod message;
pub mod money;
pub mod seal;
pub mod tariff;
pub mod topic;
pub mod trust;
pub mod update;

#[cfg(feature = "host")]
pub mod artifact;
#[cfg(feature = "host")]
pub mod book;
#[cfg(feature = "host")]
pub mod link;
#[cfg(feature = "host")]
pub mod policy;

mod digest;
mod wire;

/// The protocol version this crate speaks, the first byte of every sealed frame.
pub const VERSION: u8 = 1;
