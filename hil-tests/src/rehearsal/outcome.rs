//! What people saw, what was written down, how hard the gateway knocked: counted, judged, and as a line of a table.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use super::deed::Done;
use crate::{
    books::Books,
    cloud_sim::{
        Vendor,
        broker::machine::ANYBODY,
        counters::Counters,
        script::{Relation, Script},
    },
    fleet::Row,
    site::{Plan, Standing},
};

/// Longest wait for a verdict, in ms: the law's deadline, and what a busy machine adds.
const VERDICT_MS_MAX: f64 = 2_300.0;
/// Half of all verdicts come within this, in ms: the cloud is not waited for by everybody.
const VERDICT_MEDIAN_MS_MAX: f64 = 300.0;
/// Attempts to connect of one identity in a minute, and how far apart, in ms (I4). The second is the gateway's; what a
/// busy machine delays the one attempt brings it nearer to the next.
const ATTEMPTS_A_MINUTE_MAX: f64 = 5.0;
const ATTEMPTS_APART_MS_MIN: f64 = 900.0;
/// A webhook's connection is two: one for posts, one for the poll.
const HTTP_CONNECTIONS: f64 = 2.0;

/// Everything an outcome is made of.
pub(super) struct Seen<'a> {
    pub(super) script: &'a Script,
    pub(super) vendor: Vendor,
    pub(super) plan: &'a Plan,
    pub(super) rows: &'a [Row],
    pub(super) books: &'a Books,
    /// The gateway's sessions.
    pub(super) sessions: &'a Value,
    pub(super) counters: &'a Counters,
    pub(super) done: &'a [Done],
    pub(super) settled: Duration,
}

/// What came of a rehearsal.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which script.
    pub script: String,
    /// On which cloud.
    pub vendor: Vendor,
    /// Values by name, as `[checks]` names them.
    pub values: BTreeMap<&'static str, f64>,
    /// What does not hold: what, how it should be, how it is.
    pub failed: Vec<String>,
    /// The first difference between the books, for people.
    pub difference: Option<String>,
}

impl Outcome {
    pub(super) fn new(seen: &Seen<'_>) -> Self {
        let mut values = BTreeMap::new();
        people(seen, &mut values);
        books(seen, &mut values);
        knocking(seen, &mut values);
        cloud(seen.counters, &mut values);
        deeds(seen, &mut values);
        Self::judged(seen.script, seen.vendor, values, seen.books.difference.clone())
    }

    /// Of these values.
    pub(super) fn judged(
        script: &Script,
        vendor: Vendor,
        values: BTreeMap<&'static str, f64>,
        difference: Option<String>,
    ) -> Self {
        let own = script.checks.iter().map(|check| (check.key.as_str(), check.relation));
        let always = ALWAYS.iter().filter(|(key, _)| values.contains_key(key)).copied();
        let mut failed = Vec::new();
        for (key, relation) in always.chain(own) {
            match values.get(key) {
                Some(found) if relation.holds(*found) => {}
                Some(found) => failed.push(format!("{key} should be {relation}, it is {found}")),
                None => failed.push(format!("there is no value {key}")),
            }
        }
        Self {
            script: script.name.clone(),
            vendor,
            values,
            failed,
            difference,
        }
    }

    /// Whether everything holds.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.failed.is_empty()
    }

    /// The head of the table.
    #[must_use]
    pub fn head() -> String {
        format!(
            "{:<32} {:<8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>10} {:>9} {:>8}  verdict",
            "scenario",
            "cloud",
            "sessions",
            "refused",
            "granted",
            "p50 ms",
            "p99 ms",
            "lost",
            "doubled",
            "attempts",
            "apart",
            "revoked"
        ) + "\n"
            + &format!(
                "{:<32} {:<8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>10} {:>9} {:>8}",
                "", "", "", "good", "bad", "", "", "records", "records", "a minute", "ms", "ms"
            )
    }

    /// A line of the table.
    #[must_use]
    pub fn line(&self) -> String {
        let value = |key: &str| {
            self.values
                .get(key)
                .map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
        };
        format!(
            "{:<32} {:<8} {:>8} {:>8} {:>8} {:>8} {:>7} {:>7} {:>8} {:>10} {:>9} {:>8}  {}",
            self.script,
            self.vendor.word(),
            value("sessions"),
            value("good_refused"),
            value("bad_granted"),
            value("verdict_p50_ms"),
            value("verdict_p99_ms"),
            value("records_lost"),
            value("records_doubled"),
            value("attempts_a_minute"),
            value("attempts_apart_ms"),
            value("revocation_ms"),
            if self.holds() { "passed" } else { "FAILED" },
        )
    }
}

/// What must hold whatever the script, where there is such a value.
const ALWAYS: [(&str, Relation); 14] = [
    ("good_refused", Relation::Equal(0.0)),
    ("bad_granted", Relation::Equal(0.0)),
    ("unanswered", Relation::Equal(0.0)),
    ("charged_differently", Relation::Equal(0.0)),
    ("delivered_without_grant", Relation::Equal(0.0)),
    ("records_lost", Relation::Equal(0.0)),
    ("records_doubled", Relation::Equal(0.0)),
    ("records_foreign", Relation::Equal(0.0)),
    ("books_equal", Relation::Equal(1.0)),
    ("ledger_balanced", Relation::Equal(1.0)),
    ("verdict_p99_ms", Relation::AtMost(VERDICT_MS_MAX)),
    ("verdict_p50_ms", Relation::AtMost(VERDICT_MEDIAN_MS_MAX)),
    ("attempts_a_minute", Relation::AtMost(ATTEMPTS_A_MINUTE_MAX)),
    ("attempts_apart_ms", Relation::AtLeast(ATTEMPTS_APART_MS_MIN)),
];

/// Whether whoever came had been revoked by then.
fn was_revoked(seen: &Seen<'_>, row: &Row) -> Option<bool> {
    let deed = seen
        .done
        .iter()
        .find(|done| !done.forged && done.users.contains(&row.user))?;
    Some(row.asked_ms >= deed.at_ms + deed.effective_ms)
}

fn people(seen: &Seen<'_>, values: &mut BTreeMap<&'static str, f64>) {
    let outage = seen.script.outage(seen.vendor).unwrap_or((0, 0));
    let outage = (
        seen.script.wall(outage.0).as_millis(),
        seen.script.wall(outage.1).as_millis(),
    );
    let rows = seen.sessions.as_array();
    let online: BTreeMap<&str, bool> = rows
        .into_iter()
        .flatten()
        .filter_map(|row| Some((row["session"].as_str()?, row["online"].as_bool()?)))
        .collect();
    let mut count = |key: &'static str, more: bool| {
        *values.entry(key).or_insert(0.0) += if more { 1.0 } else { 0.0 };
    };
    for row in seen.rows {
        let standing = seen.plan.users[row.user].standing;
        let revoked = was_revoked(seen, row);
        let by_cloud = online.get(row.session.as_str()).copied().unwrap_or(false);
        let gift = seen.books.gifts.contains(&row.session) && row.kind == "dispenser";
        let good = standing == Standing::Good && revoked.is_none();
        let bad = match standing {
            Standing::Good => false,
            // The cloud itself may say yes to a NEVER token while it is well; nobody else may.
            Standing::Never => !by_cloud,
            // The law gives a stranger two litres a day, at a dispenser and at the operator's cost.
            Standing::Unknown => !gift,
            Standing::Invalid | Standing::Revoked => true,
        };
        let asked = u128::from(row.asked_ms);
        count("sessions", row.granted);
        count(
            "sessions_in_outage",
            row.granted && outage.0 <= asked && asked < outage.1,
        );
        count("good_refused", row.refused.is_some() && good);
        count("bad_granted", row.granted && bad);
        count("revoked_granted", row.granted && revoked == Some(true));
        count("unanswered", row.refused.is_none() && !row.granted && !row.abandoned);
        let booked = seen.books.charges.get(&row.session).copied().unwrap_or(0);
        count(
            "charged_differently",
            row.receipt_amount.is_some_and(|amount| amount != booked),
        );
        count("delivered_without_grant", row.ungranted_milli > 0);
    }
    let mut verdicts: Vec<f64> = seen.rows.iter().filter_map(|row| row.verdict_ms).collect();
    verdicts.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let last = verdicts.len().saturating_sub(1);
        verdicts
            .get(((verdicts.len() as f64 * share) as usize).min(last))
            .copied()
    };
    values.insert("verdict_p50_ms", at(0.5).unwrap_or(0.0));
    values.insert("verdict_p99_ms", at(0.99).unwrap_or(0.0));
}

fn books(seen: &Seen<'_>, values: &mut BTreeMap<&'static str, f64>) {
    let books = seen.books;
    let yes = |is: bool| if is { 1.0 } else { 0.0 };
    values.insert("records_lost", books.records_lost as f64);
    values.insert("records_doubled", books.records_doubled as f64);
    values.insert("records_foreign", books.records_foreign as f64);
    values.insert("books_equal", yes(books.hub_gateway_equal));
    values.insert("ledger_balanced", yes(books.ledger_balanced));
    values.insert("settled_s", seen.settled.as_secs_f64());
}

fn knocking(seen: &Seen<'_>, values: &mut BTreeMap<&'static str, f64>) {
    let Some((most, apart_ms)) = seen.counters.pace().remove(ANYBODY) else {
        return;
    };
    if seen.vendor.is_http() {
        values.insert("attempts_a_minute", (most as f64 / HTTP_CONNECTIONS).floor());
        return;
    }
    values.insert("attempts_a_minute", most as f64);
    if let Some(apart_ms) = apart_ms {
        values.insert("attempts_apart_ms", apart_ms as f64);
    }
}

fn cloud(counters: &Counters, values: &mut BTreeMap<&'static str, f64>) {
    for (key, count) in [
        ("logins", &counters.logins),
        ("refused", &counters.refused),
        ("closed", &counters.closed),
        ("taken_over", &counters.taken_over),
        ("denied", &counters.denied),
        ("swallowed", &counters.swallowed),
        ("throttled", &counters.throttled),
        ("breaches", &counters.breaches),
        ("orders_shown", &counters.orders),
    ] {
        values.insert(key, count.get() as f64);
    }
}

fn deeds(seen: &Seen<'_>, values: &mut BTreeMap<&'static str, f64>) {
    if seen.done.is_empty() {
        return;
    }
    let believed = seen.done.iter().filter(|done| done.forged && done.believed).count();
    values.insert("forgeries_believed", believed as f64);
    let genuine = seen.done.iter().filter(|done| !done.forged);
    if let Some(slowest) = genuine.map(|done| done.effective_ms).max() {
        values.insert("revocation_ms", slowest as f64);
    }
}
