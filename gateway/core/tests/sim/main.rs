//! The whole system in virtual time: one gateway core with crashes at every step, the real device code with power cuts
//! at every effect, a hub, a cloud that lies, a network that loses, repeats and overtakes, people, and wrong clocks.
//!
//! Every run is made from its seed alone. `HOLDFAST_SIM_SEEDS=N` runs N seeds, `HOLDFAST_SIM_FIRST=K` begins at seed K,
//! `HOLDFAST_SIM_TRACE=1` prints what the gateway hears and decides, `HOLDFAST_SIM_BRIEF=1` gives each seed minutes instead
//! of hours, for runs of a million.
//! What is modelled and what is claimed: `docs/simulation.md`.

mod auditor;
mod bill;
mod cloud;
mod codes;
mod devices;
mod gateway;
mod hub;
mod instruments;
mod issuer;
mod marks;
mod orders;
mod outlet;
mod people;
mod publish;
mod random;
mod run;
mod shell;
mod world;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use marks::Marks;

/// Seeds of an optimised build; an ordinary one is three times slower, and the test command names its own number.
const SEEDS_DEFAULT: u64 = if cfg!(debug_assertions) { 20 } else { 2_000 };
/// So many seeds are enough to ask for every mark.
const SEEDS_FOR_MARKS: u64 = 1_000;
/// A long run says where it is after so many seeds.
const SEEDS_PER_WORD: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    let value = std::env::var(name).ok();
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{name} is a number"))
    })
}

/// The seeds that are still to be run, handed out one by one.
struct Seeds {
    next: AtomicU64,
    end: u64,
}

impl Seeds {
    fn take(&self) -> Option<Seed<'_>> {
        let seed = self.next.fetch_add(1, Ordering::Relaxed);
        (seed < self.end).then_some(Seed { seed, all: self })
    }
}

/// Says which seed it was, if the run dies, and ends the other threads' work.
struct Seed<'a> {
    seed: u64,
    all: &'a Seeds,
}

impl Drop for Seed<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.seed;
            eprintln!("seed {seed} failed; again: HOLDFAST_SIM_FIRST={seed} HOLDFAST_SIM_SEEDS=1");
            self.all.next.store(self.all.end, Ordering::Relaxed);
        }
    }
}

fn work(seeds: &Seeds, length: run::Length, trace: bool) -> (Marks, run::Totals) {
    let mut marks = Marks::new();
    let mut totals = run::Totals::default();
    while let Some(seed) = seeds.take() {
        totals.add(&run::run(seed.seed, length, trace, &mut marks));
        if seed.seed.is_multiple_of(SEEDS_PER_WORD) {
            println!("seed {}", seed.seed);
        }
    }
    (marks, totals)
}

#[test]
fn whole_system() {
    let first = number("HOLDFAST_SIM_FIRST", 1);
    let count = number("HOLDFAST_SIM_SEEDS", SEEDS_DEFAULT);
    let trace = number("HOLDFAST_SIM_TRACE", 0) > 0;
    let length = match number("HOLDFAST_SIM_BRIEF", 0) {
        0 => run::Length::Whole,
        _ => run::Length::Brief,
    };
    let threads = match trace {
        true => 1,
        false => std::thread::available_parallelism().map_or(1, usize::from),
    };
    let begun = Instant::now();
    let seeds = Seeds {
        next: AtomicU64::new(first),
        end: first + count,
    };
    let (mut marks, mut totals) = (Marks::new(), run::Totals::default());
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads)
            .map(|_| scope.spawn(|| work(&seeds, length, trace)))
            .collect();
        for worker in workers {
            let (hit, done) = worker.join().expect("every seed passes");
            marks.add(&hit);
            totals.add(&done);
        }
    });
    marks.print();
    println!(
        "seeds {first} to {}, {totals}, {:.1} s",
        first + count - 1,
        begun.elapsed().as_secs_f64()
    );
    let missing = marks.missing();
    assert!(
        count < SEEDS_FOR_MARKS || length == run::Length::Brief || missing.is_empty(),
        "never happened: {missing:?}"
    );
}
