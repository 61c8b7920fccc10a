//! `holdfast outbox`: what the hub does not have yet.

use std::{path::Path, process::ExitCode};

use clap::Subcommand;
use serde_json::Value;

use super::{
    asked, fail, no_daemon,
    show::{self, plain, span},
};
use crate::{control::Query, exit};

/// `holdfast outbox`. There is nothing to try again by hand: what waits is sent whenever a cloud takes it, for ever, and
/// nothing is ever given up.
#[derive(Debug, Subcommand)]
pub(super) enum OutboxCommand {
    /// Show the records that wait for their receipt, oldest first. They are sent by themselves as soon as a cloud takes
    /// them; `holdfast status` says what keeps them
    Ls {
        /// Most records to show
        #[arg(long, default_value_t = 50, value_name = "N")]
        most: usize,
        /// For machines
        #[arg(long)]
        json: bool,
    },
    /// Show the records that the hub took and could not simply book. They are judged there: `holdfast-hub quarantine` and
    /// `holdfast-hub disputes`; the others went on
    Quarantine {
        /// For machines
        #[arg(long)]
        json: bool,
    },
}

impl OutboxCommand {
    pub(super) fn run(self, dir: &Path) -> ExitCode {
        let (most, json, remarks) = match self {
            Self::Ls { most, json } => (most, json, false),
            Self::Quarantine { json } => (0, json, true),
        };
        let answer = match asked(dir, &Query::Outbox { rows_max: most }) {
            Ok(answer) => answer,
            Err(error) => return fail(exit::UNAVAILABLE, &no_daemon(dir, &error)),
        };
        if let Some(code) = show::refused(&answer) {
            return code;
        }
        let rows = &answer[if remarks { "remarks" } else { "rows" }];
        if json {
            return show::answer(rows, true);
        }
        let code = show::answer(rows, false);
        show::print(&sum(&answer, remarks));
        code
    }
}

fn sum(answer: &Value, remarks: bool) -> String {
    let rows = |field: &str| answer[field].as_array().map_or(0, Vec::len) as u64;
    if remarks {
        return match rows("remarks") {
            0 => "Nothing: the hub booked every record that it has.\n".to_owned(),
            some => format!(
                "{some} records, {} of them quarantined; they are judged at the hub\n",
                plain(&answer["quarantined"])
            ),
        };
    }
    let waiting = answer["waiting"].as_u64().unwrap_or(0);
    let since = span(answer["waiting_s"].as_u64().unwrap_or(0));
    match waiting {
        0 => "Nothing waits: every record has its receipt.\n".to_owned(),
        _ if waiting > rows("rows") => {
            format!(
                "{waiting} records wait, for {since}; these are the oldest {}\n",
                rows("rows")
            )
        }
        _ => format!("{waiting} records wait, for {since}\n"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_sum_says_what_is_not_shown() {
        for (answer, remarks, text) in [
            (json!({"waiting": 0, "rows": []}), false, "Nothing waits"),
            (
                json!({"waiting": 9, "waiting_s": 61, "rows": [1, 2]}),
                false,
                "9 records wait, for 1 min; these are the oldest 2",
            ),
            (
                json!({"waiting": 2, "waiting_s": 3, "rows": [1, 2]}),
                false,
                "2 records wait, for 3 s\n",
            ),
            (json!({"remarks": []}), true, "Nothing: the hub"),
            (json!({"remarks": [1], "quarantined": 1}), true, "1 records, 1 of them"),
        ] {
            assert!(sum(&answer, remarks).starts_with(text), "{answer}");
        }
    }
}
