//! What is measured, and beside what: each measurement prints tables with the physical limit or a peer of the same run.
//! `cargo xtask bench` runs all and writes docs/benchmarks.md.

pub mod boot;
pub mod bridge;
pub mod codec;
pub mod core;
pub mod drain;
pub mod floor;
pub mod footprint;
mod instructions;
pub mod latency;
pub mod load;
pub mod peer;
pub mod post;
pub mod proc;
pub mod profile;
mod seat;
pub mod soak;
pub mod stat;
pub mod stock;
pub mod table;
pub mod wear;

/// How much is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Seconds: shows that it runs and that its books are right.
    Quick,
    /// Minutes: what docs/benchmarks.md is made of.
    Full,
}
