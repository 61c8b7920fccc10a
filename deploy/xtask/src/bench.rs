//! `cargo xtask bench`: builds with optimisation, runs every measurement of `holdfast-measure`, one after the other, and writes
//! what they print to docs/benchmarks.md, with machine, commit and date.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::Stdio,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    context::{Context, output_of, run, say},
    images,
    programs::HOST,
};

/// Every measurement, as `holdfast-measure` calls it, and its heading.
const ALL: [(&str, &str); 7] = [
    ("latency", "Durable grants"),
    ("core", "One decision, and many that share a sync"),
    ("codec", "Seal, open, encode, decode"),
    ("boot", "Boot to first grant"),
    ("footprint", "Memory and size"),
    ("drain", "Store and forward"),
    ("wear", "Flash wear"),
];

/// Where it goes.
const PAGE: &str = "docs/benchmarks.md";
/// What people have to say to the tables: why a figure is not reached, and what was tried. A file each, none where nothing is
/// to be said.
const REMARKS: &str = "hil-tests/src/measure/remarks";
/// Where stores are made: beside the build, on a disk and not in memory.
const STORES: &str = "target/measure";

const FOREWORD: &str = "\
# Benchmarks

Written by `cargo xtask bench`; do not edit. With `--only NAME` a section is measured anew and the others are kept, so each says of which\ncommit and day it is. Every table has a physical limit of the machine or a peer in it that was measured in \
the same run, in turns, so ratios mean something on any machine. What is wanted stands beside what was found. Figures that are \
not generated are in [measurements.md](measurements.md); how to see where the time goes: [profiling.md](profiling.md).

";

/// What the command line asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// Measurements by name; none: all.
    pub(crate) names: Vec<String>,
    /// As little as shows that they work; the page is left alone.
    pub(crate) quick: bool,
}

/// Builds, runs, writes.
///
/// # Errors
/// An unknown name, a build or a measurement that failed. The page is written only if all of them ran.
pub(crate) fn make(context: &Context, orders: &Orders) -> Result<()> {
    let chosen = choose(&orders.names)?;
    run(context.cargo().args(["build", "--release", "--bins"]).args(HOST))?;
    let image = images::count(context)?;
    for (name, heading) in chosen {
        let when = moment(context);
        let text = measure(context, name, &image, orders.quick)?;
        if orders.quick {
            continue;
        }
        let mut section = format!(
            "## {heading}\n\n`holdfast-measure {name}`, {when}\n\n{}\n",
            text.trim_end()
        );
        if let Ok(remarks) = fs::read_to_string(context.root.join(REMARKS).join(format!("{name}.md"))) {
            let _ = write!(section, "\n{}\n", remarks.trim_end());
        }
        // At once: what comes next may fail.
        let page = context.root.join(PAGE);
        let before = fs::read_to_string(&page).unwrap_or_default();
        fs::write(&page, with_section(&before, &machine(context), heading, &section)).context(PAGE)?;
        say(&format!("{PAGE} has it\n"));
    }
    Ok(())
}

/// The page with one section anew; the others are kept as they were measured.
fn with_section(page: &str, machine: &str, heading: &str, section: &str) -> String {
    let kept = |heading: &str| {
        let start = page.find(&format!("## {heading}\n"))?;
        let behind = page[start + 3..]
            .find("\n## ")
            .map_or(page.len(), |end| start + 3 + end);
        Some(page[start..behind].trim_end().to_owned())
    };
    let sections = ALL.iter().filter_map(|(_, known)| match *known == heading {
        true => Some(section.trim_end().to_owned()),
        false => kept(known),
    });
    let sections: Vec<String> = sections.collect();
    format!("{FOREWORD}{machine}{}\n", sections.join("\n\n"))
}

fn choose(names: &[String]) -> Result<Vec<(&'static str, &'static str)>> {
    for name in names {
        let known: Vec<&str> = ALL.iter().map(|(name, _)| *name).collect();
        ensure!(
            known.contains(&name.as_str()),
            "no measurement is called {name:?}; there are: {}",
            known.join(", ")
        );
    }
    Ok(ALL
        .into_iter()
        .filter(|(name, _)| names.is_empty() || names.iter().any(|wanted| wanted == name))
        .collect())
}

/// Runs one; what it printed, which is shown as it comes.
fn measure(context: &Context, name: &str, image: &Path, quick: bool) -> Result<String> {
    let mut command = context.program(context.root.join("target/release/holdfast-measure"));
    command.args([name, "--dir", STORES]).stdout(Stdio::piped());
    command.env(images::COUNT_VARIABLE, image);
    if quick {
        command.arg("--quick");
    }
    say(&format!("\n== {name}\n\n"));
    let mut child = command
        .spawn()
        .with_context(|| format!("{name} could not be started"))?;
    let output = child.stdout.take().context("it was asked for")?;
    let mut text = String::new();
    for line in BufReader::new(output).lines() {
        let line = line?;
        say(&format!("{line}\n"));
        text.push_str(&line);
        text.push('\n');
    }
    let status = child.wait()?;
    ensure!(status.success(), "the measurement \"{name}\" failed ({status})");
    Ok(text)
}

/// Of what, when, and beside what.
fn moment(context: &Context) -> String {
    let said = |program: &str, arguments: &[&str]| output_of(context.program(program).args(arguments));
    let unknown = || "unknown".to_owned();
    let date = said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_else(unknown);
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(unknown);
    let is_changed =
        said("git", &["status", "--porcelain", "--untracked-files=no"]).is_some_and(|text| !text.is_empty());
    let changes = if is_changed { " with changes" } else { "" };
    let load = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load = load.split_whitespace().next().unwrap_or("unknown").to_owned();
    format!("{date}, commit {commit}{changes}, load average before: {load}")
}

/// On what.
fn machine(context: &Context) -> String {
    let said = |program: &str, arguments: &[&str]| output_of(context.program(program).args(arguments));
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("unknown", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let memory = read("/proc/meminfo");
    let memory_kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or_default();
    let unknown = || "unknown".to_owned();
    let lines = [
        (
            "machine",
            format!(
                "{model}, {cores} cores, {:.0} GiB",
                memory_kib as f64 / f64::from(1 << 20)
            ),
        ),
        ("kernel", said("uname", &["-sr"]).unwrap_or_else(unknown)),
        (
            "file system of the stores",
            said("stat", &["-f", "-c", "%T", "target"]).unwrap_or_else(unknown),
        ),
        ("mosquitto", mosquitto(context).unwrap_or_else(unknown)),
    ];
    let mut table = String::from("| | |\n|---|---|\n");
    for (name, value) in lines {
        let _ = writeln!(table, "| {name} | {value} |");
    }
    table + "\n"
}

/// It says its version with its usage, and ends with an error.
fn mosquitto(context: &Context) -> Option<String> {
    let said = context.program("mosquitto").arg("-h").output().ok()?;
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    Some(text.lines().next()?.trim_start_matches("mosquitto version ").to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_and_keep_their_order() {
        assert_eq!(choose(&[]).unwrap(), ALL);
        let two = choose(&["wear".to_owned(), "core".to_owned()]).unwrap();
        assert_eq!(two.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["core", "wear"]);
        assert!(
            choose(&["speed".to_owned()])
                .unwrap_err()
                .to_string()
                .contains("latency")
        );
    }
}
