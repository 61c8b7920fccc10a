//! A whole site as processes on loopback: hub, gateway, and a broker between gateway and devices if wanted. Everything
//! follows from a seed: names, keys, users, prices. Ports are free ones, files live in a temporary directory.

use std::{
    fmt::Write as _,
    fs,
    io::{BufRead, BufReader, Write as _},
    net::{SocketAddr, TcpListener},
    os::unix::{fs::OpenOptionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use proto::{
    id::{DeviceId, Kind, Name},
    seal::PairSecret,
    trust::Issuer,
};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{
    books::{self, Books},
    cloud_sim::{Member, Options, Way},
    process::Process,
};

pub use crate::process::binary;

/// A device of the plan.
#[derive(Clone, Debug)]
pub struct DevicePlan {
    /// Its name.
    pub id: DeviceId,
    /// What it dispenses.
    pub kind: Kind,
    /// Its secret.
    pub secret: PairSecret,
}

/// What a user may expect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// In the list, valid, not NEVER: must be served, whatever the cloud does.
    Good,
    /// In the list, but only the cloud may say yes.
    Never,
    /// In the list as not valid.
    Invalid,
    /// Revoked.
    Revoked,
    /// In no list.
    Unknown,
}

impl Standing {
    /// The word in files and tables.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Never => "never",
            Self::Invalid => "invalid",
            Self::Revoked => "revoked",
            Self::Unknown => "unknown",
        }
    }
}

/// A user of the plan.
#[derive(Clone, Debug)]
pub struct UserPlan {
    /// The raw card UID.
    pub token: [u8; 7],
    /// Whose account.
    pub account: u64,
    /// What the user may expect.
    pub standing: Standing,
    /// OCPI's word: always, allowed, allowed_offline, never.
    pub whitelist: &'static str,
}

/// Where devices meet the gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerKind {
    /// At the gateway itself.
    Embedded,
    /// At a mosquitto.
    Mosquitto,
}

/// Everything about a site that follows from its seed.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Devices.
    pub devices: Vec<DevicePlan>,
    /// Users.
    pub users: Vec<UserPlan>,
    /// Lines for the gateway's `[limits]`.
    pub limits: String,
    /// Time between two reports of the gateway to the hub, in s.
    pub telemetry_s: u64,
    /// Lines for the gateway's `[devices]`, beside the address.
    pub device_lines: String,
}

impl Plan {
    /// `devices` of the three kinds in turn, and `users` of whom one in ten is not good.
    #[must_use]
    pub fn new(seed: u64, devices: usize, users: usize) -> Self {
        let devices = (0..devices).map(|i| {
            let kind = Kind::SERVED[i % Kind::SERVED.len()];
            let id = Name::new(&format!("{}-{:03}", kind.word(), i / Kind::SERVED.len() + 1));
            DevicePlan {
                id: id.expect("a kind's word and three digits are a name"),
                kind,
                secret: PairSecret(key(seed, &format!("device {i}"))),
            }
        });
        let users = (0..users).map(|i| {
            let digest = key(seed, &format!("user {i}"));
            let mut token = [0x04; 7];
            token[1..].copy_from_slice(&digest[..6]);
            let (standing, whitelist) = match i % 40 {
                7 => (Standing::Never, "never"),
                17 => (Standing::Invalid, "allowed"),
                27 => (Standing::Revoked, "allowed"),
                37 => (Standing::Unknown, "allowed"),
                n if n % 3 == 0 => (Standing::Good, "always"),
                n if n % 3 == 1 => (Standing::Good, "allowed"),
                _ => (Standing::Good, "allowed_offline"),
            };
            UserPlan {
                token,
                account: 1000 + i as u64,
                standing,
                whitelist,
            }
        });
        Self {
            seed,
            devices: devices.collect(),
            users: users.collect(),
            limits: String::new(),
            telemetry_s: 60,
            device_lines: String::new(),
        }
    }

    /// The gateway, as cloud and operator know it.
    #[must_use]
    pub fn member(&self) -> Member {
        let name = |text| Name::new(text).expect("the site's names are names");
        Member {
            gateway: name(GATEWAY),
            site: name(SITE),
            password: PairSecret(key(self.seed, "link")).password().to_string(),
        }
    }

    /// A cloud for this site, in front of a hub, that speaks our own protocol.
    #[must_use]
    pub fn cloud(&self, hub: SocketAddr) -> Options {
        Options {
            seed: self.seed,
            ..Options::new(Way::Hcp, hub, vec![self.member()])
        }
    }

    /// The seed file of the hub.
    #[must_use]
    pub fn hub_seed(&self) -> String {
        let mut text = String::new();
        for user in &self.users {
            let _ = writeln!(text, "[[accounts]]\nid = {}\ndeposit = 20000\n", user.account);
            if user.standing == Standing::Unknown {
                continue;
            }
            let _ = writeln!(
                text,
                "[[tokens]]\nkind = \"card\"\nraw = \"{}\"\naccount = {}\nvalid = {}\nwhitelist = \"{}\"\n",
                hex(&user.token),
                user.account,
                user.standing != Standing::Invalid,
                user.whitelist
            );
            if user.standing == Standing::Revoked {
                let _ = writeln!(
                    text,
                    "[[revocations]]\nkind = \"card\"\nraw = \"{}\"\n",
                    hex(&user.token)
                );
            }
        }
        text.push_str(
            "[[tariffs]]\nkind = \"charger\"\nid = 1\n\
             elements = [{ dimension = \"energy\", price_milli = 120000 }, { dimension = \"idle\", price_milli = 1000 }]\n\n\
             [[tariffs]]\nkind = \"washer\"\nid = 2\nelements = [{ dimension = \"cycle\", price_milli = 400000 }]\n\n\
             [[tariffs]]\nkind = \"dispenser\"\nid = 3\nelements = [{ dimension = \"volume\", price_milli = 30000 }]\n",
        );
        text
    }
}

/// 32 bytes that follow from seed and label.
pub(crate) fn key(seed: u64, label: &str) -> [u8; 32] {
    Sha256::new()
        .chain_update(seed.to_be_bytes())
        .chain_update(label)
        .finalize()
        .into()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A port that was free a moment ago, for programs that cannot be told to choose one.
///
/// # Errors
/// If loopback has none.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

/// How a gateway reaches the hub, as it stands in its files.
#[derive(Clone, Debug)]
pub struct Ways {
    /// `[[cloud]]` tables.
    pub clouds: String,
    /// `[clouds.NAME]` tables of the secrets.
    pub secrets: String,
    /// Lines of `[link]`.
    pub link: String,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            clouds: String::new(),
            secrets: String::new(),
            link: "reconnect_s_max = 10\n".to_owned(),
        }
    }
}

impl Ways {
    /// The hub itself, or a cloud that speaks as it does.
    #[must_use]
    pub fn hub(address: SocketAddr) -> Self {
        Self {
            clouds: format!("[[cloud]]\nname = \"main\"\nkind = \"hcp\"\nbroker = \"{address}\"\nkeep_alive_s = 5\n"),
            ..Self::default()
        }
    }
}

/// A site that runs.
#[derive(Debug)]
pub struct Site {
    /// Its plan.
    pub plan: Plan,
    /// Its files.
    pub dir: PathBuf,
    /// Its hub.
    pub hub: Process,
    /// Its gateway.
    pub gateway: Process,
    broker: Option<Process>,
    /// Where devices connect.
    pub device_address: SocketAddr,
}

/// Name of the one gateway.
pub const GATEWAY: &str = "gw-1";
/// The name of the site.
pub const SITE: &str = "campus";

impl Site {
    /// Writes every file and starts the hub; returns its address. The gateway follows with [`Self::start`].
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start_hub(plan: &Plan, dir: &Path) -> anyhow::Result<(Process, SocketAddr)> {
        let hub_dir = dir.join("hub");
        fs::create_dir_all(&hub_dir)?;
        write_secret(
            &hub_dir.join("secrets.toml"),
            &format!(
                "issuer_seed = \"{}\"\ntoken_key = \"{}\"\n\n[gateways]\n{GATEWAY} = \"{}\"\n",
                hex(&key(plan.seed, "issuer")),
                hex(&key(plan.seed, "token key")),
                hex(&key(plan.seed, "link")),
            ),
        )?;
        write_secret(&hub_dir.join("seed.toml"), &plan.hub_seed())?;
        fs::write(
            hub_dir.join("hub.toml"),
            format!(
                "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\nsecrets_file = \"secrets.toml\"\n\
                 seed_file = \"seed.toml\"\n\n[log]\nformat = \"json\"\nfilter = \"info\"\n\n\
                 [[gateways]]\nid = \"{GATEWAY}\"\nsite = \"{SITE}\"\n"
            ),
        )?;
        let mut command = Command::new(binary("holdfast-hub")?);
        command.arg("run").arg("--config").arg(hub_dir.join("hub.toml"));
        let hub = Process::start("the hub", command, &dir.join("hub.log"))?;
        let address = hub.address()?;
        Ok((hub, address))
    }

    /// Starts broker and gateway beside a hub; the gateway's link goes to `cloud`.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start(plan: Plan, dir: &Path, hub: Process, cloud: SocketAddr, broker: BrokerKind) -> anyhow::Result<Self> {
        Self::start_through(plan, dir, hub, &Ways::hub(cloud), broker)
    }

    /// As well, with a link of these ways.
    ///
    /// # Errors
    /// If a file or a process fails.
    pub fn start_through(
        plan: Plan,
        dir: &Path,
        hub: Process,
        ways: &Ways,
        broker: BrokerKind,
    ) -> anyhow::Result<Self> {
        let gateway_dir = dir.join("gateway");
        fs::create_dir_all(&gateway_dir)?;
        let (broker, devices) = match broker {
            BrokerKind::Embedded => (None, format!("listen = \"127.0.0.1:{}\"", free_port()?)),
            BrokerKind::Mosquitto => {
                let (process, port) = mosquitto(dir)?;
                (Some(process), format!("broker = \"127.0.0.1:{port}\""))
            }
        };
        write_gateway(&plan, ways, &devices, &gateway_dir)?;
        let gateway = start_gateway(dir, &[])?;
        let text = devices
            .rsplit_once('"')
            .and_then(|(head, _)| head.rsplit_once('"'))
            .map_or("", |(_, text)| text);
        let device_address = text
            .parse()
            .context("the device address was written by this function")?;
        gateway.wait_for("ready")?;
        Ok(Self {
            plan,
            dir: dir.to_owned(),
            hub,
            gateway,
            broker,
            device_address,
        })
    }

    /// Kills the gateway and starts it again on the same files.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn kill_gateway(&mut self) -> anyhow::Result<()> {
        self.gateway.kill()?;
        self.boot_gateway(&[])
    }

    /// Starts the gateway, which has ended, on what is in its directory, with these arguments behind `run`.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn boot_gateway(&mut self, args: &[&str]) -> anyhow::Result<()> {
        self.gateway = start_gateway(&self.dir, args)?;
        self.gateway.wait_for("ready")
    }

    /// Asks the gateway's control socket.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn ask_gateway(&self, what: &str) -> anyhow::Result<Value> {
        self.question_gateway(&serde_json::json!({ "get": what }))
    }

    /// As well, with a question that has parts.
    ///
    /// # Errors
    /// If nobody answers.
    pub fn question_gateway(&self, question: &Value) -> anyhow::Result<Value> {
        let path = self.dir.join("gateway/data/control.sock");
        let lines = converse(&path, &question.to_string())?;
        let answer = serde_json::from_str(lines.first().context("no answer")?)?;
        Ok(answer)
    }

    /// Asks the hub's control socket; the lines of the answer without the last.
    ///
    /// # Errors
    /// If nobody answers, or with an error.
    pub fn ask_hub(&self, what: &str) -> anyhow::Result<Vec<Value>> {
        ask_hub(&self.dir, what)
    }

    /// Waits until every session is closed and every record has its receipt; returns how long it took.
    ///
    /// # Errors
    /// If it does not happen within `limit`; with the gateway's last word.
    pub fn settle(&mut self, limit: Duration) -> anyhow::Result<Duration> {
        let since = Instant::now();
        loop {
            let status = self.ask_gateway("status")?;
            let zero = |name: &str| status[name].as_u64() == Some(0);
            if zero("waiting") && zero("sessions_open") {
                return Ok(since.elapsed());
            }
            ensure!(
                since.elapsed() < limit,
                "not settled after {} s: {status}; open sessions: {}; the gateway's log ends:\n{}",
                limit.as_secs(),
                self.open_sessions()?,
                self.gateway.log_tail()
            );
            std::thread::sleep(Duration::from_millis(100)); // A poll of another process, with its limit above.
        }
    }

    /// Every line of the gateway's book.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn gateway_book(&self) -> anyhow::Result<Vec<Value>> {
        books::of_gateway(&self.dir.join("gateway/holdfast.toml"))
    }

    /// What gateway and hub have written down, compared.
    ///
    /// # Errors
    /// If one of them does not answer.
    pub fn books(&self) -> anyhow::Result<Books> {
        let gateway = self.gateway_book()?;
        books::compare(&gateway, &self.ask_hub("ledger")?)
    }

    fn open_sessions(&self) -> anyhow::Result<Value> {
        let sessions = self.ask_gateway("sessions")?;
        let open = sessions
            .as_array()
            .into_iter()
            .flatten()
            .filter(|s| s["state"] != "closed" && s["state"] != "refused");
        Ok(open.cloned().collect())
    }

    /// Stops everything in order; exit codes of gateway and hub.
    ///
    /// # Errors
    /// If one was killed or does not end.
    pub fn stop(mut self) -> anyhow::Result<(i32, i32)> {
        let codes = (self.gateway.stop()?, self.hub.stop()?);
        drop(self.broker.take());
        Ok(codes)
    }
}

/// Asks the control socket of the hub under `dir`; the lines of the answer without the last.
pub(crate) fn ask_hub(dir: &Path, what: &str) -> anyhow::Result<Vec<Value>> {
    let path = dir.join("hub/data/control.sock");
    let mut rows = Vec::new();
    for line in converse(&path, &format!("{{\"request\":\"{what}\"}}"))? {
        let row: Value = serde_json::from_str(&line)?;
        if row.get("end").is_some() {
            return Ok(rows);
        }
        if let Some(error) = row.get("error") {
            bail!("the hub answers: {error}");
        }
        rows.push(row);
    }
    bail!("the hub's answer to \"{what}\" ends early")
}

fn start_gateway(dir: &Path, args: &[&str]) -> anyhow::Result<Process> {
    let mut command = Command::new(binary("holdfast")?);
    command
        .arg("--config")
        .arg(dir.join("gateway/holdfast.toml"))
        .args(["run", "--log", "json"])
        .args(args);
    Process::start("the gateway", command, &dir.join("gateway.log"))
}

/// The seed of the key that signs firmware for a site.
#[must_use]
pub fn firmware_seed(seed: u64) -> [u8; 32] {
    key(seed, "firmware")
}

/// Writes the files of a gateway; `devices`: how it meets them.
pub(crate) fn write_gateway(plan: &Plan, ways: &Ways, devices: &str, dir: &Path) -> anyhow::Result<()> {
    fs::write(dir.join("holdfast.toml"), gateway_config(plan, ways, devices))?;
    write_secret(&dir.join("secrets.toml"), &gateway_secrets(plan, ways))
}

fn gateway_config(plan: &Plan, ways: &Ways, devices: &str) -> String {
    let issuer = Issuer::from_seed(&key(plan.seed, "issuer"));
    let mut text = format!(
        "[site]\nname = \"{SITE}\"\ngateway = \"{GATEWAY}\"\nutc_offset_min = 480\n\n[store]\ndir = \"data\"\n\n\
         [devices]\n{devices}\n{}\n[link]\n{}telemetry_s = {}\n\n{}\n[trust]\nissuer_keys = [\"{}\"]\nfirmware_keys = [\"{}\"]\n\n{}\n",
        plan.device_lines,
        ways.link,
        plan.telemetry_s,
        ways.clouds,
        hex(issuer.key().as_bytes()),
        hex(Issuer::from_seed(&firmware_seed(plan.seed)).key().as_bytes()),
        plan.limits,
    );
    for device in &plan.devices {
        let _ = writeln!(
            text,
            "[[device]]\nid = \"{}\"\nkind = \"{}\"\n",
            device.id,
            device.kind.word()
        );
    }
    text
}

fn gateway_secrets(plan: &Plan, ways: &Ways) -> String {
    let mut text = format!(
        "token_key = \"{}\"\nlink = \"{}\"\nmonitor_password = \"{}\"\n\n{}\n[devices]\n",
        hex(&key(plan.seed, "token key")),
        hex(&key(plan.seed, "link")),
        hex(&key(plan.seed, "monitor")[..8]),
        ways.secrets,
    );
    for device in &plan.devices {
        let _ = writeln!(text, "{} = \"{}\"", device.id, hex(&device.secret.0));
    }
    text
}

fn mosquitto(dir: &Path) -> anyhow::Result<(Process, u16)> {
    let port = free_port()?;
    let file = dir.join("mosquitto.conf");
    fs::write(
        &file,
        format!(
            "listener {port} 127.0.0.1\nallow_anonymous true\nset_tcp_nodelay true\nmax_queued_messages 0\n\
             max_inflight_messages 4\nlog_dest stderr\nlog_type error\nlog_type notice\nlog_type information\n"
        ),
    )?;
    let program = ["mosquitto", "/usr/sbin/mosquitto"]
        .into_iter()
        .find(|program| Command::new(program).arg("-h").output().is_ok())
        .context("mosquitto is not installed; type: apt-get install mosquitto")?;
    let mut command = Command::new(program);
    command.arg("-c").arg(&file);
    let process = Process::start("mosquitto", command, &dir.join("mosquitto.log"))?;
    process.wait_for("running")?;
    Ok((process, port))
}

pub(crate) fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    let mut file = fs::OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    Ok(())
}

pub(crate) fn converse(socket: &Path, question: &str) -> anyhow::Result<Vec<String>> {
    let mut stream = UnixStream::connect(socket).with_context(|| format!("nobody answers at {}", socket.display()))?;
    writeln!(stream, "{question}")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(BufReader::new(stream).lines().collect::<Result<_, _>>()?)
}
