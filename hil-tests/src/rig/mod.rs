//! Rigs: the same scenario on a twin, on the flashed image in QEMU, on a board.

pub mod chips;
pub mod image;
pub mod line;
pub mod module;
pub mod pins;
pub mod qemu;
pub mod qtest;
mod stack;
pub mod world;
