//! `holdfast-bench`: the real boards of a bench, and `cargo run` in a board's folder.

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use hil_tests::{
    rig::{
        Not, Supplier as _,
        probe::{
            Probed, config,
            flash::{self, Programs},
        },
    },
    scenarios::{self, Outcome, Report, Row},
};
use probe_rs::probe::list::Lister;

/// Flashes boards through their debug probes, shows their logs, and tells them every scenario that their wiring allows.
#[derive(Debug, Parser)]
#[command(name = "holdfast-bench")]
struct Arguments {
    #[command(subcommand)]
    order: Order,
}

#[derive(Debug, Subcommand)]
enum Order {
    /// Shows the probes that are attached.
    List,
    /// Flashes one program, resets the board and shows its log until Ctrl-C: what `cargo run` does in a board's folder.
    Flash {
        /// The program.
        elf: PathBuf,
        /// As probe-rs calls the chip.
        #[arg(long)]
        chip: String,
        /// The bootloader that is flashed with it: its name beside the program.
        #[arg(long)]
        boot: Option<PathBuf>,
        /// `VID:PID:serial` of the probe, if several are attached.
        #[arg(long)]
        probe: Option<String>,
    },
    /// Tells every board of a bench every scenario; fails if one fails, and says what was not run.
    Run {
        /// The boards.
        #[arg(long, default_value = "bench.toml")]
        bench: PathBuf,
        /// Only scenarios whose name contains one of these.
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    let done = match Arguments::parse().order {
        Order::List => Ok(list()),
        Order::Flash { elf, chip, boot, probe } => {
            let boot = boot.map(|name| elf.with_file_name(name));
            let programs = Programs {
                boot: boot.as_deref(),
                elf: &elf,
                identity: None,
            };
            flash_one(&programs, &chip, probe.as_deref()).map(|()| ExitCode::SUCCESS)
        }
        Order::Run { bench, words } => run(&bench, &words),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn list() -> ExitCode {
    let probes = flash::probes(&Lister::new());
    if probes.is_empty() {
        println!("no debug probe is attached");
    }
    for probe in probes {
        println!("{probe}");
    }
    ExitCode::SUCCESS
}

fn flash_one(programs: &Programs<'_>, chip: &str, probe: Option<&str>) -> anyhow::Result<()> {
    let lister = Lister::new();
    let elf = programs.elf;
    let selector = flash::find(&lister, probe).with_context(|| format!("{} was not flashed", elf.display()))?;
    let mut session = flash::attach(&lister, &selector, chip)?;
    flash::flash(&mut session, programs, false)?;
    eprintln!("{} is flashed and verified; its log follows", elf.display());
    // Ctrl-C ends it.
    flash::listen(&mut session, &std::fs::read(elf)?, &AtomicBool::new(false), |line| {
        println!("{line}")
    })
}

fn run(bench: &std::path::Path, words: &[String]) -> anyhow::Result<ExitCode> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let boards = config::load(bench, &config::today(now))?;
    let mut report = Report::default();
    let chosen = |name: &str| words.is_empty() || words.iter().any(|word| name.contains(word.as_str()));
    for board in boards {
        let probed = Probed::new(board);
        let kind = probed.board().kind;
        // Only what its kind plays alone: one board is no hall.
        let mut told = scenarios::all();
        told.retain(|told| told.kinds == [kind] && chosen(&told.name));
        if let Err(why) = probed.has(kind) {
            report.rows.push(not_run(&probed, why));
            continue;
        }
        report.rows.extend(scenarios::tell(&probed, 1, &told).rows);
    }
    println!("\n{report}");
    let (_, _, failed) = report.counts();
    Ok(ExitCode::from(u8::from(failed > 0)))
}

/// One line for a board of which nothing is run.
fn not_run(probed: &Probed, why: Not) -> Row {
    Row {
        rig: probed.name().to_owned(),
        scenario: format!("every scenario of a {}", probed.board().kind.word()),
        outcome: Outcome::NotRun(why),
        took: std::time::Duration::ZERO,
    }
}
