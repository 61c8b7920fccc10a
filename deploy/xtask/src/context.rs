//! Where things are, and how a program is started: every child process of a step is made and run here.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, Result, bail};

use crate::programs::Programs;

/// The microcontroller target the firmware is built for.
pub(crate) const THUMB_TARGET: &str = "thumbv7em-none-eabihf";

/// Debian keeps daemons such as mosquitto where an ordinary user's PATH does not look.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Variables that `cargo run` sets about this package. Handed on to a nested cargo they would make build scripts that watch them run again.
const CARGO_RUN_PREFIXES: [&str; 4] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];

/// The run's surroundings: the repository and whether the network may be used.
pub(crate) struct Context {
    /// The repository's top folder.
    pub(crate) root: PathBuf,
    /// No step may use the network.
    pub(crate) offline: bool,
    /// Where the programs of a step that runs beside others write to; `None`: to where we do.
    log: Option<File>,
    /// Programs leave the cores to whatever runs beside them.
    nice: bool,
    /// The host's tests, built once.
    pub(crate) programs: Arc<Programs>,
}

impl Context {
    pub(crate) fn new(offline: bool) -> Self {
        // What cargo says now goes before what it said at build time: checkouts may share a target folder.
        let package =
            env::var_os("CARGO_MANIFEST_DIR").map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = package
            .ancestors()
            .nth(2)
            .expect("this package lies two folders below the top")
            .to_path_buf();
        Self {
            root,
            offline,
            log: None,
            nice: false,
            programs: Arc::default(),
        }
    }

    /// The same, with the programs' output in a file.
    pub(crate) fn logging_to(&self, log: File) -> Self {
        Self {
            root: self.root.clone(),
            offline: self.offline,
            log: Some(log),
            nice: self.nice,
            programs: self.programs.clone(),
        }
    }

    /// The same, with programs that leave the cores to whatever runs beside them.
    pub(crate) fn nice(&self) -> Self {
        Self {
            root: self.root.clone(),
            offline: self.offline,
            log: None,
            nice: true,
            programs: self.programs.clone(),
        }
    }

    /// The second workspace.
    pub(crate) fn firmware(&self) -> PathBuf {
        self.root.join("firmware")
    }

    /// The virtual environment with the pinned Python packages.
    pub(crate) fn python_env(&self) -> PathBuf {
        self.root.join("target/python")
    }

    /// Its interpreter; tests find it in `HOLDFAST_PYTHON`.
    pub(crate) fn python(&self) -> PathBuf {
        self.python_env().join("bin/python")
    }

    /// `cargo` in the host workspace.
    pub(crate) fn cargo(&self) -> Command {
        self.program("cargo")
    }

    /// `cargo` in the firmware workspace.
    pub(crate) fn cargo_firmware(&self) -> Command {
        let mut command = self.program("cargo");
        command.current_dir(self.firmware());
        command
    }

    /// Any program, started at the top of the repository with the environment the tests expect.
    pub(crate) fn program(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = if self.nice {
            let mut nice = Command::new("nice");
            nice.arg(program);
            nice
        } else {
            Command::new(program)
        };
        command
            .current_dir(&self.root)
            .env("PATH", search_path())
            .env("HOLDFAST_PYTHON", self.python());
        for (name, _) in env::vars_os() {
            if CARGO_RUN_PREFIXES
                .iter()
                .any(|prefix| name.to_string_lossy().starts_with(prefix))
            {
                command.env_remove(&name);
            }
        }
        if self.offline {
            command.env("CARGO_NET_OFFLINE", "true");
        }
        if let Some(log) = &self.log {
            let handle = || log.try_clone().map_or_else(|_| Stdio::inherit(), Stdio::from);
            command.stdin(Stdio::null()).stdout(handle()).stderr(handle());
        }
        command
    }
}

/// PATH, with the folders of system daemons behind it.
fn search_path() -> OsString {
    let mut dirs: Vec<PathBuf> = env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    for dir in SYSTEM_DIRS.map(PathBuf::from) {
        if !dirs.contains(&dir) {
            dirs.push(dir);
        }
    }
    env::join_paths(dirs).expect("parts of PATH hold no separator")
}

/// Where a program would be started from, if it is installed.
pub(crate) fn find_program(name: &str) -> Option<PathBuf> {
    env::split_paths(&search_path())
        .map(|dir| dir.join(name))
        .find(|path| path.is_file())
}

/// Prints. A reader that is gone, as behind `| head`, ends the run quietly: nobody is left to tell.
pub(crate) fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(text.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(1);
    }
}

/// Prints the command, runs it with our output, and fails with its name if it does.
pub(crate) fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    run_as(command, &shown)
}

/// As [`run`], under a description that says more to a reader than the command itself.
pub(crate) fn run_as(command: &mut Command, shown: &str) -> Result<()> {
    say(&format!("$ {shown}\n"));
    let status = command
        .status()
        .with_context(|| format!("`{shown}` could not be started"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status})");
    }
    Ok(())
}

/// Runs quietly and returns what it printed, or nothing if it failed or is not installed.
pub(crate) fn output_of(command: &mut Command) -> Option<String> {
    // Whatever was set before: what goes into a step's log is not returned.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    let output = command.output().ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The command as a person would type it, without the folder it runs in being lost.
fn show(command: &Command) -> String {
    let mut words = Vec::new();
    if command.get_current_dir().is_some_and(|dir| dir.ends_with("firmware")) {
        words.push("cd firmware &&".to_owned());
    }
    words.push(command.get_program().to_string_lossy().into_owned());
    words.extend(command.get_args().map(|arg| arg.to_string_lossy().into_owned()));
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_command_is_named_with_its_folder() {
        let context = Context::new(false);
        let error = run(context.cargo_firmware().arg("no-such-subcommand"))
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`cd firmware && cargo no-such-subcommand` failed"),
            "{error}"
        );
    }

    #[test]
    fn a_missing_program_is_an_error_and_not_output() {
        let context = Context::new(false);
        let error = run(&mut context.program("no-such-program")).unwrap_err().to_string();
        assert!(error.contains("`no-such-program` could not be started"), "{error}");
        assert_eq!(output_of(&mut context.program("no-such-program")), None);
        assert_eq!(find_program("no-such-program"), None);
    }

    #[test]
    fn what_is_asked_of_a_program_is_answered_beside_other_steps_too() {
        let path = env::temp_dir().join(format!("holdfast-xtask-{}", std::process::id()));
        let context = Context::new(true).logging_to(File::create(&path).unwrap());
        let answer = output_of(context.program("cargo").arg("--version"));
        std::fs::remove_file(path).unwrap();
        assert!(answer.is_some_and(|text| text.starts_with("cargo ")));
    }

    #[test]
    fn offline_reaches_the_nested_cargo() {
        let is_set = |context: Context| {
            context
                .cargo()
                .get_envs()
                .any(|(name, value)| name == "CARGO_NET_OFFLINE" && value.is_some())
        };
        assert!(is_set(Context::new(true)));
        assert!(!is_set(Context::new(false)));
    }
}
