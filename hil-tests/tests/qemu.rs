//! The flashed images in QEMU: real firmware on an emulated microcontroller, at a real gateway with a real hub, behind a
//! cloud that fails. Every scenario, at several sites at once.
//!
//! `HOLDFAST_IMAGES` names the folder of the images; `cargo xtask test --step qemu` builds them and runs this. Words given
//! choose the scenarios that contain one of them.

use std::{path::PathBuf, process::ExitCode};

use hil_tests::{rig::emulated::Qemu, scenarios};

/// What this board cannot play. A scenario that is missing here and not run fails; so does one that is here and run.
const NOT_RUN: &[&str] = &[
    "washer: too much current",
    "dispenser: too much current",
    "dispenser: a meter falls silent",
    "charger: a meter stands still under load",
];

fn main() -> ExitCode {
    let Some(images) = std::env::var_os("HOLDFAST_IMAGES") else {
        eprintln!("HOLDFAST_IMAGES: where the images are");
        return ExitCode::FAILURE;
    };
    let qemu = Qemu::new(PathBuf::from(images));
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let mut chosen = scenarios::all();
    chosen.retain(|told| words.is_empty() || words.iter().any(|word| told.name.contains(word.as_str())));
    let report = scenarios::tell_at_once(&qemu, chosen);
    println!("\n{report}");
    let unknown: Vec<_> = report.not_run().filter(|(name, _)| !NOT_RUN.contains(name)).collect();
    let run: Vec<_> = report.rows.iter().map(|row| row.scenario.as_str()).collect();
    let not_run: Vec<_> = report.not_run().map(|(name, _)| name).collect();
    let stale: Vec<_> = NOT_RUN
        .iter()
        .filter(|name| run.contains(name) && !not_run.contains(name))
        .collect();
    if !unknown.is_empty() || !stale.is_empty() {
        println!("not run, and not known as such: {unknown:?}; known as not run, and run: {stale:?}");
        return ExitCode::FAILURE;
    }
    let (_, _, failed) = report.counts();
    ExitCode::from(u8::from(failed > 0))
}
