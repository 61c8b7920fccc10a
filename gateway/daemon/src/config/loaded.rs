//! A configuration as it was read, and how another one differs from it: what the running gateway can take over, and what
//! needs a restart. Files are compared key by key, as they are written; so a key that is written with its default is a
//! change of that key.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

use super::{Config, ConfigError, Words, load_words, read_text, secrets_path};

/// Keys of the configuration that are taken over while the gateway runs, with everything below them.
const LIVE: [&str; 7] = [
    "device",
    "limits",
    "health",
    "ring",
    "page",
    "trust.issuer_keys",
    "site.currency",
];
/// As well, of the secrets file.
const LIVE_SECRETS: [&str; 5] = ["devices", "codes", "monitor_password", "page_token", "metrics_token"];

/// A configuration, and what its files say.
#[derive(Clone)]
pub struct Loaded {
    /// Checked.
    pub config: Config,
    path: PathBuf,
    secrets: Option<PathBuf>,
    /// As text: parsed, ten thousand devices take twenty times as much, for a comparison that may never be asked for.
    file: Box<str>,
    secret: Box<str>,
}

impl fmt::Debug for Loaded {
    /// Secrets are never logged.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Loaded {
    /// Reads and checks `path` and the secrets file, which is found as [`super::load`] finds it.
    ///
    /// # Errors
    /// [`ConfigError`], the first that is found.
    pub fn read(path: &Path, secrets: Option<&Path>) -> Result<Self, ConfigError> {
        let secrets_file = secrets_path(path, secrets)?;
        let text = read_text(&secrets_file)?;
        Self::made(path, secrets, (secrets_file, text))
    }

    /// Reads and checks the same files again. `secrets`: what the secrets file says, from somebody who could read it.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn again(&self, secrets: Option<String>) -> Result<Self, ConfigError> {
        match secrets {
            None => Self::read(&self.path, self.secrets.as_deref()),
            Some(text) => {
                let given = self.secrets.clone();
                let shown = given.unwrap_or_else(|| self.path.with_file_name(super::SECRETS));
                Self::made(&self.path, self.secrets.as_deref(), (shown, text))
            }
        }
    }

    fn made(path: &Path, secrets: Option<&Path>, words: (PathBuf, String)) -> Result<Self, ConfigError> {
        let (secrets_path, secrets_text) = words;
        let text = read_text(path)?;
        let config = load_words(&Words {
            path,
            text: &text,
            secrets_path: &secrets_path,
            secrets_text: &secrets_text,
        })?;
        Ok(Self {
            config,
            path: path.to_owned(),
            secrets: secrets.map(Path::to_owned),
            file: text.into(),
            secret: secrets_text.into(),
        })
    }

    /// Where the configuration is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How another one differs. No value is in it, for some of them are secrets.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let mut changes = Changes::default();
        changes.sort_in(differing(&self.file, &new.file), &LIVE, "");
        changes.sort_in(differing(&self.secret, &new.secret), &LIVE_SECRETS, "secrets: ");
        changes
    }
}

/// Which keys differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// They can be taken over while the gateway runs.
    pub live: Vec<String>,
    /// They cannot.
    pub restart: Vec<String>,
}

impl Changes {
    fn sort_in(&mut self, keys: Vec<String>, live: &[&str], prefix: &str) {
        for key in keys {
            let below = |of: &&str| {
                key.strip_prefix(*of)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            };
            let list = match live.iter().any(below) {
                true => &mut self.live,
                false => &mut self.restart,
            };
            list.push(format!("{prefix}{key}"));
        }
    }
}

/// The keys in which two files differ. Whatever was parsed into sections is a table.
fn differing(old: &str, new: &str) -> Vec<String> {
    let mut keys = Vec::new();
    if old != new {
        let table = |text: &str| text.parse::<Table>().unwrap_or_default();
        compare("", &table(old), &table(new), &mut keys);
    }
    keys
}

/// The keys in which two tables differ.
fn compare(prefix: &str, old: &Table, new: &Table, keys: &mut Vec<String>) {
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let key = if prefix.is_empty() {
            name.clone()
        } else {
            format!("{prefix}.{name}")
        };
        match (old.get(name), new.get(name)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(&key, old, new, keys),
            (Some(Value::Array(old)), Some(Value::Array(new))) => compare_rows(&key, old, new, keys),
            (Some(Value::Array(rows)), None) | (None, Some(Value::Array(rows))) if has_tables(rows) => {
                compare_rows(&key, rows, &[], keys);
            }
            (old, new) if old == new => {}
            _ => keys.push(key),
        }
    }
}

fn has_tables(rows: &[Value]) -> bool {
    rows.iter().any(Value::is_table)
}

/// Rows of a list; devices are known by their names, others by their places.
fn compare_rows(key: &str, old: &[Value], new: &[Value], keys: &mut Vec<String>) {
    if old == new {
        return;
    }
    if !has_tables(old) && !has_tables(new) {
        return keys.push(key.to_owned());
    }
    let name = |at: usize, row: &Value| {
        let id = row.get("id").and_then(Value::as_str);
        id.map_or_else(|| at.to_string(), ToOwned::to_owned)
    };
    let named = |rows: &[Value]| -> std::collections::BTreeMap<String, Value> {
        let rows = rows.iter().enumerate();
        rows.map(|(at, row)| (name(at, row), row.clone())).collect()
    };
    let (old, new) = (named(old), named(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    for name in names {
        let key = format!("{key}[{name}]");
        match (old.get(name), new.get(name)) {
            (Some(Value::Table(old)), Some(Value::Table(new))) => compare(&key, old, new, keys),
            (old, new) if old == new => {}
            _ => keys.push(key),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(old: &str, new: &str, live: &[&str], restart: &[&str]) {
        let mut changes = Changes::default();
        changes.sort_in(differing(old, new), &LIVE, "");
        assert_eq!((changes.live, changes.restart), (owned(live), owned(restart)), "{new}");
    }

    fn owned(keys: &[&str]) -> Vec<String> {
        keys.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_key_is_named_on_the_side_where_it_belongs() {
        let old = "[site]\nname = \"a\"\n[limits.washer]\nmoney_max = 600\n[trust]\nissuer_keys = [\"k\"]\n\
                   [[device]]\nid = \"c1\"\n[[device]]\nid = \"c2\"\n[[cloud]]\nname = \"main\"\nbroker = \"x:1\"\n";
        check(old, old, &[], &[]);
        let changed = |from: &str, to: &str| old.replace(from, to);
        check(old, &changed("600", "500"), &["limits.washer.money_max"], &[]);
        check(old, &changed("\"a\"", "\"b\""), &[], &["site.name"]);
        check(old, &changed("x:1", "x:2"), &[], &["cloud[0].broker"]);
        check(old, &changed("\"k\"", "\"l\""), &["trust.issuer_keys"], &[]);
        check(old, &changed("\"c2\"", "\"c3\""), &["device[c2]", "device[c3]"], &[]);
        check(
            old,
            &changed("\"c2\"", "\"c2\"\nblocked = true"),
            &["device[c2].blocked"],
            &[],
        );
        check(
            old,
            &format!("{old}[store]\ndir = \"d\"\n[ring]\n"),
            &["ring"],
            &["store"],
        );
        // Only whole words.
        check("", "[limitsx]\na = 1", &[], &["limitsx"]);
    }
}
