//! `footprint`: resident memory, idle and busy, with few and with many devices connected, beside mosquitto with as many
//! connections; and the size of the program.

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::ensure;

use super::{
    Size,
    load::{Target, Whom},
    peer::{Answers, Peer},
    post::{self, USERS},
    proc::Memory,
    stat::thousands,
    stock::{self, Stock},
    table::{Table, verdict},
};
use crate::site::{Ways, binary};

struct Scale {
    tokens: u32,
    connected: &'static [usize],
    load: Duration,
}

/// Devices of a common site.
const COMMON: usize = 100;

/// Runs it; prints its tables.
///
/// # Errors
/// If anything does not come up.
pub fn run(size: Size, dir: &Path) -> anyhow::Result<()> {
    let scale = match size {
        Size::Quick => Scale {
            tokens: 5_000,
            connected: &[200],
            load: Duration::from_millis(200),
        },
        Size::Full => Scale {
            tokens: 100_000,
            connected: &[2_000, 10_000],
            load: Duration::from_secs(10),
        },
    };
    let mut table = Table::new(&["", "Holdfast, MiB", "mosquitto, MiB"]);
    let mut judged = Table::new(&["wanted", "found", ""]);
    common(&scale, dir, &mut table, &mut judged)?;
    for devices in scale.connected {
        many(&scale, *devices, dir, &mut table, &mut judged)?;
    }
    println!(
        "Resident memory, and in brackets the proportional part of it (PSS). The gateway has {} tokens in its list and no \
         cloud; devices are connected and subscribed. mosquitto has as many connections and a responder, and keeps \
         nothing.\n\n{}\n{}",
        thousands(scale.tokens.into()),
        table.text(),
        judged.text()
    );
    size_of_program(dir)
}

fn common(scale: &Scale, dir: &Path, table: &mut Table, judged: &mut Table) -> anyhow::Result<()> {
    let site = Site::start(&dir.join("common"), COMMON, scale.tokens)?;
    let (ours, theirs) = site.targets();
    let mut row = |name: &str| -> anyhow::Result<Memory> {
        let (us, them) = site.memory()?;
        table.row(&[name.to_owned(), us.text(), them.text()]);
        Ok(us)
    };
    row("nobody connected")?;
    let crowds = (ours.crowd(COMMON)?, theirs.crowd(COMMON)?);
    row(&format!("{COMMON} devices idle"))?;
    drop(crowds);
    ours.closed(COMMON, scale.load)?;
    theirs.closed(COMMON, scale.load)?;
    let name = format!(
        "after {} s of {COMMON} devices without a pause",
        scale.load.as_secs_f64()
    );
    let busy = row(&name)?;
    judged.row(&[
        format!("{COMMON} devices and {} tokens", thousands(scale.tokens.into())),
        format!("{:.1} MiB", busy.mib()),
        verdict(busy.mib() <= 16.0, "within 16 MiB, aim 10"),
    ]);
    site.stop()
}

fn many(scale: &Scale, devices: usize, dir: &Path, table: &mut Table, judged: &mut Table) -> anyhow::Result<()> {
    let site = Site::start(&dir.join(format!("many-{devices}")), devices, scale.tokens)?;
    let (ours, theirs) = site.targets();
    // One after the other: both at once would be more files than a process may have open by default.
    let crowd = ours.crowd(devices)?;
    let connected = site.connected()?;
    ensure!(connected == devices as u64, "{connected} of {devices} are connected");
    let us = site.memory()?.0;
    drop(crowd);
    let crowd = theirs.crowd(devices)?;
    let them = site.memory()?.1;
    drop(crowd);
    let count = thousands(devices as u64);
    table.row(&[format!("{count} devices idle"), us.text(), them.text()]);
    if devices >= 10_000 {
        judged.row(&[
            format!("{count} idle devices"),
            format!("{:.1} MiB", us.mib()),
            verdict(us.mib() <= 128.0, "within 128 MiB"),
        ]);
    }
    site.stop()
}

/// A gateway without a cloud and its peer.
struct Site {
    dir: std::path::PathBuf,
    plan: crate::site::Plan,
    gateway: crate::process::Process,
    address: std::net::SocketAddr,
    peer: Peer,
}

impl Site {
    fn start(dir: &Path, devices: usize, tokens: u32) -> anyhow::Result<Self> {
        fs::create_dir_all(dir)?;
        let plan = post::plan(17, devices, USERS.min(tokens as usize));
        let no_cloud = Ways {
            link: String::new(),
            ..Ways::default()
        };
        post::write(&plan, dir, &no_cloud)?;
        stock::fill(dir, &plan, Stock { tokens, sessions: 0 })?;
        let (gateway, address) = post::start(dir, &[])?;
        let target = Target::new(Whom::Gateway, address, &plan);
        let answers = if devices == COMMON {
            target.answers()?
        } else {
            Answers::new()
        };
        drop(target);
        Ok(Self {
            peer: Peer::start(dir, answers)?,
            dir: dir.to_owned(),
            plan,
            gateway,
            address,
        })
    }

    fn targets(&self) -> (Target, Target) {
        let ours = Target::new(Whom::Gateway, self.address, &self.plan).booted(100);
        (ours, Target::new(Whom::Peer, self.peer.address, &self.plan))
    }

    fn memory(&self) -> anyhow::Result<(Memory, Memory)> {
        Ok((Memory::of(self.gateway.pid())?, Memory::of(self.peer.broker.pid())?))
    }

    fn connected(&self) -> anyhow::Result<u64> {
        let status = post::ask(&self.dir, "status")?;
        Ok(status["endpoint"]["connections"].as_u64().unwrap_or_default())
    }

    fn stop(mut self) -> anyhow::Result<()> {
        self.peer.stop()?;
        let code = self.gateway.stop()?;
        ensure!(code == 0, "the gateway ended with code {code}");
        Ok(())
    }
}

fn size_of_program(dir: &Path) -> anyhow::Result<()> {
    let program = binary("holdfast")?;
    let stripped = dir.join("holdfast");
    let mib = |bytes: u64| format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20));
    let whole = fs::metadata(&program)?.len();
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status();
    let size = match strip {
        Ok(status) if status.success() => mib(fs::metadata(&stripped)?.len()),
        _ => "not known: no strip here".to_owned(),
    };
    println!(
        "The program `holdfast`, with gateway, tools and page, as built here: {} with symbols, stripped {size}.\n",
        mib(whole)
    );
    Ok(())
}
