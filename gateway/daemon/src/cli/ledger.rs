//! `holdfast ledger`: the book, printed and checked.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    process::ExitCode,
};

use clap::ValueEnum;
use gateway_core::event::{Event, Kept};
use proto::{
    book::{Account, Book},
    codec,
    id::Hash,
    link::{LedgerRecord, chain},
};
use serde_json::json;

use super::{
    fail,
    show::{self, Progress},
};
use crate::{
    control::Line,
    exit, record,
    store::{Rebuilt, Store, StoreError},
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
    /// Records up to this one are not there any more; a snapshot stands for them.
    pruned: u64,
}

impl Walk {
    fn step(&mut self, sequence: u64, bytes: &[u8]) -> Result<Vec<Line>, String> {
        let (_, event) = record::decode(sequence, bytes).map_err(|error| error.to_string())?;
        self.journal = sequence;
        match (event.record(), &event) {
            (Some(record), _) => self.book(sequence, record),
            (None, Event::Kept(kept)) => {
                self.keep(kept);
                Ok(Vec::new())
            }
            (None, _) => Ok(Vec::new()),
        }
    }

    /// Takes the state that stands for pruned records as it is.
    fn keep(&mut self, kept: &Kept) {
        match kept {
            Kept::Outbox(outbox) => (self.ledger, self.chain) = (outbox.head, outbox.chain),
            Kept::Balance(balance) => {
                if let Some((account, balance)) = balance.account() {
                    self.book.restore_balance(account, balance);
                }
            }
            Kept::Session(session) => {
                if let Some(terms) = session.terms.as_ref().filter(|_| session.is_open()) {
                    let payer = Account::payer(terms.account, &terms.evidence);
                    self.book.restore_hold(session.request.session, payer, terms.money_max);
                }
            }
            _ => {}
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
    let (mut progress, mut pruned) = (None::<Progress>, 0);
    stream::each(dir, &mut |start, sequence, bytes| {
        pruned = start.first - 1;
        progress
            .get_or_insert_with(|| Progress::new(what, start.head))
            .at(sequence);
        take(walk.step(sequence, bytes)?);
        Ok(())
    })?;
    walk.compare().map_err(StreamError::Damaged)?;
    walk.pruned = pruned;
    Ok(walk)
}

fn refuse(error: &StreamError) -> ExitCode {
    let code = match error {
        StreamError::Gateway(_) => exit::UNAVAILABLE,
        StreamError::Store(_) | StreamError::Damaged(_) | StreamError::Taker(_) => exit::STORAGE,
    };
    fail(code, error)
}

/// Names every damage of a stopped gateway's journal, and what to do; none: the exit code says so.
fn name_damage(dir: &Path, json: bool) -> Option<ExitCode> {
    let damage = match Store::damage(dir) {
        Ok(damage) => damage,
        // A running gateway has it: its reader names the first damage it meets.
        Err(StoreError::Open(journal::OpenError::Locked { .. })) => return None,
        Err(error) => return Some(fail(exit::STORAGE, &error)),
    };
    if damage.is_empty() {
        return None;
    }
    let lines: Vec<String> = damage.iter().map(ToString::to_string).collect();
    if json {
        println!("{}", json!({"good": false, "error": lines[0], "damage": lines}));
    }
    let text = lines.join("\n");
    Some(fail(
        exit::STORAGE,
        &format!("{text}\nwhat is whole is salvaged into a new journal beside this one by: holdfast ledger rebuild"),
    ))
}

/// `holdfast ledger rebuild`: throws the derived part away, or salvages what is whole of a damaged log.
pub(super) fn rebuild(dir: &Path, epoch: Option<u32>) -> ExitCode {
    let rebuilt = match Store::rebuild(dir, epoch) {
        Ok(rebuilt) => rebuilt,
        Err(error) => return fail(exit::STORAGE, &error),
    };
    match rebuilt {
        Rebuilt::Derived => show::print(
            "the log is whole: what is derived from it was put aside as store.damaged, and the next start makes it anew\n",
        ),
        Rebuilt::Salvaged { to, salvaged, epoch } => {
            let runs = |runs: &[journal::Lost]| {
                let runs = runs.iter().map(|run| format!("{} to {}", run.first, run.last));
                runs.collect::<Vec<_>>().join(", ")
            };
            let mut text = format!(
                "{}: records {} of the journal, {}\n",
                to.display(),
                runs(&[salvaged.records]),
                match salvaged.base {
                    0 => "from the first on".to_owned(),
                    at => format!("with the state after record {at}"),
                }
            );
            if !salvaged.lost.is_empty() {
                text += &format!("LOST: records {}\n", runs(&salvaged.lost));
            }
            if !salvaged.left_behind.is_empty() {
                text += &format!(
                    "whole, but apart from the rest; they stay in the damaged journal: records {}\n",
                    runs(&salvaged.left_behind)
                );
            }
            text += &format!(
                "Nothing was changed in {}. To go on with what was salvaged, in epoch {epoch} of the books:\n\
                 - move the damaged journal to a safe place, and the new one to where it was\n\
                 - start the gateway, and see in holdfast status which epoch the hub expects\n",
                dir.join("journal").display()
            );
            show::print(&text);
        }
    }
    ExitCode::SUCCESS
}

/// Says what is wrong first, by its record; and what to do.
pub(super) fn verify(dir: &Path, json: bool) -> ExitCode {
    if let Some(code) = name_damage(dir, json) {
        return code;
    }
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
            "from_state_at": walk.pruned,
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
    if walk.pruned > 0 {
        show::print(&format!(
            "the book begins with the state after record {}\n",
            walk.pruned
        ));
    }
    ExitCode::SUCCESS
}

/// Prints every line of the book as it is found, so that a book of millions needs no memory. What is damaged ends it, with an
/// exit code that says so: the lines before it are good.
pub(super) fn export(dir: &Path, json: bool, format: Option<ExportFormat>) -> ExitCode {
    let mut out = Lines::new(BufWriter::new(io::stdout().lock()), json, format);
    let walked = walk(dir, "reading", &mut |lines| {
        lines.iter().for_each(|line| out.line(line))
    });
    out.end();
    walked.map_or_else(|error| refuse(&error), |_| ExitCode::SUCCESS)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
    Table,
}

/// Lines on their way out. Whoever reads may have seen enough, as `head` has: then nothing more is written.
struct Lines<W> {
    out: W,
    form: Form,
    count: u64,
    failed: bool,
}

impl<W: Write> Lines<W> {
    fn new(out: W, json: bool, format: Option<ExportFormat>) -> Self {
        let form = match format {
            Some(ExportFormat::Csv) => Form::Csv,
            Some(ExportFormat::Json) => Form::Json,
            None if json => Form::Json,
            None => Form::Table,
        };
        let mut lines = Self {
            out,
            form,
            count: 0,
            failed: false,
        };
        match form {
            Form::Csv => lines.put(format_args!("sequence,session,phase,debit,credit,amount\r\n")),
            Form::Json => lines.put(format_args!("[")),
            Form::Table => lines.put(format_args!(
                "{:>9}  {:<32}  {:<7}  {:<24}  {:<24}  {:>10}\n",
                "sequence", "session", "phase", "debit", "credit", "amount"
            )),
        }
        lines
    }

    fn line(&mut self, line: &Line) {
        let Line {
            sequence,
            session,
            phase,
            debit,
            credit,
            amount,
        } = line;
        match self.form {
            Form::Csv => {
                let (session, phase, debit, credit) = (field(session), field(phase), field(debit), field(credit));
                self.put(format_args!(
                    "{sequence},{session},{phase},{debit},{credit},{amount}\r\n"
                ));
            }
            Form::Json => {
                let comma = if self.count == 0 { "" } else { "," };
                self.put(format_args!("{comma}\n{}", json!(line)));
            }
            Form::Table => self.put(format_args!(
                "{sequence:>9}  {session:<32}  {phase:<7}  {debit:<24}  {credit:<24}  {amount:>10}\n"
            )),
        }
        self.count += 1;
    }

    fn end(&mut self) {
        if self.form == Form::Json {
            self.put(format_args!("\n]\n"));
        }
        self.failed |= self.out.flush().is_err();
    }

    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        self.failed = self.failed || self.out.write_fmt(text).is_err();
    }
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
    fn each_form_has_its_head_and_quotes_what_must_be() {
        let line = Line {
            sequence: 7,
            session: "s".to_owned(),
            phase: "post".to_owned(),
            debit: "customer:1".to_owned(),
            credit: "a,\"b\"".to_owned(),
            amount: -15,
        };
        let written = |json, format, count| {
            let mut out = Vec::new();
            let mut lines = Lines::new(&mut out, json, format);
            (0..count).for_each(|_| lines.line(&line));
            lines.end();
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            written(false, Some(ExportFormat::Csv), 1),
            "sequence,session,phase,debit,credit,amount\r\n7,s,post,customer:1,\"a,\"\"b\"\"\",-15\r\n"
        );
        for (count, format) in [(0, Some(ExportFormat::Json)), (1, None), (2, Some(ExportFormat::Json))] {
            let read: Vec<Line> = serde_json::from_str(&written(true, format, count)).unwrap();
            assert_eq!(read, vec![line.clone(); count]);
        }
        assert_eq!(written(false, None, 3).lines().count(), 4);
    }
}
