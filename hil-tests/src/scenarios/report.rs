//! What came of the scenarios, for people and for exit codes.

use std::{fmt, time::Duration};

use crate::rig::Not;

/// What came of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was as told, and the books closed.
    Passed,
    /// Nothing was proven, and why.
    NotRun(Not),
    /// What was otherwise; with the logs.
    Failed(String),
}

/// One scenario on one rig.
#[derive(Clone, Debug)]
pub struct Row {
    /// The rig, or the board of the bench.
    pub rig: String,
    /// The scenario.
    pub scenario: String,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took.
    pub took: Duration,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// In the order in which they were told.
    pub rows: Vec<Row>,
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<8} {:<60} ", self.rig, self.scenario)?;
        match &self.outcome {
            Outcome::Passed => write!(f, "passed  {:>5.1} s", self.took.as_secs_f64()),
            Outcome::NotRun(why) => write!(f, "NOT RUN: {why}"),
            Outcome::Failed(why) => write!(f, "FAILED  {:>5.1} s\n{why}", self.took.as_secs_f64()),
        }
    }
}

impl Report {
    /// How many passed, were not run, failed.
    #[must_use]
    pub fn counts(&self) -> (usize, usize, usize) {
        let count = |is: fn(&Outcome) -> bool| self.rows.iter().filter(|row| is(&row.outcome)).count();
        (
            count(|outcome| *outcome == Outcome::Passed),
            count(|outcome| matches!(outcome, Outcome::NotRun(_))),
            count(|outcome| matches!(outcome, Outcome::Failed(_))),
        )
    }

    /// Scenarios that were not run, with their reasons.
    pub fn not_run(&self) -> impl Iterator<Item = (&str, &Not)> {
        self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::NotRun(why) => Some((row.scenario.as_str(), why)),
            Outcome::Passed | Outcome::Failed(_) => None,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        let (passed, not_run, failed) = self.counts();
        write!(f, "{passed} passed, {not_run} not run, {failed} failed")?;
        if passed == 0 && failed == 0 {
            write!(f, "\nNOTHING WAS PROVEN")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_run_is_never_counted_as_passed() {
        let row = |outcome| Row {
            rig: "probe".to_owned(),
            scenario: "a charge".to_owned(),
            outcome,
            took: Duration::from_secs(1),
        };
        let not_run = || row(Outcome::NotRun(Not::because("no probe is attached")));
        let cases = [
            (vec![], (0, 0, 0), true),
            (vec![not_run()], (0, 1, 0), true),
            (vec![not_run(), row(Outcome::Passed)], (1, 1, 0), false),
            (vec![row(Outcome::Failed("no".to_owned()))], (0, 0, 1), false),
        ];
        for (rows, counts, proves_nothing) in cases {
            let report = Report { rows };
            assert_eq!(report.counts(), counts);
            let text = report.to_string();
            assert_eq!(text.contains("NOTHING WAS PROVEN"), proves_nothing, "{text}");
            assert_eq!(text.contains("NOT RUN: no probe is attached"), counts.1 > 0, "{text}");
        }
    }
}
