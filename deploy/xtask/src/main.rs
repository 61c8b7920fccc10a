//! `cargo xtask test`: one command that sets up what the tests need and passes them.
//!
//! Read `steps.rs` for what is run, `setup.rs` for what is installed and `report.rs` for what is printed at the end.

mod context;
mod images;
mod report;
mod setup;
mod stacks;
mod steps;

use std::process::ExitCode;

use anyhow::{Result, bail};
use lexopt::Arg::{Long, Short, Value};

use context::{Context, say};
use report::Report;
use steps::Step;

const HELP: &str = "\
Set up what the tests need, then run everything CI runs.

Usage: cargo xtask test [--step NAME]... [--offline]
       cargo xtask test --list

  --step NAME  run only this step; may be repeated
  --list       print the steps and what each does, run nothing
  --offline    use no network: install nothing, fetch nothing, work with what is here
  --help       print this

Every step runs even if an earlier one failed; only a failed setup stops the run. A table of
results ends it. A step that could not judge, such as advisories without a database, is listed
as NOT CHECKED and never counts as passed.

Exit code: 0 no step failed, 1 a step failed, 2 the command line is wrong.
";

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
enum Task {
    Help,
    List,
    Test { steps: Vec<String>, offline: bool },
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
    let (mut named_task, mut list, mut offline, mut steps) = (false, false, false, Vec::new());
    while let Some(argument) = arguments.next()? {
        match argument {
            Long("help") | Short('h') => return Ok(Task::Help),
            Value(task) if task == "test" && !named_task => named_task = true,
            Long("list") => list = true,
            Long("offline") => offline = true,
            Long("step") => steps.push(arguments.value()?.to_string_lossy().into_owned()),
            Long(_) | Short(_) | Value(_) => return Err(argument.unexpected().into()),
        }
    }
    match (named_task, list) {
        (false, _) => bail!("the task is missing; there is one: test"),
        (true, true) => Ok(Task::List),
        (true, false) => Ok(Task::Test { steps, offline }),
    }
}

/// Does what was asked; an error here is one of the command line.
fn start(task: Task) -> Result<ExitCode> {
    match task {
        Task::Help => say(HELP),
        Task::List => say(&steps::listing()),
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

/// Runs the chosen steps in order; only a failed setup keeps the later ones from running, because all of them lean on it.
fn run(context: &Context, chosen: &[&'static Step]) -> Report {
    let mut report = Report::default();
    let mut setup_failed = false;
    for step in chosen {
        if setup_failed {
            report.not_run(step.name, "setup failed");
            continue;
        }
        say(&format!("\n== {}: {}\n", step.name, step.about));
        let entry = report.time(step.name, || (step.run)(context));
        say(&format!("== {entry}\n"));
        setup_failed = entry.failed() && step.name == steps::SETUP;
    }
    report
}

#[cfg(test)]
mod tests {
    use super::*;

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
        check("", Err("the task is missing"));
        check("test test", Err("unexpected argument \"test\""));
        check("test --setp fmt", Err("--setp"));
        check("test --step", Err("--step"));
    }
}
