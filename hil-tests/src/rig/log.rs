//! What a device logs, line by line, from whatever thread it comes.

use std::sync::{Arc, Mutex};

use defmt_decoder::{DecodeError, StreamDecoder};

/// Lines that are kept; a scenario looks back no further than its own beginning.
const LINES_MAX: usize = 20_000;

/// The log of one device, over all its boots. Clones are the same log.
#[derive(Clone, Debug, Default)]
pub struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    /// Adds a line; a device that babbles is cut off.
    pub fn push(&self, line: String) {
        let mut lines = self.lines();
        if lines.len() < LINES_MAX {
            lines.push(line);
        }
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines().is_empty()
    }

    /// The number of the line behind the first one at or behind `from` that contains `text`.
    #[must_use]
    pub fn find(&self, from: usize, text: &str) -> Option<usize> {
        let lines = self.lines();
        let found = lines.iter().skip(from).position(|line| says(line, text));
        found.map(|found| from + found + 1)
    }

    /// How many lines at or behind `from` contain `text`.
    #[must_use]
    pub fn count(&self, from: usize, text: &str) -> usize {
        self.lines().iter().skip(from).filter(|line| says(line, text)).count()
    }

    /// Everything from line `from` on.
    #[must_use]
    pub fn text(&self, from: usize) -> String {
        self.lines().get(from..).unwrap_or_default().join("\n")
    }

    fn lines(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

/// A number at the end of `text` is meant whole: `fault 1` is not in `fault 10`.
fn says(line: &str, text: &str) -> bool {
    let digit = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
    let numbered = text.ends_with(|c: char| c.is_ascii_digit());
    line.match_indices(text)
        .any(|(at, found)| !(numbered && digit(&line[at + found.len()..])))
}

/// Decodes what came of a defmt stream; `push` gets every whole line. What cannot be decoded is skipped up to the next
/// frame.
pub(crate) fn decode(decoder: &mut dyn StreamDecoder, bytes: &[u8], mut push: impl FnMut(String)) {
    decoder.received(bytes);
    loop {
        match decoder.decode() {
            Ok(frame) => push(frame.display(false).to_string()),
            Err(DecodeError::UnexpectedEof) => return,
            Err(DecodeError::Malformed) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_from_where_one_looks() {
        let log = Log::default();
        for line in ["1 INFO  free", "2 INFO  unlinked", "3 WARN  fault 10", "4 INFO  linked"] {
            log.push(line.to_owned());
        }
        let cases = [
            (0, " free", Some(1)),
            (1, " free", None),
            (0, " linked", Some(4)),
            (0, "fault 1", None),
            (0, "fault 10", Some(3)),
            (9, "fault", None),
        ];
        for (from, text, wanted) in cases {
            assert_eq!(log.find(from, text), wanted, "{text:?} from {from}");
        }
        assert_eq!((log.count(0, "INFO"), log.count(2, "INFO")), (3, 1));
        assert_eq!(log.text(3), "4 INFO  linked");
        assert_eq!(log.text(9), "");
    }
}
