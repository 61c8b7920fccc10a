//! How much stack the firmware says that it used, kept for whoever compares it with a budget.

use std::{env, fs, io::Write as _};

use proto::id::Kind;

/// Names the file that collects it, a line `image bytes` for each board; unset: it is only printed.
const FILE: &str = "HOLDFAST_STACKS";

/// The most that a log speaks of, in bytes.
fn deepest(log: &[String]) -> Option<u64> {
    let used = log.iter().filter_map(|line| {
        let (_, figure) = line.split_once("stack: ")?;
        figure.split_once(" of ")?.0.parse().ok()
    });
    used.max()
}

/// Prints what the stack of a board came to, and writes it down.
pub(crate) fn record(kind: Kind, log: &[String]) {
    let Some(bytes) = deepest(log) else { return };
    let image = kind.word();
    println!("{image}: {bytes} bytes of stack");
    if let Some(path) = env::var_os(FILE) {
        // One write each, so that lines of several boards do not mix. Whoever asked for the file notices what is missing.
        let file = fs::OpenOptions::new().create(true).append(true).open(path);
        drop(file.and_then(|mut file| file.write_all(format!("{image} {bytes}\n").as_bytes())));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_of_a_log_counts() {
        let log = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        for (lines, bytes) in [
            (&["0.012 INFO  charger-001 boots", "linked"][..], None),
            (&["1.0 INFO  stack: 20480 of 32768 bytes used"], Some(20_480)),
            (
                &[
                    "stack: 20 of 32768 bytes used",
                    "stack: 24 of 32768 bytes used",
                    "stack: 3 of",
                ],
                Some(24),
            ),
            (&["stack: many of 32768 bytes used"], None),
        ] {
            assert_eq!(deepest(&log(lines)), bytes, "{lines:?}");
        }
    }
}
