//! Every measurement runs, ends well and prints its tables; each checks its own books. Times are not judged.
#![allow(clippy::unwrap_used)]

use std::process::Command;

use hil_tests::site::binary;

/// Runs one as little as it can; what it printed.
fn measure(what: &str) -> String {
    let dir = tempfile::tempdir().unwrap();
    let output = Command::new(binary("holdfast-measure").unwrap())
        .args([what, "--quick", "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{what}: {said}{text}");
    text
}

/// What must be in it: the limit or the peer, and a verdict on what was wanted.
fn check(what: &str, expected: &[&str]) {
    let text = measure(what);
    for part in expected {
        assert!(text.contains(part), "{what} does not say \"{part}\": {text}");
    }
    assert!(text.contains("| --- |"), "{what} has no table: {text}");
}

#[test]
fn latency() {
    check("latency", &["floor", "mosquitto", "cloud up", "flush", "wanted"]);
}

#[test]
fn core() {
    check("core", &["allocations", "the log alone", "wanted"]);
}

#[test]
fn codec() {
    check("codec", &["ciborium", "minicbor", "sealed message", "Cortex-M4"]);
}

#[test]
fn boot() {
    check("boot", &["killed", "wanted"]);
}

#[test]
fn footprint() {
    check("footprint", &["mosquitto", "devices idle", "stripped"]);
}

#[test]
fn soak() {
    check("soak", &["resident", "lost or doubled", "wanted"]);
}

#[test]
fn drain() {
    check(
        "drain",
        &["mosquitto bridge", "killed with SIGKILL", "lost or doubled", "wanted"],
    );
}

#[test]
fn wear() {
    check("wear", &["bytes a session", "wanted"]);
}
