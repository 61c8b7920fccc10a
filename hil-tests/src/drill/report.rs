//! The result of a drill: numbers with names, for checks and for machines.

use std::collections::BTreeMap;

use serde::{Serialize, Serializer};

use super::scenario::{Check, Relation};

/// Every number that a check can name.
pub const NUMBERS: [&str; 41] = [
    "good_users_refused",
    "revoked_users_granted",
    "trust_evicted",
    "leased_overspend_minor",
    "exposure_over_budget_minor",
    "verdict_p99_ms",
    "books_closed",
    "attempts",
    "sessions_served",
    "sessions_served_in_outage",
    "good_attempts",
    "good_attempts_in_outage",
    "revoked_users_refused",
    "revocation_honoured_ms",
    "revocations_not_adopted",
    "verdict_p50_ms",
    "verdict_max_ms",
    "exposure_max_minor",
    "budget_minor",
    "charged_minor",
    "overdraft_minor",
    "sessions_overcharged",
    "sessions_undercharged",
    "flow_without_hold",
    "records",
    "records_foreign",
    "records_quarantined",
    "records_waiting",
    "book_lines_differing",
    "sessions_open",
    "alarms",
    "alarms_rejected",
    "alarms_quarantined",
    "mode_changes",
    "reconnects_a_minute_max",
    "hub_peak_before_a_second",
    "hub_peak_after_a_second",
    "good_tokens_blamed",
    "list_entries",
    "leavers_listed",
    "lists_adopted",
];

/// One row of the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Local time at its beginning.
    pub from: String,
    /// What the cloud did.
    pub cloud: String,
    /// Modes of the gateways at its end.
    pub modes: String,
    /// Sessions granted.
    pub served: u64,
    /// Refusals of good users within their limits.
    pub good_refused: u64,
    /// Other refusals.
    pub refused: u64,
    /// Who found no free outlet.
    pub no_free_outlet: u64,
    /// 99 of a hundred waited no longer, in ms.
    pub verdict_p99_ms: u64,
    /// Most money at risk, in minor units.
    pub exposure_max_minor: i64,
    /// Records without a receipt at its end.
    pub records_waiting: u64,
    /// False or useless answers of the cloud.
    pub negatives: u64,
    /// Requests that the cloud swallowed.
    pub swallowed: u64,
    /// Requests that were told to slow down.
    pub throttled: u64,
    /// Most requests that reached the hub in a second.
    pub hub_peak_a_second: u64,
}

/// What another policy would have meant.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counterfactuals {
    /// A site that serves nobody without the cloud: sessions that were served in the outage.
    pub had_we_refused_sessions: u64,
    /// The share of them that would have been good users turned away.
    pub had_we_refused_good_attempts: u64,
    /// A site that opens for everybody: people whom it would have served against the law.
    pub had_we_trusted_sessions: u64,
    /// What they could have drawn, in minor units.
    pub had_we_trusted_minor: i64,
    /// A site that believes the cloud: good tokens that it would have struck from its list.
    pub had_we_believed_tokens: u64,
}

/// An alarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AlarmLine {
    /// Local time.
    pub at: String,
    /// Region of the gateway.
    pub region: String,
    /// Its words.
    pub text: String,
}

/// A check and its outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// Which number.
    pub key: String,
    /// What was wanted.
    pub wanted: String,
    /// What was found.
    pub found: i64,
    /// Whether it holds.
    pub holds: bool,
}

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Name of the scenario.
    pub scenario: String,
    /// Its title.
    pub title: String,
    /// The seed.
    pub seed: u64,
    /// Devices of the campus.
    pub devices: u64,
    /// People with a token.
    pub users: u64,
    /// Virtual length with everything before and after, in s.
    pub virtual_s: u64,
    /// Whether the books closed.
    pub books_closed: bool,
    /// Every number of [`NUMBERS`].
    #[serde(flatten, serialize_with = "all_but_the_flag")]
    pub numbers: BTreeMap<&'static str, i64>,
    /// Refusals by the reason that the user saw.
    pub refusals: BTreeMap<&'static str, u64>,
    /// Refusals of people who are not good users within their limits, by what they are.
    pub rightly_refused: BTreeMap<&'static str, u64>,
    /// Alarms by class.
    pub alarms_by_class: BTreeMap<String, u64>,
    /// The first alarms.
    pub alarm_lines: Vec<AlarmLine>,
    /// What another policy would have meant.
    pub counterfactuals: Counterfactuals,
    /// The run, piece by piece.
    pub rows: Vec<Row>,
    /// The checks.
    pub checks: Vec<Checked>,
    /// SHA-256 over everything that was said and decided, in order, in hexadecimal.
    pub hash: String,
}

/// Whether the books closed is told as a word.
fn all_but_the_flag<S: Serializer>(numbers: &BTreeMap<&'static str, i64>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(numbers.iter().filter(|(name, _)| **name != "books_closed"))
}

impl Report {
    /// Compares the numbers with what must hold.
    pub(super) fn check(&mut self, checks: &[Check]) {
        let outcome = |check: &Check| {
            let found = self.numbers.get(check.key.as_str()).copied().unwrap_or_default();
            let sign = match check.relation {
                Relation::Equal => "=",
                Relation::AtMost => "<=",
                Relation::AtLeast => ">=",
            };
            Checked {
                key: check.key.clone(),
                wanted: format!("{sign} {}", check.value),
                found,
                holds: check.holds(found),
            }
        };
        self.checks = checks.iter().map(outcome).collect();
    }

    /// Checks that do not hold.
    pub fn failed(&self) -> impl Iterator<Item = &Checked> {
        self.checks.iter().filter(|checked| !checked.holds)
    }

    /// A number by its name; 0 for one that does not exist.
    #[must_use]
    pub fn number(&self, key: &str) -> i64 {
        self.numbers.get(key).copied().unwrap_or_default()
    }
}
