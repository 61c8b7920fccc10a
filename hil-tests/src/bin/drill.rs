//! `cargo drill`, `holdfast-drill`: replays outages on a model campus, in virtual time.

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};
use hil_tests::drill::{self, report::Report, scenario::Scenario, shipped};

/// Nothing was replayed: wrong usage, or a scenario that cannot be read.
const EXIT_USAGE: u8 = 64;
/// A check failed.
const EXIT_FAILED: u8 = 1;
/// Parts of a million in a whole.
const WHOLE: f64 = 1_000_000.0;

/// Replays outages on a model campus made of the real gateway, hub and device code, in virtual time
#[derive(Parser)]
#[command(
    version,
    after_help = "Exit code 0: every check holds; 1: one does not, and is named; 64: nothing was replayed.\nThe format of scenarios: docs/drills.md, and `holdfast-drill show NAME` for examples."
)]
struct Options {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Lists the drills that come with this program
    List,
    /// Prints the text of a drill, to start your own from
    Show {
        /// Its name, as `list` prints it
        name: String,
    },
    /// Replays a drill
    Run {
        /// A name that `list` prints, a scenario file, or `all`
        scenario: String,
        /// Everything random follows from it
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// Size of the campus: 1 is what the scenario says, 0.1 a tenth of its devices, people, visits and budget
        #[arg(long, default_value_t = 1.0, value_parser = scale)]
        scale: f64,
        /// Write the result as JSON
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Tell on stderr what happens
        #[arg(long)]
        trace: bool,
        /// No table
        #[arg(long)]
        quiet: bool,
    },
}

fn scale(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.001..=10.0).contains(&value) {
        Ok(value)
    } else {
        Err("between 0.001 and 10".to_owned())
    }
}

fn main() -> ExitCode {
    match run(Options::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(EXIT_FAILED),
        Err(error) => {
            eprintln!("holdfast-drill: {error:#}");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn run(command: Command) -> anyhow::Result<bool> {
    match command {
        Command::List => {
            for (name, _) in shipped::SHIPPED {
                let scenario = find(name)?;
                println!("{name:33}{}", scenario.title);
            }
            Ok(true)
        }
        Command::Show { name } => {
            let Some((_, text)) = shipped::SHIPPED.iter().find(|(known, _)| *known == name) else {
                bail!("there is no drill {name:?}; `holdfast-drill list` prints their names");
            };
            print!("{text}");
            Ok(true)
        }
        Command::Run {
            scenario,
            seed,
            scale,
            json,
            trace,
            quiet,
        } => {
            let names: Vec<&str> = match scenario.as_str() {
                "all" => shipped::SHIPPED.iter().map(|(name, _)| *name).collect(),
                one => vec![one],
            };
            if names.len() > 1 && json.is_some() {
                bail!("--json writes the result of one drill, not of all");
            }
            let mut good = true;
            for name in names {
                let scenario = find(name)?.scaled((scale * WHOLE).round() as u64);
                let report = drill::run(&scenario, seed, trace)?;
                good &= tell(&report, json.as_deref(), quiet)?;
            }
            Ok(good)
        }
    }
}

/// A shipped drill, or a file.
fn find(name: &str) -> anyhow::Result<Scenario> {
    if let Some(scenario) = shipped::find(name) {
        return scenario.with_context(|| format!("drill {name}"));
    }
    let path = Path::new(name);
    if !path.exists() {
        bail!("{name:?} is neither a drill (`holdfast-drill list` prints their names) nor a file");
    }
    let text = fs::read_to_string(path).with_context(|| format!("{name} cannot be read"))?;
    let stem = path.file_stem().map_or(name.into(), |stem| stem.to_string_lossy());
    drill::parse(&stem, &text).with_context(|| name.to_owned())
}

fn tell(report: &Report, json: Option<&Path>, quiet: bool) -> anyhow::Result<bool> {
    if !quiet {
        let mut text = String::new();
        drill::table::write(&mut text, report)?;
        println!("{text}");
    }
    if let Some(path) = json {
        let text = serde_json::to_string_pretty(report)?;
        fs::write(path, text + "\n").with_context(|| format!("{} cannot be written", path.display()))?;
    }
    let mut good = true;
    for checked in report.failed() {
        good = false;
        eprintln!(
            "{}: seed {}: {} should be {}, it is {}",
            report.scenario, report.seed, checked.key, checked.wanted, checked.found
        );
    }
    Ok(good)
}
