//! Which package leans on which: the drawing in docs/architecture.md against the manifests.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// Opens the drawing: a fenced block with this language.
const FENCE: &str = "```arrows";

/// Stands for "may see every room" on the right of an arrow.
const EVERYTHING: &str = "*";

/// Dependencies of one package.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Needs {
    /// In the product: normal and build dependencies.
    pub(crate) normal: BTreeSet<String>,
    /// In its tests.
    pub(crate) dev: BTreeSet<String>,
}

/// What the manifests say.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// On packages of this repository, by package.
    pub(crate) internal: BTreeMap<String, Needs>,
    /// On anything else, by package.
    pub(crate) external: BTreeMap<String, Needs>,
}

/// Reads the drawing. A line is `package -> names`, or `dev package -> names` for what only its tests use; `#` begins a remark.
///
/// # Errors
/// There is no drawing or a line of it is not one of these.
pub(crate) fn parse_drawing(page: &str) -> Result<BTreeMap<String, Needs>, String> {
    let mut drawn: BTreeMap<String, Needs> = BTreeMap::new();
    let block = page
        .lines()
        .skip_while(|line| line.trim() != FENCE)
        .skip(1)
        .take_while(|line| line.trim() != "```");
    for line in block {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        let (left, right) = line.split_once("->").ok_or_else(|| format!("no arrow in {line:?}"))?;
        let (dev, package) = match left.trim().strip_prefix("dev ") {
            Some(package) => (true, package.trim()),
            None => (false, left.trim()),
        };
        let names = right.split_whitespace().map(str::to_owned);
        let needs = drawn.entry(package.to_owned()).or_default();
        if dev {
            needs.dev.extend(names)
        } else {
            needs.normal.extend(names)
        }
    }
    if drawn.is_empty() {
        Err(format!("no block that opens with {FENCE}"))
    } else {
        Ok(drawn)
    }
}

/// Reads the manifests' side from `cargo metadata` of every workspace.
pub(crate) fn from_metadata(workspaces: &[Value]) -> Found {
    let mut found = Found::default();
    for package in workspaces.iter().flat_map(|metadata| array(metadata, "packages")) {
        let name = string(package, "name");
        found.internal.entry(name.clone()).or_default();
        for dependency in array(package, "dependencies") {
            let is_internal = dependency["path"].is_string();
            let side = if is_internal {
                &mut found.internal
            } else {
                &mut found.external
            };
            let needs = side.entry(name.clone()).or_default();
            let list = if dependency["kind"] == "dev" {
                &mut needs.dev
            } else {
                &mut needs.normal
            };
            list.insert(string(dependency, "name"));
        }
    }
    found
}

fn array<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("cargo metadata has no list {key:?}"))
}

fn string(value: &Value, key: &str) -> String {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("cargo metadata has no text {key:?}"))
        .to_owned()
}

/// Where the drawing and the manifests part. Both ways: an arrow that is not drawn is forbidden, a drawn one that is not there misleads.
pub(crate) fn compare(drawn: &BTreeMap<String, Needs>, found: &Found) -> Vec<String> {
    let mut breaches = Vec::new();
    let packages: BTreeSet<&String> = drawn.keys().chain(found.internal.keys()).collect();
    for package in packages {
        match (drawn.get(package), found.internal.get(package)) {
            (None, _) => breaches.push(format!("{package} is not in the drawing")),
            (_, None) => breaches.push(format!("{package} is drawn, and no manifest has that name")),
            (Some(drawn), Some(found)) => {
                let mut report = |kind: &str, drawn: &BTreeSet<String>, found: &BTreeSet<String>| {
                    if drawn.contains(EVERYTHING) {
                        return;
                    }
                    breaches.extend(
                        found
                            .difference(drawn)
                            .map(|name| format!("{package} -> {name} ({kind}) is not drawn")),
                    );
                    breaches.extend(
                        drawn
                            .difference(found)
                            .map(|name| format!("{package} -> {name} ({kind}) is drawn, and no manifest has it")),
                    );
                };
                let everything_in_tests = drawn.normal.contains(EVERYTHING);
                report("product", &drawn.normal, &found.normal);
                report(
                    "tests",
                    if everything_in_tests { &drawn.normal } else { &drawn.dev },
                    &found.dev,
                );
            }
        }
    }
    breaches
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn package(name: &str, dependencies: &[(&str, Value, bool)]) -> Value {
        let dependencies: Vec<Value> = dependencies
            .iter()
            .map(|(name, kind, internal)| json!({"name": name, "kind": kind, "path": if *internal { json!("/somewhere") } else { Value::Null }}))
            .collect();
        json!({"name": name, "dependencies": dependencies})
    }

    fn check(drawing: &str, packages: &[Value], expected: &[&str]) {
        let drawn = parse_drawing(&format!("# Page\n```arrows\n{drawing}\n```\na -> not part of it\n")).unwrap();
        let found = from_metadata(&[json!({"packages": packages})]);
        assert_eq!(compare(&drawn, &found), expected, "{drawing}");
    }

    #[test]
    fn agreement_is_silent() {
        let packages = [
            package("a", &[("serde", Value::Null, false)]),
            package("b", &[("a", Value::Null, true), ("c", json!("dev"), true)]),
            package("c", &[("a", json!("build"), true)]),
            package("bench", &[("a", Value::Null, true), ("b", json!("dev"), true)]),
        ];
        check(
            "a ->   # leans on nothing\n\nb -> a\ndev b -> c\nc -> a\nbench -> *",
            &packages,
            &[],
        );
    }

    #[test]
    fn every_disagreement_is_named() {
        let packages = [package("a", &[]), package("b", &[("a", Value::Null, true)])];
        check("a ->\nb ->", &packages, &["b -> a (product) is not drawn"]);
        check(
            "a -> b\nb -> a",
            &packages,
            &["a -> b (product) is drawn, and no manifest has it"],
        );
        check(
            "a ->\ndev b -> a",
            &packages,
            &[
                "b -> a (product) is not drawn",
                "b -> a (tests) is drawn, and no manifest has it",
            ],
        );
        check("b -> a", &packages, &["a is not in the drawing"]);
        check(
            "a ->\nb -> a\nc ->",
            &packages,
            &["c is drawn, and no manifest has that name"],
        );
    }

    #[test]
    fn a_page_without_drawing_or_with_a_bad_line_is_an_error() {
        assert!(parse_drawing("a -> b").unwrap_err().contains("no block"));
        assert!(
            parse_drawing("```arrows\na b\n```")
                .unwrap_err()
                .contains("no arrow in \"a b\"")
        );
    }
}
