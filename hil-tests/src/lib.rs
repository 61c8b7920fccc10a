//! The bench: twins of the devices and the people who use them, a cloud that lies, whole sites as processes, and the
//! auditor of their books.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod books;
pub mod cloud_sim;
pub mod drill;
pub mod fleet;
pub mod look;
pub(crate) mod mqtt_wire;
pub mod process;
pub mod rig;
pub mod scenarios;
pub mod site;
pub mod twin;
