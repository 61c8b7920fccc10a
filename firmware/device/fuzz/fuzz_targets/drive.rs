//! Whatever arrives, is presented or is measured, whenever the power fails: no panic, and no output is on without a live
//! grant or an instrument. The driver is that of `tests/drive.rs`.
#![no_main]

#[path = "../../tests/bench/mod.rs"]
mod bench;
#[path = "../../tests/bench/drive.rs"]
mod drive;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    drive::drive(bytes);
});
