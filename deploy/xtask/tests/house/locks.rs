//! Both workspaces build the same contract: what proto is made of must be the same crate, to the version, in both lockfiles.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes on the wire and in seals depend on these wherever they are used, inside proto or not.
const AGREED: [&str; 20] = [
    "serde",
    "serde_core",
    "serde_derive",
    "serde_bytes",
    "serde_cbor",
    "half",
    "heapless",
    "hmac",
    "hkdf",
    "sha2",
    "digest",
    "block-buffer",
    "crypto-common",
    "ed25519",
    "ed25519-dalek",
    "curve25519-dalek",
    "signature",
    "subtle",
    "zeroize",
    "cpufeatures",
];

/// Must be in both lockfiles, or the comparison compares nothing.
const PRESENT: [&str; 2] = ["serde", "serde_cbor"];

/// Two of these in one program would be two wire formats or two sets of trust decisions.
const SINGLE: [&str; 3] = ["serde", "serde_cbor", "rustls"];

/// The contract's package.
const CONTRACT: &str = "proto";

/// A package as a lockfile names it.
type Locked = (String, String);

/// Every package of a lockfile with the packages it names.
pub(crate) type Lock = BTreeMap<Locked, Vec<Locked>>;

/// Reads a Cargo.lock.
pub(crate) fn parse(text: &str) -> Lock {
    let table: toml::Table = text.parse().expect("Cargo.lock is TOML");
    let packages = table
        .get("package")
        .and_then(toml::Value::as_array)
        .map_or(&[][..], Vec::as_slice);
    let field = |package: &toml::Value, key: &str| package[key].as_str().expect("name and version are text").to_owned();
    let all: Vec<Locked> = packages
        .iter()
        .map(|package| (field(package, "name"), field(package, "version")))
        .collect();
    // A dependency is written `name`, or `name version` where the name alone would be ambiguous.
    let find = |written: &str| {
        let mut parts = written.split(' ');
        let (name, version) = (parts.next(), parts.next());
        let is_it =
            |locked: &&Locked| Some(locked.0.as_str()) == name && version.is_none_or(|version| version == locked.1);
        all.iter()
            .find(is_it)
            .unwrap_or_else(|| panic!("Cargo.lock names {written}, and has no such package"))
            .clone()
    };
    let needs = |package: &toml::Value| {
        let written = package
            .get("dependencies")
            .and_then(toml::Value::as_array)
            .map_or(&[][..], Vec::as_slice);
        written
            .iter()
            .map(|name| find(name.as_str().expect("dependencies are text")))
            .collect()
    };
    all.iter().cloned().zip(packages.iter().map(needs)).collect()
}

/// Versions of a package in a lockfile.
fn versions<'a>(lock: &'a Lock, name: &str) -> BTreeSet<&'a str> {
    lock.keys()
        .filter(|locked| locked.0 == name)
        .map(|locked| locked.1.as_str())
        .collect()
}

/// The contract and everything below it.
fn contract(lock: &Lock) -> BTreeSet<&Locked> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Locked> = lock.keys().filter(|locked| locked.0 == CONTRACT).collect();
    while let Some(locked) = open.pop() {
        if reached.insert(locked) {
            open.extend(&lock[locked]);
        }
    }
    reached
}

/// Where the lockfiles part. What firmware has below the contract, the host must have in the same versions; beside it either may have more:
/// the host for its tests, firmware for a bootloader.
pub(crate) fn disagreements(host: &Lock, firmware: &Lock) -> Vec<String> {
    let mut breaches = Vec::new();
    for name in AGREED {
        let (host, firmware) = (versions(host, name), versions(firmware, name));
        match (host.is_empty(), firmware.is_empty()) {
            (false, false) if firmware.is_disjoint(&host) => {
                breaches.push(format!("{name}: {host:?} for the host, {firmware:?} for firmware"))
            }
            (true, true) if PRESENT.contains(&name) => breaches.push(format!("{name}: in neither lockfile")),
            (true, false) | (false, true) if PRESENT.contains(&name) => {
                breaches.push(format!("{name}: in one lockfile only"))
            }
            (true, true) | (true, false) | (false, true) | (false, false) => {}
        }
    }
    for locked in contract(firmware) {
        let of_host = host.get(locked).map_or(&[][..], Vec::as_slice);
        let foreign = firmware[locked].iter().filter(|need| !of_host.contains(need));
        breaches
            .extend(foreign.map(|need| format!("{} -> {} {}: in firmware's lockfile only", locked.0, need.0, need.1)));
    }
    breaches
}

/// Packages that may be in a tree once and are there more often.
pub(crate) fn duplicates(lock: &Lock) -> Vec<String> {
    let several = SINGLE
        .iter()
        .map(|name| (name, versions(lock, name)))
        .filter(|(_, versions)| versions.len() > 1);
    several
        .map(|(name, versions)| format!("{name}: {versions:?}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A lockfile of packages written `name version: dependency, dependency`.
    fn lock(packages: &[&str]) -> Lock {
        let mut text = String::from("version = 4\n");
        for package in packages {
            let (head, needs) = package.split_once(':').unwrap_or((package, ""));
            let (name, version) = head.split_once(' ').unwrap();
            let needs: Vec<String> = needs
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
                .map(|name| format!("{name:?}"))
                .collect();
            text += &format!(
                "[[package]]\nname = {name:?}\nversion = {version:?}\ndependencies = [{}]\n",
                needs.join(", ")
            );
        }
        parse(&text)
    }

    #[test]
    fn agreement() {
        let host = lock(&[
            "proto 1: serde, serde_cbor, ciborium",
            "serde 1",
            "serde_cbor 2: half 3, serde",
            "half 3",
            "half 4",
            "ciborium 9: half 4",
            "tokio 1",
        ]);
        let firmware = lock(&[
            "proto 1: serde, serde_cbor",
            "serde 1",
            "serde_cbor 2: half",
            "half 3",
            "embassy 1",
            "tokio 2",
        ]);
        assert_eq!(disagreements(&host, &firmware), [""; 0]);
        assert_eq!(duplicates(&host), [""; 0]);
    }

    #[test]
    fn disagreement() {
        let host = lock(&[
            "proto 1: serde, serde_cbor, itoa 1",
            "serde 1",
            "serde_cbor 2",
            "itoa 1",
            "itoa 2",
            "subtle 1",
        ]);
        let firmware = lock(&[
            "proto 1: serde, serde_cbor, itoa",
            "serde 1",
            "serde_cbor 2",
            "itoa 2",
            "subtle 2",
        ]);
        assert_eq!(
            disagreements(&host, &firmware),
            [
                "subtle: {\"1\"} for the host, {\"2\"} for firmware",
                "proto -> itoa 2: in firmware's lockfile only"
            ]
        );
    }

    #[test]
    fn nothing_to_compare_is_a_breach() {
        let empty = lock(&["proto 1"]);
        assert_eq!(
            disagreements(&empty, &empty),
            ["serde: in neither lockfile", "serde_cbor: in neither lockfile"]
        );
        let half = lock(&["proto 1: serde, serde_cbor", "serde 1", "serde_cbor 2"]);
        assert_eq!(
            disagreements(&half, &empty),
            ["serde: in one lockfile only", "serde_cbor: in one lockfile only"]
        );
    }

    #[test]
    fn two_versions() {
        assert_eq!(
            duplicates(&lock(&["rustls 1", "rustls 2", "a 1: rustls 2"])),
            ["rustls: {\"1\", \"2\"}"]
        );
    }
}
