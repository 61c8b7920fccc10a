//! The steps of `cargo xtask test`, in the order they run.
//!
//! Nothing is built more often than needed: the host's programs and tests are built once, in dev and with every feature (see
//! `programs.rs`), for all steps that run them; `lint` and `doc` share one set of metadata builds; the emulated board shares its
//! dependencies with the real one. What mostly waits runs beside what mostly computes, and what computes is nice to it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::context::{Context, THUMB_TARGET, output_of, run, run_as, say};
use crate::images;
use crate::programs::{self, HOST, LONG_TESTS};
use crate::report::Verdict;
use crate::service;
use crate::setup;

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// In its turn, before the others: it is cheap and often wrong, or they lean on it.
    First,
    /// It keeps the cores busy: in its turn, after the first.
    Computes,
    /// It waits more than it computes: beside those that compute.
    Waits,
    /// At the end, with nothing beside it: its clocks are those of the room.
    Alone,
}

/// One thing that can be wrong with the project, and how to find out.
pub(crate) struct Step {
    /// What `--step` takes.
    pub(crate) name: &'static str,
    /// One line for `--list` and the log.
    pub(crate) about: &'static str,
    pub(crate) when: When,
    /// Runs it; an error fails the step.
    pub(crate) run: fn(&Context) -> Result<Verdict>,
}

/// The step everything else leans on.
pub(crate) const SETUP: &str = "setup";

/// Every step, in order.
pub(crate) const STEPS: [Step; 23] = [
    Step {
        name: SETUP,
        about: "install what the tests need: thumb target, Debian packages, crates, cargo-deny, Python packages",
        when: When::First,
        run: setup::set_up,
    },
    Step {
        name: "fmt",
        about: "formatting of both workspaces",
        when: When::First,
        run: fmt,
    },
    Step {
        name: "deny",
        about: "licences, bans and sources of every dependency (deny.toml)",
        when: When::First,
        run: deny,
    },
    Step {
        name: "advisories",
        about: "known vulnerabilities in dependencies; NOT CHECKED without a database",
        when: When::First,
        run: advisories,
    },
    Step {
        name: "build",
        about: "every program and test of the host, once for all steps that run them",
        when: When::First,
        run: build,
    },
    Step {
        name: "tests",
        about: "unit, integration and documentation tests of the host workspace",
        when: When::Computes,
        run: tests,
    },
    Step {
        name: "vectors",
        about: "CDDL and frozen vectors checked by a second CBOR implementation, in Python",
        when: When::Computes,
        run: vectors,
    },
    Step {
        name: "simulation",
        about: "seeded whole-system simulation of the core with the real device code",
        when: When::Computes,
        run: simulation,
    },
    Step {
        name: "leases",
        about: "two gateways and a hub for 72 virtual hours, partitioned, put back: leased accounts are never overspent",
        when: When::Computes,
        run: leases,
    },
    Step {
        name: "drill",
        about: "`cargo drill run 2023-11-12`: the false whitelist on a campus of 2,000 devices, in virtual time",
        when: When::Computes,
        run: drill,
    },
    Step {
        name: "lint",
        about: "clippy on both workspaces, firmware for the thumb target too; warnings are errors",
        when: When::Computes,
        run: lint,
    },
    Step {
        name: "doc",
        about: "documentation of both workspaces builds without a warning",
        when: When::Computes,
        run: doc,
    },
    Step {
        name: "firmware",
        about: "firmware builds for the thumb target, and its tests on the host",
        when: When::Computes,
        run: firmware,
    },
    Step {
        name: "probe",
        about: "boards behind debug probes, without hardware: bench.toml, what is not run, a fake probe and the real image",
        when: When::Computes,
        run: probe,
    },
    Step {
        name: "kill",
        about: "the real gateway killed with SIGKILL under load: nothing lost, nothing doubled",
        when: When::Waits,
        run: kill,
    },
    Step {
        name: "faults",
        about: "the journal on a disk that fails at every operation, lies, and loses power at every sync",
        when: When::Computes,
        run: faults,
    },
    Step {
        name: "hostile",
        about: "floods, malformed packets, forgeries and more at the real gateway: good devices go on, memory is bounded",
        when: When::Waits,
        run: hostile,
    },
    Step {
        name: "clouds",
        about: "every shipped outage of every cloud on the wire, and real brokers on wires that break",
        when: When::Waits,
        run: clouds,
    },
    Step {
        name: "demo",
        about: "the evening of `cargo demo` with a lying, hanging and dark cloud, for each kind of cloud; the books close",
        when: When::Waits,
        run: demo,
    },
    Step {
        name: "measure",
        about: "every measurement of `cargo xtask bench`, as little of it as shows that it works; times are not judged",
        when: When::Waits,
        run: measure,
    },
    Step {
        name: "page",
        about: "the page of a real gateway in Chromium through an outage, in both languages; its door, its metrics",
        when: When::Waits,
        run: page,
    },
    Step {
        name: "service",
        about: "units verified and rated by systemd, then booted from a package: crash, watchdog, full disk, upgrade, purge",
        when: When::Waits,
        run: service::check,
    },
    Step {
        name: "qemu",
        about: "the firmware's images in QEMU at a real gateway: every kind, outages, power cuts, vouchers, safety, updates",
        when: When::Alone,
        run: qemu,
    },
];

/// The steps with these names in running order; all of them if none is named.
///
/// # Errors
/// A name that no step has; the message lists the names there are.
pub(crate) fn choose(names: &[String]) -> Result<Vec<&'static Step>> {
    if let Some(unknown) = names.iter().find(|name| STEPS.iter().all(|step| step.name != **name)) {
        let known: Vec<&str> = STEPS.iter().map(|step| step.name).collect();
        bail!("no step is called {unknown:?}; there are: {}", known.join(", "));
    }
    Ok(STEPS
        .iter()
        .filter(|step| names.is_empty() || names.iter().any(|name| name == step.name))
        .collect())
}

/// The text of `--list`.
pub(crate) fn listing() -> String {
    STEPS
        .iter()
        .map(|step| format!("{:<12} {}\n", step.name, step.about))
        .collect()
}

fn fmt(context: &Context) -> Result<Verdict> {
    run(context.cargo().args(["fmt", "--all", "--check"]))?;
    run(context.cargo_firmware().args(["fmt", "--all", "--check"]))?;
    Ok(Verdict::Passed)
}

fn lint(context: &Context) -> Result<Verdict> {
    let deny_warnings = ["--", "-D", "warnings"];
    run(context
        .cargo()
        .arg("clippy")
        .args(HOST)
        .arg("--all-targets")
        .args(deny_warnings))?;
    // `--all-targets` leaves out what `cargo test` leaves out.
    run(context
        .cargo()
        .arg("clippy")
        .args(HOST)
        .args(LONG_TESTS.iter().flat_map(|test| ["--test", test]))
        .args(deny_warnings))?;
    // Without --workspace: boards build for their microcontroller only.
    run(context
        .cargo_firmware()
        .args(["clippy", "--locked", "--all-targets"])
        .args(deny_warnings))?;
    for packages in images::BOARDS.into_iter().chain([&[images::COUNT][..]]) {
        run(context
            .cargo_firmware()
            .args(["clippy", "--locked"])
            .args(packages.iter().flat_map(|package| ["--package", package]))
            .args(["--target", THUMB_TARGET])
            .args(deny_warnings))?;
    }
    run(context
        .cargo_firmware()
        .args(["clippy", "--locked"])
        .args(images::EMULATED)
        .args(deny_warnings))?;
    Ok(Verdict::Passed)
}

/// Both workspaces' manifests, and whether an exception of deny.toml may be unused there: most are the host's.
const DENY_MANIFESTS: [(&str, &[&str]); 2] = [
    ("Cargo.toml", &[]),
    ("firmware/Cargo.toml", &["--allow", "advisory-not-detected"]),
];

fn deny(context: &Context) -> Result<Verdict> {
    let program = setup::cargo_deny(context)?;
    for (manifest, _) in DENY_MANIFESTS {
        run(context.program(&program).args([
            "--manifest-path",
            manifest,
            "--config",
            "deny.toml",
            "--locked",
            "check",
            "licenses",
            "bans",
            "sources",
        ]))?;
    }
    Ok(Verdict::Passed)
}

/// Fetches the advisory database if it can, judges by the newest there is, and says so plainly if there is none.
fn advisories(context: &Context) -> Result<Verdict> {
    let program = setup::cargo_deny(context)?;
    let fetched = !context.offline && run(context.program(&program).args(["fetch", "db"])).is_ok();
    let Some(database) = advisory_database(context) else {
        say("advisories NOT CHECKED: no database (it could not be fetched, and none was fetched before)\n");
        return Ok(Verdict::NotChecked(
            "no database: it could not be fetched, and none was fetched before".into(),
        ));
    };
    for (manifest, options) in DENY_MANIFESTS {
        let mut command = context.program(&program);
        run(command
            .args([
                "--manifest-path",
                manifest,
                "--config",
                "deny.toml",
                "--locked",
                "--offline",
                "check",
                "advisories",
            ])
            .args(options))?;
    }
    if fetched {
        return Ok(Verdict::Passed);
    }
    let date = output_of(
        context
            .program("git")
            .arg("-C")
            .arg(&database)
            .args(["log", "-1", "--format=%cs"]),
    );
    Ok(Verdict::PassedWith(format!(
        "against the database of {}: a newer one could not be fetched",
        date.as_deref().unwrap_or("an unknown date")
    )))
}

/// The cached advisory database, where cargo-deny keeps it.
fn advisory_database(context: &Context) -> Option<PathBuf> {
    let cargo_home = setup::cargo_home(context)?;
    let entries = fs::read_dir(cargo_home.join("advisory-dbs")).ok()?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.join("crates").is_dir())
}

fn doc(context: &Context) -> Result<Verdict> {
    let doc = ["doc", "--locked", "--no-deps"];
    run(context
        .cargo()
        .args(doc)
        .arg("--workspace")
        .env("RUSTDOCFLAGS", "-D warnings"))?;
    run(context.cargo_firmware().args(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    Ok(Verdict::Passed)
}

fn firmware(context: &Context) -> Result<Verdict> {
    for board in images::BOARDS {
        let packages = board.iter().flat_map(|package| ["--package", package]);
        let build = ["build", "--locked", "--release", "--target", THUMB_TARGET];
        run(context.cargo_firmware().args(build).args(packages))?;
        // At once: the next board's images have the same names.
        images::check_sizes(context, board[0])?;
    }
    run(context.cargo_firmware().args(["test", "--locked"]))?;
    Ok(Verdict::Passed)
}

fn build(context: &Context) -> Result<Verdict> {
    let programs = context.programs.all(context)?;
    Ok(Verdict::PassedWith(format!("{} programs of tests", programs.len())))
}

fn tests(context: &Context) -> Result<Verdict> {
    let mut programs = context.programs.all(context)?;
    programs.retain(|program| !LONG_TESTS.contains(&&*program.name) && program.name != PROBE);
    programs::run_all(context, &programs, |_| {})?;
    run(context.cargo().args(["test", "--doc"]).args(HOST))?;
    Ok(Verdict::Passed)
}

/// Checks CDDL and vectors without any of our own code.
const VECTORS_SCRIPT: &str = "hil-tests/python/check_vectors.py";

fn vectors(context: &Context) -> Result<Verdict> {
    let python = context.python();
    if !python.is_file() {
        bail!("the Python packages are missing: run `cargo xtask test --step {SETUP}` first");
    }
    // The check is checked too: it must notice every vector that it damages.
    run(context.program(python).args([VECTORS_SCRIPT, "--self-test"]))?;
    Ok(Verdict::Passed)
}

/// Seeds of the simulation here: enough to ask for every mark.
const SIMULATION_SEEDS: &str = "1200";

fn simulation(context: &Context) -> Result<Verdict> {
    context.programs.run(context, "sim", |test| {
        test.env("HOLDFAST_SIM_SEEDS", SIMULATION_SEEDS);
    })?;
    Ok(Verdict::Passed)
}

/// Seeds of the leases test here; its own default is 10,000.
const LEASE_SEEDS: &str = "3000";

fn leases(context: &Context) -> Result<Verdict> {
    context.programs.run(context, "leases", |test| {
        test.env("HOLDFAST_LEASE_SEEDS", LEASE_SEEDS);
    })?;
    Ok(Verdict::Passed)
}

fn kill(context: &Context) -> Result<Verdict> {
    context.programs.run(context, "kill", |_| {})?;
    Ok(Verdict::Passed)
}

fn faults(context: &Context) -> Result<Verdict> {
    context.programs.run(context, "faults", |_| {})?;
    Ok(Verdict::Passed)
}

fn hostile(context: &Context) -> Result<Verdict> {
    // Its table is for people.
    context.programs.run(context, "hostile", |test| {
        test.arg("--nocapture");
    })?;
    Ok(Verdict::Passed)
}

fn measure(context: &Context) -> Result<Verdict> {
    let image = images::count(context)?;
    context.programs.run(context, "measure", |test| {
        test.env(images::COUNT_VARIABLE, &image);
    })?;
    Ok(Verdict::Passed)
}

fn clouds(context: &Context) -> Result<Verdict> {
    context.programs.run(context, "clouds", |_| {})?;
    context.programs.run(context, "brokers", |_| {})?;
    Ok(Verdict::Passed)
}

fn qemu(context: &Context) -> Result<Verdict> {
    if !setup::has_emulator(context) {
        let why = "no qemu-system-arm that knows the board b-l475e-iot01a (10.0.2 does)";
        // A person may go without; a machine that judges may not.
        if std::env::var_os("CI").is_some() {
            bail!("{why}");
        }
        return Ok(Verdict::NotChecked(why.into()));
    }
    let images = images::emulated(context)?;
    let stacks = images.join("stacks.txt");
    forget(&stacks)?;
    for test in ["qemu", "update"] {
        context.programs.run(context, test, |test| {
            test.arg("--nocapture")
                .env("HOLDFAST_IMAGES", &images)
                .env("HOLDFAST_STACKS", &stacks);
        })?;
    }
    images::check_stacks(context, &stacks)?;
    Ok(Verdict::Passed)
}

fn page(context: &Context) -> Result<Verdict> {
    if !setup::has_browser() {
        let why = "no chromium and chromedriver";
        // A person may go without; a machine that judges may not.
        if std::env::var_os("CI").is_some() {
            bail!("{why}");
        }
        return Ok(Verdict::NotChecked(why.into()));
    }
    context.programs.run(context, "page", |_| {})?;
    Ok(Verdict::Passed)
}

/// The test of boards behind debug probes.
const PROBE: &str = "probe";

/// Tells nothing about boards: those are for whoever has them, with `cargo bench-boards run`.
fn probe(context: &Context) -> Result<Verdict> {
    run(context
        .cargo_firmware()
        .args(["build", "--locked", "--release", "--target", THUMB_TARGET])
        .args(["--package", images::EMULATED_BOARD, "--package", images::EMULATED_BOOT]))?;
    let images = context.root.join("firmware/target").join(THUMB_TARGET).join("release");
    context.programs.run(context, PROBE, |test| {
        test.env("HOLDFAST_BOARD_IMAGES", &images);
    })?;
    Ok(Verdict::PassedWith("no board was flashed".into()))
}

/// What the cloud between gateway and hub may speak.
const CLOUDS: [&str; 4] = ["hcp", "alink", "aws", "webhook"];

/// An evening for each kind of cloud. It waits for people most of the time, so two are told at once.
fn demo(context: &Context) -> Result<Verdict> {
    let evening = |cloud: &str| -> Result<()> {
        let result = context.root.join(format!("target/demo-{cloud}.json"));
        forget(&result)?;
        let mut demo = built(context, "demo")?;
        run_as(
            demo.args(["--cloud", cloud, "--json"]).arg(&result),
            &format!("demo --cloud {cloud}"),
        )?;
        if !result.is_file() {
            bail!("the demo exited with success and wrote no {}", result.display());
        }
        Ok(())
    };
    let evening = &evening;
    for two in CLOUDS.chunks(2) {
        let told: Vec<Result<()>> = std::thread::scope(|scope| {
            let told: Vec<_> = two.iter().map(|cloud| scope.spawn(move || evening(cloud))).collect();
            let joined = told.into_iter().map(std::thread::ScopedJoinHandle::join);
            joined
                .map(|result| result.unwrap_or_else(|_| bail!("an evening panicked")))
                .collect()
        });
        told.into_iter().collect::<Result<()>>()?;
    }
    Ok(Verdict::Passed)
}

/// The outage that this project is about, whole; the tests replay every shipped one on a small campus.
const DRILL: &str = "2023-11-12";

fn drill(context: &Context) -> Result<Verdict> {
    let mut drill = built(context, "holdfast-drill")?;
    run_as(
        drill.args(["run", DRILL, "--seed", "1"]),
        &format!("holdfast-drill run {DRILL} --seed 1"),
    )?;
    Ok(Verdict::Passed)
}

/// One of the host's own programs as the tests were built with it.
fn built(context: &Context, name: &str) -> Result<Command> {
    context.programs.all(context)?;
    let mut command = context.program(context.root.join("target/debug").join(name));
    // It would build what is built.
    command.env_remove("CARGO");
    Ok(command)
}

/// Removes an earlier run's result, so that it cannot be taken for this one's.
fn forget(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("{} could not be removed", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(chosen: &[&Step]) -> Vec<&'static str> {
        chosen.iter().map(|step| step.name).collect()
    }

    #[test]
    fn choose_keeps_the_running_order() {
        let chosen = choose(&["tests".into(), "fmt".into()]).unwrap();
        assert_eq!(names(&chosen), ["fmt", "tests"]);
        let all = choose(&[]).unwrap();
        assert_eq!(all.len(), STEPS.len());
        assert_eq!(all[0].name, SETUP);
    }

    #[test]
    fn choose_names_what_there_is() {
        let error = choose(&["tets".into()]).err().unwrap().to_string();
        assert!(error.contains("\"tets\"") && error.contains("tests"), "{error}");
    }

    #[test]
    fn step_names_are_unique() {
        for step in &STEPS {
            assert_eq!(
                STEPS.iter().filter(|other| other.name == step.name).count(),
                1,
                "{}",
                step.name
            );
            assert!(listing().contains(step.name));
        }
    }
}
