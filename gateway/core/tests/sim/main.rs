//! The whole system in virtual time: one gateway core with crashes at every step, the real device code with power cuts
//! at every effect, a hub, a cloud that lies, a network that loses, repeats and overtakes, people, and wrong clocks.
//!
//! Every run is made from its seed alone. `HOLDFAST_SIM_SEEDS=N` runs N seeds, `HOLDFAST_SIM_FIRST=K` begins at seed K,
//! `HOLDFAST_SIM_TRACE=1` prints what the gateway hears and decides.
//! What is modelled and what is claimed: `docs/simulation.md`.

mod auditor;
mod bill;
mod cloud;
mod devices;
mod gateway;
mod hub;
mod marks;
mod outlet;
mod people;
mod random;
mod run;
mod shell;
mod world;

use std::time::Instant;

use marks::Marks;

/// Seeds of an ordinary run: all marks are hit, in well under a minute on one core.
const SEEDS_FOR_MARKS: u64 = 300;
/// An unoptimised build is ten times slower; it runs a few, and proves no marks.
const SEEDS_DEFAULT: u64 = if cfg!(debug_assertions) { 20 } else { SEEDS_FOR_MARKS };

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// Says which seed it was, if the run dies.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            eprintln!("seed {seed} failed; again: HOLDFAST_SIM_FIRST={seed} HOLDFAST_SIM_SEEDS=1");
        }
    }
}

#[test]
fn whole_system() {
    let first = number("HOLDFAST_SIM_FIRST", 1);
    let count = number("HOLDFAST_SIM_SEEDS", SEEDS_DEFAULT);
    let trace = number("HOLDFAST_SIM_TRACE", 0) > 0;
    let begun = Instant::now();
    let mut marks = Marks::new();
    let mut totals = run::Totals::default();
    for seed in first..first + count {
        let name = Seed(seed);
        totals.add(&run::run(seed, trace, &mut marks));
        drop(name);
    }
    marks.print();
    println!(
        "seeds {first} to {}, {totals}, {:.1} s",
        first + count - 1,
        begun.elapsed().as_secs_f64()
    );
    let missing = marks.missing();
    assert!(
        count < SEEDS_DEFAULT || missing.is_empty(),
        "never happened: {missing:?}"
    );
}
