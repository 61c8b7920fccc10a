//! What happened to each step, and the table that ends a run.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::Result;

/// What a step that ran to its end has to say. A failure is an `Err` beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Everything the step stands for holds.
    Passed,
    /// As `Passed`, with something a reader should know.
    PassedWith(String),
    /// The step could not judge; never counted as passed.
    NotChecked(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Status {
    Done(Verdict),
    Failed(String),
    NotRun(String),
}

/// One step's line in the table.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    name: &'static str,
    status: Status,
    duration: Duration,
}

impl Entry {
    pub(crate) fn failed(&self) -> bool {
        matches!(self.status, Status::Failed(_))
    }

    fn passed(&self) -> bool {
        matches!(self.status, Status::Done(Verdict::Passed | Verdict::PassedWith(_)))
    }

    fn word(&self) -> &'static str {
        match self.status {
            Status::Done(Verdict::Passed | Verdict::PassedWith(_)) => "passed",
            Status::Done(Verdict::NotChecked(_)) => "NOT CHECKED",
            Status::Failed(_) => "FAILED",
            Status::NotRun(_) => "not run",
        }
    }

    fn remark(&self) -> &str {
        match &self.status {
            Status::Done(Verdict::Passed) => "",
            Status::Done(Verdict::PassedWith(remark) | Verdict::NotChecked(remark))
            | Status::Failed(remark)
            | Status::NotRun(remark) => remark,
        }
    }
}

impl Entry {
    fn line(&self, remark: &str) -> String {
        let line = format!(
            "{:<12} {:<12} {:>9}  {remark}",
            self.name,
            self.word(),
            show(self.duration)
        );
        line.trim_end().to_owned()
    }
}

/// With the whole remark, as it is printed when the step ends; the table has room for a remark's first line.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.line(self.remark()))
    }
}

/// The steps of one run, in order.
#[derive(Debug)]
pub(crate) struct Report {
    started: Instant,
    entries: Vec<Entry>,
}

impl Report {
    /// Of a run that starts now.
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            entries: Vec::new(),
        }
    }

    /// Runs a step and keeps its result and duration.
    pub(crate) fn time(&mut self, name: &'static str, step: impl FnOnce() -> Result<Verdict>) -> Entry {
        let start = Instant::now();
        let status = match step() {
            Ok(verdict) => Status::Done(verdict),
            Err(error) => Status::Failed(format!("{error:#}")),
        };
        let entry = Entry {
            name,
            status,
            duration: start.elapsed(),
        };
        self.entries.push(entry.clone());
        entry
    }

    /// Keeps a step that was asked for and not started.
    pub(crate) fn not_run(&mut self, name: &'static str, reason: &str) {
        self.entries.push(Entry {
            name,
            status: Status::NotRun(reason.to_owned()),
            duration: Duration::ZERO,
        });
    }

    /// Takes what ran beside this in.
    pub(crate) fn merge(&mut self, other: Self) {
        self.entries.extend(other.entries);
    }

    /// Puts the steps in the order of these names.
    pub(crate) fn sort(&mut self, order: &[&'static str]) {
        self.entries
            .sort_by_key(|entry| order.iter().position(|name| *name == entry.name));
    }

    pub(crate) fn failed(&self) -> usize {
        self.entries.iter().filter(|entry| entry.failed()).count()
    }

    /// The table, the names of what failed, and the summary alone on the last line.
    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        for entry in &self.entries {
            let first_line = entry.remark().lines().next().unwrap_or_default();
            text.push_str(&format!("{}\n", entry.line(first_line)));
        }
        let total = show(self.started.elapsed());
        text.push_str(&format!("{:<12} {:<12} {total:>9}\n\n", "total", ""));
        let failed: Vec<&str> = self
            .entries
            .iter()
            .filter(|entry| entry.failed())
            .map(|entry| entry.name)
            .collect();
        if !failed.is_empty() {
            text.push_str(&format!(
                "failed: {} (one alone: cargo xtask test --step NAME)\n",
                failed.join(", ")
            ));
        }
        let passed = self.entries.iter().filter(|entry| entry.passed()).count();
        text.push_str(&format!("{passed} passed, {} failed\n", failed.len()));
        text
    }
}

fn show(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 60 {
        format!("{:.1} s", duration.as_secs_f64())
    } else {
        format!("{} m {:02} s", seconds / 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn table_counts_and_names() {
        let mut report = Report::new();
        report.time("fmt", || Ok(Verdict::Passed));
        report.time("advisories", || Ok(Verdict::NotChecked("no database".into())));
        let entry = report.time("tests", || Err(anyhow!("inner\nsecond line").context("outer")));
        assert!(entry.to_string().ends_with("outer: inner\nsecond line"), "{entry}");
        report.not_run("demo", "setup failed");
        let table = report.table();
        assert!(table.contains("advisories   NOT CHECKED"), "{table}");
        assert!(
            table.contains("outer: inner\n") && !table.contains("second line"),
            "{table}"
        );
        assert!(table.contains("failed: tests "), "{table}");
        assert_eq!(table.lines().last(), Some("1 passed, 1 failed"));
        assert_eq!(report.failed(), 1);
    }

    #[test]
    fn what_ran_beside_stands_where_it_belongs() {
        let (mut report, mut beside) = (Report::new(), Report::new());
        report.time("fmt", || Ok(Verdict::Passed));
        report.time("drill", || Ok(Verdict::Passed));
        beside.time("kill", || Err(anyhow!("lost")));
        report.merge(beside);
        report.sort(&["fmt", "kill", "drill"]);
        let names: Vec<&str> = report.entries.iter().map(|entry| entry.name).collect();
        assert_eq!(names, ["fmt", "kill", "drill"]);
        assert_eq!(report.failed(), 1);
    }

    #[test]
    fn nothing_failed_means_no_failure_line() {
        let mut report = Report::new();
        report.time("fmt", || Ok(Verdict::PassedWith("with a remark".into())));
        let table = report.table();
        assert!(!table.contains("failed:"), "{table}");
        assert!(table.contains("with a remark"), "{table}");
        assert_eq!(table.lines().last(), Some("1 passed, 0 failed"));
    }

    #[test]
    fn durations() {
        let check = |ms: u64, expected: &str| assert_eq!(show(Duration::from_millis(ms)), expected);
        check(40, "0.0 s");
        check(59_900, "59.9 s");
        check(60_000, "1 m 00 s");
        check(754_000, "12 m 34 s");
    }
}
