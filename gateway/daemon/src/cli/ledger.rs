//! `holdfast ledger`: the book, printed and checked.

use std::{fmt::Write as _, path::Path, process::ExitCode};

use clap::ValueEnum;
use proto::{
    book::Book,
    codec,
    id::Hash,
    link::{LedgerRecord, chain},
};
use serde_json::{Value, json};

use super::{
    fail,
    show::{self, Progress},
};
use crate::{
    control::Line,
    exit, record,
    stream::{self, StreamError},
};

/// The sums are compared after so many records, and at the end: adding up every account takes long.
const SUMS_EVERY: u64 = 10_000;

/// How an export is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum ExportFormat {
    /// RFC 4180, with a line of names first
    Csv,
    /// One array of objects
    Json,
}

/// What has been walked through.
#[derive(Default)]
struct Walk {
    book: Book,
    ledger: u64,
    chain: Hash,
    journal: u64,
}

impl Walk {
    fn step(&mut self, sequence: u64, bytes: &[u8]) -> Result<Vec<Line>, String> {
        let (_, event) = record::decode(sequence, bytes).map_err(|error| error.to_string())?;
        self.journal = sequence;
        match event.record() {
            Some(record) => self.book(sequence, record),
            None => Ok(Vec::new()),
        }
    }

    fn book(&mut self, sequence: u64, record: &LedgerRecord) -> Result<Vec<Line>, String> {
        let expected = self.ledger + 1;
        if record.sequence != expected {
            let found = record.sequence;
            return Err(format!(
                "record {sequence} of the journal: ledger record {found} stands where {expected} belongs"
            ));
        }
        self.ledger = expected;
        self.chain = chain(&self.chain, &codec::to_vec(record));
        let lines = self.book.book(record);
        let lines = lines.map_err(|error| format!("ledger record {expected}: {error}"))?;
        if expected.is_multiple_of(SUMS_EVERY) {
            self.compare()?;
        }
        Ok(lines.iter().map(Line::from).collect())
    }

    fn compare(&self) -> Result<(), String> {
        if self.book.is_balanced() {
            Ok(())
        } else {
            Err(format!(
                "after ledger record {}: debits and credits differ",
                self.ledger
            ))
        }
    }
}

/// Walks the whole journal.
fn walk(dir: &Path, what: &'static str, take: &mut dyn FnMut(Vec<Line>)) -> Result<Walk, StreamError> {
    let mut walk = Walk::default();
    let mut progress: Option<Progress> = None;
    stream::each(dir, &mut |start, sequence, bytes| {
        if start.first > 1 {
            return Err(format!(
                "records before {} were pruned: the book has no beginning",
                start.first
            ));
        }
        progress
            .get_or_insert_with(|| Progress::new(what, start.head))
            .at(sequence);
        take(walk.step(sequence, bytes)?);
        Ok(())
    })?;
    walk.compare().map_err(StreamError::Damaged)?;
    Ok(walk)
}

fn refuse(error: &StreamError) -> ExitCode {
    let code = match error {
        StreamError::Gateway(_) => exit::UNAVAILABLE,
        StreamError::Store(_) | StreamError::Damaged(_) | StreamError::Taker(_) => exit::STORAGE,
    };
    fail(code, error)
}

/// Says what is wrong first, by its record; and what to do.
pub(super) fn verify(dir: &Path, json: bool) -> ExitCode {
    let walk = match walk(dir, "verifying", &mut |_| {}) {
        Ok(walk) => walk,
        Err(error) => {
            if json {
                println!("{}", json!({"good": false, "error": error.to_string()}));
            }
            return refuse(&error);
        }
    };
    let held: i64 = walk.book.holds().map(|(_, _, amount)| amount.0).sum();
    if json {
        let answer = json!({
            "good": true,
            "journal": walk.journal,
            "ledger": walk.ledger,
            "chain": walk.chain.to_string(),
            "accounts": walk.book.balances().count(),
            "held": held,
        });
        show::print(&format!("{answer}\n"));
        return ExitCode::SUCCESS;
    }
    show::print(&format!(
        "good: {} records of the journal, {} of the ledger, without a gap and each chained to the one before\n\
         debits = credits over {} accounts, {held} held; the chain ends in {}\n",
        walk.journal,
        walk.ledger,
        walk.book.balances().count(),
        walk.chain
    ));
    ExitCode::SUCCESS
}

/// Prints every line of the book.
pub(super) fn export(dir: &Path, json: bool, format: Option<ExportFormat>) -> ExitCode {
    let mut lines = Vec::new();
    if let Err(error) = walk(dir, "reading", &mut |more| lines.extend(more)) {
        return refuse(&error);
    }
    let as_value = |lines: &[Line]| -> Value { lines.iter().map(|line| json!(line)).collect() };
    match format {
        Some(ExportFormat::Csv) => show::print(&csv(&lines)),
        Some(ExportFormat::Json) => return show::answer(&as_value(&lines), true),
        None => return show::answer(&as_value(&lines), json),
    }
    ExitCode::SUCCESS
}

fn csv(lines: &[Line]) -> String {
    let mut text = "sequence,session,phase,debit,credit,amount\r\n".to_owned();
    for line in lines {
        let Line {
            sequence,
            session,
            phase,
            debit,
            credit,
            amount,
        } = line;
        let _ = write!(
            text,
            "{sequence},{},{},{},{},{amount}\r\n",
            field(session),
            field(phase),
            field(debit),
            field(credit)
        );
    }
    text
}

/// As RFC 4180 has it: in quotes if it must be.
fn field(text: &str) -> String {
    if text.contains([',', '"', '\r', '\n']) {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn csv_has_a_head_and_quotes_what_must_be() {
        let line = Line {
            sequence: 7,
            session: "s".to_owned(),
            phase: "post".to_owned(),
            debit: "customer:1".to_owned(),
            credit: "a,\"b\"".to_owned(),
            amount: -15,
        };
        assert_eq!(
            csv(&[line]),
            "sequence,session,phase,debit,credit,amount\r\n7,s,post,customer:1,\"a,\"\"b\"\"\",-15\r\n"
        );
    }
}
