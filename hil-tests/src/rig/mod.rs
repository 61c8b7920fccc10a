//! Rigs: the same scenario on a twin, on the flashed image in QEMU, on a board.

pub mod image;
pub mod module;
pub mod qemu;
pub mod qtest;
