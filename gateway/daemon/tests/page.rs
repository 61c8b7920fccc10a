//! What stands beside the page and must agree with it: the document of the metrics, the dashboard, the words of both languages.
#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, collections::BTreeSet, fs, path::Path};

use gateway::page::METRICS;
use serde_json::Value;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    fs::read_to_string(root.join(path)).unwrap()
}

/// Every name that begins as ours do.
fn names(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text
        .split(|c| !is_of_name(c))
        .filter(|word| word.starts_with("holdfast_"));
    words.map(ToOwned::to_owned).collect()
}

fn known() -> BTreeSet<String> {
    METRICS.iter().map(|metric| metric.name.to_owned()).collect()
}

#[test]
fn every_metric_is_documented_as_it_is() {
    let text = read("docs/metrics.md");
    assert_eq!(names(&text), known());
    for metric in METRICS {
        let row = format!("| `{}` | {} | ", metric.name, metric.kind);
        let line = text.lines().find(|line| line.starts_with(&row));
        let line = line.unwrap_or_else(|| panic!("docs/metrics.md has no row {row}"));
        assert!(line.ends_with(&format!("| {} |", metric.help)), "{line}");
    }
}

#[test]
fn the_dashboard_shows_only_what_there_is() {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/holdfast.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut ids = BTreeSet::new();
    let mut shown = BTreeSet::new();
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let (x, width) = (&panel["gridPos"]["x"], &panel["gridPos"]["w"]);
        assert!(x.as_u64().unwrap() + width.as_u64().unwrap() <= 24, "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            let found = names(target["expr"].as_str().unwrap());
            assert!(!found.is_empty(), "{target}");
            shown.extend(found);
        }
    }
    assert!(shown.is_subset(&known()), "{:?}", shown.difference(&known()));
    assert!(shown.len() > known().len() / 2, "a dashboard of little: {shown:?}");
}

/// The words of one language: key and text.
fn words(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(": \"") {
        let key = before
            .rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_')
            .next()
            .unwrap();
        let (text, tail) = after.split_once('"').unwrap();
        assert!(found.insert(key.to_owned(), text.to_owned()).is_none(), "{key} twice");
        rest = tail;
    }
    found
}

#[test]
fn both_languages_say_everything() {
    let text = read("gateway/daemon/src/page/assets/words.js");
    let (english, chinese) = text.split_once("\n  zh: {").unwrap();
    let (english, chinese) = (words(english), words(chinese));
    assert!(english.len() > 200, "{}", english.len());
    assert_eq!(english.keys().collect::<Vec<_>>(), chinese.keys().collect::<Vec<_>>());
    for (key, text) in &english {
        let parts = |text: &str| {
            (0..9)
                .filter(|i| text.contains(&format!("{{{i}}}")))
                .collect::<Vec<_>>()
        };
        assert_eq!(parts(text), parts(&chinese[key]), "{key}");
    }
    // Every word that the page asks for by name is there.
    let pieces = [
        read("gateway/daemon/src/page/assets/page.js"),
        read("gateway/daemon/src/page/assets/page.html"),
    ];
    for (piece, open) in [(&pieces[0], " t(\""), (&pieces[0], "(t(\""), (&pieces[1], "data-t=\"")] {
        for key in piece.split(open).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(english.contains_key(key), "nobody has said what {key} is");
        }
    }
    // A signal of the core that has no words reads as "not well": only the good ones may.
    for signal in gateway_core::health::Signal::ALL {
        let is_bad = !matches!(signal.weight(), gateway_core::health::Weight::Good { .. });
        assert!(!is_bad || english.contains_key(&format!("s_{signal:?}")), "{signal:?}");
    }
}
