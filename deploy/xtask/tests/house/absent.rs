//! What must be absent where. Words are judged as the compiler sees them: a comment may say "sled", code may not.

use crate::arrows::Found;
use crate::rust_source::{RustSource, Word};

/// A crate, and the only rooms that may use it.
struct Owned {
    /// As code names it.
    word: &'static str,
    /// As the registry names it.
    registry_name: &'static str,
    /// Packages whose manifests may name it; a rename in a manifest cannot hide it here.
    packages: &'static [&'static str],
    /// Beginnings of paths from the top of the repository.
    places: &'static [&'static str],
    /// Whether anybody's tests may use it. Where not, a test that reaches behind the owner's back would prove something else than the product does.
    free_in_tests: bool,
}

const OWNED: [Owned; 4] = [
    Owned {
        word: "sled",
        registry_name: "sled",
        packages: &["journal"],
        places: &["gateway/journal/"],
        free_in_tests: false,
    },
    Owned {
        word: "serde_cbor",
        registry_name: "serde_cbor",
        packages: &["proto"],
        places: &["proto/src/codec/mod.rs", "proto/tests/proof/twins.rs"],
        free_in_tests: false,
    },
    Owned {
        word: "rumqttc",
        registry_name: "rumqttc",
        packages: &["carrier", "hil-tests"],
        places: &["gateway/carrier/src/mqtt/", "hil-tests/"],
        // A client that is not ours is what an endpoint should be tested with.
        free_in_tests: true,
    },
    Owned {
        word: "mqtt_protocol_core",
        registry_name: "mqtt-protocol-core",
        packages: &["mqtt-endpoint"],
        places: &["gateway/endpoint/"],
        free_in_tests: false,
    },
];

/// How every topic begins: the cloud side's tree and the device side's.
const TOPIC_ROOTS: [&str; 2] = ["hf/1", "dev/1"];

/// The one file with topic strings.
const TOPIC_FILE: &str = "proto/src/topic.rs";

/// Crates that decide and may neither wait nor wonder: no clock, socket, thread, random number or unordered map.
const PURE_CRATES: [&str; 3] = ["proto/", "gateway/core/", "firmware/device/"];

/// `std` covers its time, net, thread and collections; the rest would come from other crates. The core has an `Instant` of its own, which
/// is a number it is given.
const IMPURE_WORDS: [&str; 9] = [
    "std",
    "SystemTime",
    "HashMap",
    "HashSet",
    "rand",
    "getrandom",
    "fastrand",
    "tokio",
    "embassy_time",
];

/// Uses of an owned crate outside its places.
pub(crate) fn misplaced_words(sources: &[RustSource]) -> Vec<String> {
    let mut breaches = Vec::new();
    for owned in &OWNED {
        let outside = |source: &&RustSource| !owned.places.iter().any(|place| source.path.starts_with(place));
        for source in sources.iter().filter(outside) {
            let is_free = |in_test: bool| owned.free_in_tests && (in_test || source.is_test_file());
            let is_breach = |word: &&Word| !word.is_string && word.text == owned.word && !is_free(word.in_test);
            let sentence = |word: &Word| {
                format!(
                    "{}:{}: {} (belongs to {})",
                    source.path,
                    word.line,
                    owned.word,
                    owned.places.join(", ")
                )
            };
            breaches.extend(source.words.iter().filter(is_breach).map(sentence));
        }
    }
    breaches
}

/// Manifests that name a crate which is another package's.
pub(crate) fn foreign_dependencies(found: &Found) -> Vec<String> {
    let mut breaches = Vec::new();
    for (package, needs) in &found.external {
        for owned in OWNED.iter().filter(|owned| !owned.packages.contains(&package.as_str())) {
            let in_tests = needs.dev.contains(owned.registry_name) && !owned.free_in_tests;
            if needs.normal.contains(owned.registry_name) || in_tests {
                breaches.push(format!(
                    "{package} names {} (belongs to {})",
                    owned.registry_name,
                    owned.packages.join(", ")
                ));
            }
        }
    }
    breaches
}

/// Topic strings in product code outside the one file, and roots that this file no longer has, for then this check would look for the wrong thing.
pub(crate) fn misplaced_topics(sources: &[RustSource]) -> Vec<String> {
    let mut breaches = Vec::new();
    for root in TOPIC_ROOTS {
        let has_root = |source: &RustSource| {
            source
                .words
                .iter()
                .any(|word| word.is_string && !word.in_test && word.text.contains(root))
        };
        if !sources
            .iter()
            .any(|source| source.path == TOPIC_FILE && has_root(source))
        {
            breaches.push(format!(
                "{TOPIC_FILE}: no string with {root:?}; the roots in this test are out of date"
            ));
        }
        for source in sources
            .iter()
            .filter(|source| source.path != TOPIC_FILE && !source.is_test_file())
        {
            for word in source
                .words
                .iter()
                .filter(|word| word.is_string && !word.in_test && word.text.contains(root))
            {
                breaches.push(format!("{}:{}: {}", source.path, word.line, word.text));
            }
        }
    }
    breaches
}

/// Pure crates without `#![no_std]`, and words in them that reach for the world.
pub(crate) fn impure(sources: &[RustSource]) -> Vec<String> {
    let mut breaches = Vec::new();
    for pure in PURE_CRATES {
        let source_folder = format!("{pure}src/");
        let of_crate: Vec<&RustSource> = sources
            .iter()
            .filter(|source| source.path.starts_with(&source_folder))
            .collect();
        if !of_crate
            .iter()
            .any(|source| source.path == format!("{source_folder}lib.rs") && source.no_std)
        {
            breaches.push(format!("{source_folder}lib.rs: no #![no_std]"));
        }
        for source in of_crate {
            let impure = |text: &str| IMPURE_WORDS.contains(&text);
            for word in source
                .words
                .iter()
                .filter(|word| !word.in_test && !word.is_string && impure(&word.text))
            {
                breaches.push(format!("{}:{}: {}", source.path, word.line, word.text));
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrows::Needs;

    fn source(path: &str, text: &str) -> RustSource {
        RustSource::parse(path, text).unwrap()
    }

    #[test]
    fn owned_words() {
        let check = |path: &str, text: &str, expected: usize| {
            assert_eq!(misplaced_words(&[source(path, text)]).len(), expected, "{path}: {text}")
        };
        check("gateway/journal/src/store.rs", "use sled::Db;", 0);
        check("gateway/daemon/src/journal.rs", "use sled::Db;", 1);
        check("gateway/daemon/tests/power.rs", "fn f() { sled::open(p); }", 1);
        check(
            "gateway/daemon/src/main.rs",
            "// sled is elsewhere\nconst WHY: &str = \"sled\";",
            0,
        );
        check("proto/src/codec/mod.rs", "use serde_cbor::Error;", 0);
        check("proto/src/seal.rs", "use serde_cbor::Error;", 1);
        check("gateway/carrier/src/mqtt/v5.rs", "use rumqttc::Event;", 0);
        check("gateway/daemon/src/cloud/link.rs", "use rumqttc::Event;", 1);
        check("gateway/hub/src/lib.rs", "use mqtt_protocol_core as mqtt;", 1);
        check("gateway/endpoint/tests/peers.rs", "use rumqttc::Event;", 0);
        check(
            "gateway/endpoint/src/lib.rs",
            "#[cfg(test)] mod tests { use rumqttc::Event; }",
            0,
        );
        let breach = misplaced_words(&[source("a.rs", "\nuse sled;")]);
        assert_eq!(breach, ["a.rs:2: sled (belongs to gateway/journal/)"]);
    }

    #[test]
    fn owned_crates() {
        let check = |package: &str, normal: &[&str], dev: &[&str], expected: &[&str]| {
            let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
            let needs = Needs {
                normal: set(normal),
                dev: set(dev),
            };
            let found = Found {
                external: [(package.to_owned(), needs)].into(),
                ..Found::default()
            };
            assert_eq!(foreign_dependencies(&found), expected, "{package}");
        };
        check("journal", &["sled", "tokio"], &[], &[]);
        check("hub", &[], &["sled"], &["hub names sled (belongs to journal)"]);
        check("hub", &[], &["rumqttc"], &[]);
        check(
            "hub",
            &["rumqttc"],
            &[],
            &["hub names rumqttc (belongs to carrier, hil-tests)"],
        );
    }

    #[test]
    fn topics() {
        let owner = || source(TOPIC_FILE, "const A: &str = \"hf/1\"; const B: &str = \"dev/1/\";");
        let check = |path: &str, text: &str, expected: usize| {
            assert_eq!(
                misplaced_topics(&[owner(), source(path, text)]).len(),
                expected,
                "{path}: {text}"
            )
        };
        check("gateway/daemon/src/link.rs", "fn f() { subscribe(\"hf/1/+/u\"); }", 1);
        check("gateway/daemon/src/link.rs", "fn f() { format!(\"dev/1/{id}\"); }", 1);
        check(
            "gateway/daemon/src/link.rs",
            "/// Speaks on hf/1.\nfn f() {}\n#[cfg(test)] mod tests { const T: &str = \"hf/1\"; }",
            0,
        );
        check("gateway/daemon/tests/link.rs", "const T: &str = \"hf/1\";", 0);
        assert_eq!(
            misplaced_topics(&[source(TOPIC_FILE, "const A: &str = \"hf/1\";")]).len(),
            1,
            "a root nobody uses"
        );
    }

    #[test]
    fn purity() {
        let with = |text: &str| {
            let mut sources: Vec<RustSource> = PURE_CRATES
                .iter()
                .map(|pure| source(&format!("{pure}src/lib.rs"), "#![no_std]"))
                .collect();
            sources.push(source("proto/src/money.rs", text));
            impure(&sources)
        };
        assert_eq!(
            with("use core::fmt;\n#[cfg(test)] mod tests { use std::collections::HashMap; }"),
            [""; 0]
        );
        assert_eq!(with("\nuse std::time::Duration;"), ["proto/src/money.rs:2: std"]);
        assert_eq!(with("fn f(now: SystemTime) {}"), ["proto/src/money.rs:1: SystemTime"]);
        assert_eq!(with("let net = gross - fee;"), [""; 0]);
        assert_eq!(impure(&[]).len(), PURE_CRATES.len(), "a crate that is gone is not pure");
    }
}
