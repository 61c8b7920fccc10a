//! `cargo xtask test`: one command that sets up what the tests need and passes them.
//!
//! Read `steps.rs` for what is run, `setup.rs` for what is installed and `report.rs` for what is printed at the end.

mod bench;
mod context;
mod dist;
mod images;
mod package;
mod programs;
mod report;
mod service;
mod setup;
mod stacks;
mod steps;

use std::{
    fs::{self, File},
    process::ExitCode,
    thread,
};

use anyhow::{Context as _, Result, bail};
use lexopt::Arg::{Long, Short, Value};

use context::{Context, say};
use report::Report;
use steps::{Step, When};

const HELP: &str = "\
Set up what the tests need, then run everything CI runs.

Usage: cargo xtask test [--step NAME]... [--offline]
       cargo xtask test --list
       cargo xtask dist [--arch NAME] [--offline]
       cargo xtask bench [--only NAME]... [--quick]

dist makes what is shipped, in target/shipped: packages, tarballs and their sums, each program run once.
bench measures the optimised programs beside limits and peers and writes docs/benchmarks.md; best with nothing else running.

  --step NAME  run only this step; may be repeated
  --list       print the steps and what each does, run nothing
  --arch NAME  with dist: for this architecture alone, as Debian calls it
  --only NAME  with bench: this measurement alone; may be repeated. The page keeps the others
  --quick      with bench: as little as shows that it works. The page is left as it is
  --offline    use no network: install nothing, fetch nothing, work with what is here
  --help       print this

Every step runs even if an earlier one failed; only a failed setup stops the run. Steps that
mostly wait run beside the others. A table of results ends it. A step that could not judge, such as advisories without a database, is listed
as NOT CHECKED and never counts as passed.

Exit code: 0 no step failed, 1 a step failed, 2 the command line is wrong.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    List,
    Test { steps: Vec<String>, offline: bool },
    Dist { arch: Option<String>, offline: bool },
    Bench { orders: bench::Orders, offline: bool },
}

fn main() -> ExitCode {
    match parse(lexopt::Parser::from_env()).and_then(start) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn parse(mut arguments: lexopt::Parser) -> Result<Task> {
    let (mut named_task, mut list, mut offline, mut steps) = (None, false, false, Vec::new());
    let (mut arch, mut orders) = (None, bench::Orders::default());
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Task::Help),
            Value(task) if named_task.is_none() && ["test", "dist", "bench"].iter().any(|known| task == *known) => {
                named_task = Some(task.to_string_lossy().into_owned());
            }
            Long("only") => orders.names.push(arguments.value()?.to_string_lossy().into_owned()),
            Long("quick") => orders.quick = true,
            Long("arch") => arch = Some(arguments.value()?.to_string_lossy().into_owned()),
            Long("list") => list = true,
            Long("offline") => offline = true,
            Long("step") => steps.push(arguments.value()?.to_string_lossy().into_owned()),
            Long(_) | Short(_) | Value(_) => return Err(argument.unexpected().into()),
        }
    }
    let task = named_task.context("the task is missing; there are three: test, dist and bench")?;
    let is_tests = list || !steps.is_empty();
    let is_bench = orders != bench::Orders::default();
    match task.as_str() {
        "dist" | "bench" if is_tests => bail!("{task} has no steps"),
        "test" | "bench" if arch.is_some() => bail!("only dist takes --arch"),
        "test" | "dist" if is_bench => bail!("only bench takes --only and --quick"),
        "dist" => Ok(Task::Dist { arch, offline }),
        "bench" => Ok(Task::Bench { orders, offline }),
        _ if list => Ok(Task::List),
        _ => Ok(Task::Test { steps, offline }),
    }
}

/// Does what was asked; an error here is one of the command line.
fn start(task: Task) -> Result<ExitCode> {
    match task {
        Task::Help => say(HELP),
        Task::List => say(&steps::listing()),
        Task::Dist { arch, offline } => {
            if let Err(error) = dist::make(&Context::new(offline).nice(), arch.as_deref()) {
                eprintln!("error: {error:#}");
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Bench { orders, offline } => {
            if let Err(error) = bench::make(&Context::new(offline), &orders) {
                eprintln!("error: {error:#}");
                return Ok(ExitCode::FAILURE);
            }
        }
        Task::Test { steps, offline } => {
            let report = run(&Context::new(offline), &steps::choose(&steps)?);
            say(&format!("\n{}", report.table()));
            return Ok(if report.failed() == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            });
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs the chosen steps: first the setup, whose failure keeps the others from running because all of them lean on it; then
/// the rest of the first; then those that mostly compute in one row, and beside it those that mostly wait; at last those that
/// want to be alone.
fn run(context: &Context, chosen: &[&'static Step]) -> Report {
    let mut report = Report::new();
    let (setup, others): (Vec<_>, Vec<_>) = chosen.iter().partition(|step| step.name == steps::SETUP);
    in_turn(context, &mut report, &setup);
    if report.failed() > 0 {
        for step in others {
            report.not_run(step.name, "setup failed");
        }
        return report;
    }
    let of = |when: When| -> Vec<&Step> { others.iter().filter(|step| step.when == when).copied().collect() };
    in_turn(context, &mut report, &of(When::First));
    let (waiting, computing) = (of(When::Waits), of(When::Computes));
    if computing.is_empty() {
        in_turn(context, &mut report, &waiting);
    } else {
        let beside = thread::scope(|scope| {
            let beside = scope.spawn(|| beside(context, &waiting));
            in_turn(&context.nice(), &mut report, &computing);
            beside.join().expect("a step that panics is a bug of this program")
        });
        report.merge(beside);
    }
    in_turn(context, &mut report, &of(When::Alone));
    let order: Vec<&str> = chosen.iter().map(|step| step.name).collect();
    report.sort(&order);
    report
}

fn in_turn(context: &Context, report: &mut Report, steps: &[&Step]) {
    for step in steps {
        say(&format!("\n== {}: {}\n", step.name, step.about));
        let entry = report.time(step.name, || (step.run)(context));
        say(&format!("== {entry}\n"));
    }
}

/// Steps whose output would mix with that of others: it is printed when they end.
fn beside(context: &Context, steps: &[&Step]) -> Report {
    let mut report = Report::new();
    for step in steps {
        let path = context.root.join("target").join(format!("step-{}.log", step.name));
        say(&format!(
            "== {} runs beside, its output comes when it ends\n",
            step.name
        ));
        let entry = report.time(step.name, || {
            let log = File::create(&path).with_context(|| path.display().to_string())?;
            (step.run)(&context.logging_to(log))
        });
        let log = fs::read(&path).unwrap_or_default();
        say(&format!(
            "\n== {}: {}\n{}== {entry}\n",
            step.name,
            step.about,
            String::from_utf8_lossy(&log)
        ));
    }
    report
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use super::*;
    use report::Verdict;

    static MEETING: Barrier = Barrier::new(2);

    fn meet(_: &Context) -> Result<Verdict> {
        MEETING.wait();
        Ok(Verdict::Passed)
    }

    fn fail(_: &Context) -> Result<Verdict> {
        bail!("as it should")
    }

    const fn step(name: &'static str, when: When, run: fn(&Context) -> Result<Verdict>) -> Step {
        let about = "a test";
        Step { name, about, when, run }
    }

    #[test]
    fn what_waits_runs_beside_what_computes_and_nothing_runs_without_its_setup() {
        static WAITS: Step = step("waits", When::Waits, meet);
        static COMPUTES: Step = step("computes", When::Computes, meet);
        static SETUP: Step = step(steps::SETUP, When::First, fail);
        let context = Context::new(true);
        let report = run(&context, &[&WAITS, &COMPUTES]);
        assert_eq!(report.failed(), 0);
        let table = report.table();
        assert!(table.find("waits") < table.find("computes"), "{table}");
        let report = run(&context, &[&SETUP, &WAITS, &COMPUTES]);
        assert_eq!(report.failed(), 1);
        assert_eq!(report.table().matches("not run").count(), 2);
    }

    #[test]
    fn command_line() {
        let check = |line: &str, expected: Result<Task, &str>| {
            let parsed = parse(lexopt::Parser::from_args(line.split_whitespace()));
            match (parsed, expected) {
                (Ok(task), Ok(expected)) => assert_eq!(task, expected, "{line}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{line}: {error}"),
                (parsed, expected) => panic!("{line}: {parsed:?}, not {expected:?}"),
            }
        };
        let test = |steps: &[&str], offline| {
            Ok(Task::Test {
                steps: steps.iter().map(|&step| step.into()).collect(),
                offline,
            })
        };
        check("test", test(&[], false));
        check("test --step fmt --offline --step=doc", test(&["fmt", "doc"], true));
        check("test --list", Ok(Task::List));
        check("test -h", Ok(Task::Help));
        let dist = |arch: Option<&str>| {
            Ok(Task::Dist {
                arch: arch.map(str::to_owned),
                offline: false,
            })
        };
        check("dist", dist(None));
        check("dist --arch arm64", dist(Some("arm64")));
        check("dist --list", Err("no steps"));
        check("test --arch arm64", Err("only dist"));
        check("", Err("the task is missing"));
        check("test test", Err("unexpected argument \"test\""));
        check("test --setp fmt", Err("--setp"));
        check("test --step", Err("--step"));
    }
}
