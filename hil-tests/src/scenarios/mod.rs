//! Scenarios: each told once, for every rig. One file per theme; a scenario is a function over a [`Bench`], which has a
//! site of real processes and the devices of one rig.
//!
//! A scenario begins with devices that are free and linked, and it ends when the books of gateway and hub are compared line
//! by line: whoever tells it does not have to.

mod bench;
mod clocks;
mod everyday;
mod grants;
mod instruments;
mod links;
mod orders;
mod power;
mod report;
mod safety;

use std::time::Instant;

use proto::id::Kind;

pub use bench::{Bench, ONE};
pub use report::{Outcome, Report, Row};

use crate::rig::{Not, Skill, Supplier};

/// Who plays in a scenario.
#[derive(Clone, Copy, Debug)]
pub enum Cast {
    /// One device; told once for each of these kinds.
    Each(&'static [Kind]),
    /// One device of each of these kinds, together.
    Together(&'static [Kind]),
}

/// Something that happens at a site, and what must come of it.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name, in the words of the report.
    pub name: &'static str,
    /// Who plays.
    pub cast: Cast,
    /// What the rig of each device must be able to do.
    pub needs: &'static [Skill],
    /// Tells it.
    pub tell: fn(&mut Bench) -> anyhow::Result<()>,
}

/// A scenario with its cast.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its name, with the kind.
    pub name: String,
    /// Which.
    pub scenario: Scenario,
    /// The devices.
    pub kinds: Vec<Kind>,
}

/// Chargers, washers and dispensers.
const ALL: &[Kind] = &Kind::SERVED;
const CHARGER: &[Kind] = &[Kind::Charger];
const WASHER: &[Kind] = &[Kind::Washer];
const DISPENSER: &[Kind] = &[Kind::Dispenser];

/// Everything there is to tell, scenario by scenario, kind by kind.
#[must_use]
pub fn all() -> Vec<Told> {
    let themes = [
        everyday::SCENARIOS,
        links::SCENARIOS,
        grants::SCENARIOS,
        orders::SCENARIOS,
        clocks::SCENARIOS,
        power::SCENARIOS,
        instruments::SCENARIOS,
        safety::SCENARIOS,
    ];
    let mut told = Vec::new();
    for scenario in themes.into_iter().flatten() {
        match scenario.cast {
            Cast::Each(kinds) => told.extend(kinds.iter().map(|kind| Told {
                name: format!("{}: {}", kind.word(), scenario.name),
                scenario: *scenario,
                kinds: vec![*kind],
            })),
            Cast::Together(kinds) => told.push(Told {
                name: format!("together: {}", scenario.name),
                scenario: *scenario,
                kinds: kinds.to_vec(),
            }),
        }
    }
    told
}

impl Told {
    /// Whether the rigs of this supplier can play it.
    ///
    /// # Errors
    /// The first reason why not.
    pub fn fits(&self, supplier: &dyn Supplier) -> Result<(), Not> {
        for kind in &self.kinds {
            supplier.has(*kind)?;
            for skill in self.scenario.needs {
                supplier.can(*kind, *skill)?;
            }
        }
        Ok(())
    }
}

/// Tells scenarios one after the other at one site, and reports on each. After a failure the next one gets a site of its
/// own.
pub fn tell(supplier: &dyn Supplier, seed: u64, scenarios: &[Told]) -> Report {
    let mut report = Report::default();
    let mut kinds: Vec<Kind> = Vec::new();
    for told in scenarios.iter().filter(|told| told.fits(supplier).is_ok()) {
        kinds.extend(&told.kinds);
    }
    let mut open: Option<Bench> = None;
    for told in scenarios {
        let since = Instant::now();
        let outcome = match told.fits(supplier) {
            Err(not) => Outcome::NotRun(not),
            Ok(()) => tell_one(supplier, seed, &kinds, told, &mut open),
        };
        let row = Row {
            rig: supplier.name().to_owned(),
            scenario: told.name.clone(),
            outcome,
            took: since.elapsed(),
        };
        println!("{row}");
        report.rows.push(row);
    }
    report
}

fn tell_one(supplier: &dyn Supplier, seed: u64, kinds: &[Kind], told: &Told, open: &mut Option<Bench>) -> Outcome {
    let mut bench = match open.take().map_or_else(|| Bench::open(supplier, seed, kinds), Ok) {
        Ok(bench) => bench,
        Err(error) => return Outcome::Failed(format!("the site does not come up: {error:#}")),
    };
    bench.cast(&told.kinds);
    let done = (told.scenario.tell)(&mut bench).and_then(|()| bench.close());
    match done {
        Ok(()) => {
            *open = Some(bench);
            Outcome::Passed
        }
        Err(error) => Outcome::Failed(format!("{error:#}\n{}", bench.logs())),
    }
}

/// Sites of each kind: told at once, because devices mostly wait. Whoever has the most to tell has the most.
const SITES: [(Kind, usize); 3] = [(Kind::Charger, 2), (Kind::Washer, 2), (Kind::Dispenser, 1)];

/// What is told at one site after the other, so that several sites can be told at once; what several kinds play together
/// has one of its own.
#[must_use]
pub fn sittings(told: Vec<Told>) -> Vec<Vec<Told>> {
    let mut sittings = Vec::new();
    let (alone, together): (Vec<Told>, Vec<Told>) = told.into_iter().partition(|told| told.kinds.len() == 1);
    for (kind, sites) in SITES {
        let mut of_kind: Vec<Vec<Told>> = vec![Vec::new(); sites];
        let mine = alone.iter().filter(|told| told.kinds == [kind]);
        for (i, told) in mine.enumerate() {
            of_kind[i % sites].push(told.clone());
        }
        sittings.extend(of_kind);
    }
    sittings.push(together);
    sittings.retain(|sitting| !sitting.is_empty());
    sittings
}

/// Tells sittings at once, each at a site of its own, and reports on all.
pub fn tell_at_once(supplier: &(dyn Supplier + Sync), told: Vec<Told>) -> Report {
    let mut report = Report::default();
    std::thread::scope(|scope| {
        let sittings = sittings(told).into_iter().zip(1..);
        let telling: Vec<_> = sittings
            .map(|(sitting, seed)| scope.spawn(move || tell(supplier, seed, &sitting)))
            .collect();
        for sitting in telling {
            let told = sitting.join().expect("a failure is reported, not a panic");
            report.rows.extend(told.rows);
        }
    });
    report
}
