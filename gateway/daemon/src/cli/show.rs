//! How answers look: tables for people, JSON for machines, colours on a terminal only.

use std::{
    io::{IsTerminal as _, Write as _},
    process::ExitCode,
};

use serde_json::Value;

use super::fail;
use crate::exit;

/// Prints an answer of the gateway; an error in it is said, and makes the command fail.
pub(super) fn answer(answer: &Value, json: bool) -> ExitCode {
    if let Some(code) = refused(answer) {
        return code;
    }
    if json {
        print(&format!("{answer}\n"));
        return ExitCode::SUCCESS;
    }
    match answer {
        Value::Object(fields) => {
            let lines = fields
                .iter()
                .map(|(name, value)| format!("{name:<22} {}\n", plain(value)));
            print(&lines.collect::<String>());
        }
        Value::Array(rows) => print(&table(rows)),
        other => print(&format!("{}\n", plain(other))),
    }
    ExitCode::SUCCESS
}

/// If the answer is an error: says so.
pub(super) fn refused(answer: &Value) -> Option<ExitCode> {
    let error = answer.get("error").and_then(Value::as_str)?;
    let code = answer["exit"].as_u64().and_then(|code| code.try_into().ok());
    Some(fail(code.unwrap_or(exit::UNAVAILABLE), &error))
}

/// Rows under their names, tab-separated; what is not a list of objects is empty.
fn table(rows: &[Value]) -> String {
    let Some(Value::Object(first)) = rows.first() else {
        return String::new();
    };
    let head = first.keys().cloned().collect::<Vec<_>>().join("\t");
    let body = rows.iter().map(|row| {
        let cells: Vec<String> = first.keys().map(|name| plain(&row[name])).collect();
        cells.join("\t")
    });
    std::iter::once(head).chain(body).map(|line| line + "\n").collect()
}

/// A value as people read it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whoever reads may have seen enough, as `head` has.
pub(super) fn print(text: &str) {
    let _ = std::io::stdout().write_all(text.as_bytes());
}

/// How something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Good,
    Careful,
    Bad,
}

/// Colours text for a terminal, and for nothing else.
#[derive(Clone, Copy, Debug)]
pub(super) struct Paint(bool);

impl Paint {
    /// For standard output, as <https://no-color.org> asks.
    pub(super) fn stdout() -> Self {
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self(std::io::stdout().is_terminal() && !refused)
    }

    /// Without colours.
    #[cfg(test)]
    pub(super) const fn none() -> Self {
        Self(false)
    }

    /// The text, coloured.
    pub(super) fn tone(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Good => 32,
            Tone::Careful => 33,
            Tone::Bad => 31,
        };
        if self.0 {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// A time span for people, in two units at most.
pub(super) fn span(s: u64) -> String {
    match s {
        0..60 => format!("{s} s"),
        60..3600 => format!("{} min", s / 60),
        3600..86_400 => format!("{} h {} min", s / 3600, s % 3600 / 60),
        _ => format!("{} d {} h", s / 86_400, s % 86_400 / 3600),
    }
}

/// How far something has come, on a terminal only; elsewhere it says nothing.
pub(super) struct Progress {
    what: &'static str,
    of: u64,
    shown: u64,
    on: bool,
}

impl Progress {
    /// Of so many steps.
    pub(super) fn new(what: &'static str, of: u64) -> Self {
        let on = std::io::stderr().is_terminal();
        let shown = u64::MAX;
        Self { what, of, shown, on }
    }

    /// So many are done.
    pub(super) fn at(&mut self, done: u64) {
        let percent = done * 100 / self.of.max(1);
        if self.on && percent != self.shown {
            self.shown = percent;
            let width = usize::try_from(percent / 4).unwrap_or(25).min(25);
            eprint!("\r{} [{:<25}] {percent:>3} %", self.what, "#".repeat(width));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.on {
            eprint!("\r{:60}\r", "");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn spans_are_told_in_two_units() {
        for (s, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (61, "1 min"),
            (3_660, "1 h 1 min"),
            (90_000, "1 d 1 h"),
        ] {
            assert_eq!(span(s), text);
        }
    }

    #[test]
    fn a_table_has_a_line_for_each_row_and_one_above() {
        assert_eq!(
            table(&[json!({"a": 1, "b": null}), json!({"a": "x"})]),
            "a\tb\n1\t-\nx\t-\n"
        );
        assert_eq!(table(&[]), "");
    }

    #[test]
    fn nothing_is_coloured_where_nobody_sees_it() {
        assert_eq!(Paint::none().tone(Tone::Bad, "text"), "text");
        assert_eq!(Paint(true).tone(Tone::Bad, "text"), "\x1b[31mtext\x1b[0m");
    }
}
