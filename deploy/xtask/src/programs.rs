//! The host's test programs: built once for all steps, with one set of features, and started without cargo, so that no step waits
//! while another builds.

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use crate::context::{Context, run_as, say};

/// Every host package with everything it can do: one set of features is one set of builds.
pub(crate) const HOST: [&str; 4] = ["--locked", "--workspace", "--features", "hil-tests/probe"];

/// Tests that `cargo test` does not run by itself: long ones, and those that need images.
pub(crate) const LONG_TESTS: [&str; 12] = [
    "sim", "leases", "kill", "qemu", "update", "clouds", "brokers", "hostile", "page", "service", "measure", "faults",
];

/// A program of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Program {
    /// The file name of its source without the ending, or the package's own for unit tests.
    pub(crate) name: String,
    path: PathBuf,
    /// Its package's folder; cargo would start it there.
    folder: PathBuf,
    /// Its source, below the folder.
    source: String,
}

impl Program {
    /// The program with what cargo would tell it.
    pub(crate) fn command(&self, context: &Context) -> Command {
        let mut command = context.program(&self.path);
        command
            .current_dir(&self.folder)
            .env("CARGO_MANIFEST_DIR", &self.folder)
            .env("CARGO", env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command
    }

    /// Its package's folder and its source, as a reader knows them.
    pub(crate) fn label(&self, context: &Context) -> String {
        let folder = self.folder.strip_prefix(&context.root).unwrap_or(&self.folder);
        format!("{} {}", folder.display(), self.source)
    }
}

/// What was built, once somebody asked for it.
#[derive(Debug, Default)]
pub(crate) struct Programs(Mutex<Option<Vec<Program>>>);

impl Programs {
    /// All of them; whoever asks first builds them, the others wait.
    ///
    /// # Errors
    /// If they cannot be built.
    pub(crate) fn all(&self, context: &Context) -> Result<Vec<Program>> {
        let mut built = self.0.lock().expect("whoever held it ended with its error");
        if let Some(programs) = &*built {
            return Ok(programs.clone());
        }
        let mut programs = build(context, &[])?;
        let long = LONG_TESTS.iter().flat_map(|test| ["--test", test]).collect::<Vec<_>>();
        programs.extend(build(context, &long)?);
        Ok(built.insert(programs).clone())
    }

    /// Runs the programs of tests with this name, one after the other.
    ///
    /// # Errors
    /// If there is none, or one fails.
    pub(crate) fn run(&self, context: &Context, name: &str, with: impl Fn(&mut Command)) -> Result<()> {
        let mut programs = self.all(context)?;
        programs.retain(|program| program.name == name);
        ensure!(!programs.is_empty(), "no test is called {name}");
        run_all(context, &programs, with)
    }
}

/// Runs them one after the other; all of them, even if one fails.
///
/// # Errors
/// The names of those that failed.
pub(crate) fn run_all(context: &Context, programs: &[Program], with: impl Fn(&mut Command)) -> Result<()> {
    let mut failed = Vec::new();
    for program in programs {
        let mut command = program.command(context);
        with(&mut command);
        let label = program.label(context);
        if let Err(error) = run_as(&mut command, &label) {
            say(&format!("{error:#}\n"));
            failed.push(label);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    Ok(())
}

/// Builds the one program of tests with this name, and runs it.
///
/// # Errors
/// If it cannot be built, or fails.
pub(crate) fn run_one(context: &Context, name: &str, with: impl Fn(&mut Command)) -> Result<()> {
    run_all(context, &build(context, &["--test", name])?, with)
}

/// `cargo test --no-run` and what it says it made.
fn build(context: &Context, which: &[&str]) -> Result<Vec<Program>> {
    let mut command = context.cargo();
    command
        .args(["test", "--no-run", "--message-format=json-render-diagnostics"])
        .args(HOST)
        .args(which)
        .stdout(Stdio::piped());
    say(&format!(
        "$ cargo test --no-run {} {}\n",
        HOST.join(" "),
        which.join(" ")
    ));
    let output = command
        .spawn()
        .and_then(std::process::Child::wait_with_output)
        .context("cargo could not be started")?;
    ensure!(output.status.success(), "the tests do not build ({})", output.status);
    parse(&String::from_utf8_lossy(&output.stdout))
}

/// The test programs among cargo's messages, one a line.
fn parse(messages: &str) -> Result<Vec<Program>> {
    let mut programs = Vec::new();
    for line in messages.lines() {
        let message: Value = serde_json::from_str(line).with_context(|| format!("cargo said {line:?}"))?;
        let is_test = message["reason"] == "compiler-artifact" && message["profile"]["test"] == true;
        let Some(path) = message["executable"].as_str().filter(|_| is_test) else {
            continue;
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let folder = Path::new(message["manifest_path"].as_str().unwrap_or_default())
            .parent()
            .context("a manifest lies in a folder")?
            .to_path_buf();
        let source = text(&message["target"]["src_path"]);
        programs.push(Program {
            name: text(&message["target"]["name"]),
            path: path.into(),
            source: Path::new(&source)
                .strip_prefix(&folder)
                .map_or(source.clone(), |below| below.display().to_string()),
            folder,
        });
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cargo_made() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/h/gateway/hub/Cargo.toml","target":{"name":"leases","kind":["test"],"src_path":"/h/gateway/hub/tests/leases.rs"},"profile":{"test":true},"executable":"/h/target/debug/deps/leases-1"}
{"reason":"compiler-artifact","manifest_path":"/h/gateway/hub/Cargo.toml","target":{"name":"holdfast-hub"},"profile":{"test":false},"executable":"/h/target/debug/holdfast-hub"}
{"reason":"compiler-artifact","manifest_path":"/h/proto/Cargo.toml","target":{"name":"proto"},"profile":{"test":true},"executable":null}
{"reason":"build-finished","success":true}"#;
        let programs = parse(messages).unwrap();
        assert_eq!(programs.len(), 1);
        assert_eq!(programs[0].name, "leases");
        assert_eq!(programs[0].source, "tests/leases.rs");
        assert_eq!(programs[0].folder, Path::new("/h/gateway/hub"));
        assert!(parse("error").unwrap_err().to_string().contains("\"error\""));
    }
}
