//! Real boards behind debug probes, as `bench.toml` describes them. What needs the probe library is behind the feature
//! `probe`; reading the file is not.

pub mod config;

#[cfg(feature = "probe")]
mod board;
#[cfg(feature = "probe")]
pub mod flash;

#[cfg(feature = "probe")]
pub use board::Probed;
