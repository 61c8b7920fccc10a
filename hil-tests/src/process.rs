//! A program of the site as a process, with its log.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// How long a process may take to come up, in s: replay of a long journal on a loaded machine.
const READY_S_MAX: u64 = 60;
/// Lines of a process's log that are kept for error messages.
const LOG_LINES_KEPT: usize = 30;

/// A folder of programs to take in place of those that were built here: those of a package.
const PROGRAMS: &str = "HOLDFAST_PROGRAMS";

/// Where the project's binaries are: in the folder that `HOLDFAST_PROGRAMS` names, if they are there; beside this one, or one
/// folder up for tests.
///
/// # Errors
/// If `name` is in neither; the message says how to build it.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let here = std::env::current_exe()?;
    let named = std::env::var_os(PROGRAMS).map(PathBuf::from);
    let folders = here.ancestors().skip(1).take(2);
    for folder in named.iter().map(PathBuf::as_path).chain(folders) {
        let path = folder.join(name);
        if path.is_file() {
            return Ok(path);
        }
    }
    bail!(
        "{name} is not beside {}; build it first: cargo build --release --workspace --bins",
        here.display()
    )
}

/// A process with its log.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: Arc<(Mutex<Log>, Condvar)>,
}

#[derive(Debug, Default)]
struct Log {
    address: Option<SocketAddr>,
    last: VecDeque<String>,
    ended: bool,
}

impl Process {
    /// Starts a program that logs JSON lines to its standard error, and keeps a copy at `log_file`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(name: &'static str, mut command: Command, log_file: &Path) -> anyhow::Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {name}: {command:?}"))?;
        let stderr = child.stderr.take().expect("it was asked for");
        let log = Arc::new((Mutex::new(Log::default()), Condvar::new()));
        let written = log.clone();
        let mut copy = fs::OpenOptions::new().create(true).append(true).open(log_file)?;
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                // The copy is for people; a full disk does not stop the bench.
                let _ = writeln!(copy, "{line}");
                let (log, changed) = &*written;
                let mut log = log.lock().expect("nothing panics under this lock");
                if log.address.is_none() {
                    log.address = address_in(&line);
                }
                log.last.push_back(line);
                if log.last.len() > LOG_LINES_KEPT {
                    log.last.pop_front();
                }
                changed.notify_all();
            }
            let (log, changed) = &*written;
            log.lock().expect("nothing panics under this lock").ended = true;
            changed.notify_all();
        });
        Ok(Self { name, child, log })
    }

    /// Its number at the system.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The address on which it said that it listens.
    ///
    /// # Errors
    /// If it ends first, or does not say so in time; with the last lines of its log.
    pub fn address(&self) -> anyhow::Result<SocketAddr> {
        let (log, changed) = &*self.log;
        let guard = log.lock().expect("nothing panics under this lock");
        let (log, _) = changed
            .wait_timeout_while(guard, Duration::from_secs(READY_S_MAX), |log| {
                log.address.is_none() && !log.ended
            })
            .expect("nothing panics under this lock");
        log.address
            .with_context(|| format!("{} did not come up; its log ends:\n{}", self.name, tail(&log)))
    }

    /// Waits for a line of the log that contains `text`.
    ///
    /// # Errors
    /// If it ends first, or does not come in time.
    pub fn wait_for(&self, text: &str) -> anyhow::Result<()> {
        let (log, changed) = &*self.log;
        let guard = log.lock().expect("nothing panics under this lock");
        let seen = |log: &Log| log.last.iter().any(|line| line.contains(text));
        let (log, _) = changed
            .wait_timeout_while(guard, Duration::from_secs(READY_S_MAX), |log| !seen(log) && !log.ended)
            .expect("nothing panics under this lock");
        ensure!(
            seen(&log),
            "{} did not say \"{text}\"; its log ends:\n{}",
            self.name,
            tail(&log)
        );
        Ok(())
    }

    /// SIGKILL, as a power switch would.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// SIGTERM, and the exit code.
    ///
    /// # Errors
    /// If it does not end, or was killed.
    pub fn stop(&mut self) -> anyhow::Result<i32> {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = self.child.wait()?;
        status
            .code()
            .with_context(|| format!("{} was killed: {status}", self.name))
    }

    /// Waits for its end; its exit code, none if it was killed.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn wait(&mut self) -> anyhow::Result<Option<i32>> {
        Ok(self.child.wait()?.code())
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// The fields of the newest of its last lines whose message is this.
    #[must_use]
    pub fn fields(&self, message: &str) -> Option<Value> {
        let log = self.log.0.lock().expect("nothing panics under this lock");
        let lines = log
            .last
            .iter()
            .rev()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let mut fields = lines.filter_map(|mut line| line.get_mut("fields").map(Value::take));
        fields.find(|fields| fields["message"] == message)
    }

    /// The last lines of its log.
    #[must_use]
    pub fn log_tail(&self) -> String {
        tail(&self.log.0.lock().expect("nothing panics under this lock"))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(log: &Log) -> String {
    log.last.iter().cloned().collect::<Vec<_>>().join("\n")
}

fn address_in(line: &str) -> Option<SocketAddr> {
    let value: Value = serde_json::from_str(line).ok()?;
    value.pointer("/fields/address")?.as_str()?.parse().ok()
}
