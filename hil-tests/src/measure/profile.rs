//! `profile`: where a durable grant's time goes in the gateway: processor time and switches of each of its threads, system
//! calls, and, if `perf` is installed, the functions that cost most.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context;

use super::{
    Size,
    load::{Load, Target, Whom},
    post::{self, USERS},
    stat::{Samples, micros, thousands},
    stock::{self, Stock},
    table::Table,
};
use crate::site::Ways;

/// Devices that ask without a pause.
const DEVICES: usize = 100;
/// Functions shown.
const SHOWN: usize = 40;
/// Samples a second: each carries 8 KiB of stack, to be unwound afterwards.
const FREQUENCY: &str = "499";
const STACK: &str = "dwarf,8192";
/// What is shown of the functions with what they call: the others are the frames of a runtime.
const OURS: [&str; 6] = [
    "gateway",
    "mqtt_endpoint",
    "proto::",
    "journal::",
    "sled::",
    "] do_syscall",
];

/// Processor time and switches of one thread, or of several of one name.
#[derive(Clone, Copy, Debug, Default)]
struct Thread {
    /// In clock ticks, 100 a second.
    user: u64,
    system: u64,
    /// Times that it waited for something, and that it was made to wait.
    waited: u64,
    preempted: u64,
}

/// Runs it; prints its tables. What perf wrote stays in `kept`.
///
/// # Errors
/// If the gateway does not come up.
pub fn run(size: Size, dir: &Path, kept: &Path) -> anyhow::Result<()> {
    let (time, tokens) = match size {
        Size::Quick => (Duration::from_millis(300), 5_000),
        Size::Full => (Duration::from_secs(10), 100_000),
    };
    let plan = post::plan(29, DEVICES, USERS.min(tokens as usize));
    let no_cloud = Ways {
        link: String::new(),
        ..Ways::default()
    };
    post::write(&plan, dir, &no_cloud)?;
    stock::fill(dir, &plan, Stock { tokens, sessions: 0 })?;
    let (process, address) = post::start(dir, &[])?;
    let target = Target::new(Whom::Gateway, address, &plan);
    let pid = process.pid();
    target.closed(DEVICES, time / 10)?;
    threads(pid, "one device, one after the other", || target.closed(1, time))?;
    threads(pid, "100 devices without a pause", || target.closed(DEVICES, time))?;
    for devices in [1, DEVICES] {
        calls(pid, dir, devices, || target.closed(devices, time / 5))?;
    }
    for devices in [1, DEVICES] {
        functions(pid, kept, devices, time / 2, || target.closed(devices, time / 2))?;
    }
    drop(process);
    Ok(())
}

fn threads(pid: u32, name: &str, load: impl FnOnce() -> anyhow::Result<Load>) -> anyhow::Result<()> {
    let before = look(pid)?;
    let load = load()?;
    let after = look(pid)?;
    let answers = (load.sessions * 2) as f64;
    let (rate, waits) = (load.rate() * 2.0, Samples::new(load.waits));
    println!(
        "{name}: {} answers a second, grant p50 {:.0} us, p99 {:.0} us\n",
        thousands(rate as u64),
        micros(waits.at(500)),
        micros(waits.at(990))
    );
    let mut table = Table::new(&[
        "thread",
        "user, us an answer",
        "system, us an answer",
        "waits an answer",
        "preempted an answer",
    ]);
    for (name, after) in after {
        let before = before.get(&name).copied().unwrap_or_default();
        let micros = |ticks: u64| format!("{:.1}", ticks as f64 * 10_000.0 / answers);
        let times = |count: u64| format!("{:.2}", count as f64 / answers);
        table.row(&[
            name,
            micros(after.user - before.user),
            micros(after.system - before.system),
            times(after.waited - before.waited),
            times(after.preempted - before.preempted),
        ]);
    }
    println!("{}", table.text());
    Ok(())
}

fn look(pid: u32) -> anyhow::Result<BTreeMap<String, Thread>> {
    let mut threads = BTreeMap::<String, Thread>::new();
    for entry in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = entry?.path();
        let name = fs::read_to_string(path.join("comm"))?.trim().to_owned();
        let stat = fs::read_to_string(path.join("stat"))?;
        // Fields 14 and 15 of proc(5), counted from behind the name in brackets.
        let behind = stat.rsplit_once(')').context("a name in brackets")?.1;
        let fields: Vec<u64> = behind
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|text| text.parse().ok())
            .collect();
        let status = fs::read_to_string(path.join("status"))?;
        let count = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            line.and_then(|line| line.trim().parse().ok()).unwrap_or_default()
        };
        let thread = threads.entry(name).or_default();
        thread.user += fields.first().copied().unwrap_or_default();
        thread.system += fields.get(1).copied().unwrap_or_default();
        thread.waited += count("voluntary_ctxt_switches:");
        thread.preempted += count("nonvoluntary_ctxt_switches:");
    }
    Ok(threads)
}

/// Which system calls, how many an answer; strace slows everything, so nothing is timed here.
fn calls(pid: u32, dir: &Path, devices: usize, load: impl FnOnce() -> anyhow::Result<Load>) -> anyhow::Result<()> {
    let log = dir.join("calls.txt");
    let mut strace = Command::new("strace")
        .args([
            "-f",
            "-c",
            "-U",
            "calls,name",
            "-S",
            "calls",
            "-p",
            &pid.to_string(),
            "-o",
        ])
        .arg(&log)
        .stderr(Stdio::piped())
        .spawn()
        .context("strace is not installed; type: apt-get install strace")?;
    let load = load()?;
    let tracer = rustix::process::Pid::from_child(&strace);
    rustix::process::kill_process(tracer, rustix::process::Signal::INT)?;
    strace.wait()?;
    let answers = (load.sessions * 2) as f64;
    let mut table = Table::new(&["system call", "an answer"]);
    for line in fs::read_to_string(&log)?.lines() {
        let mut words = line.split_whitespace();
        let count = words.next().and_then(|word| word.parse::<f64>().ok());
        if let (Some(count), Some(name)) = (count, words.next())
            && count / answers >= 0.01
            && name != "total"
        {
            table.row(&[name.to_owned(), format!("{:.2}", count / answers)]);
        }
    }
    println!(
        "{devices} device(s) without a pause, system calls under strace:\n\n{}",
        table.text()
    );
    Ok(())
}

/// The functions that cost most, by `perf`; its data stays in `dir` for flame graphs.
fn functions(
    pid: u32,
    dir: &Path,
    devices: usize,
    time: Duration,
    load: impl FnOnce() -> anyhow::Result<Load>,
) -> anyhow::Result<()> {
    let data = dir.join(format!("perf-{devices}.data"));
    let seconds = time.as_secs_f64().to_string();
    let perf = Command::new("perf")
        .args([
            "record",
            "-q",
            "-e",
            "cpu-clock",
            "-F",
            FREQUENCY,
            "--call-graph",
            STACK,
        ])
        .args(["-p", &pid.to_string(), "-o"])
        .arg(&data)
        .args(["--", "sleep", &seconds])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let Ok(mut perf) = perf else {
        println!("perf is not installed (apt-get install linux-perf): no functions.\n");
        return Ok(());
    };
    load()?;
    perf.wait()?;
    for (how, heading) in [("--no-children", "itself"), ("--children", "with what it calls")] {
        let report = Command::new("perf")
            .args([
                "report",
                "--stdio",
                "-q",
                how,
                "-g",
                "none",
                "--no-inline",
                "--sort",
                "comm,symbol",
                "-i",
            ])
            .arg(&data)
            .output()?;
        let mut table = Table::new(&["share", "thread, function"]);
        let text = String::from_utf8_lossy(&report.stdout).into_owned();
        let is_ours = |line: &&str| how == "--no-children" || OURS.iter().any(|ours| line.contains(ours));
        for line in text
            .lines()
            .filter(|line| line.contains('%'))
            .filter(is_ours)
            .take(SHOWN)
        {
            // With what it calls, a second column is the function itself; behind the name are columns without a value.
            let words = line.split_whitespace().filter(|word| *word != "-");
            let (shares, names): (Vec<&str>, Vec<&str>) = words.partition(|word| word.ends_with('%'));
            table.row(&[
                shares.first().copied().unwrap_or_default(),
                &format!("`{}`", names.join(" ")),
            ]);
        }
        println!(
            "{devices} device(s) without a pause, samples of perf, each function {heading}:\n\n{}",
            table.text()
        );
    }
    Ok(())
}
