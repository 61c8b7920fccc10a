//! Tables for docs/benchmarks.md: what is measured, and beside it what was wanted.

use std::fmt::Write as _;

/// A table in the form of Markdown.
#[derive(Clone, Debug)]
pub struct Table {
    columns: usize,
    text: String,
}

impl Table {
    /// With these columns.
    #[must_use]
    pub fn new(columns: &[&str]) -> Self {
        let mut table = Self {
            columns: columns.len(),
            text: String::new(),
        };
        table.line(columns);
        table.line(&vec!["---"; columns.len()]);
        table
    }

    /// One more row; missing cells stay empty.
    pub fn row<T: AsRef<str>>(&mut self, cells: &[T]) {
        self.line(cells);
    }

    fn line<T: AsRef<str>>(&mut self, cells: &[T]) {
        for column in 0..self.columns {
            let cell = cells.get(column).map_or("", AsRef::as_ref);
            let _ = write!(self.text, "| {cell} ");
        }
        self.text.push_str("|\n");
    }

    /// The whole of it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }
}

/// A ratio, and whether it is what was wanted at most.
#[must_use]
pub fn at_most(found: f64, wanted: f64) -> [String; 2] {
    [
        format!("{found:.2}"),
        verdict(found <= wanted, &format!("at most {wanted}")),
    ]
}

/// A ratio, and whether it is what was wanted at least.
#[must_use]
pub fn at_least(found: f64, wanted: f64) -> [String; 2] {
    [
        format!("{found:.2}"),
        verdict(found >= wanted, &format!("at least {wanted}")),
    ]
}

/// What was wanted, and whether it was reached.
#[must_use]
pub fn verdict(is_reached: bool, wanted: &str) -> String {
    let word = if is_reached { "reached" } else { "**not reached**" };
    format!("{wanted}: {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_columns() {
        let mut table = Table::new(&["a", "b"]);
        table.row(&["1"]);
        assert_eq!(table.text(), "| a | b |\n| --- | --- |\n| 1 |  |\n");
    }

    #[test]
    fn a_verdict_can_say_no() {
        assert_eq!(at_most(1.5, 1.5), ["1.50", "at most 1.5: reached"]);
        assert_eq!(at_most(1.51, 1.5), ["1.51", "at most 1.5: **not reached**"]);
        assert_eq!(at_least(1.9, 2.0), ["1.90", "at least 2: **not reached**"]);
    }
}
