//! The bench: twins of the devices, the people who use them, and everything that drives the parts together.

pub mod fleet;
pub mod twin;
