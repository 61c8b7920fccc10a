//! What open accepts, refuses and tidies.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Command, Stdio};

use journal::{Journal, OpenError, Options};
use support::{open, options, pairs, replayed, segments, tamper};

/// Raises the layout version in both copies of the only segment's header, as a newer program would have written it.
fn raise_layout(dir: &std::path::Path) {
    let path = segments(dir).pop().unwrap();
    let mut bytes = fs::read(&path).unwrap();
    for copy in [0, 20 << 10] {
        let length = u32::from_le_bytes(bytes[copy + 12..copy + 16].try_into().unwrap()) as usize;
        bytes[copy + 16] += 1;
        let crc = crc32fast::hash(&bytes[copy + 12..copy + 16 + length]);
        bytes[copy + 8..copy + 12].copy_from_slice(&crc.to_le_bytes());
    }
    fs::write(path, bytes).unwrap();
}

#[test]
fn nothing_is_created_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let inner = dir.path().join("journal");
    assert!(matches!(Journal::open(&inner, &Options::new("test", 1)), Err(OpenError::Missing(path)) if path == inner));
    assert!(!inner.exists());
    Journal::open(&inner, &options()).unwrap().close().unwrap();
    Journal::open(&inner, &Options::new("test", 1)).unwrap();
}

#[test]
fn other_kinds_and_newer_formats_are_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 1);
    let error = Journal::open(dir.path(), &Options::new("hub", 1)).unwrap_err();
    assert_eq!(error.to_string(), "this is a \"test\" journal, not a \"hub\" one");

    // A program of format 3 opens a store of format 1 and so makes it one of format 3.
    Journal::open(dir.path(), &Options::new("test", 3))
        .unwrap()
        .close()
        .unwrap();
    let error = Journal::open(dir.path(), &Options::new("test", 2)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "test format 3 is newer than 2, the newest this program supports"
    );
    assert_eq!(
        replayed(&Journal::open(dir.path(), &Options::new("test", 3)).unwrap(), 1)
            .unwrap()
            .len(),
        2
    );

    raise_layout(dir.path());
    let error = Journal::open(dir.path(), &Options::new("test", 3)).unwrap_err();
    assert_eq!(
        error.to_string(),
        "journal format 3 is newer than 2, the newest this program supports"
    );
}

#[test]
fn a_store_of_the_old_layout_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("store")).unwrap();
    tamper(dir.path(), |db| drop(db.insert(b"h", b"HFJOURNL").unwrap()));
    fs::write(dir.path().join("witness"), b"HFWITNS1").unwrap();
    let error = Journal::open(dir.path(), &options()).unwrap_err();
    assert!(matches!(error, OpenError::OldLayout(_)), "{error}");
    assert!(error.to_string().contains("holdfast backup"), "{error}");
}

#[test]
fn a_second_handle_is_refused_until_the_last_of_the_first_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let journal = open(dir.path());
    let reader = journal.reader();
    let own_id = std::process::id();
    let is_locked = || matches!(Journal::open(dir.path(), &options()), Err(OpenError::Locked { holder, .. }) if holder == Some(own_id));
    assert!(is_locked());
    journal.close().unwrap();
    assert!(is_locked(), "a reader still reads");
    drop(reader);
    open(dir.path());
}

#[test]
fn a_second_process_is_refused_and_told_who_holds_the_journal() {
    let dir = tempfile::tempdir().unwrap();
    let mut holder = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "holds_a_journal_until_its_input_ends"])
        .env("JOURNAL_TEST_DIR", dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(holder.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap);
    assert!(lines.any(|line| line == "open"), "the holder did not open the journal");
    let error = Journal::open(dir.path(), &options()).unwrap_err();
    let path = dir.path().join("lock");
    assert_eq!(
        error.to_string(),
        format!("another process holds {} (process {})", path.display(), holder.id())
    );
    drop(holder.stdin.take());
    assert!(holder.wait().unwrap().success());
    open(dir.path());
}

#[test]
#[ignore = "the other process of the test above"]
fn holds_a_journal_until_its_input_ends() {
    let dir = std::env::var_os("JOURNAL_TEST_DIR").unwrap();
    let _journal = open(dir.as_ref());
    std::io::stdout().write_all(b"\nopen\n").unwrap();
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
}

#[test]
fn unfinished_index_snapshots_of_the_engine_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    pairs(dir.path(), 3);
    let store = dir.path().join("store");
    // What a full disk leaves; the names sort after any finished one, so sled would pick them.
    let torn = ["snap.7FFFFFFFFFFFFFFF.generating", "snap.7FFFFFFFFFFFFFFE"].map(|name| store.join(name));
    for path in &torn {
        fs::write(path, b"").unwrap();
    }
    assert!(
        sled::open(&store).is_err(),
        "sled alone would open, so this test proves nothing"
    );
    assert_eq!(replayed(&open(dir.path()), 1).unwrap().len(), 6);
    for path in &torn {
        assert!(!path.exists());
    }
}

#[test]
fn a_creation_that_was_cut_short_is_completed() {
    // The first segment is durable, the witness was not written yet.
    let dir = tempfile::tempdir().unwrap();
    let id = open(dir.path()).store_id();
    fs::remove_file(dir.path().join("witness")).unwrap();
    assert_eq!(
        Journal::open(dir.path(), &Options::new("test", 1)).unwrap().store_id(),
        id
    );
    assert!(dir.path().join("witness").exists());
    // Not even the segment is.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("log")).unwrap();
    fs::write(dir.path().join("log/spare"), b"half").unwrap();
    assert!(matches!(
        Journal::open(dir.path(), &Options::new("test", 1)),
        Err(OpenError::Missing(_))
    ));
    open(dir.path());
}
