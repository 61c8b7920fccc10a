//! The auditor of a whole site: compares what gateway and hub wrote down, line by line, and both with what people saw.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::Command,
};

use anyhow::ensure;
use serde::Serialize;
use serde_json::Value;

use crate::site::binary;

/// Every line of a gateway's book, as an operator's accountant gets it.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn of_gateway(config: &Path) -> anyhow::Result<Vec<Value>> {
    let mut command = Command::new(binary("holdfast")?);
    command.arg("--config").arg(config);
    let output = command.args(["ledger", "export", "--format", "json"]).output()?;
    ensure!(
        output.status.success(),
        "{}: {}",
        config.display(),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// A line of a book, as both sides export it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line {
    sequence: u64,
    session: String,
    phase: String,
    debit: String,
    credit: String,
    amount: i64,
}

impl Line {
    fn of(row: &Value) -> Option<Self> {
        let text = |name: &str| row[name].as_str().map(str::to_owned);
        Some(Self {
            sequence: row["sequence"].as_u64()?,
            session: text("session")?,
            phase: text("phase")?,
            debit: text("debit")?,
            credit: text("credit")?,
            amount: row["amount"].as_i64()?,
        })
    }
}

/// What the comparison found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Books {
    /// Lines that both have.
    pub lines: usize,
    /// Lines of the gateway that the hub does not have.
    pub records_lost: usize,
    /// Lines that one side has twice, or sessions that were charged or held twice.
    pub records_doubled: usize,
    /// Lines of the hub that the gateway does not have.
    pub records_foreign: usize,
    /// Per account, every debit has its credit, and nothing is held any more.
    pub ledger_balanced: bool,
    /// Both books have the same lines.
    pub hub_gateway_equal: bool,
    /// Lines of the hub's own: corrections, marked as such. No gateway has them.
    pub adjustments: usize,
    /// Set aside in total, in minor units.
    pub held: i64,
    /// Charged in total, in minor units.
    pub captured: i64,
    /// The first difference, for people.
    pub difference: Option<String>,
    /// Charge of each session, in minor units.
    #[serde(skip)]
    pub charges: BTreeMap<String, i64>,
    /// Sessions whose money was set aside.
    #[serde(skip)]
    pub holds: BTreeSet<String>,
    /// Sessions that the operator pays for: emergency credit.
    #[serde(skip)]
    pub gifts: BTreeSet<String>,
}

impl Books {
    /// Whether both sides have written down the same, once each, and nothing is held any more.
    #[must_use]
    pub fn are_closed(&self) -> bool {
        let off = self.records_lost + self.records_doubled + self.records_foreign;
        self.hub_gateway_equal && self.ledger_balanced && off == 0
    }
}

/// Who pays for emergency credit.
const GIFTS: &str = "loss:emergency";

/// Compares two exports.
///
/// # Errors
/// A row that is no line.
pub fn compare(gateway: &[Value], hub: &[Value]) -> anyhow::Result<Books> {
    let read = |rows: &[Value]| -> anyhow::Result<Vec<Line>> {
        rows.iter()
            .map(|row| Line::of(row).ok_or_else(|| anyhow::anyhow!("not a line of a book: {row}")))
            .collect()
    };
    let (own, hub): (Vec<Value>, Vec<Value>) = hub.iter().cloned().partition(|row| !row["adjustment"].is_null());
    let (ours, theirs) = (read(gateway)?, read(&hub)?);
    let (our_set, their_set): (BTreeSet<_>, BTreeSet<_>) = (ours.iter().collect(), theirs.iter().collect());
    let lost: Vec<_> = our_set.difference(&their_set).collect();
    let foreign: Vec<_> = their_set.difference(&our_set).collect();
    let mut books = Books {
        lines: our_set.intersection(&their_set).count(),
        records_lost: lost.len(),
        records_foreign: foreign.len(),
        records_doubled: (ours.len() - our_set.len()) + (theirs.len() - their_set.len()),
        hub_gateway_equal: ours == theirs,
        adjustments: own.len(),
        ledger_balanced: true,
        ..Books::default()
    };
    books.difference = lost.first().map(|line| format!("only the gateway has {line:?}"));
    books.difference = books
        .difference
        .or_else(|| foreign.first().map(|line| format!("only the hub has {line:?}")));
    tally(&ours, &mut books);
    Ok(books)
}

/// Adds up from the lines alone, without the code that wrote them.
fn tally(lines: &[Line], books: &mut Books) {
    let mut open: BTreeMap<&str, i64> = BTreeMap::new();
    let mut clearing = 0;
    for line in lines {
        match line.phase.as_str() {
            "pending" => {
                books.held += line.amount;
                if line.debit == GIFTS {
                    books.gifts.insert(line.session.clone());
                }
                if !books.holds.insert(line.session.clone()) {
                    books.records_doubled += 1;
                }
                open.insert(&line.session, line.amount);
            }
            "post" | "void" => {
                match open.remove(line.session.as_str()) {
                    Some(hold) if line.amount <= hold => {}
                    Some(_) | None => books.ledger_balanced = false,
                }
                if line.phase == "post" {
                    clearing += line.amount;
                    books.captured += line.amount;
                    if books.charges.insert(line.session.clone(), line.amount).is_some() {
                        books.records_doubled += 1;
                    }
                }
            }
            "direct" => clearing -= line.amount,
            _ => books.ledger_balanced = false,
        }
    }
    books.ledger_balanced &= open.is_empty() && clearing == 0;
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn row(sequence: u64, session: &str, phase: &str, amount: i64) -> Value {
        json!({"sequence": sequence, "session": session, "phase": phase, "debit": "a", "credit": "b", "amount": amount})
    }

    #[test]
    fn every_kind_of_difference_is_found() {
        let good = vec![
            row(1, "x", "pending", 9),
            row(2, "x", "post", 5),
            row(2, "x", "direct", 5),
        ];
        let books = compare(&good, &good).unwrap();
        assert!(books.ledger_balanced && books.hub_gateway_equal);
        assert_eq!(
            (books.held, books.captured, books.records_lost, books.records_doubled),
            (9, 5, 0, 0)
        );

        let mut corrected = good.clone();
        let mut own = row(1, "", "direct", 3);
        own["adjustment"] = json!("revoked");
        corrected.push(own);
        let books = compare(&good, &corrected).unwrap();
        assert!(
            books.ledger_balanced && books.hub_gateway_equal,
            "the hub's own lines are apart"
        );
        assert_eq!((books.adjustments, books.records_foreign), (1, 0));

        assert_eq!(compare(&good, &good[..2]).unwrap().records_lost, 1);
        assert_eq!(compare(&good[..2], &good).unwrap().records_foreign, 1);
        assert!(
            !compare(&good[..1], &good[..1]).unwrap().ledger_balanced,
            "a hold is left open"
        );

        let twice: Vec<Value> = good.iter().chain(&good[1..]).cloned().collect();
        assert!(compare(&good, &twice).unwrap().records_doubled >= 2);
        let mut charged = good.clone();
        charged.extend([
            row(3, "x", "pending", 9),
            row(4, "x", "post", 5),
            row(4, "x", "direct", 5),
        ]);
        assert_eq!(compare(&charged, &charged).unwrap().records_doubled, 2);
        let above = vec![
            row(1, "x", "pending", 3),
            row(2, "x", "post", 5),
            row(2, "x", "direct", 5),
        ];
        assert!(!compare(&above, &above).unwrap().ledger_balanced);
    }
}
