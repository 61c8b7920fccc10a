//! The house rules that no compiler checks: which crate may lean on which, which word may stand where, what the two workspaces must agree on.
//!
//! Each module is one family of rules: a checker over plain input that returns the breaches as sentences, and self-tests that show the
//! checker can fail. The tests in this file run the checkers over the repository itself.

mod absent;
mod arrows;
mod hygiene;
mod locks;
mod rust_source;
mod threats;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rust_source::RustSource;

/// The repository's top folder.
fn root() -> PathBuf {
    // Asked now and not at build time: checkouts may share a target folder.
    let package = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo runs this test"));
    package
        .ancestors()
        .nth(2)
        .expect("this package lies two folders below the top")
        .to_path_buf()
}

/// Every file that is tracked, or would be if added: path from the top with `/`, and its text. Binary files are left out.
fn files() -> Vec<(String, String)> {
    let listed = Command::new("git")
        .current_dir(root())
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .expect("git is installed");
    assert!(
        listed.status.success(),
        "git ls-files: {}",
        String::from_utf8_lossy(&listed.stderr)
    );
    let names = String::from_utf8(listed.stdout).expect("file names are UTF-8");
    let read = |name: &str| {
        fs::read_to_string(root().join(name))
            .ok()
            .map(|text| (name.to_owned(), text))
    };
    let files: Vec<_> = names
        .split('\0')
        .filter(|name| !name.is_empty())
        .filter_map(read)
        .collect();
    assert!(
        files.iter().any(|(name, _)| name == "proto/src/lib.rs"),
        "git lists the repository's files"
    );
    files
}

fn rust_sources() -> Vec<RustSource> {
    let is_rust = |(name, _): &(String, String)| name.ends_with(".rs");
    files()
        .into_iter()
        .filter(is_rust)
        .map(|(name, text)| RustSource::parse(&name, &text).unwrap_or_else(|error| panic!("{error}")))
        .collect()
}

/// `cargo metadata` of a workspace, without resolving anything: manifests are enough.
fn metadata(workspace: &str) -> serde_json::Value {
    let output = Command::new(env::var_os("CARGO").expect("cargo runs this test"))
        .current_dir(root().join(workspace))
        .args(["metadata", "--format-version=1", "--no-deps", "--offline"])
        .output()
        .expect("cargo starts");
    assert!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Fails with every breach on a line of its own.
#[track_caller]
fn expect_none(rule: &str, breaches: Vec<String>) {
    assert!(breaches.is_empty(), "{rule}:\n  {}\n", breaches.join("\n  "));
}

#[test]
fn arrows_are_the_drawn_ones() {
    let drawn = arrows::parse_drawing(&text("docs/architecture.md"))
        .unwrap_or_else(|error| panic!("docs/architecture.md: {error}"));
    let found = arrows::from_metadata(&[metadata("."), metadata("firmware")]);
    expect_none(
        "the manifests and docs/architecture.md disagree",
        arrows::compare(&drawn, &found),
    );
}

#[test]
fn crates_are_named_by_their_owners_only() {
    let found = arrows::from_metadata(&[metadata("."), metadata("firmware")]);
    expect_none(
        "a manifest names a crate that is another room's",
        absent::foreign_dependencies(&found),
    );
}

#[test]
fn words_stay_in_their_rooms() {
    let sources = rust_sources();
    expect_none("a word outside its room", absent::misplaced_words(&sources));
    expect_none("a topic string outside topic.rs", absent::misplaced_topics(&sources));
}

#[test]
fn pure_crates_are_pure() {
    expect_none(
        "clocks, sockets, threads, random numbers and unordered maps are absent from the pure crates",
        absent::impure(&rust_sources()),
    );
}

#[test]
fn lockfiles_agree() {
    let (host, firmware) = (
        locks::parse(&text("Cargo.lock")),
        locks::parse(&text("firmware/Cargo.lock")),
    );
    expect_none(
        "Cargo.lock and firmware/Cargo.lock disagree",
        locks::disagreements(&host, &firmware),
    );
    expect_none("more than one version in Cargo.lock", locks::duplicates(&host));
    expect_none(
        "more than one version in firmware/Cargo.lock",
        locks::duplicates(&firmware),
    );
}

#[test]
fn text_names_nothing_outside_the_repository() {
    let files = files();
    let checkout = root().to_string_lossy().into_owned();
    expect_none(
        "a path of somebody's machine",
        files
            .iter()
            .flat_map(|(name, text)| hygiene::machine_paths(name, text, &checkout))
            .collect(),
    );
    let exists = |path: &Path| root().join(path).exists();
    expect_none(
        "a path that leads nowhere in the repository",
        files
            .iter()
            .flat_map(|(name, text)| hygiene::lost_paths(name, text, &exists))
            .collect(),
    );
}

#[test]
fn files_fit_in_a_head() {
    expect_none(
        "a file is too long and does not say why",
        rust_sources().iter().filter_map(hygiene::too_long).collect(),
    );
}

#[test]
fn what_is_defended_is_shown() {
    let read = |name: &str| fs::read_to_string(root().join(name)).ok();
    expect_none(
        "docs/threat-model.md promises what nothing shows",
        threats::unshown(&text("docs/threat-model.md"), &read),
    );
}
