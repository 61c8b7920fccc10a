//! `holdfast-drain`: how fast the backlog of an outage goes up, beside a plain mosquitto bridge that carries as many
//! messages of the same size on the same machine.

use std::process::ExitCode;

use clap::Parser;
use hil_tests::drain;

/// Drains a backlog through two clouds, one of them dark, then lying, then back, beside a mosquitto bridge.
#[derive(Parser)]
struct Options {
    /// Records of the backlog.
    #[arg(long, default_value_t = 100_000)]
    records: u32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holdfast-drain: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let dir = tempfile::tempdir()?;
    println!("Filling a journal with {} records ...", options.records);
    let ours = drain::two_clouds(dir.path(), options.seed, options.records.div_ceil(3))?;
    let peer_dir = tempfile::tempdir()?;
    let peer = drain::bridge(peer_dir.path(), ours.records)?;
    let rate = |count: u64, seconds: f64| format!("{:.0}/s", count as f64 / seconds);
    println!("{:<34} {:>16} {:>16}", "", "Holdfast", "mosquitto bridge");
    let row = |name: &str, ours: String, peer: String| println!("{name:<34} {ours:>16} {peer:>16}");
    row("records", ours.records.to_string(), ours.records.to_string());
    row(
        "first one up after",
        format!("{:.2} s", ours.first.as_secs_f64()),
        format!("{:.2} s", peer.first.as_secs_f64()),
    );
    row(
        "all up after",
        format!("{:.1} s", ours.took.as_secs_f64()),
        format!("{:.1} s", peer.took.as_secs_f64()),
    );
    row(
        "rate over all",
        rate(ours.records, ours.took.as_secs_f64()),
        rate(ours.records, peer.took.as_secs_f64()),
    );
    row(
        "rate while a cloud carried",
        rate(ours.records, ours.carrying.as_secs_f64()),
        rate(ours.records, peer.took.as_secs_f64()),
    );
    row("lost", ours.books.records_lost.to_string(), peer.lost.to_string());
    row(
        "doubled",
        ours.books.records_doubled.to_string(),
        peer.doubled.to_string(),
    );
    println!("ours also: booked in double entry, each with a receipt, through two changes of the cloud:");
    for (act, cloud) in &ours.carried_by {
        println!("  {act:<26} by the {cloud}");
    }
    Ok(ours.books.are_closed())
}
