//! The driver of the fuzz target on random bytes, so that every test run drives the device a little; `fuzz/` goes on
//! from here for hours.
//!
//! The seed is printed; `DRIVE_SEED` runs one again, `DRIVE_RUNS` more of them.

mod bench;
#[path = "bench/drive.rs"]
mod drive;

use bench::Dice;
use drive::{Reached, drive};

const RUNS: u64 = 250;
const BYTES: usize = 8_192;

#[test]
fn no_output_is_on_without_a_live_grant_or_an_instrument() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("DRIVE_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..number("DRIVE_RUNS").unwrap_or(RUNS) + 1,
    };
    let runs = seeds.end - seeds.start;
    let mut all = Reached::default();
    for seed in seeds {
        println!("DRIVE_SEED={seed}");
        let mut dice = Dice(seed);
        let bytes: Vec<u8> = (0..BYTES / 8).flat_map(|_| dice.roll().to_le_bytes()).collect();
        all.add(&drive(&bytes));
    }
    println!("{all:?}");
    assert!(runs == 1 || all.is_everything(), "the runs prove nothing: {all:?}");
}
