//! The bench: twins of the devices and the people who use them, a cloud that lies, whole sites as processes, and the
//! auditor of their books.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod account;
pub mod books;
pub mod cloud_broker;
pub mod cloud_sim;
pub mod courier;
pub mod drain;
pub mod drill;
pub mod fleet;
pub mod look;
pub mod measure;
pub mod mqtt_wire;
pub mod orders;
pub mod outpost;
pub mod process;
pub mod proxy;
pub mod rehearsal;
pub mod rig;
pub mod scenarios;
pub mod site;
pub mod storm;
pub mod twin;
