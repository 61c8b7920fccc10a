//! `holdfast-measure`: how fast, how small, how durable, beside the physical limit or a peer in the same run.

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use hil_tests::measure::{self, Size};

/// Measures real processes and prints tables. `cargo xtask bench` runs all of them.
#[derive(Parser)]
struct Options {
    /// What.
    what: What,
    /// As little as shows that it works.
    #[arg(long)]
    quick: bool,
    /// Where stores are made: on the disk that is measured.
    #[arg(long, default_value = "target/measure")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// From authorize to durable grant.
    Latency,
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-measure: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.dir)?;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let size = if options.quick { Size::Quick } else { Size::Full };
    match options.what {
        What::Latency => measure::latency::run(size, dir.path()),
    }
}
