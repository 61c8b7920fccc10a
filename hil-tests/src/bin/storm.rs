//! `holdfast-storm`: many gateways come back at once to one hub behind a cloud that throttles.

use std::process::ExitCode;

use clap::Parser;
use hil_tests::storm::{self, Orders};

/// Many gateways, each a process with the backlog of an outage, come back at once to a cloud that throttles.
#[derive(Parser)]
struct Options {
    /// Gateways.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u16).range(1..=1000))]
    gateways: u16,
    /// Sessions of each one's outage, three records each.
    #[arg(long, default_value_t = 60)]
    sessions: u32,
    /// Requests a second that the cloud carries; the rest is told to slow down.
    #[arg(long, default_value_t = 200)]
    rate: u32,
    /// Everything random follows from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("holdfast-storm: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<bool> {
    let dir = tempfile::tempdir()?;
    println!(
        "{} gateways with {} sessions each, a cloud that carries {} requests a second ...",
        options.gateways, options.sessions, options.rate
    );
    let orders = Orders {
        gateways: usize::from(options.gateways),
        sessions: options.sessions,
        rate: options.rate,
        seed: options.seed,
    };
    let seen = storm::play(dir.path(), orders)?;
    let row = |name: &str, value: String| println!("  {name:<52} {value:>16}");
    row("records of all backlogs", seen.records.to_string());
    row("all receipted after", format!("{:.1} s", seen.took.as_secs_f64()));
    row(
        "records committed within a second, at most",
        seen.records_a_second_max.to_string(),
    );
    row("requests told to slow down", seen.throttled.to_string());
    row(
        "connections of one gateway within a minute, at most",
        seen.connects.0.to_string(),
    );
    let least = seen.connects.1.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms"));
    row("shortest time between two", least);
    row(
        "gateways that told money before the revocation came",
        seen.money_first.to_string(),
    );
    row(
        "verdict p99, dark and quiet",
        format!("{:.1} ms", seen.verdict_p99_ms.0),
    );
    row("verdict p99, in the storm", format!("{:.1} ms", seen.verdict_p99_ms.1));
    row("good people refused", seen.good_refused.to_string());
    row(
        "largest gateway, before and after",
        format!("{} / {} KiB", seen.memory_kib.0, seen.memory_kib.1),
    );
    row("lines in both books", seen.books.0.to_string());
    row("lost / doubled", format!("{} / {}", seen.books.1, seen.books.2));
    println!(
        "{}",
        if seen.holds() {
            "Everything holds."
        } else {
            "IT DOES NOT HOLD."
        }
    );
    Ok(seen.holds())
}
