//! A shadow: what is desired and what is reported, with a version that grows with every change.

use serde_json::{Map, Value, json};

use super::{Outcome, object};

/// Largest document, in bytes.
const BYTES_MAX: usize = 8 * 1024;
/// Deepest nesting of a state.
const DEPTH_MAX: usize = 8;

/// One shadow of a thing.
#[derive(Debug, Default)]
pub(super) struct Shadow {
    desired: Value,
    reported: Value,
    version: u64,
}

impl Shadow {
    fn exists(&self) -> bool {
        !(self.desired.is_null() && self.reported.is_null())
    }

    fn state(&self) -> Value {
        let mut state = Map::new();
        for (key, value) in [("desired", &self.desired), ("reported", &self.reported)] {
            if !value.is_null() {
                state.insert(key.to_owned(), value.clone());
            }
        }
        Value::Object(state)
    }

    pub(super) fn get(&self) -> Outcome {
        if !self.exists() {
            return Err((json!(404), "No shadow exists with name"));
        }
        let mut state = self.state();
        if let Some(difference) = difference(&self.desired, &self.reported) {
            state["delta"] = difference;
        }
        Ok(object(json!({ "state": state, "version": self.version })))
    }

    pub(super) fn delete(&mut self) -> Outcome {
        if !self.exists() {
            return Err((json!(404), "No shadow exists with name"));
        }
        (self.desired, self.reported) = (Value::Null, Value::Null);
        Ok(object(json!({ "version": self.version })))
    }

    /// Changes what the document names; with a version only if it is the present one.
    pub(super) fn update(&mut self, document: &Value, bytes: usize) -> Outcome {
        if bytes > BYTES_MAX {
            return Err((json!(413), "The payload exceeds the maximum size allowed"));
        }
        let Some(state) = document["state"].as_object() else {
            return Err((json!(400), "Missing required node: state"));
        };
        if depth(&document["state"]) > DEPTH_MAX {
            return Err((json!(400), "JSON contains too many levels of nesting; maximum is 8"));
        }
        match document.get("version").map(Value::as_u64) {
            None => {}
            Some(Some(version)) if version == self.version => {}
            Some(Some(_)) => return Err((json!(409), "Version conflict")),
            Some(None) => return Err((json!(400), "Invalid version")),
        }
        for (key, change) in state {
            match key.as_str() {
                "desired" => merge(&mut self.desired, change),
                "reported" => merge(&mut self.reported, change),
                _ => return Err((json!(400), "State contains an invalid node")),
            }
        }
        self.version += 1;
        Ok(object(json!({ "state": state, "version": self.version })))
    }

    /// What is desired and not reported.
    pub(super) fn delta(&self) -> Option<Value> {
        let state = difference(&self.desired, &self.reported)?;
        Some(json!({ "state": state, "version": self.version }))
    }

    /// Whether these artifacts are desired already.
    pub(super) fn desires(&self, artifacts: &Value) -> bool {
        let artifacts = artifacts.as_object();
        let mut pairs = artifacts.into_iter().flatten();
        pairs.all(|(kind, revision)| &self.desired["artifacts"][kind] == revision)
    }
}

/// Carries a change out: what is null is removed.
fn merge(into: &mut Value, change: &Value) {
    let Value::Object(changes) = change else {
        *into = change.clone();
        return;
    };
    if !into.is_object() {
        *into = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            into.as_object_mut().and_then(|map| map.remove(key));
        } else {
            merge(&mut into[key], change);
        }
    }
}

/// What is in `desired` and otherwise in `reported`.
fn difference(desired: &Value, reported: &Value) -> Option<Value> {
    match (desired, reported) {
        (Value::Null, _) => None,
        (Value::Object(desired), Value::Object(reported)) => {
            let nothing = Value::Null;
            let pairs = desired.iter().filter_map(|(key, value)| {
                let other = reported.get(key).unwrap_or(&nothing);
                Some((key.clone(), difference(value, other)?))
            });
            let found: Map<String, Value> = pairs.collect();
            (!found.is_empty()).then_some(Value::Object(found))
        }
        (desired, reported) => (desired != reported).then(|| desired.clone()),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_versions() {
        let mut shadow = Shadow::default();
        assert_eq!(shadow.get().unwrap_err().0, 404);
        let code = |outcome: Outcome| outcome.err().map_or(json!(0), |(code, _)| code);
        for (document, bytes, expected) in [
            (json!({ "state": { "desired": { "a": 1, "b": { "c": 2 } } } }), 0, 0),
            (json!({ "state": { "desired": { "a": 3 } }, "version": 2 }), 0, 409),
            (json!({ "state": { "reported": { "a": 1 } }, "version": 1 }), 0, 0),
            (json!({}), 0, 400),
            (json!({ "state": { "other": 1 } }), 0, 400),
            (json!({ "state": { "desired": {} } }), 8 * 1024 + 1, 413),
            (
                json!({ "state": { "desired": { "a": { "b": { "c": { "d": { "e": { "f": { "g": {} } } } } } } } } }),
                0,
                400,
            ),
        ] {
            assert_eq!(code(shadow.update(&document, bytes)), expected, "{document}");
        }
        assert_eq!(
            shadow.delta(),
            Some(json!({ "state": { "b": { "c": 2 } }, "version": 2 }))
        );
        shadow
            .update(&json!({ "state": { "desired": { "b": null } } }), 0)
            .unwrap();
        assert_eq!(shadow.delta(), None);
        assert_eq!(
            shadow.get().unwrap()["state"],
            json!({ "desired": { "a": 1 }, "reported": { "a": 1 } })
        );
        assert_eq!(shadow.delete().unwrap()["version"], 3);
        assert_eq!(shadow.get().unwrap_err().0, 404);
    }
}
