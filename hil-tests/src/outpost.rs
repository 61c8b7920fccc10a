//! Gateways without devices, in number: each a real `holdfast run` on a real journal that was filled beforehand with the
//! sessions of an outage. For what concerns the way to the cloud alone: backlogs, faults on the wire, many at once.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use gateway::store::Store;
use gateway_core::{Input, Now, Presented, Said};
use proto::{
    id::{IdToken, Name, SessionId, TokenHash, TokenKind},
    message::{ClockQuality, Stamp, StartProof, Started, Stop, StopReason},
    money::{Money, Units},
    trust::Issuer,
};
use serde_json::Value;

use crate::{
    books::{self, Books},
    process::Process,
    site::{self, Plan, Standing, Ways, binary, converse, hex, key, write_secret},
};

/// Units of each session: half a litre.
const UNITS: u64 = 500;
/// Virtual time of each session, in ms: 33,334 of them end before the list is too old to vouch for anybody.
const SESSION_MS: u64 = 5_000;
/// Events that share a sync while a journal is filled.
const STAGED_MAX: u32 = 200;
/// How long a process may take to do what it is started for.
const PATIENCE: Duration = Duration::from_secs(60);

/// Hub and gateways of one campus.
#[derive(Debug)]
pub struct Outposts {
    /// Keys, users, prices.
    pub plan: Plan,
    /// Its files.
    pub dir: PathBuf,
    /// The hub.
    pub hub: Process,
    /// Where the hub serves gateways itself.
    pub hub_address: SocketAddr,
    /// The gateways that run.
    pub gateways: Vec<Outpost>,
}

/// One gateway.
#[derive(Debug)]
pub struct Outpost {
    /// Its name.
    pub name: String,
    /// Its files.
    pub dir: PathBuf,
    /// Its process.
    pub process: Option<Process>,
}

/// The dispensers of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dispenser {
    /// At which people were in the outage.
    Outage,
    /// For people who come in person, ...
    First,
    /// ... and for those who come later.
    Second,
}

impl Dispenser {
    const ALL: [Self; 3] = [Self::Outage, Self::First, Self::Second];

    const fn word(self) -> &'static str {
        match self {
            Self::Outage => "tap",
            Self::First => "well",
            Self::Second => "spout",
        }
    }
}

impl Outposts {
    /// Writes the hub's files and starts it for `count` gateways. `brokers`: `[[brokers]]` tables of its configuration.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start_hub(plan: Plan, dir: &Path, count: usize, brokers: &str) -> anyhow::Result<Self> {
        let hub_dir = dir.join("hub");
        fs::create_dir_all(&hub_dir)?;
        let names: Vec<String> = (1..=count).map(|number| format!("gw-{number}")).collect();
        let mut secrets = format!(
            "issuer_seed = \"{}\"\ntoken_key = \"{}\"\n\n[gateways]\n",
            hex(&key(plan.seed, "issuer")),
            hex(&key(plan.seed, "token key")),
        );
        let mut config = "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\nsecrets_file = \"secrets.toml\"\n\
             seed_file = \"seed.toml\"\n\n[log]\nformat = \"json\"\nfilter = \"info\"\n\n"
            .to_owned();
        for name in &names {
            let _ = writeln!(secrets, "{name} = \"{}\"", hex(&link_key(&plan, name)));
            let _ = writeln!(config, "[[gateways]]\nid = \"{name}\"\nsite = \"campus\"\n");
        }
        config += brokers;
        write_secret(&hub_dir.join("secrets.toml"), &secrets)?;
        write_secret(&hub_dir.join("seed.toml"), &plan.hub_seed())?;
        fs::write(hub_dir.join("hub.toml"), config)?;
        let hub = start_hub(dir)?;
        let hub_address = hub.address()?;
        let gateways = names.into_iter().map(|name| Outpost {
            dir: dir.join(&name),
            name,
            process: None,
        });
        Ok(Self {
            gateways: gateways.collect(),
            dir: dir.to_owned(),
            hub,
            hub_address,
            plan,
        })
    }

    /// Kills the hub and starts it again on the same files.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn kill_hub(&mut self) -> anyhow::Result<()> {
        self.hub.kill()?;
        self.hub = start_hub(&self.dir)?;
        self.hub_address = self.hub.address()?;
        Ok(())
    }

    /// Gives every gateway the list and prices of the hub, and a journal with `sessions` sessions of an outage.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn fill(&self, sessions: u32) -> anyhow::Result<()> {
        let ways = Ways::hub(self.hub_address);
        let first = self.gateways.first().context("there is a gateway")?;
        first.write(&self.plan, &ways)?;
        let mut process = first.run()?;
        process.wait_for("tariffs adopted")?;
        process.wait_for("list adopted")?;
        process.stop()?;
        for other in &self.gateways[1..] {
            other.write(&self.plan, &ways)?;
            copy_dir(&first.dir.join("data"), &other.dir.join("data"))?;
        }
        for gateway in &self.gateways {
            gateway
                .fill(&self.plan, sessions)
                .with_context(|| format!("the journal of {}", gateway.name))?;
        }
        Ok(())
    }

    /// What all gateways have written down and what the hub has booked, compared.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub fn books(&self) -> anyhow::Result<Books> {
        let mut lines = Vec::new();
        for gateway in &self.gateways {
            lines.extend(books::of_gateway(&gateway.dir.join("holdfast.toml"))?);
        }
        books::compare(&lines, &site::ask_hub(&self.dir, "ledger")?)
    }

    /// Waits until no gateway has a record without a receipt; how long it took.
    ///
    /// # Errors
    /// If it does not happen within `limit`.
    pub fn settle(&self, limit: Duration) -> anyhow::Result<Duration> {
        let since = Instant::now();
        for gateway in &self.gateways {
            loop {
                let status = gateway.ask("status")?;
                if status["waiting"] == 0 {
                    break;
                }
                ensure!(
                    since.elapsed() < limit,
                    "{} is not settled after {} s: {status}; its log ends:\n{}",
                    gateway.name,
                    limit.as_secs(),
                    gateway.process.as_ref().map(Process::log_tail).unwrap_or_default(),
                );
                std::thread::sleep(Duration::from_millis(50)); // A poll of another process, with its limit above.
            }
        }
        Ok(since.elapsed())
    }

    /// Stops every gateway, then the hub.
    ///
    /// # Errors
    /// If one was killed, or does not end well.
    pub fn stop(mut self) -> anyhow::Result<()> {
        for gateway in &mut self.gateways {
            if let Some(mut process) = gateway.process.take() {
                let code = process.stop()?;
                ensure!(code == 0, "{} ended with code {code}", gateway.name);
            }
        }
        let code = self.hub.stop()?;
        ensure!(code == 0, "the hub ended with code {code}");
        Ok(())
    }
}

fn start_hub(dir: &Path) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("holdfast-hub")?);
    command.arg("run").arg("--config").arg(dir.join("hub/hub.toml"));
    Process::start("the hub", command, &dir.join("hub.log"))
}

/// What a gateway shares with the hub.
#[must_use]
pub fn link_key(plan: &Plan, name: &str) -> [u8; 32] {
    key(plan.seed, &format!("link {name}"))
}

impl Outpost {
    /// One of its dispensers.
    ///
    /// # Errors
    /// If the gateway's name is too long for a device's.
    pub fn dispenser(&self, which: Dispenser) -> anyhow::Result<Name> {
        Ok(Name::new(&format!("{}-{}", which.word(), self.name))?)
    }

    /// Writes its configuration.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, plan: &Plan, ways: &Ways) -> anyhow::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let (mut devices, mut secrets) = (String::new(), String::new());
        for which in Dispenser::ALL {
            let device = self.dispenser(which)?;
            let _ = writeln!(devices, "[[device]]\nid = \"{device}\"\nkind = \"dispenser\"\n");
            let _ = writeln!(secrets, "{device} = \"{}\"", hex(&key(plan.seed, device.as_str())));
        }
        let issuer = Issuer::from_seed(&key(plan.seed, "issuer"));
        fs::write(
            self.dir.join("holdfast.toml"),
            format!(
                "[site]\nname = \"campus\"\ngateway = \"{}\"\nutc_offset_min = 480\n\n[store]\ndir = \"data\"\n\n\
                 [devices]\nlisten = \"127.0.0.1:0\"\n\n[link]\n{}\n{}\n[trust]\nissuer_keys = [\"{}\"]\n\n\
                 {devices}",
                self.name,
                ways.link,
                ways.clouds,
                hex(issuer.key().as_bytes()),
            ),
        )?;
        write_secret(
            &self.dir.join("secrets.toml"),
            &format!(
                "token_key = \"{}\"\nlink = \"{}\"\n\n{}\n[devices]\n{secrets}",
                hex(&key(plan.seed, "token key")),
                hex(&link_key(plan, &self.name)),
                ways.secrets,
            ),
        )
    }

    fn run(&self) -> anyhow::Result<Process> {
        let mut command = Command::new(binary("holdfast")?);
        command
            .arg("--config")
            .arg(self.dir.join("holdfast.toml"))
            .args(["run", "--log", "json"]);
        Process::start("a gateway", command, &self.dir.join("gateway.log"))
    }

    /// Starts it on what is in its directory.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let process = self.run()?;
        process.wait_for("ready")?;
        self.process = Some(process);
        Ok(())
    }

    /// Asks its control socket.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn ask(&self, what: &str) -> anyhow::Result<Value> {
        let question = serde_json::json!({ "get": what }).to_string();
        let lines = converse(&self.dir.join("data/control.sock"), &question)?;
        Ok(serde_json::from_str(lines.first().context("no answer")?)?)
    }

    /// Waits until its status is so.
    ///
    /// # Errors
    /// If it is not within a minute.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        let since = Instant::now();
        loop {
            let status = self.ask("status")?;
            if is_so(&status) {
                return Ok(status);
            }
            ensure!(
                since.elapsed() < PATIENCE,
                "{}: not {what} after {} s: {status}; its log ends:\n{}",
                self.name,
                PATIENCE.as_secs(),
                self.process.as_ref().map(Process::log_tail).unwrap_or_default(),
            );
            std::thread::sleep(Duration::from_millis(20)); // A poll of another process, with its limit above.
        }
    }

    /// Fills its journal: people whom the list vouches for draw half a litre each, one after the other.
    fn fill(&self, plan: &Plan, sessions: u32) -> anyhow::Result<()> {
        let config = gateway::config::load(&self.dir.join("holdfast.toml"), None)?;
        let token_key = config.token_key.clone();
        let mut core = config.core;
        let kind = &mut core.limits.dispenser;
        (kind.outage_count_max, kind.outage_count_lower) = (u32::MAX, u32::MAX);
        kind.outage_money_max = Money(i64::MAX / 2);
        core.limits.site_budget = Money(i64::MAX / 2);
        core.limits.starts_an_hour_max = u32::MAX;
        core.limits.device_change_ms = 0;
        let (mut store, mut gateway) = Store::open(&config.dir, core, u64::MAX)?;
        let (boot, epoch) = (gateway.timeline().boot + 1, gateway.timeline().epoch);
        let mut now = Now {
            mono_ms: 0,
            wall_s: wall_s(),
            quality: ClockQuality::Synchronised,
        };
        let people: Vec<TokenHash> = plan
            .users
            .iter()
            .filter(|user| user.standing == Standing::Good && user.whitelist == "always")
            .map(|user| Ok(IdToken::new(TokenKind::Card, &user.token)?.hash(&token_key)))
            .collect::<anyhow::Result<_>>()?;
        // The others may come in person afterwards.
        let people = &people[..people.len().div_ceil(2)];
        ensure!(!people.is_empty(), "the plan has nobody who is always served");
        let device = self.dispenser(Dispenser::Outage)?;
        let mut counter = 0;
        let mut staged = 0;
        let mut put = |store: &mut Store, now: &Now, input: &Input| {
            for event in gateway.decide(now, input).events {
                store.stage(&mut gateway, now, event);
            }
        };
        put(&mut store, &now, &Input::Boot { boot, epoch });
        for number in 1..=sessions {
            let session = SessionId::mint(&device, 1, number);
            let start = Units(u64::from(number) * UNITS);
            for said in draw(session, people[number as usize % people.len()], start, now.mono_ms) {
                counter += 1;
                if matches!(said, Said::Stop(_)) {
                    now.mono_ms += SESSION_MS;
                }
                put(&mut store, &now, &Input::Device { device, counter, said });
            }
            staged += 1;
            if staged == STAGED_MAX {
                store.commit()?;
                staged = 0;
            }
        }
        store.commit()?;
        ensure!(
            gateway.outbox().head() == u64::from(sessions) * 3,
            "{} sessions made {} records",
            sessions,
            gateway.outbox().head()
        );
        store.close(&gateway)?;
        Ok(())
    }
}

/// Half a litre in five seconds.
fn draw(session: SessionId, token: TokenHash, start: Units, mono_ms: u64) -> [Said; 3] {
    let at = Stamp::relative(mono_ms);
    [
        Said::Authorize {
            session,
            outlet: 0,
            token,
            units_wished: Units::ZERO,
            register: start,
            presented: Presented::Token,
        },
        Said::Started(Started {
            session,
            outlet: 0,
            register_start: start,
            proof: StartProof::Flow,
            at,
        }),
        Said::Stop(Stop {
            session,
            outlet: 0,
            reason: StopReason::User,
            started: true,
            register_start: start,
            register_end: Units(start.0 + UNITS),
            elapsed_s: (SESSION_MS / 1_000) as u32,
            idle_s: 0,
            shown: Money(15),
            at,
        }),
    ]
}

fn wall_s() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn copy_dir(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            copy_dir(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
