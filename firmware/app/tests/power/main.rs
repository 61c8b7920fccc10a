//! The power fails at every single operation on the flash: whatever is stored reads as it was before or as it is after, and
//! what boots is a whole image.
#![allow(clippy::unwrap_used)]

mod flash;
mod refusals;
mod store;
mod update;
mod world;
