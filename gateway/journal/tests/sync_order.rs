//! Proof from outside, by system call trace: no append returns before its own bytes were written to the log and
//! an fdatasync of that file, begun after the write, has succeeded.

#![allow(clippy::unwrap_used)]

mod support;

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::process::Command;

use support::open;

const APPENDS: u64 = 100;

#[test]
#[ignore = "the process that the test below traces"]
fn appends_and_acknowledges() {
    let dir = std::env::var_os("JOURNAL_TEST_DIR").unwrap();
    let mut journal = open(dir.as_ref());
    let mut out = std::io::stdout();
    for n in 1..=APPENDS {
        let (mark, filler) = (format!("mark {n};"), vec![b'.'; (n * 97 % 3000) as usize]);
        journal.append(&[mark.as_bytes(), &filler]).unwrap();
        out.write_all(format!("acknowledged {n};\n").as_bytes()).unwrap();
    }
}

/// Number between `prefix` and the next `;`, for the last such place in `text`.
fn last_number(text: &str, prefix: &str) -> Option<u64> {
    text.rmatch_indices(prefix)
        .find_map(|(at, _)| text[at + prefix.len()..].split(';').next()?.parse().ok())
}

/// Walks the trace; returns how many acknowledgements it saw, or the first that came before its sync.
fn check(trace: &str) -> Result<u64, u64> {
    // Per thread: the call it is in, and for an fdatasync what had been written when it began.
    let mut unfinished: HashMap<&str, (&str, u64)> = HashMap::new();
    let (mut written, mut synced, mut acknowledged) = (0, 0, 0);
    for line in trace.lines() {
        let Some((thread, event)) = line.split_once(' ') else {
            continue;
        };
        let event = event.trim_start();
        let (call, begun_with) = match (event.strip_prefix("<... "), event.ends_with("<unfinished ...>")) {
            (Some(_), _) => unfinished.remove(thread).unwrap_or((event, 0)),
            (None, true) => {
                unfinished.insert(thread, (event, written));
                continue;
            }
            (None, false) => (event, written),
        };
        let is_success = !event.contains(" = -1 ");
        if call.starts_with("pwrite64(") && call.contains("/log/") && is_success {
            written = last_number(call, "mark ").unwrap_or(written).max(written);
        } else if call.starts_with("fdatasync(") && call.contains("/log/") && event.ends_with("= 0") {
            synced = synced.max(begun_with);
        } else if let Some(n) = call
            .starts_with("write(1")
            .then(|| last_number(call, "acknowledged "))
            .flatten()
        {
            if synced < n {
                return Err(n);
            }
            acknowledged = n;
        }
    }
    Ok(acknowledged)
}

#[test]
fn append_returns_only_after_its_bytes_are_synced() {
    if Command::new("strace").arg("-V").output().is_err() {
        println!("SKIPPED: strace is not installed, so the order of system calls was not checked");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let trace_path = dir.path().join("trace");
    let output = Command::new("strace")
        .args([
            "-f",
            "-y",
            "-s",
            "1000000",
            "-e",
            "trace=pwrite64,write,fdatasync",
            "-o",
        ])
        .arg(&trace_path)
        .arg(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "appends_and_acknowledges"])
        .env("JOURNAL_TEST_DIR", dir.path().join("journal"))
        .output()
        .unwrap();
    if !output.status.success() && !trace_path.exists() {
        println!(
            "SKIPPED: strace may not trace here: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        return;
    }
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let trace = fs::read_to_string(&trace_path).unwrap();
    assert_eq!(check(&trace), Ok(APPENDS));

    // The check itself can fail: without the fdatasyncs the first acknowledgement is already too early.
    let without: String = trace
        .lines()
        .filter(|line| !line.contains("fdatasync"))
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(check(&without), Err(1));
    let count = |call: &str| {
        trace
            .lines()
            .filter(|line| line.contains(call) && line.contains("/log/"))
            .count()
    };
    println!("{APPENDS} appends, {} fdatasync of the log", count("fdatasync("));
}
