//! The gateway that is measured: a real `holdfast run`, with a hub or without.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use serde_json::Value;

use crate::{
    process::Process,
    site::{self, Plan, Site, Standing, Ways, binary, converse},
};

/// Users, all of them good and never asked about: a token begins at most 128 sessions an hour, and the rounds of a whole run
/// came to more than 6,000 of them may begin.
pub const USERS: usize = 10_000;
/// What one device may do must not be the limit of a measurement.
const DEVICE_LINES: &str = "packets_a_second_max = 1000000\nkib_a_second_max = 1000000\nconnects_a_minute_max = 100000\n\
                            connections_per_address_max = 12000\npending_per_address_max = 2048\n";
/// Nor what one user may.
const LIMITS: &str = "[limits]\nattempts_a_minute_max = 1000000\nstarts_an_hour_max = 1000000\nsite_budget = 1000000000000\n\
                      [limits.charger]\noutage_count_max = 100000000\noutage_money_max = 1000000000000\n\
                      [limits.washer]\noutage_count_max = 100000000\noutage_money_max = 1000000000000\n\
                      [limits.dispenser]\noutage_count_max = 100000000\noutage_money_max = 1000000000000\n";

/// A plan in which only the machine is the limit.
#[must_use]
pub fn plan(seed: u64, devices: usize, users: usize) -> Plan {
    let mut plan = Plan::new(seed, devices, users);
    for user in &mut plan.users {
        (user.standing, user.whitelist) = (Standing::Good, "always");
    }
    plan.limits = LIMITS.to_owned();
    plan.device_lines = DEVICE_LINES.to_owned();
    plan
}

/// A gateway, and its hub while it runs.
#[derive(Debug)]
pub struct Post {
    /// Its plan.
    pub plan: Plan,
    /// Its files.
    pub dir: PathBuf,
    /// Its process.
    pub process: Process,
    /// Where devices connect.
    pub address: SocketAddr,
    hub: Option<Process>,
}

/// Writes the files of a gateway into `dir/gateway`.
///
/// # Errors
/// If a file cannot be written.
pub fn write(plan: &Plan, dir: &Path, ways: &Ways) -> anyhow::Result<()> {
    let gateway = dir.join("gateway");
    fs::create_dir_all(&gateway)?;
    site::write_gateway(plan, ways, "listen = \"127.0.0.1:0\"", &gateway)
}

/// Starts the gateway of `dir/gateway`, under another program if `under` names one.
///
/// # Errors
/// If it does not come up.
pub fn start(dir: &Path, under: &[&str]) -> anyhow::Result<(Process, SocketAddr)> {
    let (process, address) = start_listening(dir, under)?;
    process.wait_for("ready")?;
    Ok((process, address))
}

/// As well, but waits only until devices may connect.
///
/// # Errors
/// If it does not come up.
pub fn start_listening(dir: &Path, under: &[&str]) -> anyhow::Result<(Process, SocketAddr)> {
    let holdfast = binary("holdfast")?;
    let mut command = match under {
        [] => Command::new(holdfast),
        [program, args @ ..] => {
            let mut command = Command::new(program);
            command.args(args).arg(holdfast);
            command
        }
    };
    command
        .arg("--config")
        .arg(dir.join("gateway/holdfast.toml"))
        .args(["run", "--log", "json"])
        .env("MIMALLOC_PURGE_DELAY", "0"); // As its unit sets it.
    let process = Process::start("the gateway", command, &dir.join("gateway.log"))?;
    let address = process.address()?;
    Ok((process, address))
}

impl Post {
    /// With a hub, which has given it list and prices.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start(plan: Plan, dir: &Path) -> anyhow::Result<Self> {
        let (hub, hub_address) = Site::start_hub(&plan, dir)?;
        Self::start_beside(plan, dir, hub, &Ways::hub(hub_address))
    }

    /// As well, beside a hub that runs, which is reached on these ways.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start_beside(plan: Plan, dir: &Path, hub: Process, ways: &Ways) -> anyhow::Result<Self> {
        write(&plan, dir, ways)?;
        let (process, address) = start(dir, &[])?;
        process.wait_for("list adopted")?;
        let post = Self {
            plan,
            dir: dir.to_owned(),
            process,
            address,
            hub: Some(hub),
        };
        // Prices come beside the list, in no order.
        post.until("has prices and a list", |status| {
            status["list_revision"] != 0 && status["tariffs_revision"] != 0
        })?;
        Ok(post)
    }

    /// The hub is gone from now on.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn cut(&mut self) -> anyhow::Result<()> {
        if let Some(mut hub) = self.hub.take() {
            hub.kill()?;
        }
        self.until("without its hub", |status| status["link"] == false)
    }

    /// Starts it again, on what is there, under another program.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn restart(&mut self, under: &[&str]) -> anyhow::Result<()> {
        self.process.stop()?;
        (self.process, self.address) = start(&self.dir, under)?;
        Ok(())
    }

    /// Asks its control socket.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn status(&self) -> anyhow::Result<Value> {
        ask(&self.dir, "status")
    }

    /// Waits until its status is so.
    ///
    /// # Errors
    /// If it is not within a minute.
    pub fn until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
        let since = std::time::Instant::now();
        loop {
            let status = self.status()?;
            if is_so(&status) {
                return Ok(());
            }
            anyhow::ensure!(
                since.elapsed() < Duration::from_secs(60),
                "the gateway is not {what}: {status}; its log ends:\n{}",
                self.process.log_tail()
            );
            std::thread::sleep(Duration::from_millis(20)); // A poll of another process, with its limit above.
        }
    }
}

/// Asks the control socket of the gateway of `dir/gateway`.
///
/// # Errors
/// If nobody answers.
pub fn ask(dir: &Path, what: &str) -> anyhow::Result<Value> {
    let question = serde_json::json!({ "get": what }).to_string();
    let lines = converse(&dir.join("gateway/data/control.sock"), &question)?;
    Ok(serde_json::from_str(lines.first().context("no answer")?)?)
}
