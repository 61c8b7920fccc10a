//! Drills: real outages replayed in virtual time, on a model campus made of the real cores of gateway and hub and the
//! real code of the devices. Everything follows from the scenario and the seed; the same two give the same hash.
//!
//! `oracle` computes beside the system what is true, and never asks it; `bridge` is the only file that knows the
//! shapes of both cores.

mod bridge;
mod cloud;
mod devices;
mod gateway;
mod hub;
mod link;
mod oracle;
mod outlet;
mod parse;
mod people;
mod publish;
pub mod report;
mod run;
pub mod scenario;
pub mod shipped;
pub mod table;
mod tally;
pub(crate) mod when;
mod world;

pub use parse::{ScenarioError, parse};
pub use run::run;
