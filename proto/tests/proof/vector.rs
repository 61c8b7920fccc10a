//! A vector file: `key: value` lines, `#` comments, bytes in hexadecimal. The same keys may repeat.

use std::{fmt::Write as _, fs, path::PathBuf};

/// One frozen vector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Vector {
    /// Stem of the file.
    pub(crate) name: String,
    comment: String,
    lines: Vec<(String, String)>,
}

impl Vector {
    /// A vector of some sort (`message`, `envelope`, `bill` ...).
    pub(crate) fn new(name: &str, what: &str, comment: &str) -> Self {
        Self {
            name: name.into(),
            comment: comment.into(),
            lines: vec![("what".into(), what.into())],
        }
    }

    pub(crate) fn with(mut self, key: &str, value: impl ToString) -> Self {
        self.lines.push((key.into(), value.to_string()));
        self
    }

    pub(crate) fn with_bytes(self, key: &str, bytes: &[u8]) -> Self {
        self.with(key, hex(bytes))
    }

    /// The value of a key.
    pub(crate) fn get(&self, key: &str) -> &str {
        let line = self.lines.iter().find(|(k, _)| k == key);
        &line.unwrap_or_else(|| panic!("vector {} has no {key}", self.name)).1
    }

    /// The bytes of a key.
    pub(crate) fn bytes(&self, key: &str) -> Vec<u8> {
        unhex(self.get(key))
    }

    /// The bytes of a secret or key of 32 bytes.
    pub(crate) fn bytes32(&self, key: &str) -> [u8; 32] {
        self.bytes(key).try_into().expect("32 bytes")
    }

    /// The text of the file.
    pub(crate) fn text(&self) -> String {
        let mut text = format!("# {}\n", self.comment);
        for (key, value) in &self.lines {
            writeln!(text, "{key}: {value}").expect("writing to memory");
        }
        text
    }

    fn parse(name: &str, text: &str) -> Self {
        let (comments, lines): (Vec<&str>, Vec<&str>) = text.lines().partition(|line| line.starts_with('#'));
        let line = |line: &str| {
            let (key, value) = line.split_once(": ").unwrap_or_else(|| panic!("{name}: {line:?}"));
            (key.to_string(), value.to_string())
        };
        Self {
            name: name.into(),
            comment: comments.join("\n").trim_start_matches("# ").into(),
            lines: lines.into_iter().map(line).collect(),
        }
    }
}

/// The folder of the frozen vectors.
pub(crate) fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors/v1")
}

/// Every frozen vector, by name.
pub(crate) fn frozen() -> Vec<Vector> {
    let mut vectors: Vec<Vector> = fs::read_dir(folder())
        .expect("the folder of the vectors")
        .map(|entry| {
            let path = entry.expect("an entry").path();
            assert_eq!(path.extension().and_then(|e| e.to_str()), Some("hex"), "{path:?}");
            let name = path.file_stem().and_then(|stem| stem.to_str()).expect("a name");
            Vector::parse(name, &fs::read_to_string(&path).expect("a readable vector"))
        })
        .collect();
    vectors.sort_by(|a, b| a.name.cmp(&b.name));
    vectors
}

/// One frozen vector.
pub(crate) fn read(name: &str) -> Vector {
    let path = folder().join(format!("{name}.hex"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Vector::parse(name, &text)
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2), "odd hexadecimal text {text:?}");
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).expect("hexadecimal"))
        .collect()
}
