//! `holdfast-measure`: how fast, how small, how durable, beside the physical limit or a peer in the same run.

use std::{alloc::System, path::PathBuf, process::ExitCode};

use clap::{Parser, ValueEnum};
use hil_tests::measure::{self, Size};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts what this process allocates; the gateway is another process.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Measures real processes and prints tables. `cargo xtask bench` runs all of them.
#[derive(Parser)]
struct Options {
    /// What.
    what: What,
    /// As little as shows that it works.
    #[arg(long)]
    quick: bool,
    /// Records of the large backlog of `drain`; 1,000,000 by default, none with --quick.
    #[arg(long)]
    records: Option<u32>,
    /// Minutes of `soak`; 60 by default.
    #[arg(long)]
    minutes: Option<u32>,
    /// Where stores are made: on the disk that is measured.
    #[arg(long, default_value = "target/measure")]
    dir: PathBuf,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    /// From authorize to durable grant.
    Latency,
    /// Decide and apply, and core and journal without a network.
    Core,
    /// Seal, open, encode, decode.
    Codec,
    /// From SIGKILL to the first grant.
    Boot,
    /// Memory and size.
    Footprint,
    /// Bytes written to the flash.
    Wear,
    /// The records of an outage, to a hub.
    Drain,
    /// Weeks of a campus, with faults: what grows.
    Soak,
    /// Where the time of a durable grant goes.
    Profile,
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
    // Ten thousand connections are ten thousand open files, here and in whatever is started from here.
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let all = rustix::process::Rlimit {
        current: limit.maximum,
        ..limit
    };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, all)?;
    let dir = tempfile::tempdir_in(&options.dir)?;
    let size = if options.quick { Size::Quick } else { Size::Full };
    match options.what {
        What::Latency => measure::latency::run(size, dir.path()),
        What::Core => measure::core::run(size, dir.path(), || ALLOCATOR.stats().allocations),
        What::Codec => measure::codec::run(size),
        What::Boot => measure::boot::run(size, dir.path(), &options.dir),
        What::Footprint => measure::footprint::run(size, dir.path()),
        What::Profile => measure::profile::run(size, dir.path(), &options.dir),
        What::Drain => measure::drain::run(size, dir.path(), options.records),
        What::Soak => measure::soak::run(size, dir.path(), options.minutes),
        What::Wear => measure::wear::run(size, dir.path()),
    }
}
